/**
 * What the cause of a VM exit says about it. Intercepts make requests; only the exit itself writes
 * the VMCS. Registers are saved as the processor holds them: whoever makes a request has brought RIP
 * and the rest to where the manual says they are (SDM §30.1, §30.3.3).
 */
import { fitsWidth } from '../../bits/address.ts';
import { hex, U64_MAX } from '../../bits/u64.ts';
import { Mode } from '../../cpu/processor.ts';
import { Field } from '../../vmcs/fields.ts';
import { decodeEvent, EventType } from '../../vmcs/formats.ts';
import { controlRef, isOn } from '../effective-controls.ts';
import type { VmxProcessor } from '../vmx-state.ts';
import {
  allowsOriginalEvent,
  definesInformation,
  definesLength,
  definesLinearAddress,
  isValid,
  needsOriginalEvent,
  qualificationFormat,
  reportsBusyShadowStack,
  usesFred,
} from './defined-information.ts';
import { ExitReason, type ExitReasonSpec, exitReasonSpec } from './exit-reasons.ts';
import { QUALIFICATIONS } from './qualifications.ts';

export interface ExitRequest {
  readonly reason: ExitReason;
  /** Exit qualification; 0 if left out. Undefined bits are recorded as 0. */
  readonly qualification?: bigint;
  /** 0 if left out where it is defined. */
  readonly guestLinearAddress?: bigint;
  /** 0 if left out where it is defined. */
  readonly guestPhysicalAddress?: bigint;
  /** 1–15; left out: that of the injected event, or of the shortest encoding. */
  readonly instructionLength?: number;
  /** 0 if left out where it is defined. Undefined bits are recorded as 0. */
  readonly instructionInformation?: number;
  /** Exiting-event identification, valid bit included (SDM §30.2.2). */
  readonly event?: number;
  readonly eventErrorCode?: number;
  /** Original-event identification, valid bit included (SDM §30.2.4). */
  readonly originalEvent?: number;
  /** Left out: that of the injected event. */
  readonly originalEventErrorCode?: number;
  /** With FRED only; left out: that of the injected event. */
  readonly originalEventData?: bigint;
  /** What WRMSRLIST would have written; 0 if left out. */
  readonly msrData?: bigint;
  /** A bus lock was asserted under "VMM bus-lock detection": bit 26 of the exit reason. */
  readonly busLock?: boolean;
  /** The exit is from enclave mode: bit 27 of the exit reason and interruptibility bit 4. */
  readonly enclaveMode?: boolean;
  /** The exit leaves a shadow stack prematurely busy: bit 25 of the exit reason. */
  readonly prematurelyBusyShadowStack?: boolean;
  /**
   * The access is of trace-address pre-translation or of PEBS, so that pending debug exceptions are
   * saved (SDM §30.3.4).
   */
  readonly traceAccess?: boolean;
  /**
   * RFLAGS.RF in the image that event delivery or the task switch would have saved. Left out: 1 for
   * fault-class exceptions, 0 for software events and for task switches by an instruction, otherwise
   * as it is (SDM §30.3.3).
   */
  readonly resumeFlag?: boolean;
}

const ACKNOWLEDGE = controlRef('exit.acknowledgeInterruptOnExit');
const BUS_LOCK_DETECTION = controlRef('proc2.vmmBusLockDetection');
/** Vectors of hardware exceptions that push an error code: 8, 10–14, 17, 21. */
const WITH_ERROR_CODE = 0x22_7d00;
const EVENT_RESERVED = 0x7fff_c000;

/**
 * What is wrong with a request, in one line; undefined if it can be performed. Without a processor
 * only what no state of any processor could make right is wrong.
 */
