/** Templates: x87. */
import type { CaseBuilder } from '../case-builder.ts';
import { littleEndian, type MemoryOperand } from '../operands.ts';
import type { Template } from './template.ts';

const C2 = 0x400;
const C0_C2_C3 = 0x4500;
const ALL_CODES = 0x4700;
const ST = 32;
const FCW = 0;
const FSW = 2;
const FTW = 4;

/** What an operand in memory holds. */
type Content = 'single' | 'double' | 'extended' | 'decimal' | 'integer' | 'word';

interface MemoryRow {
  readonly name: string;
  readonly opcode: number;
  readonly digit: number;
  readonly bytes: number;
  readonly content: Content;
  readonly undefinedCodes?: number;
}

const ARITHMETIC = ['fadd', 'fmul', 'fcom', 'fcomp', 'fsub', 'fsubr', 'fdiv', 'fdivr'] as const;
const isCompare = (digit: number) => digit === 2 || digit === 3;

const MEMORY: readonly MemoryRow[] = [
  ...ARITHMETIC.flatMap((name, digit): MemoryRow[] => {
    const undefinedCodes = isCompare(digit) ? 0 : C0_C2_C3;
    return [
      { name, opcode: 0xd8, digit, bytes: 4, content: 'single', undefinedCodes },
      { name, opcode: 0xdc, digit, bytes: 8, content: 'double', undefinedCodes },
      { name: `${name}.integer`, opcode: 0xda, digit, bytes: 4, content: 'integer', undefinedCodes },
      { name: `${name}.integer`, opcode: 0xde, digit, bytes: 2, content: 'integer', undefinedCodes },
    ];
  }),
  { name: 'fld', opcode: 0xd9, digit: 0, bytes: 4, content: 'single' },
  { name: 'fld', opcode: 0xdd, digit: 0, bytes: 8, content: 'double' },
  { name: 'fld', opcode: 0xdb, digit: 5, bytes: 10, content: 'extended' },
  { name: 'fst', opcode: 0xd9, digit: 2, bytes: 4, content: 'single' },
  { name: 'fst', opcode: 0xdd, digit: 2, bytes: 8, content: 'double' },
  { name: 'fstp', opcode: 0xd9, digit: 3, bytes: 4, content: 'single' },
  { name: 'fstp', opcode: 0xdd, digit: 3, bytes: 8, content: 'double' },
  { name: 'fstp', opcode: 0xdb, digit: 7, bytes: 10, content: 'extended' },
  { name: 'fild', opcode: 0xdf, digit: 0, bytes: 2, content: 'integer' },
  { name: 'fild', opcode: 0xdb, digit: 0, bytes: 4, content: 'integer' },
  { name: 'fild', opcode: 0xdf, digit: 5, bytes: 8, content: 'integer' },
  { name: 'fist', opcode: 0xdf, digit: 2, bytes: 2, content: 'integer' },
  { name: 'fist', opcode: 0xdb, digit: 2, bytes: 4, content: 'integer' },
  { name: 'fistp', opcode: 0xdf, digit: 3, bytes: 2, content: 'integer' },
  { name: 'fistp', opcode: 0xdb, digit: 3, bytes: 4, content: 'integer' },
  { name: 'fistp', opcode: 0xdf, digit: 7, bytes: 8, content: 'integer' },
  { name: 'fisttp', opcode: 0xdf, digit: 1, bytes: 2, content: 'integer' },
  { name: 'fisttp', opcode: 0xdb, digit: 1, bytes: 4, content: 'integer' },
  { name: 'fisttp', opcode: 0xdd, digit: 1, bytes: 8, content: 'integer' },
  { name: 'fbld', opcode: 0xdf, digit: 4, bytes: 10, content: 'decimal' },
  { name: 'fbstp', opcode: 0xdf, digit: 6, bytes: 10, content: 'decimal' },
  { name: 'fldcw', opcode: 0xd9, digit: 5, bytes: 2, content: 'word', undefinedCodes: ALL_CODES },
  { name: 'fnstcw', opcode: 0xd9, digit: 7, bytes: 2, content: 'word', undefinedCodes: ALL_CODES },
  { name: 'fnstsw', opcode: 0xdd, digit: 7, bytes: 2, content: 'word', undefinedCodes: ALL_CODES },
];

