/** VMPTRLD and VMPTRST: the current-VMCS pointer (SDM §33.3, §27.1, §27.2). */
import { SHADOW_INDICATOR } from '../../vmcs/region.ts';
import { InstructionError } from '../instruction-errors.ts';
import { FAULT_GP0, FAULT_UD, type Outcome, STOPPED_AT_HAZARD } from '../outcome.ts';
import { NO_POINTER_64, Operation, type VmxProcessor } from '../vmx-state.ts';
import { isRegionAddressValid, isUndefined, vmFail, vmSucceed } from './conventions.ts';
import { exitFrom } from './exits.ts';
import { type InstructionForm, isRegisterForm, type MemoryOperand, readOperand } from './operands.ts';

export function vmptrld(p: VmxProcessor, operand: MemoryOperand, form: InstructionForm): Outcome {
  const { cpu, vmx } = p;
  if (isRegisterForm(operand) || isUndefined(p)) return FAULT_UD;
  if (vmx.operation === Operation.NonRoot) return exitFrom(p, 'VMPTRLD', form);
  if (cpu.cpl > 0) return FAULT_GP0;
  const pointer = readOperand(operand);
  if (typeof pointer !== 'bigint') return pointer;
  if (!isRegionAddressValid(p, pointer)) return vmFail(p, InstructionError.VmptrldInvalidAddress);
  const address = Number(pointer);
  if (address === vmx.vmxonPointer) return vmFail(p, InstructionError.VmptrldVmxonPointer);
  const header = cpu.memory.read32(address);
  const isShadow = header >= SHADOW_INDICATOR;
  const revision = isShadow ? header - SHADOW_INDICATOR : header;
  if (revision !== p.capabilities.revision || (isShadow && !p.capabilities.supports('proc2.vmcsShadowing'))) {
    return vmFail(p, InstructionError.VmptrldWrongRevision);
  }
  if (activate(p, address, 'VMPTRLD')) return STOPPED_AT_HAZARD;
  vmx.current = p.active.get(address);
  cpu.stateChanged();
  return vmSucceed(p);
}

/** Makes the VMCS at `address` active on this processor, reporting what software did wrong; true if the machine stops. */
function activate(p: VmxProcessor, address: number, instruction: string): boolean {
  const { hazards, cpu } = p;
  if (hazards.watching) {
    const record = hazards.region(address);
    if (record.activeOn >= 0 && record.activeOn !== cpu.index) {
      const detail = `the VMCS is still active on CPU ${record.activeOn}; its data there are not in memory`;
      hazards.corrupt(record, `it was active on CPU ${record.activeOn} and CPU ${cpu.index} at once`);
      if (hazards.report('vmcs.active-elsewhere', cpu.index, instruction, address, detail)) return true;
    } else if (record.corrupted !== '' && !record.beingRepaired) {
      const detail = `the VMCS may be corrupted: ${record.corrupted}`;
      if (hazards.report('vmcs.corrupted-use', cpu.index, instruction, address, detail)) return true;
    }
    if (!record.initialised) {
      const detail = 'no VMCLEAR has initialised the region: its launch state is undefined';
      if (hazards.report('vmcs.not-cleared', cpu.index, instruction, address, detail)) return true;
    }
    const owner = hazards.vmxonOwner(address);
    if (owner >= 0 && owner !== cpu.index) {
      const detail = `the VMXON region of CPU ${owner} is used as a VMCS`;
      if (hazards.report('vmcs.region-overwritten', cpu.index, instruction, address, detail)) return true;
    }
    hazards.activate(record, cpu.index);
    p.active.activate(address).written = record.written;
    return false;
  }
  p.active.activate(address);
  return false;
}

/** What VMPTRST stores: the current-VMCS pointer, or all ones. */
export function currentVmcsPointer(p: VmxProcessor): bigint {
  return p.vmx.current === undefined ? NO_POINTER_64 : BigInt(p.vmx.current.address);
}

/** VMPTRST; `store` writes the pointer to the memory operand and answers with the fault that raises, if any. */
export function vmptrst(
  p: VmxProcessor,
  store: ((pointer: bigint) => Outcome | undefined) | 'register',
  form: InstructionForm,
): Outcome {
  if (store === 'register' || isUndefined(p)) return FAULT_UD;
  if (p.vmx.operation === Operation.NonRoot) return exitFrom(p, 'VMPTRST', form);
  if (p.cpu.cpl > 0) return FAULT_GP0;
  return store(currentVmcsPointer(p)) ?? vmSucceed(p);
}