export function checkExitRequest(request: ExitRequest, p?: VmxProcessor): string | undefined {
  const spec = exitReasonSpec(request.reason);
  if (spec === undefined) return `${request.reason} is no basic exit reason`;
  const saysMore = saysMoreThanReason(request);
  const wrong =
    wrongReason(spec) ??
    (saysMore ? wrongRanges(request, p) : undefined) ??
    wrongEvent(request, spec, p) ??
    wrongOriginalEvent(request, spec, p) ??
    (saysMore ? wrongInformation(request, spec, p) : undefined);
  return wrong && `exit reason ${request.reason} (${spec.name}): ${wrong}`;
}

/** Most requests say little, and need little checking (bench: "VMRESUME + exit"). */
function saysMoreThanReason(request: ExitRequest): boolean {
  return (
    request.qualification !== undefined ||
    request.guestLinearAddress !== undefined ||
    request.guestPhysicalAddress !== undefined ||
    request.instructionLength !== undefined ||
    request.instructionInformation !== undefined ||
    request.event !== undefined ||
    request.eventErrorCode !== undefined ||
    request.originalEvent !== undefined ||
    request.originalEventErrorCode !== undefined ||
    request.originalEventData !== undefined ||
    request.msrData !== undefined ||
    request.busLock !== undefined ||
    request.enclaveMode !== undefined ||
    request.prematurelyBusyShadowStack !== undefined ||
    request.traceAccess !== undefined ||
    request.resumeFlag !== undefined
  );
}

function wrongInformation(
  request: ExitRequest,
  spec: ExitReasonSpec,
  p: VmxProcessor | undefined,
): string | undefined {
  return (
    wrongQualification(request, spec, p) ??
    wrongAddresses(request, spec, p) ??
    wrongInstruction(request, spec, p) ??
    wrongFlags(request, spec, p)
  );
}

function wrongReason(spec: ExitReasonSpec): string | undefined {
  if (spec.class === 'entry-failure') return 'only a VM entry that fails has it';
  return spec.apiCausable ? undefined : 'nothing on this processor causes it';
}

function wrongQuad(name: string, value: bigint | undefined): string | undefined {
  if (value === undefined || (value >= 0n && value <= U64_MAX)) return undefined;
  return `${name} is a 64-bit value, not ${value}`;
}

function wrongDword(name: string, value: number | undefined): string | undefined {
  return value === undefined || value >>> 0 === value ? undefined : `${name} is a 32-bit value, not ${value}`;
}

function wrongRanges(request: ExitRequest, p: VmxProcessor | undefined): string | undefined {
  // Named one by one: looking them up by name takes five times as long (bench: "VMRESUME + exit").
  const wrong =
    wrongQuad('qualification', request.qualification) ??
    wrongQuad('guestLinearAddress', request.guestLinearAddress) ??
    wrongQuad('guestPhysicalAddress', request.guestPhysicalAddress) ??
    wrongQuad('originalEventData', request.originalEventData) ??
    wrongQuad('msrData', request.msrData) ??
    wrongDword('instructionInformation', request.instructionInformation) ??
    wrongDword('event', request.event) ??
    wrongDword('eventErrorCode', request.eventErrorCode) ??
    wrongDword('originalEvent', request.originalEvent) ??
    wrongDword('originalEventErrorCode', request.originalEventErrorCode);
  if (wrong !== undefined) return wrong;
  const { instructionLength: length } = request;
  if (length !== undefined && (!Number.isInteger(length) || length < 1 || length > 15)) {
    return `an instruction has 1 to 15 bytes, not ${length}`;
  }
  const address = request.guestPhysicalAddress;
  if (address !== undefined && p !== undefined && !fitsWidth(address, p.cpu.features.physicalAddressBits)) {
    return `guest-physical address ${hex(address)} is beyond the physical-address width`;
  }
  return undefined;
}

