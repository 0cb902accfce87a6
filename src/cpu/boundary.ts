/**
 * What happens between two instructions besides going from one to the next: the traps and blockings
 * that the last one left, and the events that wait, in the order of SDM vol. 3A §7.9, Table 7-2. It is
 * looked at only while something asks for attention.
 */
import { Attention } from './attention.ts';
import { Enforcement } from './cet/enforcement.ts';
import { hasInstructionBreakpoints, instructionBreakpoints } from './debug-registers.ts';
import { EventType, identifyEvent } from './event.ts';
import { continueDelivery, deliver, deliverFault, shutDown } from './events.ts';
import { raiseDebug, Vector } from './exceptions.ts';
import { Before } from './instruction-start.ts';
import { endWait, Monitoring, waitsForStore } from './monitored-line.ts';
import type { Processor } from './processor.ts';
import { CR4, Register, RFLAGS } from './registers.ts';
import { initialise, startUp } from './reset.ts';
import { enterSmm } from './smm/system-management.ts';
import { deliverUserInterrupt, isUserInterruptDue, isUserInterruptNotification } from './user-interrupts.ts';
import { BoundaryStage } from './vmx-port.ts';

const ATTENTION = 2 * Register.attention;
const RFLAGS_LOW = 2 * Register.RFLAGS;
const BLOCKING_BY_STI = 2 * Register.blockingBySti;
const BLOCKING_BY_MOV_SS = 2 * Register.blockingByMovSs;
const BLOCKING_BY_NMI = 2 * Register.blockingByNmi;
const NMI_PENDING = 2 * Register.nmiPending;
const MACHINE_CHECK_PENDING = 2 * Register.machineCheckPending;
const CR4_LOW = 2 * Register.CR4;
const MCE = 1 << CR4.MCE;
const STALLED = 2 * Register.deliveryStalled;
const SMI_PENDING = 2 * Register.smiPending;
const BLOCKING_BY_SMI = 2 * Register.blockingBySmi;
const INIT_PENDING = 2 * Register.initPending;
const SIPI_PENDING = 2 * Register.sipiPending;
const USER_INTERRUPT_PENDING = 2 * Register.userInterruptPending;
const IN_SMM = 2 * Register.inSmm;
const ACTIVITY = 2 * Register.activityState;
const MONITORING = 2 * Register.monitorArmed;
const PENDING_DEBUG = 2 * Register.pendingDebugExceptions;
const BREAKPOINTS_MET = 2 * Register.breakpointsMet;
const DEBUG_CAUSES = 2 * Register.debugCauses;
const DEBUGCTL = 2 * Register.IA32_DEBUGCTL;
const DR7_LOW = 2 * Register.DR7;
/** L0–L3 and G0–G3 of DR7. */
const ANY_BREAKPOINT = 0xff;
const BEFORE = 2 * Register.before;
const TF = 1 << RFLAGS.TF;
const IF = 1 << RFLAGS.IF;
const RF = 1 << RFLAGS.RF;
/** IA32_DEBUGCTL.BTF: single-step on branches. */
const BTF = 1 << 1;

/** Pending debug exceptions (SDM §27.4.2, Table 27-4); B0–B3 and BS are where DR6 has them. */
const BREAKPOINTS = 0xf;
const ENABLED_BREAKPOINT = 1 << 12;
const BUS_LOCK = 1 << 11;
const BS = 1 << 14;
const RTM = 1 << 16;

const Activity = { Active: 0, Hlt: 1, Shutdown: 2, WaitForSipi: 3 } as const;

/** What comes at an instruction boundary. */
export const Boundary = {
  /** An instruction. */
  Execute: 0,
  /** An event was taken; the next one or the next instruction follows. */
  EventTaken: 1,
  /** Nothing: the processor waits for an event, or is in shutdown. */
  Inactive: 2,
} as const;
export type Boundary = (typeof Boundary)[keyof typeof Boundary];

