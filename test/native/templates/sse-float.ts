/** Templates: SSE and SSE2 floating point, moves and conversions. */
import type { CaseBuilder } from '../case-builder.ts';
import { fillVector } from '../native-case.ts';
import { isMemory, type Operand } from '../operands.ts';
import type { Template } from './template.ts';

export type Prefix = 0 | 0x66 | 0xf3 | 0xf2;

/** Offset of XMM0 in an FXSAVE image. */
const XMM = 160;

/** An XMM register or `bytes` of memory filled with numbers; misaligned rarely if it has to be aligned. */
export function xmmOrMemory(c: CaseBuilder, bytes: number, aligned = bytes === 16): Operand {
  if (c.random.chance(60)) return { register: c.register() };
  return xmmMemory(c, bytes, aligned);
}

function xmmMemory(c: CaseBuilder, bytes: number, aligned = bytes === 16): Operand {
  const rm = c.memory(bytes, { align: aligned && c.random.chance(92) ? 16 : 1 });
  const numbers = new DataView(new ArrayBuffer(16));
  fillVector(c.random, numbers, 0);
  for (let at = 0; at < bytes; at += 4) {
    const part = { ...rm, address: rm.address + BigInt(at) };
    c.setValue(part, 32, BigInt(numbers.getUint32(at, true)));
  }
  return rm;
}

/** Sometimes makes the source register equal to the destination register. */
function relate(c: CaseBuilder, reg: number, rm: Operand): void {
  const fx = c.withFx();
  if (isMemory(rm) || !c.random.chance(12)) return;
  const image = new Uint8Array(fx.buffer, fx.byteOffset);
  image.copyWithin(XMM + 16 * rm.register, XMM + 16 * reg, XMM + 16 * reg + 16);
}

interface Shape {
  readonly prefix: Prefix;
  /** Bytes of a source in memory. */
  readonly bytes: number;
}

const PS: Shape = { prefix: 0, bytes: 16 };
const PD: Shape = { prefix: 0x66, bytes: 16 };
const SS: Shape = { prefix: 0xf3, bytes: 4 };
const SD: Shape = { prefix: 0xf2, bytes: 8 };

const mandatory = (prefix: Prefix) => (prefix === 0 ? {} : { mandatory: prefix });

/** XMM ← XMM, XMM/memory. */
function arithmetic(name: string, opcode: number, shapes: readonly Shape[], immediate?: number): Template {
  return {
    name: `sse.${name}`,
    build(c) {
      c.withFx();
      const { prefix, bytes } = c.random.pick(shapes);
      const rm = xmmOrMemory(c, bytes);
      const reg = c.register();
      relate(c, reg, rm);
      const tail = immediate === undefined ? {} : { immediate: [c.random.below(immediate)] };
      c.emit({ opcode: [0x0f, opcode], ...mandatory(prefix), reg, rm, redundant: 'segment', ...tail });
    },
  };
}

/** COMISS, COMISD, UCOMISS, UCOMISD. */
const COMPARES: readonly Shape[] = [
  { prefix: 0, bytes: 4 },
  { prefix: 0x66, bytes: 8 },
];

interface MoveRow {
  readonly name: string;
  readonly prefix: Prefix;
  readonly opcode: number;
  readonly bytes: number;
  /** `any` register or memory; `memory` only memory; `register` only a register. */
  readonly rm: 'any' | 'memory' | 'register';
  readonly aligned?: boolean;
}

const MOVES: readonly MoveRow[] = [
  ...[0x10, 0x11].flatMap((opcode): MoveRow[] => [
    { name: 'movups', prefix: 0, opcode, bytes: 16, rm: 'any' },
    { name: 'movupd', prefix: 0x66, opcode, bytes: 16, rm: 'any' },
    { name: 'movss', prefix: 0xf3, opcode, bytes: 4, rm: 'any' },
    { name: 'movsd', prefix: 0xf2, opcode, bytes: 8, rm: 'any' },
  ]),
  ...[0x28, 0x29].flatMap((opcode): MoveRow[] => [
    { name: 'movaps', prefix: 0, opcode, bytes: 16, rm: 'any', aligned: true },
    { name: 'movapd', prefix: 0x66, opcode, bytes: 16, rm: 'any', aligned: true },
  ]),
  ...[0x12, 0x13, 0x16, 0x17].flatMap((opcode): MoveRow[] => [
    { name: 'movlps-movhps', prefix: 0, opcode, bytes: 8, rm: 'memory' },
    { name: 'movlpd-movhpd', prefix: 0x66, opcode, bytes: 8, rm: 'memory' },
  ]),
  { name: 'movhlps', prefix: 0, opcode: 0x12, bytes: 16, rm: 'register' },
  { name: 'movlhps', prefix: 0, opcode: 0x16, bytes: 16, rm: 'register' },
  { name: 'movntps', prefix: 0, opcode: 0x2b, bytes: 16, rm: 'memory', aligned: true },
  { name: 'movntpd', prefix: 0x66, opcode: 0x2b, bytes: 16, rm: 'memory', aligned: true },
  { name: 'movntdq', prefix: 0x66, opcode: 0xe7, bytes: 16, rm: 'memory', aligned: true },
  ...[0x6f, 0x7f].flatMap((opcode): MoveRow[] => [
    { name: 'movdqa', prefix: 0x66, opcode, bytes: 16, rm: 'any', aligned: true },
    { name: 'movdqu', prefix: 0xf3, opcode, bytes: 16, rm: 'any' },
  ]),
  { name: 'movq', prefix: 0xf3, opcode: 0x7e, bytes: 8, rm: 'any' },
  { name: 'movq', prefix: 0x66, opcode: 0xd6, bytes: 8, rm: 'any' },
];

