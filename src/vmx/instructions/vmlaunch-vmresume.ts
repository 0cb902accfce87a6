/** VMLAUNCH and VMRESUME: the basic checks, then VM entry (SDM §33.3, §29.1). */
import { type BasicFailure, type EntryInstruction, failingBasicCheck } from '../entry/basic-checks.ts';
import type { CheckContext } from '../entry/check-context.ts';
import { enter } from '../entry/vm-entry.ts';
import { FAULT_GP0, FAULT_UD, type Outcome } from '../outcome.ts';
import type { VmxProcessor } from '../vmx-state.ts';
import { vmFail, vmFailInvalid } from './conventions.ts';
import { exitFrom } from './exits.ts';
import type { InstructionForm } from './operands.ts';

export function vmEntryInstruction(
  p: VmxProcessor,
  instruction: EntryInstruction,
  context: CheckContext,
  form: InstructionForm,
): Outcome {
  if (p.vmx.current !== undefined) p.active.resident(p.vmx.current);
  const failing = failingBasicCheck(p, instruction);
  if (failing !== undefined) return refuse(p, instruction, failing.failure, form);
  const result = enter(p, instruction, context);
  p.cpu.stateChanged();
  return result.kind === 'refused' ? vmFail(p, result.error) : result;
}

function refuse(
  p: VmxProcessor,
  instruction: EntryInstruction,
  failure: BasicFailure,
  form: InstructionForm,
): Outcome {
  if (failure === '#UD') return FAULT_UD;
  if (failure === '#GP(0)') return FAULT_GP0;
  if (failure === 'VM exit') return exitFrom(p, instruction, form);
  if (failure === 'VMfailInvalid') return vmFailInvalid(p);
  return vmFail(p, failure);
}
