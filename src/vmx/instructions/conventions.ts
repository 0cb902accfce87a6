/**
 * The conventions of VMX instructions (SDM §33.2): how each ends, and the tests they share. Every
 * instruction is a function of the processor and its operands that returns an {@link Outcome}.
 */
import { fitsWidth, isAligned } from '../../bits/address.ts';
import { Mode } from '../../cpu/processor.ts';
import { ARITHMETIC_FLAGS, Register } from '../../cpu/registers.ts';
import { Field } from '../../vmcs/fields.ts';
import type { InstructionError } from '../instruction-errors.ts';
import { type Outcome, VM_FAIL_INVALID, VM_SUCCEED, vmFailValid } from '../outcome.ts';
import { Operation, tmeReduction, type VmxProcessor } from '../vmx-state.ts';

const RFLAGS_LOW = 2 * Register.RFLAGS;
const CF = 0x1;
const ZF = 0x40;

/** CF, PF, AF, ZF, SF, OF := 0. */
export function vmSucceed(p: VmxProcessor): Outcome {
  p.cpu.words[RFLAGS_LOW] = (p.cpu.words[RFLAGS_LOW] as number) & ~ARITHMETIC_FLAGS;
  return VM_SUCCEED;
}

/** CF := 1, the others 0; no error number is stored. */
export function vmFailInvalid(p: VmxProcessor): Outcome {
  p.cpu.words[RFLAGS_LOW] = ((p.cpu.words[RFLAGS_LOW] as number) & ~ARITHMETIC_FLAGS) | CF;
  return VM_FAIL_INVALID;
}

/** VMfailValid with `error` if there is a current VMCS, otherwise VMfailInvalid. */
export function vmFail(p: VmxProcessor, error: InstructionError): Outcome {
  const { current } = p.vmx;
  if (current === undefined) return vmFailInvalid(p);
  p.active.resident(current);
  p.cpu.words[RFLAGS_LOW] = ((p.cpu.words[RFLAGS_LOW] as number) & ~ARITHMETIC_FLAGS) | ZF;
  current.words[2 * Field.vmInstructionError] = error;
  current.fieldSaved(Field.vmInstructionError);
  p.active.fieldChanged(current, Field.vmInstructionError);
  return vmFailValid(error);
}

/** Not in VMX operation, or not in protected or 64-bit mode: #UD for nearly all VMX instructions. */
export function isUndefined(p: VmxProcessor): boolean {
  return p.vmx.operation === Operation.Outside || isUndefinedInMode(p);
}

/** CR0.PE = 0, RFLAGS.VM = 1, or compatibility mode. */
export function isUndefinedInMode(p: VmxProcessor): boolean {
  return p.cpu.mode !== Mode.Bit64 && p.cpu.mode !== Mode.Protected;
}

/** Aligned to 4 KBytes and within the physical-address width (SDM §33.3, "width check"). */
export function isRegionAddressValid(p: VmxProcessor, address: bigint): boolean {
  return isAligned(address, 4096) && fitsWidth(address, p.capabilities.addressWidth(tmeReduction(p)));
}
