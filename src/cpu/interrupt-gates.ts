/**
 * Delivery of an event through the IDT of protected, virtual-8086 and IA-32e mode (SDM vol. 3A §7.11 to
 * §7.14; vol. 2A, INT n). The event is in the slots `originalEvent…`; each function answers false after
 * raising a fault, and then no register has changed but the temporaries.
 */
import { isCanonicalPair } from './addressing.ts';
import { awaitEndbranch } from './cet/branch-tracking.ts';
import {
  adoptShadowStack,
  callOnShadowStack,
  switchInterruptShadowStack,
  switchShadowStack,
} from './cet/shadow-stack-transfer.ts';
import {
  Descriptor,
  fetchDescriptor,
  isNull,
  markAccessed,
  Rights,
  readAt,
  SystemType,
} from './descriptor.ts';
import { eventVector, HAS_ERROR_CODE, isSoftwareEvent } from './event.ts';
import { raiseForSelector, raiseWithCode, Vector } from './exceptions.ts';
import { materialise } from './flags.ts';
import { Segment } from './instruction.ts';
import { Mode } from './mode.ts';
import type { Processor } from './processor.ts';
import { Register, RFLAGS } from './registers.ts';
import { checkStackSegment, selectorOf, setCodeSegment, setNullSegment } from './segment-load.ts';
import { StackTarget } from './stack-target.ts';
import { readTssPointer64, TssStack } from './task-state-stack.ts';
import { switchTaskForEvent } from './task-switch.ts';

const EVENT = 2 * Register.originalEvent;
const EVENT_CODE = 2 * Register.originalEventErrorCode;
const EVENT_FLAGS = 2 * Register.originalEventFlags;
const RETURN = 2 * Register.returnAddress;
const EXTERNAL = 2 * Register.external;
const ITEM = 2 * Register.stackItem;
const IDTR_BASE = 2 * Register['IDTR.base'];
const IDTR_LIMIT = 2 * Register['IDTR.limit'];
const RFLAGS_LOW = 2 * Register.RFLAGS;
const RSP = 2 * Register.RSP;
const RIP = 2 * Register.RIP;
const IF = 1 << RFLAGS.IF;
const VM = 1 << RFLAGS.VM;
/** Cleared in RFLAGS by delivery through any gate; IF too by an interrupt gate. */
const CLEARED = (1 << RFLAGS.TF) | (1 << RFLAGS.NT) | (1 << RFLAGS.RF) | VM;
/** Second part of an error code that refers to the IDT (SDM vol. 3A §7.13). */
const IDT = 2;

const gate = new Descriptor();
const code = new Descriptor();
const stackSegment = new Descriptor();
const stack = new StackTarget();
const fromTss = new TssStack();

function refuse(cpu: Processor, vector: Vector, selector: number): false {
  raiseForSelector(cpu, vector, selector);
  return false;
}

/** Through the IDT, whatever the gate. */
export function deliverThroughGate(cpu: Processor): boolean {
  const w = cpu.i32;
  const event = w[EVENT] as number;
  const long = cpu.mode >= Mode.Compatibility;
  const bytes = long ? 16 : 8;
  const offset = eventVector(event) * bytes;
  const errorCode = (eventVector(event) << 3) | IDT;
  if (offset + bytes - 1 > (w[IDTR_LIMIT] as number) >>> 0) return refuseGate(cpu, Vector.GP, errorCode);
  if (!readAt(cpu, IDTR_BASE, offset, bytes, gate)) return false;
  const type = gate.systemType;
  const isTaskGate = type === SystemType.TaskGate && !long;
  const is16 = (type === SystemType.InterruptGate16 || type === SystemType.TrapGate16) && !long;
  const is32 = type === SystemType.InterruptGate32 || type === SystemType.TrapGate32;
  if (!isTaskGate && !is16 && !is32) return refuseGate(cpu, Vector.GP, errorCode);
  if (isSoftwareEvent(event) && gate.dpl < cpu.cpl) return refuseGate(cpu, Vector.GP, errorCode);
  if (!gate.isPresent) return refuseGate(cpu, Vector.NP, errorCode);
  if (isTaskGate) return switchTaskForEvent(cpu, gate.target);
  return checkHandler(cpu, long) && (long ? enter64(cpu) : enter(cpu, is16 ? 2 : 4));
}

