/**
 * Evaluation of the entry checks: the first failing row decides the outcome, all failing rows make
 * the explanation. A list whose fields have not changed since it last held is not evaluated again;
 * rows that look at the processor or at memory always are.
 */
import { FIELD_COUNT, Field } from '../../vmcs/fields.ts';
import type { ProcessorCopy } from '../../vmcs/processor-copy.ts';
import type { CheckList, EntryCheck } from './check.ts';
import type { CheckContext } from './check-context.ts';
import { CHECK_LISTS, ORDINARY_LISTS } from './check-lists.ts';
import { RETURNS_FROM_SMM } from './checks/guest-conditions.ts';
import { EXECUTION_LISTS } from './checks/return-from-smm.ts';

const LISTS: readonly CheckList[] = ORDINARY_LISTS;
const EVERY_ROW: readonly EntryCheck[] = CHECK_LISTS.flatMap((list): readonly EntryCheck[] => list.rows);
/** VM-execution control fields of the VMCS itself are not checked (SDM §34.15.4.2). */
const ROWS_ON_RETURN = CHECK_LISTS.flatMap((list: CheckList) =>
  EXECUTION_LISTS.includes(list) ? [] : list.rows,
);

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
/** Of each of them: the bit of its list. */
const LIST_OF_MEMORY_ROW = MEMORY_ROWS.map((row) => 1 << LISTS.findIndex((list) => list.rows.includes(row)));
const EVERY_LIST = LISTS.reduce((bits, _, list) => bits | (1 << list), 0);

/** The lists of memory rows, a bit each. */
function listsOf(memoryRows: number): number {
  let lists = 0;
  for (let rows = memoryRows; rows !== 0; rows &= rows - 1) {
    lists |= LIST_OF_MEMORY_ROW[31 - Math.clz32(rows & -rows)] as number;
  }
  return lists;
}

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

function firstFailingOf(list: CheckList, context: CheckContext): EntryCheck | undefined {
  return list.surelyHolds?.(context) === true ? undefined : firstFailing(list.rows, context);
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
  const dirty = copy.unverified;
  const sameState = copy.verifiedState === state;
  let unverified = dirty;
  // Where neither fields nor the processor have changed, only memory may have.
  let pending = sameState ? (dirty & EVERY_LIST) | listsOf(copy.memoryRows) : EVERY_LIST;
  while (pending !== 0) {
    const bit = pending & -pending;
    pending &= ~bit;
    const index = 31 - Math.clz32(bit);
    const clean = (unverified & bit) === 0;
    const failing = clean
      ? firstFailing(OUTSIDE_ROWS[index] as readonly EntryCheck[], context)
      : firstFailingOf(LISTS[index] as CheckList, context);
    if (failing !== undefined) {
      copy.unverified = unverified;
      // The lists before it hold under this state, those behind it under another.
      if (!sameState) copy.verifiedState = -1;
      return failing;
    }
    unverified &= ~bit;
  }
  copy.unverified = 0;
  copy.verifiedState = state;
  for (let i = 0; i < MEMORY_ROWS.length; i++) {
    if (sameState && (dirty & (LIST_OF_MEMORY_ROW[i] as number)) === 0) continue;
    const bit = 1 << i;
    const isLookedAt = applies(MEMORY_ROWS[i] as EntryCheck, context);
    copy.memoryRows = isLookedAt ? copy.memoryRows | bit : copy.memoryRows & ~bit;
  }
  return undefined;
}

/** The first failing row of a VM entry that returns from SMM; the context has the fields it goes by. */
export function firstFailingOnReturn(context: CheckContext): EntryCheck | undefined {
  return firstFailing(ROWS_ON_RETURN, context);
}

/** Rows that VM entry with what is in the context goes by. */
export function checksFor(context: CheckContext): readonly EntryCheck[] {
  return RETURNS_FROM_SMM.test(context) ? ROWS_ON_RETURN : EVERY_ROW;
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
  return EVERY_ROW;
}
