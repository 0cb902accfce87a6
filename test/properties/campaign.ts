/**
 * Campaigns of very many small trials. Every trial draws from a generator of its own, made of the seed
 * and the number of the trial, so that any one of them can be run again alone.
 */
import { Prng } from '../../src/bits/prng.ts';
import type { Trials } from './settings.ts';

/** A trial that takes longer hangs: the slowest takes milliseconds. */
const LONGEST = 10_000;
const BETWEEN_REPORTS = 10_000;

/** Runs `trial` very often; it throws if something is wrong. */
export async function campaign(
  name: string,
  { count, seed, first, watched }: Trials,
  trial: (random: Draw) => void,
): Promise<number> {
  const begin = performance.now();
  let reported = begin;
  let paused = begin;
  for (let i = 0; i < count; i++) {
    const before = performance.now();
    const number = first + i;
    try {
      trial(new Draw((Math.imul(seed, 0x85eb_ca6b) ^ Math.imul(number + 1, 0x9e37_79b1)) >>> 0));
    } catch (error) {
      throw new Error(`${name}: trial ${number}; alone: --runs 1 --seed ${seed} --first ${number}`, {
        cause: error,
      });
    }
    const now = performance.now();
    if (now - before > LONGEST) throw new Error(`${name}: trial ${number} of seed ${seed} hangs`);
    if (watched && now - reported > BETWEEN_REPORTS) {
      reported = now;
      const done = i + 1;
      const left = Math.round(((now - begin) / done) * (count - done));
      console.log(`  ${name}: ${done} of ${count}, ${Math.round(left / 1000)} s left`);
    }
    if (now - paused > 1000) {
      // The test runner wants to hear of its worker now and then.
      paused = now;
      await new Promise((resolve) => setTimeout(resolve, 0));
    }
  }
  if (watched) console.log(`  ${name}: ${count} in ${Math.round((performance.now() - begin) / 1000)} s`);
  return count;
}

/** What trials draw. */
export class Draw extends Prng {
  /** True once in `among`. */
  once(among: number): boolean {
    return this.below(among) === 0;
  }

  pick<T>(values: readonly T[]): T {
    return values[this.below(values.length)] as T;
  }

  quad(): bigint {
    return (BigInt(this.next()) << 32n) | BigInt(this.next());
  }

  /** 64 bits: arbitrary, small, a single one, or all ones of some width. */
  interesting(): bigint {
    switch (this.below(4)) {
      case 0:
        return this.quad();
      case 1:
        return BigInt(this.below(0x1_0000));
      case 2:
        return 1n << BigInt(this.below(64));
      default:
        return (1n << BigInt(this.below(65))) - 1n;
    }
  }

  bytes(length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    for (let i = 0; i < length; i += 4) {
      const word = this.next();
      for (let j = 0; j < 4 && i + j < length; j++) bytes[i + j] = word >>> (8 * j);
    }
    return bytes;
  }
}
