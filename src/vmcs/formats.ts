/**
 * Formats of VMCS fields (SDM chapter 27): bit positions by the manual's names, and encode/decode
 * pairs for the fields people read. A decoded value encodes back to itself; reserved bits are kept
 * in `reserved` where a field has them.
 */

/** Access rights (SDM §27.4.1, Table 27-2). */
export interface AccessRights {
  /** Bits 3:0. */
  type: number;
  /** Bit 4: 1 code or data, 0 system. */
  s: boolean;
  /** Bits 6:5. */
  dpl: number;
  p: boolean;
  avl: boolean;
  l: boolean;
  db: boolean;
  g: boolean;
  unusable: boolean;
  /** Bits 11:8 and 31:17, in place. */
  reserved: number;
}

export const AR_UNUSABLE = 0x1_0000;
export const AR_RESERVED = 0xfffe_0f00;

export function decodeAccessRights(value: number): AccessRights {
  return {
    type: value & 0xf,
    s: (value & 0x10) !== 0,
    dpl: (value >> 5) & 3,
    p: (value & 0x80) !== 0,
    avl: (value & 0x1000) !== 0,
    l: (value & 0x2000) !== 0,
    db: (value & 0x4000) !== 0,
    g: (value & 0x8000) !== 0,
    unusable: (value & AR_UNUSABLE) !== 0,
    reserved: (value & AR_RESERVED) >>> 0,
  };
}

export function encodeAccessRights(rights: AccessRights): number {
  return (
    ((rights.type & 0xf) |
      (rights.s ? 0x10 : 0) |
      ((rights.dpl & 3) << 5) |
      (rights.p ? 0x80 : 0) |
      (rights.avl ? 0x1000 : 0) |
      (rights.l ? 0x2000 : 0) |
      (rights.db ? 0x4000 : 0) |
      (rights.g ? 0x8000 : 0) |
      (rights.unusable ? AR_UNUSABLE : 0) |
      (rights.reserved & AR_RESERVED)) >>>
    0
  );
}

/** Guest interruptibility state (SDM §27.4.2, Table 27-3). */
export const Interruptibility = {
  BlockingBySti: 1 << 0,
  BlockingByMovSs: 1 << 1,
  BlockingBySmi: 1 << 2,
  BlockingByNmi: 1 << 3,
  EnclaveInterruption: 1 << 4,
} as const;

/** Guest activity state (SDM §27.4.2). */
export const ActivityState = { Active: 0, Hlt: 1, Shutdown: 2, WaitForSipi: 3 } as const;
export type ActivityState = (typeof ActivityState)[keyof typeof ActivityState];

/** Guest pending debug exceptions (SDM §27.4.2, Table 27-4). */
export const PendingDebug = {
  B0: 1 << 0,
  B1: 1 << 1,
  B2: 1 << 2,
  B3: 1 << 3,
  BusLock: 1 << 11,
  EnabledBreakpoint: 1 << 12,
  Bs: 1 << 14,
  Rtm: 1 << 16,
} as const;

/** Event types of the event-identification fields (SDM Tables 27-18, 27-20, 27-21). */
export const EventType = {
  ExternalInterrupt: 0,
  Reserved: 1,
  Nmi: 2,
  HardwareException: 3,
  SoftwareInterrupt: 4,
  PrivilegedSoftwareException: 5,
  SoftwareException: 6,
  Other: 7,
} as const;
export type EventType = (typeof EventType)[keyof typeof EventType];

/**
 * Injected-, exiting- and original-event identification. Bit 12 is reserved in the first, "NMI
 * unblocking due to IRET" in the second and undefined in the third.
 */
export interface EventIdentification {
  vector: number;
  type: EventType;
  /** Bit 11. */
  errorCode: boolean;
  /** Bit 12. */
  nmiUnblocking: boolean;
  /** Bit 13. */
  nested: boolean;
  /** Bit 31. */
  valid: boolean;
}

export const EVENT_VALID = 0x8000_0000;
export const EVENT_ERROR_CODE = 1 << 11;

export function decodeEvent(value: number): EventIdentification {
  return {
    vector: value & 0xff,
    type: ((value >> 8) & 7) as EventType,
    errorCode: (value & EVENT_ERROR_CODE) !== 0,
    nmiUnblocking: (value & 0x1000) !== 0,
    nested: (value & 0x2000) !== 0,
    valid: (value & EVENT_VALID) !== 0,
  };
}

export function encodeEvent(event: EventIdentification): number {
  return (
    ((event.vector & 0xff) |
      (event.type << 8) |
      (event.errorCode ? EVENT_ERROR_CODE : 0) |
      (event.nmiUnblocking ? 0x1000 : 0) |
      (event.nested ? 0x2000 : 0) |
      (event.valid ? EVENT_VALID : 0)) >>>
    0
  );
}

/** Exit reason (SDM §27.9.1, Table 27-19). */
export const ExitReasonBit = {
  PrematurelyBusyShadowStack: 0x0200_0000,
  BusLock: 0x0400_0000,
  EnclaveMode: 0x0800_0000,
  PendingMtf: 0x1000_0000,
  FromRootOperation: 0x2000_0000,
  EntryFailure: 0x8000_0000,
} as const;

/** One entry of an MSR area (SDM §27.7.2, Table 27-16): 16 bytes. */
export interface MsrAreaEntry {
  /** Bits 31:0. */
  index: number;
  /** Bits 63:32, which must be 0. */
  reserved: number;
  data: bigint;
}

export const MSR_AREA_ENTRY_SIZE = 16;

/** EPT pointer (SDM §27.6.11, Table 27-9). */
export interface EptPointer {
  /** Bits 2:0. 0 UC, 6 WB. */
  memoryType: number;
  /** Bits 5:3 plus 1. */
  walkLength: number;
  enableAccessedDirty: boolean;
  enforceSupervisorShadowStack: boolean;
  /** Bits 11:8. */
  reserved: number;
  /** Bits 63:12, in place. */
  address: bigint;
}

export function decodeEptPointer(value: bigint): EptPointer {
  const low = Number(value & 0xfffn);
  return {
    memoryType: low & 7,
    walkLength: ((low >> 3) & 7) + 1,
    enableAccessedDirty: (low & 0x40) !== 0,
    enforceSupervisorShadowStack: (low & 0x80) !== 0,
    reserved: low >> 8,
    address: value & ~0xfffn,
  };
}

export function encodeEptPointer(pointer: EptPointer): bigint {
  const low =
    (pointer.memoryType & 7) |
    (((pointer.walkLength - 1) & 7) << 3) |
    (pointer.enableAccessedDirty ? 0x40 : 0) |
    (pointer.enforceSupervisorShadowStack ? 0x80 : 0) |
    ((pointer.reserved & 0xf) << 8);
  return BigInt(low) | (pointer.address & ~0xfffn);
}

/** Guest interrupt status (SDM §27.4.2): RVI in the low byte, SVI in the high one. */
export function decodeInterruptStatus(value: number): { rvi: number; svi: number } {
  return { rvi: value & 0xff, svi: (value >> 8) & 0xff };
}

export function encodeInterruptStatus(status: { rvi: number; svi: number }): number {
  return (status.rvi & 0xff) | ((status.svi & 0xff) << 8);
}
