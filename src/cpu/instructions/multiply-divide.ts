/**
 * Multiplication and division (SDM vol. 2: MUL, IMUL, DIV, IDIV). What the manual leaves undefined:
 * a multiplication sets SF, ZF and PF by the low half of the product and clears AF; a division leaves
 * all flags.
 */
import { raise, Vector } from '../exceptions.ts';
import { carriesOf, setFlags } from '../flags.ts';
import { type Execute, Next } from '../instruction.ts';
import type { OpcodeRow, SizedExecute } from '../opcode-row.ts';
import { write32, write64 } from '../operand-values.ts';
import type { Processor } from '../processor.ts';
import { Register } from '../registers.ts';

const RAX = 8 * Register.RAX;
const RDX = 8 * Register.RDX;
const AX = 4 * Register.RAX;
const DX = 4 * Register.RDX;
const EAX = 2 * Register.RAX;
const EDX = 2 * Register.RDX;
const TWO_32 = 0x1_0000_0000;

/** Flags of a product whose low half is `hi`:`lo`, and whether the high half is significant. */
function productFlags(cpu: Processor, lo: number, hi: number, significant: boolean): Next {
  setFlags(cpu, lo, hi, significant ? carriesOf(1, 1, 0) : 0);
  return Next.Sequential;
}

/** Bits 63:32 of the product of two signed or two unsigned 32-bit numbers; the rounding of `a * b` is far below. */
function highHalf(a: number, b: number): number {
  return Math.round((a * b - (Math.imul(a, b) >>> 0)) / TWO_32) | 0;
}

const mul: SizedExecute = {
  8: (cpu, i) => {
    const product = (cpu.u8[RAX] as number) * (cpu.u8[i.d] as number);
    cpu.u16[AX] = product;
    const low = (product << 24) >> 24;
    return productFlags(cpu, low, low, product > 0xff);
  },
  16: (cpu, i) => {
    const product = (cpu.u16[AX] as number) * (cpu.u16[i.d >> 1] as number);
    cpu.u16[AX] = product;
    cpu.u16[DX] = product >>> 16;
    const low = (product << 16) >> 16;
    return productFlags(cpu, low, low, product > 0xffff);
  },
  32: (cpu, i) => {
    const a = (cpu.i32[EAX] as number) >>> 0;
    const b = (cpu.i32[i.d >> 2] as number) >>> 0;
    const low = Math.imul(a, b);
    const high = highHalf(a, b);
    write32(cpu, RAX, low);
    write32(cpu, RDX, high);
    return productFlags(cpu, low, low, high !== 0);
  },
  64: (cpu, i) => {
    const q = cpu.quads;
    const product = (q[Register.RAX] as bigint) * (q[i.d >> 3] as bigint);
    q[Register.RAX] = BigInt.asUintN(64, product);
    q[Register.RDX] = product >> 64n;
    const w = cpu.i32;
    const significant = ((w[EDX] as number) | (w[EDX + 1] as number)) !== 0;
    return productFlags(cpu, w[EAX] as number, w[EAX + 1] as number, significant);
  },
};

const imul: SizedExecute = {
  8: (cpu, i) => {
    const product = (((cpu.u8[RAX] as number) << 24) >> 24) * (((cpu.u8[i.d] as number) << 24) >> 24);
    cpu.u16[AX] = product;
    const low = (product << 24) >> 24;
    return productFlags(cpu, low, low, product !== low);
  },
  16: (cpu, i) => {
    const product = (((cpu.u16[AX] as number) << 16) >> 16) * (((cpu.u16[i.d >> 1] as number) << 16) >> 16);
    cpu.u16[AX] = product;
    cpu.u16[DX] = product >> 16;
    const low = (product << 16) >> 16;
    return productFlags(cpu, low, low, product !== low);
  },
  32: (cpu, i) => {
    const a = cpu.i32[EAX] as number;
    const b = cpu.i32[i.d >> 2] as number;
    const low = Math.imul(a, b);
    const high = highHalf(a, b);
    write32(cpu, RAX, low);
    write32(cpu, RDX, high);
    return productFlags(cpu, low, low, high !== low >> 31);
  },
  64: (cpu, i) => {
    const q = cpu.quads;
    const product = BigInt.asIntN(64, q[Register.RAX] as bigint) * BigInt.asIntN(64, q[i.d >> 3] as bigint);
    q[Register.RAX] = BigInt.asUintN(64, product);
    q[Register.RDX] = BigInt.asUintN(64, product >> 64n);
    const significant = product !== BigInt.asIntN(64, product);
    return productFlags(cpu, cpu.i32[EAX] as number, cpu.i32[EAX + 1] as number, significant);
  },
};

