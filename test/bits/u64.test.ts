import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { bit, bits, hex, mask, U64_MAX, u64 } from '../../src/bits/u64.ts';

const quad = fc.bigInt(0n, U64_MAX);

describe('unsigned 64-bit values', () => {
  it('wraps at 2^64 in both directions', () => {
    expect(u64(1n << 64n)).toBe(0n);
    expect(u64(-1n)).toBe(U64_MAX);
    expect(u64(U64_MAX)).toBe(U64_MAX);
  });

  it('rebuilds every value from its bits', () => {
    fc.assert(
      fc.property(quad, (value) => {
        let sum = 0n;
        for (let i = 0; i < 64; i++) if (bit(value, i)) sum += 2n ** BigInt(i);
        return sum === value;
      }),
    );
  });

  it('cuts a value into ranges that make it up again', () => {
    fc.assert(
      fc.property(quad, fc.integer({ min: 1, max: 63 }), (value, cut) => {
        const high = bits(value, 63, cut);
        const low = bits(value, cut - 1, 0);
        return low < 2n ** BigInt(cut) && high * 2n ** BigInt(cut) + low === value;
      }),
    );
    expect(bits(0xdead_beef_cafe_f00dn, 47, 32)).toBe(0xbeefn);
  });

  it('makes masks that hold exactly their range', () => {
    expect(mask(63, 0)).toBe(U64_MAX);
    expect(mask(7, 7)).toBe(0x80n);
    expect(mask(11, 2)).toBe(0xffcn);
  });

  it('prints hexadecimal with as many digits as asked for', () => {
    expect(hex(0xabn)).toBe('0xab');
    expect(hex(0x681e, 8)).toBe('0x0000681e');
    expect(hex(0x1234n, 2)).toBe('0x1234');
  });
});
