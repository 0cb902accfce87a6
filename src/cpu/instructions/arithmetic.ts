/** Binary arithmetic and logic (SDM vol. 2: ADD, ADC, SUB, SBB, CMP, AND, OR, XOR, TEST, INC, DEC, NEG, NOT). */
import { carriesOf, carryFlag, setFlags } from '../flags.ts';
import type { Execute, Instruction } from '../instruction.ts';
import { Next } from '../instruction.ts';
import type { OpcodeRow, SizedExecute } from '../opcode-row.ts';
import type { Processor } from '../processor.ts';

/** Carries out of each bit position of `a + b (+ carry) = sum`; of a difference, its borrows. */
const carriesOut = (a: number, b: number, sum: number) => (a & b) | ((a | b) & ~sum);
const borrowsOut = (a: number, b: number, difference: number) => (~a & b) | ((~a | b) & difference);
/** Carries of an operation on the low 8 or 16 bits, as flags.ts wants them: the top ones in bits 31:30, bit 3 in place. */
const narrow = (carries: number, bits: 8 | 16) => (carries << (32 - bits)) | (carries & 8);

/** Where the result of 32 bits goes: bits 63:32 of a register become 0 (SDM vol. 1 §3.4.1.1). */
function write32(w: Int32Array, at: number, value: number): void {
  w[at] = value;
  w[at + 1] = 0;
}

type Carry = (cpu: Processor) => number;
const noCarry: Carry = () => 0;

/** ADD and ADC. */
function addition(carry: Carry): SizedExecute {
  return {
    8: (cpu, i) => {
      const { u8 } = cpu;
      const a = u8[i.d] as number;
      const b = u8[i.s] as number;
      const sum = a + b + carry(cpu);
      u8[i.d] = sum;
      const result = (sum << 24) >> 24;
      setFlags(cpu, result, result, narrow(carriesOut(a, b, sum), 8));
      return Next.Sequential;
    },
    16: (cpu, i) => {
      const { u16 } = cpu;
      const a = u16[i.d >> 1] as number;
      const b = u16[i.s >> 1] as number;
      const sum = a + b + carry(cpu);
      u16[i.d >> 1] = sum;
      const result = (sum << 16) >> 16;
      setFlags(cpu, result, result, narrow(carriesOut(a, b, sum), 16));
      return Next.Sequential;
    },
    32: (cpu, i) => {
      const w = cpu.i32;
      const a = w[i.d >> 2] as number;
      const b = w[i.s >> 2] as number;
      const sum = (a + b + carry(cpu)) | 0;
      write32(w, i.d >> 2, sum);
      setFlags(cpu, sum, sum, carriesOut(a, b, sum));
      return Next.Sequential;
    },
    64: (cpu, i) => {
      const w = cpu.i32;
      const d = i.d >> 2;
      const s = i.s >> 2;
      const [a, b] = [w[d] as number, w[s] as number];
      const [aHigh, bHigh] = [w[d + 1] as number, w[s + 1] as number];
      const low = (a + b + carry(cpu)) | 0;
      const carries = carriesOut(a, b, low);
      const high = (aHigh + bHigh + (carries >>> 31)) | 0;
      w[d] = low;
      w[d + 1] = high;
      setFlags(cpu, low, high, (carriesOut(aHigh, bHigh, high) & ~8) | (carries & 8));
      return Next.Sequential;
    },
  };
}

/** SUB, SBB and CMP; `keeps` is whether the difference is stored. */
function subtraction(carry: Carry, keeps: boolean): SizedExecute {
  return {
    8: (cpu, i) => {
      const { u8 } = cpu;
      const a = u8[i.d] as number;
      const b = u8[i.s] as number;
      const difference = a - b - carry(cpu);
      if (keeps) u8[i.d] = difference;
      const result = (difference << 24) >> 24;
      setFlags(cpu, result, result, narrow(borrowsOut(a, b, difference), 8));
      return Next.Sequential;
    },
    16: (cpu, i) => {
      const { u16 } = cpu;
      const a = u16[i.d >> 1] as number;
      const b = u16[i.s >> 1] as number;
      const difference = a - b - carry(cpu);
      if (keeps) u16[i.d >> 1] = difference;
      const result = (difference << 16) >> 16;
      setFlags(cpu, result, result, narrow(borrowsOut(a, b, difference), 16));
      return Next.Sequential;
    },
    32: (cpu, i) => {
      const w = cpu.i32;
      const a = w[i.d >> 2] as number;
      const b = w[i.s >> 2] as number;
      const difference = (a - b - carry(cpu)) | 0;
      if (keeps) write32(w, i.d >> 2, difference);
      setFlags(cpu, difference, difference, borrowsOut(a, b, difference));
      return Next.Sequential;
    },
    64: (cpu, i) => {
      const w = cpu.i32;
      const d = i.d >> 2;
      const s = i.s >> 2;
      const a = w[d] as number;
      const b = w[s] as number;
      const aHigh = w[d + 1] as number;
      const bHigh = w[s + 1] as number;
      const low = (a - b - carry(cpu)) | 0;
      const borrows = borrowsOut(a, b, low);
      const high = (aHigh - bHigh - (borrows >>> 31)) | 0;
      if (keeps) {
        w[d] = low;
        w[d + 1] = high;
      }
      setFlags(cpu, low, high, (borrowsOut(aHigh, bHigh, high) & ~8) | (borrows & 8));
      return Next.Sequential;
    },
  };
}

