/**
 * Bits (SDM vol. 2: BT, BTS, BTR, BTC, BSF, BSR, POPCNT, LZCNT, TZCNT, BSWAP). Flags that the manual
 * leaves undefined are unchanged; BSF and BSR of 0 leave the destination; BSWAP of 16 bits gives 0.
 */
import { effectiveAddress, linearise } from '../addressing.ts';
import { replaceFlags, setCarryFlag } from '../flags.ts';
import { type Execute, type Instruction, Next } from '../instruction.ts';
import { load, probeStore, store } from '../memory-access.ts';
import type { OpcodeRow, SizedExecute } from '../opcode-row.ts';
import { MEMORY_OPERAND } from '../operand-forms.ts';
import { readUnsigned, write32, write64, writeLow } from '../operand-values.ts';
import type { Processor } from '../processor.ts';
import { Register } from '../registers.ts';
import { Access } from '../tlb.ts';

const LINEAR = 2 * Register.linear;
const CF = 1;
const ZF = 0x40;
const TWO_32 = 0x1_0000_0000;

/** What becomes of the word of 32 bits that has the bit in `mask`. */
type Change = (word: number, mask: number) => number;

/** CF := bit `n` of the operand at `at`; then the bit is changed. */
function testBit(cpu: Processor, at: number, bits: number, n: number, change: Change | undefined): void {
  if (bits === 16) {
    const word = cpu.u16[at >> 1] as number;
    setCarryFlag(cpu, (word >>> n) & 1);
    if (change !== undefined) cpu.u16[at >> 1] = change(word, 1 << n);
    return;
  }
  const w = cpu.i32;
  const slot = (at >> 2) + (n >> 5);
  const word = w[slot] as number;
  setCarryFlag(cpu, (word >>> (n & 31)) & 1);
  if (change === undefined) return;
  w[slot] = change(word, 1 << (n & 31));
  if (bits === 32) w[slot + 1] = 0;
}

/** By an immediate, or by a register whose bits above the operand size do not count. */
function bitOfOperand(change: Change | undefined): Execute {
  return (cpu, i) => {
    testBit(cpu, i.d, i.operandBits, (cpu.u8[i.s] as number) & (i.operandBits - 1), change);
    return Next.Sequential;
  };
}

/** The address of the operand in the bit string that has the bit numbered by the signed register `i.s`. */
function bitStringAddress(cpu: Processor, i: Instruction, bytes: number, access: Access): boolean {
  const w = cpu.i32;
  const lo = i.operandBits === 16 ? ((cpu.u16[i.s >> 1] as number) << 16) >> 16 : (w[i.s >> 2] as number);
  const hi = i.operandBits === 64 ? (w[(i.s >> 2) + 1] as number) : lo >> 31;
  const offsetLow = ((lo >>> 3) | (hi << 29)) & -bytes;
  const offsetHigh = hi >> 3;
  effectiveAddress(cpu, i);
  const sum = ((w[LINEAR] as number) >>> 0) + (offsetLow >>> 0);
  const low = i.addressBits === 16 ? sum & 0xffff : sum | 0;
  const carry = sum >= TWO_32 ? 1 : 0;
  const high = i.addressBits === 64 ? ((w[LINEAR + 1] as number) + offsetHigh + carry) | 0 : 0;
  return linearise(cpu, i.segment, low, high, bytes, access);
}

/** By a register, whose bits above the operand size select another operand if it is in memory. */
function bitOfString(change: Change | undefined): Execute {
  const ofRegister = bitOfOperand(change);
  const access = change === undefined ? Access.Read : Access.Write;
  return (cpu, i) => {
    if (!i.hasMemory) return ofRegister(cpu, i);
    const bytes = i.operandBits >> 3;
    if (!bitStringAddress(cpu, i, bytes, access)) return Next.Fault;
    if (change !== undefined && !probeStore(cpu, bytes)) return Next.Fault;
    if (!load(cpu, MEMORY_OPERAND, bytes)) return Next.Fault;
    testBit(cpu, MEMORY_OPERAND, i.operandBits, (cpu.u8[i.s] as number) & (i.operandBits - 1), change);
    if (change !== undefined) store(cpu, MEMORY_OPERAND, bytes);
    return Next.Sequential;
  };
}

const CHANGES: readonly (readonly [string, Change | undefined])[] = [
  ['BT', undefined],
  ['BTS', (word, mask) => word | mask],
  ['BTR', (word, mask) => word & ~mask],
  ['BTC', (word, mask) => word ^ mask],
];

/** Number of the lowest bit set; 32 for 0. */
const lowest = (word: number) => (word === 0 ? 32 : 31 - Math.clz32(word & -word));

/** Trailing zeros of the operand at `at`; `bits` for 0. */
function trailingZeros(cpu: Processor, at: number, bits: number): number {
  if (bits !== 64) return Math.min(lowest(readUnsigned(cpu, at, bits) | 0), bits);
  const lo = cpu.i32[at >> 2] as number;
  return lo !== 0 ? lowest(lo) : 32 + lowest(cpu.i32[(at >> 2) + 1] as number);
}

