/**
 * Loads and stores of an executing instruction at the linear address in the slot `linear`, between
 * memory and the processor's state. They answer false after raising a fault, having changed nothing.
 * An access within one page of RAM that the TLB knows touches only typed arrays.
 */
import { linearise } from './addressing.ts';
import { noteDataAccess } from './debug-registers.ts';
import type { Segment } from './instruction.ts';
import { isMapped, loadMapped, storeMapped } from './memory-mapped.ts';
import { translate } from './paging.ts';
import { STORES_ARE_NOTICED } from './physical-memory.ts';
import type { Processor } from './processor.ts';
import { Register } from './registers.ts';
import { Access, type AccessClass } from './tlb.ts';

const LINEAR = 2 * Register.linear;
const READ = Access.Read;
const WRITE = Access.Write;
const LAST_OFFSET = 0xfff;
const PAGE = 0x1000;

/** Loads `bytes` (1, 2, 4, 8, 16 or any number up to 512) to byte offset `to` of the state; 1 to 4 bytes are zero-extended to 8. */
export function load(cpu: Processor, to: number, bytes: number): boolean {
  return loadAs(cpu, to, bytes, cpu.accessClass);
}

/** A load with the rights of class `as`: implicit accesses are supervisor-mode accesses whatever the CPL. */
export function loadAs(cpu: Processor, to: number, bytes: number, as: AccessClass): boolean {
  const { i32 } = cpu;
  const lo = i32[LINEAR] as number;
  const offset = lo & LAST_OFFSET;
  if (offset + bytes > PAGE) return loadAcross(cpu, to, bytes, as);
  const entry = translate(cpu, lo, i32[LINEAR + 1] as number, READ << as);
  if (entry < 0) return false;
  const where = cpu.tlb.where[entry] as number;
  if (where === 0) {
    noteDataAccess(cpu, lo, i32[LINEAR + 1] as number, bytes, false);
    const page = cpu.tlb.physical[entry] as number;
    if (page === cpu.apicAccessPage) return cpu.vmxPort.loadVirtualApic(offset, to, bytes);
    return loadSlowly(cpu, to, page + offset, bytes);
  }
  const { memory } = cpu;
  const from = where + offset;
  const word = to >> 2;
  if (bytes === 4 || bytes === 8) {
    const words = memory.i32;
    const at = from >>> 2;
    const shift = (from & 3) << 3;
    if (shift === 0) {
      i32[word] = words[at] as number;
      i32[word + 1] = bytes === 8 ? (words[at + 1] as number) : 0;
    } else {
      const middle = words[at + 1] as number;
      i32[word] = ((words[at] as number) >>> shift) | (middle << (32 - shift));
      i32[word + 1] = bytes === 8 ? (middle >>> shift) | ((words[at + 2] as number) << (32 - shift)) : 0;
    }
    return true;
  }
  const { u8 } = memory;
  if (bytes <= 2) {
    i32[word] = bytes === 1 ? (u8[from] as number) : (u8[from] as number) | ((u8[from + 1] as number) << 8);
    i32[word + 1] = 0;
    return true;
  }
  for (let n = 0; n < bytes; n++) cpu.u8[to + n] = u8[from + n] as number;
  return true;
}

/** Stores `bytes` bytes from byte offset `from` of the state. */
export function store(cpu: Processor, from: number, bytes: number): boolean {
  return storeAs(cpu, from, bytes, cpu.accessClass);
}

/** A store with the rights of class `as`. */
export function storeAs(cpu: Processor, from: number, bytes: number, as: AccessClass): boolean {
  const { i32 } = cpu;
  const lo = i32[LINEAR] as number;
  const offset = lo & LAST_OFFSET;
  if (offset + bytes > PAGE) return storeAcross(cpu, from, bytes, as);
  const entry = translate(cpu, lo, i32[LINEAR + 1] as number, WRITE << as);
  if (entry < 0) return false;
  const where = cpu.tlb.where[entry] as number;
  if (where === 0) {
    if (!probeParts(cpu, lo, i32[LINEAR + 1] as number, bytes, as)) return false;
    noteDataAccess(cpu, lo, i32[LINEAR + 1] as number, bytes, true);
    const page = cpu.tlb.physical[entry] as number;
    if (page === cpu.apicAccessPage) return cpu.vmxPort.storeVirtualApic(offset, from, bytes);
    return storeSlowly(cpu, from, page + offset, bytes);
  }
  const { memory } = cpu;
  const to = where + offset;
  if (((memory.pageUse[(where - memory.ramStart) >>> 12] as number) & STORES_ARE_NOTICED) !== 0)
    noticeStore(cpu, to, bytes);
  if ((to & 3) === 0 && (bytes === 4 || bytes === 8)) {
    memory.i32[to >>> 2] = i32[from >> 2] as number;
    if (bytes === 8) memory.i32[(to >>> 2) + 1] = i32[(from >> 2) + 1] as number;
    return true;
  }
  for (let n = 0; n < bytes; n++) memory.u8[to + n] = cpu.u8[from + n] as number;
  return true;
}

