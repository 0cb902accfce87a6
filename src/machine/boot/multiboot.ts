/**
 * Boot protocol Multiboot 1: an ELF file, or any file whose header says where it goes, entered in
 * 32-bit protected mode with EAX 2BADB002H and EBX the address of the information structure. Low
 * memory holds that structure and the GDT; modules and sections come after the image.
 */
import { hex } from '../../bits/u64.ts';
import { memoryMap } from '../memory-map.ts';
import { type BootPlan, type BootProblem, isProblem, type MemoryPiece } from './boot-plan.ts';
import { isElf, readElf } from './elf.ts';
import { loadElfSections } from './elf-sections.ts';
import { flatGdt, protectedModeState } from './entry-state.ts';
import { ImageReader } from './image-reader.ts';
import {
  findMultibootHeader,
  type HeaderAddresses,
  HeaderFlag,
  type MultibootHeader,
} from './multiboot-header.ts';
import {
  buildInformation,
  informationSize,
  type MultibootInformation,
  type PlacedModule,
} from './multiboot-information.ts';
import { Placement } from './placement.ts';

const HANDOVER_MAGIC = 0x2bad_b002n;
const PAGE = 4096;
/** The first page stays free: it is where null pointers and the real-mode vectors lie. */
const LOW_START = PAGE;
const MIB = 0x10_0000;
/** Addresses in the structures have 32 bits. */
const LIMIT = 2 ** 32;

interface BootModule {
  readonly bytes: Uint8Array;
  /** Text that comes with the module, by convention its name or arguments. */
  readonly text: string;
}

export interface MultibootOptions {
  readonly ramSize: number;
  readonly commandLine?: string;
  readonly modules?: readonly BootModule[];
}

/** What is loaded of the image itself. */
interface LoadedImage {
  readonly pieces: readonly MemoryPiece[];
  readonly entry: number;
}

/** Plans the boot of `bytes`; never throws, whatever they are. */
export function planMultiboot(bytes: Uint8Array, options: MultibootOptions): BootPlan | BootProblem {
  const image = new ImageReader(bytes);
  const header = findMultibootHeader(image);
  if (isProblem(header)) return header;
  const placement = new Placement(memoryMap(options.ramSize).filter((r) => r.kind === 'usable'));
  const notes: string[] = [];
  if ((header.flags & HeaderFlag.VideoMode) !== 0)
    notes.push('the image asks for a video mode; there is no display');

  const elf = header.addresses === undefined ? elfOf(image) : undefined;
  if (isProblem(elf)) return elf;
  const loaded =
    elf === undefined
      ? loadByHeader(image, header, header.addresses as HeaderAddresses, placement)
      : loadSegments(image, elf, placement);
  if (isProblem(loaded)) return loaded;

  const after = Math.max(MIB, placement.highestEnd(LIMIT));
  const modules = placeModules(options.modules ?? [], placement, after);
  if (isProblem(modules)) return modules;
  const sections = elf === undefined ? undefined : loadElfSections(image, elf, placement, after);
  if (isProblem(sections)) notes.push(`no ELF sections are handed over: ${sections.problem}`);

  const information: MultibootInformation = {
    ramSize: options.ramSize,
    commandLine: options.commandLine ?? '',
    modules: modules.map((m) => m.placed),
    sections: sections === undefined || isProblem(sections) ? undefined : sections.table,
  };
  const gdt = flatGdt(32);
  const gdtAt = placement.place(gdt.length, 8, LOW_START, LIMIT, 'the GDT');
  const size = informationSize(information);
  const informationAt = placement.place(size, 8, LOW_START, LIMIT, 'the information structure');
  if (gdtAt === undefined || informationAt === undefined) {
    return { problem: `there is no room below 4 GBytes for the information structure of ${size} bytes` };
  }
  return {
    pieces: [
      ...loaded.pieces,
      ...modules.map((m) => m.piece),
      ...(sections === undefined || isProblem(sections) ? [] : sections.pieces),
      { start: gdtAt, bytes: gdt },
      { start: informationAt, bytes: buildInformation(information, informationAt) },
    ],
    registers: [
      ...protectedModeState(loaded.entry, gdtAt),
      ['RAX', HANDOVER_MAGIC],
      ['RBX', BigInt(informationAt)],
    ],
    notes,
  };
}

function elfOf(image: ImageReader) {
  if (isElf(image)) return readElf(image);
  return { problem: 'it is no ELF file, and its Multiboot header gives no load addresses' };
}

function loadSegments(
  image: ImageReader,
  elf: Exclude<ReturnType<typeof readElf>, BootProblem>,
  placement: Placement,
): LoadedImage | BootProblem {
  for (const { index, physical, memorySize } of elf.segments) {
    const problem = placement.claim(physical, physical + memorySize, `segment ${index}`);
    if (problem !== undefined) return problem;
  }
  if (elf.entry >= LIMIT) {
    return {
      problem: `the entry point ${hex(elf.entry)} lies above 4 GBytes, which 32-bit mode does not reach`,
    };
  }
  return {
    pieces: elf.segments.map(({ physical, offset, fileSize }) => ({
      start: physical,
      bytes: image.bytes.subarray(offset, offset + fileSize),
    })),
    entry: elf.entry,
  };
}

/** Loads a file by the address fields of its header: the file from `load` on, then zeros up to `bssEnd`. */
function loadByHeader(
  image: ImageReader,
  { offset }: MultibootHeader,
  { header, load, loadEnd, bssEnd, entry }: HeaderAddresses,
  placement: Placement,
): LoadedImage | BootProblem {
  const start = offset - (header - load);
  if (load > header || start < 0) {
    return {
      problem: `the Multiboot header at offset ${hex(offset)} says that it lies at ${hex(header)} in an image loaded at ${hex(load)}, which is before the start of the file`,
    };
  }
  const size = loadEnd === 0 ? image.length - start : loadEnd - load;
  if (size <= 0 || !image.has(start, size)) {
    return {
      problem: `the Multiboot header loads ${hex(load)} to ${hex(loadEnd)}, which is not in the file of ${hex(image.length)} bytes`,
    };
  }
  const end = Math.max(load + size, bssEnd);
  if (bssEnd !== 0 && bssEnd < load + size) {
    return {
      problem: `the Multiboot header ends the bss at ${hex(bssEnd)}, before the data ends at ${hex(load + size)}`,
    };
  }
  if (entry < load || entry >= end) {
    return { problem: `the entry point ${hex(entry)} lies outside the image at ${hex(load)} to ${hex(end)}` };
  }
  const problem = placement.claim(load, end, 'the image');
  if (problem !== undefined) return problem;
  return { pieces: [{ start: load, bytes: image.bytes.subarray(start, start + size) }], entry };
}

function placeModules(
  modules: readonly BootModule[],
  placement: Placement,
  after: number,
): { readonly placed: PlacedModule; readonly piece: MemoryPiece }[] | BootProblem {
  const result: { placed: PlacedModule; piece: MemoryPiece }[] = [];
  for (const { bytes, text } of modules) {
    // An empty module takes a page, so that its address is its own.
    const start = placement.place(Math.max(bytes.length, 1), PAGE, after, LIMIT, 'a module');
    if (start === undefined) {
      return { problem: `there is no room for module ${result.length + 1} of ${bytes.length} bytes` };
    }
    result.push({ placed: { start, end: start + bytes.length, text }, piece: { start, bytes } });
  }
  return result;
}
