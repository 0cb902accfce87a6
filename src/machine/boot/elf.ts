/** Executable ELF files of x86, 32-bit and 64-bit: header and loadable segments, checked against the file. */
import { hex } from '../../bits/u64.ts';
import { type BootProblem, isProblem } from './boot-plan.ts';
import type { ImageReader } from './image-reader.ts';

interface ElfSegment {
  /** Number of its program header. */
  readonly index: number;
  readonly offset: number;
  readonly virtual: bigint;
  readonly physical: number;
  readonly fileSize: number;
  /** At least `fileSize`, and not 0. */
  readonly memorySize: number;
}

/** The section header table as the file header describes it. */
interface ElfSectionTable {
  readonly offset: number;
  readonly count: number;
  readonly entrySize: number;
  /** Number of the section that holds the names. */
  readonly names: number;
}

export interface ElfImage {
  readonly bits: 32 | 64;
  readonly segments: readonly ElfSegment[];
  /** Physical address of the entry point. */
  readonly entry: number;
  readonly sections: ElfSectionTable;
}

const MAGIC = 0x464c_457f;
const EXECUTABLE = 2;
const MACHINE = { 32: 3, 64: 62 } as const;
const LOADABLE = 1;
const MORE_HEADERS = 0xffff;
/** Sizes of the file header and of a program header. */
const HEADER_SIZE = { 32: 52, 64: 64 } as const;
const PROGRAM_HEADER_SIZE = { 32: 32, 64: 56 } as const;

export function isElf(image: ImageReader): boolean {
  return image.has(0, 4) && image.u32(0) === MAGIC;
}

/** Reads an image for which {@link isElf} holds. */
export function readElf(image: ImageReader): ElfImage | BootProblem {
  const bits = image.has(0, 20) ? ({ 1: 32, 2: 64 } as const)[image.u8(4) as 1 | 2] : 32;
  if (bits === undefined) return { problem: `the ELF class at offset 4 is ${image.u8(4)}, neither 1 nor 2` };
  if (!image.has(0, HEADER_SIZE[bits])) {
    return { problem: `the file ends at offset ${hex(image.length)}, inside the ELF header` };
  }
  const wrong = wrongKind(image, bits);
  if (wrong !== undefined) return wrong;
  const wide = bits === 64;
  const segments = readSegments(image, bits, {
    offset: wide ? image.u64(32) : image.u32(28),
    entrySize: image.u16(wide ? 54 : 42),
    count: image.u16(wide ? 56 : 44),
  });
  if (isProblem(segments)) return segments;
  const address = wide ? image.big64(24) : BigInt(image.u32(24));
  const entry = physicalEntry(segments, address);
  if (entry === undefined) return { problem: `the entry point ${hex(address)} lies in no loadable segment` };
  return {
    bits,
    segments,
    entry,
    sections: {
      offset: wide ? image.u64(40) : image.u32(32),
      entrySize: image.u16(wide ? 58 : 46),
      count: image.u16(wide ? 60 : 48),
      names: image.u16(wide ? 62 : 50),
    },
  };
}

function wrongKind(image: ImageReader, bits: 32 | 64): BootProblem | undefined {
  if (image.u8(5) !== 1)
    return { problem: `the ELF data encoding at offset 5 is ${image.u8(5)}, not 1 (little-endian)` };
  const machine = image.u16(18);
  // A 64-bit processor's 32-bit programs are marked as either machine.
  if (machine !== MACHINE[bits] && machine !== MACHINE[32]) {
    return {
      problem: `the ELF machine at offset 18 is ${machine}, not ${MACHINE[bits]} (x86, ${bits} bits)`,
    };
  }
  const type = image.u16(16);
  if (type !== EXECUTABLE) {
    return {
      problem: `the ELF type at offset 16 is ${type}, not 2: only an executable with fixed addresses can be booted`,
    };
  }
  return undefined;
}

function readSegments(
  image: ImageReader,
  bits: 32 | 64,
  { offset, entrySize, count }: { offset: number; entrySize: number; count: number },
): ElfSegment[] | BootProblem {
  if (count === 0) return { problem: 'the ELF file has no program headers' };
  if (count === MORE_HEADERS) return { problem: 'the ELF file has 65535 program headers or more' };
  if (entrySize < PROGRAM_HEADER_SIZE[bits]) {
    return {
      problem: `an ELF program header has ${entrySize} bytes, fewer than ${PROGRAM_HEADER_SIZE[bits]}`,
    };
  }
  if (!image.has(offset, count * entrySize)) {
    return {
      problem: `${count} program headers at offset ${hex(offset)} reach beyond the end of the file at ${hex(image.length)}`,
    };
  }
  const segments: ElfSegment[] = [];
  for (let index = 0; index < count; index++) {
    const at = offset + index * entrySize;
    if (image.u32(at) !== LOADABLE) continue;
    const segment = bits === 64 ? segment64(image, at, index) : segment32(image, at, index);
    if (segment.fileSize > segment.memorySize) {
      return {
        problem: `segment ${index} has ${hex(segment.fileSize)} bytes in the file but only ${hex(segment.memorySize)} in memory`,
      };
    }
    if (!image.has(segment.offset, segment.fileSize)) {
      return {
        problem: `segment ${index} at offset ${hex(segment.offset)} reaches beyond the end of the file at ${hex(image.length)}`,
      };
    }
    if (segment.memorySize > 0) segments.push(segment);
  }
  return segments.length > 0 ? segments : { problem: 'the ELF file has no loadable segment' };
}

function segment32(image: ImageReader, at: number, index: number): ElfSegment {
  return {
    index,
    offset: image.u32(at + 4),
    virtual: BigInt(image.u32(at + 8)),
    physical: image.u32(at + 12),
    fileSize: image.u32(at + 16),
    memorySize: image.u32(at + 20),
  };
}

function segment64(image: ImageReader, at: number, index: number): ElfSegment {
  return {
    index,
    offset: image.u64(at + 8),
    virtual: image.big64(at + 16),
    physical: image.u64(at + 24),
    fileSize: image.u64(at + 32),
    memorySize: image.u64(at + 40),
  };
}

/** The entry point is a virtual address of a segment; some files give the physical one. */
function physicalEntry(segments: readonly ElfSegment[], entry: bigint): number | undefined {
  const within = (start: bigint, s: ElfSegment) => entry >= start && entry < start + BigInt(s.memorySize);
  const byVirtual = segments.find((s) => within(s.virtual, s));
  if (byVirtual !== undefined) return Number(entry - byVirtual.virtual) + byVirtual.physical;
  return segments.some((s) => within(BigInt(s.physical), s)) ? Number(entry) : undefined;
}
