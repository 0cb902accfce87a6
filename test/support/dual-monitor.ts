/** Dual-monitor treatment in tests: an SMM monitor in MSEG, an executive monitor, and a guest of it. */
import { expect } from 'vitest';
import type { LogicalProcessor } from '../../src/machine/logical-processor.ts';
import type { Machine } from '../../src/machine/machine.ts';
import { assemble } from './assemble.ts';
import { type GuestOptions, guestMachine, runToExit } from './guest.ts';
import { ENTRY, exited, launchable, vmcsRegion } from './machine.ts';

export const SMBASE = 0x3_0000;
export const MSEG = 0x18_0000;
export const MONITOR = MSEG + 0x1000;
export const STACK = MSEG + 0x3000;
export const PML4 = 0x30_0000;
export const TRANSFER = vmcsRegion(1);
export const RSM = '.byte 0x0f, 0xaa';
export const FROM_ROOT = 0x2000_0000n;

/** Firmware enables the monitor from SMM, under the default treatment. */
export function enable(machine: Machine, control = MSEG | 1): void {
  const cpu = machine.cpu(0);
  const code = `mov ecx, 0x9b\nmov eax, ${control}\nxor edx, edx\nwrmsr\n${RSM}`;
  machine.memory.writeBytes(SMBASE + 0x8000, assemble(code, 16, 0x8000));
  const header = [1, 1, 0x17, 0x800, 0x8, MONITOR - MSEG, STACK - MSEG, PML4 - MSEG];
  header.forEach((value, n) => {
    machine.memory.write32(MSEG + 4 * n, value);
  });
  const registers = (['RAX', 'RCX', 'RDX'] as const).map((name) => [name, cpu.get(name)] as const);
  cpu.processor.requestSmi();
  cpu.run(6);
  for (const [name, value] of registers) cpu.set(name, value);
}

/** Makes the VMCS current that becomes the SMM-transfer VMCS. */
export function prepare(cpu: LogicalProcessor): void {
  launchable(cpu, TRANSFER, {
    hostRip: BigInt(MONITOR),
    hostRsp: BigInt(STACK),
    hostCr3: BigInt(PML4),
  });
}

/** Activates the treatment and returns to VMX root operation. */
export function activate(machine: Machine): void {
  const cpu = machine.cpu(0);
  enable(machine);
  prepare(cpu);
  expect(cpu.vmcall()).toEqual(exited(18));
  expect(cpu.explain().failures).toEqual([]);
  expect(cpu.vmlaunch()).toEqual(ENTRY);
  expect([cpu.operation, cpu.get('inSmm'), cpu.currentVmcs]).toEqual(['root', 0n, TRANSFER]);
}

/** A guest of an executive monitor with the treatment active. */
export function guest(code: string, options: GuestOptions = {}): { machine: Machine; cpu: LogicalProcessor } {
  const setUp = (machine: Machine) => {
    activate(machine);
    options.setUp?.(machine);
    expect(machine.cpu(0).vmptrld(BigInt(vmcsRegion(0))).kind).toBe('VMsucceed');
  };
  const machine = guestMachine(code, { ...options, setUp });
  // The monitor's code returns at once.
  machine.memory.writeBytes(MONITOR, assemble('vmresume', 64, MONITOR));
  return { machine, cpu: machine.cpu(0) };
}

/** A machine in VMX root operation, with a VMCS that is not launched. */
export function root(): { machine: Machine; cpu: LogicalProcessor } {
  const machine = guestMachine('vmcall');
  const cpu = machine.cpu(0);
  runToExit(cpu);
  return { machine, cpu };
}

export function smi(cpu: LogicalProcessor): void {
  cpu.processor.requestSmi();
  expect(cpu.look()).toBe(true);
}
