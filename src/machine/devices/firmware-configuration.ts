/**
 * The fw_cfg interface at 510H/511H: a word written to 510H selects an item, reads of 511H give its
 * bytes, and 0 past its end. Items are read-only and there is no DMA interface, as the id item says.
 */
import { allOnes, type PortAccessSize } from '../../cpu/port-space.ts';
import type { PortDevice, PortRange } from './port-device.ts';

const SELECTOR = 0x510;
const DATA = 0x511;
/** Keys of items that have one of their own. */
const FirmwareKey = {
  Signature: 0x00,
  Id: 0x01,
  RamSize: 0x03,
  CpuCount: 0x05,
  MaxCpuCount: 0x0f,
  CommandLineSize: 0x14,
  CommandLineData: 0x15,
  FileDirectory: 0x19,
  FirstFile: 0x20,
} as const;

/** Bits of a selector that do not select: write access, which there is none of. */
const WRITE = 0x4000;
const LONGEST_NAME = 55;

export interface FirmwareItems {
  readonly ramSize: number;
  readonly cpus: number;
  readonly commandLine?: string;
  /** Named files, such as `etc/e820`. */
  readonly files?: ReadonlyMap<string, Uint8Array>;
}

export interface FirmwareConfigurationState {
  readonly selector: number;
  readonly offset: number;
}

function littleEndian(value: number, size: 2 | 4 | 8): Uint8Array {
  const bytes = new Uint8Array(size);
  for (let i = 0, rest = value; i < size; i++, rest = Math.floor(rest / 256)) bytes[i] = rest % 256;
  return bytes;
}

function terminated(text: string): Uint8Array {
  return new TextEncoder().encode(`${text}\0`);
}

/** Number of files, then size, key and name of each: big-endian, names padded to 56 bytes. */
function directory(files: readonly (readonly [string, Uint8Array])[]): Uint8Array {
  const bytes = new Uint8Array(4 + 64 * files.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, files.length);
  files.forEach(([name, contents], index) => {
    const at = 4 + 64 * index;
    view.setUint32(at, contents.length);
    view.setUint16(at + 4, FirmwareKey.FirstFile + index);
    bytes.set(new TextEncoder().encode(name).subarray(0, LONGEST_NAME), at + 8);
  });
  return bytes;
}

export class FirmwareConfiguration implements PortDevice {
  readonly ports: readonly PortRange[] = [[SELECTOR, DATA]];
  readonly widest = 2;
  readonly #items = new Map<number, Uint8Array>();
  #selector = 0;
  #offset = 0;

  constructor({ ramSize, cpus, commandLine = '', files = new Map() }: FirmwareItems) {
    const line = terminated(commandLine);
    const sorted = [...files].sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
    const items: [number, Uint8Array][] = [
      [FirmwareKey.Signature, new TextEncoder().encode('QEMU')],
      [FirmwareKey.Id, littleEndian(1, 4)],
      [FirmwareKey.RamSize, littleEndian(ramSize, 8)],
      [FirmwareKey.CpuCount, littleEndian(cpus, 2)],
      [FirmwareKey.MaxCpuCount, littleEndian(cpus, 2)],
      [FirmwareKey.CommandLineSize, littleEndian(line.length, 4)],
      [FirmwareKey.CommandLineData, line],
      [FirmwareKey.FileDirectory, directory(sorted)],
      ...sorted.map(([, contents], index): [number, Uint8Array] => [FirmwareKey.FirstFile + index, contents]),
    ];
    for (const [key, bytes] of items) this.#items.set(key, bytes);
  }

  read(port: number, size: PortAccessSize): number {
    if (port !== DATA) return allOnes(size);
    const byte = this.#items.get(this.#selector & ~WRITE)?.[this.#offset];
    if (byte === undefined) return 0;
    this.#offset++;
    return byte;
  }

  write(port: number, size: PortAccessSize, value: number): void {
    if (port !== SELECTOR || size !== 2) return;
    this.#selector = value;
    this.#offset = 0;
  }

  snapshot(): FirmwareConfigurationState {
    return { selector: this.#selector, offset: this.#offset };
  }

  restore(state: FirmwareConfigurationState): void {
    this.#selector = state.selector;
    this.#offset = state.offset;
  }
}
