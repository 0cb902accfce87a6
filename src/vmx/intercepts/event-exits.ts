/**
 * VM exits that events cause (SDM §28.2, §30.2.2, §30.2.4): exceptions by the exception bitmap, triple
 * faults, NMIs, external interrupts, and task switches through the IDT.
 */
import { EventType, eventType, eventVector, HAS_ERROR_CODE, identifyEvent } from '../../cpu/event.ts';
import { Vector } from '../../cpu/exceptions.ts';
import { Register, RFLAGS } from '../../cpu/registers.ts';
import { Field } from '../../vmcs/fields.ts';
import type { ProcessorCopy } from '../../vmcs/processor-copy.ts';
import { processesNotification } from '../apic/apic-events.ts';
import { controlRef, isOn } from '../effective-controls.ts';
import { usesFred } from '../exit/defined-information.ts';
import { ExitReason } from '../exit/exit-reasons.ts';
import type { ExitRequest } from '../exit/exit-request.ts';
import { TaskSwitchSource } from '../exit/qualifications.ts';
import type { VmxProcessor } from '../vmx-state.ts';

const NMI_EXITING = controlRef('pin.nmiExiting');
const VIRTUAL_NMIS = controlRef('pin.virtualNmis');
const INTERRUPT_EXITING = controlRef('pin.externalInterruptExiting');
const ACKNOWLEDGE = controlRef('exit.acknowledgeInterruptOnExit');
const BITMAP = 2 * Field.exceptionBitmap;
const PF_MASK = 2 * Field.pageFaultErrorCodeMask;
const PF_MATCH = 2 * Field.pageFaultErrorCodeMatch;
const USER_INTERRUPT_DELIVERY = 2 * Register.userInterruptDelivery;
const UNBLOCKED_BY_IRET = 2 * Register.unblockedByIret;
const RF = 1 << RFLAGS.RF;
const BLOCKING_BY_NMI = 2 * Register.blockingByNmi;

const copyOf = (p: VmxProcessor): ProcessorCopy => p.active.resident(p.vmx.current as ProcessorCopy);

/** Whether the exception bitmap asks for an exit; of #PF its error code decides with mask and match (SDM §27.6.3). */
function bitmapExits(copy: ProcessorCopy, vector: number, errorCode: number): boolean {
  const bit = ((copy.words[BITMAP] as number) >>> vector) & 1;
  if (vector !== Vector.PF) return bit === 1;
  const matches = ((errorCode & (copy.words[PF_MASK] as number)) ^ (copy.words[PF_MATCH] as number)) === 0;
  return (bit === 1) === matches;
}

/** The event whose delivery is under way, as exits report it (SDM §30.2.4). */
function originalEvent(
  p: VmxProcessor,
): Pick<ExitRequest, 'originalEvent' | 'originalEventErrorCode' | 'originalEventData'> {
  const { words } = p.cpu;
  const event = words[2 * Register.originalEvent] as number;
  if (event === 0) return {};
  return {
    originalEvent: event,
    ...((event & HAS_ERROR_CODE) !== 0 && {
      originalEventErrorCode: words[2 * Register.originalEventErrorCode] as number,
    }),
    ...(usesFred(p) && { originalEventData: p.cpu.quads[Register.originalEventData] as bigint }),
  };
}

/** Length of the instruction that caused the event whose delivery is under way: INT n, INT1, INT3, INTO, SYSCALL, SYSENTER. */
function originalLength(p: VmxProcessor): Pick<ExitRequest, 'instructionLength'> {
  const { words } = p.cpu;
  const event = words[2 * Register.originalEvent] as number;
  if (event === 0 || eventType(event) < EventType.SoftwareInterrupt) return {};
  return { instructionLength: words[2 * Register.originalEventLength] as number };
}

/** What an exit says of the event whose delivery met its cause, if one is under way. */
export function eventUnderDelivery(
  p: VmxProcessor,
): Pick<
  ExitRequest,
  'originalEvent' | 'originalEventErrorCode' | 'originalEventData' | 'instructionLength' | 'resumeFlag'
> {
  const { words } = p.cpu;
  if (words[2 * Register.originalEvent] === 0) return {};
  // The image that delivery would push (SDM §30.3.3): of an injected event it has RF as VM entry loads it.
  const image = (words[2 * Register.RFLAGS] as number) | (words[2 * Register.originalEventFlags] as number);
  return { ...originalEvent(p), ...originalLength(p), resumeFlag: (image & RF) !== 0 };
}