type Bitwise = (a: number, b: number) => number;

/** AND, OR, XOR and TEST: CF, OF and AF become 0. */
function bitwise(operation: Bitwise, keeps: boolean): SizedExecute {
  return {
    8: (cpu, i) => {
      const result = (operation(cpu.u8[i.d] as number, cpu.u8[i.s] as number) << 24) >> 24;
      if (keeps) cpu.u8[i.d] = result;
      setFlags(cpu, result, result, 0);
      return Next.Sequential;
    },
    16: (cpu, i) => {
      const result = (operation(cpu.u16[i.d >> 1] as number, cpu.u16[i.s >> 1] as number) << 16) >> 16;
      if (keeps) cpu.u16[i.d >> 1] = result;
      setFlags(cpu, result, result, 0);
      return Next.Sequential;
    },
    32: (cpu, i) => {
      const w = cpu.i32;
      const result = operation(w[i.d >> 2] as number, w[i.s >> 2] as number);
      if (keeps) write32(w, i.d >> 2, result);
      setFlags(cpu, result, result, 0);
      return Next.Sequential;
    },
    64: (cpu, i) => {
      const w = cpu.i32;
      const d = i.d >> 2;
      const s = i.s >> 2;
      const low = operation(w[d] as number, w[s] as number);
      const high = operation(w[d + 1] as number, w[s + 1] as number);
      if (keeps) {
        w[d] = low;
        w[d + 1] = high;
      }
      setFlags(cpu, low, high, 0);
      return Next.Sequential;
    },
  };
}

export const add = addition(noCarry);
const adc = addition(carryFlag);
const sub = subtraction(noCarry, true);
const sbb = subtraction(carryFlag, true);
export const cmp = subtraction(noCarry, false);
const and = bitwise((a, b) => a & b, true);
const or = bitwise((a, b) => a | b, true);
const xor = bitwise((a, b) => a ^ b, true);
const test = bitwise((a, b) => a & b, false);

/** INC (`step` 1) and DEC (−1): CF is not affected. */
function stepBy(step: 1 | -1): SizedExecute {
  const flags = (cpu: Processor, lo: number, hi: number, overflow: boolean): Next => {
    const auxiliary = step === 1 ? (lo & 15) === 0 : (lo & 15) === 15;
    setFlags(cpu, lo, hi, carriesOf(carryFlag(cpu), overflow ? 1 : 0, auxiliary ? 1 : 0));
    return Next.Sequential;
  };
  const limit = (bits: number) => (step === 1 ? -(2 ** (bits - 1)) : 2 ** (bits - 1) - 1);
  const [limit8, limit16, limit32] = [limit(8), limit(16), limit(32)];
  return {
    8: (cpu, i) => {
      const result = (((cpu.u8[i.d] as number) + step) << 24) >> 24;
      cpu.u8[i.d] = result;
      return flags(cpu, result, result, result === limit8);
    },
    16: (cpu, i) => {
      const result = (((cpu.u16[i.d >> 1] as number) + step) << 16) >> 16;
      cpu.u16[i.d >> 1] = result;
      return flags(cpu, result, result, result === limit16);
    },
    32: (cpu, i) => {
      const result = ((cpu.i32[i.d >> 2] as number) + step) | 0;
      write32(cpu.i32, i.d >> 2, result);
      return flags(cpu, result, result, result === limit32);
    },
    64: (cpu, i) => {
      const w = cpu.i32;
      const d = i.d >> 2;
      const low = ((w[d] as number) + step) | 0;
      const wraps = step === 1 ? low === 0 : low === -1;
      const high = ((w[d + 1] as number) + (wraps ? step : 0)) | 0;
      w[d] = low;
      w[d + 1] = high;
      return flags(cpu, low, high, wraps && high === limit32);
    },
  };
}

const inc = stepBy(1);
const dec = stepBy(-1);

/** NEG is the subtraction of its operand from 0. */
const neg: SizedExecute = {
  8: (cpu, i) => {
    const a = cpu.u8[i.d] as number;
    const result = (-a << 24) >> 24;
    cpu.u8[i.d] = result;
    setFlags(cpu, result, result, narrow(borrowsOut(0, a, -a), 8));
    return Next.Sequential;
  },
  16: (cpu, i) => {
    const a = cpu.u16[i.d >> 1] as number;
    const result = (-a << 16) >> 16;
    cpu.u16[i.d >> 1] = result;
    setFlags(cpu, result, result, narrow(borrowsOut(0, a, -a), 16));
    return Next.Sequential;
  },
  32: (cpu, i) => {
    const a = cpu.i32[i.d >> 2] as number;
    const result = -a | 0;
    write32(cpu.i32, i.d >> 2, result);
    setFlags(cpu, result, result, borrowsOut(0, a, result));
    return Next.Sequential;
  },
  64: (cpu, i) => {
    const w = cpu.i32;
    const d = i.d >> 2;
    const a = w[d] as number;
    const aHigh = w[d + 1] as number;
    const low = -a | 0;
    const high = (-aHigh - (a === 0 ? 0 : 1)) | 0;
    w[d] = low;
    w[d + 1] = high;
    setFlags(cpu, low, high, (borrowsOut(0, aHigh, high) & ~8) | (borrowsOut(0, a, low) & 8));
    return Next.Sequential;
  },
};

