/**
 * The last I/O instruction, or iteration of a repeated one: what an SMI that follows immediately reports
 * of it (SDM §34.15.2.3). It lies in slots of the state, so that snapshots keep it.
 */
import type { Instruction } from './instruction.ts';
import type { Processor } from './processor.ts';
import { Register } from './registers.ts';

const END = Register.ioEnd;
const QUALIFICATION = 2 * Register.ioQualification;
const LINEAR = 2 * Register.ioLinear;
const RCX = Register.ioRcx;
const RSI = Register.ioRsi;
const RDI = Register.ioRdi;
const RIP = Register.ioRip;

/** Parts of the qualification (SDM Table 34-9). */
export const IoPart = { Input: 1 << 3, String: 1 << 4, Repeat: 1 << 5, Immediate: 1 << 6 } as const;

/**
 * The access to `port` is made and the registers are still those before; RIP is that of the next
 * instruction. `parts`: {@link IoPart}; the address is that of the operand of INS or OUTS.
 */
export function noteIoInstruction(
  cpu: Processor,
  i: Instruction,
  port: number,
  bytes: number,
  parts: number,
  linearLow = 0,
  linearHigh = 0,
): void {
  const { quads, i32 } = cpu;
  cpu.f64[END] = cpu.executed + 1;
  i32[QUALIFICATION] = (port << 16) | parts | (bytes - 1);
  i32[LINEAR] = linearLow;
  i32[LINEAR + 1] = linearHigh;
  quads[RCX] = quads[Register.RCX] as bigint;
  quads[RSI] = quads[Register.RSI] as bigint;
  quads[RDI] = quads[Register.RDI] as bigint;
  const rip = (quads[Register.RIP] as bigint) - BigInt(i.length);
  quads[RIP] = BigInt.asUintN(cpu.codeBits, rip);
}

/** Whether an I/O instruction, or an iteration of one, has ended at this instruction boundary. */
export function followsIoInstruction(cpu: Processor): boolean {
  return cpu.executed !== 0 && cpu.f64[END] === cpu.executed;
}
