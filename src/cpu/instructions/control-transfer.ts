/** Near control transfers (SDM vol. 2: JMP, Jcc, CALL, RET, LOOP, JCXZ). */
import { isCanonicalPair } from '../addressing.ts';
import { trackBranch } from '../cet/branch-tracking.ts';
import { Enforcement } from '../cet/enforcement.ts';
import { matchesReturnAddress, pushReturnAddress, releaseShadow } from '../cet/shadow-stack.ts';
import { raiseWithCode, Vector } from '../exceptions.ts';
import { condition } from '../flags.ts';
import { type Execute, type Instruction, Next } from '../instruction.ts';
import { Mode } from '../mode.ts';
import type { OpcodeRow } from '../opcode-row.ts';
import type { Processor } from '../processor.ts';
import { Register } from '../registers.ts';
import { adjustStackPointer, loadStack, push, storeStack } from '../stack.ts';
import { CONDITIONS } from './move.ts';

const RIP = 2 * Register.RIP;
const RCX = 2 * Register.RCX;
const RIP_AT = 8 * Register.RIP;
const T0 = 8 * Register.T0;
const CS_LIMIT = 2 * Register['CS.limit'];
const EQUAL = 4;

/** Whether RIP may become `hi`:`lo` (truncated to the operand size); #GP(0) is raised if not. */
function mayBranchTo(cpu: Processor, i: Instruction, lo: number, hi: number): boolean {
  const target = i.operandBits === 16 ? lo & 0xffff : lo;
  const allowed =
    cpu.mode === Mode.Bit64 ? isCanonicalPair(cpu, hi) : target >>> 0 <= (cpu.i32[CS_LIMIT] as number) >>> 0;
  if (!allowed) raiseWithCode(cpu, Vector.GP, 0);
  return allowed;
}

function setInstructionPointer(cpu: Processor, i: Instruction, lo: number, hi: number): Next {
  const w = cpu.i32;
  w[RIP] = i.operandBits === 16 ? lo & 0xffff : lo;
  w[RIP + 1] = i.operandBits === 64 ? hi : 0;
  return Next.Lookup;
}

/**
 * RIP := `hi`:`lo` truncated to the operand size. #GP(0) if that is not canonical or beyond the limit
 * of CS; RIP then is unchanged.
 */
function branchTo(cpu: Processor, i: Instruction, lo: number, hi: number): Next {
  return mayBranchTo(cpu, i, lo, hi) ? setInstructionPointer(cpu, i, lo, hi) : Next.Fault;
}

/** Pushes the address of the next instruction and branches; nothing is pushed if the target is not allowed. */
function callTo(cpu: Processor, i: Instruction, lo: number, hi: number): Next {
  if (!mayBranchTo(cpu, i, lo, hi) || !push(cpu, RIP_AT, i.operandBits >> 3)) return Next.Fault;
  return setInstructionPointer(cpu, i, lo, hi);
}

const relativeLow = (cpu: Processor, i: Instruction) => ((cpu.i32[RIP] as number) + i.immediate) | 0;

function relativeHigh(cpu: Processor, i: Instruction): number {
  const sum = ((cpu.i32[RIP] as number) >>> 0) + (i.immediate >>> 0);
  return ((cpu.i32[RIP + 1] as number) + i.immediateHigh + (sum > 0xffff_ffff ? 1 : 0)) | 0;
}

/** Branches by the displacement in the instruction. */
function branchBy(cpu: Processor, i: Instruction): Next {
  return branchTo(cpu, i, relativeLow(cpu, i), relativeHigh(cpu, i));
}

// What is enforced stands apart: these are on the way of all code (bench: "call loop").
const callRelative: Execute = (cpu, i) =>
  cpu.enforcement === 0
    ? callTo(cpu, i, relativeLow(cpu, i), relativeHigh(cpu, i))
    : enforcedCallRelative(cpu, i);

const jumpIndirect: Execute = (cpu, i) => {
  const next = branchTo(cpu, i, cpu.i32[i.d >> 2] as number, cpu.i32[(i.d >> 2) + 1] as number);
  return cpu.enforcement === 0 ? next : tracked(cpu, i, next);
};

const callIndirect: Execute = (cpu, i) =>
  cpu.enforcement === 0
    ? callTo(cpu, i, cpu.i32[i.d >> 2] as number, cpu.i32[(i.d >> 2) + 1] as number)
    : enforcedCallIndirect(cpu, i);

/** CALL where control flow is enforced: the return address goes to the shadow stack too, if there is one. */
function enforcedCall(cpu: Processor, i: Instruction, lo: number, hi: number): Next {
  const bytes = i.operandBits >> 3;
  if (!mayBranchTo(cpu, i, lo, hi) || !storeStack(cpu, -bytes, RIP_AT, bytes)) return Next.Fault;
  const pushes = (cpu.enforcement & Enforcement.ShadowStack) !== 0;
  if (pushes && !pushReturnAddress(cpu, i.operandBits)) return Next.Fault;
  adjustStackPointer(cpu, -bytes);
  return setInstructionPointer(cpu, i, lo, hi);
}

/** CALL of the next instruction, which only wants to know where it is, leaves the shadow stack alone. */
function enforcedCallRelative(cpu: Processor, i: Instruction): Next {
  const call = i.immediate === 0 ? callTo : enforcedCall;
  return call(cpu, i, relativeLow(cpu, i), relativeHigh(cpu, i));
}

function enforcedCallIndirect(cpu: Processor, i: Instruction): Next {
  const lo = cpu.i32[i.d >> 2] as number;
  return tracked(cpu, i, enforcedCall(cpu, i, lo, cpu.i32[(i.d >> 2) + 1] as number));
}

