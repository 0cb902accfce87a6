/** Pure functions on unsigned 64-bit values held as `bigint` (0 … 2^64−1). */

export const U64_MAX = 0xffff_ffff_ffff_ffffn;

/** Truncates to 64 bits. */
export function u64(value: bigint): bigint {
  return BigInt.asUintN(64, value);
}

/** Bit `position` (0–63) of `value`. */
export function bit(value: bigint, position: number): boolean {
  return ((value >> BigInt(position)) & 1n) === 1n;
}

/** Bits `high:low` of `value`, shifted down. `63 >= high >= low >= 0`. */
export function bits(value: bigint, high: number, low: number): bigint {
  return BigInt.asUintN(high - low + 1, value >> BigInt(low));
}

/** A mask with bits `high:low` set. */
export function mask(high: number, low: number): bigint {
  return ((1n << BigInt(high - low + 1)) - 1n) << BigInt(low);
}

/** `0x`-prefixed lower-case hexadecimal, zero-extended to `digits` digits. */
export function hex(value: bigint | number, digits = 1): string {
  return `0x${value.toString(16).padStart(digits, '0')}`;
}
