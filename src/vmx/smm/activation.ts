/**
 * VMCALL in VMX root operation outside SMM (SDM §34.15.6): it calls the SMM monitor, and the first time
 * activates dual-monitor treatment. Then the MSEG header, not host state, says where the monitor begins.
 */
import { CR0, CR4, EFER, Register, type RegisterName } from '../../cpu/registers.ts';
import { Field } from '../../vmcs/fields.ts';
import { AR_UNUSABLE } from '../../vmcs/formats.ts';
import type { ProcessorCopy } from '../../vmcs/processor-copy.ts';
import { LaunchState } from '../../vmcs/region.ts';
import { Basic } from '../capabilities/capability-msrs.ts';
import { controlRef, isOn } from '../effective-controls.ts';
import { ExitReason } from '../exit/exit-reasons.ts';
import { InstructionError } from '../instruction-errors.ts';
import { vmFail, vmFailInvalid } from '../instructions/conventions.ts';
import { type Outcome, vmExit } from '../outcome.ts';
import { NO_POINTER, type VmxProcessor } from '../vmx-state.ts';
import { beginSmmExit, transferToMonitor } from './smm-exit.ts';

const SECONDARY_EXIT_CONTROLS = controlRef('exit.activateSecondaryControls');
const MONITOR_CONTROL = 2 * Register.IA32_SMM_MONITOR_CTL;
const IN_SMM = 2 * Register.inSmm;
const VALID = 1;
const VMCALL_LENGTH = 3;

/** Offsets in the MSEG header (SDM Table 34-10). */
const Mseg = {
  Revision: 0,
  Features: 4,
  GdtrLimit: 8,
  GdtrBase: 12,
  CsSelector: 16,
  Eip: 20,
  Esp: 24,
  Cr3: 28,
} as const;
const IA32E_MODE = 1;

const one = (...positions: number[]) =>
  positions.reduce((bits, position) => bits | (1n << BigInt(position)), 0n);
const CR0_KEPT = one(CR0.CD, CR0.NW);
const CR0_SET = one(CR0.PG, CR0.NE, CR0.ET, CR0.MP, CR0.PE);
const CR4_CLEARED = one(CR4.MCE, CR4.PGE, CR4.CET, CR4.PCIDE, CR4.LA57, CR4.FRED, CR4.PAE, CR4.PSE);
const LONG_MODE = one(EFER.LME, EFER.LMA);
const CODE = 0x809bn;
const DATA = 0xc093n;
const L = 0x2000n;
const D = 0x4000n;

/** VMCALL in root operation goes to the SMM monitor: the processor has one, enabled, and is not in SMM. */
export function callsSmmMonitor({ cpu, capabilities }: VmxProcessor): boolean {
  const enabled = ((cpu.words[MONITOR_CONTROL] as number) & VALID) !== 0;
  return enabled && cpu.words[IN_SMM] === 0 && capabilities.has('basic', Basic.DUAL_MONITOR);
}

/** The SMM VM exit of VMCALL; what keeps it from activating dual-monitor treatment (SDM §34.15.6.1). */
export function callSmmMonitor(p: VmxProcessor, instructionLength = VMCALL_LENGTH): Outcome {
  const { vmx } = p;
  const request = { reason: ExitReason.Vmcall, instructionLength };
  if (vmx.smmTransfer !== NO_POINTER) return transferToMonitor(p, request);
  if (vmx.current === undefined) return vmFailInvalid(p);
  const copy = p.active.resident(vmx.current);
  if (copy.launchState !== LaunchState.Clear) return vmFail(p, InstructionError.VmcallNotClear);
  if (!hasValidExitControls(p, copy)) return vmFail(p, InstructionError.VmcallInvalidExitControls);
  const mseg = msegBase(p);
  if (p.cpu.memory.read32(mseg + Mseg.Revision) >>> 0 !== msegRevision(p)) {
    return vmFail(p, InstructionError.VmcallWrongMsegRevision);
  }
  const features = p.cpu.memory.read32(mseg + Mseg.Features) >>> 0;
  if (!areValidFeatures(p, features)) return vmFail(p, InstructionError.VmcallInvalidSmmMonitorFeatures);
  vmx.smmTransfer = copy.address;
  beginSmmExit(p, request);
  startMonitor(p, mseg, features === IA32E_MODE);
  return vmExit(ExitReason.Vmcall);
}

