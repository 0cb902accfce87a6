/** Sub-page write permissions (SDM §31.3.4.2): the look-up of the vector of a page. */
import { addressOf, indexAt, type UsedEntry } from '../../cpu/page-walk.ts';
import type { PhysicalMemory } from '../../cpu/physical-memory.ts';

export const SubPage = { Allowed: 0, Denied: 1, Miss: 2, Misconfigured: 3 } as const;
export type SubPage = (typeof SubPage)[keyof typeof SubPage];

const VALID = 1;
const RESERVED_LOW = 0xffe;
const RESERVED_HIGH = 0xfff0_0000;
const PAGE_FRAME = -0x1000;
/** Odd bits of a vector are reserved. */
const ODD_BITS = 0xaaaa_aaaa | 0;

/** The vector of the last look-up that found one; nobody keeps it. */
export const SUB_PAGE_VECTOR = { low: 0, high: 0 };

/** Whether the vector `low`, `high` lets the 128 bytes around offset `lo` of the page be written. */
export function vectorAllows(low: number, high: number, lo: number): boolean {
  const position = 2 * ((lo >>> 7) & 31);
  const word = position < 32 ? low : high;
  return ((word >>> (position & 31)) & 1) !== 0;
}

/**
 * Whether the vector found from the table at `pointer` lets the 128 bytes around guest-physical `hi`:`lo`
 * be written. What is read is added to `entries`.
 */
export function subPageAllows(
  memory: PhysicalMemory,
  pointer: number,
  reservedHigh: number,
  lo: number,
  hi: number,
  entries?: UsedEntry[],
): SubPage {
  let table = pointer;
  for (let level = 4; level > 1; level--) {
    const at = table + 8 * indexAt(level, lo, hi);
    const low = memory.read32(at) | 0;
    const high = memory.read32(at + 4) | 0;
    entries?.push({ structure: 'SPP', address: at, value: memory.read64(at) });
    if ((low & VALID) === 0) return SubPage.Miss;
    if ((low & RESERVED_LOW) !== 0 || (high & (reservedHigh | RESERVED_HIGH)) !== 0)
      return SubPage.Misconfigured;
    table = addressOf(low, high, PAGE_FRAME);
  }
  const at = table + 8 * indexAt(1, lo, hi);
  const low = memory.read32(at) | 0;
  const high = memory.read32(at + 4) | 0;
  entries?.push({ structure: 'SPP', address: at, value: memory.read64(at) });
  if (((low | high) & ODD_BITS) !== 0) return SubPage.Misconfigured;
  SUB_PAGE_VECTOR.low = low;
  SUB_PAGE_VECTOR.high = high;
  return vectorAllows(low, high, lo) ? SubPage.Allowed : SubPage.Denied;
}
