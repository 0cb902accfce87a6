/** `vmxon fields [NAME|ENCODING]`: the field catalogue, or one field. */
import type { Command } from 'commander';
import { FIELD_ALIASES, findField, searchFields } from '../vmcs/field-names.ts';
import { FIELDS, type VmcsField } from '../vmcs/fields.ts';
import { paragraph, print, printJson, table } from './output.ts';
import { alternatives, Problem } from './problem.ts';
import { encodingText, existenceText, widthText } from './wording.ts';

export function addFieldsCommand(program: Command): void {
  program
    .command('fields')
    .description('list the fields of a VMCS, or show one')
    .argument('[name...]', 'name (any the manual or other software uses) or encoding, such as 0x681e')
    .option('--json', 'print JSON')
    .action((words: string[], options: { json?: boolean }) => {
      if (words.length === 0) listFields(options.json === true);
      else showField(words.join(' '), options.json === true);
    });
}

function fieldJson(field: VmcsField) {
  return {
    key: field.key,
    name: field.name,
    encoding: encodingText(field.encoding),
    highEncoding: field.highEncoding === undefined ? null : encodingText(field.highEncoding),
    width: field.width,
    bits: field.bits,
    type: field.type,
    existsIf: field.existsIf,
    aliases: FIELD_ALIASES[field.key],
  };
}

function listFields(json: boolean): void {
  if (json) {
    printJson(FIELDS.map(fieldJson));
    return;
  }
  const rows = FIELDS.map((f) => [
    encodingText(f.encoding),
    f.highEncoding === undefined ? '' : encodingText(f.highEncoding),
    f.name,
    widthText(f),
    f.type,
    existenceText(f),
  ]);
  print(table(['encoding', 'high', 'name', 'width', 'type', 'exists if supported'], rows));
}

function showField(query: string, json: boolean): void {
  const found = findField(query);
  if (found === undefined) throw new Problem(unknownField(query));
  const { field, access } = found;
  if (json) {
    printJson({ ...fieldJson(field), access });
    return;
  }
  const lines = [
    field.name,
    '',
    paragraph('  encoding', encodingText(field.encoding)),
    ...(field.highEncoding === undefined ? [] : [paragraph('  high', encodingText(field.highEncoding))]),
    paragraph('  width', widthText(field)),
    paragraph('  type', field.type),
    paragraph('  exists if', existenceText(field)),
    paragraph('  key', field.key),
    paragraph('  aliases', FIELD_ALIASES[field.key].join(', ') || 'none'),
  ];
  if (access === 'high') lines.push('', `${query} is the high half: bits 63:32.`);
  print(lines.join('\n'));
}

function unknownField(query: string): string {
  // The longest beginning of the name that is in some field's name.
  const beginnings = Array.from({ length: Math.max(0, query.length - 3) }, (_, i) =>
    query.slice(0, query.length - i),
  ).slice(0, 80);
  const similar = beginnings.map((text) => searchFields(text)).find((list) => list.length > 0);
  const hint = similar
    ? `did you mean ${alternatives(similar.slice(0, 5).map((f) => f.name))}?`
    : '"vmxon fields" lists all';
  return `no field "${query.slice(0, 80)}": ${hint}`;
}
