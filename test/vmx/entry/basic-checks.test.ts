/** The basic checks of VM entry: the short way of finding nothing agrees with the rows. */
import { describe, expect, it } from 'vitest';
import { Mode } from '../../../src/cpu/mode.ts';
import { LaunchState } from '../../../src/vmcs/region.ts';
import {
  BASIC_CHECKS,
  type BasicCheck,
  type EntryInstruction,
  failingBasicCheck,
} from '../../../src/vmx/entry/basic-checks.ts';
import { Operation } from '../../../src/vmx/vmx-state.ts';
import { guestProcessor } from '../../support/vmx-processor.ts';

const ROWS: readonly BasicCheck[] = BASIC_CHECKS;

function choices<T>(...values: T[]): readonly T[] {
  return values;
}

describe.each(['VMLAUNCH', 'VMRESUME'] as const)('basic checks of %s', (instruction: EntryInstruction) => {
  it('fail as the first row that does not hold, in every combination of what they look at', () => {
    const p = guestProcessor();
    const { copy, cpu, vmx } = p;
    const verdicts = new Set<string>();
    for (const operation of Object.values(Operation))
      for (const mode of Object.values(Mode))
        for (const cpl of choices(0, 1, 3))
          for (const current of choices(undefined, copy))
            for (const isShadow of choices(false, true))
              for (const movSs of choices(0n, 1n))
                for (const launchState of Object.values(LaunchState)) {
                  cpu.write('blockingByMovSs', movSs);
                  Object.assign(cpu, { mode, cpl });
                  Object.assign(vmx, { operation, current });
                  Object.assign(copy, { isShadow, launchState });
                  const first = ROWS.find(
                    (row) => (row.instruction ?? instruction) === instruction && !row.holds(p),
                  );
                  expect(failingBasicCheck(p, instruction)?.id).toBe(first?.id);
                  verdicts.add(first?.id ?? 'none');
                }
    // Rows of the other instruction are the only ones never met.
    expect(verdicts.size).toBe(ROWS.length);
  });
});
