/** Builds small executable ELF files and Multiboot headers for tests. */

interface SegmentSpec {
  readonly physical: number;
  /** The physical address if left out. */
  readonly virtual?: bigint;
  readonly bytes: Uint8Array;
  /** The size of `bytes` if left out. */
  readonly memorySize?: number;
  /** 1 (loadable) if left out. */
  readonly type?: number;
}

interface SectionSpec {
  readonly type: number;
  readonly flags?: number;
  readonly address?: number;
  readonly bytes: Uint8Array;
}

export interface ElfSpec {
  readonly bits: 32 | 64;
  readonly entry: bigint;
  readonly segments: readonly SegmentSpec[];
  readonly sections?: readonly SectionSpec[];
}

export function concat(...parts: readonly Uint8Array[]): Uint8Array {
  return Uint8Array.from(parts.flatMap((p) => [...p]));
}

function words(...values: readonly number[]): Uint8Array {
  return new Uint8Array(Uint32Array.from(values).buffer);
}

/** A Multiboot header; the checksum is right unless given. */
export function multibootHeader(
  flags: number,
  addresses: readonly number[] = [],
  checksum = -(0x1bad_b002 + flags) >>> 0,
): Uint8Array {
  return words(0x1bad_b002, flags, checksum, ...addresses);
}

/** File header, program headers, contents of segments and sections in order, section headers. */
export function buildElf({ bits, entry, segments, sections = [] }: ElfSpec): Uint8Array {
  const wide = bits === 64;
  const [headerSize, programSize, sectionSize] = wide ? [64, 56, 64] : [52, 32, 40];
  let at = headerSize + programSize * segments.length;
  const place = (bytes: Uint8Array) => {
    at = Math.ceil(at / 16) * 16;
    const offset = at;
    at += bytes.length;
    return offset;
  };
  const segmentOffsets = segments.map((s) => place(s.bytes));
  const sectionOffsets = sections.map((s) => place(s.bytes));
  const sectionTable = sections.length === 0 ? 0 : place(new Uint8Array(sectionSize * (sections.length + 1)));
  const file = new Uint8Array(at);
  const view = new DataView(file.buffer);
  let cursor = 0;
  const put = (size: number, write: (at: number) => void) => {
    write(cursor);
    cursor += size;
  };
  const u16 = (...values: number[]) => {
    for (const value of values) put(2, (at) => view.setUint16(at, value, true));
  };
  const u32 = (...values: number[]) => {
    for (const value of values) put(4, (at) => view.setUint32(at, value, true));
  };
  /** Words of the file's own width. */
  const word = (...values: (number | bigint)[]) => {
    for (const value of values) {
      if (wide) put(8, (at) => view.setBigUint64(at, BigInt(value), true));
      else u32(Number(value));
    }
  };
  file.set([0x7f, 0x45, 0x4c, 0x46, wide ? 2 : 1, 1, 1]);
  cursor = 16;
  u16(2, wide ? 62 : 3);
  u32(1);
  word(entry, headerSize, sectionTable);
  u32(0);
  u16(headerSize, programSize, segments.length, sectionSize);
  u16(sections.length === 0 ? 0 : sections.length + 1, sections.length);
  segments.forEach((s, i) => {
    const [offset, size] = [segmentOffsets[i]!, s.bytes.length];
    const virtual = s.virtual ?? BigInt(s.physical);
    file.set(s.bytes, offset);
    u32(s.type ?? 1);
    if (wide) u32(7);
    word(offset, virtual, s.physical, size, s.memorySize ?? size);
    if (!wide) u32(7);
    word(16);
  });
  cursor = sectionTable === 0 ? cursor : sectionTable + sectionSize;
  sections.forEach((s, i) => {
    file.set(s.bytes, sectionOffsets[i]!);
    u32(0, s.type);
    word(s.flags ?? 0, s.address ?? 0, sectionOffsets[i]!, s.bytes.length);
    u32(0, 0);
    word(1, 0);
  });
  return file;
}

/** A bootable ELF file: Multiboot header and `code` at 1 MByte, entered at `code`. */
export function multibootElf(code: Uint8Array, bits: 32 | 64 = 32, flags = 3): Uint8Array {
  const header = multibootHeader(flags);
  const physical = 0x10_0000;
  return buildElf({
    bits,
    entry: BigInt(physical + header.length),
    segments: [{ physical, bytes: concat(header, code) }],
  });
}
