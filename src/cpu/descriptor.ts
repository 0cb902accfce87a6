/**
 * Descriptors in the GDT and LDT (SDM vol. 3A §3.4.5, §3.5, §6.8.3): decoded into the form that segment
 * registers have. Tables are read as implicit supervisor-mode accesses.
 */
import { noteDescriptorChange } from './bus-lock.ts';
import { raiseForSelector, type Vector } from './exceptions.ts';
import { loadLinear, storeLinear } from './memory-access.ts';
import { Mode } from './mode.ts';
import type { Processor } from './processor.ts';
import { Register } from './registers.ts';

/** Bits of access rights, in the format of the VMCS. */
export const Rights = {
  Accessed: 1 << 0,
  /** Of data: writable. Of code: readable. */
  WritableOrReadable: 1 << 1,
  /** Of data: expand-down. Of code: conforming. */
  ExpandDownOrConforming: 1 << 2,
  Code: 1 << 3,
  /** Code or data; otherwise a system descriptor. */
  S: 1 << 4,
  Present: 1 << 7,
  L: 1 << 13,
  /** D of code, B of data. */
  Big: 1 << 14,
  Granular: 1 << 15,
  Unusable: 1 << 16,
} as const;

/** Types of system descriptors (SDM vol. 3A Table 3-2). */
export const SystemType = {
  Tss16: 1,
  Ldt: 2,
  BusyTss16: 3,
  CallGate16: 4,
  TaskGate: 5,
  InterruptGate16: 6,
  TrapGate16: 7,
  Tss32: 9,
  BusyTss32: 11,
  CallGate32: 12,
  InterruptGate32: 14,
  TrapGate32: 15,
} as const;

const GDTR_BASE = 2 * Register['GDTR.base'];
const GDTR_LIMIT = 2 * Register['GDTR.limit'];
const LDTR_BASE = 2 * Register['LDTR.base'];
const LDTR_LIMIT = 2 * Register['LDTR.limit'];
const LDTR_RIGHTS = 2 * Register['LDTR.accessRights'];
const DESCRIPTOR = 8 * Register.descriptor;
const DESCRIPTOR_WORD = 2 * Register.descriptor;
const TWO_32 = 0x1_0000_0000;

/** A segment or system descriptor, or a gate: one a place that works with it, filled anew each time. */
export class Descriptor {
  /** Linear address. */
  addressLow = 0;
  addressHigh = 0;
  /** Type, S, DPL, P, AVL, L, D/B, G; of a gate the lower eight bits of these. */
  rights = 0;
  baseLow = 0;
  baseHigh = 0;
  /** In bytes, as a signed word. */
  limit = 0;
  /** Selector and offset of a gate. */
  target = 0;
  offsetLow = 0;
  offsetHigh = 0;
  /** Parameter count of a call gate, or interrupt stack table of an interrupt gate: bits 7:0 of the second word. */
  parameters = 0;
  /** Bits 127:96 of a 16-byte descriptor, whose type field must be 0. */
  upper = 0;

  get isSegment(): boolean {
    return (this.rights & Rights.S) !== 0;
  }
  get isCode(): boolean {
    return (this.rights & (Rights.S | Rights.Code)) === (Rights.S | Rights.Code);
  }
  get isConforming(): boolean {
    return (this.rights & Rights.ExpandDownOrConforming) !== 0;
  }
  get isWritableData(): boolean {
    const mask = Rights.S | Rights.Code | Rights.WritableOrReadable;
    return (this.rights & mask) === (Rights.S | Rights.WritableOrReadable);
  }
  get isPresent(): boolean {
    return (this.rights & Rights.Present) !== 0;
  }
  get dpl(): number {
    return (this.rights >> 5) & 3;
  }
  /** Type of a system descriptor ({@link SystemType}), −1 of code and data. */
  get systemType(): number {
    return this.rights & Rights.S ? -1 : this.rights & 15;
  }

  /** Takes what was loaded to the slot `descriptor`; `high` is bits 127:64 of a 16-byte descriptor, or 0. */
  decode(cpu: Processor): void {
    const w = cpu.i32;
    const low = w[DESCRIPTOR_WORD] as number;
    const high = w[DESCRIPTOR_WORD + 1] as number;
    this.rights = (high >>> 8) & 0xf0ff;
    this.baseLow = (low >>> 16) | ((high & 0xff) << 16) | (high & 0xff00_0000);
    this.baseHigh = 0;
    const limit = (low & 0xffff) | (high & 0xf_0000);
    this.limit = (this.rights & Rights.Granular) !== 0 ? (limit << 12) | 0xfff : limit;
    this.target = low >>> 16;
    this.offsetLow = (low & 0xffff) | (high & 0xffff_0000);
    this.offsetHigh = 0;
    this.parameters = high & 0xff;
  }

