import { describe, expect, it } from 'vitest';
import type { Machine } from '../../../src/machine/machine.ts';
import {
  acknowledge,
  apicMachine,
  enterX2apic,
  loadApic,
  sendIpi,
  storeApic,
  vectorsOf,
} from '../../support/apic.ts';

const LOGICAL = 1 << 11;
const LOWEST = 1 << 8;
const SHORTHAND = { self: 1 << 18, all: 2 << 18, others: 3 << 18 } as const;

/** CPUs that now take `vector`. */
function takers(machine: Machine, vector = 0x40): number[] {
  return machine.processors.filter((cpu) => acknowledge(cpu) === vector).map((cpu) => cpu.index);
}

const four = () => apicMachine({ cpus: 4 });

describe('physical destinations', () => {
  it.each([
    [0, [0]],
    [3, [3]],
    [4, []],
    [0xff, [0, 1, 2, 3]],
  ])('%i', (destination, expected) => {
    const machine = four();
    sendIpi(machine.cpu(1), 0x40, destination);
    expect(takers(machine)).toEqual(expected);
  });
});

describe('logical destinations', () => {
  /** Each APIC with one bit of the flat model, or its place in a cluster of two. */
  const model = (format: number, destinations: readonly number[]) => {
    const machine = four();
    machine.processors.forEach((cpu, n) => {
      storeApic(cpu, 'DestinationFormat', format);
      storeApic(cpu, 'LogicalDestination', (destinations[n] as number) << 24);
    });
    return machine;
  };

  it.each([
    [0b0001, [0]],
    [0b1010, [1, 3]],
    [0b1_0000, []],
    [0, []],
    [0xff, [0, 1, 2, 3]],
  ])('of the flat model: %i', (destination, expected) => {
    const machine = model(0xffff_ffff, [1, 2, 4, 8]);
    sendIpi(machine.cpu(0), LOGICAL | 0x40, destination);
    expect(takers(machine)).toEqual(expected);
  });

  it.each([
    [0x11, [0]],
    [0x13, [0, 1]],
    [0x23, [2, 3]],
    [0x33, []],
    [0x10, []],
    [0xf1, [0, 2]],
    [0xff, [0, 1, 2, 3]],
  ])('of the cluster model: %i', (destination, expected) => {
    const machine = model(0, [0x11, 0x12, 0x21, 0x22]);
    sendIpi(machine.cpu(0), LOGICAL | 0x40, destination);
    expect(takers(machine)).toEqual(expected);
  });
});

describe('shorthands', () => {
  it.each([
    ['self', SHORTHAND.self, [1]],
    ['all', SHORTHAND.all, [0, 1, 2, 3]],
    ['all but self', SHORTHAND.others, [0, 2, 3]],
  ])('%s', (_, shorthand, expected) => {
    const machine = four();
    sendIpi(machine.cpu(1), shorthand | 0x40, 2);
    expect(takers(machine)).toEqual(expected);
  });

  /** Every delivery mode with every shorthand, from CPU 1 of two: what arrives at CPU 0 and at CPU 1. */
  const ARRIVES = [
    'vector',
    'vector',
    'smiPending',
    undefined,
    'nmiPending',
    'initPending',
    'sipiPending',
    undefined,
  ];
  it.each(
    ARRIVES.flatMap((what, mode) =>
      Object.entries(SHORTHAND).map(([name, bits]) => [mode, name, bits, what] as const),
    ),
  )('delivery mode %i to %s', (mode, name, bits, what) => {
    const machine = apicMachine({ cpus: 2 });
    if (mode === 6) for (const cpu of machine.processors) cpu.set('activityState', 3n);
    sendIpi(machine.cpu(1), bits | (mode << 8) | 0x4040);
    const arrived = machine.processors.map((cpu) => {
      if (vectorsOf(cpu, 'InterruptRequest').length > 0) return 'vector';
      return (['smiPending', 'nmiPending', 'initPending', 'sipiPending'] as const).find(
        (r) => cpu.get(r) !== 0n,
      );
    });
    const valid = name === 'others' || mode === 0;
    expect(arrived).toEqual([
      valid && name !== 'self' ? what : undefined,
      valid && name !== 'others' ? what : undefined,
    ]);
  });
});

