/** Templates: arithmetic, logic, multiplication and division, exchange. */
import type { CaseBuilder } from '../case-builder.ts';
import {
  AF,
  CF,
  isMemory,
  type LegacyForm,
  OF,
  type Operand,
  PF,
  RAX,
  RBX,
  RCX,
  RDX,
  SF,
  type Size,
  ZF,
} from '../operands.ts';
import type { Template } from './template.ts';

/** Emits an instruction with a destination that may be locked: LOCK with memory is valid, with a register #UD. */
export function emitLockable(c: CaseBuilder, form: LegacyForm & { readonly rm: Operand }): void {
  const lock = isMemory(form.rm) ? c.random.chance(30) : c.random.chance(2);
  c.emit({ ...form, lock });
}

/** Byte form at `opcode`, wider form at `opcode` + 1. */
const sized = (opcode: number, size: Size) => (size === 8 ? opcode : opcode + 1);

const OPERATIONS = ['add', 'or', 'adc', 'sbb', 'and', 'sub', 'xor', 'cmp'] as const;
const LOGICAL: ReadonlySet<string> = new Set(['or', 'and', 'xor']);

function aluTemplate(name: (typeof OPERATIONS)[number], index: number): Template {
  return {
    name,
    build(c) {
      if (LOGICAL.has(name)) c.undefinedFlags = AF;
      const size = c.size();
      const base = index << 3;
      switch (c.random.below(6)) {
        case 0:
        case 1: {
          const rm = c.operand(size, { align: size / 8 });
          const form = { opcode: [sized(base, size)], size, reg: c.register(), rm };
          return name === 'cmp' ? c.emit(form) : emitLockable(c, form);
        }
        case 2:
          return c.emit({ opcode: [sized(base | 2, size)], size, reg: c.register(), rm: c.operand(size) });
        case 3:
          return c.emit({ opcode: [sized(base | 4, size)], size, immediate: c.immediate(size) });
        default: {
          const short = size !== 8 && c.random.chance(50);
          const opcode = short ? 0x83 : sized(0x80, size);
          const immediate = c.immediate(short ? 8 : size);
          const rm = c.operand(size, { align: size / 8 });
          const form = { opcode: [opcode], size, digit: index, rm, immediate };
          return name === 'cmp' ? c.emit(form) : emitLockable(c, form);
        }
      }
    },
  };
}

function test(c: CaseBuilder): unknown {
  c.undefinedFlags = AF;
  const size = c.size();
  switch (c.random.below(3)) {
    case 0:
      return c.emit({ opcode: [sized(0x84, size)], size, reg: c.register(), rm: c.operand(size) });
    case 1:
      return c.emit({ opcode: [sized(0xa8, size)], size, immediate: c.immediate(size) });
    default: {
      const rm = c.operand(size);
      return c.emit({ opcode: [sized(0xf6, size)], size, digit: 0, rm, immediate: c.immediate(size) });
    }
  }
}

function unary(name: string, opcode: number, digit: number): Template {
  return {
    name,
    build(c) {
      const size = c.size();
      const rm = c.operand(size, { align: size / 8 });
      emitLockable(c, { opcode: [sized(opcode, size)], size, digit, rm });
    },
  };
}

function multiply(name: string, digit: number): Template {
  return {
    name,
    build(c) {
      c.undefinedFlags = SF | ZF | AF | PF;
      const size = c.size();
      c.emit({ opcode: [sized(0xf6, size)], size, digit, rm: c.operand(size) });
    },
  };
}

function imulForms(c: CaseBuilder): unknown {
  c.undefinedFlags = SF | ZF | AF | PF;
  const size = c.wideSize();
  const rm = c.operand(size);
  const reg = c.register();
  switch (c.random.below(3)) {
    case 0:
      return c.emit({ opcode: [0x0f, 0xaf], size, reg, rm });
    case 1:
      return c.emit({ opcode: [0x69], size, reg, rm, immediate: c.immediate(size) });
    default:
      return c.emit({ opcode: [0x6b], size, reg, rm, immediate: c.immediate(8) });
  }
}

