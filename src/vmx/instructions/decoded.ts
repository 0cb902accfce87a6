/**
 * VMX instructions as the processor decodes them: operands from ModR/M, and what an outcome means for
 * the execution of the next instruction.
 */
import { raise, raiseWithCode, type Vector } from '../../cpu/exceptions.ts';
import { materialise } from '../../cpu/flags.ts';
import { type Instruction, Next } from '../../cpu/instruction.ts';
import { advance, retreat } from '../../cpu/instruction-pointer.ts';
import { VmxInstruction } from '../../cpu/intercept.ts';
import { load, store } from '../../cpu/memory-access.ts';
import { MEMORY_OPERAND, operandAddress } from '../../cpu/operand-forms.ts';
import type { Processor } from '../../cpu/processor.ts';
import { CHECKS_NEEDED, Register } from '../../cpu/registers.ts';
import { Access } from '../../cpu/tlb.ts';
import * as information from '../intercepts/instruction-information.ts';
import { fault, type Outcome } from '../outcome.ts';
import type { VmxUnit } from '../vmx-unit.ts';
import {
  type InstructionForm,
  type MemoryOperand,
  NO_OPERAND_FORM,
  REGISTER_FORM,
  type SourceOperand,
} from './operands.ts';
import { needsNoChecks } from './vmread-vmwrite.ts';

const T0 = Register.T0;

/** The fault that the last access raised. */
function raised(cpu: Processor): Outcome {
  const hasCode = cpu.i32[2 * Register.fault + 1] !== 0;
  return fault(
    cpu.i32[2 * Register.fault] as number,
    hasCode ? (cpu.i32[2 * Register.faultErrorCode] as number) : undefined,
  );
}

/** As `operandAddress`, while RIP is that of the instruction: RIP-relative operands start from the next one. */
function isAddressed(cpu: Processor, i: Instruction, bytes: number, access: Access): boolean {
  advance(cpu, i.length);
  const addressed = operandAddress(cpu, i, bytes, access);
  retreat(cpu, i.length);
  return addressed;
}

/** The operand of `bytes` bytes in memory, accessed when the instruction gets there. */
function inMemory(cpu: Processor, i: Instruction, bytes: number): MemoryOperand {
  if (!i.hasMemory) return REGISTER_FORM;
  return {
    kind: 'memory',
    load() {
      if (!isAddressed(cpu, i, bytes, Access.Read) || !load(cpu, MEMORY_OPERAND, bytes)) return raised(cpu);
      const low = cpu.quads[T0] as bigint;
      return bytes === 16 ? low | ((cpu.quads[T0 + 1] as bigint) << 64n) : low;
    },
  };
}

/** Stores `value` to the operand in memory; the fault that raises, if any. */
function storeInMemory(cpu: Processor, i: Instruction, value: bigint, bytes: number): Outcome | undefined {
  cpu.quads[T0] = value;
  return isAddressed(cpu, i, bytes, Access.Write) && store(cpu, MEMORY_OPERAND, bytes)
    ? undefined
    : raised(cpu);
}

/** Of instructions without operands, by length. */
const PLAIN_FORMS: readonly InstructionForm[] = Array.from({ length: 16 }, (_, length) => ({
  length,
  ...NO_OPERAND_FORM,
}));

/** What an exit would report; RIP is that of the next instruction. */
function formOf(cpu: Processor, instruction: VmxInstruction, i: Instruction): InstructionForm {
  let described = 0;
  if (instruction === VmxInstruction.VMREAD || instruction === VmxInstruction.VMWRITE) {
    described = information.vmreadVmwrite(i);
  } else if (instruction === VmxInstruction.INVEPT || instruction === VmxInstruction.INVVPID) {
    described = information.invalidation(i);
  } else if (i.hasMemory) described = information.memoryOperand(i);
  else return PLAIN_FORMS[i.length] as InstructionForm;
  return { length: i.length, displacement: information.displacement(cpu, i), information: described };
}

function outcomeOf(
  unit: VmxUnit,
  instruction: VmxInstruction,
  i: Instruction,
  form: InstructionForm,
): Outcome {
  const { cpu } = unit;
  const bytes = cpu.codeBits === 64 ? 8 : 4;
  switch (instruction) {
    case VmxInstruction.VMXON:
      return unit.vmxon(inMemory(cpu, i, 8), form);
    case VmxInstruction.VMXOFF:
      return unit.vmxoff(form);
    case VmxInstruction.VMCLEAR:
      return unit.vmclear(inMemory(cpu, i, 8), form);
    case VmxInstruction.VMPTRLD:
      return unit.vmptrld(inMemory(cpu, i, 8), form);
    case VmxInstruction.VMPTRST:
      return unit.vmptrst((pointer) => storeInMemory(cpu, i, pointer, 8), form);
    case VmxInstruction.VMREAD: {
      const encoding = cpu.quads[i.reg] as bigint;
      if (i.hasMemory) return unit.vmread(encoding, (value) => storeInMemory(cpu, i, value, bytes), form);
      const toRegister = (value: bigint) => {
        cpu.quads[i.rm] = value;
        return undefined;
      };
      return unit.vmread(encoding, toRegister, form);
    }
    case VmxInstruction.VMWRITE: {
      const source = i.hasMemory ? (inMemory(cpu, i, bytes) as SourceOperand) : (cpu.quads[i.rm] as bigint);
      return unit.vmwrite(cpu.quads[i.reg] as bigint, source, form);
    }
    case VmxInstruction.VMLAUNCH:
      return unit.enter('VMLAUNCH', form);
    case VmxInstruction.VMRESUME:
      return unit.enter('VMRESUME', form);
    case VmxInstruction.VMCALL:
      return unit.vmcall(form);
    case VmxInstruction.VMFUNC:
      return unit.vmfunc(form);
    case VmxInstruction.INVEPT:
      return unit.invept(cpu.quads[i.reg] as bigint, inMemory(cpu, i, 16), form);
    case VmxInstruction.INVVPID:
      return unit.invvpid(cpu.quads[i.reg] as bigint, inMemory(cpu, i, 16), form);
  }
}

/** Executes a decoded VMX instruction. */
export function executeDecoded(unit: VmxUnit, instruction: VmxInstruction, i: Instruction): Next {
  const { cpu } = unit;
  if (instruction === VmxInstruction.VMREAD || instruction === VmxInstruction.VMWRITE) {
    if (!i.hasMemory && (cpu.i32[CHECKS_NEEDED] === 0 || needsNoChecks(unit))) {
      // Between registers, where the checks pass, nothing can fault or exit.
      materialise(cpu);
      if (instruction === VmxInstruction.VMREAD) unit.vmreadRegister(i.reg, i.rm);
      else unit.vmwriteRegister(i.reg, i.rm);
      return Next.Sequential;
    }
    if (!cpu.inTime) return Next.OutOfTime;
  }
  materialise(cpu);
  const form = formOf(cpu, instruction, i);
  // A VM exit saves the RIP of the instruction.
  retreat(cpu, i.length);
  const outcome = outcomeOf(unit, instruction, i, form);
  switch (outcome.kind) {
    case 'VMsucceed':
    case 'VMfailInvalid':
    case 'VMfailValid':
      advance(cpu, i.length);
      return Next.Sequential;
    case 'fault':
      advance(cpu, i.length);
      return outcome.errorCode === undefined
        ? raise(cpu, outcome.vector as Vector)
        : raiseWithCode(cpu, outcome.vector as Vector, outcome.errorCode);
    default:
      return Next.Settled;
  }
}
