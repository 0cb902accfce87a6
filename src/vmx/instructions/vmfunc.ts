/** VMFUNC and its one function, EPTP switching (SDM §33.3, §28.5.7). */
import { fitsWidth } from '../../bits/address.ts';
import { Register } from '../../cpu/registers.ts';
import { Field } from '../../vmcs/fields.ts';
import { type ProcessorCopy, WRITTEN } from '../../vmcs/processor-copy.ts';
import { controlRef, isOn } from '../effective-controls.ts';
import { isEptpValid } from '../ept/eptp.ts';
import { FAULT_UD, type Outcome, VM_SUCCEED } from '../outcome.ts';
import { Operation, tmeReduction, type VmxProcessor } from '../vmx-state.ts';
import { exitFrom } from './exits.ts';
import type { InstructionForm } from './operands.ts';

const ENABLE_VM_FUNCTIONS = controlRef('proc2.enableVmFunctions');
const PT_USES_GUEST_PHYSICAL = controlRef('proc2.intelPtUsesGuestPhysicalAddresses');
const LIST_ENTRIES = 512;
const WALK_LENGTH_BITS = 0x38n;

export function vmfunc(p: VmxProcessor, form: InstructionForm): Outcome {
  const { cpu, vmx } = p;
  if (vmx.operation !== Operation.NonRoot) return FAULT_UD;
  const current = p.active.resident(vmx.current as ProcessorCopy);
  const leaf = cpu.words[2 * Register.RAX] as number;
  if (!isOn(current, p.capabilities, ENABLE_VM_FUNCTIONS) || leaf >= 64) return FAULT_UD;
  const controls = current.quads[Field.vmFunctionControls] as bigint;
  if (((controls >> BigInt(leaf)) & 1n) === 0n || !switchEptp(p, current)) return exitFrom(p, 'VMFUNC', form);
  // No flag and no register changes.
  return VM_SUCCEED;
}

/** VM function 0; false if it causes a VM exit instead. */
function switchEptp(p: VmxProcessor, current: ProcessorCopy): boolean {
  const { cpu } = p;
  const index = cpu.words[2 * Register.RCX] as number;
  const tracing = ((cpu.words[2 * Register.IA32_RTIT_CTL] as number) & 1) === 1;
  if (index >= LIST_ENTRIES || (tracing && isOn(current, p.capabilities, PT_USES_GUEST_PHYSICAL)))
    return false;
  const list = current.quads[Field.eptpListAddress] as bigint;
  if (!fitsWidth(list, 52)) return false;
  const eptp = cpu.memory.read64(Number(list) + 8 * index);
  const old = current.quads[Field.eptPointer] as bigint;
  const width = p.capabilities.addressWidth(tmeReduction(p));
  if (!isEptpValid(eptp, p.capabilities, width) || ((eptp ^ old) & WALK_LENGTH_BITS) !== 0n) return false;
  write(p, current, Field.eptPointer, eptp);
  if (p.capabilities.fieldExists[Field.eptpIndex]) write(p, current, Field.eptpIndex, BigInt(index & 0xffff));
  return true;
}

function write(p: VmxProcessor, copy: ProcessorCopy, slot: number, value: bigint): void {
  copy.quads[slot] = value;
  copy.fieldWritten(slot, WRITTEN);
  p.active.fieldChanged(copy, slot);
}
