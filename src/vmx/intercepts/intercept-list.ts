/**
 * Which instructions exit from non-root operation, and what their exits say (SDM §28.1.2, §28.1.3,
 * §30.2): one row a cause. No condition means unconditionally. The processor asks after the faults of
 * higher priority (§28.1.1).
 */
import type { Instruction } from '../../cpu/instruction.ts';
import { Intercept } from '../../cpu/intercept.ts';
import { Register } from '../../cpu/registers.ts';
import { Field } from '../../vmcs/fields.ts';
import type { ProcessorCopy } from '../../vmcs/processor-copy.ts';
import { type ControlRef, controlRef, isOn } from '../effective-controls.ts';
import { ExitReason } from '../exit/exit-reasons.ts';
import { ControlRegisterAccess } from '../exit/qualifications.ts';
import type { VmxProcessor } from '../vmx-state.ts';
import { ioBitmapExits, msrBitmapExits } from './bitmaps.ts';
import { cltsExits, isCr3Target, lmswExits, writeExits } from './control-registers.ts';
import { pauseLoopExits } from './guest-time.ts';
import * as information from './instruction-information.ts';
import { NO_PASID, translatePasid } from './pasid-translation.ts';

/** One execution of an instruction in non-root operation. */
interface Execution {
  readonly p: VmxProcessor;
  readonly copy: ProcessorCopy;
  readonly i: Instruction;
  /** Operands as {@link Intercept} says. */
  readonly a: number;
  readonly b: number;
}

export interface InterceptRow {
  readonly reason: ExitReason;
  /** Whether it exits; always if left out. */
  readonly when?: (e: Execution) => boolean;
  /** Exit qualification; 0 if left out. */
  readonly qualification?: (e: Execution) => bigint;
  /** Instruction information, where the reason defines it. */
  readonly information?: (e: Execution) => number;
  /** MSR data, where the reason defines it. */
  readonly msrData?: (e: Execution) => bigint;
  /** Guest-linear address: that in the slot `linear`. */
  readonly linearAddress?: true;
}

const isControlOn = (e: Execution, control: ControlRef) => isOn(e.copy, e.p.capabilities, control);

/** A control that makes its instruction exit. */
function control(id: Parameters<typeof controlRef>[0]): (e: Execution) => boolean {
  const ref = controlRef(id);
  return (e) => isControlOn(e, ref);
}

const linear = (e: Execution) => e.p.cpu.quads[Register.linear] as bigint;
const displacement = (e: Execution) => information.displacement(e.p.cpu, e.i);

/** Exit qualification of control-register accesses (Table 30-3). */
function controlRegister(register: number, access: number, general: number, rest = 0): bigint {
  return BigInt((register | (access << 4) | (general << 8) | rest) >>> 0);
}

const CR3_LOAD = controlRef('proc.cr3LoadExiting');
const CR3_STORE = controlRef('proc.cr3StoreExiting');
const CR8_LOAD = controlRef('proc.cr8LoadExiting');
const CR8_STORE = controlRef('proc.cr8StoreExiting');

function source(e: Execution): bigint {
  const value = e.p.cpu.quads[e.i.s >> 3] as bigint;
  return e.p.cpu.codeBits === 64 ? value : BigInt.asUintN(32, value);
}

function movToCrExits(e: Execution): boolean {
  switch (e.a) {
    case 0:
      return writeExits(e.copy, 'CR0', source(e));
    case 3:
      return isControlOn(e, CR3_LOAD) && !isCr3Target(e.copy, source(e));
    case 4:
      return writeExits(e.copy, 'CR4', source(e));
    default:
      return e.a === 8 && isControlOn(e, CR8_LOAD);
  }
}

function movFromCrExits(e: Execution): boolean {
  return (e.a === 3 && isControlOn(e, CR3_STORE)) || (e.a === 8 && isControlOn(e, CR8_STORE));
}

const IO_BITMAPS = controlRef('proc.useIoBitmaps');
const UNCONDITIONAL_IO = controlRef('proc.unconditionalIoExiting');

function ioExits(e: Execution): boolean {
  return isControlOn(e, IO_BITMAPS)
    ? ioBitmapExits(e.copy, e.p.cpu.memory, e.a, e.b)
    : isControlOn(e, UNCONDITIONAL_IO);
}

const isString = (i: Instruction) => i.row.mnemonic.startsWith('INS') || i.row.mnemonic.startsWith('OUTS');

