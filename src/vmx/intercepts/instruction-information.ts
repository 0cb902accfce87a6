/**
 * The VM-exit instruction-information field and exit qualifications that describe operands, from a
 * decoded instruction (SDM §30.2.1, §30.2.5, Tables 30-8 to 30-15). Registers and segments are
 * numbered as everywhere (qualifications.ts).
 */

import type { Instruction } from '../../cpu/instruction.ts';
import { Mode } from '../../cpu/mode.ts';
import type { Processor } from '../../cpu/processor.ts';
import { Register } from '../../cpu/registers.ts';

const INDEX_INVALID = 1 << 22;
const BASE_INVALID = 1 << 27;
const REGISTER_FORM = 1 << 10;
const ADDRESS_SIZES: Readonly<Record<number, number>> = { 16: 0, 32: 1, 64: 2 };
const OPERAND_SIZES = ADDRESS_SIZES;
const RIP = 8 * Register.RIP;

/** Scaling, address size, segment, index and base of the memory operand. */
export function memoryOperand(i: Instruction): number {
  const index = i.hasIndex ? i.scale | ((i.index >> 3) << 18) : INDEX_INVALID;
  const base = i.hasBase ? (i.base >> 3) << 23 : BASE_INVALID;
  return ((ADDRESS_SIZES[i.addressBits] as number) << 7) | (i.segment << 15) | index | base;
}

/** Memory operand, or register 1 with the register-form bit. */
function registerOrMemory(i: Instruction): number {
  return i.hasMemory ? memoryOperand(i) : REGISTER_FORM | (i.rm << 3);
}

/** Memory operand and the register that holds the type (Table 30-9). */
export function invalidation(i: Instruction): number {
  return (memoryOperand(i) | (i.reg << 28)) >>> 0;
}

/** Register or memory, and the register that holds the field encoding (Table 30-15). */
export function vmreadVmwrite(i: Instruction): number {
  return (registerOrMemory(i) | (i.reg << 28)) >>> 0;
}

/** Instructions as Tables 30-10 and 30-11 number them. */
const GDTR_IDTR = ['SGDT', 'SIDT', 'LGDT', 'LIDT'];
const LDTR_TR = ['SLDT', 'STR', 'LLDT', 'LTR'];

/** Table 30-10. */
export function gdtrIdtr(cpu: Processor, i: Instruction): number {
  const operandSize = cpu.mode !== Mode.Bit64 && i.operandBits === 32 ? 1 << 11 : 0;
  return memoryOperand(i) | operandSize | (GDTR_IDTR.indexOf(i.row.mnemonic) << 28);
}

/** Table 30-11. */
export function ldtrTr(i: Instruction): number {
  return registerOrMemory(i) | (LDTR_TR.indexOf(i.row.mnemonic) << 28);
}

/** Table 30-12: RDRAND and RDSEED. */
export function random(i: Instruction): number {
  return (i.rm << 3) | ((OPERAND_SIZES[i.operandBits] as number) << 11);
}

/** Table 30-13: TPAUSE and UMWAIT. */
export function waiting(i: Instruction): number {
  return i.rm << 3;
}

/** Table 30-8: INS, whose segment is always ES and not reported, and OUTS. */
export function stringIo(i: Instruction): number {
  const size = (ADDRESS_SIZES[i.addressBits] as number) << 7;
  return i.row.mnemonic.startsWith('INS') ? size : size | (i.segment << 15);
}

/**
 * Displacement of the memory operand, sign-extended; 0 for a register operand. With RIP-relative
 * addressing the qualification is the displacement added to the RIP of the next instruction (SDM
 * §30.2.1), which is what RIP holds while an instruction executes.
 */
export function displacement(cpu: Processor, i: Instruction): bigint {
  if (!i.hasMemory) return 0n;
  const value = (BigInt(i.displacementHigh) << 32n) | BigInt(i.displacement >>> 0);
  const relative = i.base === RIP ? (cpu.quads[Register.RIP] as bigint) : 0n;
  return BigInt.asUintN(64, value + relative);
}
