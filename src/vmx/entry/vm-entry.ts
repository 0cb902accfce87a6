/**
 * VM entry after its basic checks (SDM §29.2–§29.6): controls and host state, guest state, loading,
 * MSR-load area, launch state, event injection. A step starts only when the one before has passed.
 */

import { slotsOf } from '../../bits/slots.ts';
import { CR0, CR4, EFER, Register } from '../../cpu/registers.ts';
import { FIELDS, Field, type VmcsField } from '../../vmcs/fields.ts';
import { ALL_UNVERIFIED, type ProcessorCopy } from '../../vmcs/processor-copy.ts';
import { LaunchState } from '../../vmcs/region.ts';
import { controlRef, controlsOf, isOn } from '../effective-controls.ts';
import { ExitReason } from '../exit/exit-reasons.ts';
import { failEntry } from '../exit/vm-exit.ts';
import { watchStructures } from '../hazards/memory-access.ts';
import { loadMsrArea } from '../msr-area.ts';
import { type Outcome, STOPPED_AT_HAZARD, VM_ENTRY } from '../outcome.ts';
import { IS_EXECUTION_CONTROL } from '../smm/executive-view.ts';
import { NO_POINTER, Operation, tmeReduction, type VmxProcessor } from '../vmx-state.ts';
import type { EntryInstruction } from './basic-checks.ts';
import type { CheckContext } from './check-context.ts';
import { loadGuestRegisters, loadNonRegisterState } from './load-guest-state.ts';
import { type EntryRefused, refusal, returnFromSmm } from './return-from-smm.ts';
import { usedFields } from './used-fields.ts';
import { firstFailingCheck } from './verify.ts';
import { activateLink, linkAddress, reportLink } from './vmcs-link.ts';

// Only the slots this file uses, in objects small enough to be constants (bench: "VMRESUME + exit").
const F = slotsOf(Field, ['vmEntryMsrLoadAddress', 'vmEntryMsrLoadCount']);
const R = slotsOf(Register, ['CR0', 'CR3', 'CR4', 'IA32_EFER', 'IA32_RTIT_CTL', 'inSmm']);

const ENTRY_TO_SMM = controlRef('entry.entryToSmm');

// Constants to the compiler, which imported bindings are not (bench: "VMRESUME + exit").
const { PG } = CR0;
const { PAE } = CR4;
const { LMA } = EFER;
const { NonRoot } = Operation;
const NONE = NO_POINTER;
const ENTERED = VM_ENTRY;

/**
 * Performs VM entry with the current VMCS, which is ordinary and in the launch state `instruction`
 * needs. Answers with the error of VMfailValid, or with what the entry came to.
 */
export function enter(
  p: VmxProcessor,
  instruction: EntryInstruction,
  context: CheckContext,
): Outcome | EntryRefused {
  const { vmx, active } = p;
  const copy = active.resident(vmx.current as ProcessorCopy);
  const returns = p.cpu.words[2 * R.inSmm] !== 0 && !isOn(copy, p.capabilities, ENTRY_TO_SMM);
  if (
    p.hazards.watching &&
    mayReport(copy, instruction) &&
    reportBeforeEntry(p, copy, instruction, returns)
  ) {
    return STOPPED_AT_HAZARD;
  }
  if (returns) return returnFromSmm(p, instruction, copy, context);
  const reduction = tmeReduction(p);
  if (copy.verifiedReduction !== reduction) {
    copy.verifiedReduction = reduction;
    copy.unverified = ALL_UNVERIFIED;
  }
  const failing = firstFailingCheck(copy, context, processorState(p));
  if (failing !== undefined) return refusal(p, failing);
  if (vmx.machineCheckPending) {
    vmx.machineCheckPending = false;
    return failEntry(p, ExitReason.EntryFailureMachineCheck, 0n);
  }
  const controls = controlsOf(copy, p.capabilities);
  const link = linkAddress(copy, controls);
  if (link !== NONE && p.hazards.watching && reportLink(p, link, instruction)) return STOPPED_AT_HAZARD;

  vmx.operation = NonRoot;
  vmx.controls = controls;
  loadGuestRegisters(p, copy, controls);
  const count = copy.words[2 * F.vmEntryMsrLoadCount] as number;
  if (count !== 0) {
    const failingEntry = loadMsrArea(p, copy.quads[F.vmEntryMsrLoadAddress] as bigint, count, 'VM entry');
    if (failingEntry !== 0) {
      return failEntry(p, ExitReason.EntryFailureMsrLoading, BigInt(failingEntry));
    }
  }
  vmx.link = undefined;
  if (link !== NONE) activateLink(p, link);
  if (instruction === 'VMLAUNCH') {
    copy.launchState = LaunchState.Launched;
    if (p.hazards.watching) p.hazards.region(copy.address).launchedOn = p.cpu.index;
    active.copyChanged(copy);
  }
  loadNonRegisterState(p, copy, controls);
  vmx.initBlocked = false;
  p.cpu.updateMode();
  return ENTERED;
}

/**
 * The processor state that entry checks look at, as one number: IA32_EFER.LMA, SMM, tracing, PAE
 * paging, and with PAE paging CR3.
 */
function processorState(p: VmxProcessor): number {
  const { words } = p.cpu;
  const lma = ((words[2 * R.IA32_EFER] as number) >>> LMA) & 1;
  const tracing = (words[2 * R.IA32_RTIT_CTL] as number) & 1;
  const paging = (words[2 * R.CR0] as number) >>> PG;
  const pae = ((words[2 * R.CR4] as number) >>> PAE) & paging & ~lma & 1;
  const flags = lma | (tracing << 1) | (pae << 2) | ((words[2 * R.inSmm] as number) << 3);
  return pae === 1 ? flags + 16 * (words[2 * R.CR3] as number) : flags;
}

/** Which fields are used depends on the controls, and nothing else can un-write a field. */
function mayReport(copy: ProcessorCopy, instruction: EntryInstruction): boolean {
  return instruction === 'VMLAUNCH' || copy.unverified !== 0;
}

/** Software-use rules that only an attempt at VM entry can break (SDM §27.11.3); true if the machine stops. */
function reportBeforeEntry(
  p: VmxProcessor,
  copy: ProcessorCopy,
  instruction: EntryInstruction,
  returns: boolean,
): boolean {
  const { hazards, cpu } = p;
  if (instruction === 'VMLAUNCH') {
    if (hazards.region(copy.address).launchedOn === cpu.index) {
      const detail = `the VMCS was cleared and is launched again on CPU ${cpu.index}; VMRESUME would have done`;
      hazards.report('vmcs.needless-migration', cpu.index, instruction, copy.address, detail);
    }
    if (copy.unverified === 0) return false;
  }
  watchStructures(p, copy);
  const record = hazards.region(copy.address);
  for (const slot of usedFields(p, copy)) {
    if (copy.written[slot] !== 0 || (returns && IS_EXECUTION_CONTROL[slot] === 1)) continue;
    const { name } = FIELDS[slot] as VmcsField;
    if (record.beingRepaired) {
      const detail = `"${name}" was not written after the VMCS may have been corrupted: ${record.corrupted}`;
      return hazards.report('vmcs.corrupted-use', cpu.index, instruction, copy.address, detail);
    }
    const detail = `${name} was never written`;
    if (hazards.report('vmcs.uninitialised-field', cpu.index, instruction, copy.address, detail)) return true;
  }
  if (record.beingRepaired) hazards.repaired(record);
  return false;
}
