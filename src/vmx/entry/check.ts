/**
 * What a VM-entry check is: one row of the manual's lists (SDM §29.2, §29.3.1). A row says in one
 * positive sentence what must hold, when it applies, which fields it looks at and which smallest
 * change would satisfy it. Verdicts, explanations and documentation are all derived from the rows.
 */
import type { SdmSection } from '../../sdm/sections.ts';
import { CONTROL_GROUPS, type ControlId, controlOf } from '../../vmcs/controls.ts';
import type { FieldName } from '../../vmcs/fields.ts';
import { type CheckContext, placeOf } from './check-context.ts';

/** What follows when a check fails. */
export type Consequence =
  | { readonly kind: 'VMfailValid'; readonly error: 7 | 8 | 16 | 17 | 18 | 25 }
  /** Exit reason 33 with this exit qualification (SDM §29.8). */
  | { readonly kind: 'entry-failure'; readonly qualification: 0 | 2 | 3 | 4 };

export const INVALID_CONTROL: Consequence = { kind: 'VMfailValid', error: 7 };
export const INVALID_HOST_STATE: Consequence = { kind: 'VMfailValid', error: 8 };

/** Exit reason 33 with `qualification`. */
export function invalidGuestState(qualification: 0 | 2 | 3 | 4 = 0): Consequence {
  return { kind: 'entry-failure', qualification };
}

/** A condition under which a rule applies: the manual's "if". */
export interface Condition {
  /** As a clause: `"use I/O bitmaps" is 1`, `LDTR is usable`. */
  readonly text: string;
  /** Fields the condition looks at. */
  readonly fields: readonly FieldName[];
  readonly test: (c: CheckContext) => boolean;
}

/** A change of one field. */
export interface FieldChange {
  readonly field: FieldName;
  readonly value: bigint;
}

/** A row. */
export interface EntryCheck<Id extends string = string> {
  /** `area.subject.rule-in-kebab`; never changes once published. */
  readonly id: Id;
  readonly sdm: SdmSection;
  /** What must hold, as one sentence. */
  readonly rule: string;
  readonly when: readonly Condition[];
  /** Fields that `holds` looks at, the one to blame first. */
  readonly fields: readonly FieldName[];
  readonly holds: (c: CheckContext) => boolean;
  /** The smallest change of the VMCS that makes the rule hold, called only when it does not. */
  readonly fix: (c: CheckContext) => readonly FieldChange[];
  readonly consequence: Consequence;
  /**
   * The row looks at the processor or at memory as well, so that it has to be evaluated at every VM
   * entry even if no field has changed. The width of physical addresses does not count: VM entry
   * verifies everything again when IA32_TME_ACTIVATE changes it.
   */
  readonly looksOutside: false | 'processor' | 'memory';
}

/** Rows of one section, evaluated in order. */
export interface CheckList<Id extends string = string> {
  readonly sdm: SdmSection;
  readonly rows: readonly EntryCheck<Id>[];
  /** A quick look at the fields: true only if every row holds, whatever the others are. */
  readonly surelyHolds?: (c: CheckContext) => boolean;
}

/** A list whose type keeps the ids of its rows. (A function, because no mutant is made under `as const`.) */
export function checkList<const Rows extends readonly EntryCheck[]>(
  sdm: SdmSection,
  rows: Rows,
  surelyHolds?: (c: CheckContext) => boolean,
): { readonly sdm: SdmSection; readonly rows: Rows; readonly surelyHolds?: (c: CheckContext) => boolean } {
  return surelyHolds === undefined ? { sdm, rows } : { sdm, rows, surelyHolds };
}

export interface CheckOptions {
  readonly rule: string;
  readonly fields: readonly FieldName[];
  readonly when?: readonly Condition[];
  readonly holds: (c: CheckContext) => boolean;
  readonly fix: (c: CheckContext) => readonly FieldChange[];
  readonly looksOutside?: 'processor' | 'memory';
}

/** A maker of rows for one section with one consequence. */
export function checksOf(sdm: SdmSection, consequence: Consequence) {
  return <const Id extends string>(
    id: Id,
    options: CheckOptions & { consequence?: Consequence },
  ): EntryCheck<Id> => ({
    id,
    sdm,
    rule: options.rule,
    when: options.when ?? [],
    fields: options.fields,
    holds: options.holds,
    fix: options.fix,
    consequence: options.consequence ?? consequence,
    looksOutside: options.looksOutside ?? false,
  });
}

/** A control in a sentence: `"use I/O bitmaps"`, with its kind where names repeat. */
function nameInSentence(id: ControlId): string {
  const { group, name } = controlOf(id);
  const lower = /^(?!Intel)[A-Z][a-z]/.test(name) ? name.charAt(0).toLowerCase() + name.slice(1) : name;
  if (group === 'exit' || group === 'exit2') return `the "${lower}" VM-exit control`;
  return group === 'entry' ? `the "${lower}" VM-entry control` : `"${lower}"`;
}

function controlFields(id: ControlId): FieldName[] {
  const { field, activatedBy } = CONTROL_GROUPS[controlOf(id).group];
  return [field, ...activatedBy.flatMap(controlFields)];
}

/** The control is (effectively) 1. */
export function on(id: ControlId): Condition {
  const place = placeOf(id);
  return {
    text: `${nameInSentence(id)} is 1`,
    fields: controlFields(id),
    test: (c) => c.controlAt(place),
  };
}

/** The control is (effectively) 0. */
export function off(id: ControlId): Condition {
  const place = placeOf(id);
  return {
    text: `${nameInSentence(id)} is 0`,
    fields: controlFields(id),
    test: (c) => !c.controlAt(place),
  };
}

/** Fields that decide the effective value of a control, for the `fields` of a row. */
export function fieldsOfControl(id: ControlId): readonly FieldName[] {
  return controlFields(id);
}

/** Any condition on fields. */
export function condition(
  text: string,
  fields: readonly FieldName[],
  test: (c: CheckContext) => boolean,
): Condition {
  return { text, fields, test };
}

// Changes that rows suggest.

/** `field` := `value`. */
export function set(field: FieldName, value: bigint): FieldChange[] {
  return [{ field, value }];
}

/** Clears the bits of `mask`. */
export function clear(c: CheckContext, field: FieldName, mask: bigint): FieldChange[] {
  return [{ field, value: c.value(field) & ~mask }];
}

/** Sets the bits of `mask`. */
export function raise(c: CheckContext, field: FieldName, mask: bigint): FieldChange[] {
  return [{ field, value: c.value(field) | mask }];
}

/** Turns a control on (1) or off (0) in its field. */
export function turn(c: CheckContext, id: ControlId, value: 0 | 1): FieldChange[] {
  const { group, mask } = controlOf(id);
  const { field } = CONTROL_GROUPS[group];
  return value === 1 ? raise(c, field, mask) : clear(c, field, mask);
}
