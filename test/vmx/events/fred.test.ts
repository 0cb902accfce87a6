import { describe, expect, it } from 'vitest';
import type { Machine } from '../../../src/machine/machine.ts';
import { assemble } from '../../support/assemble.ts';
import { ENTRY, ENTRY_AT_CPL0, erets, frameOf } from '../../support/fred.ts';
import {
  exitFields,
  GUEST,
  GUEST_STACK,
  type GuestOptions,
  guestMachine,
  runToExit,
} from '../../support/guest.ts';
import { eventId } from '../../support/guest-events.ts';

const USER_STACK = 0x7_0000;
const STACK1 = 0x7_1000;
const BEYOND_MAPPINGS = 0x8000_0000n;
const NOT_CANONICAL = 1n << 60n;
const NESTED = 0x2000n;
const CPL_3 = {
  guestCsSelector: 0xbn,
  guestCsAccessRights: 0xa0fbn,
  guestSsSelector: 0x13n,
  guestSsAccessRights: 0xc0f3n,
};

/** A guest that delivers events by FRED; its entry points execute `handler`. */
function fredGuest(
  code: string | Uint8Array,
  options: GuestOptions = {},
  handler = assemble('vmcall', 64),
): Machine {
  const machine = guestMachine(code, {
    ...options,
    controls: ['entry.loadFred', 'exit2.saveFred', ...(options.controls ?? [])],
    fields: {
      guestCr4: 0x1_0000_2020n,
      guestIa32FredConfig: BigInt(ENTRY),
      guestIa32FredRsp1: BigInt(STACK1),
      ...options.fields,
    },
    setUp: (m) => {
      m.cpu(0).set('IA32_FRED_RSP0', BigInt(USER_STACK));
      m.cpu(0).set('IA32_STAR', 8n << 32n);
      options.setUp?.(m);
    },
  });
  machine.memory.writeBytes(ENTRY, handler);
  machine.memory.writeBytes(ENTRY_AT_CPL0, handler);
  return machine;
}

/** The frame that the guest's handler had when it exited. */
function exitedFrame(machine: Machine) {
  const cpu = machine.cpu(0);
  runToExit(cpu);
  const { guestRsp, exitReason } = exitFields(cpu, 'guestRsp', 'exitReason');
  expect(exitReason).toBe(18n);
  return { top: Number(guestRsp), ...frameOf(machine, guestRsp) };
}

describe('VM entry injects', () => {
  it.each([
    [1n, 'SYSCALL'],
    [2n, 'SYSENTER'],
  ])('type 7, vector %i: %s', (vector) => {
    const machine = fredGuest('syscall', {
      fields: {
        ...CPL_3,
        injectedEventIdentification: eventId(7, Number(vector)),
        vmEntryInstructionLength: 2n,
      },
    });
    expect(exitedFrame(machine)).toMatchObject({
      top: USER_STACK - 64,
      vector: Number(vector),
      type: 7,
      length: 2,
      call: 1,
      rip: BigInt(GUEST + 2),
      cs: 0xbn,
      ss: 0x13,
    });
    expect(exitFields(machine.cpu(0), 'guestRip').guestRip).toBe(BigInt(ENTRY));
  });

  it('#PF with the data of the VMCS, and leaves CR2', () => {
    const machine = fredGuest('nop', {
      fields: {
        injectedEventIdentification: eventId(3, 14, 1),
        injectedEventErrorCode: 6n,
        injectedEventData: 0x1234_5678_9abcn,
      },
      setUp: (m) => m.cpu(0).set('CR2', 7n),
    });
    expect(exitedFrame(machine)).toMatchObject({
      vector: 14,
      errorCode: 6n,
      data: 0x1234_5678_9abcn,
      nested: 0,
    });
    expect(machine.cpu(0).get('CR2')).toBe(7n);
  });

  it('a nested exception: on the stack of its level at CPL 3 too, and marked', () => {
    for (const [nested, top, level] of [
      [NESTED, STACK1, 1n],
      [0n, USER_STACK, 0n],
    ] as const) {
      const machine = fredGuest('nop', {
        fields: {
          ...CPL_3,
          injectedEventIdentification: eventId(3, 6) | nested,
          guestIa32FredStklvls: 1n << 12n,
        },
      });
      expect(exitedFrame(machine)).toMatchObject({ vector: 6, nested: Number(nested >> 13n), top: top - 64 });
      const { guestIa32FredConfig } = exitFields(machine.cpu(0), 'guestIa32FredConfig');
      expect(guestIa32FredConfig).toBe(BigInt(ENTRY) | level);
    }
  });

  it('INT n with the blocking by STI of the guest in the frame', () => {
    const machine = fredGuest('int 0x40', {
      fields: {
        injectedEventIdentification: eventId(4, 0x40),
        vmEntryInstructionLength: 2n,
        guestInterruptibilityState: 1n,
        guestRflags: 0x202n,
      },
    });
    expect(exitedFrame(machine)).toMatchObject({
      vector: 0x40,
      type: 4,
      blockedBySti: 1,
      rip: BigInt(GUEST + 2),
    });
    expect(exitFields(machine.cpu(0), 'guestInterruptibilityState').guestInterruptibilityState).toBe(0n);
  });
});