function leadingZeros(cpu: Processor, at: number, bits: number): number {
  if (bits !== 64) return Math.clz32(readUnsigned(cpu, at, bits)) - (32 - bits);
  const hi = cpu.i32[(at >> 2) + 1] as number;
  return hi !== 0 ? Math.clz32(hi) : 32 + Math.clz32(cpu.i32[at >> 2] as number);
}

function onesOf(word: number): number {
  let v = word - ((word >>> 1) & 0x5555_5555);
  v = (v & 0x3333_3333) + ((v >>> 2) & 0x3333_3333);
  return Math.imul((v + (v >>> 4)) & 0x0f0f_0f0f, 0x0101_0101) >>> 24;
}

const writeNumber = (cpu: Processor, at: number, bits: number, value: number): Next =>
  bits === 64 ? write64(cpu, at, value, 0) : writeLow(cpu, at, bits, value);

/** BSF and BSR: the number of a bit set, and whether there is one. */
function scan(number: (cpu: Processor, at: number, bits: number) => number): Execute {
  return (cpu, i) => {
    const found = number(cpu, i.s, i.operandBits);
    const none = found < 0 || found === i.operandBits;
    replaceFlags(cpu, ZF, none ? ZF : 0);
    return none ? Next.Sequential : writeNumber(cpu, i.d, i.operandBits, found);
  };
}

const bsf = scan(trailingZeros);
const bsr = scan((cpu, at, bits) => bits - 1 - leadingZeros(cpu, at, bits));

/** LZCNT and TZCNT: CF if the operand is 0, ZF if the result is. */
function count(zeros: (cpu: Processor, at: number, bits: number) => number): Execute {
  return (cpu, i) => {
    const result = zeros(cpu, i.s, i.operandBits);
    replaceFlags(cpu, CF | ZF, (result === i.operandBits ? CF : 0) | (result === 0 ? ZF : 0));
    return writeNumber(cpu, i.d, i.operandBits, result);
  };
}

const tzcnt = count(trailingZeros);
const lzcnt = count(leadingZeros);
/** Before BMI1 and LZCNT, prefix F3 was ignored. */
const tzcntOrBsf: Execute = (cpu, i) => (cpu.features.bmi1 ? tzcnt : bsf)(cpu, i);
const lzcntOrBsr: Execute = (cpu, i) => (cpu.features.lzcnt ? lzcnt : bsr)(cpu, i);

/** ZF if there is none; the other flags become 0. */
const popcnt: Execute = (cpu, i) => {
  const { operandBits } = i;
  const ones =
    operandBits === 64
      ? onesOf(cpu.i32[i.s >> 2] as number) + onesOf(cpu.i32[(i.s >> 2) + 1] as number)
      : onesOf(readUnsigned(cpu, i.s, operandBits) | 0);
  replaceFlags(cpu, 0x8d5, ones === 0 ? ZF : 0);
  return writeNumber(cpu, i.d, operandBits, ones);
};

/** The bytes of a word in reverse order. */
export const reversed = (word: number) =>
  (word << 24) | ((word & 0xff00) << 8) | ((word >>> 8) & 0xff00) | (word >>> 24);

const bswap: SizedExecute = {
  16: (cpu, i) => writeLow(cpu, i.d, 16, 0),
  32: (cpu, i) => write32(cpu, i.d, reversed(cpu.i32[i.d >> 2] as number)),
  64: (cpu, i) => {
    const lo = cpu.i32[i.d >> 2] as number;
    return write64(cpu, i.d, reversed(cpu.i32[(i.d >> 2) + 1] as number), reversed(lo));
  },
};

export const BIT_ROWS: readonly OpcodeRow[] = [
  ...CHANGES.flatMap(([mnemonic, change], n): OpcodeRow[] => {
    const byRegister = { mnemonic, operands: 'Ev! Gv', execute: bitOfString(change) };
    const suffix = change === undefined ? '' : '+';
    const byImmediate = { mnemonic, operands: `Ev${suffix} Ib`, execute: bitOfOperand(change) };
    const lock = change === undefined ? {} : ({ lock: true } as const);
    return [
      { opcode: `0F ${['A3', 'AB', 'B3', 'BB'][n]}`, ...byRegister, ...lock },
      { opcode: `0F BA /${4 + n}`, ...byImmediate, ...lock },
    ];
  }),
  { opcode: '0F BC', mnemonic: 'BSF', operands: 'Gv Ev', execute: bsf },
  { opcode: '0F BD', mnemonic: 'BSR', operands: 'Gv Ev', execute: bsr },
  { opcode: 'F3 0F BC', mnemonic: 'TZCNT', operands: 'Gv Ev', execute: tzcntOrBsf },
  { opcode: 'F3 0F BD', mnemonic: 'LZCNT', operands: 'Gv Ev', execute: lzcntOrBsr },
  { opcode: 'F3 0F B8', mnemonic: 'POPCNT', operands: 'Gv Ev', execute: popcnt, feature: (f) => f.popcnt },
  { opcode: '0F C8 +r', mnemonic: 'BSWAP', operands: 'Zv', execute: bswap },
];