/** Before an instruction, while something asks for attention: takes the event of highest priority that is due. */
export function atBoundary(cpu: Processor): Boundary {
  const w = cpu.i32;
  const asksPort = cpu.nonRoot && (cpu.portAsks || ((w[ATTENTION] as number) & Attention.Vmx) !== 0);
  if (!asksPort && isUneventful(cpu)) {
    w[ATTENTION] = 0;
    w[BEFORE] = 0;
    w[BREAKPOINTS_MET] = 0;
    return Boundary.Execute;
  }
  if (w[STALLED] !== 0 ? takesStalled(cpu, asksPort) : takesEvent(cpu, asksPort)) {
    if (asksPort && cpu.nonRoot) cpu.vmxPort.proceeds(false);
    return Boundary.EventTaken;
  }
  w[ATTENTION] = attentionOf(cpu);
  w[BEFORE] =
    (w[BLOCKING_BY_STI] !== 0 ? Before.BlockingBySti : 0) |
    (w[BLOCKING_BY_MOV_SS] !== 0 ? Before.BlockingByMovSs : 0) |
    ((w[RFLAGS_LOW] as number) & RF ? Before.ResumeFlag : 0) |
    ((w[RFLAGS_LOW] as number) & TF ? Before.SingleStep : 0);
  w[BREAKPOINTS_MET] = 0;
  if (w[ACTIVITY] !== Activity.Active || goesOnWaiting(cpu)) return Boundary.Inactive;
  if (asksPort) cpu.vmxPort.proceeds(true);
  return Boundary.Execute;
}

/** Nothing waits, is blocked, or watches the next instruction: the short way to it (bench: "CPUID exit and VMRESUME"). */
function isUneventful(cpu: Processor): boolean {
  const w = cpu.i32;
  const waiting =
    (w[STALLED] as number) |
    (w[MACHINE_CHECK_PENDING] as number) |
    (w[INIT_PENDING] as number) |
    (w[SIPI_PENDING] as number) |
    (w[SMI_PENDING] as number) |
    (w[NMI_PENDING] as number) |
    (w[USER_INTERRUPT_PENDING] as number) |
    (w[PENDING_DEBUG] as number);
  const holding =
    (w[BLOCKING_BY_STI] as number) | (w[BLOCKING_BY_MOV_SS] as number) | (w[ACTIVITY] as number);
  const watching =
    ((w[RFLAGS_LOW] as number) & (TF | RF)) |
    ((w[DR7_LOW] as number) & ANY_BREAKPOINT) |
    (cpu.enforcement & Enforcement.Waiting);
  return (waiting | holding | watching) === 0 && !waitsForStore(cpu) && !cpu.interrupts.requested();
}

/** MWAIT goes on waiting; an interrupt that RFLAGS.IF masks ends it if software asked for that (SDM vol. 2B, MWAIT). */
function goesOnWaiting(cpu: Processor): boolean {
  if (cpu.i32[MONITORING] === Monitoring.WaitingForInterrupts && cpu.interrupts.requested()) endWait(cpu);
  return waitsForStore(cpu);
}

/** Why the instruction that begins needs attention when it has ended. */
function attentionOf(cpu: Processor): Attention {
  const w = cpu.i32;
  const flags = w[RFLAGS_LOW] as number;
  let why = 0;
  if ((w[BLOCKING_BY_STI] as number) | (w[BLOCKING_BY_MOV_SS] as number)) why |= Attention.Blocking;
  if (flags & RF) why |= Attention.ResumeFlag;
  if (flags & TF) why |= Attention.SingleStep;
  if (hasInstructionBreakpoints(cpu)) why |= Attention.InstructionBreakpoints;
  if (w[PENDING_DEBUG] !== 0) why |= Attention.PendingDebug;
  if ((cpu.enforcement & Enforcement.Waiting) !== 0) why |= Attention.Endbranch;
  // An event that is held back by blocking is looked at again when that ends; what RFLAGS.IF or an NMI
  // handler holds back, when these change.
  if (
    why & Attention.Blocking &&
    (w[NMI_PENDING] !== 0 ||
      w[SMI_PENDING] !== 0 ||
      w[USER_INTERRUPT_PENDING] !== 0 ||
      cpu.interrupts.requested())
  )
    why |= Attention.Event;
  if (w[ACTIVITY] !== Activity.Active || waitsForStore(cpu)) why |= Attention.Inactive;
  return why;
}

/**
 * Takes the event of highest priority, if one is due. This is the whole order; instruction breakpoints
 * come before the faults of the instruction that follows.
 */
