import { describe, expect, it } from 'vitest';
import type { InterruptMessage } from '../../../src/machine/apic/interrupt-message.ts';
import { IoApic } from '../../../src/machine/devices/io-apic.ts';
import type { Machine } from '../../../src/machine/machine.ts';
import { acknowledge, apicMachine, loadApic, sendIpi, storeApic } from '../../support/apic.ts';

const BASE = 0xfec0_0000;
const LEVEL = 1 << 15;
const ACTIVE_LOW = 1 << 13;
const MASKED = 1 << 16;
const REMOTE_IRR = 1 << 14;
const PENDING = 1 << 12;
const LOGICAL = 1 << 11;

function made(accepts = true) {
  const sent: InterruptMessage[] = [];
  const apic = { accepts };
  const io = new IoApic((message) => {
    sent.push(message);
    return apic.accepts;
  });
  const write = (register: number, value: number) => {
    io.store(BASE, register);
    io.store(BASE + 0x10, value >>> 0);
  };
  const read = (register: number) => {
    io.store(BASE, register);
    return io.load(BASE + 0x10) >>> 0;
  };
  return { io, sent, apic, write, read, entry: (input: number, low: number) => write(0x10 + 2 * input, low) };
}

describe('registers of the I/O APIC', () => {
  it.each([
    ['identifier', 0, 0xffff_ffff, 0x0f00_0000],
    ['version', 1, 0, 0x0017_0020],
    ['redirection, low half', 0x10, 0xffff_ffff, 0x1_afff],
    ['redirection, high half', 0x3f, 0xffff_ffff, 0xff00_0000],
    ['beyond the last', 0x40, 0xffff_ffff, 0],
  ])('%s', (_, register, written, value) => {
    const { read, write } = made();
    write(register, written);
    expect(read(register)).toBe(value);
  });

  it('show the selected one, which has eight bits, and all entries masked at first', () => {
    const { io, read } = made();
    io.store(BASE, 0x1ff);
    expect(io.load(BASE)).toBe(0xff);
    for (let input = 0; input < 24; input++) expect(read(0x10 + 2 * input)).toBe(MASKED);
    expect(io.load(BASE + 0x20)).toBe(0);
  });

  it('claim their page', () => {
    const { io } = made();
    expect([BASE - 1, BASE, BASE + 0xfff, BASE + 0x1000].map((a) => io.claims(a))).toEqual([
      false,
      true,
      true,
      false,
    ]);
  });
});

describe('an edge-triggered input', () => {
  it('sends what its entry says at each rising edge', () => {
    const { io, sent, entry, write } = made();
    write(0x11 + 2 * 5, 0x0300_0000);
    entry(5, 0x0941);
    io.drive(5, true);
    io.drive(5, true);
    expect(sent).toEqual([
      { mode: 1, vector: 0x41, isLevel: false, isLogical: true, destination: 3, broadcast: 0xff },
    ]);
    io.drive(5, false);
    io.drive(5, true);
    expect(sent).toHaveLength(2);
  });

  it('loses an edge while it is masked', () => {
    const { io, sent, entry } = made();
    entry(5, MASKED | 0x41);
    io.drive(5, true);
    entry(5, 0x41);
    expect([sent.length, io.accepts(5)]).toEqual([0, true]);
  });

  it('with active-low polarity sends at falling edges', () => {
    const { io, sent, entry } = made();
    io.drive(5, true);
    entry(5, ACTIVE_LOW | 0x41);
    io.drive(5, false);
    expect(sent).toHaveLength(1);
  });
});

describe('a level-triggered input', () => {
  it('sends once, and again after EOI while it is asserted', () => {
    const { io, sent, entry, read } = made();
    entry(9, LEVEL | 0x51);
    io.drive(9, true);
    io.drive(9, false);
    io.drive(9, true);
    expect([sent.length, sent[0]?.isLevel, read(0x10 + 18)]).toEqual([1, true, LEVEL | REMOTE_IRR | 0x51]);
    io.endOfInterrupt(0x50);
    expect(sent).toHaveLength(1);
    io.endOfInterrupt(0x51);
    expect(sent).toHaveLength(2);
    io.drive(9, false);
    io.endOfInterrupt(0x51);
    expect([sent.length, read(0x10 + 18)]).toEqual([2, LEVEL | 0x51]);
  });

  it('sends when it is unmasked, or its polarity makes it asserted', () => {
    const { io, sent, entry } = made();
    entry(9, MASKED | LEVEL | 0x51);
    io.drive(9, true);
    entry(9, LEVEL | 0x51);
    entry(10, ACTIVE_LOW | LEVEL | 0x52);
    expect(sent.map((m) => m.vector)).toEqual([0x51, 0x52]);
  });

  it('ends by the EOI register, and by a change to edge triggering', () => {
    const { io, sent, entry, read } = made();
    entry(9, LEVEL | 0x51);
    io.drive(9, true);
    io.store(BASE + 0x40, 0x51);
    expect(sent).toHaveLength(2);
    entry(9, 0x51);
    expect(read(0x10 + 18)).toBe(0x51);
  });

  it('is not in service where nobody accepts it, or where it is no fixed interrupt', () => {
    const refused = made(false);
    refused.entry(9, LEVEL | 0x51);
    refused.io.drive(9, true);
    expect(refused.read(0x10 + 18)).toBe(LEVEL | PENDING | 0x51);
    const nmi = made();
    nmi.entry(9, LEVEL | 0x400);
    nmi.io.drive(9, true);
    expect([nmi.read(0x10 + 18), nmi.sent[0]?.isLevel, nmi.io.isUnmaskable(9)]).toEqual([
      LEVEL | 0x400,
      false,
      true,
    ]);
  });
});

