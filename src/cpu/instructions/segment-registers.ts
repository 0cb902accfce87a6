/** Segment registers (SDM vol. 2: MOV, PUSH, POP, LDS/LES/LFS/LGS/LSS). */
import { Attention } from '../attention.ts';
import { raise, Vector } from '../exceptions.ts';
import { type Execute, type Instruction, Next, Segment } from '../instruction.ts';
import { load } from '../memory-access.ts';
import type { OpcodeRow } from '../opcode-row.ts';
import { MEMORY_OPERAND, operandAddress } from '../operand-forms.ts';
import type { Processor } from '../processor.ts';
import { Register } from '../registers.ts';
import { loadSegment, selectorOf } from '../segment-load.ts';
import { adjustStackPointer, loadStack, storeStack } from '../stack.ts';
import { Access } from '../tlb.ts';

const BLOCKING_BY_STI = 2 * Register.blockingBySti;
const BLOCKING_BY_MOV_SS = 2 * Register.blockingByMovSs;
const T2 = 8 * Register.T2;
const T2_WORD = 2 * Register.T2;

/**
 * What ends a load of a segment register: MOV and POP of SS hold back interrupts and debug exceptions
 * until after the next instruction, unless that is so already (SDM vol. 3A §7.8.3).
 */
function loaded(cpu: Processor, segment: Segment): Next {
  if (segment !== Segment.SS) return Next.Sequential;
  const w = cpu.i32;
  if (w[BLOCKING_BY_MOV_SS] === 0 && w[BLOCKING_BY_STI] === 0) {
    w[BLOCKING_BY_MOV_SS] = 1;
    cpu.requestAttention(Attention.Blocking);
  }
  return Next.Lookup;
}

const isSegment = (number: number) => number <= Segment.GS;

/** ModRM.reg alone: REX.R is ignored (SDM vol. 2A §2.2.1.2). */
const segmentNumber = (i: Instruction) => (i.reg & 7) as Segment;

const movToSegment: Execute = (cpu, i) => {
  const segment = segmentNumber(i);
  if (!isSegment(segment) || segment === Segment.CS) return raise(cpu, Vector.UD);
  if (i.hasMemory && !(operandAddress(cpu, i, 2, Access.Read) && load(cpu, MEMORY_OPERAND, 2)))
    return Next.Fault;
  if (!loadSegment(cpu, segment, cpu.u16[i.s >> 1] as number)) return Next.Fault;
  return loaded(cpu, segment);
};

/** To a register the selector is zero-extended to the operand size. */
const movFromSegment: Execute = (cpu, i) => {
  const segment = segmentNumber(i);
  if (!isSegment(segment)) return raise(cpu, Vector.UD);
  const selector = selectorOf(cpu, segment);
  if (i.operandBits === 16 || i.hasMemory) cpu.u16[i.d >> 1] = selector;
  else {
    cpu.i32[i.d >> 2] = selector;
    cpu.i32[(i.d >> 2) + 1] = 0;
  }
  return Next.Sequential;
};

/** Of 32 bits only the selector is written (SDM vol. 2B, PUSH: 16-bit move); to 64 it is zero-extended. */
const pushSegment: Execute = (cpu, i) => {
  const bytes = i.operandBits >> 3;
  cpu.i32[T2_WORD] = selectorOf(cpu, i.d);
  cpu.i32[T2_WORD + 1] = 0;
  if (!storeStack(cpu, -bytes, T2, bytes === 4 ? 2 : bytes)) return Next.Fault;
  adjustStackPointer(cpu, -bytes);
  return Next.Sequential;
};

const popSegment: Execute = (cpu, i) => {
  const bytes = i.operandBits >> 3;
  const segment = i.d as Segment;
  if (!loadStack(cpu, 0, T2, bytes)) return Next.Fault;
  const selector = (cpu.i32[T2_WORD] as number) & 0xffff;
  // The stack pointer moves by the size that SS had before.
  const low = cpu.i32[2 * Register.RSP] as number;
  const high = cpu.i32[2 * Register.RSP + 1] as number;
  adjustStackPointer(cpu, bytes);
  if (loadSegment(cpu, segment, selector)) return loaded(cpu, segment);
  cpu.i32[2 * Register.RSP] = low;
  cpu.i32[2 * Register.RSP + 1] = high;
  return Next.Fault;
};

/** LDS and the like: offset to a register, selector to `segment`. */
function loadFarPointer(segment: Segment): Execute {
  return (cpu: Processor, i: Instruction) => {
    const bytes = i.operandBits >> 3;
    if (!operandAddress(cpu, i, bytes + 2, Access.Read) || !load(cpu, MEMORY_OPERAND, bytes + 2))
      return Next.Fault;
    const selector = cpu.u16[(MEMORY_OPERAND + bytes) >> 1] as number;
    if (!loadSegment(cpu, segment, selector)) return Next.Fault;
    const from = MEMORY_OPERAND >> 2;
    if (bytes === 2) cpu.u16[i.d >> 1] = cpu.u16[MEMORY_OPERAND >> 1] as number;
    else {
      cpu.i32[i.d >> 2] = cpu.i32[from] as number;
      cpu.i32[(i.d >> 2) + 1] = bytes === 8 ? (cpu.i32[from + 1] as number) : 0;
    }
    return segment === Segment.SS ? Next.Lookup : Next.Sequential;
  };
}

function pushPop(push: string, pop: string, operand: string, only?: 'no64'): OpcodeRow[] {
  const mode = only === undefined ? {} : { mode: only };
  const rows: OpcodeRow[] = [
    { opcode: push, mnemonic: 'PUSH', operands: operand, execute: pushSegment, size: 'd64', ...mode },
  ];
  if (pop !== '')
    rows.push({ opcode: pop, mnemonic: 'POP', operands: operand, execute: popSegment, size: 'd64', ...mode });
  return rows;
}

export const SEGMENT_REGISTER_ROWS: readonly OpcodeRow[] = [
  { opcode: '8C mod=3', mnemonic: 'MOV', operands: 'Ev Sw', execute: movFromSegment },
  { opcode: '8C mod!=3', mnemonic: 'MOV', operands: 'Ew= Sw', execute: movFromSegment },
  { opcode: '8E', mnemonic: 'MOV', operands: 'Sw Ew!', execute: movToSegment },
  ...pushPop('06', '07', 'ES', 'no64'),
  ...pushPop('0E', '', 'CS', 'no64'),
  ...pushPop('16', '17', 'SS', 'no64'),
  ...pushPop('1E', '1F', 'DS', 'no64'),
  ...pushPop('0F A0', '0F A1', 'FS'),
  ...pushPop('0F A8', '0F A9', 'GS'),
  {
    opcode: 'C4 mod!=3',
    mnemonic: 'LES',
    operands: 'Gv Mp!',
    execute: loadFarPointer(Segment.ES),
    mode: 'no64',
  },
  {
    opcode: 'C5 mod!=3',
    mnemonic: 'LDS',
    operands: 'Gv Mp!',
    execute: loadFarPointer(Segment.DS),
    mode: 'no64',
  },
  { opcode: '0F B2 mod!=3', mnemonic: 'LSS', operands: 'Gv Mp!', execute: loadFarPointer(Segment.SS) },
  { opcode: '0F B4 mod!=3', mnemonic: 'LFS', operands: 'Gv Mp!', execute: loadFarPointer(Segment.FS) },
  { opcode: '0F B5 mod!=3', mnemonic: 'LGS', operands: 'Gv Mp!', execute: loadFarPointer(Segment.GS) },
];
