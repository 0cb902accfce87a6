/**
 * XSAVE, XSAVEOPT, XSAVEC, XSAVES, XRSTOR, XRSTORS (SDM vol. 1 §13.7 to §13.12) for x87 and SSE state, which
 * are at the same place in both formats, for PKRU, PASID, CET and user-interrupt state.
 * DEVIATION(supervisor-state): other supervisor state components are always saved as in their initial
 * configuration, and not restored.
 */

import { PKRU_COMPONENT, PKRU_OFFSET, standardBytes } from '../cpuid-leaves.ts';
import { raise, raiseWithCode, Vector } from '../exceptions.ts';
import {
  hasValidMxcsr,
  image,
  LEGACY_BYTES,
  loadImage,
  restoreMxcsr,
  restoreX87,
  restoreXmm,
  saveMxcsr,
  saveX87,
  saveXmm,
  storeImage,
  vectorRegisters,
  xmmEnd,
} from '../float-state-image.ts';
import { type Execute, type Instruction, Next } from '../instruction.ts';
import { Enabling, Intercept, intercepted, isEnabled } from '../intercept.ts';
import { probeStore } from '../memory-access.ts';
import { checkMsrWrite } from '../msrs.ts';
import type { OpcodeRow } from '../opcode-row.ts';
import { operandAddress } from '../operand-forms.ts';
import type { Processor } from '../processor.ts';
import { CR0, CR4, Register } from '../registers.ts';
import { Access } from '../tlb.ts';
import { recogniseUserInterrupts } from '../user-interrupts.ts';
import { INITIAL_FCW, initialise } from '../x87-state.ts';

const CR0_LOW = 2 * Register.CR0;
const CR4_LOW = 2 * Register.CR4;
const XCR0 = 2 * Register.XCR0;
const XSS = 2 * Register.IA32_XSS;
const RAX = 2 * Register.RAX;
const LINEAR = 2 * Register.linear;
const MXCSR = 2 * Register.MXCSR;
const XMM = 2 * Register.XMM0;
const { UIF } = Register;
/** UINV is IA32_UINTR_MISC[39:32]. */
const UINV = 2 * Register.IA32_UINTR_MISC + 1;
const FPR = 2 * Register['FPR0.significand'];
const INITIAL_MXCSR = 0x1f80;

/** State components. */
const X87 = 1;
const SSE = 2;
const PKRU = 1 << PKRU_COMPONENT;
const USER_INTERRUPTS = 1 << 14;
const UINTR_MISC = 0x988;
/** Components behind the header by number: bytes in the compacted format, and the registers of those held here. */
const EXTENDED = [
  { bit: 1 << 8, bytes: 128, slots: [], msrs: [] },
  { bit: PKRU, bytes: 8, slots: [Register.PKRU], msrs: [] },
  { bit: 1 << 10, bytes: 8, slots: [Register.IA32_PASID], msrs: [0xd93] },
  { bit: 1 << 11, bytes: 16, slots: [Register.IA32_U_CET, Register.IA32_PL3_SSP], msrs: [0x6a2, 0x6a7] },
  {
    bit: 1 << 12,
    bytes: 24,
    slots: [Register.IA32_PL0_SSP, Register.IA32_PL1_SSP, Register.IA32_PL2_SSP],
    msrs: [0x6a4, 0x6a5, 0x6a6],
  },
  {
    bit: USER_INTERRUPTS,
    bytes: 48,
    slots: [
      Register.IA32_UINTR_HANDLER,
      Register.IA32_UINTR_STACKADJUST,
      Register.IA32_UINTR_MISC,
      Register.IA32_UINTR_PD,
      Register.IA32_UINTR_RR,
      Register.IA32_UINTR_TT,
    ],
    msrs: [0x986, 0x987, UINTR_MISC, 0x989, 0x985, 0x98a],
  },
  { bit: 1 << 15, bytes: 808, slots: [], msrs: [] },
] as const;

const HEADER_BYTES = 64;
const AREA_BYTES = LEGACY_BYTES + HEADER_BYTES;
const At = { XSTATE_BV: LEGACY_BYTES, XCOMP_BV: LEGACY_BYTES + 8, RESERVED: LEGACY_BYTES + 16 } as const;
/** Bit 63 of XCOMP_BV, in its upper half. */
const COMPACTED = -0x8000_0000;

/** #UD without CR4.OSXSAVE; for XSAVES and XRSTORS also in non-root operation without their control. */
function isAvailable(cpu: Processor): boolean {
  return ((cpu.i32[CR4_LOW] as number) & (1 << CR4.OSXSAVE)) !== 0;
}

