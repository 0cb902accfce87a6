import { describe, expect, it } from 'vitest';
import { NO_LOCAL_APIC } from '../../../src/cpu/local-apic.ts';
import type { Machine } from '../../../src/machine/machine.ts';
import { ApicRegister } from '../../../src/vmx/apic/virtual-apic-page.ts';
import { exitFields, GUEST, GUEST_STACK, type GuestOptions, runToExit } from '../../support/guest.ts';
import { APIC_PAGE, apicGuest, bitsOf, DESCRIPTOR, HANDLER, POSTING, vectorsAt } from './apic-guest.ts';

const { ISR, IRR, TPR } = ApicRegister;
const NOTIFICATION = 0xf2;

/** A local APIC that gives the interrupts of `queue` and remembers what it is told. */
function connect(machine: Machine, queue: number[]): string[] {
  const log: string[] = [];
  const { processor } = machine.cpu(0);
  processor.interrupts = {
    requested: () => queue.length > 0,
    acknowledge: () => {
      const vector = queue.shift() as number;
      log.push(`acknowledge ${vector.toString(16)}`);
      return vector;
    },
  };
  processor.localApic = {
    ...NO_LOCAL_APIC,
    writeEoi: () => log.push('EOI'),
    sendFixed: (vector, destination) => log.push(`send ${vector.toString(16)} to ${destination}`),
  };
  processor.requestAttention(64);
  return log;
}

function post(machine: Machine, ...vectors: number[]): void {
  for (const vector of vectors) {
    const at = DESCRIPTOR + 4 * (vector >> 5);
    machine.memory.write32(at, (machine.memory.read32(at) | (1 << (vector & 31))) >>> 0);
  }
  machine.memory.write32(DESCRIPTOR + 32, 0x00f2_0001);
  machine.memory.write32(DESCRIPTOR + 36, 0xcafe);
}

function guest(code: string, options: GuestOptions = {}, handler = 'vmcall'): Machine {
  const fields = { guestRflags: 0x202n, ...options.fields };
  return apicGuest(code, handler, { controls: POSTING, ...options, fields });
}

