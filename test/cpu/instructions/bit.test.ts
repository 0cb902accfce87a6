import { describe, expect, it } from 'vitest';
import { Operands } from '../../support/random-operands.ts';
import { SingleInstruction } from '../../support/single-instruction.ts';

const CF = 1;
const ZF = 0x40;
const SIZES = [16, 32, 64] as const;
type Size = (typeof SIZES)[number];
const prefixOf = (size: Size) => (size === 16 ? [0x66] : size === 64 ? [0x48] : []);
/** The register after a write of `size` bits over `old`. */
const written = (old: bigint, value: bigint, size: Size) =>
  size === 16 ? ((old >> 16n) << 16n) | value : value;

const CHANGES = [
  ['BT', 0xa3, (a: bigint) => a],
  ['BTS', 0xab, (a: bigint, m: bigint) => a | m],
  ['BTR', 0xb3, (a: bigint, m: bigint) => a & ~m],
  ['BTC', 0xbb, (a: bigint, m: bigint) => a ^ m],
] as const;

describe.each(CHANGES)('%s', (name, opcode, change) => {
  it.each(SIZES)('of a register of %i bits, by register and by immediate', (size) => {
    const operands = new Operands(opcode + size);
    const one = new SingleInstruction();
    for (let trial = 0; trial < 200; trial++) {
      const [RAX, RBX] = [operands.value(size), operands.quad()];
      const byImmediate = trial % 2 === 0;
      const before = 2 | (operands.next() & 0x8d5);
      const digit = 4 + CHANGES.findIndex((c) => c[0] === name);
      const code = byImmediate
        ? [0x0f, 0xba, 0xc0 | (digit << 3), Number(RBX & 0xffn)]
        : [0x0f, opcode, 0xd8];
      one.run(Uint8Array.from([...prefixOf(size), ...code]), {
        RAX,
        RBX,
        RFLAGS: BigInt(before),
        RIP: 0x1_0000n,
      });
      const mask = 1n << (RBX & BigInt(size - 1));
      const value = change(BigInt.asUintN(size, RAX), mask);
      expect(one.get('RAX')).toBe(name === 'BT' ? RAX : written(RAX, value, size));
      expect(one.flags()).toBe((before & ~CF) | ((RAX & mask) !== 0n ? CF : 0));
    }
  });

  it.each(SIZES)('of a bit string in memory of %i-bit operands', (size) => {
    const operands = new Operands(opcode * 3 + size);
    const one = new SingleInstruction();
    const base = 0x8_0000;
    for (let trial = 0; trial < 100; trial++) {
      // ±16K bits at most, the reach of 16 bits.
      const offset = operands.below(0x8000) - 0x4000;
      const bytes = size / 8;
      const word = base + Math.floor(offset / size) * bytes;
      const a = operands.quad();
      one.store(word - 8, 24, 0n);
      one.store(word, bytes, BigInt.asUintN(size, a));
      const RBX = BigInt.asUintN(
        64,
        size === 64
          ? BigInt(offset)
          : (operands.quad() << BigInt(size)) | BigInt.asUintN(size, BigInt(offset)),
      );
      one.run(Uint8Array.from([...prefixOf(size), 0x0f, opcode, 0x18]), {
        RAX: BigInt(base),
        RBX,
        RIP: 0x1_0000n,
      });
      const mask = 1n << BigInt(offset & (size - 1));
      expect(one.value(word - 8, 8)).toBe(0n);
      expect(one.value(word, bytes)).toBe(change(BigInt.asUintN(size, a), mask));
      expect(one.value(word + bytes, 8)).toBe(0n);
      expect(one.flags() & CF).toBe((a & mask) !== 0n ? CF : 0);
    }
  });
});

