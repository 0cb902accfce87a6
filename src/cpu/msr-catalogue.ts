/**
 * The MSRs of the model: number, register slot, existence, and what WRMSR accepts (SDM vol. 4 and
 * the sections named in each row). The reserved-bit rules here are also those of the VM-entry checks.
 */
import { isCanonical } from '../bits/address.ts';
import { mask } from '../bits/u64.ts';
import type { CpuidFeatures } from './cpuid.ts';
import { MEMORY_TYPE_RANGE_MSRS } from './memory-type-ranges.ts';
import { type MsrAccess, type MsrRow, msr, type RowOptions } from './msr-row.ts';
import { PERFORMANCE_COUNTER_MSRS } from './performance-counters.ts';
import { EFER } from './registers.ts';

export type { MsrAccess, MsrRow };

const HIGH_32 = mask(63, 32);
const none = (...bits: number[]) => bits.reduce((m, b) => m & ~(1n << BigInt(b)), mask(63, 0));

/** Each byte of IA32_PAT is a memory type: 0, 1, 4, 5, 6 or 7 (SDM vol. 3A §13.12.2). */
export function isPatValid(value: bigint): boolean {
  for (let i = 0n; i < 64n; i += 8n) {
    const type = Number((value >> i) & 0xffn);
    if (type > 7 || type === 2 || type === 3) return false;
  }
  return true;
}

/** Reserved bits of IA32_EFER. */
export function eferReserved(features: CpuidFeatures): bigint {
  const defined = features.intel64 ? [EFER.SCE, EFER.LME, EFER.LMA] : [];
  return none(...defined, ...(features.executeDisable ? [EFER.NXE] : []));
}

/** Reserved bits of IA32_DEBUGCTL (SDM vol. 3B §19.4.1). */
export function debugctlReserved(features: CpuidFeatures): bigint {
  const defined = [...(features.busLockDetection ? [2] : []), ...(features.rtm ? [15] : [])];
  return none(...defined) & ~BigInt(features.debugctlBits);
}

/** Reserved bits of IA32_S_CET and IA32_U_CET (SDM vol. 1 §17.2). */
export function cetReserved(features: CpuidFeatures): bigint {
  let defined = 0n;
  if (features.cetShadowStack) defined |= 0b11n;
  if (features.cetIndirectBranchTracking) defined |= mask(63, 12) | mask(11, 10) | mask(5, 2);
  return mask(63, 0) & ~defined;
}

/** SUPPRESS (bit 10) and TRACKER (bit 11) may not both be 1. */
export function cetTrackerConsistent(value: bigint): boolean {
  return (value & 0xc00n) !== 0xc00n;
}

/** Reserved bits of IA32_BNDCFGS: 11:2. */
export const BNDCFGS_RESERVED = mask(11, 2);

/** Reserved bits of IA32_RTIT_CTL (SDM vol. 3C §36.2.7.2). */
export const RTIT_CTL_RESERVED = mask(63, 57) | mask(54, 48) | mask(30, 28) | mask(23, 23) | mask(18, 18);

/** Reserved bits of IA32_LBR_CTL (SDM vol. 3B §20.1.2): all but 3:0 and 22:16. */
export const LBR_CTL_RESERVED = mask(63, 23) | mask(15, 4);

/** Reserved bits of IA32_FRED_CONFIG (SDM vol. 3A §8.2). */
export const FRED_CONFIG_RESERVED = (1n << 2n) | mask(5, 4) | (1n << 11n);

/** Reserved bits of IA32_XSS (SDM vol. 1 §13.3): state components of features that are not here. */
export function xssReserved(features: CpuidFeatures): bigint {
  return none(
    ...(features.intelPt ? [8] : []),
    ...(features.enqcmd ? [10] : []),
    ...(features.cetShadowStack || features.cetIndirectBranchTracking ? [11, 12] : []),
    ...(features.userInterrupts ? [14] : []),
    ...(features.architecturalLbrs ? [15] : []),
  );
}

