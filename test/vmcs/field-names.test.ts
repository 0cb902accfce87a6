import { describe, expect, it } from 'vitest';
import { FIELD_ALIASES, findField, searchFields } from '../../src/vmcs/field-names.ts';
import { FIELDS } from '../../src/vmcs/fields.ts';
import { readTsv } from '../support/tsv.ts';

const FOUNDING = readTsv('founding-names.tsv', import.meta.url, 4) as [string, string, string, string][];
const ALIASES = readTsv('aliases.tsv', import.meta.url, 8);

/** Every alias with the encodings that go by it. */
const byAlias = new Map<string, Set<number>>();
for (const [encoding, , ...names] of ALIASES) {
  for (const name of names.filter((n) => n !== '-')) {
    byAlias.set(name, (byAlias.get(name) ?? new Set()).add(Number(encoding)));
  }
}

describe('the names this project began from', () => {
  it('are 169', () => expect(FOUNDING).toHaveLength(169));

  it.each(FOUNDING)('%s, printed with %s, is %s %s', (printed, _, encoding, correct) => {
    const reference = findField(printed);
    expect(reference?.encoding).toBe(Number(encoding));
    expect(reference?.access).toBe(Number(encoding) & 1 ? 'high' : 'full');
    expect(findField(encoding)).toEqual(reference);
    expect(findField(Number(encoding))).toEqual(reference);
    if (correct !== '') expect(findField(correct)).toEqual(reference);
  });
});

describe('names in the manual and in other software', () => {
  it.each([...byAlias].filter(([, encodings]) => encodings.size === 1))('%s', (alias, encodings) => {
    expect(findField(alias)?.encoding).toBe([...encodings][0]);
  });

  it('leads an ambiguous name to one of the fields that go by it', () => {
    for (const [alias, encodings] of byAlias) {
      expect([...encodings], alias).toContain(findField(alias)?.encoding);
      const named = FIELDS.find((f) => FIELD_ALIASES[f.key].includes(alias));
      if (encodings.size > 1) expect(findField(alias)?.field, `${alias}: first of the catalogue`).toBe(named);
    }
  });

  it.each(FIELDS.map((f) => [f.key, f] as const))('%s by its identifier, name and encoding', (key, field) => {
    for (const query of [key, field.name, field.name.toUpperCase(), key.replace(/([A-Z])/g, '_$1')]) {
      expect(findField(query)?.field, query).toBe(field);
    }
    expect(findField(`0x${field.encoding.toString(16)}`)?.field).toBe(field);
    expect(findField(`${field.encoding.toString(16).toUpperCase()}H`)?.field).toBe(field);
  });

  it('asks for the high half with a suffix, of 64-bit fields only', () => {
    for (const field of FIELDS) {
      for (const name of [field.key, field.name, ...FIELD_ALIASES[field.key]]) {
        const reference = findField(`${name.replace(/_FULL$/, '')}_high`);
        if (field.highEncoding === undefined) expect(reference, name).toBeUndefined();
        else expect(reference?.access, name).toBe('high');
      }
    }
    expect(findField('guestIa32Pat_high')).toMatchObject({ encoding: 0x2805, access: 'high' });
    expect(findField('VMX_VMCS64_CTRL_TSC_OFFSET_HIGH')).toMatchObject({ encoding: 0x2011 });
  });

  it('does not let an alias hide the name of another field', () => {
    for (const field of FIELDS) expect(findField(field.name)?.field, field.name).toBe(field);
  });

  it('reads the short name in parentheses', () => {
    expect(findField('EPTP')?.encoding).toBe(0x201a);
    expect(findField('eoi_exit2')?.encoding).toBe(0x2020);
    expect(findField('HLATP_high')?.encoding).toBe(0x2041);
  });

  it.each(FIELDS.flatMap((f) => (f.name.endsWith(')') ? [[f.name, f] as const] : [])))(
    '%s with the short name, without it, or by it alone',
    (name, field) => {
      const [long, short] = name.slice(0, -1).split(' (') as [string, string];
      for (const query of [name, long, short]) {
        expect(findField(query)).toMatchObject({ field, access: 'full' });
        expect(findField(`${query}_full`)).toMatchObject({ field, access: 'full' });
        const high = field.highEncoding === undefined ? undefined : { field, encoding: field.highEncoding };
        if (high === undefined) expect(findField(`${query}_high`)).toBeUndefined();
        else expect(findField(`${query}_high`)).toMatchObject(high);
      }
    },
  );

  it.each(['681e', '681E', '681eh', '681EH', '0x681e', '0X0000681E', ' 0x681e\n'])(
    'reads the encoding %j',
    (query) => expect(findField(query)?.field.key).toBe('guestRip'),
  );

  it.each([
    '',
    '   ',
    '_',
    'full',
    'high',
    '_high',
    'no such field',
    '0x681e 0x681c',
    '0x0000681e0',
    'x681e',
    '0x',
    '0x681f',
    '1000h',
    '681e6h',
    '0x100006402',
    'guestRip_high',
  ])('finds nothing for %j', (query) => expect(findField(query)).toBeUndefined());
});

describe('search', () => {
  it('finds every field with a part of a name', () => {
    expect(searchFields('vmcs link').map((f) => f.key)).toEqual(['vmcsLinkPointer']);
    expect(searchFields('PDPTE')).toHaveLength(4);
    expect(searchFields('idt-vectoring').map((f) => f.key)).toEqual([
      'originalEventIdentification',
      'originalEventErrorCode',
    ]);
  });

  it('finds nothing for nothing', () => {
    expect(searchFields('')).toEqual([]);
    expect(searchFields('–')).toEqual([]);
    expect(searchFields('zzz')).toEqual([]);
  });
});
