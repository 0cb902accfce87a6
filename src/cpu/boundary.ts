/**
 * What happens between two instructions besides going from one to the next: the traps and blockings
 * that the last one left, and the events that wait (SDM vol. 3A §7.9, Table 7-2).
 */
import { Attention } from './attention.ts';
import type { Processor } from './processor.ts';
import { Register, RFLAGS } from './registers.ts';

const ATTENTION = 2 * Register.attention;
const RFLAGS_LOW = 2 * Register.RFLAGS;
const BLOCKING_BY_STI = 2 * Register.blockingBySti;
const BLOCKING_BY_MOV_SS = 2 * Register.blockingByMovSs;
const ACTIVITY_STATE = 2 * Register.activityState;

/**
 * Before an instruction, while something asks for attention: takes the event that is due, if any.
 * False if the processor has nothing to execute.
 */
export function atBoundary(cpu: Processor): boolean {
  const w = cpu.i32;
  w[ATTENTION] = (w[ATTENTION] as number) & ~Attention.Lookup;
  return w[ACTIVITY_STATE] === 0;
}

/** After an instruction during which something asked for attention. */
export function afterInstruction(cpu: Processor): void {
  const w = cpu.i32;
  const why = w[ATTENTION] as number;
  if (why & Attention.Blocking) {
    w[BLOCKING_BY_STI] = 0;
    w[BLOCKING_BY_MOV_SS] = 0;
    w[ATTENTION] = why & ~Attention.Blocking;
  }
  if (why & Attention.ResumeFlag) w[RFLAGS_LOW] = (w[RFLAGS_LOW] as number) & ~(1 << RFLAGS.RF);
}
