/** User interrupts in VMX non-root operation (SDM §28.3, §29.6.1, §29.7.10, §30.2.4, §30.9, §32.2.3, §32.7). */
import { describe, expect, it } from 'vitest';
import { EventType } from '../../../src/cpu/event.ts';
import type { Machine } from '../../../src/machine/machine.ts';
import type { ControlId } from '../../../src/vmcs/controls.ts';
import { ApicRegister } from '../../../src/vmx/apic/virtual-apic-page.ts';
import { assemble } from '../../support/assemble.ts';
import { DATA, eptExit, eptGuest, FRAME } from '../../support/ept.ts';
import { exitFields, GUEST, type GuestOptions, runToExit } from '../../support/guest.ts';
import { eventGuest, eventId, handlerOf, requestInterrupt } from '../../support/guest-events.ts';
import type { FieldValues } from '../../support/legal-vmcs.ts';
import { CR4_UINTR, SENDUIPI_RAX, writeDescriptor, writeTarget } from '../../support/user-interrupts.ts';
import { APIC_FIELDS, APIC_PAGE, apicGuest, bitsOf, DELIVERY, PID_TABLE } from '../apic/apic-guest.ts';

const UPID = 0x6_1000;
const UITT = 0x6_2000;
const HANDLER = 0x6_8000;
const UINV = 0xec;
const LOAD: readonly ControlId[] = ['entry.loadUinv'];
const FIELDS: FieldValues = {
  guestCr4: CR4_UINTR | 0x2020n,
  guestUinv: BigInt(UINV),
  guestRflags: 0x202n,
};
/** At CPL 3, with a user-interrupt handler that halts, which is #GP. */
const RING3: FieldValues = {
  guestCsSelector: 0x23n,
  guestCsAccessRights: 0xa0fbn,
  guestSsSelector: 0x2bn,
  guestSsAccessRights: 0xc0f3n,
};

function setUp(machine: Machine, descriptor = UPID): void {
  const cpu = machine.cpu(0);
  cpu.set('IA32_UINTR_PD', BigInt(descriptor));
  cpu.set('IA32_UINTR_TT', BigInt(UITT) | 1n);
  cpu.set('IA32_UINTR_HANDLER', BigInt(HANDLER));
  cpu.set('UIF', 1n);
  writeDescriptor(machine.memory, UPID, { vector: UINV, destination: 0x0200, control: 1, requests: 0x12n });
  writeTarget(machine.memory, UITT, 0, 3, UPID);
  machine.memory.writeBytes(HANDLER, assemble('vmcall', 64, HANDLER));
}

const options = (controls: readonly ControlId[], fields: FieldValues = {}): GuestOptions => ({
  controls: [...LOAD, ...controls],
  fields: { ...FIELDS, ...fields },
  setUp,
});

const requests = (machine: Machine) => machine.cpu(0).get('IA32_UINTR_RR');
const onAndPir = ({ memory }: Machine) => [memory.read32(UPID) & 1, memory.read64(UPID + 8)];

describe('a notification that VM entry injects', () => {
  const injected = (fields: FieldValues = {}) =>
    eventGuest('again: jmp again', options([], { injectedEventIdentification: eventId(0, UINV), ...fields }));

  it('is processed, and not delivered', () => {
    const machine = injected();
    machine.cpu(0).run(1);
    expect([requests(machine), machine.cpu(0).get('RIP')]).toEqual([0x12n, BigInt(GUEST)]);
    expect(onAndPir(machine)).toEqual([0, 0n]);
    expect(machine.cpu(0).operation).toBe('non-root');
  });

  it('leaves the guest in the HLT state if its VMCS says so', () => {
    const machine = injected({ guestActivityState: 1n });
    machine.cpu(0).run(3);
    expect([requests(machine), machine.cpu(0).get('activityState')]).toEqual([0x12n, 1n]);
  });

  it.each<[string, FieldValues, number]>([
    ['with another vector', { injectedEventIdentification: eventId(0, 0x31) }, 0x31],
    ['of another type', { injectedEventIdentification: eventId(EventType.SoftwareInterrupt, UINV) }, UINV],
    ['with CR4.UINTR = 0', { guestCr4: 0x2020n }, UINV],
  ])('is none %s', (_, fields, vector) => {
    const machine = injected({ vmEntryInstructionLength: 2n, ...fields });
    machine.cpu(0).run(1);
    expect([requests(machine), machine.cpu(0).get('RIP')]).toEqual([0n, BigInt(handlerOf(vector))]);
  });

  it('reports its vector where processing exits, and the HLT state', () => {
    const guest = eptGuest('nop', {
      controls: LOAD,
      fields: { ...FIELDS, injectedEventIdentification: eventId(0, UINV), guestActivityState: 1n },
      setUp: (m) => setUp(m, DATA),
      prepare: (tables, machine) => {
        setUp(machine, DATA);
        tables.set(DATA, BigInt(FRAME) | 1n);
      },
    });
    const exit = eptExit(guest);
    expect([exit.reason, exit.guestPhysicalAddress]).toEqual([48, BigInt(DATA)]);
    expect(exit.set).toContain('write');
    expect(exit.set).not.toContain('asynchronous');
    expect(exitFields(guest.cpu, 'originalEventIdentification', 'guestActivityState')).toEqual({
      originalEventIdentification: eventId(0, UINV),
      guestActivityState: 1n,
    });
  });
});

