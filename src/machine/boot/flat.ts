/**
 * Boot of a flat binary: the file as it is at an address, entered at its first byte in real mode, in
 * 32-bit protected mode or in 64-bit mode with all RAM mapped to itself. It gets a stack of 4 KBytes.
 */
import { hex } from '../../bits/u64.ts';
import type { CpuidFeatures } from '../../cpu/cpuid.ts';
import { memoryMap } from '../memory-map.ts';
import type { BootPlan, BootProblem } from './boot-plan.ts';
import {
  type EntryMode,
  flatGdt,
  longModeState,
  protectedModeState,
  type RegisterValue,
  realModeState,
} from './entry-state.ts';
import { Placement } from './placement.ts';

const PAGE = 4096;
const LOW_START = PAGE;
const GIB = 2 ** 30;
const LIMIT = 2 ** 32;
/** Real mode reaches CS FFFFH × 16 + FFFFH. */
const REAL_MODE_END = 0x10_fff0;
/** Present, writable; and a large page. */
const PRESENT_WRITABLE = 3n;
const LARGE_PAGE = 0x83n;

export interface FlatOptions {
  readonly ramSize: number;
  readonly address: number;
  readonly mode: EntryMode;
  readonly features: CpuidFeatures;
}

/** Plans the boot of `bytes`; never throws, whatever they are. */
export function planFlat(bytes: Uint8Array, options: FlatOptions): BootPlan | BootProblem {
  const { address, mode, ramSize } = options;
  if (bytes.length === 0) return { problem: 'the file is empty' };
  if (mode === 16 && address >= REAL_MODE_END) {
    return { problem: `real mode does not reach ${hex(address)}` };
  }
  if (mode === 64 && !options.features.intel64) return { problem: 'this processor has no 64-bit mode' };
  // What firmware would keep is RAM here: a flat binary may be firmware.
  const ram = memoryMap(ramSize).filter((r) => r.kind === 'usable');
  const below = ram.find((r) => r.start >= 0x10_0000)?.end ?? 0;
  const placement = new Placement([
    { start: 0, end: below, kind: 'usable' },
    ...ram.filter((r) => r.start >= LIMIT),
  ]);
  const problem = placement.claim(address, address + bytes.length, 'the image');
  if (problem !== undefined) return problem;

  const image = { start: address, bytes };
  const place = (size: number, what: string, limit = LIMIT) =>
    placement.place(size, PAGE, LOW_START, limit, what);
  const stack = place(PAGE, 'the stack', mode === 16 ? 0x1_0000 : LIMIT);
  const gdt = place(PAGE, 'the GDT');
  if (stack === undefined || gdt === undefined) return { problem: 'the image leaves no room for a stack' };
  const stackEnd: RegisterValue = ['RSP', BigInt(stack + PAGE)];
  if (mode === 16) return { pieces: [image], registers: realModeState(address, stack + PAGE), notes: [] };
  const gdtPiece = { start: gdt, bytes: flatGdt(mode) };
  if (mode === 32) {
    return {
      pieces: [image, gdtPiece],
      registers: [...protectedModeState(address, gdt), stackEnd],
      notes: [],
    };
  }
  const top = Math.max(LIMIT, ...ram.map((r) => r.end));
  const gigabytes = Math.ceil(top / GIB);
  const tables = place((2 + gigabytes) * PAGE, 'the page tables');
  if (tables === undefined) return { problem: 'the image leaves no room for page tables' };
  return {
    pieces: [image, gdtPiece, { start: tables, bytes: identityTables(tables, gigabytes) }],
    registers: [...longModeState(address, gdt, tables), stackEnd],
    notes: [],
  };
}

/** Page tables at `base` that map the first `gigabytes` (at most 512) to themselves in pages of 2 MBytes. */
function identityTables(base: number, gigabytes: number): Uint8Array {
  const entries = new BigUint64Array((2 + gigabytes) * 512);
  entries[0] = BigInt(base + PAGE) | PRESENT_WRITABLE;
  for (let g = 0; g < gigabytes; g++) {
    entries[512 + g] = BigInt(base + (2 + g) * PAGE) | PRESENT_WRITABLE;
    for (let i = 0; i < 512; i++) {
      entries[(2 + g) * 512 + i] = (BigInt(g * 512 + i) << 21n) | LARGE_PAGE;
    }
  }
  return new Uint8Array(entries.buffer);
}
