/** `vmxon explain [ID]`: every rule there is, or one of them. */
import type { Command } from 'commander';
import { type SdmSection, sectionTitle } from '../sdm/sections.ts';
import { fieldOf } from '../vmcs/fields.ts';
import { BASIC_CHECKS, type BasicCheck } from '../vmx/entry/basic-checks.ts';
import type { EntryCheck } from '../vmx/entry/check.ts';
import { NOT_CHECKED_HERE } from '../vmx/entry/checks/not-checked.ts';
import { describeConsequence } from '../vmx/entry/explain.ts';
import { allChecks } from '../vmx/entry/verify.ts';
import { HAZARDS, type HazardRow } from '../vmx/hazards/hazard-list.ts';
import { MSR_LOAD_CHECKS } from '../vmx/msr-area.ts';
import { paragraph, print, printJson, table } from './output.ts';
import { alternatives, Problem } from './problem.ts';

/** A rule of any kind, as it is shown. */
export interface Rule {
  readonly id: string;
  readonly kind: 'basic check' | 'entry check' | 'MSR-load check' | 'hazard';
  readonly section: SdmSection;
  readonly title: string;
  readonly rule: string;
  readonly when: readonly string[];
  /** Names of the fields it looks at. */
  readonly fields: readonly string[];
  readonly consequence: string;
  readonly example: string;
}

function basicRule(check: BasicCheck): Rule {
  const { failure } = check;
  const consequence = typeof failure === 'number' ? `VMfailValid ${failure}` : failure;
  const instruction = check.instruction ?? 'VMLAUNCH';
  return {
    id: check.id,
    kind: 'basic check',
    section: check.sdm,
    title: sectionTitle(check.sdm),
    rule: check.rule,
    when: check.instruction === undefined ? [] : [`the instruction is ${check.instruction}`],
    fields: [],
    consequence,
    example: `${instruction} where the rule does not hold ends in ${consequence}.`,
  };
}

function entryRule(check: EntryCheck): Rule {
  const names = new Set([...check.fields, ...check.when.flatMap((c) => c.fields)]);
  const blamed = fieldOf(check.fields[0] as EntryCheck['fields'][number]).name;
  const when = check.when.map((c) => c.text);
  const given = when.length === 0 ? 'any VMCS' : `a VMCS in which ${when.join(' and ')}`;
  return {
    id: check.id,
    kind: 'entry check',
    section: check.sdm,
    title: sectionTitle(check.sdm),
    rule: check.rule,
    when,
    fields: [...names].map((name) => fieldOf(name).name),
    consequence: describeConsequence(check),
    example: `Take ${given}, and break the rule in "${blamed}": VM entry ends in ${describeConsequence(check)}.`,
  };
}

function hazardRule(id: string, row: HazardRow): Rule {
  return {
    id,
    kind: 'hazard',
    section: row.sdm,
    title: sectionTitle(row.sdm),
    rule: row.rule,
    when: [],
    fields: [],
    consequence: row.kind === 'lint' ? 'allowed, but advised against' : 'undefined behaviour',
    example: row.example,
  };
}

/** Every rule, in the order in which a VM entry meets them, hazards last. */
export function allRules(): readonly Rule[] {
  return [
    ...BASIC_CHECKS.map(basicRule),
    ...allChecks().map(entryRule),
    ...MSR_LOAD_CHECKS.map(
      ({ id, sdm, rule }): Rule => ({
        id,
        kind: 'MSR-load check',
        section: sdm,
        title: sectionTitle(sdm),
        rule,
        when: [],
        fields: ['VM-entry MSR-load count', 'VM-entry MSR-load address'],
        consequence: 'VM-entry failure: exit reason 34, qualification the number of the entry',
        example: 'An entry of the VM-entry MSR-load area for which the rule does not hold.',
      }),
    ),
    ...Object.entries(HAZARDS).map(([id, row]) => hazardRule(id, row)),
  ];
}

export function addExplainCommand(program: Command): void {
  program
    .command('explain')
    .description('list every check and hazard, or explain one')
    .argument('[id]', 'id of a check or hazard, such as guest.intr.sti-needs-if')
    .option('--json', 'print JSON')
    .action((id: string | undefined, options: { json?: boolean }) => {
      const rules = allRules();
      if (id === undefined) {
        if (options.json) printJson(rules);
        else
          print(
            table(
              ['id', 'section', 'rule'],
              rules.map((r) => [r.id, `§${r.section}`, r.rule]),
            ),
          );
        return;
      }
      const rule = rules.find((r) => r.id === id);
      if (rule === undefined) throw new Problem(unknownRule(id, rules));
      if (options.json) printJson(rule);
      else print(ruleText(rule));
    });
}

function ruleText(rule: Rule): string {
  return [
    `${rule.id} (${rule.kind})`,
    '',
    paragraph('  section', `§${rule.section} ${rule.title}`),
    paragraph('  rule', rule.rule),
    paragraph('  when', rule.when.join(' and ') || 'always'),
    ...(rule.fields.length === 0 ? [] : [paragraph('  fields', rule.fields.join(', '))]),
    paragraph('  if not', rule.consequence),
    paragraph('  example', rule.example),
  ].join('\n');
}

function unknownRule(id: string, rules: readonly Rule[]): string {
  const reason = NOT_CHECKED_HERE[id];
  if (reason !== undefined) return `${id} is no check here: ${reason}`;
  const parts = id
    .toLowerCase()
    .split('.')
    .filter((p) => p.length > 1);
  const score = (r: Rule) =>
    parts.reduce((n, p) => n + (r.id.split('.').includes(p) ? 2 : r.id.includes(p) ? 1 : 0), 0);
  const similar = rules
    .map((r) => ({ id: r.id, score: score(r) }))
    .filter((r) => r.score > 0)
    .sort((a, b) => b.score - a.score)
    .slice(0, 4)
    .map((r) => r.id);
  const hint = similar.length > 0 ? `did you mean ${alternatives(similar)}?` : '"vmxon explain" lists all';
  return `no check or hazard "${id.slice(0, 80)}": ${hint}`;
}
