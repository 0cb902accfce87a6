import { describe, expect, it } from 'vitest';
import type { Machine } from '../../../src/machine/machine.ts';
import type { ControlId } from '../../../src/vmcs/controls.ts';
import { ApicRegister } from '../../../src/vmx/apic/virtual-apic-page.ts';
import { exitFields, GUEST, GUEST_STACK, runToExit } from '../../support/guest.ts';
import type { FieldValues } from '../../support/legal-vmcs.ts';
import { APIC_PAGE, apicGuest, bitsOf, DELIVERY, HANDLER } from './apic-guest.ts';

const { IRR, TPR } = ApicRegister;
const TIMER: readonly ControlId[] = [...DELIVERY, 'proc.useMsrBitmaps', 'proc3.apicTimerVirtualization'];
const VECTOR = 0x6b;

function guest(
  code: string,
  fields: FieldValues = {},
  controls: readonly ControlId[] = [],
  setUp: (machine: Machine) => void = () => {},
): Machine {
  return apicGuest(code, 'vmcall', {
    controls: [...TIMER, ...controls],
    fields: { virtualTimerVector: BigInt(VECTOR), guestRflags: 0x202n, ...fields },
    setUp,
  });
}

/** Sets the deadline in RBX, then executes NOPs. */
const ARM = 'mov ecx, 0x6e0\nmov eax, ebx\nmov rdx, rbx\nshr rdx, 32\nwrmsr\n';
const NOPS = `${'nop\n'.repeat(60)}vmcall`;

function armed(delay: bigint, fields: FieldValues = {}, controls: readonly ControlId[] = []): Machine {
  const machine = guest(ARM + NOPS, fields, controls);
  machine.cpu(0).set('RBX', machine.cpu(0).get('IA32_TIME_STAMP_COUNTER') + delay);
  return machine;
}