function takesEvent(cpu: Processor, asksPort: boolean): boolean {
  return (
    (asksPort && vmxHas(cpu, BoundaryStage.First)) ||
    takesMachineCheck(cpu) ||
    takesSmi(cpu) ||
    takesInit(cpu) ||
    takesStartUp(cpu) ||
    (asksPort && vmxHas(cpu, BoundaryStage.BeforeTraps)) ||
    takesDebugTrap(cpu) ||
    (asksPort && vmxHas(cpu, BoundaryStage.BeforeNmi)) ||
    takesNmi(cpu) ||
    (asksPort && vmxHas(cpu, BoundaryStage.BeforeInterrupts)) ||
    takesInterrupt(cpu) ||
    takesUserInterrupt(cpu) ||
    takesInstructionBreakpoint(cpu)
  );
}

/** No instruction boundary yet: the delivery of an event goes on. */
function takesStalled(cpu: Processor, asksPort: boolean): true {
  if (!asksPort || !vmxHas(cpu, BoundaryStage.Stalled)) continueDelivery(cpu);
  return true;
}

function vmxHas(cpu: Processor, stage: BoundaryStage): boolean {
  return cpu.nonRoot && cpu.vmxPort.exitsAtBoundary(stage);
}

/** Without CR4.MCE a machine check shuts the processor down (SDM vol. 3A §7.15, #MC). */
function takesMachineCheck(cpu: Processor): boolean {
  const w = cpu.i32;
  if (w[MACHINE_CHECK_PENDING] === 0 || w[ACTIVITY] === Activity.WaitForSipi) return false;
  w[MACHINE_CHECK_PENDING] = 0;
  if ((w[CR4_LOW] as number) & MCE) takeEvent(cpu, EventType.HardwareException, Vector.MC);
  else shutDown(cpu);
  return true;
}

/** SMIs are blocked in SMM, when VT-x says so, and while a SIPI is awaited; blocking by STI and by MOV SS holds them back too. */
function takesSmi(cpu: Processor): boolean {
  const w = cpu.i32;
  if (w[SMI_PENDING] === 0 || ((w[IN_SMM] as number) | (w[BLOCKING_BY_SMI] as number)) !== 0) return false;
  if (isBlocked(cpu) || w[ACTIVITY] === Activity.WaitForSipi) return false;
  if (!cpu.vmxPort.exitsOnSmi()) enterSmm(cpu);
  return true;
}

function takesInit(cpu: Processor): boolean {
  const w = cpu.i32;
  if (w[INIT_PENDING] === 0 || w[IN_SMM] !== 0 || cpu.vmxPort.blocksInit()) return false;
  if (cpu.nonRoot) {
    if (w[ACTIVITY] === Activity.WaitForSipi) return false;
    w[INIT_PENDING] = 0;
    return cpu.vmxPort.exitsOnInit();
  }
  w[INIT_PENDING] = 0;
  initialise(cpu);
  cpu.interrupts.initialised?.();
  return true;
}

/** A start-up IPI ends the wait for it, and is lost in every other state. */
function takesStartUp(cpu: Processor): boolean {
  const w = cpu.i32;
  if (w[SIPI_PENDING] === 0) return false;
  const vector = w[SIPI_PENDING + 1] as number;
  w[SIPI_PENDING] = 0;
  w[SIPI_PENDING + 1] = 0;
  if (w[ACTIVITY] !== Activity.WaitForSipi) return false;
  if (cpu.nonRoot) return cpu.vmxPort.exitsOnStartUp(vector);
  startUp(cpu, vector);
  return true;
}

/** Debug traps of the previous instruction, unless MOV SS holds them back. */
function takesDebugTrap(cpu: Processor): boolean {
  const w = cpu.i32;
  const pending = w[PENDING_DEBUG] as number;
  if (pending === 0 || w[BLOCKING_BY_MOV_SS] !== 0 || isShut(cpu)) return false;
  w[PENDING_DEBUG] = 0;
  cpu.stateChanged();
  // Breakpoints that are met but not enabled do not make an exception.
  if ((pending & (ENABLED_BREAKPOINT | BS | RTM | BUS_LOCK)) === 0) return false;
  w[DEBUG_CAUSES] = pending & (BREAKPOINTS | BS | RTM | BUS_LOCK);
  takeEvent(cpu, EventType.HardwareException, Vector.DB);
  return true;
}

