import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { FIELD_COUNT, FIELDS } from '../../src/vmcs/fields.ts';
import {
  ABORT_INDICATOR_OFFSET,
  DATA_OFFSET,
  type RegionFormat,
  regionFormat,
} from '../../src/vmcs/layout.ts';

const everything = () => true;

/** Bytes of the region that the format uses, with who uses them. */
function occupants(format: RegionFormat): Map<number, string> {
  const used = new Map<number, string>();
  const take = (name: string, offset: number, bytes: number) => {
    for (let i = offset; i < offset + bytes; i++) {
      expect(used.get(i), `byte ${i} of ${name}`).toBeUndefined();
      used.set(i, name);
    }
  };
  take('header', 0, DATA_OFFSET);
  take('launch state', format.launchStateOffset, 4);
  for (const { slot, name, bits } of FIELDS) {
    const offset = format.offsets[slot] as number;
    if (offset < 0) continue;
    expect(offset % (bits / 8), `alignment of ${name}`).toBe(0);
    take(name, offset, bits / 8);
  }
  return used;
}

function expectSound(format: RegionFormat): void {
  const used = occupants(format);
  expect(Math.max(...used.keys())).toBeLessThan(format.regionSize);
  expect(format.launchStateOffset % 4).toBe(0);
}

const revision = fc.integer({ min: 0, max: 0x7fff_ffff });

describe('region formats', () => {
  it('give every field a place of its own, aligned and inside the region', () => {
    fc.assert(
      fc.property(revision, fc.integer({ min: 2048, max: 4096 }), (r, size) =>
        expectSound(regionFormat(r, size, everything)),
      ),
      { numRuns: 60 },
    );
  });

  it('give a place to the fields asked for and to no other', () => {
    fc.assert(
      fc.property(revision, fc.uniqueArray(fc.nat(FIELD_COUNT - 1)), (r, slots) => {
        const format = regionFormat(r, 4096, (slot) => slots.includes(slot));
        expectSound(format);
        for (let slot = 0; slot < FIELD_COUNT; slot++) {
          expect((format.offsets[slot] as number) >= 0).toBe(slots.includes(slot));
        }
      }),
      { numRuns: 60 },
    );
  });

  it('follow from the revision alone', () => {
    fc.assert(
      fc.property(revision, (r) => {
        expect(regionFormat(r, 4096, everything)).toEqual(regionFormat(r, 4096, everything));
      }),
      { numRuns: 20 },
    );
  });

  it('differ between revisions', () => {
    const revisions = [0, 1, 2, 3, 4, 0xd, 0x10, 0x12, 0x13, 0x15, 0x4d58_0092, 0x7fff_ffff];
    const formats = revisions.map((r) => regionFormat(r, 4096, everything));
    expect(new Set(formats.map((f) => f.offsets.join())).size).toBe(revisions.length);
    expect(new Set(formats.map((f) => f.launchStateValues.clear)).size).toBe(revisions.length);
  });

  it('tell a clear launch state from a launched one and from memory never written', () => {
    fc.assert(
      fc.property(revision, (r) => {
        const { clear, launched } = regionFormat(r, 4096, everything).launchStateValues;
        expect(new Set([clear, launched, 0]).size).toBe(3);
      }),
    );
  });

  it('keep the header where the manual has it', () => {
    expect([ABORT_INDICATOR_OFFSET, DATA_OFFSET]).toEqual([4, 8]);
  });

  it.each([0, 1, 2, 3])('refuse a region too small for the fields (revision %i)', (r) => {
    expect(() => regionFormat(r, 1024, everything)).toThrow(RangeError);
    expect(() => regionFormat(r, 8, () => false)).toThrow(RangeError);
  });

  it.each([0, 1, 2, 3])('fill a region to the last byte (revision %i)', (r) => {
    const one = (slot: number) => slot === 0;
    expect(() => regionFormat(r, 17, one)).toThrow(RangeError);
    expectSound(regionFormat(r, 24, one));
  });

  it.each([0, 1, 2, 3])('need 16 bytes without any field (revision %i)', (r) => {
    expectSound(regionFormat(r, 16, () => false));
  });

  /** Slots in the order of their places, from the end of the region where the format grows downwards. */
  const order = (r: number) => {
    const { offsets } = regionFormat(r, 4096, everything);
    const slots = FIELDS.map((f) => f.slot).sort((a, b) => (offsets[a] as number) - (offsets[b] as number));
    return r & 1 ? slots.reverse() : slots;
  };
  const bits = (slot: number) => FIELDS[slot]?.bits as number;
  const slots = FIELDS.map((f) => f.slot);

  it.each([
    [0, 'widest first, upwards', [...slots].sort((a, b) => bits(b) - bits(a) || a - b)],
    [1, 'as catalogued, downwards', slots],
    [
      3,
      'narrowest first and last of the catalogue first, downwards',
      [...slots].sort((a, b) => bits(a) - bits(b) || b - a),
    ],
  ] as const)('arrange revision %i %s', (r, _, expected) => {
    expect(order(r)).toEqual(expected);
  });

  it.each([0, 1, 3])('begin further on in the arrangement of %i with every fourth revision', (r) => {
    const first = order(r);
    for (const turn of [1, 2, FIELD_COUNT - 1, FIELD_COUNT]) {
      const from = turn % FIELD_COUNT;
      expect(order(r + 4 * turn)).toEqual([...first.slice(from), ...first.slice(0, from)]);
    }
  });

  it('scatter the fields of revision 2', () => {
    const neighbours = order(2).filter((slot, i, all) => Math.abs(slot - (all[i + 1] ?? slot)) === 1);
    expect(neighbours.length).toBeLessThan(FIELD_COUNT / 10);
  });

  it.each([
    [0, [1256, 1258, 1260, 1262], 789942112],
    [1, [4094, 4092, 4090, 4088], 3246881400],
    [2, [1208, 1312, 1020, 900], 3340511022],
    [3, [4048, 4050, 4052, 4054], 2543389768],
    [6, [1444, 300, 648, 1096], 2820912644],
    [0x4d58_0092, [350, 976, 1092, 352], 2428565000],
  ])('stay as they are: regions written earlier in revision %i are read', (r, first, sum) => {
    const { offsets } = regionFormat(r, 4096, everything);
    expect([...offsets.subarray(0, 4)]).toEqual(first);
    expect(offsets.reduce((hash, offset) => (Math.imul(hash, 31) + offset) >>> 0, 0)).toBe(sum);
  });
});
