/**
 * Control-flow enforcement (CET; SDM vol. 1 chapter 17): whether shadow stacks and indirect-branch
 * tracking are enabled for the code that executes, derived from CR4.CET, the mode, and IA32_U_CET at
 * CPL 3 or IA32_S_CET below.
 */
import { Mode } from '../mode.ts';
import type { Processor } from '../processor.ts';
import { CR4, Register } from '../registers.ts';

const CR4_LOW = 2 * Register.CR4;
const CET = 1 << CR4.CET;
const U_CET = 2 * Register.IA32_U_CET;
const S_CET = 2 * Register.IA32_S_CET;

/** Bits of IA32_U_CET and IA32_S_CET; bits 63:12 are the base of the legacy code page bitmap. */
export const CetBit = {
  SH_STK_EN: 1 << 0,
  WR_SHSTK_EN: 1 << 1,
  ENDBR_EN: 1 << 2,
  LEG_IW_EN: 1 << 3,
  NO_TRACK_EN: 1 << 4,
  SUPPRESS_DIS: 1 << 5,
  SUPPRESS: 1 << 10,
  TRACKER: 1 << 11,
} as const;

/** Bits of `Processor.enforcement`. */
export const Enforcement = {
  ShadowStack: 1,
  /** Indirect-branch tracking is enabled … */
  Endbranch: 2,
  /** … and not suppressed. */
  Tracking: 4,
  /** The next instruction has to be an ENDBRANCH. */
  Waiting: 8,
} as const;

/** Error codes of #CP (SDM vol. 3A §7.15). */
export const ControlProtection = {
  NearRet: 1,
  FarRetOrIret: 2,
  Endbranch: 3,
  Rstorssp: 4,
  Setssbsy: 5,
} as const;

/** Word of the MSR, low half, that controls enforcement at `cpl`. */
export function controlsAt(cpl: number): number {
  return cpl === 3 ? U_CET : S_CET;
}

/** Bits of the MSR that controls enforcement at `cpl` in protected mode; 0 without CR4.CET. */
export function cetControls(cpu: Processor, cpl: number): number {
  return ((cpu.i32[CR4_LOW] as number) & CET) === 0 ? 0 : (cpu.i32[controlsAt(cpl)] as number);
}

/** Whether protected-mode code of `cpl` has a shadow stack. */
export function hasShadowStack(cpu: Processor, cpl: number): boolean {
  return (cetControls(cpu, cpl) & CetBit.SH_STK_EN) !== 0;
}

/** What is enforced now, bits {@link Enforcement}: nothing in real-address and virtual-8086 mode. */
export function enforcementOf(cpu: Processor): number {
  if (cpu.mode === Mode.Real || cpu.mode === Mode.Virtual8086) return 0;
  const controls = cetControls(cpu, cpu.cpl);
  const stack = (controls & CetBit.SH_STK_EN) !== 0 ? Enforcement.ShadowStack : 0;
  if ((controls & CetBit.ENDBR_EN) === 0) return stack;
  return (
    stack |
    Enforcement.Endbranch |
    ((controls & CetBit.SUPPRESS) === 0 ? Enforcement.Tracking : 0) |
    ((controls & CetBit.TRACKER) !== 0 ? Enforcement.Waiting : 0)
  );
}
