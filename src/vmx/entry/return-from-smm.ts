/**
 * VM entries that return from SMM (SDM §34.15.4): they go by the VM-execution controls of the executive
 * VMCS, or stay in VMX root operation without any; then that VMCS, or the linked one, is current.
 */
import { slotsOf } from '../../bits/slots.ts';
import { Register } from '../../cpu/registers.ts';
import { Field } from '../../vmcs/fields.ts';
import type { ProcessorCopy } from '../../vmcs/processor-copy.ts';
import { LaunchState } from '../../vmcs/region.ts';
import { controlRef, controlsOf, isOn } from '../effective-controls.ts';
import { ExitReason } from '../exit/exit-reasons.ts';
import { failEntry } from '../exit/vm-exit.ts';
import { watchStructures } from '../hazards/memory-access.ts';
import type { InstructionError } from '../instruction-errors.ts';
import { loadMsrArea } from '../msr-area.ts';
import { type Outcome, VM_ENTRY } from '../outcome.ts';
import { executiveView, vmcsAt } from '../smm/executive-view.ts';
import { NO_POINTER, NO_POINTER_64, Operation, type VmxProcessor } from '../vmx-state.ts';
import type { EntryInstruction } from './basic-checks.ts';
import type { EntryCheck } from './check.ts';
import type { CheckContext } from './check-context.ts';
import { loadGuestRegisters, loadNonRegisterState } from './load-guest-state.ts';
import { firstFailingOnReturn } from './verify.ts';
import { activateLink, linkAddress } from './vmcs-link.ts';

const F = slotsOf(Field, [
  'executiveVmcsPointer',
  'guestInterruptibilityState',
  'guestSmbase',
  'vmEntryMsrLoadAddress',
  'vmEntryMsrLoadCount',
  'vmcsLinkPointer',
]);
const R = slotsOf(Register, ['IA32_SMBASE', 'blockingBySmi', 'inSmm', 'inSmx']);

const DEACTIVATE = controlRef('entry.deactivateDualMonitorTreatment');

/** A VM entry that ends before any state is loaded. */
export interface EntryRefused {
  readonly kind: 'refused';
  readonly error: InstructionError;
}

/** How VM entry ends when `failing` does not hold. */
export function refusal(p: VmxProcessor, failing: EntryCheck): Outcome | EntryRefused {
  const { consequence } = failing;
  if (consequence.kind === 'VMfailValid') return { kind: 'refused', error: consequence.error };
  return failEntry(p, ExitReason.EntryFailureGuestState, BigInt(consequence.qualification));
}

/** The VMCS whose controls the guest will have; undefined for VMX root operation. */
function executiveOf(p: VmxProcessor, copy: ProcessorCopy): ProcessorCopy | undefined {
  const pointer = copy.quads[F.executiveVmcsPointer] as bigint;
  return pointer === BigInt(p.vmx.vmxonPointer) ? undefined : vmcsAt(p, pointer);
}

/** The fields that a VM entry with `copy` that returns from SMM goes by. */
export function viewOfReturn(p: VmxProcessor, copy: ProcessorCopy): ProcessorCopy {
  return executiveView(copy, executiveOf(p, copy));
}

/** Performs a VM entry that returns from SMM with the current VMCS `copy`. */
export function returnFromSmm(
  p: VmxProcessor,
  instruction: EntryInstruction,
  copy: ProcessorCopy,
  context: CheckContext,
): Outcome | EntryRefused {
  const { vmx, cpu } = p;
  const view = viewOfReturn(p, copy);
  context.examine(view.words);
  const failing = firstFailingOnReturn(context);
  if (failing !== undefined) return refusal(p, failing);
  if (vmx.machineCheckPending) {
    vmx.machineCheckPending = false;
    return failEntry(p, ExitReason.EntryFailureMachineCheck, 0n);
  }
  const controls = controlsOf(view, p.capabilities);
  loadGuestRegisters(p, view, controls);
  const count = copy.words[2 * F.vmEntryMsrLoadCount] as number;
  if (count !== 0) {
    const failingEntry = loadMsrArea(p, copy.quads[F.vmEntryMsrLoadAddress] as bigint, count, 'VM entry');
    if (failingEntry !== 0) return failEntry(p, ExitReason.EntryFailureMsrLoading, BigInt(failingEntry));
  }
  if (instruction === 'VMLAUNCH') {
    copy.launchState = LaunchState.Launched;
    if (p.hazards.watching) p.hazards.region(copy.address).launchedOn = cpu.index;
    p.active.copyChanged(copy);
  }
  leaveSmm(p, copy);
  loadNonRegisterState(p, view, controls);
  changePointers(p, copy);
  cpu.translations.invalidateAll();
  cpu.tlb.forgetAll();
  cpu.updateMode();
  return VM_ENTRY;
}

/** SMBASE, and blocking of SMIs (SDM §34.15.4.5, §34.15.4.9). */
function leaveSmm(p: VmxProcessor, copy: ProcessorCopy): void {
  const { words } = p.cpu;
  words[2 * R.IA32_SMBASE] = copy.words[2 * F.guestSmbase] as number;
  words[2 * R.inSmm] = 0;
  const blocked = ((copy.words[2 * F.guestInterruptibilityState] as number) >>> 2) & 1;
  words[2 * R.blockingBySmi] = isOn(copy, p.capabilities, DEACTIVATE)
    ? (words[2 * R.inSmx] as number)
    : blocked;
}

/** SMM-transfer and current-VMCS pointers, and the operation that follows (SDM §34.15.4.7). */
function changePointers(p: VmxProcessor, copy: ProcessorCopy): void {
  const { vmx, active } = p;
  vmx.smmTransfer = isOn(copy, p.capabilities, DEACTIVATE) ? NO_POINTER : copy.address;
  const pointer = copy.quads[F.executiveVmcsPointer] as bigint;
  const intoRoot = pointer === BigInt(vmx.vmxonPointer);
  vmx.initBlocked = intoRoot;
  vmx.link = undefined;
  if (intoRoot) {
    const link = copy.quads[F.vmcsLinkPointer] as bigint;
    vmx.operation = Operation.Root;
    vmx.current = link === NO_POINTER_64 ? undefined : active.activate(Number(link));
    return;
  }
  const executive = active.activate(Number(pointer));
  vmx.operation = Operation.NonRoot;
  vmx.current = executive;
  vmx.controls = controlsOf(executive, p.capabilities);
  if (p.hazards.watching) watchStructures(p, executive);
  // The link pointer of the executive VMCS is not among what was checked.
  const shadow = linkAddress(executive, vmx.controls);
  if (shadow !== NO_POINTER && vmcsAt(p, BigInt(shadow)) !== undefined) activateLink(p, shadow);
}
