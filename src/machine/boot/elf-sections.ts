/**
 * The section header table of an ELF image in memory, as Multiboot hands it over: a copy of the table,
 * and the contents of sections that no segment holds (symbols, strings, debug information) with their
 * addresses filled in. Addresses of sections that belong to segments stay as the file has them.
 */
import { hex } from '../../bits/u64.ts';
import { type BootProblem, isProblem, type MemoryPiece } from './boot-plan.ts';
import type { ElfImage } from './elf.ts';
import type { ImageReader } from './image-reader.ts';
import type { PlacedSections } from './multiboot-information.ts';
import type { Placement } from './placement.ts';

const ENTRY_SIZE = { 32: 40, 64: 64 } as const;
const NULL = 0;
const NO_BITS = 8;
const ALLOCATED = 2;
/** Physical addresses have to fit 32 bits. */
const LIMIT = 2 ** 32;

export interface LoadedSections {
  readonly table: PlacedSections;
  readonly pieces: readonly MemoryPiece[];
}

/** Places the sections at or above `from`. A problem only means that they are not handed over. */
export function loadElfSections(
  image: ImageReader,
  elf: ElfImage,
  placement: Placement,
  from: number,
): LoadedSections | BootProblem | undefined {
  const { offset, count, entrySize, names } = elf.sections;
  if (count === 0 || offset === 0) return undefined;
  if (entrySize < ENTRY_SIZE[elf.bits]) return { problem: `a section header has only ${entrySize} bytes` };
  if (!image.has(offset, count * entrySize)) {
    return {
      problem: `the section header table at offset ${hex(offset)} reaches beyond the end of the file`,
    };
  }
  const table = image.bytes.slice(offset, offset + count * entrySize);
  const pieces = loadUnallocated(image, elf.bits, table, entrySize, placement, from);
  if (isProblem(pieces)) return pieces;
  const address = placement.place(table.length, 8, from, LIMIT, 'the section header table');
  if (address === undefined) return { problem: 'there is no room for the section header table' };
  return {
    table: { count, entrySize, address, names },
    pieces: [...pieces, { start: address, bytes: table }],
  };
}

/** Contents of sections without an address; their headers in `table` get one. */
function loadUnallocated(
  image: ImageReader,
  bits: 32 | 64,
  table: Uint8Array,
  entrySize: number,
  placement: Placement,
  from: number,
): MemoryPiece[] | BootProblem {
  const pieces: MemoryPiece[] = [];
  const view = new DataView(table.buffer);
  const word = (at: number): number =>
    bits === 64 ? Number(view.getBigUint64(at, true)) : view.getUint32(at, true);
  const width = bits === 64 ? 8 : 4;
  for (let at = 0; at + entrySize <= table.length; at += entrySize) {
    const type = view.getUint32(at + 4, true);
    const flags = word(at + 8);
    const [offset, size] = [word(at + 8 + 2 * width), word(at + 8 + 3 * width)];
    if (type === NULL || type === NO_BITS || (flags & ALLOCATED) !== 0 || size === 0) continue;
    const what = `section ${at / entrySize}`;
    if (!image.has(offset, size))
      return { problem: `${what} at offset ${hex(offset)} reaches beyond the end of the file` };
    const start = placement.place(size, 16, from, LIMIT, what);
    if (start === undefined) return { problem: `there is no room for ${what} of ${size} bytes` };
    pieces.push({ start, bytes: image.bytes.subarray(offset, offset + size) });
    if (bits === 64) view.setBigUint64(at + 16, BigInt(start), true);
    else view.setUint32(at + 12, start, true);
  }
  return pieces;
}
