/**
 * Linear and physical addresses: canonical form, alignment, and "no bit beyond the physical-address
 * width". Linear addresses are `bigint`; physical addresses are `number` (at most 52 bits, which a
 * double holds exactly).
 */

export const PAGE_SIZE = 4096;
export const PHYSICAL_ADDRESS_LIMIT = 2 ** 52;

/** Bits 63:`width`−1 of `address` are all equal (SDM §3.3.7.1, vol. 1). */
export function isCanonical(address: bigint, width: number): boolean {
  return BigInt.asUintN(64, BigInt.asIntN(width, address)) === address;
}

/** Bits 63:`width` (33 to 64) of an address are all equal; bit `width`−1 may differ. `high` is bits 63:32. */
export function highWordIdentical(high: number, width: number): boolean {
  const above = width === 64 ? 0 : (high | 0) >> (width - 32);
  return above === 0 || above === -1;
}

/** Bits 63:`width` := bit `width`−1. */
export function signExtend(address: bigint, width: number): bigint {
  return BigInt.asUintN(64, BigInt.asIntN(width, address));
}

/** No bit at or above `width` is set. */
export function fitsWidth(address: bigint, width: number): boolean {
  return address >> BigInt(width) === 0n;
}

/** `address` is a multiple of `alignment` (a power of two). */
export function isAligned(address: bigint, alignment: number): boolean {
  return (address & BigInt(alignment - 1)) === 0n;
}
