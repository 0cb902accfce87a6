import { describe, expect, it } from 'vitest';
import type { LogicalProcessor } from '../../../src/machine/logical-processor.ts';
import type { ControlId } from '../../../src/vmcs/controls.ts';
import { GUEST } from '../../support/guest.ts';
import { eventGuest, eventId, handlerOf, requestInterrupt } from '../../support/guest-events.ts';
import type { FieldValues } from '../../support/legal-vmcs.ts';

/** In the state-save area of SMRAM. */
const SAVED_RIP = 0x3_ffd8;
const VIRTUAL_VECTOR = 0x51;
const RSM = Uint8Array.of(0x0f, 0xaa);

interface Source {
  readonly name: string;
  readonly controls?: readonly ControlId[];
  readonly fields?: FieldValues;
  readonly arrange?: (cpu: LogicalProcessor) => void;
  /** Sources whose controls exclude this one. */
  readonly without?: readonly string[];
}

/** Everything that can be due before the first instruction after VM entry, highest priority first. */
const SOURCES: readonly Source[] = [
  {
    name: 'TPR threshold',
    controls: ['proc.useTprShadow', 'proc2.virtualizeApicAccesses'],
    fields: { virtualApicAddress: 0x9_0000n, apicAccessAddress: 0x9_8000n, tprThreshold: 1n },
  },
  {
    name: 'machine check',
    fields: { exceptionBitmap: 1n << 18n },
    arrange: ({ processor }) => processor.requestMachineCheck(),
  },
  {
    name: 'SMI',
    arrange: ({ processor }) => {
      processor.memory.writeBytes(0x3_8000, RSM);
      processor.requestSmi();
    },
  },
  { name: 'INIT', arrange: ({ processor }) => processor.requestInit() },
  { name: 'monitor trap flag', fields: { injectedEventIdentification: eventId(7, 0) } },
  {
    name: 'debug trap',
    fields: { exceptionBitmap: 1n << 1n, guestPendingDebugExceptions: 0x4000n },
  },
  { name: 'preemption timer', controls: ['pin.activateVmxPreemptionTimer'] },
  {
    name: 'NMI window',
    controls: ['pin.nmiExiting', 'pin.virtualNmis', 'proc.nmiWindowExiting'],
  },
  { name: 'NMI', controls: ['pin.nmiExiting'], arrange: ({ processor }) => processor.requestNmi() },
  { name: 'interrupt window', controls: ['proc.interruptWindowExiting'] },
  {
    name: 'virtual interrupt',
    controls: ['proc.useTprShadow', 'proc2.virtualInterruptDelivery', 'pin.externalInterruptExiting'],
    fields: { virtualApicAddress: 0x9_0000n, guestInterruptStatus: BigInt(VIRTUAL_VECTOR) },
    arrange: ({ processor: { memory } }) =>
      memory.write32(0x9_0000 + 0x200 + 0x20, 1 << (VIRTUAL_VECTOR & 31)),
    without: ['TPR threshold', 'interrupt window'],
  },
  {
    name: 'external interrupt',
    controls: ['pin.externalInterruptExiting'],
    arrange: (cpu) => {
      requestInterrupt(cpu, 0x40);
    },
  },
  {
    name: 'instruction breakpoint',
    fields: { exceptionBitmap: 1n << 1n },
    arrange: (cpu) => {
      cpu.set('DR0', BigInt(GUEST));
      cpu.set('DR7', 0x401n);
    },
  },
  { name: 'fault', fields: { exceptionBitmap: 1n << 6n } },
];

const VECTORS: Readonly<Record<number, string>> = {
  1: 'debug trap',
  2: 'NMI',
  6: 'fault',
  18: 'machine check',
};
const REASONS: Readonly<Record<number, string>> = {
  1: 'external interrupt',
  43: 'TPR threshold',
  3: 'INIT',
  7: 'interrupt window',
  8: 'NMI window',
  37: 'monitor trap flag',
  52: 'preemption timer',
};

/** What happens first: the exit, SMM, or delivery of the virtual interrupt. */
function firstOf(cpu: LogicalProcessor): string {
  for (let n = 0; n < 2 && cpu.operation === 'non-root' && cpu.get('RIP') === BigInt(GUEST); n++) cpu.run(1);
  if (cpu.get('inSmm') === 1n) return 'SMI';
  if (cpu.get('RIP') === BigInt(handlerOf(VIRTUAL_VECTOR))) return 'virtual interrupt';
  return exitOf(cpu);
}

