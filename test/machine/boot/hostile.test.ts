import { describe, expect, it } from 'vitest';
import { Prng } from '../../../src/bits/prng.ts';
import { type BootPlan, type BootProblem, isProblem } from '../../../src/machine/boot/boot-plan.ts';
import { planFlat } from '../../../src/machine/boot/flat.ts';
import { planMultiboot } from '../../../src/machine/boot/multiboot.ts';
import { findProfile } from '../../../src/vmx/capabilities/profiles.ts';
import { buildElf, concat, multibootHeader } from '../../support/elf-builder.ts';

const MIB = 0x10_0000;
const RAM = 16 * MIB;
const CODE = Uint8Array.of(0xf4, 0xeb, 0xfd);

const SEEDS = ([32, 64] as const).map((bits) =>
  buildElf({
    bits,
    entry: 0x10_000cn,
    segments: [
      { physical: 0x10_0000, bytes: concat(multibootHeader(3), CODE), memorySize: 0x2000 },
      { physical: 0x20_0000, bytes: CODE },
    ],
    sections: [
      { type: 1, flags: 2, address: 0x10_0000, bytes: CODE },
      { type: 2, bytes: new Uint8Array(24) },
      { type: 3, bytes: CODE },
    ],
  }),
);
SEEDS.push(
  concat(
    new Uint8Array(16),
    multibootHeader(0x1_0003, [0x10_0010, 0x10_0000, 0, 0x10_8000, 0x10_0030]),
    CODE,
  ),
);

/** Values that arithmetic on sizes and addresses is likely to get wrong. */
const EDGES = [0, 1, 0x7f, 0x80, 0xff];

function mutated(seed: Uint8Array, random: Prng): Uint8Array {
  let image: Uint8Array = seed.slice();
  for (let n = random.below(4); n >= 0; n--) {
    const at = random.below(image.length);
    switch (random.below(5)) {
      case 0:
        image[at] = random.below(256);
        break;
      case 1:
        image[at] = EDGES[random.below(EDGES.length)]!;
        break;
      case 2:
        image.fill(random.below(2) === 0 ? 0xff : 0, at, at + 1 + random.below(8));
        break;
      case 3:
        image = image.slice(0, at + 1);
        break;
      default:
        image = concat(image.slice(0, at), image.slice(random.below(image.length)));
    }
    if (image.length === 0) return image;
  }
  return image;
}

/** A plan stays inside RAM and writes no byte twice; a problem is one line. */
function checkResult(result: BootPlan | BootProblem): void {
  if (isProblem(result)) {
    if (result.problem.includes('\n') || !/^[\x20-\x7e]{10,300}$/.test(result.problem)) {
      throw new Error(`not one clear line: ${JSON.stringify(result.problem)}`);
    }
    return;
  }
  let end = 0;
  for (const piece of [...result.pieces].sort((a, b) => a.start - b.start)) {
    if (piece.bytes.length === 0) continue;
    if (piece.start < end || piece.start + piece.bytes.length > RAM) throw new Error('outside RAM or twice');
    end = piece.start + piece.bytes.length;
  }
}

describe('hostile images', () => {
  it('no mutation of an image makes the loader throw or write where it must not', () => {
    const random = new Prng(0x1bad_b002);
    let [loaded, refused] = [0, 0];
    for (let i = 0; i < 10_000; i++) {
      const image = mutated(SEEDS[i % SEEDS.length]!, random);
      const result = planMultiboot(image, { ramSize: RAM, commandLine: 'x' });
      checkResult(result);
      if (isProblem(result)) refused++;
      else loaded++;
    }
    // The mutations reach both outcomes.
    expect(loaded).toBeGreaterThan(1000);
    expect(refused).toBeGreaterThan(1000);
  });

  it('an image cut off at any byte is loaded or refused', () => {
    for (const seed of SEEDS) {
      for (let length = 0; length <= seed.length; length++) {
        checkResult(planMultiboot(seed.subarray(0, length), { ramSize: RAM }));
      }
    }
  });

  it('65,534 segments in descending order take no longer than they should', () => {
    const count = 65_534;
    const image = new Uint8Array(84 + 32 * count);
    const header = buildElf({
      bits: 32,
      entry: 0x10_000cn,
      segments: [{ physical: 0x10_0000, bytes: multibootHeader(3) }],
    });
    image.set(header.subarray(0, 84));
    const view = new DataView(image.buffer);
    view.setUint16(44, count, true);
    for (let i = 1; i < count; i++) {
      const at = 52 + 32 * i;
      view.setUint32(at, 1, true);
      view.setUint32(at + 12, 0x10_0100 + 16 * (count - i), true);
      view.setUint32(at + 20, 16, true);
    }
    image.set(multibootHeader(3), 8100 - (8100 % 4));
    const started = performance.now();
    checkResult(planMultiboot(image, { ramSize: RAM }));
    expect(performance.now() - started).toBeLessThan(5000);
  });

  it('any bytes at any address in any mode are a plan or a problem', () => {
    const random = new Prng(7);
    const { features } = findProfile('full')!;
    for (let i = 0; i < 2000; i++) {
      const address = random.below(2) === 0 ? random.below(2 ** 32) : random.below(RAM + 4096);
      const mode = ([16, 32, 64] as const)[random.below(3)]!;
      checkResult(planFlat(new Uint8Array(random.below(5000)), { ramSize: RAM, address, mode, features }));
    }
  });
});
