/**
 * Elementary functions of exact values (SDM vol. 1 §8.3.7, §8.3.8), computed with some 70 bits more than the
 * double extended format has. Results other than the exact ones that are named end in a bit that stands for
 * all below it, so that rounding them is correct in every direction but for ties that no operand comes near.
 */
import { integerRoot } from './arithmetic.ts';
import { bitLength, type Float, type Sign } from './float.ts';

/** ±significand × 2^exponent, not 0. */
export interface Real {
  readonly sign: Sign;
  readonly significand: bigint;
  readonly exponent: number;
}

/** Bits behind the point of fixed-point numbers here. */
const BITS = 160;
const SCALE = BigInt(BITS);
const ONE = 1n << SCALE;
/** π, ln 2 and 1/ln 2 with BITS bits behind the point. */
export const PI = 0x3_243f_6a88_85a3_08d3_1319_8a2e_0370_7344_a409_3822n;
export const LN2 = 0xb172_17f7_d1cf_79ab_c9e3_b398_03f2_f6af_40f3_4326n;
/** π with the 66 bits that processors reduce arguments with, times 2^66. */
const SHORT_PI = 0xc_90fd_aa22_168c_234cn;
const SHORT_PI_BITS = 66;
/** Operands this much smaller than 1 have no second term of a series that matters. */
const NEGLIGIBLE = -200;

/** An exact value, as the exponent of its leading bit: 2^leading ≤ value < 2^(leading + 1). */
export const leadingExponent = (a: { significand: bigint; exponent: number }): number =>
  a.exponent + bitLength(a.significand) - 1;

const inexact = (sign: number, significand: bigint, exponent: number): Real => ({
  sign: (sign & 1) as Sign,
  significand: (significand << 1n) | 1n,
  exponent: exponent - 1,
});

/** Fixed-point value of `significand` × 2^`exponent`, truncated. */
function fixed(significand: bigint, exponent: number): bigint {
  const shift = exponent + BITS;
  if (shift >= 0) return significand << BigInt(shift);
  return -shift > bitLength(significand) ? 0n : significand >> BigInt(-shift);
}

const times = (a: bigint, b: bigint): bigint => (a * b) >> SCALE;

/** 1 − x/(2·3) + x²/(2·3·4·5) − … (first 2), or 1 − x/(1·2) + x²/(1·2·3·4) − … (first 1); less than 1. */
function circularSeries(x: bigint, first: 1n | 2n): bigint {
  let sum = ONE - 1n;
  let term = ONE;
  for (let n = first; ; n += 2n) {
    term = times(term, x) / (n * (n + 1n));
    if (term === 0n) return sum;
    sum += ((n - first) / 2n) % 2n === 0n ? -term : term;
  }
}

/** 1 ± x/3 + x²/5 ± …: the arc tangent or area hyperbolic tangent of z over z, with x = z². */
function inverseSeries(x: bigint, alternates: boolean): bigint {
  let sum = alternates ? ONE - 1n : ONE;
  let power = ONE;
  for (let n = 3n; ; n += 2n) {
    power = times(power, x);
    const term = power / n;
    if (term === 0n) return sum;
    sum += alternates && n % 4n === 3n ? -term : term;
  }
}

/** An angle without the nearest multiple of π/2, and that multiple modulo 4. */
interface Reduced {
  readonly rest: Real;
  readonly quadrant: number;
}

/** Reduction by the processor's π; |a| < 2^63. */
function reduced(a: Float): Reduced {
  if (leadingExponent(a) < -1) return { rest: a, quadrant: 0 };
  // a and π/2 over a common power of 2.
  const exponent = Math.min(a.exponent, -SHORT_PI_BITS - 1);
  const angle = a.significand << BigInt(a.exponent - exponent);
  const quarter = SHORT_PI << BigInt(-SHORT_PI_BITS - 1 - exponent);
  const multiple = (2n * angle + quarter) / (2n * quarter);
  const rest = angle - multiple * quarter;
  const sign = (rest < 0n ? 1 ^ a.sign : a.sign) as Sign;
  const turns = Number(multiple & 3n);
  return {
    rest: { sign, significand: rest < 0n ? -rest : rest, exponent },
    quadrant: a.sign === 1 ? -turns & 3 : turns,
  };
}

interface SineAndCosine {
  readonly sine: Real;
  readonly cosine: Real;
}

/** Of a finite value with |a| < 2^63, not 0. */
export function sineAndCosine(a: Float): SineAndCosine {
  const { rest, quadrant } = reduced(a);
  const narrow = fixed(rest.significand, rest.exponent);
  const square = times(narrow, narrow);
  const sine = inexact(rest.sign, rest.significand * circularSeries(square, 2n), rest.exponent - BITS);
  const cosine = inexact(0, circularSeries(square, 1n), -BITS);
  const negated = ({ sign, ...magnitude }: Real): Real => ({ ...magnitude, sign: (sign ^ 1) as Sign });
  if (quadrant === 0) return { sine, cosine };
  if (quadrant === 1) return { sine: cosine, cosine: negated(sine) };
  if (quadrant === 2) return { sine: negated(sine), cosine: negated(cosine) };
  return { sine: negated(cosine), cosine: sine };
}

/** a / b with enough bits, truncated. */
function quotient(a: Real, b: Real): Real {
  const shift = Math.max(0, BITS + bitLength(b.significand) - bitLength(a.significand));
  const significand = (a.significand << BigInt(shift)) / b.significand;
  return inexact(a.sign ^ b.sign, significand, a.exponent - b.exponent - shift);
}

