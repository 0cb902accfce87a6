/**
 * Delivery of events (SDM vol. 3A chapter 7): of one event, and of those that its delivery meets, up to
 * the double fault and shutdown. While an event is delivered it is in the slots `originalEvent…`, where
 * VT-x finds it; VM entry injects events through `deliverInjected`.
 */

import { Attention } from './attention.ts';
import {
  EventType,
  eventType,
  eventVector,
  identifyEvent,
  isException,
  isSoftwareEvent,
  NESTED,
  returnsBehindInstruction,
} from './event.ts';
import { Vector, VM_EXIT_PENDING } from './exceptions.ts';
import { materialise } from './flags.ts';
import { deliverThroughFred, noteEventData } from './fred/event-delivery.ts';
import { usesFred } from './fred/fred-transitions.ts';
import { type Instruction, Next } from './instruction.ts';
import { retreat } from './instruction-pointer.ts';
import { deliverThroughGate } from './interrupt-gates.ts';
import { deliverRedirected, deliverThroughVector, Redirection, redirectionOf } from './interrupt-vectors.ts';
import { Mode } from './mode.ts';
import { endWait } from './monitored-line.ts';
import type { Processor } from './processor.ts';
import { Register, RFLAGS } from './registers.ts';
import { isUserInterruptNotificationEvent, processUserInterruptNotification } from './user-interrupts.ts';

const FAULT = 2 * Register.fault;
const FAULT_CODE = 2 * Register.faultErrorCode;
const FAULT_ADDRESS = Register.faultAddress;
const DEBUG_CAUSES = 2 * Register.debugCauses;
const EVENT = 2 * Register.originalEvent;
const EVENT_CODE = 2 * Register.originalEventErrorCode;
const EVENT_LENGTH = 2 * Register.originalEventLength;
const EVENT_FLAGS = 2 * Register.originalEventFlags;
const EVENT_DATA = Register.originalEventData;
const EVENT_BLOCKED = 2 * Register.originalEventBlockedBySti;
const RETURN = 2 * Register.returnAddress;
const EXTERNAL = 2 * Register.external;
const RIP = 2 * Register.RIP;
const RFLAGS_LOW = 2 * Register.RFLAGS;
const DR6 = 2 * Register.DR6;
const DR7 = 2 * Register.DR7;
const DEBUGCTL = 2 * Register.IA32_DEBUGCTL;
const BLOCKING_BY_STI = 2 * Register.blockingBySti;
const BLOCKING_BY_MOV_SS = 2 * Register.blockingByMovSs;
const BLOCKING_BY_NMI = 2 * Register.blockingByNmi;
const UNBLOCKED_BY_IRET = 2 * Register.unblockedByIret;
const STALLED = 2 * Register.deliveryStalled;
const PENDING_DEBUG = 2 * Register.pendingDebugExceptions;
const BREAKPOINTS_MET = 2 * Register.breakpointsMet;
const ACTIVITY = 2 * Register.activityState;
const SHUTDOWN = 2;
const RF = 1 << RFLAGS.RF;
/** DR6.BD: the only debug exception that is a fault besides an instruction breakpoint. */
const DEBUG_REGISTER_ACCESS = 1 << 13;
/** DR6 bits that are 0 for the cause: bus lock and RTM; other debug exceptions set them. DEVIATION(dr6-bus-lock) */
const ACTIVE_LOW_CAUSES = (1 << 11) | (1 << 16);
const BREAKPOINTS = 0xf;
/** In pending debug exceptions (SDM §27.4.2, Table 27-4). */
const ENABLED_BREAKPOINT = 1 << 12;
const GD = 1 << 13;
const LBR_AND_BTF = 3;
/** Exceptions that the delivery of one event meets before time passes. */
const MOST_NESTED = 8;

/** Delivers the exception that was raised last; RIP is that of the instruction which raised it, if one did. */
export function deliverFault(cpu: Processor, instructionLength = 0): void {
  const w = cpu.i32;
  w[BREAKPOINTS_MET] = 0;
  if (w[FAULT] === VM_EXIT_PENDING) cpu.vmxPort.exitPending(instructionLength);
  else deliver(cpu, raisedException(cpu), raisedErrorCode(cpu), 0);
  w[UNBLOCKED_BY_IRET] = 0;
}