/** The tracker waits after a near indirect branch that was taken. */
function tracked(cpu: Processor, i: Instruction, next: Next): Next {
  if (next !== Next.Fault && (cpu.enforcement & Enforcement.Tracking) !== 0) trackBranch(cpu, i);
  return next;
}

/** Pops the target, and `released` bytes more. */
function returnReleasing(cpu: Processor, i: Instruction, released: number): Next {
  const bytes = i.operandBits >> 3;
  if (!loadStack(cpu, 0, T0, bytes)) return Next.Fault;
  if (cpu.enforcement !== 0) return enforcedReturn(cpu, i, released);
  const next = branchTo(cpu, i, cpu.i32[T0 >> 2] as number, cpu.i32[(T0 >> 2) + 1] as number);
  if (next !== Next.Fault) adjustStackPointer(cpu, bytes + released);
  return next;
}

/** RET to the address in T0 where control flow is enforced: the shadow stack, if there is one, has to have the same. */
function enforcedReturn(cpu: Processor, i: Instruction, released: number): Next {
  const pops = (cpu.enforcement & Enforcement.ShadowStack) !== 0;
  if (pops && !matchesReturnAddress(cpu, i.operandBits, T0 >> 3)) return Next.Fault;
  const next = branchTo(cpu, i, cpu.i32[T0 >> 2] as number, cpu.i32[(T0 >> 2) + 1] as number);
  if (next === Next.Fault) return next;
  adjustStackPointer(cpu, (i.operandBits >> 3) + released);
  if (pops) releaseShadow(cpu, i.operandBits === 64 ? 8 : 4);
  return next;
}

const ret: Execute = (cpu, i) => returnReleasing(cpu, i, 0);
const retImmediate: Execute = (cpu, i) => returnReleasing(cpu, i, i.immediate & 0xffff);

function jcc(code: number): Execute {
  return (cpu, i) => (condition(cpu, code) ? branchBy(cpu, i) : Next.Sequential);
}

/** CX, ECX or RCX by address size is 0. */
function countIsZero(cpu: Processor, i: Instruction): boolean {
  const count = cpu.i32[RCX] as number;
  if (i.addressBits === 16) return (count & 0xffff) === 0;
  return count === 0 && (i.addressBits === 32 || cpu.i32[RCX + 1] === 0);
}

const jcxz: Execute = (cpu, i) => (countIsZero(cpu, i) ? branchBy(cpu, i) : Next.Sequential);

function decrementCount(cpu: Processor, addressBits: number): void {
  const w = cpu.i32;
  const count = w[RCX] as number;
  if (addressBits === 16) {
    w[RCX] = (count & ~0xffff) | ((count - 1) & 0xffff);
    return;
  }
  w[RCX] = count - 1;
  if (addressBits === 32) w[RCX + 1] = 0;
  else if (count === 0) w[RCX + 1] = (w[RCX + 1] as number) - 1;
}

/** LOOP, LOOPE, LOOPNE: the count stays as it was if the branch faults. */
function loop(continues: (cpu: Processor) => boolean): Execute {
  return (cpu, i) => {
    const w = cpu.i32;
    const lo = w[RCX] as number;
    const hi = w[RCX + 1] as number;
    decrementCount(cpu, i.addressBits);
    if (countIsZero(cpu, i) || !continues(cpu)) return Next.Sequential;
    const next = branchBy(cpu, i);
    if (next === Next.Fault) {
      w[RCX] = lo;
      w[RCX + 1] = hi;
    }
    return next;
  };
}

const loopAlways = loop(() => true);
const loopEqual = loop((cpu) => condition(cpu, EQUAL));
const loopNotEqual = loop((cpu) => !condition(cpu, EQUAL));

const digit = (n: number) => n.toString(16).toUpperCase();

export const CONTROL_TRANSFER_ROWS: readonly OpcodeRow[] = [
  { opcode: 'EB', mnemonic: 'JMP', operands: 'Jb', execute: branchBy, size: 'f64', ends: true },
  { opcode: 'E9', mnemonic: 'JMP', operands: 'Jz', execute: branchBy, size: 'f64', ends: true },
  { opcode: 'FF /4', mnemonic: 'JMP', operands: 'Ev', execute: jumpIndirect, size: 'f64', ends: true },
  { opcode: 'E8', mnemonic: 'CALL', operands: 'Jz', execute: callRelative, size: 'f64', ends: true },
  { opcode: 'FF /2', mnemonic: 'CALL', operands: 'Ev', execute: callIndirect, size: 'f64', ends: true },
  { opcode: 'C3', mnemonic: 'RET', operands: '', execute: ret, size: 'f64', ends: true },
  { opcode: 'C2', mnemonic: 'RET', operands: 'Iw', execute: retImmediate, size: 'f64', ends: true },
  { opcode: 'E0', mnemonic: 'LOOPNE', operands: 'Jb', execute: loopNotEqual, size: 'f64' },
  { opcode: 'E1', mnemonic: 'LOOPE', operands: 'Jb', execute: loopEqual, size: 'f64' },
  { opcode: 'E2', mnemonic: 'LOOP', operands: 'Jb', execute: loopAlways, size: 'f64' },
  { opcode: 'E3', mnemonic: 'JCXZ/JECXZ/JRCXZ', operands: 'Jb', execute: jcxz, size: 'f64' },
  ...CONDITIONS.flatMap((suffix, code): OpcodeRow[] => [
    { opcode: `7${digit(code)}`, mnemonic: `J${suffix}`, operands: 'Jb', execute: jcc(code), size: 'f64' },
    { opcode: `0F 8${digit(code)}`, mnemonic: `J${suffix}`, operands: 'Jz', execute: jcc(code), size: 'f64' },
  ]),
];
