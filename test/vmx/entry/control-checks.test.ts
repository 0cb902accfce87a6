import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CONTROLS } from '../../../src/vmcs/controls.ts';
import { FIELD_COUNT, FIELDS, Field } from '../../../src/vmcs/fields.ts';
import { EptVpidCap } from '../../../src/vmx/capabilities/capability-msrs.ts';
import { capabilitiesOf, findProfile, PROFILES } from '../../../src/vmx/capabilities/profiles.ts';
import type { CheckList, EntryCheck } from '../../../src/vmx/entry/check.ts';
import { CheckContext, type EntryEnvironment } from '../../../src/vmx/entry/check-context.ts';
import { NOT_CHECKED_HERE } from '../../../src/vmx/entry/checks/not-checked.ts';
import { isEptpValid } from '../../../src/vmx/ept/eptp.ts';
import {
  contextOf,
  environmentOf,
  failingChecks,
  fails,
  type Situation,
  situationOf,
  withChanges,
  wordsOf,
} from '../../support/evaluate.ts';
import { legalVmcs } from '../../support/legal-vmcs.ts';
import type { Witness } from '../../support/witness.ts';
import { CONTROL_LISTS, CONTROL_WITNESSES, type ControlCheckId } from './witnesses-controls.ts';

const LISTS: readonly CheckList<ControlCheckId>[] = CONTROL_LISTS;
const ROWS: readonly EntryCheck<ControlCheckId>[] = LISTS.flatMap((list) => list.rows);
const IDS = new Set<string>(ROWS.map((row) => row.id));
const rowOf = (id: ControlCheckId) => ROWS.find((row) => row.id === id)!;

function failing(witness: Witness): string[] {
  const { words, capabilities, environment } = situationOf(witness);
  return failingChecks(LISTS, words, capabilities, environment);
}

