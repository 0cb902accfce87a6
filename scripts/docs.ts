/** Generates docs/generated from the tables; `--check` fails if what is there is out of date. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { describeProfile } from '../src/cli/cpu.ts';
import { allRules } from '../src/cli/explain.ts';
import { encodingText, existenceText, widthText } from '../src/cli/wording.ts';
import type { CpuidFeatures } from '../src/cpu/cpuid.ts';
import { OPCODE_ROWS } from '../src/cpu/opcode-map.ts';
import { NAMED_ROWS } from '../src/cpu/opcode-names.ts';
import type { OpcodeRow } from '../src/cpu/opcode-row.ts';
import { CR4 } from '../src/cpu/registers.ts';
import { EDITION } from '../src/sdm/sections.ts';
import { CONTROL_GROUPS, CONTROLS, type ControlGroupName } from '../src/vmcs/controls.ts';
import { FIELD_ALIASES } from '../src/vmcs/field-names.ts';
import { FIELDS, fieldOf } from '../src/vmcs/fields.ts';
import { CONTROL_STATUS } from '../src/vmx/capabilities/control-status.ts';
import { findProfile, PROFILES } from '../src/vmx/capabilities/profiles.ts';
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

/** What a row asks of the processor: the features without which it is not there. */
function featureText({ feature }: OpcodeRow): string {
  if (feature === undefined) return '';
  const full = (findProfile('full') as (typeof PROFILES)[number]).features;
  const isNeeded = (without: Partial<CpuidFeatures>) => !feature({ ...full, ...without });
  const names = Object.entries(full)
    .filter(([name, value]) => typeof value === 'boolean' && isNeeded({ [name]: false }))
    .map(([name]) => `\`${name}\``);
  const bits = Object.entries(CR4)
    .filter(([, position]) => isNeeded({ cr4Bits: full.cr4Bits & ~(1n << BigInt(position)) }))
    .map(([name]) => `CR4.${name}`);
  return [...names, ...bits].join(', ');
}

function modeText({ mode, protectedMode, opcode }: OpcodeRow): string {
  if (mode === 'only64') return '64-bit';
  const parts = mode === 'no64' ? ['not 64-bit'] : [];
  if (protectedMode === true || opcode.startsWith('VEX')) parts.push('not real-address or virtual-8086');
  return parts.join(', ');
}

function instructionsPage(): string {
  const rows = [...OPCODE_ROWS]
    .sort((a, b) => (a.mnemonic < b.mnemonic ? -1 : a.mnemonic > b.mnemonic ? 1 : 0))
    .map((row) => [
      row.mnemonic,
      `\`${row.opcode}\``,
      row.operands.replaceAll(' ', ', '),
      modeText(row),
      row.lock ? 'LOCK' : (row.repeat?.toUpperCase() ?? ''),
      featureText(row),
      row.execute === undefined ? 'no' : 'yes',
    ]);
  const mnemonics = new Set(OPCODE_ROWS.flatMap((row) => row.mnemonic.split('/')));
  const unmodelled = [...OPCODE_ROWS.filter((row) => row.execute === undefined), ...NAMED_ROWS];
  const known = [...new Set(unmodelled.map((row) => row.mnemonic))].sort();
  const legend = [
    `${mnemonics.size} instructions in ${OPCODE_ROWS.length} encodings; ${known.length} more are known but not modelled. An instruction that is not modelled raises #UD and is counted in the report of a run; any other opcode raises #UD.`,
    'Opcodes and operands are in the notation of `src/cpu/opcode-row.ts`, which is that of the opcode maps in vol. 2D Appendix A: `+` reads and writes an operand in memory, `=` only writes it, and `!` leaves the access to the operation. Features are those of `src/cpu/cpuid.ts`.',
  ];
  const head = ['Instruction', 'Opcode', 'Operands', 'Modes', 'Prefix', 'Needs', 'Modelled'];
  const names = ['## Known but not modelled', known.join(', ')];
  return page('Instructions', 'src/cpu/instructions', ...legend, table(head, rows), ...names);
}

const PAGES: Readonly<Record<string, () => string>> = {
  'fields.md': fieldsPage,
  'controls.md': controlsPage,
  'checks.md': checksPage,
  'hazards.md': hazardsPage,
  'cpus.md': cpusPage,
  'instructions.md': instructionsPage,
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
