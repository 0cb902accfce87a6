/** Saving non-register state (SDM §30.3.4). */
import { Register, RFLAGS } from '../../cpu/registers.ts';
import { Field } from '../../vmcs/fields.ts';
import { Interruptibility, PendingDebug } from '../../vmcs/formats.ts';
import type { ProcessorCopy } from '../../vmcs/processor-copy.ts';
import { saveQuad, saveWord, saveWords } from '../copy-writes.ts';
import { controlRef, type EffectiveControls } from '../effective-controls.ts';
import { timerValue } from '../events/preemption-timer.ts';
import type { VmxProcessor } from '../vmx-state.ts';
import { isDebugException, isException } from './defined-information.ts';
import { ExitReason, type ExitReasonSpec } from './exit-reasons.ts';
import type { ExitRequest } from './exit-request.ts';
import { isEnclaveExit } from './record.ts';

const VIRTUAL_NMIS = controlRef('pin.virtualNmis');
const SAVE_TIMER = controlRef('exit.saveVmxPreemptionTimerValue');
const VIRTUAL_INTERRUPT_DELIVERY = controlRef('proc2.virtualInterruptDelivery');

const ACTIVITY_FIELD = Field.guestActivityState;
const INTERRUPTIBILITY_FIELD = Field.guestInterruptibilityState;
const PENDING_DEBUG_FIELD = Field.guestPendingDebugExceptions;
const TIMER_FIELD = Field.vmxPreemptionTimerValue;
const INTERRUPT_STATUS_FIELD = Field.guestInterruptStatus;
const DEADLINE_FIELD = Field.guestDeadline;

const ACTIVITY = 2 * Register.activityState;
const STI = 2 * Register.blockingBySti;
const MOV_SS = 2 * Register.blockingByMovSs;
const SMI = 2 * Register.blockingBySmi;
const IN_SMM = 2 * Register.inSmm;
const NMI = 2 * Register.blockingByNmi;
const PENDING_DEBUG = 2 * Register.pendingDebugExceptions;
const RFLAGS_LOW = 2 * Register.RFLAGS;
const DEBUGCTL = 2 * Register.IA32_DEBUGCTL;
const BTF = 1 << 1;
const PENDING_DEBUG_DEFINED = Object.values(PendingDebug).reduce((sum, bit) => sum | bit, 0);

// Constants to the compiler, which imported bindings are not (bench: "VMRESUME + exit").
const { BlockingByNmi, EnclaveInterruption } = Interruptibility;

/** Activity, interruptibility, pending debug exceptions, timers and guest interrupt status. */
export function saveNonRegisterState(
  p: VmxProcessor,
  copy: ProcessorCopy,
  request: ExitRequest,
  spec: ExitReasonSpec,
  controls: EffectiveControls,
): void {
  const { capabilities, vmx } = p;
  const { words } = p.cpu;
  saveWord(copy, ACTIVITY_FIELD, words[ACTIVITY] as number);
  const nmi = controls.isOn(VIRTUAL_NMIS) ? vmx.virtualNmiBlocking : words[NMI] === 1;
  // Exits that end outside SMM save blocking by SMI as 0, the others as it was.
  const smi = words[IN_SMM] === 0 ? 0 : (words[SMI] as number);
  const interruptibility =
    (words[STI] as number) |
    ((words[MOV_SS] as number) << 1) |
    (smi << 2) |
    (nmi ? BlockingByNmi : 0) |
    (isEnclaveExit(p, request) ? EnclaveInterruption : 0);
  saveWord(copy, INTERRUPTIBILITY_FIELD, interruptibility);
  saveWords(copy, PENDING_DEBUG_FIELD, pendingDebug(p, request, spec), 0);
  const timer = timerValue(p);
  if (timer !== undefined && controls.isOn(SAVE_TIMER)) {
    const expired = request.reason === ExitReason.VmxPreemptionTimerExpired;
    saveWord(copy, TIMER_FIELD, expired ? 0 : timer);
  }
  if (controls.isOn(VIRTUAL_INTERRUPT_DELIVERY)) {
    saveWord(copy, INTERRUPT_STATUS_FIELD, (vmx.svi << 8) | vmx.rvi);
  }
  if (capabilities.fieldExists[DEADLINE_FIELD] === 1) saveDeadline(copy, vmx.guestDeadline);
}

function saveDeadline(copy: ProcessorCopy, deadline: bigint | undefined): void {
  if (deadline === undefined) saveWord(copy, DEADLINE_FIELD, 0);
  else saveQuad(copy, DEADLINE_FIELD, deadline);
}

/**
 * Pending debug exceptions are lost except by the exits that keep them, and by every exit but a debug
 * exception under blocking by MOV SS; then BS is kept only for a single step.
 */
function pendingDebug(p: VmxProcessor, request: ExitRequest, spec: ExitReasonSpec): number {
  const { words } = p.cpu;
  const pending = (words[PENDING_DEBUG] as number) & PENDING_DEBUG_DEFINED;
  if (pending === 0 || keepsPendingDebug(request, spec)) return pending;
  if (words[MOV_SS] === 0 || isDebugException(request.event)) return 0;
  const singleSteps =
    ((words[RFLAGS_LOW] as number) & (1 << RFLAGS.TF)) !== 0 && ((words[DEBUGCTL] as number) & BTF) === 0;
  return singleSteps ? pending : pending & ~PendingDebug.Bs;
}

function keepsPendingDebug(request: ExitRequest, spec: ExitReasonSpec): boolean {
  switch (spec.pendingDebug) {
    case 'cleared':
      return false;
    case 'kept':
      return true;
    case 'machine-check':
      return isException(request.event, 18);
    case 'trace':
      return request.traceAccess === true;
  }
}
