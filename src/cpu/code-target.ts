/**
 * The code that a far transfer goes to (SDM vol. 3A §6.8.1): checks of the segment and of the offset in
 * it, common to JMP, CALL, RET and IRET.
 */
import { isCanonicalPair } from './addressing.ts';
import { type Descriptor, fetchDescriptor, isNull, Rights } from './descriptor.ts';
import { raiseForSelector, raiseWithCode, Vector } from './exceptions.ts';
import { Mode } from './mode.ts';
import type { Processor } from './processor.ts';
import { Register } from './registers.ts';

const RIP = 2 * Register.RIP;

/** Whether the processor is in IA-32e mode. */
export function inIa32eMode(cpu: Processor): boolean {
  return cpu.mode >= Mode.Compatibility;
}

/** Whether code of these access rights is 64-bit code, in IA-32e mode. */
export function isCode64(cpu: Processor, d: Descriptor): boolean {
  return inIa32eMode(cpu) && (d.rights & Rights.L) !== 0;
}

/** Raises #GP(selector), and answers false. */
export function refuse(cpu: Processor, selector: number, vector: Vector = Vector.GP): false {
  raiseForSelector(cpu, vector, selector);
  return false;
}

/** In IA-32e mode L and D may not both be 1. */
function hasBothSizes(cpu: Processor, d: Descriptor): boolean {
  return isCode64(cpu, d) && (d.rights & Rights.Big) !== 0;
}

/** A code segment that JMP or CALL names directly, after it was fetched; it is entered at the CPL. */
export function checkDirectCode(cpu: Processor, selector: number, d: Descriptor): boolean {
  const { cpl } = cpu;
  const allowed = d.isConforming ? d.dpl <= cpl : (selector & 3) <= cpl && d.dpl === cpl;
  if (!allowed || hasBothSizes(cpu, d)) return refuse(cpu, selector);
  return d.isPresent || refuse(cpu, selector, Vector.NP);
}

/** A code segment that RET or IRET returns to; RPL of the selector is the privilege level there. */
export function checkReturnCode(cpu: Processor, selector: number, d: Descriptor): boolean {
  if (isNull(selector)) return refuse(cpu, 0);
  if (!fetchDescriptor(cpu, selector, d, Vector.GP)) return false;
  const rpl = selector & 3;
  const allowed = d.isCode && rpl >= cpu.cpl && (d.isConforming ? d.dpl <= rpl : d.dpl === rpl);
  if (!allowed || hasBothSizes(cpu, d)) return refuse(cpu, selector);
  return d.isPresent || refuse(cpu, selector, Vector.NP);
}

/** Whether `hi`:`lo` may be RIP in code segment `d`; #GP(0) is raised if not. */
export function checkOffset(cpu: Processor, d: Descriptor, lo: number, hi: number): boolean {
  const within = isCode64(cpu, d) ? isCanonicalPair(cpu, hi) : hi === 0 && lo >>> 0 <= d.limit >>> 0;
  if (!within) raiseWithCode(cpu, Vector.GP, 0);
  return within;
}

/** The linear address of offset `hi`:`lo` in code segment `d`. */
export function linearTarget(cpu: Processor, d: Descriptor, lo: number, hi: number): bigint {
  if (!isCode64(cpu, d)) return BigInt((d.baseLow + lo) >>> 0);
  return (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0);
}

/** RIP := `hi`:`lo`. */
export function setRip(cpu: Processor, lo: number, hi: number): void {
  cpu.i32[RIP] = lo;
  cpu.i32[RIP + 1] = hi;
}
