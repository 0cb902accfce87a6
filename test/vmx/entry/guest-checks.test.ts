import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CONTROLS, type ControlId } from '../../../src/vmcs/controls.ts';
import { FIELD_COUNT, FIELDS } from '../../../src/vmcs/fields.ts';
import { capabilitiesOf, PROFILES } from '../../../src/vmx/capabilities/profiles.ts';
import type { CheckList, EntryCheck } from '../../../src/vmx/entry/check.ts';
import { CheckContext, type EntryEnvironment } from '../../../src/vmx/entry/check-context.ts';
import { GUEST_STATE, type GuestCheckId } from '../../../src/vmx/entry/checks/guest-state.ts';
import { NOT_CHECKED_HERE } from '../../../src/vmx/entry/checks/not-checked.ts';
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
import { GUEST_WITNESSES, LEGAL_GUESTS, VIRTUAL_8086 } from './witnesses-guest.ts';

const LISTS: readonly CheckList<GuestCheckId>[] = GUEST_STATE;
const ROWS: readonly EntryCheck<GuestCheckId>[] = LISTS.flatMap((list) => list.rows);
const one = (position: number) => 1n << BigInt(position);

function failing(witness: Witness): string[] {
  const { words, capabilities, environment } = situationOf(witness);
  return failingChecks(LISTS, words, capabilities, environment);
}

