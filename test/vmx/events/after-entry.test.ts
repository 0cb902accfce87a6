import { describe, expect, it } from 'vitest';
import type { LogicalProcessor } from '../../../src/machine/logical-processor.ts';
import { exitFields, GUEST, guestMachine, runToExit } from '../../support/guest.ts';
import { eventGuest, eventId, handlerOf } from '../../support/guest-events.ts';
import type { FieldValues } from '../../support/legal-vmcs.ts';

/** Bits of the pending debug exceptions. */
const [B0, ENABLED, BS] = [1n, 0x1000n, 0x4000n];
const TF = 0x102n;
const IF = 0x202n;
const [STI, MOV_SS] = [1n, 2n];
const DB_EXITS = { exceptionBitmap: 2n };
const DR6_IDLE = 0xffff_0ff0n;

const guest = (
  fields: FieldValues,
  code: string | Uint8Array = 'nop\nnop\nnop\nvmcall',
  handler = 'vmcall',
) => eventGuest(code, { fields }, handler).cpu(0);

function look(cpu: LogicalProcessor) {
  const f = exitFields(
    cpu,
    'exitReason',
    'exitQualification',
    'exitingEventIdentification',
    'guestRip',
    'guestPendingDebugExceptions',
    'guestActivityState',
  );
  return {
    reason: f.exitReason,
    qualification: f.exitQualification,
    event: f.exitingEventIdentification,
    rip: Number(f.guestRip),
    pending: f.guestPendingDebugExceptions,
    activity: f.guestActivityState,
  };
}
const debugExit = (qualification: bigint, rip = GUEST, activity = 0n) => ({
  reason: 0n,
  qualification,
  event: eventId(3, 1),
  rip,
  pending: 0n,
  activity,
});