/** d := a × b, truncated to the operand size: IMUL with two or three operands. */
const product16 = (cpu: Processor, d: number, a: number, b: number): Next => {
  const product = (((cpu.u16[a >> 1] as number) << 16) >> 16) * (((cpu.u16[b >> 1] as number) << 16) >> 16);
  cpu.u16[d >> 1] = product;
  const low = (product << 16) >> 16;
  return productFlags(cpu, low, low, product !== low);
};

const product32 = (cpu: Processor, d: number, a: number, b: number): Next => {
  const x = cpu.i32[a >> 2] as number;
  const y = cpu.i32[b >> 2] as number;
  const low = Math.imul(x, y);
  write32(cpu, d, low);
  return productFlags(cpu, low, low, highHalf(x, y) !== low >> 31);
};

const product64 = (cpu: Processor, d: number, a: number, b: number): Next => {
  const w = cpu.i32;
  const x = w[a >> 2] as number;
  const y = w[b >> 2] as number;
  if (w[(a >> 2) + 1] === x >> 31 && w[(b >> 2) + 1] === y >> 31) {
    // Two numbers of 32 bits, which is what most programs multiply.
    const low = Math.imul(x, y);
    const high = highHalf(x, y);
    write64(cpu, d, low, high);
    return productFlags(cpu, low, high, false);
  }
  const q = cpu.quads;
  const product = BigInt.asIntN(64, q[a >> 3] as bigint) * BigInt.asIntN(64, q[b >> 3] as bigint);
  q[d >> 3] = BigInt.asUintN(64, product);
  const significant = product !== BigInt.asIntN(64, product);
  return productFlags(cpu, w[d >> 2] as number, w[(d >> 2) + 1] as number, significant);
};

const imul2: SizedExecute = {
  16: (cpu, i) => product16(cpu, i.d, i.d, i.s),
  32: (cpu, i) => product32(cpu, i.d, i.d, i.s),
  64: (cpu, i) => product64(cpu, i.d, i.d, i.s),
};

const imul3: SizedExecute = {
  16: (cpu, i) => product16(cpu, i.d, i.s, i.t),
  32: (cpu, i) => product32(cpu, i.d, i.s, i.t),
  64: (cpu, i) => product64(cpu, i.d, i.s, i.t),
};

const divideError = (cpu: Processor): Next => raise(cpu, Vector.DE);

/** EDX:EAX / `divisor` as numbers where EDX is 0; the quotient cannot overflow. */
function divideShort(cpu: Processor, divisor: number): Next {
  const dividend = (cpu.i32[EAX] as number) >>> 0;
  write32(cpu, RAX, Math.floor(dividend / divisor) | 0);
  return write32(cpu, RDX, (dividend % divisor) | 0);
}

const div: SizedExecute = {
  8: (cpu, i) => {
    const divisor = cpu.u8[i.d] as number;
    const dividend = cpu.u16[AX] as number;
    if (divisor === 0 || dividend >>> 8 >= divisor) return divideError(cpu);
    cpu.u16[AX] = Math.floor(dividend / divisor) | ((dividend % divisor) << 8);
    return Next.Sequential;
  },
  16: (cpu, i) => {
    const divisor = cpu.u16[i.d >> 1] as number;
    const high = cpu.u16[DX] as number;
    if (high >= divisor) return divideError(cpu);
    const dividend = high * 0x1_0000 + (cpu.u16[AX] as number);
    cpu.u16[AX] = Math.floor(dividend / divisor);
    cpu.u16[DX] = dividend % divisor;
    return Next.Sequential;
  },
  32: (cpu, i) => {
    const divisor = (cpu.i32[i.d >> 2] as number) >>> 0;
    const high = (cpu.i32[EDX] as number) >>> 0;
    if (high >= divisor) return divideError(cpu);
    if (high === 0) return divideShort(cpu, divisor);
    const dividend = (BigInt(high) << 32n) | BigInt((cpu.i32[EAX] as number) >>> 0);
    write32(cpu, RAX, Number(dividend / BigInt(divisor)) | 0);
    return write32(cpu, RDX, Number(dividend % BigInt(divisor)) | 0);
  },
  64: (cpu, i) => {
    const w = cpu.i32;
    const d = i.d >> 2;
    if ((w[EDX] as number) === 0 && w[EDX + 1] === 0 && w[EAX + 1] === 0 && w[d + 1] === 0 && w[d] !== 0)
      return divideShort(cpu, (w[d] as number) >>> 0);
    const q = cpu.quads;
    const divisor = q[i.d >> 3] as bigint;
    const high = q[Register.RDX] as bigint;
    if (high >= divisor) return divideError(cpu);
    const dividend = (high << 64n) | (q[Register.RAX] as bigint);
    q[Register.RAX] = dividend / divisor;
    q[Register.RDX] = dividend % divisor;
    return Next.Sequential;
  },
};