function refuseGate(cpu: Processor, vector: Vector, errorCode: number): false {
  raiseWithCode(cpu, vector, errorCode | (cpu.i32[EXTERNAL] as number));
  return false;
}

/** The code segment of the handler. */
function checkHandler(cpu: Processor, long: boolean): boolean {
  const selector = gate.target;
  if (isNull(selector)) return refuse(cpu, Vector.GP, 0);
  if (!fetchDescriptor(cpu, selector, code, Vector.GP)) return false;
  if (!code.isCode || code.dpl > cpu.cpl) return refuse(cpu, Vector.GP, selector);
  if (long && (code.rights & (Rights.L | Rights.Big)) !== Rights.L) return refuse(cpu, Vector.GP, selector);
  if (!code.isPresent) return refuse(cpu, Vector.NP, selector);
  // From virtual-8086 mode only code of privilege level 0 can be entered.
  const virtual = cpu.mode === Mode.Virtual8086;
  return virtual && (code.isConforming || code.dpl !== 0) ? refuse(cpu, Vector.GP, selector) : true;
}

function handlerCpl(cpu: Processor): number {
  return code.isConforming ? cpu.cpl : code.dpl;
}

/** RFLAGS as the handler will find it in its frame. */
function flagsImage(cpu: Processor): number {
  return materialise(cpu) | (cpu.i32[EVENT_FLAGS] as number);
}

/** Interrupt gates have an even type, trap gates an odd one. */
function enterHandler(cpu: Processor, cpl: number): void {
  const w = cpu.i32;
  const cleared = (gate.rights & 1) === 0 ? CLEARED | IF : CLEARED;
  w[RFLAGS_LOW] = (w[RFLAGS_LOW] as number) & ~cleared;
  setCodeSegment(cpu, gate.target, cpl, code);
}

/** Through a gate outside IA-32e mode whose frame has items of `bytes` bytes. */
function enter(cpu: Processor, bytes: number): boolean {
  const w = cpu.i32;
  const cpl = handlerCpl(cpu);
  const virtual = cpu.mode === Mode.Virtual8086;
  const external = w[EXTERNAL] as number;
  const changesStack = virtual || cpl !== cpu.cpl;
  if (changesStack) {
    if (!fromTss.read(cpu, cpl)) return false;
    if (isNull(fromTss.selector)) return refuse(cpu, Vector.TS, 0);
    if (!checkStackSegment(cpu, fromTss.selector, cpl, Vector.TS, stackSegment)) return false;
    stack.inSegment(cpu, stackSegment, fromTss.pointer, cpl, (fromTss.selector & 0xfffc) | external);
  } else stack.current(cpu, external);
  const target = bytes === 2 ? gate.offsetLow & 0xffff : gate.offsetLow;
  if (target >>> 0 > code.limit >>> 0) return refuse(cpu, Vector.GP, 0);
  if (!markAccessed(cpu, code)) return false;
  if (virtual && !pushDataSegments(cpu, bytes)) return false;
  if (changesStack && !pushStackPointer(cpu, bytes)) return false;
  if (!pushFrame(cpu, bytes)) return false;
  const follows = changesStack
    ? switchShadowStack(cpu, cpl, 0, false, Register.returnAddress)
    : callOnShadowStack(cpu, false, Register.returnAddress);
  if (!follows) return false;
  adoptShadowStack(cpu);
  if (virtual) {
    for (const segment of [Segment.GS, Segment.FS, Segment.DS, Segment.ES]) setNullSegment(cpu, segment, 0);
  }
  enterHandler(cpu, cpl);
  if (changesStack) stack.adoptWithSegment(cpu, fromTss.selector, stackSegment);
  else stack.adopt(cpu);
  w[RIP] = target;
  w[RIP + 1] = 0;
  awaitEndbranch(cpu);
  return true;
}

