/** Data movement (SDM vol. 2: MOV, MOVZX, MOVSX, MOVSXD, MOVNTI, LEA, XCHG, NOP, CMOVcc, SETcc). */
import { effectiveAddress } from '../addressing.ts';
import { condition } from '../flags.ts';
import { type Execute, type Instruction, Next } from '../instruction.ts';
import type { OpcodeRow, SizedExecute } from '../opcode-row.ts';
import { write32, write64 } from '../operand-values.ts';
import type { Processor } from '../processor.ts';
import { Register } from '../registers.ts';

const LINEAR = 2 * Register.linear;

const mov: SizedExecute = {
  8: (cpu, i) => {
    cpu.u8[i.d] = cpu.u8[i.s] as number;
    return Next.Sequential;
  },
  16: (cpu, i) => {
    cpu.u16[i.d >> 1] = cpu.u16[i.s >> 1] as number;
    return Next.Sequential;
  },
  32: (cpu, i) => write32(cpu, i.d, cpu.i32[i.s >> 2] as number),
  64: (cpu, i) => write64(cpu, i.d, cpu.i32[i.s >> 2] as number, cpu.i32[(i.s >> 2) + 1] as number),
};

/** MOVZX and MOVSX from what `read` reads, sign-extended or zero-extended to 32 bits. */
function extend(read: (cpu: Processor, at: number) => number): SizedExecute {
  return {
    16: (cpu, i) => {
      cpu.u16[i.d >> 1] = read(cpu, i.s);
      return Next.Sequential;
    },
    32: (cpu, i) => write32(cpu, i.d, read(cpu, i.s)),
    64: (cpu, i) => {
      const value = read(cpu, i.s);
      return write64(cpu, i.d, value, value >> 31);
    },
  };
}

const movzx8 = extend((cpu, at) => cpu.u8[at] as number);
const movzx16 = extend((cpu, at) => cpu.u16[at >> 1] as number);
const movsx8 = extend((cpu, at) => ((cpu.u8[at] as number) << 24) >> 24);
const movsx16 = extend((cpu, at) => ((cpu.u16[at >> 1] as number) << 16) >> 16);
const movsxd = extend((cpu, at) => cpu.i32[at >> 2] as number);

/** LEA: the effective address, truncated to the operand size. */
const lea: SizedExecute = {
  16: (cpu, i) => {
    effectiveAddress(cpu, i);
    cpu.u16[i.d >> 1] = cpu.i32[LINEAR] as number;
    return Next.Sequential;
  },
  32: (cpu, i) => {
    effectiveAddress(cpu, i);
    return write32(cpu, i.d, cpu.i32[LINEAR] as number);
  },
  64: (cpu, i) => {
    effectiveAddress(cpu, i);
    return write64(cpu, i.d, cpu.i32[LINEAR] as number, cpu.i32[LINEAR + 1] as number);
  },
};

const xchg: SizedExecute = {
  8: (cpu, i) => {
    const a = cpu.u8[i.d] as number;
    cpu.u8[i.d] = cpu.u8[i.s] as number;
    cpu.u8[i.s] = a;
    return Next.Sequential;
  },
  16: (cpu, i) => {
    const a = cpu.u16[i.d >> 1] as number;
    cpu.u16[i.d >> 1] = cpu.u16[i.s >> 1] as number;
    cpu.u16[i.s >> 1] = a;
    return Next.Sequential;
  },
  32: (cpu, i) => {
    const a = cpu.i32[i.d >> 2] as number;
    write32(cpu, i.d, cpu.i32[i.s >> 2] as number);
    return write32(cpu, i.s, a);
  },
  64: (cpu, i) => {
    const lo = cpu.i32[i.d >> 2] as number;
    const hi = cpu.i32[(i.d >> 2) + 1] as number;
    write64(cpu, i.d, cpu.i32[i.s >> 2] as number, cpu.i32[(i.s >> 2) + 1] as number);
    return write64(cpu, i.s, lo, hi);
  },
};

const nop: Execute = () => Next.Sequential;

