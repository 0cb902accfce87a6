/** Flexible return and event delivery (FRED; SDM vol. 3A chapter 8): whether it is in use, and what it leaves to far transfers. */
import { refuse } from '../code-target.ts';
import { type Descriptor, Rights } from '../descriptor.ts';
import type { Processor } from '../processor.ts';
import { Register } from '../registers.ts';

const CR4_HIGH = 2 * Register.CR4 + 1;
/** CR4.FRED is bit 32; it is 1 in IA-32e mode only. */
const FRED_HIGH = 1;
const GS_BASE = 2 * Register['GS.base'];
const KERNEL_GS_BASE = 2 * Register.IA32_KERNEL_GS_BASE;

/** Whether events are delivered by FRED. */
export function usesFred(cpu: Processor): boolean {
  return ((cpu.i32[CR4_HIGH] as number) & FRED_HIGH) !== 0;
}

/**
 * JMP, CALL, RET and IRET to code segment `d` for `cpl`: with FRED they change no privilege level, and leave
 * CPL 0 in 64-bit mode. False after #GP(selector).
 */
export function staysInRing(cpu: Processor, selector: number, cpl: number, d: Descriptor): boolean {
  if (!usesFred(cpu)) return true;
  const allowed = cpl === cpu.cpl && (cpl !== 0 || (d.rights & Rights.L) !== 0);
  return allowed || refuse(cpu, selector);
}

/** GS.base and IA32_KERNEL_GS_BASE change places. */
export function exchangeGsBases(cpu: Processor): void {
  const w = cpu.i32;
  for (let word = 0; word < 2; word++) {
    const base = w[GS_BASE + word] as number;
    w[GS_BASE + word] = w[KERNEL_GS_BASE + word] as number;
    w[KERNEL_GS_BASE + word] = base;
  }
  cpu.stateChanged();
}
