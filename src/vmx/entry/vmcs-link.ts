/** "VMCS shadowing": the shadow VMCS at the VMCS link pointer (SDM §27.1, §27.11.1). */
import { Field } from '../../vmcs/fields.ts';
import type { ProcessorCopy } from '../../vmcs/processor-copy.ts';
import { controlRef, type EffectiveControls } from '../effective-controls.ts';
import { NO_POINTER, NO_POINTER_64, type VmxProcessor } from '../vmx-state.ts';
import type { EntryInstruction } from './basic-checks.ts';

const LINK = Field.vmcsLinkPointer;
// Constants to the compiler, which imported bindings are not (bench: "VMRESUME + exit").
const NONE = NO_POINTER;
const NONE_64 = NO_POINTER_64;

const VMCS_SHADOWING = controlRef('proc2.vmcsShadowing');

/** The VMCS link pointer, or −1 if "VMCS shadowing" does not use it. */
export function linkAddress(copy: ProcessorCopy, controls: EffectiveControls): number {
  if (!controls.isOn(VMCS_SHADOWING)) return NONE;
  const pointer = copy.quads[LINK] as bigint;
  return pointer === NONE_64 ? NONE : Number(pointer);
}

/** Reports a shadow VMCS that is still active on another processor; true if the machine stops. */
export function reportLink(p: VmxProcessor, address: number, instruction: EntryInstruction): boolean {
  const record = p.hazards.region(address);
  if (record.activeOn < 0 || record.activeOn === p.cpu.index) return false;
  const detail = `the shadow VMCS is still active on CPU ${record.activeOn}`;
  p.hazards.corrupt(record, `it was active on CPU ${record.activeOn} and CPU ${p.cpu.index} at once`);
  return p.hazards.report('vmcs.shadow-active-elsewhere', p.cpu.index, instruction, address, detail);
}

/** "VMCS shadowing": a successful VM entry makes the VMCS at the link pointer active (SDM §27.1). */
export function activateLink(p: VmxProcessor, address: number): void {
  p.vmx.link = p.active.activate(address);
  if (!p.hazards.watching) return;
  const record = p.hazards.region(address);
  p.hazards.activate(record, p.cpu.index);
  p.vmx.link.written = record.written;
}