/** CMOVcc: with 32 bits, the upper half of the destination becomes 0 even if the condition is false. */
function cmov(code: number): SizedExecute {
  return {
    16: (cpu, i) => (condition(cpu, code) ? (mov[16] as Execute)(cpu, i) : Next.Sequential),
    32: (cpu, i) => write32(cpu, i.d, cpu.i32[(condition(cpu, code) ? i.s : i.d) >> 2] as number),
    64: (cpu, i) => (condition(cpu, code) ? (mov[64] as Execute)(cpu, i) : Next.Sequential),
  };
}

function setcc(code: number): Execute {
  return (cpu: Processor, i: Instruction) => {
    cpu.u8[i.d] = condition(cpu, code) ? 1 : 0;
    return Next.Sequential;
  };
}

/** Suffixes of conditions 0 to 15 (SDM vol. 1 Appendix B). */
export const CONDITIONS = [
  'O',
  'NO',
  'B',
  'AE',
  'E',
  'NE',
  'BE',
  'A',
  'S',
  'NS',
  'P',
  'NP',
  'L',
  'GE',
  'LE',
  'G',
] as const;

const digit = (n: number) => n.toString(16).toUpperCase();

export const MOVE_ROWS: readonly OpcodeRow[] = [
  { opcode: '88', mnemonic: 'MOV', operands: 'Eb= Gb', execute: mov },
  { opcode: '89', mnemonic: 'MOV', operands: 'Ev= Gv', execute: mov },
  { opcode: '8A', mnemonic: 'MOV', operands: 'Gb Eb', execute: mov },
  { opcode: '8B', mnemonic: 'MOV', operands: 'Gv Ev', execute: mov },
  { opcode: 'A0', mnemonic: 'MOV', operands: 'AL Ob', execute: mov },
  { opcode: 'A1', mnemonic: 'MOV', operands: 'rAX Ov', execute: mov },
  { opcode: 'A2', mnemonic: 'MOV', operands: 'Ob= AL', execute: mov },
  { opcode: 'A3', mnemonic: 'MOV', operands: 'Ov= rAX', execute: mov },
  { opcode: 'B0 +r', mnemonic: 'MOV', operands: 'Zb Ib', execute: mov },
  { opcode: 'B8 +r', mnemonic: 'MOV', operands: 'Zv Iv', execute: mov },
  { opcode: 'C6 /0', mnemonic: 'MOV', operands: 'Eb= Ib', execute: mov },
  { opcode: 'C7 /0', mnemonic: 'MOV', operands: 'Ev= Iz', execute: mov },
  { opcode: 'NP 0F C3 mod!=3', mnemonic: 'MOVNTI', operands: 'My= Gy', execute: mov },
  { opcode: '0F B6', mnemonic: 'MOVZX', operands: 'Gv Eb', execute: movzx8 },
  { opcode: '0F B7', mnemonic: 'MOVZX', operands: 'Gv Ew', execute: movzx16 },
  { opcode: '0F BE', mnemonic: 'MOVSX', operands: 'Gv Eb', execute: movsx8 },
  { opcode: '0F BF', mnemonic: 'MOVSX', operands: 'Gv Ew', execute: movsx16 },
  { opcode: '63', mnemonic: 'MOVSXD', operands: 'Gv Ez', execute: movsxd, mode: 'only64' },
  { opcode: '8D mod!=3', mnemonic: 'LEA', operands: 'Gv M', execute: lea },
  { opcode: '86', mnemonic: 'XCHG', operands: 'Eb+ Gb', execute: xchg, lock: true },
  { opcode: '87', mnemonic: 'XCHG', operands: 'Ev+ Gv', execute: xchg, lock: true },
  { opcode: '90 +r', mnemonic: 'XCHG', operands: 'Zv rAX', execute: xchg },
  { opcode: '90 b=0', mnemonic: 'NOP', operands: '', execute: nop },
  ...CONDITIONS.flatMap((suffix, code): OpcodeRow[] => [
    { opcode: `0F 4${digit(code)}`, mnemonic: `CMOV${suffix}`, operands: 'Gv Ev', execute: cmov(code) },
    { opcode: `0F 9${digit(code)}`, mnemonic: `SET${suffix}`, operands: 'Eb=', execute: setcc(code) },
  ]),
];
