/** Packed integer arithmetic, logic and comparison (SDM vol. 2: PADDB to PXOR, PCMPEQB to PCMPGTW, PSADBW). */
import type { OpcodeRow } from '../opcode-row.ts';
import { bothRows, byBytes, byDoublewords, byWords, type PackedOperation } from './packed-lanes.ts';

const signed8 = (a: number) => (a << 24) >> 24;
const signed16 = (a: number) => (a << 16) >> 16;
const clamp = (value: number, least: number, most: number) => Math.min(Math.max(value, least), most);

const addQuads: PackedOperation = ({ quads }, d, s, bytes) => {
  for (let n = 0; n < bytes >> 3; n++)
    quads[(d >> 3) + n] = BigInt.asUintN(
      64,
      (quads[(d >> 3) + n] as bigint) + (quads[(s >> 3) + n] as bigint),
    );
};

const subtractQuads: PackedOperation = ({ quads }, d, s, bytes) => {
  for (let n = 0; n < bytes >> 3; n++)
    quads[(d >> 3) + n] = BigInt.asUintN(
      64,
      (quads[(d >> 3) + n] as bigint) - (quads[(s >> 3) + n] as bigint),
    );
};

/** PMULUDQ: the even doublewords, unsigned. */
const multiplyDoublewords: PackedOperation = ({ quads }, d, s, bytes) => {
  for (let n = 0; n < bytes >> 3; n++)
    quads[(d >> 3) + n] =
      ((quads[(d >> 3) + n] as bigint) & 0xffff_ffffn) * ((quads[(s >> 3) + n] as bigint) & 0xffff_ffffn);
};

/** PMADDWD: products of signed words, added in pairs. */
const multiplyAdd: PackedOperation = ({ i32, u16 }, d, s, bytes) => {
  for (let n = 0; n < bytes >> 2; n++) {
    const a = d / 2 + 2 * n;
    const b = s / 2 + 2 * n;
    const low = signed16(u16[a] as number) * signed16(u16[b] as number);
    const high = signed16(u16[a + 1] as number) * signed16(u16[b + 1] as number);
    i32[(d >> 2) + n] = low + high;
  }
};

/** PSADBW: the sum of the absolute differences of eight bytes. */
const sumOfDifferences: PackedOperation = ({ i32, u8 }, d, s, bytes) => {
  for (let at = 0; at < bytes; at += 8) {
    let sum = 0;
    for (let n = at; n < at + 8; n++) sum += Math.abs((u8[d + n] as number) - (u8[s + n] as number));
    i32[(d + at) >> 2] = sum;
    i32[((d + at) >> 2) + 1] = 0;
  }
};

const and = byDoublewords((a, b) => a & b);
const andNot = byDoublewords((a, b) => ~a & b);
const or = byDoublewords((a, b) => a | b);
const xor = byDoublewords((a, b) => a ^ b);

export const PACKED_LOGIC = { and, andNot, or, xor } as const;

export const PACKED_ARITHMETIC_ROWS: readonly OpcodeRow[] = [
  ...bothRows(
    'FC',
    'PADDB',
    byBytes((a, b) => a + b),
  ),
  ...bothRows(
    'FD',
    'PADDW',
    byWords((a, b) => a + b),
  ),
  ...bothRows(
    'FE',
    'PADDD',
    byDoublewords((a, b) => a + b),
  ),
  ...bothRows('D4', 'PADDQ', addQuads),
  ...bothRows(
    'F8',
    'PSUBB',
    byBytes((a, b) => a - b),
  ),
  ...bothRows(
    'F9',
    'PSUBW',
    byWords((a, b) => a - b),
  ),
  ...bothRows(
    'FA',
    'PSUBD',
    byDoublewords((a, b) => a - b),
  ),
  ...bothRows('FB', 'PSUBQ', subtractQuads),
  ...bothRows(
    'EC',
    'PADDSB',
    byBytes((a, b) => clamp(signed8(a) + signed8(b), -0x80, 0x7f)),
  ),
  ...bothRows(
    'ED',
    'PADDSW',
    byWords((a, b) => clamp(signed16(a) + signed16(b), -0x8000, 0x7fff)),
  ),
  ...bothRows(
    'DC',
    'PADDUSB',
    byBytes((a, b) => Math.min(a + b, 0xff)),
  ),
  ...bothRows(
    'DD',
    'PADDUSW',
    byWords((a, b) => Math.min(a + b, 0xffff)),
  ),
  ...bothRows(
    'E8',
    'PSUBSB',
    byBytes((a, b) => clamp(signed8(a) - signed8(b), -0x80, 0x7f)),
  ),
  ...bothRows(
    'E9',
    'PSUBSW',
    byWords((a, b) => clamp(signed16(a) - signed16(b), -0x8000, 0x7fff)),
  ),
  ...bothRows(
    'D8',
    'PSUBUSB',
    byBytes((a, b) => Math.max(a - b, 0)),
  ),
  ...bothRows(
    'D9',
    'PSUBUSW',
    byWords((a, b) => Math.max(a - b, 0)),
  ),
  ...bothRows(
    'D5',
    'PMULLW',
    byWords((a, b) => Math.imul(a, b)),
  ),
  ...bothRows(
    'E5',
    'PMULHW',
    byWords((a, b) => (signed16(a) * signed16(b)) >> 16),
  ),
  ...bothRows(
    'E4',
    'PMULHUW',
    byWords((a, b) => Math.imul(a, b) >>> 16),
  ),
  ...bothRows('F4', 'PMULUDQ', multiplyDoublewords),
  ...bothRows('F5', 'PMADDWD', multiplyAdd),
  ...bothRows('F6', 'PSADBW', sumOfDifferences),
  ...bothRows(
    'E0',
    'PAVGB',
    byBytes((a, b) => (a + b + 1) >> 1),
  ),
  ...bothRows(
    'E3',
    'PAVGW',
    byWords((a, b) => (a + b + 1) >> 1),
  ),
  ...bothRows('DA', 'PMINUB', byBytes(Math.min)),
  ...bothRows('DE', 'PMAXUB', byBytes(Math.max)),
  ...bothRows(
    'EA',
    'PMINSW',
    byWords((a, b) => Math.min(signed16(a), signed16(b))),
  ),
  ...bothRows(
    'EE',
    'PMAXSW',
    byWords((a, b) => Math.max(signed16(a), signed16(b))),
  ),
  ...bothRows(
    '74',
    'PCMPEQB',
    byBytes((a, b) => (a === b ? -1 : 0)),
  ),
  ...bothRows(
    '75',
    'PCMPEQW',
    byWords((a, b) => (a === b ? -1 : 0)),
  ),
  ...bothRows(
    '76',
    'PCMPEQD',
    byDoublewords((a, b) => (a === b ? -1 : 0)),
  ),
  ...bothRows(
    '64',
    'PCMPGTB',
    byBytes((a, b) => (signed8(a) > signed8(b) ? -1 : 0)),
  ),
  ...bothRows(
    '65',
    'PCMPGTW',
    byWords((a, b) => (signed16(a) > signed16(b) ? -1 : 0)),
  ),
  ...bothRows(
    '66',
    'PCMPGTD',
    byDoublewords((a, b) => (a > b ? -1 : 0)),
  ),
  ...bothRows('DB', 'PAND', and),
  ...bothRows('DF', 'PANDN', andNot),
  ...bothRows('EB', 'POR', or),
  ...bothRows('EF', 'PXOR', xor),
];
