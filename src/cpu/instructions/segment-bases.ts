/** Bases of FS and GS in 64-bit mode (SDM vol. 2: RDFSBASE/RDGSBASE, WRFSBASE/WRGSBASE, SWAPGS). */
import { isCanonicalPair } from '../addressing.ts';
import { raise, raiseWithCode, Vector } from '../exceptions.ts';
import { exchangeGsBases, usesFred } from '../fred/fred-transitions.ts';
import { type Execute, Next } from '../instruction.ts';
import type { OpcodeRow } from '../opcode-row.ts';
import type { Processor } from '../processor.ts';
import { CR4, Register } from '../registers.ts';

const CR4_LOW = 2 * Register.CR4;
const FS_BASE = 2 * Register['FS.base'];
const GS_BASE = 2 * Register['GS.base'];

function isEnabled(cpu: Processor): boolean {
  return ((cpu.i32[CR4_LOW] as number) & (1 << CR4.FSGSBASE)) !== 0;
}

function readBase(base: number): Execute {
  return (cpu, i) => {
    if (!isEnabled(cpu)) return raise(cpu, Vector.UD);
    const w = cpu.i32;
    w[i.d >> 2] = w[base] as number;
    w[(i.d >> 2) + 1] = i.operandBits === 64 ? (w[base + 1] as number) : 0;
    return Next.Sequential;
  };
}

function writeBase(base: number): Execute {
  return (cpu, i) => {
    if (!isEnabled(cpu)) return raise(cpu, Vector.UD);
    const w = cpu.i32;
    const high = i.operandBits === 64 ? (w[(i.d >> 2) + 1] as number) : 0;
    if (!isCanonicalPair(cpu, high)) return raiseWithCode(cpu, Vector.GP, 0);
    w[base] = w[i.d >> 2] as number;
    w[base + 1] = high;
    cpu.stateChanged();
    return Next.Sequential;
  };
}

const swapgs: Execute = (cpu) => {
  if (usesFred(cpu)) return raise(cpu, Vector.UD);
  if (cpu.cpl !== 0) return raiseWithCode(cpu, Vector.GP, 0);
  exchangeGsBases(cpu);
  return Next.Sequential;
};

const only64 = { mode: 'only64' } as const;

export const SEGMENT_BASE_ROWS: readonly OpcodeRow[] = [
  {
    opcode: 'F3 0F AE /0 mod=3',
    mnemonic: 'RDFSBASE',
    operands: 'Ry',
    execute: readBase(FS_BASE),
    ...only64,
  },
  {
    opcode: 'F3 0F AE /1 mod=3',
    mnemonic: 'RDGSBASE',
    operands: 'Ry',
    execute: readBase(GS_BASE),
    ...only64,
  },
  {
    opcode: 'F3 0F AE /2 mod=3',
    mnemonic: 'WRFSBASE',
    operands: 'Ry',
    execute: writeBase(FS_BASE),
    ...only64,
  },
  {
    opcode: 'F3 0F AE /3 mod=3',
    mnemonic: 'WRGSBASE',
    operands: 'Ry',
    execute: writeBase(GS_BASE),
    ...only64,
  },
  { opcode: '0F 01 /7 mod=3 rm=0', mnemonic: 'SWAPGS', operands: '', execute: swapgs, ...only64 },
];
