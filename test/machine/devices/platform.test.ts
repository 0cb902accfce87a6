import { describe, expect, it } from 'vitest';
import type { PortAccessSize } from '../../../src/cpu/port-space.ts';
import { Platform, type PlatformOptions } from '../../../src/machine/devices/platform.ts';

const MIB = 1024 * 1024;
const GIB = 1024 * MIB;

function platform(options: Partial<PlatformOptions> = {}) {
  const time = { now: 0 };
  const printed: number[] = [];
  const sent: number[] = [];
  const a20: boolean[] = [];
  const made = new Platform({
    ramSize: 64 * MIB,
    cpus: 1,
    now: () => time.now,
    serial: (byte) => sent.push(byte),
    debugConsole: (byte) => printed.push(byte),
    a20: (enabled) => a20.push(enabled),
    ...options,
  });
  return {
    made,
    time,
    printed,
    sent,
    a20,
    r: (port: number, size: PortAccessSize = 1) => made.bus.read(port, size),
    w: (port: number, value: number, size: PortAccessSize = 1) => made.bus.write(port, size, value),
  };
}

describe('the debug console', () => {
  it('prints, and tells by what it reads that it is there', () => {
    const { r, w, printed } = platform();
    w(0xe9, 0x41);
    w(0xe9, 0x4342, 2);
    expect(printed).toEqual([0x41, 0x42]);
    expect([r(0xe9), r(0xe9, 2)]).toEqual([0xe9, 0xffe9]);
  });
});

describe('the exit port', () => {
  it.each([
    [0, 1, 1],
    [0x10, 1, 33],
    [0xffff, 2, 0x1_ffff],
    [0xffff_ffff, 4, 0x1_ffff_ffff],
  ] as const)('value %i of %i bytes is code %i', (value, size, code) => {
    const { made, r, w } = platform();
    expect([made.stop, r(0xf4)]).toEqual([undefined, 0]);
    w(0xf4, value, size);
    expect(made.stop).toEqual({ kind: 'exit-port', code });
  });

  it('the first request to stop counts', () => {
    const { made, w } = platform();
    w(0xf4, 1);
    w(0xf4, 2);
    expect(made.stop).toEqual({ kind: 'exit-port', code: 3 });
  });
});

describe('port 8900H', () => {
  const write = (text: string) => {
    const { made, w } = platform();
    for (const c of text) w(0x8900, c.charCodeAt(0));
    return made.stop;
  };

  it.each(['Shutdown', 'ShutShutdown', 'xxSShutdown'])('%s shuts down', (text) => {
    expect(write(text)).toEqual({ kind: 'shutdown' });
  });

  it.each(['Shutdow', 'shutdown', 'Shut down', 'hutdown'])('%s does not', (text) => {
    expect(write(text)).toBeUndefined();
  });
});

describe('fw_cfg', () => {
  const read = (item: number, length: number, options: Partial<PlatformOptions> = {}) => {
    const { r, w } = platform(options);
    w(0x510, item, 2);
    return Array.from({ length }, () => r(0x511));
  };
  const text = (bytes: readonly number[]) => String.fromCharCode(...bytes);

  it('has signature, id without DMA, sizes and the command line', () => {
    expect(text(read(0, 4))).toBe('QEMU');
    expect(read(1, 5)).toEqual([1, 0, 0, 0, 0]);
    expect(read(3, 8, { ramSize: 5 * GIB })).toEqual([0, 0, 0, 0x40, 1, 0, 0, 0]);
    expect(read(5, 2, { cpus: 3 })).toEqual([3, 0]);
    expect(read(0xf, 2, { cpus: 3 })).toEqual([3, 0]);
    expect(read(0x14, 4, { commandLine: 'a=b' })).toEqual([4, 0, 0, 0]);
    expect(text(read(0x15, 5, { commandLine: 'a=b' }))).toBe('a=b\0\0');
  });

  it('lists its files, and e820 is the memory map', () => {
    const directory = read(0x19, 68);
    expect(directory.slice(0, 12)).toEqual([0, 0, 0, 1, 0, 0, 0, 100, 0, 0x20, 0, 0]);
    expect(text(directory.slice(12)).replaceAll('\0', '')).toBe('etc/e820');
    const view = new DataView(Uint8Array.from(read(0x20, 100)).buffer);
    expect(view.getBigUint64(60, true)).toBe(0x10_0000n);
    expect(view.getBigUint64(68, true)).toBe(63n * 0x10_0000n);
    expect(view.getUint32(76, true)).toBe(1);
  });

  it('starts again with each selection, and gives 0 for what there is not', () => {
    const { r, w } = platform();
    w(0x510, 0, 2);
    expect([r(0x511), r(0x511)]).toEqual([0x51, 0x45]);
    w(0x510, 0x4000, 2);
    expect([r(0x511), r(0x510)]).toEqual([0x51, 0xff]);
    w(0x510, 0x7777, 2);
    expect([r(0x511), r(0x511)]).toEqual([0, 0]);
    expect(r(0x514, 4)).toBe(0xffff_ffff);
  });

  it('ignores writes to an item and a selector of one byte', () => {
    const { r, w } = platform();
    w(0x510, 1, 2);
    w(0x510, 0);
    w(0x511, 0xff);
    expect(r(0x511)).toBe(1);
  });
});

