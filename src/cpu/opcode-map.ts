/** The opcode map: every group's rows, compiled for the decoder. */
import { raise, Vector } from './exceptions.ts';
import type { Instruction, Next } from './instruction.ts';
import { ARITHMETIC_ROWS } from './instructions/arithmetic.ts';
import { CONTROL_TRANSFER_ROWS } from './instructions/control-transfer.ts';
import { MOVE_ROWS } from './instructions/move.ts';
import { OpcodeIndex } from './opcode-index.ts';
import type { OpcodeRow } from './opcode-row.ts';
import type { Processor } from './processor.ts';

/** Every instruction this processor knows. */
export const OPCODE_ROWS: readonly OpcodeRow[] = [...ARITHMETIC_ROWS, ...MOVE_ROWS, ...CONTROL_TRANSFER_ROWS];

function undefinedOpcode(cpu: Processor): Next {
  return raise(cpu, Vector.UD);
}

function unmodelledInstruction(cpu: Processor, i: Instruction): Next {
  cpu.noteUnmodelled(i.row.mnemonic);
  return raise(cpu, Vector.UD);
}

export const OPCODES = new OpcodeIndex(OPCODE_ROWS, undefinedOpcode, unmodelledInstruction);