describe('the guest timer (SDM §28.5.10)', () => {
  it('WRMSR of a deadline to come: the interrupt comes when the TSC gets there', () => {
    for (const delay of [7n, 20n, 31n]) {
      const machine = armed(delay);
      const cpu = machine.cpu(0);
      const deadline = cpu.get('RBX');
      while (cpu.get('R15') === 0n && cpu.operation === 'non-root') {
        cpu.run(1);
        if (cpu.get('RIP') >= BigInt(HANDLER)) break;
      }
      // The event, its delivery: one tick.
      expect(cpu.get('IA32_TIME_STAMP_COUNTER')).toBe(deadline + 1n);
      runToExit(cpu);
      expect(cpu.get('R15')).toBe(BigInt(VECTOR));
      expect(exitFields(cpu, 'guestDeadline', 'guestDeadlineShadow')).toEqual({
        guestDeadline: 0n,
        guestDeadlineShadow: 0n,
      });
    }
  });

  it('however the run is cut', () => {
    const states = [1, 3, 1000].map((slice) => {
      const machine = armed(25n);
      const cpu = machine.cpu(0);
      while (cpu.operation === 'non-root') cpu.run(slice);
      return [exitFields(cpu, 'guestRip', 'guestRsp'), machine.memory.read64(0x5_0000 - 40)];
    });
    expect(states[1]).toEqual(states[0]);
    expect(states[2]).toEqual(states[0]);
  });

  it('a deadline that is past acts at once, 0 disarms', () => {
    const past = armed(-1n);
    past.cpu(0).set('RBX', 1n);
    past.cpu(0).run(6);
    expect([past.cpu(0).get('RIP'), past.cpu(0).unit.vmx.svi]).toEqual([
      BigInt(HANDLER + 16 * VECTOR),
      VECTOR,
    ]);
    const disarmed = guest(`${ARM}xor ebx, ebx\n${ARM}${NOPS}`);
    disarmed.cpu(0).set('RBX', disarmed.cpu(0).get('IA32_TIME_STAMP_COUNTER') + 20n);
    runToExit(disarmed.cpu(0));
    expect(disarmed.cpu(0).get('R15')).toBe(0n);
  });

  it('RDMSR gives the shadow, in ticks of the guest; the MSR is untouched', () => {
    const machine = guest(
      `${ARM}xor eax, eax\nxor edx, edx\nrdmsr\nvmcall`,
      { tscOffset: 1000n, tscMultiplier: 2n << 48n },
      ['proc.useTscOffsetting', 'proc2.useTscScaling'],
    );
    const cpu = machine.cpu(0);
    const tsc = cpu.get('IA32_TIME_STAMP_COUNTER');
    cpu.set('RBX', 2n * (tsc + 50n) + 1000n);
    const old = cpu.get('IA32_TSC_DEADLINE');
    runToExit(cpu);
    expect((cpu.get('RDX') << 32n) | cpu.get('RAX')).toBe(2n * (tsc + 50n) + 1000n);
    expect(cpu.get('IA32_TSC_DEADLINE')).toBe(old);
    expect(exitFields(cpu, 'guestDeadline').guestDeadline).toBe(tsc + 50n);
  });

  it('VM entry loads the deadline: past, to come, 0', () => {
    for (const [deadline, comes] of [
      [1n, true],
      [30n, true],
      [0n, false],
      [1n << 40n, false],
    ] as const) {
      const machine = guest(NOPS, { guestDeadline: deadline }, [], (m) => m.cpu(0).advance(5n));
      runToExit(machine.cpu(0));
      expect(machine.cpu(0).get('R15')).toBe(comes ? BigInt(VECTOR) : 0n);
      expect(exitFields(machine.cpu(0), 'guestDeadline').guestDeadline).toBe(comes ? 0n : deadline);
      expect(machine.cpu(0).unit.vmx.guestDeadline).toBeUndefined();
    }
  });

  it('in HLT: back to HLT if the TPR holds the interrupt back, otherwise the guest wakes', () => {
    for (const [tpr, wakes] of [
      [0x60, false],
      [0x50, true],
    ] as const) {
      const machine = guest('hlt\nvmcall', { guestDeadline: 500n }, [], (m) =>
        m.memory.write8(APIC_PAGE + TPR, tpr),
      );
      const cpu = machine.cpu(0);
      cpu.run(400);
      expect([cpu.get('activityState'), cpu.get('R15')]).toEqual([1n, 0n]);
      cpu.run(200);
      expect(cpu.get('R15')).toBe(wakes ? BigInt(VECTOR) : 0n);
      if (!wakes) {
        expect(cpu.get('activityState')).toBe(1n);
        expect(bitsOf(machine.memory, IRR)).toEqual([VECTOR]);
      }
    }
  });

  it('in MWAIT: the guest goes on, also if the TPR holds the interrupt back', () => {
    const code = 'mov eax, 0x60000\nxor ecx, ecx\nxor edx, edx\nmonitor\nmwait\nmov ebx, 1\nhlt';
    const machine = guest(code, { guestDeadline: 500n }, [], (m) => m.memory.write8(APIC_PAGE + TPR, 0x60));
    const cpu = machine.cpu(0);
    cpu.run(400);
    expect([cpu.get('monitorArmed'), cpu.get('RBX')]).toEqual([2n, 0n]);
    cpu.run(200);
    expect([cpu.get('monitorArmed'), cpu.get('RBX'), cpu.get('R15')]).toEqual([0n, 1n, 0n]);
    expect(bitsOf(machine.memory, IRR)).toEqual([VECTOR]);
  });

  it.each([
    ['TPAUSE', '.byte 0x66, 0x0f, 0xae, 0xf6'],
    ['UMWAIT', '.byte 0xf2, 0x0f, 0xae, 0xf6'],
  ])(
    'in %s: its time has come, and the guest goes on, also if the TPR holds the interrupt back',
    (_, wait) => {
      const code = `mov rax, 0x60000\n.byte 0xf3, 0x0f, 0xae, 0xf0\nmov edx, 1\nxor esi, esi\n${wait}\nmov ebx, 1\nhlt`;
      const controls = ['proc2.enableUserWaitAndPause'] as const;
      const machine = guest(code, { guestDeadline: 5000n }, controls, (m) =>
        m.memory.write8(APIC_PAGE + TPR, 0x60),
      );
      const cpu = machine.cpu(0);
      cpu.run(8);
      expect([cpu.get('RBX'), cpu.get('R15')]).toEqual([1n, 0n]);
      const tsc = cpu.get('IA32_TIME_STAMP_COUNTER');
      expect([tsc >= 5000n, tsc < 5010n]).toEqual([true, true]);
      expect(bitsOf(machine.memory, IRR)).toEqual([VECTOR]);
    },
  );

  it('in a repeated instruction: between two iterations, and the image of RFLAGS has RF', () => {
    const machine = guest('mov edi, 0x60000\nmov ecx, 1000\nrep stosb\nvmcall', { guestDeadline: 100n });
    const cpu = machine.cpu(0);
    runToExit(cpu, 2000);
    const { guestRsp } = exitFields(cpu, 'guestRsp');
    expect(cpu.get('R15')).toBe(BigInt(VECTOR));
    expect(machine.memory.read64(Number(guestRsp))).toBe(BigInt(GUEST + 10));
    expect(machine.memory.read64(Number(guestRsp) + 16) & 0x1_0000n).toBe(0x1_0000n);
    const left = cpu.get('RCX');
    expect([left > 850n, left < 950n, cpu.get('RDI')]).toEqual([true, true, 0x6_0000n + 1000n - left]);
  });

  it('wakes a guest in HLT while nothing else executes: time goes there at once', () => {
    const machine = guest('hlt\nvmcall', { guestDeadline: 1_000_000n });
    for (let n = 0; n < 5 && machine.cpu(0).operation === 'non-root'; n++) machine.scheduler.run(1000);
    expect(machine.cpu(0).get('R15')).toBe(BigInt(VECTOR));
    expect(machine.time).toBeGreaterThan(999_000);
    expect(machine.time).toBeLessThan(1_010_000);
  });

  it('between two iterations of a string instruction: RF is 1 in the image', () => {
    const machine = guest('rep stosb\nvmcall', { guestDeadline: 30n });
    const cpu = machine.cpu(0);
    cpu.set('RCX', 100n);
    cpu.set('RDI', 0x8_0000n);
    runToExit(cpu);
    expect(cpu.get('R15')).toBe(BigInt(VECTOR));
    const left = cpu.get('RCX');
    expect(left > 0n && left < 100n).toBe(true);
    expect(cpu.get('RDI')).toBe(0x8_0000n + 100n - left);
    expect(machine.memory.read64(GUEST_STACK - 40)).toBe(BigInt(GUEST));
    expect(machine.memory.read64(GUEST_STACK - 24) & 0x1_0000n).toBe(0x1_0000n);
  });

  it('ends TPAUSE, also where the interrupt is held back', () => {
    const TPAUSE_EBX = '.byte 0x66, 0x0f, 0xae, 0xf3';
    const machine = guest(
      `xor ebx, ebx\nmov eax, 50000\nxor edx, edx\n${TPAUSE_EBX}\nvmcall`,
      { guestDeadline: 500n, guestRflags: 2n },
      ['proc2.enableUserWaitAndPause'],
    );
    const cpu = machine.cpu(0);
    runToExit(cpu);
    expect(exitFields(cpu, 'exitReason', 'guestDeadline', 'guestInterruptStatus')).toEqual({
      exitReason: 18n,
      guestDeadline: 0n,
      guestInterruptStatus: BigInt(VECTOR),
    });
    const tsc = cpu.get('IA32_TIME_STAMP_COUNTER');
    expect(tsc >= 500n && tsc < 510n).toBe(true);
  });

  it('the operand of WRMSR is a time of the TSC that the guest sees', () => {
    for (const [ahead, comes] of [
      [-1n, 'at once'],
      [0n, 'at once'],
      [40n, 'later'],
    ] as const) {
      const machine = guest(ARM + NOPS, { tscOffset: 10_000n, guestRflags: 2n }, ['proc.useTscOffsetting']);
      const cpu = machine.cpu(0);
      cpu.run(4);
      cpu.set('RDX', 0n);
      // What WRMSR finds.
      cpu.set('RAX', cpu.get('IA32_TIME_STAMP_COUNTER') + 10_000n + ahead);
      cpu.run(1);
      expect([ahead, bitsOf(machine.memory, IRR)]).toEqual([ahead, comes === 'at once' ? [VECTOR] : []]);
      runToExit(cpu);
      expect(bitsOf(machine.memory, IRR)).toEqual([VECTOR]);
    }
  });

  it('WRMSRNS sets it too; it never interrupts outside non-root operation', () => {
    const machine = guest('nop', {}, [], ({ memory }) =>
      memory.writeBytes(GUEST, Uint8Array.of(0x0f, 0x01, 0xc6, 0x0f, 0x01, 0xc1)),
    );
    const cpu = machine.cpu(0);
    cpu.set('RCX', 0x6e0n);
    cpu.set('RAX', 1_000n);
    cpu.set('RDX', 0n);
    runToExit(cpu);
    expect(exitFields(cpu, 'exitReason', 'guestDeadline', 'guestDeadlineShadow')).toEqual({
      exitReason: 18n,
      guestDeadline: 1_000n,
      guestDeadlineShadow: 1_000n,
    });
    cpu.advance(5_000n);
    cpu.run(100);
    expect(bitsOf(machine.memory, IRR)).toEqual([]);
    expect(exitFields(cpu, 'guestDeadline').guestDeadline).toBe(1_000n);
    expect(cpu.unit.vmx.guestDeadline).toBeUndefined();
  });

  it('shutdown holds it; the preemption timer is still waited for', () => {
    const machine = guest(
      'vmcall',
      { guestDeadline: 1n, guestActivityState: 2n, vmxPreemptionTimerValue: 10n },
      ['pin.activateVmxPreemptionTimer'],
      (m) => m.cpu(0).advance(5n),
    );
    const cpu = machine.cpu(0);
    cpu.run(2000);
    expect(exitFields(cpu, 'exitReason', 'guestDeadline', 'guestRip')).toEqual({
      exitReason: 52n,
      guestDeadline: 1n,
      guestRip: BigInt(GUEST),
    });
  });

  it('without the control the MSR is the real one', () => {
    const machine = apicGuest('mov ecx, 0x6e0\nmov eax, 5\nmov edx, 0x100\nwrmsr\nvmcall', 'vmcall', {
      controls: [...DELIVERY, 'proc.useMsrBitmaps'],
      fields: { guestDeadline: 7n },
    });
    const cpu = machine.cpu(0);
    // The timer of the APIC in TSC-deadline mode, without which the MSR is 0.
    cpu.processor.localApic.store(0x320, 0x4_0030);
    runToExit(cpu);
    expect(cpu.get('IA32_TSC_DEADLINE')).toBe(0x100_0000_0005n);
    expect(exitFields(cpu, 'guestDeadline').guestDeadline).toBe(0n);
  });
});
