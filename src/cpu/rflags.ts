/** Changes of RFLAGS outside its arithmetic flags, with all that depends on them (SDM vol. 1 §3.4.3). */
import { Attention } from './attention.ts';
import { materialise } from './flags.ts';
import type { Processor } from './processor.ts';
import { Register, RFLAGS } from './registers.ts';

const RFLAGS_LOW = 2 * Register.RFLAGS;
const TF = 1 << RFLAGS.TF;
const IF = 1 << RFLAGS.IF;
const RF = 1 << RFLAGS.RF;
const VM = 1 << RFLAGS.VM;
const AC = 1 << RFLAGS.AC;

/** Replaces exactly the bits in `mask`. What asks for attention at the next boundary is asked for. */
export function writeFlags(cpu: Processor, mask: number, value: number): void {
  const old = materialise(cpu);
  const flags = (old & ~mask) | (value & mask);
  cpu.i32[RFLAGS_LOW] = flags;
  const changed = old ^ flags;
  if (changed & VM) cpu.updateMode();
  else if (changed & AC) cpu.updateAccessClass();
  if (flags & TF) cpu.requestAttention(Attention.SingleStep);
  if (flags & RF) cpu.requestAttention(Attention.ResumeFlag);
  if (changed & flags & IF) cpu.requestAttention(Attention.Event);
}
