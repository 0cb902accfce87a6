/**
 * SIMD arithmetic through the numbers of JavaScript, where that is provably what MXCSR asks for: rounding to
 * nearest, all exceptions masked, no DAZ or FZ, operands normal or 0, the result normal or an exact 0, and the
 * inexact flag set already or known to stay 0. Operations on binary32 in binary64 followed by a second
 * rounding are correctly rounded, as 53 ≥ 2 × 24 + 2.
 */
import type { Processor } from '../processor.ts';
import { Register } from '../registers.ts';
import { RESULT } from './simd-context.ts';

const MXCSR = 2 * Register.MXCSR;
/** Rounding, masks, DAZ and FZ, and what they have to be. */
const CONTROL = 0xffc0;
const DEFAULT = 0x1f80;
const INEXACT = 0x20;

const LEAST_DOUBLE = 2 ** -1022;
const LEAST_SINGLE = 2 ** -126;
const MOST_SINGLE = (2 - 2 ** -23) * 2 ** 127;

export interface FastOperation {
  readonly apply: (a: number, b: number) => number;
  /** Whether a result 0 of operands that are not 0 is exact. */
  readonly cancels: boolean;
  /** Whether the result `r` of binary64 operands is known to be exact. */
  readonly isExact: (a: number, b: number, r: number) => boolean;
  /** The same of binary32 operands, `r` being a binary32. */
  readonly isExactSingle: (a: number, b: number, r: number) => boolean;
}

/** Whether the rounding error of r = a + b is 0. */
function sumIsExact(a: number, b: number, r: number): boolean {
  const b2 = r - a;
  return a - (r - b2) + (b - b2) === 0;
}

const unknown = (): boolean => false;

export const FAST = {
  add: {
    apply: (a, b) => a + b,
    cancels: true,
    isExact: sumIsExact,
    isExactSingle: (a, b, r) => a + b === r && sumIsExact(a, b, r),
  },
  subtract: {
    apply: (a, b) => a - b,
    cancels: true,
    isExact: (a, b, r) => sumIsExact(a, -b, r),
    isExactSingle: (a, b, r) => a - b === r && sumIsExact(a, -b, r),
  },
  multiply: {
    apply: (a, b) => a * b,
    cancels: false,
    isExact: unknown,
    isExactSingle: (a, b, r) => a * b === r,
  },
  divide: {
    apply: (a, b) => a / b,
    cancels: false,
    isExact: unknown,
    isExactSingle: (a, b, r) => r * b === a,
  },
  squareRoot: {
    apply: (_, b) => Math.sqrt(b),
    cancels: false,
    isExact: unknown,
    isExactSingle: (_, b, r) => r * r === b,
  },
} as const satisfies Record<string, FastOperation>;

/** Normal or 0, and finite. */
function isPlain(a: number, least: number, most: number): boolean {
  const magnitude = Math.abs(a);
  return (magnitude >= least && magnitude <= most) || a === 0;
}

/** Strictly above the least normal number: what rounded up to it may have been tiny. */
function isPlainResult(
  r: number,
  a: number,
  b: number,
  op: FastOperation,
  least: number,
  most: number,
): boolean {
  const magnitude = Math.abs(r);
  if (magnitude > least && magnitude <= most) return true;
  return r === 0 && (op.cancels || a === 0 || b === 0);
}

/** Performs the operation on binary64 lanes and answers true, or changes nothing. */
export function fastDoubles(cpu: Processor, op: FastOperation, d: number, s: number, lanes: number): boolean {
  const mxcsr = cpu.i32[MXCSR] as number;
  if ((mxcsr & CONTROL) !== DEFAULT) return false;
  const { f64 } = cpu;
  for (let n = 0; n < lanes; n++) {
    const a = f64[(d >> 3) + n] as number;
    const b = f64[(s >> 3) + n] as number;
    const r = op.apply(a, b);
    if (!isPlain(a, LEAST_DOUBLE, Number.MAX_VALUE) || !isPlain(b, LEAST_DOUBLE, Number.MAX_VALUE))
      return false;
    if (!isPlainResult(r, a, b, op, LEAST_DOUBLE, Number.MAX_VALUE)) return false;
    if ((mxcsr & INEXACT) === 0 && r !== 0 && !op.isExact(a, b, r)) return false;
    f64[(RESULT >> 3) + n] = r;
  }
  for (let n = 0; n < lanes; n++) f64[(d >> 3) + n] = f64[(RESULT >> 3) + n] as number;
  return true;
}

/** The same on binary32 lanes. */
export function fastSingles(cpu: Processor, op: FastOperation, d: number, s: number, lanes: number): boolean {
  const mxcsr = cpu.i32[MXCSR] as number;
  if ((mxcsr & CONTROL) !== DEFAULT) return false;
  const { f32 } = cpu;
  for (let n = 0; n < lanes; n++) {
    const a = f32[(d >> 2) + n] as number;
    const b = f32[(s >> 2) + n] as number;
    const r = Math.fround(op.apply(a, b));
    if (!isPlain(a, LEAST_SINGLE, MOST_SINGLE) || !isPlain(b, LEAST_SINGLE, MOST_SINGLE)) return false;
    if (!isPlainResult(r, a, b, op, LEAST_SINGLE, MOST_SINGLE)) return false;
    if ((mxcsr & INEXACT) === 0 && r !== 0 && !op.isExactSingle(a, b, r)) return false;
    f32[(RESULT >> 2) + n] = r;
  }
  for (let n = 0; n < lanes; n++) f32[(d >> 2) + n] = f32[(RESULT >> 2) + n] as number;
  return true;
}
