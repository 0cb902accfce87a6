import { describe, expect, it } from 'vitest';
import type { LogicalProcessor } from '../../../src/machine/logical-processor.ts';
import type { ControlId } from '../../../src/vmcs/controls.ts';
import { exitFields, GUEST, GUEST_STACK, guestMachine, runToExit } from '../../support/guest.ts';
import { eventGuest, eventId, handlerOf, requestInterrupt, TABLES } from '../../support/guest-events.ts';
import type { FieldValues } from '../../support/legal-vmcs.ts';
import { succeeds } from '../../support/machine.ts';

const MTF: readonly ControlId[] = ['proc.monitorTrapFlag'];
const IF = 0x202n;
const UD2 = [0x0f, 0x0b];
const INJECTED_MTF = eventId(7, 0);

const seen = (cpu: LogicalProcessor) =>
  exitFields(
    cpu,
    'exitReason',
    'exitQualification',
    'exitingEventIdentification',
    'guestRip',
    'guestActivityState',
  );
const trapped = (rip: number, guestActivityState = 0n) => ({
  exitReason: 37n,
  exitQualification: 0n,
  exitingEventIdentification: 0n,
  guestRip: BigInt(rip),
  guestActivityState,
});

/** A guest with the monitor trap flag whose handlers execute NOPs. */
const guest = (code: string | readonly number[], fields: FieldValues = {}, controls = MTF) =>
  eventGuest(typeof code === 'string' ? code : Uint8Array.from(code), { controls, fields }, 'nop').cpu(0);

describe('the monitor trap flag (SDM §28.5.2)', () => {
  it('exits after each instruction that completes', () => {
    const cpu = guest('nop\nmov eax, 1\njmp target\nnop\ntarget: nop');
    for (const rip of [GUEST + 1, GUEST + 6, GUEST + 9]) {
      runToExit(cpu, 3);
      expect(seen(cpu)).toEqual(trapped(rip));
      expect(cpu.vmresume().kind).toBe('VMentry');
    }
  });

  it('without the control there is no exit', () => {
    const cpu = guest('nop\nnop\nvmcall', {}, []);
    runToExit(cpu);
    expect(cpu.vmread('exitReason').value).toBe(18n);
  });

  it.each([
    ['INT n', [0xcd, 0x80], 0x80],
    ['INT3', [0xcc], 3],
    ['INT1', [0xf1], 1],
    ['an instruction that faults', UD2, 6],
    ['a load that faults', [0x48, 0xa1, 0, 0, 0, 0, 0x80, 0, 0, 0], 14],
  ])('exits after delivery of the event of %s', (_, code, vector) => {
    const cpu = guest(code);
    runToExit(cpu, 2);
    expect(seen(cpu)).toEqual(trapped(handlerOf(vector)));
  });

  it('exits after delivery of an exception met during delivery', () => {
    // Only the gates up to vector 13 are within the limit.
    const nested = guest([0xcd, 0x80], { guestIdtrLimit: 16n * 14n - 1n });
    runToExit(nested, 2);
    expect(seen(nested)).toEqual(trapped(handlerOf(13)));
  });

  it('exits after one iteration of a repeated string instruction', () => {
    const cpu = guest('rep stosb');
    cpu.set('RCX', 5n);
    cpu.set('RDI', 0x8_0000n);
    runToExit(cpu, 2);
    expect(seen(cpu)).toEqual(trapped(GUEST));
    expect(cpu.get('RCX')).toBe(4n);
    expect(cpu.vmresume().kind).toBe('VMentry');
    runToExit(cpu, 2);
    expect([cpu.get('RCX'), cpu.vmread('guestRip').value]).toEqual([3n, BigInt(GUEST)]);
  });

  it('exits after delivery of the fault of the first iteration', () => {
    const cpu = guest('rep stosb');
    cpu.set('RCX', 5n);
    cpu.set('RDI', 0x80_0000_0000n);
    runToExit(cpu, 2);
    expect(seen(cpu)).toEqual(trapped(handlerOf(14)));
    expect(cpu.get('RCX')).toBe(5n);
  });

  it('exits from HLT after HLT', () => {
    const cpu = guest('hlt');
    runToExit(cpu, 2);
    expect(seen(cpu)).toEqual(trapped(GUEST + 1, 1n));
    expect(cpu.get('activityState')).toBe(0n);
  });

  it('exits before the first instruction if VM entry injects an event', () => {
    const cpu = guest('nop', { injectedEventIdentification: eventId(0, 0x40), guestRflags: IF });
    runToExit(cpu, 2);
    expect(seen(cpu)).toEqual(trapped(handlerOf(0x40)));
  });

  it('exits after delivery of an event that comes before the first instruction', () => {
    const cpu = guest('nop', { guestRflags: IF });
    requestInterrupt(cpu, 0x41);
    runToExit(cpu, 2);
    expect(seen(cpu)).toEqual(trapped(handlerOf(0x41)));
    const debug = guest('nop', { guestPendingDebugExceptions: 0x4000n });
    runToExit(debug, 2);
    expect(seen(debug)).toEqual(trapped(handlerOf(1)));
  });

  it('gives way to another exit, and is forgotten', () => {
    const cpu = guest('vmcall\nnop\nnop');
    runToExit(cpu, 2);
    expect(cpu.vmread('exitReason').value).toBe(18n);
    succeeds(
      cpu.vmwrite(
        'primaryProcessorBasedControls',
        cpu.vmread('primaryProcessorBasedControls').value & ~(1n << 27n),
      ),
    );
    succeeds(cpu.vmwrite('guestRip', BigInt(GUEST + 3)));
    expect(cpu.vmresume().kind).toBe('VMentry');
    cpu.run(2);
    expect(cpu.operation).toBe('non-root');
  });

  it('waits in HLT for what ends it', () => {
    const cpu = guest('nop', { guestActivityState: 1n });
    cpu.run(3);
    expect(cpu.operation).toBe('non-root');
    cpu.processor.requestNmi();
    runToExit(cpu, 2);
    expect(seen(cpu)).toEqual(trapped(handlerOf(2)));
  });

  it('in shutdown waits for the NMI that ends it', () => {
    const cpu = guest('nop', { guestActivityState: 2n });
    cpu.run(3);
    expect(cpu.operation).toBe('non-root');
    cpu.processor.requestNmi();
    runToExit(cpu, 2);
    expect(seen(cpu)).toEqual(trapped(handlerOf(2)));
  });

  it('keeps pending debug exceptions and blocking by MOV SS', () => {
    const cpu = guest('mov ss, eax\nnop', { guestRflags: 0x102n });
    cpu.set('RAX', 0x10n);
    runToExit(cpu, 2);
    expect(
      exitFields(cpu, 'exitReason', 'guestPendingDebugExceptions', 'guestInterruptibilityState', 'guestRip'),
    ).toEqual({
      exitReason: 37n,
      guestPendingDebugExceptions: 0x4000n,
      guestInterruptibilityState: 2n,
      guestRip: BigInt(GUEST + 2),
    });
  });

  it('comes before debug traps of the instruction, which are saved as pending', () => {
    const cpu = guest('nop', { guestRflags: 0x102n });
    runToExit(cpu, 2);
    expect(exitFields(cpu, 'exitReason', 'guestPendingDebugExceptions', 'guestRip')).toEqual({
      exitReason: 37n,
      guestPendingDebugExceptions: 0x4000n,
      guestRip: BigInt(GUEST + 1),
    });
  });
});

