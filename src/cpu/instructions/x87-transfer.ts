/** Loads, stores, exchanges and constants of x87 (SDM vol. 2: FLD to FSTP, FILD to FISTTP, FBLD, FXCH, FCMOVcc, FLD1 to FLDZ). */

import { condition } from '../flags.ts';
import { convert, exactInteger, toInteger } from '../float/conversion.ts';
import { type Float, finite, INDEFINITE, toBinary32, toBinary64, zero } from '../float/float.ts';
import { BINARY32, BINARY64, FloatException, Rounding, round } from '../float/rounding.ts';
import { x87Ready } from '../float-availability.ts';
import { type Execute, type Instruction, Next } from '../instruction.ts';
import { probeStore, store } from '../memory-access.ts';
import type { OpcodeRow } from '../opcode-row.ts';
import { MEMORY_OPERAND, operandAddress } from '../operand-forms.ts';
import type { Processor } from '../processor.ts';
import { Access } from '../tlb.ts';
import { C1, isEmpty, setEmpty, setStatusWord, stackAt, statusWord } from '../x87-state.ts';
import {
  finishToMemory,
  finishToRegister,
  hasRoom,
  isInvalidUnmasked,
  type MemoryFormat,
  memoryValue,
  pop,
  push,
  setStack,
  stackOverflow,
  stackUnderflow,
  stackValue,
  x87Context,
} from './x87-context.ts';

/** Copies the 10 bytes of a register, or what stands for one in memory. */
function copyRegister(cpu: Processor, to: number, from: number): void {
  cpu.i32[to >> 2] = cpu.i32[from >> 2] as number;
  cpu.i32[(to >> 2) + 1] = cpu.i32[(from >> 2) + 1] as number;
  cpu.i32[(to >> 2) + 2] = (cpu.i32[(from >> 2) + 2] as number) & 0xffff;
  cpu.i32[(to >> 2) + 3] = 0;
}

/** FLD of 32 and 64 bits, FILD. A denormal operand is loaded whether that is masked or not. */
function load(format: MemoryFormat): Execute {
  return (cpu, i) => {
    const c = x87Context(cpu);
    const value = hasRoom(cpu) ? convert(c, memoryValue(cpu, i.d, format), true) : stackOverflow(c);
    finishToRegister(cpu, i, c);
    if (!isInvalidUnmasked(c)) push(cpu, value);
    return Next.Sequential;
  };
}

/** FLD of 80 bits takes the bits as they are. */
const loadExtended: Execute = (cpu, i) => {
  const c = x87Context(cpu);
  const fits = hasRoom(cpu);
  const indefinite = fits ? INDEFINITE : stackOverflow(c);
  if (!finishToRegister(cpu, i, c)) return Next.Sequential;
  push(cpu, indefinite);
  if (fits) copyRegister(cpu, stackAt(cpu, 0), i.d);
  return Next.Sequential;
};

/** FLD ST(i). */
const loadRegister: Execute = (cpu, i) => {
  const n = i.rm & 7;
  const c = x87Context(cpu);
  const from = stackAt(cpu, n);
  let fails = true;
  if (isEmpty(cpu, n)) stackUnderflow(c);
  else if (!hasRoom(cpu)) stackOverflow(c);
  else fails = false;
  if (!finishToRegister(cpu, i, c)) return Next.Sequential;
  push(cpu, INDEFINITE);
  if (!fails) copyRegister(cpu, stackAt(cpu, 0), from);
  return Next.Sequential;
};

/** A constant as 128 bits and the exponent of the last: rounded as FCW says, never inexact. */
function constant(significand: bigint, exponent: number): Execute {
  return (cpu, i) => {
    const c = x87Context(cpu);
    const value = significand === 0n ? zero(0) : round(c, 0, significand, exponent);
    c.flags = 0;
    const pushed = hasRoom(cpu) ? value : stackOverflow(c);
    if (finishToRegister(cpu, i, c)) push(cpu, pushed);
    return Next.Sequential;
  };
}

