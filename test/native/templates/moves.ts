/** Templates: moves, conversions, address computation, stack, flags. */
import type { CaseBuilder } from '../case-builder.ts';
import { CF, DF, isMemory, littleEndian, RAX, RBP, RBX, RSP, type Size } from '../operands.ts';
import type { Template } from './template.ts';

const sized = (opcode: number, size: Size) => (size === 8 ? opcode : opcode + 1);

function mov(c: CaseBuilder): unknown {
  const size = c.size();
  const reg = c.register();
  switch (c.random.below(5)) {
    case 0:
      return c.emit({ opcode: [sized(0x88, size)], size, reg, rm: c.operand(size) });
    case 1:
      return c.emit({ opcode: [sized(0x8a, size)], size, reg, rm: c.operand(size) });
    case 2: {
      const rm = c.operand(size);
      return c.emit({ opcode: [sized(0xc6, size)], size, digit: 0, rm, immediate: c.immediate(size) });
    }
    default:
      return c.emit({
        opcode: [size === 8 ? 0xb0 : 0xb8],
        plus: reg,
        size,
        immediate: littleEndian(c.random.edge(), size / 8),
      });
  }
}

/** MOV between the accumulator and an absolute address. */
function movOffset(c: CaseBuilder): void {
  const size = c.size();
  const address = c.address(size / 8);
  const short = c.bits === 64 && address < 1n << 32n && c.random.chance(30);
  c.emit({
    opcode: [sized(c.random.pick([0xa0, 0xa2]), size)],
    size,
    immediate: littleEndian(address, short ? 4 : c.bits / 8),
    prefixes: short ? [0x67] : [],
    redundant: 'segment',
  });
}

function extend(name: string, opcode: number): Template {
  return {
    name,
    build(c) {
      const from = c.random.pick([8, 16] as const);
      const size = c.wideSize();
      const rm = c.operand(from);
      c.emit({ opcode: [0x0f, opcode + (from === 16 ? 1 : 0)], size, reg: c.register(), rm });
    },
  };
}

function movsxd(c: CaseBuilder): void {
  const size = c.longSize();
  c.emit({ opcode: [0x63], size, reg: c.register(), rm: c.operand(32) });
}

function lea(c: CaseBuilder): void {
  const size = c.wideSize();
  const rm = c.memory(1);
  // Addresses that nothing accesses: any register values will do.
  if (c.random.chance(50)) for (const register of [rm.base, rm.index]) c.gprs[register] = c.random.edge();
  if (c.bits === 64 && c.random.chance(10)) c.raw(0x48, 0x8d, 0xc0 | c.random.below(64));
  else c.emit({ opcode: [0x8d], size, reg: c.register(), rm });
}

function movbe(c: CaseBuilder): void {
  const size = c.wideSize();
  const opcode = [0x0f, 0x38, c.random.pick([0xf0, 0xf1])];
  c.emit({ opcode, size, reg: c.register(), rm: c.memory(size / 8), redundant: 'segment' });
}

function crc32(c: CaseBuilder): void {
  const from = c.size();
  const rm = c.operand(from);
  const opcode = [0x0f, 0x38, from === 8 ? 0xf0 : 0xf1];
  c.emit({ opcode, mandatory: 0xf2, size: from, reg: c.register(), rm, redundant: 'segment' });
}

function bswap(c: CaseBuilder): void {
  const size = c.wideSize();
  const register = c.register();
  c.emit({ opcode: [0x0f, 0xc8], plus: register, size });
  if (size === 16) c.undefinedRegisters = 1 << register;
}

function movnti(c: CaseBuilder): void {
  const size = c.longSize();
  c.emit({ opcode: [0x0f, 0xc3], size, reg: c.register(), rm: c.memory(size / 8), redundant: 'segment' });
}

function cmov(c: CaseBuilder): void {
  const size = c.wideSize();
  const rm = c.operand(size);
  c.emit({ opcode: [0x0f, 0x40 | c.random.below(16)], size, reg: c.register(), rm });
}

function setcc(c: CaseBuilder): void {
  c.emit({ opcode: [0x0f, 0x90 | c.random.below(16)], size: 8, digit: c.random.below(8), rm: c.operand(8) });
}

function xlat(c: CaseBuilder): void {
  c.reserve(RAX, RBX);
  c.gprs[RAX] = c.random.edge();
  c.emit({ opcode: [0xd7], redundant: 'segment' });
  c.gprs[RBX] = BigInt.asUintN(64, c.address(1) - ((c.gprs[RAX] as bigint) & 0xffn));
}

/** Operand sizes of the stack: 16, or that of code. */
function stackForm(c: CaseBuilder) {
  const size = c.random.chance(25) ? (16 as const) : undefined;
  // REX.W changes nothing here.
  return size === undefined ? {} : { size };
}

function push(c: CaseBuilder): unknown {
  c.reserve(RSP);
  const form = stackForm(c);
  const size = form.size ?? c.bits;
  c.stackEdges();
  switch (c.random.below(5)) {
    case 0:
    case 1:
      return c.emit({ ...form, opcode: [0x50], plus: c.register() });
    case 2:
      return c.emit({ ...form, opcode: [0x6a], immediate: c.immediate(8) });
    case 3:
      return c.emit({ ...form, opcode: [0x68], immediate: c.immediate(size) });
    default:
      return c.emit({ ...form, opcode: [0xff], digit: 6, rm: c.operand(size) });
  }
}

