/** The opcode map: every group's rows, compiled for the decoder. */
import { raise, Vector } from './exceptions.ts';
import type { Instruction, Next } from './instruction.ts';
import { ARITHMETIC_ROWS } from './instructions/arithmetic.ts';
import { BIT_ROWS } from './instructions/bit.ts';
import { BMI_ROWS } from './instructions/bmi.ts';
import { CACHE_ROWS } from './instructions/caches.ts';
import { CONTROL_FLOW_ENFORCEMENT_ROWS } from './instructions/control-flow-enforcement.ts';
import { CONTROL_REGISTER_ROWS } from './instructions/control-registers.ts';
import { CONTROL_TRANSFER_ROWS } from './instructions/control-transfer.ts';
import { CONVERT_ROWS } from './instructions/convert.ts';
import { CPUID_ROWS } from './instructions/cpuid.ts';
import { DECIMAL_ROWS } from './instructions/decimal.ts';
import { DESCRIPTOR_TABLE_ROWS } from './instructions/descriptor-tables.ts';
import { ENQUEUE_ROWS } from './instructions/enqueue.ts';
import { EXCHANGE_ROWS } from './instructions/exchange.ts';
import { FAR_TRANSFER_ROWS } from './instructions/far-transfers.ts';
import { FAST_SYSTEM_CALL_ROWS } from './instructions/fast-system-calls.ts';
import { FLAG_CONTROL_ROWS } from './instructions/flag-control.ts';
import { FLOATING_POINT_ROWS } from './instructions/floating-point.ts';
import { FRED_ROWS } from './instructions/fred.ts';
import { INTERRUPT_FLAG_ROWS } from './instructions/interrupt-flag.ts';
import { IO_ROWS } from './instructions/io.ts';
import { MISCELLANEOUS_ROWS } from './instructions/miscellaneous.ts';
import { MOVE_ROWS } from './instructions/move.ts';
import { MSR_ROWS } from './instructions/msr.ts';
import { MSR_LIST_ROWS } from './instructions/msr-lists.ts';
import { MULTIPLY_DIVIDE_ROWS } from './instructions/multiply-divide.ts';
import { PROTECTION_ROWS } from './instructions/protection.ts';
import { PROTECTION_KEY_ROWS } from './instructions/protection-keys.ts';
import { PUSH_POP_ROWS } from './instructions/push-pop.ts';
import { RANDOM_ROWS } from './instructions/random.ts';
import { SEGMENT_BASE_ROWS } from './instructions/segment-bases.ts';
import { SEGMENT_REGISTER_ROWS } from './instructions/segment-registers.ts';
import { SHIFT_ROWS } from './instructions/shift.ts';
import { SOFTWARE_INTERRUPT_ROWS } from './instructions/software-interrupts.ts';
import { STRING_ROWS } from './instructions/string.ts';
import { USER_INTERRUPT_ROWS } from './instructions/user-interrupts.ts';
import { VMX_ROWS } from './instructions/vmx.ts';
import { WAITING_ROWS } from './instructions/waiting.ts';
import { OpcodeIndex } from './opcode-index.ts';
import type { OpcodeRow } from './opcode-row.ts';
import type { Processor } from './processor.ts';

/** Every instruction this processor knows. */
export const OPCODE_ROWS: readonly OpcodeRow[] = [
  ...ARITHMETIC_ROWS,
  ...BIT_ROWS,
  ...BMI_ROWS,
  ...CACHE_ROWS,
  ...CONTROL_FLOW_ENFORCEMENT_ROWS,
  ...CONTROL_REGISTER_ROWS,
  ...CONTROL_TRANSFER_ROWS,
  ...CONVERT_ROWS,
  ...CPUID_ROWS,
  ...DECIMAL_ROWS,
  ...DESCRIPTOR_TABLE_ROWS,
  ...ENQUEUE_ROWS,
  ...EXCHANGE_ROWS,
  ...FAR_TRANSFER_ROWS,
  ...FAST_SYSTEM_CALL_ROWS,
  ...FRED_ROWS,
  ...FLAG_CONTROL_ROWS,
  ...FLOATING_POINT_ROWS,
  ...INTERRUPT_FLAG_ROWS,
  ...IO_ROWS,
  ...MISCELLANEOUS_ROWS,
  ...MOVE_ROWS,
  ...MSR_LIST_ROWS,
  ...MSR_ROWS,
  ...MULTIPLY_DIVIDE_ROWS,
  ...PROTECTION_KEY_ROWS,
  ...PROTECTION_ROWS,
  ...PUSH_POP_ROWS,
  ...RANDOM_ROWS,
  ...SEGMENT_BASE_ROWS,
  ...SEGMENT_REGISTER_ROWS,
  ...SHIFT_ROWS,
  ...SOFTWARE_INTERRUPT_ROWS,
  ...STRING_ROWS,
  ...USER_INTERRUPT_ROWS,
  ...VMX_ROWS,
  ...WAITING_ROWS,
];

function undefinedOpcode(cpu: Processor): Next {
  return raise(cpu, Vector.UD);
}

function unmodelledInstruction(cpu: Processor, i: Instruction): Next {
  cpu.noteUnmodelled(i.row.mnemonic);
  return raise(cpu, Vector.UD);
}

export const OPCODES = new OpcodeIndex(OPCODE_ROWS, undefinedOpcode, unmodelledInstruction);
