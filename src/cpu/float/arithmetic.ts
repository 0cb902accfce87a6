/** Addition, multiplication, division and square root of exact values (SDM vol. 1 §4.9, §11.5; Tables 4-7, 8-10). */
import {
  bitLength,
  type Float,
  INDEFINITE,
  infinity,
  isNan,
  Kind,
  negated,
  quieted,
  type Sign,
  zero,
} from './float.ts';
import { type FloatContext, FloatException, Rounding, round } from './rounding.ts';

/** The answer to an invalid operation. */
export function invalid(c: FloatContext): Float {
  c.raise(FloatException.Invalid);
  return INDEFINITE;
}

/** The result of an operation with at least one NaN among its operands. */
export function propagateNaN(c: FloatContext, a: Float, b: Float): Float {
  if (a.kind === Kind.Unsupported || b.kind === Kind.Unsupported) return invalid(c);
  if (a.kind === Kind.SignalingNaN || b.kind === Kind.SignalingNaN) c.raise(FloatException.Invalid);
  if (!isNan(b)) return quieted(a);
  if (!isNan(a)) return quieted(b);
  if (!c.x87) return quieted(a);
  // Of an SNaN and a QNaN the QNaN; otherwise the larger significand, then the positive one.
  if (a.kind !== b.kind) return a.kind === Kind.QuietNaN ? a : b;
  if (a.significand !== b.significand) return quieted(a.significand > b.significand ? a : b);
  return quieted(a.sign <= b.sign ? a : b);
}

/** Denormal operands are reported unless an operand is a NaN or the operation is invalid. */
export function noteDenormals(c: FloatContext, a: Float, b: Float): void {
  if (a.denormal || b.denormal) c.raise(FloatException.Denormal);
}

/** How far behind the leading bit of one operand the other may begin to matter only by being there. */
const FAR = 140;

export function add(c: FloatContext, a: Float, b: Float): Float {
  c.roundedUp = false;
  if (isNan(a) || isNan(b)) return propagateNaN(c, a, b);
  if (a.kind === Kind.Infinity && b.kind === Kind.Infinity && a.sign !== b.sign) return invalid(c);
  noteDenormals(c, a, b);
  if (a.kind === Kind.Infinity) return a;
  if (b.kind === Kind.Infinity) return b;
  if (a.kind === Kind.Zero && b.kind === Kind.Zero) return a.sign === b.sign ? a : cancelled(c);
  if (a.kind === Kind.Zero) return round(c, b.sign, b.significand, b.exponent);
  if (b.kind === Kind.Zero) return round(c, a.sign, a.significand, a.exponent);
  const [large, small] = leading(a) >= leading(b) ? [a, b] : [b, a];
  if (leading(large) - leading(small) > FAR) {
    const step = large.sign === small.sign ? 1n : -1n;
    return round(c, large.sign, (large.significand << BigInt(FAR)) + step, large.exponent - FAR);
  }
  const exponent = Math.min(a.exponent, b.exponent);
  const sum = signedAt(a, exponent) + signedAt(b, exponent);
  if (sum === 0n) return cancelled(c);
  return sum < 0n ? round(c, 1, -sum, exponent) : round(c, 0, sum, exponent);
}

/** The exact difference of equal values: +0, −0 when rounding down. */
const cancelled = (c: FloatContext): Float => zero(c.rounding === Rounding.Down ? 1 : 0);

const leading = (a: Float): number => a.exponent + bitLength(a.significand) - 1;

function signedAt(a: Float, exponent: number): bigint {
  const magnitude = a.significand << BigInt(a.exponent - exponent);
  return a.sign === 1 ? -magnitude : magnitude;
}

export function subtract(c: FloatContext, a: Float, b: Float): Float {
  return add(c, a, isNan(b) ? b : negated(b));
}

export function multiply(c: FloatContext, a: Float, b: Float): Float {
  c.roundedUp = false;
  if (isNan(a) || isNan(b)) return propagateNaN(c, a, b);
  const sign = (a.sign ^ b.sign) as Sign;
  const anyZero = a.kind === Kind.Zero || b.kind === Kind.Zero;
  const anyInfinity = a.kind === Kind.Infinity || b.kind === Kind.Infinity;
  if (anyZero && anyInfinity) return invalid(c);
  noteDenormals(c, a, b);
  if (anyInfinity) return infinity(sign);
  if (anyZero) return zero(sign);
  return round(c, sign, a.significand * b.significand, a.exponent + b.exponent);
}

/** Bits of a quotient or root before rounding, at least. */
const ENOUGH = 70;

export function divide(c: FloatContext, a: Float, b: Float): Float {
  c.roundedUp = false;
  if (isNan(a) || isNan(b)) return propagateNaN(c, a, b);
  const sign = (a.sign ^ b.sign) as Sign;
  if (a.kind === b.kind && a.kind !== Kind.Finite) return invalid(c);
  if (b.kind === Kind.Zero && a.kind === Kind.Finite) {
    c.raise(FloatException.ZeroDivide);
    return infinity(sign);
  }
  noteDenormals(c, a, b);
  if (a.kind === Kind.Infinity || b.kind === Kind.Zero) return infinity(sign);
  if (a.kind === Kind.Zero || b.kind === Kind.Infinity) return zero(sign);
  const shift = Math.max(0, ENOUGH + bitLength(b.significand) - bitLength(a.significand));
  const dividend = a.significand << BigInt(shift);
  const quotient = dividend / b.significand;
  const rest = quotient * b.significand === dividend ? 0n : 1n;
  return round(c, sign, (quotient << 1n) | rest, a.exponent - b.exponent - shift - 1);
}

export function squareRoot(c: FloatContext, a: Float): Float {
  c.roundedUp = false;
  if (isNan(a)) return propagateNaN(c, a, a);
  if (a.kind === Kind.Zero) return a;
  if (a.sign === 1) return invalid(c);
  if (a.kind === Kind.Infinity) return a;
  noteDenormals(c, a, a);
  let shift = Math.max(0, 2 * ENOUGH - bitLength(a.significand));
  if ((a.exponent - shift) % 2 !== 0) shift++;
  const radicand = a.significand << BigInt(shift);
  const root = integerRoot(radicand);
  const rest = root * root === radicand ? 0n : 1n;
  return round(c, 0, (root << 1n) | rest, (a.exponent - shift) / 2 - 1);
}

/** The largest integer whose square is not larger: Newton's method from above. */
export function integerRoot(value: bigint): bigint {
  let root = 1n << BigInt((bitLength(value) + 1) >> 1);
  for (;;) {
    const next = (root + value / root) >> 1n;
    if (next >= root) return root;
    root = next;
  }
}