/** Below 2^this the tangent is above its argument by less than the quotient of sine and cosine can tell. */
const SMALL_TANGENT = -70;

/** Of a finite value with |a| < 2^63, not 0. */
export function tangent(a: Float): Real {
  if (leadingExponent(a) < SMALL_TANGENT) return inexact(a.sign, a.significand << SCALE, a.exponent - BITS);
  const { sine, cosine } = sineAndCosine(a);
  return quotient(sine, cosine);
}

/** 2^a − 1 for 0 < |a| < 1. */
export function powerOf2MinusOne(a: Float): Real {
  const magnitude = times(fixed(a.significand, a.exponent), LN2);
  const y = a.sign === 1 ? -magnitude : magnitude;
  // (e^y − 1) / y = 1 + y/2! + y²/3! + …
  let sum = ONE;
  let term = ONE;
  for (let n = 2n; ; n++) {
    term = (term * y) / (ONE * n);
    if (term === 0n) break;
    sum += term;
  }
  return inexact(a.sign, a.significand * LN2 * sum, a.exponent - 2 * BITS);
}

/** Base-2 logarithm of a positive value other than 1; exact for powers of 2. */
export function logarithm2(a: { significand: bigint; exponent: number }): Real & { exact: boolean } {
  const { significand } = a;
  let whole = leadingExponent(a);
  const power = 1n << BigInt(bitLength(significand) - 1);
  if (significand === power) {
    return {
      sign: whole < 0 ? 1 : 0,
      significand: BigInt(Math.abs(whole)),
      exponent: 0,
      exact: true,
    };
  }
  // The significand over the nearer power of 2: between 2/3 and 4/3.
  const nearer = 3n * power <= 2n * significand ? 2n * power : power;
  if (nearer !== power) whole++;
  const difference = significand - nearer;
  const sum = significand + nearer;
  const size = difference < 0n ? -difference : difference;
  // log2 f = 2 artanh z / ln 2 with z = (f − 1)/(f + 1).
  const z = (size << SCALE) / sum;
  const series = inverseSeries(times(z, z), false);
  if (whole === 0) {
    const numerator = size * series;
    const shift = Math.max(0, BITS + bitLength(sum) - bitLength(size));
    const ratio = (numerator << BigInt(shift)) / (sum * LN2);
    return { ...inexact(difference < 0n ? 1 : 0, ratio, 1 - shift), exact: false };
  }
  const fraction = ((2n * times(z, series)) << SCALE) / LN2;
  const result = (BigInt(whole) << SCALE) + (difference < 0n ? -fraction : fraction);
  return { ...inexact(result < 0n ? 1 : 0, result < 0n ? -result : result, -BITS), exact: false };
}

/** log2(1 + a) for finite a > −1, not 0. */
export function logarithm2Plus1(a: Float): Real & { exact: boolean } {
  const leading = leadingExponent(a);
  if (leading > -NEGLIGIBLE) {
    const { sign, significand, exponent } = logarithm2(a);
    return { ...inexact(sign, significand << SCALE, exponent - BITS), exact: false };
  }
  if (leading < NEGLIGIBLE) {
    const ratio = (a.significand << (2n * SCALE)) / LN2;
    return { ...inexact(a.sign, ratio, a.exponent - BITS), exact: false };
  }
  const exponent = Math.min(0, a.exponent);
  const term = a.significand << BigInt(a.exponent - exponent);
  const one = 1n << BigInt(-exponent);
  return logarithm2({ significand: a.sign === 1 ? one - term : one + term, exponent });
}

/** Arc tangent of z (fixed point, ≤ 1) as a fixed-point number. */
function arcTangent(z: bigint): bigint {
  let halved = z;
  let times2 = 0n;
  // arctan z = 2 arctan(z / (1 + √(1 + z²)))
  while (halved > ONE >> 3n) {
    halved = (halved << SCALE) / (ONE + integerRoot((ONE + times(halved, halved)) << SCALE));
    times2++;
  }
  return times(halved, inverseSeries(times(halved, halved), true)) << times2;
}

/** The angle of the point (x, y), neither of them 0: between −π and π. */
export function angle(y: Float, x: Float): Real {
  const ratio = leadingExponent(y) - leadingExponent(x);
  const absolute = (a: Float): Real => ({ sign: 0, significand: a.significand, exponent: a.exponent });
  if (x.sign === 0 && ratio < -3) {
    // Small results keep their relative precision.
    const z = quotient(absolute(y), absolute(x));
    const narrow = fixed(z.significand, z.exponent);
    const series = inverseSeries(times(narrow, narrow), true);
    return inexact(y.sign, z.significand * series, z.exponent - BITS);
  }
  const [small, large] = compareMagnitudes(y, x) < 0 ? [y, x] : [x, y];
  const z = quotient(absolute(small), absolute(large));
  let result = arcTangent(fixed(z.significand, z.exponent));
  if (large === y) result = PI / 2n - result;
  if (x.sign === 1) result = PI - result;
  return inexact(y.sign, result, -BITS);
}

function compareMagnitudes(a: Float, b: Float): number {
  const byLeading = leadingExponent(a) - leadingExponent(b);
  if (byLeading !== 0) return byLeading;
  const exponent = Math.min(a.exponent, b.exponent);
  const left = a.significand << BigInt(a.exponent - exponent);
  const right = b.significand << BigInt(b.exponent - exponent);
  return left < right ? -1 : left > right ? 1 : 0;
}

/** `quarters` × π/4. */
export function quarterPi(quarters: number, sign: Sign): Real {
  return inexact(sign, BigInt(quarters) * PI, -BITS - 2);
}