describe('injection of a pending MTF VM exit (SDM §29.6.2, §29.7.8)', () => {
  it.each([
    ['active', 0n],
    ['HLT', 1n],
  ])('exits before the first instruction without the control, from the state %s', (_, guestActivityState) => {
    const fields = { injectedEventIdentification: INJECTED_MTF, guestActivityState };
    const cpu = guestMachine('nop', { fields }).cpu(0);
    runToExit(cpu, 1);
    expect(seen(cpu)).toEqual(trapped(GUEST, guestActivityState));
    expect(cpu.vmread('injectedEventIdentification').value).toBe(INJECTED_MTF & 0x7fff_ffffn);
  });

  it('happens once', () => {
    const cpu = guestMachine('nop\nnop\nvmcall', {
      fields: { injectedEventIdentification: INJECTED_MTF },
    }).cpu(0);
    runToExit(cpu, 1);
    expect(cpu.vmresume().kind).toBe('VMentry');
    runToExit(cpu);
    expect(cpu.vmread('exitReason').value).toBe(18n);
  });

  it('leaves blocking by STI and MOV SS as VM entry loads it', () => {
    for (const guestInterruptibilityState of [1n, 2n]) {
      const fields = {
        injectedEventIdentification: INJECTED_MTF,
        guestInterruptibilityState,
        guestRflags: IF,
      };
      const cpu = guestMachine('nop', { fields: { ...TABLES, ...fields } }).cpu(0);
      runToExit(cpu, 1);
      expect(cpu.vmread('guestInterruptibilityState').value).toBe(guestInterruptibilityState);
    }
  });

  it('touches no memory of the guest', () => {
    const machine = guestMachine('nop', { fields: { injectedEventIdentification: INJECTED_MTF } });
    const before = machine.memory.readBytes(GUEST_STACK - 64, 64);
    runToExit(machine.cpu(0), 1);
    expect(machine.memory.readBytes(GUEST_STACK - 64, 64)).toEqual(before);
  });
});
