/**
 * The effective value of a control in a processor-held copy (SDM §27.6.2, §27.7.1): 0 while the
 * control that activates its group is 0, or where the processor has no such field.
 */
import { CONTROL_GROUPS, type ControlId, controlOf } from '../vmcs/controls.ts';
import { Field } from '../vmcs/fields.ts';
import type { ProcessorCopy } from '../vmcs/processor-copy.ts';
import type { VmxCapabilities } from './capabilities/capabilities.ts';

/** Where a control is: word and mask, and the controls that activate its group. */
export interface ControlRef {
  readonly slot: number;
  /** Index of the 32-bit word that holds the bit. */
  readonly word: number;
  readonly mask: number;
  readonly activatedBy: readonly ControlRef[];
}

/** Looks a control up once, at module load. */
export function controlRef(id: ControlId): ControlRef {
  const { group, bit } = controlOf(id);
  const { field, activatedBy } = CONTROL_GROUPS[group];
  const slot = Field[field];
  return {
    slot,
    word: 2 * slot + (bit >>> 5),
    mask: (1 << (bit & 31)) >>> 0,
    activatedBy: activatedBy.map(controlRef),
  };
}

/** The control is effectively 1. */
export function isOn(copy: ProcessorCopy, capabilities: VmxCapabilities, control: ControlRef): boolean {
  if (((copy.words[control.word] as number) & control.mask) === 0) return false;
  if (capabilities.fieldExists[control.slot] === 0) return false;
  const { activatedBy } = control;
  for (let i = 0; i < activatedBy.length; i++) {
    if (!isOn(copy, capabilities, activatedBy[i] as ControlRef)) return false;
  }
  return true;
}