describe('an external interrupt that is a notification', () => {
  it('is processed without "external-interrupt exiting", and exits with it', () => {
    for (const exits of [false, true]) {
      const machine = eventGuest('nop; nop', options(exits ? ['pin.externalInterruptExiting'] : []));
      const state = requestInterrupt(machine.cpu(0), UINV);
      machine.cpu(0).run(1);
      expect([state.acknowledged, requests(machine)]).toEqual(exits ? [0, 0n] : [1, 0x12n]);
      expect(machine.cpu(0).operation).toBe(exits ? 'root' : 'non-root');
    }
  });
});

describe('a virtual interrupt that is a notification', () => {
  const machineFor = (fields: FieldValues = {}) =>
    apicGuest(
      'again: jmp again',
      'vmcall',
      options(DELIVERY, { guestInterruptStatus: BigInt(UINV), ...fields }),
    );

  it('is dismissed on the virtual-APIC page without an EOI-induced exit, and processed', () => {
    const machine = machineFor({ eoiExitBitmap3: (1n << 64n) - 1n });
    machine.memory.write32(APIC_PAGE + ApicRegister.ISR + 0x20, 1 << 5);
    const cpu = machine.cpu(0);
    cpu.run(1);
    expect([requests(machine), cpu.get('RIP'), cpu.operation]).toEqual([0x12n, BigInt(GUEST), 'non-root']);
    expect(bitsOf(machine.memory, ApicRegister.ISR)).toEqual([0x45]);
    expect(bitsOf(machine.memory, ApicRegister.IRR)).toEqual([]);
    expect(machine.memory.read8(APIC_PAGE + ApicRegister.PPR)).toBe(0x40);
  });

  it('leaves the guest in the HLT state', () => {
    const machine = machineFor({ guestActivityState: 1n });
    machine.cpu(0).run(3);
    expect([requests(machine), machine.cpu(0).get('activityState')]).toEqual([0x12n, 1n]);
  });
});

describe('recognition across transitions', () => {
  it.each<[string, FieldValues, boolean]>([
    ['is recognised', {}, true],
    ['is not without CR4.UINTR', { guestCr4: 0x2020n }, false],
  ])('what waits in UIRR %s at VM entry', (_, fields, delivered) => {
    const guest = options([], { ...RING3, ...fields });
    const machine = eventGuest('vmcall', {
      ...guest,
      setUp: (m) => {
        setUp(m);
        m.cpu(0).wrmsr(0x985, 1n << 7n);
      },
    });
    runToExit(machine.cpu(0));
    expect(exitFields(machine.cpu(0), 'guestRip')).toEqual({ guestRip: BigInt(delivered ? HANDLER : GUEST) });
    expect(requests(machine)).toBe(delivered ? 0n : 1n << 7n);
    expect(machine.cpu(0).get('userInterruptPending')).toBe(0n);
  });

  it('accesses of delivery are asynchronous to instructions', () => {
    const guest = eptGuest('nop', {
      controls: LOAD,
      fields: { ...FIELDS, ...RING3, guestRsp: BigInt(DATA + 0x800) },
      prepare: (tables, machine) => {
        setUp(machine);
        machine.cpu(0).wrmsr(0x985, 1n);
        tables.set(DATA, BigInt(FRAME) | 1n);
      },
    });
    const exit = eptExit(guest);
    expect([exit.reason, exit.guestLinearAddress, exit.guestRip]).toEqual([
      48,
      BigInt(DATA + 0x7f8),
      BigInt(GUEST),
    ]);
    expect(exit.set).toEqual(expect.arrayContaining(['write', 'asynchronous']));
    expect(exitFields(guest.cpu, 'guestRsp', 'originalEventIdentification')).toEqual({
      guestRsp: BigInt(DATA + 0x800),
      originalEventIdentification: 0n,
    });
    expect([guest.cpu.get('IA32_UINTR_RR'), guest.cpu.get('UIF')]).toEqual([1n, 1n]);
  });
});

