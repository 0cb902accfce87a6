/** Verification that skips what has not changed, and verdicts on rows with unknown fields. */
import { describe, expect, it } from 'vitest';
import { FIELD_COUNT, Field, type FieldName } from '../../../src/vmcs/fields.ts';
import { ALL_UNVERIFIED, ProcessorCopy } from '../../../src/vmcs/processor-copy.ts';
import type { EntryCheck } from '../../../src/vmx/entry/check.ts';
import { CHECK_LISTS, ORDINARY_LISTS } from '../../../src/vmx/entry/check-lists.ts';
import { allChecks, DEPENDENTS, evaluate, firstFailingCheck } from '../../../src/vmx/entry/verify.ts';
import { contextOf, situationOf } from '../../support/evaluate.ts';
import type { Witness } from '../../support/witness.ts';
import { Guest, LINK, VIRTUAL_APIC } from '../exit/guest.ts';

const rowOf = (id: string) => allChecks().find((row) => row.id === id) as EntryCheck;

/** A copy that holds the fields of a witness, and the context to verify it in. */
function copyOf(witness: Witness = {}) {
  const situation = situationOf(witness);
  const copy = new ProcessorCopy(0x1000, situation.capabilities.format, DEPENDENTS);
  copy.words.set(situation.words);
  return { copy, context: contextOf(situation) };
}

describe('the lists that look at a field', () => {
  it('are those with a row or a condition that names it', () => {
    for (const field of Object.keys(Field) as FieldName[]) {
      let lists = 0;
      ORDINARY_LISTS.forEach((list, index) => {
        const rows: readonly EntryCheck[] = list.rows;
        const names = rows.flatMap((row) => [...row.fields, ...row.when.flatMap((c) => c.fields)]);
        if (names.includes(field)) lists += 2 ** index;
      });
      expect(DEPENDENTS[Field[field]], field).toBe(lists);
    }
  });
});

describe('a copy that passes', () => {
  it('is verified under the state of the processor', () => {
    const { copy, context } = copyOf();
    expect(copy.unverified).toBe(ALL_UNVERIFIED);
    expect(firstFailingCheck(copy, context, 5)).toBeUndefined();
    expect(copy).toMatchObject({ unverified: 0, verifiedState: 5, memoryRows: 0 });
  });

  it('keeps the lists before the one that fails verified, and is not verified itself', () => {
    const { copy, context } = copyOf({ fields: { hostTrSelector: 0n } });
    const index = ORDINARY_LISTS.findIndex((list) =>
      list.rows.some((row: EntryCheck) => row.id === 'host.tr.sel-nonnull'),
    );
    expect(firstFailingCheck(copy, context, 5)?.id).toBe('host.tr.sel-nonnull');
    expect(copy.unverified >>> 0).toBe((ALL_UNVERIFIED << index) >>> 0);
    expect(copy.verifiedState).toBe(-1);
  });

  it('is not looked at again while nothing has changed', () => {
    const { copy, context } = copyOf();
    firstFailingCheck(copy, context, 5);
    // Behind the back of VMWRITE, which would mark the lists.
    copy.quads[Field.guestRflags] = 0n;
    copy.quads[Field.hostTrSelector] = 0n;
    expect(firstFailingCheck(copy, context, 5)).toBeUndefined();
    expect(firstFailingCheck(copy, context, 6)).toBeUndefined();
    copy.unverified = DEPENDENTS[Field.guestRflags] as number;
    expect(firstFailingCheck(copy, context, 6)?.id).toBe('guest.rflags.bit1');
    copy.unverified = DEPENDENTS[Field.hostTrSelector] as number;
    expect(firstFailingCheck(copy, context, 6)?.id).toBe('host.tr.sel-nonnull');
  });

  it('has the rows that look at the processor evaluated again when its state differs', () => {
    const witness: Witness = { controls: ['entry.loadIa32RtitCtl'] };
    const { copy, context } = copyOf(witness);
    const tracing = contextOf(situationOf({ ...witness, environment: { traceEnabled: true } }));
    expect(firstFailingCheck(copy, context, 5)).toBeUndefined();
    expect(firstFailingCheck(copy, tracing, 5)).toBeUndefined();
    expect(firstFailingCheck(copy, tracing, 6)?.id).toBe('ctrl.pt.load-rtit-while-tracing');
  });
});

