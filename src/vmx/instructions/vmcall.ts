/** VMCALL (SDM §33.3): in VMX root operation it calls the SMM monitor, or activates dual-monitor treatment. */
import { Mode } from '../../cpu/processor.ts';
import { InstructionError } from '../instruction-errors.ts';
import { FAULT_GP0, FAULT_UD, type Outcome } from '../outcome.ts';
import { callSmmMonitor, callsSmmMonitor } from '../smm/activation.ts';
import { Operation, type VmxProcessor } from '../vmx-state.ts';
import { vmFail } from './conventions.ts';
import { exitFrom } from './exits.ts';
import type { InstructionForm } from './operands.ts';

export function vmcall(p: VmxProcessor, form: InstructionForm): Outcome {
  const { cpu, vmx } = p;
  if (vmx.operation === Operation.Outside) return FAULT_UD;
  // In non-root operation it exits from every mode and CPL.
  if (vmx.operation === Operation.NonRoot) return exitFrom(p, 'VMCALL', form);
  if (cpu.mode === Mode.Virtual8086 || cpu.mode === Mode.Compatibility) return FAULT_UD;
  if (cpu.cpl > 0) return FAULT_GP0;
  return callsSmmMonitor(p) ? callSmmMonitor(p, form.length) : vmFail(p, InstructionError.VmcallInRoot);
}
