/**
 * The VMX-preemption timer (SDM §28.5.1, §29.7.4): it counts down at every change of bit X of the
 * time-stamp counter, X being IA32_VMX_MISC[4:0]. It is kept as its value at one moment and the TSC then.
 */
import { Register } from '../../cpu/registers.ts';
import type { VmxProcessor } from '../vmx-state.ts';

const TSC = Register.IA32_TIME_STAMP_COUNTER;

const rateOf = (p: VmxProcessor): bigint => p.capabilities.misc & 0x1fn;

/** Value of the timer now; undefined if it does not run. */
export function timerValue(p: VmxProcessor): number | undefined {
  const timer = p.vmx.preemptionTimer;
  if (timer === undefined) return undefined;
  const rate = rateOf(p);
  const now = (p.cpu.quads[TSC] as bigint) >> rate;
  const elapsed = BigInt.asUintN(64 - Number(rate), now - (timer.tsc >> rate));
  const value = BigInt(timer.value);
  return elapsed >= value ? 0 : Number(value - elapsed);
}

/** Ticks of the TSC until the timer is 0; Infinity if it does not run. */
export function ticksToExpiry(p: VmxProcessor): number {
  const value = timerValue(p);
  if (value === undefined) return Infinity;
  if (value === 0) return 0;
  const rate = Number(rateOf(p));
  const phase = Number(BigInt.asUintN(rate, p.cpu.quads[TSC] as bigint));
  return value * 2 ** rate - phase;
}

/** Software writes the TSC: only its increments count for the timer. */
export function rebaseTimer(p: VmxProcessor, tsc: bigint): void {
  const value = timerValue(p);
  if (value !== undefined) p.vmx.preemptionTimer = { value, tsc };
}