describe('a RESET', () => {
  it.each([
    ['port CF9H', [[0xcf9, 0x06]]],
    [
      'port CF9H',
      [
        [0xcf9, 0x02],
        [0xcf9, 0x0e],
      ],
    ],
    ['port 92H', [[0x92, 0x03]]],
    ['keyboard controller', [[0x64, 0xfe]]],
    [
      'keyboard controller',
      [
        [0x64, 0xd1],
        [0x60, 0xde],
      ],
    ],
  ] as const)('by %s', (by, writes) => {
    const { made, w } = platform();
    for (const [port, value] of writes) {
      expect(made.stop).toBeUndefined();
      w(port, value);
    }
    expect(made.stop).toEqual({ kind: 'reset', by });
  });

  it.each([
    ['CF9H without bit 2', 0xcf9, 0x0a],
    ['port 92H without bit 0', 0x92, 0x02],
    ['a pulse of other lines', 0x64, 0xff],
  ])('not by %s', (_, port, value) => {
    const { made, w, r } = platform();
    w(port, value);
    expect(made.stop).toBeUndefined();
    if (port !== 0x64) expect(r(port)).toBe(value);
  });

  it('needs a rising edge at port 92H and CF9H', () => {
    const { made, w } = platform();
    w(0x92, 3);
    const kept = { ...made.snapshot(), stop: undefined };
    made.restore(kept);
    w(0x92, 3);
    expect(made.stop).toBeUndefined();
    w(0x92, 2);
    w(0x92, 3);
    expect(made.stop).toEqual({ kind: 'reset', by: 'port 92H' });
  });
});

describe('the A20 gate', () => {
  it('is one for port 92H and the keyboard controller', () => {
    const { r, w, a20 } = platform();
    expect(r(0x92)).toBe(2);
    w(0x92, 0);
    w(0x64, 0xd0);
    expect(r(0x60) & 2).toBe(0);
    w(0x64, 0xd1);
    w(0x60, 0xdf);
    expect(r(0x92)).toBe(2);
    expect(a20).toEqual([false, true]);
  });
});

describe('the keyboard controller', () => {
  it('passes its tests and keeps its command byte and memory', () => {
    const { r, w } = platform();
    expect(r(0x64)).toBe(0x14);
    const ask = (command: number) => {
      w(0x64, command);
      expect(r(0x64) & 1).toBe(1);
      const value = r(0x60);
      expect(r(0x64) & 1).toBe(0);
      return value;
    };
    expect([ask(0xaa), ask(0xab), ask(0xa9), ask(0xc0)]).toEqual([0x55, 0, 0, 0xa0]);
    w(0x64, 0x60);
    w(0x60, 0x47);
    expect(ask(0x20)).toBe(0x47);
    for (const [command, expected] of [
      [0xad, 0x57],
      [0xa7, 0x77],
      [0xae, 0x67],
      [0xa8, 0x47],
    ] as const) {
      w(0x64, command);
      expect(ask(0x20)).toBe(expected);
    }
    w(0x64, 0x65);
    w(0x60, 0x99);
    expect([ask(0x25), ask(0x26)]).toEqual([0x99, 0]);
  });

  it('answers for devices that are not there with a time-out', () => {
    const { r, w } = platform();
    w(0x60, 0xff);
    expect(r(0x64) & 0x61).toBe(0x41);
    expect(r(0x60)).toBe(0xfe);
    w(0x64, 0xd4);
    w(0x60, 0xf2);
    expect(r(0x64) & 0x61).toBe(0x61);
    expect(r(0x60)).toBe(0xfe);
  });

  it.each([
    [0xd2, 0x45, 1, 1],
    [0xd3, 0x46, 2, 12],
  ])('command %i puts a byte into its output and interrupts', (command, commandByte, enable, irq) => {
    const { made, r, w } = platform();
    initialise(w);
    w(0x64, 0x60);
    w(0x60, commandByte);
    w(0x64, command);
    w(0x60, 0x77);
    expect(commandByte & enable).toBe(enable);
    expect([made.interrupts.pending, made.interrupts.acknowledge()]).toEqual([true, 0x20 + irq]);
    expect([r(0x60), made.interrupts.pending]).toEqual([0x77, false]);
  });
});

