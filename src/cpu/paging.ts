/**
 * Translation of linear addresses (SDM vol. 3A chapter 5): fills the TLB from the paging structures.
 */
import { PAGE_SIZE } from '../bits/address.ts';
import { pageHasBreakpoint } from './debug-registers.ts';
import type { Processor } from './processor.ts';
import { CR0, Register } from './registers.ts';

const CR0_LOW = 2 * Register.CR0;
const ALL_RIGHTS = 0x1ff;

/**
 * TLB entry of the page of the canonical linear address `hi`:`lo` with the rights `need` (see
 * {@link Access}, shifted by the class of access), or −1 if a fault was raised.
 */
export function translate(cpu: Processor, lo: number, hi: number, need: number): number {
  const entry = cpu.tlb.find(lo, hi, need);
  return entry >= 0 ? entry : walk(cpu, lo, hi, need);
}

function walk(cpu: Processor, lo: number, hi: number, _need: number): number {
  if (((cpu.i32[CR0_LOW] as number) & (1 << CR0.PG)) !== 0) throw new Error('paging is not here yet');
  return enter(cpu, lo, hi, (lo & -PAGE_SIZE) >>> 0, ALL_RIGHTS);
}

/** Enters a translation to the page at `physical`; what must be seen of each access goes the slow way. */
function enter(cpu: Processor, lo: number, hi: number, physical: number, rights: number): number {
  const direct = pageHasBreakpoint(cpu, lo, hi) ? 0 : cpu.memory.directOffset(physical);
  return cpu.tlb.enter(lo, hi, physical, direct, rights);
}
