/**
 * Rounding of exact results (SDM vol. 1 §4.8.4) with the exceptions that it detects: overflow, underflow
 * and inexact result (§4.9.1). Tininess is detected after rounding.
 */
import { bitLength, type Float, finite, infinity, type Sign, zero } from './float.ts';

/** RC of FCW and MXCSR. */
export const Rounding = { Nearest: 0, Down: 1, Up: 2, TowardZero: 3 } as const;
export type Rounding = (typeof Rounding)[keyof typeof Rounding];

/** Exception flags, as in FSW and MXCSR; masks have the same order. */
export const FloatException = {
  Invalid: 1,
  Denormal: 2,
  ZeroDivide: 4,
  Overflow: 8,
  Underflow: 16,
  Inexact: 32,
} as const;

export interface FloatFormat {
  /** Bits of the significand, the leading one included. */
  readonly precision: number;
  readonly minExponent: number;
  readonly maxExponent: number;
}

export const BINARY32: FloatFormat = { precision: 24, minExponent: -126, maxExponent: 127 };
export const BINARY64: FloatFormat = { precision: 53, minExponent: -1022, maxExponent: 1023 };
export const EXTENDED: FloatFormat = { precision: 64, minExponent: -16382, maxExponent: 16383 };
/** The double extended format with the precisions that FCW.PC may choose. */
export const EXTENDED_24: FloatFormat = { ...EXTENDED, precision: 24 };
export const EXTENDED_53: FloatFormat = { ...EXTENDED, precision: 53 };

/** What an unmasked overflow or underflow adds to the exponent of an x87 result (SDM vol. 1 §8.5.4, §8.5.5). */
const EXPONENT_WRAP = 24576;

/** How an operation rounds, and what it has detected. */
export class FloatContext {
  format: FloatFormat = BINARY64;
  rounding: Rounding = Rounding.Nearest;
  /** Exceptions that are masked. */
  masks = 0x3f;
  /** MXCSR.FZ: tiny results become 0 while underflow is masked. */
  flushesToZero = false;
  /** MXCSR.DAZ. */
  denormalsAreZeros = false;
  /** x87 rules: which NaN wins, and wrapped exponents of unmasked overflow and underflow. */
  x87 = false;
  /** Exceptions detected. */
  flags = 0;
  /** Whether the last rounding away from the exact value enlarged the magnitude. */
  roundedUp = false;

  raise(exception: number): void {
    this.flags |= exception;
  }
}

let inexact = false;

/** `significand` without its lowest `count` bits, rounded; `inexact` and `roundedUp` say how. */
function dropBits(c: FloatContext, sign: Sign, significand: bigint, count: number): bigint {
  inexact = false;
  c.roundedUp = false;
  if (count <= 0) return significand << BigInt(-count);
  const shift = BigInt(count);
  const kept = significand >> shift;
  const rest = significand - (kept << shift);
  if (rest === 0n) return kept;
  inexact = true;
  const half = 1n << (shift - 1n);
  if (c.rounding === Rounding.Nearest) c.roundedUp = rest > half || (rest === half && (kept & 1n) === 1n);
  else c.roundedUp = c.rounding === (sign === 1 ? Rounding.Down : Rounding.Up);
  return c.roundedUp ? kept + 1n : kept;
}

/** ±`significand` × 2^`exponent` (not 0) in the context's format. Bits of it may stand for what is below them. */
export function round(c: FloatContext, sign: Sign, significand: bigint, exponent: number): Float {
  const { precision, minExponent, maxExponent } = c.format;
  const dropped = bitLength(significand) - precision;
  const rounded = dropBits(c, sign, significand, dropped);
  const last = exponent + dropped;
  const leading = last + bitLength(rounded) - 1;
  if (leading < minExponent) return tiny(c, sign, significand, exponent, rounded, last);
  if (leading > maxExponent) return tooLarge(c, sign, rounded, last);
  if (inexact) c.raise(FloatException.Inexact);
  return finite(sign, rounded, last);
}

function tiny(
  c: FloatContext,
  sign: Sign,
  significand: bigint,
  exponent: number,
  rounded: bigint,
  last: number,
): Float {
  const { precision, minExponent } = c.format;
  if ((c.masks & FloatException.Underflow) === 0) {
    c.raise(FloatException.Underflow | (inexact ? FloatException.Inexact : 0));
    if (!c.x87) return finite(sign, rounded, last);
    // So tiny that the wrapped exponent does not fit either: possible with FSCALE alone.
    const leading = last + EXPONENT_WRAP + bitLength(rounded) - 1;
    if (leading < minExponent) c.raise(FloatException.Inexact);
    return leading < minExponent ? zero(sign) : finite(sign, rounded, last + EXPONENT_WRAP);
  }
  if (c.flushesToZero) {
    c.raise(FloatException.Underflow | FloatException.Inexact);
    return zero(sign);
  }
  const lowest = minExponent - precision + 1;
  const denormal = dropBits(c, sign, significand, lowest - exponent);
  if (inexact) c.raise(FloatException.Underflow | FloatException.Inexact);
  return denormal === 0n ? zero(sign) : finite(sign, denormal, lowest);
}

function tooLarge(c: FloatContext, sign: Sign, rounded: bigint, last: number): Float {
  const { precision, maxExponent } = c.format;
  c.raise(FloatException.Overflow);
  if ((c.masks & FloatException.Overflow) === 0) {
    if (inexact) c.raise(FloatException.Inexact);
    if (!c.x87) return finite(sign, rounded, last);
    const leading = last - EXPONENT_WRAP + bitLength(rounded) - 1;
    if (leading <= maxExponent) return finite(sign, rounded, last - EXPONENT_WRAP);
    c.raise(FloatException.Inexact);
    c.roundedUp = true;
    return infinity(sign);
  }
  c.raise(FloatException.Inexact);
  const toInfinity =
    c.rounding === Rounding.Nearest || c.rounding === (sign === 1 ? Rounding.Down : Rounding.Up);
  c.roundedUp = toInfinity;
  if (toInfinity) return infinity(sign);
  return finite(sign, (1n << BigInt(precision)) - 1n, maxExponent - precision + 1);
}

/** ±`significand` × 2^`exponent` as an integer, and whether that is inexact; no flag is raised. */
export function roundToInteger(
  c: FloatContext,
  sign: Sign,
  significand: bigint,
  exponent: number,
): { magnitude: bigint; inexact: boolean } {
  // More than the significand's own bits need not be dropped to see that less than one half is left.
  const count = Math.min(-exponent, bitLength(significand) + 2);
  return { magnitude: dropBits(c, sign, significand, count), inexact };
}
