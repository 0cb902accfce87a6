/**
 * SIMD floating-point operations under MXCSR (SDM vol. 1 §10.2.3, §11.5): operands as exact values, results
 * put together in T2 and T3 until it is known that no unmasked exception takes their place.
 */
import { raise, Vector } from '../exceptions.ts';
import {
  type Float,
  fromBinary32,
  fromBinary64,
  Kind,
  toBinary32,
  toBinary64,
  zero,
} from '../float/float.ts';
import { FloatContext, type FloatFormat, type Rounding } from '../float/rounding.ts';
import { Next } from '../instruction.ts';
import type { Processor } from '../processor.ts';
import { CR4, Register } from '../registers.ts';

const MXCSR = 2 * Register.MXCSR;
const CR4_LOW = 2 * Register.CR4;
const DAZ = 1 << 6;
const FZ = 1 << 15;
/** Invalid operation, denormal operand, division by zero: found before anything is computed. */
const BEFORE_COMPUTATION = 7;

/** Byte offset of the result in the making. */
export const RESULT = 8 * Register.T2;

const context = new FloatContext();

/** The context of an operation with results of `format`. */
export function simdContext(cpu: Processor, format: FloatFormat): FloatContext {
  const mxcsr = cpu.i32[MXCSR] as number;
  context.format = format;
  context.rounding = ((mxcsr >> 13) & 3) as Rounding;
  context.masks = (mxcsr >> 7) & 0x3f;
  context.denormalsAreZeros = (mxcsr & DAZ) !== 0;
  context.flushesToZero = (mxcsr & FZ) !== 0;
  context.flags = 0;
  return context;
}

/** Enters the exceptions detected in MXCSR; for unmasked ones #XM, or #UD without CR4.OSXMMEXCPT, is raised. */
export function report(cpu: Processor, c: FloatContext): Next {
  const unmasked = c.flags & ~c.masks;
  const flags = (unmasked & BEFORE_COMPUTATION) !== 0 ? c.flags & BEFORE_COMPUTATION : c.flags;
  cpu.i32[MXCSR] = (cpu.i32[MXCSR] as number) | flags;
  if (unmasked === 0) return Next.Sequential;
  const reported = ((cpu.i32[CR4_LOW] as number) & (1 << CR4.OSXMMEXCPT)) !== 0;
  return raise(cpu, reported ? Vector.XM : Vector.UD);
}

const unlessDenormal = (c: FloatContext, a: Float): Float =>
  a.denormal && c.denormalsAreZeros && a.kind === Kind.Finite ? zero(a.sign) : a;

export function single(cpu: Processor, c: FloatContext, at: number): Float {
  return unlessDenormal(c, fromBinary32(cpu.i32[at >> 2] as number));
}

export function double(cpu: Processor, c: FloatContext, at: number): Float {
  return unlessDenormal(c, fromBinary64(cpu.quads[at >> 3] as bigint));
}

export function writeSingle(cpu: Processor, at: number, value: Float): void {
  cpu.i32[at >> 2] = toBinary32(value);
}

export function writeDouble(cpu: Processor, at: number, value: Float): void {
  cpu.quads[at >> 3] = toBinary64(value);
}

/** Moves the first `bytes` (a multiple of 4) of the result to the destination. */
export function takeResult(cpu: Processor, d: number, bytes: number): Next {
  for (let n = 0; n < bytes >> 2; n++) cpu.i32[(d >> 2) + n] = cpu.i32[(RESULT >> 2) + n] as number;
  return Next.Sequential;
}
