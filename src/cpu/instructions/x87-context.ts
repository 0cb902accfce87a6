/**
 * An x87 operation from its operands to FSW (SDM vol. 1 §8.1, §8.5): stack faults, what becomes of the result
 * when an exception is unmasked, condition code C1, and the instruction and data pointers.
 */
import { effectiveAddress } from '../addressing.ts';
import { exactInteger } from '../float/conversion.ts';
import {
  extendedSignExponent,
  extendedSignificand,
  type Float,
  fromBinary32,
  fromBinary64,
  fromExtended,
  INDEFINITE,
} from '../float/float.ts';
import {
  EXTENDED,
  EXTENDED_24,
  EXTENDED_53,
  FloatContext,
  FloatException,
  type FloatFormat,
  type Rounding,
} from '../float/rounding.ts';
import type { Instruction } from '../instruction.ts';
import type { Processor } from '../processor.ts';
import { Register } from '../registers.ts';
import {
  C1,
  controlWord,
  isEmpty,
  STACK_FAULT,
  setEmpty,
  setStatusWord,
  setTop,
  stackAt,
  statusWord,
  top,
} from '../x87-state.ts';

const FIP = 2 * Register.FIP;
const FDP = 2 * Register.FDP;
const FOP = 2 * Register.FOP;
const RIP = 2 * Register.RIP;
const LINEAR = 2 * Register.linear;

const { Invalid, Denormal, ZeroDivide, Overflow, Underflow } = FloatException;
const BEFORE_COMPUTATION = Invalid | Denormal | ZeroDivide;
/** Exceptions that, unmasked, keep a result from memory. */
const KEEPS_FROM_MEMORY = BEFORE_COMPUTATION | Overflow | Underflow;

/** Formats by FCW.PC; the reserved value 1 is like 3. */
const PRECISIONS: readonly FloatFormat[] = [EXTENDED_24, EXTENDED, EXTENDED_53, EXTENDED];

const context = new FloatContext();
context.x87 = true;
/** 0, or what FSW has in addition after a stack fault. */
let stackFault = 0;

/** The context of an operation on the stack; in the double extended format if not said otherwise. */
export function x87Context(cpu: Processor, format: FloatFormat = EXTENDED): FloatContext {
  const fcw = controlWord(cpu);
  context.format = format;
  context.rounding = ((fcw >> 10) & 3) as Rounding;
  context.masks = fcw & 0x3f;
  context.flags = 0;
  context.roundedUp = false;
  stackFault = 0;
  return context;
}

/** The format of results of additions, multiplications, divisions and square roots: FCW.PC. */
export function controlledPrecision(cpu: Processor): FloatFormat {
  return PRECISIONS[(controlWord(cpu) >> 8) & 3] as FloatFormat;
}

/** A register that had to be in use is empty. */
export function stackUnderflow(c: FloatContext): Float {
  c.raise(Invalid);
  stackFault = STACK_FAULT;
  return INDEFINITE;
}

/** A register that had to be empty is in use. */
export function stackOverflow(c: FloatContext): Float {
  c.raise(Invalid);
  stackFault = STACK_FAULT | C1;
  return INDEFINITE;
}

/** Enters in FSW what the operation detected, and the pointers; `codes` are condition codes to set besides C1. */
function report(cpu: Processor, i: Instruction, c: FloatContext, mask: number, codes: number): void {
  const unmasked = c.flags & ~c.masks;
  const flags = (unmasked & BEFORE_COMPUTATION) !== 0 ? c.flags & BEFORE_COMPUTATION : c.flags;
  const rounded = c.roundedUp && (flags & FloatException.Inexact) !== 0 ? C1 : 0;
  const c1 = stackFault !== 0 ? stackFault : rounded;
  setStatusWord(cpu, (statusWord(cpu) & ~(C1 | mask)) | flags | c1 | codes);
  notePointers(cpu, i, unmasked !== 0);
}

/** Reports; whether the result may go to a register, and the stack be popped. */
export function finishToRegister(cpu: Processor, i: Instruction, c: FloatContext): boolean {
  report(cpu, i, c, 0, 0);
  return (c.flags & ~c.masks & BEFORE_COMPUTATION) === 0;
}

