/** Lists of MSRs in tests: the instructions, which the assembler does not know, and the tables. */
import type { PhysicalMemory } from '../../src/cpu/physical-memory.ts';

export const RDMSRLIST = Uint8Array.of(0xf2, 0x0f, 0x01, 0xc6);
export const WRMSRLIST = Uint8Array.of(0xf3, 0x0f, 0x01, 0xc6);
export const INDICES = 0x5_0000;
export const VALUES = 0x5_1000;

/** Entry by entry: index and value. */
export function writeList(memory: PhysicalMemory, entries: readonly (readonly [bigint, bigint])[]): void {
  entries.forEach(([index, value], n) => {
    memory.write64(INDICES + 8 * n, index);
    memory.write64(VALUES + 8 * n, value);
  });
}

export const values = (memory: PhysicalMemory, count: number) =>
  Array.from({ length: count }, (_, n) => memory.read64(VALUES + 8 * n));
