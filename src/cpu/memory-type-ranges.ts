/**
 * Memory-type range registers (SDM vol. 3A §13.11): ten variable and eleven fixed ranges, no SMRR. They
 * can be read and written as the manual says; memory types change nothing that software can see here.
 */
import { mask } from '../bits/u64.ts';
import type { CpuidFeatures } from './cpuid.ts';
import { type MsrRow, msr } from './msr-row.ts';
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
