/** Comparison, minimum and maximum (SDM vol. 1 §8.3.6, §11.4.1; vol. 2: CMPPD, COMISS, MAXSS, FCOM). */
import { noteDenormals } from './arithmetic.ts';
import { bitLength, type Float, isNan, Kind } from './float.ts';
import { type FloatContext, FloatException } from './rounding.ts';

export const Relation = { Less: -1, Equal: 0, Greater: 1, Unordered: 2 } as const;
export type Relation = (typeof Relation)[keyof typeof Relation];

/** How `a` stands to `b`. QNaNs are an invalid operation only for a `signaling` comparison. */
export function compare(c: FloatContext, a: Float, b: Float, signaling: boolean): Relation {
  if (isNan(a) || isNan(b)) {
    if (signaling || a.kind >= Kind.SignalingNaN || b.kind >= Kind.SignalingNaN)
      c.raise(FloatException.Invalid);
    return Relation.Unordered;
  }
  noteDenormals(c, a, b);
  if (a.kind === Kind.Zero && b.kind === Kind.Zero) return Relation.Equal;
  if (a.kind === Kind.Zero) return b.sign === 1 ? Relation.Greater : Relation.Less;
  if (b.kind === Kind.Zero || a.sign !== b.sign) return a.sign === 1 ? Relation.Less : Relation.Greater;
  const order = compareMagnitudes(a, b);
  return (a.sign === 1 ? -order : order) as Relation;
}

/** −1, 0 or 1 for magnitudes that are not 0. */
function compareMagnitudes(a: Float, b: Float): number {
  if (a.kind === Kind.Infinity || b.kind === Kind.Infinity) return a.kind - b.kind;
  const byExponent = a.exponent + bitLength(a.significand) - b.exponent - bitLength(b.significand);
  if (byExponent !== 0) return Math.sign(byExponent);
  const exponent = Math.min(a.exponent, b.exponent);
  const left = a.significand << BigInt(a.exponent - exponent);
  const right = b.significand << BigInt(b.exponent - exponent);
  return left === right ? 0 : left < right ? -1 : 1;
}

/** MINPS and the like: the second operand if they are equal zeros or one is a NaN. */
export function minimum(c: FloatContext, a: Float, b: Float): Float {
  return compare(c, a, b, true) === Relation.Less ? a : b;
}

export function maximum(c: FloatContext, a: Float, b: Float): Float {
  return compare(c, a, b, true) === Relation.Greater ? a : b;
}
