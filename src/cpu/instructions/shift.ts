/**
 * Shifts and rotates (SDM vol. 2: SAL/SAR/SHL/SHR, RCL/RCR/ROL/ROR, SHLD, SHRD). A masked count of 0
 * changes no flag. What the manual leaves undefined is what Intel processors give: AF is 0 after a
 * shift; OF is computed by the same expression whatever the count; a double shift of 16 bits by more
 * than 16 goes on with the bits of the destination.
 */
import { carriesOf, carryFlag, replaceFlags, setFlags } from '../flags.ts';
import { type Execute, Next } from '../instruction.ts';
import type { OpcodeRow, SizedExecute } from '../opcode-row.ts';
import { readUnsigned, write32, write64, writeLow } from '../operand-values.ts';
import type { Processor } from '../processor.ts';

const CF = 1;
const OF = 0x800;

type Narrow = 8 | 16 | 32;

/** An operation on `bits` bits at most 32, `count` ≥ 1: writes the result and the flags. */
type NarrowOperation = (cpu: Processor, at: number, bits: Narrow, count: number) => Next;
/** The same for 64 bits. */
type WideOperation = (cpu: Processor, at: number, count: number) => Next;

/** 8 to 32 bits take the count modulo 32, 64 bits modulo 64; a register of 32 bits is written in any case. */
function byCount(narrow: NarrowOperation, wide: WideOperation): SizedExecute {
  const sized =
    (bits: Narrow): Execute =>
    (cpu, i) => {
      const count = (cpu.u8[i.s] as number) & 31;
      if (count !== 0) return narrow(cpu, i.d, bits, count);
      return bits === 32 ? write32(cpu, i.d, cpu.i32[i.d >> 2] as number) : Next.Sequential;
    };
  return {
    8: sized(8),
    16: sized(16),
    32: sized(32),
    64: (cpu, i) => {
      const count = (cpu.u8[i.s] as number) & 63;
      return count === 0 ? Next.Sequential : wide(cpu, i.d, count);
    },
  };
}

/** Bit `n` of `hi`:`lo`. */
const bitOf = (lo: number, hi: number, n: number) => ((n < 32 ? lo >>> n : hi >>> (n - 32)) & 1) as number;

const shiftedLeftLow = (lo: number, count: number) => (count < 32 ? lo << count : 0);
const shiftedLeftHigh = (lo: number, hi: number, count: number) => {
  if (count >= 32) return lo << (count - 32);
  return count === 0 ? hi : (hi << count) | (lo >>> (32 - count));
};
const shiftedRightLow = (lo: number, hi: number, count: number) => {
  if (count >= 32) return hi >>> (count - 32);
  return count === 0 ? lo : (lo >>> count) | (hi << (32 - count));
};
const shiftedRightHigh = (hi: number, count: number) => (count < 32 ? hi >>> count : 0);

/** The two highest bits differ. */
const topBitsDiffer = (hi: number) => ((hi ^ (hi << 1)) >>> 31) as number;
const signExtended = (value: number, bits: Narrow) => (value << (32 - bits)) >> (32 - bits);

const shl = byCount(
  (cpu, at, bits, count) => {
    const a = readUnsigned(cpu, at, bits);
    const result = signExtended(a << count, bits);
    const carry = count <= bits ? (a >>> (bits - count)) & 1 : 0;
    setFlags(cpu, result, result, carriesOf(carry, carry ^ (result >>> 31), 0));
    return writeLow(cpu, at, bits, result);
  },
  (cpu, at, count) => {
    const lo = cpu.i32[at >> 2] as number;
    const hi = cpu.i32[(at >> 2) + 1] as number;
    const low = shiftedLeftLow(lo, count);
    const high = shiftedLeftHigh(lo, hi, count);
    const carry = bitOf(lo, hi, 64 - count);
    setFlags(cpu, low, high, carriesOf(carry, carry ^ (high >>> 31), 0));
    return write64(cpu, at, low, high);
  },
);