describe('pending debug exceptions after VM entry (SDM §29.7.3)', () => {
  it.each([
    ['a single step', BS, BS],
    ['an enabled breakpoint', B0 | ENABLED, B0],
    ['an enabled breakpoint alone', ENABLED, 0n],
    ['both', B0 | ENABLED | BS, B0 | BS],
  ])(
    '%s exits before the first instruction, with DR6 as it was',
    (_, guestPendingDebugExceptions, causes) => {
      const cpu = guest({ ...DB_EXITS, guestPendingDebugExceptions });
      const dr6 = cpu.get('DR6');
      runToExit(cpu, 1);
      expect(look(cpu)).toEqual(debugExit(causes));
      expect(cpu.get('DR6')).toBe(dr6);
    },
  );

  it('is delivered without the bitmap, with DR6 updated', () => {
    const cpu = guest({ guestPendingDebugExceptions: B0 | ENABLED | BS });
    runToExit(cpu, 3);
    expect(look(cpu)).toMatchObject({ reason: 18n, rip: handlerOf(1) });
    expect(cpu.get('DR6')).toBe(DR6_IDLE | BS | B0);
  });

  it('breakpoints that are not enabled make none', () => {
    const cpu = guest({ ...DB_EXITS, guestPendingDebugExceptions: 0xfn });
    runToExit(cpu);
    expect(look(cpu)).toMatchObject({ reason: 18n, rip: GUEST + 3, pending: 0n });
  });

  it('wakes a guest in HLT, whose exit saves HLT', () => {
    const cpu = guest({ ...DB_EXITS, guestPendingDebugExceptions: ENABLED | B0, guestActivityState: 1n });
    runToExit(cpu, 1);
    expect(look(cpu)).toEqual(debugExit(B0, GUEST, 1n));
    const delivered = guest({ guestPendingDebugExceptions: ENABLED | B0, guestActivityState: 1n });
    runToExit(delivered, 3);
    expect(look(delivered)).toMatchObject({ reason: 18n, rip: handlerOf(1), activity: 0n });
  });

  it('does not wake a guest in shutdown or one that waits for a SIPI', () => {
    for (const guestActivityState of [2n, 3n]) {
      const cpu = guest({ ...DB_EXITS, guestPendingDebugExceptions: ENABLED, guestActivityState });
      cpu.run(3);
      expect([cpu.operation, cpu.get('pendingDebugExceptions')]).toEqual(['non-root', 0n]);
    }
  });

  it('is held by blocking by MOV SS for one instruction, not by STI', () => {
    const held = guest({
      ...DB_EXITS,
      guestPendingDebugExceptions: ENABLED | B0,
      guestInterruptibilityState: MOV_SS,
    });
    runToExit(held, 3);
    expect(look(held)).toEqual(debugExit(B0, GUEST + 1));
    const free = guest({
      ...DB_EXITS,
      guestPendingDebugExceptions: ENABLED | B0,
      guestInterruptibilityState: STI,
      guestRflags: IF,
    });
    runToExit(free, 1);
    expect(look(free)).toEqual(debugExit(B0));
  });

  it('is saved by another exit under blocking by MOV SS', () => {
    const cpu = guest(
      {
        guestPendingDebugExceptions: ENABLED | B0 | BS,
        guestInterruptibilityState: MOV_SS,
        guestRflags: TF,
      },
      'vmcall',
    );
    runToExit(cpu, 1);
    expect(look(cpu)).toMatchObject({ reason: 18n, pending: ENABLED | B0 | BS });
  });

  it.each([
    ['an external interrupt', eventId(0, 0x40), IF],
    ['an NMI', eventId(2, 2), 2n],
    ['a hardware exception', eventId(3, 6), 2n],
  ])('is lost by injection of %s', (_, injectedEventIdentification, guestRflags) => {
    const cpu = guest(
      { ...DB_EXITS, guestPendingDebugExceptions: ENABLED | B0, injectedEventIdentification, guestRflags },
      'nop',
      'nop\nvmcall',
    );
    runToExit(cpu);
    expect(look(cpu)).toMatchObject({ reason: 18n });
  });

  it('of an injected INT3 after MOV SS it comes at the first instruction of the handler', () => {
    const fields = {
      ...DB_EXITS,
      guestPendingDebugExceptions: ENABLED | B0,
      guestInterruptibilityState: MOV_SS,
      injectedEventIdentification: eventId(6, 3),
      vmEntryInstructionLength: 1n,
    };
    const cpu = guest(fields);
    runToExit(cpu, 3);
    expect(look(cpu)).toEqual(debugExit(B0, handlerOf(3)));
    const lost = guest({ ...fields, guestInterruptibilityState: 0n });
    runToExit(lost, 5);
    expect(look(lost)).toMatchObject({ reason: 18n, rip: handlerOf(3) });
  });

  it('single-stepping goes on after the first instruction', () => {
    const cpu = guest({ ...DB_EXITS, guestRflags: TF });
    runToExit(cpu, 3);
    expect(look(cpu)).toEqual(debugExit(BS, GUEST + 1));
  });
});

describe('entry into an activity state (SDM §29.7.2)', () => {
  it.each([
    ['HLT', 1n],
    ['shutdown', 2n],
    ['wait-for-SIPI', 3n],
  ])('a guest in %s executes nothing', (_, guestActivityState) => {
    const cpu = guestMachine('vmcall', { fields: { guestActivityState } }).cpu(0);
    cpu.run(10);
    expect([cpu.operation, cpu.get('RIP'), cpu.get('activityState')]).toEqual([
      'non-root',
      BigInt(GUEST),
      guestActivityState,
    ]);
  });

  it('an injected event makes the guest active', () => {
    for (const [guestActivityState, injectedEventIdentification] of [
      [1n, eventId(0, 0x40)],
      [1n, eventId(2, 2)],
      [2n, eventId(2, 2)],
    ] as const) {
      const cpu = guest({ guestActivityState, injectedEventIdentification, guestRflags: IF });
      runToExit(cpu, 3);
      expect(look(cpu)).toMatchObject({
        reason: 18n,
        rip: handlerOf(Number(injectedEventIdentification & 0xffn)),
        activity: 0n,
      });
    }
  });
});
