/**
 * State as it is when a VM exit begins (SDM §30.1), as far as only the exit's cause tells: what event
 * delivery had already done, and blocking that an IRET had already ended.
 */
import { Register } from '../../cpu/registers.ts';
import { isUserInterruptNotificationEvent } from '../../cpu/user-interrupts.ts';
import type { ProcessorCopy } from '../../vmcs/processor-copy.ts';
import { controlRef, isOn } from '../effective-controls.ts';
import type { VmxProcessor } from '../vmx-state.ts';
import { isDebugException, isException, isNmi, isValid } from './defined-information.ts';
import type { ExitReasonSpec } from './exit-reasons.ts';
import type { ExitRequest } from './exit-request.ts';
import { QUALIFICATIONS } from './qualifications.ts';

const NMI_EXITING = controlRef('pin.nmiExiting');
const VIRTUAL_NMIS = controlRef('pin.virtualNmis');

const ACTIVITY = 2 * Register.activityState;
const STI = 2 * Register.blockingBySti;
const MOV_SS = 2 * Register.blockingByMovSs;
const PENDING_DEBUG = 2 * Register.pendingDebugExceptions;
const NMI = 2 * Register.blockingByNmi;

/** "NMI unblocking due to IRET", in identifications and in exit qualifications. */
const NMI_UNBLOCKING = 1 << 12;

/** Brings interruptibility and activity state to what they are when the exit begins. */
export function establishStateBeforeExit(
  p: VmxProcessor,
  copy: ProcessorCopy,
  request: ExitRequest,
  spec: ExitReasonSpec,
): void {
  const { words } = p.cpu;
  if (isValid(request.originalEvent)) {
    // After a user-interrupt notification the processor would have gone back to the HLT state (SDM §30.3.4).
    if (!isUserInterruptNotificationEvent(p.cpu, request.originalEvent)) words[ACTIVITY] = 0;
    words[STI] = 0;
    words[MOV_SS] = 0;
    if (isDebugException(request.originalEvent)) words[PENDING_DEBUG] = 0;
    if (isNmi(request.originalEvent)) blockNmis(p, copy, 1);
    return;
  }
  if (isException(request.event, 16) || isException(request.event, 18)) {
    words[STI] = 0;
    words[MOV_SS] = 0;
  }
  if (unblockedByIret(request, spec)) blockNmis(p, copy, 0);
}

/** Blocking by NMI or, with "virtual NMIs", virtual-NMI blocking. */
function blockNmis(p: VmxProcessor, copy: ProcessorCopy, blocked: 0 | 1): void {
  if (isOn(copy, p.capabilities, VIRTUAL_NMIS)) p.vmx.virtualNmiBlocking = blocked === 1;
  else if (blocked === 1 || !isOn(copy, p.capabilities, NMI_EXITING)) p.cpu.words[NMI] = blocked;
}

/** SDM §30.2.3: reported in the exiting event or in the exit qualification, unless an event was being delivered. */
function unblockedByIret(request: ExitRequest, spec: ExitReasonSpec): boolean {
  if (isValid(request.event)) {
    return (request.event & NMI_UNBLOCKING) !== 0 && !isException(request.event, 8);
  }
  const { qualification } = request;
  if (qualification === undefined || spec.qualification === 'cleared' || spec.qualification === 'of-event') {
    return false;
  }
  return (
    'nmiUnblocking' in QUALIFICATIONS[spec.qualification].parts &&
    (qualification & BigInt(NMI_UNBLOCKING)) !== 0n
  );
}