interface RegisterRow {
  readonly name: string;
  readonly opcode: number;
  /** Second byte; with `stack`, ST(i) is added to it. */
  readonly second: number;
  readonly stack: boolean;
  readonly undefinedCodes?: number;
}

function stackRows(name: string, undefinedCodes: number, ...forms: readonly (readonly [number, number])[]) {
  return forms.map(
    ([opcode, second]): RegisterRow => ({ name, opcode, second, stack: true, undefinedCodes }),
  );
}

const single = (name: string, opcode: number, second: number, undefinedCodes = C0_C2_C3): RegisterRow => ({
  name,
  opcode,
  second,
  stack: false,
  undefinedCodes,
});

const CONSTANTS = ['fld1', 'fldl2t', 'fldl2e', 'fldpi', 'fldlg2', 'fldln2', 'fldz'];

const REGISTERS: readonly RegisterRow[] = [
  ...stackRows('fadd.stack', C0_C2_C3, [0xd8, 0xc0], [0xdc, 0xc0], [0xde, 0xc0]),
  ...stackRows('fmul.stack', C0_C2_C3, [0xd8, 0xc8], [0xdc, 0xc8], [0xde, 0xc8]),
  ...stackRows('fsub.stack', C0_C2_C3, [0xd8, 0xe0], [0xdc, 0xe8], [0xde, 0xe8]),
  ...stackRows('fsubr.stack', C0_C2_C3, [0xd8, 0xe8], [0xdc, 0xe0], [0xde, 0xe0]),
  ...stackRows('fdiv.stack', C0_C2_C3, [0xd8, 0xf0], [0xdc, 0xf8], [0xde, 0xf8]),
  ...stackRows('fdivr.stack', C0_C2_C3, [0xd8, 0xf8], [0xdc, 0xf0], [0xde, 0xf0]),
  ...stackRows('fcom.stack', 0, [0xd8, 0xd0], [0xd8, 0xd8]),
  ...stackRows('fucom', 0, [0xdd, 0xe0], [0xdd, 0xe8]),
  single('fcompp', 0xde, 0xd9, 0),
  single('fucompp', 0xda, 0xe9, 0),
  // C1 becomes 0 by the manual; processors of some vendors keep it.
  ...stackRows('fcomi', ALL_CODES, [0xdb, 0xf0], [0xdf, 0xf0], [0xdb, 0xe8], [0xdf, 0xe8]),
  ...stackRows('fld.stack', C0_C2_C3, [0xd9, 0xc0]),
  ...stackRows('fst.stack', C0_C2_C3, [0xdd, 0xd0], [0xdd, 0xd8]),
  ...stackRows('fxch', C0_C2_C3, [0xd9, 0xc8]),
  ...stackRows('ffree', ALL_CODES, [0xdd, 0xc0]),
  ...stackRows(
    'fcmov',
    C0_C2_C3,
    ...[0xc0, 0xc8, 0xd0, 0xd8].flatMap((second) => [[0xda, second] as const, [0xdb, second] as const]),
  ),
  ...CONSTANTS.map((_, i) => single('fld.constant', 0xd9, 0xe8 + i)),
  single('fchs', 0xd9, 0xe0),
  single('fabs', 0xd9, 0xe1),
  single('ftst', 0xd9, 0xe4, 0),
  single('fxam', 0xd9, 0xe5, 0),
  single('fxtract', 0xd9, 0xf4),
  single('fprem1', 0xd9, 0xf5, 0),
  single('fdecstp', 0xd9, 0xf6),
  single('fincstp', 0xd9, 0xf7),
  single('fprem', 0xd9, 0xf8, 0),
  single('fsqrt', 0xd9, 0xfa),
  single('frndint', 0xd9, 0xfc),
  single('fscale', 0xd9, 0xfd),
  single('fnop', 0xd9, 0xd0, ALL_CODES),
  single('fnclex', 0xdb, 0xe2, ALL_CODES),
  single('fninit', 0xdb, 0xe3, 0),
  single('fnstsw.ax', 0xdf, 0xe0, ALL_CODES),
];