/** Dividends are mostly products of the divisor, so that the quotient fits or just does not. */
function divide(name: string, digit: number, signed: boolean): Template {
  return {
    name,
    build(c) {
      const { random } = c;
      c.undefinedFlags = CF | OF | SF | ZF | AF | PF;
      const size = c.size();
      c.reserve(RAX, RDX);
      const rm = c.operand(size);
      c.emit({ opcode: [sized(0xf6, size)], size, digit, rm });
      if (random.chance(15)) return;
      const wrap = signed ? BigInt.asIntN : BigInt.asUintN;
      const divisor = wrap(size, c.valueOf(rm, size));
      const quotient = wrap(random.chance(90) ? size : size + 1, random.edge() ^ (random.edge() << 32n));
      const remainder = divisor === 0n ? 0n : random.quad() % divisor;
      const dividend = divisor * quotient + (random.chance(90) ? remainder : 0n);
      if (size === 8) c.setValue({ register: RAX }, 16, BigInt.asUintN(16, dividend));
      else {
        c.setValue({ register: RAX }, size, BigInt.asUintN(size, dividend));
        c.setValue({ register: RDX }, size, BigInt.asUintN(size, dividend >> BigInt(size)));
      }
    },
  };
}

function xadd(c: CaseBuilder): void {
  const size = c.size();
  const rm = c.operand(size, { align: size / 8 });
  emitLockable(c, { opcode: [0x0f, sized(0xc0, size)], size, reg: c.register(), rm });
}

function cmpxchg(c: CaseBuilder): void {
  const size = c.size();
  c.reserve(RAX);
  const rm = c.operand(size, { align: size / 8 });
  emitLockable(c, { opcode: [0x0f, sized(0xb0, size)], size, reg: c.register(), rm });
  if (c.random.chance(50)) c.setValue({ register: RAX }, size, c.valueOf(rm, size));
}

/** CMPXCHG8B and CMPXCHG16B; the latter's operand must be aligned. */
function cmpxchgDouble(half: 32 | 64): (c: CaseBuilder) => unknown {
  return (c) => {
    c.reserve(RAX, RBX, RCX, RDX);
    const bytes = half / 4;
    const rm = c.memory(bytes, { align: c.random.chance(90) ? bytes : half === 64 ? 1 : 8 });
    const size = half === 64 ? 64 : 32;
    const lock = c.random.chance(30) && Number(rm.address % BigInt(bytes)) === 0;
    c.emit({ opcode: [0x0f, 0xc7], size, digit: 1, rm, lock, redundant: 'segment' });
    if (c.random.chance(50)) {
      c.setValue({ register: RAX }, half, c.valueOf(rm, half));
      const upper = { ...rm, address: rm.address + BigInt(half / 8) };
      c.setValue({ register: RDX }, half, c.valueOf(upper, half));
    }
  };
}

function xchg(c: CaseBuilder): unknown {
  const size = c.size();
  if (size !== 8 && c.random.chance(30)) {
    return c.emit({ opcode: [0x90], plus: 1 + c.random.below(15), size, redundant: 'segment' });
  }
  const rm = c.operand(size, { align: size / 8 });
  emitLockable(c, { opcode: [sized(0x86, size)], size, reg: c.register(), rm });
}

function adcxAdox(c: CaseBuilder): void {
  const size = c.longSize();
  const mandatory = c.random.pick([0x66, 0xf3]);
  const rm = c.operand(size);
  c.emit({ opcode: [0x0f, 0x38, 0xf6], mandatory, size, reg: c.register(), rm, redundant: 'segment' });
}

export const ARITHMETIC: readonly Template[] = [
  ...OPERATIONS.map(aluTemplate),
  { name: 'test', build: test },
  unary('inc', 0xfe, 0),
  unary('dec', 0xfe, 1),
  unary('not', 0xf6, 2),
  unary('neg', 0xf6, 3),
  multiply('mul', 4),
  multiply('imul.one-operand', 5),
  { name: 'imul', build: imulForms },
  divide('div', 6, false),
  divide('idiv', 7, true),
  { name: 'xadd', build: xadd },
  { name: 'cmpxchg', build: cmpxchg },
  { name: 'cmpxchg8b', build: cmpxchgDouble(32) },
  { name: 'cmpxchg16b', needs: 'cx16', build: cmpxchgDouble(64) },
  { name: 'xchg', build: xchg },
  { name: 'adcx-adox', needs: 'adx', build: adcxAdox },
];
