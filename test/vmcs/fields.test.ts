import { describe, expect, it } from 'vitest';
import { CONTROLS } from '../../src/vmcs/controls.ts';
import { decodeEncoding } from '../../src/vmcs/encoding.ts';
import { FIELD_COUNT, FIELDS, Field, type FieldCondition, fieldOf } from '../../src/vmcs/fields.ts';
import { readTsv } from '../support/tsv.ts';

const APPENDIX_B = readTsv('appendix-b.tsv', import.meta.url, 6) as [
  encoding: string,
  name: string,
  width: string,
  type: string,
  existsIf: string,
  table: string,
][];

/** `proc2[5] "enable VPID" (48BH[37]) OR …` as conditions of the catalogue. */
function conditions(text: string): FieldCondition[] {
  if (text === 'always') return [];
  return text.split(' OR ').map((term) => {
    if (term.startsWith('FRED transitions')) return 'cpuid.fred';
    const [, group, position, name] = /^(\w+)\[(\d+)\] "(.+)" \(/.exec(term) as RegExpExecArray;
    const control = CONTROLS.find((c) => c.group === group && c.bit === Number(position));
    expect(control?.name.toLowerCase(), term).toBe(name?.toLowerCase());
    return (control as { id: FieldCondition }).id;
  });
}

describe('the field catalogue against SDM Appendix B', () => {
  it.each(APPENDIX_B)('%s %s', (encoding, name, width, type, existsIf) => {
    const field = FIELDS.find((f) => f.encoding === Number(encoding));
    expect(field).toMatchObject({
      name,
      width: width === 'natural' ? 'natural' : Number(width),
      type,
    });
    expect([...(field?.existsIf ?? [])].sort()).toEqual(conditions(existsIf).sort());
  });

  it('has 205 fields and no other', () => {
    expect(FIELD_COUNT).toBe(205);
    expect(APPENDIX_B).toHaveLength(205);
    expect(new Set(FIELDS.map((f) => f.encoding)).size).toBe(205);
  });

  it('has 282 encodings', () => {
    const encodings = FIELDS.flatMap((f) => [f.encoding, ...(f.highEncoding ? [f.highEncoding] : [])]);
    expect(new Set(encodings).size).toBe(282);
    for (const encoding of encodings) expect(decodeEncoding(encoding)).toBeDefined();
  });

  it('has as many fields in each table as Appendix B', () => {
    const expected = [6, 11, 7, 38, 3, 23, 13, 20, 8, 23, 1, 8, 6, 23, 15];
    const groups = [16, 64, 32, 'natural'].flatMap((width) =>
      ['control', 'exit-information', 'guest', 'host'].map(
        (type) => FIELDS.filter((f) => f.width === width && f.type === type).length,
      ),
    );
    expect(groups.filter((n) => n > 0)).toEqual(expected);
  });

  it('has 72 control, 17 exit-information, 80 guest and 36 host fields, 115 of them unconditional', () => {
    const count = (type: string) => FIELDS.filter((f) => f.type === type).length;
    expect(['control', 'exit-information', 'guest', 'host'].map(count)).toEqual([72, 17, 80, 36]);
    expect(FIELDS.filter((f) => f.existsIf.length === 0)).toHaveLength(115);
  });
});

describe('what the catalogue derives', () => {
  it('gives high access to 64-bit fields and to no other', () => {
    for (const field of FIELDS) {
      expect(field.highEncoding).toBe(field.width === 64 ? field.encoding + 1 : undefined);
    }
  });

  it('numbers slots in catalogue order', () => {
    FIELDS.forEach((field, index) => {
      expect(field.slot).toBe(index);
      expect(Field[field.key]).toBe(index);
      expect(fieldOf(field.key)).toBe(field);
    });
  });

  it('gives every field the bits of its width', () => {
    for (const field of FIELDS) expect(field.bits).toBe(field.width === 'natural' ? 64 : field.width);
  });
});