/** The raised exception; in real-address mode none has an error code. */
function raisedException(cpu: Processor): number {
  const w = cpu.i32;
  const hasErrorCode = w[FAULT + 1] !== 0 && cpu.mode !== Mode.Real;
  return identifyEvent(EventType.HardwareException, w[FAULT] as number, hasErrorCode);
}

function raisedErrorCode(cpu: Processor): number {
  return cpu.i32[FAULT + 1] !== 0 ? (cpu.i32[FAULT_CODE] as number) : 0;
}

/**
 * Delivers `event` ({@link identifyEvent}), or performs the VM exit that it causes. RIP is where the
 * handler returns to, or, for INT n, INT1, INT3 and INTO, the instruction of `instructionLength` bytes.
 * #DB and #PF take what they report from the slots `debugCauses` and `faultAddress`. `flags`: RF, if the
 * image of RFLAGS has it although the exception is no fault.
 */
export function deliver(
  cpu: Processor,
  event: number,
  errorCode: number,
  instructionLength: number,
  flags = 0,
): void {
  materialise(cpu);
  // Software events push RF as 0: it ends when they begin (SDM vol. 3B §19.3.1.1).
  if (returnsBehindInstruction(event)) cpu.i32[RFLAGS_LOW] = (cpu.i32[RFLAGS_LOW] as number) & ~RF;
  if (cpu.nonRoot && isException(event) && cpu.vmxPort.exitsOnEvent(event, errorCode, instructionLength))
    return;
  begin(cpu, event, errorCode, instructionLength);
  cpu.i32[EVENT_FLAGS] = flags | resumeFlagOf(cpu, event);
  noteEventData(cpu, event);
  recordCauses(cpu, event);
  attempt(cpu);
}

/**
 * Delivers the event that instruction `i` asks for, with RIP at the instruction: what delivery meets is a
 * fault there.
 */
export function deliverSoftware(cpu: Processor, i: Instruction, type: EventType, vector: number): Next {
  retreat(cpu, i.length);
  deliver(cpu, identifyEvent(type, vector), 0, i.length);
  return Next.Settled;
}

/**
 * Delivers the event of VM entry: it causes no VM exit itself, and changes neither CR2 nor debug registers
 * (SDM §29.6.1). `blocksNmis`: an NMI blocks NMIs, rather than virtual NMIs. FRED saves `data` and `blockedBySti`.
 */
export function deliverInjected(
  cpu: Processor,
  event: number,
  errorCode: number,
  instructionLength: number,
  blocksNmis: boolean,
  data: bigint,
  blockedBySti: boolean,
): void {
  materialise(cpu);
  const blocked = cpu.i32[BLOCKING_BY_NMI] as number;
  begin(cpu, event, errorCode, instructionLength);
  if (!blocksNmis) cpu.i32[BLOCKING_BY_NMI] = blocked;
  cpu.i32[EVENT_FLAGS] = 0;
  cpu.quads[EVENT_DATA] = data;
  cpu.i32[EVENT_BLOCKED] = blockedBySti ? 1 : 0;
  attempt(cpu);
}

function begin(cpu: Processor, event: number, errorCode: number, instructionLength: number): void {
  const w = cpu.i32;
  w[EVENT] = event;
  w[EVENT_CODE] = errorCode;
  w[EVENT_LENGTH] = instructionLength;
  w[UNBLOCKED_BY_IRET] = 0;
  if (w[BLOCKING_BY_STI] !== 0) w[EVENT_BLOCKED] = 1;
  w[BLOCKING_BY_STI] = 0;
  // Debug traps that MOV SS held back outlive only events of software (SDM vol. 3A §7.8.3), with FRED no event.
  if (!isSoftwareEvent(event) || usesFred(cpu)) w[PENDING_DEBUG] = 0;
  w[BLOCKING_BY_MOV_SS] = 0;
  endWait(cpu);
  // After a notification the processor halts again.
  if (!isUserInterruptNotificationEvent(cpu, event)) w[ACTIVITY] = 0;
  if (eventType(event) === EventType.Nmi) w[BLOCKING_BY_NMI] = 1;
  cpu.stateChanged();
}

