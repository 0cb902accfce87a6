/** Task switches (SDM vol. 3A chapter 9). */
import { raiseForSelector, Vector } from './exceptions.ts';
import type { Processor } from './processor.ts';

/** Switches to the task of the TSS that a task gate in the IDT names. */
export function switchTaskForEvent(cpu: Processor, selector: number): boolean {
  cpu.noteUnmodelled('task switch through the IDT');
  raiseForSelector(cpu, Vector.TS, selector);
  return false;
}
