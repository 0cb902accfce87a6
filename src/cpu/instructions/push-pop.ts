/** Stack operations (SDM vol. 2: PUSH, POP, PUSHA, POPA, ENTER, LEAVE). */
import { linearise } from '../addressing.ts';
import { type Execute, type Instruction, Next, Segment } from '../instruction.ts';
import { loadFrom, store, touchByte } from '../memory-access.ts';
import type { OpcodeRow } from '../opcode-row.ts';
import { MEMORY_OPERAND, operandAddress } from '../operand-forms.ts';
import { copy } from '../operand-values.ts';
import type { Processor } from '../processor.ts';
import { Register } from '../registers.ts';
import { adjustStackPointer, loadStack, pop, push, setStackPointer, storeStack } from '../stack.ts';
import { Access } from '../tlb.ts';

const T0 = MEMORY_OPERAND;
const T2 = 8 * Register.T2;
const T3 = 8 * Register.T3;
const RSP = 2 * Register.RSP;
const RBP = 2 * Register.RBP;
const RBP_AT = 8 * Register.RBP;
const GENERAL_REGISTERS = 8;
const SP = 4;

const pushOperand: Execute = (cpu, i) => (push(cpu, i.d, i.operandBits >> 3) ? Next.Sequential : Next.Fault);

/** RSP moves before the register is written: POP RSP leaves what was popped. */
const popRegister: Execute = (cpu, i) => {
  if (!pop(cpu, T0, i.operandBits >> 3)) return Next.Fault;
  return copy(cpu, i.d, T0, i.operandBits);
};

/** An address with RSP as base is computed after RSP has moved. */
const popOperand: Execute = (cpu, i) => {
  if (!i.hasMemory) return popRegister(cpu, i);
  const bytes = i.operandBits >> 3;
  const w = cpu.i32;
  const lo = w[RSP] as number;
  const hi = w[RSP + 1] as number;
  if (!pop(cpu, T0, bytes)) return Next.Fault;
  if (operandAddress(cpu, i, bytes, Access.Write) && store(cpu, T0, bytes)) return Next.Sequential;
  w[RSP] = lo;
  w[RSP + 1] = hi;
  return Next.Fault;
};

/** AX, CX, DX, BX, the SP from before, BP, SI, DI. */
const pusha: Execute = (cpu, i) => {
  const bytes = i.operandBits >> 3;
  for (let n = 0; n < GENERAL_REGISTERS; n++) {
    if (!storeStack(cpu, -bytes * (n + 1), 8 * n, bytes)) return Next.Fault;
  }
  adjustStackPointer(cpu, -bytes * GENERAL_REGISTERS);
  return Next.Sequential;
};

/** Nothing is written before everything is loaded: four bytes each from T0 up to T3. */
const popa: Execute = (cpu, i) => {
  const bytes = i.operandBits >> 3;
  for (let n = 0; n < GENERAL_REGISTERS; n++) {
    if (!loadStack(cpu, bytes * n, T0 + 4 * n, bytes)) return Next.Fault;
  }
  adjustStackPointer(cpu, bytes * GENERAL_REGISTERS);
  for (let n = 0; n < GENERAL_REGISTERS; n++) {
    const register = GENERAL_REGISTERS - 1 - n;
    if (register !== SP) copy(cpu, 8 * register, T0 + 4 * n, i.operandBits);
  }
  return Next.Sequential;
};

/** Moves the part of RBP that the stack-address size has by −`bytes`. */
function lowerFrame(cpu: Processor, bytes: number): void {
  const w = cpu.i32;
  const lo = w[RBP] as number;
  const lower = (lo - bytes) | 0;
  if (cpu.stackBits === 16) {
    w[RBP] = (lo & ~0xffff) | (lower & 0xffff);
    return;
  }
  w[RBP] = lower;
  if (cpu.stackBits === 64 && lo >>> 0 < bytes) w[RBP + 1] = ((w[RBP + 1] as number) - 1) | 0;
}

function frameOffset(cpu: Processor): number {
  const lo = cpu.i32[RBP] as number;
  return cpu.stackBits === 16 ? lo & 0xffff : lo;
}

