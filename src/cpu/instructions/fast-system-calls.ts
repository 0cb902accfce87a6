/** Fast system calls (SDM vol. 2B: SYSCALL, SYSRET, SYSENTER, SYSEXIT): flat segments without descriptors. */
import { isCanonicalPair } from '../addressing.ts';
import { awaitEndbranch } from '../cet/branch-tracking.ts';
import { Enforcement } from '../cet/enforcement.ts';
import { userShadowStackPointer } from '../cet/shadow-stack-transfer.ts';
import { inIa32eMode, setRip } from '../code-target.ts';
import { EventType, SystemCall } from '../event.ts';
import { deliverSoftware } from '../events.ts';
import { raise, raiseWithCode, Vector } from '../exceptions.ts';
import { materialise } from '../flags.ts';
import { usesFred } from '../fred/fred-transitions.ts';
import { type Execute, type Instruction, Next, Segment } from '../instruction.ts';
import { cancelSingleStep } from '../instruction-start.ts';
import { Mode } from '../mode.ts';
import type { OpcodeRow } from '../opcode-row.ts';
import type { Processor } from '../processor.ts';
import { EFER, Register, RFLAGS } from '../registers.ts';
import { writeFlags } from '../rflags.ts';
import { setFlatSegment } from '../segment-load.ts';

const RIP = 2 * Register.RIP;
const RSP = 2 * Register.RSP;
const RCX = 2 * Register.RCX;
const RDX = 2 * Register.RDX;
const R11 = 2 * Register.R11;
const EFER_LOW = 2 * Register.IA32_EFER;
const STAR_HIGH = 2 * Register.IA32_STAR + 1;
const LSTAR = 2 * Register.IA32_LSTAR;
const FMASK = 2 * Register.IA32_FMASK;
const SYSENTER_CS = 2 * Register.IA32_SYSENTER_CS;
const SYSENTER_ESP = 2 * Register.IA32_SYSENTER_ESP;
const SYSENTER_EIP = 2 * Register.IA32_SYSENTER_EIP;

/** Access rights of the segments, without DPL: 64-bit code, 32-bit code, data. */
const CODE_64 = 0xa09b;
const CODE_32 = 0xc09b;
const DATA = 0xc093;
const USER = 3 << 5;
/** RFLAGS that SYSRET loads. */
const SYSRET_FLAGS = 0x3c_7fd7;
const VM = 1 << RFLAGS.VM;
const TF = 1 << RFLAGS.TF;
const IF = 1 << RFLAGS.IF;
const ALL_FLAGS = ~2;

/** CS and SS for CPL 0 or 3; RPL of the selectors is the CPL. */
function setSegments(cpu: Processor, cs: number, ss: number, code: number, cpl: 0 | 3): void {
  const dpl = cpl === 3 ? USER : 0;
  setFlatSegment(cpu, Segment.CS, (cs & ~3) | cpl, code | dpl);
  setFlatSegment(cpu, Segment.SS, (ss & ~3) | cpl, DATA | dpl);
}

/** To CPL 0, where SSP is 0 until software sets it (SETSSBSY), and the first instruction has to be an ENDBRANCH. */
function enterSupervisor(cpu: Processor, cs: number, code: number): void {
  const { quads } = cpu;
  if (hasShadowStack(cpu)) quads[Register.IA32_PL3_SSP] = userShadowStackPointer(cpu);
  setSegments(cpu, cs, cs + 8, code, 0);
  if (hasShadowStack(cpu)) quads[Register.SSP] = 0n;
  awaitEndbranch(cpu);
}

/** To CPL 3, with the shadow stack of IA32_PL3_SSP. */
function enterUser(cpu: Processor, cs: number, ss: number, code: number): void {
  const { quads } = cpu;
  setSegments(cpu, cs, ss, code, 3);
  if (hasShadowStack(cpu)) quads[Register.SSP] = quads[Register.IA32_PL3_SSP] as bigint;
}

function hasShadowStack(cpu: Processor): boolean {
  return (cpu.enforcement & Enforcement.ShadowStack) !== 0;
}

/** SYSCALL and SYSRET are undefined outside 64-bit mode and without IA32_EFER.SCE. */
function isDefined(cpu: Processor): boolean {
  return cpu.mode === Mode.Bit64 && ((cpu.i32[EFER_LOW] as number) & (1 << EFER.SCE)) !== 0;
}

