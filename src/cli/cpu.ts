/** `vmxon cpu [PROFILE] [--diff OTHER]`: what silicon supports, what a machine here advertises. */
import type { Command } from 'commander';
import { hex } from '../bits/u64.ts';
import { CONTROLS } from '../vmcs/controls.ts';
import { FIELDS } from '../vmcs/fields.ts';
import { CAPABILITY_MSR_NAMES, CapabilityMsr } from '../vmx/capabilities/capability-msrs.ts';
import { CONTROL_STATUS } from '../vmx/capabilities/control-status.ts';
import { type CpuProfile, capabilitiesOf, PROFILES } from '../vmx/capabilities/profiles.ts';
import { paragraph, print, printJson, table } from './output.ts';
import { Problem } from './problem.ts';
import { profileNamed } from './profile-argument.ts';
import { allowedText, msrText } from './wording.ts';

interface CpuOptions {
  readonly diff?: string;
  readonly json?: boolean;
}

export function addCpuCommand(program: Command): void {
  program
    .command('cpu')
    .description('list the processor profiles, show one, or compare two')
    .argument('[profile]', 'name or alias of a profile')
    .option('--diff <other>', 'show only where the silicon of another profile differs')
    .option('--json', 'print JSON')
    .action((name: string | undefined, options: CpuOptions) => {
      const json = options.json === true;
      if (name === undefined) {
        if (options.diff !== undefined) throw new Problem('--diff needs a profile to compare with');
        listProfiles(json);
      } else if (options.diff !== undefined) {
        showDifference(profileNamed(name), profileNamed(options.diff), json);
      } else {
        showProfile(profileNamed(name), json);
      }
    });
}

function summary(profile: CpuProfile) {
  const capabilities = capabilitiesOf(profile, 'silicon');
  return {
    name: profile.name,
    title: profile.title,
    aliases: profile.aliases,
    revision: hex(capabilities.revision),
    regionSize: capabilities.regionSize,
    physicalAddressBits: profile.features.physicalAddressBits,
    fields: capabilities.fieldExists.reduce((n, e) => n + e, 0),
  };
}

function listProfiles(json: boolean): void {
  const summaries = PROFILES.map(summary);
  if (json) {
    printJson(summaries);
    return;
  }
  const rows = summaries.map((s) => [
    s.name,
    s.title,
    s.revision,
    `${s.regionSize}`,
    `${s.physicalAddressBits}`,
    `${s.fields}`,
    s.aliases.join(', '),
  ]);
  print(table(['profile', 'processor', 'revision', 'region', 'address bits', 'fields', 'aliases'], rows));
}

/** Capability MSRs and controls of a profile: silicon, advertised, and advertised if code is to run. */
export function describeProfile(profile: CpuProfile) {
  const silicon = capabilitiesOf(profile, 'silicon');
  const advertised = capabilitiesOf(profile, 'checked');
  const complete = capabilitiesOf(profile, 'complete');
  return {
    ...summary(profile),
    msrs: CAPABILITY_MSR_NAMES.map((name) => ({
      name,
      index: hex(CapabilityMsr[name]),
      silicon: msrText(silicon.msrs[name]),
      advertised: msrText(advertised.msrs[name]),
      complete: msrText(complete.msrs[name]),
    })),
    controls: CONTROLS.map((control) => ({
      id: control.id,
      name: control.name,
      bit: control.bit,
      silicon: allowedText(silicon, control),
      advertised: allowedText(advertised, control),
      complete: allowedText(complete, control),
      status: CONTROL_STATUS.get(control.id) ?? 'absent',
    })),
    completed: profile.completed,
  };
}

function mark(value: string, silicon: string): string {
  return value === silicon ? 'same' : value;
}

function showProfile(profile: CpuProfile, json: boolean): void {
  const described = describeProfile(profile);
  if (json) {
    printJson({ ...described, features: profile.features });
    return;
  }
  const msrRows = described.msrs.map((m) => [
    m.name,
    m.index,
    m.silicon,
    mark(m.advertised, m.silicon),
    mark(m.complete, m.silicon),
  ]);
  const controlRows = described.controls.map((c) => [
    c.id,
    c.name,
    `${c.bit}`,
    c.silicon,
    mark(c.advertised, c.silicon),
    c.status,
  ]);
  print(
    [
      `${profile.name}: ${profile.title}`,
      '',
      'Advertised: at least the checks and effects of VM entry and VM exit are here ("checked").',
      'Complete: the behaviour in VMX non-root operation is here as well.',
      '',
      table(['MSR', 'number', 'silicon', 'advertised', 'complete'], msrRows),
      '',
      table(['control', 'name', 'bit', 'silicon', 'advertised', 'status'], controlRows),
      ...(described.completed.length === 0
        ? []
        : [
            '',
            'Not in any dump of this part, completed so:',
            ...described.completed.map((c) => paragraph('-', c, 2)),
          ]),
    ].join('\n'),
  );
}

/** Where the silicon of two profiles differs. */
function difference(left: CpuProfile, right: CpuProfile) {
  const a = capabilitiesOf(left, 'silicon');
  const b = capabilitiesOf(right, 'silicon');
  const text = (value: unknown) => (typeof value === 'bigint' ? hex(value) : String(value));
  const featureNames = Object.keys(left.features) as (keyof CpuProfile['features'])[];
  return {
    left: left.name,
    right: right.name,
    msrs: CAPABILITY_MSR_NAMES.filter((name) => a.msrs[name] !== b.msrs[name]).map((name) => ({
      name,
      left: msrText(a.msrs[name]),
      right: msrText(b.msrs[name]),
    })),
    controls: CONTROLS.filter((c) => allowedText(a, c) !== allowedText(b, c)).map((c) => ({
      id: c.id,
      name: c.name,
      left: allowedText(a, c),
      right: allowedText(b, c),
    })),
    features: featureNames
      .filter((name) => left.features[name] !== right.features[name])
      .map((name) => ({ name, left: text(left.features[name]), right: text(right.features[name]) })),
    fields: FIELDS.filter((f) => a.fieldExists[f.slot] !== b.fieldExists[f.slot]).map((f) => ({
      name: f.name,
      onlyOn: a.fieldExists[f.slot] === 1 ? left.name : right.name,
    })),
  };
}

function showDifference(left: CpuProfile, right: CpuProfile, json: boolean): void {
  const found = difference(left, right);
  if (json) {
    printJson(found);
    return;
  }
  const sections: string[] = [];
  const section = (head: string[], rows: string[][]) => {
    if (rows.length > 0) sections.push(table(head, rows));
  };
  section(
    ['MSR', left.name, right.name],
    found.msrs.map((m) => [m.name, m.left, m.right]),
  );
  section(
    ['control', 'name', left.name, right.name],
    found.controls.map((c) => [c.id, c.name, c.left, c.right]),
  );
  section(
    ['CPUID', left.name, right.name],
    found.features.map((f) => [f.name, f.left, f.right]),
  );
  section(
    ['field', 'only on'],
    found.fields.map((f) => [f.name, f.onlyOn]),
  );
  print(sections.length === 0 ? 'no difference' : sections.join('\n\n'));
}
