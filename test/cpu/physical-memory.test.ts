import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { U64_MAX } from '../../src/bits/u64.ts';
import { PhysicalMemory } from '../../src/cpu/physical-memory.ts';

const PAGE = 4096;
/** Around page borders, and anywhere up to 2^52. */
const address = fc.oneof(
  fc.integer({ min: 0, max: 3 * PAGE - 8 }),
  fc.integer({ min: -8, max: 8 }).map((d) => 2 * PAGE + d),
  fc.integer({ min: 0, max: 2 ** 52 - 16 }),
);

describe('physical memory', () => {
  it('reads 0 where nothing was written, and creates no page by reading', () => {
    const memory = new PhysicalMemory();
    expect(memory.read8(0x1234)).toBe(0);
    expect(memory.read32(2 ** 52 - 4)).toBe(0);
    expect(memory.read64(0xfff)).toBe(0n);
    expect(memory.readBytes(0xff0, 32)).toEqual(new Uint8Array(32));
    expect(memory.peek(0).u8).toHaveLength(PAGE);
    expect(memory.pageCount).toBe(0);
  });

  it('is little-endian across a page border', () => {
    const memory = new PhysicalMemory();
    memory.write64(0xffd, 0x1122_3344_5566_7788n);
    expect([...memory.readBytes(0xffd, 8)]).toEqual([0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11]);
    expect(memory.read32(0xffe)).toBe(0x4455_6677);
    expect(memory.pageCount).toBe(2);
  });

  it('gives back what was written at any address, and touches nothing beside it', () => {
    fc.assert(
      fc.property(address, fc.bigInt(0n, U64_MAX), (at, value) => {
        const memory = new PhysicalMemory();
        const around = Math.max(at - 4, 0);
        memory.writeBytes(around, new Uint8Array(16).fill(0xee));
        memory.write64(at, value);
        expect(memory.read64(at)).toBe(value);
        expect(memory.read32(at)).toBe(Number(value & 0xffff_ffffn));
        expect(memory.read32(at + 4)).toBe(Number(value >> 32n));
        const bytes = memory.readBytes(around, 16);
        const before = at - around;
        expect([...bytes.subarray(0, before)]).toEqual(new Array(before).fill(0xee));
        expect([...bytes.subarray(before + 8)]).toEqual(new Array(8 - before).fill(0xee));
      }),
    );
  });

  it('agrees with a plain array of bytes, whatever is done to it', () => {
    const action = fc.oneof(
      fc.tuple(fc.constant('write8' as const), fc.nat(3 * PAGE), fc.nat(0xff)),
      fc.tuple(fc.constant('write32' as const), fc.nat(3 * PAGE), fc.nat(0xffff_ffff)),
      fc.tuple(fc.constant('writeBytes' as const), fc.nat(3 * PAGE), fc.nat(5000)),
      fc.tuple(fc.constant('read' as const), fc.nat(3 * PAGE), fc.nat(5000)),
    );
    fc.assert(
      fc.property(fc.array(action, { maxLength: 30 }), (actions) => {
        const memory = new PhysicalMemory();
        const model = new Uint8Array(5 * PAGE);
        const view = new DataView(model.buffer);
        for (const [kind, at, n] of actions) {
          if (kind === 'write8') {
            memory.write8(at, n);
            model[at] = n;
          } else if (kind === 'write32') {
            memory.write32(at, n);
            view.setUint32(at, n, true);
          } else if (kind === 'writeBytes') {
            const bytes = Uint8Array.from({ length: n }, (_, i) => i * 7 + at);
            memory.writeBytes(at, bytes);
            model.set(bytes, at);
          } else {
            expect(Buffer.compare(memory.readBytes(at, n), model.subarray(at, at + n))).toBe(0);
            expect(memory.read8(at)).toBe(model[at]);
            expect(memory.read32(at)).toBe(view.getUint32(at, true));
          }
        }
        expect(Buffer.compare(memory.readBytes(0, model.length), model)).toBe(0);
      }),
      { numRuns: 50 },
    );
  });

  it('hands out a page once and sees what is written to it', () => {
    const memory = new PhysicalMemory();
    const page = memory.page(0x5008);
    expect(memory.page(0x5fff)).toBe(page);
    memory.page(0x6000);
    expect(memory.page(0x5000)).toBe(page);
    expect(memory.peek(0x5000)).toBe(page);
    page.u32[2] = 0xcafe_f00d;
    expect(memory.read32(0x5008)).toBe(0xcafe_f00d);
    expect(page.u16[4]).toBe(0xf00d);
  });
});

describe('a snapshot of memory', () => {
  it('lists pages in ascending order', () => {
    const memory = new PhysicalMemory();
    for (const at of [0x9000, 0x1000, 2 ** 51]) memory.write8(at, 1);
    expect([...memory.snapshot().keys()]).toEqual([1, 9, 2 ** 39]);
  });

  it('is a copy that later writes do not reach', () => {
    const memory = new PhysicalMemory();
    memory.write8(0x1000, 1);
    const snapshot = memory.snapshot();
    memory.write8(0x1000, 2);
    expect(snapshot.get(1)?.[0]).toBe(1);
  });

  it('brings the memory back, and pages that did not exist then are gone', () => {
    const memory = new PhysicalMemory();
    memory.write64(0x1ffc, 0x0102_0304_0506_0708n);
    const snapshot = memory.snapshot();
    memory.write8(0x1ffc, 0xff);
    memory.write8(0x8000, 0xff);
    memory.restore(snapshot);
    expect(memory.read64(0x1ffc)).toBe(0x0102_0304_0506_0708n);
    expect(memory.read8(0x8000)).toBe(0);
    expect(memory.pageCount).toBe(2);
    memory.write8(0x1ffc, 0xaa);
    expect(snapshot.get(1)?.[0xffc]).toBe(0x08);
  });

  it('does not answer from the page used last before it was restored', () => {
    const memory = new PhysicalMemory();
    const snapshot = memory.snapshot();
    memory.write8(0x3000, 7);
    memory.restore(snapshot);
    expect(memory.read8(0x3000)).toBe(0);
    memory.write8(0x3000, 9);
    expect(memory.read8(0x3000)).toBe(9);
  });
});