describe('a level-triggered interrupt that nobody accepts', () => {
  it('is held and sent again until it is accepted, then no more', () => {
    const { io, sent, apic, entry, read } = made(false);
    entry(9, LEVEL | 0x51);
    entry(23, LEVEL | 0x52);
    io.drive(9, true);
    io.drive(23, true);
    io.retry();
    expect([sent.length, read(0x10 + 18), read(0x10 + 46)]).toEqual([
      4,
      LEVEL | PENDING | 0x51,
      LEVEL | PENDING | 0x52,
    ]);
    apic.accepts = true;
    io.retry();
    io.retry();
    expect(sent.slice(4).map((m) => m.vector)).toEqual([0x51, 0x52]);
    expect([read(0x10 + 18), read(0x10 + 46)]).toEqual([
      LEVEL | REMOTE_IRR | 0x51,
      LEVEL | REMOTE_IRR | 0x52,
    ]);
  });

  it.each<[string, (io: ReturnType<typeof made>) => void]>([
    ['its input is no longer asserted', ({ io }) => io.drive(9, false)],
    ['it is masked', ({ entry }) => entry(9, MASKED | LEVEL | 0x51)],
    ['its entry becomes edge-triggered', ({ entry }) => entry(9, 0x51)],
  ])('is not when %s', (_, end) => {
    const held = made(false);
    held.entry(9, LEVEL | 0x51);
    held.io.drive(9, true);
    held.apic.accepts = true;
    end(held);
    const before = held.sent.length;
    held.io.retry();
    expect([held.sent.length, held.read(0x10 + 18) & PENDING]).toEqual([before, 0]);
  });

  it('goes to a new destination at once', () => {
    const { io, sent, apic, entry, write, read } = made(false);
    entry(9, LEVEL | 0x51);
    io.drive(9, true);
    apic.accepts = true;
    write(0x11 + 18, 0x0200_0000);
    expect([sent.map((m) => m.destination), read(0x10 + 18)]).toEqual([[0, 2], LEVEL | REMOTE_IRR | 0x51]);
  });

  it('one of another delivery mode is not repeated once it was accepted', () => {
    const { io, sent, entry } = made();
    entry(9, LEVEL | 0x400);
    io.drive(9, true);
    io.retry();
    expect(sent).toHaveLength(1);
  });

  it('an edge is lost', () => {
    const { io, sent, apic, entry, read } = made(false);
    entry(9, 0x51);
    io.drive(9, true);
    apic.accepts = true;
    io.retry();
    expect([sent.length, read(0x10 + 18)]).toEqual([1, 0x51]);
  });
});

