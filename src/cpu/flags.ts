/**
 * Arithmetic flags (SDM vol. 1 §3.4.3.1), computed only when somebody looks. An instruction leaves its
 * result and its carries; `materialise` makes RFLAGS of them. Outside the execution of instructions
 * RFLAGS always holds.
 *
 * Carries: bit 31 is CF; bits 31 and 30 differ if OF; bit 3 is AF. A vector of carries out of each bit
 * position of a 32-bit addition has this form by itself, one of 8 or 16 bits after a shift.
 */
import type { Processor } from './processor.ts';
import { ARITHMETIC_FLAGS, Register } from './registers.ts';

const RESULT = 2 * Register.lazyResult;
const CARRIES = 2 * Register.lazyCarries;
const PENDING = CARRIES + 1;
const RFLAGS = 2 * Register.RFLAGS;
const ARITHMETIC = ARITHMETIC_FLAGS;
const CF = 1;
const PF = 4;
const ZF = 0x40;
const SF = 0x80;
const OF = 0x800;

/** PF of each byte value. */
const PARITY = Uint8Array.from({ length: 256 }, (_, byte) => {
  let ones = 0;
  for (let rest = byte; rest !== 0; rest &= rest - 1) ones++;
  return ones % 2 === 0 ? PF : 0;
});

/**
 * Sets the arithmetic flags: the result sign-extended to 64 bits (of 32 bits and fewer `hi` may be
 * `lo` again), and carries as the module header says.
 */
export function setFlags(cpu: Processor, lo: number, hi: number, carries: number): void {
  const w = cpu.i32;
  w[RESULT] = lo;
  w[RESULT + 1] = hi;
  w[CARRIES] = carries;
  w[PENDING] = 1;
}

/** Carries with the given flags, each 0 or 1. */
export function carriesOf(cf: number, of: number, af: number): number {
  return (cf << 31) | ((cf ^ of) << 30) | (af << 3);
}

export function carryFlag(cpu: Processor): number {
  const w = cpu.i32;
  return w[PENDING] !== 0 ? (w[CARRIES] as number) >>> 31 : (w[RFLAGS] as number) & CF;
}

function zeroFlag(cpu: Processor): boolean {
  const w = cpu.i32;
  return w[PENDING] !== 0
    ? ((w[RESULT] as number) | (w[RESULT + 1] as number)) === 0
    : ((w[RFLAGS] as number) & ZF) !== 0;
}

function signFlag(cpu: Processor): boolean {
  const w = cpu.i32;
  return w[PENDING] !== 0 ? (w[RESULT + 1] as number) < 0 : ((w[RFLAGS] as number) & SF) !== 0;
}

function overflowFlag(cpu: Processor): boolean {
  const w = cpu.i32;
  if (w[PENDING] === 0) return ((w[RFLAGS] as number) & OF) !== 0;
  const carries = w[CARRIES] as number;
  return ((carries ^ (carries << 1)) & 0x8000_0000) !== 0;
}

function parityFlag(cpu: Processor): boolean {
  const w = cpu.i32;
  return w[PENDING] !== 0 ? PARITY[(w[RESULT] as number) & 0xff] !== 0 : ((w[RFLAGS] as number) & PF) !== 0;
}

/** Brings the arithmetic flags into RFLAGS; answers its low 32 bits. */
export function materialise(cpu: Processor): number {
  const w = cpu.i32;
  if (w[PENDING] === 0) return w[RFLAGS] as number;
  const lo = w[RESULT] as number;
  const hi = w[RESULT + 1] as number;
  const carries = w[CARRIES] as number;
  let flags = (w[RFLAGS] as number) & ~ARITHMETIC;
  flags |= (carries >>> 31) | (PARITY[lo & 0xff] as number) | ((carries & 8) << 1);
  if ((lo | hi) === 0) flags |= ZF;
  if (hi < 0) flags |= SF;
  if (((carries ^ (carries << 1)) & 0x8000_0000) !== 0) flags |= OF;
  w[RFLAGS] = flags;
  w[PENDING] = 0;
  return flags;
}

/** RFLAGS.CF := `value` (0 or 1), the other flags unchanged. */
export function setCarryFlag(cpu: Processor, value: number): void {
  cpu.i32[RFLAGS] = (materialise(cpu) & ~CF) | value;
}

/** Replaces exactly the flags in `mask` (a subset of CF, PF, AF, ZF, SF, OF). */
export function replaceFlags(cpu: Processor, mask: number, flags: number): void {
  cpu.i32[RFLAGS] = (materialise(cpu) & ~mask) | (flags & mask);
}

/** Whether condition `code` holds (0–15: the low four bits of Jcc, SETcc, CMOVcc; SDM vol. 1 App. B). */
export function condition(cpu: Processor, code: number): boolean {
  let holds: boolean;
  switch (code >> 1) {
    case 0:
      holds = overflowFlag(cpu);
      break;
    case 1:
      holds = carryFlag(cpu) !== 0;
      break;
    case 2:
      holds = zeroFlag(cpu);
      break;
    case 3:
      holds = carryFlag(cpu) !== 0 || zeroFlag(cpu);
      break;
    case 4:
      holds = signFlag(cpu);
      break;
    case 5:
      holds = parityFlag(cpu);
      break;
    case 6:
      holds = signFlag(cpu) !== overflowFlag(cpu);
      break;
    default:
      holds = zeroFlag(cpu) || signFlag(cpu) !== overflowFlag(cpu);
  }
  return holds === ((code & 1) === 0);
}
