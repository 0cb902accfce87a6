/**
 * Whether x87, MMX and SSE instructions may execute (SDM vol. 3A §2.5, Table 15-1 ff.; vol. 2, exception
 * classes): guards of opcode rows, asked before anything else.
 */
import { raise, Vector } from './exceptions.ts';
import { type Execute, Next } from './instruction.ts';
import type { Processor } from './processor.ts';
import { CR0, CR4, Register } from './registers.ts';

const CR0_LOW = 2 * Register.CR0;
const CR4_LOW = 2 * Register.CR4;
const FSW = 2 * Register.FSW;
const EM = 1 << CR0.EM;
const TS = 1 << CR0.TS;
const MP = 1 << CR0.MP;
const NE = 1 << CR0.NE;
const OSFXSR = 1 << CR4.OSFXSR;
/** FSW.ES: an unmasked x87 exception is pending. */
const EXCEPTION_SUMMARY = 0x80;

/** Reports a pending x87 exception: DEVIATION(x87-ferr), with CR0.NE = 0 nobody hears of it. */
function pending(cpu: Processor): Next {
  const reported = ((cpu.i32[FSW] as number) & EXCEPTION_SUMMARY) !== 0 && (cpu.i32[CR0_LOW] as number) & NE;
  return reported ? raise(cpu, Vector.MF) : Next.Sequential;
}

/** SSE: #UD if CR0.EM or not CR4.OSFXSR, #NM if CR0.TS. */
export const simdAvailable: Execute = (cpu) => {
  const cr0 = cpu.i32[CR0_LOW] as number;
  if ((cr0 & EM) !== 0 || ((cpu.i32[CR4_LOW] as number) & OSFXSR) === 0) return raise(cpu, Vector.UD);
  return (cr0 & TS) !== 0 ? raise(cpu, Vector.NM) : Next.Sequential;
};

/** MMX: #UD if CR0.EM, #NM if CR0.TS, #MF if an x87 exception is pending. */
export const mmxAvailable: Execute = (cpu) => {
  const cr0 = cpu.i32[CR0_LOW] as number;
  if ((cr0 & EM) !== 0) return raise(cpu, Vector.UD);
  return (cr0 & TS) !== 0 ? raise(cpu, Vector.NM) : pending(cpu);
};

/** SSE with an MMX register. */
export const simdWithMmxAvailable: Execute = (cpu, i) => {
  const next = simdAvailable(cpu, i);
  return next === Next.Sequential ? pending(cpu) : next;
};

/** x87 instructions that do not wait (FNINIT, FNSTSW and the like), FXSAVE and FXRSTOR: #NM if CR0.EM or CR0.TS. */
export const x87Available: Execute = (cpu) => {
  return ((cpu.i32[CR0_LOW] as number) & (EM | TS)) !== 0 ? raise(cpu, Vector.NM) : Next.Sequential;
};

/** Other x87 instructions: then #MF if an exception is pending. */
export const x87Ready: Execute = (cpu, i) => {
  const next = x87Available(cpu, i);
  return next === Next.Sequential ? pending(cpu) : next;
};

/** WAIT: #NM if both CR0.MP and CR0.TS, then #MF if an exception is pending. */
export const waitReady: Execute = (cpu) => {
  const both = ((cpu.i32[CR0_LOW] as number) & (MP | TS)) === (MP | TS);
  return both ? raise(cpu, Vector.NM) : pending(cpu);
};