describe('SENDUIPI with "use TPR shadow"', () => {
  const TPR: readonly ControlId[] = ['proc.useTprShadow'];
  const ACCESSES: ControlId = 'proc2.virtualizeApicAccesses';
  function sent(controls: readonly ControlId[]) {
    const machine = apicGuest(`xor eax, eax; ${SENDUIPI_RAX} nop; vmcall`, 'vmcall', {
      ...options(controls),
      setUp: (m) => {
        setUp(m);
        writeDescriptor(m.memory, UPID, { vector: UINV, destination: 0x0000_0200 });
        // Virtual APIC 2 posts at UPID + 100H, notified by nobody.
        m.memory.write64(PID_TABLE + 16, BigInt(UPID + 0x100) | 1n);
        m.memory.write32(UPID + 0x100 + 32, 2);
      },
      fields: { ...FIELDS, ...APIC_FIELDS, lastPidPointerIndex: 0x300n },
    });
    const real: string[] = [];
    const { processor } = machine.cpu(0);
    processor.localApic = {
      ...processor.localApic,
      sendFixed: (vector, destination) => real.push(`${vector} to ${destination}`),
    };
    m64(machine, PID_TABLE + 8 * 0x200, BigInt(UPID + 0x200) | 1n);
    machine.memory.write32(UPID + 0x200 + 32, 2);
    runToExit(machine.cpu(0));
    const { exitReason, exitQualification } = exitFields(machine.cpu(0), 'exitReason', 'exitQualification');
    const word = (at: number) => machine.memory.read32(at);
    return {
      reason: Number(exitReason),
      qualification: Number(exitQualification),
      icr: [0x300, 0x304, 0x310].map((at) => word(APIC_PAGE + at)),
      posted: [0x100, 0x200].map((at) => (word(UPID + at + 4 * 7) >>> (UINV & 31)) & 1),
      real,
      rip: Number(machine.cpu(0).get('RIP')),
      guestRip: exitFields(machine.cpu(0), 'guestRip').guestRip - BigInt(GUEST),
    };
  }
  const m64 = (machine: Machine, at: number, value: bigint) => machine.memory.write64(at, value);

  it('is a real IPI without it', () => {
    expect(sent([])).toMatchObject({ reason: 18, real: ['236 to 512'], icr: [0, 0, 0] });
  });

  it('writes the command register and exits after the instruction', () => {
    const exit = { reason: 56, qualification: 0x300, real: [], guestRip: 6n, posted: [0, 0] };
    expect(sent(TPR)).toMatchObject({ ...exit, icr: [UINV, 0x200, 0] });
    expect(sent([...TPR, ACCESSES])).toMatchObject({ ...exit, icr: [UINV, 0, 0x0200_0000] });
  });

  it('is virtualized with "IPI virtualization"', () => {
    const virtualized = { reason: 18, real: [] };
    const controls: readonly ControlId[] = [
      ...DELIVERY,
      'proc.activateTertiaryControls',
      'proc3.ipiVirtualization',
    ];
    expect(sent(controls)).toMatchObject({ ...virtualized, icr: [UINV, 0x200, 0], posted: [0, 1] });
    expect(sent([...controls, ACCESSES])).toMatchObject({
      ...virtualized,
      icr: [UINV, 0, 0x0200_0000],
      posted: [1, 0],
    });
  });
});
