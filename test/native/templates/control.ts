/** Templates: branches, string instructions, instructions that fault, instruction fetch. */
import type { CaseBuilder } from '../case-builder.ts';
import { DATA_PAGE, DATA_WINDOW, PAGE, WINDOW } from '../native-case.ts';
import { DF, littleEndian, RCX, RDI, RSI, RSP, type Size } from '../operands.ts';
import type { Template } from './template.ts';

// Prefix 66H on a near branch is left out: the manuals of the two vendors differ on it.
const displacement = (c: CaseBuilder, bytes: number) =>
  littleEndian(c.random.edge() ^ c.random.quad(), bytes);

function jcc(c: CaseBuilder): void {
  const condition = c.random.below(16);
  if (c.random.chance(50))
    c.emit({ opcode: [0x70 | condition], immediate: displacement(c, 1), redundant: 'segment' });
  else c.emit({ opcode: [0x0f, 0x80 | condition], immediate: displacement(c, 4), redundant: 'segment' });
}

function loop(c: CaseBuilder): void {
  const short = c.random.chance(30);
  const opcode = [c.random.pick([0xe0, 0xe1, 0xe2, 0xe3])];
  c.emit({ opcode, immediate: displacement(c, 1), prefixes: short ? [0x67] : [], redundant: 'segment' });
  if (c.random.chance(60))
    c.gprs[RCX] = ((c.random.quad() << BigInt(c.bits / 2)) & (short ? ~0n : 0n)) | BigInt(c.random.below(3));
  c.gprs[RCX] = BigInt.asUintN(64, c.gprs[RCX] as bigint);
}

function jmp(c: CaseBuilder): void {
  const short = c.random.chance(50);
  c.emit({ opcode: [short ? 0xeb : 0xe9], immediate: displacement(c, short ? 1 : 4), redundant: 'segment' });
}

function call(c: CaseBuilder): void {
  c.stackEdges();
  c.emit({ opcode: [0xe8], immediate: displacement(c, 4), redundant: 'segment' });
}

const canonical = (c: CaseBuilder) => BigInt.asUintN(64, BigInt.asIntN(48, c.random.edge()));

function indirect(name: string, digit: number): Template {
  return {
    name,
    build(c) {
      c.reserve(RSP);
      c.stackEdges();
      const rm = c.random.chance(50)
        ? {
            register: c.random.pick(c.bits === 64 ? [0, 1, 2, 3, 5, 6, 7, 8, 12, 15] : [0, 1, 2, 3, 5, 6, 7]),
          }
        : c.memory(c.bits / 8);
      c.emit({ opcode: [0xff], digit, rm, redundant: 'segment' });
      c.setValue(rm, c.bits, canonical(c));
    },
  };
}

function ret(c: CaseBuilder): void {
  c.stackEdges();
  if (c.random.chance(50)) c.emit({ opcode: [0xc3], redundant: 'segment' });
  else
    c.emit({
      opcode: [0xc2],
      immediate: littleEndian(c.random.pick([0, 8, 1, 0xffff, c.random.next()]), 2),
      redundant: 'segment',
    });
  c.setStack(0, littleEndian(canonical(c), 8));
}

/** Places an index register so that `bytes` × `count` from it stay in the window, or run out of the page. */
function pointer(c: CaseBuilder, register: number, bytes: number, count: number, short: boolean): void {
  const { random } = c;
  const span = bytes * Math.max(count, 1);
  const backward = (c.rflags & DF) !== 0;
  const room = Math.max(WINDOW - span, 1);
  let at = DATA_PAGE + DATA_WINDOW + random.below(room);
  if (random.chance(6)) at = DATA_PAGE + PAGE - random.below(bytes * 3 + 1);
  else if (backward) at += span - bytes;
  c.gprs[register] = BigInt(at) | (short ? random.quad() << 32n : 0n);
  c.gprs[register] = BigInt.asUintN(64, c.gprs[register] as bigint);
}

interface StringRow {
  readonly name: string;
  readonly opcode: number;
  readonly source: boolean;
  readonly destination: boolean;
  readonly compares: boolean;
}

