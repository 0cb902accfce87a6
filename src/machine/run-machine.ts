/** Lets a machine with one processor execute, and says why it ended if it did. */
import type { MachineStop } from './devices/machine-stop.ts';
import type { Machine } from './machine.ts';

/** Why a machine has nothing more to execute. */
export type RunEnd =
  | MachineStop
  /** The processor waits for an event, and nothing in the machine will cause one. */
  | { readonly kind: 'halted'; readonly state: 'HLT' | 'wait-for-SIPI' }
  /** A VMX abort: only RESET leaves it (SDM §30.7). */
  | { readonly kind: 'vmx-abort' }
  /** Undefined behaviour on a machine that stops at it. */
  | { readonly kind: 'hazard'; readonly id: string };

const ACTIVE = 0n;
const SHUTDOWN = 2n;
const WAIT_FOR_SIPI = 3n;

/**
 * Executes at most `instructions` instructions on CPU 0. Undefined if the machine could go on: how a
 * run is divided into calls changes nothing.
 */
export function runMachine(machine: Machine, instructions: number): RunEnd | undefined {
  const cpu = machine.cpu(0);
  cpu.run(instructions);
  const { stoppedAt, platform } = machine;
  if (platform?.stop !== undefined) return platform.stop;
  if (stoppedAt !== undefined) return { kind: 'hazard', id: stoppedAt.id };
  if (cpu.unit.vmx.shutdown !== 'no') return { kind: 'vmx-abort' };
  const state = cpu.get('activityState');
  if (state === ACTIVE) return undefined;
  // A triple fault puts the processor into shutdown, which the chipset answers with RESET.
  if (state === SHUTDOWN) return { kind: 'reset', by: 'triple fault' };
  return { kind: 'halted', state: state === WAIT_FOR_SIPI ? 'wait-for-SIPI' : 'HLT' };
}
