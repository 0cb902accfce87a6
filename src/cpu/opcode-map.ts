/** The opcode map: every group's rows, compiled for the decoder. */
import { raise, Vector } from './exceptions.ts';
import type { Instruction, Next } from './instruction.ts';
import { ARITHMETIC_ROWS } from './instructions/arithmetic.ts';
import { CONTROL_TRANSFER_ROWS } from './instructions/control-transfer.ts';
import { DESCRIPTOR_TABLE_ROWS } from './instructions/descriptor-tables.ts';
import { FLAG_CONTROL_ROWS } from './instructions/flag-control.ts';
import { MOVE_ROWS } from './instructions/move.ts';
import { PROTECTION_ROWS } from './instructions/protection.ts';
import { PUSH_POP_ROWS } from './instructions/push-pop.ts';
import { SEGMENT_BASE_ROWS } from './instructions/segment-bases.ts';
import { SEGMENT_REGISTER_ROWS } from './instructions/segment-registers.ts';
import { STRING_ROWS } from './instructions/string.ts';
import { OpcodeIndex } from './opcode-index.ts';
import type { OpcodeRow } from './opcode-row.ts';
import type { Processor } from './processor.ts';

/** Every instruction this processor knows. */
export const OPCODE_ROWS: readonly OpcodeRow[] = [
  ...ARITHMETIC_ROWS,
  ...CONTROL_TRANSFER_ROWS,
  ...DESCRIPTOR_TABLE_ROWS,
  ...FLAG_CONTROL_ROWS,
  ...MOVE_ROWS,
  ...PROTECTION_ROWS,
  ...PUSH_POP_ROWS,
  ...SEGMENT_BASE_ROWS,
  ...SEGMENT_REGISTER_ROWS,
  ...STRING_ROWS,
];

function undefinedOpcode(cpu: Processor): Next {
  return raise(cpu, Vector.UD);
}

function unmodelledInstruction(cpu: Processor, i: Instruction): Next {
  cpu.noteUnmodelled(i.row.mnemonic);
  return raise(cpu, Vector.UD);
}

export const OPCODES = new OpcodeIndex(OPCODE_ROWS, undefinedOpcode, unmodelledInstruction);