const STRINGS: readonly StringRow[] = [
  { name: 'movs', opcode: 0xa4, source: true, destination: true, compares: false },
  { name: 'cmps', opcode: 0xa6, source: true, destination: true, compares: true },
  { name: 'stos', opcode: 0xaa, source: false, destination: true, compares: false },
  { name: 'lods', opcode: 0xac, source: true, destination: false, compares: false },
  { name: 'scas', opcode: 0xae, source: false, destination: true, compares: true },
];

function string(row: StringRow): Template {
  return {
    name: row.name,
    build(c) {
      const { random } = c;
      const size: Size = c.size();
      const bytes = size / 8;
      if (random.chance(50)) c.rflags |= DF;
      const repeat = random.chance(60) ? random.pick([0xf2, 0xf3]) : undefined;
      const short = c.bits === 64 && random.chance(20);
      const count = repeat === undefined ? 1 : random.pick([0, 1, 2, 3, 5, 9]);
      const prefixes = [...(repeat === undefined ? [] : [repeat]), ...(short ? [0x67] : [])];
      c.emit({
        opcode: [row.opcode + (size === 8 ? 0 : 1)],
        size,
        prefixes,
        redundant: random.chance(15) ? 'segment' : 'none',
      });
      c.repeats = repeat !== undefined;
      if (repeat !== undefined)
        c.gprs[RCX] = BigInt.asUintN(64, BigInt(count) | (short ? random.quad() << 32n : 0n));
      if (row.source) pointer(c, RSI, bytes, count, short);
      if (row.destination) pointer(c, RDI, bytes, count, short);
      if (row.compares && random.chance(60)) {
        // Equal elements, so that comparisons go on.
        c.data.fill(random.pick([0, 0xff, 0x41]));
        for (let i = random.below(3); i > 0; i--) c.data[random.below(WINDOW)] = random.below(256);
        if (!row.source && random.chance(80)) c.gprs[0] = 0x4141_4141_4141_4141n;
      }
    },
  };
}

/** NOP in its forms, prefetches, CLFLUSH, fences. */
function nop(c: CaseBuilder): unknown {
  const { random } = c;
  switch (random.below(8)) {
    case 0:
      return c.emit({ opcode: [0x90], redundant: 'segment' });
    case 1:
      return c.emit({ opcode: [0x90], mandatory: 0xf3, redundant: 'segment' });
    case 2:
      return c.emit({
        opcode: [0x0f, 0x1f],
        digit: 0,
        rm: c.operand(32),
        size: c.wideSize(),
        redundant: 'segment',
      });
    case 3:
      return c.emit({ opcode: [0x0f, 0x18], digit: random.below(4), rm: c.memory(1), redundant: 'segment' });
    case 4:
      return c.emit({ opcode: [0x0f, 0xae], digit: 7, rm: c.memory(1), redundant: 'segment' });
    case 5:
      return c.emit({ opcode: [0x0f, 0x0d], digit: 1, rm: c.memory(1), redundant: 'segment' });
    case 6:
      return c.raw(0xf3, 0x0f, 0x1e, random.pick([0xfa, 0xfb]));
    default:
      return c.raw(0x0f, 0xae, random.pick([0xe8, 0xf0, 0xf8]));
  }
}

/** Opcodes that are invalid in 64-bit mode, or always. */
const INVALID: readonly (readonly number[])[] = [
  ...[0x06, 0x07, 0x0e, 0x16, 0x17, 0x1e, 0x1f, 0x27, 0x2f, 0x37, 0x3f, 0x60, 0x61, 0xce, 0xd6].map((o) => [
    o,
  ]),
  [0x82, 0xc0, 0x01],
  [0x9a, 1, 2, 3, 4, 5, 6],
  [0xea, 1, 2, 3, 4, 5, 6],
  [0xd4, 0x0a],
  [0xd5, 0x0a],
  [0x0f, 0x0b],
  [0x0f, 0xff, 0xc0],
  [0x0f, 0xb9, 0xc0],
  [0x0f, 0x04],
  [0x0f, 0x0a],
  [0x0f, 0x0c],
  [0x0f, 0x24, 0xc0],
  [0x0f, 0x26, 0xc0],
  [0xfe, 0xd0],
  [0xff, 0xf8],
  [0xff, 0xd8],
  [0x8d, 0xc0],
  [0x0f, 0xc7, 0xc8],
  [0x0f, 0xba, 0xc0, 0x01],
  [0x8e, 0xc8],
  [0x8c, 0xf8],
  [0xc6, 0xc8, 0x01],
  [0x8f, 0xc8],
];