describe('delivery modes', () => {
  it('a start-up IPI brings its vector, de-assertion of INIT nothing', () => {
    const machine = apicMachine({ cpus: 2 });
    machine.cpu(1).set('activityState', 3n);
    sendIpi(machine.cpu(0), 0x4699, 1);
    machine.cpu(1).look();
    expect(machine.cpu(1).get('CS.base')).toBe(0x9_9000n);
    sendIpi(machine.cpu(0), 0x8500, 1);
    expect(machine.cpu(1).get('initPending')).toBe(0n);
  });

  it('lowest priority goes to the least busy, and to nobody who is disabled', () => {
    const machine = four();
    const [a, b, c, d] = machine.processors as [never, never, never, never];
    storeApic(a, 'TaskPriority', 0x30);
    storeApic(b, 'TaskPriority', 0x20);
    sendIpi(c, SHORTHAND.self | 0x60);
    storeApic(d, 'SpuriousInterruptVector', 0xff);
    sendIpi(a, LOWEST | 0x40, 0xff);
    expect(takers(machine)).toEqual([1]);
    storeApic(b, 'TaskPriority', 0x30);
    sendIpi(a, LOWEST | 0x50, 0xff);
    expect(takers(machine, 0x50)).toEqual([0]);
  });

  it('a vector below 16 is not sent', () => {
    const machine = apicMachine({ cpus: 2 });
    for (const mode of [0, LOWEST]) sendIpi(machine.cpu(0), mode | 5, 1);
    storeApic(machine.cpu(0), 'ErrorStatus', 0);
    storeApic(machine.cpu(1), 'ErrorStatus', 0);
    expect(machine.processors.map((cpu) => loadApic(cpu, 'ErrorStatus'))).toEqual([0x20, 0]);
  });

  it('nothing reaches a processor without APIC', () => {
    const machine = apicMachine({ cpus: 2 });
    machine.cpu(1).wrmsr(0x1b, 0xfee0_0000n);
    for (const command of [0x40, 0x4400, 0x4500]) sendIpi(machine.cpu(0), SHORTHAND.others | command);
    expect(['nmiPending', 'initPending'].map((r) => machine.cpu(1).get(r as 'nmiPending'))).toEqual([0n, 0n]);
  });
});

describe('in x2APIC mode', () => {
  const many = () => {
    const machine = apicMachine({ cpus: 20 });
    for (const cpu of machine.processors) enterX2apic(cpu);
    return machine;
  };
  const send = (machine: Machine, from: number, low: number, destination: number) =>
    machine.cpu(from).wrmsr(0x830, (BigInt(destination) << 32n) | BigInt(low));
  const ALL = Array.from({ length: 20 }, (_, n) => n);

  it.each([
    ['physical', 0x40, 18, [18]],
    ['physical, nobody', 0x40, 0xff, []],
    ['everybody', 0x40, 0xffff_ffff, ALL],
    ['a cluster', LOGICAL | 0x40, 0x0001_000a, [17, 19]],
    ['the first cluster', LOGICAL | 0x40, 0x0000_8001, [0, 15]],
    ['no cluster', LOGICAL | 0x40, 0x0002_ffff, []],
    ['everybody, logical', LOGICAL | 0x40, 0xffff_ffff, ALL],
    ['all but self', SHORTHAND.others | 0x40, 0, ALL.filter((n) => n !== 2)],
  ])('%s', (_, low, destination, expected) => {
    const machine = many();
    expect(send(machine, 2, low, destination)).toBe('ok');
    expect(takers(machine)).toEqual(expected);
    expect(machine.cpu(2).rdmsr(0x830)).toBe((BigInt(destination) << 32n) | BigInt(low));
  });

  it('the logical identifier follows from the other', () => {
    const machine = many();
    expect([0, 15, 16, 19].map((n) => machine.cpu(n).rdmsr(0x80d))).toEqual([
      1n,
      0x8000n,
      0x1_0001n,
      0x1_0008n,
    ]);
  });

  it('SELF IPI sends a fixed interrupt', () => {
    const machine = many();
    expect(machine.cpu(3).wrmsr(0x83f, 0x40n)).toBe('ok');
    expect(takers(machine)).toEqual([3]);
    expect(machine.cpu(3).wrmsr(0x83f, 5n)).toBe('ok');
    machine.cpu(3).wrmsr(0x828, 0n);
    expect(machine.cpu(3).rdmsr(0x828)).toBe(0x20n);
  });

  it('APICs of both modes reach each other', () => {
    const machine = four();
    enterX2apic(machine.cpu(1));
    sendIpi(machine.cpu(0), 0x40, 1);
    expect(takers(machine)).toEqual([1]);
    machine.cpu(1).wrmsr(0x830, 0x3_0000_0050n);
    expect(takers(machine, 0x50)).toEqual([3]);
    storeApic(machine.cpu(2), 'LogicalDestination', 4 << 24);
    sendIpi(machine.cpu(0), LOGICAL | 0x60, 0b110);
    expect(takers(machine, 0x60)).toEqual([1, 2]);
  });
});
