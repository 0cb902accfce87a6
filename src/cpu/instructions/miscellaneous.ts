/**
 * Instructions without a group (SDM vol. 2: XLAT, BOUND, ARPL, UD, NOP and the opcodes reserved for
 * hints, PREFETCH, SERIALIZE, fences, CLFLUSH, CLFLUSHOPT, CLWB, CLDEMOTE). Memory is in order,
 * and there is no cache whose lines could be told from memory.
 */
import { raise, Vector } from '../exceptions.ts';
import { replaceFlags } from '../flags.ts';
import { type Execute, Next } from '../instruction.ts';
import { loadFrom } from '../memory-access.ts';
import type { OpcodeRow } from '../opcode-row.ts';
import { MEMORY_OPERAND, operandAddress } from '../operand-forms.ts';
import { readSigned } from '../operand-values.ts';
import { translate } from '../paging.ts';
import { Register } from '../registers.ts';
import { Access } from '../tlb.ts';

const T0 = MEMORY_OPERAND;
const AL = 8 * Register.RAX;
const RBX = 2 * Register.RBX;
const LINEAR = 2 * Register.linear;
const ZF = 0x40;
const RPL = 3;
const TWO_32 = 0x1_0000_0000;

const nop: Execute = () => Next.Sequential;
const ud: Execute = (cpu) => raise(cpu, Vector.UD);

/** AL := the byte at RBX + AL. */
const xlat: Execute = (cpu, i) => {
  const w = cpu.i32;
  const sum = ((w[RBX] as number) >>> 0) + (cpu.u8[AL] as number);
  const lo = i.addressBits === 16 ? sum & 0xffff : sum | 0;
  const hi = i.addressBits === 64 ? ((w[RBX + 1] as number) + (sum >= TWO_32 ? 1 : 0)) | 0 : 0;
  if (!loadFrom(cpu, i.segment, lo, hi, T0, 1)) return Next.Fault;
  cpu.u8[AL] = cpu.u8[T0] as number;
  return Next.Sequential;
};

/** The operand in memory is two signed numbers: the lower and the upper bound. */
const bound: Execute = (cpu, i) => {
  const { operandBits } = i;
  const index = readSigned(cpu, i.d, operandBits);
  const lower = readSigned(cpu, T0, operandBits);
  const upper = readSigned(cpu, T0 + (operandBits >> 3), operandBits);
  return index < lower || index > upper ? raise(cpu, Vector.BR) : Next.Sequential;
};

/** The RPL of the destination is raised to that of the source; ZF says whether it was below. */
const arpl: Execute = (cpu, i) => {
  const selector = cpu.u16[i.d >> 1] as number;
  const rpl = (cpu.u16[i.s >> 1] as number) & RPL;
  const below = (selector & RPL) < rpl;
  if (below) cpu.u16[i.d >> 1] = (selector & ~RPL) | rpl;
  replaceFlags(cpu, ZF, below ? ZF : 0);
  return Next.Sequential;
};

/** The address is translated as that of a load of one byte. */
const flushLine: Execute = (cpu, i) => {
  if (!operandAddress(cpu, i, 1, Access.Read)) return Next.Fault;
  const lo = cpu.i32[LINEAR] as number;
  const hi = cpu.i32[LINEAR + 1] as number;
  return translate(cpu, lo, hi, Access.Read << cpu.accessClass) < 0 ? Next.Fault : Next.Sequential;
};

/** An opcode reserved for hints: with whatever operands, it does nothing. */
const hint = (opcode: string): OpcodeRow => ({
  opcode,
  mnemonic: 'NOP',
  operands: 'Ev! Gv',
  execute: nop,
});
const prefetch = (opcode: string, mnemonic: string): OpcodeRow => ({
  opcode: `${opcode} mod!=3`,
  mnemonic,
  operands: 'Mb!',
  execute: nop,
});

export const MISCELLANEOUS_ROWS: readonly OpcodeRow[] = [
  { opcode: 'D7', mnemonic: 'XLAT', operands: '', execute: xlat },
  { opcode: '62 mod!=3', mnemonic: 'BOUND', operands: 'Gv Ma', execute: bound, mode: 'no64' },
  { opcode: '63', mnemonic: 'ARPL', operands: 'Ew+ Gw', execute: arpl, mode: 'no64', protectedMode: true },
  { opcode: '0F 0B', mnemonic: 'UD2', operands: '', execute: ud },
  { opcode: '0F B9', mnemonic: 'UD1', operands: 'Gv Ev!', execute: ud },
  { opcode: '0F FF', mnemonic: 'UD0', operands: 'Gv Ev!', execute: ud },
  ...['0D', '18', '19', '1A', '1B', '1C', '1D', '1E', '1F'].map((byte) => hint(`0F ${byte}`)),
  { opcode: '0F 1F /0', mnemonic: 'NOP', operands: 'Ev!', execute: nop },
  prefetch('0F 0D /1', 'PREFETCHW'),
  prefetch('0F 0D /2', 'PREFETCHWT1'),
  prefetch('0F 18 /0', 'PREFETCHNTA'),
  prefetch('0F 18 /1', 'PREFETCHT0'),
  prefetch('0F 18 /2', 'PREFETCHT1'),
  prefetch('0F 18 /3', 'PREFETCHT2'),
  prefetch('0F 18 /6', 'PREFETCHIT1'),
  prefetch('0F 18 /7', 'PREFETCHIT0'),
  prefetch('NP 0F 1C /0', 'CLDEMOTE'),
  {
    opcode: 'NP 0F 01 /5 mod=3 rm=0',
    mnemonic: 'SERIALIZE',
    operands: '',
    execute: nop,
    feature: (f) => f.serialize,
  },
  { opcode: 'NP 0F AE /5 mod=3', mnemonic: 'LFENCE', operands: '', execute: nop },
  { opcode: 'NP 0F AE /6 mod=3', mnemonic: 'MFENCE', operands: '', execute: nop },
  { opcode: 'NP 0F AE /7 mod=3', mnemonic: 'SFENCE', operands: '', execute: nop },
  { opcode: 'NP 0F AE /7 mod!=3', mnemonic: 'CLFLUSH', operands: 'Mb!', execute: flushLine },
  {
    opcode: '66 0F AE /7 mod!=3',
    mnemonic: 'CLFLUSHOPT',
    operands: 'Mb!',
    execute: flushLine,
    feature: (f) => f.clflushopt,
  },
  {
    opcode: '66 0F AE /6 mod!=3',
    mnemonic: 'CLWB',
    operands: 'Mb!',
    execute: flushLine,
    feature: (f) => f.clwb,
  },
];
