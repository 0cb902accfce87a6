/**
 * The effective value of a control in a processor-held copy (SDM §27.6.2, §27.7.1): 0 while the
 * control that activates its group is 0, or where the processor has no such field.
 */
import { CONTROL_GROUPS, type ControlGroupName, type ControlId, controlOf } from '../vmcs/controls.ts';
import { Field } from '../vmcs/fields.ts';
import type { ProcessorCopy } from '../vmcs/processor-copy.ts';
import type { VmxCapabilities } from './capabilities/capabilities.ts';

/** Where a control is: word and mask, and the controls that activate its group. */
export interface ControlRef {
  readonly slot: number;
  /** Index of the 32-bit word that holds the bit. */
  readonly word: number;
  readonly mask: number;
  /** Index of the word in {@link EffectiveControls}. */
  readonly place: number;
  readonly activatedBy: readonly ControlRef[];
}

const GROUP_NAMES = Object.keys(CONTROL_GROUPS) as ControlGroupName[];

/** Looks a control up once, at module load. */
export function controlRef(id: ControlId): ControlRef {
  const { group, bit } = controlOf(id);
  const { field, activatedBy } = CONTROL_GROUPS[group];
  const slot = Field[field];
  return {
    slot,
    word: 2 * slot + (bit >>> 5),
    mask: (1 << (bit & 31)) >>> 0,
    place: 2 * GROUP_NAMES.indexOf(group) + (bit >>> 5),
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

/** Some controls, as a mask for each word that has one of them. */
export interface ControlSet {
  /** Where {@link EffectiveControls} keep whether one of them is 1. */
  readonly index: number;
  readonly masks: readonly { readonly place: number; readonly mask: number }[];
}

let sets = 0;

/** Looks a set of controls up once, at module load. */
export function controlSet(...ids: readonly ControlId[]): ControlSet {
  const masks = new Map<number, number>();
  for (const { place, mask } of ids.map(controlRef)) masks.set(place, (masks.get(place) ?? 0) | mask);
  return { index: sets++, masks: [...masks].map(([place, mask]) => ({ place, mask })) };
}

const GROUPS = GROUP_NAMES.map((name) => {
  const { field, activatedBy } = CONTROL_GROUPS[name];
  return { slot: Field[field], activatedBy: activatedBy.map(controlRef) };
});
const PIN = 2 * Field.pinBasedControls;
const PROC = 2 * Field.primaryProcessorBasedControls;
const PROC2 = 2 * Field.secondaryProcessorBasedControls;
const PROC3 = 2 * Field.tertiaryProcessorBasedControls;
const EXIT = 2 * Field.primaryVmExitControls;
const EXIT2 = 2 * Field.secondaryVmExitControls;
const ENTRY = 2 * Field.vmEntryControls;
const VMFUNC = 2 * Field.vmFunctionControls;

/**
 * The effective values of all controls of one VMCS, and what was worked out of them (bench:
 * "VMRESUME + exit").
 */
export class EffectiveControls {
  /** By control group: two 32-bit words. */
  private readonly words = new Int32Array(2 * GROUPS.length);
  /** The fields from which they come, as they stood. */
  private readonly fields: Uint32Array;
  private readonly capabilities: VmxCapabilities;
  /** By set: whether one of its controls is 1, once it was asked (bench: "VMRESUME + exit"). */
  private readonly setsOn: boolean[] = [];
  /** What else depends on the controls, by whoever works it out. */
  readonly derived: unknown[] = [];

  constructor(copy: ProcessorCopy, capabilities: VmxCapabilities) {
    this.capabilities = capabilities;
    this.fields = fieldWords(copy.words);
    GROUPS.forEach(({ slot, activatedBy }, group) => {
      const active = activatedBy.every((control) => isOn(copy, capabilities, control));
      if (!active || capabilities.fieldExists[slot] === 0) return;
      this.words[2 * group] = copy.words[2 * slot] as number;
      this.words[2 * group + 1] = copy.words[2 * slot + 1] as number;
    });
  }

  isOn(control: ControlRef): boolean {
    return ((this.words[control.place] as number) & control.mask) !== 0;
  }

  /** One of the controls at least is 1. */
  isAnyOn({ index, masks }: ControlSet): boolean {
    const known = this.setsOn[index];
    if (known !== undefined) return known;
    const on = masks.some(({ place, mask }) => ((this.words[place] as number) & mask) !== 0);
    this.setsOn[index] = on;
    return on;
  }

  /** They are those of a VMCS with these fields. */
  holdFor(fields: Uint32Array, capabilities: VmxCapabilities): boolean {
    const known = this.fields;
    return (
      capabilities === this.capabilities &&
      fields[PIN] === known[0] &&
      fields[PROC] === known[1] &&
      fields[PROC2] === known[2] &&
      fields[PROC3] === known[3] &&
      fields[PROC3 + 1] === known[4] &&
      fields[EXIT] === known[5] &&
      fields[EXIT2] === known[6] &&
      fields[EXIT2 + 1] === known[7] &&
      fields[ENTRY] === known[8] &&
      fields[VMFUNC] === known[9] &&
      fields[VMFUNC + 1] === known[10]
    );
  }
}

function fieldWords(fields: Uint32Array): Uint32Array {
  const words = [PIN, PROC, PROC2, PROC3, PROC3 + 1, EXIT, EXIT2, EXIT2 + 1, ENTRY, VMFUNC, VMFUNC + 1];
  return Uint32Array.from(words, (word) => fields[word] as number);
}

/** VMCSs mostly have the controls of other VMCSs; so many different ones are remembered for a processor model. */
const REMEMBERED = 32;
const remembered = new WeakMap<VmxCapabilities, EffectiveControls[]>();

/** The effective controls of `copy`, worked out anew only if nobody has had them lately. */
export function controlsOf(copy: ProcessorCopy, capabilities: VmxCapabilities): EffectiveControls {
  const known = copy.derived as EffectiveControls | undefined;
  if (known?.holdFor(copy.words, capabilities)) return known;
  let all = remembered.get(capabilities);
  if (all === undefined) {
    all = [];
    remembered.set(capabilities, all);
  }
  let controls = all.find((c) => c.holdFor(copy.words, capabilities));
  if (controls === undefined) {
    controls = new EffectiveControls(copy, capabilities);
    if (all.length === REMEMBERED) all.shift();
    all.push(controls);
  }
  copy.derived = controls;
  return controls;
}
