import { describe, expect, it } from 'vitest';
import { NO_LOCAL_APIC } from '../../../src/cpu/local-apic.ts';
import type { PhysicalMemory } from '../../../src/cpu/physical-memory.ts';
import type { LogicalProcessor } from '../../../src/machine/logical-processor.ts';
import type { ControlId } from '../../../src/vmcs/controls.ts';
import { virtualizeIpi, writtenIcr, writtenIcrMsr } from '../../../src/vmx/apic/ipi-virtualization.ts';
import { post } from '../../../src/vmx/apic/posted-interrupts.ts';
import { ApicRegister } from '../../../src/vmx/apic/virtual-apic-page.ts';
import { acknowledge, enterX2apic } from '../../support/apic.ts';
import { exitFields, GUEST, runToExit } from '../../support/guest.ts';
import { type GuestProcessor, guestProcessor } from '../../support/vmx-processor.ts';
import {
  ACCESS_PAGE,
  APIC_FIELDS,
  APIC_PAGE,
  apicGuest,
  bitsOf,
  DELIVERY,
  DESCRIPTOR,
  PID_TABLE,
  vectorsAt,
} from './apic-guest.ts';

const { IRR, ICR_LOW, ICR_HIGH } = ApicRegister;
const IPIV: ControlId = 'proc3.ipiVirtualization';
const EXIT = { reason: 56, qualification: 0x300n };
const NOTIFY = 0x00f2_0000;

/** A processor whose PID-pointer table has the descriptor at index 2. */
function sender(controls: readonly ControlId[]): { p: GuestProcessor; sent: string[] } {
  const p = guestProcessor({ controls, fields: APIC_FIELDS });
  const sent: string[] = [];
  p.cpu.localApic = {
    ...NO_LOCAL_APIC,
    sendFixed: (vector, destination) => sent.push(`${vector.toString(16)} to ${destination.toString(16)}`),
  };
  p.cpu.memory.write64(PID_TABLE + 16, BigInt(DESCRIPTOR) | 1n);
  p.cpu.memory.write32(DESCRIPTOR + 32, NOTIFY);
  p.cpu.memory.write32(DESCRIPTOR + 36, 0x0001_0500);
  return { p, sent };
}

const posted = (memory: PhysicalMemory) => vectorsAt(memory, DESCRIPTOR, 4);

describe('posting (SDM §32.1.6.1)', () => {
  it('a notification is sent when ON goes from 0 to 1 and SN is 0', () => {
    const { p } = sender([]);
    const { memory } = p.cpu;
    for (const [control, notifies, after] of [
      [0, true, 1],
      [1, false, 1],
      [2, false, 2],
      [3, false, 3],
    ] as const) {
      memory.write32(DESCRIPTOR + 32, NOTIFY | control);
      const notification = { vector: 0xf2, destination: 0x0001_0500 };
      expect(post(memory, DESCRIPTOR, 0x41)).toEqual(notifies ? notification : undefined);
      expect(memory.read32(DESCRIPTOR + 32)).toBe(NOTIFY | after);
    }
  });

  it('every vector has its bit', () => {
    const { p } = sender([]);
    for (let vector = 0; vector < 256; vector++) {
      p.cpu.memory.writeBytes(DESCRIPTOR, new Uint8Array(32));
      post(p.cpu.memory, DESCRIPTOR, vector);
      expect(posted(p.cpu.memory)).toEqual([vector]);
    }
  });
});

describe('IPI virtualization (SDM §32.1.6)', () => {
  it('every vector: below 16 an APIC-write exit, otherwise posted and notified', () => {
    for (let vector = 0; vector < 256; vector++) {
      const { p, sent } = sender([IPIV, 'proc.useTprShadow']);
      expect(virtualizeIpi(p, p.copy, vector, 2)).toEqual(vector < 16 ? EXIT : undefined);
      expect(posted(p.cpu.memory)).toEqual(vector < 16 ? [] : [vector]);
      expect(sent).toEqual(vector < 16 ? [] : ['f2 to 10500']);
    }
  });

  it('identifiers above the last index exit, up to 32 bits', () => {
    for (const id of [4, 5, 0xff, 0x1_0002, 0xffff_ffff]) {
      const { p, sent } = sender([IPIV, 'proc.useTprShadow']);
      expect(virtualizeIpi(p, p.copy, 0x41, id)).toEqual(EXIT);
      expect([posted(p.cpu.memory), sent]).toEqual([[], []]);
    }
  });

  it('a table entry must be valid, with no reserved bit and no bit beyond the address width', () => {
    const { p } = sender([IPIV, 'proc.useTprShadow']);
    const width = p.cpu.features.physicalAddressBits;
    for (let bit = 0; bit < 64; bit++) {
      p.cpu.memory.write64(PID_TABLE + 16, (BigInt(DESCRIPTOR) | 1n) ^ (1n << BigInt(bit)));
      const exits = bit < 6 || bit >= width;
      expect([bit, virtualizeIpi(p, p.copy, 0x41, 2)]).toEqual([bit, exits ? EXIT : undefined]);
    }
  });

  it('another IPI while ON is 1 sends nothing', () => {
    const { p, sent } = sender([IPIV, 'proc.useTprShadow']);
    virtualizeIpi(p, p.copy, 0x41, 2);
    virtualizeIpi(p, p.copy, 0x42, 2);
    expect(posted(p.cpu.memory)).toEqual([0x41, 0x42]);
    expect(sent).toEqual(['f2 to 10500']);
  });
});