const shr = byCount(
  (cpu, at, bits, count) => {
    const a = readUnsigned(cpu, at, bits);
    const result = signExtended(a >>> count, bits);
    setFlags(
      cpu,
      result,
      result,
      carriesOf((a >>> (count - 1)) & 1, topBitsDiffer(result << (32 - bits)), 0),
    );
    return writeLow(cpu, at, bits, result);
  },
  (cpu, at, count) => {
    const lo = cpu.i32[at >> 2] as number;
    const hi = cpu.i32[(at >> 2) + 1] as number;
    const low = shiftedRightLow(lo, hi, count);
    const high = shiftedRightHigh(hi, count);
    setFlags(cpu, low, high, carriesOf(bitOf(lo, hi, count - 1), topBitsDiffer(high), 0));
    return write64(cpu, at, low, high);
  },
);

const sar = byCount(
  (cpu, at, bits, count) => {
    const a = signExtended(readUnsigned(cpu, at, bits), bits);
    const result = a >> count;
    setFlags(cpu, result, result, carriesOf((a >> (count - 1)) & 1, 0, 0));
    return writeLow(cpu, at, bits, result);
  },
  (cpu, at, count) => {
    const lo = cpu.i32[at >> 2] as number;
    const hi = cpu.i32[(at >> 2) + 1] as number;
    const low = count < 32 ? shiftedRightLow(lo, hi, count) : hi >> (count - 32);
    const high = count < 32 ? hi >> count : hi >> 31;
    setFlags(cpu, low, high, carriesOf(bitOf(lo, hi, count - 1), 0, 0));
    return write64(cpu, at, low, high);
  },
);

/** CF and OF after a rotation to the left whose result has `sign` as its highest bit. */
function rotatedLeft(cpu: Processor, carry: number, sign: number): void {
  replaceFlags(cpu, CF | OF, carry | ((carry ^ sign) !== 0 ? OF : 0));
}

/** CF and OF after a rotation to the right; `top` has the result's two highest bits as its own. */
function rotatedRight(cpu: Processor, carry: number, top: number): void {
  replaceFlags(cpu, CF | OF, carry | (topBitsDiffer(top) !== 0 ? OF : 0));
}

const rol = byCount(
  (cpu, at, bits, count) => {
    const a = readUnsigned(cpu, at, bits);
    const by = count & (bits - 1);
    const result = by === 0 ? a : (a << by) | (a >>> (bits - by));
    rotatedLeft(cpu, result & 1, (result >>> (bits - 1)) & 1);
    return writeLow(cpu, at, bits, result);
  },
  (cpu, at, count) => {
    const lo = cpu.i32[at >> 2] as number;
    const hi = cpu.i32[(at >> 2) + 1] as number;
    const low = shiftedLeftLow(lo, count) | shiftedRightLow(lo, hi, 64 - count);
    const high = shiftedLeftHigh(lo, hi, count) | shiftedRightHigh(hi, 64 - count);
    rotatedLeft(cpu, low & 1, high >>> 31);
    return write64(cpu, at, low, high);
  },
);

const ror = byCount(
  (cpu, at, bits, count) => {
    const a = readUnsigned(cpu, at, bits);
    const by = count & (bits - 1);
    const result = by === 0 ? a : (a >>> by) | (a << (bits - by));
    rotatedRight(cpu, (result >>> (bits - 1)) & 1, result << (32 - bits));
    return writeLow(cpu, at, bits, result);
  },
  (cpu, at, count) => {
    const lo = cpu.i32[at >> 2] as number;
    const hi = cpu.i32[(at >> 2) + 1] as number;
    const low = shiftedRightLow(lo, hi, count) | shiftedLeftLow(lo, 64 - count);
    const high = shiftedRightHigh(hi, count) | shiftedLeftHigh(lo, hi, 64 - count);
    rotatedRight(cpu, high >>> 31, high);
    return write64(cpu, at, low, high);
  },
);

/** Rotations through CF go bit by bit; of 8 and 16 bits, the count is taken modulo 9 and 17. */
const rotations = (bits: Narrow, count: number) => (bits === 32 ? count : count % (bits + 1));

