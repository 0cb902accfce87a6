/** Hostile input: random bytes as regions, as dumps, as encodings. No JavaScript error escapes, nothing hangs. */
import { describe, expect, it } from 'vitest';
import type { FlushPolicy } from '../../src/vmcs/processor-copy.ts';
import { PROFILES } from '../../src/vmx/capabilities/profiles.ts';
import { campaign } from './campaign.ts';
import { dumpTrial, readHostile, TEXTS } from './hostile-dumps.ts';
import { encodingTrial } from './hostile-encodings.ts';
import { regionTrial } from './hostile-regions.ts';
import { trials } from './settings.ts';

const POLICIES: readonly FlushPolicy[] = ['at-vmclear', 'write-through', 'seeded'];

describe('hostile input', () => {
  it('random bytes and damaged VMCSs as regions', async () => {
    const done = await campaign('regions', trials(400), (random) => {
      regionTrial(random, random.pick(PROFILES).name, random.pick(POLICIES));
    });
    expect(done).toBeGreaterThan(0);
  });

  it('every format is among the dumps that are damaged', () => {
    const formats = TEXTS.map((text) => readHostile(text)?.format);
    expect([...new Set(formats)].sort()).toEqual(['haxm', 'json', 'kvm', 'qemu', 'xen']);
  });

  it('random bytes and damaged dumps of every format as dumps', async () => {
    expect(await campaign('dumps', trials(2000), dumpTrial)).toBeGreaterThan(0);
  });

  it('random numbers as encodings', async () => {
    const done = await campaign('encodings', trials(4000), (random) => {
      encodingTrial(random, random.pick(PROFILES).name);
    });
    expect(done).toBeGreaterThan(0);
  });
});

describe('a campaign', () => {
  const settings = { count: 50, seed: 3, first: 0, watched: false };

  it('names the trial that fails, which can be run alone', async () => {
    const drawn: number[] = [];
    const failing = campaign('numbers', settings, (random) => {
      drawn.push(random.next());
      if (drawn.length === 21) throw new RangeError('twenty-first');
    });
    await expect(failing).rejects.toThrow('numbers: trial 20; alone: --runs 1 --seed 3 --first 20');
    expect(new Set(drawn).size).toBe(21);
    const alone: number[] = [];
    await campaign('numbers', { ...settings, count: 1, first: 20 }, (random) => alone.push(random.next()));
    expect(alone).toEqual(drawn.slice(20));
  });
});
