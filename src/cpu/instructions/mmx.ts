/** Moves of MMX registers, and EMMS (SDM vol. 2: MOVD/MOVQ, MOVNTQ, MASKMOVQ, EMMS). */
import { mmxAvailable } from '../float-availability.ts';
import { type Execute, type Instruction, Next } from '../instruction.ts';
import { store } from '../memory-access.ts';
import { enterMmx, wroteMmx } from '../mmx-state.ts';
import type { OpcodeRow } from '../opcode-row.ts';
import { operandAddress } from '../operand-forms.ts';
import type { Processor } from '../processor.ts';
import { Register } from '../registers.ts';
import { Access } from '../tlb.ts';
import { storeMasked } from './masked-store.ts';
import { copy64, toGeneral } from './vector-move.ts';

const FTW = 2 * Register.FTW;
const ALL_EMPTY = 0xffff;

/** The store may fault: x87 state is changed only then. */
function storeMmx(cpu: Processor, i: Instruction, bytes: number): Next {
  if (!operandAddress(cpu, i, bytes, Access.Write) || !store(cpu, i.s, bytes)) return Next.Fault;
  enterMmx(cpu);
  return Next.Sequential;
}

const fromGeneral: Execute = (cpu, i) => {
  const w = cpu.i32;
  const high = i.operandBits === 64 ? (w[(i.s >> 2) + 1] as number) : 0;
  w[i.d >> 2] = w[i.s >> 2] as number;
  w[(i.d >> 2) + 1] = high;
  enterMmx(cpu);
  return wroteMmx(cpu, i.d);
};

const toGeneralOrMemory: Execute = (cpu, i) => {
  if (i.hasMemory) return storeMmx(cpu, i, i.operandBits === 64 ? 8 : 4);
  enterMmx(cpu);
  return toGeneral(cpu, i);
};

const load: Execute = (cpu, i) => {
  copy64(cpu, i.d, i.s);
  enterMmx(cpu);
  return wroteMmx(cpu, i.d);
};

const toRegisterOrMemory: Execute = (cpu, i) => {
  if (i.hasMemory) return storeMmx(cpu, i, 8);
  return load(cpu, i);
};

const maskmovq: Execute = (cpu, i) => {
  const next = storeMasked(cpu, i, 8);
  if (next === Next.Sequential) enterMmx(cpu);
  return next;
};

const emms: Execute = (cpu) => {
  enterMmx(cpu);
  cpu.i32[FTW] = ALL_EMPTY;
  return Next.Sequential;
};

const row = (opcode: string, mnemonic: string, operands: string, execute: Execute): OpcodeRow => ({
  opcode,
  mnemonic,
  operands,
  execute,
  guard: mmxAvailable,
});

export const MMX_ROWS: readonly OpcodeRow[] = [
  row('NP 0F 6E', 'MOVD', 'Pq Ey', fromGeneral),
  row('NP 0F 7E', 'MOVD', 'Ey! Pq', toGeneralOrMemory),
  row('NP 0F 6F', 'MOVQ', 'Pq Qq', load),
  row('NP 0F 7F', 'MOVQ', 'Qq! Pq', toRegisterOrMemory),
  row('NP 0F E7 mod!=3', 'MOVNTQ', 'Mq! Pq', toRegisterOrMemory),
  row('NP 0F F7 mod=3', 'MASKMOVQ', 'Pq Nq', maskmovq),
  row('NP 0F 77', 'EMMS', '', emms),
];
