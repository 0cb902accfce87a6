/**
 * Default treatment of SMIs in VMX operation (SDM §34.14): SMI delivery leaves it and remembers what RSM
 * needs to go on. VMXON and current-VMCS pointers, the preemption timer, virtual-NMI blocking and a pending
 * MTF VM exit stay in the VMX state meanwhile; none has an effect outside VMX operation.
 */
import { CR4, Register, RFLAGS } from '../../cpu/registers.ts';
import { Field } from '../../vmcs/fields.ts';
import type { ProcessorCopy } from '../../vmcs/processor-copy.ts';
import { controlRef, controlsOf, type EffectiveControls } from '../effective-controls.ts';
import { Operation, type VmxProcessor } from '../vmx-state.ts';

const ENABLE_EPT = controlRef('proc2.enableEpt');
const VIRTUAL_NMIS = controlRef('pin.virtualNmis');
const UNRESTRICTED_GUEST = controlRef('proc2.unrestrictedGuest');

const VMXE = 1 << CR4.VMXE;
const VM = 1 << RFLAGS.VM;
const PE_PG = 0x8000_0001n;
const DPL = 0x60;
const CR4_LOW = 2 * Register.CR4;
const RFLAGS_LOW = 2 * Register.RFLAGS;
const SS_RIGHTS = 2 * Register['SS.accessRights'];
const CS = 2 * Register['CS.selector'];
const SS = 2 * Register['SS.selector'];
const BLOCKING_BY_NMI = 2 * Register.blockingByNmi;
const A20M = 2 * Register.a20mMode;

function currentControls(p: VmxProcessor): EffectiveControls {
  return controlsOf(p.active.resident(p.vmx.current as ProcessorCopy), p.capabilities);
}

/** SMI delivery begins; answers the EPTP if EPT is in use. */
export function suspendOperation(p: VmxProcessor): bigint | undefined {
  const { vmx, cpu } = p;
  const { words } = cpu;
  const ept = vmx.operation === Operation.NonRoot && currentControls(p).isOn(ENABLE_EPT);
  const eptp = ept ? ((vmx.current as ProcessorCopy).quads[Field.eptPointer] as bigint) : undefined;
  vmx.suspended = {
    operation: vmx.operation,
    cr4Vmxe: ((words[CR4_LOW] as number) & VMXE) !== 0,
    ssDpl: (words[SS_RIGHTS] as number) & DPL,
    rflagsVm: (words[RFLAGS_LOW] as number) & VM,
  };
  vmx.operation = Operation.Outside;
  words[CR4_LOW] = ((words[CR4_LOW] as number) & ~VMXE) >>> 0;
  return eptp;
}

/** RSM has restored the registers from SMRAM. */
export function resumeOperation(p: VmxProcessor): void {
  const { vmx, cpu } = p;
  const { words } = cpu;
  const { suspended } = vmx;
  vmx.suspended = undefined;
  if (suspended === undefined) return;
  if (suspended.cr4Vmxe) words[CR4_LOW] = ((words[CR4_LOW] as number) | VMXE) >>> 0;
  vmx.operation = suspended.operation;
  if (vmx.operation === Operation.Outside) return;
  const controls = vmx.operation === Operation.NonRoot ? currentControls(p) : undefined;
  const unrestricted = controls?.isOn(UNRESTRICTED_GUEST) === true;
  fixBits(p, 'CR0', unrestricted ? PE_PG : 0n);
  fixBits(p, 'CR4', 0n);
  words[RFLAGS_LOW] = (((words[RFLAGS_LOW] as number) & ~VM) | suspended.rflagsVm) >>> 0;
  words[SS_RIGHTS] = (((words[SS_RIGHTS] as number) & ~DPL) | suspended.ssDpl) >>> 0;
  if (suspended.rflagsVm === 0 && !unrestricted) {
    const rpl = suspended.ssDpl >>> 5;
    words[CS] = (((words[CS] as number) & ~3) | rpl) >>> 0;
    words[SS] = (((words[SS] as number) & ~3) | rpl) >>> 0;
  }
  if (controls?.isOn(VIRTUAL_NMIS) === true) words[BLOCKING_BY_NMI] = 0;
  words[A20M] = 0;
}

/** Brings the bits that VMX operation fixes to their values, but for `free`. */
function fixBits(p: VmxProcessor, register: 'CR0' | 'CR4', free: bigint): void {
  const { must1, may1 } = p.capabilities.fixedBits(register);
  const { quads } = p.cpu;
  const value = quads[Register[register]] as bigint;
  quads[Register[register]] = (value & (may1 | free)) | (must1 & ~free);
}