/** Room for a result of `bytes` bytes in memory: afterwards the store cannot fault. */
function canStore(cpu: Processor, i: Instruction, bytes: number): boolean {
  return operandAddress(cpu, i, bytes, Access.Write) && probeStore(cpu, bytes);
}

/** Stores the operand that was put together, and pops. Reporting may have used the slot `linear`. */
function storeOperand(cpu: Processor, i: Instruction, bytes: number, pops: boolean): Next {
  operandAddress(cpu, i, bytes, Access.Write);
  store(cpu, MEMORY_OPERAND, bytes);
  if (pops) pop(cpu);
  return Next.Sequential;
}

/** FST and FSTP of 32 and 64 bits. */
function storeFloat(format: 'single' | 'double', pops: boolean): Execute {
  const bytes = format === 'single' ? 4 : 8;
  return (cpu, i) => {
    if (!canStore(cpu, i, bytes)) return Next.Fault;
    const c = x87Context(cpu, format === 'single' ? BINARY32 : BINARY64);
    const value = isEmpty(cpu, 0) ? stackUnderflow(c) : convert(c, stackValue(cpu, 0), false);
    if (!finishToMemory(cpu, i, c)) return Next.Sequential;
    if (format === 'single') cpu.i32[MEMORY_OPERAND >> 2] = toBinary32(value);
    else cpu.quads[MEMORY_OPERAND >> 3] = toBinary64(value);
    return storeOperand(cpu, i, bytes, pops);
  };
}

/** FSTP of 80 bits. */
const storeExtended: Execute = (cpu, i) => {
  if (!canStore(cpu, i, 10)) return Next.Fault;
  const c = x87Context(cpu);
  const empty = isEmpty(cpu, 0);
  if (empty) stackUnderflow(c);
  if (!finishToMemory(cpu, i, c)) return Next.Sequential;
  if (empty) {
    cpu.quads[MEMORY_OPERAND >> 3] = INDEFINITE.significand;
    cpu.quads[(MEMORY_OPERAND >> 3) + 1] = 0xffffn;
  } else copyRegister(cpu, MEMORY_OPERAND, stackAt(cpu, 0));
  return storeOperand(cpu, i, 10, true);
};

/** FIST, FISTP, FISTTP. */
function storeInteger(bytes: 2 | 4 | 8, pops: boolean, truncates: boolean): Execute {
  return (cpu, i) => {
    if (!canStore(cpu, i, bytes)) return Next.Fault;
    const c = x87Context(cpu);
    let value: bigint | undefined;
    if (isEmpty(cpu, 0)) stackUnderflow(c);
    else value = toInteger(c, stackValue(cpu, 0), 8 * bytes, truncates ? Rounding.TowardZero : c.rounding);
    if (!finishToMemory(cpu, i, c)) return Next.Sequential;
    cpu.quads[MEMORY_OPERAND >> 3] = BigInt.asUintN(64, value ?? 1n << BigInt(8 * bytes - 1));
    return storeOperand(cpu, i, bytes, pops);
  };
}

const DECIMAL_DIGITS = 18;
const TOO_LARGE_DECIMAL = 10n ** 18n;
const INDEFINITE_DECIMAL = [0xc000_0000_0000_0000n, 0xffffn] as const;

/** FBLD: 18 decimal digits and a sign. */
const loadDecimal: Execute = (cpu, i) => {
  const c = x87Context(cpu);
  let magnitude = 0n;
  for (let n = DECIMAL_DIGITS / 2 - 1; n >= 0; n--) {
    const byte = cpu.u8[i.d + n] as number;
    magnitude = magnitude * 100n + BigInt(10 * (byte >> 4) + (byte & 15));
  }
  const sign = (cpu.u8[i.d + 9] as number) >> 7 === 1 ? 1 : 0;
  let value: Float = magnitude === 0n ? zero(sign) : finite(sign, magnitude, 0);
  if (!hasRoom(cpu)) value = stackOverflow(c);
  if (finishToRegister(cpu, i, c)) push(cpu, value);
  return Next.Sequential;
};

