/** Recording VM-exit information and updating VM-entry controls (SDM §30.2). */

import { slotsOf } from '../../bits/slots.ts';
import { EFER, Register } from '../../cpu/registers.ts';
import { controlOf } from '../../vmcs/controls.ts';
import { Field } from '../../vmcs/fields.ts';
import { EVENT_ERROR_CODE, EVENT_VALID, ExitReasonBit } from '../../vmcs/formats.ts';
import type { ProcessorCopy } from '../../vmcs/processor-copy.ts';
import { controlRef, isOn } from '../effective-controls.ts';
import type { VmxProcessor } from '../vmx-state.ts';
import { saveValue, saveWords } from './copy-writes.ts';
import { EXIT_REASONS } from './exit-reasons.ts';
import { type ExitRequest, isEnclaveInterruption } from './exit-request.ts';

// Only the slots this file uses, in objects small enough to be constants (bench: "VMRESUME + exit").
const F = slotsOf(Field, [
  'exitQualification',
  'exitReason',
  'exitingEventIdentification',
  'guestLinearAddress',
  'guestPhysicalAddress',
  'injectedEventIdentification',
  'msrData',
  'originalEventData',
  'originalEventIdentification',
  'vmEntryControls',
  'vmExitInstructionInformation',
  'vmExitInstructionLength',
]);
const R = slotsOf(Register, ['IA32_EFER', 'enclaveInterruption']);

const BUS_LOCK_DETECTION = controlRef('proc2.vmmBusLockDetection');
const BUSY_SHADOW_STACK = controlRef('exit2.prematurelyBusyShadowStack');
const IA32E_MODE_GUEST = Number(controlOf('entry.ia32eModeGuest').mask);

export function recordExit(p: VmxProcessor, copy: ProcessorCopy, request: ExitRequest): void {
  const { capabilities } = p;
  const spec = EXIT_REASONS[request.reason];
  let reason: number = request.reason;
  const pending = p.cpu.words[2 * R.enclaveInterruption] as number;
  if (isEnclaveInterruption(request, pending)) reason |= ExitReasonBit.EnclaveMode;
  if (request.busLock && isOn(copy, capabilities, BUS_LOCK_DETECTION)) reason |= ExitReasonBit.BusLock;
  if (request.prematurelyBusyShadowStack && isOn(copy, capabilities, BUSY_SHADOW_STACK)) {
    reason |= ExitReasonBit.PrematurelyBusyShadowStack;
  }
  saveWords(copy, F.exitReason, reason >>> 0, 0);
  if (request.qualification === undefined) saveWords(copy, F.exitQualification, 0, 0);
  else saveValue(copy, F.exitQualification, request.qualification & spec.qualificationMask);

  recordEvent(copy, F.exitingEventIdentification, request.event, request.eventErrorCode);
  recordEvent(copy, F.originalEventIdentification, request.originalEvent, request.originalEventErrorCode);
  if (request.originalEventData !== undefined)
    saveField(p, copy, F.originalEventData, request.originalEventData);
  // Fields that are undefined for this exit keep what they had.
  if (request.guestLinearAddress !== undefined)
    saveValue(copy, F.guestLinearAddress, request.guestLinearAddress);
  if (request.guestPhysicalAddress !== undefined) {
    saveField(p, copy, F.guestPhysicalAddress, request.guestPhysicalAddress);
  }
  if (request.instructionLength !== undefined)
    saveWords(copy, F.vmExitInstructionLength, request.instructionLength, 0);
  if (request.instructionInformation !== undefined) {
    saveWords(copy, F.vmExitInstructionInformation, request.instructionInformation >>> 0, 0);
  }
  if (request.msrData !== undefined) saveField(p, copy, F.msrData, request.msrData);

  const injected = 2 * F.injectedEventIdentification;
  saveWords(copy, F.injectedEventIdentification, ((copy.words[injected] as number) & ~EVENT_VALID) >>> 0, 0);
  if (capabilities.storesLma) {
    const lma = ((p.cpu.words[2 * R.IA32_EFER] as number) >>> EFER.LMA) & 1;
    const controls = copy.words[2 * F.vmEntryControls] as number;
    const updated = (lma === 1 ? controls | IA32E_MODE_GUEST : controls & ~IA32E_MODE_GUEST) >>> 0;
    saveWords(copy, F.vmEntryControls, updated, 0);
  }
}

function saveField(p: VmxProcessor, copy: ProcessorCopy, slot: number, value: bigint): void {
  if (p.capabilities.fieldExists[slot] === 1) saveValue(copy, slot, value);
}

/** Identification and error code of an event; without one the valid bit is 0. */
function recordEvent(copy: ProcessorCopy, slot: number, event = 0, errorCode = 0): void {
  const valid = (event & EVENT_VALID) !== 0;
  saveWords(copy, slot, valid ? event >>> 0 : 0, 0);
  // The error-code field follows the identification field in both pairs.
  if (valid && (event & EVENT_ERROR_CODE) !== 0) saveWords(copy, slot + 1, errorCode >>> 0, 0);
}
