/**
 * Evaluation of the entry checks: the first failing row decides the outcome, all failing rows make
 * the explanation. A list whose fields have not changed since it last held is not evaluated again;
 * rows that look at the processor or at memory always are.
 */
import { FIELD_COUNT, Field } from '../../vmcs/fields.ts';
import type { ProcessorCopy } from '../../vmcs/processor-copy.ts';
import type { CheckList, EntryCheck } from './check.ts';
import type { CheckContext } from './check-context.ts';
import { CHECK_LISTS } from './check-lists.ts';

const LISTS: readonly CheckList[] = CHECK_LISTS;

/** By field slot: one bit a list whose rows look at the field. */
export const DEPENDENTS: Uint32Array = (() => {
  const dependents = new Uint32Array(FIELD_COUNT);
  LISTS.forEach((list, index) => {
    for (const row of list.rows) {
      for (const field of [...row.fields, ...row.when.flatMap((c) => c.fields)]) {
        dependents[Field[field]] = ((dependents[Field[field]] as number) | (1 << index)) >>> 0;
      }
    }
  });
  return dependents;
})();

const OUTSIDE_ROWS: readonly (readonly EntryCheck[])[] = LISTS.map((list) =>
  list.rows.filter((r) => r.looksOutside !== false),
);
/** Rows that read memory, which may change at any time. At most 32. */
const MEMORY_ROWS: readonly EntryCheck[] = LISTS.flatMap((list) =>
  list.rows.filter((r) => r.looksOutside === 'memory'),
);

function applies(row: EntryCheck, context: CheckContext): boolean {
  for (let i = 0; i < row.when.length; i++) {
    if (!(row.when[i] as (typeof row.when)[number]).test(context)) return false;
  }
  return true;
}

function firstFailing(rows: readonly EntryCheck[], context: CheckContext): EntryCheck | undefined {
  for (let i = 0; i < rows.length; i++) {
    const row = rows[i] as EntryCheck;
    if (applies(row, context) && !row.holds(context)) return row;
  }
  return undefined;
}

/**
 * The first failing row for `copy`; undefined if VM entry may go on, and then the copy is marked
 * verified. `state` is a number that differs whenever the processor state differs that rows look at:
 * while neither it nor a field has changed since everything held, only memory is looked at again.
 */
export function firstFailingCheck(
  copy: ProcessorCopy,
  context: CheckContext,
  state: number,
): EntryCheck | undefined {
  if (copy.unverified === 0 && copy.verifiedState === state) {
    if (copy.memoryRows === 0) return undefined;
    context.examine(copy.words);
    for (let i = 0; i < MEMORY_ROWS.length; i++) {
      const row = MEMORY_ROWS[i] as EntryCheck;
      if ((copy.memoryRows & (1 << i)) !== 0 && !row.holds(context)) return row;
    }
    return undefined;
  }
  context.examine(copy.words);
  let { unverified } = copy;
  for (let index = 0; index < LISTS.length; index++) {
    const bit = 1 << index;
    const clean = (unverified & bit) === 0;
    const rows = clean ? (OUTSIDE_ROWS[index] as readonly EntryCheck[]) : (LISTS[index] as CheckList).rows;
    const failing = firstFailing(rows, context);
    if (failing !== undefined) {
      copy.unverified = unverified;
      return failing;
    }
    unverified &= ~bit;
  }
  copy.unverified = 0;
  copy.verifiedState = state;
  copy.memoryRows = 0;
  for (let i = 0; i < MEMORY_ROWS.length; i++) {
    if (applies(MEMORY_ROWS[i] as EntryCheck, context)) copy.memoryRows |= 1 << i;
  }
  return undefined;
}

/** Verdict on one row: what it needs may be unknown. */
export type Verdict =
  | { readonly kind: 'holds' }
  | { readonly kind: 'does-not-apply' }
  | { readonly kind: 'fails' }
  | { readonly kind: 'unknown'; readonly missing: readonly string[] };

const HOLDS: Verdict = { kind: 'holds' };
const DOES_NOT_APPLY: Verdict = { kind: 'does-not-apply' };
const FAILS: Verdict = { kind: 'fails' };

/** Evaluates one row. A condition that is known not to hold settles it whatever else is unknown. */
export function evaluate(row: EntryCheck, context: CheckContext): Verdict {
  const missing = new Set<string>();
  for (const condition of row.when) {
    context.begin();
    const applies = condition.test(context);
    if (context.missing.size > 0) for (const name of context.missing) missing.add(name);
    else if (!applies) return DOES_NOT_APPLY;
  }
  context.begin();
  const holds = row.holds(context);
  if (context.missing.size === 0 && holds) return HOLDS;
  for (const name of context.missing) missing.add(name);
  return missing.size > 0 ? { kind: 'unknown', missing: [...missing] } : FAILS;
}

/** Every row of every list. */
export function allChecks(): readonly EntryCheck[] {
  return LISTS.flatMap((list) => list.rows);
}
