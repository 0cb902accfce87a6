/** Basic VM-entry checks in the manual's order (SDM §29.1, §33.3): the first that fails decides. */

import { Mode } from '../../cpu/processor.ts';
import { Register } from '../../cpu/registers.ts';
import type { SdmSection } from '../../sdm/sections.ts';
import { LaunchState } from '../../vmcs/region.ts';
import { InstructionError } from '../instruction-errors.ts';
import { Operation, type VmxProcessor } from '../vmx-state.ts';

const MOV_SS = 2 * Register.blockingByMovSs;

export type EntryInstruction = 'VMLAUNCH' | 'VMRESUME';

/** How VM entry ends when a basic check fails. */
export type BasicFailure = '#UD' | '#GP(0)' | 'VM exit' | 'VMfailInvalid' | InstructionError;

export interface BasicCheck {
  readonly id: `basic.${string}`;
  readonly sdm: SdmSection;
  readonly rule: string;
  /** The instruction the rule is for, if for one only. */
  readonly instruction?: EntryInstruction;
  readonly holds: (p: VmxProcessor) => boolean;
  readonly failure: BasicFailure;
}

function basicChecks<const Rows extends readonly BasicCheck[]>(rows: Rows): Rows {
  return rows;
}

export const BASIC_CHECKS = basicChecks([
  {
    id: 'basic.vmx-operation',
    sdm: '33.3',
    rule: 'The logical processor is in VMX operation.',
    holds: (p) => p.vmx.operation !== Operation.Outside,
    failure: '#UD',
  },
  {
    id: 'basic.protected-mode',
    sdm: '33.3',
    rule: 'CR0.PE is 1.',
    holds: (p) => p.cpu.mode !== Mode.Real,
    failure: '#UD',
  },
  {
    id: 'basic.not-v8086',
    sdm: '29.1',
    rule: 'RFLAGS.VM is 0.',
    holds: (p) => p.cpu.mode !== Mode.Virtual8086,
    failure: '#UD',
  },
  {
    id: 'basic.not-compat',
    sdm: '29.1',
    rule: 'The processor is not in compatibility mode.',
    holds: (p) => p.cpu.mode !== Mode.Compatibility,
    failure: '#UD',
  },
  {
    id: 'basic.root-operation',
    sdm: '33.3',
    rule: 'The instruction is executed in VMX root operation.',
    holds: (p) => p.vmx.operation === Operation.Root,
    failure: 'VM exit',
  },
  { id: 'basic.cpl0', sdm: '29.1', rule: 'CPL is 0.', holds: (p) => p.cpu.cpl === 0, failure: '#GP(0)' },
  {
    id: 'basic.current-vmcs',
    sdm: '29.1',
    rule: 'There is a current VMCS.',
    holds: (p) => p.vmx.current !== undefined,
    failure: 'VMfailInvalid',
  },
  {
    id: 'basic.ordinary-vmcs',
    sdm: '29.1',
    rule: 'The current VMCS is an ordinary VMCS, not a shadow VMCS.',
    holds: (p) => p.vmx.current?.isShadow === false,
    failure: 'VMfailInvalid',
  },
  {
    id: 'basic.no-mov-ss-blocking',
    sdm: '29.1',
    rule: 'Events are not blocked by MOV SS.',
    holds: (p) => p.cpu.words[2 * Register.blockingByMovSs] === 0,
    failure: InstructionError.EntryBlockedByMovSs,
  },
  {
    id: 'basic.vmlaunch-clear',
    sdm: '29.1',
    rule: 'The launch state of the current VMCS is clear.',
    instruction: 'VMLAUNCH',
    holds: (p) => p.vmx.current?.launchState === LaunchState.Clear,
    failure: InstructionError.VmlaunchNotClear,
  },
  {
    id: 'basic.vmresume-launched',
    sdm: '29.1',
    rule: 'The launch state of the current VMCS is launched.',
    instruction: 'VMRESUME',
    holds: (p) => p.vmx.current?.launchState === LaunchState.Launched,
    failure: InstructionError.VmresumeNotLaunched,
  },
]);

const CHECKS: readonly BasicCheck[] = BASIC_CHECKS;
const OF: Readonly<Record<EntryInstruction, readonly BasicCheck[]>> = {
  VMLAUNCH: CHECKS.filter((c) => c.instruction !== 'VMRESUME'),
  VMRESUME: CHECKS.filter((c) => c.instruction !== 'VMLAUNCH'),
};

// Constants to the compiler, which imported bindings are not (bench: "VMRESUME + exit").
const { Root } = Operation;
const { Bit64, Protected } = Mode;
const { Clear, Launched } = LaunchState;

/**
 * No row fails: the same in one expression, for VM entries that nothing hinders, which are nearly all
 * (bench: "VMRESUME + exit").
 */
function nothingHinders(p: VmxProcessor, instruction: EntryInstruction): boolean {
  const { cpu, vmx } = p;
  const { current } = vmx;
  return (
    vmx.operation === Root &&
    (cpu.mode === Bit64 || cpu.mode === Protected) &&
    cpu.cpl === 0 &&
    current !== undefined &&
    !current.isShadow &&
    cpu.i32[MOV_SS] === 0 &&
    current.launchState === (instruction === 'VMRESUME' ? Launched : Clear)
  );
}

/** The first basic check that fails, or undefined. */
export function failingBasicCheck(p: VmxProcessor, instruction: EntryInstruction): BasicCheck | undefined {
  if (nothingHinders(p, instruction)) return undefined;
  return OF[instruction].find((check) => !check.holds(p));
}