/** NOT affects no flag. */
const not: SizedExecute = {
  8: (cpu, i) => {
    cpu.u8[i.d] = ~(cpu.u8[i.d] as number);
    return Next.Sequential;
  },
  16: (cpu, i) => {
    cpu.u16[i.d >> 1] = ~(cpu.u16[i.d >> 1] as number);
    return Next.Sequential;
  },
  32: (cpu, i) => {
    write32(cpu.i32, i.d >> 2, ~(cpu.i32[i.d >> 2] as number));
    return Next.Sequential;
  },
  64: (cpu: Processor, i: Instruction) => {
    const w = cpu.i32;
    const d = i.d >> 2;
    w[d] = ~(w[d] as number);
    w[d + 1] = ~(w[d + 1] as number);
    return Next.Sequential;
  },
};

/** The eight operations with six encodings each, in the order of the opcode map. */
const GROUP_1 = [
  ['ADD', add],
  ['OR', or],
  ['ADC', adc],
  ['SBB', sbb],
  ['AND', and],
  ['SUB', sub],
  ['XOR', xor],
  ['CMP', cmp],
] as const satisfies readonly (readonly [string, Execute | SizedExecute])[];

const twoDigits = (byte: number) => byte.toString(16).toUpperCase().padStart(2, '0');

export const ARITHMETIC_ROWS: readonly OpcodeRow[] = [
  ...GROUP_1.flatMap(([mnemonic, execute], n): OpcodeRow[] => {
    const first = 8 * n;
    const writes = mnemonic === 'CMP' ? '' : '+';
    const lock = mnemonic === 'CMP' ? {} : ({ lock: true } as const);
    const row = (opcode: string, operands: string) => ({ opcode, mnemonic, operands, execute });
    return [
      { ...row(twoDigits(first), `Eb${writes} Gb`), ...lock },
      { ...row(twoDigits(first + 1), `Ev${writes} Gv`), ...lock },
      row(twoDigits(first + 2), 'Gb Eb'),
      row(twoDigits(first + 3), 'Gv Ev'),
      row(twoDigits(first + 4), 'AL Ib'),
      row(twoDigits(first + 5), 'rAX Iz'),
      { ...row(`80 /${n}`, `Eb${writes} Ib`), ...lock },
      { ...row(`81 /${n}`, `Ev${writes} Iz`), ...lock },
      { ...row(`82 /${n}`, `Eb${writes} Ib`), mode: 'no64', ...lock },
      { ...row(`83 /${n}`, `Ev${writes} Ibs`), ...lock },
    ];
  }),
  { opcode: '84', mnemonic: 'TEST', operands: 'Eb Gb', execute: test },
  { opcode: '85', mnemonic: 'TEST', operands: 'Ev Gv', execute: test },
  { opcode: 'A8', mnemonic: 'TEST', operands: 'AL Ib', execute: test },
  { opcode: 'A9', mnemonic: 'TEST', operands: 'rAX Iz', execute: test },
  ...['/0', '/1'].flatMap((digit): OpcodeRow[] => [
    { opcode: `F6 ${digit}`, mnemonic: 'TEST', operands: 'Eb Ib', execute: test },
    { opcode: `F7 ${digit}`, mnemonic: 'TEST', operands: 'Ev Iz', execute: test },
  ]),
  { opcode: '40 +r', mnemonic: 'INC', operands: 'Zv', execute: inc, mode: 'no64' },
  { opcode: '48 +r', mnemonic: 'DEC', operands: 'Zv', execute: dec, mode: 'no64' },
  { opcode: 'FE /0', mnemonic: 'INC', operands: 'Eb+', execute: inc, lock: true },
  { opcode: 'FF /0', mnemonic: 'INC', operands: 'Ev+', execute: inc, lock: true },
  { opcode: 'FE /1', mnemonic: 'DEC', operands: 'Eb+', execute: dec, lock: true },
  { opcode: 'FF /1', mnemonic: 'DEC', operands: 'Ev+', execute: dec, lock: true },
  { opcode: 'F6 /2', mnemonic: 'NOT', operands: 'Eb+', execute: not, lock: true },
  { opcode: 'F7 /2', mnemonic: 'NOT', operands: 'Ev+', execute: not, lock: true },
  { opcode: 'F6 /3', mnemonic: 'NEG', operands: 'Eb+', execute: neg, lock: true },
  { opcode: 'F7 /3', mnemonic: 'NEG', operands: 'Ev+', execute: neg, lock: true },
];
