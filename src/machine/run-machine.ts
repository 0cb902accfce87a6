/** Lets a machine execute, and says why it ended if it did. */
import type { MachineStop } from './devices/machine-stop.ts';
import type { Machine } from './machine.ts';

/** Why a machine has nothing more to execute. */
export type RunEnd =
  | MachineStop
  /** Every processor waits for an event, and nothing in the machine will cause one. */
  | { readonly kind: 'halted'; readonly state: 'HLT' | 'MWAIT' | 'wait-for-SIPI' }
  /** A VMX abort: only RESET leaves it (SDM §30.7). */
  | { readonly kind: 'vmx-abort' }
  /** Undefined behaviour on a machine that stops at it. */
  | { readonly kind: 'hazard'; readonly id: string };

const SHUTDOWN = 2n;
const HLT = 1n;
const WAIT_FOR_SIPI = 3n;

/**
 * Executes at most `instructions` instructions on all processors together. Undefined if the machine could
 * go on: how a run is divided into calls changes nothing.
 */
export function runMachine(machine: Machine, instructions: number): RunEnd | undefined {
  const waits = machine.scheduler.run(instructions);
  const { stoppedAt, platform, processors } = machine;
  if (platform?.stop !== undefined) return platform.stop;
  if (stoppedAt !== undefined) return { kind: 'hazard', id: stoppedAt.id };
  if (processors.some((cpu) => cpu.unit.vmx.shutdown !== 'no')) return { kind: 'vmx-abort' };
  // A triple fault puts the processor into shutdown, which the chipset answers with RESET.
  if (processors.some((cpu) => cpu.get('activityState') === SHUTDOWN && cpu.operation !== 'non-root')) {
    return { kind: 'reset', by: 'triple fault' };
  }
  if (!waits) return undefined;
  const states = processors.map((cpu) => cpu.get('activityState'));
  if (states.every((state) => state === WAIT_FOR_SIPI)) return { kind: 'halted', state: 'wait-for-SIPI' };
  return { kind: 'halted', state: states.includes(HLT) ? 'HLT' : 'MWAIT' };
}