const xsaveAvailable: Execute = (cpu) => {
  if (!isAvailable(cpu)) return raise(cpu, Vector.UD);
  return (cpu.i32[CR0_LOW] as number) & (1 << CR0.TS) ? raise(cpu, Vector.NM) : Next.Sequential;
};

function supervisorAvailable(cause: Intercept): Execute {
  return (cpu, i) => {
    if (!isEnabled(cpu, Enabling.XSAVES) || !isAvailable(cpu)) return raise(cpu, Vector.UD);
    if (cpu.cpl !== 0) return raiseWithCode(cpu, Vector.GP, 0);
    if (intercepted(cpu, i, cause)) return Next.VmExit;
    return xsaveAvailable(cpu, i);
  };
}

/** Components that are asked for (EDX:EAX) and enabled: RFBM. None has a number above 31. */
function requested(cpu: Processor, enabled: number): number {
  return (cpu.i32[RAX] as number) & enabled;
}

/** Bytes of an area in the compacted format with `components`. */
function compactedBytes(components: number): number {
  return EXTENDED.reduce((sum, { bit, bytes }) => sum + (components & bit ? bytes : 0), AREA_BYTES);
}

const enabledByUser = (cpu: Processor): number => cpu.i32[XCR0] as number;
const enabledBySupervisor = (cpu: Processor): number => (cpu.i32[XCR0] as number) | (cpu.i32[XSS] as number);

/** Whether words `from` to `end` of the state are 0. */
function isZero(cpu: Processor, from: number, end: number): boolean {
  for (let n = from; n < end; n++) if (cpu.i32[n] !== 0) return false;
  return true;
}

/** What a supervisor component has of a register: UIF is bit 63 beside IA32_UINTR_MISC (SDM vol. 1 §13.5.11). */
function supervisorValue(cpu: Processor, slot: number): bigint {
  const value = cpu.quads[slot] as bigint;
  return slot === Register.IA32_UINTR_MISC ? value | ((cpu.quads[UIF] as bigint) << 63n) : value;
}

function setSupervisorValue(cpu: Processor, slot: number, value: bigint): void {
  const isMisc = slot === Register.IA32_UINTR_MISC;
  if (isMisc) cpu.quads[UIF] = value >> 63n;
  cpu.quads[slot] = isMisc ? BigInt.asUintN(63, value) : value;
}

/** XINUSE: components that are not in their initial configuration. MXCSR does not count. */
function inUse(cpu: Processor): number {
  const w = cpu.i32;
  const control = w[2 * Register.FCW] === INITIAL_FCW && w[2 * Register.FSW] === 0;
  const empty = w[2 * Register.FTW] === 0xffff && isZero(cpu, 2 * Register.FOP, 2 * Register.FOP + 6);
  const x87 = control && empty && isZero(cpu, FPR, FPR + 32) ? 0 : X87;
  const sse = isZero(cpu, XMM, XMM + 4 * vectorRegisters(cpu)) ? 0 : SSE;
  return EXTENDED.reduce(
    (used, { bit, slots }) => (slots.some((slot) => supervisorValue(cpu, slot) !== 0n) ? used | bit : used),
    x87 | sse,
  );
}

/** The address of the area, which has to be aligned to 64 bytes. */
function areaAddress(cpu: Processor, i: Instruction, access: Access, bytes: number = AREA_BYTES): boolean {
  if (!operandAddress(cpu, i, bytes, access)) return false;
  if (((cpu.i32[LINEAR] as number) & 63) === 0) return true;
  raiseWithCode(cpu, Vector.GP, 0);
  return false;
}

/** Stores `components`, and MXCSR if `mxcsr`. */
function storeComponents(cpu: Processor, i: Instruction, components: number, mxcsr: boolean): void {
  saveX87(cpu, i.operandBits === 64);
  saveMxcsr(cpu);
  saveXmm(cpu);
  if (components & X87) {
    storeImage(cpu, 0, 24);
    storeImage(cpu, 32, 160);
  }
  if (mxcsr) storeImage(cpu, 24, 32);
  if (components & SSE) storeImage(cpu, 160, xmmEnd(cpu));
}