const FIELDS = [
  'exitReason',
  'exitingEventIdentification',
  'originalEventIdentification',
  'originalEventData',
  'vmExitInstructionLength',
  'guestRip',
] as const;

describe('an exit during FRED delivery reports', () => {
  it('the nested exception with bit 13, and the first event', () => {
    const machine = fredGuest('ud2', { fields: { guestRsp: NOT_CANONICAL, exceptionBitmap: 1n << 12n } });
    runToExit(machine.cpu(0));
    expect(exitFields(machine.cpu(0), ...FIELDS)).toMatchObject({
      exitReason: 0n,
      exitingEventIdentification: eventId(3, 12, 1) | NESTED,
      originalEventIdentification: eventId(3, 6),
      originalEventData: 0n,
      guestRip: BigInt(GUEST),
    });
  });

  it('a first event that was itself nested', () => {
    const machine = fredGuest('ud2', {
      fields: {
        guestRsp: NOT_CANONICAL,
        exceptionBitmap: 1n << 14n,
        guestIa32FredStklvls: 1n << 24n,
        guestIa32FredRsp1: BEYOND_MAPPINGS,
      },
    });
    runToExit(machine.cpu(0));
    expect(exitFields(machine.cpu(0), ...FIELDS)).toMatchObject({
      exitingEventIdentification: eventId(3, 14, 1) | NESTED,
      originalEventIdentification: eventId(3, 12, 1) | NESTED,
    });
  });

  it('SYSCALL with its length, and the data of a page fault', () => {
    const user = fredGuest('syscall', {
      fields: { ...CPL_3, exceptionBitmap: 1n << 14n, guestIa32Efer: 0x501n },
      controls: ['entry.loadIa32Efer'],
      setUp: (m) => m.cpu(0).set('IA32_FRED_RSP0', BEYOND_MAPPINGS),
    });
    runToExit(user.cpu(0));
    expect(exitFields(user.cpu(0), ...FIELDS)).toMatchObject({
      exitingEventIdentification: eventId(3, 14, 1) | NESTED,
      originalEventIdentification: eventId(7, 1),
      vmExitInstructionLength: 2n,
      guestRip: BigInt(GUEST),
    });
    const fault = fredGuest('mov rax, [rbx]', {
      fields: { guestRsp: NOT_CANONICAL, exceptionBitmap: 1n << 8n },
      setUp: (m) => m.cpu(0).set('RBX', BEYOND_MAPPINGS + 8n),
    });
    runToExit(fault.cpu(0));
    const { exitingEventIdentification, originalEventIdentification } = exitFields(fault.cpu(0), ...FIELDS);
    // Of a double fault neither nesting nor the events that made it are reported.
    expect(exitingEventIdentification).toBe(eventId(3, 8, 1));
    expect(originalEventIdentification).toBe(0n);
    const nested = fredGuest('mov rax, [rbx]', {
      fields: { guestRsp: NOT_CANONICAL, exceptionBitmap: 1n << 12n },
      setUp: (m) => m.cpu(0).set('RBX', BEYOND_MAPPINGS + 8n),
    });
    runToExit(nested.cpu(0));
    expect(exitFields(nested.cpu(0), ...FIELDS)).toMatchObject({
      originalEventIdentification: eventId(3, 14, 1),
      originalEventData: BEYOND_MAPPINGS + 8n,
    });
  });
});

