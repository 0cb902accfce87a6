/**
 * Linear-address masking and linear-address-space separation (SDM vol. 3A chapter 5; LAM and LASS in
 * CPUID.07H.1:EAX). In 64-bit mode masking replaces metadata in the upper bits of data addresses by
 * copies of the highest bit that translation uses. Separation keeps user mode out of the half of the
 * address space that has bit 63 at 1, and supervisor mode out of the other.
 */
import type { Processor } from './processor.ts';
import { CR4, EFER, Register } from './registers.ts';
import { Access, AccessClass, USER_ACCESSES } from './tlb.ts';

const CR3_HIGH = 2 * Register.CR3 + 1;
const CR4_LOW = 2 * Register.CR4;
const EFER_LOW = 2 * Register.IA32_EFER;
const LASS = 1 << CR4.LASS;
const LAM_SUP = 1 << CR4.LAM_SUP;
const SMAP = 1 << CR4.SMAP;
const LA57 = 1 << CR4.LA57;
const LMA = 1 << EFER.LMA;
/** CR3.LAM_U57 and CR3.LAM_U48 in the upper half. */
const LAM_U57 = 1 << 29;
const LAM_U48 = 1 << 30;

/** What holds for data accesses; 0 if nothing does besides the canonical form. */
const AddressRule = {
  /** Addresses with bit 63 at 0, or at 1, are not for this class of access. */
  NoLower: 1,
  NoUpper: 2,
  MaskUser48: 4,
  MaskUser57: 8,
  MaskSupervisor48: 16,
  MaskSupervisor57: 32,
} as const;
const { NoLower, NoUpper, MaskUser48, MaskUser57, MaskSupervisor48, MaskSupervisor57 } = AddressRule;

/** Whether user and supervisor addresses are separated. */
export function separatesAddresses(cpu: Processor): boolean {
  const w = cpu.i32;
  return ((w[CR4_LOW] as number) & LASS) !== 0 && ((w[EFER_LOW] as number) & LMA) !== 0;
}

/** Accesses to the half of the address space that `hi` is in which separation denies, by class. */
export function separatedAccesses(cpu: Processor, hi: number): number {
  const { Read, Write, Fetch } = Access;
  if (hi < 0) return USER_ACCESSES;
  const data = ((cpu.i32[CR4_LOW] as number) & SMAP) !== 0 ? Read | Write : 0;
  return (
    ((data | Fetch) << AccessClass.Supervisor) |
    (Fetch << AccessClass.SupervisorWithAc) |
    (data << AccessClass.SupervisorShadowStack)
  );
}

/** The rules for data accesses of a class. */
export function addressRules(cpu: Processor, as: AccessClass): number {
  const w = cpu.i32;
  const cr4 = w[CR4_LOW] as number;
  const lam = w[CR3_HIGH] as number;
  if (((cr4 & (LASS | LAM_SUP)) | (lam & (LAM_U57 | LAM_U48))) === 0) return 0;
  if (((w[EFER_LOW] as number) & LMA) === 0) return 0;
  let rules = 0;
  if ((cr4 & LASS) !== 0) {
    if (as === AccessClass.User || as === AccessClass.UserShadowStack) rules |= NoUpper;
    else if (as !== AccessClass.SupervisorWithAc && (cr4 & SMAP) !== 0) rules |= NoLower;
  }
  if ((lam & LAM_U57) !== 0) rules |= MaskUser57;
  else if ((lam & LAM_U48) !== 0) rules |= MaskUser48;
  if ((cr4 & LAM_SUP) !== 0) rules |= (cr4 & LA57) !== 0 ? MaskSupervisor57 : MaskSupervisor48;
  return rules;
}

/** Whether `rules` let an access go to the half of the address space that `hi` is in. */
export function isInReach(hi: number, rules: number): boolean {
  return (rules & (hi < 0 ? NoUpper : NoLower)) === 0;
}

/** Bits 63:32 of an address without metadata: bit 63 stays, and those below repeat bit 47 or 56. */
export function masked(hi: number, rules: number): number {
  if ((rules & (hi < 0 ? MaskSupervisor48 : MaskUser48)) !== 0) {
    return (hi & ~0x7fff_0000) | ((hi & 0x8000) !== 0 ? 0x7fff_0000 : 0);
  }
  if ((rules & (hi < 0 ? MaskSupervisor57 : MaskUser57)) !== 0) {
    return (hi & ~0x7e00_0000) | ((hi & 0x100_0000) !== 0 ? 0x7e00_0000 : 0);
  }
  return hi;
}