describe('posted-interrupt processing (SDM §32.6)', () => {
  it('the notification: ON cleared, EOI, PIR to VIRR, RVI, evaluation, delivery; no exit', () => {
    const machine = guest('nop\nvmcall');
    post(machine, 0x31, 0x80, 0xfe);
    machine.memory.write32(DESCRIPTOR + 40, 0x1234_5678);
    const log = connect(machine, [NOTIFICATION]);
    const cpu = machine.cpu(0);
    runToExit(cpu);
    expect(log).toEqual(['acknowledge f2', 'EOI']);
    expect(cpu.get('R15')).toBe(0xfen);
    expect(exitFields(cpu, 'exitReason', 'guestRip', 'guestInterruptStatus')).toEqual({
      exitReason: 18n,
      guestRip: BigInt(HANDLER + 0x1000),
      guestInterruptStatus: 0xfe80n,
    });
    expect(bitsOf(machine.memory, IRR)).toEqual([0x31, 0x80]);
    expect(bitsOf(machine.memory, ISR)).toEqual([0xfe]);
    expect(vectorsAt(machine.memory, DESCRIPTOR, 4)).toEqual([]);
    // Nothing but ON and PIR changes in the descriptor.
    expect(machine.memory.read32(DESCRIPTOR + 32)).toBe(0x00f2_0000);
    expect(machine.memory.read32(DESCRIPTOR + 36)).toBe(0xcafe);
    expect(machine.memory.read32(DESCRIPTOR + 40)).toBe(0x1234_5678);
  });

  it('every vector can be posted', () => {
    for (let vector = 0; vector < 256; vector += vector < 40 ? 1 : 5) {
      const machine = guest('nop\nvmcall');
      post(machine, vector);
      connect(machine, [NOTIFICATION]);
      runToExit(machine.cpu(0));
      expect(machine.cpu(0).get('R15')).toBe(vector < 16 ? 0n : BigInt(vector));
    }
  });

  it('with RFLAGS.IF = 0 it is processed, and delivered when IF is 1', () => {
    const machine = guest('nop\nnop\nsti\nnop\nvmcall', { fields: { guestRflags: 2n } });
    post(machine, 0x55);
    connect(machine, [NOTIFICATION]);
    const cpu = machine.cpu(0);
    cpu.run(2);
    expect(bitsOf(machine.memory, IRR)).toEqual([0x55]);
    expect(cpu.operation).toBe('non-root');
    runToExit(cpu);
    expect(cpu.get('R15')).toBe(0x55n);
  });

  it('an empty PIR leaves RVI; a lower vector too', () => {
    for (const posted of [[], [0x21]]) {
      const machine = guest('nop\nnop\nvmcall', { fields: { guestRflags: 2n, guestInterruptStatus: 0x40n } });
      machine.memory.write32(APIC_PAGE + IRR + 0x20, 1);
      post(machine, ...posted);
      connect(machine, [NOTIFICATION]);
      const cpu = machine.cpu(0);
      runToExit(cpu);
      expect(exitFields(cpu, 'guestInterruptStatus').guestInterruptStatus).toBe(0x40n);
      expect(bitsOf(machine.memory, IRR)).toEqual([...posted, 0x40]);
    }
  });

  it('another vector exits and is reported', () => {
    const machine = guest('nop\nvmcall');
    post(machine, 0x55);
    const log = connect(machine, [0xf1]);
    const cpu = machine.cpu(0);
    runToExit(cpu);
    expect(exitFields(cpu, 'exitReason', 'exitingEventIdentification', 'guestRip')).toEqual({
      exitReason: 1n,
      exitingEventIdentification: 0x8000_00f1n,
      guestRip: BigInt(GUEST),
    });
    expect(log).toEqual(['acknowledge f1']);
    expect(vectorsAt(machine.memory, DESCRIPTOR, 4)).toEqual([0x55]);
  });

  it('without "process posted interrupts" the notification vector exits', () => {
    const controls = POSTING.filter((id) => id !== 'pin.processPostedInterrupts');
    const machine = guest('nop\nvmcall', { controls });
    post(machine, 0x55);
    connect(machine, [NOTIFICATION]);
    runToExit(machine.cpu(0));
    expect(exitFields(machine.cpu(0), 'exitReason').exitReason).toBe(1n);
    expect(vectorsAt(machine.memory, DESCRIPTOR, 4)).toEqual([0x55]);
  });

  it('in HLT: back to HLT if nothing is recognised, otherwise the guest wakes', () => {
    for (const [tpr, wakes] of [
      [0x50, false],
      [0x40, true],
    ] as const) {
      const queue: number[] = [];
      const machine = guest('hlt\nvmcall', {
        setUp: (m) => m.memory.write8(APIC_PAGE + TPR, tpr),
      });
      const log = connect(machine, queue);
      const cpu = machine.cpu(0);
      cpu.run(10);
      expect(cpu.get('activityState')).toBe(1n);
      post(machine, 0x55);
      queue.push(NOTIFICATION);
      cpu.processor.requestAttention(64);
      cpu.run(3);
      expect(log).toEqual(['acknowledge f2', 'EOI']);
      expect(cpu.get('activityState')).toBe(wakes ? 0n : 1n);
      expect(cpu.get('R15')).toBe(wakes ? 0x55n : 0n);
      expect(bitsOf(machine.memory, IRR)).toEqual(wakes ? [] : [0x55]);
    }
  });

  it('in MWAIT: the guest goes on, also if nothing is recognised', () => {
    const queue: number[] = [];
    const code = 'mov eax, 0x60000\nxor ecx, ecx\nxor edx, edx\nmonitor\nmwait\nmov ebx, 1\nhlt';
    const machine = guest(code, { setUp: (m) => m.memory.write8(APIC_PAGE + TPR, 0x50) });
    connect(machine, queue);
    const cpu = machine.cpu(0);
    cpu.run(100);
    expect([cpu.get('monitorArmed'), cpu.get('RBX')]).toEqual([2n, 0n]);
    post(machine, 0x55);
    queue.push(NOTIFICATION);
    cpu.processor.requestAttention(64);
    cpu.run(5);
    expect([cpu.get('monitorArmed'), cpu.get('RBX'), cpu.get('R15')]).toEqual([0n, 1n, 0n]);
    expect(bitsOf(machine.memory, IRR)).toEqual([0x55]);
  });

  it('is no event after which a monitor trap comes: one instruction is executed first', () => {
    const machine = guest('nop\nnop\nvmcall', {
      controls: [...POSTING, 'proc.monitorTrapFlag'],
      fields: { guestRflags: 2n },
    });
    post(machine, 0x55);
    connect(machine, [NOTIFICATION]);
    runToExit(machine.cpu(0));
    expect(exitFields(machine.cpu(0), 'exitReason', 'guestRip', 'guestInterruptStatus')).toEqual({
      exitReason: 37n,
      guestRip: BigInt(GUEST + 1),
      guestInterruptStatus: 0x55n,
    });
  });

  it('between two iterations of a string instruction', () => {
    const machine = guest('rep stosb\nvmcall');
    const cpu = machine.cpu(0);
    cpu.set('RCX', 100n);
    cpu.set('RDI', 0x8_0000n);
    cpu.run(10);
    post(machine, 0x55);
    connect(machine, [NOTIFICATION]);
    runToExit(cpu);
    expect([cpu.get('R15'), cpu.get('RCX')]).toEqual([0x55n, 90n]);
    expect(machine.memory.read64(GUEST_STACK - 40)).toBe(BigInt(GUEST));
    expect(machine.memory.read64(GUEST_STACK - 24) & 0x1_0000n).toBe(0x1_0000n);
  });
});
