import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { checkImage } from '../../src/dumps/check-image.ts';
import { readDump } from '../../src/dumps/read-dump.ts';
import type { Reported, VmcsImage } from '../../src/dumps/vmcs-image.ts';
import { FIELDS, type FieldName } from '../../src/vmcs/fields.ts';
import {
  type CpuProfile,
  capabilitiesOf,
  findProfile,
  SILICON_PROFILES,
} from '../../src/vmx/capabilities/profiles.ts';
import { legalVmcs } from '../support/legal-vmcs.ts';

const example = (name: string) =>
  readDump(readFileSync(new URL(`../dumps/examples/${name}.txt`, import.meta.url), 'utf8'));
const ids = (list: readonly { id: string }[]) => list.map((f) => f.id);
const skylake = findProfile('Skylake') as CpuProfile;

function legalImage(changes: Partial<Record<FieldName, bigint>> = {}, reported: Reported = {}): VmcsImage {
  const values = { ...legalVmcs(capabilitiesOf(skylake, 'silicon')), ...changes };
  return {
    format: 'json',
    values: new Map(Object.entries(values) as [FieldName, bigint][]),
    reported,
    notes: [],
  };
}

describe('checkImage on dumps of real machines', () => {
  it('finds blocking by STI with RFLAGS.IF = 0 and nothing else', () => {
    const report = checkImage(example('blocking-by-sti'));
    expect(ids(report.failures)).toEqual(['guest.intr.sti-needs-if']);
    expect(report).toMatchObject({ verdict: 'entry-failure', agrees: true, cause: [] });
    expect(report.failures[0]?.fields['Guest RFLAGS']).toBe('0x0000000000000002');
  });

  it('finds nothing wrong with an ordinary EPT-violation exit', () => {
    const report = checkImage(example('ept-violation-exit'));
    expect(report).toMatchObject({ verdict: 'no-failing-check', failures: [], cause: [], agrees: true });
  });

  it('names the CPU-dependent check that alone explains the reported error', () => {
    const report = checkImage(example('gp-without-error-code'));
    expect(report).toMatchObject({
      verdict: 'vmfail',
      failures: [],
      cause: ['inject.error-code.required'],
      agrees: true,
    });
    const cause = report.cpuDependent.find((d) => d.id === 'inject.error-code.required');
    expect(cause?.failsOn).toContain('skylake');
    expect(cause?.holdsOn).toContain('wildcat-lake');
  });

  it('calls that check a failure on a processor where it fails', () => {
    const report = checkImage(example('gp-without-error-code'), skylake);
    expect(ids(report.failures)).toEqual(['inject.error-code.required']);
    expect(report).toMatchObject({ verdict: 'vmfail', cpuDependent: [], cpu: 'skylake' });
  });

  it('does not look for a cause when the machine reported no failure', () => {
    const image = example('gp-without-error-code');
    const report = checkImage({ ...image, reported: {} });
    expect(report).toMatchObject({ verdict: 'no-failing-check', cause: [], agrees: undefined });
  });
});

/** 0 for fields that the smallest legal VMCS leaves out. */
const EVERY_FIELD: Partial<Record<FieldName, bigint>> = Object.fromEntries(
  FIELDS.filter(({ key }) => !legalImage().values.has(key)).map(({ key }) => [key, 0n]),
);

