import { describe, expect, it } from 'vitest';
import { SingleInstruction } from '../../support/single-instruction.ts';

describe('XLAT', () => {
  it.each([
    [64, [0xd7], 0x2000n, 0x2012n],
    [64, [0x64, 0xd7], 0x1000n, 0x2012n],
    [64, [0x67, 0xd7], 0x5_0000_2000n, 0x2012n],
    [32, [0xd7], 0x2000n, 0x2012n],
    [16, [0xd7], 0x7_fff0n, 0x0002n],
  ] as const)('of %i bits: %j', (bits, code, RBX, at) => {
    const one = new SingleInstruction({ bits });
    one.store(Number(at), 1, 0x5an);
    one.run(Uint8Array.from(code), { RAX: 0x1112n, RBX, 'FS.base': 0x1000n });
    expect(one.get('RAX')).toBe(0x115an);
  });
});

describe('BOUND', () => {
  it.each([
    [-5n, undefined],
    [10n, undefined],
    [-6n, 5],
    [11n, 5],
  ])('of %s within −5 … 10', (index, vector) => {
    const one = new SingleInstruction({ bits: 32 });
    one.store(0x2000, 8, (10n << 32n) | 0xffff_fffbn);
    one.store(0x2010, 4, (10n << 16n) | 0xfffbn);
    expect(one.run('bound eax, [0x2000]', { RAX: BigInt.asUintN(32, index) }).vector).toBe(vector);
    const short = Uint8Array.of(0x66, 0x62, 0x05, 0x10, 0x20, 0, 0);
    expect(one.run(short, { RAX: BigInt.asUintN(16, index), RIP: 0x1_0000n }).vector).toBe(vector);
  });
});

describe('ARPL and MOVSXD', () => {
  it.each([
    [0x10n, 0x23n, 0x13n, 0x40],
    [0x13n, 0x22n, 0x13n, 0],
    [0x11n, 0x21n, 0x11n, 0],
  ])('ARPL of %s and %s', (RAX, RBX, result, zf) => {
    const one = new SingleInstruction({ bits: 32 });
    one.run(Uint8Array.of(0x63, 0xd8), { RAX, RBX });
    expect(one.get('RAX')).toBe(result);
    expect(one.flags() & 0x40).toBe(zf);
  });

  it('ARPL is undefined in real-address mode', () => {
    const one = new SingleInstruction({ bits: 16 });
    expect(one.run(Uint8Array.of(0x63, 0xd8)).vector).toBe(6);
    expect(one.run(Uint8Array.of(0x63, 0x07), { RBX: 0xffffn }).vector).toBe(6);
  });

  it('MOVSXD extends 32 bits, and with 16 bits is a move', () => {
    const one = new SingleInstruction();
    const RBX = 0x8000_4321n;
    one.run(Uint8Array.of(0x48, 0x63, 0xc3), { RAX: 0n, RBX });
    expect(one.get('RAX')).toBe(0xffff_ffff_8000_4321n);
    one.run(Uint8Array.of(0x63, 0xc3), { RAX: -1n & 0xffff_ffff_ffff_ffffn, RBX, RIP: 0x1_0000n });
    expect(one.get('RAX')).toBe(RBX);
    one.run(Uint8Array.of(0x66, 0x63, 0xc3), { RAX: 0x1_1111_1111n, RBX, RIP: 0x1_0000n });
    expect(one.get('RAX')).toBe(0x1_1111_4321n);
  });
});

describe('instructions that do nothing visible', () => {
  it.each([
    ['NOP', [0x0f, 0x1f, 0x00]],
    ['hint 0F 19', [0x0f, 0x19, 0x45, 0x10]],
    ['PREFETCHT0', [0x0f, 0x18, 0x08]],
    ['PREFETCHW', [0x0f, 0x0d, 0x08]],
    ['ENDBR64', [0xf3, 0x0f, 0x1e, 0xfa]],
    ['ENDBR32', [0xf3, 0x0f, 0x1e, 0xfb]],
    ['LFENCE', [0x0f, 0xae, 0xe8]],
    ['MFENCE', [0x0f, 0xae, 0xf0]],
    ['SFENCE', [0x0f, 0xae, 0xf8]],
    ['SERIALIZE', [0x0f, 0x01, 0xe8]],
  ])('%s', (_, code) => {
    const one = new SingleInstruction();
    // The address is not canonical: nothing is accessed.
    const result = one.run(Uint8Array.from(code), { RAX: 1n << 60n, RBP: 1n << 60n });
    expect(result.vector).toBeUndefined();
    expect(one.get('RIP')).toBe(0x1_0000n + BigInt(code.length));
  });

  it.each([
    ['CLFLUSH', [0x0f, 0xae, 0x38]],
    ['CLFLUSHOPT', [0x66, 0x0f, 0xae, 0x38]],
    ['CLWB', [0x66, 0x0f, 0xae, 0x30]],
  ])('%s translates its address', (_, code) => {
    const one = new SingleInstruction();
    const bytes = Uint8Array.from(code);
    expect(one.run(bytes, { RAX: 1n << 60n })).toMatchObject({ vector: 13, errorCode: 0 });
    expect(one.run(bytes, { RAX: 0x2003n }).vector).toBeUndefined();
  });
});

describe('instructions that are undefined on purpose', () => {
  it.each([
    ['UD2', [0x0f, 0x0b], 2],
    ['UD1', [0x0f, 0xb9, 0x45, 0x10], 4],
    ['UD0', [0x0f, 0xff, 0x00], 3],
  ])('%s', (mnemonic, code, length) => {
    const one = new SingleInstruction();
    const i = one.decode(Uint8Array.from(code));
    expect(i.row.mnemonic).toBe(mnemonic);
    expect(i.length).toBe(length);
    expect(one.run(Uint8Array.from(code), { RAX: 1n << 60n }).vector).toBe(6);
  });
});

describe('MOVNTI', () => {
  it('stores a register', () => {
    const one = new SingleInstruction();
    one.run('movnti [0x2000], rax', { RAX: 0x1122_3344_5566_7788n });
    expect(one.value(0x2000, 8)).toBe(0x1122_3344_5566_7788n);
    one.run('movnti [0x2000], ecx', { RCX: 0x9999_9999_9999n, RIP: 0x1_0000n });
    expect(one.value(0x2000, 8)).toBe(0x1122_3344_9999_9999n);
    expect(one.run(Uint8Array.of(0x0f, 0xc3, 0xc0), { RIP: 0x1_0000n }).vector).toBe(6);
  });
});
