import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { dateOf, dayOfWeek, secondsOf } from '../../../src/machine/devices/calendar.ts';
import { RealTimeClock } from '../../../src/machine/devices/real-time-clock.ts';

const SECOND = 1_000_000_000;

function clock(date: string) {
  const time = { now: 0 };
  let level = false;
  const device = new RealTimeClock(
    () => time.now,
    (asserted) => {
      level = asserted;
    },
    Date.parse(date) / 1000,
    [[0x5f, 3]],
  );
  const r = (register: number) => {
    device.write(0x70, 1, register);
    return device.read(0x71);
  };
  const w = (register: number, value: number) => {
    device.write(0x70, 1, register);
    device.write(0x71, 1, value);
  };
  return {
    device,
    time,
    r,
    w,
    interrupt: () => level,
    /** Century, year, month, day, weekday, hours, minutes, seconds in hexadecimal. */
    shown: () => [0x32, 9, 8, 7, 6, 4, 2, 0].map((n) => r(n).toString(16)).join(' '),
  };
}

describe('the calendar', () => {
  it('agrees with the one of the language for 4000 years', () => {
    const range = { min: Date.parse('-000100-01-01') / 1000, max: Date.parse('3900-01-01') / 1000 };
    fc.assert(
      fc.property(fc.integer(range), (seconds) => {
        const expected = new Date(seconds * 1000);
        const date = dateOf(seconds);
        expect(date).toEqual({
          year: expected.getUTCFullYear(),
          month: expected.getUTCMonth() + 1,
          day: expected.getUTCDate(),
          hours: expected.getUTCHours(),
          minutes: expected.getUTCMinutes(),
          seconds: expected.getUTCSeconds(),
        });
        expect(dayOfWeek(seconds)).toBe(expected.getUTCDay() + 1);
        expect(secondsOf(date)).toBe(seconds);
      }),
    );
  });
});

