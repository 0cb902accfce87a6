/**
 * User interrupts (SDM vol. 3A chapter 9): recognition and delivery at CPL 3 in 64-bit mode, and what the
 * processor does instead of delivering an ordinary interrupt that is a notification.
 */

import { isCanonicalPair, linearise } from './addressing.ts';
import { Attention } from './attention.ts';
import { awaitEndbranch } from './cet/branch-tracking.ts';
import { Enforcement } from './cet/enforcement.ts';
import { pushReturnAddress } from './cet/shadow-stack.ts';
import { EventType, eventType, eventVector } from './event.ts';
import { raiseWithCode, Vector } from './exceptions.ts';
import { materialise } from './flags.ts';
import { Segment } from './instruction.ts';
import { loadLinear, store, storeLinear } from './memory-access.ts';
import { Mode } from './mode.ts';
import { translate } from './paging.ts';
import type { Processor } from './processor.ts';
import { CR4, EFER, Register, RFLAGS } from './registers.ts';
import { Access, AccessClass } from './tlb.ts';

const { RSP, RIP, T0, UIF, IA32_UINTR_RR, IA32_UINTR_HANDLER, IA32_UINTR_STACKADJUST } = Register;
const PENDING = 2 * Register.userInterruptPending;
const DELIVERY = 2 * Register.userInterruptDelivery;
const HANDLER = 2 * IA32_UINTR_HANDLER;
const REQUESTS = 2 * IA32_UINTR_RR;
const DESCRIPTOR = 2 * Register.IA32_UINTR_PD;
/** UINV is IA32_UINTR_MISC[39:32]. */
const UINV = 2 * Register.IA32_UINTR_MISC + 1;
const CR4_LOW = 2 * Register.CR4;
const EFER_LOW = 2 * Register.IA32_EFER;
const RFLAGS_LOW = 2 * Register.RFLAGS;
const BLOCKING_BY_STI = 2 * Register.blockingBySti;
const BLOCKING_BY_MOV_SS = 2 * Register.blockingByMovSs;
const ACTIVITY = 2 * Register.activityState;
const TF = 1 << RFLAGS.TF;
const RF = 1 << RFLAGS.RF;
/** Outstanding notification, bit 0 of a user posted-interrupt descriptor; its requests (PIR) are at byte 8. */
const OUTSTANDING = 1;
const PIR = 8;
const MODIFY = (Access.Read | Access.Write) << AccessClass.Supervisor;

/** CR4.UINTR. */
export function areUserInterruptsEnabled(cpu: Processor): boolean {
  return ((cpu.i32[CR4_LOW] as number) & (1 << CR4.UINTR)) !== 0;
}

function areNotificationsEnabled(cpu: Processor): boolean {
  return areUserInterruptsEnabled(cpu) && ((cpu.i32[EFER_LOW] as number) & (1 << EFER.LMA)) !== 0;
}

/** Recognises a pending user interrupt if one is requested in UIRR, or no longer does (SDM vol. 3A §9.4.1). */
export function recogniseUserInterrupts(cpu: Processor): void {
  const w = cpu.i32;
  w[PENDING] = ((w[REQUESTS] as number) | (w[REQUESTS + 1] as number)) === 0 ? 0 : 1;
  if (w[PENDING] !== 0) cpu.requestAttention(Attention.Event);
}

/** After VM entry and VM exit (SDM §29.7.10, §30.9). */
export function recogniseAfterTransition(cpu: Processor): void {
  if (areNotificationsEnabled(cpu)) recogniseUserInterrupts(cpu);
  else cpu.i32[PENDING] = 0;
}

/** Whether a pending user interrupt is to be delivered at this instruction boundary (SDM vol. 3A §9.4.2). */
export function isUserInterruptDue(cpu: Processor): boolean {
  const w = cpu.i32;
  if (w[PENDING] === 0 || w[2 * UIF] === 0 || cpu.cpl !== 3 || cpu.mode !== Mode.Bit64) return false;
  return areUserInterruptsEnabled(cpu) && w[BLOCKING_BY_MOV_SS] === 0 && w[ACTIVITY] === 0;
}