/** An unmasked exception that is pending, rarely: the next instruction that waits raises #MF. */
function pending(c: CaseBuilder, fx: DataView): void {
  if (!c.random.chance(3)) return;
  const flag = 1 << c.random.below(6);
  fx.setUint16(FCW, fx.getUint16(FCW, true) & ~flag, true);
  fx.setUint16(FSW, fx.getUint16(FSW, true) | flag | 0x8080, true);
}

/** ZF, PF, CF, OF, SF, AF. */
const ARITHMETIC_FLAGS = 0x8d5;

/**
 * By the manual a comparison with an unmasked invalid operation sets neither condition codes nor flags;
 * processors of some vendors set them.
 */
function unmaskedComparison(c: CaseBuilder, fx: DataView, name: string): void {
  if (!/com|ftst/.test(name) || (fx.getUint16(FCW, true) & 1) !== 0) return;
  c.undefinedStatusWord |= ALL_CODES;
  if (name === 'fcomi') c.undefinedFlags |= ARITHMETIC_FLAGS;
}

function setBytes(c: CaseBuilder, rm: MemoryOperand, bytes: readonly number[]): void {
  bytes.forEach((byte, i) => {
    c.setValue({ ...rm, address: rm.address + BigInt(i) }, 8, BigInt(byte));
  });
}

function setContent(c: CaseBuilder, rm: MemoryOperand, { content, bytes }: MemoryRow): void {
  const { random } = c;
  if (content === 'single') setBytes(c, rm, littleEndian(random.float(32), 4));
  else if (content === 'double') setBytes(c, rm, littleEndian(random.float(64), 8));
  else if (content === 'extended') {
    const { significand, signExponent } = random.extended();
    setBytes(c, rm, [...littleEndian(significand, 8), ...littleEndian(signExponent, 2)]);
  } else if (content === 'decimal') {
    const digits = Array.from({ length: 9 }, () => random.below(10) | (random.below(10) << 4));
    setBytes(c, rm, [...digits, random.pick([0, 0x80])]);
  } else if (content === 'word') setBytes(c, rm, littleEndian(random.next() & 0x1f7f, 2));
  else setBytes(c, rm, littleEndian(random.edge(), bytes));
}

/** Puts near one another the exponents of ST(0) and ST(1): larger steps of a remainder may be partial. */
function nearRemainder(c: CaseBuilder, fx: DataView): void {
  const exponent = 0x3fff + c.random.below(200) - 100;
  fx.setUint16(ST + 16 + 8, exponent | (c.random.below(2) << 15), true);
  fx.setUint16(ST + 8, (exponent + c.random.below(66) - 5) | (c.random.below(2) << 15), true);
  for (const at of [ST, ST + 16]) {
    fx.setBigUint64(at, fx.getBigUint64(at, true) | (1n << 63n), true);
  }
}

/** ST(0) that is worth converting to an integer or a decimal of the size stored. */
function nearInteger(c: CaseBuilder, fx: DataView, bits: number): void {
  const exponent = 0x3fff + bits - 1 - c.random.below(c.random.chance(40) ? 3 : bits + 3) + 1;
  fx.setUint16(ST + 8, exponent | (c.random.below(2) << 15), true);
  const ones = c.random.chance(30) ? BigInt.asUintN(64, -1n << BigInt(c.random.below(64))) : c.random.quad();
  fx.setBigUint64(ST, ones | (1n << 63n), true);
}

function memoryTemplate(name: string): Template {
  const rows = MEMORY.filter((row) => row.name === name);
  return {
    name: `x87.${name}`,
    build(c) {
      const fx = c.withFx();
      const row = c.random.pick(rows);
      c.undefinedStatusWord = row.undefinedCodes ?? C0_C2_C3;
      pending(c, fx);
      unmaskedComparison(c, fx, name);
      const rm = c.memory(row.bytes);
      setContent(c, rm, row);
      if (/^(fist|fbstp)/.test(name) && c.random.chance(70)) {
        nearInteger(c, fx, row.content === 'decimal' ? 60 : row.bytes * 8);
      }
      c.emit({ opcode: [row.opcode], digit: row.digit, rm, redundant: 'segment' });
    },
  };
}