const msegBase = (p: VmxProcessor) => ((p.cpu.words[MONITOR_CONTROL] as number) & 0xffff_f000) >>> 0;
const msegRevision = (p: VmxProcessor) => Number(p.capabilities.misc >> 32n);

function hasValidExitControls(p: VmxProcessor, copy: ProcessorCopy): boolean {
  const { must1, may1 } = p.capabilities;
  const exit = copy.quads[Field.primaryVmExitControls] as bigint;
  if ((exit & must1.exit) !== must1.exit || (exit & ~may1.exit) !== 0n) return false;
  const secondary = copy.quads[Field.secondaryVmExitControls] as bigint;
  return !isOn(copy, p.capabilities, SECONDARY_EXIT_CONTROLS) || (secondary & ~may1.exit2) === 0n;
}

/** Software in 64-bit mode needs a monitor in IA-32e mode. */
function areValidFeatures({ cpu }: VmxProcessor, features: number): boolean {
  if ((features & ~IA32E_MODE) !== 0) return false;
  return features === IA32E_MODE ? cpu.features.intel64 : cpu.codeBits !== 64;
}

/** The state in which the monitor begins (SDM §34.15.6.5). */
function startMonitor(p: VmxProcessor, mseg: number, ia32e: boolean): void {
  const { cpu, vmx } = p;
  const { quads, memory } = cpu;
  const header = (offset: number) => memory.read32(mseg + offset) >>> 0;
  const set = (name: RegisterName, value: bigint | number) => {
    quads[Register[name]] = BigInt(value);
  };
  const within = (offset: number) => (mseg + header(offset)) >>> 0;
  vmx.leaveNonRoot();
  vmx.initBlocked = true;
  set('CR0', (cpu.read('CR0') & CR0_KEPT) | CR0_SET);
  const pages = (mseg + header(Mseg.Cr3)) & 0xffff_f000;
  set('CR3', (pages | (header(Mseg.Cr3) & 0x18)) >>> 0);
  set('CR4', (cpu.read('CR4') & ~CR4_CLEARED) | one(ia32e ? CR4.PAE : CR4.PSE));
  set('IA32_EFER', (cpu.read('IA32_EFER') & ~LONG_MODE) | (ia32e ? LONG_MODE : 0n));
  set('DR7', 0x400);
  set('IA32_DEBUGCTL', 0);
  set('RFLAGS', 2);
  set('RIP', within(Mseg.Eip));
  set('RSP', within(Mseg.Esp));
  const selector = header(Mseg.CsSelector) & 0xfff8;
  set('CS.selector', selector || 8);
  set('CS.accessRights', CODE | (ia32e ? L : D));
  for (const name of ['SS', 'DS', 'ES', 'FS', 'GS'] as const) {
    set(`${name}.selector`, (selector + 8) & 0xffff || 8);
    set(`${name}.accessRights`, DATA);
  }
  for (const name of ['CS', 'SS', 'DS', 'ES', 'FS', 'GS'] as const) {
    set(`${name}.base`, 0);
    set(`${name}.limit`, 0xffff_ffff);
  }
  set('LDTR.selector', 0);
  set('LDTR.accessRights', AR_UNUSABLE);
  set('GDTR.base', within(Mseg.GdtrBase));
  set('GDTR.limit', header(Mseg.GdtrLimit) & 0xffff);
  set('IDTR.limit', 0);
  for (const name of ['activityState', 'blockingBySti', 'blockingByMovSs', 'pendingDebugExceptions'] as const)
    set(name, 0);
  set('enclaveInterruption', 0);
  set('monitorArmed', 0);
  cpu.updateMode();
}
