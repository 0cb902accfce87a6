import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Prng } from '../../src/bits/prng.ts';

const draw = (random: Prng, count: number) => Array.from({ length: count }, () => random.next());

describe('the seeded generator', () => {
  it('repeats itself for a seed and not for another', () => {
    expect(draw(new Prng(7), 20)).toEqual(draw(new Prng(7), 20));
    expect(draw(new Prng(7), 20)).not.toEqual(draw(new Prng(8), 20));
  });

  it('continues from a saved state', () => {
    const random = new Prng(0x1234_5678);
    draw(random, 5);
    const copy = new Prng(0);
    copy.state = random.state;
    expect(draw(copy, 10)).toEqual(draw(random, 10));
  });

  it('takes a seed modulo 2^32', () => {
    expect(new Prng(-1).state).toBe(0xffff_ffff);
    expect(draw(new Prng(-1), 3)).toEqual(draw(new Prng(0xffff_ffff), 3));
  });

  it('draws 32-bit unsigned numbers below any bound', () => {
    fc.assert(
      fc.property(fc.integer(), fc.integer({ min: 1, max: 2 ** 32 - 1 }), (seed, bound) => {
        const random = new Prng(seed);
        const word = random.next();
        const drawn = random.below(bound);
        return (
          Number.isInteger(word) &&
          word >= 0 &&
          word < 2 ** 32 &&
          Number.isInteger(drawn) &&
          drawn >= 0 &&
          drawn < bound
        );
      }),
    );
  });

  it('reaches every number below a small bound about equally often', () => {
    const random = new Prng(42);
    const counts = new Array(8).fill(0);
    for (let i = 0; i < 8000; i++) counts[random.below(8)]++;
    for (const count of counts) expect(Math.abs(count - 1000)).toBeLessThan(150);
  });
});