function pop(c: CaseBuilder): unknown {
  const form = stackForm(c);
  if (c.random.chance(50)) {
    c.stackEdges();
    return c.emit({ ...form, opcode: [0x58], plus: c.register() });
  }
  if (c.random.chance(30)) {
    // An address with RSP is computed after the increment.
    const bytes = form.size === 16 ? 2 : c.bits / 8;
    const rm = {
      address: 0n,
      mod: 1,
      rm: 4,
      sib: 0x24,
      base: RSP,
      index: 0,
      displacement: [c.random.below(48)],
      ripRelative: false,
      shortAddress: false,
      gs: false,
      es: false,
    };
    c.gprs[RSP] = (c.gprs[RSP] as bigint) & ~BigInt(bytes - 1);
    return c.emit({ ...form, opcode: [0x8f], digit: 0, rm });
  }
  c.reserve(RSP);
  c.stackEdges();
  c.emit({ ...form, opcode: [0x8f], digit: 0, rm: c.operand(form.size ?? c.bits) });
}

/** The image natively pushed has TF set (the harness steps) and IF: the comparison leaves them out. */
function pushf(c: CaseBuilder): void {
  c.stackEdges();
  if (c.random.chance(30)) c.rflags |= DF;
  c.pushesFlags = true;
  c.emit({ ...stackForm(c), opcode: [0x9c] });
}

/** Flags that software may not change at CPL 3 are tried too. TF stays clear in what is popped. */
function popf(c: CaseBuilder): void {
  const form = stackForm(c);
  c.emit({ ...form, opcode: [0x9d] });
  const image = c.random.pick([c.random.next() & 0xfff, c.random.next(), 0, 0xffff_ffff]) & ~0x100;
  c.setStack(0, littleEndian(BigInt(image >>> 0) | (c.random.quad() << 32n), 8));
}

function enter(c: CaseBuilder): void {
  const { random } = c;
  c.reserve(RSP, RBP);
  const form = stackForm(c);
  const level = random.chance(50) ? 0 : random.pick([1, 2, 3, 5, 33, 34]);
  const bytes = random.pick([0, 8, 16, 40, 100]);
  c.gprs[RBP] = (c.gprs[RSP] as bigint) + BigInt(random.below(64));
  if (random.chance(5)) c.gprs[RBP] = random.edge();
  else c.stackEdges();
  c.emit({ ...form, opcode: [0xc8], immediate: [...littleEndian(bytes, 2), level] });
}

function leave(c: CaseBuilder): void {
  c.gprs[RBP] = (c.gprs[RSP] as bigint) + BigInt(c.random.below(64));
  c.stackEdges();
  if (c.random.chance(10)) c.gprs[RBP] = c.gprs[RSP] as bigint;
  c.emit({ ...stackForm(c), opcode: [0xc9] });
}

/** With 32-bit operands the upper half of the stack slot is written as zero, or not at all: it is zero before. */
function pushSegment(c: CaseBuilder): void {
  if (c.bits === 32) c.setStack(-2, [0, 0]);
  else c.stackEdges();
  c.emit({ ...stackForm(c), opcode: [0x0f, c.random.pick([0xa0, 0xa8])], redundant: 'segment' });
}

/** FS and GS hold null selectors. */
function movFromSegment(c: CaseBuilder): void {
  const size = c.wideSize();
  const rm = c.operand(16);
  c.emit({ opcode: [0x8c], size, digit: c.random.pick([4, 5, 6, 7]), rm, redundant: 'segment' });
  if (isMemory(rm)) c.setValue(rm, 16, 0x1234n);
}

function accumulator(name: string, opcode: number): Template {
  return { name, build: (c) => c.emit({ opcode: [opcode], size: c.wideSize() }) };
}

function flagInstruction(name: string, opcode: number): Template {
  return {
    name,
    build(c) {
      if (c.random.chance(50)) c.rflags |= DF;
      if (c.random.chance(50)) c.rflags ^= CF;
      c.emit({ opcode: [opcode] });
    },
  };
}

export const MOVES: readonly Template[] = [
  { name: 'mov', build: mov },
  { name: 'mov.offset', build: movOffset },
  extend('movzx', 0xb6),
  extend('movsx', 0xbe),
  { name: 'movsxd', build: movsxd },
  { name: 'lea', build: lea },
  { name: 'movbe', needs: 'movbe', build: movbe },
  { name: 'crc32', needs: 'sse4_2', build: crc32 },
  { name: 'bswap', build: bswap },
  { name: 'movnti', build: movnti },
  { name: 'cmovcc', build: cmov },
  { name: 'setcc', build: setcc },
  { name: 'xlat', build: xlat },
  { name: 'push', build: push },
  { name: 'pop', build: pop },
  { name: 'pushf', build: pushf },
  { name: 'popf', build: popf },
  { name: 'enter', build: enter },
  { name: 'leave', build: leave },
  { name: 'push.segment', build: pushSegment },
  { name: 'mov.from-segment', build: movFromSegment },
  accumulator('cbw-cwde-cdqe', 0x98),
  accumulator('cwd-cdq-cqo', 0x99),
  { ...flagInstruction('lahf', 0x9f), needs: 'lahf_lm' },
  { ...flagInstruction('sahf', 0x9e), needs: 'lahf_lm' },
  flagInstruction('cmc', 0xf5),
  flagInstruction('clc', 0xf8),
  flagInstruction('stc', 0xf9),
  flagInstruction('cld', 0xfc),
  flagInstruction('std', 0xfd),
];
