import { describe, expect, it } from 'vitest';
import type { LogicalProcessor } from '../../../src/machine/logical-processor.ts';
import type { ControlId } from '../../../src/vmcs/controls.ts';
import { exitFields, GUEST, HOST, runToExit } from '../../support/guest.ts';
import { eventGuest, eventId, handlerOf, requestInterrupt, TABLES } from '../../support/guest-events.ts';
import type { FieldValues } from '../../support/legal-vmcs.ts';

const IF = 0x202n;
const EXITING: readonly ControlId[] = ['pin.externalInterruptExiting'];
const ACKNOWLEDGING: readonly ControlId[] = [...EXITING, 'exit.acknowledgeInterruptOnExit'];
const NMI_EXITING: readonly ControlId[] = ['pin.nmiExiting'];

const guest = (
  controls: readonly ControlId[],
  fields: FieldValues = {},
  code = 'nop\nnop\nnop\nnop\nvmcall',
) => eventGuest(code, { controls, fields }).cpu(0);

function look(cpu: LogicalProcessor) {
  const f = exitFields(
    cpu,
    'exitReason',
    'exitQualification',
    'exitingEventIdentification',
    'originalEventIdentification',
    'guestRip',
    'guestRflags',
    'guestActivityState',
    'guestInterruptibilityState',
  );
  return {
    reason: f.exitReason,
    qualification: f.exitQualification,
    event: f.exitingEventIdentification,
    original: f.originalEventIdentification,
    rip: Number(f.guestRip),
    flags: f.guestRflags,
    activity: f.guestActivityState,
    blocking: f.guestInterruptibilityState,
  };
}
const exit = (reason: bigint, event: bigint, more = {}) => ({
  reason,
  qualification: 0n,
  event,
  original: 0n,
  rip: GUEST,
  flags: 2n,
  activity: 0n,
  blocking: 0n,
  ...more,
});

describe('external-interrupt exiting (SDM §28.2, §28.4.1, §30.2.2)', () => {
  it('without acknowledgement the interrupt stays pending and is not reported', () => {
    const cpu = guest(EXITING);
    const source = requestInterrupt(cpu, 0x40);
    runToExit(cpu, 1);
    expect(look(cpu)).toEqual(exit(1n, 0n));
    expect(source.acknowledged).toBe(0);
    cpu.run(3);
    expect([cpu.get('RIP'), source.acknowledged]).toEqual([BigInt(HOST), 0]);
    expect(cpu.vmresume().kind).toBe('VMentry');
    runToExit(cpu, 1);
    expect(look(cpu)).toEqual(exit(1n, 0n));
  });

  it('with it the exit reports the vector, and the interrupt is no longer pending', () => {
    const cpu = guest(ACKNOWLEDGING);
    const source = requestInterrupt(cpu, 0x40);
    runToExit(cpu, 1);
    expect(look(cpu)).toEqual(exit(1n, eventId(0, 0x40)));
    expect(source.acknowledged).toBe(1);
  });

  it('RFLAGS.IF decides nothing then, and everything without the control', () => {
    for (const guestRflags of [2n, IF]) {
      const exiting = guest(EXITING, { guestRflags });
      requestInterrupt(exiting, 0x40);
      runToExit(exiting, 1);
      expect(look(exiting)).toEqual(exit(1n, 0n, { flags: guestRflags }));
      const delivering = guest([], { guestRflags });
      const source = requestInterrupt(delivering, 0x40);
      runToExit(delivering);
      expect(look(delivering)).toMatchObject({
        reason: 18n,
        rip: guestRflags === IF ? handlerOf(0x40) : GUEST + 4,
      });
      expect(source.acknowledged).toBe(guestRflags === IF ? 1 : 0);
    }
  });

  it('wakes HLT, which is saved; not shutdown or wait-for-SIPI', () => {
    const halted = guest(EXITING, { guestActivityState: 1n });
    requestInterrupt(halted, 0x40);
    runToExit(halted, 1);
    expect(look(halted)).toEqual(exit(1n, 0n, { activity: 1n }));
    for (const guestActivityState of [2n, 3n]) {
      const cpu = guest(ACKNOWLEDGING, { guestActivityState });
      const source = requestInterrupt(cpu, 0x40);
      cpu.run(5);
      expect([cpu.operation, source.acknowledged]).toEqual(['non-root', 0]);
    }
  });

  it('HLT in the guest is left by an interrupt that is allowed, exiting or not, and by no other', () => {
    const code = 'sti\nhlt\nnop';
    const delivering = guest([], {}, code);
    delivering.run(3);
    expect(delivering.get('activityState')).toBe(1n);
    requestInterrupt(delivering, 0x40);
    runToExit(delivering);
    expect(look(delivering)).toMatchObject({ reason: 18n, rip: handlerOf(0x40) });
    const exiting = guest(EXITING, {}, code);
    exiting.run(3);
    requestInterrupt(exiting, 0x40);
    runToExit(exiting, 1);
    expect(look(exiting)).toEqual(exit(1n, 0n, { rip: GUEST + 2, activity: 1n, flags: IF }));
    const masked = guest([], {}, 'hlt\nnop');
    masked.run(2);
    requestInterrupt(masked, 0x40);
    masked.run(5);
    expect(masked.get('activityState')).toBe(1n);
  });

  it('an exit between two iterations of a string instruction saves RF as 1', () => {
    const cpu = guest(EXITING, {}, 'rep stosb');
    cpu.set('RCX', 100n);
    cpu.set('RDI', 0x8_0000n);
    cpu.run(10);
    requestInterrupt(cpu, 0x40);
    runToExit(cpu, 1);
    expect(look(cpu)).toEqual(exit(1n, 0n, { flags: 0x1_0002n }));
    expect(cpu.get('RCX')).toBe(90n);
  });

  it('of an interrupt that is being delivered an exit reports that it was', () => {
    const cpu = guest([], { guestRflags: IF, guestIdtrLimit: 16n * 0x40n - 1n, exceptionBitmap: 1n << 13n });
    const source = requestInterrupt(cpu, 0x40);
    runToExit(cpu, 1);
    expect(look(cpu)).toMatchObject({ reason: 0n, event: eventId(3, 13, 1), original: eventId(0, 0x40) });
    expect(cpu.vmread('exitingEventErrorCode').value).toBe(0x40n * 8n + 3n);
    expect(source.acknowledged).toBe(1);
  });
});

