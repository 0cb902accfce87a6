import { describe, expect, it } from 'vitest';
import {
  type ApicRegisterName,
  acknowledge,
  apicMachine,
  enterX2apic,
  loadApic,
  sendIpi,
  storeApic,
  vectorsOf,
} from '../../support/apic.ts';

const FIXED = 0;
const SELF = 1 << 18;
const one = (options = {}) => apicMachine(options).cpu(0);

describe('a local APIC after power-up', () => {
  const cpu = one();
  cpu.reset();

  it.each([
    ['Id', 0],
    ['Version', 0x0106_0015],
    ['TaskPriority', 0],
    ['ProcessorPriority', 0],
    ['LogicalDestination', 0],
    ['DestinationFormat', 0xffff_ffff],
    ['SpuriousInterruptVector', 0xff],
    ['ErrorStatus', 0],
    ['InterruptCommand', 0],
    ['LvtCmci', 0x1_0000],
    ['LvtTimer', 0x1_0000],
    ['LvtThermal', 0x1_0000],
    ['LvtPerformance', 0x1_0000],
    ['LvtLint0', 0x1_0000],
    ['LvtLint1', 0x1_0000],
    ['LvtError', 0x1_0000],
    ['InitialCount', 0],
    ['CurrentCount', 0],
    ['DivideConfiguration', 0],
  ] as const)('has %s %i', (register, value) => {
    expect(loadApic(cpu, register)).toBe(value);
  });

  it('has the identifier of its processor', () => {
    const machine = apicMachine({ cpus: 3 });
    expect(machine.processors.map((c) => loadApic(c, 'Id'))).toEqual([0, 1 << 24, 2 << 24]);
    enterX2apic(machine.cpu(2));
    expect(machine.cpu(2).rdmsr(0x802)).toBe(2n);
  });
});

describe('writes of registers in xAPIC mode', () => {
  it.each([
    ['Id', 0xff00_0000, 0],
    ['Version', 0xffff_ffff, 0x0106_0015],
    ['TaskPriority', 0xffff_ffff, 0xff],
    ['LogicalDestination', 0xffff_ffff, 0xff00_0000],
    ['DestinationFormat', 0, 0x0fff_ffff],
    ['SpuriousInterruptVector', 0xffff_ffff, 0x13ff],
    ['LvtCmci', 0xffff_ffff, 0x1_07ff],
    ['LvtTimer', 0xffff_ffff, 0x7_00ff],
    ['LvtThermal', 0xffff_ffff, 0x1_07ff],
    ['LvtPerformance', 0xffff_ffff, 0x1_07ff],
    ['LvtLint0', 0xffff_ffff, 0x1_a7ff],
    ['LvtLint1', 0xffff_ffff, 0x1_a7ff],
    ['LvtError', 0xffff_ffff, 0x1_00ff],
    ['InterruptCommandHigh', 0xffff_ffff, 0xff00_0000],
    ['DivideConfiguration', 0xffff_ffff, 0xb],
    ['InitialCount', 0xffff_ffff, 0xffff_ffff],
    ['CurrentCount', 5, 0],
  ] as const)('%s takes what of %i', (register, written, read) => {
    const cpu = one();
    storeApic(cpu, register, written);
    expect(loadApic(cpu, register)).toBe(read);
  });

  it('have no registers of the other mode', () => {
    const cpu = one();
    storeApic(cpu, 'SelfIpi', 0x40);
    expect(vectorsOf(cpu, 'InterruptRequest')).toEqual([]);
    storeApic(cpu, 'ErrorStatus', 0);
    expect(loadApic(cpu, 'ErrorStatus')).toBe(0x80);
  });
});

describe('the error status register', () => {
  it('shows errors since its last write, which the first of them signals', () => {
    const cpu = one();
    storeApic(cpu, 'LvtError', 0xe0);
    sendIpi(cpu, FIXED | 15, 0);
    expect(loadApic(cpu, 'ErrorStatus')).toBe(0);
    expect(acknowledge(cpu)).toBe(0xe0);
    cpu.processor.localApic.load(0x400);
    expect(acknowledge(cpu)).toBeUndefined();
    storeApic(cpu, 'ErrorStatus', 0);
    expect(loadApic(cpu, 'ErrorStatus')).toBe(0xa0);
    storeApic(cpu, 'Eoi', 0);
    storeApic(cpu, 'ErrorStatus', 0);
    expect(loadApic(cpu, 'ErrorStatus')).toBe(0);
    cpu.processor.localApic.store(0x410, 0);
    expect(acknowledge(cpu)).toBe(0xe0);
  });

  it('tells of a received vector below 16', () => {
    const machine = apicMachine();
    machine.platform?.ioApic.store(0xfec0_0000, 0x10 + 2 * 4);
    machine.platform?.ioApic.store(0xfec0_0010, 5);
    machine.platform?.bus.write(0x2004, 1, 1);
    const cpu = machine.cpu(0);
    storeApic(cpu, 'ErrorStatus', 0);
    expect([loadApic(cpu, 'ErrorStatus'), acknowledge(cpu)]).toEqual([0x40, undefined]);
  });
});

