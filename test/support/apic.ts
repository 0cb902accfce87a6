/** Local APICs of a machine as software sees them: registers by name, in xAPIC or x2APIC mode. */

import { ApicRegister } from '../../src/machine/apic/apic-registers.ts';
import type { LogicalProcessor } from '../../src/machine/logical-processor.ts';
import { Machine, type MachineOptions } from '../../src/machine/machine.ts';

export type ApicRegisterName = keyof typeof ApicRegister;

/** A machine with devices; its local APICs are software-enabled with spurious vector FFH. */
export function apicMachine(options: MachineOptions = {}): Machine {
  const machine = new Machine({ memory: 0x10_0000, devices: {}, level: 'complete', ...options });
  for (const cpu of machine.processors) storeApic(cpu, 'SpuriousInterruptVector', 0x1ff);
  return machine;
}

export function enterX2apic(cpu: LogicalProcessor): void {
  const base = cpu.rdmsr(0x1b) as bigint;
  const access = cpu.wrmsr(0x1b, base | 0xc00n);
  if (access !== 'ok') throw new Error(`x2APIC mode cannot be entered: ${access}`);
}

export function loadApic(cpu: LogicalProcessor, register: ApicRegisterName, index = 0): number {
  return cpu.processor.localApic.load(ApicRegister[register] + 16 * index) >>> 0;
}

export function storeApic(cpu: LogicalProcessor, register: ApicRegisterName, value: number): void {
  cpu.processor.localApic.store(ApicRegister[register], value >>> 0);
}

/** Sends an IPI in xAPIC mode. */
export function sendIpi(cpu: LogicalProcessor, command: number, destination = 0): void {
  storeApic(cpu, 'InterruptCommandHigh', destination << 24);
  storeApic(cpu, 'InterruptCommand', command);
}

/** Vectors in a set of eight registers, in ascending order. */
export function vectorsOf(
  cpu: LogicalProcessor,
  register: 'InService' | 'TriggerMode' | 'InterruptRequest',
): number[] {
  const vectors: number[] = [];
  for (let vector = 0; vector < 256; vector++) {
    if ((loadApic(cpu, register, vector >> 5) >>> (vector & 31)) & 1) vectors.push(vector);
  }
  return vectors;
}

/** What the processor takes now: the vector, or undefined if nothing is requested. */
export function acknowledge(cpu: LogicalProcessor): number | undefined {
  const { interrupts } = cpu.processor;
  return interrupts.requested() ? interrupts.acknowledge() : undefined;
}
