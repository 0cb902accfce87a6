/** VMCLEAR: write a VMCS back, make it inactive, not current and clear (SDM §33.3, §27.1). */
import { InstructionError } from '../instruction-errors.ts';
import { FAULT_GP0, FAULT_UD, type Outcome, STOPPED_AT_HAZARD } from '../outcome.ts';
import { Operation, type VmxProcessor } from '../vmx-state.ts';
import { isRegionAddressValid, isUndefined, vmFail, vmSucceed } from './conventions.ts';
import { exitFrom } from './exits.ts';
import { type InstructionForm, isRegisterForm, type MemoryOperand, readOperand } from './operands.ts';

export function vmclear(p: VmxProcessor, operand: MemoryOperand, form: InstructionForm): Outcome {
  const { cpu, vmx } = p;
  if (isRegisterForm(operand) || isUndefined(p)) return FAULT_UD;
  if (vmx.operation === Operation.NonRoot) return exitFrom(p, 'VMCLEAR', form);
  if (cpu.cpl > 0) return FAULT_GP0;
  const pointer = readOperand(operand);
  if (typeof pointer !== 'bigint') return pointer;
  if (!isRegionAddressValid(p, pointer)) return vmFail(p, InstructionError.VmclearInvalidAddress);
  const address = Number(pointer);
  if (address === vmx.vmxonPointer) return vmFail(p, InstructionError.VmclearVmxonPointer);
  if (reportVmclear(p, address)) return STOPPED_AT_HAZARD;
  p.active.clear(address);
  if (vmx.current?.address === address) vmx.current = undefined;
  cpu.stateChanged();
  return vmSucceed(p);
}

function reportVmclear(p: VmxProcessor, address: number): boolean {
  const { hazards, cpu } = p;
  if (!hazards.watching) return false;
  const record = hazards.region(address);
  if (record.activeOn >= 0 && record.activeOn !== cpu.index) {
    const detail = `the VMCS is active on CPU ${record.activeOn}, whose data are not written back by a VMCLEAR on CPU ${cpu.index}`;
    hazards.corrupt(
      record,
      `CPU ${cpu.index} executed VMCLEAR while it was active on CPU ${record.activeOn}`,
    );
    hazards.deactivate(record, cpu.index);
    return hazards.report('vmcs.vmclear-elsewhere', cpu.index, 'VMCLEAR', address, detail);
  }
  const owner = hazards.vmxonOwner(address);
  if (owner >= 0 && owner !== cpu.index) {
    const detail = `the VMXON region of CPU ${owner} is cleared as a VMCS`;
    if (hazards.report('vmcs.region-overwritten', cpu.index, 'VMCLEAR', address, detail)) return true;
  }
  hazards.initialise(record, cpu.index);
  return false;
}
