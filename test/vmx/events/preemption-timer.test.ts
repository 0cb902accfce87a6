import { describe, expect, it } from 'vitest';
import type { ControlId } from '../../../src/vmcs/controls.ts';
import { assemble } from '../../support/assemble.ts';
import { exitFields, GUEST, guestMachine, HOST, runToExit } from '../../support/guest.ts';
import { eventGuest, eventId, handlerOf } from '../../support/guest-events.ts';

const TIMER: readonly ControlId[] = ['pin.activateVmxPreemptionTimer'];
const SAVING: readonly ControlId[] = [...TIMER, 'exit.saveVmxPreemptionTimerValue'];
/** IA32_VMX_MISC[4:0] of the profile `full`: bit 5 of the TSC, 32 ticks. */
const TICKS = 32;
const SPIN = 'here: jmp here';
const timer = (vmxPreemptionTimerValue: bigint, more = {}) => ({ vmxPreemptionTimerValue, ...more });

describe('the VMX-preemption timer (SDM §28.5.1, §29.7.4)', () => {
  it.each([1n, 2n, 50n])('of %i exits after so many changes of bit 5 of the TSC', (value) => {
    const cpu = guestMachine(SPIN, { controls: TIMER, fields: timer(value) }).cpu(0);
    const start = cpu.get('IA32_TIME_STAMP_COUNTER');
    expect(cpu.rdmsr(0x485)! & 0x1fn).toBe(5n);
    cpu.run(100_000);
    expect(exitFields(cpu, 'exitReason', 'exitQualification', 'guestRip', 'vmxPreemptionTimerValue')).toEqual(
      {
        exitReason: 52n,
        exitQualification: 0n,
        guestRip: BigInt(GUEST),
        vmxPreemptionTimerValue: value,
      },
    );
    expect(cpu.operation).toBe('root');
    const expiry = (start / 32n + value) * 32n;
    const again = guestMachine(SPIN, { controls: TIMER, fields: timer(value) }).cpu(0);
    for (let n = 0; again.operation === 'non-root'; n++) {
      expect(n).toBeLessThan(TICKS * 60);
      again.run(1);
    }
    // The exit itself is one of the steps that are counted.
    expect(again.get('IA32_TIME_STAMP_COUNTER')).toBe(expiry + 1n);
  });

  it('does not run without the control', () => {
    const cpu = guestMachine(SPIN, { fields: timer(1n) }).cpu(0);
    cpu.run(1000);
    expect(cpu.operation).toBe('non-root');
  });

  it('how a run is divided changes nothing', () => {
    const expiries = [1, 7, 10_000].map((slice) => {
      const code = 'mov ecx, 1000\nlea rdi, [rip + 0x1000]\ncld\nrep stosb\nhere: jmp here';
      const machine = guestMachine(code, { controls: SAVING, fields: timer(9n) });
      const cpu = machine.cpu(0);
      for (let n = 0; n < 10_000 && cpu.operation === 'non-root'; n += slice) {
        cpu.run(Math.min(slice, 10_000 - n));
      }
      return exitFields(cpu, 'exitReason', 'guestRip', 'guestRflags', 'vmxPreemptionTimerValue');
    });
    expect(expiries[0]).toEqual(expiries[1]);
    expect(expiries[0]).toEqual(expiries[2]);
    expect(expiries[0]?.exitReason).toBe(52n);
    // It interrupts the repeated instruction between two iterations.
    expect(expiries[0]?.guestRip).toBe(BigInt(GUEST + 13));
  });

  it('is 0: exits before the first instruction, after an injected event', () => {
    const plain = guestMachine('nop', { controls: TIMER, fields: timer(0n) }).cpu(0);
    runToExit(plain, 1);
    expect(exitFields(plain, 'exitReason', 'guestRip')).toEqual({ exitReason: 52n, guestRip: BigInt(GUEST) });
    const fields = timer(0n, { injectedEventIdentification: eventId(0, 0x40), guestRflags: 0x202n });
    const cpu = eventGuest('nop', { controls: TIMER, fields }).cpu(0);
    runToExit(cpu, 2);
    expect(exitFields(cpu, 'exitReason', 'guestRip', 'injectedEventIdentification')).toEqual({
      exitReason: 52n,
      guestRip: BigInt(handlerOf(0x40)),
      injectedEventIdentification: 0x40n,
    });
  });

  it('waits for nothing: neither for RFLAGS.IF nor for blocking by STI or MOV SS', () => {
    for (const guestInterruptibilityState of [1n, 2n]) {
      const fields = timer(0n, { guestInterruptibilityState, guestRflags: 0x202n });
      const cpu = guestMachine('nop', { controls: TIMER, fields }).cpu(0);
      runToExit(cpu, 1);
      expect(exitFields(cpu, 'exitReason', 'guestRip', 'guestInterruptibilityState')).toEqual({
        exitReason: 52n,
        guestRip: BigInt(GUEST),
        guestInterruptibilityState,
      });
    }
  });

  it.each([
    ['HLT', 1n],
    ['shutdown', 2n],
  ])('runs in %s and ends it', (_, guestActivityState) => {
    const cpu = guestMachine('nop', {
      controls: TIMER,
      fields: timer(1000n, { guestActivityState }),
    }).cpu(0);
    cpu.run(100_000);
    expect(exitFields(cpu, 'exitReason', 'guestRip', 'guestActivityState')).toEqual({
      exitReason: 52n,
      guestRip: BigInt(GUEST),
      guestActivityState,
    });
    expect(cpu.get('activityState')).toBe(0n);
  });

  it('runs in MWAIT, which is no activity state, and saves RIP behind it', () => {
    const code = 'mov eax, 0x60000\nxor ecx, ecx\nxor edx, edx\nmonitor\nmwait\nnop';
    const cpu = guestMachine(code, { controls: TIMER, fields: timer(100_000n) }).cpu(0);
    cpu.run(1_000_000);
    expect([cpu.operation, cpu.get('monitorArmed')]).toEqual(['non-root', 2n]);
    cpu.run(3_000_000);
    expect(exitFields(cpu, 'exitReason', 'guestRip', 'guestActivityState')).toEqual({
      exitReason: 52n,
      guestRip: BigInt(GUEST + 15),
      guestActivityState: 0n,
    });
    expect(cpu.get('monitorArmed')).toBe(0n);
  });

  it('lets the time of HLT pass without executing, and saves RIP behind it', () => {
    const cpu = guestMachine('hlt\nnop', { controls: TIMER, fields: timer(100_000_000n) }).cpu(0);
    cpu.run(3_200_000_010);
    expect(exitFields(cpu, 'exitReason', 'guestRip', 'guestActivityState')).toEqual({
      exitReason: 52n,
      guestRip: BigInt(GUEST + 1),
      guestActivityState: 1n,
    });
    expect(cpu.get('IA32_TIME_STAMP_COUNTER')).toBeGreaterThanOrEqual(3_200_000_000n);
  });

  it('runs while the guest waits for a SIPI and causes no exit there', () => {
    const cpu = guestMachine('nop', {
      controls: SAVING,
      fields: timer(10n, { guestActivityState: 3n }),
    }).cpu(0);
    cpu.run(10_000);
    expect(cpu.operation).toBe('non-root');
    cpu.processor.requestSipi(7);
    cpu.run(1);
    expect(exitFields(cpu, 'exitReason', 'vmxPreemptionTimerValue')).toEqual({
      exitReason: 4n,
      vmxPreemptionTimerValue: 0n,
    });
  });

  it('is saved by every exit with "save VMX-preemption timer value", 0 if it has expired', () => {
    const value = (code: string, controls = SAVING, initial = 100n) => {
      const cpu = guestMachine(code, { controls, fields: timer(initial) }).cpu(0);
      cpu.run(10_000);
      return exitFields(cpu, 'exitReason', 'vmxPreemptionTimerValue');
    };
    const loop = (count: number) => `mov ecx, ${count}\nagain: loop again\nvmcall`;
    expect(value(loop(10 * TICKS))).toEqual({ exitReason: 18n, vmxPreemptionTimerValue: 90n });
    expect(value(loop(10 * TICKS), TIMER)).toEqual({ exitReason: 18n, vmxPreemptionTimerValue: 100n });
    expect(value(SPIN)).toEqual({ exitReason: 52n, vmxPreemptionTimerValue: 0n });
  });

  it('counts what passes in TPAUSE, which ends when it expires', () => {
    const start = assemble('mov eax, 90000\nxor edx, edx\nxor ecx, ecx');
    const TPAUSE_ECX = [0x66, 0x0f, 0xae, 0xf1];
    const cpu = guestMachine(Uint8Array.from([...start, ...TPAUSE_ECX, 0x90]), {
      controls: [...TIMER, 'proc2.enableUserWaitAndPause'],
      fields: timer(100n),
    }).cpu(0);
    cpu.run(6);
    expect(cpu.vmread('exitReason').value).toBe(52n);
    expect(cpu.get('IA32_TIME_STAMP_COUNTER')).toBeLessThan(100n * 32n + 4n);
  });

  it('does not count what the guest writes to the TSC', () => {
    const code = `mov ecx, 0x10\nmov eax, 0x10000000\nxor edx, edx\nwrmsr\n${SPIN}`;
    const bitmap = 0x8000n;
    const cpu = guestMachine(code, {
      controls: [...SAVING, 'proc.useMsrBitmaps'],
      fields: timer(100n, { msrBitmapAddress: bitmap }),
    }).cpu(0);
    cpu.run(20 * TICKS);
    expect(cpu.operation).toBe('non-root');
    cpu.run(100 * TICKS);
    expect([cpu.vmread('exitReason').value, cpu.get('RIP')]).toEqual([52n, BigInt(HOST)]);
    const passed = cpu.get('IA32_TIME_STAMP_COUNTER') - 0x1000_0000n;
    expect(passed).toBeGreaterThan(99n * 32n);
  });

  it('survives a snapshot', () => {
    const machine = guestMachine(SPIN, { controls: TIMER, fields: timer(100n) });
    const cpu = machine.cpu(0);
    cpu.run(1000);
    const snapshot = machine.snapshot();
    cpu.run(5000);
    const expired = cpu.get('IA32_TIME_STAMP_COUNTER');
    machine.restore(snapshot);
    expect(cpu.operation).toBe('non-root');
    cpu.run(5000);
    expect([cpu.vmread('exitReason').value, cpu.get('IA32_TIME_STAMP_COUNTER')]).toEqual([52n, expired]);
  });
});