/** Whether a store of `bytes` at the slot `linear` will succeed; raises the fault if not. */
export function probeStore(cpu: Processor, bytes: number): boolean {
  const { i32 } = cpu;
  const lo = i32[LINEAR] as number;
  const hi = i32[LINEAR + 1] as number;
  const need = (READ | WRITE) << cpu.accessClass;
  const low = translate(cpu, lo, hi, need);
  if (low < 0) return false;
  const page = cpu.tlb.physical[low] as number;
  const offset = lo & LAST_OFFSET;
  const first = Math.min(PAGE - offset, bytes);
  if (!probeParts(cpu, lo, hi, first, cpu.accessClass)) return false;
  if (first === bytes) {
    return page !== cpu.apicAccessPage || cpu.vmxPort.probeVirtualApicStore(offset, bytes);
  }
  const nextLow = nextPageLow(lo);
  const nextHigh = nextPageHigh(cpu, lo, hi);
  const high = translate(cpu, nextLow, nextHigh, need);
  if (high < 0) return false;
  const second = cpu.tlb.physical[high] as number;
  if (!probeParts(cpu, nextLow, nextHigh, bytes - first, cpu.accessClass)) return false;
  return passesApicPage(cpu, page, offset, second, WRITE);
}

/** Whether a store of the byte at the slot `linear` would succeed, which ENTER does not make although a virtual APIC sees it. */
export function touchByte(cpu: Processor): boolean {
  const lo = cpu.i32[LINEAR] as number;
  const entry = translate(cpu, lo, cpu.i32[LINEAR + 1] as number, WRITE << cpu.accessClass);
  if (entry < 0) return false;
  if (cpu.tlb.where[entry] !== 0 || cpu.tlb.physical[entry] !== cpu.apicAccessPage) return true;
  return cpu.vmxPort.touchVirtualApic(lo & LAST_OFFSET);
}

/** Bytes of the smallest part of a page that may have rights of its own (SDM §31.3.4). */
const PART = 128;

/** Whether a store within a page of which the first byte was translated may go on to its further parts. */
function probeParts(cpu: Processor, lo: number, hi: number, bytes: number, as: AccessClass): boolean {
  if (cpu.guestPhysical === undefined) return true;
  for (let at = (lo & -PART) + PART; at < lo + bytes; at += PART) {
    if (translate(cpu, at, hi, WRITE << as) < 0) return false;
  }
  return true;
}

/** An access across pages is never one that a virtual APIC lets through; false after the exit was made pending. */
function passesApicPage(cpu: Processor, low: number, offset: number, high: number, access: Access): boolean {
  if (low === cpu.apicAccessPage) return cpu.vmxPort.refuseVirtualApic(offset, access);
  return high !== cpu.apicAccessPage || cpu.vmxPort.refuseVirtualApic(0, access);
}

function nextPageLow(lo: number): number {
  return ((lo & -PAGE) + PAGE) | 0;
}

function nextPageHigh(cpu: Processor, lo: number, hi: number): number {
  // Outside 64-bit mode linear addresses wrap at 4 GBytes.
  return lo >>> 0 >= 0xffff_f000 && cpu.codeBits === 64 ? (hi + 1) | 0 : hi;
}

/** A store to a page from which code was decoded, or where a processor monitors a line; `to` is its offset in the buffer. */
function noticeStore(cpu: Processor, to: number, bytes: number): void {
  cpu.memory.noticeStore(cpu.memory.ramAddress(to), bytes);
  cpu.requestAttention();
}

