/**
 * The Multiboot information structure and everything that it points to, as one block of memory. Its
 * flags tell which members are valid: memory sizes, command line, modules, ELF sections, memory map
 * and the name of the loader.
 */
import { LOWER_KIB, memoryMap, upperKib } from '../memory-map.ts';

const LOADER_NAME = 'vmxon';
const INFORMATION_SIZE = 120;
const MAP_ENTRY_SIZE = 24;
const MODULE_SIZE = 16;
const FLAG = {
  Memory: 1 << 0,
  CommandLine: 1 << 2,
  Modules: 1 << 3,
  ElfSections: 1 << 5,
  MemoryMap: 1 << 6,
  LoaderName: 1 << 9,
} as const;

export interface PlacedModule {
  readonly start: number;
  readonly end: number;
  readonly text: string;
}

/** Where the section header table was put. */
export interface PlacedSections {
  readonly count: number;
  readonly entrySize: number;
  readonly address: number;
  readonly names: number;
}

export interface MultibootInformation {
  readonly ramSize: number;
  readonly commandLine: string;
  readonly modules: readonly PlacedModule[];
  readonly sections: PlacedSections | undefined;
}

const terminated = (text: string) => new TextEncoder().encode(`${text}\0`);

/** Size of the block, which does not depend on where it is put. */
export function informationSize(information: MultibootInformation): number {
  return buildInformation(information, 0).length;
}

/** The block for address `base`, a multiple of 8; the structure is at its start. */
export function buildInformation(information: MultibootInformation, base: number): Uint8Array {
  const { ramSize, modules, sections } = information;
  const ranges = memoryMap(ramSize);
  const texts = [information.commandLine, LOADER_NAME, ...modules.map((m) => m.text)].map(terminated);
  const mapAt = INFORMATION_SIZE;
  const modulesAt = mapAt + MAP_ENTRY_SIZE * ranges.length;
  const textsAt = modulesAt + MODULE_SIZE * modules.length;
  const bytes = new Uint8Array(textsAt + texts.reduce((sum, t) => sum + t.length, 0));
  const view = new DataView(bytes.buffer);
  const u32 = (offset: number, ...values: readonly number[]) => {
    values.forEach((value, i) => {
      view.setUint32(offset + 4 * i, value, true);
    });
  };

  const addresses: number[] = [];
  let at = textsAt;
  for (const text of texts) {
    bytes.set(text, at);
    addresses.push(base + at);
    at += text.length;
  }
  const [commandLine, loaderName, ...moduleTexts] = addresses as [number, number, ...number[]];

  const always = FLAG.Memory | FLAG.CommandLine | FLAG.Modules | FLAG.MemoryMap | FLAG.LoaderName;
  u32(0, always | (sections === undefined ? 0 : FLAG.ElfSections), LOWER_KIB, upperKib(ramSize));
  u32(16, commandLine, modules.length, base + modulesAt);
  if (sections !== undefined) {
    u32(28, sections.count, sections.entrySize, sections.address, sections.names);
  }
  u32(44, MAP_ENTRY_SIZE * ranges.length, base + mapAt);
  u32(64, loaderName);

  ranges.forEach(({ start, end, kind }, i) => {
    const entry = mapAt + MAP_ENTRY_SIZE * i;
    // The size of an entry does not count its own size field.
    u32(entry, MAP_ENTRY_SIZE - 4);
    view.setBigUint64(entry + 4, BigInt(start), true);
    view.setBigUint64(entry + 12, BigInt(end - start), true);
    u32(entry + 20, kind === 'usable' ? 1 : 2);
  });
  modules.forEach(({ start, end }, i) => {
    u32(modulesAt + MODULE_SIZE * i, start, end, moduleTexts[i] as number, 0);
  });
  return bytes;
}
