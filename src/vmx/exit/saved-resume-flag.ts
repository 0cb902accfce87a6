/** RFLAGS as a VM exit saves it: RF has rules of its own (SDM §30.3.3). */
import { RFLAGS } from '../../cpu/registers.ts';
import { EventType } from '../../vmcs/formats.ts';
import { isDebugException, isValid, typeOf, vectorOf } from './defined-information.ts';
import type { ExitReasonSpec } from './exit-reasons.ts';
import type { ExitRequest } from './exit-request.ts';

const RF = 1 << RFLAGS.RF;
/** Fault-class exceptions other than debug exceptions: 0, 5–7, 9–14, 16, 17, 19–21. */
const FAULTS = 0x3b_7ee1;
const DEBUG_REGISTER_ACCESS = 1n << 13n;

/** Bits 31:0 of RFLAGS to be saved, of the register's value `flags`. */
export function savedResumeFlag(flags: number, request: ExitRequest, spec: ExitReasonSpec): number {
  const set = isResumeFlagSet((flags & RF) !== 0, request, spec);
  return (set ? flags | RF : flags & ~RF) >>> 0;
}

function isResumeFlagSet(current: boolean, request: ExitRequest, spec: ExitReasonSpec): boolean {
  if (request.enclaveMode === true) return false;
  const { event, originalEvent, resumeFlag } = request;
  switch (spec.resumeFlag) {
    case 'cleared':
      return false;
    case 'kept':
      return current;
    case 'access':
      return isValid(originalEvent) ? (resumeFlag ?? inImage(originalEvent, request, current)) : true;
    case 'event':
      return resumeFlag ?? (event === undefined ? current : inImage(event, request, current));
    case 'task-switch':
      return resumeFlag ?? (isValid(originalEvent) && inImage(originalEvent, request, current));
  }
}

/**
 * RF in the image that delivery of an event pushes (SDM vol. 3B §19.3.1.1): 1 for faults, but as it is
 * for a debug exception that is not due to a debug-register access; 0 for software events; for others
 * as it is, on an instruction boundary.
 */
function inImage(identification: number, request: ExitRequest, current: boolean): boolean {
  switch (typeOf(identification)) {
    case EventType.HardwareException:
      if (isDebugException(identification)) {
        return current || ((request.qualification ?? 0n) & DEBUG_REGISTER_ACCESS) !== 0n;
      }
      return current || ((FAULTS >>> vectorOf(identification)) & 1) === 1;
    case EventType.SoftwareInterrupt:
    case EventType.PrivilegedSoftwareException:
    case EventType.SoftwareException:
    case EventType.Other:
      return false;
    default:
      return current;
  }
}