/** FBSTP. */
const storeDecimal: Execute = (cpu, i) => {
  if (!canStore(cpu, i, 10)) return Next.Fault;
  const c = x87Context(cpu);
  let value: bigint | undefined;
  let sign = 0;
  if (isEmpty(cpu, 0)) stackUnderflow(c);
  else {
    const operand = stackValue(cpu, 0);
    sign = operand.sign;
    value = toInteger(c, operand, 64, c.rounding);
    if (value !== undefined && (value >= TOO_LARGE_DECIMAL || value <= -TOO_LARGE_DECIMAL)) {
      c.flags = FloatException.Invalid;
      c.roundedUp = false;
      value = undefined;
    }
  }
  if (!finishToMemory(cpu, i, c)) return Next.Sequential;
  const at = MEMORY_OPERAND >> 3;
  if (value === undefined) [cpu.quads[at], cpu.quads[at + 1]] = INDEFINITE_DECIMAL;
  else {
    // Decimal digits read as hexadecimal ones are the packed form.
    const digits = BigInt(`0x${value < 0n ? -value : value}`);
    cpu.quads[at] = BigInt.asUintN(64, digits);
    cpu.quads[at + 1] = (digits >> 64n) | (sign === 1 ? 0x8000n : 0n);
  }
  return storeOperand(cpu, i, 10, true);
};

/** FST ST(i) and FSTP ST(i). */
function storeRegister(pops: boolean): Execute {
  return (cpu, i) => {
    const n = i.rm & 7;
    const c = x87Context(cpu);
    const empty = isEmpty(cpu, 0);
    if (empty) stackUnderflow(c);
    if (!finishToRegister(cpu, i, c)) return Next.Sequential;
    if (empty) setStack(cpu, n, INDEFINITE);
    else {
      copyRegister(cpu, stackAt(cpu, n), stackAt(cpu, 0));
      setEmpty(cpu, n, false);
    }
    if (pops) pop(cpu);
    return Next.Sequential;
  };
}

/** FXCH: an empty register counts as one that holds the indefinite. */
const exchange: Execute = (cpu, i) => {
  const n = i.rm & 7;
  const c = x87Context(cpu);
  if (isEmpty(cpu, 0) || isEmpty(cpu, n)) stackUnderflow(c);
  if (!finishToRegister(cpu, i, c)) return Next.Sequential;
  if (isEmpty(cpu, 0)) setStack(cpu, 0, INDEFINITE);
  if (isEmpty(cpu, n)) setStack(cpu, n, INDEFINITE);
  const a = stackAt(cpu, 0);
  const b = stackAt(cpu, n);
  copyRegister(cpu, MEMORY_OPERAND, a);
  copyRegister(cpu, a, b);
  copyRegister(cpu, b, MEMORY_OPERAND);
  return Next.Sequential;
};

/** FCMOVcc, by the number of the condition. Empty registers matter whatever the condition; C1 is 0 only then. */
function conditionalMove(code: number): Execute {
  return (cpu, i) => {
    const n = i.rm & 7;
    const c = x87Context(cpu);
    const c1 = statusWord(cpu) & C1;
    const fails = isEmpty(cpu, 0) || isEmpty(cpu, n);
    if (fails) stackUnderflow(c);
    if (!finishToRegister(cpu, i, c)) return Next.Sequential;
    if (fails) setStack(cpu, 0, INDEFINITE);
    else {
      setStatusWord(cpu, statusWord(cpu) | c1);
      if (condition(cpu, code)) copyRegister(cpu, stackAt(cpu, 0), stackAt(cpu, n));
    }
    return Next.Sequential;
  };
}

const row = (opcode: string, mnemonic: string, operands: string, execute: Execute): OpcodeRow => ({
  opcode,
  mnemonic,
  operands,
  execute,
  guard: x87Ready,
});

