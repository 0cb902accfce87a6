/**
 * What the cause of a VM exit says about it. Intercepts make requests; only the exit itself writes
 * the VMCS. A request names only information that the manual lets its reason record.
 */
import { EVENT_ERROR_CODE, EVENT_VALID, EventType } from '../../vmcs/formats.ts';
import { type ExitInformation, ExitReason, exitReasonSpec } from './exit-reasons.ts';

export interface ExitRequest {
  readonly reason: ExitReason;
  /** Exit qualification; cleared if left out. Undefined bits are recorded as 0. */
  readonly qualification?: bigint;
  readonly guestLinearAddress?: bigint;
  readonly guestPhysicalAddress?: bigint;
  /** 1–15. */
  readonly instructionLength?: number;
  readonly instructionInformation?: number;
  /** Exiting-event identification, valid bit included (SDM §30.2.2). */
  readonly event?: number;
  readonly eventErrorCode?: number;
  /** Original-event identification, valid bit included (SDM §30.2.4). */
  readonly originalEvent?: number;
  readonly originalEventErrorCode?: number;
  readonly originalEventData?: bigint;
  readonly msrData?: bigint;
  /** A bus lock was asserted under "VMM bus-lock detection": bit 26 of the exit reason. */
  readonly busLock?: boolean;
  /** The exit is from enclave mode: bit 27 of the exit reason and interruptibility bit 4. */
  readonly enclaveMode?: boolean;
  /** The exit leaves a shadow stack prematurely busy: bit 25 of the exit reason. */
  readonly prematurelyBusyShadowStack?: boolean;
  /**
   * RFLAGS.RF as saved. Left out: 0 for an instruction that exits, 1 for an access to memory outside
   * event delivery, otherwise as it is (SDM §30.3.3).
   */
  readonly resumeFlag?: boolean;
}

const NAMES: readonly (readonly [keyof ExitRequest, ExitInformation])[] = [
  ['qualification', 'qualification'],
  ['guestLinearAddress', 'guestLinearAddress'],
  ['guestPhysicalAddress', 'guestPhysicalAddress'],
  ['instructionLength', 'instructionLength'],
  ['instructionInformation', 'instructionInformation'],
  ['event', 'event'],
  ['eventErrorCode', 'event'],
  ['originalEvent', 'originalEvent'],
  ['originalEventErrorCode', 'originalEvent'],
  ['originalEventData', 'originalEvent'],
  ['msrData', 'msrData'],
];

/** What is wrong with a request, in one line; undefined if it can be performed. */
export function checkExitRequest(request: ExitRequest): string | undefined {
  const spec = exitReasonSpec(request.reason);
  if (spec === undefined) return `${request.reason} is no basic exit reason`;
  if (spec.class === 'entry-failure') return `${spec.name} (${request.reason}) is caused by VM entry only`;
  for (const [key, information] of NAMES) {
    if (request[key] !== undefined && !spec.records.includes(information)) {
      return `a VM exit for ${spec.name} (${request.reason}) does not record ${key}`;
    }
  }
  const { instructionLength: length } = request;
  if (length !== undefined && (!Number.isInteger(length) || length < 1 || length > 15)) {
    return `an instruction length is 1 to 15 bytes, not ${length}`;
  }
  return undefined;
}

/** The event of a request is an NMI: NMIs are blocked after the exit (SDM §30.5.5). */
export function isNmi(request: ExitRequest): boolean {
  const { event } = request;
  return event !== undefined && (event & EVENT_VALID) !== 0 && ((event >>> 8) & 7) === EventType.Nmi;
}

/** The exit happens while an event is being delivered (SDM §30.1: the indirect cause of the exit). */
export function isDuringDelivery(request: ExitRequest): boolean {
  return request.originalEvent !== undefined && (request.originalEvent & EVENT_VALID) !== 0;
}

/** The event of a request is a debug exception: #DB of any kind. */
export function isDebugException(request: ExitRequest): boolean {
  const { event } = request;
  return event !== undefined && (event & 0xff) === 1 && ((event >>> 8) & 7) >= EventType.HardwareException;
}

/**
 * Bit 27 of the exit reason and interruptibility bit 4 (SDM §30.2.1, §30.3.4): the exit is from enclave
 * mode, or belongs to an event that VM entry injected or left pending with interruptibility bit 4.
 */
export function isEnclaveInterruption(request: ExitRequest, pending: number): boolean {
  if (request.enclaveMode) return true;
  return pending !== 0 && (isDuringDelivery(request) || isDebugException(request));
}

/** Exiting-event identification of a hardware exception. */
export function hardwareException(vector: number, hasErrorCode: boolean): number {
  return (
    ((vector & 0xff) |
      (EventType.HardwareException << 8) |
      (hasErrorCode ? EVENT_ERROR_CODE : 0) |
      EVENT_VALID) >>>
    0
  );
}

/** Exiting-event identification of an NMI. */
export const NMI_EVENT = (2 | (EventType.Nmi << 8) | EVENT_VALID) >>> 0;

/** An exit reason by number, for callers that have checked it. */
export function isExitReason(reason: number): reason is ExitReason {
  return Object.values(ExitReason).includes(reason as ExitReason);
}