  /** Takes bits 127:64 of a 16-byte descriptor too. */
  decodeUpper(cpu: Processor): void {
    this.baseHigh = cpu.i32[DESCRIPTOR_WORD + 2] as number;
    this.offsetHigh = this.baseHigh;
    this.upper = cpu.i32[DESCRIPTOR_WORD + 3] as number;
  }
}

/** What came of reading a descriptor. */
export const Found = { Yes: 0, OutsideTable: 1, Fault: 2 } as const;
export type Found = (typeof Found)[keyof typeof Found];

/** Reads the `bytes` (8 or 16) at `offset` of the table at `base` (word index in the state), without a limit check. */
export function readAt(
  cpu: Processor,
  base: number,
  offset: number,
  bytes: number,
  into: Descriptor,
): boolean {
  const w = cpu.i32;
  const sum = ((w[base] as number) >>> 0) + offset;
  into.addressLow = sum | 0;
  into.addressHigh =
    sum >= TWO_32 && cpu.mode >= Mode.Compatibility
      ? ((w[base + 1] as number) + 1) | 0
      : (w[base + 1] as number);
  if (!loadLinear(cpu, into.addressLow, into.addressHigh, DESCRIPTOR, bytes)) return false;
  into.decode(cpu);
  if (bytes === 16) into.decodeUpper(cpu);
  return true;
}

/**
 * Looks up the descriptor of `selector`: `bytes` is 8, or 16 for what has 16 bytes in IA-32e mode. A
 * page fault is raised; that the selector is outside its table is for the caller to judge.
 */
export function lookUp(cpu: Processor, selector: number, into: Descriptor, bytes = 8): Found {
  const w = cpu.i32;
  const local = (selector & 4) !== 0;
  if (local && ((w[LDTR_RIGHTS] as number) & Rights.Unusable) !== 0) return Found.OutsideTable;
  const limit = (w[local ? LDTR_LIMIT : GDTR_LIMIT] as number) >>> 0;
  const offset = selector & 0xfff8;
  if (offset + bytes - 1 > limit) return Found.OutsideTable;
  return readAt(cpu, local ? LDTR_BASE : GDTR_BASE, offset, bytes, into) ? Found.Yes : Found.Fault;
}

/** As {@link lookUp}, raising `vector` with the selector if it is outside its table. */
export function fetchDescriptor(
  cpu: Processor,
  selector: number,
  into: Descriptor,
  vector: Vector,
  bytes = 8,
): boolean {
  const found = lookUp(cpu, selector, into, bytes);
  if (found === Found.OutsideTable) raiseForSelector(cpu, vector, selector);
  return found === Found.Yes;
}

/** Writes the byte of the descriptor in memory that holds its type. */
function writeTypeByte(cpu: Processor, d: Descriptor): boolean {
  const sum = (d.addressLow >>> 0) + 5;
  const high = sum >= TWO_32 && cpu.mode >= Mode.Compatibility ? (d.addressHigh + 1) | 0 : d.addressHigh;
  cpu.i32[DESCRIPTOR_WORD] = d.rights;
  if (!storeLinear(cpu, sum | 0, high, DESCRIPTOR, 1)) return false;
  noteDescriptorChange(cpu, d.addressLow);
  return true;
}

/** Sets the accessed bit of a segment descriptor, here and in memory (SDM vol. 3A §3.4.5.1). */
export function markAccessed(cpu: Processor, d: Descriptor): boolean {
  if ((d.rights & Rights.Accessed) !== 0) return true;
  d.rights |= Rights.Accessed;
  return writeTypeByte(cpu, d);
}

const BUSY = 2;

/** Sets or clears the busy flag of a TSS descriptor, here and in memory. */
export function markBusy(cpu: Processor, d: Descriptor, busy: boolean): boolean {
  d.rights = busy ? d.rights | BUSY : d.rights & ~BUSY;
  return writeTypeByte(cpu, d);
}

/** Whether `selector` is a null selector (SDM vol. 3A §3.4.2). */
export function isNull(selector: number): boolean {
  return (selector & 0xfffc) === 0;
}
