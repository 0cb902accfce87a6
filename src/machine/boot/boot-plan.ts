/**
 * What a boot protocol comes to: pieces of memory and register values, worked out before anything is
 * written; or one line that says what is wrong with the image, and where.
 */
import type { PhysicalMemory } from '../../cpu/physical-memory.ts';
import type { Processor } from '../../cpu/processor.ts';
import type { RegisterName } from '../../cpu/registers.ts';

export interface MemoryPiece {
  readonly start: number;
  readonly bytes: Uint8Array;
}

export interface BootPlan {
  readonly pieces: readonly MemoryPiece[];
  readonly registers: readonly (readonly [RegisterName, bigint])[];
  /** What the image asks for and does not get, one line each. */
  readonly notes: readonly string[];
}

/** Why an image cannot be booted: one line. */
export interface BootProblem {
  readonly problem: string;
}

export function isProblem(value: object | undefined): value is BootProblem {
  return value !== undefined && 'problem' in value;
}

/** Carries out a plan on a processor after RESET and on memory that nothing has been written to. */
export function applyBootPlan(plan: BootPlan, memory: PhysicalMemory, processor: Processor): void {
  for (const { start, bytes } of plan.pieces) memory.writeBytes(start, bytes);
  for (const [name, value] of plan.registers) processor.write(name, value);
  // Firmware enables VMX outside SMX and locks the choice.
  if (processor.features.vmx) processor.write('IA32_FEATURE_CONTROL', 5n);
}
