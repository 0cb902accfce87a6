import { describe, expect, it } from 'vitest';
import { SingleInstruction } from '../../support/single-instruction.ts';

const CF = 1;
const AF = 0x10;

/** Two decimal digits in a byte. */
const packed = (n: number) => ((Math.floor(n / 10) % 10) << 4) | (n % 10);

describe('packed decimal', () => {
  it('DAA after ADD and DAS after SUB give the decimal sum and difference', () => {
    const one = new SingleInstruction({ bits: 32 });
    for (let a = 0; a < 100; a += 3) {
      for (let b = 0; b < 100; b += 7) {
        for (const [operation, adjust, value] of [
          [0x00, 0x27, a + b],
          [0x28, 0x2f, a - b],
        ] as const) {
          one.run(Uint8Array.of(operation, 0xd8), {
            RAX: BigInt(packed(a)),
            RBX: BigInt(packed(b)),
            RIP: 0x1_0000n,
          });
          one.run(Uint8Array.of(adjust));
          expect(one.get('RAX'), `${a} ${operation} ${b}`).toBe(BigInt(packed((value + 100) % 100)));
          expect(one.flags() & CF).toBe(value > 99 || value < 0 ? CF : 0);
        }
      }
    }
  });

  it.each([
    ['DAA', 0x27, 0x9a, 0, 0x00, CF | AF],
    ['DAA', 0x27, 0x79, 0, 0x79, 0],
    ['DAA', 0x27, 0x0f, CF, 0x75, CF | AF],
    ['DAS', 0x2f, 0x03, AF, 0xfd, CF | AF],
    ['DAS', 0x2f, 0xa0, 0, 0x40, CF],
  ] as const)('%s (%i) of %i with flags %i', (_, opcode, al, flags, result, after) => {
    const one = new SingleInstruction({ bits: 32 });
    one.run(Uint8Array.of(opcode), { RAX: BigInt(0x100 | al), RFLAGS: BigInt(2 | flags) });
    expect(one.get('RAX')).toBe(BigInt(0x100 | result));
    expect(one.flags() & (CF | AF)).toBe(after);
  });
});

describe('unpacked decimal', () => {
  it.each([
    ['AAA', [0x37], 0x000fn, 0, 0x0105n, CF | AF],
    ['AAA', [0x37], 0x00f3n, AF, 0x0109n, CF | AF],
    ['AAA', [0x37], 0x02fan, 0, 0x0400n, CF | AF],
    ['AAA', [0x37], 0x0239n, 0, 0x0209n, 0],
    ['AAS', [0x3f], 0x020fn, 0, 0x0109n, CF | AF],
    ['AAS', [0x3f], 0x0205n, AF, 0x000fn, CF | AF],
    ['AAS', [0x3f], 0x0275n, 0, 0x0205n, 0],
    ['AAM', [0xd4, 10], 0xff4fn, 0, 0x0709n, 0],
    ['AAM', [0xd4, 16], 0x00a5n, 0, 0x0a05n, 0],
    ['AAD', [0xd5, 10], 0x0709n, 0, 0x004fn, 0],
    ['AAD', [0xd5, 16], 0x1a05n, 0, 0x00a5n, 0],
  ] as const)('%s %j of %s with flags %i', (_, code, RAX, flags, result, after) => {
    const one = new SingleInstruction({ bits: 32 });
    one.run(Uint8Array.from(code), { RAX: 0x1234_0000n | RAX, RFLAGS: BigInt(2 | flags) });
    expect(one.get('RAX')).toBe(0x1234_0000n | result);
    expect(one.flags() & (CF | AF)).toBe(after);
  });

  it.each([
    [0, 0x1200],
    [CF, 0x12ff],
  ])('SALC fills AL with CF, and leaves the flags (%i)', (flags, result) => {
    const one = new SingleInstruction({ bits: 32 });
    one.run(Uint8Array.of(0xd6), { RAX: 0x1255n, RFLAGS: BigInt(2 | flags) });
    expect(one.get('RAX')).toBe(BigInt(result));
    expect(one.flags() & 0x8d5).toBe(flags);
  });

  it('sets ZF, SF and PF by AL', () => {
    const one = new SingleInstruction({ bits: 32 });
    one.run(Uint8Array.of(0xd4, 10), { RAX: 20n });
    expect(one.flags() & 0xc4).toBe(0x44);
    one.run(Uint8Array.of(0xd5, 10), { RAX: 0x0080n, RIP: 0x1_0000n });
    expect(one.flags() & 0xc4).toBe(0x80);
  });

  it('AAM by 0 is #DE', () => {
    const one = new SingleInstruction({ bits: 32 });
    expect(one.run(Uint8Array.of(0xd4, 0), { RAX: 5n }).vector).toBe(0);
    expect(one.get('RAX')).toBe(5n);
  });

  it('is undefined in 64-bit mode', () => {
    const one = new SingleInstruction();
    for (const opcode of [0x27, 0x2f, 0x37, 0x3f, 0xd4, 0xd5]) {
      expect(one.run(Uint8Array.of(opcode, 10), { RIP: 0x1_0000n }).vector).toBe(6);
    }
  });
});
