/**
 * Loading of segment registers (SDM vol. 2, MOV and POP; vol. 3A §3.4.3, §6.5): the checks of each
 * register in each mode, their exceptions, the accessed bit.
 */
import { flatAccesses } from './addressing.ts';
import { Descriptor, fetchDescriptor, isNull, markAccessed, Rights } from './descriptor.ts';
import { raiseForSelector, raiseWithCode, Vector } from './exceptions.ts';
import { Segment } from './instruction.ts';
import { Mode } from './mode.ts';
import type { Processor } from './processor.ts';
import { Register } from './registers.ts';

const FIRST = 2 * Register['ES.selector'];
/** Words of one segment register's slots: selector, base, limit, access rights. */
const STRIDE = 8;
const SELECTOR = 0;
const BASE = 2;
const LIMIT = 4;
const RIGHTS = 6;

/** Segment registers beyond those of ModR/M, by the same numbering. */
export const SystemSegment = { LDTR: 6, TR: 7 } as const;

const loaded = new Descriptor();

/** The selector in segment register `segment`. */
export function selectorOf(cpu: Processor, segment: number): number {
  return (cpu.i32[FIRST + STRIDE * segment] as number) & 0xffff;
}

/** Access rights of segment register `segment`. */
function rightsOf(cpu: Processor, segment: number): number {
  return cpu.i32[FIRST + STRIDE * segment + RIGHTS] as number;
}

/** Derives what depends on segment register `segment` after it was written. */
function changed(cpu: Processor, segment: number): void {
  if (segment === Segment.CS || segment === Segment.SS) cpu.updateSegments();
  else if (segment < SystemSegment.LDTR) cpu.flatSegments[segment] = flatAccesses(cpu, segment as Segment);
  cpu.stateChanged();
}

function write(
  cpu: Processor,
  segment: number,
  selector: number,
  base: number,
  limit: number,
  rights: number,
): void {
  const w = cpu.i32;
  const at = FIRST + STRIDE * segment;
  w[at + SELECTOR] = selector;
  w[at + BASE] = base;
  w[at + BASE + 1] = 0;
  w[at + LIMIT] = limit;
  w[at + RIGHTS] = rights;
}

/** Loads selector and descriptor into a segment register, LDTR or TR without any check. */
export function setSegment(cpu: Processor, segment: number, selector: number, d: Descriptor): void {
  write(cpu, segment, selector, d.baseLow, d.limit, d.rights);
  // Only system descriptors have 64 bits of base.
  if (segment >= SystemSegment.LDTR) cpu.i32[FIRST + STRIDE * segment + BASE + 1] = d.baseHigh;
  changed(cpu, segment);
}

/** Loads CS for `cpl`: RPL of the selector becomes the CPL. SS.DPL, which is the CPL, is loaded separately. */
export function setCodeSegment(cpu: Processor, selector: number, cpl: number, d: Descriptor): void {
  setSegment(cpu, Segment.CS, (selector & 0xfffc) | cpl, d);
}

/** Loads a segment register with base 0 and a limit of 4 GBytes, as fast system calls do. */
export function setFlatSegment(cpu: Processor, segment: number, selector: number, rights: number): void {
  write(cpu, segment, selector & 0xffff, 0, -1, rights);
  changed(cpu, segment);
}

/** Makes a segment register unusable by a null selector; SS keeps `dpl` as the CPL (SDM §27.4.1). */
export function setNullSegment(cpu: Processor, segment: number, selector: number, dpl = 0): void {
  write(cpu, segment, selector, 0, 0, Rights.Unusable | (dpl << 5));
  changed(cpu, segment);
}

/** Loads a segment register in real-address mode: the limit stays what it was (SDM vol. 3B §22.1.1). */
function setRealSegment(cpu: Processor, segment: number, selector: number): void {
  const w = cpu.i32;
  const at = FIRST + STRIDE * segment;
  w[at + SELECTOR] = selector;
  w[at + BASE] = selector << 4;
  w[at + BASE + 1] = 0;
  if ((w[at + RIGHTS] as number) & Rights.Unusable) {
    w[at + RIGHTS] = 0x93;
    w[at + LIMIT] = 0xffff;
  }
  changed(cpu, segment);
}

/** Access rights of every segment in virtual-8086 mode: present read/write data of DPL 3 (SDM vol. 3B §22.2.1). */
const VIRTUAL_8086_RIGHTS = 0xf3;

