import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { IntervalTimer } from '../../../src/machine/devices/interval-timer.ts';

/** The smallest time at which `ticks` of the clock have passed. */
const at = (ticks: number) => Math.ceil((ticks * 88_000) / 105);

function timer() {
  const time = { ticks: 0 };
  const edges: string[] = [];
  let level: boolean | undefined;
  const device = new IntervalTimer(
    () => at(time.ticks),
    (asserted) => {
      if (asserted !== level) edges.push(`${asserted ? 'up' : 'down'} ${time.ticks}`);
      level = asserted;
    },
  );
  const r = (port: number) => device.read(port);
  const w = (port: number, value: number) => device.write(port, 1, value);
  return {
    device,
    time,
    edges,
    level: () => level,
    r,
    w,
    /** Programs counter `n` with both bytes. */
    program: (n: number, mode: number, count: number, bcd = 0) => {
      w(0x43, (n << 6) | 0x30 | (mode << 1) | bcd);
      w(0x40 + n, count & 0xff);
      w(0x40 + n, count >> 8);
    },
    /** Latches and reads the count of counter `n`. */
    count: (n: number) => {
      w(0x43, n << 6);
      const low = r(0x40 + n);
      return low | (r(0x40 + n) << 8);
    },
    /** Reads the status of counter `n` by the read-back command. */
    status: (n: number) => {
      w(0x43, 0xe0 | (2 << n));
      return r(0x40 + n);
    },
    out: (n: number) => {
      w(0x43, 0xe0 | (2 << n));
      return (r(0x40 + n) & 0x80) !== 0;
    },
  };
}