const syscall: Execute = (cpu, i) => {
  if (!isDefined(cpu)) return raise(cpu, Vector.UD);
  if (usesFred(cpu)) return deliverSoftware(cpu, i, EventType.Other, SystemCall.SYSCALL);
  const w = cpu.i32;
  const flags = materialise(cpu);
  w[RCX] = w[RIP] as number;
  w[RCX + 1] = w[RIP + 1] as number;
  w[R11] = flags;
  w[R11 + 1] = 0;
  const cs = (w[STAR_HIGH] as number) & 0xfffc;
  setRip(cpu, w[LSTAR] as number, w[LSTAR + 1] as number);
  writeFlags(cpu, ALL_FLAGS, flags & ~(w[FMASK] as number));
  if (((w[FMASK] as number) & TF) !== 0) cancelSingleStep(cpu);
  enterSupervisor(cpu, cs, CODE_64);
  return Next.Lookup;
};

const sysret: Execute = (cpu, i) => {
  if (!isDefined(cpu) || usesFred(cpu)) return raise(cpu, Vector.UD);
  const w = cpu.i32;
  const wide = i.operandBits === 64;
  const high = wide ? (w[RCX + 1] as number) : 0;
  if (cpu.cpl !== 0 || !isCanonicalPair(cpu, high)) return raiseWithCode(cpu, Vector.GP, 0);
  const star = (w[STAR_HIGH] as number) >>> 16;
  setRip(cpu, w[RCX] as number, high);
  writeFlags(cpu, ALL_FLAGS, (w[R11] as number) & SYSRET_FLAGS);
  enterUser(cpu, wide ? star + 16 : star, star + 8, wide ? CODE_64 : CODE_32);
  return Next.Lookup;
};

const sysenter: Execute = (cpu, i) => {
  if (usesFred(cpu)) return deliverSoftware(cpu, i, EventType.Other, SystemCall.SYSENTER);
  const w = cpu.i32;
  const cs = (w[SYSENTER_CS] as number) & 0xfffc;
  if (cpu.mode === Mode.Real || cs === 0) return raiseWithCode(cpu, Vector.GP, 0);
  const long = inIa32eMode(cpu);
  writeFlags(cpu, VM | IF, 0);
  w[RSP] = w[SYSENTER_ESP] as number;
  w[RSP + 1] = long ? (w[SYSENTER_ESP + 1] as number) : 0;
  setRip(cpu, w[SYSENTER_EIP] as number, long ? (w[SYSENTER_EIP + 1] as number) : 0);
  enterSupervisor(cpu, cs, long ? CODE_64 : CODE_32);
  return Next.Lookup;
};

const sysexit: Execute = (cpu: Processor, i: Instruction) => {
  if (usesFred(cpu)) return raise(cpu, Vector.UD);
  const w = cpu.i32;
  const cs = w[SYSENTER_CS] as number;
  if (cpu.mode === Mode.Real || (cs & 0xfffc) === 0 || cpu.cpl !== 0) return raiseWithCode(cpu, Vector.GP, 0);
  const wide = i.operandBits === 64;
  const canonical = isCanonicalPair(cpu, w[RCX + 1] as number) && isCanonicalPair(cpu, w[RDX + 1] as number);
  if (wide && !canonical) return raiseWithCode(cpu, Vector.GP, 0);
  w[RSP] = w[RCX] as number;
  w[RSP + 1] = wide ? (w[RCX + 1] as number) : 0;
  setRip(cpu, w[RDX] as number, wide ? (w[RDX + 1] as number) : 0);
  if (wide) enterUser(cpu, cs + 32, cs + 40, CODE_64);
  else enterUser(cpu, cs + 16, cs + 24, CODE_32);
  return Next.Lookup;
};

export const FAST_SYSTEM_CALL_ROWS: readonly OpcodeRow[] = [
  { opcode: '0F 05', mnemonic: 'SYSCALL', operands: '', execute: syscall, ends: true },
  { opcode: '0F 07', mnemonic: 'SYSRET', operands: '', execute: sysret, ends: true },
  { opcode: '0F 34', mnemonic: 'SYSENTER', operands: '', execute: sysenter, ends: true },
  { opcode: '0F 35', mnemonic: 'SYSEXIT', operands: '', execute: sysexit, ends: true },
];
