/**
 * General-purpose performance counters (SDM vol. 3B §21.2): architectural performance monitoring,
 * version 2, with counters of 48 bits. Software reads and programs them; CPUID says of each
 * architectural event that it is not available, and nothing counts.
 */
import { mask } from '../bits/u64.ts';
import type { CpuidFeatures } from './cpuid.ts';
import { type MsrRow, msr } from './msr-row.ts';
import { COUNTERS, Register } from './registers.ts';

const VERSION = 2;
const WIDTH = 48;
/** Architectural events that CPUID has a bit for: unhalted cycles to mispredicted branches. */
const EVENTS = 7;
/** ECX[30] of RDPMC: a fixed counter. */
const FIXED_COUNTERS = 0x4000_0000;
const FIRST_COUNTER = 0xc1;
const FIRST_EVENT_SELECT = 0x186;
/** OvfBuf and CondChgd of IA32_PERF_GLOBAL_STATUS and IA32_PERF_GLOBAL_OVF_CTRL. */
const OVERFLOW_FLAGS = mask(63, 62);
/** AnyThread, which version 3 brought. */
const ANY_THREAD = 1n << 21n;

/** Reserved bits of IA32_PERF_GLOBAL_CTRL (SDM vol. 3B §21.2.2). */
export function perfGlobalCtrlReserved(features: CpuidFeatures): bigint {
  const general = (1n << BigInt(features.generalPurposeCounters)) - 1n;
  const fixed = ((1n << BigInt(features.fixedCounters)) - 1n) << 32n;
  const metrics = features.performanceMetrics ? 1n << 48n : 0n;
  return mask(63, 0) & ~(general | fixed | metrics);
}

const hasCounters = (features: CpuidFeatures) => features.generalPurposeCounters !== 0;

/** Bits 31:0 are written, and bit 31 goes to the bits above it. */
const counterValue = (value: bigint) => BigInt.asUintN(WIDTH, BigInt.asIntN(32, value));

export const PERFORMANCE_COUNTER_MSRS: readonly MsrRow[] = [
  ...COUNTERS.flatMap((n) => {
    const exists = (f: CpuidFeatures) => f.generalPurposeCounters > n;
    return [
      msr(FIRST_COUNTER + n, `IA32_PMC${n}`, { exists, stores: counterValue }),
      msr(FIRST_EVENT_SELECT + n, `IA32_PERFEVTSEL${n}`, { exists, reserved: mask(63, 32) | ANY_THREAD }),
    ];
  }),
  msr(0x38e, 'IA32_PERF_GLOBAL_STATUS', { exists: hasCounters, readOnly: true }),
  msr(0x38f, 'IA32_PERF_GLOBAL_CTRL', { exists: hasCounters, reserved: perfGlobalCtrlReserved }),
  // Nothing overflows: there is nothing to clear, and it reads 0.
  msr(0x390, 'IA32_PERF_GLOBAL_OVF_CTRL', {
    exists: hasCounters,
    reserved: (f) => perfGlobalCtrlReserved(f) & ~OVERFLOW_FLAGS,
    stores: () => 0n,
  }),
];

/** CPUID leaf 0AH. */
export function performanceLeaf(features: CpuidFeatures): readonly [number, number, number, number] {
  const { generalPurposeCounters: counters, fixedCounters } = features;
  if (counters === 0) return [0, 0, 0, 0];
  const fixed = fixedCounters === 0 ? 0 : fixedCounters | (WIDTH << 5);
  const general = VERSION | (counters << 8) | (WIDTH << 16) | (EVENTS << 24);
  return [general, (1 << EVENTS) - 1, 0, fixed];
}

/** What RDPMC reads with `index` in ECX, or undefined if there is no such counter. */
export function readCounter(
  quads: BigUint64Array,
  features: CpuidFeatures,
  index: number,
): bigint | undefined {
  const fixed = index - FIXED_COUNTERS;
  if (fixed >= 0) return fixed < features.fixedCounters ? 0n : undefined;
  return index < features.generalPurposeCounters ? quads[Register.IA32_PMC0 + 2 * index] : undefined;
}