describe('the real-time clock', () => {
  it('shows the date in BCD and 24 hours, and goes with virtual time', () => {
    const { shown, time } = clock('2027-12-31T23:59:58Z');
    expect(shown()).toBe('20 27 12 31 6 23 59 58');
    time.now = 2 * SECOND - 1;
    expect(shown()).toBe('20 27 12 31 6 23 59 59');
    time.now = 2 * SECOND;
    expect(shown()).toBe('20 28 1 1 7 0 0 0');
    time.now += 60 * 86_400 * SECOND;
    expect(shown()).toBe('20 28 3 1 4 0 0 0');
  });

  it('shows binary and 12 hours once it has been set that way', () => {
    const { shown, time, w, r } = clock('2026-01-01T00:00:00Z');
    w(0xb, 0x84);
    for (const [register, value] of [
      [0, 58],
      [2, 59],
      [4, 11],
      [7, 30],
      [8, 11],
      [9, 99],
      [0x32, 19],
    ] as const) {
      w(register, value);
    }
    time.now = 500 * SECOND;
    expect(r(0)).toBe(58);
    w(0xb, 0x04);
    time.now += 2 * SECOND;
    expect(shown()).toBe('13 63 b 1e 3 8c 0 0');
    time.now += 12 * 3600 * SECOND;
    expect(r(4)).toBe(12);
  });

  it('stands still with the divider in reset, and goes on half a second after its release', () => {
    const { w, r, time } = clock('2026-01-01T00:00:00Z');
    w(0xa, 0x70);
    time.now = 100 * SECOND;
    expect(r(0)).toBe(0);
    w(0xa, 0x26);
    time.now += 0.5 * SECOND - 1;
    expect(r(0)).toBe(0);
    time.now += 1;
    expect(r(0)).toBe(1);
  });

  it('announces updates', () => {
    const { r, w, time } = clock('2026-01-01T00:00:00Z');
    expect(r(0xa)).toBe(0x26);
    time.now = SECOND - 2_228_000;
    expect(r(0xa)).toBe(0xa6);
    w(0xa, 0xff);
    expect(r(0xa)).toBe(0x7f);
    w(0xa, 0x26);
    time.now += SECOND;
    w(0xb, 0x82);
    time.now += SECOND - 1;
    expect(r(0xa)).toBe(0x26);
  });

  it('has flags for update, alarm and period that reading clears', () => {
    const { r, w, time, interrupt } = clock('2026-01-01T10:00:00Z');
    expect([r(0xd), r(0xc)]).toEqual([0x80, 0]);
    w(1, 0x05);
    w(3, 0x00);
    w(5, 0x10);
    time.now = SECOND;
    expect([r(0xc), r(0xc)]).toEqual([0x50, 0]);
    time.now = 10 * SECOND;
    expect(r(0xc)).toBe(0x70);
    time.now = 11 * SECOND;
    expect(r(0xc)).toBe(0x50);
    expect(interrupt()).toBe(false);
    w(0xc, 0xff);
    w(0xd, 0);
    expect([r(0xc), r(0xd)]).toEqual([0, 0x80]);
  });

  it.each([
    ['update', 0x12, 0x90],
    ['alarm every second', 0x22, 0xa0],
    ['periodic', 0x42, 0xc0],
  ])('interrupts: %s', (_, b, flags) => {
    const { r, w, time, interrupt, device } = clock('2026-01-01T10:00:00Z');
    for (const register of [1, 3, 5]) w(register, 0xff);
    expect(device.nextEvent()).toBeUndefined();
    w(0xb, b);
    const next = device.nextEvent()!;
    expect(next).toBe(b === 0x42 ? Math.ceil(SECOND / 1024) : SECOND);
    time.now = next - 1;
    device.update();
    expect(interrupt()).toBe(false);
    time.now = next;
    device.update();
    expect(interrupt()).toBe(true);
    expect(r(0xc) & flags).toBe(flags);
    expect(interrupt()).toBe(false);
  });

  it('has no period with rate 0 or without its divider', () => {
    const { r, w, time, device } = clock('2026-01-01T10:00:00Z');
    w(0xb, 0x42);
    w(0xa, 0x20);
    expect(device.nextEvent()).toBeUndefined();
    time.now = SECOND / 2;
    expect(r(0xc)).toBe(0);
    w(0xa, 0x21);
    expect(device.nextEvent()).toBe(SECOND / 2 + SECOND / 256);
  });

  it('keeps memory, masks NMI by bit 7 of its index, and the index does not read', () => {
    const { device, r, w } = clock('2026-01-01T10:00:00Z');
    w(0x40, 0x5a);
    expect([r(0x40), r(0x5f), r(0x41)]).toEqual([0x5a, 3, 0]);
    device.write(0x70, 1, 0xc0);
    expect([device.nmiMasked, device.read(0x70), device.read(0x71)]).toEqual([true, 0xff, 0x5a]);
    device.write(0x70, 1, 0x40);
    expect(device.nmiMasked).toBe(false);
  });

  it('never fails on what software puts into it', () => {
    const action = fc.record({
      register: fc.nat(0x3f),
      value: fc.nat(0xff),
      wait: fc.constantFrom(0, 1000, SECOND, 100_000 * SECOND),
    });
    fc.assert(
      fc.property(fc.array(action, { maxLength: 40 }), (actions) => {
        const { w, r, time } = clock('2026-01-01T10:00:00Z');
        for (const { register, value, wait } of actions) {
          w(register, value);
          time.now += wait;
          for (let n = 0; n < 0x40; n++) {
            const read = r(n);
            expect(Number.isInteger(read) && read >= 0 && read <= 0xff).toBe(true);
          }
        }
      }),
      { numRuns: 60 },
    );
  });

  it('continues from a snapshot', () => {
    const { device, shown, time, w } = clock('2026-06-30T10:00:00Z');
    const kept = device.snapshot();
    time.now = 5 * SECOND;
    const then = shown();
    w(0, 0x33);
    device.restore(kept);
    expect(shown()).toBe(then);
  });
});
