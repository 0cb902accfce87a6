import { describe, expect, it } from 'vitest';
import {
  decodeEncoding,
  ENCODING_COUNT,
  encodeField,
  typeOf,
  widthInBits,
  widthOf,
} from '../../src/vmcs/encoding.ts';
import { findField } from '../../src/vmcs/field-names.ts';

const ALL = Array.from({ length: ENCODING_COUNT }, (_, encoding) => encoding);

describe('field encodings (SDM Table 27-22)', () => {
  it('decodes an encoding into access, index, type and width', () => {
    expect(decodeEncoding(0x0000)).toEqual({ access: 'full', index: 0, type: 'control', width: 16 });
    expect(decodeEncoding(0x2803)).toEqual({ access: 'high', index: 1, type: 'guest', width: 64 });
    expect(decodeEncoding(0x4402)).toEqual({ access: 'full', index: 1, type: 'exit-information', width: 32 });
    expect(decodeEncoding(0x6c16)).toEqual({ access: 'full', index: 11, type: 'host', width: 'natural' });
    expect(decodeEncoding(0x63fe)).toEqual({ access: 'full', index: 511, type: 'control', width: 'natural' });
  });

  it('takes each of the 32768 encodings apart and puts it together again, or refuses it', () => {
    let decoded = 0;
    for (const encoding of ALL) {
      const field = decodeEncoding(encoding);
      const reserved = (encoding & 0x1000) !== 0 || ((encoding & 1) !== 0 && (encoding & 0x6000) !== 0x2000);
      expect(field === undefined, `0x${encoding.toString(16)}`).toBe(reserved);
      if (field === undefined) continue;
      decoded++;
      expect(encodeField(field)).toBe(encoding);
      expect(field.width).toBe(widthOf(encoding));
      expect(field.type).toBe(typeOf(encoding));
    }
    // 512 indexes of 4 types: one encoding each in three widths, two in the fourth.
    expect(decoded).toBe(512 * 4 * (3 + 2));
  });

  it('finds a field behind exactly 282 of them', () => {
    expect(ALL.filter((encoding) => findField(encoding) !== undefined)).toHaveLength(282);
  });

  it.each([-2, -0x2000, 0x8000, 0x1_0000, 0x1_0000_681e, 1.5, Number.NaN])('refuses %d', (encoding) => {
    expect(decodeEncoding(encoding)).toBeUndefined();
    expect(findField(encoding)).toBeUndefined();
  });

  it('gives natural-width fields 64 bits', () => {
    expect([16, 32, 64, 'natural'].map((w) => widthInBits(w as 16))).toEqual([16, 32, 64, 64]);
  });
});