describe('what VT-x does to events of a guest with FRED', () => {
  const DELIVERY = [
    'proc.useTprShadow',
    'pin.externalInterruptExiting',
    'proc2.virtualInterruptDelivery',
  ] as const;
  const APIC_PAGE = 0x9_0000;
  const ACCESS_PAGE = 0x9_8000;
  const VIRTUAL_APIC = { virtualApicAddress: BigInt(APIC_PAGE), apicAccessAddress: BigInt(ACCESS_PAGE) };

  it('a virtual interrupt is delivered on the level of interrupts', () => {
    const machine = fredGuest('nop', {
      controls: DELIVERY,
      fields: {
        ...VIRTUAL_APIC,
        guestInterruptStatus: 0x51n,
        guestRflags: 0x202n,
        guestIa32FredConfig: BigInt(ENTRY | (1 << 9)),
      },
      setUp: (m) => m.memory.write32(APIC_PAGE + 0x220, 1 << (0x51 & 31)),
    });
    expect(exitedFrame(machine)).toMatchObject({
      top: STACK1 - 64,
      vector: 0x51,
      type: 0,
      rip: BigInt(GUEST),
      rflags: 0x202n,
      data: 0n,
    });
  });

  it.each([
    ['an external interrupt', eventId(0, 0x51), { type: 0, vector: 0x51, nmi: 0 }],
    ['an NMI', eventId(2, 2), { type: 2, vector: 2, nmi: 1 }],
  ] as const)(
    '%s that VM entry injects has the data of the VMCS',
    (_, injectedEventIdentification, frame) => {
      const machine = fredGuest('nop', {
        fields: { injectedEventIdentification, injectedEventData: 0x1234_5678n, guestRflags: 0x202n },
      });
      expect(exitedFrame(machine)).toMatchObject({ ...frame, data: 0x1234_5678n, rip: BigInt(GUEST) });
    },
  );

  it.each([
    ['INT n', eventId(4, 0x40)],
    ['SYSCALL', eventId(7, 1)],
    ['an NMI', eventId(2, 2)],
  ])('%s that VM entry injects leaves RF as the guest has it', (_, injectedEventIdentification) => {
    for (const guestRflags of [0x2n, 0x1_0002n]) {
      const machine = fredGuest('nop', {
        fields: { injectedEventIdentification, vmEntryInstructionLength: 2n, guestRflags },
      });
      expect(exitedFrame(machine).rflags).toBe(guestRflags);
    }
  });

  it('the interrupt window is closed after delivery, which clears RFLAGS.IF', () => {
    const machine = fredGuest('nop', {
      controls: ['proc.interruptWindowExiting'],
      fields: { injectedEventIdentification: eventId(0, 0x51), guestRflags: 0x202n },
    });
    expect(exitedFrame(machine)).toMatchObject({ vector: 0x51, rflags: 0x202n });
  });

  it('an MTF VM exit follows the delivery, at the entry point', () => {
    const machine = fredGuest('int 0x40', { controls: ['proc.monitorTrapFlag'] });
    runToExit(machine.cpu(0));
    expect(exitFields(machine.cpu(0), 'exitReason', 'guestRip')).toEqual({
      exitReason: 37n,
      guestRip: BigInt(ENTRY_AT_CPL0),
    });
  });

  it('a direct exit of #DB reports causes as ever, and no data', () => {
    const machine = fredGuest('nop', {
      fields: { guestPendingDebugExceptions: 0x4000n, exceptionBitmap: 2n },
      setUp: (m) => m.cpu(0).set('DR6', 0xffff_0ff0n),
    });
    runToExit(machine.cpu(0));
    const { exitReason, exitQualification, exitingEventIdentification, originalEventIdentification } =
      exitFields(
        machine.cpu(0),
        'exitReason',
        'exitQualification',
        'exitingEventIdentification',
        'originalEventIdentification',
      );
    expect([exitReason, exitQualification, exitingEventIdentification, originalEventIdentification]).toEqual([
      0n,
      0x4000n,
      eventId(3, 1),
      0n,
    ]);
    expect(machine.cpu(0).get('DR6')).toBe(0xffff_0ff0n);
  });

  it.each<[string, string, GuestOptions['fields'], bigint, bigint]>([
    ['#PF, with the address', 'mov rax, [rbx]', {}, eventId(3, 14, 1), BEYOND_MAPPINGS],
    ['INT n, without data', 'int 0x40', {}, eventId(4, 0x40), 0n],
    ['#UD, without data', 'ud2', {}, eventId(3, 6), 0n],
    [
      'an injected interrupt, with the data of the VMCS',
      'nop',
      { injectedEventIdentification: eventId(0, 0x51), injectedEventData: 0xabcdn, guestRflags: 0x202n },
      eventId(0, 0x51),
      0xabcdn,
    ],
    [
      'an injected nested exception, with its bit',
      'nop',
      { injectedEventIdentification: eventId(3, 13, 1) | NESTED, injectedEventErrorCode: 8n },
      eventId(3, 13, 1) | NESTED,
      0n,
    ],
  ])('an APIC-access exit of delivery reports %s', (_, code, fields, original, data) => {
    const machine = fredGuest(code, {
      controls: ['proc.useTprShadow', 'proc2.virtualizeApicAccesses'],
      fields: { ...VIRTUAL_APIC, guestRsp: BigInt(ACCESS_PAGE + 0x80), ...fields },
      setUp: (m) => m.cpu(0).set('RBX', BEYOND_MAPPINGS),
    });
    const cpu = machine.cpu(0);
    runToExit(cpu);
    const seen = exitFields(cpu, 'exitReason', 'exitQualification', 'guestRip', 'guestRsp', ...FIELDS);
    expect(seen).toMatchObject({
      exitReason: 44n,
      // The first item that is pushed.
      exitQualification: 0x3078n,
      guestRip: BigInt(GUEST),
      guestRsp: BigInt(ACCESS_PAGE + 0x80),
      originalEventIdentification: original,
      originalEventData: data,
    });
    expect(exitFields(cpu, 'guestIa32FredConfig').guestIa32FredConfig).toBe(BigInt(ENTRY));
  });

  it('is injected again by what the exit reports, and then delivered as it would have been', () => {
    const machine = fredGuest('mov rax, [rbx]', {
      controls: ['proc.useTprShadow', 'proc2.virtualizeApicAccesses'],
      fields: { ...VIRTUAL_APIC, guestRsp: BigInt(ACCESS_PAGE + 0x80) },
      setUp: (m) => m.cpu(0).set('RBX', BEYOND_MAPPINGS),
    });
    const cpu = machine.cpu(0);
    runToExit(cpu);
    for (const [to, from] of [
      ['injectedEventIdentification', 'originalEventIdentification'],
      ['injectedEventErrorCode', 'originalEventErrorCode'],
      ['injectedEventData', 'originalEventData'],
    ] as const)
      cpu.vmwrite(to, cpu.vmread(from).value);
    cpu.vmwrite('guestRsp', BigInt(GUEST_STACK));
    expect(cpu.vmresume().kind).toBe('VMentry');
    expect(exitedFrame(machine)).toMatchObject({
      top: GUEST_STACK - 64,
      vector: 14,
      errorCode: 0n,
      data: BEYOND_MAPPINGS,
      rip: BigInt(GUEST),
      nested: 0,
    });
  });
});