/** Exit qualification of I/O instructions (Table 30-5). */
function io(e: Execution): bigint {
  const { i } = e;
  const input = i.row.mnemonic.startsWith('IN') ? 1 << 3 : 0;
  const string = isString(i) ? 1 << 4 : 0;
  const rep = i.repeat !== 0 ? 1 << 5 : 0;
  const immediate = i.row.operands.includes('Ib') ? 1 << 6 : 0;
  return BigInt(((e.b - 1) | input | string | rep | immediate | (e.a << 16)) >>> 0);
}

const MSR_BITMAPS = controlRef('proc.useMsrBitmaps');

function msrExits(isWrite: boolean): (e: Execution) => boolean {
  return (e) => !isControlOn(e, MSR_BITMAPS) || msrBitmapExits(e.copy, e.p.cpu.memory, e.a, isWrite);
}

/** With MSR bitmaps lists exit at the MSR concerned, otherwise before anything of them is looked at. */
function msrListExits(isWrite: boolean): (e: Execution) => boolean {
  return (e) =>
    !isControlOn(e, MSR_BITMAPS) || (e.b === 1 && msrBitmapExits(e.copy, e.p.cpu.memory, e.a, isWrite));
}

const listedMsr = (e: Execution) => BigInt(e.a);

const PASID_TRANSLATION = controlRef('proc2.pasidTranslation');

function pasidExits(e: Execution): boolean {
  return isControlOn(e, PASID_TRANSLATION) && translatePasid(e.p, e.copy, e.a & 0xf_ffff) === NO_PASID;
}

const PAUSE = controlRef('proc.pauseExiting');
const PAUSE_LOOP = controlRef('proc2.pauseLoopExiting');

function pauseExits(e: Execution): boolean {
  if (isControlOn(e, PAUSE)) return true;
  const { cpu } = e.p;
  return (
    cpu.cpl === 0 && isControlOn(e, PAUSE_LOOP) && pauseLoopExits(e.copy, e.p.vmx, cpu.executed + cpu.waited)
  );
}

const XSS_BITMAP = Field.xssExitingBitmap;

/** Whether XSAVES or XRSTORS is asked for a component that the host wants to see. */
function xssExits(e: Execution): boolean {
  const { quads } = e.p.cpu;
  const low = BigInt.asUintN(32, quads[Register.RAX] as bigint);
  const requested = (BigInt.asUintN(32, quads[Register.RDX] as bigint) << 32n) | low;
  return (requested & (quads[Register.IA32_XSS] as bigint) & (e.copy.quads[XSS_BITMAP] as bigint)) !== 0n;
}

const rdtscExiting = control('proc.rdtscExiting');
const wbinvdExiting = control('proc2.wbinvdExiting');
const descriptorTableExiting = control('proc2.descriptorTableExiting');
const operandInformation = (e: Execution) => information.memoryOperand(e.i);
const { MovTo, MovFrom, Clts, Lmsw } = ControlRegisterAccess;