describe('the 8254', () => {
  it('starts as firmware leaves it: 18.2 Hz on counter 0, and counter 2 stopped', () => {
    const { time, status, count } = timer();
    expect([status(0), status(1), status(2)]).toEqual([0xb6, 0xb4, 0xb6]);
    time.ticks = 100;
    expect([count(0), count(2)]).toEqual([0x1_0000 - 200, 0]);
  });

  it('mode 0: low until the count has run out, then high, and counts on', () => {
    const { time, program, count, out } = timer();
    program(0, 0, 5);
    expect(out(0)).toBe(false);
    const seen = [1, 5, 6, 7].map((ticks) => {
      time.ticks = ticks;
      return [count(0), out(0)];
    });
    expect(seen).toEqual([
      [5, false],
      [1, false],
      [0, true],
      [0xffff, true],
    ]);
  });

  it('mode 0: a new count lowers the output, and its first byte stops counting', () => {
    const { time, program, count, out, w } = timer();
    program(0, 0, 5);
    time.ticks = 10;
    expect(out(0)).toBe(true);
    w(0x40, 20);
    expect(out(0)).toBe(false);
    const stopped = count(0);
    time.ticks = 15;
    expect(count(0)).toBe(stopped);
    w(0x40, 0);
    time.ticks = 16;
    expect([count(0), out(0)]).toEqual([20, false]);
    time.ticks = 36;
    expect(out(0)).toBe(true);
  });

  it('mode 1: a trigger starts the pulse, another one starts it again', () => {
    const { time, program, out, w, status } = timer();
    program(2, 1, 10);
    expect(out(2)).toBe(true);
    expect(status(2) & 0x40).toBe(0x40);
    time.ticks = 50;
    w(0x61, 1);
    time.ticks = 51;
    expect([out(2), status(2) & 0x40]).toEqual([false, 0]);
    time.ticks = 55;
    w(0x61, 0);
    w(0x61, 1);
    time.ticks = 65;
    expect(out(2)).toBe(false);
    time.ticks = 66;
    expect(out(2)).toBe(true);
  });

  it('mode 2: low for the last tick of each period, and a new count waits for the end of it', () => {
    const { time, program, count, out, w } = timer();
    program(0, 2, 4);
    const outputs = Array.from({ length: 9 }, (_, i) => {
      time.ticks = i + 1;
      return out(0) ? count(0) : -count(0);
    });
    expect(outputs).toEqual([4, 3, 2, -1, 4, 3, 2, -1, 4]);
    w(0x40, 3);
    w(0x40, 0);
    const later = Array.from({ length: 7 }, (_, i) => {
      time.ticks = i + 10;
      return count(0);
    });
    expect(later).toEqual([3, 2, 1, 3, 2, 1, 3]);
  });

  it.each([
    [6, [6, 4, 2, -6, -4, -2, 6]],
    [5, [4, 2, 0, -4, -2, 4, 2]],
  ])('mode 3 with %i: counts by two, high for the longer half', (initial, expected) => {
    const { time, program, count, out } = timer();
    program(0, 3, initial);
    const seen = Array.from({ length: 7 }, (_, i) => {
      time.ticks = i + 1;
      return out(0) ? count(0) : -count(0);
    });
    expect(seen).toEqual(expected);
  });

  it('mode 3: a new count waits for the end of the half-period', () => {
    const { time, program, out, w } = timer();
    program(0, 3, 8);
    time.ticks = 2;
    w(0x40, 4);
    w(0x40, 0);
    const seen = Array.from({ length: 10 }, (_, i) => {
      time.ticks = i + 3;
      return out(0) ? 1 : 0;
    });
    // High until tick 5, then low for 2 and high for 2.
    expect(seen).toEqual([1, 1, 0, 0, 1, 1, 0, 0, 1, 1]);
  });

  it('modes 4 and 5: one tick low when the count has run out', () => {
    const { time, program, out, w } = timer();
    program(0, 4, 3);
    program(2, 5, 3);
    w(0x61, 1);
    for (const n of [0, 2]) {
      const seen = Array.from({ length: 6 }, (_, i) => {
        time.ticks = i + 1;
        return out(n) ? 1 : 0;
      });
      expect(seen).toEqual([1, 1, 1, 0, 1, 1]);
      time.ticks = 0;
    }
  });

  it('the gate stops counting in mode 0 and starts modes 2 and 3 again', () => {
    const { time, program, count, out, w } = timer();
    w(0x61, 1);
    program(2, 0, 100);
    time.ticks = 11;
    expect(count(2)).toBe(90);
    w(0x61, 0);
    time.ticks = 50;
    expect(count(2)).toBe(90);
    w(0x61, 1);
    time.ticks = 60;
    expect(count(2)).toBe(80);
    program(2, 2, 10);
    time.ticks = 65;
    w(0x61, 0);
    expect(out(2)).toBe(true);
    time.ticks = 80;
    w(0x61, 1);
    time.ticks = 81;
    expect(count(2)).toBe(10);
  });

  it('counts in BCD', () => {
    const { time, program, count } = timer();
    program(0, 2, 0x1000, 1);
    time.ticks = 2;
    expect(count(0)).toBe(0x0999);
    program(0, 0, 0, 1);
    time.ticks = 3;
    expect(count(0)).toBe(0);
    time.ticks = 4;
    expect(count(0)).toBe(0x9999);
  });

  it('reads and writes one byte if told so', () => {
    const { time, w, r } = timer();
    w(0x43, 0x10);
    w(0x40, 0x34);
    time.ticks = 1;
    expect([r(0x40), r(0x40)]).toEqual([0x34, 0x34]);
    w(0x43, 0x20);
    w(0x40, 0x12);
    time.ticks = 2;
    expect([r(0x40), r(0x40)]).toEqual([0x12, 0x12]);
  });

  it('keeps a latched count until it is read, and latches once', () => {
    const { time, program, w, r } = timer();
    program(0, 2, 0x1000);
    time.ticks = 1;
    w(0x43, 0x00);
    time.ticks = 600;
    w(0x43, 0x00);
    expect([r(0x40), r(0x40)]).toEqual([0x00, 0x10]);
    const live = r(0x40) | (r(0x40) << 8);
    expect(live).toBe(0x1000 - 599);
  });

  it('reads back status first, then the count, of all counters selected', () => {
    const { time, program, w, r } = timer();
    program(0, 2, 0x300);
    program(2, 0, 0x200);
    time.ticks = 1;
    w(0x43, 0xca);
    expect([r(0x40), r(0x40), r(0x40)]).toEqual([0xb4, 0x00, 0x03]);
    expect([r(0x42), r(0x42), r(0x42)]).toEqual([0x30, 0x00, 0x02]);
  });

  it('tells until the next tick that a count is not loaded yet', () => {
    const { time, program, status } = timer();
    program(0, 2, 100);
    expect(status(0) & 0x40).toBe(0x40);
    time.ticks = 1;
    expect(status(0) & 0x40).toBe(0);
  });

  it('port 61H shows gate, refresh and the output of counter 2; port 43H does not read', () => {
    const { time, r, w, program } = timer();
    w(0x61, 0xff);
    expect(r(0x61) & 0xcf).toBe(0x0f);
    program(2, 0, 10);
    expect(r(0x61) & 0x20).toBe(0);
    time.ticks = 18;
    expect(r(0x61) & 0x30).toBe(0x30);
    time.ticks = 36;
    expect(r(0x61) & 0x10).toBe(0);
    expect(r(0x43)).toBe(0xff);
  });

  it('raises its interrupt line at each period, also when several have passed', () => {
    const { device, time, edges, level, program } = timer();
    program(0, 2, 100);
    expect(device.nextEvent()).toBe(at(101));
    time.ticks = 90;
    device.update();
    edges.length = 0;
    time.ticks = 101;
    device.update();
    time.ticks = 555;
    device.update();
    expect(edges).toEqual(['down 101', 'up 101', 'down 555', 'up 555']);
    expect(level()).toBe(true);
  });

  it('finds the next rising edge as stepping tick by tick does', () => {
    const count = fc.integer({ min: 2, max: 40 });
    const action = fc.record({
      wait: fc.integer({ min: 0, max: 60 }),
      mode: fc.option(fc.constantFrom(0, 1, 2, 3, 4, 5)),
      count,
    });
    fc.assert(
      fc.property(fc.array(action, { minLength: 1, maxLength: 5 }), (actions) => {
        const { device, time, program, w } = timer();
        program(0, 2, 30);
        for (const step of actions) {
          time.ticks += step.wait;
          if (step.mode !== null) program(0, step.mode, step.count);
          else {
            w(0x40, step.count);
            w(0x40, 0);
          }
        }
        const promised = device.nextEvent();
        const [counter] = device.snapshot().counters;
        const probe = timer();
        probe.device.restore({ counters: [counter!, counter!, counter!], control: 0, seen: time.ticks });
        probe.time.ticks = time.ticks;
        let before = probe.out(0);
        let risen: number | undefined;
        for (let i = 1; i <= 150 && risen === undefined; i++) {
          probe.time.ticks = time.ticks + i;
          const now = probe.out(0);
          if (now && !before) risen = at(time.ticks + i);
          before = now;
        }
        expect(promised).toBe(risen);
      }),
      { numRuns: 500 },
    );
  });

  it('is exact after a year, and continues from a snapshot', () => {
    const { device, time, program, count } = timer();
    program(0, 2, 1000);
    const year = 1_193_182 * 86_400 * 365;
    time.ticks = year;
    const value = count(0);
    expect(value).toBe(1000 - ((year - 1) % 1000));
    const kept = device.snapshot();
    program(0, 3, 7);
    device.restore(kept);
    expect(count(0)).toBe(value);
  });
});