describe('a copy that fails under another state of the processor', () => {
  const witness: Witness = { controls: ['entry.loadIa32RtitCtl'] };
  const tracing = contextOf(situationOf({ ...witness, environment: { traceEnabled: true } }));
  const still = contextOf(situationOf(witness));
  const write = (copy: ProcessorCopy, field: FieldName, value: bigint) => {
    copy.quads[Field[field]] = value;
    copy.unverified |= DEPENDENTS[Field[field]] as number;
  };

  it('has what held there looked at again under the first one', () => {
    const { copy } = copyOf();
    const [selector, controls] = (['hostTrSelector', 'vmEntryControls'] as const).map(
      (field) => copy.quads[Field[field]] as bigint,
    ) as [bigint, bigint];
    expect(firstFailingCheck(copy, tracing, 5)).toBeUndefined();
    write(copy, 'vmEntryControls', controls | (1n << 18n));
    write(copy, 'hostTrSelector', 0n);
    expect(firstFailingCheck(copy, still, 6)?.id).toBe('host.tr.sel-nonnull');
    write(copy, 'hostTrSelector', selector);
    expect(firstFailingCheck(copy, tracing, 5)?.id).toBe('ctrl.pt.load-rtit-while-tracing');
    expect(firstFailingCheck(copy, still, 6)).toBeUndefined();
    expect(copy).toMatchObject({ unverified: 0, verifiedState: 6 });
  });

  it('fails under the same one at the list that changed, and stays verified but for that', () => {
    const { copy, context } = copyOf();
    expect(firstFailingCheck(copy, context, 5)).toBeUndefined();
    write(copy, 'guestRip', 1n << 62n);
    const lists = copy.unverified;
    expect(firstFailingCheck(copy, context, 5)?.id).toBe('guest.rip.high-identical');
    expect(copy).toMatchObject({ unverified: lists, verifiedState: 5 });
  });
});

describe('rows that look at memory', () => {
  const off = ['entry.ia32eModeGuest'] as const;
  const cases: readonly (readonly [id: string, good: Witness, bad: Witness['memory']])[] = [
    [
      'ctrl.tpr-threshold.le-vtpr',
      {
        controls: ['proc.useTprShadow'],
        fields: { virtualApicAddress: 0x4000n, tprThreshold: 3n },
        memory: [[0x4080, 0x30n]],
      },
      [[0x4080, 0x2fn]],
    ],
    ...[0, 1, 2, 3].map(
      (i) =>
        [
          `guest.pdpte${i}.memory`,
          { off, fields: { guestCr3: 0x3000n }, memory: [[0x3000 + 8 * i, 1n]] },
          [[0x3000 + 8 * i, 3n]],
        ] as const,
    ),
  ];

  it.each(cases)('%s is evaluated at every VM entry if it applies', (id, good, bad) => {
    const { copy, context } = copyOf(good);
    const spoilt = contextOf(situationOf({ ...good, memory: bad ?? [] }));
    expect(firstFailingCheck(copy, context, 5)).toBeUndefined();
    expect(copy).toMatchObject({ unverified: 0, verifiedState: 5 });
    expect(firstFailingCheck(copy, spoilt, 5)?.id).toBe(id);
    expect(firstFailingCheck(copy, context, 5)).toBeUndefined();
  });

  it('and does not apply is not evaluated', () => {
    const { copy, context } = copyOf({
      controls: ['proc.useTprShadow'],
      fields: { virtualApicAddress: 0x4000n, guestCr3: 0x3000n },
    });
    firstFailingCheck(copy, context, 5);
    expect(copy.memoryRows).toBe(1);
    const spoilt = contextOf(situationOf({ memory: [[0x3000, 3n]] }));
    expect(firstFailingCheck(copy, spoilt, 5)).toBeUndefined();
  });

  it('go on to be evaluated when fields change that they do not look at', () => {
    const witness: Witness = {
      controls: ['proc.useTprShadow'],
      fields: { virtualApicAddress: 0x4000n, tprThreshold: 3n },
      memory: [[0x4080, 0x30n]],
    };
    const { copy, context } = copyOf(witness);
    const spoilt = contextOf(situationOf({ ...witness, memory: [[0x4080, 0x2fn]] }));
    firstFailingCheck(copy, context, 5);
    copy.unverified = DEPENDENTS[Field.guestRip] as number;
    expect(firstFailingCheck(copy, context, 5)).toBeUndefined();
    expect(copy).toMatchObject({ unverified: 0, memoryRows: 1 });
    copy.unverified = DEPENDENTS[Field.guestRip] as number;
    expect(firstFailingCheck(copy, spoilt, 5)?.id).toBe('ctrl.tpr-threshold.le-vtpr');
    copy.unverified = DEPENDENTS[Field.guestRip] as number;
    expect(firstFailingCheck(copy, spoilt, 6)?.id).toBe('ctrl.tpr-threshold.le-vtpr');
  });

  it('applies no longer once the fields say so', () => {
    const { copy, context } = copyOf({
      controls: ['proc.useTprShadow'],
      fields: { virtualApicAddress: 0x4000n },
    });
    firstFailingCheck(copy, context, 5);
    expect(copy.memoryRows).toBe(1);
    copy.words.set(situationOf().words);
    copy.unverified = ALL_UNVERIFIED;
    firstFailingCheck(copy, context, 5);
    expect(copy.memoryRows).toBe(0);
  });

  it('sees the copy it is asked about, not the one before', () => {
    const linked = (pointer: bigint): Witness => ({
      fields: { vmcsLinkPointer: pointer },
      memory: [[0x2000, BigInt(situationOf().capabilities.revision)]],
    });
    const { copy, context } = copyOf(linked(0x2000n));
    const { copy: other } = copyOf(linked(0x3000n));
    expect(firstFailingCheck(copy, context, 5)).toBeUndefined();
    expect(firstFailingCheck(other, context, 5)?.id).toBe('guest.link.revision');
    expect(firstFailingCheck(copy, context, 5)).toBeUndefined();
  });

  it('decide a VMRESUME of an unchanged VMCS', () => {
    const guest = new Guest().on('proc.useTprShadow', 'proc2.vmcsShadowing').fields({
      virtualApicAddress: BigInt(VIRTUAL_APIC),
      tprThreshold: 3n,
      vmcsLinkPointer: BigInt(LINK),
    });
    const { memory } = guest.machine;
    const revision = (guest.cpu.capabilities.revision | 0x8000_0000) >>> 0;
    memory.write32(LINK, revision);
    memory.write32(VIRTUAL_APIC + 0x80, 0x30);
    guest.launch().cpu.vmexit({ reason: 10 });
    const resume = (address: number, value: number) => {
      memory.write32(address, value);
      const outcome = guest.cpu.vmresume();
      if (outcome.kind === 'VMentry') guest.cpu.vmexit({ reason: 10 });
      return outcome;
    };
    const entry = { kind: 'VMentry' };
    expect(resume(VIRTUAL_APIC + 0x80, 0x2f)).toEqual({ kind: 'VMfailValid', error: 7 });
    expect(resume(VIRTUAL_APIC + 0x80, 0x40)).toEqual(entry);
    const failure = { kind: 'VMentryFailure', reason: 33 };
    expect(resume(LINK, revision & 0x7fff_ffff)).toEqual(failure);
    expect(guest.read('exitQualification')).toBe(4n);
    expect(resume(LINK, revision)).toEqual(entry);
    expect(resume(LINK, revision ^ 1)).toEqual(failure);
    expect(guest.read('exitQualification')).toBe(4n);
    expect(resume(LINK, revision)).toEqual(entry);
  });
});