/** XSAVE and XSAVEOPT, which leaves out components in their initial configuration. */
function standard(optimises: boolean): Execute {
  return (cpu, i) => {
    const rfbm = requested(cpu, enabledByUser(cpu));
    const bytes = standardBytes(rfbm);
    if (!areaAddress(cpu, i, Access.Write, bytes) || !probeStore(cpu, bytes)) return Next.Fault;
    if (!loadImage(cpu, At.XSTATE_BV, At.XSTATE_BV + 8)) return Next.Fault;
    const used = inUse(cpu);
    const before = image.getInt32(At.XSTATE_BV, true);
    image.setInt32(At.XSTATE_BV, (before & ~rfbm) | (rfbm & used), true);
    const stored = optimises ? rfbm & used : rfbm;
    storeComponents(cpu, i, stored, (rfbm & SSE) !== 0);
    if (stored & PKRU) {
      image.setBigUint64(PKRU_OFFSET, cpu.quads[Register.PKRU] as bigint, true);
      storeImage(cpu, PKRU_OFFSET, PKRU_OFFSET + 8);
    }
    storeImage(cpu, At.XSTATE_BV, At.XSTATE_BV + 8);
    return Next.Sequential;
  };
}

/** XSAVEC and XSAVES. */
function compacted(enabled: (cpu: Processor) => number): Execute {
  return (cpu, i) => {
    const rfbm = requested(cpu, enabled(cpu));
    const bytes = compactedBytes(rfbm);
    if (!areaAddress(cpu, i, Access.Write, bytes) || !probeStore(cpu, bytes)) return Next.Fault;
    // MXCSR counts here.
    const used = inUse(cpu) | (cpu.i32[MXCSR] === INITIAL_MXCSR ? 0 : SSE);
    const saved = rfbm & used;
    image.setInt32(At.XSTATE_BV, saved, true);
    image.setInt32(At.XSTATE_BV + 4, 0, true);
    image.setInt32(At.XCOMP_BV, rfbm, true);
    image.setInt32(At.XCOMP_BV + 4, COMPACTED, true);
    storeComponents(cpu, i, saved, (saved & SSE) !== 0);
    storeImage(cpu, At.XSTATE_BV, At.XSTATE_BV + 16);
    storeExtended(cpu, rfbm, saved);
    return Next.Sequential;
  };
}

/** Stores the components `saved` behind the header where an area with `components` has them. */
function storeExtended(cpu: Processor, components: number, saved: number): void {
  let at = AREA_BYTES;
  for (const { bit, bytes, slots } of EXTENDED) {
    slots.forEach((slot, n) => {
      image.setBigUint64(at + 8 * n, supervisorValue(cpu, slot), true);
    });
    if (saved & bit) storeImage(cpu, at, at + bytes);
    if (components & bit) at += bytes;
  }
  // Nothing is a notification while the state is in memory.
  if (components & USER_INTERRUPTS) cpu.i32[UINV] = 0;
}

/** What data accesses may do depends on PKRU. */
function setPkru(cpu: Processor, value: number): void {
  cpu.quads[Register.PKRU] = BigInt(value);
  cpu.tlb.leaveView();
}

/** Takes from the image, or initialises, the components behind the header of `rfbm`. */
function restoreExtended(cpu: Processor, rfbm: number, present: number): void {
  const components = image.getInt32(At.XCOMP_BV, true);
  let at = AREA_BYTES;
  for (const { bit, bytes, slots } of EXTENDED) {
    slots.forEach((slot, n) => {
      if (slot === Register.PKRU) {
        if (rfbm & bit) setPkru(cpu, present & bit ? image.getUint32(at, true) : 0);
      } else if (present & bit) setSupervisorValue(cpu, slot, image.getBigUint64(at + 8 * n, true));
      else if (rfbm & bit) setSupervisorValue(cpu, slot, 0n);
    });
    if (components & bit) at += bytes;
  }
  if (rfbm & USER_INTERRUPTS) recogniseUserInterrupts(cpu);
}

/** Whether the values that would be restored are ones that WRMSR takes; user-interrupt state only while UINV is 0. */
function hasValidSupervisor(cpu: Processor, present: number): boolean {
  const components = image.getInt32(At.XCOMP_BV, true);
  if (present & USER_INTERRUPTS && ((cpu.i32[UINV] as number) & 0xff) !== 0) return false;
  let at = AREA_BYTES;
  for (const { bit, bytes, msrs } of EXTENDED) {
    for (let n = 0; n < msrs.length && present & bit; n++) {
      const index = msrs[n] as number;
      const stored = image.getBigUint64(at + 8 * n, true);
      const value = index === UINTR_MISC ? BigInt.asUintN(63, stored) : stored;
      if (value !== 0n && checkMsrWrite(cpu, index, value) !== 'ok') return false;
    }
    if (components & bit) at += bytes;
  }
  return true;
}

/** Whether the header is one of the standard format. */
function isStandardHeader(enabled: number): boolean {
  if (((image.getInt32(At.XSTATE_BV, true) & ~enabled) | image.getInt32(At.XSTATE_BV + 4, true)) !== 0)
    return false;
  return isZeroImage(At.XCOMP_BV, At.XCOMP_BV + 16);
}