/** What virtual-8086 mode leaves on the handler's stack (SDM vol. 3B §22.3.1.1). */
function pushDataSegments(cpu: Processor, bytes: number): boolean {
  return (
    stack.push(cpu, selectorOf(cpu, Segment.GS), 0, bytes) &&
    stack.push(cpu, selectorOf(cpu, Segment.FS), 0, bytes) &&
    stack.push(cpu, selectorOf(cpu, Segment.DS), 0, bytes) &&
    stack.push(cpu, selectorOf(cpu, Segment.ES), 0, bytes)
  );
}

function pushStackPointer(cpu: Processor, bytes: number): boolean {
  const w = cpu.i32;
  return (
    stack.push(cpu, selectorOf(cpu, Segment.SS), 0, bytes) &&
    stack.push(cpu, w[RSP] as number, w[RSP + 1] as number, bytes)
  );
}

/** RFLAGS, CS, return address, error code. */
function pushFrame(cpu: Processor, bytes: number): boolean {
  const w = cpu.i32;
  return (
    stack.push(cpu, flagsImage(cpu), 0, bytes) &&
    stack.push(cpu, selectorOf(cpu, Segment.CS), 0, bytes) &&
    stack.push(cpu, w[RETURN] as number, w[RETURN + 1] as number, bytes) &&
    (((w[EVENT] as number) & HAS_ERROR_CODE) === 0 || stack.push(cpu, w[EVENT_CODE] as number, 0, bytes))
  );
}

const IST_OF_TSS = 3;
const STACK_ALIGNMENT = 16;

/** Through a gate in IA-32e mode: to 64-bit code, SS:RSP always pushed (SDM vol. 3A §7.14). */
function enter64(cpu: Processor): boolean {
  const w = cpu.i32;
  const cpl = handlerCpl(cpu);
  const changesPrivilege = cpl !== cpu.cpl;
  const ist = gate.parameters & 7;
  const external = w[EXTERNAL] as number;
  if (!isCanonicalPair(cpu, gate.offsetHigh)) return refuse(cpu, Vector.GP, 0);
  let low = w[RSP] as number;
  let high = w[RSP + 1] as number;
  if (ist !== 0 || changesPrivilege) {
    if (!readTssPointer64(cpu, ist !== 0 ? ist + IST_OF_TSS : cpl)) return false;
    low = w[ITEM] as number;
    high = w[ITEM + 1] as number;
  }
  if (!markAccessed(cpu, code)) return false;
  stack.flat(cpu, low & -STACK_ALIGNMENT, high, cpl, external);
  if (!pushStackPointer(cpu, 8) || !pushFrame(cpu, 8)) return false;
  if (!enterShadowStack(cpu, cpl, ist)) return false;
  enterHandler(cpu, cpl);
  if (changesPrivilege) setNullSegment(cpu, Segment.SS, cpl, cpl);
  stack.adopt(cpu);
  w[RIP] = gate.offsetLow;
  w[RIP + 1] = gate.offsetHigh;
  awaitEndbranch(cpu);
  return true;
}

function enterShadowStack(cpu: Processor, cpl: number, ist: number): boolean {
  let follows: boolean;
  if (cpl !== cpu.cpl) follows = switchShadowStack(cpu, cpl, ist, true, Register.returnAddress);
  else if (ist !== 0) follows = switchInterruptShadowStack(cpu, ist, Register.returnAddress);
  else follows = callOnShadowStack(cpu, true, Register.returnAddress);
  if (follows) adoptShadowStack(cpu);
  return follows;
}
