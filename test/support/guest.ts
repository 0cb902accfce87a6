/** A guest in machine code: CPU 0 in non-root operation at {@link GUEST}, both sides mapped one to one. */
import type { LogicalProcessor } from '../../src/machine/logical-processor.ts';
import { Machine, type MachineOptions } from '../../src/machine/machine.ts';
import { CONTROL_GROUPS, type ControlId, controlOf } from '../../src/vmcs/controls.ts';
import type { FieldName } from '../../src/vmcs/fields.ts';
import { assemble } from './assemble.ts';
import type { FieldValues } from './legal-vmcs.ts';
import { enterRoot, launchable, vmcsRegion } from './machine.ts';

export const GUEST = 0x1_0000;
export const HOST = 0x2_0000;
export const GUEST_STACK = 0x5_0000;
const PML4 = 0x30_0000;
const PDPT = 0x30_1000;
const PAGE_DIRECTORY = 0x30_2000;
const RAM = 0x40_0000;

export interface GuestOptions extends MachineOptions {
  readonly controls?: readonly ControlId[];
  /** Controls that are 0 although the smallest legal VMCS has them at 1. */
  readonly off?: readonly ControlId[];
  readonly fields?: FieldValues;
  /** What is to be done before VM entry. */
  readonly setUp?: (machine: Machine) => void;
}

/** Maps the first GByte one to one, for user and supervisor mode, with pages of 2 MBytes. */
export function mapIdentity(machine: Machine): void {
  machine.memory.write64(PML4, BigInt(PDPT) | 7n);
  machine.memory.write64(PDPT, BigInt(PAGE_DIRECTORY) | 7n);
  for (let n = 0; n < 512; n++) machine.memory.write64(PAGE_DIRECTORY + 8 * n, BigInt(n * 0x20_0000) | 0x87n);
}

/** Maps the first 2 MBytes with pages of 4 KBytes instead, by the page table at `table`, which tests may change. */
export function mapFinely(machine: Machine, table: number): void {
  for (let n = 0; n < 512; n++) machine.memory.write64(table + 8 * n, BigInt(n * 0x1000) | 7n);
  machine.memory.write64(PAGE_DIRECTORY, BigInt(table) | 7n);
}

/** A machine whose CPU 0 has launched a 64-bit guest at CPL 0 that is about to execute `code`. */
export function guestMachine(code: string | Uint8Array, options: GuestOptions = {}): Machine {
  const { controls = [], off = [], fields = {}, setUp, ...rest } = options;
  const machine = new Machine({ memory: RAM, ...rest });
  const cpu = machine.cpu(0);
  mapIdentity(machine);
  machine.memory.writeBytes(GUEST, typeof code === 'string' ? assemble(code, 64, GUEST) : code);
  // The host waits where it is entered.
  machine.memory.writeBytes(HOST, assemble('here: jmp here', 64, HOST));
  enterRoot(cpu);
  cpu.set('CR3', BigInt(PML4));
  const values: FieldValues = {
    guestRip: BigInt(GUEST),
    guestRsp: BigInt(GUEST_STACK),
    guestCr3: BigInt(PML4),
    hostRip: BigInt(HOST),
    hostRsp: 0x6_0000n,
    hostCr3: BigInt(PML4),
    guestSsSelector: 0x10n,
    guestSsAccessRights: 0xc093n,
    guestSsLimit: 0xffff_ffffn,
    guestDsSelector: 0x10n,
    guestDsAccessRights: 0xc093n,
    guestDsLimit: 0xffff_ffffn,
    guestEsSelector: 0x10n,
    guestEsAccessRights: 0xc093n,
    guestEsLimit: 0xffff_ffffn,
    ...fields,
  };
  launchable(cpu, vmcsRegion(0), values, controls);
  for (const id of off) {
    const { group, mask } = controlOf(id);
    const { field } = CONTROL_GROUPS[group];
    cpu.vmwrite(field, cpu.vmread(field).value & ~mask);
  }
  setUp?.(machine);
  const outcome = cpu.vmlaunch();
  if (outcome.kind !== 'VMentry') {
    throw new Error(`expected VM entry, not ${JSON.stringify({ outcome, why: cpu.explain().failures[0] })}`);
  }
  return machine;
}

/** Runs the guest until it leaves non-root operation; fails after `most` instructions. */
export function runToExit(cpu: LogicalProcessor, most = 1000): void {
  for (let n = 0; n < most && cpu.operation === 'non-root'; n++) cpu.run(1);
  if (cpu.operation !== 'root')
    throw new Error(`no VM exit after ${most} instructions at RIP ${cpu.get('RIP')}`);
}

/** Values of VMCS fields after an exit. */
export function exitFields<const N extends FieldName>(
  cpu: LogicalProcessor,
  ...names: readonly N[]
): Record<N, bigint> {
  return Object.fromEntries(names.map((name) => [name, cpu.vmread(name).value])) as Record<N, bigint>;
}
