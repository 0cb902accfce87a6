/**
 * Where a machine has RAM: as on a PC, below 640 KBytes, from 1 MByte up to a hole that ends at 4 GBytes,
 * and above it what did not fit below. Firmware keeps the top of the first part and the 64 KBytes below
 * 1 MByte.
 */

export interface MemoryRange {
  readonly start: number;
  /** Exclusive. */
  readonly end: number;
  readonly kind: 'usable' | 'reserved';
}

const KIB = 1024;
const MIB = 1024 * KIB;
const GIB = 1024 * MIB;
/** RAM below the hole, at most. */
const HOLE_START = 3 * GIB;
const HOLE_END = 4 * GIB;
/** End of the low memory that software may use. */
const LOW_END = 639 * KIB;
/** Where firmware and the local APICs answer, at the end of the hole. */
const FIRMWARE_START = 0xfec0_0000;

export const SMALLEST_MEMORY = 2 * MIB;

/** Ranges in ascending order of a machine with `size` bytes of RAM, a multiple of 4096. */
export function memoryMap(size: number): readonly MemoryRange[] {
  const below = Math.min(size, HOLE_START);
  const above = size - below;
  const ranges: MemoryRange[] = [
    { start: 0, end: LOW_END, kind: 'usable' },
    { start: LOW_END, end: 640 * KIB, kind: 'reserved' },
    { start: 960 * KIB, end: MIB, kind: 'reserved' },
    { start: MIB, end: below, kind: 'usable' },
    { start: FIRMWARE_START, end: HOLE_END, kind: 'reserved' },
  ];
  if (above > 0) ranges.push({ start: HOLE_END, end: HOLE_END + above, kind: 'usable' });
  return ranges;
}

/** Usable KBytes from address 0. */
export const LOWER_KIB = LOW_END / KIB;

/** Usable KBytes from 1 MByte to the hole. */
export function upperKib(size: number): number {
  return (Math.min(size, HOLE_START) - MIB) / KIB;
}

/** Bytes of RAM above 4 GBytes. */
export function bytesAboveHole(size: number): number {
  return Math.max(0, size - HOLE_START);
}

/** Whether `[start, end)` is RAM that software may use. */
export function isUsable(map: readonly MemoryRange[], start: number, end: number): boolean {
  return map.some((r) => r.kind === 'usable' && start >= r.start && end <= r.end);
}
