/**
 * What an instruction, a VM entry or a VM exit came to, as a value (SDM §33.2). The common ones are
 * shared objects, so that reporting an outcome allocates nothing.
 */
import { Vector } from '../cpu/exceptions.ts';

export type Outcome =
  /** CF, PF, AF, ZF, SF, OF := 0. */
  | { readonly kind: 'VMsucceed' }
  /** CF := 1. */
  | { readonly kind: 'VMfailInvalid' }
  /** ZF := 1 and the VM-instruction error field := `error`. */
  | { readonly kind: 'VMfailValid'; readonly error: number }
  /** The instruction faults; `errorCode` is undefined for vectors without one. */
  | { readonly kind: 'fault'; readonly vector: number; readonly errorCode: number | undefined }
  /** VM entry succeeded: the processor is in VMX non-root operation. */
  | { readonly kind: 'VMentry' }
  /** The instruction was executed in VMX non-root operation and caused a VM exit. */
  | { readonly kind: 'VMexit'; readonly reason: number }
  /** VM entry failed after its first two phases: host state is loaded, bit 31 of the exit reason is 1. */
  | { readonly kind: 'VMentryFailure'; readonly reason: number }
  /** VMX abort: the processor is in shutdown until RESET (SDM §30.7). */
  | { readonly kind: 'VMXabort'; readonly indicator: number }
  /** Nothing was executed: the processor is in shutdown or another inactive state, or its machine stopped at a hazard. */
  | { readonly kind: 'notExecuted'; readonly because: 'shutdown' | 'inactive' | 'hazard' };

export const VM_SUCCEED: Outcome = Object.freeze({ kind: 'VMsucceed' });
export const VM_FAIL_INVALID: Outcome = Object.freeze({ kind: 'VMfailInvalid' });
export const VM_ENTRY: Outcome = Object.freeze({ kind: 'VMentry' });
export const IN_SHUTDOWN: Outcome = Object.freeze({ kind: 'notExecuted', because: 'shutdown' });
export const INACTIVE: Outcome = Object.freeze({ kind: 'notExecuted', because: 'inactive' });
export const STOPPED_AT_HAZARD: Outcome = Object.freeze({ kind: 'notExecuted', because: 'hazard' });

const failValid = Array.from(
  { length: 32 },
  (_, error): Outcome => Object.freeze({ kind: 'VMfailValid', error }),
);

/** VMfailValid with VM-instruction error `error` (1–28). */
export function vmFailValid(error: number): Outcome {
  return failValid[error] as Outcome;
}

export const FAULT_UD: Outcome = Object.freeze({ kind: 'fault', vector: Vector.UD, errorCode: undefined });
export const FAULT_GP0: Outcome = Object.freeze({ kind: 'fault', vector: Vector.GP, errorCode: 0 });

/** A fault with any vector and error code. */
export function fault(vector: number, errorCode: number | undefined): Outcome {
  if (vector === Vector.UD) return FAULT_UD;
  if (vector === Vector.GP && errorCode === 0) return FAULT_GP0;
  return { kind: 'fault', vector, errorCode };
}

const exits = Array.from({ length: 128 }, (_, reason): Outcome => Object.freeze({ kind: 'VMexit', reason }));
const entryFailures = Array.from(
  { length: 128 },
  (_, reason): Outcome => Object.freeze({ kind: 'VMentryFailure', reason }),
);
const aborts = Array.from(
  { length: 8 },
  (_, indicator): Outcome => Object.freeze({ kind: 'VMXabort', indicator }),
);

/** VM exit with basic exit reason `reason`. */
export function vmExit(reason: number): Outcome {
  return exits[reason] as Outcome;
}

/** VM-entry failure with basic exit reason 33, 34 or 41. */
export function vmEntryFailure(reason: number): Outcome {
  return entryFailures[reason] as Outcome;
}

/** VMX abort with indicator 1–6. */
export function vmxAbort(indicator: number): Outcome {
  return aborts[indicator] as Outcome;
}