/** RF in the image of RFLAGS: 1 for faults but instruction breakpoints (SDM vol. 3B §19.3.1.1). */
function resumeFlagOf(cpu: Processor, event: number): number {
  if (eventType(event) !== EventType.HardwareException) return 0;
  const vector = eventVector(event);
  if (vector === Vector.DB) return (cpu.i32[DEBUG_CAUSES] as number) & DEBUG_REGISTER_ACCESS ? RF : 0;
  return vector === Vector.DF || vector === Vector.MC ? 0 : RF;
}

/** What an exception leaves in CR2, DR6, DR7 and IA32_DEBUGCTL when it is delivered. */
function recordCauses(cpu: Processor, event: number): void {
  const w = cpu.i32;
  const raised = eventType(event) === EventType.HardwareException;
  if (raised && eventVector(event) === Vector.PF) {
    cpu.quads[Register.CR2] = cpu.quads[FAULT_ADDRESS] as bigint;
  }
  if (
    eventVector(event) !== Vector.DB ||
    !(raised || eventType(event) === EventType.PrivilegedSoftwareException)
  )
    return;
  if (raised) {
    const causes = w[DEBUG_CAUSES] as number;
    const high = causes & ~ACTIVE_LOW_CAUSES;
    w[DR6] = (((w[DR6] as number) & ~BREAKPOINTS) | ACTIVE_LOW_CAUSES | high) & ~(causes & ACTIVE_LOW_CAUSES);
  } else w[DR6] = (w[DR6] as number) | ACTIVE_LOW_CAUSES;
  w[DR7] = (w[DR7] as number) & ~GD;
  w[DEBUGCTL] = (w[DEBUGCTL] as number) & ~LBR_AND_BTF;
}

/** Delivers the event in the slots `originalEvent…`, then what its delivery meets instead. */
function attempt(cpu: Processor): void {
  const w = cpu.i32;
  for (let nested = 0; !deliverOnce(cpu); nested++) {
    if (w[FAULT] === VM_EXIT_PENDING) {
      cpu.vmxPort.exitPending();
      finish(cpu);
      return;
    }
    if (!takeNested(cpu)) return;
    if (nested === MOST_NESTED) {
      w[STALLED] = 1;
      cpu.requestAttention();
      return;
    }
  }
  finish(cpu);
  // Breakpoints on what delivery accessed are met as if the first instruction of the handler followed a trap.
  const met = w[BREAKPOINTS_MET] as number;
  if (met !== 0) w[PENDING_DEBUG] = (w[PENDING_DEBUG] as number) | met | ENABLED_BREAKPOINT;
  w[BREAKPOINTS_MET] = 0;
  cpu.requestAttention();
}

/**
 * Goes on with a delivery that meets benign exceptions without end (#AC at CPL 3 on a stack that is not
 * aligned): software keeps the processor from an instruction boundary for as long as memory stays as it is.
 */
export function continueDelivery(cpu: Processor): void {
  cpu.i32[STALLED] = 0;
  attempt(cpu);
}

/** A VM exit takes the place of a delivery that goes on and on. */
export function abandonDelivery(cpu: Processor): void {
  if (cpu.i32[STALLED] === 0) return;
  cpu.i32[STALLED] = 0;
  finish(cpu);
}

/** Forgets the event. */
function finish(cpu: Processor): void {
  const w = cpu.i32;
  w[EVENT] = 0;
  w[EVENT_BLOCKED] = 0;
  w[EXTERNAL] = 0;
}

