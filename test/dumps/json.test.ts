import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { readDump } from '../../src/dumps/read-dump.ts';
import { FIELDS } from '../../src/vmcs/fields.ts';
import { fieldValue } from './field-values.ts';

const read = (value: unknown) => readDump(JSON.stringify(value));

describe('our own format', () => {
  it('takes any name of a field', () => {
    const image = read({
      format: 'vmxon',
      fields: {
        guestRip: '0xfff0',
        GUEST_RSP: 16,
        '0x4012': '0x11ff',
        'Guest CR3': '0x1000',
        VMX_VMCS16_VPID: 1,
      },
    });
    expect(image).toMatchObject({ format: 'json', reported: {}, notes: [] });
    expect(Object.fromEntries(image.values)).toEqual({
      guestRip: 0xfff0n,
      guestRsp: 16n,
      vmEntryControls: 0x11ffn,
      guestCr3: 0x1000n,
      vpid: 1n,
    });
  });

  it('takes the object of fields alone', () => {
    expect(read({ guestRip: '0xfff0', exitReason: '0x80000021' })).toMatchObject({
      values: new Map([
        ['guestRip', 0xfff0n],
        ['exitReason', 0x8000_0021n],
      ]),
      reported: { exitReason: 0x8000_0021 },
    });
  });

  it('takes what was reported', () => {
    const image = read({
      fields: { guestRip: 0 },
      reported: { instructionError: 7, source: 'VMLAUNCH error: 0x7' },
    });
    expect(image.reported).toEqual({ instructionError: 7, source: 'VMLAUNCH error: 0x7' });
  });

  it('holds every field', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...FIELDS).chain((f) => fc.tuple(fc.constant(f), fieldValue(f.key))),
        ([field, value]) => {
          const hex = `0x${value.toString(16)}`;
          for (const name of [field.key, field.name, `0x${field.encoding.toString(16).padStart(4, '0')}`]) {
            expect(read({ fields: { [name]: hex } }).values.get(field.key)).toBe(value);
          }
        },
      ),
      { numRuns: 300 },
    );
  });

  it.each<[unknown, string]>([
    [{ guestRpi: 1 }, '"guestRpi" is no VMCS field'],
    [{ guestRip: 'fff0' }, '"guestRip": "fff0" is no hexadecimal number ("0x…")'],
    [{ guestRip: '0xfffg' }, '"guestRip": "0xfffg" is no hexadecimal number'],
    [{ guestRip: -1 }, '"guestRip": -1 is no unsigned integer'],
    [{ guestRip: 2 ** 60 }, 'write large values as "0x…"'],
    [{ guestRip: 1.5 }, '"guestRip": 1.5 is no unsigned integer'],
    [{ guestRip: null }, '"guestRip": a value is a number or a string "0x…"'],
    [{ guestRip: [1] }, '"guestRip": a value is a number or a string "0x…"'],
    [{ vpid: '0x10000' }, '"vpid": 0x10000 is too wide for its 16 bits'],
    [{ guestRip: 1, GUEST_RIP: 1 }, '"GUEST_RIP": guestRip is given twice'],
    [{ tscOffset_high: 1 }, '"tscOffset_high" is half a field; give tscOffset as a whole'],
    [{ fields: 7 }, '"fields" is no object of VMCS fields'],
    [{ format: 'other', fields: {} }, '"format" is "other", not "vmxon"'],
    [{ fields: { vpid: 1 }, feilds: {} }, '"feilds" is not known beside "fields"'],
    [{ fields: { vpid: 1 }, reported: { exitReason: 'x' } }, '"exitReason": "x" is no hexadecimal number'],
    [{ fields: { vpid: 1 }, reported: { reason: 1 } }, '"reason" in "reported" is not known'],
    [{ fields: { vpid: 1 }, reported: [] }, '"reported" is no object'],
    [{ fields: {} }, 'the dump holds no values'],
    [[{}], 'the JSON text is no object of VMCS fields'],
  ])('%j', (value, message) => {
    expect(() => read(value)).toThrow(message);
  });

  it('says that JSON is damaged, in one line', () => {
    expect(() => readDump('{\n"guestRip":\n  zz }')).toThrow(
      /^the text begins like JSON but is none: [^\n]*$/,
    );
    expect(() => readDump(`{"a":${'['.repeat(200_000)}`)).toThrow('begins like JSON');
  });
});
