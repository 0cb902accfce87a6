/** VMXOFF: leave VMX operation (SDM §33.3, §27.11.1), which dual-monitor treatment forbids. */
import { Attention } from '../../cpu/attention.ts';
import { Register } from '../../cpu/registers.ts';
import { InstructionError } from '../instruction-errors.ts';
import { FAULT_GP0, FAULT_UD, type Outcome, STOPPED_AT_HAZARD } from '../outcome.ts';
import { NO_POINTER, Operation, type VmxProcessor } from '../vmx-state.ts';
import { isUndefined, vmFail, vmSucceed } from './conventions.ts';
import { exitFrom } from './exits.ts';
import type { InstructionForm } from './operands.ts';

/** IA32_SMM_MONITOR_CTL[2]. */
const SMI_STAYS_BLOCKED = 1 << 2;

export function vmxoff(p: VmxProcessor, form: InstructionForm): Outcome {
  const { cpu, vmx } = p;
  if (isUndefined(p)) return FAULT_UD;
  if (vmx.operation === Operation.NonRoot) return exitFrom(p, 'VMXOFF', form);
  if (cpu.cpl > 0) return FAULT_GP0;
  if (vmx.smmTransfer !== NO_POINTER) return vmFail(p, InstructionError.VmxoffDualMonitor);
  if (abandonActive(p, 'vmcs.left-active', 'VMXOFF')) return STOPPED_AT_HAZARD;
  p.hazards.clearVmxonOwner(vmx.vmxonPointer, cpu.index);
  vmx.leave();
  // Inside SMX operation A20M stays blocked.
  vmx.a20mBlocked = cpu.words[2 * Register.inSmx] !== 0;
  cpu.words[2 * Register.monitorArmed] = 0;
  // Deactivation in SMX operation has left SMIs blocked (SDM §34.14.4).
  const keepsBlocking = ((cpu.words[2 * Register.IA32_SMM_MONITOR_CTL] as number) & SMI_STAYS_BLOCKED) !== 0;
  if (!keepsBlocking) cpu.words[2 * Register.blockingBySmi] = 0;
  cpu.stateChanged();
  // An INIT signal that VMX root operation held back is taken, and an SMI that was blocked.
  cpu.requestAttention(Attention.Event);
  return vmSucceed(p);
}

/** Reports every VMCS that is still active, then loses the data the processor holds of them. */
export function abandonActive(
  p: VmxProcessor,
  id: 'vmcs.left-active' | 'vmcs.power-removed',
  instruction: string,
): boolean {
  const { hazards, cpu } = p;
  const addresses = p.active.addresses();
  if (hazards.watching) {
    for (const address of addresses) {
      const detail = `the VMCS is still active on CPU ${cpu.index}; data not written back are lost`;
      if (hazards.report(id, cpu.index, instruction, address, detail)) return true;
    }
    for (const address of addresses) {
      const record = hazards.region(address);
      hazards.deactivate(record, cpu.index);
      hazards.corrupt(record, `it was active on CPU ${cpu.index} at ${instruction}`);
    }
  }
  hazards.forgetLaunches(cpu.index);
  p.active.abandon();
  return false;
}