describe('priorities', () => {
  it('let through the highest vector of a class above that of the processor', () => {
    const cpu = one();
    for (const vector of [0x35, 0x91, 0x41, 0x9f]) sendIpi(cpu, SELF | vector);
    expect(vectorsOf(cpu, 'InterruptRequest')).toEqual([0x35, 0x41, 0x91, 0x9f]);
    expect(loadApic(cpu, 'ArbitrationPriority')).toBe(0x90);
    expect(acknowledge(cpu)).toBe(0x9f);
    expect([vectorsOf(cpu, 'InService'), loadApic(cpu, 'ProcessorPriority')]).toEqual([[0x9f], 0x90]);
    expect(acknowledge(cpu)).toBeUndefined();
    sendIpi(cpu, SELF | 0xa0);
    expect(acknowledge(cpu)).toBe(0xa0);
    storeApic(cpu, 'Eoi', 0);
    expect(acknowledge(cpu)).toBeUndefined();
    storeApic(cpu, 'Eoi', 0);
    expect(acknowledge(cpu)).toBe(0x91);
    storeApic(cpu, 'TaskPriority', 0x40);
    storeApic(cpu, 'Eoi', 0);
    expect(acknowledge(cpu)).toBeUndefined();
    storeApic(cpu, 'TaskPriority', 0x3f);
    expect([acknowledge(cpu), loadApic(cpu, 'ProcessorPriority')]).toEqual([0x41, 0x40]);
  });

  it('PPR is the task priority as a whole where its class is not below that in service', () => {
    const cpu = one();
    sendIpi(cpu, SELF | 0x52);
    acknowledge(cpu);
    for (const [task, processor] of [
      [0x4f, 0x50],
      [0x53, 0x53],
      [0x61, 0x61],
    ] as const) {
      storeApic(cpu, 'TaskPriority', task);
      expect(loadApic(cpu, 'ProcessorPriority')).toBe(processor);
    }
  });

  it('every vector against every class of the task priority', () => {
    const cpu = one();
    for (let vector = 16; vector < 256; vector++) {
      for (let taskClass = 0; taskClass < 16; taskClass++) {
        storeApic(cpu, 'TaskPriority', taskClass << 4);
        sendIpi(cpu, SELF | vector);
        const taken = acknowledge(cpu);
        expect(taken).toBe(vector >> 4 > taskClass ? vector : undefined);
        storeApic(cpu, 'TaskPriority', 0);
        if (taken === undefined) acknowledge(cpu);
        storeApic(cpu, 'Eoi', 0);
      }
    }
  });

  it('CR8 is the class of the task priority, both ways', () => {
    const cpu = one();
    storeApic(cpu, 'TaskPriority', 0x7c);
    expect(cpu.get('CR8')).toBe(7n);
    cpu.set('CR8', 9n);
    expect(loadApic(cpu, 'TaskPriority')).toBe(0x90);
  });

  it('a second request of a vector merges with the one that waits, and follows the one in service', () => {
    const cpu = one();
    sendIpi(cpu, SELF | 0x40);
    sendIpi(cpu, SELF | 0x40);
    expect(acknowledge(cpu)).toBe(0x40);
    sendIpi(cpu, SELF | 0x40);
    storeApic(cpu, 'Eoi', 0);
    expect(acknowledge(cpu)).toBe(0x40);
    storeApic(cpu, 'Eoi', 0);
    expect(acknowledge(cpu)).toBeUndefined();
  });
});

describe('an APIC that software disables', () => {
  it('masks its local vectors and accepts nothing, but keeps what it has', () => {
    const cpu = one();
    storeApic(cpu, 'LvtTimer', 0x50);
    sendIpi(cpu, SELF | 0x60);
    storeApic(cpu, 'SpuriousInterruptVector', 0xff);
    sendIpi(cpu, SELF | 0x70);
    expect(vectorsOf(cpu, 'InterruptRequest')).toEqual([0x60]);
    storeApic(cpu, 'LvtError', 0x51);
    expect([loadApic(cpu, 'LvtTimer'), loadApic(cpu, 'LvtError')]).toEqual([0x1_0050, 0x1_0051]);
  });

  it('still takes NMI and INIT', () => {
    const machine = apicMachine({ cpus: 2 });
    const [sender, target] = [machine.cpu(0), machine.cpu(1)];
    storeApic(target, 'SpuriousInterruptVector', 0xff);
    sendIpi(sender, 0x400, 1);
    expect(target.get('nmiPending')).toBe(1n);
    sendIpi(sender, 0x4500, 1);
    expect(target.get('initPending')).toBe(1n);
  });
});

describe('INIT', () => {
  it('leaves identifier and IA32_APIC_BASE alone and resets the rest', () => {
    const machine = apicMachine({ cpus: 2 });
    const [sender, target] = [machine.cpu(0), machine.cpu(1)];
    target.wrmsr(0x1b, 0xfed0_0800n);
    storeApic(target, 'TaskPriority', 0x20);
    sendIpi(target, SELF | 0x60);
    sendIpi(sender, 0x4500, 1);
    target.run(1);
    expect(target.get('activityState')).toBe(3n);
    expect(target.get('IA32_APIC_BASE')).toBe(0xfed0_0800n);
    expect(vectorsOf(target, 'InterruptRequest')).toEqual([]);
    const registers: ApicRegisterName[] = ['TaskPriority', 'SpuriousInterruptVector', 'Id'];
    expect(registers.map((r) => loadApic(target, r))).toEqual([0, 0xff, 1 << 24]);
    expect(target.get('CR8')).toBe(0n);
  });
});