/** Makes the exception met the event to deliver, or #DF; false after shutdown or a VM exit. */
function takeNested(cpu: Processor): boolean {
  const w = cpu.i32;
  const first = w[EVENT] as number;
  let second = raisedException(cpu) | (usesFred(cpu) ? NESTED : 0);
  let errorCode = raisedErrorCode(cpu);
  if (cpu.nonRoot && cpu.vmxPort.exitsOnEvent(second, errorCode, 0)) {
    finish(cpu);
    return false;
  }
  // CR2 is that of the last page fault even if it becomes a double fault.
  recordCauses(cpu, second);
  const outcome = combine(first, second);
  if (outcome === Combination.Shutdown) {
    finish(cpu);
    tripleFault(cpu);
    return false;
  }
  if (outcome === Combination.DoubleFault) {
    second = identifyEvent(EventType.HardwareException, Vector.DF, cpu.mode !== Mode.Real);
    errorCode = 0;
    w[EVENT] = 0;
    if (cpu.nonRoot && cpu.vmxPort.exitsOnEvent(second, 0, 0)) {
      finish(cpu);
      return false;
    }
  }
  begin(cpu, second, errorCode, 0);
  noteEventData(cpu, second);
  w[EVENT_FLAGS] = resumeFlagOf(cpu, second);
  return true;
}

const Combination = { Serial: 0, DoubleFault: 1, Shutdown: 2 } as const;
type Combination = (typeof Combination)[keyof typeof Combination];

const Class = { Benign: 0, Contributory: 1, PageFault: 2, DoubleFault: 3 } as const;

/** Classes of exceptions (SDM vol. 3A Table 7-4); every other event is benign. */
function classOf(event: number): number {
  if (eventType(event) !== EventType.HardwareException) return Class.Benign;
  switch (eventVector(event)) {
    case Vector.DE:
    case Vector.TS:
    case Vector.NP:
    case Vector.SS:
    case Vector.GP:
    case Vector.CP:
      return Class.Contributory;
    case Vector.PF:
    case Vector.VE:
      return Class.PageFault;
    case Vector.DF:
      return Class.DoubleFault;
    default:
      return Class.Benign;
  }
}

/** What two exceptions make (SDM vol. 3A Table 7-5). */
function combine(first: number, second: number): Combination {
  const [a, b] = [classOf(first), classOf(second)];
  if (a === Class.Benign || b === Class.Benign) return Combination.Serial;
  if (a === Class.DoubleFault) return Combination.Shutdown;
  return a === Class.Contributory && b === Class.PageFault ? Combination.Serial : Combination.DoubleFault;
}

/** A triple fault: shutdown, or a VM exit (SDM vol. 3A §7.15, #DF; SDM §28.2). */
function tripleFault(cpu: Processor): void {
  if (cpu.nonRoot && cpu.vmxPort.exitsOnTripleFault()) return;
  shutDown(cpu);
}

/** Shutdown: NMI, SMI, INIT and RESET leave it. */
export function shutDown(cpu: Processor): void {
  cpu.i32[ACTIVITY] = SHUTDOWN;
  cpu.stateChanged();
  cpu.requestAttention(Attention.Inactive);
}

function deliverOnce(cpu: Processor): boolean {
  const w = cpu.i32;
  const event = w[EVENT] as number;
  if (isUserInterruptNotificationEvent(cpu, event)) return processUserInterruptNotification(cpu);
  setReturnAddress(cpu, returnsBehindInstruction(event) ? (w[EVENT_LENGTH] as number) : 0);
  w[EXTERNAL] = isSoftwareEvent(event) ? 0 : 1;
  let delivered: boolean;
  if (usesFred(cpu)) delivered = deliverThroughFred(cpu);
  else if (cpu.mode === Mode.Real) delivered = deliverThroughVector(cpu);
  else if (eventType(event) === EventType.SoftwareInterrupt) delivered = deliverSoftwareInterrupt(cpu);
  else delivered = deliverThroughGate(cpu);
  w[EXTERNAL] = 0;
  return delivered;
}

function deliverSoftwareInterrupt(cpu: Processor): boolean {
  switch (redirectionOf(cpu, eventVector(cpu.i32[EVENT] as number))) {
    case Redirection.ToVectors:
      return deliverRedirected(cpu);
    case Redirection.ToGates:
      return deliverThroughGate(cpu);
    default:
      return false;
  }
}

/** RIP and `bytes`. */
function setReturnAddress(cpu: Processor, bytes: number): void {
  const w = cpu.i32;
  const sum = ((w[RIP] as number) >>> 0) + bytes;
  w[RETURN] = sum | 0;
  const carry = sum > 0xffff_ffff && cpu.codeBits === 64 ? 1 : 0;
  w[RETURN + 1] = ((w[RIP + 1] as number) + carry) | 0;
}