function invalid(c: CaseBuilder): void {
  c.raw(
    ...(c.random.chance(20) ? [0x66] : []),
    ...(c.random.chance(20) ? [0x48] : []),
    ...c.random.pick(INVALID),
  );
}

/** Instructions that CPL 3 may not execute: #GP(0). */
const PRIVILEGED: readonly (readonly number[])[] = [
  [0xf4],
  [0xfa],
  [0xfb],
  [0x0f, 0x06],
  [0x0f, 0x08],
  [0x0f, 0x09],
  [0x0f, 0x30],
  [0x0f, 0x32],
  [0x0f, 0x20, 0xc0],
  [0x0f, 0x22, 0xc0],
  [0x0f, 0x21, 0xc0],
  [0x0f, 0x23, 0xc0],
  [0xe4, 0x60],
  [0xe6, 0x60],
  [0xec],
  [0xee],
  [0x6c],
  [0x6e],
  [0x0f, 0x01, 0xf8],
  [0x0f, 0x00, 0xd0],
  [0x0f, 0x00, 0xd8],
  [0x0f, 0x01, 0xf0],
  [0x0f, 0x01, 0x38],
];

function privileged(c: CaseBuilder): void {
  c.raw(...(c.random.chance(20) ? [0x66] : []), ...c.random.pick(PRIVILEGED));
}

/** LOCK on an instruction that does not allow it: #UD. */
function badLock(c: CaseBuilder): void {
  const opcode = c.random.pick([0x88, 0x8b, 0x38, 0x39, 0x84, 0x90, 0x98, 0x50, 0x69, 0xd1, 0xc3, 0xa4]);
  c.raw(0xf0, opcode, 0x06, 1, 2, 3, 4);
}

/** More than 15 bytes: #GP(0) (SDM vol. 3A §7.15). */
function tooLong(c: CaseBuilder): void {
  const bytes = 15 + c.random.below(2);
  const tail = c.random.pick([[0x01, 0xc3], [0x90], [0x0f, 0x1f, 0xc0], [0x48, 0x89, 0xc8], [0xf4]]);
  const prefixes = Array.from({ length: bytes - tail.length }, () => c.random.pick([0x2e, 0x3e, 0x66, 0x26]));
  c.raw(...prefixes, ...tail);
}

/** An instruction that ends at the end of its page, or goes on into the next, which is not present. */
function fetchEdge(c: CaseBuilder): void {
  const code = c.random.pick([
    [0x48, 0x01, 0xd8],
    [0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8],
    [0x66, 0x81, 0xc3, 0x34, 0x12],
    [0x0f, 0xb6, 0xc3],
    [0xe8, 0, 0, 0, 0],
    [0x0f, 0x0b],
    [0xf4],
    [0x04, 0x11],
  ]);
  c.raw(...code);
  c.codeOffset = PAGE - 1 - c.random.below(code.length + 2);
}

export const CONTROL: readonly Template[] = [
  { name: 'jcc', build: jcc },
  { name: 'loop-jrcxz', build: loop },
  { name: 'jmp', build: jmp },
  { name: 'call', build: call },
  indirect('call.indirect', 2),
  indirect('jmp.indirect', 4),
  { name: 'ret', build: ret },
  ...STRINGS.map(string),
  { name: 'nop', build: nop },
  { name: 'invalid', build: invalid },
  { name: 'privileged', build: privileged },
  { name: 'lock.invalid', build: badLock },
  { name: 'fetch.too-long', build: tooLong },
  { name: 'fetch.page-end', build: fetchEdge },
];
