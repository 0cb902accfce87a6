/** VM exits that VMX instructions cause in VMX non-root operation (SDM §28.1.2, §28.1.3, §33.3). */
import { EXIT_REASONS, ExitReason } from '../exit/exit-reasons.ts';
import { performExit } from '../exit/vm-exit.ts';
import type { Outcome } from '../outcome.ts';
import type { VmxProcessor } from '../vmx-state.ts';
import type { InstructionForm } from './operands.ts';

/** Mnemonic → reason, and whether the instruction has a memory operand to report. */
const EXITS = {
  INVEPT: [ExitReason.Invept, 'operand'],
  INVVPID: [ExitReason.Invvpid, 'operand'],
  VMCALL: [ExitReason.Vmcall, 'none'],
  VMCLEAR: [ExitReason.Vmclear, 'operand'],
  VMFUNC: [ExitReason.Vmfunc, 'none'],
  VMLAUNCH: [ExitReason.Vmlaunch, 'none'],
  VMPTRLD: [ExitReason.Vmptrld, 'operand'],
  VMPTRST: [ExitReason.Vmptrst, 'operand'],
  VMREAD: [ExitReason.Vmread, 'operand'],
  VMRESUME: [ExitReason.Vmresume, 'none'],
  VMWRITE: [ExitReason.Vmwrite, 'operand'],
  VMXOFF: [ExitReason.Vmxoff, 'none'],
  VMXON: [ExitReason.Vmxon, 'operand'],
} as const;

export type ExitingMnemonic = keyof typeof EXITS;

/** Performs the VM exit of `mnemonic`. */
export function exitFrom(p: VmxProcessor, mnemonic: ExitingMnemonic, form: InstructionForm): Outcome {
  const [reason, operand] = EXITS[mnemonic];
  const instructionLength = form.length ?? EXIT_REASONS[reason].shortestLength;
  return operand === 'none'
    ? performExit(p, { reason, instructionLength })
    : performExit(p, {
        reason,
        qualification: form.displacement,
        instructionLength,
        instructionInformation: form.information,
      });
}
