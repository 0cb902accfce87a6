/**
 * Why VM entry fails: every failing row with the fields it looks at, what makes it apply, and the
 * smallest change that would satisfy it.
 */
import { hex } from '../../bits/u64.ts';
import { type SdmSection, sectionTitle } from '../../sdm/sections.ts';
import { type FieldName, fieldOf } from '../../vmcs/fields.ts';
import type { EntryCheck, FieldChange } from './check.ts';
import type { CheckContext } from './check-context.ts';
import { checksFor, evaluate } from './verify.ts';

/** One failing check, explained. */
export interface Failure {
  readonly id: string;
  readonly section: SdmSection;
  readonly title: string;
  /** What must hold. */
  readonly rule: string;
  /** Fields the rule looks at, by the manual's name, in hexadecimal. */
  readonly fields: Readonly<Record<string, string>>;
  /** What makes the rule apply: `always`, or its conditions. */
  readonly appliesBecause: string;
  /** The smallest change that would satisfy the rule. */
  readonly fix: string;
  readonly changes: readonly FieldChange[];
  /** What VM entry does about it. */
  readonly consequence: string;
}

/** A check that could not be made. */
export interface UnknownCheck {
  readonly id: string;
  /** Names of fields or of other state that are not known. */
  readonly missing: readonly string[];
}

export interface Explanation {
  readonly failures: readonly Failure[];
  readonly unknown: readonly UnknownCheck[];
}

/** A field's value as people write it: as many digits as its width has. */
export function formatFieldValue(field: FieldName, value: bigint): string {
  return hex(value, fieldOf(field).bits / 4);
}

/** How the manual would name what VM entry does. */
export function describeConsequence(check: EntryCheck): string {
  const { consequence } = check;
  return consequence.kind === 'VMfailValid'
    ? `VMfailValid ${consequence.error}`
    : `VM-entry failure: exit reason 33, qualification ${consequence.qualification}`;
}

function describeFix(changes: readonly FieldChange[], context: CheckContext): string {
  return changes
    .map(({ field, value }) => {
      const old = formatFieldValue(field, context.value(field));
      return `set ${fieldOf(field).name} to ${formatFieldValue(field, value)} (it is ${old})`;
    })
    .join(' and ');
}

/** Explains a row that is known to fail. */
export function explainFailure(check: EntryCheck, context: CheckContext): Failure {
  const names = new Set<FieldName>([...check.fields, ...check.when.flatMap((c) => c.fields)]);
  const fields: Record<string, string> = {};
  for (const name of names) {
    if (context.capabilities.fieldExists[fieldOf(name).slot] === 0) continue;
    fields[fieldOf(name).name] = formatFieldValue(name, context.value(name));
  }
  const changes = check.fix(context);
  return {
    id: check.id,
    section: check.sdm,
    title: sectionTitle(check.sdm),
    rule: check.rule,
    fields,
    appliesBecause: check.when.length === 0 ? 'always' : check.when.map((c) => c.text).join(' and '),
    fix: describeFix(changes, context),
    changes,
    consequence: describeConsequence(check),
  };
}

/** Evaluates every row, not only up to the first that fails. */
export function explainEntry(context: CheckContext): Explanation {
  const failures: Failure[] = [];
  const unknown: UnknownCheck[] = [];
  for (const check of checksFor(context)) {
    const verdict = evaluate(check, context);
    if (verdict.kind === 'fails') failures.push(explainFailure(check, context));
    if (verdict.kind === 'unknown') unknown.push({ id: check.id, missing: verdict.missing });
  }
  return { failures, unknown };
}