function registerTemplate(name: string): Template {
  const rows = REGISTERS.filter((row) => row.name === name);
  return {
    name: `x87.${name}`,
    build(c) {
      const fx = c.withFx();
      const row = c.random.pick(rows);
      c.undefinedStatusWord = row.undefinedCodes ?? C0_C2_C3;
      pending(c, fx);
      unmaskedComparison(c, fx, name);
      if (name.startsWith('fprem')) nearRemainder(c, fx);
      if (name === 'fscale' && c.random.chance(70)) {
        fx.setUint16(ST + 24, (0x3fff + c.random.below(16) - 2) | (c.random.below(2) << 15), true);
      }
      if (name === 'frndint' && c.random.chance(70)) nearInteger(c, fx, 64);
      if (/com/.test(name) && c.random.chance(20)) {
        // Equal operands.
        const image = new Uint8Array(fx.buffer, fx.byteOffset);
        for (let i = 1; i < 8; i++) image.copyWithin(ST + 16 * i, ST, ST + 10);
        if (c.random.chance(50)) fx.setUint8(FTW, 0xff);
      }
      const second = row.stack ? row.second | c.random.below(8) : row.second;
      c.emit({ opcode: [row.opcode, second], redundant: 'segment' });
    },
  };
}

/** Name, second byte, and the largest exponent of ST(0) in the instruction's range. */
const TRANSCENDENTAL: readonly (readonly [name: string, second: number, exponent: number])[] = [
  ['f2xm1', 0xf0, 0x3ffe],
  ['fyl2x', 0xf1, 0x7ffe],
  ['fptan', 0xf2, 0x4040],
  ['fpatan', 0xf3, 0x7ffe],
  ['fyl2xp1', 0xf9, 0x3ffc],
  ['fsincos', 0xfb, 0x4040],
  ['fsin', 0xfe, 0x4040],
  ['fcos', 0xff, 0x4040],
];
/** Some vendors' processors report an inexact result, and underflow with it, of whatever was computed. */
const UNDERFLOW_AND_INEXACT = 0x30;

/** The last place of a result differs between processors, and with it C1. */
function transcendentalTemplate([name, second, largest]: (typeof TRANSCENDENTAL)[number]): Template {
  return {
    name: `x87.${name}`,
    build(c) {
      const { random } = c;
      const fx = c.withFx();
      c.undefinedStatusWord = (ALL_CODES & (/^f(yl|pat|2x)/.test(name) ? ~0 : ~C2)) | UNDERFLOW_AND_INEXACT;
      c.undefinedLastPlaces = 1;
      // Which result wins if underflow or an inexact one is unmasked depends on how it is computed.
      fx.setUint16(FCW, fx.getUint16(FCW, true) | UNDERFLOW_AND_INEXACT, true);
      pending(c, fx);
      if (random.chance(85)) {
        if (random.chance(80)) fx.setUint8(FTW, random.chance(50) ? 0xff : fx.getUint8(FTW) | 0x81);
        for (const at of [ST, ST + 16]) {
          const exponent = Math.min(
            largest,
            0x3fff + random.below(random.chance(50) ? 140 : 4) - (random.chance(50) ? 70 : 2),
          );
          fx.setUint16(at + 8, exponent | (random.below(2) << 15), true);
          fx.setBigUint64(at, random.quad() | (1n << 63n), true);
        }
      }
      const exponent = fx.getUint16(ST + 8, true) & 0x7fff;
      if (exponent > largest && exponent !== 0x7fff) fx.setUint16(ST + 8, largest, true);
      c.emit({ opcode: [0xd9, second], redundant: 'segment' });
    },
  };
}

const names = (rows: readonly { readonly name: string }[]) => [...new Set(rows.map(({ name }) => name))];

export const X87: readonly Template[] = [
  ...names(MEMORY).map(memoryTemplate),
  ...names(REGISTERS).map(registerTemplate),
  ...TRANSCENDENTAL.map(transcendentalTemplate),
  {
    name: 'x87.fwait',
    build(c) {
      c.undefinedStatusWord = ALL_CODES;
      const fx = c.withFx();
      pending(c, fx);
      c.emit({ opcode: [0x9b], redundant: 'segment' });
    },
  },
];