function exitOf(cpu: LogicalProcessor): string {
  const reason = Number(cpu.vmread('exitReason').value);
  if (reason !== 0) return REASONS[reason] ?? `exit reason ${reason}`;
  const vector = Number(cpu.vmread('exitingEventIdentification').value & 0xffn);
  if (vector === 1 && cpu.vmread('exitQualification').value === 1n) return 'instruction breakpoint';
  return VECTORS[vector] ?? `vector ${vector}`;
}

/** A guest about to execute UD2 for which all of `sources` are due. */
function guestWith(...sources: readonly Source[]): LogicalProcessor {
  const fields: Record<string, bigint> = {
    guestRflags: 0x202n,
    guestCr4: 0x2060n,
    exceptionBitmap: 0n,
  };
  const all = sources.map((source) => source.fields ?? {});
  for (const more of all) {
    for (const [name, value] of Object.entries(more)) {
      fields[name] = name === 'exceptionBitmap' ? (fields[name] ?? 0n) | value : value;
    }
  }
  const controls = [...new Set(sources.flatMap((source) => source.controls ?? []))];
  const cpu = eventGuest(Uint8Array.of(0x0f, 0x0b), { controls, fields }).cpu(0);
  for (const { arrange } of sources) arrange?.(cpu);
  return cpu;
}

const excludedBy = (others: readonly Source[]) => (source: Source) =>
  others.some(({ name }) => source.without?.includes(name) === true);

describe('events of one instruction boundary (SDM vol. 3A Table 7-2; SDM §28.2, §28.5.1, §28.5.2, §29.7.3–§29.7.8)', () => {
  it.each(SOURCES.map((source) => [source.name, source] as const))('%s alone happens', (name, source) => {
    const cpu = guestWith(source);
    expect(firstOf(cpu)).toBe(name);
    if (name === 'virtual interrupt') expect(cpu.operation).toBe('non-root');
    else if (name === 'SMI') expect(cpu.processor.memory.read32(SAVED_RIP)).toBe(GUEST);
    else expect(cpu.vmread('guestRip').value).toBe(BigInt(GUEST));
  });

  const pairs = SOURCES.flatMap((first, n) =>
    SOURCES.slice(n + 1).map((second) => [first, second] as const),
  ).filter(([first, second]) => ![first, second].some(excludedBy([first, second])));

  it.each(pairs.map(([first, second]) => [first.name, second.name, first, second] as const))(
    '%s comes before %s',
    (name, _, first, second) => {
      for (const order of [
        [first, second],
        [second, first],
      ]) {
        const cpu = guestWith(...order);
        expect(firstOf(cpu)).toBe(name);
      }
    },
  );

  it('all at once happen in this order, one after the other', () => {
    const sources = SOURCES.filter(({ name }) => name !== 'virtual interrupt');
    const cpu = guestWith(...sources);
    const seen: string[] = [];
    const off = (field: 'pinBasedControls' | 'primaryProcessorBasedControls', bit: bigint) =>
      cpu.vmwrite(field, cpu.vmread(field).value & ~(1n << bit));
    // What software does about each exit before it resumes the guest.
    const after: Readonly<Record<string, () => void>> = {
      'TPR threshold': () => cpu.vmwrite('tprThreshold', 0n),
      'preemption timer': () => off('pinBasedControls', 6n),
      'NMI window': () => off('primaryProcessorBasedControls', 22n),
      'interrupt window': () => off('primaryProcessorBasedControls', 2n),
      'external interrupt': () => {
        off('pinBasedControls', 0n);
        cpu.processor.interrupts.acknowledge();
      },
    };
    for (let n = 0; n < sources.length; n++) {
      const exit = firstOf(cpu);
      seen.push(exit);
      if (exit === 'SMI') {
        cpu.run(1);
        continue;
      }
      after[exit]?.();
      if (exit === 'fault') break;
      // What the exit loses is given anew: a pending MTF exit, pending debug exceptions, DR7.
      if (n < 4) cpu.vmwrite('injectedEventIdentification', eventId(7, 0));
      if (n < 5) cpu.vmwrite('guestPendingDebugExceptions', 0x4000n);
      expect(cpu.vmresume().kind).toBe('VMentry');
      if (exit !== 'instruction breakpoint') cpu.set('DR7', 0x401n);
    }
    expect(seen).toEqual(sources.map(({ name }) => name));
  });
});
