/** The header that marks an image for the Multiboot specification, version 0.6.96: found and checked. */
import { hex } from '../../bits/u64.ts';
import type { BootProblem } from './boot-plan.ts';
import type { ImageReader } from './image-reader.ts';

const MAGIC = 0x1bad_b002;
const MULTIBOOT2_MAGIC = 0xe852_50d6;
/** The header lies in the first 8192 bytes. */
const SEARCHED = 8192;

export const HeaderFlag = {
  AlignModules: 1 << 0,
  MemoryInformation: 1 << 1,
  VideoMode: 1 << 2,
  Addresses: 1 << 16,
} as const;
/** Flags 15:0 ask for something that a loader must do or refuse. */
const REQUIREMENTS = 0xffff;
const UNDERSTOOD = HeaderFlag.AlignModules | HeaderFlag.MemoryInformation | HeaderFlag.VideoMode;

/** The address fields, present with {@link HeaderFlag.Addresses}. */
export interface HeaderAddresses {
  readonly header: number;
  readonly load: number;
  /** 0: up to the end of the file. */
  readonly loadEnd: number;
  /** 0: nothing to clear. */
  readonly bssEnd: number;
  readonly entry: number;
}

export interface MultibootHeader {
  readonly offset: number;
  readonly flags: number;
  readonly addresses: HeaderAddresses | undefined;
}

export function findMultibootHeader(image: ImageReader): MultibootHeader | BootProblem {
  const end = Math.min(image.length, SEARCHED);
  for (let offset = 0; offset + 12 <= end; offset += 4) {
    if (image.u32(offset) === MAGIC && checksumHolds(image, offset)) return readHeader(image, offset, end);
  }
  return { problem: whyNotFound(image) };
}

function checksumHolds(image: ImageReader, offset: number): boolean {
  return ((MAGIC + image.u32(offset + 4) + image.u32(offset + 8)) & 0xffff_ffff) === 0;
}

function readHeader(image: ImageReader, offset: number, end: number): MultibootHeader | BootProblem {
  const flags = image.u32(offset + 4);
  const unknown = flags & REQUIREMENTS & ~UNDERSTOOD;
  if (unknown !== 0) {
    return {
      problem: `the Multiboot header at offset ${hex(offset)} requires features ${hex(unknown)}, which are not known`,
    };
  }
  if ((flags & HeaderFlag.Addresses) === 0) return { offset, flags, addresses: undefined };
  if (offset + 32 > end) {
    return {
      problem: `the Multiboot header at offset ${hex(offset)} has address fields that end beyond ${hex(end)}`,
    };
  }
  const [header, load, loadEnd, bssEnd, entry] = [12, 16, 20, 24, 28].map((at) => image.u32(offset + at)) as [
    number,
    number,
    number,
    number,
    number,
  ];
  return { offset, flags, addresses: { header, load, loadEnd, bssEnd, entry } };
}

function whyNotFound(image: ImageReader): string {
  for (let offset = 0; offset + 4 <= Math.min(image.length, SEARCHED); offset++) {
    const word = image.u32(offset);
    const where = `at offset ${hex(offset)}`;
    if (word === MULTIBOOT2_MAGIC && offset % 8 === 0) {
      return `it has a Multiboot 2 header (${where}) but no Multiboot 1 header`;
    }
    if (word !== MAGIC) continue;
    if (offset % 4 !== 0) return `the Multiboot header ${where} is not aligned to 4 bytes`;
    if (!image.has(offset, 12) || offset + 12 > SEARCHED) return `the Multiboot header ${where} is cut off`;
    return `the checksum of the Multiboot header ${where} is wrong: magic, flags and checksum do not add up to 0`;
  }
  return `there is no Multiboot header in the first ${Math.min(image.length, SEARCHED)} bytes`;
}
