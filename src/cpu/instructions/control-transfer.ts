/** Near control transfers (SDM vol. 2: JMP, Jcc, CALL, RET, LOOP, JCXZ). */
import { isCanonicalPair } from '../addressing.ts';
import { raiseWithCode, Vector } from '../exceptions.ts';
import { condition } from '../flags.ts';
import { type Execute, type Instruction, Next } from '../instruction.ts';
import { Mode } from '../mode.ts';
import type { OpcodeRow } from '../opcode-row.ts';
import type { Processor } from '../processor.ts';
import { Register } from '../registers.ts';
import { CONDITIONS } from './move.ts';

const RIP = 2 * Register.RIP;
const CS_LIMIT = 2 * Register['CS.limit'];

/**
 * RIP := `hi`:`lo` truncated to the operand size. #GP(0) if that is not canonical or beyond the limit
 * of CS; RIP then is unchanged.
 */
export function branchTo(cpu: Processor, i: Instruction, lo: number, hi: number): Next {
  const w = cpu.i32;
  if (cpu.mode === Mode.Bit64) {
    if (!isCanonicalPair(cpu, hi)) return raiseWithCode(cpu, Vector.GP, 0);
    w[RIP] = lo;
    w[RIP + 1] = hi;
    return Next.Lookup;
  }
  const target = i.operandBits === 16 ? lo & 0xffff : lo;
  if (target >>> 0 > (w[CS_LIMIT] as number) >>> 0) return raiseWithCode(cpu, Vector.GP, 0);
  w[RIP] = target;
  return Next.Lookup;
}

/** Branches by the displacement in the instruction. */
export function branchBy(cpu: Processor, i: Instruction): Next {
  const w = cpu.i32;
  const lo = ((w[RIP] as number) + i.immediate) | 0;
  const sum = ((w[RIP] as number) >>> 0) + (i.immediate >>> 0);
  const hi = ((w[RIP + 1] as number) + i.immediateHigh + (sum > 0xffff_ffff ? 1 : 0)) | 0;
  return branchTo(cpu, i, lo, hi);
}

function jcc(code: number): Execute {
  return (cpu, i) => (condition(cpu, code) ? branchBy(cpu, i) : Next.Sequential);
}

const digit = (n: number) => n.toString(16).toUpperCase();

export const CONTROL_TRANSFER_ROWS: readonly OpcodeRow[] = [
  { opcode: 'EB', mnemonic: 'JMP', operands: 'Jb', execute: branchBy, size: 'f64', ends: true },
  { opcode: 'E9', mnemonic: 'JMP', operands: 'Jz', execute: branchBy, size: 'f64', ends: true },
  ...CONDITIONS.flatMap((suffix, code): OpcodeRow[] => [
    { opcode: `7${digit(code)}`, mnemonic: `J${suffix}`, operands: 'Jb', execute: jcc(code), size: 'f64' },
    { opcode: `0F 8${digit(code)}`, mnemonic: `J${suffix}`, operands: 'Jz', execute: jcc(code), size: 'f64' },
  ]),
];