/** Delivers the pending user interrupt with the highest vector; false after raising a fault, with no register changed. */
export function deliverUserInterrupt(cpu: Processor): boolean {
  const w = cpu.i32;
  const { quads } = cpu;
  if (!isCanonicalPair(cpu, w[HANDLER + 1] as number)) {
    raiseWithCode(cpu, Vector.GP, 0);
    return false;
  }
  const rsp = quads[RSP] as bigint;
  const adjust = quads[IA32_UINTR_STACKADJUST] as bigint;
  const loads = (adjust & 1n) !== 0n;
  const top = BigInt.asUintN(64, (loads ? adjust : rsp - adjust) & ~0xfn);
  const flags = materialise(cpu);
  const vector = highestVector(w[REQUESTS] as number, w[REQUESTS + 1] as number);
  const repeating = cpu.repeatedAt === cpu.executed;
  w[DELIVERY] = 1;
  const pushed =
    pushAt(cpu, top - 8n, rsp) &&
    pushAt(cpu, top - 16n, BigInt(repeating ? flags | RF : flags)) &&
    pushAt(cpu, top - 24n, quads[RIP] as bigint) &&
    pushAt(cpu, top - 32n, BigInt(vector));
  const follows = pushed && (!hasShadowStack(cpu) || pushReturnAddress(cpu, 64));
  w[DELIVERY] = 0;
  if (!follows) return false;
  const word = REQUESTS + (vector >>> 5);
  w[word] = (w[word] as number) & ~(1 << (vector & 31));
  recogniseUserInterrupts(cpu);
  w[2 * UIF] = 0;
  w[RFLAGS_LOW] = flags & ~(TF | RF);
  w[BLOCKING_BY_STI] = 0;
  quads[RSP] = BigInt.asUintN(64, top - 32n);
  quads[RIP] = quads[IA32_UINTR_HANDLER] as bigint;
  awaitEndbranch(cpu);
  cpu.stateChanged();
  cpu.requestAttention();
  return true;
}

function hasShadowStack(cpu: Processor): boolean {
  return (cpu.enforcement & Enforcement.ShadowStack) !== 0;
}

function highestVector(low: number, high: number): number {
  return high !== 0 ? 63 - Math.clz32(high) : 31 - Math.clz32(low);
}

function pushAt(cpu: Processor, address: bigint, value: bigint): boolean {
  cpu.quads[T0] = value;
  const lo = Number(BigInt.asIntN(32, address));
  const hi = Number(BigInt.asIntN(32, address >> 32n));
  return linearise(cpu, Segment.SS, lo, hi, 8, Access.Write) && store(cpu, 8 * T0, 8);
}

/** Whether an ordinary interrupt with `vector` is a user-interrupt notification (SDM vol. 3A §9.5.1). */
export function isUserInterruptNotification(cpu: Processor, vector: number): boolean {
  return areNotificationsEnabled(cpu) && ((cpu.i32[UINV] as number) & 0xff) === vector;
}

/** Whether an event is an ordinary interrupt that is a user-interrupt notification. */
export function isUserInterruptNotificationEvent(cpu: Processor, event: number): boolean {
  return (
    eventType(event) === EventType.ExternalInterrupt && isUserInterruptNotification(cpu, eventVector(event))
  );
}

/**
 * User-interrupt notification processing (SDM vol. 3A §9.5.2): what was posted in the descriptor becomes
 * pending. False after raising a fault, with nothing changed.
 */
export function processUserInterruptNotification(cpu: Processor): boolean {
  const w = cpu.i32;
  const lo = w[DESCRIPTOR] as number;
  const hi = w[DESCRIPTOR + 1] as number;
  const word = 2 * T0;
  if (!mayModify(cpu, lo, hi)) return false;
  if (!loadLinear(cpu, lo, hi, 8 * T0, 4)) return false;
  w[word] = (w[word] as number) & ~OUTSTANDING;
  if (!storeLinear(cpu, lo, hi, 8 * T0, 4)) return false;
  if (!loadLinear(cpu, lo | PIR, hi, 8 * T0, 8)) return false;
  const low = w[word] as number;
  const high = w[word + 1] as number;
  w[word] = 0;
  w[word + 1] = 0;
  if (!storeLinear(cpu, lo | PIR, hi, 8 * T0, 8)) return false;
  w[REQUESTS] = (w[REQUESTS] as number) | low;
  w[REQUESTS + 1] = (w[REQUESTS + 1] as number) | high;
  if ((low | high) !== 0) recogniseUserInterrupts(cpu);
  // A string instruction is still between two iterations.
  if (cpu.repeatedAt === cpu.executed) cpu.repeatedAt++;
  return true;
}

/** Whether a descriptor (aligned to 64 bytes) may be read and written, with supervisor privilege; raises the fault if not. */
export function mayModify(cpu: Processor, lo: number, hi: number): boolean {
  if (!isCanonicalPair(cpu, hi)) {
    raiseWithCode(cpu, Vector.GP, 0);
    return false;
  }
  return translate(cpu, lo, hi, MODIFY) >= 0;
}
