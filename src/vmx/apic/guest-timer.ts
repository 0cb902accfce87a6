/** The guest timer of "APIC-timer virtualization" (SDM §28.5.10, §28.3): IA32_TSC_DEADLINE of the guest. */
import { Attention } from '../../cpu/attention.ts';
import { Register } from '../../cpu/registers.ts';
import { Field } from '../../vmcs/fields.ts';
import type { ProcessorCopy } from '../../vmcs/processor-copy.ts';
import { saveQuad } from '../copy-writes.ts';
import { controlRef, isOn } from '../effective-controls.ts';
import { guestTsc, physicalDelay } from '../intercepts/guest-time.ts';
import type { VmxProcessor } from '../vmx-state.ts';
import { evaluatePending, requestVector } from './virtual-interrupts.ts';

const APIC_TIMER = controlRef('proc3.apicTimerVirtualization');
const TSC = Register.IA32_TIME_STAMP_COUNTER;
const SHADOW = Field.guestDeadlineShadow;

export const IA32_TSC_DEADLINE = 0x6e0;

/** What RDMSR of IA32_TSC_DEADLINE gives, or undefined without the control. */
export function readDeadline(p: VmxProcessor, copy: ProcessorCopy): bigint | undefined {
  return isOn(copy, p.capabilities, APIC_TIMER) ? copy.quads[SHADOW] : undefined;
}

/** WRMSR of IA32_TSC_DEADLINE: false without the control. `value` is in ticks of the guest's TSC. */
export function writeDeadline(p: VmxProcessor, copy: ProcessorCopy, value: bigint): boolean {
  if (!isOn(copy, p.capabilities, APIC_TIMER)) return false;
  setShadow(p, copy, value);
  p.cpu.requestAttention(Attention.Vmx);
  const now = p.cpu.quads[TSC] as bigint;
  const virtual = guestTsc(copy, p.capabilities, now);
  if (value !== 0n && value <= virtual) guestTimerEvent(p, copy);
  else p.vmx.guestDeadline = value === 0n ? undefined : deadlineAfter(p, copy, now, value - virtual);
  return true;
}

/** The TSC when `delay` ticks of the guest's have passed; a deadline beyond 64 bits never comes. */
function deadlineAfter(p: VmxProcessor, copy: ProcessorCopy, now: bigint, delay: bigint): bigint {
  const deadline = now + physicalDelay(copy, p.capabilities, delay);
  return deadline >> 64n === 0n ? deadline : 0xffff_ffff_ffff_ffffn;
}

/** Ticks of the TSC until a guest-timer event is pending; Infinity if the timer is not armed. */
export function ticksToGuestTimer(p: VmxProcessor): number {
  const { guestDeadline } = p.vmx;
  if (guestDeadline === undefined) return Infinity;
  return isGuestTimerDue(p) ? 0 : Number(guestDeadline - (p.cpu.quads[TSC] as bigint));
}

/** A guest-timer event is pending. */
export function isGuestTimerDue(p: VmxProcessor): boolean {
  const { guestDeadline } = p.vmx;
  return guestDeadline !== undefined && guestDeadline <= (p.cpu.quads[TSC] as bigint);
}

/** Processing of a guest-timer event. */
export function guestTimerEvent(p: VmxProcessor, copy: ProcessorCopy): void {
  requestVector(p, copy, (copy.words[2 * Field.virtualTimerVector] as number) & 0xff);
  evaluatePending(p, copy);
  p.vmx.guestDeadline = undefined;
  setShadow(p, copy, 0n);
}

function setShadow(p: VmxProcessor, copy: ProcessorCopy, value: bigint): void {
  saveQuad(copy, SHADOW, value);
  p.active.fieldChanged(copy, SHADOW);
}
