/**
 * A decoded instruction: operands as byte offsets into the processor's state, the address of a memory
 * operand by its parts, and the function that executes it. An operand in memory is loaded into T0
 * before and stored from T0 after the operation; an immediate is put into T1 (operand-forms.ts).
 */
import type { OpcodeRow } from './opcode-row.ts';
import type { Processor } from './processor.ts';

/** What follows an instruction. */
export const Next = {
  /** The next instruction in sequence. */
  Sequential: 0,
  /** RIP was changed, or translations or the mode were: the next instruction is looked up anew. */
  Lookup: 1,
  /** An exception was raised: RIP is that of this instruction again, nothing else changed. */
  Fault: 2,
  /** A VM exit is pending at the VMX port: RIP is that of this instruction again. */
  VmExit: 3,
  /** The instruction has made progress (an iteration) and continues: RIP is its own again. */
  Again: 4,
  /** All is done, RIP included, by a VM entry, a VM exit or an event delivered inside the instruction. */
  Settled: 5,
  /** Nothing was done: the instruction needs the time at which it is executed ({@link Processor.inTime}), and is executed again. */
  OutOfTime: 6,
} as const;
export type Next = (typeof Next)[keyof typeof Next];

/** Executes one instruction. RIP has advanced to the next; it is set back where {@link Next} says so. */
export type Execute = (cpu: Processor, i: Instruction) => Next;

/** Number of a segment register as in ModR/M; also the index of {@link SEGMENT_NAMES}. */
export const Segment = { ES: 0, CS: 1, SS: 2, DS: 3, FS: 4, GS: 5 } as const;
export type Segment = (typeof Segment)[keyof typeof Segment];

export class Instruction {
  /** Executes the instruction, operands in memory and immediates included. */
  run: Execute;
  /** The operation on operands in the processor's state. */
  operate: Execute;
  row: OpcodeRow;
  /** Bytes, 1–15. */
  length = 0;
  /** 16, 32 or 64 (never 8). */
  operandBits = 0;
  /** 16, 32 or 64. */
  addressBits = 0;
  /** First, second and third operand: byte offset in the processor's state. */
  d = 0;
  s = 0;
  t = 0;
  /** Bytes of the operand in memory. */
  memoryBytes = 0;
  /** Whether ModR/M names memory. */
  hasMemory = false;
  /** Mod, reg (with REX.R) and r/m (with REX.B) of ModR/M; `reg` is also the register in an opcode. */
  mod = 0;
  reg = 0;
  rm = 0;
  /** Address of the memory operand: segment, base and index (byte offsets in the state), scale 0–3, displacement. */
  segment: Segment = Segment.DS;
  base = 0;
  index = 0;
  scale = 0;
  displacement = 0;
  /** Bits 63:32 of the displacement: its sign, or those of a 64-bit offset. */
  displacementHigh = 0;
  /** Whether an index register is named, for the instruction-information field. */
  hasBase = false;
  hasIndex = false;
  /** Immediate, sign- or zero-extended as the opcode says. */
  immediate = 0;
  immediateHigh = 0;
  /** Second immediate (ENTER) or selector of a far pointer. */
  immediate2 = 0;
  /** REP/REPE (F3) or REPNE (F2) in force as a repeat prefix: 0, 0xf3, 0xf2. */
  repeat = 0;
  lock = false;
  /** Prefix 3E of a near indirect branch: with NO_TRACK_EN it is not tracked. */
  noTrack = false;
  /** VEX.vvvv register number, where there is a VEX prefix. */
  vvvv = 0;
  /** VEX.W or REX.W. */
  w = false;
  /** VEX.L. */
  vectorLength = 0;

  constructor(row: OpcodeRow, execute: Execute) {
    this.row = row;
    this.run = execute;
    this.operate = execute;
  }
}
