/** Recording VM-exit information and updating VM-entry controls (SDM §30.2). */
import { EFER, Register } from '../../cpu/registers.ts';
import { controlOf } from '../../vmcs/controls.ts';
import { Field } from '../../vmcs/fields.ts';
import { EVENT_ERROR_CODE, EVENT_VALID, EventType, ExitReasonBit } from '../../vmcs/formats.ts';
import type { ProcessorCopy } from '../../vmcs/processor-copy.ts';
import { saveQuad, saveWord } from '../copy-writes.ts';
import { controlRef, isOn } from '../effective-controls.ts';
import type { InjectedEvent, VmxProcessor } from '../vmx-state.ts';
import {
  definesInformation,
  definesLength,
  definesLinearAddress,
  isDebugException,
  isValid,
  qualificationFormat,
  reportsBusyShadowStack,
  typeOf,
  usesFred,
} from './defined-information.ts';
import { ExitReason, type ExitReasonSpec } from './exit-reasons.ts';
import type { ExitRequest } from './exit-request.ts';
import { INSTRUCTION_INFORMATION, QUALIFICATIONS } from './qualifications.ts';

const BUS_LOCK_DETECTION = controlRef('proc2.vmmBusLockDetection');
const IA32E_MODE_GUEST = Number(controlOf('entry.ia32eModeGuest').mask);

const EXIT_REASON = Field.exitReason;
const QUALIFICATION = Field.exitQualification;
const EVENT = Field.exitingEventIdentification;
const EVENT_ERROR = Field.exitingEventErrorCode;
const ORIGINAL = Field.originalEventIdentification;
const ORIGINAL_ERROR = Field.originalEventErrorCode;
const ORIGINAL_DATA = Field.originalEventData;
const LENGTH = Field.vmExitInstructionLength;
const INFORMATION = Field.vmExitInstructionInformation;
const IO_FIELDS = [Field.ioRcx, Field.ioRsi, Field.ioRdi, Field.ioRip];
const INJECTED = Field.injectedEventIdentification;
const ENTRY_CONTROLS = Field.vmEntryControls;
const EFER_LOW = 2 * Register.IA32_EFER;
const ENCLAVE_INTERRUPTION = 2 * Register.enclaveInterruption;
/** What an exit from enclave mode does not tell of an address. */
const PAGE_OFFSET = 0xfffn;

// Constants to the compiler, which imported bindings are not (bench: "VMRESUME + exit").
const { LMA } = EFER;
const { BusLock } = ExitReason;
const VALID = EVENT_VALID;

/**
 * The exit is from enclave mode, or belongs to an event that VM entry injected or left pending with
 * enclave interruption: bit 27 of the exit reason and interruptibility bit 4 (SDM §30.2.1, §30.3.4).
 */
export function isEnclaveExit(p: VmxProcessor, request: ExitRequest): boolean {
  if (request.enclaveMode === true) return true;
  if (p.cpu.words[ENCLAVE_INTERRUPTION] === 0) return false;
  return isValid(request.originalEvent) || isDebugException(request.event);
}

/** Records what `request` says. Fields that are undefined for this exit keep what they had. */
export function recordExit(
  p: VmxProcessor,
  copy: ProcessorCopy,
  request: ExitRequest,
  spec: ExitReasonSpec,
): void {
  saveWord(copy, EXIT_REASON, exitReasonField(p, copy, request));
  const { qualification } = request;
  if (qualification === undefined) saveWord(copy, QUALIFICATION, 0);
  else saveQuad(copy, QUALIFICATION, definedQualification(qualification, request, spec));
  recordEvent(copy, EVENT, EVENT_ERROR, request.event, request.eventErrorCode);
  recordOriginalEvent(p, copy, request);
  if (spec.guestLinearAddress !== 'never' && definesLinearAddress(spec, request, p)) {
    saveQuad(copy, Field.guestLinearAddress, addressOf(request.guestLinearAddress, request));
  }
  if (spec.guestPhysicalAddress && p.capabilities.fieldExists[Field.guestPhysicalAddress] === 1) {
    saveQuad(copy, Field.guestPhysicalAddress, addressOf(request.guestPhysicalAddress, request));
  }
  recordInstruction(p, copy, request, spec);
  if (spec.msrData && p.capabilities.fieldExists[Field.msrData] === 1) {
    saveQuad(copy, Field.msrData, request.msrData ?? 0n);
  }

  saveWord(copy, INJECTED, ((copy.words[2 * INJECTED] as number) & ~VALID) >>> 0);
  if (p.capabilities.storesLma) {
    const lma = ((p.cpu.words[EFER_LOW] as number) >>> LMA) & 1;
    const controls = copy.words[2 * ENTRY_CONTROLS] as number;
    saveWord(
      copy,
      ENTRY_CONTROLS,
      (lma === 1 ? controls | IA32E_MODE_GUEST : controls & ~IA32E_MODE_GUEST) >>> 0,
    );
  }
}

