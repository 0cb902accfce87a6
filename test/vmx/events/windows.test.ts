import { describe, expect, it } from 'vitest';
import type { ControlId } from '../../../src/vmcs/controls.ts';
import { exitFields, GUEST, guestMachine, HOST, runToExit } from '../../support/guest.ts';
import { eventGuest, eventId, handlerOf, requestInterrupt } from '../../support/guest-events.ts';

const IF = 0x202n;
const INTERRUPT_WINDOW: readonly ControlId[] = ['proc.interruptWindowExiting'];
const VIRTUAL_NMIS: readonly ControlId[] = ['pin.nmiExiting', 'pin.virtualNmis'];
const NMI_WINDOW: readonly ControlId[] = [...VIRTUAL_NMIS, 'proc.nmiWindowExiting'];
/** Interruptibility: blocking by STI, MOV SS, NMI. */
const [STI, MOV_SS, NMI] = [1n, 2n, 8n];

const seen = (cpu: Parameters<typeof exitFields>[0]) =>
  exitFields(
    cpu,
    'exitReason',
    'exitQualification',
    'exitingEventIdentification',
    'guestRip',
    'guestActivityState',
    'guestInterruptibilityState',
  );
const window = (exitReason: bigint, rip: number, more = {}) => ({
  exitReason,
  exitQualification: 0n,
  exitingEventIdentification: 0n,
  guestRip: BigInt(rip),
  guestActivityState: 0n,
  guestInterruptibilityState: 0n,
  ...more,
});

describe('interrupt-window exiting (SDM §28.2, §29.7.5)', () => {
  it('exits right after VM entry if interrupts are not blocked, also in HLT, which the guest leaves', () => {
    for (const guestActivityState of [0n, 1n]) {
      const cpu = guestMachine('nop', {
        controls: INTERRUPT_WINDOW,
        fields: { guestRflags: IF, guestActivityState },
      }).cpu(0);
      runToExit(cpu, 1);
      expect(seen(cpu)).toEqual(window(7n, GUEST, { guestActivityState }));
      expect([cpu.get('RIP'), cpu.get('activityState')]).toEqual([BigInt(HOST), 0n]);
    }
  });

  it('does not exit without the control', () => {
    const cpu = guestMachine('nop\nnop\nvmcall', { fields: { guestRflags: IF } }).cpu(0);
    runToExit(cpu);
    expect(cpu.vmread('exitReason').value).toBe(18n);
  });

  it('waits for IF: after STI also for the next instruction', () => {
    const cpu = guestMachine('nop\nsti\nnop\nnop', { controls: INTERRUPT_WINDOW }).cpu(0);
    runToExit(cpu);
    expect(seen(cpu)).toEqual(window(7n, GUEST + 3));
  });

  it('waits for POPF and IRET that set IF, and exits behind them', () => {
    const popf = guestMachine('push 0x202\npopfq\nnop', { controls: INTERRUPT_WINDOW }).cpu(0);
    runToExit(popf);
    expect(popf.vmread('guestRip').value).toBe(BigInt(GUEST + 6));
  });

  it.each([
    ['STI', STI],
    ['MOV SS', MOV_SS],
  ])('waits for the end of blocking by %s', (_, guestInterruptibilityState) => {
    const cpu = guestMachine('nop\nnop', {
      controls: INTERRUPT_WINDOW,
      fields: { guestRflags: IF, guestInterruptibilityState },
    }).cpu(0);
    runToExit(cpu);
    expect(seen(cpu)).toEqual(window(7n, GUEST + 1));
  });

  it('does not exit from shutdown or while the guest waits for a SIPI', () => {
    for (const guestActivityState of [2n, 3n]) {
      const cpu = guestMachine('nop', {
        controls: INTERRUPT_WINDOW,
        fields: { guestRflags: IF, guestActivityState },
      }).cpu(0);
      cpu.run(5);
      expect(cpu.operation).toBe('non-root');
    }
  });

  it('follows the delivery of an injected event, whose handler has IF = 0', () => {
    const fields = { guestRflags: IF, injectedEventIdentification: eventId(0, 0x40) };
    const cpu = eventGuest('nop', { controls: INTERRUPT_WINDOW, fields }, 'nop\nsti\nnop\nnop').cpu(0);
    runToExit(cpu);
    expect(seen(cpu)).toEqual(window(7n, handlerOf(0x40) + 3));
  });

  it('comes before an external interrupt, which stays pending', () => {
    const cpu = guestMachine('nop', {
      controls: [...INTERRUPT_WINDOW, 'pin.externalInterruptExiting', 'exit.acknowledgeInterruptOnExit'],
      fields: { guestRflags: IF },
    }).cpu(0);
    const source = requestInterrupt(cpu, 0x40);
    runToExit(cpu, 1);
    expect([cpu.vmread('exitReason').value, source.acknowledged]).toEqual([7n, 0]);
  });
});