function move(name: string): Template {
  const rows = MOVES.filter((row) => row.name === name);
  return {
    name: `sse.${name}`,
    build(c) {
      c.withFx();
      const row = c.random.pick(rows);
      const { bytes, aligned = false } = row;
      const ofRegister = row.rm === 'register' || (row.rm === 'any' && c.random.chance(40));
      const rm = ofRegister ? { register: c.register() } : xmmMemory(c, bytes, aligned);
      const form = { opcode: [0x0f, row.opcode], reg: c.register(), rm };
      c.emit({ ...form, ...mandatory(row.prefix), redundant: 'segment' });
    },
  };
}

/** Between a general register or memory and an XMM register: CVTSI2SS, CVTSI2SD. */
function fromInteger(c: CaseBuilder): void {
  c.withFx();
  const size = c.random.pick([32, 64] as const);
  const rm = c.operand(size);
  const prefix = c.random.pick([0xf3, 0xf2]);
  c.emit({ opcode: [0x0f, 0x2a], mandatory: prefix, size, reg: c.register(), rm, redundant: 'segment' });
}

/** CVTSS2SI, CVTSD2SI and their truncating forms. */
function toInteger(c: CaseBuilder): void {
  c.withFx();
  const size = c.random.pick([32, 64] as const);
  const { prefix, bytes } = c.random.pick([SS, SD]);
  const rm = xmmOrMemory(c, bytes);
  const opcode = [0x0f, c.random.pick([0x2c, 0x2d])];
  c.emit({ opcode, ...mandatory(prefix), size, reg: c.register(), rm, redundant: 'segment' });
}

/** MOVD and MOVQ between XMM and general registers or memory. */
function movd(c: CaseBuilder): void {
  c.withFx();
  const size = c.random.pick([32, 64] as const);
  const rm = c.operand(size);
  const opcode = [0x0f, c.random.pick([0x6e, 0x7e])];
  c.emit({ opcode, mandatory: 0x66, size, reg: c.register(), rm, redundant: 'segment' });
}

/** MOVMSKPS, MOVMSKPD, PMOVMSKB. */
function moveMask(c: CaseBuilder): void {
  c.withFx();
  const [prefix, opcode] = c.random.pick([
    [0, 0x50],
    [0x66, 0x50],
    [0x66, 0xd7],
  ] as const);
  const rm = { register: c.register() };
  c.emit({ opcode: [0x0f, opcode], ...mandatory(prefix), reg: c.register(), rm, redundant: 'segment' });
}

function mxcsr(c: CaseBuilder): void {
  const fx = c.withFx();
  const load = c.random.chance(60);
  const rm = c.memory(4);
  c.emit({ opcode: [0x0f, 0xae], digit: load ? 2 : 3, rm, redundant: 'segment' });
  const value = c.random.chance(80) ? c.random.below(0x1_0000) : c.random.next() & ~0x2_0000;
  if (load) c.setValue(rm, 32, BigInt(value >>> 0));
  else fx.setUint32(24, c.random.below(0x1_0000), true);
}

const ALL = [PS, PD, SS, SD];

export const SSE_FLOAT: readonly Template[] = [
  arithmetic('add', 0x58, ALL),
  arithmetic('sub', 0x5c, ALL),
  arithmetic('mul', 0x59, ALL),
  arithmetic('div', 0x5e, ALL),
  arithmetic('min', 0x5d, ALL),
  arithmetic('max', 0x5f, ALL),
  arithmetic('sqrt', 0x51, ALL),
  arithmetic('cmp', 0xc2, ALL, 8),
  arithmetic('ucomi', 0x2e, COMPARES),
  arithmetic('comi', 0x2f, COMPARES),
  arithmetic('and', 0x54, [PS, PD]),
  arithmetic('andn', 0x55, [PS, PD]),
  arithmetic('or', 0x56, [PS, PD]),
  arithmetic('xor', 0x57, [PS, PD]),
  arithmetic('unpckl', 0x14, [PS, PD]),
  arithmetic('unpckh', 0x15, [PS, PD]),
  arithmetic('shuf', 0xc6, [PS, PD], 256),
  arithmetic('cvt.ps2pd-ss2sd', 0x5a, [{ prefix: 0, bytes: 8 }, SS]),
  arithmetic('cvt.pd2ps-sd2ss', 0x5a, [PD, SD]),
  arithmetic('cvt.dq2ps', 0x5b, [PS]),
  arithmetic('cvt.ps2dq', 0x5b, [PD, { prefix: 0xf3, bytes: 16 }]),
  arithmetic('cvt.dq2pd', 0xe6, [{ prefix: 0xf3, bytes: 8 }]),
  arithmetic('cvt.pd2dq', 0xe6, [PD, { prefix: 0xf2, bytes: 16 }]),
  ...[...new Set(MOVES.map(({ name }) => name))].map(move),
  { name: 'sse.cvt.si2s', build: fromInteger },
  { name: 'sse.cvt.s2si', build: toInteger },
  { name: 'sse.movd', build: movd },
  { name: 'sse.movmsk', build: moveMask },
  { name: 'sse.mxcsr', build: mxcsr },
];
