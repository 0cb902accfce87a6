/**
 * Far JMP, CALL and RET (SDM vol. 2; vol. 3A §6.8). Each function answers what follows the instruction;
 * after a fault nothing has changed. RIP has advanced to the return address.
 */
import { callThroughGate, jumpThroughGate } from './call-gate.ts';
import { awaitEndbranch } from './cet/branch-tracking.ts';
import {
  adoptShadowStack,
  callOnShadowStack,
  returnOnShadowStack,
  suitsTarget,
} from './cet/shadow-stack-transfer.ts';
import {
  checkDirectCode,
  checkOffset,
  checkReturnCode,
  inIa32eMode,
  isCode64,
  linearTarget,
  refuse,
  setRip,
} from './code-target.ts';
import { Descriptor, fetchDescriptor, isNull, markAccessed, SystemType } from './descriptor.ts';
import { raiseWithCode, Vector } from './exceptions.ts';
import { staysInRing } from './fred/fred-transitions.ts';
import { type Instruction, Next, Segment } from './instruction.ts';
import type { Processor } from './processor.ts';
import { Register } from './registers.ts';
import {
  checkStackSegment,
  dropPrivilegedSegments,
  hasRealSegments,
  selectorOf,
  setCodeSegment,
  setNullSegment,
  setSegment,
  setUncheckedSegment,
} from './segment-load.ts';
import { adjustStackPointer, setStackPointer } from './stack.ts';
import { StackTarget } from './stack-target.ts';
import { TaskSwitchSource } from './task-switch.ts';
import { transferToTask } from './task-transfer.ts';

const RIP = 2 * Register.RIP;
const CS_LIMIT = 2 * Register['CS.limit'];
const ITEM = 2 * Register.stackItem;
const ITEM_BYTES = 8 * Register.stackItem;

const target = new Descriptor();
const stackSegment = new Descriptor();
const stack = new StackTarget();

const done = (succeeded: boolean) => (succeeded ? Next.Lookup : Next.Fault);

/** JMP to `selector`:`hi`:`lo`. */
export function farJump(cpu: Processor, i: Instruction, selector: number, lo: number, hi: number): Next {
  if (hasRealSegments(cpu)) return done(checkRealOffset(cpu, lo) && enterReal(cpu, selector, lo));
  if (isNull(selector)) return raiseWithCode(cpu, Vector.GP, 0);
  if (!fetchDescriptor(cpu, selector, target, Vector.GP)) return Next.Fault;
  if (target.isCode) {
    if (!checkDirect(cpu, selector) || !checkOffset(cpu, target, lo, hi)) return Next.Fault;
    if (!suitsTarget(cpu, isCode64(cpu, target)) || !markAccessed(cpu, target)) return Next.Fault;
    enter(cpu, selector, lo, hi);
    awaitEndbranch(cpu);
    return Next.Lookup;
  }
  if (isCallGate(cpu)) return done(jumpThroughGate(cpu, selector));
  return transferToTask(cpu, i, selector, target, TaskSwitchSource.Jmp);
}

/** CALL of `selector`:`hi`:`lo`. */
export function farCall(cpu: Processor, i: Instruction, selector: number, lo: number, hi: number): Next {
  const bytes = i.operandBits >> 3;
  if (hasRealSegments(cpu)) {
    if (!checkRealOffset(cpu, lo) || !pushReturnAddress(cpu, bytes)) return Next.Fault;
    stack.adopt(cpu);
    return done(enterReal(cpu, selector, lo));
  }
  if (isNull(selector)) return raiseWithCode(cpu, Vector.GP, 0);
  if (!fetchDescriptor(cpu, selector, target, Vector.GP)) return Next.Fault;
  if (target.isCode) {
    if (!checkDirect(cpu, selector) || !checkOffset(cpu, target, lo, hi)) return Next.Fault;
    if (!markAccessed(cpu, target) || !pushReturnAddress(cpu, bytes)) return Next.Fault;
    if (!callOnShadowStack(cpu, isCode64(cpu, target), Register.RIP)) return Next.Fault;
    stack.adopt(cpu);
    adoptShadowStack(cpu);
    enter(cpu, selector, lo, hi);
    awaitEndbranch(cpu);
    return Next.Lookup;
  }
  if (isCallGate(cpu)) return done(callThroughGate(cpu, selector));
  return transferToTask(cpu, i, selector, target, TaskSwitchSource.Call);
}

function checkDirect(cpu: Processor, selector: number): boolean {
  return checkDirectCode(cpu, selector, target) && staysInRing(cpu, selector, cpu.cpl, target);
}

function isCallGate(cpu: Processor): boolean {
  const type = target.systemType;
  return type === SystemType.CallGate32 || (type === SystemType.CallGate16 && !inIa32eMode(cpu));
}

