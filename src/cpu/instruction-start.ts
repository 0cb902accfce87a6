/**
 * What held when the present instruction began and matters when it has ended, noted while something asks
 * for attention (boundary.ts).
 */
import type { Processor } from './processor.ts';
import { Register } from './registers.ts';

const BEFORE = 2 * Register.before;

export const Before = {
  BlockingBySti: 1,
  BlockingByMovSs: 2,
  /** RFLAGS.RF, which the instruction ends unless it loads it. */
  ResumeFlag: 4,
  /** RFLAGS.TF: a trap follows. */
  SingleStep: 8,
} as const;

/** Loads of RFLAGS by IRET and task switches: RF is that of the image, for the next instruction. */
export function keepResumeFlag(cpu: Processor): void {
  cpu.i32[BEFORE] = (cpu.i32[BEFORE] as number) & ~Before.ResumeFlag;
}

/** Blocking by STI that the present instruction establishes holds for the next one. */
export function keepBlockingBySti(cpu: Processor): void {
  cpu.i32[BEFORE] = (cpu.i32[BEFORE] as number) & ~Before.BlockingBySti;
}

/** No single-step trap follows the present instruction. */
export function cancelSingleStep(cpu: Processor): void {
  cpu.i32[BEFORE] = (cpu.i32[BEFORE] as number) & ~Before.SingleStep;
}
