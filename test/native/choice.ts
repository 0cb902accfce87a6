/** Random choices of the case generator, and values with a liking for the edges of what they stand for. */
import { Prng } from '../../src/bits/prng.ts';

export class Choice extends Prng {
  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)] as T;
  }

  /** True in `percent` of 100 cases. */
  chance(percent: number): boolean {
    return this.below(100) < percent;
  }

  quad(): bigint {
    return (BigInt(this.next()) << 32n) | BigInt(this.next());
  }

  /** 64 bits: zero, ones, single bits, runs of ones, and the borders of each operand size, or anything. */
  edge(): bigint {
    switch (this.below(12)) {
      case 0:
        return 0n;
      case 1:
        return BigInt(this.below(4));
      case 2:
        return BigInt.asUintN(64, -1n - BigInt(this.below(3)));
      case 3:
        return 1n << BigInt(this.below(64));
      case 4:
        return (1n << BigInt(this.below(64))) - 1n;
      case 5:
        return BigInt.asUintN(64, -1n << BigInt(this.below(64)));
      case 6: {
        const border = 1n << BigInt(this.pick([7, 8, 15, 16, 31, 32, 63]));
        return BigInt.asUintN(64, border + BigInt(this.below(5) - 2));
      }
      case 7:
        return BigInt.asUintN(64, BigInt(this.below(256) - 128));
      case 8:
        return BigInt.asUintN(64, BigInt(this.next() | 0));
      default:
        return this.quad();
    }
  }

  /** Bits of a binary32 or binary64: zeros, infinities, NaNs, denormals, small integers, or anything. */
  float(bits: 32 | 64): bigint {
    const [exponentBits, fractionBits] = bits === 32 ? [8, 23] : [11, 52];
    const ones = (1n << BigInt(exponentBits)) - 1n;
    const bias = ones >> 1n;
    const fraction = BigInt.asUintN(fractionBits, this.quad());
    const sign = BigInt(this.below(2)) << BigInt(bits - 1);
    const of = (exponent: bigint, rest: bigint) => sign | (exponent << BigInt(fractionBits)) | rest;
    switch (this.below(14)) {
      case 0:
        return of(0n, 0n);
      case 1:
        return of(ones, 0n);
      case 2:
        return of(ones, fraction | (1n << BigInt(fractionBits - 1)));
      case 3:
        return of(ones, BigInt.asUintN(fractionBits - 1, fraction) | 1n);
      case 4:
        return of(0n, fraction);
      case 5:
        return of(0n, this.pick([1n, 2n, 3n, (1n << BigInt(fractionBits)) - 1n]));
      case 6:
        return of(1n, this.pick([0n, 1n]));
      case 7:
        return of(ones - 1n, this.pick([(1n << BigInt(fractionBits)) - 1n, fraction]));
      case 8:
      case 9: {
        // Small integers and halves, so that exact results, ties and equal operands occur.
        const exponent = this.below(Math.min(fractionBits, 34)) - 1;
        const kept = BigInt(this.below(Math.min(exponent + 3, 8)));
        const mask = ((1n << kept) - 1n) << (BigInt(fractionBits) - kept);
        return of(bias + BigInt(exponent), fraction & mask);
      }
      case 10:
      case 11:
        return of(bias + BigInt(this.below(70) - 5), fraction);
      case 12:
        return of(bias + BigInt(this.below(2 * fractionBits) - fractionBits), fraction);
      default:
        return BigInt.asUintN(bits, this.quad());
    }
  }

  /** An 80-bit x87 value: integer bit and exponent as sign-exponent word and 64-bit significand. */
  extended(): { readonly significand: bigint; readonly signExponent: number } {
    const sign = this.below(2) << 15;
    const integer = 1n << 63n;
    const fraction = this.quad();
    switch (this.below(12)) {
      case 0:
        return { significand: 0n, signExponent: sign };
      case 1:
        return { significand: integer, signExponent: sign | 0x7fff };
      case 2:
        return { significand: fraction | (3n << 62n), signExponent: sign | 0x7fff };
      case 3:
        return {
          significand: BigInt.asUintN(62, fraction) | integer | 1n,
          signExponent: sign | 0x7fff,
        };
      case 4:
        return { significand: BigInt.asUintN(63, fraction), signExponent: sign };
      case 5:
      case 6: {
        const kept = BigInt(this.below(8));
        return {
          significand: integer | (fraction & (((1n << kept) - 1n) << (63n - kept))),
          signExponent: sign | (0x3fff + this.below(66) - 1),
        };
      }
      case 7:
        // Exactly representable as binary64 or binary32.
        return {
          significand: integer | ((fraction >> 11n) << (this.chance(50) ? 11n : 40n)),
          signExponent: sign | (0x3fff + this.below(300) - 150),
        };
      case 8:
        return { significand: integer | fraction, signExponent: sign | (0x3fff + this.below(2200) - 1100) };
      case 9:
        return { significand: integer | fraction, signExponent: sign | (1 + this.below(0x7ffe)) };
      default:
        return { significand: integer | fraction, signExponent: sign | (0x3fff + this.below(70) - 3) };
    }
  }
}
