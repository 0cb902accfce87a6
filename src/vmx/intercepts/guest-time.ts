/**
 * Time as the guest sees it: TSC offsetting and scaling (SDM §27.6.5, §28.3), and the loops of PAUSE
 * that PAUSE-loop exiting looks for (§27.6.13, §28.1.3).
 */
import { Field } from '../../vmcs/fields.ts';
import type { ProcessorCopy } from '../../vmcs/processor-copy.ts';
import type { VmxCapabilities } from '../capabilities/capabilities.ts';
import { controlRef, isOn } from '../effective-controls.ts';

const OFFSETTING = controlRef('proc.useTscOffsetting');
const SCALING = controlRef('proc2.useTscScaling');
/** The multiplier is a fixed-point number with 48 fraction bits. */
const FRACTION_BITS = 48n;

/** The time-stamp counter as RDTSC, RDTSCP and RDMSR report it. */
export function guestTsc(copy: ProcessorCopy, capabilities: VmxCapabilities, tsc: bigint): bigint {
  if (!isOn(copy, capabilities, OFFSETTING)) return tsc;
  const offset = copy.quads[Field.tscOffset] as bigint;
  if (!isOn(copy, capabilities, SCALING)) return BigInt.asUintN(64, tsc + offset);
  const multiplier = copy.quads[Field.tscMultiplier] as bigint;
  return BigInt.asUintN(64, ((tsc * multiplier) >> FRACTION_BITS) + offset);
}

/** The physical delay of TPAUSE and UMWAIT for a virtual delay (SDM §28.3). */
export function physicalDelay(copy: ProcessorCopy, capabilities: VmxCapabilities, delay: bigint): bigint {
  const scales = isOn(copy, capabilities, OFFSETTING) && isOn(copy, capabilities, SCALING);
  return scales ? (delay << FRACTION_BITS) / (copy.quads[Field.tscMultiplier] as bigint) : delay;
}

/** A loop of PAUSEs at CPL 0: when its first and its last one were executed; −1 before the first after VM entry. */
export interface PauseLoop {
  firstPause: number;
  lastPause: number;
}

/** A PAUSE at CPL 0 at `now` (ticks of the TSC): whether it exits, because its loop lasts longer than the window. */
export function pauseLoopExits(copy: ProcessorCopy, loop: PauseLoop, now: number): boolean {
  const gap = copy.words[2 * Field.pleGap] as number;
  const window = copy.words[2 * Field.pleWindow] as number;
  const starts = loop.lastPause < 0 || now - loop.lastPause > gap;
  if (starts) loop.firstPause = now;
  loop.lastPause = now;
  return !starts && now - loop.firstPause > window;
}
