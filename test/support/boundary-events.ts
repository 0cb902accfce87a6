/** Everything that can be due before the first instruction after VM entry: how each is made due, and how a test tells what happened. */
import type { LogicalProcessor } from '../../src/machine/logical-processor.ts';
import type { ControlId } from '../../src/vmcs/controls.ts';
import { ApicRegister } from '../../src/vmx/apic/virtual-apic-page.ts';
import { assemble } from './assemble.ts';
import { GUEST } from './guest.ts';
import { eventGuest, eventId, handlerOf, requestInterrupt } from './guest-events.ts';
import type { FieldValues } from './legal-vmcs.ts';
import { CR4_UINTR } from './user-interrupts.ts';

/** In the state-save area of SMRAM. */
export const SAVED_RIP = 0x3_ffd8;
const APIC_PAGE = 0x9_0000;
const DESCRIPTOR = 0x9_1000;
const TSS = 0x9_2000;
const USER_HANDLER = 0x9_3000;
const VIRTUAL_VECTOR = 0x51;
const TIMER_VECTOR = 0x62;
const POSTED_VECTOR = 0x73;
const NOTIFICATION = 0xf2;
const RSM = Uint8Array.of(0x0f, 0xaa);
const DELIVERY: readonly ControlId[] = [
  'proc.useTprShadow',
  'proc2.virtualInterruptDelivery',
  'pin.externalInterruptExiting',
];

export interface Source {
  readonly name: string;
  readonly controls?: readonly ControlId[];
  readonly fields?: FieldValues;
  /** After VM entry. */
  readonly arrange?: (cpu: LogicalProcessor) => void;
  /** Sources whose controls exclude this one. */
  readonly without?: readonly string[];
}

function setBit(cpu: LogicalProcessor, base: number, vector: number, stride: number): void {
  cpu.processor.memory.write32(base + stride * (vector >> 5), (1 << (vector & 31)) >>> 0);
}

