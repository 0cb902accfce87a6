/** What MMX instructions do to x87 state (SDM vol. 1 §9.5): MMX registers are the significands of FPR0 to FPR7. */
import { Next } from './instruction.ts';
import type { Processor } from './processor.ts';
import { Register } from './registers.ts';

const FSW = 2 * Register.FSW;
const FTW = 2 * Register.FTW;
const TOP = 7 << 11;
const ALL_ONES = 0xffff;

/** Every MMX instruction: TOP becomes 0, and all registers are marked as in use (EMMS then marks them empty). */
export function enterMmx(cpu: Processor): void {
  cpu.i32[FSW] = (cpu.i32[FSW] as number) & ~TOP;
  cpu.i32[FTW] = 0;
}

/** An MMX register (byte offset) was written: sign and exponent become all ones. */
export function wroteMmx(cpu: Processor, at: number): Next {
  cpu.i32[(at + 8) >> 2] = ALL_ONES;
  return Next.Sequential;
}