const CONSTANTS = [
  ['FLD1', exactInteger(1n).significand, 0],
  ['FLDL2T', 0xd49a784bcd1b8afe492bf6ff4dafdb4cn, -126],
  ['FLDL2E', 0xb8aa3b295c17f0bbbe87fed0691d3e88n, -127],
  ['FLDPI', 0xc90fdaa22168c234c4c6628b80dc1cd1n, -126],
  ['FLDLG2', 0x9a209a84fbcff7988f8959ac0b7c9178n, -129],
  ['FLDLN2', 0xb17217f7d1cf79abc9e3b39803f2f6afn, -128],
  ['FLDZ', 0n, 0],
] as const;

export const X87_TRANSFER_ROWS: readonly OpcodeRow[] = [
  row('D9 /0 mod!=3', 'FLD', 'Md', load('single')),
  row('DD /0 mod!=3', 'FLD', 'Mq', load('double')),
  row('DB /5 mod!=3', 'FLD', 'Mt', loadExtended),
  row('D9 /0 mod=3', 'FLD', 'STi', loadRegister),
  row('DF /0 mod!=3', 'FILD', 'Mw', load('word')),
  row('DB /0 mod!=3', 'FILD', 'Md', load('doubleword')),
  row('DF /5 mod!=3', 'FILD', 'Mq', load('quadword')),
  row('D9 /2 mod!=3', 'FST', 'Md!', storeFloat('single', false)),
  row('DD /2 mod!=3', 'FST', 'Mq!', storeFloat('double', false)),
  row('D9 /3 mod!=3', 'FSTP', 'Md!', storeFloat('single', true)),
  row('DD /3 mod!=3', 'FSTP', 'Mq!', storeFloat('double', true)),
  row('DB /7 mod!=3', 'FSTP', 'Mt!', storeExtended),
  row('DD /2 mod=3', 'FST', 'STi', storeRegister(false)),
  row('DD /3 mod=3', 'FSTP', 'STi', storeRegister(true)),
  row('DF /2 mod!=3', 'FIST', 'Mw!', storeInteger(2, false, false)),
  row('DB /2 mod!=3', 'FIST', 'Md!', storeInteger(4, false, false)),
  row('DF /3 mod!=3', 'FISTP', 'Mw!', storeInteger(2, true, false)),
  row('DB /3 mod!=3', 'FISTP', 'Md!', storeInteger(4, true, false)),
  row('DF /7 mod!=3', 'FISTP', 'Mq!', storeInteger(8, true, false)),
  row('DF /1 mod!=3', 'FISTTP', 'Mw!', storeInteger(2, true, true)),
  row('DB /1 mod!=3', 'FISTTP', 'Md!', storeInteger(4, true, true)),
  row('DD /1 mod!=3', 'FISTTP', 'Mq!', storeInteger(8, true, true)),
  row('DF /4 mod!=3', 'FBLD', 'Mt', loadDecimal),
  row('DF /6 mod!=3', 'FBSTP', 'Mt!', storeDecimal),
  row('D9 /1 mod=3', 'FXCH', 'ST0 STi', exchange),
  // Encodings that the manual leaves out, and processors have.
  row('DD /1 mod=3', 'FXCH', 'ST0 STi', exchange),
  row('DF /1 mod=3', 'FXCH', 'ST0 STi', exchange),
  row('DF /2 mod=3', 'FSTP', 'STi', storeRegister(true)),
  row('DF /3 mod=3', 'FSTP', 'STi', storeRegister(true)),
  ...CONSTANTS.map(([name, significand, exponent], n) =>
    row(`D9 /5 mod=3 rm=${n}`, name, '', constant(significand, exponent)),
  ),
  // Conditions B, E, BE, U and their negations, by their numbers among those of Jcc.
  ...['B', 'E', 'BE', 'U'].flatMap((suffix, n) => {
    const code = [2, 4, 6, 10][n] as number;
    return [
      row(`DA /${n} mod=3`, `FCMOV${suffix}`, 'ST0 STi', conditionalMove(code)),
      row(`DB /${n} mod=3`, `FCMOVN${suffix}`, 'ST0 STi', conditionalMove(code + 1)),
    ];
  }),
];
