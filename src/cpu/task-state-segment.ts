/** The task-state segments of 16 and 32 bits as tables of offsets, read and written as a whole (SDM vol. 3A §9.2.1, §9.6). */
import { loadLinear, storeLinear } from './memory-access.ts';
import type { Processor } from './processor.ts';
import { Register } from './registers.ts';

/** Offsets of the fields that a task switch moves. */
export interface TssFormat {
  /** Bytes of a register. */
  readonly bytes: 2 | 4;
  /** Least limit. */
  readonly limit: number;
  readonly eip: number;
  readonly eflags: number;
  /** The eight general registers in the order of their numbers. */
  readonly general: number;
  /** ES, CS, SS, DS, and FS and GS of 32 bits. */
  readonly segments: number;
  readonly segmentCount: 4 | 6;
  readonly ldt: number;
  /** CR3 and the word with the T flag; 0 if the format has neither. */
  readonly cr3: number;
  readonly trap: number;
}

const TSS_16: TssFormat = {
  bytes: 2,
  limit: 0x2b,
  eip: 0x0e,
  eflags: 0x10,
  general: 0x12,
  segments: 0x22,
  segmentCount: 4,
  ldt: 0x2a,
  cr3: 0,
  trap: 0,
};

const TSS_32: TssFormat = {
  bytes: 4,
  limit: 0x67,
  eip: 0x20,
  eflags: 0x24,
  general: 0x28,
  segments: 0x48,
  segmentCount: 6,
  ldt: 0x60,
  cr3: 0x1c,
  trap: 0x64,
};

/** The format that the type of a TSS descriptor says. */
export function formatOf(rights: number): TssFormat {
  return (rights & 8) !== 0 ? TSS_32 : TSS_16;
}

const SSP_OF_TSS = 0x68;
/** Least limit of a TSS with SSP. */
export const LIMIT_WITH_SSP = 0x6b;

const ITEM = 2 * Register.stackItem;
const ITEM_BYTES = 8 * Register.stackItem;

/** Loads `bytes` at `offset` of the TSS at linear address `base` into the slot `stackItem`. */
function loadField(cpu: Processor, base: number, offset: number, bytes: number): boolean {
  return loadLinear(cpu, (base + offset) | 0, 0, ITEM_BYTES, bytes);
}

/** Stores `value` at `offset` of the TSS at linear address `base`. */
export function storeField(
  cpu: Processor,
  base: number,
  offset: number,
  bytes: number,
  value: number,
): boolean {
  cpu.i32[ITEM] = value;
  return storeLinear(cpu, (base + offset) | 0, 0, ITEM_BYTES, bytes);
}

/** State of a task as its TSS holds it. */
export class TaskState {
  eip = 0;
  eflags = 0;
  readonly general = new Int32Array(8);
  readonly segments = new Uint16Array(6);
  ldt = 0;
  cr3 = 0;
  trap = false;
  /** SSP, where it was asked for. */
  ssp = 0;

  /** Reads a TSS, of 32 bits with SSP if `withSsp`; false after a page fault. */
  load(cpu: Processor, base: number, format: TssFormat, withSsp: boolean): boolean {
    const { bytes } = format;
    const w = cpu.i32;
    if (!loadField(cpu, base, format.eip, bytes)) return false;
    this.eip = w[ITEM] as number;
    if (!loadField(cpu, base, format.eflags, bytes)) return false;
    this.eflags = w[ITEM] as number;
    for (let n = 0; n < 8; n++) {
      if (!loadField(cpu, base, format.general + n * bytes, bytes)) return false;
      this.general[n] = w[ITEM] as number;
    }
    this.segments.fill(0);
    for (let n = 0; n < format.segmentCount; n++) {
      if (!loadField(cpu, base, format.segments + n * bytes, 2)) return false;
      this.segments[n] = w[ITEM] as number;
    }
    if (!loadField(cpu, base, format.ldt, 2)) return false;
    this.ldt = w[ITEM] as number;
    if (format.bytes === 2) {
      this.trap = false;
      return true;
    }
    if (!loadField(cpu, base, format.cr3, 4)) return false;
    this.cr3 = w[ITEM] as number;
    if (!loadField(cpu, base, format.trap, 2)) return false;
    this.trap = ((w[ITEM] as number) & 1) !== 0;
    if (withSsp && !loadField(cpu, base, SSP_OF_TSS, 4)) return false;
    this.ssp = w[ITEM] as number;
    return true;
  }

  /** Writes what a task switch saves: all but CR3, LDT selector and T flag. */
  save(cpu: Processor, base: number, format: TssFormat): boolean {
    const { bytes } = format;
    if (!storeField(cpu, base, format.eip, bytes, this.eip)) return false;
    if (!storeField(cpu, base, format.eflags, bytes, this.eflags)) return false;
    for (let n = 0; n < 8; n++) {
      if (!storeField(cpu, base, format.general + n * bytes, bytes, this.general[n] as number)) return false;
    }
    for (let n = 0; n < format.segmentCount; n++) {
      if (!storeField(cpu, base, format.segments + n * bytes, 2, this.segments[n] as number)) return false;
    }
    return true;
  }
}
