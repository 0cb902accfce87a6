/**
 * The encoding of VMCS fields (SDM §27.11.2, Table 27-22): access type, index, type and width packed
 * into 15 bits.
 */

export type FieldWidth = 16 | 32 | 64 | 'natural';
export type FieldType = 'control' | 'exit-information' | 'guest' | 'host';

export interface DecodedEncoding {
  readonly access: 'full' | 'high';
  /** Bits 9:1, 0–511. */
  readonly index: number;
  readonly type: FieldType;
  readonly width: FieldWidth;
}

const WIDTHS = [16, 64, 32, 'natural'] as const satisfies readonly FieldWidth[];
const TYPES = ['control', 'exit-information', 'guest', 'host'] as const satisfies readonly FieldType[];

/** Encodings are 15 bits; a table indexed by encoding needs this many entries. */
export const ENCODING_COUNT = 0x8000;

/**
 * Decodes a 32-bit encoding, or returns undefined when a reserved bit (12, 31:15) is set or high
 * access is asked of a field that is not 64 bits wide.
 */
export function decodeEncoding(encoding: number): DecodedEncoding | undefined {
  if (encoding < 0 || encoding >= ENCODING_COUNT || !Number.isInteger(encoding) || encoding & 0x1000) {
    return undefined;
  }
  const width = widthOf(encoding);
  const high = (encoding & 1) !== 0;
  if (high && width !== 64) return undefined;
  return { access: high ? 'high' : 'full', index: (encoding >> 1) & 0x1ff, type: typeOf(encoding), width };
}

/** The inverse of {@link decodeEncoding}. `index` is 0–511. */
export function encodeField(field: DecodedEncoding): number {
  return (
    (WIDTHS.indexOf(field.width) << 13) |
    (TYPES.indexOf(field.type) << 10) |
    (field.index << 1) |
    (field.access === 'high' ? 1 : 0)
  );
}

/** Bits 14:13 of an encoding. */
export function widthOf(encoding: number): FieldWidth {
  return WIDTHS[(encoding >> 13) & 3] as FieldWidth;
}

/** Bits 11:10 of an encoding. */
export function typeOf(encoding: number): FieldType {
  return TYPES[(encoding >> 10) & 3] as FieldType;
}

/** Width in bits on a processor that supports Intel 64. */
export function widthInBits(width: FieldWidth): 16 | 32 | 64 {
  return width === 'natural' ? 64 : width;
}