describe('which ICR values are virtualized (SDM §32.4.3.2, §32.5)', () => {
  type Result = 'self' | 'posted' | 'exit';
  const resultOf = (p: GuestProcessor, exit: unknown): Result => {
    if (exit !== undefined) return 'exit';
    return bitsOf(p.cpu.memory, IRR).length > 0 ? 'self' : 'posted';
  };
  /** Bits of the ICR by the manual's lists. */
  const zero = (icr: number, ...fields: readonly (readonly [number, number])[]) =>
    fields.every(([high, low]) => ((icr >>> low) & (2 ** (high - low + 1) - 1)) === 0);
  const isSelf = (icr: number) =>
    zero(icr, [31, 20], [17, 16], [13, 13], [12, 12], [15, 15], [10, 8]) &&
    ((icr >>> 18) & 3) === 1 &&
    ((icr >>> 4) & 15) !== 0;
  const isPosted = (icr: number) =>
    zero(icr, [31, 20], [19, 18], [17, 16], [15, 15], [13, 13], [12, 12], [11, 11], [10, 8]);
  /** Each bit and each pair of bits on top of a self-IPI, an IPI and an illegal vector. */
  const values = new Set<number>();
  for (const base of [0x4_0051, 0x51, 0x4_000f, 0]) {
    for (let a = 0; a < 32; a++) {
      for (let b = a; b < 32; b++) values.add((base ^ (1 << a) ^ (a === b ? 0 : 1 << b)) >>> 0);
    }
    values.add(base);
  }

  for (const [name, controls] of [
    ['neither', ['proc.useTprShadow']],
    ['virtual-interrupt delivery', DELIVERY],
    ['IPI virtualization', ['proc.useTprShadow', IPIV]],
    ['both', [...DELIVERY, IPIV]],
  ] as const) {
    it(`through the page: ${name}`, () => {
      const delivers = (controls as readonly string[]).includes('proc2.virtualInterruptDelivery');
      const posts = (controls as readonly string[]).includes(IPIV);
      const { p } = sender(controls);
      for (const icr of values) {
        p.cpu.memory.writeBytes(APIC_PAGE, new Uint8Array(4096));
        p.cpu.memory.write32(APIC_PAGE + ICR_LOW, icr);
        p.cpu.memory.write32(APIC_PAGE + ICR_HIGH, 0x0200_0000);
        const result = resultOf(p, writtenIcr(p, p.copy));
        const legal = ((icr >>> 4) & 15) !== 0;
        const expected: Result =
          delivers && isSelf(icr) ? 'self' : posts && isPosted(icr) && legal ? 'posted' : 'exit';
        expect([icr.toString(16), result]).toEqual([icr.toString(16), expected]);
      }
    });
  }

  it('by WRMSR: the shorthand "self" is none of them', () => {
    const { p } = sender(['proc2.virtualizeX2apicMode', ...DELIVERY, IPIV]);
    for (const icr of values) {
      p.cpu.memory.writeBytes(APIC_PAGE, new Uint8Array(4096));
      p.cpu.memory.write64(APIC_PAGE + ICR_LOW, (2n << 32n) | BigInt(icr));
      const result = resultOf(p, writtenIcrMsr(p, p.copy));
      const expected: Result = isPosted(icr) && ((icr >>> 4) & 15) !== 0 ? 'posted' : 'exit';
      expect([icr.toString(16), result]).toEqual([icr.toString(16), expected]);
    }
  });
});

