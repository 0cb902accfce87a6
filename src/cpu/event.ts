/**
 * Events that are delivered, identified as VT-x identifies them (SDM §27.8.3, §27.9.2): vector in bits
 * 7:0, type in 10:8, bit 11 if there is an error code, bit 13 if FRED delivery of another event met it, bit 31.
 */

/** Event types. */
export const EventType = {
  ExternalInterrupt: 0,
  Nmi: 2,
  HardwareException: 3,
  /** INT n. */
  SoftwareInterrupt: 4,
  /** INT1. */
  PrivilegedSoftwareException: 5,
  /** INT3, INTO. */
  SoftwareException: 6,
  /** With FRED: SYSCALL and SYSENTER. */
  Other: 7,
} as const;
export type EventType = (typeof EventType)[keyof typeof EventType];

const VALID = 0x8000_0000 | 0;
export const HAS_ERROR_CODE = 1 << 11;
export const NESTED = 1 << 13;
/** Vectors of events of type {@link EventType.Other}. */
export const SystemCall = { SYSCALL: 1, SYSENTER: 2 } as const;

/** The identification of an event, as a signed word. */
export function identifyEvent(type: EventType, vector: number, hasErrorCode = false): number {
  return VALID | (type << 8) | vector | (hasErrorCode ? HAS_ERROR_CODE : 0);
}

export function eventVector(identification: number): number {
  return identification & 0xff;
}

export function eventType(identification: number): EventType {
  return ((identification >> 8) & 7) as EventType;
}

/** Whether FRED delivery of another event met the exception. */
export function isNested(identification: number): boolean {
  return (identification & NESTED) !== 0;
}

/**
 * Whether the event comes from the execution of INT n, INT3 or INTO, or with FRED of SYSCALL or SYSENTER:
 * gates check the CPL, and EXT is 0.
 */
export function isSoftwareEvent(identification: number): boolean {
  const type = eventType(identification);
  return (
    type === EventType.SoftwareInterrupt || type === EventType.SoftwareException || type === EventType.Other
  );
}

/** Whether the return address is that of the next instruction, by the length of the present one. */
export function returnsBehindInstruction(identification: number): boolean {
  return eventType(identification) >= EventType.SoftwareInterrupt;
}

/** Whether the event is an exception: the exception bitmap of VT-x concerns it. */
export function isException(identification: number): boolean {
  const type = eventType(identification);
  return (
    type === EventType.HardwareException ||
    type === EventType.PrivilegedSoftwareException ||
    type === EventType.SoftwareException
  );
}
