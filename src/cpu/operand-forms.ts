/**
 * How operands get to an operation and back: an operand in memory through T0, an immediate through
 * T1. One function a combination, chosen when the instruction is decoded.
 */
import { effectiveAddress, linearise } from './addressing.ts';
import { raise, raiseWithCode, Vector } from './exceptions.ts';
import type { Execute, Instruction } from './instruction.ts';
import { Next } from './instruction.ts';
import { load, probeStore, store } from './memory-access.ts';
import { Mode } from './mode.ts';
import type { Processor } from './processor.ts';
import { Register } from './registers.ts';
import { Access } from './tlb.ts';

const LINEAR = 2 * Register.linear;
const T1 = 2 * Register.T1;
/** Byte offset of the temporary that stands for an operand in memory. */
export const MEMORY_OPERAND = 8 * Register.T0;
/** Byte offset of the temporary that stands for the operand of a string instruction at ES:RDI. */
export const DESTINATION_OPERAND = 8 * Register.T2;
/** Byte offset of the temporary that holds an immediate. */
export const IMMEDIATE_OPERAND = 8 * Register.T1;

/** What an instruction does with its operand in memory. */
export type MemoryUse = 'none' | 'read' | 'modify' | 'write' | 'readAligned' | 'writeAligned';

/** The linear address of the memory operand into the slot `linear`, checked for `bytes` bytes. */
export function operandAddress(cpu: Processor, i: Instruction, bytes: number, access: Access): boolean {
  effectiveAddress(cpu, i);
  const w = cpu.i32;
  return linearise(cpu, i.segment, w[LINEAR] as number, w[LINEAR + 1] as number, bytes, access);
}

function withImmediate(cpu: Processor, i: Instruction): Next {
  cpu.i32[T1] = i.immediate;
  cpu.i32[T1 + 1] = i.immediateHigh;
  return i.operate(cpu, i);
}

function reading(cpu: Processor, i: Instruction): Next {
  if (!operandAddress(cpu, i, i.memoryBytes, Access.Read)) return Next.Fault;
  if (!load(cpu, MEMORY_OPERAND, i.memoryBytes)) return Next.Fault;
  return i.operate(cpu, i);
}

function readingWithImmediate(cpu: Processor, i: Instruction): Next {
  if (!operandAddress(cpu, i, i.memoryBytes, Access.Read)) return Next.Fault;
  if (!load(cpu, MEMORY_OPERAND, i.memoryBytes)) return Next.Fault;
  return withImmediate(cpu, i);
}

/** As {@link operandAddress} of 16 bytes, which have to be aligned. */
function alignedAddress(cpu: Processor, i: Instruction, access: Access): boolean {
  if (!operandAddress(cpu, i, 16, access)) return false;
  if (((cpu.i32[LINEAR] as number) & 15) === 0) return true;
  raiseWithCode(cpu, Vector.GP, 0);
  return false;
}

function readingAligned(cpu: Processor, i: Instruction): Next {
  if (!alignedAddress(cpu, i, Access.Read)) return Next.Fault;
  if (!load(cpu, MEMORY_OPERAND, 16)) return Next.Fault;
  return i.operate(cpu, i);
}

function readingAlignedWithImmediate(cpu: Processor, i: Instruction): Next {
  if (!alignedAddress(cpu, i, Access.Read)) return Next.Fault;
  if (!load(cpu, MEMORY_OPERAND, 16)) return Next.Fault;
  return withImmediate(cpu, i);
}

function writingAligned(cpu: Processor, i: Instruction): Next {
  const next = i.operate(cpu, i);
  if (next !== Next.Sequential) return next;
  if (!alignedAddress(cpu, i, Access.Write)) return Next.Fault;
  return store(cpu, MEMORY_OPERAND, 16) ? next : Next.Fault;
}

/** The store cannot fault after the probe, so that the operation may have changed registers and flags. */
function modifyingBy(operate: Execute): Execute {
  return (cpu, i) => {
    if (!operandAddress(cpu, i, i.memoryBytes, Access.Write)) return Next.Fault;
    if (!probeStore(cpu, i.memoryBytes) || !load(cpu, MEMORY_OPERAND, i.memoryBytes)) return Next.Fault;
    const next = operate(cpu, i);
    if (next !== Next.Sequential) return next;
    store(cpu, MEMORY_OPERAND, i.memoryBytes);
    return next;
  };
}

const modifying = modifyingBy((cpu, i) => i.operate(cpu, i));
const modifyingWithImmediate = modifyingBy(withImmediate);

/** Operations that only write memory change nothing else: the store may still fault. */
function writing(cpu: Processor, i: Instruction): Next {
  const next = i.operate(cpu, i);
  if (next !== Next.Sequential) return next;
  if (!operandAddress(cpu, i, i.memoryBytes, Access.Write)) return Next.Fault;
  return store(cpu, MEMORY_OPERAND, i.memoryBytes) ? next : Next.Fault;
}

function writingWithImmediate(cpu: Processor, i: Instruction): Next {
  cpu.i32[T1] = i.immediate;
  cpu.i32[T1 + 1] = i.immediateHigh;
  return writing(cpu, i);
}

const FORMS: Record<MemoryUse, readonly [Execute | undefined, Execute]> = {
  none: [undefined, withImmediate],
  read: [reading, readingWithImmediate],
  modify: [modifying, modifyingWithImmediate],
  write: [writing, writingWithImmediate],
  readAligned: [readingAligned, readingAlignedWithImmediate],
  writeAligned: [writingAligned, writingWithImmediate],
};

function guarded(guard: Execute, form: Execute): Execute {
  return (cpu, i) => {
    const next = guard(cpu, i);
    return next === Next.Sequential ? form(cpu, i) : next;
  };
}

/** Forms behind a guard, by guard and form: as many as there are rows. */
const GUARDED = new Map<Execute, Map<Execute, Execute>>();

/** `form` behind `guard`. */
export function behind(guard: Execute, form: Execute): Execute {
  const forms = GUARDED.get(guard) ?? new Map<Execute, Execute>();
  GUARDED.set(guard, forms);
  const known = forms.get(form) ?? guarded(guard, form);
  forms.set(form, known);
  return known;
}

/** What runs an instruction whose operation is `operate`. */
export function formOf(operate: Execute, use: MemoryUse, hasImmediate: boolean): Execute {
  return FORMS[use][hasImmediate ? 1 : 0] ?? operate;
}

/** `run`, but #UD before anything else in real-address and virtual-8086 mode. */
export function onlyInProtectedMode(run: Execute): Execute {
  return (cpu, i) =>
    cpu.mode === Mode.Real || cpu.mode === Mode.Virtual8086 ? raise(cpu, Vector.UD) : run(cpu, i);
}