describe('the tables of checks on controls and host state', () => {
  it('has every row of the inventory, less those that cannot occur', () => {
    const inventory = {
      '29.2.1.1': 81,
      '29.2.1.2': 10,
      '29.2.1.3': 25,
      '29.2.2': 31,
      '29.2.3': 22,
      '29.2.4': 16,
    } as const;
    const seam = Object.keys(NOT_CHECKED_HERE).filter((id) => id.startsWith('ctrl.'));
    expect(seam).toHaveLength(3);
    for (const [section, count] of Object.entries(inventory)) {
      const lists = LISTS.filter((list) => list.sdm === section);
      const rows = lists.reduce((n, list) => n + list.rows.length, 0);
      expect(rows, section).toBe(section === '29.2.1.1' ? count - seam.length : count);
    }
    for (const list of LISTS) for (const row of list.rows) expect(row.sdm).toBe(list.sdm);
  });

  it('has unique ids, and none that is said not to be checked', () => {
    expect(IDS.size).toBe(ROWS.length);
    for (const id of IDS) expect(NOT_CHECKED_HERE[id]).toBeUndefined();
  });

  it('answers a failing host check with error 8 and any other with error 7', () => {
    for (const row of ROWS) {
      const error = row.id.startsWith('host.') ? 8 : 7;
      expect(row.consequence, row.id).toEqual({ kind: 'VMfailValid', error });
    }
  });

  it('states every rule as one sentence of its own', () => {
    for (const row of ROWS) expect(row.rule, row.id).toMatch(/^["A-Z][^\n]*\.$/);
  });
});

describe('the smallest legal VMCS', () => {
  for (const profile of PROFILES) {
    for (const level of ['checked', 'complete', 'silicon'] as const) {
      it(`passes on ${profile.name} (${level})`, () => {
        const capabilities = capabilitiesOf(profile, level);
        const words = wordsOf(legalVmcs(capabilities));
        expect(failingChecks(LISTS, words, capabilities, environmentOf())).toEqual([]);
      });
    }
  }
});

describe('every check has a witness', () => {
  for (const row of ROWS) {
    const witness = CONTROL_WITNESSES[row.id];
    it(`${row.id} alone catches its witness, and its fix is enough`, () => {
      const also = (witness.also ?? []).filter((id) => IDS.has(id));
      expect(failing(witness).sort()).toEqual([row.id, ...also].sort());
      const situation = situationOf(witness);
      const changes = row.fix(contextOf(situation));
      expect(changes.length).toBeGreaterThan(0);
      expect(fails(row, contextOf(withChanges(situation, changes)))).toBe(false);
    });
  }
});

/** Situations in which rows are watched: every witness of every check, before and after the fix. */
function* situations(): Generator<Situation> {
  yield situationOf();
  for (const row of ROWS) {
    const situation = situationOf(CONTROL_WITNESSES[row.id]);
    yield situation;
    yield withChanges(situation, row.fix(contextOf(situation)));
  }
}

/** An environment that notes when it is asked anything but the width of addresses. */
function watched(environment: EntryEnvironment): { environment: EntryEnvironment; asked: () => boolean } {
  let asked = false;
  const proxy = new Proxy(environment, {
    get(target, name, receiver) {
      asked ||= name !== 'tmeReduction';
      return Reflect.get(target, name, receiver);
    },
  });
  const wasAsked = () => {
    const answer = asked;
    asked = false;
    return answer;
  };
  return { environment: proxy, asked: wasAsked };
}

describe('rows declare what they look at', () => {
  it('fields of conditions and of rules, and whether anything outside the VMCS', () => {
    const nothingKnown = new Uint8Array(FIELD_COUNT);
    const looked = new Set<string>();
    for (const { words, capabilities, environment } of situations()) {
      const watch = watched(environment);
      const context = new CheckContext(words, capabilities, watch.environment, nothingKnown);
      const reads = () => {
        const names = [...context.missing];
        context.begin();
        return names;
      };
      for (const row of ROWS) {
        context.begin();
        let applies = true;
        for (const condition of row.when) {
          applies = condition.test(context) && applies;
          expect(condition.fields, `${row.id}: ${condition.text}`).toEqual(expect.arrayContaining(reads()));
        }
        if (applies) {
          row.holds(context);
          expect(row.fields, row.id).toEqual(expect.arrayContaining(reads()));
        }
        if (watch.asked()) looked.add(row.id);
      }
    }
    expect([...looked].sort()).toEqual(
      ROWS.filter((row) => row.looksOutside)
        .map((row) => row.id)
        .sort(),
    );
  });

  it('blames some field, and changes only fields it looks at', () => {
    for (const row of ROWS) {
      const changes = row.fix(contextOf(situationOf(CONTROL_WITNESSES[row.id])));
      expect(row.fields.length, row.id).toBeGreaterThan(0);
      const looked = [...row.fields, ...row.when.flatMap((c) => c.fields)];
      for (const { field } of changes) expect(looked, row.id).toContain(field);
    }
  });
});

describe('a fix', () => {
  const CONTROL_AND_HOST = FIELDS.filter((f) => f.type === 'control' || f.type === 'host');
  const field = fc.constantFrom(...CONTROL_AND_HOST);
  const value = fc.oneof(
    fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
    fc.integer({ min: 0, max: 63 }).map((position) => 1n << BigInt(position)),
  );

  it('satisfies its rule whatever else is wrong', () => {
    fc.assert(
      fc.property(
        fc.array(fc.constantFrom(...CONTROLS.map((c) => c.id)), { maxLength: 30 }),
        fc.array(fc.tuple(field, value), { maxLength: 40 }),
        fc.record({ ia32eMode: fc.boolean(), inSmm: fc.boolean(), traceEnabled: fc.boolean() }),
        (controls, writes, environment) => {
          const fields = Object.fromEntries(writes.map(([f, v]) => [f.key, BigInt.asUintN(f.bits, v)]));
          const situation = situationOf({ controls, fields, environment });
          const context = contextOf(situation);
          for (const row of ROWS) {
            if (!fails(row, context)) continue;
            const fixed = withChanges(situation, row.fix(context));
            if (fails(row, contextOf(fixed))) throw new Error(`the fix of ${row.id} is not enough`);
          }
        },
      ),
      { numRuns: 300 },
    );
  });
});

describe('what others got wrong', () => {
  it('counts the secondary controls as 0 while they are not activated', () => {
    expect(
      failing({
        fields: {
          secondaryProcessorBasedControls: 0xffff_ffffn,
          tertiaryProcessorBasedControls: 0xffff_ffff_ffff_ffffn,
          secondaryVmExitControls: 0xffff_ffff_ffff_ffffn,
          vmFunctionControls: 0xffff_ffff_ffff_ffffn,
          eptPointer: 0xffffn,
          vpid: 0n,
        },
      }),
    ).toEqual([]);
  });

  it('lets the APIC-access page be the virtual-APIC page', () => {
    expect(
      failing({
        controls: ['proc.useTprShadow', 'proc2.virtualizeApicAccesses'],
        fields: { virtualApicAddress: 0x5000n, apicAccessAddress: 0x5000n },
      }),
    ).toEqual([]);
  });

  it('computes the last byte of an MSR area without wrap-around', () => {
    const wrapping = { vmExitMsrLoadAddress: 2n ** 64n - 16n, vmExitMsrLoadCount: 2n };
    expect(failing({ fields: wrapping })).toEqual([
      'ctrl.exit-msr-load.width',
      'ctrl.exit-msr-load.last-byte-width',
    ]);
    const count = { vmExitMsrStoreAddress: 2n ** 52n - 2n ** 31n, vmExitMsrStoreCount: 0x1000_0000n };
    expect(failing({ fields: count })).toEqual(['ctrl.exit-msr-store.last-byte-width']);
    const toTheTop = { vmExitMsrLoadAddress: 2n ** 52n - 32n, vmExitMsrLoadCount: 2n };
    expect(failing({ fields: toTheTop })).toEqual([]);
  });

  it('ignores the addresses of MSR areas without entries', () => {
    expect(failing({ fields: { vmEntryMsrLoadAddress: 2n ** 64n - 1n } })).toEqual([]);
  });

  it('holds addresses to 32 bits where IA32_VMX_BASIC[48] is 1, and to fewer bits where keys take some', () => {
    const basic = (situationOf().capabilities.msrs.IA32_VMX_BASIC ?? 0n) | (1n << 48n);
    const controls = ['proc.useMsrBitmaps'] as const;
    const at = (position: number) => ({ msrBitmapAddress: 1n << BigInt(position) });
    expect(failing({ controls, fields: at(32), msrs: { IA32_VMX_BASIC: basic } })).toEqual([
      'ctrl.msr-bitmap.width',
    ]);
    expect(failing({ controls, fields: at(46), environment: { tmeReduction: 6 } })).toEqual([
      'ctrl.msr-bitmap.width',
    ]);
    expect(failing({ controls, fields: at(45), environment: { tmeReduction: 6 } })).toEqual([]);
  });

  it('never checks CD and NW of host CR0', () => {
    expect(failing({ fields: { hostCr0: 0xe000_0021n } })).toEqual([]);
  });

  it('holds host PE and PG even with "unrestricted guest"', () => {
    const controls = ['proc2.enableEpt', 'proc2.unrestrictedGuest'] as const;
    expect(failing({ controls, fields: { hostCr0: 0x20n } })).toEqual(['host.cr0.fixed']);
  });

  it('tests bases and MSRs for the width of the processor, RIP and SSP for that of the host', () => {
    const wide = 1n << 47n;
    const fields = { hostFsBase: wide, hostIa32SysenterEip: wide };
    expect(failing({ fields })).toEqual([]);
    expect(failing({ fields, features: { linearAddressBits: 48 } })).toEqual([
      'host.sysenter-eip.canonical',
      'host.fs.base-canonical',
    ]);
    expect(failing({ fields: { hostRip: wide } })).toEqual(['host.rip.canonical-if-host64']);
    expect(failing({ fields: { hostRip: wide, hostCr4: 0x3020n } })).toEqual([]);
  });

  it('reserves LAM bits of host CR3 only without linear-address masking', () => {
    const fields = { hostCr3: 3n << 61n };
    expect(failing({ fields })).toEqual([]);
    const { cr4Bits } = situationOf().capabilities.features;
    expect(failing({ fields, features: { cr4Bits: cr4Bits & ~(1n << 28n) } })).toEqual(['host.cr3.width']);
  });

  it('checks the TPR threshold against VTPR only at a legal address', () => {
    const controls = ['proc.useTprShadow'] as const;
    expect(failing({ controls, fields: { tprThreshold: 1n, virtualApicAddress: 8n } })).toEqual([
      'ctrl.vapic.align',
    ]);
    expect(failing({ controls, fields: { tprThreshold: 1n, virtualApicAddress: 1n << 52n } })).toEqual([
      'ctrl.vapic.width',
    ]);
    expect(
      failing({ controls: [...controls, 'proc2.virtualizeApicAccesses'], fields: { tprThreshold: 1n } }),
    ).toEqual([]);
  });

  it('relaxes the error-code rule for hardware exceptions only', () => {
    for (const [event, failed] of [
      [0x8000_0b15n, []],
      [0x8000_030dn, []],
      [0x8000_0e03n, ['inject.error-code.only-hw-exception']],
    ] as const) {
      const fields = { injectedEventIdentification: event, vmEntryInstructionLength: 1n };
      expect(failing({ fields })).toEqual(failed);
    }
  });

  it('wants an error code in real mode only if "unrestricted guest" is 0', () => {
    const basic = (situationOf().capabilities.msrs.IA32_VMX_BASIC ?? 0n) & ~(1n << 56n);
    const witness = {
      msrs: { IA32_VMX_BASIC: basic },
      fields: { guestCr0: 0x20n, injectedEventIdentification: 0x8000_030dn },
    };
    expect(failing(witness)).toEqual(['inject.error-code.required']);
    expect(failing({ ...witness, controls: ['proc2.enableEpt', 'proc2.unrestrictedGuest'] })).toEqual([]);
  });

  it('looks at the instruction length of events that instructions raise, and of no other', () => {
    const { IA32_VMX_MISC: misc = 0n } = situationOf().capabilities.msrs;
    const msrs = { IA32_VMX_MISC: misc & ~(1n << 30n) };
    const judged = (vmEntryInstructionLength: bigint, id: string) =>
      [0, 2, 3, 4, 5, 6, 7].flatMap((type) =>
        [0, 1, 2].flatMap((vector) => {
          const injectedEventIdentification = BigInt(0x8000_0000 + 0x100 * type + vector);
          const fields = { injectedEventIdentification, vmEntryInstructionLength, guestCr4: 0x1_0000_2020n };
          return failing({ msrs, fields }).includes(id) ? [[type, vector]] : [];
        }),
      );
    const byInstruction = [
      ...[4, 5, 6].flatMap((type) => [0, 1, 2].map((vector) => [type, vector])),
      [7, 1],
      [7, 2],
    ];
    expect(judged(16n, 'inject.instr-length.max')).toEqual(byInstruction);
    expect(judged(15n, 'inject.instr-length.max')).toEqual([]);
    expect(judged(0n, 'inject.instr-length.nonzero')).toEqual(byInstruction);
    expect(judged(1n, 'inject.instr-length.nonzero')).toEqual([]);
  });

  it('knows the vectors of each type of event', () => {
    const fred = { guestCr4: 0x1_0000_2020n, vmEntryInstructionLength: 1n };
    const judged = (injectedEventIdentification: bigint, fields = {}, witness: Witness = {}) =>
      failing({ ...witness, fields: { injectedEventIdentification, ...fields } });
    expect(judged(0x8000_031fn)).toEqual([]);
    expect(judged(0x8000_0320n)).toEqual(['inject.vector.hw-exception']);
    expect(judged(0x8000_0702n, fred)).toEqual([]);
    expect(judged(0x8000_0703n, fred)).toEqual(['inject.vector.other-range']);
    expect(judged(0x8000_0701n, { ...fred, guestCr4: 0x2020n })).toEqual(['inject.vector.other-fred']);
    expect(judged(0x8000_0702n, { ...fred, guestCr4: 0x2020n })).toEqual(['inject.vector.other-fred']);
    const { IA32_VMX_TRUE_PROCBASED_CTLS: controls = 0n } = situationOf().capabilities.msrs;
    const noMtf = { msrs: { IA32_VMX_TRUE_PROCBASED_CTLS: controls & ~(1n << 59n) } };
    expect(judged(0x8000_0701n, fred, noMtf)).toEqual([]);
    expect(judged(0x8000_0700n, fred, noMtf)).toEqual(['inject.vector.other-mtf']);
  });

  it('makes NMI of a wrong vector the vector 2 and leaves the rest', () => {
    const fields = { injectedEventIdentification: 0x8000_02ffn };
    expect(rowOf('inject.vector.nmi').fix(contextOf(situationOf({ fields })))).toEqual([
      { field: 'injectedEventIdentification', value: 0x8000_0202n },
    ]);
  });

  it('wants an error code of exactly the exceptions that have one, where the processor wants it', () => {
    const { IA32_VMX_BASIC: basic = 0n } = situationOf().capabilities.msrs;
    const msrs = { IA32_VMX_BASIC: basic & ~(1n << 56n) };
    const failed = (vector: number, code: boolean) =>
      failing({
        msrs,
        fields: { injectedEventIdentification: BigInt(0x8000_0300 + (code ? 0x800 : 0) + vector) },
      });
    for (let vector = 0; vector < 32; vector++) {
      const has = [8, 10, 11, 12, 13, 14, 17].includes(vector);
      expect(failed(vector, true), `${vector}`).toEqual(has ? [] : ['inject.error-code.not-vector']);
      expect(failed(vector, false), `${vector}`).toEqual(has ? ['inject.error-code.required'] : []);
    }
    expect(failed(32, true)).toEqual(['inject.vector.hw-exception']);
  });

  it('looks at the error code only if it is delivered', () => {
    const fields = { injectedEventIdentification: 0x8000_030dn, injectedEventErrorCode: 0x1_0000n };
    expect(failing({ fields })).toEqual([]);
    expect(failing({ fields: { ...fields, injectedEventIdentification: 0x8000_0b0dn } })).toEqual([
      'inject.error-code-field.high',
    ]);
  });

  it('holds CR0 and CR4 of the host to both kinds of fixed bits, CD and NW of CR0 to none', () => {
    const { msrs } = situationOf().capabilities;
    const fixed = { ...msrs, IA32_VMX_CR0_FIXED0: (msrs.IA32_VMX_CR0_FIXED0 ?? 0n) | (3n << 29n) };
    expect(failing({ msrs: fixed })).toEqual([]);
    expect(failing({ fields: { hostCr0: 0x1_8000_0021n } })).toEqual(['host.cr0.fixed']);
    for (const position of [29n, 30n, 63n]) {
      expect(failing({ fields: { hostCr4: 0x2020n | (1n << position) } })).toEqual(['host.cr4.fixed']);
    }
  });

  it('repairs the bytes of host PAT that are no memory type, and no other', () => {
    const fields = { hostIa32Pat: 0x0302_0007_0605_0401n };
    const situation = situationOf({ controls: ['exit.loadIa32Pat'], fields });
    expect(rowOf('host.pat.memtype').fix(contextOf(situation))).toEqual([
      { field: 'hostIa32Pat', value: 0x0000_0007_0605_0401n },
    ]);
  });

  it('moves an MSR area only as far as it must', () => {
    const row = rowOf('ctrl.exit-msr-load.last-byte-width');
    const fix = (vmExitMsrLoadAddress: bigint, vmExitMsrLoadCount: bigint) =>
      row.fix(contextOf(situationOf({ fields: { vmExitMsrLoadAddress, vmExitMsrLoadCount } })));
    expect(fix(2n ** 52n - 32n, 3n)).toEqual([{ field: 'vmExitMsrLoadCount', value: 2n }]);
    expect(fix(2n ** 52n + 32n, 2n)).toEqual([{ field: 'vmExitMsrLoadAddress', value: 32n }]);
    expect(fix(2n ** 53n - 32n, 2n)).toEqual([{ field: 'vmExitMsrLoadAddress', value: 2n ** 52n - 32n }]);
    expect(fix(2n ** 53n - 16n, 2n)).toEqual([
      { field: 'vmExitMsrLoadAddress', value: 2n ** 52n - 16n },
      { field: 'vmExitMsrLoadCount', value: 1n },
    ]);
  });

  it('names what it would have to know', () => {
    const { words, capabilities } = situationOf({ controls: ['proc.useTprShadow'] });
    const silent = environmentOf();
    const context = new CheckContext(words, capabilities, { ...silent, read32: () => undefined });
    context.begin();
    rowOf('ctrl.tpr-threshold.le-vtpr').holds(context);
    expect([...context.missing]).toEqual(['VTPR']);
  });
});

describe('a valid EPT pointer', () => {
  const { capabilities } = situationOf();
  const without = (position: number) => ({
    msrs: {
      IA32_VMX_EPT_VPID_CAP: (capabilities.msrs.IA32_VMX_EPT_VPID_CAP ?? 0n) & ~(1n << BigInt(position)),
    },
  });

  const cases: readonly (readonly [eptp: bigint, witness: Witness, failed: readonly string[]])[] = [
    [0x1en, {}, []],
    [0x26n, {}, []],
    [0x18n, {}, []],
    [0xden, {}, []],
    [0x26n, without(EptVpidCap.WALK_LENGTH_5), ['ctrl.eptp.walk-length']],
    [0x1en, without(EptVpidCap.WALK_LENGTH_4), ['ctrl.eptp.walk-length']],
    [0x18n, without(EptVpidCap.UC), ['ctrl.eptp.memtype']],
    [0x1en, without(EptVpidCap.WB), ['ctrl.eptp.memtype']],
    [0x9en, without(EptVpidCap.SUPERVISOR_SHADOW_STACK), ['ctrl.eptp.reserved-11-7']],
    [0x81en, {}, ['ctrl.eptp.reserved-11-7']],
    [0x5en, without(EptVpidCap.ACCESSED_DIRTY), ['ctrl.eptp.ad-flag']],
    [(1n << 52n) | 0x1en, {}, ['ctrl.eptp.width']],
  ];
  for (const [eptp, witness, failed] of cases) {
    it(`0x${eptp.toString(16)}${failed.length > 0 ? ` is not one: ${failed[0]}` : ' is one'}`, () => {
      const whole: Witness = { ...witness, controls: ['proc2.enableEpt'], fields: { eptPointer: eptp } };
      expect(failing(whole)).toEqual(failed);
      const situation = situationOf(whole);
      expect(isEptpValid(eptp, situation.capabilities, 52)).toBe(failed.length === 0);
      for (const id of failed as ControlCheckId[]) {
        const changes = rowOf(id).fix(contextOf(situation));
        expect(failing({ ...whole, fields: { eptPointer: changes[0]!.value } })).toEqual([]);
      }
    });
  }
});

describe('a processor with EPT but without what an EPTP needs', () => {
  it('has to do without EPT', () => {
    const { IA32_VMX_EPT_VPID_CAP: cap = 0n } = situationOf().capabilities.msrs;
    const none = (1n << 6n) | (1n << 7n) | (1n << 8n) | (1n << 14n);
    const situation = situationOf({
      controls: ['proc2.enableEpt'],
      msrs: { IA32_VMX_EPT_VPID_CAP: cap & ~none },
      fields: { eptPointer: 0x5_001en },
    });
    for (const id of ['ctrl.eptp.memtype', 'ctrl.eptp.walk-length'] as const) {
      const row = rowOf(id);
      expect(fails(row, contextOf(situation))).toBe(true);
      const changes = row.fix(contextOf(situation));
      expect(changes).toEqual([{ field: 'secondaryProcessorBasedControls', value: 0n }]);
      expect(fails(row, contextOf(withChanges(situation, changes)))).toBe(false);
    }
  });
});

describe('a processor without the field', () => {
  it('applies no rule of a control it does not have', () => {
    const capabilities = capabilitiesOf(findProfile('penryn')!, 'checked');
    expect(capabilities.fieldExists[Field.eptPointer]).toBe(0);
    const words = wordsOf({ ...legalVmcs(capabilities), eptPointer: 0xffffn, vpid: 0n });
    expect(failingChecks(LISTS, words, capabilities, environmentOf())).toEqual([]);
  });
});
