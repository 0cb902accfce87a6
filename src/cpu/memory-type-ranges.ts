/**
 * Memory-type range registers (SDM vol. 3A §14.11): ten variable and eleven fixed ranges, no SMRR. Memory
 * types change nothing that software can see here; which one a physical address has can be asked.
 */
import { bit, mask } from '../bits/u64.ts';
import type { CpuidFeatures } from './cpuid.ts';
import { type MsrRow, msr } from './msr-row.ts';
import type { Processor } from './processor.ts';
import { FIXED_RANGES, VARIABLE_RANGES } from './registers.ts';

/** IA32_MTRRCAP: ten variable ranges, fixed ranges, write combining. */
export const MTRR_CAPABILITIES = 0x50an;
const FIRST_BASE = 0x200;

/** UC, WC, WT, WP, WB. */
function isMemoryType(type: bigint): boolean {
  return type <= 6n && type !== 2n && type !== 3n;
}

const isLowByteType = (value: bigint) => isMemoryType(value & 0xffn);

function areBytesTypes(value: bigint): boolean {
  for (let rest = value, n = 0; n < 8; n++, rest >>= 8n) if (!isLowByteType(rest)) return false;
  return true;
}

const beyond = (features: CpuidFeatures) => mask(63, features.physicalAddressBits);

export const MEMORY_TYPE_RANGE_MSRS: readonly MsrRow[] = [
  msr(0xfe, 'IA32_MTRRCAP', { readOnly: true }),
  ...VARIABLE_RANGES.flatMap((n) => [
    msr(FIRST_BASE + 2 * n, `IA32_MTRR_PHYSBASE${n}`, {
      reserved: (f) => beyond(f) | mask(11, 8),
      accepts: isLowByteType,
    }),
    msr(FIRST_BASE + 2 * n + 1, `IA32_MTRR_PHYSMASK${n}`, { reserved: (f) => beyond(f) | mask(10, 0) }),
  ]),
  ...(Object.entries(FIXED_RANGES) as [keyof typeof FIXED_RANGES, number][]).map(([name, index]) =>
    msr(index, name, { accepts: areBytesTypes }),
  ),
  msr(0x2ff, 'IA32_MTRR_DEF_TYPE', { reserved: mask(63, 12) | mask(9, 8), accepts: isLowByteType }),
];

/** Of IA32_MTRR_DEF_TYPE: MTRRs, and fixed ranges, are enabled. Of IA32_MTRR_PHYSMASKn: the range is valid. */
const ENABLED = 11;
const FIXED_ENABLED = 10;
const VALID = 11;
const UNCACHEABLE = 0;
const WRITE_THROUGH = 4;
const WRITE_BACK = 6;
const ADDRESS = mask(51, 12);

/** The type that the ranges give a physical address (SDM vol. 3A §14.11.4.1), as MSRs encode it. */
export function rangeType(cpu: Processor, physical: number): number {
  const defaults = cpu.read('IA32_MTRR_DEF_TYPE');
  if (!bit(defaults, ENABLED)) return UNCACHEABLE;
  if (physical < 0x10_0000 && bit(defaults, FIXED_ENABLED)) return fixedRangeType(cpu, physical);
  let type: number | undefined;
  for (const n of VARIABLE_RANGES) {
    const physMask = cpu.read(`IA32_MTRR_PHYSMASK${n}`);
    const base = cpu.read(`IA32_MTRR_PHYSBASE${n}`);
    if (!bit(physMask, VALID) || ((BigInt(physical) ^ base) & physMask & ADDRESS) !== 0n) continue;
    const own = Number(base & 0xffn);
    type = type === undefined ? own : overlapping(type, own);
  }
  return type ?? Number(defaults & 0xffn);
}

/** UC wins, and WT over WB; of other overlaps the manual leaves the type undefined. */
function overlapping(a: number, b: number): number {
  if (a === b) return a;
  const types = [a, b];
  return types.includes(WRITE_THROUGH) && types.includes(WRITE_BACK) ? WRITE_THROUGH : UNCACHEABLE;
}

/** Of the first MByte: 8 ranges of 64 KBytes, 16 of 16 KBytes, 64 of 4 KBytes. */
function fixedRangeType(cpu: Processor, physical: number): number {
  const shift = physical < 0x8_0000 ? 16 : physical < 0xc_0000 ? 14 : 12;
  const first = physical - (physical % (8 << shift));
  const name = `IA32_MTRR_FIX${2 ** (shift - 10)}K_${first.toString(16).toUpperCase().padStart(5, '0')}`;
  const types = cpu.read(name as keyof typeof FIXED_RANGES);
  return Number((types >> BigInt(8 * ((physical >> shift) & 7))) & 0xffn);
}