/** Reports; whether the result may go to memory, and the stack be popped. */
export function finishToMemory(cpu: Processor, i: Instruction, c: FloatContext): boolean {
  // What is not stored is not rounded either.
  if ((c.flags & ~c.masks & (Overflow | Underflow)) !== 0) c.flags &= ~FloatException.Inexact;
  report(cpu, i, c, 0, 0);
  return (c.flags & ~c.masks & KEEPS_FROM_MEMORY) === 0;
}

/** Whether an invalid operation is unmasked: condition codes and flags are not set then. */
export function isInvalidUnmasked(c: FloatContext): boolean {
  return (c.flags & ~c.masks & Invalid) !== 0;
}

/** Reports with condition codes `codes` out of `mask`; whether to pop. */
export function finishWithCodes(
  cpu: Processor,
  i: Instruction,
  c: FloatContext,
  mask: number,
  codes: number,
): boolean {
  const sets = !isInvalidUnmasked(c);
  report(cpu, i, c, sets ? mask : 0, sets ? codes : 0);
  return (c.flags & ~c.masks & BEFORE_COMPUTATION) === 0;
}

/** FIP and FDP are those of the last instruction that is no control instruction, FOP of the last that failed. */
function notePointers(cpu: Processor, i: Instruction, failed: boolean): void {
  const w = cpu.i32;
  const lo = w[RIP] as number;
  w[FIP] = lo - i.length;
  const borrows = lo >>> 0 < i.length && cpu.codeBits === 64;
  w[FIP + 1] = borrows ? (w[RIP + 1] as number) - 1 : (w[RIP + 1] as number);
  if (i.hasMemory) {
    effectiveAddress(cpu, i);
    w[FDP] = w[LINEAR] as number;
    w[FDP + 1] = w[LINEAR + 1] as number;
  }
  if (failed) {
    const opcode = Number.parseInt(i.row.opcode.slice(0, 2), 16);
    w[FOP] = ((opcode & 7) << 8) | (i.mod << 6) | ((i.reg & 7) << 3) | (i.rm & 7);
  }
}

/** The value of ST(i). */
export function stackValue(cpu: Processor, i: number): Float {
  const at = stackAt(cpu, i);
  return fromExtended(cpu.quads[at >> 3] as bigint, cpu.i32[(at + 8) >> 2] as number);
}

/** Writes ST(i), which is in use then. */
export function setStack(cpu: Processor, i: number, value: Float): void {
  const at = stackAt(cpu, i);
  cpu.quads[at >> 3] = extendedSignificand(value);
  cpu.quads[(at >> 3) + 1] = BigInt(extendedSignExponent(value));
  setEmpty(cpu, i, false);
}

export function push(cpu: Processor, value: Float): void {
  setTop(cpu, top(cpu) - 1);
  setStack(cpu, 0, value);
}

/** Pops `count` registers. */
export function pop(cpu: Processor, count = 1): void {
  for (let n = 0; n < count; n++) {
    setEmpty(cpu, 0, true);
    setTop(cpu, top(cpu) + 1);
  }
}

/** Whether there is room for a push. */
export function hasRoom(cpu: Processor): boolean {
  return isEmpty(cpu, 7);
}

/** What an operand in memory holds. */
export type MemoryFormat = 'single' | 'double' | 'word' | 'doubleword' | 'quadword';

/** The operand that was loaded to byte offset `at`. */
export function memoryValue(cpu: Processor, at: number, format: MemoryFormat): Float {
  switch (format) {
    case 'single':
      return fromBinary32(cpu.i32[at >> 2] as number);
    case 'double':
      return fromBinary64(cpu.quads[at >> 3] as bigint);
    case 'word':
      return exactInteger(BigInt(((cpu.i32[at >> 2] as number) << 16) >> 16));
    case 'doubleword':
      return exactInteger(BigInt(cpu.i32[at >> 2] as number));
    default:
      return exactInteger(BigInt.asIntN(64, cpu.quads[at >> 3] as bigint));
  }
}
