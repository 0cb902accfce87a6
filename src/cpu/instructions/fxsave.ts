/** FXSAVE, FXRSTOR, LDMXCSR, STMXCSR (SDM vol. 2; vol. 1 §10.5). */
import { raiseWithCode, Vector } from '../exceptions.ts';
import { simdAvailable, x87Available } from '../float-availability.ts';
import {
  hasValidMxcsr,
  LEGACY_BYTES,
  loadImage,
  MXCSR_MASK,
  restoreMxcsr,
  restoreX87,
  restoreXmm,
  saveMxcsr,
  saveX87,
  saveXmm,
  storeImage,
  xmmEnd,
} from '../float-state-image.ts';
import { type Execute, type Instruction, Next } from '../instruction.ts';
import { probeStore } from '../memory-access.ts';
import type { OpcodeRow } from '../opcode-row.ts';
import { operandAddress } from '../operand-forms.ts';
import type { Processor } from '../processor.ts';
import { Register } from '../registers.ts';
import { Access } from '../tlb.ts';

const LINEAR = 2 * Register.linear;
const MXCSR = 2 * Register.MXCSR;

/** The address of the 512 bytes, which have to be aligned to 16. */
function areaAddress(cpu: Processor, i: Instruction, access: Access): boolean {
  if (!operandAddress(cpu, i, LEGACY_BYTES, access)) return false;
  if (((cpu.i32[LINEAR] as number) & 15) === 0) return true;
  raiseWithCode(cpu, Vector.GP, 0);
  return false;
}

/** CR4.OSFXSR does not matter: the SSE state is always there. */
const fxsave: Execute = (cpu, i) => {
  if (!areaAddress(cpu, i, Access.Write) || !probeStore(cpu, LEGACY_BYTES)) return Next.Fault;
  saveX87(cpu, i.operandBits === 64);
  saveMxcsr(cpu);
  saveXmm(cpu);
  storeImage(cpu, 0, xmmEnd(cpu));
  return Next.Sequential;
};

const fxrstor: Execute = (cpu, i) => {
  if (!areaAddress(cpu, i, Access.Read) || !loadImage(cpu, 0, LEGACY_BYTES)) return Next.Fault;
  if (!hasValidMxcsr()) return raiseWithCode(cpu, Vector.GP, 0);
  restoreX87(cpu, i.operandBits === 64);
  restoreMxcsr(cpu);
  restoreXmm(cpu);
  return Next.Sequential;
};

const ldmxcsr: Execute = (cpu, i) => {
  const value = cpu.i32[i.d >> 2] as number;
  if ((value & ~MXCSR_MASK) !== 0) return raiseWithCode(cpu, Vector.GP, 0);
  cpu.i32[MXCSR] = value;
  return Next.Sequential;
};

const stmxcsr: Execute = (cpu, i) => {
  cpu.i32[i.d >> 2] = cpu.i32[MXCSR] as number;
  return Next.Sequential;
};

export const FXSAVE_ROWS: readonly OpcodeRow[] = [
  { opcode: 'NP 0F AE /0 mod!=3', mnemonic: 'FXSAVE', operands: 'M', execute: fxsave, guard: x87Available },
  { opcode: 'NP 0F AE /1 mod!=3', mnemonic: 'FXRSTOR', operands: 'M', execute: fxrstor, guard: x87Available },
  {
    opcode: 'NP 0F AE /2 mod!=3',
    mnemonic: 'LDMXCSR',
    operands: 'Md',
    execute: ldmxcsr,
    guard: simdAvailable,
  },
  {
    opcode: 'NP 0F AE /3 mod!=3',
    mnemonic: 'STMXCSR',
    operands: 'Md=',
    execute: stmxcsr,
    guard: simdAvailable,
  },
];
