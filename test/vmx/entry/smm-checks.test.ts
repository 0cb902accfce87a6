import { describe, expect, it } from 'vitest';
import type { CheckList, EntryCheck } from '../../../src/vmx/entry/check.ts';
import { checksFor } from '../../../src/vmx/entry/verify.ts';
import { contextOf, failingChecks, fails, situationOf, withChanges } from '../../support/evaluate.ts';
import type { Witness } from '../../support/witness.ts';
import { SMM_LISTS, SMM_WITNESSES, type SmmCheckId, TO_NON_ROOT, TO_ROOT } from './witnesses-smm.ts';

const LISTS: readonly CheckList<SmmCheckId>[] = SMM_LISTS;
const ROWS: readonly EntryCheck<SmmCheckId>[] = LISTS.flatMap((list) => list.rows);

function failing(witness: Witness): string[] {
  const { words, capabilities, environment } = situationOf(witness);
  return failingChecks(LISTS, words, capabilities, environment);
}

describe('a VM entry that returns from SMM', () => {
  it('passes to VMX root and to VMX non-root operation', () => {
    expect(failing(TO_ROOT)).toEqual([]);
    expect(failing(TO_NON_ROOT)).toEqual([]);
  });

  for (const row of ROWS) {
    const witness = SMM_WITNESSES[row.id];
    it(`${row.id} alone catches its witness, and its fix is enough`, () => {
      expect(failing(witness)).toEqual([row.id]);
      const situation = situationOf(witness);
      const fixed = withChanges(situation, row.fix(contextOf(situation)));
      expect(fails(row, contextOf(fixed))).toBe(false);
    });

    it(`${row.id} does not apply outside SMM, nor to an entry to SMM`, () => {
      expect(failing({ ...witness, environment: { ...witness.environment, inSmm: false } })).toEqual([]);
      const controls = [...(witness.controls ?? []), 'entry.entryToSmm'] as const;
      expect(failing({ ...witness, controls })).toEqual([]);
    });
  }

  it('ends as the manual says for each of them', () => {
    expect(
      Object.fromEntries(ROWS.map(({ id, consequence }) => [id, Object.values(consequence)[1]])),
    ).toEqual({
      'smmret.exec-ptr.align': 16,
      'smmret.exec-ptr.width': 16,
      'smmret.exec-ptr.revision': 16,
      'smmret.exec-vmcs.launched': 17,
      'smmret.deactivate-needs-vmxon-ptr': 18,
      'smmret.exec-ctrls': 25,
      'smmret.no-mtf-into-root': 7,
      'smmret.no-wait-sipi-into-root': 0,
    });
  });

  it('finds the executive VMCS wanting where nothing is known of it', () => {
    const { executive: _, ...unknown } = TO_NON_ROOT;
    expect(failing(unknown)).toEqual(['smmret.exec-vmcs.launched', 'smmret.exec-ctrls']);
  });

  it('goes by no row on VM-execution control fields of the current VMCS, nor on saving the timer', () => {
    const witness = { ...TO_NON_ROOT, controls: ['exit.saveVmxPreemptionTimerValue'] as const };
    const ids = checksFor(contextOf(situationOf(witness))).map((row) => row.id);
    expect(ids).not.toContain('ctrl.pin.allowed0');
    expect(ids).not.toContain('ctrl.msr-bitmap.align');
    expect(ids).toContain('ctrl.exit.allowed0');
    const row = checksFor(contextOf(situationOf())).find((r) => r.id === 'ctrl.exit.save-timer-needs-timer');
    expect(row && fails(row, contextOf(situationOf(witness)))).toBe(false);
    expect(row && fails(row, contextOf(situationOf({ controls: witness.controls })))).toBe(true);
  });
});
