/** Operand values that like to be at the edges, from a seed. */
import { Prng } from '../../src/bits/prng.ts';

export class Operands extends Prng {
  quad(): bigint {
    return (BigInt(this.next()) << 32n) | BigInt(this.next());
  }

  /** A value of 64 bits whose low `bits` are often 0, 1, the highest number, or near a power of 2. */
  value(bits = 64): bigint {
    switch (this.below(6)) {
      case 0:
        return (this.quad() << BigInt(bits)) & 0xffff_ffff_ffff_ffffn;
      case 1:
        return BigInt.asUintN(64, (1n << BigInt(this.below(bits))) - BigInt(this.below(2)));
      case 2:
        return BigInt.asUintN(64, -(1n << BigInt(this.below(bits))) + BigInt(this.below(3)) - 1n);
      default:
        return this.quad();
    }
  }
}