describe('the tables of checks on guest state', () => {
  it('has every row of the inventory, less those that cannot occur', () => {
    const inventory = {
      '29.3.1.1': 44,
      '29.3.1.2': 107,
      '29.3.1.3': 4,
      '29.3.1.4': 10,
      '29.3.1.5': 33,
      '29.3.1.6': 8,
    } as const;
    const left = Object.keys(NOT_CHECKED_HERE).filter((id) => id.startsWith('guest.'));
    expect(left).toEqual([]);
    for (const [section, count] of Object.entries(inventory)) {
      const lists = LISTS.filter((list) => list.sdm === section);
      const rows = lists.reduce((n, list) => n + list.rows.length, 0);
      expect(rows, section).toBe(count);
    }
  });

  it('cites the section of its list in every row but one', () => {
    for (const list of LISTS) {
      for (const row of list.rows) {
        expect(row.sdm, row.id).toBe(row.id === 'guest.ssp.high-32' ? '29.3.2.3' : list.sdm);
      }
    }
  });

  it('has unique ids, and none that is said not to be checked', () => {
    expect(new Set(ROWS.map((row) => row.id)).size).toBe(ROWS.length);
    for (const { id } of ROWS) expect(NOT_CHECKED_HERE[id]).toBeUndefined();
  });

  it('fails VM entry with a qualification for PDPTEs, for NMIs after STI and for the link pointer', () => {
    for (const { id, consequence } of ROWS) {
      const qualification = /^guest\.pdpte\d/.test(id)
        ? 2
        : id === 'guest.intr.sti-not-with-nmi'
          ? 3
          : id.startsWith('guest.link.')
            ? 4
            : 0;
      expect(consequence, id).toEqual({ kind: 'entry-failure', qualification });
    }
  });

  it('states every rule as one sentence of its own', () => {
    for (const row of ROWS) expect(row.rule, row.id).toMatch(/^["A-Z][^\n]*\.$/);
  });
});

describe('a legal guest', () => {
  for (const profile of PROFILES) {
    for (const level of ['checked', 'complete', 'silicon'] as const) {
      it(`passes on ${profile.name} (${level})`, () => {
        const capabilities = capabilitiesOf(profile, level);
        const words = wordsOf(legalVmcs(capabilities));
        expect(failingChecks(LISTS, words, capabilities, environmentOf())).toEqual([]);
      });
    }
  }
  for (const [name, guest] of Object.entries(LEGAL_GUESTS)) {
    it(`passes ${name}`, () => expect(failing(guest)).toEqual([]));
  }
});

describe('every check has a witness', () => {
  for (const row of ROWS) {
    it(`${row.id} alone catches its witness, and its fix is enough`, () => {
      const witness = GUEST_WITNESSES[row.id];
      expect(failing(witness).sort()).toEqual([row.id, ...(witness.also ?? [])].sort());
      const situation = situationOf(witness);
      const changes = row.fix(contextOf(situation));
      expect(changes.length).toBeGreaterThan(0);
      expect(fails(row, contextOf(withChanges(situation, changes)))).toBe(false);
    });
  }
});

const field = fc.constantFrom(...FIELDS.filter((f) => f.type === 'guest' || f.key.startsWith('injected')));
const value = fc.oneof(
  fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  fc.integer({ min: 0, max: 63 }).map(one),
  fc.bigInt({ min: 0n, max: 3n }),
);
const anything: fc.Arbitrary<Situation> = fc
  .record({
    controls: fc.uniqueArray(fc.constantFrom(...CONTROLS.map((c) => c.id)), { maxLength: 30 }),
    off: fc.constantFrom<readonly ControlId[]>([], ['entry.ia32eModeGuest']),
    virtual8086: fc.boolean(),
    writes: fc.array(fc.tuple(field, value), { maxLength: 40 }),
    environment: fc.record({
      inSmm: fc.boolean(),
      paePaging: fc.boolean(),
      tmeReduction: fc.integer({ min: 0, max: 15 }),
    }),
    features: fc.record({
      rtm: fc.boolean(),
      sgx: fc.boolean(),
      busLockDetection: fc.boolean(),
      linearAddressBits: fc.constantFrom(48, 57),
    }),
    profile: fc.constantFrom('full', 'penryn', 'skylake-x'),
  })
  .map(({ virtual8086, writes, ...witness }) => {
    const written = Object.fromEntries(writes.map(([f, v]) => [f.key, BigInt.asUintN(f.bits, v)]));
    return situationOf({ ...witness, fields: { ...(virtual8086 && VIRTUAL_8086), ...written } });
  });

/** Situations in which rows are watched: every witness, before and after the fix, and anything. */
function situations(): Situation[] {
  const witnessed = ROWS.flatMap((row) => {
    const situation = situationOf(GUEST_WITNESSES[row.id]);
    return [situation, withChanges(situation, row.fix(contextOf(situation)))];
  });
  return [situationOf(), ...witnessed, ...fc.sample(anything, { numRuns: 200, seed: 29 })];
}

/** An environment that notes when it is asked anything but the width of addresses. */
function watched(environment: EntryEnvironment, asked: () => void): EntryEnvironment {
  return new Proxy(environment, {
    get(target, name, receiver) {
      if (name !== 'tmeReduction') asked();
      return Reflect.get(target, name, receiver);
    },
  });
}

describe('rows declare what they look at', () => {
  it('fields of conditions and of rules, and whether anything outside the VMCS', () => {
    const nothingKnown = new Uint8Array(FIELD_COUNT);
    const undeclared = new Set<string>();
    const looked = new Set<string>();
    for (const { words, capabilities, environment } of situations()) {
      let asking: string = '';
      const context = new CheckContext(
        words,
        capabilities,
        watched(environment, () => looked.add(asking)),
        nothingKnown,
      );
      for (const row of ROWS) {
        asking = row.id;
        const look = (declared: readonly string[], act: () => boolean) => {
          context.begin();
          const answer = act();
          for (const name of context.missing) {
            if (!declared.includes(name)) undeclared.add(`${row.id} reads ${name}`);
          }
          return answer;
        };
        let applies = true;
        for (const condition of row.when) {
          applies = look(condition.fields, () => condition.test(context)) && applies;
        }
        if (applies) look(row.fields, () => row.holds(context));
      }
    }
    expect([...undeclared]).toEqual([]);
    const outside = ROWS.filter((row) => row.looksOutside).map((row) => row.id);
    expect([...looked].sort()).toEqual(outside.sort());
  });

  it('blames some field, and changes only fields it looks at', () => {
    for (const row of ROWS) {
      const changes = row.fix(contextOf(situationOf(GUEST_WITNESSES[row.id])));
      expect(row.fields.length, row.id).toBeGreaterThan(0);
      const looked = [...row.fields, ...row.when.flatMap((c) => c.fields)];
      for (const { field: changed } of changes) expect(looked, row.id).toContain(changed);
    }
  });
});

describe('a fix', () => {
  it('satisfies its rule whatever else is wrong', () => {
    fc.assert(
      fc.property(anything, (situation) => {
        const context = contextOf(situation);
        for (const row of ROWS) {
          if (!fails(row, context)) continue;
          const fixed = withChanges(situation, row.fix(context));
          if (fails(row, contextOf(fixed))) throw new Error(`the fix of ${row.id} is not enough`);
        }
      }),
      { numRuns: 300 },
    );
  });
});

describe('what others got wrong', () => {
  it('checks the guest CR0 and CR4 fields, not the read shadows', () => {
    const shadows = { cr0GuestHostMask: 2n ** 64n - 1n, cr4GuestHostMask: 2n ** 64n - 1n };
    expect(failing({ fields: { ...shadows, cr0ReadShadow: 0n, cr4ReadShadow: 0n } })).toEqual([]);
    expect(
      failing({
        fields: { ...shadows, guestCr4: 0x20n, cr4ReadShadow: 0x2020n, cr0ReadShadow: 0x8000_0021n },
      }),
    ).toEqual(['guest.cr4.fixed']);
  });

  it('never checks CD and NW of guest CR0, and frees PE and PG only for an unrestricted guest', () => {
    expect(failing({ fields: { guestCr0: 0xe000_0021n } })).toEqual([]);
    const off = ['entry.ia32eModeGuest'] as const;
    expect(failing({ off, fields: { guestCr0: 0x21n } })).toEqual(['guest.cr0.fixed']);
    const controls = ['proc2.enableEpt', 'proc2.unrestrictedGuest'] as const;
    expect(failing({ off, controls, fields: { guestCr0: 0x21n } })).toEqual([]);
    expect(failing({ off, controls, fields: { guestCr0: 0x20n } })).toEqual([]);
  });

  it('has two notions of canonical: by the processor for bases and MSRs, weaker for RIP and SSP', () => {
    const at = (position: number) => ({
      guestTrBase: one(position),
      guestRip: one(position),
      guestIa32SysenterEip: one(position),
    });
    expect(failing({ fields: at(55) })).toEqual([]);
    expect(failing({ fields: at(56) })).toEqual(['guest.sysenter-eip.canonical', 'guest.tr.base-canonical']);
    expect(failing({ fields: { guestRip: one(57) } })).toEqual(['guest.rip.high-identical']);
    expect(failing({ fields: { guestRip: 2n ** 64n - one(57) } })).toEqual([]);
    const features = { linearAddressBits: 48 };
    expect(failing({ features, fields: at(46) })).toEqual([]);
    expect(failing({ features, fields: at(47) })).toEqual([
      'guest.sysenter-eip.canonical',
      'guest.tr.base-canonical',
    ]);
    expect(failing({ features, fields: { guestRip: one(48) } })).toEqual(['guest.rip.high-identical']);
  });

  it('holds RIP to 32 bits outside 64-bit mode, and to the linear-address width inside', () => {
    const rip = { guestRip: one(57) };
    expect(failing({ fields: rip })).toEqual(['guest.rip.high-identical']);
    const compatibility = { ...rip, guestCsAccessRights: 0xc09bn };
    expect(failing({ fields: compatibility })).toEqual(['guest.rip.high-32']);
    const off = ['entry.ia32eModeGuest'] as const;
    expect(failing({ off, fields: rip })).toEqual(['guest.rip.high-32']);
  });

  it('wants of a FRED guest CS.L at CPL 0 only, and IOPL 0 at CPL 3 only', () => {
    const fred = { guestCr4: 0x1_0000_2020n };
    const user = { ...fred, guestCsSelector: 0xbn, guestSsSelector: 3n, guestSsAccessRights: 0x1_0060n };
    const compatibility = { ...user, guestCsAccessRights: 0xc0fbn };
    expect(failing({ fields: { ...fred, guestRflags: 0x3002n } })).toEqual([]);
    expect(failing({ fields: compatibility })).toEqual([]);
    expect(failing({ fields: { ...compatibility, guestRflags: 0x3002n } })).toEqual([
      'guest.rflags.iopl-fred-cpl3',
    ]);
    expect(failing({ fields: { ...fred, guestCsAccessRights: 0xc09bn } })).toEqual(['guest.cs.l-fred-cpl0']);
  });

  it('holds CR0 and CR4 of the guest to both kinds of fixed bits', () => {
    expect(failing({ fields: { guestCr0: 0x1_8000_0021n } })).toEqual(['guest.cr0.fixed']);
    expect(failing({ fields: { guestCr4: 0x2020n | one(63) } })).toEqual(['guest.cr4.fixed']);
  });

  it('knows the types of code segments', () => {
    const cs = (type: bigint, dpl: bigint, ss: bigint) =>
      failing({
        fields: {
          guestCsAccessRights: 0xa090n | (dpl << 5n) | type,
          guestCsSelector: 8n | ss,
          guestSsSelector: ss,
          guestSsAccessRights: 0x1_0000n | (ss << 5n),
        },
      });
    for (const type of [9n, 11n]) {
      expect(cs(type, 3n, 3n)).toEqual([]);
      expect(cs(type, 0n, 3n)).toEqual(['guest.cs.dpl-nonconforming']);
    }
    for (const type of [13n, 15n]) {
      expect(cs(type, 0n, 3n)).toEqual([]);
      expect(cs(type, 3n, 3n)).toEqual([]);
      expect(cs(type, 3n, 0n)).toEqual(['guest.cs.dpl-conforming']);
    }
  });

  it('knows the types of stack and data segments and of TSSs', () => {
    const ss = (type: bigint) =>
      failing({ fields: { guestSsLimit: 0xffff_ffffn, guestSsAccessRights: 0xc090n | type } });
    for (const type of [3n, 7n]) expect(ss(type)).toEqual([]);
    for (const type of [1n, 5n, 11n]) expect(ss(type)).toEqual(['guest.ss.type']);
    const ds = (type: bigint) =>
      failing({
        fields: { guestDsSelector: 3n, guestDsLimit: 0xffff_ffffn, guestDsAccessRights: 0xc090n | type },
      });
    for (const type of [1n, 3n, 5n, 7n, 11n]) expect(ds(type)).toEqual(['guest.ds.dpl-ge-rpl']);
    expect(ds(15n)).toEqual([]);
    const tr = (type: bigint, off: readonly ControlId[]) =>
      failing({ off, fields: { guestTrAccessRights: 0x80n | type } });
    expect(tr(3n, ['entry.ia32eModeGuest'])).toEqual([]);
    expect(tr(9n, ['entry.ia32eModeGuest'])).toEqual(['guest.tr.type-legacy']);
    expect(tr(3n, [])).toEqual(['guest.tr.type-ia32e']);
  });

  it('lets no software event with the vector of a machine check wake a processor in shutdown', () => {
    const fields = { guestActivityState: 2n, injectedEventIdentification: 0x8000_0412n };
    expect(failing({ fields })).toEqual(['guest.activity.inject-shutdown']);
  });

  it('makes LMA follow the control and LME follow LMA', () => {
    const fix = (id: string, guestIa32Efer: bigint, off: readonly ControlId[] = []) =>
      ROWS.find((r) => r.id === id)!.fix(
        contextOf(situationOf({ controls: ['entry.loadIa32Efer'], off, fields: { guestIa32Efer } })),
      );
    const efer = (value: bigint) => [{ field: 'guestIa32Efer', value }];
    expect(fix('guest.efer.lma-eq-ia32e', 0x101n)).toEqual(efer(0x501n));
    expect(fix('guest.efer.lma-eq-ia32e', 0x501n, ['entry.ia32eModeGuest'])).toEqual(efer(0x101n));
    expect(fix('guest.efer.lme-eq-lma', 0x401n)).toEqual(efer(0x501n));
    expect(fix('guest.efer.lme-eq-lma', 0x101n)).toEqual(efer(0x1n));
  });

  it('repairs the bytes of PAT that are no memory type, and no other', () => {
    const row = ROWS.find((r) => r.id === 'guest.pat.memtype')!;
    const fields = { guestIa32Pat: 0x0302_0007_0605_0401n };
    const changes = row.fix(contextOf(situationOf({ controls: ['entry.loadIa32Pat'], fields })));
    expect(changes).toEqual([{ field: 'guestIa32Pat', value: 0x0606_0007_0605_0401n }]);
  });

  it('subtracts key bits from the width of CR3 only without EPT', () => {
    const witness = { fields: { guestCr3: one(48) }, environment: { tmeReduction: 6 } };
    expect(failing(witness)).toEqual(['guest.cr3.width']);
    expect(failing({ ...witness, controls: ['proc2.enableEpt'] })).toEqual([]);
  });

  it('reserves LAM bits of guest CR3 only without linear-address masking', () => {
    const fields = { guestCr3: 3n << 61n };
    expect(failing({ fields })).toEqual([]);
    const { cr4Bits } = situationOf().capabilities.features;
    expect(failing({ fields, features: { cr4Bits: cr4Bits & ~one(28) } })).toEqual(['guest.cr3.width']);
  });

  it('tests all of PKRS and DR7, not their low halves', () => {
    const fields = { guestIa32Pkrs: 0xffff_ffffn, guestDr7: 0xffff_ffffn };
    expect(failing({ controls: ['entry.loadPkrs', 'entry.loadDebugControls'], fields })).toEqual([]);
    const high = { guestIa32Pkrs: one(63), guestDr7: one(63) };
    expect(failing({ controls: ['entry.loadPkrs'], off: ['entry.loadDebugControls'], fields: high })).toEqual(
      ['guest.pkrs.high'],
    );
  });

  it('checks CS as if usable, bases of FS and GS always, SS.DPL even if SS is unusable', () => {
    expect(failing({ fields: { guestCsAccessRights: 0x1_a01bn } })).toEqual(['guest.cs.p']);
    expect(failing({ fields: { guestDsBase: one(63), guestEsBase: one(63), guestSsBase: one(63) } })).toEqual(
      [],
    );
    expect(failing({ fields: { guestSsAccessRights: 0x1_0060n } })).toEqual([
      'guest.cs.dpl-nonconforming',
      'guest.ss.dpl-eq-rpl',
    ]);
  });

  it('replaces the access-rights rows in virtual-8086 mode', () => {
    const off = ['entry.ia32eModeGuest'] as const;
    expect(failing({ off, fields: { ...VIRTUAL_8086, guestDsAccessRights: 0n } })).toEqual([
      'guest.ds.ar-v86',
    ]);
  });

  it('demands DPL at least RPL only of a restricted guest and not of conforming code', () => {
    const fields = { guestDsSelector: 3n, guestDsLimit: 0xffff_ffffn, guestDsAccessRights: 0xc093n };
    expect(failing({ fields })).toEqual(['guest.ds.dpl-ge-rpl']);
    expect(failing({ fields: { ...fields, guestDsAccessRights: 0xc09fn } })).toEqual([]);
    expect(failing({ controls: ['proc2.enableEpt', 'proc2.unrestrictedGuest'], fields })).toEqual([]);
  });

  it('passes no G with a limit it cannot express, and repairs the limit', () => {
    for (const [rights, id] of [
      [0x209bn, 'guest.cs.g-limit-high'],
      [0xa09bn, 'guest.cs.g-limit-low'],
    ] as const) {
      const situation = situationOf({
        fields: { guestCsLimit: 0xffff_f000n, guestCsAccessRights: rights },
      });
      const failed = (s: Situation) => failingChecks(LISTS, s.words, s.capabilities, s.environment);
      expect(failed(situation)).toEqual([id]);
      const row = ROWS.find((r) => r.id === id)!;
      expect(failed(withChanges(situation, row.fix(contextOf(situation))))).toEqual([]);
    }
  });

  it('wants BS to be TF and not BTF, by the DEBUGCTL field even if it is not loaded', () => {
    const off = ['entry.loadDebugControls'] as const;
    const blocked = { guestInterruptibilityState: 2n, guestRflags: 0x102n };
    expect(failing({ off, fields: { ...blocked, guestIa32Debugctl: 2n } })).toEqual([]);
    const pending = { ...blocked, guestPendingDebugExceptions: one(14) };
    expect(failing({ off, fields: pending })).toEqual([]);
    expect(failing({ off, fields: { ...pending, guestIa32Debugctl: 2n } })).toEqual(['guest.pdbg.bs-clear']);
    const halted = { guestActivityState: 1n, guestRflags: 0x102n };
    expect(failing({ off, fields: halted })).toEqual(['guest.pdbg.bs-set']);
    expect(failing({ off, fields: { guestRflags: 0x102n } })).toEqual([]);
  });

  it('lets a bus lock be pending only where bus locks are detected', () => {
    const fields = { guestPendingDebugExceptions: one(11) };
    expect(failing({ fields })).toEqual([]);
    expect(failing({ fields, features: { busLockDetection: false } })).toEqual(['guest.pdbg.reserved']);
  });

  it('lets blocking by NMI stand beside an injected NMI without virtual NMIs', () => {
    const fields = { guestInterruptibilityState: 8n, injectedEventIdentification: 0x8000_0202n };
    expect(failing({ fields })).toEqual([]);
  });

  it('lets only some events be injected into an inactive state', () => {
    const inject = (guestActivityState: bigint, injectedEventIdentification: bigint) =>
      failing({ fields: { guestRflags: 0x202n, guestActivityState, injectedEventIdentification } });
    const events = {
      externalInterrupt: 0x8000_0020n,
      nmi: 0x8000_0202n,
      debug: 0x8000_0301n,
      machineCheck: 0x8000_0312n,
      pendingMtf: 0x8000_0700n,
      syscall: 0x8000_0701n,
      pageFault: 0x8000_0b0en,
      none: 0x0000_0421n,
    };
    const allowed = (state: bigint) =>
      Object.entries(events)
        .filter(([, event]) => inject(state, event).length === 0)
        .map(([name]) => name);
    expect(allowed(0n)).toEqual(Object.keys(events));
    expect(allowed(1n)).toEqual(['externalInterrupt', 'nmi', 'debug', 'machineCheck', 'pendingMtf', 'none']);
    expect(allowed(2n)).toEqual(['nmi', 'machineCheck', 'none']);
    expect(allowed(3n)).toEqual(['none']);
  });
});

describe('the VMCS link pointer', () => {
  const { revision } = situationOf().capabilities;
  const linked = (word: bigint, controls: Witness['controls'] = []): Witness => ({
    controls,
    fields: { vmcsLinkPointer: 0x2000n },
    memory: [[0x2000, word]],
  });
  const shadow = BigInt(revision) | one(31);

  it('points to a shadow VMCS exactly if VMCSs are shadowed', () => {
    expect(failing(linked(shadow, ['proc2.vmcsShadowing']))).toEqual([]);
    expect(failing(linked(BigInt(revision)))).toEqual([]);
    expect(failing(linked(shadow))).toEqual(['guest.link.shadow-indicator']);
    expect(failing(linked(BigInt(revision), ['proc2.vmcsShadowing']))).toEqual([
      'guest.link.shadow-indicator',
    ]);
  });

  it('is a pointer unless all its bits are 1; memory is not looked at where it cannot point', () => {
    const failed = (vmcsLinkPointer: bigint) => failing({ fields: { vmcsLinkPointer } });
    expect(failed(0xffff_ffff_ffff_ffffn)).toEqual([]);
    expect(failed(0xffff_ffffn)).toEqual(['guest.link.align']);
    expect(failed(0x2800n)).toEqual(['guest.link.align']);
    expect(failed(one(52))).toEqual(['guest.link.width']);
    expect(failed(0xffff_ffff_0000_0000n)).toEqual(['guest.link.width']);
    expect(failed(one(52) | 1n)).toEqual(['guest.link.align', 'guest.link.width']);
    expect(failed(0xffff_ffff_ffff_fffen)).toEqual(['guest.link.align', 'guest.link.width']);
    expect(failed(0x2000n)).toEqual(['guest.link.revision']);
  });

  it('may be the current VMCS in SMM', () => {
    const witness = { ...linked(BigInt(revision)), environment: { currentVmcs: 0x2000n } };
    expect(failing(witness)).toEqual(['guest.link.not-current']);
    expect(failing({ ...witness, environment: { currentVmcs: 0x2000n, inSmm: true } })).toEqual([]);
  });

  it('is followed only if it is legal, and what it points to may be unknown', () => {
    const { words, capabilities, environment } = situationOf(linked(0n));
    const context = new CheckContext(words, capabilities, { ...environment, read32: () => undefined });
    context.begin();
    ROWS.find((row) => row.id === 'guest.link.revision')!.holds(context);
    expect([...context.missing]).toEqual(['memory at the VMCS link pointer']);
  });
});

describe('PDPTEs', () => {
  const off = ['entry.ia32eModeGuest'] as const;
  const inMemory = (pdpte: bigint): Witness => ({
    off,
    fields: { guestCr3: 0x3000n },
    memory: [[0x3008, pdpte]],
  });

  it('are not looked at in memory while the same ones are in use', () => {
    const witness = inMemory(3n);
    expect(failing(witness)).toEqual(['guest.pdpte1.memory']);
    expect(failing({ ...witness, environment: { paePaging: true, cr3: 0x3000n } })).toEqual([]);
    expect(failing({ ...witness, environment: { paePaging: true, cr3: 0x3020n } })).toEqual([
      'guest.pdpte1.memory',
    ]);
    expect(failing({ ...witness, controls: ['proc2.enableEpt'] })).toEqual([]);
  });

  it('ignore bits 11:9, and all but bit 0 if they are not present', () => {
    expect(failing(inMemory(0xe19n))).toEqual([]);
    expect(failing(inMemory(2n ** 64n - 2n))).toEqual([]);
    const controls = ['proc2.enableEpt'] as const;
    expect(failing({ off, controls, fields: { guestPdpte2: 0xe19n } })).toEqual([]);
    expect(failing({ off, controls, fields: { guestPdpte2: 2n ** 64n - 2n } })).toEqual([]);
    expect(failing({ controls, fields: { guestPdpte2: 2n ** 64n - 1n } })).toEqual([]);
  });

  it('lose the key bits of their width only in memory', () => {
    const environment = { tmeReduction: 6 };
    expect(failing({ ...inMemory(one(48) | 1n), environment })).toEqual(['guest.pdpte1.memory']);
    const fields = { guestPdpte1: one(48) | 1n };
    expect(failing({ off, controls: ['proc2.enableEpt'], fields, environment })).toEqual([]);
  });

  it('are found by bits 31:5 of CR3', () => {
    const witness = { off, fields: { guestCr3: 0x1_8000_003fn }, memory: [[0x8000_0038, 3n]] } as const;
    expect(failing(witness)).toEqual(['guest.pdpte3.memory']);
  });
});