describe('the verdict on a row', () => {
  const row = rowOf('guest.intr.sti-needs-if');
  const CONDITION = 'guestRflags';
  const RULE = 'guestInterruptibilityState';
  const verdict = (rflags: bigint, interruptibility: bigint, ...unknown: FieldName[]) => {
    const known = new Uint8Array(FIELD_COUNT).fill(1);
    for (const field of unknown) known[Field[field]] = 0;
    const fields = { guestRflags: rflags, guestInterruptibilityState: interruptibility };
    return evaluate(row, contextOf(situationOf({ fields }), known));
  };

  it.each([
    ['holds', 0x2n, 0n],
    ['does-not-apply', 0x202n, 1n],
    ['fails', 0x2n, 1n],
  ] as const)('%s with everything known', (kind, rflags, interruptibility) => {
    expect(verdict(rflags, interruptibility)).toEqual({ kind });
  });

  it('is unknown if a field of the rule is, unless the row does not apply', () => {
    expect(verdict(0x2n, 0n, RULE)).toEqual({ kind: 'unknown', missing: [RULE] });
    expect(verdict(0x202n, 0n, RULE)).toEqual({ kind: 'does-not-apply' });
  });

  it('is unknown if a field of a condition is, unless the rule holds', () => {
    expect(verdict(0n, 1n, CONDITION)).toEqual({ kind: 'unknown', missing: [CONDITION] });
    expect(verdict(0n, 0n, CONDITION)).toEqual({ kind: 'holds' });
    expect(verdict(0n, 0n, CONDITION, RULE)).toEqual({ kind: 'unknown', missing: [CONDITION, RULE] });
  });

  it('stands once a known condition does not hold, whatever else is unknown', () => {
    const known = new Uint8Array(FIELD_COUNT).fill(1);
    known[Field.pinBasedControls] = 0;
    const situation = situationOf({ fields: { injectedEventIdentification: 0n } });
    expect(evaluate(rowOf('guest.intr.nmi-virtual-nmis'), contextOf(situation, known))).toEqual({
      kind: 'does-not-apply',
    });
  });
});

describe('all checks', () => {
  it('name fields that exist, and at least one', () => {
    for (const row of allChecks()) {
      expect(row.fields.length, row.id).toBeGreaterThan(0);
      for (const field of [...row.fields, ...row.when.flatMap((c) => c.fields)]) {
        expect(Field[field], `${row.id} ${field}`).toBeTypeOf('number');
      }
    }
  });

  it('are the rows of all lists in order', () => {
    expect(allChecks()).toEqual(CHECK_LISTS.flatMap((list): readonly EntryCheck[] => list.rows));
    expect(ORDINARY_LISTS.length).toBeLessThanOrEqual(32);
  });
});
