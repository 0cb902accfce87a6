/** VMX aborts (SDM §30.7). */
import type { ProcessorCopy } from '../../vmcs/processor-copy.ts';
import { writeVmxAbortIndicator } from '../../vmcs/region.ts';
import { type Outcome, vmxAbort } from '../outcome.ts';
import { Operation, type VmxProcessor } from '../vmx-state.ts';

/** VMX-abort indicators. A corrupted VMCS (3) and a machine check (5) cannot abort an exit here. */
export const AbortIndicator = {
  SavingGuestMsrs: 1,
  HostPdpte: 2,
  CorruptedVmcs: 3,
  LoadingHostMsrs: 4,
  MachineCheck: 5,
  Ia32eGuestToLegacyHost: 6,
} as const;
export type AbortIndicator = (typeof AbortIndicator)[keyof typeof AbortIndicator];

/** The indicator goes to the VMCS region in memory; the processor to a shutdown state that only RESET leaves. */
export function abort(p: VmxProcessor, copy: ProcessorCopy, indicator: AbortIndicator): Outcome {
  writeVmxAbortIndicator(p.cpu.memory.page(copy.address), indicator);
  p.vmx.leaveNonRoot();
  p.vmx.operation = Operation.Root;
  p.vmx.shutdown = 'vmx-abort';
  p.cpu.stoppedUntilReset = true;
  p.cpu.updateMode();
  return vmxAbort(indicator);
}