describe('bit strings', () => {
  it('wrap their address by the address size', () => {
    const one = new SingleInstruction({ bits: 16 });
    one.store(0xfffe, 2, 0x8000n);
    one.run('bt word ptr [0], ax', { RAX: 0xffffn });
    expect(one.flags() & CF).toBe(CF);
    const wide = new SingleInstruction();
    wide.store(0x2000, 4, 1n);
    // 67 0F A3 18: BT [EAX], EBX; the upper half of RAX and the carry out of 32 bits do not count.
    wide.run(Uint8Array.of(0x67, 0x0f, 0xa3, 0x18), { RAX: 0x1_0000_2010n, RBX: BigInt.asUintN(64, -128n) });
    expect(wide.flags() & CF).toBe(CF);
  });

  it('fault for a write that is not allowed, before CF changes', () => {
    const one = new SingleInstruction({ bits: 32 });
    const result = one.run('bts dword ptr [0x2000], eax', {
      'DS.accessRights': 0xc091n,
      RAX: 0n,
      RFLAGS: 3n,
    });
    expect(result).toMatchObject({ vector: 13, errorCode: 0 });
    expect(one.flags() & CF).toBe(1);
    expect(one.run('bt dword ptr [0x2000], eax', { RFLAGS: 3n }).vector).toBeUndefined();
    expect(one.flags() & CF).toBe(0);
  });
});

const bitsOf = (value: bigint, size: Size) => value.toString(2).padStart(size, '0');

describe('counting and scanning', () => {
  const NAMES = ['BSF', 'BSR', 'TZCNT', 'LZCNT', 'POPCNT'] as const;
  const CODES = { BSF: [0xbc], BSR: [0xbd], TZCNT: [0xf3, 0xbc], LZCNT: [0xf3, 0xbd], POPCNT: [0xf3, 0xb8] };
  const reference = (name: (typeof NAMES)[number], a: bigint, size: Size): number | undefined => {
    const text = bitsOf(a, size);
    const fromTop = text.indexOf('1');
    const fromBottom = size - 1 - text.lastIndexOf('1');
    if (name === 'POPCNT') return text.replaceAll('0', '').length;
    if (name === 'LZCNT') return a === 0n ? size : fromTop;
    if (name === 'TZCNT') return a === 0n ? size : fromBottom;
    if (a === 0n) return undefined;
    return name === 'BSF' ? fromBottom : size - 1 - fromTop;
  };

  it.each(NAMES.flatMap((name) => SIZES.map((size) => [name, size] as const)))(
    '%s of %i bits',
    (name, size) => {
      const operands = new Operands(size + name.length);
      const one = new SingleInstruction();
      const code = CODES[name];
      const repeat = code.length === 2 ? [0xf3] : [];
      const rex = size === 64 ? [0x48] : [];
      const bytes = [...(size === 16 ? [0x66] : []), ...repeat, ...rex, 0x0f, code.at(-1) as number, 0xc3];
      for (let trial = 0; trial < 150; trial++) {
        const RBX = trial === 0 ? 0n : operands.value(size);
        const RAX = 0x1234_5678_9abc_def0n;
        one.run(Uint8Array.from(bytes), { RAX, RBX, RFLAGS: 0x8d7n, RIP: 0x1_0000n });
        const a = BigInt.asUintN(size, RBX);
        const found = reference(name, a, size);
        expect(one.get('RAX'), a.toString(16)).toBe(
          found === undefined ? RAX : written(RAX, BigInt(found), size),
        );
        const flags = one.flags();
        if (name === 'TZCNT' || name === 'LZCNT') {
          expect(flags & (CF | ZF)).toBe((a === 0n ? CF : 0) | (found === 0 ? ZF : 0));
        } else if (name === 'POPCNT') expect(flags).toBe(2 | (a === 0n ? ZF : 0));
        else expect(flags & ZF).toBe(a === 0n ? ZF : 0);
      }
    },
  );

  it('BSWAP reverses the bytes', () => {
    const one = new SingleInstruction();
    one.run('bswap eax', { RAX: 0xffff_ffff_1122_3344n });
    expect(one.get('RAX')).toBe(0x4433_2211n);
    one.run('bswap r9', { R9: 0x1122_3344_5566_7788n, RIP: 0x1_0000n });
    expect(one.get('R9')).toBe(0x8877_6655_4433_2211n);
  });
});
