/**
 * VM exits that VT-x itself has at an instruction boundary (SDM §28.2, §28.5.1, §28.5.2, §29.7.4–§29.7.8):
 * monitor trap flag, VMX-preemption timer, NMI window and interrupt window. Each says when it is due; their
 * order is that of cpu/boundary.ts.
 */
import { Attention } from '../../cpu/attention.ts';
import { endWait } from '../../cpu/monitored-line.ts';
import { Register, RFLAGS } from '../../cpu/registers.ts';
import type { ProcessorCopy } from '../../vmcs/processor-copy.ts';
import { guestTimerEvent, isGuestTimerDue, ticksToGuestTimer } from '../apic/guest-timer.ts';
import { controlRef, controlSet, controlsOf, type EffectiveControls } from '../effective-controls.ts';
import { ExitReason } from '../exit/exit-reasons.ts';
import type { ExitRequest } from '../exit/exit-request.ts';
import { Operation, type VmxProcessor } from '../vmx-state.ts';
import { ticksToExpiry, timerValue } from './preemption-timer.ts';

const MONITOR_TRAP_FLAG = controlRef('proc.monitorTrapFlag');
const INTERRUPT_WINDOW = controlRef('proc.interruptWindowExiting');
const NMI_WINDOW = controlRef('proc.nmiWindowExiting');

/** Controls under which something may happen at an instruction boundary that nothing announces. */
const ASKING = controlSet(
  'pin.activateVmxPreemptionTimer',
  'pin.processPostedInterrupts',
  'proc.interruptWindowExiting',
  'proc.nmiWindowExiting',
  'proc.monitorTrapFlag',
  'proc.useTprShadow',
  'proc2.virtualizeApicAccesses',
  'proc2.virtualInterruptDelivery',
  'proc2.instructionTimeout',
  'proc2.vmmBusLockDetection',
  'proc3.apicTimerVirtualization',
);

const RFLAGS_LOW = 2 * Register.RFLAGS;
const IF = 1 << RFLAGS.IF;
const ACTIVITY = 2 * Register.activityState;
const STI = 2 * Register.blockingBySti;
const MOV_SS = 2 * Register.blockingByMovSs;
const SHUTDOWN = 2;
const WAIT_FOR_SIPI = 3;
// A constant to the compiler, which an imported binding is not (bench: "VMRESUME + exit").
const NON_ROOT = Operation.NonRoot;

const requestOf = (reason: ExitReason): ExitRequest => Object.freeze({ reason });
const MTF_EXIT = requestOf(ExitReason.MonitorTrapFlag);
const TIMER_EXIT = requestOf(ExitReason.VmxPreemptionTimerExpired);
const NMI_WINDOW_EXIT = requestOf(ExitReason.NmiWindow);
const INTERRUPT_WINDOW_EXIT = requestOf(ExitReason.InterruptWindow);

function controls(p: VmxProcessor): EffectiveControls {
  return controlsOf(p.active.resident(p.vmx.current as ProcessorCopy), p.capabilities);
}

const activity = (p: VmxProcessor) => p.cpu.words[ACTIVITY] as number;
const isBlocked = ({ cpu: { words } }: VmxProcessor) =>
  ((words[STI] as number) | (words[MOV_SS] as number)) !== 0;

/** A pending MTF VM exit; it does not happen in shutdown or wait-for-SIPI. */
export function monitorTrapExit(p: VmxProcessor): ExitRequest | undefined {
  return p.vmx.mtfPending && activity(p) < SHUTDOWN ? MTF_EXIT : undefined;
}

/** Something happens now after which, with "monitor trap flag", an MTF VM exit is pending (SDM §28.5.2). */
export function armMonitorTrap(p: VmxProcessor): void {
  if (p.vmx.mtfPending || !controls(p).isOn(MONITOR_TRAP_FLAG)) return;
  p.vmx.mtfPending = true;
  p.cpu.requestAttention(Attention.Vmx);
}

/** The VMX-preemption timer has expired. */
export function timerExit(p: VmxProcessor): ExitRequest | undefined {
  if (p.vmx.preemptionTimer === undefined || activity(p) === WAIT_FOR_SIPI) return undefined;
  return timerValue(p) === 0 ? TIMER_EXIT : undefined;
}

/** "NMI-window exiting": virtual NMIs are not blocked, nor is anything by STI or MOV SS. */
export function nmiWindowExit(p: VmxProcessor): ExitRequest | undefined {
  if (p.vmx.virtualNmiBlocking || isBlocked(p) || activity(p) === WAIT_FOR_SIPI) return undefined;
  return controls(p).isOn(NMI_WINDOW) ? NMI_WINDOW_EXIT : undefined;
}

/** "Interrupt-window exiting": RFLAGS.IF is 1 and nothing is blocked by STI or MOV SS. */
export function interruptWindowExit(p: VmxProcessor): ExitRequest | undefined {
  const interruptible = ((p.cpu.words[RFLAGS_LOW] as number) & IF) !== 0 && !isBlocked(p);
  if (!interruptible || activity(p) >= SHUTDOWN) return undefined;
  return controls(p).isOn(INTERRUPT_WINDOW) ? INTERRUPT_WINDOW_EXIT : undefined;
}

/** Whether VT-x may have events at any boundary of the guest that was entered (`portAsks` of the processor). */
export function asksAtBoundaries({ vmx }: VmxProcessor, controls: EffectiveControls): boolean {
  return vmx.mtfPending || vmx.injectedEvent !== undefined || controls.isAnyOn(ASKING);
}

/** A guest-timer event is processed (SDM §28.5.10); it causes no exit. DEVIATION(guest-timer-priority) */
export function processGuestTimer(p: VmxProcessor): void {
  if (activity(p) >= SHUTDOWN || !isGuestTimerDue(p)) return;
  guestTimerEvent(p, p.active.resident(p.vmx.current as ProcessorCopy));
  // It goes back to HLT, but not to MWAIT.
  endWait(p.cpu);
}

/** What shutdown holds back is not waited for. */
const ticks = (p: VmxProcessor) =>
  Math.min(ticksToExpiry(p), activity(p) >= SHUTDOWN ? Infinity : ticksToGuestTimer(p));

/** Tells the processor when it has to ask for what happens at a time of the TSC. */
export function updateDeadline(p: VmxProcessor): void {
  const { cpu, vmx } = p;
  const nothingRuns = vmx.preemptionTimer === undefined && vmx.guestDeadline === undefined;
  cpu.portDeadline = nothingRuns || vmx.operation !== NON_ROOT ? Infinity : cpu.executed + ticks(p);
}
