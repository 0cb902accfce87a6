import { describe, expect, it } from 'vitest';
import type { MachineStop } from '../../../src/machine/devices/machine-stop.ts';
import { PowerManagement } from '../../../src/machine/devices/power-management.ts';

const SECOND = 1_000_000_000;

function made() {
  const time = { now: 0 };
  const line = { high: false };
  const stops: MachineStop[] = [];
  const device = new PowerManagement(
    () => time.now,
    (high) => {
      line.high = high;
    },
    (stop) => stops.push(stop),
  );
  return { device, time, line, stops };
}

describe('the ACPI timer', () => {
  it('counts 3.579545 MHz in 32 bits', () => {
    const { device, time } = made();
    time.now = SECOND;
    expect(device.read(0x608, 4)).toBe(3_579_545);
    expect([0x608, 0x609, 0x60a, 0x60b].map((port) => device.read(port, 1))).toEqual([0x99, 0x9e, 0x36, 0]);
    time.now = 1300 * SECOND;
    expect(device.read(0x608, 4)).toBe(Math.floor((1300 * SECOND * 315) / 88_000) % 2 ** 32);
    device.write(0x608, 4, 0);
    expect(device.read(0x608, 4)).not.toBe(0);
  });

  it('sets its status when the highest bit changes, and interrupts where that is enabled', () => {
    const { device, time, line } = made();
    const half = Math.ceil((2 ** 31 * 88_000) / 315);
    expect(device.nextEvent()).toBeUndefined();
    device.write(0x602, 2, 0xffff);
    expect([device.read(0x602, 2), device.nextEvent()]).toEqual([0x521, half]);
    time.now = half - 1;
    device.update();
    expect([device.read(0x600, 2), line.high]).toEqual([0, false]);
    time.now = half;
    device.update();
    expect([device.read(0x600, 2), line.high, device.nextEvent()]).toEqual([1, true, undefined]);
    device.write(0x600, 2, 0xfffe);
    expect(line.high).toBe(true);
    device.write(0x600, 2, 1);
    expect([line.high, device.nextEvent()]).toEqual([false, Math.ceil((2 ** 32 * 88_000) / 315)]);
    time.now = 2 * half + 10;
    const kept = device.snapshot();
    device.update();
    expect(device.read(0x600, 1)).toBe(1);
    device.restore(kept);
    expect(device.read(0x600, 1)).toBe(1);
  });
});

describe('the control register', () => {
  it('is in ACPI mode and keeps the sleep type', () => {
    const { device, stops } = made();
    device.write(0x604, 2, 0x1400);
    expect([device.read(0x604, 2), device.read(0x606, 2), stops]).toEqual([0x1401, 0, []]);
  });

  it.each([
    [5, 1],
    [1, 0],
    [0, 0],
  ])('sleep type %i stops the machine %i times', (type, times) => {
    const { device, stops } = made();
    device.write(0x604, 2, 0x2000 | (type << 10));
    expect(stops).toEqual(new Array(times).fill({ kind: 'shutdown' }));
  });

  it('takes both halves one by one', () => {
    const { device, stops } = made();
    device.write(0x605, 1, 0x34);
    expect(stops).toEqual([{ kind: 'shutdown' }]);
  });
});