describe('ERETS of an NMI', () => {
  const VIRTUAL_NMIS = ['pin.nmiExiting', 'pin.virtualNmis'] as const;

  it.each([
    ['with virtual NMIs', VIRTUAL_NMIS],
    ['without NMI exiting', []],
  ] as const)('%s ends the blocking', (_name, controls) => {
    const machine = fredGuest(
      'vmcall',
      { controls, fields: { injectedEventIdentification: eventId(2, 2) } },
      erets,
    );
    const cpu = machine.cpu(0);
    cpu.run(1);
    expect(frameOf(machine, cpu.get('RSP'))).toMatchObject({ vector: 2, type: 2, nmi: 1 });
    runToExit(cpu);
    expect(exitFields(cpu, 'guestRip', 'guestRsp', 'guestInterruptibilityState')).toEqual({
      guestRip: BigInt(GUEST),
      guestRsp: BigInt(GUEST_STACK),
      guestInterruptibilityState: 0n,
    });
  });

  it.each([VIRTUAL_NMIS, []])('which has not come keeps the blocking (%s)', (...controls) => {
    const machine = fredGuest(
      'vmcall',
      { controls, fields: { injectedEventIdentification: eventId(2, 2) } },
      assemble('vmcall', 64),
    );
    runToExit(machine.cpu(0));
    expect(exitFields(machine.cpu(0), 'guestInterruptibilityState').guestInterruptibilityState).toBe(8n);
  });
});

describe('a complete machine of Wildcat Lake', () => {
  it('has FRED', () => {
    const machine = fredGuest('ud2', { profile: 'wildcat-lake', level: 'complete' });
    expect(exitedFrame(machine)).toMatchObject({ vector: 6, rip: BigInt(GUEST), top: GUEST_STACK - 64 });
  });
});
