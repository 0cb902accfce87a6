/** Machines that a test has put together through the public API. */

import type { LogicalProcessor } from '../../src/machine/logical-processor.ts';
import { Machine, type MachineOptions } from '../../src/machine/machine.ts';
import type { ControlId } from '../../src/vmcs/controls.ts';
import { FIELDS, Field, type FieldName, fieldOf } from '../../src/vmcs/fields.ts';
import type { Outcome } from '../../src/vmx/outcome.ts';
import { type FieldValues, legalVmcs, switchControl } from './legal-vmcs.ts';

export const NO_POINTER = 0xffff_ffff_ffff_ffffn;
export const ARITHMETIC = 0x8d5n;
export const SUCCEED: Outcome = { kind: 'VMsucceed' };
export const FAIL_INVALID: Outcome = { kind: 'VMfailInvalid' };
export const UD: Outcome = { kind: 'fault', vector: 6, errorCode: undefined };
export const GP0: Outcome = { kind: 'fault', vector: 13, errorCode: 0 };
export const ENTRY: Outcome = { kind: 'VMentry' };
export const failValid = (error: number): Outcome => ({ kind: 'VMfailValid', error });
export const exited = (reason: number): Outcome => ({ kind: 'VMexit', reason });

/** Address of the VMXON region of a processor. */
export function vmxonRegion(cpu: number): number {
  return 0x10_0000 + 0x1000 * cpu;
}

/** Address of the VMCS region `index` that tests use. */
export function vmcsRegion(index: number): number {
  return 0x20_0000 + 0x1000 * index;
}

/** Fails the test unless `outcome` is VMsucceed. */
export function succeeds(outcome: Outcome): void {
  if (outcome.kind !== 'VMsucceed') throw new Error(`expected VMsucceed, not ${JSON.stringify(outcome)}`);
}

/** All processors in 64-bit mode and VMX root operation, each with a VMXON region of its own. */
export function rootMachine(options: MachineOptions = {}): Machine {
  const machine = new Machine(options);
  for (const cpu of machine.processors) enterRoot(cpu);
  return machine;
}

/** Brings a processor to 64-bit mode and VMX root operation. */
export function enterRoot(cpu: LogicalProcessor): void {
  cpu.enterLongMode();
  writeRevision(cpu, vmxonRegion(cpu.index));
  succeeds(cpu.vmxon(BigInt(vmxonRegion(cpu.index))));
}

export function writeRevision(cpu: LogicalProcessor, address: number, shadow = false): void {
  cpu.store32(address, (cpu.capabilities.revision | (shadow ? 0x8000_0000 : 0)) >>> 0);
}

/** Initialises a new region: revision identifier, then VMCLEAR. */
export function freshRegion(cpu: LogicalProcessor, address: number, shadow = false): void {
  writeRevision(cpu, address, shadow);
  succeeds(cpu.vmclear(BigInt(address)));
}

/** Values of the smallest legal VMCS with some controls switched on and some fields changed. */
export function legalValues(
  cpu: LogicalProcessor,
  fields: FieldValues = {},
  controls: readonly ControlId[] = [],
): FieldValues {
  const values = legalVmcs(cpu.capabilities);
  for (const id of controls) switchControl(values, id, true);
  return { ...values, ...fields };
}

/** Writes every field that software initialises; those without a value as 0. */
export function writeAllFields(cpu: LogicalProcessor, values: FieldValues): void {
  for (const field of FIELDS) {
    if (field.type === 'exit-information' || cpu.capabilities.fieldExists[field.slot] === 0) continue;
    succeeds(cpu.vmwrite(field.encoding, values[field.key] ?? 0n));
  }
}

/** Makes a new VMCS at `address` current that VMLAUNCH accepts. */
export function launchable(
  cpu: LogicalProcessor,
  address: number,
  fields: FieldValues = {},
  controls: readonly ControlId[] = [],
): void {
  freshRegion(cpu, address);
  succeeds(cpu.vmptrld(BigInt(address)));
  writeAllFields(cpu, legalValues(cpu, fields, controls));
}

/** As {@link launchable}, then launches it: the processor is in VMX non-root operation. */
export function launched(
  cpu: LogicalProcessor,
  address: number,
  fields: FieldValues = {},
  controls: readonly ControlId[] = [],
): void {
  launchable(cpu, address, fields, controls);
  const outcome = cpu.vmlaunch();
  if (outcome.kind !== 'VMentry') throw new Error(`expected VM entry, not ${JSON.stringify(outcome)}`);
}

/** What the processor holds of a field of the VMCS at `address`, which is active there. */
export function held(cpu: LogicalProcessor, address: number, field: FieldName): bigint {
  const copy = cpu.unit.active.get(address);
  if (copy === undefined) throw new Error('the VMCS is not active');
  return cpu.unit.active.resident(copy).quads[Field[field]] as bigint;
}

export function encodingOf(field: FieldName): number {
  return fieldOf(field).encoding;
}

export type ModeName = 'real' | 'v86' | 'protected' | 'compatibility' | '64-bit';
export const MODES: readonly ModeName[] = ['real', 'v86', 'protected', 'compatibility', '64-bit'];

/** Puts a processor in a mode and at a privilege level, as a debugger would. */
export function setMode(cpu: LogicalProcessor, mode: ModeName, cpl = 0): void {
  const cr0 = cpu.get('CR0');
  const rflags = cpu.get('RFLAGS') & ~(1n << 17n);
  const wide = mode === '64-bit' || mode === 'compatibility';
  cpu.set('CR0', mode === 'real' ? cr0 & ~0x8000_0001n : cr0 | 0x8000_0001n);
  cpu.set('RFLAGS', mode === 'v86' ? rflags | (1n << 17n) : rflags);
  cpu.set('IA32_EFER', wide ? 0x500n : 0n);
  cpu.set('CS.accessRights', mode === '64-bit' ? 0xa09bn : 0xc09bn);
  cpu.set('SS.accessRights', 0xc093n | (BigInt(cpl) << 5n));
}