/** Whether the header is one of the compacted format. */
function isCompactedHeader(enabled: number): boolean {
  const components = image.getInt32(At.XCOMP_BV, true);
  if ((components & ~enabled) !== 0 || image.getInt32(At.XCOMP_BV + 4, true) !== COMPACTED) return false;
  const present = image.getInt32(At.XSTATE_BV, true);
  if ((present & ~components) !== 0 || image.getInt32(At.XSTATE_BV + 4, true) !== 0) return false;
  return isZeroImage(At.RESERVED, AREA_BYTES);
}

function isZeroImage(from: number, end: number): boolean {
  for (let at = from; at < end; at += 4) if (image.getInt32(at, true) !== 0) return false;
  return true;
}

function initialiseX87(cpu: Processor): void {
  initialise(cpu);
  cpu.i32.fill(0, FPR, FPR + 32);
}

/** XRSTOR, and XRSTORS, which takes the compacted format alone. */
function restore(enabled: (cpu: Processor) => number, compactedOnly: boolean): Execute {
  return (cpu, i) => {
    if (!areaAddress(cpu, i, Access.Read) || !loadImage(cpu, 0, AREA_BYTES)) return Next.Fault;
    const isCompacted = image.getInt32(At.XCOMP_BV + 4, true) < 0 && cpu.features.xsavec;
    const valid = isCompacted ? isCompactedHeader(enabled(cpu)) : isStandardHeader(enabled(cpu));
    if (!valid || (compactedOnly && !isCompacted)) return raiseWithCode(cpu, Vector.GP, 0);
    const rfbm = requested(cpu, enabled(cpu));
    const present = image.getInt32(At.XSTATE_BV, true) & rfbm;
    if (isCompacted) {
      const bytes = compactedBytes(image.getInt32(At.XCOMP_BV, true));
      if (!areaAddress(cpu, i, Access.Read, bytes) || !loadImage(cpu, AREA_BYTES, bytes)) return Next.Fault;
      if (!hasValidSupervisor(cpu, present)) return raiseWithCode(cpu, Vector.GP, 0);
    } else if (present & PKRU) {
      const bytes = standardBytes(PKRU);
      if (!areaAddress(cpu, i, Access.Read, bytes) || !loadImage(cpu, PKRU_OFFSET, bytes)) return Next.Fault;
    }
    // The standard format has MXCSR whether or not it has the XMM registers.
    const hasMxcsr = ((isCompacted ? present : rfbm) & SSE) !== 0;
    if (hasMxcsr && !hasValidMxcsr()) return raiseWithCode(cpu, Vector.GP, 0);
    if (isCompacted) restoreExtended(cpu, rfbm, present);
    else if (rfbm & PKRU) setPkru(cpu, present & PKRU ? image.getUint32(PKRU_OFFSET, true) : 0);
    if (present & X87) restoreX87(cpu, i.operandBits === 64);
    else if (rfbm & X87) initialiseX87(cpu);
    if (hasMxcsr) restoreMxcsr(cpu);
    else if (rfbm & SSE) cpu.i32[MXCSR] = INITIAL_MXCSR;
    if (present & SSE) restoreXmm(cpu);
    else if (rfbm & SSE) cpu.i32.fill(0, XMM, XMM + 4 * vectorRegisters(cpu));
    return Next.Sequential;
  };
}

const row = (opcode: string, mnemonic: string, execute: Execute, guard: Execute): OpcodeRow => ({
  opcode: `NP 0F ${opcode} mod!=3`,
  mnemonic,
  operands: 'M',
  execute,
  guard,
});

export const XSAVE_ROWS: readonly OpcodeRow[] = [
  { ...row('AE /4', 'XSAVE', standard(false), xsaveAvailable), feature: (f) => f.xsave },
  { ...row('AE /5', 'XRSTOR', restore(enabledByUser, false), xsaveAvailable), feature: (f) => f.xsave },
  { ...row('AE /6', 'XSAVEOPT', standard(true), xsaveAvailable), feature: (f) => f.xsaveopt },
  { ...row('C7 /4', 'XSAVEC', compacted(enabledByUser), xsaveAvailable), feature: (f) => f.xsavec },
  {
    ...row('C7 /3', 'XRSTORS', restore(enabledBySupervisor, true), supervisorAvailable(Intercept.XRSTORS)),
    feature: (f) => f.xsaves,
  },
  {
    ...row('C7 /5', 'XSAVES', compacted(enabledBySupervisor), supervisorAvailable(Intercept.XSAVES)),
    feature: (f) => f.xsaves,
  },
];
