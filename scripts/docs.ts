/** Generates docs/generated from the tables; `--check` fails if what is there is out of date. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { describeProfile } from '../src/cli/cpu.ts';
import { allRules } from '../src/cli/explain.ts';
import { encodingText, existenceText, widthText } from '../src/cli/wording.ts';
import { EDITION } from '../src/sdm/sections.ts';
import { CONTROL_GROUPS, CONTROLS, type ControlGroupName } from '../src/vmcs/controls.ts';
import { FIELD_ALIASES } from '../src/vmcs/field-names.ts';
import { FIELDS, fieldOf } from '../src/vmcs/fields.ts';
import { CONTROL_STATUS } from '../src/vmx/capabilities/control-status.ts';
import { PROFILES } from '../src/vmx/capabilities/profiles.ts';
import { HAZARDS, SOFTWARE_USE_RULES } from '../src/vmx/hazards/hazard-list.ts';

const FOLDER = new URL('../docs/generated/', import.meta.url);

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) =>
    `| ${cells.map((c) => c.replaceAll('|', '\\|').replaceAll('\n', ' ')).join(' | ')} |`;
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n');
}

function page(title: string, source: string, ...parts: string[]): string {
  const origin = `Generated from \`${source}\` by \`npm run docs\`. Sections are those of the SDM, edition ${EDITION.number} (${EDITION.date}).`;
  return `${[`# ${title}`, origin, ...parts].join('\n\n')}\n`;
}

function fieldsPage(): string {
  const rows = FIELDS.map((f) => [
    encodingText(f.encoding),
    f.highEncoding === undefined ? '' : encodingText(f.highEncoding),
    f.name,
    `\`${f.key}\``,
    widthText(f),
    f.type,
    existenceText(f),
    FIELD_ALIASES[f.key].join(', '),
  ]);
  const head = ['Encoding', 'High', 'Name', 'Key', 'Width', 'Type', 'Exists if supported', 'Other names'];
  return page('VMCS fields', 'src/vmcs/fields.ts', `${FIELDS.length} fields.`, table(head, rows));
}

function controlsPage(): string {
  const groups = (Object.keys(CONTROL_GROUPS) as ControlGroupName[]).map((group) => {
    const { name, field, sdm, activatedBy, default1 } = CONTROL_GROUPS[group];
    const active =
      activatedBy.length === 0 ? 'always in force' : `in force if ${activatedBy.join(' and ')} is 1`;
    const rows = CONTROLS.filter((c) => c.group === group).map((c) => [
      `${c.bit}`,
      c.name,
      `\`${c.id}\``,
      (default1 & c.mask) === 0n ? '' : 'default1',
      CONTROL_STATUS.get(c.id) ?? 'absent',
    ]);
    return `## ${name}\n\n§${sdm}; field "${fieldOf(field).name}"; ${active}.\n\n${table(['Bit', 'Name', 'Id', 'Class', 'Status'], rows)}`;
  });
  const legend =
    'Status: *checked*: checks and effects on VM entry and VM exit; *complete*: behaviour in VMX non-root operation too; *absent*: never advertised (see [deviations](../deviations.md)).';
  return page('Controls', 'src/vmcs/controls.ts', legend, ...groups);
}

function checksPage(): string {
  const rows = allRules()
    .filter((r) => r.kind !== 'hazard')
    .map((r) => [
      `\`${r.id}\``,
      `§${r.section}`,
      r.rule,
      r.when.join(' and '),
      r.fields.join(', '),
      r.consequence,
    ]);
  return page(
    'Checks of VM entry',
    'src/vmx/entry',
    `${rows.length} checks, in the order in which VM entry makes them.`,
    table(['Id', 'Section', 'Rule', 'When', 'Fields', 'If it does not hold'], rows),
  );
}

function hazardsPage(): string {
  const rows = Object.entries(HAZARDS).map(([id, h]) => [
    `\`${id}\``,
    `§${h.sdm}`,
    h.kind,
    h.rule,
    h.example,
  ]);
  const rules = Object.entries(SOFTWARE_USE_RULES).map(([id, answer]) => [
    id,
    typeof answer === 'string' ? answer : answer.map((h) => `\`${h}\``).join(', '),
  ]);
  return page(
    'Hazards',
    'src/vmx/hazards/hazard-list.ts',
    table(['Id', 'Section', 'Kind', 'Rule', 'Example'], rows),
    '## Rules for software',
    table(['Rule', 'Reported as'], rules),
  );
}

function cpusPage(): string {
  const parts = PROFILES.map((profile) => {
    const { name, title, msrs, completed } = describeProfile(profile);
    const rows = msrs.map((m) => [m.name, m.index, m.silicon, m.advertised, m.complete]);
    const notes = completed.map((c) => `- ${c}`).join('\n');
    const body = table(['MSR', 'Number', 'Silicon', 'Advertised', 'Complete'], rows);
    return `## ${name}\n\n${title}.\n\n${body}${notes === '' ? '' : `\n\nCompleted where no dump has a value:\n\n${notes}`}`;
  });
  return page('Processor profiles', 'src/vmx/capabilities/profiles.ts', ...parts);
}

const PAGES: Readonly<Record<string, () => string>> = {
  'fields.md': fieldsPage,
  'controls.md': controlsPage,
  'checks.md': checksPage,
  'hazards.md': hazardsPage,
  'cpus.md': cpusPage,
};

const check = process.argv.includes('--check');
const stale: string[] = [];
mkdirSync(FOLDER, { recursive: true });
for (const [name, render] of Object.entries(PAGES)) {
  const file = new URL(name, FOLDER);
  const text = render();
  if (existsSync(file) && readFileSync(file, 'utf8') === text) continue;
  stale.push(name);
  if (!check) writeFileSync(file, text);
}
if (check && stale.length > 0) {
  process.stderr.write(`docs/generated is out of date: ${stale.join(', ')}; run "npm run docs"\n`);
  process.exitCode = 1;
}