/** Loads a segment register as virtual-8086 mode has it. */
export function setVirtual8086Segment(cpu: Processor, segment: number, selector: number): void {
  write(cpu, segment, selector, selector << 4, 0xffff, VIRTUAL_8086_RIGHTS);
  changed(cpu, segment);
}

/** Loads any segment register but in protected mode, where there is nothing to check. */
export function setUncheckedSegment(cpu: Processor, segment: number, selector: number): void {
  if (cpu.mode === Mode.Real) setRealSegment(cpu, segment, selector);
  else setVirtual8086Segment(cpu, segment, selector);
}

/** Whether the mode has segments of 16 times the selector. */
export function hasRealSegments(cpu: Processor): boolean {
  return cpu.mode === Mode.Real || cpu.mode === Mode.Virtual8086;
}

/** MOV, POP, LDS and the like into DS, ES, FS, GS or SS. False after a fault, with nothing changed. */
export function loadSegment(cpu: Processor, segment: Segment, selector: number): boolean {
  if (hasRealSegments(cpu)) {
    setUncheckedSegment(cpu, segment, selector);
    return true;
  }
  return segment === Segment.SS ? loadStackSegment(cpu, selector) : loadDataSegment(cpu, segment, selector);
}

function loadDataSegment(cpu: Processor, segment: Segment, selector: number): boolean {
  if (isNull(selector)) {
    setNullSegment(cpu, segment, selector);
    return true;
  }
  if (!checkDataSegment(cpu, selector, cpu.cpl, Vector.GP, loaded)) return false;
  setSegment(cpu, segment, selector, loaded);
  return true;
}

/**
 * Fetches and checks what is not null for DS, ES, FS or GS at `cpl`, and sets its accessed bit; `vector`
 * is #GP, or #TS in a task switch.
 */
export function checkDataSegment(
  cpu: Processor,
  selector: number,
  cpl: number,
  vector: Vector,
  d: Descriptor,
): boolean {
  if (!fetchDescriptor(cpu, selector, d, vector)) return false;
  const readable = d.isSegment && (!d.isCode || (d.rights & Rights.WritableOrReadable) !== 0);
  const restricted = !(d.isCode && d.isConforming);
  if (!readable || (restricted && Math.max(selector & 3, cpl) > d.dpl)) {
    raiseForSelector(cpu, vector, selector);
    return false;
  }
  if (!d.isPresent) {
    raiseForSelector(cpu, Vector.NP, selector);
    return false;
  }
  return markAccessed(cpu, d);
}

function loadStackSegment(cpu: Processor, selector: number): boolean {
  const { cpl } = cpu;
  if (isNull(selector)) {
    if (cpu.mode !== Mode.Bit64 || cpl === 3 || (selector & 3) !== cpl) {
      raiseWithCode(cpu, Vector.GP, 0);
      return false;
    }
    setNullSegment(cpu, Segment.SS, selector, cpl);
    return true;
  }
  if (!checkStackSegment(cpu, selector, cpl, Vector.GP, loaded)) return false;
  setSegment(cpu, Segment.SS, selector, loaded);
  return true;
}

/**
 * Fetches and checks what is not null for SS at `cpl`, and sets its accessed bit; `vector` is #GP, or
 * #TS where the selector comes from a TSS.
 */
export function checkStackSegment(
  cpu: Processor,
  selector: number,
  cpl: number,
  vector: Vector,
  d: Descriptor,
): boolean {
  if (!fetchDescriptor(cpu, selector, d, vector)) return false;
  if ((selector & 3) !== cpl || !d.isWritableData || d.dpl !== cpl) {
    raiseForSelector(cpu, vector, selector);
    return false;
  }
  if (!d.isPresent) {
    raiseForSelector(cpu, Vector.SS, selector);
    return false;
  }
  return markAccessed(cpu, d);
}

/** On a change to less privilege: data segments that `cpl` may not use become null (SDM vol. 2, RET and IRET). */
export function dropPrivilegedSegments(cpu: Processor, cpl: number): void {
  for (const segment of [Segment.ES, Segment.DS, Segment.FS, Segment.GS]) {
    const rights = rightsOf(cpu, segment);
    if (rights & Rights.Unusable) continue;
    const conforming =
      (rights & (Rights.Code | Rights.ExpandDownOrConforming)) ===
      (Rights.Code | Rights.ExpandDownOrConforming);
    if (!conforming && ((rights >> 5) & 3) < cpl) setNullSegment(cpu, segment, 0);
  }
}
