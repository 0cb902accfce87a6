import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { fitsWidth, highWordIdentical, isAligned, isCanonical, signExtend } from '../../src/bits/address.ts';
import { U64_MAX } from '../../src/bits/u64.ts';

const quad = fc.bigInt(0n, U64_MAX);

describe('canonical addresses', () => {
  it.each([
    [0x0000_7fff_ffff_ffffn, 48, true],
    [0x0000_8000_0000_0000n, 48, false],
    [0xffff_7fff_ffff_ffffn, 48, false],
    [0xffff_8000_0000_0000n, 48, true],
    [0x0000_8000_0000_0000n, 57, true],
    [0x00ff_ffff_ffff_ffffn, 57, true],
    [0x0100_0000_0000_0000n, 57, false],
    [0xff00_0000_0000_0000n, 57, true],
    [U64_MAX, 48, true],
    [0n, 48, true],
  ])('%d with %i bits: %s', (address, width, canonical) => {
    expect(isCanonical(address, width)).toBe(canonical);
  });

  it('sign extension is the nearest canonical address and keeps the low bits', () => {
    fc.assert(
      fc.property(quad, fc.constantFrom(48, 57), (address, width) => {
        const extended = signExtend(address, width);
        expect(isCanonical(extended, width)).toBe(true);
        expect(extended % 2n ** BigInt(width)).toBe(address % 2n ** BigInt(width));
        expect(isCanonical(address, width)).toBe(extended === address);
      }),
    );
  });
});

describe('identical high bits', () => {
  it('leaves bit width−1 free, unlike canonical form', () => {
    expect(highWordIdentical(0x8000, 48)).toBe(true);
    expect(highWordIdentical(0x10000, 48)).toBe(false);
    expect(highWordIdentical(0xffff0000, 48)).toBe(true);
    expect(highWordIdentical(0xfffe0000, 48)).toBe(false);
  });

  it('asks nothing of an address as wide as 64 bits', () => {
    expect(highWordIdentical(0x80000000, 64)).toBe(true);
  });
});

describe('width and alignment', () => {
  it('fits when nothing is set at or above the width', () => {
    expect(fitsWidth(0xf_ffff_ffffn, 36)).toBe(true);
    expect(fitsWidth(0x10_0000_0000n, 36)).toBe(false);
    expect(fitsWidth(0x8000_0000_0000_0000n, 52)).toBe(false);
  });

  it('agrees with remainder', () => {
    fc.assert(
      fc.property(quad, fc.constantFrom(1, 2, 8, 16, 64, 4096), (address, alignment) => {
        expect(isAligned(address, alignment)).toBe(address % BigInt(alignment) === 0n);
      }),
    );
  });
});
