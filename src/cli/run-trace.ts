/**
 * The trace of a run: a line for each VMX instruction, VM entry and VM exit with what it means. A line
 * starts with the number of instructions executed before.
 */
import { hex } from '../bits/u64.ts';
import type { LogicalProcessor } from '../machine/logical-processor.ts';
import { findField } from '../vmcs/field-names.ts';
import { Field } from '../vmcs/fields.ts';
import { ExitReasonBit } from '../vmcs/formats.ts';
import type { ProcessorCopy } from '../vmcs/processor-copy.ts';
import { exitReasonSpec } from '../vmx/exit/exit-reasons.ts';
import { type BitFormat, decodeParts, QUALIFICATIONS } from '../vmx/exit/qualifications.ts';
import { instructionErrorMeaning } from '../vmx/instruction-errors.ts';
import type { Outcome } from '../vmx/outcome.ts';
import type { VmxMnemonic, VmxObserver } from '../vmx/vmx-observer.ts';

/** An observer of `cpu` that writes a line for what it sees. */
export function traceVmx(cpu: LogicalProcessor, write: (line: string) => void): VmxObserver {
  const line = (text: string) => write(traceLine(cpu, text));
  return {
    instruction(mnemonic, operand, outcome) {
      // An instruction that exits is told by its exit.
      if (outcome.kind === 'VMexit' || outcome.kind === 'VMentryFailure') return;
      line(`${instructionText(mnemonic, operand)}: ${outcomeText(cpu, outcome)}`);
    },
    exit(copy) {
      line(exitText(copy));
    },
  };
}

/** Lets `cpu` write a line for each instruction before it is executed. */
export function traceInstructions(cpu: LogicalProcessor, write: (line: string) => void): void {
  cpu.watchInstructions((text) => {
    const guest = cpu.operation === 'non-root' ? 'guest ' : '';
    write(traceLine(cpu, `${guest}${hex(cpu.get('CS.selector'), 4)}:${hex(cpu.get('RIP'))} ${text}`));
  });
}

/** A line of the trace. */
function traceLine(cpu: LogicalProcessor, text: string): string {
  return `${String(cpu.processor.executed).padStart(12)} cpu${cpu.index} ${text}\n`;
}

function instructionText(mnemonic: VmxMnemonic, operand: bigint | undefined): string {
  if (operand === undefined) return mnemonic;
  if (mnemonic !== 'VMREAD' && mnemonic !== 'VMWRITE') return `${mnemonic} ${hex(operand)}`;
  const field = operand < 0x1_0000n ? findField(hex(operand)) : undefined;
  return `${mnemonic} ${hex(operand, 4)}${field === undefined ? '' : ` ${field.field.name}`}`;
}

function outcomeText(cpu: LogicalProcessor, outcome: Outcome): string {
  switch (outcome.kind) {
    case 'VMfailValid':
      return `VMfailValid ${outcome.error}, ${instructionErrorMeaning(outcome.error) ?? 'not defined'}`;
    case 'fault': {
      const code = outcome.errorCode === undefined ? '' : `, error code ${hex(outcome.errorCode)}`;
      return `fault, vector ${outcome.vector}${code}`;
    }
    case 'VMentry':
      return `VM entry, guest at ${hex(cpu.get('CS.selector'), 4)}:${hex(cpu.get('RIP'))}`;
    case 'VMXabort':
      return `VMX abort ${outcome.indicator}`;
    case 'notExecuted':
      return `not executed, ${outcome.because}`;
    default:
      return outcome.kind;
  }
}

/** Everything that a VM exit recorded and that its reason defines. */
function exitText(copy: ProcessorCopy): string {
  const word = (field: keyof typeof Field) => copy.words[2 * Field[field]] as number;
  const quad = (field: keyof typeof Field) => copy.quads[Field[field]] as bigint;
  const full = word('exitReason');
  const reason = full & 0xffff;
  const spec = exitReasonSpec(reason);
  const failed = (full & ExitReasonBit.EntryFailure) !== 0;
  const name = (spec?.name ?? 'not defined').replace(/^VM-entry failure: /, '');
  const parts = [`${failed ? 'VM-entry failure' : 'VM exit'} ${reason} ${name}`];
  parts.push(`guest at ${hex(quad('guestCsSelector'), 4)}:${hex(quad('guestRip'))}`);
  if (spec === undefined) return parts.join(', ');
  const qualification = quad('exitQualification');
  if (spec.qualification !== 'cleared') {
    parts.push(`qualification ${hex(qualification)}${partsText(spec.qualification, qualification)}`);
  }
  if (spec.guestLinearAddress === 'always') parts.push(`linear ${hex(quad('guestLinearAddress'))}`);
  if (spec.guestPhysicalAddress) parts.push(`physical ${hex(quad('guestPhysicalAddress'))}`);
  if (spec.exitingEvent !== 'never')
    parts.push(...eventText('event', word('exitingEventIdentification'), word('exitingEventErrorCode')));
  if (spec.originalEvent !== 'never') {
    parts.push(...eventText('during', word('originalEventIdentification'), word('originalEventErrorCode')));
  }
  if (spec.instructionLength === 'instruction') parts.push(`length ${word('vmExitInstructionLength')}`);
  return parts.join(', ');
}

/** The parts of a qualification that are not 0. */
function partsText(rule: string, value: bigint): string {
  const format: BitFormat | undefined = QUALIFICATIONS[rule as keyof typeof QUALIFICATIONS];
  if (format === undefined) return '';
  const parts = Object.entries(decodeParts(format, value))
    .filter(([, v]) => v !== 0)
    .map(([name, v]) => `${name} ${v > 9 ? hex(v) : v}`);
  return parts.length === 0 ? '' : ` (${parts.join(', ')})`;
}

const EVENT_TYPES = [
  'external interrupt',
  'reserved',
  'NMI',
  'exception',
  'software interrupt',
  'INT1',
  'software exception',
  'other event',
];

function eventText(what: string, identification: number, errorCode: number): readonly string[] {
  if (identification >>> 31 === 0) return [];
  const code = (identification & 0x800) === 0 ? '' : ` (${hex(errorCode)})`;
  return [`${what} ${EVENT_TYPES[(identification >> 8) & 7]} ${identification & 0xff}${code}`];
}
