/**
 * What a machine that runs code offers of a processor's features: those whose behaviour is here. An
 * instruction set is here if the opcode map models its instructions; the rest is listed with the reason
 * why it is not (docs/deviations.md). Bits of CR4, MSRs, CPUID and VMX controls follow.
 */
import type { CpuidFeatures } from '../../cpu/cpuid.ts';
import { INSTRUCTION_SET_NAMES, INSTRUCTION_SETS, type InstructionSet } from '../../cpu/instruction-sets.ts';
import { OPCODE_ROWS } from '../../cpu/opcode-map.ts';
import { CR4 } from '../../cpu/registers.ts';
import type { ControlId } from '../../vmcs/controls.ts';

const modelled = new Set(
  OPCODE_ROWS.filter((row) => row.execute !== undefined).flatMap((row) => row.mnemonic.split('/')),
);

/** Whether the opcode map models the instructions of a set. */
export function isModelled(name: InstructionSet): boolean {
  return INSTRUCTION_SETS[name].instructions.every((mnemonic) => modelled.has(mnemonic));
}

const PERFORMANCE = 'nothing counts events';

/** Features that no machine that runs code has: the value instead, and why. */
export const NOT_RUNNING = {
  smx: [false, 'GETSEC is not modelled'],
  sgx: [false, 'there are no enclaves'],
  rtm: [false, 'there are no transactions'],
  mpx: [false, 'there are no bounds registers'],
  intelPt: [false, 'nothing is traced'],
  architecturalLbrs: [false, 'branches are not recorded'],
  specCtrlBits: [0, 'nothing is executed speculatively'],
  fixedCounters: [0, PERFORMANCE],
  performanceMetrics: [false, PERFORMANCE],
  totalMemoryEncryption: [false, 'memory is not encrypted'],
  /** BTF. */
  debugctlBits: [2, 'branches are not recorded: of IA32_DEBUGCTL there is BTF'],
} as const satisfies { readonly [Name in keyof CpuidFeatures]?: readonly [CpuidFeatures[Name], string] };

/** Bits of CR4 and what software may set them for; without it they are reserved. */
const CR4_NEEDS: readonly (readonly [bit: number, needs: (f: CpuidFeatures) => boolean])[] = [
  [CR4.OSFXSR, (f) => f.fxsr],
  [CR4.OSXMMEXCPT, (f) => f.sse],
  [CR4.SMXE, (f) => f.smx],
  [CR4.FSGSBASE, () => modelled.has('WRFSBASE')],
  [CR4.OSXSAVE, (f) => f.xsave],
  [CR4.KL, () => modelled.has('LOADIWKEY')],
  [CR4.SMAP, () => modelled.has('STAC')],
  [CR4.PKE, () => modelled.has('WRPKRU')],
  [CR4.CET, (f) => f.cetShadowStack || f.cetIndirectBranchTracking],
  [CR4.PKS, (f) => f.supervisorProtectionKeys],
  [CR4.UINTR, (f) => f.userInterrupts],
  [CR4.FRED, (f) => f.fred],
];

/** Controls that have a meaning only on a processor with a feature. */
export const CONTROL_FEATURES: readonly (readonly [ControlId, (f: CpuidFeatures) => boolean])[] = [
  ['proc2.enableRdtscp', (f) => f.tscAux],
  ['proc2.rdrandExiting', (f) => f.rdrand],
  ['proc2.rdseedExiting', (f) => f.rdseed],
  ['proc2.enableInvpcid', (f) => f.invpcid],
  ['proc2.enableXsavesXrstors', (f) => f.xsaves],
  ['proc2.enableUserWaitAndPause', (f) => f.userWaitAndPause],
  ['proc2.enableEnclsExiting', (f) => f.sgx],
  ['proc2.concealVmxFromPt', (f) => f.intelPt],
  ['proc2.intelPtUsesGuestPhysicalAddresses', (f) => f.intelPt],
  ['proc2.vmmBusLockDetection', (f) => f.busLockDetection],
  ['proc2.pasidTranslation', (f) => f.enqcmd],
  ['proc2.virtualizeX2apicMode', (f) => f.x2apic],
  ['proc3.loadiwkeyExiting', (f) => ((f.cr4Bits >> BigInt(CR4.KL)) & 1n) === 1n],
  ['proc3.enableMsrListInstructions', (f) => f.msrList],
  ['proc3.virtualizeIa32SpecCtrl', (f) => f.specCtrlBits !== 0],
  ['entry.loadIa32PerfGlobalCtrl', (f) => f.generalPurposeCounters !== 0],
  ['exit.loadIa32PerfGlobalCtrl', (f) => f.generalPurposeCounters !== 0],
  ['exit.saveIa32PerfGlobalCtrl', (f) => f.generalPurposeCounters !== 0],
  ['entry.loadIa32Bndcfgs', (f) => f.mpx],
  ['exit.clearIa32Bndcfgs', (f) => f.mpx],
  ['entry.loadIa32RtitCtl', (f) => f.intelPt],
  ['exit.clearIa32RtitCtl', (f) => f.intelPt],
  ['entry.loadGuestIa32LbrCtl', (f) => f.architecturalLbrs],
  ['exit.clearIa32LbrCtl', (f) => f.architecturalLbrs],
  ['entry.loadUinv', (f) => f.userInterrupts],
  ['exit.clearUinv', (f) => f.userInterrupts],
  ['entry.loadCetState', (f) => f.cetShadowStack || f.cetIndirectBranchTracking],
  ['exit.loadCetState', (f) => f.cetShadowStack || f.cetIndirectBranchTracking],
  ['entry.loadPkrs', (f) => f.supervisorProtectionKeys],
  ['exit.loadPkrs', (f) => f.supervisorProtectionKeys],
  ['entry.loadFred', (f) => f.fred],
  ['exit2.saveFred', (f) => f.fred],
  ['exit2.loadFred', (f) => f.fred],
  ['entry.loadIa32SpecCtrl', (f) => f.specCtrlBits !== 0],
  ['exit2.loadIa32SpecCtrl', (f) => f.specCtrlBits !== 0],
  ['exit2.prematurelyBusyShadowStack', (f) => f.cetShadowStack],
];

/** `features` without what is not here. */
export function runningFeatures(features: CpuidFeatures): CpuidFeatures {
  const instead = Object.fromEntries(
    Object.entries(NOT_RUNNING).map(([name, [value]]) => [name, value]),
  ) as Partial<CpuidFeatures>;
  const sets = Object.fromEntries(
    INSTRUCTION_SET_NAMES.map((name) => [name, features[name] && isModelled(name)]),
  ) as Pick<CpuidFeatures, InstructionSet>;
  const rest = { ...features, ...instead, ...sets };
  const missing = CR4_NEEDS.reduce(
    (bits, [bit, needs]) => (needs(rest) ? bits : bits | (1n << BigInt(bit))),
    0n,
  );
  return { ...rest, cr4Bits: features.cr4Bits & ~missing };
}
