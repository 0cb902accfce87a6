/**
 * VM exits (SDM chapter 30): record, save guest state, MSR-store area, host state, MSR-load area; and
 * VM-entry failures (§29.8), which load host state without saving anything.
 */
import { materialise } from '../../cpu/flags.ts';
import { EFER, Register } from '../../cpu/registers.ts';
import { Field } from '../../vmcs/fields.ts';
import { ExitReasonBit } from '../../vmcs/formats.ts';
import type { ProcessorCopy } from '../../vmcs/processor-copy.ts';
import { saveQuad, saveWord } from '../copy-writes.ts';
import { controlsOf, type EffectiveControls } from '../effective-controls.ts';
import { loadMsrArea, storeMsrArea } from '../msr-area.ts';
import { type Outcome, vmEntryFailure, vmExit } from '../outcome.ts';
import { Operation, type VmxProcessor } from '../vmx-state.ts';
import { isNmi } from './defined-information.ts';
import { EXIT_REASONS } from './exit-reasons.ts';
import type { ExitRequest } from './exit-request.ts';
import { isHost64, loadHostState } from './host-state.ts';
import { recordExit } from './record.ts';
import { saveGuestState } from './save-guest-state.ts';
import { establishStateBeforeExit } from './state-before-exit.ts';
import { AbortIndicator, abort } from './vmx-abort.ts';

const EFER_LOW = 2 * Register.IA32_EFER;
const NMI_LOW = 2 * Register.blockingByNmi;
const STORE_COUNT = 2 * Field.vmExitMsrStoreCount;
const STORE_ADDRESS = Field.vmExitMsrStoreAddress;
const LOAD_COUNT = 2 * Field.vmExitMsrLoadCount;
const LOAD_ADDRESS = Field.vmExitMsrLoadAddress;

// Constants to the compiler, which imported bindings are not (bench: "VMRESUME + exit").
const { LMA } = EFER;
const { Root } = Operation;
const SPECS = EXIT_REASONS;

/** Performs a VM exit from non-root operation, for a request that names only what its reason records. */
export function performExit(p: VmxProcessor, request: ExitRequest): Outcome {
  const copy = p.active.resident(p.vmx.current as ProcessorCopy);
  const spec = SPECS[request.reason];
  materialise(p.cpu);
  if (changesStateFirst(request)) establishStateBeforeExit(p, copy, request, spec);
  recordExit(p, copy, request, spec);
  const controls = p.vmx.controls ?? controlsOf(copy, p.capabilities);
  saveGuestState(p, copy, request, spec, controls);
  p.active.copyChanged(copy);
  p.observer?.exit(copy);
  const stored = copy.words[STORE_COUNT] as number;
  if (stored !== 0 && storeMsrArea(p, copy.quads[STORE_ADDRESS] as bigint, stored) !== 0) {
    return abort(p, copy, AbortIndicator.SavingGuestMsrs);
  }
  const ia32e = ((p.cpu.words[EFER_LOW] as number) >>> LMA) & 1;
  if (ia32e === 1 && !isHost64(controls)) return abort(p, copy, AbortIndicator.Ia32eGuestToLegacyHost);
  const aborted = enterHost(p, copy, controls);
  if (aborted !== undefined) return aborted;
  if (isNmi(request.event)) p.cpu.words[NMI_LOW] = 1;
  return vmExit(request.reason);
}

/** Exits that say nothing of an event or a qualification find the state as it is (bench: "VMRESUME + exit"). */
function changesStateFirst({ event, originalEvent, qualification }: ExitRequest): boolean {
  return event !== undefined || originalEvent !== undefined || qualification !== undefined;
}

/**
 * A VM entry that fails after its controls and host state were found valid (SDM §29.8): of the VMCS
 * only exit reason and qualification change, and blocking by NMI is as before.
 */
export function failEntry(p: VmxProcessor, reason: 33 | 34 | 41, qualification: bigint): Outcome {
  const copy = p.active.resident(p.vmx.current as ProcessorCopy);
  saveWord(copy, Field.exitReason, (reason | ExitReasonBit.EntryFailure) >>> 0);
  saveQuad(copy, Field.exitQualification, qualification);
  p.active.copyChanged(copy);
  p.observer?.exit(copy);
  return enterHost(p, copy, controlsOf(copy, p.capabilities)) ?? vmEntryFailure(reason);
}

/** Host state, then the VM-exit MSR-load area; a VMX abort if either fails. */
export function enterHost(
  p: VmxProcessor,
  copy: ProcessorCopy,
  controls: EffectiveControls,
): Outcome | undefined {
  const { vmx, cpu } = p;
  vmx.leaveNonRoot();
  vmx.operation = Root;
  vmx.initBlocked = true;
  if (!loadHostState(p, copy, controls)) return abort(p, copy, AbortIndicator.HostPdpte);
  const count = copy.words[LOAD_COUNT] as number;
  if (count !== 0 && loadMsrArea(p, copy.quads[LOAD_ADDRESS] as bigint, count, 'VM exit') !== 0) {
    return abort(p, copy, AbortIndicator.LoadingHostMsrs);
  }
  cpu.updateMode();
  return undefined;
}