/** Reserved bits of IA32_SPEC_CTRL. */
export function specCtrlReserved(features: CpuidFeatures): bigint {
  return mask(63, 0) & ~BigInt(features.specCtrlBits >>> 0);
}

const cet = (f: CpuidFeatures) => f.cetShadowStack || f.cetIndirectBranchTracking;
const shadowStack = (f: CpuidFeatures) => f.cetShadowStack;
const userInterrupts = (f: CpuidFeatures) => f.userInterrupts;
const fred = (f: CpuidFeatures) => f.fred;
const intel64 = (f: CpuidFeatures) => f.intel64;
const cetRules: RowOptions = {
  exists: cet,
  reserved: cetReserved,
  canonical: true,
  accepts: cetTrackerConsistent,
};

/** MSRs with storage of their own. Capability and feature-control MSRs are answered by VT-x. */
export const MSRS: readonly MsrRow[] = [
  msr(0x10, 'IA32_TIME_STAMP_COUNTER'),
  msr(0x17, 'IA32_PLATFORM_ID', { readOnly: true }),
  msr(0x1b, 'IA32_APIC_BASE', {
    reserved: (f) => mask(7, 0) | (1n << 9n) | (f.x2apic ? 0n : 1n << 10n) | mask(63, f.physicalAddressBits),
  }),
  // Always 0: it stands for a barrier in lists of MSRs.
  msr(0x2f, 'IA32_BARRIER', { exists: (f) => f.msrList, readOnly: true }),
  msr(0x48, 'IA32_SPEC_CTRL', { exists: (f) => f.specCtrlBits !== 0, reserved: specCtrlReserved }),
  // No microcode update is loaded: it keeps what is written.
  msr(0x8b, 'IA32_BIOS_SIGN_ID'),
  msr(0xe1, 'IA32_UMWAIT_CONTROL', { exists: (f) => f.userWaitAndPause, reserved: HIGH_32 | 2n }),
  msr(0x174, 'IA32_SYSENTER_CS', { ignored: HIGH_32 }),
  msr(0x175, 'IA32_SYSENTER_ESP', { canonical: true }),
  msr(0x176, 'IA32_SYSENTER_EIP', { canonical: true }),
  msr(0x1a0, 'IA32_MISC_ENABLE', { reserved: none(0, 3, 7, 11, 12, 16, 18, 22, 23, 34, 38) }),
  msr(0x1d9, 'IA32_DEBUGCTL', { reserved: debugctlReserved }),
  ...MEMORY_TYPE_RANGE_MSRS,
  msr(0x277, 'IA32_PAT', { accepts: isPatValid }),
  ...PERFORMANCE_COUNTER_MSRS,
  msr(0x570, 'IA32_RTIT_CTL', { exists: (f) => f.intelPt, reserved: RTIT_CTL_RESERVED }),
  msr(0x6a0, 'IA32_U_CET', cetRules),
  msr(0x6a2, 'IA32_S_CET', cetRules),
  msr(0x6a4, 'IA32_PL0_SSP', { exists: shadowStack, reserved: mask(1, 0), canonical: true }),
  msr(0x6a5, 'IA32_PL1_SSP', { exists: shadowStack, reserved: mask(1, 0), canonical: true }),
  msr(0x6a6, 'IA32_PL2_SSP', { exists: shadowStack, reserved: mask(1, 0), canonical: true }),
  msr(0x6a7, 'IA32_PL3_SSP', { exists: shadowStack, reserved: mask(1, 0), canonical: true }),
  msr(0x6a8, 'IA32_INTERRUPT_SSP_TABLE_ADDR', {
    exists: (f) => f.cetShadowStack && f.intel64,
    canonical: true,
  }),
  msr(0x6e0, 'IA32_TSC_DEADLINE', { exists: (f) => f.tscDeadline }),
  msr(0x6e1, 'IA32_PKRS', { exists: (f) => f.supervisorProtectionKeys, reserved: HIGH_32 }),
  msr(0x982, 'IA32_TME_ACTIVATE', { exists: (f) => f.totalMemoryEncryption }),
  msr(0x985, 'IA32_UINTR_RR', { exists: userInterrupts }),
  msr(0x986, 'IA32_UINTR_HANDLER', { exists: userInterrupts, canonical: true }),
  msr(0x987, 'IA32_UINTR_STACKADJUST', { exists: userInterrupts, reserved: mask(2, 1), canonical: true }),
  msr(0x988, 'IA32_UINTR_MISC', { exists: userInterrupts, reserved: mask(63, 40) }),
  msr(0x989, 'IA32_UINTR_PD', { exists: userInterrupts, reserved: mask(5, 0), canonical: true }),
  msr(0x98a, 'IA32_UINTR_TT', { exists: userInterrupts, reserved: mask(3, 1), canonical: true }),
  msr(0xd90, 'IA32_BNDCFGS', { exists: (f) => f.mpx, reserved: BNDCFGS_RESERVED, canonical: true }),
  msr(0xd93, 'IA32_PASID', { exists: (f) => f.enqcmd, reserved: HIGH_32 | mask(30, 20) }),
  msr(0xda0, 'IA32_XSS', { exists: (f) => f.xsaves, reserved: xssReserved }),
  msr(0x14ce, 'IA32_LBR_CTL', { exists: (f) => f.architecturalLbrs, reserved: LBR_CTL_RESERVED }),
  msr(0x1cc, 'IA32_FRED_RSP0', { exists: fred, reserved: mask(5, 0), canonical: true }),
  msr(0x1cd, 'IA32_FRED_RSP1', { exists: fred, reserved: mask(5, 0), canonical: true }),
  msr(0x1ce, 'IA32_FRED_RSP2', { exists: fred, reserved: mask(5, 0), canonical: true }),
  msr(0x1cf, 'IA32_FRED_RSP3', { exists: fred, reserved: mask(5, 0), canonical: true }),
  msr(0x1d0, 'IA32_FRED_STKLVLS', { exists: fred }),
  msr(0x1d1, 'IA32_FRED_SSP1', { exists: fred, reserved: mask(2, 0), canonical: true }),
  msr(0x1d2, 'IA32_FRED_SSP2', { exists: fred, reserved: mask(2, 0), canonical: true }),
  msr(0x1d3, 'IA32_FRED_SSP3', { exists: fred, reserved: mask(2, 0), canonical: true }),
  msr(0x1d4, 'IA32_FRED_CONFIG', { exists: fred, reserved: FRED_CONFIG_RESERVED, canonical: true }),
  msr(0xc000_0080, 'IA32_EFER', { exists: (f) => f.intel64 || f.executeDisable, reserved: eferReserved }),
  msr(0xc000_0081, 'IA32_STAR', { exists: intel64 }),
  msr(0xc000_0082, 'IA32_LSTAR', { exists: intel64, canonical: true }),
  msr(0xc000_0083, 'IA32_CSTAR', { exists: intel64, canonical: true }),
  msr(0xc000_0084, 'IA32_FMASK', { exists: intel64, ignored: HIGH_32 }),
  msr(0xc000_0100, 'FS.base', { exists: intel64, canonical: true }),
  msr(0xc000_0101, 'GS.base', { exists: intel64, canonical: true }),
  msr(0xc000_0102, 'IA32_KERNEL_GS_BASE', { exists: intel64, canonical: true }),
  msr(0xc000_0103, 'IA32_TSC_AUX', { exists: (f) => f.tscAux, reserved: HIGH_32 }),
];

const byIndex = new Map(MSRS.map((row) => [row.index, row]));

/** The row of an MSR, whether or not a given processor has it. */
export function msrRow(index: number): MsrRow | undefined {
  return byIndex.get(index);
}

/** Whether `value` may be written to the MSR of `row`, which must exist. */
export function checkMsrValue(row: MsrRow, value: bigint, features: CpuidFeatures): MsrAccess {
  if (row.readOnly) return 'read-only';
  if ((value & row.reserved(features)) !== 0n) return 'reserved-bit';
  if (row.canonical && !isCanonical(value, features.linearAddressBits)) return 'not-canonical';
  return row.accepts?.(value, features) === false ? 'bad-value' : 'ok';
}
