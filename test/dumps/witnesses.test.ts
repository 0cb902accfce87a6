import { describe, expect, it } from 'vitest';
import { checkImage } from '../../src/dumps/check-image.ts';
import { writeKvmDump } from '../../src/dumps/kvm-writer.ts';
import { readDump } from '../../src/dumps/read-dump.ts';
import { FIELDS, type FieldName } from '../../src/vmcs/fields.ts';
import { type CpuProfile, findProfile, SILICON_PROFILES } from '../../src/vmx/capabilities/profiles.ts';
import type { EntryCheck } from '../../src/vmx/entry/check.ts';
import { allChecks } from '../../src/vmx/entry/verify.ts';
import { situationOf } from '../support/evaluate.ts';
import type { Witness } from '../support/witness.ts';
import { CONTROL_WITNESSES } from '../vmx/entry/witnesses-controls.ts';
import { GUEST_WITNESSES } from '../vmx/entry/witnesses-guest.ts';
import { SMM_WITNESSES } from '../vmx/entry/witnesses-smm.ts';
import { VARIANTS } from './field-values.ts';
import { writeHaxmDump, writeXenDump } from './writers.ts';

type Values = ReadonlyMap<FieldName, bigint>;

/** How a machine on which `row` fails reports it. */
interface Outcome {
  readonly hardwareError: number;
  readonly qualification: number;
}

function outcomeOf({ consequence }: EntryCheck): Outcome {
  return consequence.kind === 'VMfailValid'
    ? { hardwareError: consequence.error, qualification: 0 }
    : { hardwareError: 0x8000_0021, qualification: consequence.qualification };
}

const PRINTERS: Readonly<Record<string, (values: Values, outcome: Outcome) => string>> = {
  ...Object.fromEntries(
    VARIANTS.map((variant) => [
      `kvm ${variant}`,
      (values: Values, { hardwareError }: Outcome) => writeKvmDump(values, { variant, hardwareError }),
    ]),
  ),
  xen: (values, { hardwareError, qualification }) => writeXenDump(values, hardwareError, qualification),
  haxm: (values) => writeHaxmDump(values),
};

/** The field values of a witness, and how the machine says that VM entry ended. */
function valuesOf(witness: Witness, { hardwareError, qualification }: Outcome): Map<FieldName, bigint> {
  const { words, capabilities } = situationOf(witness);
  const quads = new BigUint64Array(words.buffer);
  const values = new Map<FieldName, bigint>(
    FIELDS.filter(({ slot }) => capabilities.fieldExists[slot] === 1).map(({ key, slot }) => [
      key,
      quads[slot] as bigint,
    ]),
  );
  if (hardwareError > 0xff) {
    values.set('exitReason', BigInt(hardwareError)).set('exitQualification', BigInt(qualification));
  }
  return values;
}

const ids = (list: readonly { id: string }[]) => list.map((f) => f.id);

const WITNESSES: Readonly<Record<string, Witness>> = {
  ...CONTROL_WITNESSES,
  ...GUEST_WITNESSES,
  ...SMM_WITNESSES,
};
/** Those that need no processor but the profiles. */
const ON_PROFILES = allChecks()
  .map((row) => [row, WITNESSES[row.id] as Witness] as const)
  // A dump is not made in SMM.
  .filter(([, w]) => !w.msrs && !w.features && !w.environment?.inSmm);

describe.each(Object.entries(PRINTERS))('the witness of each check, printed by %s', (name, print) => {
  let found = 0;

  it.each(ON_PROFILES.map(([row, witness]) => [row.id, row, witness] as const))('%s', (id, row, witness) => {
    const profile = findProfile(witness.profile ?? 'full') as CpuProfile;
    const outcome = outcomeOf(row);
    const values = valuesOf(witness, outcome);
    const image = readDump(print(values, outcome));
    for (const [field, value] of image.values) expect(value, field).toBe(values.get(field));

    const report = checkImage(image, profile);
    const failing = ids(report.failures);
    const allowed = [id, ...(witness.also ?? [])];
    expect(allowed, `no other check than ${allowed}`).toEqual(expect.arrayContaining(failing));
    const fields = [...row.fields, ...row.when.flatMap((condition) => condition.fields)];
    if (row.looksOutside === false && fields.every((field) => image.values.has(field))) {
      expect(failing).toContain(id);
      expect(report.agrees).toBe(name === 'haxm' && outcome.hardwareError < 0x100 ? undefined : true);
      found++;
    } else if (!failing.includes(id)) {
      expect(ids(report.unknown)).toContain(id);
    }
  });

  it('are most of the checks', () => {
    expect(found / ON_PROFILES.length).toBeGreaterThan(name === 'haxm' ? 0.9 : 0.6);
  });
});

describe.each(Object.entries(PRINTERS))('the smallest legal VMCS, printed by %s', (_, print) => {
  it.each(SILICON_PROFILES.map((profile) => [profile.name, profile] as const))('on %s', (name, profile) => {
    const outcome = { hardwareError: 0, qualification: 0 };
    const values = valuesOf({ profile: name }, outcome);
    values.delete('exitReason');
    expect(ids(checkImage(readDump(print(values, outcome)), profile).failures)).toEqual([]);
  });
});
