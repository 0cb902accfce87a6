/** Every row of the inventory of checks, by its id, is a check or has the reason why it is none. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { capabilitiesOf, PROFILES } from '../../../src/vmx/capabilities/profiles.ts';
import { BASIC_CHECKS } from '../../../src/vmx/entry/basic-checks.ts';
import { NOT_CHECKED_HERE } from '../../../src/vmx/entry/checks/not-checked.ts';
import { allChecks } from '../../../src/vmx/entry/verify.ts';
import { MSR_LOAD_CHECKS } from '../../../src/vmx/msr-area.ts';

const published = readFileSync(new URL('published-ids.txt', import.meta.url), 'utf8')
  .trim()
  .split('\n');
const checked = [...BASIC_CHECKS, ...allChecks(), ...MSR_LOAD_CHECKS].map(({ id }): string => id);
const deviations = readFileSync(new URL('../../../docs/deviations.md', import.meta.url), 'utf8');

/** The table below a heading of docs/deviations.md: first cell without backticks → second cell. */
function tableBelow(heading: string): Record<string, string> {
  const part = deviations.split(/^## /m).find((text) => text.startsWith(heading)) ?? '';
  const rows = [...part.matchAll(/^\| `([^`]+)` \| (.+) \|$/gm)];
  return Object.fromEntries(rows.map(([, id = '', reason = '']) => [id, reason]));
}

describe('the published ids', () => {
  it('are 422, each once', () => {
    expect(published).toHaveLength(422);
    expect(new Set(published).size).toBe(422);
  });

  it('are the checks and the rows that are none, and nothing else is', () => {
    expect([...checked, ...Object.keys(NOT_CHECKED_HERE)].sort()).toEqual([...published].sort());
  });

  it('that are no checks stand in docs/deviations.md with the same reasons', () => {
    expect(tableBelow('Rows that are no checks here')).toEqual(NOT_CHECKED_HERE);
  });

  it('rel.pt-in-vmx: a processor without Intel PT in VMX operation allows no control that conceals VMX from PT', () => {
    for (const profile of PROFILES) {
      const capabilities = capabilitiesOf(profile);
      if (capabilities.has('misc', 14)) continue;
      for (const id of ['proc2', 'exit', 'entry'] as const) {
        expect(capabilities.supports(`${id}.concealVmxFromPt`), profile.name).toBe(false);
      }
    }
    expect(PROFILES.filter((p) => !capabilitiesOf(p).has('misc', 14)).length).toBeGreaterThan(0);
  });
});