function loadAcross(cpu: Processor, to: number, bytes: number, as: AccessClass): boolean {
  const { i32 } = cpu;
  const lo = i32[LINEAR] as number;
  const hi = i32[LINEAR + 1] as number;
  const first = PAGE - (lo & LAST_OFFSET);
  const low = translate(cpu, lo, hi, READ << as);
  if (low < 0) return false;
  const page = cpu.tlb.physical[low] as number;
  const high = translate(cpu, nextPageLow(lo), nextPageHigh(cpu, lo, hi), READ << as);
  if (high < 0) return false;
  const second = cpu.tlb.physical[high] as number;
  const offset = lo & LAST_OFFSET;
  if (!passesApicPage(cpu, page, offset, second, READ)) return false;
  noteDataAccess(cpu, lo, hi, bytes, false);
  return loadSlowly(cpu, to, page + offset, first) && loadSlowly(cpu, to + first, second, bytes - first);
}

function storeAcross(cpu: Processor, from: number, bytes: number, as: AccessClass): boolean {
  const { i32 } = cpu;
  const lo = i32[LINEAR] as number;
  const hi = i32[LINEAR + 1] as number;
  const first = PAGE - (lo & LAST_OFFSET);
  const low = translate(cpu, lo, hi, WRITE << as);
  if (low < 0) return false;
  const page = cpu.tlb.physical[low] as number;
  if (!probeParts(cpu, lo, hi, first, as)) return false;
  const nextLow = nextPageLow(lo);
  const nextHigh = nextPageHigh(cpu, lo, hi);
  const high = translate(cpu, nextLow, nextHigh, WRITE << as);
  if (high < 0) return false;
  const second = cpu.tlb.physical[high] as number;
  if (!probeParts(cpu, nextLow, nextHigh, bytes - first, as)) return false;
  const offset = lo & LAST_OFFSET;
  if (!passesApicPage(cpu, page, offset, second, WRITE)) return false;
  noteDataAccess(cpu, lo, hi, bytes, true);
  return (
    storeSlowly(cpu, from, page + offset, first) && storeSlowly(cpu, from + first, second, bytes - first)
  );
}

/** A load that is not just a copy within RAM: devices and watched pages see it. */
function loadSlowly(cpu: Processor, to: number, physical: number, bytes: number): boolean {
  const { memory, u8 } = cpu;
  cpu.accessWatch?.(false, physical, bytes, undefined);
  if (isMapped(cpu, physical)) loadMapped(cpu, to, physical, bytes);
  else for (let n = 0; n < bytes; n++) u8[to + n] = memory.read8(physical + n);
  for (let n = bytes; n < 8 && bytes < 8 && (to & 7) === 0; n++) u8[to + n] = 0;
  return true;
}

function storeSlowly(cpu: Processor, from: number, physical: number, bytes: number): boolean {
  const { memory, u8 } = cpu;
  if (cpu.accessWatch?.(true, physical, bytes, u8.subarray(from, from + bytes))) return true;
  cpu.requestAttention();
  if (isMapped(cpu, physical)) storeMapped(cpu, from, physical, bytes);
  else for (let n = 0; n < bytes; n++) memory.write8(physical + n, u8[from + n] as number);
  return true;
}

/** Loads through a segment: `hi`:`lo` is the offset. */
export function loadFrom(
  cpu: Processor,
  segment: Segment,
  lo: number,
  hi: number,
  to: number,
  bytes: number,
): boolean {
  return linearise(cpu, segment, lo, hi, bytes, READ) && load(cpu, to, bytes);
}

/** Stores through a segment. */
export function storeTo(
  cpu: Processor,
  segment: Segment,
  lo: number,
  hi: number,
  from: number,
  bytes: number,
): boolean {
  return linearise(cpu, segment, lo, hi, bytes, WRITE) && store(cpu, from, bytes);
}

/**
 * Loads at a linear address as an implicit supervisor-mode access: descriptor tables, task-state
 * segments (SDM vol. 3A §5.6).
 */
export function loadLinear(cpu: Processor, lo: number, hi: number, to: number, bytes: number): boolean {
  cpu.i32[LINEAR] = lo;
  cpu.i32[LINEAR + 1] = hi;
  return loadAs(cpu, to, bytes, 3);
}

/** Stores at a linear address as an implicit supervisor-mode access. */
export function storeLinear(cpu: Processor, lo: number, hi: number, from: number, bytes: number): boolean {
  cpu.i32[LINEAR] = lo;
  cpu.i32[LINEAR + 1] = hi;
  return storeAs(cpu, from, bytes, 3);
}
