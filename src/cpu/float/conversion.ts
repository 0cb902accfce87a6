/** Conversion between formats and to and from integers (SDM vol. 1 §4.8.4, §8.1.5, §11.4.1.6). */
import { invalid, noteDenormals, propagateNaN } from './arithmetic.ts';
import { type Float, finite, isNan, Kind, zero } from './float.ts';
import { type FloatContext, FloatException, type Rounding, round, roundToInteger } from './rounding.ts';

/** The value in the context's format. `notesDenormal`: a denormal operand is an exception. */
export function convert(c: FloatContext, a: Float, notesDenormal: boolean): Float {
  c.roundedUp = false;
  if (isNan(a)) return propagateNaN(c, a, a);
  if (notesDenormal) noteDenormals(c, a, a);
  return a.kind === Kind.Finite ? round(c, a.sign, a.significand, a.exponent) : a;
}

export function fromInteger(c: FloatContext, value: bigint): Float {
  c.roundedUp = false;
  if (value === 0n) return zero(0);
  return value < 0n ? round(c, 1, -value, 0) : round(c, 0, value, 0);
}

/** The exact value of an integer. */
export function exactInteger(value: bigint): Float {
  if (value === 0n) return zero(0);
  return finite(value < 0n ? 1 : 0, value < 0n ? -value : value, 0);
}

/** The integer of `bits` bits, or undefined (and an invalid operation) if there is none. */
export function toInteger(c: FloatContext, a: Float, bits: number, rounding: Rounding): bigint | undefined {
  c.roundedUp = false;
  if (a.kind === Kind.Zero) return 0n;
  // Beyond 2^64 nothing fits, and nothing so large need be computed.
  if (a.kind !== Kind.Finite || a.exponent > 64) {
    invalid(c);
    return undefined;
  }
  const before = c.rounding;
  c.rounding = rounding;
  const { magnitude, inexact } = roundToInteger(c, a.sign, a.significand, a.exponent);
  c.rounding = before;
  const value = a.sign === 1 ? -magnitude : magnitude;
  if (BigInt.asIntN(bits, value) !== value) {
    c.roundedUp = false;
    invalid(c);
    return undefined;
  }
  if (inexact) c.raise(FloatException.Inexact);
  return value;
}

/** The value rounded to an integer, in the same format (FRNDINT). */
export function integral(c: FloatContext, a: Float): Float {
  c.roundedUp = false;
  if (isNan(a)) return propagateNaN(c, a, a);
  noteDenormals(c, a, a);
  if (a.kind !== Kind.Finite || a.exponent >= 0) return a;
  const { magnitude, inexact } = roundToInteger(c, a.sign, a.significand, a.exponent);
  if (inexact) c.raise(FloatException.Inexact);
  return magnitude === 0n ? zero(a.sign) : finite(a.sign, magnitude, 0);
}
