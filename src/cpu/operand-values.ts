/** Operands of instructions by size, at byte offsets of the processor's state (instruction.ts). */
import { Next } from './instruction.ts';
import type { Processor } from './processor.ts';

/** Writes 32 bits; bits 63:32 of a register become 0 (SDM vol. 1 §3.4.1.1). */
export function write32(cpu: Processor, at: number, value: number): Next {
  const w = cpu.i32;
  w[at >> 2] = value;
  w[(at >> 2) + 1] = 0;
  return Next.Sequential;
}

/** Writes 64 bits by halves. */
export function write64(cpu: Processor, at: number, lo: number, hi: number): Next {
  const w = cpu.i32;
  w[at >> 2] = lo;
  w[(at >> 2) + 1] = hi;
  return Next.Sequential;
}

/** The operand of 8, 16 or 32 bits, zero-extended. */
export function readUnsigned(cpu: Processor, at: number, bits: number): number {
  if (bits === 32) return (cpu.i32[at >> 2] as number) >>> 0;
  return bits === 16 ? (cpu.u16[at >> 1] as number) : (cpu.u8[at] as number);
}

/** The operand of 8, 16 or 32 bits, sign-extended. */
export function readSigned(cpu: Processor, at: number, bits: number): number {
  return (readUnsigned(cpu, at, bits) << (32 - bits)) >> (32 - bits);
}

/** Writes the low 8, 16 or 32 bits of `value`. */
export function writeLow(cpu: Processor, at: number, bits: number, value: number): Next {
  if (bits === 32) return write32(cpu, at, value);
  if (bits === 16) cpu.u16[at >> 1] = value;
  else cpu.u8[at] = value;
  return Next.Sequential;
}

/** Copies an operand of 16, 32 or 64 bits to a register. */
export function copy(cpu: Processor, to: number, from: number, bits: number): Next {
  const w = cpu.i32;
  if (bits === 64) return write64(cpu, to, w[from >> 2] as number, w[(from >> 2) + 1] as number);
  if (bits === 32) return write32(cpu, to, w[from >> 2] as number);
  cpu.u16[to >> 1] = cpu.u16[from >> 1] as number;
  return Next.Sequential;
}
