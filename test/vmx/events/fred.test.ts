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

describe('an exit during FRED delivery reports', () => {
  const FIELDS = [
    'exitReason',
    'exitingEventIdentification',
    'originalEventIdentification',
    'originalEventData',
    'vmExitInstructionLength',
    'guestRip',
  ] as const;

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