describe('the I/O APIC of a machine', () => {
  const program = (machine: ReturnType<typeof apicMachine>, input: number, low: number) => {
    machine.platform?.ioApic.store(BASE, 0x10 + 2 * input);
    machine.platform?.ioApic.store(BASE + 0x10, low >>> 0);
  };
  const line = (machine: ReturnType<typeof apicMachine>, n: number, high: number) =>
    machine.platform?.bus.write(0x2000 + n, 1, high);

  it('is reached by the line switch, and ends with the EOI of the local APIC', () => {
    const machine = apicMachine();
    const cpu = machine.cpu(0);
    program(machine, 20, LEVEL | 0x61);
    line(machine, 20, 1);
    expect([acknowledge(cpu), acknowledge(cpu)]).toEqual([0x61, undefined]);
    expect(loadApic(cpu, 'TriggerMode', 3)).toBe(2);
    storeApic(cpu, 'Eoi', 0);
    expect(acknowledge(cpu)).toBe(0x61);
    line(machine, 20, 0);
    storeApic(cpu, 'Eoi', 0);
    expect(acknowledge(cpu)).toBeUndefined();
    expect(machine.platform?.bus.read(0x2014, 1)).toBe(0);
  });

  it('waits for its own EOI where the local APIC suppresses the broadcast', () => {
    const machine = apicMachine();
    const cpu = machine.cpu(0);
    storeApic(cpu, 'SpuriousInterruptVector', 0x11ff);
    program(machine, 20, LEVEL | 0x61);
    line(machine, 20, 1);
    acknowledge(cpu);
    storeApic(cpu, 'Eoi', 0);
    expect(acknowledge(cpu)).toBeUndefined();
    machine.platform?.ioApic.store(BASE + 0x40, 0x61);
    expect(acknowledge(cpu)).toBe(0x61);
  });

  type Change = (cpu: ReturnType<Machine['cpu']>) => void;

  it.each<[string, number, Change, Change]>([
    [
      'is enabled by software',
      0xff,
      (cpu) => storeApic(cpu, 'SpuriousInterruptVector', 0xff),
      (cpu) => storeApic(cpu, 'SpuriousInterruptVector', 0x1ff),
    ],
    [
      'is enabled by IA32_APIC_BASE, then by software',
      0xff,
      (cpu) => cpu.wrmsr(0x1b, 0xfee0_0000n),
      (cpu) => {
        cpu.wrmsr(0x1b, 0xfee0_0800n);
        storeApic(cpu, 'SpuriousInterruptVector', 0x1ff);
      },
    ],
    [
      'has the logical destination',
      4,
      (cpu) => storeApic(cpu, 'LogicalDestination', 0x0200_0000),
      (cpu) => storeApic(cpu, 'LogicalDestination', 0x0400_0000),
    ],
    [
      'has the format of the destination',
      4,
      (cpu) => {
        storeApic(cpu, 'LogicalDestination', 0x0700_0000);
        storeApic(cpu, 'DestinationFormat', 0x0fff_ffff);
        storeApic(cpu, 'LogicalDestination', 0x1400_0000);
      },
      (cpu) => storeApic(cpu, 'DestinationFormat', 0xffff_ffff),
    ],
  ])('holds a level until a local APIC %s', (_, destination, refuse, accept) => {
    const machine = apicMachine();
    const cpu = machine.cpu(0);
    refuse(cpu);
    program(machine, 20, LEVEL | LOGICAL | 0x61);
    machine.platform?.ioApic.store(BASE, 0x11 + 2 * 20);
    machine.platform?.ioApic.store(BASE + 0x10, (destination << 24) >>> 0);
    line(machine, 20, 1);
    const kept = machine.snapshot();
    for (let again = 0; again < 2; again++) {
      expect(acknowledge(cpu)).toBeUndefined();
      accept(cpu);
      expect([acknowledge(cpu), acknowledge(cpu)]).toEqual([0x61, undefined]);
      machine.restore(kept);
    }
  });

  it('an edge-triggered IPI of the same vector tells the I/O APIC nothing', () => {
    const machine = apicMachine();
    const cpu = machine.cpu(0);
    program(machine, 20, LEVEL | 0x61);
    line(machine, 20, 1);
    acknowledge(cpu);
    storeApic(cpu, 'Eoi', 0);
    acknowledge(cpu);
    sendIpi(cpu, 0x4_0061);
    storeApic(cpu, 'Eoi', 0);
    expect([acknowledge(cpu), loadApic(cpu, 'TriggerMode', 3)]).toEqual([0x61, 0]);
  });

  it('line 0 is input 2, and the 8259 pair is behind input 0', () => {
    const machine = apicMachine();
    const cpu = machine.cpu(0);
    program(machine, 2, 0x62);
    line(machine, 0, 1);
    expect(acknowledge(cpu)).toBe(0x62);
    const { bus } = machine.platform as NonNullable<typeof machine.platform>;
    for (const [port, value] of [
      [0x20, 0x11],
      [0x21, 0x30],
      [0x21, 4],
      [0x21, 1],
    ] as const)
      bus.write(port, 1, value);
    program(machine, 0, 0x700);
    line(machine, 7, 1);
    expect([acknowledge(cpu), acknowledge(cpu)]).toEqual([0x37, undefined]);
  });

  it('goes back with a snapshot, and so do lines', () => {
    const machine = apicMachine();
    const cpu = machine.cpu(0);
    program(machine, 20, LEVEL | 0x61);
    line(machine, 20, 1);
    const kept = machine.snapshot();
    acknowledge(cpu);
    line(machine, 20, 0);
    storeApic(cpu, 'Eoi', 0);
    machine.restore(kept);
    expect(acknowledge(cpu)).toBe(0x61);
    storeApic(cpu, 'Eoi', 0);
    expect(acknowledge(cpu)).toBe(0x61);
    expect(machine.platform?.bus.read(0x2014, 1)).toBe(1);
  });
});