const rcl = byCount(
  (cpu, at, bits, count) => {
    let a = readUnsigned(cpu, at, bits);
    let carry = carryFlag(cpu);
    const steps = rotations(bits, count);
    for (let n = 0; n < steps; n++) {
      const out = (a >>> (bits - 1)) & 1;
      a = (a << 1) | carry;
      carry = out;
    }
    if (steps !== 0) rotatedLeft(cpu, carry, (a >>> (bits - 1)) & 1);
    return writeLow(cpu, at, bits, a);
  },
  (cpu, at, count) => {
    let lo = cpu.i32[at >> 2] as number;
    let hi = cpu.i32[(at >> 2) + 1] as number;
    let carry = carryFlag(cpu);
    for (let n = 0; n < count; n++) {
      const out = hi >>> 31;
      hi = (hi << 1) | (lo >>> 31);
      lo = (lo << 1) | carry;
      carry = out;
    }
    rotatedLeft(cpu, carry, hi >>> 31);
    return write64(cpu, at, lo, hi);
  },
);

const rcr = byCount(
  (cpu, at, bits, count) => {
    let a = readUnsigned(cpu, at, bits);
    let carry = carryFlag(cpu);
    const steps = rotations(bits, count);
    for (let n = 0; n < steps; n++) {
      const out = a & 1;
      a = (a >>> 1) | (carry << (bits - 1));
      carry = out;
    }
    if (steps !== 0) rotatedRight(cpu, carry, a << (32 - bits));
    return writeLow(cpu, at, bits, a);
  },
  (cpu, at, count) => {
    let lo = cpu.i32[at >> 2] as number;
    let hi = cpu.i32[(at >> 2) + 1] as number;
    let carry = carryFlag(cpu);
    for (let n = 0; n < count; n++) {
      const out = lo & 1;
      lo = (lo >>> 1) | (hi << 31);
      hi = (hi >>> 1) | (carry << 31);
      carry = out;
    }
    rotatedRight(cpu, carry, hi);
    return write64(cpu, at, lo, hi);
  },
);

/** What a double shift leaves: the result, CF, and OF by `overflow`. */
function doubleShifted32(cpu: Processor, at: number, result: number, carry: number, overflow: number): Next {
  setFlags(cpu, result, result, carriesOf(carry, overflow, 0));
  return write32(cpu, at, result);
}

function doubleShifted16(cpu: Processor, at: number, result: number, carry: number, overflow: number): Next {
  const extended = signExtended(result, 16);
  setFlags(cpu, extended, extended, carriesOf(carry, overflow, 0));
  return writeLow(cpu, at, 16, result);
}

/** The count of a double shift: CL, or the immediate, which is in T1 like CL in its slot. */
function doubleShift(
  operation16: (cpu: Processor, d: number, s: number, count: number) => Next,
  operation32: (cpu: Processor, d: number, s: number, count: number) => Next,
  operation64: (cpu: Processor, d: number, s: number, count: number) => Next,
): SizedExecute {
  return {
    16: (cpu, i) => {
      const count = (cpu.u8[i.t] as number) & 31;
      return count === 0 ? Next.Sequential : operation16(cpu, i.d, i.s, count);
    },
    32: (cpu, i) => {
      const count = (cpu.u8[i.t] as number) & 31;
      if (count === 0) return write32(cpu, i.d, cpu.i32[i.d >> 2] as number);
      return operation32(cpu, i.d, i.s, count);
    },
    64: (cpu, i) => {
      const count = (cpu.u8[i.t] as number) & 63;
      return count === 0 ? Next.Sequential : operation64(cpu, i.d, i.s, count);
    },
  };
}

