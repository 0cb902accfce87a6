/**
 * I/O and MSR bitmaps (SDM §27.6.4, §27.6.9, §28.1.3). The bitmaps are read at their physical
 * addresses at each access: a store to them counts at once.
 */
import type { PhysicalMemory } from '../../cpu/physical-memory.ts';
import { Field } from '../../vmcs/fields.ts';
import type { ProcessorCopy } from '../../vmcs/processor-copy.ts';

const BITMAP_A = Field.ioBitmapAAddress;
const BITMAP_B = Field.ioBitmapBAddress;
const MSR_BITMAP = Field.msrBitmapAddress;
const LAST_PORT = 0xffff;
const PORTS_PER_BITMAP = 0x8000;
const MSRS_PER_BITMAP = 0x2000;
const HIGH_MSRS = 0xc000_0000;
/** Offsets in the MSR bitmap: reads of low and of high MSRs, then writes. */
const HIGH_OFFSET = 1024;
const WRITE_OFFSET = 2048;

function bitAt(memory: PhysicalMemory, base: bigint, bit: number): boolean {
  return ((memory.read8(Number(base) + (bit >>> 3)) >>> (bit & 7)) & 1) === 1;
}

/** Whether an access of `bytes` bytes at `port` exits: any of its ports has its bit set, or it wraps. */
export function ioBitmapExits(
  copy: ProcessorCopy,
  memory: PhysicalMemory,
  port: number,
  bytes: number,
): boolean {
  if (port + bytes - 1 > LAST_PORT) return true;
  for (let p = port; p < port + bytes; p++) {
    const base = copy.quads[p < PORTS_PER_BITMAP ? BITMAP_A : BITMAP_B] as bigint;
    if (bitAt(memory, base, p % PORTS_PER_BITMAP)) return true;
  }
  return false;
}

/** Whether an access to the MSR exits: its bit is set, or the bitmap does not cover it. */
export function msrBitmapExits(
  copy: ProcessorCopy,
  memory: PhysicalMemory,
  index: number,
  isWrite: boolean,
): boolean {
  const isHigh = index >= HIGH_MSRS;
  const bit = isHigh ? index - HIGH_MSRS : index;
  if (bit >= MSRS_PER_BITMAP) return true;
  const offset = (isHigh ? HIGH_OFFSET : 0) + (isWrite ? WRITE_OFFSET : 0);
  return bitAt(memory, (copy.quads[MSR_BITMAP] as bigint) + BigInt(offset), bit);
}
