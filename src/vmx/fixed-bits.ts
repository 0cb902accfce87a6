/** Bits of CR0 and CR4 that VMX operation fixes (SDM §26.8, Appendices A.7 and A.8). */
import { CR0 } from '../cpu/registers.ts';
import type { ProcessorCopy } from '../vmcs/processor-copy.ts';
import { controlRef, isOn } from './effective-controls.ts';
import { Operation, type VmxProcessor } from './vmx-state.ts';

const UNRESTRICTED_GUEST = controlRef('proc2.unrestrictedGuest');
const PE_PG = (1n << BigInt(CR0.PE)) | (1n << BigInt(CR0.PG));

/** `value` violates the bits that VMX operation fixes, as VMXON and VMX root operation see them. */
export function violatesFixedBits(p: VmxProcessor, register: 'CR0' | 'CR4', value: bigint): boolean {
  const { must1, may1 } = p.capabilities.fixedBits(register);
  return (value & must1) !== must1 || (value & ~may1) !== 0n;
}

/** VMX operation allows `value`; an unrestricted guest may clear CR0.PE and CR0.PG. */
export function allowsControlRegister(p: VmxProcessor, register: 'CR0' | 'CR4', value: bigint): boolean {
  if (p.vmx.operation === Operation.Outside) return true;
  const unrestricted =
    register === 'CR0' &&
    p.vmx.operation === Operation.NonRoot &&
    isOn(p.active.resident(p.vmx.current as ProcessorCopy), p.capabilities, UNRESTRICTED_GUEST);
  return !violatesFixedBits(p, register, unrestricted ? value | PE_PG : value);
}