/** By {@link Intercept}. */
export const INTERCEPTS: Readonly<Record<Intercept, InterceptRow>> = {
  [Intercept.CPUID]: { reason: ExitReason.Cpuid },
  [Intercept.GETSEC]: { reason: ExitReason.Getsec },
  [Intercept.INVD]: { reason: ExitReason.Invd },
  [Intercept.XSETBV]: { reason: ExitReason.Xsetbv },
  [Intercept.CLTS]: {
    reason: ExitReason.ControlRegisterAccess,
    when: (e) => cltsExits(e.copy),
    qualification: () => controlRegister(0, Clts, 0),
  },
  [Intercept.HLT]: { reason: ExitReason.Hlt, when: control('proc.hltExiting') },
  [Intercept.IO]: {
    reason: ExitReason.IoInstruction,
    when: ioExits,
    qualification: io,
    information: (e) => information.stringIo(e.i),
    linearAddress: true,
  },
  [Intercept.INVLPG]: {
    reason: ExitReason.Invlpg,
    when: control('proc.invlpgExiting'),
    qualification: linear,
  },
  [Intercept.INVPCID]: {
    reason: ExitReason.Invpcid,
    when: control('proc.invlpgExiting'),
    qualification: displacement,
    information: (e) => information.invalidation(e.i),
  },
  [Intercept.GDTR_IDTR]: {
    reason: ExitReason.GdtrOrIdtrAccess,
    when: descriptorTableExiting,
    qualification: displacement,
    information: (e) => information.gdtrIdtr(e.p.cpu, e.i),
  },
  [Intercept.LDTR_TR]: {
    reason: ExitReason.LdtrOrTrAccess,
    when: descriptorTableExiting,
    qualification: displacement,
    information: (e) => information.ldtrTr(e.i),
  },
  [Intercept.LMSW]: {
    reason: ExitReason.ControlRegisterAccess,
    when: (e) => lmswExits(e.copy, e.a),
    qualification: (e) => controlRegister(0, Lmsw, 0, (e.i.hasMemory ? 1 << 6 : 0) | (e.a << 16)),
    linearAddress: true,
  },
  [Intercept.MONITOR]: { reason: ExitReason.Monitor, when: control('proc.monitorExiting') },
  [Intercept.MWAIT]: {
    reason: ExitReason.Mwait,
    when: control('proc.mwaitExiting'),
    qualification: (e) => BigInt(e.p.cpu.words[2 * Register.monitorArmed] as number),
  },
  [Intercept.MOV_FROM_CR]: {
    reason: ExitReason.ControlRegisterAccess,
    when: movFromCrExits,
    qualification: (e) => controlRegister(e.a, MovFrom, e.i.rm),
  },
  [Intercept.MOV_TO_CR]: {
    reason: ExitReason.ControlRegisterAccess,
    when: movToCrExits,
    qualification: (e) => controlRegister(e.a, MovTo, e.i.rm),
  },
  [Intercept.MOV_DR]: {
    reason: ExitReason.MovDr,
    when: control('proc.movDrExiting'),
    qualification: (e) => BigInt(e.a | (e.b << 4) | (e.i.rm << 8)),
  },
  [Intercept.PAUSE]: { reason: ExitReason.Pause, when: pauseExits },
  [Intercept.RDMSR]: { reason: ExitReason.Rdmsr, when: msrExits(false) },
  [Intercept.WRMSR]: { reason: ExitReason.Wrmsr, when: msrExits(true) },
  [Intercept.WRMSRNS]: { reason: ExitReason.Wrmsr, when: msrExits(true), qualification: () => 1n },
  [Intercept.RDMSRLIST]: {
    reason: ExitReason.Rdmsrlist,
    when: msrListExits(false),
    qualification: listedMsr,
  },
  [Intercept.WRMSRLIST]: {
    reason: ExitReason.Wrmsrlist,
    when: msrListExits(true),
    qualification: listedMsr,
    msrData: (e) => (e.b === 1 ? (e.p.cpu.quads[Register.T2] as bigint) : 0n),
  },
  [Intercept.ENQCMD]: {
    reason: ExitReason.EnqcmdPasidTranslation,
    when: pasidExits,
    qualification: (e) => BigInt(e.a & 0xf_ffff),
  },
  [Intercept.ENQCMDS]: {
    reason: ExitReason.EnqcmdsPasidTranslation,
    when: pasidExits,
    qualification: (e) => BigInt(e.a >>> 0),
  },
  [Intercept.RDPMC]: { reason: ExitReason.Rdpmc, when: control('proc.rdpmcExiting') },
  [Intercept.RDTSC]: { reason: ExitReason.Rdtsc, when: rdtscExiting },
  [Intercept.RDTSCP]: { reason: ExitReason.Rdtscp, when: rdtscExiting },
  [Intercept.RDRAND]: {
    reason: ExitReason.Rdrand,
    when: control('proc2.rdrandExiting'),
    information: (e) => information.random(e.i),
  },
  [Intercept.RDSEED]: {
    reason: ExitReason.Rdseed,
    when: control('proc2.rdseedExiting'),
    information: (e) => information.random(e.i),
  },
  // Only in SMM, under dual-monitor treatment.
  [Intercept.RSM]: { reason: ExitReason.Rsm, when: () => true },
  [Intercept.WBINVD]: { reason: ExitReason.WbinvdOrWbnoinvd, when: wbinvdExiting },
  [Intercept.WBNOINVD]: {
    reason: ExitReason.WbinvdOrWbnoinvd,
    when: wbinvdExiting,
    qualification: () => 1n,
  },
  [Intercept.XSAVES]: {
    reason: ExitReason.Xsaves,
    when: xssExits,
    qualification: displacement,
    information: operandInformation,
  },
  [Intercept.XRSTORS]: {
    reason: ExitReason.Xrstors,
    when: xssExits,
    qualification: displacement,
    information: operandInformation,
  },
  [Intercept.UMWAIT]: {
    reason: ExitReason.Umwait,
    when: rdtscExiting,
    information: (e) => information.waiting(e.i),
  },
  [Intercept.TPAUSE]: {
    reason: ExitReason.Tpause,
    when: rdtscExiting,
    information: (e) => information.waiting(e.i),
  },
  [Intercept.TASK_SWITCH]: {
    reason: ExitReason.TaskSwitch,
    qualification: (e) => BigInt((e.a | (e.b << 30)) >>> 0),
  },
};
