/**
 * Lists of MSRs (SDM vol. 2: RDMSRLIST, WRMSRLIST): RSI points to their indices, RDI to their values, and RCX
 * has a bit for each entry that is still to come. One entry is one iteration.
 */
import { linearise } from '../addressing.ts';
import { raise, raiseWithCode, Vector } from '../exceptions.ts';
import { type Execute, type Instruction, Next, Segment } from '../instruction.ts';
import { Enabling, Intercept, intercepted, isEnabled } from '../intercept.ts';
import { load, store } from '../memory-access.ts';
import type { OpcodeRow } from '../opcode-row.ts';
import type { Processor } from '../processor.ts';
import { Register } from '../registers.ts';
import { Access } from '../tlb.ts';
import { msrForSoftware, writeMsrForSoftware } from './msr.ts';

const { RCX, RSI, RDI, T2, T3 } = Register;
const MASK = 2 * RCX;
const INDEX = 2 * T3;
const VALUE = 8 * T2;

/** Number of the first entry of the mask, which is not empty. */
function firstEntry(cpu: Processor): number {
  const low = cpu.i32[MASK] as number;
  const half = low !== 0 ? low : (cpu.i32[MASK + 1] as number);
  return (low !== 0 ? 31 : 63) - Math.clz32(half & -half);
}

/** The address of `entry` in the table that `register` points to. */
function entryAddress(cpu: Processor, register: number, entry: number, access: Access): boolean {
  const address = (cpu.quads[register] as bigint) + BigInt(8 * entry);
  const lo = Number(BigInt.asIntN(32, address));
  const hi = Number(BigInt.asIntN(32, address >> 32n));
  return linearise(cpu, Segment.DS, lo, hi, 8, access);
}

const isMisaligned = (cpu: Processor) =>
  (((cpu.i32[2 * RSI] as number) | (cpu.i32[2 * RDI] as number)) & 7) !== 0;

/** The entry is done: the instruction is, or goes on with the next. */
function entryDone(cpu: Processor, entry: number, next: Next): Next {
  const word = MASK + (entry >>> 5);
  cpu.i32[word] = (cpu.i32[word] as number) & ~(1 << (entry & 31));
  return ((cpu.i32[MASK] as number) | (cpu.i32[MASK + 1] as number)) === 0 ? next : Next.Again;
}

/** Of a list: what comes before its first entry, then `execute` for the entry that is next. */
function list(
  intercept: Intercept,
  execute: (cpu: Processor, i: Instruction, entry: number, index: number) => Next,
): Execute {
  return (cpu, i) => {
    if (!isEnabled(cpu, Enabling.MSR_LISTS)) return raise(cpu, Vector.UD);
    if (cpu.cpl !== 0) return raiseWithCode(cpu, Vector.GP, 0);
    if (intercepted(cpu, i, intercept)) return Next.VmExit;
    if (isMisaligned(cpu)) return raiseWithCode(cpu, Vector.GP, 0);
    if (((cpu.i32[MASK] as number) | (cpu.i32[MASK + 1] as number)) === 0) return Next.Sequential;
    const entry = firstEntry(cpu);
    if (!entryAddress(cpu, RSI, entry, Access.Read) || !load(cpu, 8 * T3, 8)) return Next.Fault;
    if (cpu.i32[INDEX + 1] !== 0) return raiseWithCode(cpu, Vector.GP, 0);
    return execute(cpu, i, entry, cpu.words[INDEX] as number);
  };
}

const rdmsrlist = list(Intercept.RDMSRLIST, (cpu, i, entry, index) => {
  if (intercepted(cpu, i, Intercept.RDMSRLIST, index, 1)) return Next.VmExit;
  const value = msrForSoftware(cpu, index);
  if (value === undefined) return raiseWithCode(cpu, Vector.GP, 0);
  cpu.quads[T2] = value;
  if (!entryAddress(cpu, RDI, entry, Access.Write) || !store(cpu, VALUE, 8)) return Next.Fault;
  return entryDone(cpu, entry, Next.Sequential);
});

const wrmsrlist = list(Intercept.WRMSRLIST, (cpu, i, entry, index) => {
  if (!entryAddress(cpu, RDI, entry, Access.Read) || !load(cpu, VALUE, 8)) return Next.Fault;
  if (intercepted(cpu, i, Intercept.WRMSRLIST, index, 1)) return Next.VmExit;
  if (!writeMsrForSoftware(cpu, index, cpu.quads[T2] as bigint)) return raiseWithCode(cpu, Vector.GP, 0);
  return entryDone(cpu, entry, Next.Lookup);
});

function row(prefix: string, mnemonic: string, execute: Execute): OpcodeRow {
  return {
    opcode: `${prefix} 0F 01 /0 mod=3 rm=6`,
    mnemonic,
    operands: '',
    execute,
    mode: 'only64',
    begins: true,
    ends: true,
    feature: (f) => f.msrList,
  };
}

export const MSR_LIST_ROWS: readonly OpcodeRow[] = [
  row('F2', 'RDMSRLIST', rdmsrlist),
  row('F3', 'WRMSRLIST', wrmsrlist),
];
