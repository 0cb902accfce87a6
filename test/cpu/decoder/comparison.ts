/** Both decoders on one byte string: what differs, and whether that is intended. */
import type { CpuidFeatures } from '../../../src/cpu/cpuid.ts';
import { Decoder, MAX_INSTRUCTION_BYTES } from '../../../src/cpu/decoder.ts';
import { OPCODE_ROWS, OPCODES } from '../../../src/cpu/opcode-map.ts';
import { IcedDecoder } from './iced-form.ts';
import { ALIASES, IMPLIED_OPERANDS, INTENDED_DIFFERENCES } from './intended-differences.ts';
import { type InstructionForm, ownForm } from './own-form.ts';

interface DecoderDifference {
  readonly bits: number;
  readonly bytes: string;
  readonly what: string;
  readonly own: string;
  readonly iced: string;
}

/** What a campaign came to. */
export interface Tally {
  strings: number;
  valid: number;
  invalid: number;
  /** Instructions that vmxon knows by name only, and by the name that iced-x86 gives them. */
  readonly named: Map<string, number>;
  /** Valid instructions that vmxon does not know. */
  readonly notInTheMap: Map<string, number>;
  readonly intended: Map<string, number>;
  readonly differences: DecoderDifference[];
  /** Number of differences that are not intended. */
  different: number;
}

export const newTally = (): Tally => ({
  strings: 0,
  valid: 0,
  invalid: 0,
  named: new Map(),
  notInTheMap: new Map(),
  intended: new Map(),
  differences: [],
  different: 0,
});

/** Kinds of operands by which one mnemonic names quite different instructions. */
const KINDS: readonly (readonly [kind: string, notation: RegExp, text: RegExp])[] = [
  ['segment', /^S/, /^[CDEFGS]S$/],
  ['control', /^C[a-z]/, /^CR/],
  ['debug', /^D[a-z]/, /^DR/],
  ['vector', /^[VW]/, /^XMM/],
];

const nameWith = (mnemonic: string, operands: readonly string[], which: 1 | 2) => {
  const kind = KINDS.find((k) => operands.some((operand) => k[which].test(operand)));
  return kind === undefined ? mnemonic : `${mnemonic} ${kind[0]}`;
};

/** What the opcode map has. */
const NAMES: ReadonlySet<string> = new Set(
  OPCODE_ROWS.flatMap((row) =>
    row.mnemonic.split('/').map((mnemonic) => nameWith(mnemonic, row.operands.split(' '), 1)),
  ),
);
const MOST_KEPT = 2000;

const count = (map: Map<string, number>, key: string) => map.set(key, (map.get(key) ?? 0) + 1);
const show = (form: InstructionForm | undefined) =>
  form === undefined
    ? 'invalid'
    : `${form.lock ? 'LOCK ' : ''}${form.repeat}${form.repeat && ' '}${form.mnemonic} ${form.operands.join(', ')} (${form.length})`;

/** The first respect in which two valid forms differ. */
function differenceOf(own: InstructionForm, other: InstructionForm): string | undefined {
  if (own.length !== other.length) return 'length';
  const name = ALIASES.get(other.mnemonic) ?? other.mnemonic;
  if (own.mnemonic !== name) return 'mnemonic';
  if (own.lock !== other.lock) return 'lock';
  if (own.repeat !== '' && own.repeat !== other.repeat) return 'repeat';
  if (IMPLIED_OPERANDS.has(own.mnemonic)) return undefined;
  if (own.operands.length !== other.operands.length) return 'operands';
  for (const [n, text] of own.operands.entries()) {
    const theirs = other.operands[n] as string;
    // Where the operation accesses memory itself, its size is not in the map.
    if (
      text !== theirs &&
      !(/\[/.test(text) && /^\d+ /.test(theirs) && text === theirs.replace(/^\d+ /, ''))
    ) {
      return 'operands';
    }
  }
  return undefined;
}

export class Comparison {
  private readonly own: Decoder;
  private readonly iced = new IcedDecoder();

  constructor(features: CpuidFeatures) {
    this.own = new Decoder(OPCODES, features);
  }

  compare(bytes: Uint8Array, bits: number, tally: Tally): void {
    tally.strings++;
    const i = this.own.decode(bytes, MAX_INSTRUCTION_BYTES, bits);
    const isDefined = typeof i !== 'number' && i.row !== OPCODES.undefinedRow;
    const own = isDefined ? ownForm(i, bits) : undefined;
    const other = this.iced.decode(bytes, bits);
    // Of an instruction known by name only, the name is all; the encoding may be invalid.
    if (isDefined && i.row.execute === undefined) {
      const name = other === undefined ? i.row.mnemonic : (ALIASES.get(other.mnemonic) ?? other.mnemonic);
      if (other === undefined) tally.invalid++;
      else if (name === i.row.mnemonic) count(tally.named, name);
      else this.differs(tally, bytes, bits, 'name', own, other);
      return;
    }
    if (own === undefined && other === undefined) {
      tally.invalid++;
      return;
    }
    const what = own === undefined ? 'rejected' : other === undefined ? 'accepted' : differenceOf(own, other);
    if (what === undefined) {
      tally.valid++;
      return;
    }
    const name = other === undefined ? '' : (ALIASES.get(other.mnemonic) ?? other.mnemonic);
    // An encoding of an instruction that the map does not have may be among those reserved for hints.
    if (other !== undefined && (own === undefined || own.mnemonic === 'NOP')) {
      const full = nameWith(name, other.operands, 2);
      if (!NAMES.has(full)) {
        count(tally.notInTheMap, full);
        return;
      }
    }
    const intended = INTENDED_DIFFERENCES.find((d) => d.applies(own, other, bytes, bits));
    if (intended !== undefined) {
      count(tally.intended, intended.id);
      return;
    }
    this.differs(tally, bytes, bits, what, own, other);
  }

  private differs(
    tally: Tally,
    bytes: Uint8Array,
    bits: number,
    what: string,
    own: InstructionForm | undefined,
    other: InstructionForm | undefined,
  ): void {
    tally.different++;
    if (tally.differences.length >= MOST_KEPT) return;
    const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join(' ');
    tally.differences.push({ bits, bytes: hex, what, own: show(own), iced: show(other) });
  }
}
