import { describe, expect, it } from 'vitest';
import type { LogicalProcessor } from '../../../src/machine/logical-processor.ts';
import type { ControlId } from '../../../src/vmcs/controls.ts';
import { ApicRegister } from '../../../src/vmx/apic/virtual-apic-page.ts';
import { firstOf, SOURCES, type Source, settingOf } from '../../support/boundary-events.ts';
import { exitFields, GUEST } from '../../support/guest.ts';
import { eventGuest } from '../../support/guest-events.ts';
import type { FieldValues } from '../../support/legal-vmcs.ts';

const APIC_PAGE = 0x9_0000;
const ACCESS_PAGE = 0x9_8000;
const DELIVERY: readonly ControlId[] = ['proc2.virtualInterruptDelivery', 'pin.externalInterruptExiting'];
const BY_MOV_SS = 2n;

/** An exit that follows the instruction which asks for it: `mov [rsi], ebx` or, of bus locks, `xchg [rsi], ebx`. */
interface TrapLike {
  readonly name: string;
  readonly code: string;
  readonly reason: bigint;
  readonly qualification: bigint;
  /** RSI and fields with which it exits; with the others it does not. */
  readonly exits: { readonly rsi: number; readonly fields?: FieldValues };
  readonly passes: { readonly rsi: number; readonly fields?: FieldValues };
  readonly controls: readonly ControlId[];
  readonly without?: readonly string[];
}

const APIC: readonly ControlId[] = ['proc.useTprShadow', 'proc2.virtualizeApicAccesses'];
const TRAP_LIKE: readonly TrapLike[] = [
  {
    name: 'bus lock',
    code: 'xchg [rsi], ebx',
    reason: 74n | (1n << 26n),
    qualification: 0n,
    exits: { rsi: 0x8_003e },
    passes: { rsi: 0x8_0040 },
    controls: ['proc2.vmmBusLockDetection'],
  },
  {
    name: 'TPR below threshold',
    code: 'mov [rsi], ebx',
    reason: 43n,
    qualification: 0n,
    exits: { rsi: ACCESS_PAGE + ApicRegister.TPR, fields: { tprThreshold: 4n } },
    passes: { rsi: ACCESS_PAGE + ApicRegister.TPR },
    controls: APIC,
    without: ['guest timer', 'virtual interrupt', 'posted interrupt'],
  },
  {
    name: 'virtualized EOI',
    code: 'mov [rsi], ebx',
    reason: 45n,
    qualification: 0x45n,
    exits: { rsi: ACCESS_PAGE + ApicRegister.EOI, fields: { eoiExitBitmap1: 1n << 5n } },
    passes: { rsi: ACCESS_PAGE + ApicRegister.EOI },
    controls: [...APIC, ...DELIVERY],
  },
  {
    name: 'APIC write',
    code: 'mov [rsi], ebx',
    reason: 56n,
    qualification: 0xf0n,
    exits: { rsi: ACCESS_PAGE + 0xf0 },
    passes: { rsi: ACCESS_PAGE + 0x310 },
    controls: [...APIC, 'proc2.apicRegisterVirtualization'],
  },
];

/** What is due when the instruction has ended, rather than before it. */
const LATER: Readonly<Record<string, Pick<Source, 'controls' | 'fields' | 'arrange'>>> = {
  'monitor trap flag': { controls: ['proc.monitorTrapFlag'] },
  'debug trap': {
    fields: { exceptionBitmap: 2n, guestRflags: 0x302n, guestPendingDebugExceptions: 0x4000n },
  },
  'preemption timer': {
    controls: ['pin.activateVmxPreemptionTimer'],
    fields: { vmxPreemptionTimerValue: 1n },
  },
  'instruction breakpoint': {
    fields: { exceptionBitmap: 2n },
    arrange: (cpu) => {
      cpu.set('DR0', cpu.get('RIP'));
      cpu.set('DR7', 0x401n);
    },
  },
};

/** The processor behind the instruction, with `source` due too; what does not wait for its end is held back by MOV SS. */
function behind(trap: TrapLike, source: Source, exits: boolean): { cpu: LogicalProcessor; rip: number } {
  const later = { ...source, ...LATER[source.name] };
  if (source.name === 'monitor trap flag') later.fields = {};
  const { rsi, fields = {} } = exits ? trap.exits : trap.passes;
  const status = trap.name === 'virtualized EOI' ? { guestInterruptStatus: 0x4500n } : {};
  const deadline = source.name === 'guest timer' ? { guestDeadline: 32n } : {};
  const setting = settingOf([later, { controls: trap.controls, fields }], {
    virtualApicAddress: BigInt(APIC_PAGE),
    apicAccessAddress: BigInt(ACCESS_PAGE),
    guestInterruptibilityState: BY_MOV_SS,
    ...status,
    ...deadline,
  });
  const machine = eventGuest(`${trap.code}\nud2`, {
    ...setting,
    setUp: (m) => {
      m.memory.write32(APIC_PAGE + ApicRegister.TPR, 0x40);
      m.memory.write32(APIC_PAGE + ApicRegister.ISR + 0x20, 1 << 5);
      m.cpu(0).advance(31n);
    },
  });
  const cpu = machine.cpu(0);
  if (source.name === 'virtual interrupt') later.arrange?.(cpu);
  cpu.set('RSI', BigInt(rsi));
  cpu.run(1);
  const rip = Number(cpu.get('RIP'));
  expect([cpu.operation, rip]).toEqual(['non-root', GUEST + 2]);
  if (source.name !== 'virtual interrupt') later.arrange?.(cpu);
  return { cpu, rip };
}

describe.each(TRAP_LIKE.map((trap) => [trap.name, trap] as const))('the exit of %s', (_, trap) => {
  const sources = SOURCES.filter(
    ({ name }) => name !== 'TPR threshold' && trap.without?.includes(name) !== true,
  );

  it.each(sources.map((source) => [source.name, source] as const))('comes before %s', (name, source) => {
    const { cpu, rip } = behind(trap, source, true);
    cpu.run(1);
    expect(cpu.operation).toBe('root');
    expect(exitFields(cpu, 'exitReason', 'exitQualification', 'guestRip')).toEqual({
      exitReason: trap.reason,
      exitQualification: trap.qualification,
      guestRip: BigInt(rip),
    });
    // Which is due.
    const without = behind(trap, source, false);
    expect(firstOf(without.cpu, without.rip)).toBe(name);
  });
});