/** Pushes RBP, the `level` − 1 frame pointers below it, and the new frame pointer, which is left in T3. */
function pushFrame(cpu: Processor, level: number, bytes: number): boolean {
  const w = cpu.i32;
  if (!push(cpu, RBP_AT, bytes)) return false;
  w[T3 >> 2] = w[RSP] as number;
  w[(T3 >> 2) + 1] = w[RSP + 1] as number;
  for (let n = 1; n < level; n++) {
    lowerFrame(cpu, bytes);
    const hi = cpu.stackBits === 64 ? (w[RBP + 1] as number) : 0;
    if (!loadFrom(cpu, Segment.SS, frameOffset(cpu), hi, T2, bytes) || !push(cpu, T2, bytes)) return false;
  }
  return level === 0 || push(cpu, T3, bytes);
}

/** Whether the byte at the top of the stack can be written: ENTER faults if not. */
function stackIsWritable(cpu: Processor): boolean {
  const w = cpu.i32;
  const sp = w[RSP] as number;
  const lo = cpu.stackBits === 16 ? sp & 0xffff : sp;
  const hi = cpu.stackBits === 64 ? (w[RSP + 1] as number) : 0;
  return linearise(cpu, Segment.SS, lo, hi, 1, Access.Write) && touchByte(cpu);
}

const enter: Execute = (cpu, i) => {
  const w = cpu.i32;
  const bytes = i.operandBits >> 3;
  const sp = w[RSP] as number;
  const spHigh = w[RSP + 1] as number;
  const bp = w[RBP] as number;
  const bpHigh = w[RBP + 1] as number;
  if (pushFrame(cpu, i.immediate2 & 31, bytes)) {
    adjustStackPointer(cpu, -(i.immediate & 0xffff));
    if (stackIsWritable(cpu)) {
      // The frame pointer has the size of the stack pointer only as far as the operand size goes.
      w[RBP] = bp;
      w[RBP + 1] = bpHigh;
      return copy(cpu, RBP_AT, T3, i.operandBits);
    }
  }
  w[RSP] = sp;
  w[RSP + 1] = spHigh;
  w[RBP] = bp;
  w[RBP + 1] = bpHigh;
  return Next.Fault;
};

const leave: Execute = (cpu: Processor, i: Instruction) => {
  const w = cpu.i32;
  const bytes = i.operandBits >> 3;
  const hi = cpu.stackBits === 64 ? (w[RBP + 1] as number) : 0;
  if (!loadFrom(cpu, Segment.SS, frameOffset(cpu), hi, T0, bytes)) return Next.Fault;
  setStackPointer(cpu, w[RBP] as number, w[RBP + 1] as number);
  adjustStackPointer(cpu, bytes);
  return copy(cpu, RBP_AT, T0, i.operandBits);
};

export const PUSH_POP_ROWS: readonly OpcodeRow[] = [
  { opcode: '50 +r', mnemonic: 'PUSH', operands: 'Zv', execute: pushOperand, size: 'd64' },
  { opcode: '58 +r', mnemonic: 'POP', operands: 'Zv', execute: popRegister, size: 'd64' },
  { opcode: '68', mnemonic: 'PUSH', operands: 'Iz', execute: pushOperand, size: 'd64' },
  { opcode: '6A', mnemonic: 'PUSH', operands: 'Ibs', execute: pushOperand, size: 'd64' },
  { opcode: 'FF /6', mnemonic: 'PUSH', operands: 'Ev', execute: pushOperand, size: 'd64' },
  { opcode: '8F /0', mnemonic: 'POP', operands: 'Ev!', execute: popOperand, size: 'd64' },
  { opcode: '60', mnemonic: 'PUSHA/PUSHAD', operands: '', execute: pusha, mode: 'no64' },
  { opcode: '61', mnemonic: 'POPA/POPAD', operands: '', execute: popa, mode: 'no64' },
  { opcode: 'C8', mnemonic: 'ENTER', operands: 'Iw Ib2', execute: enter, size: 'd64' },
  { opcode: 'C9', mnemonic: 'LEAVE', operands: '', execute: leave, size: 'd64' },
];
