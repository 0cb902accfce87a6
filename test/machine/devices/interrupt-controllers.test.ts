import { describe, expect, it } from 'vitest';
import { InterruptControllers } from '../../../src/machine/devices/interrupt-controllers.ts';

const [FIRST, SECOND] = [0x20, 0xa0];

function controllers() {
  let refreshed = 0;
  const pair = new InterruptControllers(() => {
    refreshed++;
  });
  const w = (port: number, ...values: number[]) => {
    for (const value of values) pair.write(port, 1, value);
  };
  return {
    pair,
    w,
    r: (port: number) => pair.read(port),
    up: (...lines: number[]) => {
      for (const irq of lines) pair.drive(irq, true);
    },
    down: (...lines: number[]) => {
      for (const irq of lines) pair.drive(irq, false);
    },
    /** Vectors that the processor takes until nothing is pending. */
    taken: () => {
      const vectors: number[] = [];
      while (pair.pending && vectors.length < 20) vectors.push(pair.acknowledge());
      return vectors;
    },
    inService: (port: number) => {
      w(port, 0x0b);
      return pair.read(port);
    },
    requests: (port: number) => {
      w(port, 0x0a);
      return pair.read(port);
    },
    refreshed: () => refreshed,
  };
}

/** Initialised as every kernel does: vectors 20H–2FH, cascade on 2. */
function initialised(icw4 = 0x01) {
  const c = controllers();
  c.w(FIRST, 0x11);
  c.w(FIRST + 1, 0x20, 0x04, icw4);
  c.w(SECOND, 0x11);
  c.w(SECOND + 1, 0x28, 0x02, 0x01);
  return c;
}

