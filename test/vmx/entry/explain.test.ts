/** Explanations: every failing row, with fields, reason, fix and consequence; and what is unknown. */
import { describe, expect, it } from 'vitest';
import { FIELD_COUNT, Field, type FieldName } from '../../../src/vmcs/fields.ts';
import { explainEntry, formatFieldValue } from '../../../src/vmx/entry/explain.ts';
import { environmentOf } from '../../../src/vmx/entry/processor-environment.ts';
import { contextOf, situationOf } from '../../support/evaluate.ts';
import { guestProcessor, VMCS_ADDRESS } from '../../support/vmx-processor.ts';
import type { Witness } from '../../support/witness.ts';

function explain(witness: Witness, ...unknown: FieldName[]) {
  const known = new Uint8Array(FIELD_COUNT).fill(1);
  for (const field of unknown) known[Field[field]] = 0;
  return explainEntry(contextOf(situationOf(witness), known));
}

describe('an explanation', () => {
  it('has nothing to say about the smallest legal VMCS', () => {
    expect(explain({})).toEqual({ failures: [], unknown: [] });
  });

  it('tells a rule without conditions, its fields and its fix', () => {
    expect(explain({ fields: { guestRflags: 0n } })).toEqual({
      failures: [
        {
          id: 'guest.rflags.bit1',
          section: '29.3.1.4',
          title: 'Checks on Guest RIP, RFLAGS, and SSP',
          rule: 'RFLAGS: bit 1 is 1.',
          fields: { 'Guest RFLAGS': '0x0000000000000000' },
          appliesBecause: 'always',
          fix: 'set Guest RFLAGS to 0x0000000000000002 (it is 0x0000000000000000)',
          changes: [{ field: 'guestRflags', value: 2n }],
          consequence: 'VM-entry failure: exit reason 33, qualification 0',
        },
      ],
      unknown: [],
    });
  });

  it('tells why a rule applies, and the fields its conditions look at', () => {
    const { failures } = explain({
      controls: ['pin.nmiExiting', 'pin.virtualNmis'],
      fields: { guestInterruptibilityState: 8n, injectedEventIdentification: 0x8000_0202n },
    });
    expect(failures).toHaveLength(1);
    expect(failures[0]).toMatchObject({
      id: 'guest.intr.nmi-virtual-nmis',
      appliesBecause: '"virtual NMIs" is 1 and an NMI is to be injected',
    });
    expect(Object.keys(failures[0]?.fields ?? {})).toEqual([
      'Guest interruptibility state',
      'Pin-based VM-execution controls',
      'Injected-event identification',
    ]);
  });

  it('joins changes of several fields', () => {
    const { failures } = explain({ fields: { guestCsLimit: 0xffff_f000n, guestCsAccessRights: 0x209bn } });
    expect(failures.map((f) => [f.id, f.fix])).toEqual([
      [
        'guest.cs.g-limit-high',
        'set Guest CS access rights to 0x0000a09b (it is 0x0000209b) and set Guest CS limit to 0xffffffff (it is 0xfffff000)',
      ],
    ]);
  });

  it('names the error of a VMfailValid, in the order of the checks', () => {
    const { failures } = explain({ fields: { hostTrSelector: 0n, cr3TargetCount: 5n, guestRflags: 0n } });
    expect(failures.map((f) => f.consequence)).toEqual([
      'VMfailValid 7',
      'VMfailValid 8',
      'VM-entry failure: exit reason 33, qualification 0',
    ]);
  });

  it('leaves out fields that the processor does not have', () => {
    const { IA32_VMX_TRUE_PROCBASED_CTLS: controls = 0n, IA32_VMX_BASIC: basic = 0n } =
      situationOf().capabilities.msrs;
    const { failures } = explain({
      msrs: {
        IA32_VMX_TRUE_PROCBASED_CTLS: controls & ~(1n << 63n),
        IA32_VMX_BASIC: basic & ~(1n << 56n),
      },
      fields: { injectedEventIdentification: 0x8000_030dn },
    });
    const failure = failures.find((f) => f.id === 'inject.error-code.required');
    expect(Object.keys(failure?.fields ?? {})).toEqual([
      'Injected-event identification',
      'Primary processor-based VM-execution controls',
      'Guest CR0',
    ]);
  });

  it('lists checks that could not be made, and what is missing', () => {
    const { failures, unknown } = explain({ fields: { guestRflags: 0n } }, 'guestRflags', 'guestCr0');
    expect(failures).toEqual([]);
    expect(unknown).toContainEqual({ id: 'guest.rflags.bit1', missing: ['guestRflags'] });
    expect(unknown.map((u) => u.id)).toContain('guest.cr0.fixed');
    for (const { id, missing } of unknown) {
      expect(missing.length, id).toBeGreaterThan(0);
      for (const name of missing) expect(['guestRflags', 'guestCr0'], id).toContain(name);
    }
  });
});

describe('the value of a field', () => {
  it.each([
    ['vpid', '0x0001'],
    ['guestActivityState', '0x00000001'],
    ['tscOffset', '0x0000000000000001'],
    ['guestRip', '0x0000000000000001'],
  ] as const)('%s has the digits of its width', (field, text) => {
    expect(formatFieldValue(field, 1n)).toBe(text);
  });
});

describe('what checks see of a processor', () => {
  it('is its state', () => {
    const p = guestProcessor();
    const environment = environmentOf(p);
    expect(environment.currentVmcs()).toBe(BigInt(VMCS_ADDRESS));
    expect(environment.cr3()).toBe(0x7000n);
    expect(environment.tmeReduction()).toBe(0);
    p.cpu.write('IA32_TME_ACTIVATE', (6n << 36n) | 1n);
    expect(environment.tmeReduction()).toBe(6);
    expect([environment.inSmm(), environment.traceEnabled()]).toEqual([false, false]);
    p.cpu.write('inSmm', 1n);
    p.cpu.write('IA32_RTIT_CTL', 1n);
    expect([environment.inSmm(), environment.traceEnabled()]).toEqual([true, true]);
  });

  it('is its mode and its paging', () => {
    const p = guestProcessor();
    const environment = environmentOf(p);
    p.cpu.updateMode();
    expect([environment.ia32eMode(), environment.paePaging()]).toEqual([true, false]);
    p.cpu.write('IA32_EFER', 0n);
    p.cpu.updateMode();
    expect([environment.ia32eMode(), environment.paePaging()]).toEqual([false, true]);
  });

  it('is its memory', () => {
    const p = guestProcessor();
    p.cpu.memory.write64(0x9000, 0x1122_3344_5566_7788n);
    expect(environmentOf(p).read64(0x9000)).toBe(0x1122_3344_5566_7788n);
    expect(environmentOf(p).read32(0x9004)).toBe(0x1122_3344);
  });
});