/** Delivers an event between two instructions; within a repeated string instruction its image has RF. */
export function takeEvent(cpu: Processor, type: EventType, vector: number): void {
  const repeating = cpu.repeatedAt === cpu.executed;
  deliver(cpu, identifyEvent(type, vector), 0, 0, repeating ? RF : 0);
}

function takesNmi(cpu: Processor): boolean {
  const w = cpu.i32;
  if (w[NMI_PENDING] === 0 || w[BLOCKING_BY_NMI] !== 0 || isBlocked(cpu)) return false;
  if (w[ACTIVITY] === Activity.WaitForSipi) return false;
  w[NMI_PENDING] = 0;
  if (cpu.nonRoot && cpu.vmxPort.exitsOnNmi()) return true;
  takeEvent(cpu, EventType.Nmi, Vector.NMI);
  return true;
}

function takesInterrupt(cpu: Processor): boolean {
  const w = cpu.i32;
  if (isShut(cpu) || isBlocked(cpu) || !cpu.interrupts.requested()) return false;
  if (cpu.nonRoot && cpu.vmxPort.exitsOnExternalInterrupt()) return true;
  if (((w[RFLAGS_LOW] as number) & IF) === 0) return false;
  const vector = cpu.interrupts.acknowledge();
  // What is delivered then is what was posted (events.ts).
  if (isUserInterruptNotification(cpu, vector)) cpu.localApic.writeEoi();
  takeEvent(cpu, EventType.ExternalInterrupt, vector);
  return true;
}

function takesUserInterrupt(cpu: Processor): boolean {
  if (!isUserInterruptDue(cpu)) return false;
  if (!deliverUserInterrupt(cpu)) deliverFault(cpu);
  return true;
}

/** Shutdown and wait-for-SIPI: neither debug traps nor external interrupts end them. */
function isShut(cpu: Processor): boolean {
  return (cpu.i32[ACTIVITY] as number) >= Activity.Shutdown;
}

/** Blocking by STI and by MOV SS holds back interrupts and NMIs alike. */
function isBlocked(cpu: Processor): boolean {
  const w = cpu.i32;
  return ((w[BLOCKING_BY_STI] as number) | (w[BLOCKING_BY_MOV_SS] as number)) !== 0;
}

function takesInstructionBreakpoint(cpu: Processor): boolean {
  const w = cpu.i32;
  if (w[ACTIVITY] !== Activity.Active || waitsForStore(cpu) || !hasInstructionBreakpoints(cpu)) return false;
  const resumed = ((w[RFLAGS_LOW] as number) & RF) !== 0 || cpu.repeatedAt === cpu.executed;
  // MOV SS holds back instruction breakpoints too (SDM vol. 3A §7.8.3).
  if (resumed || w[BLOCKING_BY_MOV_SS] !== 0) return false;
  const met = instructionBreakpoints(cpu);
  if (met === 0) return false;
  raiseDebug(cpu, met);
  deliverFault(cpu);
  return true;
}

/** After an instruction, or an iteration of one, during which something asked for attention; `branched` if it is a branch taken. */
export function afterInstruction(cpu: Processor, branched: boolean): void {
  const w = cpu.i32;
  const before = w[BEFORE] as number;
  w[BEFORE] = 0;
  if (before & Before.BlockingBySti) w[BLOCKING_BY_STI] = 0;
  if (before & Before.BlockingByMovSs) w[BLOCKING_BY_MOV_SS] = 0;
  if (before & Before.ResumeFlag) w[RFLAGS_LOW] = (w[RFLAGS_LOW] as number) & ~RF;
  const stepsBranches = ((w[DEBUGCTL] as number) & BTF) !== 0;
  const met = w[BREAKPOINTS_MET] as number;
  w[BREAKPOINTS_MET] = 0;
  let pending = met === 0 ? 0 : met | ENABLED_BREAKPOINT;
  if (before & Before.SingleStep && (!stepsBranches || branched)) pending |= BS;
  if (pending !== 0) {
    w[PENDING_DEBUG] = (w[PENDING_DEBUG] as number) | pending;
    cpu.requestAttention(Attention.PendingDebug);
  }
  if (before !== 0 || pending !== 0) cpu.stateChanged();
}