describe('the pair of 8259A', () => {
  it('delivers nothing before it is initialised', () => {
    const { pair, up, w } = controllers();
    up(1, 9);
    expect(pair.pending).toBe(false);
    w(FIRST, 0x11);
    w(FIRST + 1, 0x20, 0x04);
    up(3);
    expect(pair.pending).toBe(false);
  });

  it('takes ICW3 and ICW4 only if ICW1 says so', () => {
    const { pair, up, w, r } = controllers();
    w(FIRST, 0x12);
    w(FIRST + 1, 0x47);
    w(FIRST + 1, 0xfd);
    expect(r(FIRST + 1)).toBe(0xfd);
    up(1);
    expect([pair.pending, pair.acknowledge()]).toEqual([true, 0x41]);
  });

  it('gives the vector of the request, through the cascade too', () => {
    const { taken, up, w } = initialised();
    for (const irq of [0, 1, 3, 8, 12, 15]) {
      up(irq);
      expect(taken()).toEqual([0x20 + irq]);
      if (irq >= 8) w(SECOND, 0x20);
      w(FIRST, 0x20);
    }
  });

  it('ranks requests 0, 1, 8–15, 3–7, and lower ones wait for the end of a higher one', () => {
    const { taken, up, w } = initialised();
    up(7, 3, 15, 8, 1, 0);
    const order: number[] = [];
    for (let i = 0; i < 6; i++) {
      const vectors = taken();
      expect(vectors).toHaveLength(1);
      order.push(vectors[0]!);
      if (vectors[0]! >= 0x28) w(SECOND, 0x20);
      w(FIRST, 0x20);
    }
    expect(order).toEqual([0x20, 0x21, 0x28, 0x2f, 0x23, 0x27]);
  });

  it('lets a higher request interrupt a lower one in service', () => {
    const { taken, up, inService } = initialised();
    up(5);
    expect(taken()).toEqual([0x25]);
    up(6);
    expect(taken()).toEqual([]);
    up(4);
    expect(taken()).toEqual([0x24]);
    expect(inService(FIRST)).toBe(0x30);
  });

  it('masks', () => {
    const { taken, up, w, r } = initialised();
    w(FIRST + 1, 0x02);
    w(SECOND + 1, 0xfe);
    expect([r(FIRST + 1), r(SECOND + 1)]).toEqual([0x02, 0xfe]);
    up(1, 9);
    expect(taken()).toEqual([]);
    w(FIRST + 1, 0);
    expect(taken()).toEqual([0x21]);
  });

  it('an edge requests once; a request that goes away is none', () => {
    const { taken, up, down, w, requests, pair } = initialised();
    up(4);
    down(4);
    expect([requests(FIRST), pair.pending]).toEqual([0, false]);
    up(4);
    expect(taken()).toEqual([0x24]);
    w(FIRST, 0x20);
    up(4);
    expect(taken()).toEqual([]);
    down(4);
    up(4);
    expect(taken()).toEqual([0x24]);
  });

  it('a level requests again until it falls', () => {
    const { taken, up, down, w, r } = initialised();
    w(0x4d0, 0xff);
    w(0x4d1, 0xff);
    expect([r(0x4d0), r(0x4d1)]).toEqual([0xf8, 0xde]);
    up(5, 11);
    expect(taken()).toEqual([0x2b]);
    w(SECOND, 0x20);
    w(FIRST, 0x20);
    expect(taken()).toEqual([0x2b]);
    down(11);
    w(SECOND, 0x20);
    w(FIRST, 0x20);
    expect(taken()).toEqual([0x25]);
    down(5);
    w(FIRST, 0x20);
    expect(taken()).toEqual([]);
  });

  it('gives vector 7 of the controller, and takes nothing into service, if the request has gone', () => {
    const { pair, up, down, inService } = initialised();
    up(3);
    expect(pair.pending).toBe(true);
    down(3);
    expect(pair.acknowledge()).toBe(0x27);
    expect(inService(FIRST)).toBe(0);
  });

  it('ends the highest, or a given, service; rotates priorities', () => {
    const { taken, up, w, inService } = initialised();
    up(3);
    taken();
    up(1);
    taken();
    expect(inService(FIRST)).toBe(0x0a);
    w(FIRST, 0x63);
    expect(inService(FIRST)).toBe(0x02);
    w(FIRST, 0xa0);
    expect(inService(FIRST)).toBe(0);
    // Input 1 is now the lowest.
    up(0, 4);
    expect(taken()).toEqual([0x24]);
    w(FIRST, 0x20);
    w(FIRST, 0xc7);
    expect(taken()).toEqual([0x20]);
    w(FIRST, 0xe0);
    expect(inService(FIRST)).toBe(0);
  });

  it('ends services by itself with AEOI, rotating if told to', () => {
    const { taken, up, down, w, inService } = initialised(0x03);
    w(FIRST, 0x80);
    up(1, 3);
    expect(taken()).toEqual([0x21, 0x23]);
    expect(inService(FIRST)).toBe(0);
    down(1, 3);
    // Input 3 is the lowest, so that 4 comes before 1.
    up(1, 4);
    expect(taken()).toEqual([0x24, 0x21]);
    w(FIRST, 0x00);
    down(1, 4);
    up(1, 2, 4);
    expect(taken()).toEqual([0x24, 0x21]);
  });

  it('special mask mode lets lower requests in while a masked one is in service', () => {
    const { taken, up, w } = initialised();
    up(1);
    taken();
    up(5);
    expect(taken()).toEqual([]);
    w(FIRST + 1, 0x02);
    expect(taken()).toEqual([]);
    w(FIRST, 0x68);
    expect(taken()).toEqual([0x25]);
    w(FIRST, 0x48);
    up(6);
    expect(taken()).toEqual([]);
  });

  it('special fully nested mode lets a higher request of the second controller through', () => {
    for (const [icw4, expected] of [
      [0x11, [0x28]],
      [0x01, []],
    ] as const) {
      const { taken, up } = initialised(icw4);
      up(10);
      expect(taken()).toEqual([0x2a]);
      up(8);
      expect(taken()).toEqual(expected);
    }
  });

  it('is polled instead of acknowledged', () => {
    const { r, w, up, inService } = initialised();
    w(FIRST, 0x0c);
    expect(r(FIRST)).toBe(0);
    up(6, 3);
    w(FIRST, 0x0c);
    expect(r(FIRST)).toBe(0x83);
    expect(inService(FIRST)).toBe(0x08);
    up(9);
    w(SECOND, 0x0c);
    expect(r(SECOND + 1)).toBe(0x81);
    expect(inService(SECOND)).toBe(0x02);
  });

  it('ICW1 clears mask, services and requests; a line that stays high must fall first', () => {
    const { w, r, up, down, taken, inService } = initialised();
    w(FIRST + 1, 0xf0);
    up(1);
    taken();
    up(3);
    w(FIRST, 0x11);
    w(FIRST + 1, 0x40, 0x04, 0x01);
    expect([r(FIRST + 1), inService(FIRST)]).toEqual([0, 0]);
    expect(taken()).toEqual([]);
    down(3);
    up(3);
    expect(taken()).toEqual([0x43]);
  });

  it('asks time-driven devices before it answers', () => {
    const c = initialised();
    const before = c.refreshed();
    c.requests(FIRST);
    expect(c.refreshed()).toBeGreaterThan(before);
    const then = c.refreshed();
    expect(c.pair.pending).toBe(false);
    expect(c.refreshed()).toBe(then + 1);
  });

  it('continues from a snapshot', () => {
    const { pair, up, taken, inService } = initialised();
    up(9);
    const kept = pair.snapshot();
    expect(taken()).toEqual([0x29]);
    pair.restore(kept);
    expect(inService(SECOND)).toBe(0);
    expect(taken()).toEqual([0x29]);
  });
});