describe('NMI exiting (SDM §28.2, §30.1)', () => {
  it('exits with the NMI, and blocks NMIs after the exit only', () => {
    const cpu = guest(NMI_EXITING);
    cpu.processor.requestNmi();
    runToExit(cpu, 1);
    expect(look(cpu)).toEqual(exit(0n, eventId(2, 2)));
    expect(cpu.get('blockingByNmi')).toBe(1n);
    // A second one waits in root operation until NMIs are unblocked: VM entry does it.
    cpu.processor.requestNmi();
    cpu.run(5);
    expect(cpu.get('RIP')).toBe(BigInt(HOST));
    expect(cpu.vmresume().kind).toBe('VMentry');
    runToExit(cpu, 1);
    expect(look(cpu)).toEqual(exit(0n, eventId(2, 2)));
  });

  it('without it the guest handles the NMI, with NMIs blocked', () => {
    const cpu = guest([]);
    cpu.processor.requestNmi();
    runToExit(cpu, 3);
    expect(look(cpu)).toMatchObject({ reason: 18n, rip: handlerOf(2), blocking: 8n });
  });

  it.each([
    ['HLT', 1n, true],
    ['shutdown', 2n, true],
    ['wait-for-SIPI', 3n, false],
  ])('from the state %s', (_, guestActivityState, exits) => {
    for (const controls of [NMI_EXITING, []]) {
      const cpu = guest(controls, { guestActivityState });
      cpu.processor.requestNmi();
      cpu.run(3);
      expect(cpu.operation).toBe(exits ? 'root' : 'non-root');
      if (exits && controls.length === 1) {
        expect(look(cpu)).toEqual(exit(0n, eventId(2, 2), { activity: guestActivityState }));
      } else if (exits) expect(look(cpu)).toMatchObject({ reason: 18n, rip: handlerOf(2), activity: 0n });
    }
  });

  it('waits for the end of blocking by MOV SS', () => {
    const cpu = guest(NMI_EXITING, { guestInterruptibilityState: 2n });
    cpu.processor.requestNmi();
    runToExit(cpu, 3);
    expect(look(cpu)).toEqual(exit(0n, eventId(2, 2), { rip: GUEST + 1 }));
  });

  it('of an NMI that is being delivered an exit says that NMIs are blocked', () => {
    const cpu = guest([], { guestIdtrLimit: 15n, exceptionBitmap: 1n << 13n });
    cpu.processor.requestNmi();
    runToExit(cpu, 1);
    expect(look(cpu)).toMatchObject({
      reason: 0n,
      event: eventId(3, 13, 1),
      original: eventId(2, 2),
      blocking: 8n,
    });
    expect(cpu.vmread('exitingEventErrorCode').value).toBe(2n * 8n + 3n);
  });
});

describe('machine checks (SDM §28.2, §30.1)', () => {
  const MCE = 0x2060n;

  it('exit by the exception bitmap, with pending debug exceptions and without blocking', () => {
    const cpu = guest([], {
      guestCr4: MCE,
      exceptionBitmap: 1n << 18n,
      guestInterruptibilityState: 2n,
      guestPendingDebugExceptions: 0x1001n,
      guestActivityState: 0n,
    });
    cpu.processor.requestMachineCheck();
    runToExit(cpu, 1);
    expect(look(cpu)).toEqual(exit(0n, eventId(3, 18)));
    expect(cpu.vmread('guestPendingDebugExceptions').value).toBe(0x1001n);
  });

  it('are delivered without it, and shut the guest down without CR4.MCE', () => {
    const handled = guest([], { guestCr4: MCE });
    handled.processor.requestMachineCheck();
    runToExit(handled, 3);
    expect(look(handled)).toMatchObject({ reason: 18n, rip: handlerOf(18) });
    const shut = guest([], { ...TABLES, exceptionBitmap: 1n << 18n });
    shut.processor.requestMachineCheck();
    shut.run(5);
    expect([shut.operation, shut.get('activityState')]).toEqual(['non-root', 2n]);
  });
});