describe('NMI-window exiting (SDM §28.2, §29.7.6)', () => {
  it.each([
    ['active', 0n],
    ['HLT', 1n],
    ['shutdown', 2n],
  ])(
    'exits right after VM entry from the state %s if virtual NMIs are not blocked',
    (_, guestActivityState) => {
      const cpu = guestMachine('nop', { controls: NMI_WINDOW, fields: { guestActivityState } }).cpu(0);
      runToExit(cpu, 1);
      expect(seen(cpu)).toEqual(window(8n, GUEST, { guestActivityState }));
    },
  );

  it('does not exit without the control, nor while the guest waits for a SIPI', () => {
    const without = guestMachine('nop\nvmcall', { controls: VIRTUAL_NMIS }).cpu(0);
    runToExit(without);
    expect(without.vmread('exitReason').value).toBe(18n);
    const waiting = guestMachine('nop', { controls: NMI_WINDOW, fields: { guestActivityState: 3n } }).cpu(0);
    waiting.run(3);
    expect(waiting.operation).toBe('non-root');
  });

  it.each([
    ['STI', STI, IF],
    ['MOV SS', MOV_SS, 2n],
  ])('waits for the end of blocking by %s', (_, guestInterruptibilityState, guestRflags) => {
    const cpu = guestMachine('nop\nnop', {
      controls: NMI_WINDOW,
      fields: { guestInterruptibilityState, guestRflags },
    }).cpu(0);
    runToExit(cpu);
    expect(seen(cpu)).toEqual(window(8n, GUEST + 1));
  });

  it('waits for the IRET that ends virtual-NMI blocking', () => {
    const code = `
      push 0x10
      push ${0x5_0000}
      push 2
      push 8
      push ${GUEST + 0x40}
      iretq`;
    const cpu = eventGuest(code, {
      controls: NMI_WINDOW,
      fields: { guestInterruptibilityState: NMI },
    }).cpu(0);
    runToExit(cpu);
    expect(seen(cpu)).toEqual(window(8n, GUEST + 0x40));
  });
});

describe('virtual NMIs (SDM §28.2, §29.7.1)', () => {
  it('are blocked by an injected NMI, which does not block NMIs', () => {
    const fields = { injectedEventIdentification: eventId(2, 2) };
    const cpu = eventGuest('nop', { controls: VIRTUAL_NMIS, fields }, 'nop\nnop\nnop').cpu(0);
    cpu.run(2);
    expect([cpu.get('blockingByNmi'), cpu.unit.vmx.virtualNmiBlocking]).toEqual([0n, true]);
    cpu.processor.requestNmi();
    runToExit(cpu, 1);
    expect(seen(cpu)).toEqual({
      ...window(0n, handlerOf(2) + 1),
      exitingEventIdentification: eventId(2, 2),
      guestInterruptibilityState: NMI,
    });
    expect(cpu.get('blockingByNmi')).toBe(1n);
  });

  it('do not block NMIs when VM entry says that they are blocked', () => {
    const cpu = guestMachine('nop', {
      controls: VIRTUAL_NMIS,
      fields: { guestInterruptibilityState: NMI },
    }).cpu(0);
    cpu.processor.requestNmi();
    runToExit(cpu, 1);
    expect(cpu.vmread('exitReason').value).toBe(0n);
  });

  it('without them, NMIs are blocked by bit 3, and IRET does not change that with "NMI exiting"', () => {
    const code = `
      push 0x10
      push ${0x5_0000}
      push 2
      push 8
      push ${GUEST + 0x40}
      iretq`;
    for (const controls of [['pin.nmiExiting'], []] as const) {
      const cpu = eventGuest(code, { controls, fields: { guestInterruptibilityState: NMI } }).cpu(0);
      cpu.processor.memory.writeBytes(GUEST + 0x40, Uint8Array.of(0x90, 0x0f, 0x01, 0xc1));
      cpu.processor.requestNmi();
      runToExit(cpu);
      const { exitReason, guestRip } = seen(cpu);
      // With the control the NMI stays blocked until the VMCALL behind the target; without it the guest's handler has it.
      if (controls.length === 1) expect([exitReason, guestRip]).toEqual([18n, BigInt(GUEST + 0x41)]);
      else expect([exitReason, guestRip]).toEqual([18n, BigInt(handlerOf(2))]);
    }
  });

  it('without "NMI exiting" an injected NMI blocks NMIs', () => {
    const fields = { injectedEventIdentification: eventId(2, 2) };
    const cpu = eventGuest('nop', { fields }, 'nop\nnop\nvmcall').cpu(0);
    cpu.processor.requestNmi();
    runToExit(cpu);
    expect([cpu.vmread('exitReason').value, cpu.get('nmiPending')]).toEqual([18n, 1n]);
  });
});
