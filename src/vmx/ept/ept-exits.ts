/**
 * What accesses with guest-physical addresses report that cannot be performed (SDM §30.2.1, Table 30-7):
 * EPT violations, EPT misconfigurations, a full page-modification log, SPP-related events.
 */
import { LINEAR_ACCESS } from '../../cpu/guest-physical.ts';
import { PageRight } from '../../cpu/translation-cache.ts';
import { ExitReason } from '../exit/exit-reasons.ts';
import type { ExitRequest } from '../exit/exit-request.ts';
import { asynchronousAccess, eventUnderDelivery, nmiUnblocking } from '../intercepts/event-exits.ts';
import type { VmxProcessor } from '../vmx-state.ts';
import { EptBit, EptHighBit } from './ept-entry.ts';
import type { EptSettings } from './ept-settings.ts';
import { EPT_WALK, EptWalk } from './ept-walk.ts';
import { Kind } from './guest-physical-access.ts';

const Bit = {
  Read: 1 << 0,
  Write: 1 << 1,
  Fetch: 1 << 2,
  Readable: 1 << 3,
  Writable: 1 << 4,
  Executable: 1 << 5,
  UserExecutable: 1 << 6,
  LinearAddressValid: 1 << 7,
  Translation: 1 << 8,
  UserMode: 1 << 9,
  WritablePage: 1 << 10,
  ExecuteDisable: 1 << 11,
  ShadowStack: 1 << 13,
  SupervisorShadowStack: 1 << 14,
  GuestPagingVerification: 1 << 15,
} as const;

/** Bit 11 of the qualification of an SPP-related event. */
const SPP_MISS = 1 << 11;

/** The linear address that is being accessed. */
export function linearAddress(): bigint {
  return (BigInt(LINEAR_ACCESS.hi >>> 0) << 32n) | BigInt(LINEAR_ACCESS.lo >>> 0);
}

/** Exit qualification of an EPT violation by the last walk, which came to `result`. */
export function violationQualification(
  settings: EptSettings,
  kind: number,
  result: EptWalk,
  failsVerification: boolean,
): number {
  let bits = 0;
  if ((kind & Kind.Read) !== 0) bits |= Bit.Read;
  if ((kind & Kind.Write) !== 0) bits |= Bit.Write;
  if ((kind & Kind.Fetch) !== 0) bits |= Bit.Fetch;
  if ((kind & Kind.ShadowStack) !== 0) bits |= Bit.ShadowStack;
  if (result === EptWalk.Mapped) bits |= rightsOfWalk(settings);
  if ((kind & Kind.Pdptes) !== 0) return bits;
  bits |= Bit.LinearAddressValid;
  if (failsVerification) bits |= Bit.GuestPagingVerification;
  if ((kind & Kind.Entry) !== 0) return bits;
  bits |= Bit.Translation;
  return settings.advancedInformation ? bits | guestRights() : bits;
}

function rightsOfWalk(settings: EptSettings): number {
  const { all, high } = EPT_WALK;
  return (
    ((all & EptBit.Read) !== 0 ? Bit.Readable : 0) |
    ((all & EptBit.Write) !== 0 ? Bit.Writable : 0) |
    ((all & EptBit.Execute) !== 0 ? Bit.Executable : 0) |
    (settings.modeBasedExecute && (all & EptBit.UserExecute) !== 0 ? Bit.UserExecutable : 0) |
    (settings.supervisorShadowStack && (high & EptHighBit.SupervisorShadowStack) !== 0
      ? Bit.SupervisorShadowStack
      : 0)
  );
}

/** Rights of the page by the guest's paging; without paging it is a writable, executable user-mode page. */
function guestRights(): number {
  const { rights } = LINEAR_ACCESS;
  if ((rights & PageRight.Unpaged) !== 0) return Bit.UserMode | Bit.WritablePage;
  return (
    ((rights & PageRight.User) !== 0 ? Bit.UserMode : 0) |
    ((rights & PageRight.Write) !== 0 ? Bit.WritablePage : 0) |
    ((rights & PageRight.ExecuteDisable) !== 0 ? Bit.ExecuteDisable : 0)
  );
}

/** NMI unblocking due to IRET, and whether the access is asynchronous. */
const circumstances = (p: VmxProcessor) => nmiUnblocking(p) | asynchronousAccess(p);

export function violationExit(p: VmxProcessor, address: number, qualification: number): ExitRequest {
  return {
    reason: ExitReason.EptViolation,
    qualification: BigInt(qualification | circumstances(p)),
    ...((qualification & Bit.LinearAddressValid) !== 0 && { guestLinearAddress: linearAddress() }),
    guestPhysicalAddress: BigInt(address),
    ...eventUnderDelivery(p),
  };
}

/** It reports neither qualification nor linear address, nor the length of an instruction that caused an event. */
export function misconfigurationExit(p: VmxProcessor, address: number): ExitRequest {
  const { instructionLength: _, ...event } = eventUnderDelivery(p);
  return { reason: ExitReason.EptMisconfiguration, guestPhysicalAddress: BigInt(address), ...event };
}

export function logFullExit(p: VmxProcessor): ExitRequest {
  return {
    reason: ExitReason.PageModificationLogFull,
    qualification: BigInt(circumstances(p)),
    ...eventUnderDelivery(p),
  };
}

export function subPageExit(p: VmxProcessor, address: number, isMiss: boolean): ExitRequest {
  return {
    reason: ExitReason.SppRelatedEvent,
    qualification: BigInt((isMiss ? SPP_MISS : 0) | circumstances(p)),
    guestLinearAddress: linearAddress(),
    guestPhysicalAddress: BigInt(address),
    ...eventUnderDelivery(p),
  };
}
