/**
 * Which information a VM exit defines, given its reason and what its cause says (SDM §30.2): the rules
 * of {@link EXIT_REASONS} applied to one request. What is not defined is left as the VMCS has it.
 */
import { Register } from '../../cpu/registers.ts';
import { EVENT_VALID, EventType } from '../../vmcs/formats.ts';
import { Basic } from '../capabilities/capability-msrs.ts';
import { controlRef, isOn } from '../effective-controls.ts';
import type { VmxProcessor } from '../vmx-state.ts';
import type { ExitReasonSpec } from './exit-reasons.ts';
import type { ExitRequest } from './exit-request.ts';
import {
  ApicAccessType,
  type BitFormat,
  ControlRegisterAccess,
  QUALIFICATIONS,
  TaskSwitchSource,
} from './qualifications.ts';

const BUSY_SHADOW_STACK = controlRef('exit2.prematurelyBusyShadowStack');
const IO_STRING = 1n << 4n;
const LINEAR_ADDRESS_VALID = 1n << 7n;

// Constants to the compiler, which imported bindings are not (bench: "VMRESUME + exit").
const VALID = EVENT_VALID;
const CR4_HIGH = 2 * Register.CR4 + 1;

/** Event type of an identification. */
export function typeOf(identification: number): number {
  return (identification >>> 8) & 7;
}

export function vectorOf(identification: number): number {
  return identification & 0xff;
}

/** The identification is there and its valid bit is 1. */
export function isValid(identification: number | undefined): identification is number {
  return identification !== undefined && (identification & VALID) !== 0;
}

/** A hardware exception with this vector. */
export function isException(identification: number | undefined, vector: number): boolean {
  return (
    isValid(identification) &&
    typeOf(identification) === EventType.HardwareException &&
    vectorOf(identification) === vector
  );
}

/** An NMI. */
export function isNmi(identification: number | undefined): boolean {
  return isValid(identification) && typeOf(identification) === EventType.Nmi;
}

/** A debug exception, INT1 included. */
export function isDebugException(identification: number | undefined): boolean {
  return (
    isValid(identification) &&
    vectorOf(identification) === 1 &&
    (typeOf(identification) === EventType.HardwareException ||
      typeOf(identification) === EventType.PrivilegedSoftwareException)
  );
}

/** Software interrupt, INT1, INT3 or INTO; with FRED also SYSCALL or SYSENTER. */
function isSoftwareEvent(identification: number | undefined): boolean {
  return isValid(identification) && typeOf(identification) >= EventType.SoftwareInterrupt;
}

/** Format of the exit qualification, or undefined if it is cleared. */
export function qualificationFormat(spec: ExitReasonSpec, request: ExitRequest): BitFormat | undefined {
  const rule = spec.qualification;
  if (rule === 'cleared') return undefined;
  if (rule !== 'of-event') return QUALIFICATIONS[rule];
  if (isDebugException(request.event)) return QUALIFICATIONS.debugException;
  return isException(request.event, 14) ? QUALIFICATIONS.linearAddress : undefined;
}

function part(request: ExitRequest, high: number, low: number): number {
  return Number(BigInt.asUintN(high - low + 1, (request.qualification ?? 0n) >> BigInt(low)));
}

/** Whether there may be an original event: the reason, and for some the qualification, allow one. */
export function allowsOriginalEvent(spec: ExitReasonSpec, request: ExitRequest): boolean {
  switch (spec.originalEvent) {
    case 'never':
      return false;
    case 'nested':
      // What leads to a double fault that exits directly is not reported, nor is a nested software event.
      return (
        isValid(request.event) &&
        typeOf(request.event) === EventType.HardwareException &&
        !isException(request.event, 8)
      );
    case 'task-gate':
      return part(request, 31, 30) === TaskSwitchSource.IdtGate;
    case 'apic-access': {
      const access = part(request, 15, 12);
      return access === ApicAccessType.EventDelivery || access === ApicAccessType.PhysicalEventDelivery;
    }
    case 'delivery':
      return true;
  }
}

/** Whether the exit cannot be without an original event. */
export function needsOriginalEvent(spec: ExitReasonSpec, request: ExitRequest): boolean {
  const rule = spec.originalEvent;
  return (rule === 'task-gate' || rule === 'apic-access') && allowsOriginalEvent(spec, request);
}

/** Whether the guest-linear address is defined. */
export function definesLinearAddress(
  spec: ExitReasonSpec,
  request: ExitRequest,
  p: VmxProcessor | undefined,
): boolean {
  switch (spec.guestLinearAddress) {
    case 'never':
      return false;
    case 'always':
      return true;
    case 'lmsw-from-memory':
      return part(request, 5, 4) === ControlRegisterAccess.Lmsw && part(request, 6, 6) === 1;
    case 'string-io':
      return ((request.qualification ?? 0n) & IO_STRING) !== 0n;
    case 'qualification-bit-7':
      return ((request.qualification ?? 0n) & LINEAR_ADDRESS_VALID) !== 0n;
    case 'busy-shadow-stack':
      return request.prematurelyBusyShadowStack === true && (p === undefined || reportsBusyShadowStack(p));
  }
}

/** Events are delivered through FRED: CR4.FRED, which is bit 32. */
export function usesFred(p: VmxProcessor): boolean {
  return ((p.cpu.words[CR4_HIGH] as number) & 1) === 1;
}

/** "Prematurely busy shadow stack" VM-exit control. */
export function reportsBusyShadowStack(p: VmxProcessor): boolean {
  const { current } = p.vmx;
  return current !== undefined && isOn(current, p.capabilities, BUSY_SHADOW_STACK);
}

/** Whether the VM-exit instruction length is defined. */
export function definesLength(spec: ExitReasonSpec, request: ExitRequest): boolean {
  switch (spec.instructionLength) {
    case 'never':
      return false;
    case 'instruction':
      return true;
    case 'software-event':
      return isSoftwareEvent(request.event) || isSoftwareEvent(request.originalEvent);
    case 'access':
      return request.instructionLength !== undefined || isSoftwareEvent(request.originalEvent);
    case 'task-switch':
      return part(request, 31, 30) !== TaskSwitchSource.IdtGate || isSoftwareEvent(request.originalEvent);
  }
}

/** Whether the VM-exit instruction information is defined. */
export function definesInformation(
  spec: ExitReasonSpec,
  request: ExitRequest,
  p: VmxProcessor | undefined,
): boolean {
  if (spec.instructionInformation !== 'stringIo') return spec.instructionInformation !== undefined;
  const reported = p === undefined || p.capabilities.has('basic', Basic.INS_OUTS_INFORMATION);
  return reported && ((request.qualification ?? 0n) & IO_STRING) !== 0n;
}