function pushReturnAddress(cpu: Processor, bytes: number): boolean {
  const w = cpu.i32;
  stack.current(cpu, 0);
  return (
    stack.push(cpu, selectorOf(cpu, Segment.CS), 0, bytes) &&
    stack.push(cpu, w[RIP] as number, w[RIP + 1] as number, bytes)
  );
}

function enter(cpu: Processor, selector: number, lo: number, hi: number): true {
  setCodeSegment(cpu, selector, cpu.cpl, target);
  setRip(cpu, lo, hi);
  return true;
}

/** In real-address and virtual-8086 mode the limit of CS does not change. */
function checkRealOffset(cpu: Processor, lo: number): boolean {
  if (lo >>> 0 <= (cpu.i32[CS_LIMIT] as number) >>> 0) return true;
  raiseWithCode(cpu, Vector.GP, 0);
  return false;
}

function enterReal(cpu: Processor, selector: number, lo: number): true {
  setUncheckedSegment(cpu, Segment.CS, selector);
  setRip(cpu, lo, 0);
  return true;
}

/** RET: `release` more bytes leave the stack. */
export function farReturn(cpu: Processor, i: Instruction, release: number): Next {
  const w = cpu.i32;
  const bytes = i.operandBits >> 3;
  stack.current(cpu, 0);
  if (!stack.pop(cpu, ITEM_BYTES, bytes)) return Next.Fault;
  const lo = w[ITEM] as number;
  const hi = w[ITEM + 1] as number;
  if (!stack.pop(cpu, ITEM_BYTES, bytes)) return Next.Fault;
  const selector = (w[ITEM] as number) & 0xffff;
  if (hasRealSegments(cpu)) {
    if (!checkRealOffset(cpu, lo)) return Next.Fault;
    stack.adopt(cpu);
    adjustStackPointer(cpu, release);
    return done(enterReal(cpu, selector, lo));
  }
  if (!checkReturnCode(cpu, selector, target) || !staysInRing(cpu, selector, selector & 3, target))
    return Next.Fault;
  stack.release(release);
  if ((selector & 3) > cpu.cpl) return done(returnOutwards(cpu, bytes, selector, lo, hi, release));
  if (!checkOffset(cpu, target, lo, hi) || !markAccessed(cpu, target)) return Next.Fault;
  if (!mayReturn(cpu, selector, lo, hi)) return Next.Fault;
  stack.adopt(cpu);
  adoptShadowStack(cpu);
  return done(enter(cpu, selector, lo, hi));
}

/** What the shadow stack says of a return to `hi`:`lo` in the code segment that was checked. */
function mayReturn(cpu: Processor, selector: number, lo: number, hi: number): boolean {
  const lip = linearTarget(cpu, target, lo, hi);
  return returnOnShadowStack(cpu, selector, lip, isCode64(cpu, target), false);
}

/** RET to less privilege: SS and RSP are on the stack too, and parameters leave that stack as well. */
function returnOutwards(
  cpu: Processor,
  bytes: number,
  selector: number,
  lo: number,
  hi: number,
  release: number,
): boolean {
  const w = cpu.i32;
  const cpl = selector & 3;
  if (!stack.pop(cpu, ITEM_BYTES, bytes)) return false;
  const spLow = w[ITEM] as number;
  const spHigh = w[ITEM + 1] as number;
  if (!stack.pop(cpu, ITEM_BYTES, bytes)) return false;
  const ss = (w[ITEM] as number) & 0xffff;
  if (!checkReturnStack(cpu, ss, cpl, target, stackSegment)) return false;
  if (!checkOffset(cpu, target, lo, hi) || !markAccessed(cpu, target)) return false;
  if (!mayReturn(cpu, selector, lo, hi)) return false;
  adoptShadowStack(cpu);
  setCodeSegment(cpu, selector, cpl, target);
  setReturnStack(cpu, ss, cpl, stackSegment);
  setStackPointer(cpu, spLow, spHigh);
  adjustStackPointer(cpu, release);
  dropPrivilegedSegments(cpu, cpl);
  setRip(cpu, lo, hi);
  return true;
}

/** SS that RET or IRET returns to with code segment `code`; 64-bit code below CPL 3 may have a null SS. */
export function checkReturnStack(
  cpu: Processor,
  selector: number,
  cpl: number,
  code: Descriptor,
  d: Descriptor,
): boolean {
  if (!isNull(selector)) return checkStackSegment(cpu, selector, cpl, Vector.GP, d);
  return (isCode64(cpu, code) && cpl !== 3 && (selector & 3) === cpl) || refuse(cpu, 0);
}

/** Loads the SS that {@link checkReturnStack} accepted. */
export function setReturnStack(cpu: Processor, selector: number, cpl: number, d: Descriptor): void {
  if (isNull(selector)) setNullSegment(cpu, Segment.SS, selector, cpl);
  else setSegment(cpu, Segment.SS, selector, d);
}
