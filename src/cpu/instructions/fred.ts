/** Instructions of FRED (SDM vol. 2A: ERETS, ERETU, LKGS). */
import type { CpuidFeatures } from '../cpuid.ts';
import { raise, Vector } from '../exceptions.ts';
import { returnToSupervisor, returnToUser } from '../fred/event-return.ts';
import { type Execute, Next, Segment } from '../instruction.ts';
import { load } from '../memory-access.ts';
import type { OpcodeRow } from '../opcode-row.ts';
import { MEMORY_OPERAND, operandAddress } from '../operand-forms.ts';
import { Register } from '../registers.ts';
import { loadSegment } from '../segment-load.ts';
import { Access } from '../tlb.ts';

const GS_BASE = 2 * Register['GS.base'];
const KERNEL_GS_BASE = 2 * Register.IA32_KERNEL_GS_BASE;

/** Loads GS as MOV does, but for its base, which goes to IA32_KERNEL_GS_BASE. */
const lkgs: Execute = (cpu, i) => {
  if (cpu.cpl !== 0) return raise(cpu, Vector.UD);
  if (i.hasMemory && !(operandAddress(cpu, i, 2, Access.Read) && load(cpu, MEMORY_OPERAND, 2)))
    return Next.Fault;
  const w = cpu.i32;
  const low = w[GS_BASE] as number;
  const high = w[GS_BASE + 1] as number;
  if (!loadSegment(cpu, Segment.GS, cpu.u16[i.d >> 1] as number)) return Next.Fault;
  w[KERNEL_GS_BASE] = w[GS_BASE] as number;
  w[KERNEL_GS_BASE + 1] = w[GS_BASE + 1] as number;
  w[GS_BASE] = low;
  w[GS_BASE + 1] = high;
  cpu.stateChanged();
  return Next.Lookup;
};

const returns = { operands: '', mode: 'only64', ends: true, feature: (f: CpuidFeatures) => f.fred } as const;

export const FRED_ROWS: readonly OpcodeRow[] = [
  {
    opcode: 'F2 0F 00 /6',
    mnemonic: 'LKGS',
    operands: 'Ew!',
    execute: lkgs,
    mode: 'only64',
    feature: (f) => f.lkgs,
  },
  { opcode: 'F2 0F 01 /1 mod=3 rm=2', mnemonic: 'ERETS', execute: returnToSupervisor, ...returns },
  { opcode: 'F3 0F 01 /1 mod=3 rm=2', mnemonic: 'ERETU', execute: returnToUser, ...returns },
];
