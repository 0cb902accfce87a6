/** Far JMP and CALL through call gates (SDM vol. 3A §6.8.3 to §6.8.6). */
import { awaitEndbranch } from './cet/branch-tracking.ts';
import {
  adoptShadowStack,
  callOnShadowStack,
  suitsTarget,
  switchShadowStack,
} from './cet/shadow-stack-transfer.ts';
import { checkOffset, inIa32eMode, isCode64, refuse, setRip } from './code-target.ts';
import { Descriptor, fetchDescriptor, isNull, markAccessed, Rights, SystemType } from './descriptor.ts';
import { Vector } from './exceptions.ts';
import { staysInRing } from './fred/fred-transitions.ts';
import { Segment } from './instruction.ts';
import type { Processor } from './processor.ts';
import { Register } from './registers.ts';
import { checkStackSegment, selectorOf, setCodeSegment, setNullSegment } from './segment-load.ts';
import { StackTarget } from './stack-target.ts';
import { readTssPointer64, TssStack } from './task-state-stack.ts';

const RSP = 2 * Register.RSP;
const RIP = 2 * Register.RIP;
const ITEM = 2 * Register.stackItem;
const ITEM_BYTES = 8 * Register.stackItem;
const UPPER_TYPE = 0x1f00;
const PARAMETERS = 0x1f;

const gate = new Descriptor();
const code = new Descriptor();
const stackSegment = new Descriptor();
const stack = new StackTarget();
const oldStack = new StackTarget();
const fromTss = new TssStack();

/** Fetches the gate, 16 bytes in IA-32e mode, and the code segment it names, and checks both. */
function checkGate(cpu: Processor, selector: number, isCall: boolean): boolean {
  const long = inIa32eMode(cpu);
  if (!fetchDescriptor(cpu, selector, gate, Vector.GP, long ? 16 : 8)) return false;
  if (long && (gate.upper & UPPER_TYPE) !== 0) return refuse(cpu, selector);
  if (gate.dpl < Math.max(cpu.cpl, selector & 3)) return refuse(cpu, selector);
  if (!gate.isPresent) return refuse(cpu, selector, Vector.NP);
  const target = gate.target;
  if (isNull(target)) return refuse(cpu, 0);
  if (!fetchDescriptor(cpu, target, code, Vector.GP)) return false;
  const allowed = isCall || code.isConforming ? code.dpl <= cpu.cpl : code.dpl === cpu.cpl;
  if (!code.isCode || !allowed) return refuse(cpu, target);
  if (long && (code.rights & (Rights.L | Rights.Big)) !== Rights.L) return refuse(cpu, target);
  if (!code.isPresent) return refuse(cpu, target, Vector.NP);
  return staysInRing(cpu, target, isCall && !code.isConforming ? code.dpl : cpu.cpl, code);
}

/** Bytes of an item in the frame of the gate. */
function itemBytes(cpu: Processor): number {
  if (inIa32eMode(cpu)) return 8;
  return gate.systemType === SystemType.CallGate16 ? 2 : 4;
}

function targetLow(): number {
  return gate.systemType === SystemType.CallGate16 ? gate.offsetLow & 0xffff : gate.offsetLow;
}

/** JMP through the call gate of `selector`. */
export function jumpThroughGate(cpu: Processor, selector: number): boolean {
  if (!checkGate(cpu, selector, false)) return false;
  if (!checkOffset(cpu, code, targetLow(), gate.offsetHigh)) return false;
  if (!suitsTarget(cpu, isCode64(cpu, code)) || !markAccessed(cpu, code)) return false;
  setCodeSegment(cpu, gate.target, cpu.cpl, code);
  setRip(cpu, targetLow(), gate.offsetHigh);
  awaitEndbranch(cpu);
  return true;
}

/** CALL through the call gate of `selector`; RIP is the return address. */
export function callThroughGate(cpu: Processor, selector: number): boolean {
  if (!checkGate(cpu, selector, true)) return false;
  const bytes = itemBytes(cpu);
  const cpl = code.isConforming ? cpu.cpl : code.dpl;
  const changesStack = cpl < cpu.cpl;
  if (changesStack) {
    if (!(bytes === 8 ? newStack64(cpu, cpl) : newStack(cpu, cpl))) return false;
  } else stack.current(cpu, 0);
  if (!checkOffset(cpu, code, targetLow(), gate.offsetHigh) || !markAccessed(cpu, code)) return false;
  if (changesStack && !(pushStackPointer(cpu, bytes) && copyParameters(cpu, bytes))) return false;
  const w = cpu.i32;
  const pushed =
    stack.push(cpu, selectorOf(cpu, Segment.CS), 0, bytes) &&
    stack.push(cpu, w[RIP] as number, w[RIP + 1] as number, bytes);
  if (!pushed) return false;
  const wide = bytes === 8;
  const follows = changesStack
    ? switchShadowStack(cpu, cpl, 0, wide, Register.RIP)
    : callOnShadowStack(cpu, wide, Register.RIP);
  if (!follows) return false;
  adoptShadowStack(cpu);
  setCodeSegment(cpu, gate.target, cpl, code);
  if (!changesStack) stack.adopt(cpu);
  else if (bytes === 8) {
    setNullSegment(cpu, Segment.SS, cpl, cpl);
    stack.adopt(cpu);
  } else stack.adoptWithSegment(cpu, fromTss.selector, stackSegment);
  setRip(cpu, targetLow(), gate.offsetHigh);
  awaitEndbranch(cpu);
  return true;
}

function newStack(cpu: Processor, cpl: number): boolean {
  if (!fromTss.read(cpu, cpl)) return false;
  if (isNull(fromTss.selector)) return refuse(cpu, 0, Vector.TS);
  if (!checkStackSegment(cpu, fromTss.selector, cpl, Vector.TS, stackSegment)) return false;
  stack.inSegment(cpu, stackSegment, fromTss.pointer, cpl, fromTss.selector & 0xfffc);
  return true;
}

function newStack64(cpu: Processor, cpl: number): boolean {
  if (!readTssPointer64(cpu, cpl)) return false;
  stack.flat(cpu, cpu.i32[ITEM] as number, cpu.i32[ITEM + 1] as number, cpl, 0);
  return true;
}

function pushStackPointer(cpu: Processor, bytes: number): boolean {
  const w = cpu.i32;
  return (
    stack.push(cpu, selectorOf(cpu, Segment.SS), 0, bytes) &&
    stack.push(cpu, w[RSP] as number, w[RSP + 1] as number, bytes)
  );
}

/** Copies the parameters on the caller's stack, in their order; in IA-32e mode there are none. */
function copyParameters(cpu: Processor, bytes: number): boolean {
  if (bytes === 8) return true;
  oldStack.current(cpu, 0);
  for (let n = (gate.parameters & PARAMETERS) - 1; n >= 0; n--) {
    if (!oldStack.peek(cpu, n * bytes, ITEM_BYTES, bytes)) return false;
    if (!stack.push(cpu, cpu.i32[ITEM] as number, 0, bytes)) return false;
  }
  return true;
}