const shld = doubleShift(
  (cpu, d, s, count) => {
    const a = cpu.u16[d >> 1] as number;
    const pair = (a << 16) | (cpu.u16[s >> 1] as number);
    const result = ((pair << count) >>> 16) | (count > 16 ? a >>> (32 - count) : 0);
    const carry = (pair >>> (32 - count)) & 1;
    return doubleShifted16(cpu, d, result, carry, carry ^ (result >>> 15));
  },
  (cpu, d, s, count) => {
    const a = cpu.i32[d >> 2] as number;
    const result = (a << count) | ((cpu.i32[s >> 2] as number) >>> (32 - count));
    const carry = (a >>> (32 - count)) & 1;
    return doubleShifted32(cpu, d, result, carry, carry ^ (result >>> 31));
  },
  (cpu, d, s, count) => {
    const w = cpu.i32;
    const lo = w[d >> 2] as number;
    const hi = w[(d >> 2) + 1] as number;
    const fromLow = w[s >> 2] as number;
    const fromHigh = w[(s >> 2) + 1] as number;
    const low = shiftedLeftLow(lo, count) | shiftedRightLow(fromLow, fromHigh, 64 - count);
    const high = shiftedLeftHigh(lo, hi, count) | shiftedRightHigh(fromHigh, 64 - count);
    const carry = bitOf(lo, hi, 64 - count);
    setFlags(cpu, low, high, carriesOf(carry, carry ^ (high >>> 31), 0));
    return write64(cpu, d, low, high);
  },
);

const shrd = doubleShift(
  (cpu, d, s, count) => {
    const a = cpu.u16[d >> 1] as number;
    const pair = ((cpu.u16[s >> 1] as number) << 16) | a;
    const result = ((pair >>> count) | (count > 16 ? a << (32 - count) : 0)) & 0xffff;
    return doubleShifted16(cpu, d, result, (pair >>> (count - 1)) & 1, topBitsDiffer(result << 16));
  },
  (cpu, d, s, count) => {
    const a = cpu.i32[d >> 2] as number;
    const result = (a >>> count) | ((cpu.i32[s >> 2] as number) << (32 - count));
    return doubleShifted32(cpu, d, result, (a >>> (count - 1)) & 1, topBitsDiffer(result));
  },
  (cpu, d, s, count) => {
    const w = cpu.i32;
    const lo = w[d >> 2] as number;
    const hi = w[(d >> 2) + 1] as number;
    const fromLow = w[s >> 2] as number;
    const fromHigh = w[(s >> 2) + 1] as number;
    const low = shiftedRightLow(lo, hi, count) | shiftedLeftLow(fromLow, 64 - count);
    const high = shiftedRightHigh(hi, count) | shiftedLeftHigh(fromLow, fromHigh, 64 - count);
    setFlags(cpu, low, high, carriesOf(bitOf(lo, hi, count - 1), topBitsDiffer(high), 0));
    return write64(cpu, d, low, high);
  },
);

/** In the order of the opcode extensions; /6 is SHL again. */
const GROUP_2 = [
  ['ROL', rol],
  ['ROR', ror],
  ['RCL', rcl],
  ['RCR', rcr],
  ['SHL', shl],
  ['SHR', shr],
  ['SAL', shl],
  ['SAR', sar],
] as const satisfies readonly (readonly [string, SizedExecute])[];

export const SHIFT_ROWS: readonly OpcodeRow[] = [
  ...GROUP_2.flatMap(([mnemonic, execute], n): OpcodeRow[] => [
    { opcode: `C0 /${n}`, mnemonic, operands: 'Eb+ Ib', execute },
    { opcode: `C1 /${n}`, mnemonic, operands: 'Ev+ Ib', execute },
    { opcode: `D0 /${n}`, mnemonic, operands: 'Eb+ 1', execute },
    { opcode: `D1 /${n}`, mnemonic, operands: 'Ev+ 1', execute },
    { opcode: `D2 /${n}`, mnemonic, operands: 'Eb+ CL', execute },
    { opcode: `D3 /${n}`, mnemonic, operands: 'Ev+ CL', execute },
  ]),
  { opcode: '0F A4', mnemonic: 'SHLD', operands: 'Ev+ Gv Ib', execute: shld },
  { opcode: '0F A5', mnemonic: 'SHLD', operands: 'Ev+ Gv CL', execute: shld },
  { opcode: '0F AC', mnemonic: 'SHRD', operands: 'Ev+ Gv Ib', execute: shrd },
  { opcode: '0F AD', mnemonic: 'SHRD', operands: 'Ev+ Gv CL', execute: shrd },
];
