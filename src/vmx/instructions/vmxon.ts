/** VMXON: enter VMX operation (SDM §33.3, §26.7, §26.8, §27.11.5). */
import { bit } from '../../bits/u64.ts';
import { CR4, Register } from '../../cpu/registers.ts';
import { Misc } from '../capabilities/capability-msrs.ts';
import { violatesFixedBits } from '../fixed-bits.ts';
import { InstructionError } from '../instruction-errors.ts';
import { FAULT_GP0, FAULT_UD, type Outcome, STOPPED_AT_HAZARD } from '../outcome.ts';
import { NO_POINTER, Operation, type VmxProcessor } from '../vmx-state.ts';
import { isRegionAddressValid, isUndefinedInMode, vmFail, vmFailInvalid, vmSucceed } from './conventions.ts';
import { exitFrom } from './exits.ts';
import { type InstructionForm, isRegisterForm, type MemoryOperand, readOperand } from './operands.ts';

/** IA32_FEATURE_CONTROL permits VMXON (SDM §26.7). */
function isVmxonEnabled(p: VmxProcessor): boolean {
  const control = p.cpu.words[2 * Register.IA32_FEATURE_CONTROL] as number;
  const inSmx = p.cpu.words[2 * Register.inSmx] !== 0;
  return (control & 1) !== 0 && (control & (inSmx ? 2 : 4)) !== 0;
}

export function vmxon(p: VmxProcessor, operand: MemoryOperand, form: InstructionForm): Outcome {
  const { cpu, vmx } = p;
  if (
    isRegisterForm(operand) ||
    !cpu.features.vmx ||
    !bit(cpu.read('CR4'), CR4.VMXE) ||
    isUndefinedInMode(p)
  ) {
    return FAULT_UD;
  }
  if (vmx.operation === Operation.NonRoot) return exitFrom(p, 'VMXON', form);
  if (vmx.operation === Operation.Root) {
    return cpu.cpl > 0 ? FAULT_GP0 : vmFail(p, InstructionError.VmxonInRoot);
  }
  if (
    cpu.cpl > 0 ||
    cpu.words[2 * Register.a20mMode] !== 0 ||
    violatesFixedBits(p, 'CR0', cpu.read('CR0')) ||
    violatesFixedBits(p, 'CR4', cpu.read('CR4')) ||
    !isVmxonEnabled(p)
  ) {
    return FAULT_GP0;
  }
  const pointer = readOperand(operand);
  if (typeof pointer !== 'bigint') return pointer;
  if (!isRegionAddressValid(p, pointer)) return vmFailInvalid(p);
  const address = Number(pointer);
  if (cpu.memory.read32(address) !== p.capabilities.revision) return vmFailInvalid(p);
  if (reportSharing(p, address)) return STOPPED_AT_HAZARD;
  vmx.operation = Operation.Root;
  vmx.vmxonCount++;
  vmx.vmxonPointer = address;
  vmx.current = undefined;
  vmx.initBlocked = true;
  vmx.a20mBlocked = true;
  cpu.words[2 * Register.monitorArmed] = 0;
  if (cpu.features.intelPt && !p.capabilities.has('misc', Misc.INTEL_PT_IN_VMX)) {
    cpu.words[2 * Register.IA32_RTIT_CTL] = (cpu.words[2 * Register.IA32_RTIT_CTL] as number) & ~1;
  }
  p.hazards.setVmxonOwner(address, cpu.index);
  cpu.stateChanged();
  return vmSucceed(p);
}

function reportSharing(p: VmxProcessor, address: number): boolean {
  if (!p.hazards.watching) return false;
  const owner = p.hazards.vmxonOwner(address);
  if (owner !== NO_POINTER) {
    const detail = `the VMXON region of CPU ${owner} is made that of CPU ${p.cpu.index} too`;
    return p.hazards.report('vmxon.region-shared', p.cpu.index, 'VMXON', address, detail);
  }
  const activeOn = p.hazards.knownRegion(address)?.activeOn ?? -1;
  if (activeOn < 0) return false;
  const detail = `the region of a VMCS that is active on CPU ${activeOn} is made a VMXON region`;
  return p.hazards.report('vmcs.region-overwritten', p.cpu.index, 'VMXON', address, detail);
}