/** Both interrupt controllers at vectors 20H–2FH, the timer masked. */
function initialise(w: (port: number, value: number) => void): void {
  for (const [port, base] of [
    [0x20, 0x20],
    [0xa0, 0x28],
  ] as const) {
    w(port, 0x11);
    for (const value of [base, port === 0x20 ? 4 : 2, 1]) w(port + 1, value);
  }
  w(0x21, 0x01);
}

describe('PCI configuration', () => {
  it('is there, and finds no device', () => {
    const { r, w } = platform();
    w(0xcf8, 0x8000_0000, 4);
    expect([r(0xcf8, 4), r(0xcfc, 4), r(0xcfe, 2), r(0xcfd)]).toEqual([
      0x8000_0000, 0xffff_ffff, 0xffff, 0xff,
    ]);
    w(0xcf8, 0xffff_ffff, 4);
    expect(r(0xcf8, 4)).toBe(0x80ff_fffc);
    w(0xcf8, 0x12);
    w(0xcfc, 0, 4);
    expect([r(0xcf8, 4), r(0xcfc, 4), r(0xcf8)]).toEqual([0x80ff_fffc, 0xffff_ffff, 0xff]);
  });
});

describe('the platform', () => {
  it('has sizes of memory in battery-backed memory', () => {
    const cmos = (ramSize: number, register: number) => {
      const { r, w } = platform({ ramSize, cpus: 4 });
      const byte = (n: number) => {
        w(0x70, n);
        return r(0x71);
      };
      return byte(register) | (byte(register + 1) << 8);
    };
    expect(cmos(64 * MIB, 0x15)).toBe(640);
    expect(cmos(32 * MIB, 0x17)).toBe(31 * 1024);
    expect(cmos(512 * MIB, 0x30)).toBe(0xffff);
    expect(cmos(512 * MIB, 0x34)).toBe((496 * MIB) / 0x1_0000);
    expect(cmos(8 * MIB, 0x34)).toBe(0);
    expect(cmos(5 * GIB, 0x5b)).toBe(0x8000);
    expect(cmos(64 * MIB, 0x5f) & 0xff).toBe(3);
  });

  it('wires timer, serial port and clock to requests 0, 4 and 8', () => {
    const { made, w, time, r } = platform();
    initialise(w);
    w(0x3fc, 8);
    w(0x3f9, 1);
    made.serial.receive([0x55]);
    expect([made.interrupts.pending, made.interrupts.acknowledge()]).toEqual([true, 0x24]);
    w(0x20, 0x20);
    expect(r(0x3f8)).toBe(0x55);
    w(0x70, 0x0b);
    w(0x71, 0x12);
    expect(made.nextEvent()).toBeLessThanOrEqual(1_000_000_000);
    time.now = 1_000_000_000;
    expect([made.interrupts.pending, made.interrupts.acknowledge()]).toEqual([true, 0x28]);
    w(0xa0, 0x20);
    w(0x20, 0x20);
    w(0x43, 0x34);
    w(0x40, 100);
    w(0x40, 0);
    w(0x21, 0);
    time.now = made.nextEvent()!;
    expect([made.interrupts.pending, made.interrupts.acknowledge()]).toEqual([true, 0x20]);
  });

  it('continues from a snapshot: the same accesses give the same answers', () => {
    const { made, r, w, time } = platform();
    initialise(w);
    const ports = [0x20, 0x21, 0x40, 0x42, 0x60, 0x61, 0x64, 0x71, 0x92, 0xa1, 0x3f8, 0x3fa, 0x3fd, 0x511];
    const script = () =>
      ports.flatMap((port, i) => {
        time.now += 12_345;
        w(port, (i * 37) & 0xfe);
        return [r(port), r(port)];
      });
    time.now = 777;
    const kept = made.snapshot();
    const first = script();
    time.now = 777;
    made.restore(kept);
    expect(script()).toEqual(first);
  });
});
