/** MASKMOVDQU and MASKMOVQ: bytes whose mask byte is negative are stored at DS:(E/R)DI. */
import { linearise } from '../addressing.ts';
import { type Instruction, Next } from '../instruction.ts';
import { probeStore, store } from '../memory-access.ts';
import type { Processor } from '../processor.ts';
import { Register } from '../registers.ts';
import { Access } from '../tlb.ts';

const RDI = 2 * Register.RDI;
const LINEAR = 2 * Register.linear;

/** `d` is the data, `s` the mask. Faults are looked for in all `bytes` bytes, whatever the mask. */
export function storeMasked(cpu: Processor, i: Instruction, bytes: 8 | 16): Next {
  const w = cpu.i32;
  const { addressBits } = i;
  const offset = addressBits === 16 ? (w[RDI] as number) & 0xffff : (w[RDI] as number);
  const high = addressBits === 64 ? (w[RDI + 1] as number) : 0;
  if (!linearise(cpu, i.segment, offset, high, bytes, Access.Write)) return Next.Fault;
  if (!probeStore(cpu, bytes)) return Next.Fault;
  const lo = w[LINEAR] as number;
  const hi = w[LINEAR + 1] as number;
  for (let n = 0; n < bytes; n++) {
    if ((cpu.u8[i.s + n] as number) < 0x80) continue;
    const sum = (lo >>> 0) + n;
    w[LINEAR] = sum;
    w[LINEAR + 1] = sum > 0xffff_ffff && cpu.codeBits === 64 ? (hi + 1) | 0 : hi;
    store(cpu, i.d + n, 1);
  }
  return Next.Sequential;
}