const idiv: SizedExecute = {
  8: (cpu, i) => {
    const divisor = ((cpu.u8[i.d] as number) << 24) >> 24;
    const dividend = ((cpu.u16[AX] as number) << 16) >> 16;
    const quotient = Math.trunc(dividend / divisor);
    if (divisor === 0 || quotient !== (quotient << 24) >> 24) return divideError(cpu);
    cpu.u16[AX] = (quotient & 0xff) | ((dividend % divisor) << 8);
    return Next.Sequential;
  },
  16: (cpu, i) => {
    const divisor = ((cpu.u16[i.d >> 1] as number) << 16) >> 16;
    const dividend = ((cpu.u16[DX] as number) << 16) | (cpu.u16[AX] as number);
    const quotient = Math.trunc(dividend / divisor);
    if (divisor === 0 || quotient < -0x8000 || quotient > 0x7fff) return divideError(cpu);
    cpu.u16[AX] = quotient;
    cpu.u16[DX] = dividend % divisor;
    return Next.Sequential;
  },
  32: (cpu, i) => {
    const divisor = cpu.i32[i.d >> 2] as number;
    if (divisor === 0) return divideError(cpu);
    const low = cpu.i32[EAX] as number;
    const high = cpu.i32[EDX] as number;
    if (high === low >> 31) {
      const quotient = Math.trunc(low / divisor);
      if (quotient > 0x7fff_ffff) return divideError(cpu);
      write32(cpu, RAX, quotient);
      return write32(cpu, RDX, low % divisor);
    }
    const dividend = (BigInt(high) << 32n) | BigInt(low >>> 0);
    const quotient = dividend / BigInt(divisor);
    if (quotient !== BigInt.asIntN(32, quotient)) return divideError(cpu);
    write32(cpu, RAX, Number(quotient));
    return write32(cpu, RDX, Number(dividend % BigInt(divisor)));
  },
  64: (cpu, i) => {
    const q = cpu.quads;
    const divisor = BigInt.asIntN(64, q[i.d >> 3] as bigint);
    if (divisor === 0n) return divideError(cpu);
    const dividend = (BigInt.asIntN(64, q[Register.RDX] as bigint) << 64n) | (q[Register.RAX] as bigint);
    const quotient = dividend / divisor;
    if (quotient !== BigInt.asIntN(64, quotient)) return divideError(cpu);
    q[Register.RAX] = BigInt.asUintN(64, quotient);
    q[Register.RDX] = BigInt.asUintN(64, dividend % divisor);
    return Next.Sequential;
  },
};

const accumulator = (digit: number, mnemonic: string, execute: SizedExecute | Execute): OpcodeRow[] => [
  { opcode: `F6 /${digit}`, mnemonic, operands: 'Eb', execute },
  { opcode: `F7 /${digit}`, mnemonic, operands: 'Ev', execute },
];

export const MULTIPLY_DIVIDE_ROWS: readonly OpcodeRow[] = [
  ...accumulator(4, 'MUL', mul),
  ...accumulator(5, 'IMUL', imul),
  ...accumulator(6, 'DIV', div),
  ...accumulator(7, 'IDIV', idiv),
  { opcode: '0F AF', mnemonic: 'IMUL', operands: 'Gv Ev', execute: imul2 },
  { opcode: '69', mnemonic: 'IMUL', operands: 'Gv Ev Iz', execute: imul3 },
  { opcode: '6B', mnemonic: 'IMUL', operands: 'Gv Ev Ibs', execute: imul3 },
];
