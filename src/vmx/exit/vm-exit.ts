/**
 * VM exits (SDM chapter 30): record, save guest state, MSR-store area, host state, MSR-load area; and
 * VM-entry failures (§29.8), which load host state without saving anything.
 */

import { slotsOf } from '../../bits/slots.ts';
import { EFER, Register } from '../../cpu/registers.ts';
import { Field } from '../../vmcs/fields.ts';
import { ExitReasonBit } from '../../vmcs/formats.ts';
import type { ProcessorCopy } from '../../vmcs/processor-copy.ts';
import { writeVmxAbortIndicator } from '../../vmcs/region.ts';
import { controlRef, isOn } from '../effective-controls.ts';
import { loadMsrArea, storeMsrArea } from '../msr-area.ts';
import { type Outcome, vmEntryFailure, vmExit, vmxAbort } from '../outcome.ts';
import { Operation, type VmxProcessor } from '../vmx-state.ts';
import { saveValue, saveWords } from './copy-writes.ts';
import { type ExitRequest, isNmi } from './exit-request.ts';
import { loadHostState } from './host-state.ts';
import { recordExit } from './record.ts';
import { saveGuestState } from './save-guest-state.ts';

// Only the slots this file uses, in objects small enough to be constants (bench: "VMRESUME + exit").
const F = slotsOf(Field, [
  'exitQualification',
  'exitReason',
  'vmExitMsrLoadAddress',
  'vmExitMsrLoadCount',
  'vmExitMsrStoreAddress',
  'vmExitMsrStoreCount',
]);
const R = slotsOf(Register, ['IA32_EFER', 'blockingByNmi']);

/** VMX-abort indicators (SDM §30.7). */
export const AbortIndicator = {
  SavingGuestMsrs: 1,
  HostPdpte: 2,
  CorruptedVmcs: 3,
  LoadingHostMsrs: 4,
  MachineCheck: 5,
  Ia32eGuestToLegacyHost: 6,
} as const;
export type AbortIndicator = (typeof AbortIndicator)[keyof typeof AbortIndicator];

const HOST_64 = controlRef('exit.hostAddressSpaceSize');

/** Performs a VM exit from non-root operation, for a request that names only what its reason records. */
export function performExit(p: VmxProcessor, request: ExitRequest): Outcome {
  const copy = p.active.resident(p.vmx.current as ProcessorCopy);
  recordExit(p, copy, request);
  saveGuestState(p, copy, request);
  p.active.copyChanged(copy);
  const stored = copy.words[2 * F.vmExitMsrStoreCount] as number;
  if (stored !== 0 && storeMsrArea(p, copy.quads[F.vmExitMsrStoreAddress] as bigint, stored) !== 0) {
    return abort(p, copy, AbortIndicator.SavingGuestMsrs);
  }
  const guestLongMode = ((p.cpu.words[2 * R.IA32_EFER] as number) >>> EFER.LMA) & 1;
  if (guestLongMode === 1 && !isOn(copy, p.capabilities, HOST_64)) {
    return abort(p, copy, AbortIndicator.Ia32eGuestToLegacyHost);
  }
  const aborted = enterHost(p, copy);
  if (aborted !== undefined) return aborted;
  if (isNmi(request)) p.cpu.words[2 * R.blockingByNmi] = 1;
  return vmExit(request.reason);
}

/**
 * A VM entry that fails after its controls and host state were found valid (SDM §29.8): of the VMCS
 * only exit reason and qualification change.
 */
export function failEntry(p: VmxProcessor, reason: 33 | 34 | 41, qualification: bigint): Outcome {
  const copy = p.vmx.current as ProcessorCopy;
  saveWords(copy, F.exitReason, (reason | ExitReasonBit.EntryFailure) >>> 0, 0);
  saveValue(copy, F.exitQualification, qualification);
  p.active.copyChanged(copy);
  return enterHost(p, copy) ?? vmEntryFailure(reason);
}

/** Host state, then the VM-exit MSR-load area; a VMX abort if either fails. */
function enterHost(p: VmxProcessor, copy: ProcessorCopy): Outcome | undefined {
  const { vmx, cpu } = p;
  vmx.operation = Operation.Root;
  vmx.initBlocked = true;
  vmx.leaveNonRoot();
  if (!loadHostState(p, copy)) return abort(p, copy, AbortIndicator.HostPdpte);
  const count = copy.words[2 * F.vmExitMsrLoadCount] as number;
  if (count !== 0 && loadMsrArea(p, copy.quads[F.vmExitMsrLoadAddress] as bigint, count, 'VM exit') !== 0) {
    return abort(p, copy, AbortIndicator.LoadingHostMsrs);
  }
  cpu.updateMode();
  return undefined;
}

/** VMX abort (SDM §30.7): the indicator in the region, and a shutdown state that only RESET leaves. */
export function abort(p: VmxProcessor, copy: ProcessorCopy, indicator: AbortIndicator): Outcome {
  writeVmxAbortIndicator(p.cpu.memory.page(copy.address), indicator);
  p.vmx.operation = Operation.Root;
  p.vmx.shutdown = 'vmx-abort';
  p.cpu.updateMode();
  return vmxAbort(indicator);
}
