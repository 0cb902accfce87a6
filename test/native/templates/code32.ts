/** Templates: what only code of 32 bits has, executed in compatibility mode. */
import type { CaseBuilder } from '../case-builder.ts';
import { AF, CF, littleEndian, OF, PF, RAX, SF, ZF } from '../operands.ts';
import type { Template } from './template.ts';

const USER_CODE_32 = 0x23;
const USER_DATA = 0x2b;
const USER_CODE_64 = 0x33;
const KERNEL_DATA = 0x18;
/** Null selectors, and selectors of no descriptor that CPL 3 may load. */
const BAD = [0xfff8, 0x1003, 0x000f, KERNEL_DATA];

function decimal(name: string, opcode: number, undefinedFlags: number): Template {
  return {
    name,
    bits: 32,
    build(c) {
      c.undefinedFlags = undefinedFlags;
      c.emit({ opcode: [opcode] });
      if (c.random.chance(60)) c.gprs[RAX] = BigInt(c.random.below(0x1_0000));
    },
  };
}

/** AAM and AAD with any base; AAM 0 is #DE. */
function decimalBase(name: string, opcode: number): Template {
  return {
    name,
    bits: 32,
    build(c) {
      c.undefinedFlags = OF | AF | CF;
      const base = c.random.chance(50) ? 10 : c.random.pick([0, 1, 2, 16, 255, c.random.below(256)]);
      c.emit({ opcode: [opcode], immediate: [base] });
    },
  };
}

function shortIncDec(c: CaseBuilder): void {
  c.emit({ opcode: [c.random.pick([0x40, 0x48])], plus: c.register(), size: c.wideSize() });
}

/** A POPA that faults may have loaded some registers: only PUSHA is tried where it faults. */
function allRegisters(c: CaseBuilder): void {
  const opcode = c.random.pick([0x60, 0x61]);
  if (opcode === 0x60) c.stackEdges();
  c.emit({ opcode: [opcode], size: c.wideSize() });
}

/** BOUND: the index is inside, at a limit, or outside. */
function bound(c: CaseBuilder): void {
  const size = c.wideSize();
  const reg = c.register();
  c.reserve(reg);
  const rm = c.memory(size / 4, { valid: c.random.chance(90) });
  c.emit({ opcode: [0x62], size, reg, rm });
  const low = BigInt(c.random.below(100) - 50);
  const high = low + BigInt(c.random.below(20));
  c.setValue(rm, size, low);
  c.setValue({ ...rm, address: rm.address + BigInt(size / 8) }, size, high);
  c.setValue({ register: reg }, size, low + BigInt(c.random.below(24) - 2));
}

/** Whether memory that stays the same is accessed for writing is not said: no faults, no override by CS. */
function arpl(c: CaseBuilder): void {
  c.emit({ opcode: [0x63], reg: c.register(), rm: c.operand(16, { valid: true }), redundant: 'none' });
}

function popSegment(c: CaseBuilder): void {
  const [opcode, selectors] = c.random.pick([
    [0x07, [0, 1, USER_DATA, USER_CODE_32, ...BAD]],
    [0x1f, [0, 3, USER_DATA, USER_CODE_32, ...BAD]],
    [0x17, [0, USER_CODE_32, ...BAD]],
  ] as const);
  c.emit({ opcode: [opcode], size: c.wideSize() });
  c.setStack(0, littleEndian(c.random.pick(selectors), 2));
  c.stackEdges();
}

/** LES and LDS with any selector; LSS, LFS and LGS with those that fault. */
function loadFarPointer(c: CaseBuilder): void {
  const size = c.wideSize();
  const [opcode, selectors] = c.random.pick([
    [[0xc4], [0, 2, USER_DATA, USER_CODE_32, ...BAD]],
    [[0xc5], [0, 2, USER_DATA, USER_CODE_32, ...BAD]],
    [
      [0x0f, 0xb2],
      [0, USER_CODE_32, ...BAD],
    ],
    [[0x0f, 0xb4], BAD],
    [[0x0f, 0xb5], BAD],
  ] as const);
  const rm = c.memory(size / 8 + 2);
  c.emit({ opcode, size, reg: c.register(), rm, redundant: 'segment' });
  const selector = { ...rm, address: rm.address + BigInt(size / 8) };
  c.setValue(selector, 16, BigInt(c.random.pick(selectors)));
}

function into(c: CaseBuilder): void {
  c.emit({ opcode: [0xce], redundant: 'segment' });
}

/** CALL and JMP to a far pointer in the instruction; into 64-bit code too. */
function farDirect(c: CaseBuilder): void {
  const size = c.wideSize();
  const selector = c.random.chance(60)
    ? USER_CODE_32
    : c.random.pick([USER_CODE_64, USER_DATA, 0, 0x10, ...BAD]);
  const immediate = [...littleEndian(c.random.quad(), size / 8), ...littleEndian(selector, 2)];
  c.stackEdges();
  c.emit({ opcode: [c.random.pick([0x9a, 0xea])], size, immediate, redundant: 'segment' });
}

/** 82H is 80H, in code that is not 64-bit. */
function aliasOf80(c: CaseBuilder): void {
  c.undefinedFlags = AF;
  c.emit({
    opcode: [0x82],
    size: 8,
    digit: c.random.pick([1, 4, 6]),
    rm: c.operand(8),
    immediate: c.immediate(8),
  });
}

/** LEA with an address of 16 bits. */
function shortLea(c: CaseBuilder): void {
  const size = c.wideSize();
  const mod = c.random.below(3);
  const rm = c.random.below(8);
  const bytes = mod === 1 ? 1 : mod === 2 || rm === 6 ? 2 : 0;
  const displacement = littleEndian(c.random.next(), bytes);
  const modRm = (mod << 6) | (c.random.below(8) << 3) | rm;
  c.raw(0x67, ...(size === 16 ? [0x66] : []), 0x8d, modRm, ...displacement);
}

const code32 = (name: string, build: Template['build']): Template => ({ name, bits: 32, build });

export const CODE32: readonly Template[] = [
  decimal('daa', 0x27, OF),
  decimal('das', 0x2f, OF),
  decimal('aaa', 0x37, OF | SF | ZF | PF),
  decimal('aas', 0x3f, OF | SF | ZF | PF),
  decimalBase('aam', 0xd4),
  decimalBase('aad', 0xd5),
  code32('inc-dec.short', shortIncDec),
  code32('pusha-popa', allRegisters),
  code32('bound', bound),
  code32('arpl', arpl),
  code32('pop.segment', popSegment),
  code32('load-far-pointer', loadFarPointer),
  code32('into', into),
  code32('far.direct', farDirect),
  code32('alias-82', aliasOf80),
  code32('lea.16', shortLea),
];