/** Highest priority first. */
export const SOURCES: readonly Source[] = [
  {
    name: 'TPR threshold',
    controls: ['proc.useTprShadow', 'proc2.virtualizeApicAccesses'],
    fields: { virtualApicAddress: BigInt(APIC_PAGE), apicAccessAddress: 0x9_8000n, tprThreshold: 1n },
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
  {
    name: 'guest timer',
    controls: [...DELIVERY, 'proc.useMsrBitmaps', 'proc3.apicTimerVirtualization'],
    fields: {
      virtualApicAddress: BigInt(APIC_PAGE),
      msrBitmapAddress: 0x9_4000n,
      virtualTimerVector: BigInt(TIMER_VECTOR),
      guestDeadline: 1n,
    },
    without: ['TPR threshold'],
  },
  { name: 'interrupt window', controls: ['proc.interruptWindowExiting'] },
  {
    name: 'virtual interrupt',
    controls: DELIVERY,
    fields: { virtualApicAddress: BigInt(APIC_PAGE), guestInterruptStatus: BigInt(VIRTUAL_VECTOR) },
    arrange: (cpu) => setBit(cpu, APIC_PAGE + ApicRegister.IRR, VIRTUAL_VECTOR, 16),
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
    name: 'posted interrupt',
    controls: [...DELIVERY, 'pin.processPostedInterrupts', 'exit.acknowledgeInterruptOnExit'],
    fields: {
      virtualApicAddress: BigInt(APIC_PAGE),
      postedInterruptDescriptorAddress: BigInt(DESCRIPTOR),
      postedInterruptNotificationVector: BigInt(NOTIFICATION),
    },
    arrange: (cpu) => {
      setBit(cpu, DESCRIPTOR, POSTED_VECTOR, 4);
      cpu.processor.memory.write32(DESCRIPTOR + 32, (NOTIFICATION << 16) | 1);
      requestInterrupt(cpu, NOTIFICATION);
    },
    without: ['TPR threshold', 'external interrupt'],
  },
  {
    name: 'user interrupt',
    fields: {
      guestCr4: CR4_UINTR,
      guestCsSelector: 0x23n,
      guestCsAccessRights: 0xa0fbn,
      guestSsSelector: 0x2bn,
      guestSsAccessRights: 0xc0f3n,
      guestTrBase: BigInt(TSS),
    },
    arrange: (cpu) => {
      cpu.processor.memory.write64(TSS + 4, 0x8_8000n);
      cpu.processor.memory.writeBytes(USER_HANDLER, assemble('vmcall', 64, USER_HANDLER));
      cpu.set('IA32_UINTR_HANDLER', BigInt(USER_HANDLER));
      cpu.set('UIF', 1n);
      cpu.set('IA32_UINTR_RR', 1n << 5n);
      cpu.set('userInterruptPending', 1n);
      cpu.processor.requestAttention();
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
  4: 'SIPI',
  7: 'interrupt window',
  8: 'NMI window',
  37: 'monitor trap flag',
  52: 'preemption timer',
};
const HANDLERS: ReadonlyMap<number, string> = new Map([
  [handlerOf(VIRTUAL_VECTOR), 'virtual interrupt'],
  [handlerOf(TIMER_VECTOR), 'guest timer'],
  [handlerOf(POSTED_VECTOR), 'posted interrupt'],
  [USER_HANDLER, 'user interrupt'],
]);

/** What happens first at `rip`: the exit, SMM, or delivery of an interrupt; 'nothing' if nothing does. */
export function firstOf(cpu: LogicalProcessor, rip = GUEST): string {
  const happens = () =>
    cpu.operation !== 'non-root' || cpu.get('RIP') !== BigInt(rip) || requested(cpu) !== undefined;
  for (let n = 0; n < 2 && !happens(); n++) cpu.run(1);
  if (cpu.get('inSmm') === 1n) return 'SMI';
  const atHandler = HANDLERS.get(Number(cpu.get('RIP')));
  const first = cpu.operation === 'non-root' ? atHandler : undefined;
  return first ?? requested(cpu) ?? (cpu.operation === 'non-root' ? 'nothing' : exitOf(cpu));
}

/** What causes no exit but a virtual interrupt, which may be held back. */
function requested({ processor: { memory } }: LogicalProcessor): string | undefined {
  const isSet = (vector: number) =>
    (memory.read32(APIC_PAGE + ApicRegister.IRR + 16 * (vector >> 5)) >>> (vector & 31)) & 1;
  if (isSet(TIMER_VECTOR)) return 'guest timer';
  return isSet(POSTED_VECTOR) ? 'posted interrupt' : undefined;
}

export function exitOf(cpu: LogicalProcessor): string {
  const reason = Number(cpu.vmread('exitReason').value);
  if (reason !== 0) return REASONS[reason] ?? `exit reason ${reason}`;
  const vector = Number(cpu.vmread('exitingEventIdentification').value & 0xffn);
  if (vector === 1 && (cpu.vmread('exitQualification').value & 1n) === 1n) return 'instruction breakpoint';
  return VECTORS[vector] ?? `vector ${vector}`;
}

/** Fields of which each source sets bits of its own. */
const MERGED: readonly string[] = ['exceptionBitmap', 'guestCr4', 'guestInterruptStatus'];

/** Controls and fields under which all of `sources` may be due; `more` comes last. */
export function settingOf(
  sources: readonly Pick<Source, 'controls' | 'fields'>[],
  more: FieldValues = {},
): { controls: readonly ControlId[]; fields: FieldValues } {
  const fields: Record<string, bigint> = {
    guestRflags: 0x202n,
    guestCr4: 0x2060n,
    exceptionBitmap: 0n,
  };
  for (const values of [...sources.map((source) => source.fields ?? {}), more]) {
    for (const [name, value] of Object.entries(values)) {
      fields[name] = MERGED.includes(name) ? (fields[name] ?? 0n) | value : value;
    }
  }
  return { controls: [...new Set(sources.flatMap((source) => source.controls ?? []))], fields };
}

/** A guest about to execute `code` at CPL 0, or 3 for a user interrupt, for which all of `sources` are due. */
export function guestWith(
  sources: readonly Source[],
  more: FieldValues = {},
  code: string | Uint8Array = Uint8Array.of(0x0f, 0x0b),
): LogicalProcessor {
  // Every deadline has passed.
  const setUp = (machine: { cpu(index: number): LogicalProcessor }) => machine.cpu(0).advance(5n);
  const cpu = eventGuest(code, { ...settingOf(sources, more), setUp }).cpu(0);
  for (const { arrange } of sources) arrange?.(cpu);
  return cpu;
}

export const excludedBy = (others: readonly Source[]) => (source: Source) =>
  others.some(({ name }) => source.without?.includes(name) === true);
