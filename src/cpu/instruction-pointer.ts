/** RIP while instructions execute: it advances before, and is set back when the instruction does not complete. */
import type { Processor } from './processor.ts';
import { Register } from './registers.ts';

const RIP = 2 * Register.RIP;

/** RIP := RIP + `bytes`. */
export function advance(cpu: Processor, bytes: number): void {
  const w = cpu.i32;
  const lo = w[RIP] as number;
  const sum = (lo + bytes) | 0;
  w[RIP] = sum;
  if (lo < 0 && sum >= 0 && cpu.codeBits === 64) w[RIP + 1] = ((w[RIP + 1] as number) + 1) | 0;
}

/** RIP := RIP − `bytes`. */
export function retreat(cpu: Processor, bytes: number): void {
  const w = cpu.i32;
  const lo = w[RIP] as number;
  const difference = (lo - bytes) | 0;
  w[RIP] = difference;
  if (lo >= 0 && difference < 0 && cpu.codeBits === 64) w[RIP + 1] = ((w[RIP + 1] as number) - 1) | 0;
}