describe('checkImage on built images', () => {
  it('accepts the smallest legal VMCS', () => {
    expect(ids(checkImage(legalImage(), skylake).failures)).toEqual([]);
  });

  it('takes the verdict from the first failing row: host state before guest state', () => {
    const report = checkImage(legalImage({ guestRflags: 0n, hostTrSelector: 0n }), skylake);
    expect(report.verdict).toBe('vmfail');
    expect(ids(report.failures)).toContain('host.tr.sel-nonnull');
    expect(report.failures[0]?.consequence).toBe('VMfailValid 8');
    expect(report.failures.at(-1)?.consequence).toMatch(/reason 33/);
  });

  it('says that a field is unknown, and never takes it for 0', () => {
    const image = legalImage();
    image.values.delete('guestRflags');
    const report = checkImage(image, skylake);
    expect(ids(report.failures)).toEqual([]);
    expect(report.unknown.some((u) => u.missing.includes('Guest RFLAGS'))).toBe(true);
  });

  it.each([
    [
      'the machine failed, and a field that we do not know may be why',
      {},
      { exitReason: 0x8000_0021 },
      undefined,
    ],
    ['the machine failed and we find nothing', EVERY_FIELD, { exitReason: 0x8000_0021 }, false],
    ['the machine entered and left', {}, { exitReason: 0x30 }, true],
    ['the machine entered and we find bad guest state', { guestRflags: 0n }, { exitReason: 0x30 }, false],
    ['an exit reason from before a VMfail', { hostTrSelector: 0n }, { exitReason: 0x30 }, undefined],
    ['error 8 for host state', { hostTrSelector: 0n }, { instructionError: 8 }, true],
    ['error 7 for host state', { hostTrSelector: 0n }, { instructionError: 7 }, false],
    ['an error that fields do not explain', {}, { instructionError: 5 }, undefined],
    ['an MSR that would not load', {}, { exitReason: 0x8000_0022, exitQualification: 2n }, undefined],
  ] as const)('agreement: %s', (_, changes, reported, agrees) => {
    expect(checkImage(legalImage(changes, reported), skylake).agrees).toBe(agrees);
  });

  it.each([
    ['the PDPTEs', { exitReason: 0x8000_0021, exitQualification: 2n }, { guestRflags: 0n }, false],
    [
      'guest state of any kind',
      { exitReason: 0x8000_0021, exitQualification: 0n },
      { guestRflags: 0n },
      true,
    ],
    ['the link pointer', { exitReason: 0x8000_0021, exitQualification: 4n }, { vmcsLinkPointer: 1n }, true],
    ['no link pointer', { exitReason: 0x8000_0021, exitQualification: 0n }, { vmcsLinkPointer: 1n }, false],
    [
      'NMI injection, by a processor that does not say so',
      { exitReason: 0x8000_0021, exitQualification: 0n },
      { guestRflags: 0x202n, guestInterruptibilityState: 1n, injectedEventIdentification: 0x8000_0202n },
      true,
    ],
  ] as const)('the exit qualification blames %s', (_, reported, changes, agrees) => {
    const report = checkImage(legalImage(changes, reported), skylake);
    expect(report.failures.length).toBeGreaterThan(0);
    expect(report.agrees).toBe(agrees);
    expect(report.notes.some((note) => note.startsWith('exit qualification'))).toBe(
      reported.exitQualification === 2n,
    );
  });

  it('does not blame guest state for an error that comes before it', () => {
    const report = checkImage(legalImage({ guestRflags: 0n }, { instructionError: 7 }), skylake);
    expect(report.agrees).toBe(false);
    expect(report.notes.join()).toContain('would have failed later and does not explain it');
  });

  it('doubts a processor that cannot hold the control registers of the host', () => {
    const image = example('ept-violation-exit');
    const sandyBridge = findProfile('sandy-bridge') as CpuProfile;
    expect(checkImage(image, sandyBridge).notes.join()).toContain('seems to be of another processor');
    const arrowLake = findProfile('arrow-lake') as CpuProfile;
    expect(checkImage(image, arrowLake).notes.join()).not.toContain('another processor');
  });

  it('names the MSR at which loading failed', () => {
    const image = legalImage({}, { exitReason: 0x8000_0022, exitQualification: 1n });
    image.msrLists = { vmEntryLoad: [{ index: 0xc000_0100, reserved: 0, data: 5n }] };
    expect(checkImage(image, skylake).notes.join()).toContain('MSR 0xc0000100 with value 0x0000000000000005');
  });

  it('gives on one profile what it gives on all when every profile agrees', () => {
    const image = legalImage({ guestRflags: 0n });
    const all = ids(checkImage(image).failures);
    expect(all).toContain('guest.rflags.bit1');
    for (const profile of SILICON_PROFILES) {
      const failing = ids(checkImage(image, profile).failures);
      expect(failing).toEqual(expect.arrayContaining(all));
    }
  });

  it('falls back to capability rows when nothing else explains the error', () => {
    const image = legalImage({ guestIa32Pat: 0n }, { instructionError: 7 });
    const entry = (image.values.get('vmEntryControls') as bigint) | (1n << 17n);
    image.values.set('vmEntryControls', entry);
    expect(checkImage(image).cause).toContain('ctrl.entry.allowed1');
  });

  it('does not blame the meaning of a field on a processor that does not have the field', () => {
    const image = example('gp-without-error-code');
    image.values.set('injectedEventIdentification', 0x8000_0b0dn);
    const { cause, cpuDependent } = checkImage(image);
    expect(cpuDependent.find(({ id }) => id === 'ctrl.eptp.memtype')?.failsOn).toEqual(['penryn']);
    expect(cause).toEqual(['ctrl.proc2.allowed1']);
    const penryn = checkImage(image, findProfile('penryn'));
    const eptp = penryn.failures.filter(({ id }) => id.startsWith('ctrl.eptp.'));
    expect(eptp).toHaveLength(2);
    for (const { fix } of eptp)
      expect(fix).toContain('set Secondary processor-based VM-execution controls to');
  });

  it('lets a cause that VM entry meets before a certain failure decide', () => {
    const image = example('gp-without-error-code');
    image.values.set('guestRflags', 0n);
    const report = checkImage(image);
    expect(ids(report.failures)).toContain('guest.rflags.bit1');
    expect(report).toMatchObject({ verdict: 'vmfail', cause: ['inject.error-code.required'], agrees: true });
  });
});
