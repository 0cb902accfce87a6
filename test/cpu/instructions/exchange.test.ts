import { describe, expect, it } from 'vitest';
import { Operands } from '../../support/random-operands.ts';
import { SingleInstruction } from '../../support/single-instruction.ts';

const ZF = 0x40;
const ARITHMETIC = 0x8d5;
const SIZES = [8, 16, 32, 64] as const;
const prefixOf = (size: number) => (size === 16 ? [0x66] : size === 64 ? [0x48] : []);
const written = (old: bigint, value: bigint, size: number) =>
  size >= 32 ? value : ((old >> BigInt(size)) << BigInt(size)) | value;

describe.each(SIZES)('of %i bits', (size) => {
  it('XADD leaves the sum and the old destination, with the flags of ADD', () => {
    const operands = new Operands(size);
    const one = new SingleInstruction();
    const opcode = size === 8 ? 0xc0 : 0xc1;
    for (let trial = 0; trial < 60; trial++) {
      const [RAX, RBX] = [operands.value(size), operands.value(size)];
      one.run(Uint8Array.from([...prefixOf(size), size === 8 ? 0 : 1, 0xd8]), { RAX, RBX, RIP: 0x1_0000n });
      const [sum, flags] = [one.get('RAX'), one.flags()];
      one.run(Uint8Array.from([...prefixOf(size), 0x0f, opcode, 0xd8]), {
        RAX,
        RBX,
        RFLAGS: 2n,
        RIP: 0x1_0000n,
      });
      expect(one.get('RAX')).toBe(sum);
      expect(one.get('RBX')).toBe(written(RBX, BigInt.asUintN(size, RAX), size));
      expect(one.flags()).toBe(flags);
      // With one register twice, the sum remains.
      one.run(Uint8Array.from([...prefixOf(size), 0x0f, opcode, 0xdb]), { RBX, RIP: 0x1_0000n });
      expect(one.get('RBX')).toBe(written(RBX, BigInt.asUintN(size, 2n * RBX), size));
    }
  });

  it('CMPXCHG compares as CMP does, and moves one way or the other', () => {
    const operands = new Operands(size + 1);
    const one = new SingleInstruction();
    const opcode = size === 8 ? 0xb0 : 0xb1;
    for (let trial = 0; trial < 60; trial++) {
      const [RAX, RBX] = [operands.value(size), operands.value(size)];
      const upper = size === 64 ? 0n : 0x5aa5_0000_0000n;
      const RCX = (trial % 2 === 0 ? RAX : operands.value(size)) | upper;
      one.run(Uint8Array.from([...prefixOf(size), size === 8 ? 0x38 : 0x39, 0xc8]), {
        RAX,
        RCX,
        RIP: 0x1_0000n,
      });
      const flags = one.flags() & ARITHMETIC;
      one.run(Uint8Array.from([...prefixOf(size), 0x0f, opcode, 0xd9]), {
        RAX,
        RBX,
        RCX,
        RFLAGS: 2n,
        RIP: 0x1_0000n,
      });
      expect(one.flags() & ARITHMETIC).toBe(flags);
      const low = (value: bigint) => BigInt.asUintN(size, value);
      const equal = low(RAX) === low(RCX);
      expect((flags & ZF) !== 0).toBe(equal);
      expect(one.get('RCX')).toBe(equal ? written(RCX, low(RBX), size) : RCX);
      expect(one.get('RAX')).toBe(equal ? RAX : written(RAX, low(RCX), size));
    }
  });
});

describe('CMPXCHG of memory', () => {
  it('writes it even if nothing is exchanged: a read-only destination faults', () => {
    const one = new SingleInstruction({ bits: 32 });
    one.store(0x2000, 4, 5n);
    const state = { 'DS.accessRights': 0xc091n, RAX: 6n, RBX: 7n };
    const result = one.run('cmpxchg dword ptr [0x2000], ebx', state);
    expect(result).toMatchObject({ vector: 13, errorCode: 0 });
    expect(one.get('RAX')).toBe(6n);
    expect(one.run('cmpxchg8b qword ptr [0x2000]', state).vector).toBe(13);
  });

  it('may be locked', () => {
    const one = new SingleInstruction();
    one.store(0x2000, 8, 5n);
    one.run('lock cmpxchg qword ptr [0x2000], rbx', { RAX: 5n, RBX: 7n });
    expect(one.value(0x2000, 8)).toBe(7n);
    expect(one.run(Uint8Array.of(0xf0, 0x0f, 0xb1, 0xd9), { RIP: 0x1_0000n }).vector).toBe(6);
  });
});

describe('CMPXCHG8B and CMPXCHG16B', () => {
  it.each([
    ['cmpxchg8b qword ptr [0x2008]', 0x2008, 4],
    ['cmpxchg16b xmmword ptr [0x2010]', 0x2010, 8],
  ])('%s', (code, at, half) => {
    const one = new SingleInstruction();
    const bits = BigInt(8 * half);
    const value = (0xaaaa_1111n << bits) | 0xbbbb_2222n;
    one.store(at, 2 * half, value);
    const upper = half === 4 ? 0x5_0000_0000n : 0n;
    const state = { RAX: upper | 0xbbbb_2222n, RDX: upper | 0xaaaa_1110n, RBX: 1n, RCX: 2n };
    one.run(code, { ...state, RFLAGS: 0x8d7n });
    expect(one.flags()).toBe(0x8d7 & ~ZF);
    expect([one.get('RDX'), one.get('RAX')]).toEqual([0xaaaa_1111n, 0xbbbb_2222n]);
    expect(one.value(at, 2 * half)).toBe(value);
    one.run(code, { RIP: 0x1_0000n, RFLAGS: 0x897n });
    expect(one.flags()).toBe(0x8d7);
    expect(one.value(at, 2 * half)).toBe((2n << bits) | 1n);
  });

  it('CMPXCHG16B needs an aligned operand', () => {
    const one = new SingleInstruction();
    const result = one.run('cmpxchg16b xmmword ptr [0x2008]');
    expect(result).toMatchObject({ vector: 13, errorCode: 0 });
  });
});