/** SDM §27.9.1, §30.2.1: the basic reason and bits 25–27; the other bits are 0. */
function exitReasonField(p: VmxProcessor, copy: ProcessorCopy, request: ExitRequest): number {
  let field: number = request.reason;
  const busLock = request.busLock === true || field === BusLock || p.vmx.busLockAsserted;
  if (busLock && isOn(copy, p.capabilities, BUS_LOCK_DETECTION)) field |= ExitReasonBit.BusLock;
  if (request.prematurelyBusyShadowStack === true && reportsBusyShadowStack(p)) {
    field |= ExitReasonBit.PrematurelyBusyShadowStack;
  }
  return isEnclaveExit(p, request) ? field | ExitReasonBit.EnclaveMode : field;
}

function definedQualification(qualification: bigint, request: ExitRequest, spec: ExitReasonSpec): bigint {
  const format = qualificationFormat(spec, request);
  if (format === undefined) return 0n;
  const defined = qualification & format.mask;
  if (request.enclaveMode !== true) return defined;
  const hidesOffset =
    request.reason === ExitReason.ApicAccess ||
    (format === QUALIFICATIONS.linearAddress && !isValid(request.originalEvent));
  return hidesOffset ? defined & ~PAGE_OFFSET : defined;
}

function addressOf(address: bigint | undefined, request: ExitRequest): bigint {
  if (address === undefined) return 0n;
  return request.enclaveMode === true ? address & ~PAGE_OFFSET : address;
}

/** Identification and error code of an event; without one the identification is 0. */
function recordEvent(
  copy: ProcessorCopy,
  slot: number,
  errorSlot: number,
  event: number | undefined,
  errorCode: number | undefined,
): void {
  const valid = isValid(event);
  saveWord(copy, slot, valid ? event >>> 0 : 0);
  if (valid && (event & EVENT_ERROR_CODE) !== 0) saveWord(copy, errorSlot, (errorCode ?? 0) >>> 0);
}

/** The event VM entry injected, if that is what was being delivered. */
function injectedEvent(p: VmxProcessor, request: ExitRequest): InjectedEvent | undefined {
  const { injectedEvent: injected } = p.vmx;
  const event = request.originalEvent;
  if (injected === undefined || event === undefined) return undefined;
  return ((injected.identification ^ event) & 0x7ff) === 0 ? injected : undefined;
}

function recordOriginalEvent(p: VmxProcessor, copy: ProcessorCopy, request: ExitRequest): void {
  const { originalEvent } = request;
  if (originalEvent === undefined) {
    saveWord(copy, ORIGINAL, 0);
    return;
  }
  const injected = injectedEvent(p, request);
  recordEvent(
    copy,
    ORIGINAL,
    ORIGINAL_ERROR,
    originalEvent,
    request.originalEventErrorCode ?? injected?.errorCode,
  );
  const data = request.originalEventData ?? (usesFred(p) ? injected?.data : undefined);
  if (data !== undefined && p.capabilities.fieldExists[ORIGINAL_DATA] === 1) {
    saveQuad(copy, ORIGINAL_DATA, data);
  }
}

/** SDM §30.2.5. An exit from enclave mode clears these fields, and those of SMI VM exits after I/O. */
function recordInstruction(
  p: VmxProcessor,
  copy: ProcessorCopy,
  request: ExitRequest,
  spec: ExitReasonSpec,
): void {
  if (request.enclaveMode === true) {
    saveWord(copy, LENGTH, 0);
    saveWord(copy, INFORMATION, 0);
    for (let i = 0; i < IO_FIELDS.length; i++) saveWord(copy, IO_FIELDS[i] as number, 0);
    return;
  }
  if (spec.instructionLength !== 'never' && definesLength(spec, request)) {
    saveWord(
      copy,
      LENGTH,
      request.instructionLength ??
        injectedEvent(p, request)?.instructionLength ??
        shortestLength(spec, request),
    );
  }
  const { instructionInformation: name } = spec;
  if (name !== undefined && definesInformation(spec, request, p)) {
    const defined = Number(INSTRUCTION_INFORMATION[name].mask);
    saveWord(copy, INFORMATION, ((request.instructionInformation ?? 0) & defined) >>> 0);
  }
}

/** Of software events, INT n, SYSCALL and SYSENTER have two bytes, the others have one. */
function shortestLength(spec: ExitReasonSpec, request: ExitRequest): number {
  if (spec.shortestLength !== 0) return spec.shortestLength;
  const type = typeOf(request.originalEvent ?? 0);
  return type === EventType.SoftwareInterrupt || type === EventType.Other ? 2 : 1;
}
