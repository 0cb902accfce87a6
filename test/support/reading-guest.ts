/** A guest that reads one page over and over, so that what is cached of it shows: with EPT, or with page tables of the hypervisor. */
import { expect } from 'vitest';
import type { CachingPolicy } from '../../src/cpu/caching-policy.ts';
import type { LogicalProcessor } from '../../src/machine/logical-processor.ts';
import type { Machine } from '../../src/machine/machine.ts';
import type { ControlId } from '../../src/vmcs/controls.ts';
import { type EptGuestOptions, type EptTables, eptGuest } from './ept.ts';
import { guestMachine, runToExit } from './guest.ts';

export const DIRECTORY = 0x30_2000;
/** A page table of the guest for its third 2 MBytes, where {@link LINEAR} is. */
export const TABLE = 0x28_0000;
export const LINEAR = 0x40_0000;
export const OLD = 0x29_0000;
export const NEW = 0x2a_0000;
export const PRESENT = 0x67n;
export const VPID: ControlId[] = ['proc2.enableVpid'];

/** Reads {@link LINEAR} before and after a VMCALL, with every pass exiting by another VMCALL. */
export const READS = `again: mov rax, [${LINEAR}]\nvmcall\njmp again`;

export interface Situation {
  readonly machine: Machine;
  readonly cpu: LogicalProcessor;
  readonly memory: EptTables['memory'];
  readonly tables: EptTables | undefined;
  /** Runs the guest to its next VMCALL; what it read, or the reason of another exit. */
  read(): bigint | string;
}

export function prepare(memory: EptTables['memory'], global = 0n): void {
  memory.write64(DIRECTORY + 16, BigInt(TABLE) | PRESENT);
  memory.write64(TABLE, BigInt(OLD) | PRESENT | global);
  memory.write64(OLD, 1n);
  memory.write64(NEW, 2n);
}

export function reader(cpu: LogicalProcessor) {
  return () => {
    if (cpu.operation === 'root') {
      const reason = cpu.vmread('exitReason').value;
      const length = reason === 18n ? cpu.vmread('vmExitInstructionLength').value : 0n;
      cpu.vmwrite('guestRip', cpu.vmread('guestRip').value + length);
      expect(cpu.vmresume().kind).toBe('VMentry');
    }
    runToExit(cpu);
    const reason = cpu.vmread('exitReason').value;
    return reason === 18n ? cpu.get('RAX') : `exit ${reason}`;
  };
}

/** A guest with EPT. */
export function underEpt(options: EptGuestOptions = {}, code = READS, global = 0n): Situation {
  const { machine, cpu, tables } = eptGuest(code, {
    ...options,
    prepare: (t, m) => {
      prepare(m.memory, global);
      options.prepare?.(t, m);
    },
  });
  return { machine, cpu, memory: machine.memory, tables, read: reader(cpu) };
}

/** A guest whose page tables are the hypervisor's own. */
export function withoutEpt(
  controls: readonly ControlId[],
  code = READS,
  global = 0n,
  translations: CachingPolicy = 'retain',
): Situation {
  const machine = guestMachine(code, {
    controls: ['proc.activateSecondaryControls', ...controls],
    fields: { vpid: 7n, guestCr4: 0x20a0n },
    translations,
    setUp: ({ memory }) => prepare(memory, global),
  });
  const cpu = machine.cpu(0);
  return { machine, cpu, memory: machine.memory, tables: undefined, read: reader(cpu) };
}

export const remap = ({ memory }: Situation) => memory.write64(TABLE, BigInt(NEW) | PRESENT);
export const remapEpt = ({ tables }: Situation) => tables?.map(OLD, NEW);
export const invvpid = ({ cpu }: Situation, type: number, vpid = 7n, address = BigInt(LINEAR)) =>
  expect(cpu.invvpid(type, (address << 64n) | vpid).kind).toBe('VMsucceed');
export const invept = ({ cpu, tables }: Situation, type: number, eptp = (tables as EptTables).eptp()) =>
  expect(cpu.invept(type, eptp).kind).toBe('VMsucceed');
