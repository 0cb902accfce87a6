/**
 * Virtual time: the time-stamp counter advances by one for each instruction executed and each iteration
 * of a string instruction.
 */
import { Attention } from './attention.ts';
import type { Instruction } from './instruction.ts';
import type { Processor } from './processor.ts';
import { Register } from './registers.ts';

const TSC = Register.IA32_TIME_STAMP_COUNTER;
const TSC_LOW = 2 * TSC;

/** Lets `ticks` (0 to 2^52) pass. */
export function passTime(cpu: Processor, ticks: number): void {
  const w = cpu.i32;
  const sum = ((w[TSC_LOW] as number) >>> 0) + ticks;
  w[TSC_LOW] = sum | 0;
  if (sum > 0xffff_ffff) w[TSC_LOW + 1] = (w[TSC_LOW + 1] as number) + Math.floor(sum / 0x1_0000_0000);
}

/** As {@link passTime} without anything being executed: what waits for a time looks at it anew. */
function skipTime(cpu: Processor, ticks: number): void {
  passTime(cpu, ticks);
  cpu.requestAttention(Attention.Event);
}

/**
 * Waits for at most `ticks`, or until an event is due; one that waits already ends it at once. Who has
 * turns gives up the rest of its own, and lets no time pass while others have something to do.
 */
export function wait(cpu: Processor, ticks: number): void {
  const toDeadline = cpu.portDeadline - cpu.executed - 1;
  const toEvent = cpu.due - elapsed(cpu);
  const passed = cpu.othersExecute ? 0 : Math.max(Math.min(ticks, toDeadline, toEvent), 0);
  cpu.waited += passed;
  skipTime(cpu, passed);
  if (cpu.due === Infinity) return;
  cpu.waits = true;
  cpu.requestPause();
}

/** IA32_TIME_STAMP_COUNTER. */
export function timeStampCounter(cpu: Processor): bigint {
  return cpu.quads[TSC] as bigint;
}

/** {@link Processor.block} while none is executing. */
export const BETWEEN_BLOCKS: readonly Instruction[] = [];

/**
 * Nanoseconds that this processor has let pass: `executed` and `waited`, and within a decoded block also
 * the instructions before the present one, which RIP tells. How code is cut into blocks changes nothing.
 */
export function elapsed(cpu: Processor): number {
  const { block } = cpu;
  const rip = cpu.i32[2 * Register.RIP] as number;
  const mask = cpu.codeBits === 16 ? 0xffff : -1;
  let at = cpu.blockStart;
  for (let n = 0; n < block.length; n++) {
    at = (at + (block[n] as Instruction).length) | 0;
    if (((at ^ rip) & mask) === 0) return cpu.executed + cpu.waited + n;
  }
  return cpu.executed + cpu.waited;
}
