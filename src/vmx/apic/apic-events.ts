/**
 * What virtual APICs do at an instruction boundary (SDM §29.7.5, §29.7.7, §32.2.2, §32.4.3.2, §32.6): what
 * comes before all other events, delivery of a virtual interrupt, and external interrupts that are
 * notifications.
 */
import { endWait } from '../../cpu/monitored-line.ts';
import { Register, RFLAGS } from '../../cpu/registers.ts';
import { isUserInterruptNotification } from '../../cpu/user-interrupts.ts';
import type { ProcessorCopy } from '../../vmcs/processor-copy.ts';
import { controlRef, isOn } from '../effective-controls.ts';
import { ExitReason } from '../exit/exit-reasons.ts';
import type { ExitRequest } from '../exit/exit-request.ts';
import { NO_APIC_WRITE, type VmxProcessor } from '../vmx-state.ts';
import { emulateApicWrite } from './apic-writes.ts';
import { isNotification, processPosted } from './posted-interrupts.ts';
import { acknowledgeVirtualInterrupt, endService } from './virtual-interrupts.ts';

const PROCESS_POSTED = controlRef('pin.processPostedInterrupts');
const ACTIVITY = 2 * Register.activityState;
const BLOCKING_BY_STI = 2 * Register.blockingBySti;
const BLOCKING_BY_MOV_SS = 2 * Register.blockingByMovSs;
const RFLAGS_LOW = 2 * Register.RFLAGS;
const IF = 1 << RFLAGS.IF;
const SHUTDOWN = 2;

const BELOW_THRESHOLD: ExitRequest = Object.freeze({ reason: ExitReason.TprBelowThreshold });

const copyOf = (p: VmxProcessor): ProcessorCopy => p.active.resident(p.vmx.current as ProcessorCopy);
const isShut = (p: VmxProcessor) => (p.cpu.words[ACTIVITY] as number) >= SHUTDOWN;

/** Emulates the APIC write of the last operation; the exit of that or of VM entry with VTPR below the threshold. */
export function apicExitBeforeEvents(p: VmxProcessor): ExitRequest | undefined {
  const { vmx } = p;
  if (vmx.apicWrite !== NO_APIC_WRITE) {
    const request = emulateApicWrite(p, copyOf(p));
    if (request !== undefined) return request;
  }
  return vmx.tprBelowThreshold && !isShut(p) ? BELOW_THRESHOLD : undefined;
}

/** The vector of the virtual interrupt that is due now, which is acknowledged; −1 if none is. */
export function takeVirtualInterrupt(p: VmxProcessor): number {
  if (!p.vmx.virtualInterruptPending || isShut(p)) return -1;
  const { words } = p.cpu;
  const blocked = (words[BLOCKING_BY_STI] as number) | (words[BLOCKING_BY_MOV_SS] as number);
  if (blocked !== 0 || ((words[RFLAGS_LOW] as number) & IF) === 0) return -1;
  const copy = copyOf(p);
  const vector = acknowledgeVirtualInterrupt(p, copy);
  // A notification is dismissed; no EOI-induced exit follows (SDM §32.2.3).
  if (isUserInterruptNotification(p.cpu, vector)) endService(p, copy, vector);
  return vector;
}

/**
 * The external interrupt `vector`, which was acknowledged: true if it is a notification, and what was
 * posted has been processed.
 */
export function processesNotification(p: VmxProcessor, copy: ProcessorCopy, vector: number): boolean {
  if (!isOn(copy, p.capabilities, PROCESS_POSTED) || !isNotification(copy, vector)) return false;
  processPosted(p, copy);
  // It goes back to HLT, but not to MWAIT.
  endWait(p.cpu);
  return true;
}