/** The exit of an exception, INT1, INT3 or INTO, or undefined if it is delivered. */
export function exceptionExit(
  p: VmxProcessor,
  event: number,
  errorCode: number,
  instructionLength: number,
): ExitRequest | undefined {
  const type = eventType(event);
  if (
    type !== EventType.HardwareException &&
    type !== EventType.SoftwareException &&
    type !== EventType.PrivilegedSoftwareException
  ) {
    return undefined;
  }
  const vector = eventVector(event);
  if (!bitmapExits(copyOf(p), vector, errorCode)) return undefined;
  const { cpu } = p;
  const isHardware = type === EventType.HardwareException;
  const request: ExitRequest = {
    reason: ExitReason.ExceptionOrNmi,
    event: (event | (isHardware && vector !== Vector.DB ? nmiUnblocking(p) : 0)) >>> 0,
    ...((event & HAS_ERROR_CODE) !== 0 && { eventErrorCode: errorCode }),
    ...(isHardware && vector === Vector.PF && { qualification: cpu.quads[Register.faultAddress] as bigint }),
    ...(vector === Vector.DB && {
      qualification: BigInt(isHardware ? (cpu.words[2 * Register.debugCauses] as number) : 0),
    }),
    ...(isHardware && vector === Vector.DB && imageWithinRepetition(p)),
    ...(isHardware ? originalLength(p) : { instructionLength }),
    ...(vector !== Vector.DF && originalEvent(p)),
  };
  return request;
}

export const TRIPLE_FAULT: ExitRequest = Object.freeze({ reason: ExitReason.TripleFault });

export const INIT_SIGNAL: ExitRequest = Object.freeze({ reason: ExitReason.InitSignal });

/** The exit of a start-up IPI, which reports its vector. */
export function startUpExit(vector: number): ExitRequest {
  return { reason: ExitReason.StartupIpi, qualification: BigInt(vector) };
}

/** The exit of a task switch through a task gate of the IDT to the TSS of `selector`. */
export function taskGateExit(p: VmxProcessor, selector: number): ExitRequest {
  return {
    reason: ExitReason.TaskSwitch,
    qualification: BigInt((selector | (TaskSwitchSource.IdtGate << 30)) >>> 0),
    ...eventUnderDelivery(p),
  };
}

/** Between two iterations of a string instruction the image of RFLAGS would have RF (SDM §30.3.3). */
function imageWithinRepetition({ cpu }: VmxProcessor): Pick<ExitRequest, 'resumeFlag'> {
  return cpu.repeatedAt === cpu.executed ? { resumeFlag: true } : {};
}

/** The exit of an NMI, or undefined without "NMI exiting". */
export function nmiExit(p: VmxProcessor): ExitRequest | undefined {
  if (!isOn(copyOf(p), p.capabilities, NMI_EXITING)) return undefined;
  return {
    reason: ExitReason.ExceptionOrNmi,
    event: identifyEvent(EventType.Nmi, Vector.NMI) >>> 0,
    ...imageWithinRepetition(p),
  };
}

/**
 * The exit of an external interrupt, which it acknowledges if the exit controls say so; `processed` if it
 * was a notification of posted interrupts (SDM §32.6); undefined if it is delivered.
 */
export function externalInterruptExit(p: VmxProcessor): ExitRequest | 'processed' | undefined {
  const copy = copyOf(p);
  if (!isOn(copy, p.capabilities, INTERRUPT_EXITING)) return undefined;
  if (!isOn(copy, p.capabilities, ACKNOWLEDGE))
    return { reason: ExitReason.ExternalInterrupt, ...imageWithinRepetition(p) };
  const vector = p.cpu.interrupts.acknowledge();
  if (processesNotification(p, copy, vector)) return 'processed';
  return {
    reason: ExitReason.ExternalInterrupt,
    event: identifyEvent(EventType.ExternalInterrupt, vector) >>> 0,
    ...imageWithinRepetition(p),
  };
}

/** "Virtual NMIs": NMIs that VM entry injects block virtual NMIs alone. */
export function virtualisesNmis(p: VmxProcessor): boolean {
  return isOn(copyOf(p), p.capabilities, VIRTUAL_NMIS);
}

/**
 * IRET: ends blocking by NMI without "NMI exiting", virtual-NMI blocking with "virtual NMIs" (SDM §28.3).
 * Answers whether there was any, which exits from the IRET report (SDM §30.2.3).
 */
export function iretUnblocks(p: VmxProcessor): boolean {
  const { cpu, vmx } = p;
  if (!isOn(copyOf(p), p.capabilities, NMI_EXITING)) {
    const blocked = cpu.i32[BLOCKING_BY_NMI] === 1;
    cpu.i32[BLOCKING_BY_NMI] = 0;
    return blocked;
  }
  const blocked = vmx.virtualNmiBlocking;
  vmx.virtualNmiBlocking = false;
  return blocked;
}

/** Bit 16 of the exit qualification: the access belongs to no instruction but to the delivery of a user interrupt. */
export function asynchronousAccess(p: VmxProcessor): number {
  return p.cpu.words[USER_INTERRUPT_DELIVERY] !== 0 ? 1 << 16 : 0;
}

/**
 * "NMI unblocking due to IRET", bit 12 of the exiting event or of the exit qualification: what is
 * executed is an IRET that ended blocking by NMI. 0 while an event is delivered.
 */
export function nmiUnblocking(p: VmxProcessor): number {
  return p.cpu.words[UNBLOCKED_BY_IRET] !== 0 ? 1 << 12 : 0;
}