/** What both identification fields have in common. */
function wrongIdentification(what: string, value: number, p: VmxProcessor | undefined): string | undefined {
  const event = decodeEvent(value);
  if (!event.valid) return `the valid bit of ${what} is 0`;
  if ((value & EVENT_RESERVED) !== 0) return `bits 30:14 of ${what} are 0`;
  const { type, vector } = event;
  if (type === EventType.Reserved) return `no event has type ${type}`;
  if (type === EventType.Nmi && vector !== 2) return `the vector of an NMI is 2, not ${vector}`;
  if (type === EventType.HardwareException && (vector > 31 || vector === 2)) {
    return `no hardware exception has vector ${vector}`;
  }
  if (type === EventType.PrivilegedSoftwareException && vector !== 1) return 'INT1 has vector 1';
  if (type === EventType.SoftwareException && vector !== 3 && vector !== 4)
    return 'INT3 and INTO have vectors 3 and 4';
  const may = type === EventType.HardwareException && vector < 32 && ((WITH_ERROR_CODE >>> vector) & 1) === 1;
  if (event.errorCode && !may) return `${what} has no error code`;
  if (p !== undefined) {
    const pushes = may && p.cpu.mode !== Mode.Real;
    if (event.errorCode !== pushes) {
      return `bit 11 of ${what} is ${pushes ? 1 : 0}: the exception ${pushes ? 'pushes an' : 'pushes no'} error code`;
    }
  }
  if (
    event.nested &&
    (type !== EventType.HardwareException || vector === 8 || (p !== undefined && !usesFred(p)))
  ) {
    return `bit 13 of ${what} is 1 only for an exception met during FRED event delivery`;
  }
  return undefined;
}

function wrongEvent(
  request: ExitRequest,
  spec: ExitReasonSpec,
  p: VmxProcessor | undefined,
): string | undefined {
  const { event, eventErrorCode } = request;
  const current = p?.vmx.current;
  if (event === undefined) {
    if (eventErrorCode !== undefined) return 'an error code needs an event';
    if (spec.exitingEvent === 'always') return 'it has an exiting event';
    const acknowledged =
      spec.exitingEvent === 'acknowledged' &&
      p !== undefined &&
      current !== undefined &&
      isOn(current, p.capabilities, ACKNOWLEDGE);
    return acknowledged ? 'with "acknowledge interrupt on exit" it has an exiting event' : undefined;
  }
  if (spec.exitingEvent === 'never') return 'it has no exiting event';
  const wrong = wrongIdentification('the exiting event', event, p);
  if (wrong !== undefined) return wrong;
  const { type, errorCode } = decodeEvent(event);
  const interrupt = type === EventType.ExternalInterrupt;
  if (type === EventType.SoftwareInterrupt || type === EventType.Other)
    return `no exiting event has type ${type}`;
  if (interrupt !== (request.reason === ExitReason.ExternalInterrupt)) {
    return `its exiting event is ${interrupt ? 'an exception or NMI' : 'an external interrupt'}`;
  }
  if (interrupt && p !== undefined && current !== undefined && !isOn(current, p.capabilities, ACKNOWLEDGE)) {
    return 'without "acknowledge interrupt on exit" it has no exiting event';
  }
  return eventErrorCode !== undefined && !errorCode ? 'an error code needs bit 11 of the event' : undefined;
}

function wrongOriginalEvent(
  request: ExitRequest,
  spec: ExitReasonSpec,
  p: VmxProcessor | undefined,
): string | undefined {
  const { originalEvent, originalEventErrorCode, originalEventData } = request;
  if (originalEvent === undefined) {
    if (originalEventErrorCode !== undefined || originalEventData !== undefined) {
      return 'an error code or event data need an original event';
    }
    return needsOriginalEvent(spec, request) ? 'it has an original event' : undefined;
  }
  if (!allowsOriginalEvent(spec, request)) return 'it has no original event';
  const wrong = wrongIdentification('the original event', originalEvent, p);
  if (wrong !== undefined) return wrong;
  const event = decodeEvent(originalEvent);
  if (event.type === EventType.Other && p !== undefined && !usesFred(p)) {
    return 'SYSCALL and SYSENTER are events only with FRED';
  }
  if (originalEventErrorCode !== undefined && !event.errorCode) {
    return 'an error code needs bit 11 of the original event';
  }
  if (originalEventData !== undefined && p !== undefined && !usesFred(p))
    return 'event data exist only with FRED';
  return undefined;
}

