/**
 * A floating-point value taken apart (SDM vol. 1 §4.2, §4.8): exact, and the same for binary32, binary64 and the
 * double extended format. A NaN's payload is where the double extended format has it, so that NaNs of all
 * formats convert by cutting off or appending zeros.
 */

export const Kind = {
  Zero: 0,
  /** Value: significand × 2^exponent. */
  Finite: 1,
  Infinity: 2,
  QuietNaN: 3,
  SignalingNaN: 4,
  /** Encodings of the double extended format that are none of these (SDM vol. 1 §8.2.2). */
  Unsupported: 5,
} as const;
export type Kind = (typeof Kind)[keyof typeof Kind];

export type Sign = 0 | 1;

export interface Float {
  readonly kind: Kind;
  readonly sign: Sign;
  /** Of a finite value any positive integer; of a NaN its 64 bits, with bit 63. */
  readonly significand: bigint;
  readonly exponent: number;
  /** Whether it was a denormal number when it was taken from its format. */
  readonly denormal: boolean;
}

const make = (kind: Kind, sign: Sign, significand = 0n, exponent = 0, denormal = false): Float => ({
  kind,
  sign,
  significand,
  exponent,
  denormal,
});

const INTEGER_BIT = 1n << 63n;
const QUIET_BIT = 1n << 62n;

const ZEROS = [make(Kind.Zero, 0), make(Kind.Zero, 1)] as const;
const INFINITIES = [make(Kind.Infinity, 0), make(Kind.Infinity, 1)] as const;

export const zero = (sign: Sign): Float => ZEROS[sign];
export const infinity = (sign: Sign): Float => INFINITIES[sign];
export const finite = (sign: Sign, significand: bigint, exponent: number, denormal = false): Float =>
  make(Kind.Finite, sign, significand, exponent, denormal);
/** The QNaN floating-point indefinite, the answer to masked invalid operations. */
export const INDEFINITE = make(Kind.QuietNaN, 1, INTEGER_BIT | QUIET_BIT);

export const isNan = (a: Float): boolean => a.kind >= Kind.QuietNaN;

/** The NaN with its quiet bit set. */
export function quieted(a: Float): Float {
  return a.kind === Kind.QuietNaN ? a : make(Kind.QuietNaN, a.sign, a.significand | QUIET_BIT);
}

export function negated(a: Float): Float {
  return make(a.kind, (a.sign ^ 1) as Sign, a.significand, a.exponent, a.denormal);
}

function nan(sign: Sign, significand: bigint): Float {
  const kind = (significand & QUIET_BIT) !== 0n ? Kind.QuietNaN : Kind.SignalingNaN;
  return make(kind, sign, significand | INTEGER_BIT);
}

const TWO_53 = 1n << 53n;

/** Number of bits of a positive integer. */
export function bitLength(value: bigint): number {
  if (value < TWO_53) {
    const number = Number(value);
    return number > 0xffff_ffff ? 64 - Math.clz32(number / 0x1_0000_0000) : 32 - Math.clz32(number);
  }
  const digits = value.toString(16);
  return 4 * digits.length - Math.clz32(Number.parseInt(digits[0] as string, 16)) + 28;
}

/** From the 32 bits of a binary32. */
export function fromBinary32(bits: number): Float {
  const sign = (bits >>> 31) as Sign;
  const exponent = (bits >>> 23) & 0xff;
  const fraction = bits & 0x7f_ffff;
  if (exponent === 0xff) return fraction === 0 ? INFINITIES[sign] : nan(sign, BigInt(fraction) << 40n);
  if (exponent !== 0) return finite(sign, BigInt(fraction | 0x80_0000), exponent - 150);
  return fraction === 0 ? ZEROS[sign] : finite(sign, BigInt(fraction), -149, true);
}

/** From the 64 bits of a binary64. */
export function fromBinary64(bits: bigint): Float {
  const sign = Number(bits >> 63n) as Sign;
  const exponent = Number((bits >> 52n) & 0x7ffn);
  const fraction = BigInt.asUintN(52, bits);
  if (exponent === 0x7ff) return fraction === 0n ? INFINITIES[sign] : nan(sign, fraction << 11n);
  if (exponent !== 0) return finite(sign, fraction | (1n << 52n), exponent - 1075);
  return fraction === 0n ? ZEROS[sign] : finite(sign, fraction, -1074, true);
}

/** From the two parts of a double extended-precision number. */
export function fromExtended(significand: bigint, signExponent: number): Float {
  const sign = ((signExponent >> 15) & 1) as Sign;
  const exponent = signExponent & 0x7fff;
  if (exponent === 0) return significand === 0n ? ZEROS[sign] : finite(sign, significand, -16445, true);
  if ((significand & INTEGER_BIT) === 0n) return make(Kind.Unsupported, sign, significand);
  if (exponent !== 0x7fff) return finite(sign, significand, exponent - 16446);
  return significand === INTEGER_BIT ? INFINITIES[sign] : nan(sign, significand);
}

/** The 32 bits of a value that is one of binary32. */
export function toBinary32(a: Float): number {
  const sign = a.sign << 31;
  if (a.kind === Kind.Zero) return sign;
  if (a.kind === Kind.Infinity) return sign | 0x7f80_0000;
  if (a.kind !== Kind.Finite) return sign | 0x7f80_0000 | (Number(a.significand >> 40n) & 0x7f_ffff);
  const length = bitLength(a.significand);
  const exponent = a.exponent + length - 1;
  if (exponent < -126) return sign | Number(shifted(a.significand, a.exponent + 149));
  return sign | ((exponent + 127) << 23) | (Number(shifted(a.significand, 24 - length)) & 0x7f_ffff);
}

/** The 64 bits of a value that is one of binary64. */
export function toBinary64(a: Float): bigint {
  const sign = BigInt(a.sign) << 63n;
  if (a.kind === Kind.Zero) return sign;
  if (a.kind === Kind.Infinity) return sign | (0x7ffn << 52n);
  if (a.kind !== Kind.Finite) return sign | (0x7ffn << 52n) | BigInt.asUintN(52, a.significand >> 11n);
  const length = bitLength(a.significand);
  const exponent = a.exponent + length - 1;
  if (exponent < -1022) return sign | shifted(a.significand, a.exponent + 1074);
  return sign | (BigInt(exponent + 1023) << 52n) | BigInt.asUintN(52, shifted(a.significand, 53 - length));
}

/** The significand of a value that is one of the double extended format. */
export function extendedSignificand(a: Float): bigint {
  if (a.kind === Kind.Zero) return 0n;
  if (a.kind === Kind.Infinity) return INTEGER_BIT;
  if (a.kind !== Kind.Finite) return a.significand;
  const length = bitLength(a.significand);
  if (a.exponent + length - 1 < -16382) return shifted(a.significand, a.exponent + 16445);
  return shifted(a.significand, 64 - length);
}

/** Its sign and exponent. */
export function extendedSignExponent(a: Float): number {
  const sign = a.sign << 15;
  if (a.kind === Kind.Zero) return sign;
  if (a.kind !== Kind.Finite) return sign | 0x7fff;
  const exponent = a.exponent + bitLength(a.significand) - 1;
  return exponent < -16382 ? sign : sign | (exponent + 16383);
}

/** Multiplies by 2^count; what is shifted out is 0. */
function shifted(value: bigint, count: number): bigint {
  return count >= 0 ? value << BigInt(count) : value >> BigInt(-count);
}