describe('IPIs of guest code', () => {
  it('are not virtualized without "activate tertiary controls"', () => {
    const machine = apicGuest('mov [rsi], ebx\nvmcall', 'vmcall', {
      controls: ['proc.useTprShadow', 'proc2.virtualizeApicAccesses', 'proc3.ipiVirtualization'],
      off: ['proc.activateTertiaryControls'],
    });
    const cpu = machine.cpu(0);
    cpu.set('RSI', BigInt(ACCESS_PAGE + ICR_LOW));
    cpu.set('RBX', 0x61n);
    runToExit(cpu);
    expect(exitFields(cpu, 'exitReason', 'exitQualification')).toEqual({
      exitReason: 44n,
      exitQualification: 0x1300n,
    });
  });

  it.each<[string, (cpu: LogicalProcessor) => void, number]>([
    ['xAPIC mode, bits 15:8 of NDST', () => {}, 0x0000_0100],
    ['x2APIC mode, all of NDST', enterX2apic, 0x0000_0001],
  ])('notify the physical APIC in %s', (_, enter, destination) => {
    const machine = apicGuest('wrmsr\nvmcall', 'vmcall', {
      cpus: 2,
      controls: [
        'proc.useTprShadow',
        'proc.useMsrBitmaps',
        'proc2.virtualizeX2apicMode',
        'proc3.ipiVirtualization',
      ],
    });
    const [cpu, other] = [machine.cpu(0), machine.cpu(1)];
    for (const { processor } of [cpu, other]) processor.localApic.store(0xf0, 0x1ff);
    enter(cpu);
    machine.memory.write64(PID_TABLE + 8, BigInt(DESCRIPTOR) | 1n);
    machine.memory.write32(DESCRIPTOR + 32, NOTIFY);
    machine.memory.write32(DESCRIPTOR + 36, destination);
    cpu.set('RCX', 0x830n);
    cpu.set('RAX', 0x61n);
    cpu.set('RDX', 1n);
    runToExit(cpu);
    expect(machine.memory.read32(DESCRIPTOR + 32)).toBe(NOTIFY | 1);
    expect([acknowledge(cpu), acknowledge(other)]).toEqual([undefined, 0xf2]);
  });

  it('WRMSR of 830H posts to the virtual APIC ID in EDX', () => {
    const machine = apicGuest('wrmsr\nvmcall', 'vmcall', {
      controls: [
        'proc.useTprShadow',
        'proc.useMsrBitmaps',
        'proc2.virtualizeX2apicMode',
        'proc3.ipiVirtualization',
      ],
    });
    const cpu = machine.cpu(0);
    machine.memory.write64(PID_TABLE + 8, BigInt(DESCRIPTOR) | 1n);
    for (const [name, value] of [
      ['RCX', 0x830n],
      ['RAX', 0x61n],
      ['RDX', 1n],
    ] as const)
      cpu.set(name, value);
    runToExit(cpu);
    expect(exitFields(cpu, 'exitReason').exitReason).toBe(18n);
    expect(posted(machine.memory)).toEqual([0x61]);
    expect(machine.memory.read64(APIC_PAGE + ICR_LOW)).toBe(0x1_0000_0061n);
  });

  it('stores to ICR high and low post, or exit after the instruction', () => {
    for (const [low, exits] of [
      [0x61, false],
      [0x8_0061, true],
    ] as const) {
      const code = 'mov dword ptr [rsi + 0x10], 0x01ffffff\nmov [rsi], ebx\nvmcall';
      const machine = apicGuest(code, 'vmcall', {
        controls: [
          'proc.useTprShadow',
          'proc2.virtualizeApicAccesses',
          'proc2.apicRegisterVirtualization',
          'proc3.ipiVirtualization',
        ],
      });
      const cpu = machine.cpu(0);
      machine.memory.write64(PID_TABLE + 8, BigInt(DESCRIPTOR) | 1n);
      cpu.set('RSI', BigInt(ACCESS_PAGE + ICR_LOW));
      cpu.set('RBX', BigInt(low));
      runToExit(cpu);
      expect(exitFields(cpu, 'exitReason', 'exitQualification', 'guestRip')).toEqual({
        exitReason: exits ? 56n : 18n,
        exitQualification: exits ? 0x300n : 0n,
        guestRip: BigInt(GUEST + 9),
      });
      expect(posted(machine.memory)).toEqual(exits ? [] : [0x61]);
      expect(machine.memory.read32(APIC_PAGE + ICR_HIGH)).toBe(0x0100_0000);
    }
  });
});