function wrongQualification(
  request: ExitRequest,
  spec: ExitReasonSpec,
  p: VmxProcessor | undefined,
): string | undefined {
  const value = request.qualification;
  if (value === undefined) return undefined;
  const format = qualificationFormat(spec, request);
  if (format === undefined) return value === 0n ? undefined : 'its exit qualification is 0';
  if (format === QUALIFICATIONS.linearAddress && !isLinear(value, p)) {
    return `linear address ${hex(value)} has bits 63:32 outside 64-bit mode`;
  }
  if (format === QUALIFICATIONS.eptViolation && (value & 0x180n) === 0x100n) {
    return 'bit 8 of the exit qualification is 0 if bit 7 is 0';
  }
  return undefined;
}

function isLinear(address: bigint, p: VmxProcessor | undefined): boolean {
  return p === undefined || p.cpu.mode === Mode.Bit64 || fitsWidth(address, 32);
}

function wrongAddresses(
  request: ExitRequest,
  spec: ExitReasonSpec,
  p: VmxProcessor | undefined,
): string | undefined {
  const { guestLinearAddress, guestPhysicalAddress } = request;
  if (guestLinearAddress !== undefined) {
    if (!definesLinearAddress(spec, request, p)) return 'it records no guest-linear address';
    if (!isLinear(guestLinearAddress, p)) {
      return `linear address ${hex(guestLinearAddress)} has bits 63:32 outside 64-bit mode`;
    }
  }
  if (guestPhysicalAddress !== undefined) {
    if (!spec.guestPhysicalAddress) return 'it records no guest-physical address';
    if (p !== undefined && p.capabilities.fieldExists[Field.guestPhysicalAddress] === 0) {
      return 'this processor has no guest-physical address field';
    }
  }
  return undefined;
}

function wrongInstruction(
  request: ExitRequest,
  spec: ExitReasonSpec,
  p: VmxProcessor | undefined,
): string | undefined {
  if (request.instructionLength !== undefined && !definesLength(spec, request)) {
    return 'it records no instruction length';
  }
  if (request.instructionInformation !== undefined && !definesInformation(spec, request, p)) {
    return 'it records no instruction information';
  }
  return request.msrData !== undefined && !spec.msrData ? 'it records no MSR data' : undefined;
}

function wrongFlags(
  request: ExitRequest,
  spec: ExitReasonSpec,
  p: VmxProcessor | undefined,
): string | undefined {
  const current = p?.vmx.current;
  if (request.traceAccess === true && spec.pendingDebug !== 'trace')
    return 'no trace or PEBS access causes it';
  if (request.resumeFlag !== undefined && !savesImage(request, spec)) {
    return 'RFLAGS.RF is not that of an event delivery or a task switch';
  }
  if (p === undefined || current === undefined) return undefined;
  if (request.prematurelyBusyShadowStack === true && !reportsBusyShadowStack(p)) {
    return 'the "prematurely busy shadow stack" VM-exit control is 0';
  }
  if (request.busLock === true && !isOn(current, p.capabilities, BUS_LOCK_DETECTION)) {
    return '"VMM bus-lock detection" is 0';
  }
  return request.enclaveMode === true && !p.cpu.features.sgx
    ? 'this processor has no enclave mode'
    : undefined;
}

/** RFLAGS.RF is saved from an image that event delivery or a task switch would have written. */
function savesImage(request: ExitRequest, spec: ExitReasonSpec): boolean {
  if (spec.resumeFlag === 'access') return isValid(request.originalEvent);
  return spec.resumeFlag === 'event' || spec.resumeFlag === 'task-switch';
}
