/**
 * Labels of a dump and the values behind them, as templates: label`RSP =${h16('guestRsp')}`. A label
 * is found anywhere in the stream; the values behind its first one may be missing.
 */
import { Field, type FieldName, fieldOf } from '../vmcs/fields.ts';
import { type Token, type TokenStream, words } from './tokens.ts';
import { DumpError, quoted } from './vmcs-image.ts';

/** The place of a value in a label. */
export interface Hole {
  readonly name: string;
  /** Digits that are printed at least. */
  readonly digits: number;
  /** Digits that the field can have. */
  readonly most: number;
}

export interface Label {
  readonly parts: readonly (string | Hole)[];
}

/** A value as read. */
export interface Read {
  readonly name: string;
  readonly value: bigint;
  readonly line: number;
  readonly source: string;
}

export interface Match {
  readonly reads: readonly Read[];
  /** Tokens that the label takes. */
  readonly length: number;
  readonly notes: readonly string[];
}

function hole(digits: number): (name: FieldName | `~${string}`) => Hole {
  return (name) => {
    const most = name in Field ? fieldOf(name as FieldName).bits / 4 : digits;
    return { name, digits, most };
  };
}

// H2 … H16 of the grammar: a value printed with at least so many digits. A name that begins with `~`
// is no field but something the reader looks at.
export const h1 = hole(1);
export const h2 = hole(2);
export const h4 = hole(4);
export const h5 = hole(5);
export const h8 = hole(8);
export const h16 = hole(16);

/** Builds a label from its printed form. */
export function label(literals: TemplateStringsArray, ...holes: readonly Hole[]): Label {
  const parts = literals.flatMap((literal, i): (string | Hole)[] => {
    const next = holes[i];
    return next ? [...words(literal), next] : words(literal);
  });
  return { parts };
}

/** Labels by their first word. */
export type LabelTable = ReadonlyMap<string, readonly Label[]>;

/** Indexes labels; of two that begin alike, the one that comes first is tried first. */
export function labelTable(...labels: readonly Label[]): LabelTable {
  const table = new Map<string, Label[]>();
  for (const label of labels) {
    const word = label.parts[0] as string;
    table.set(word, [...(table.get(word) ?? []), label]);
  }
  return table;
}

/** `GDTR: limit`, for messages. */
function describe(parts: Label['parts'], at: number): string {
  let start = at;
  while (start > 0 && typeof parts[start - 1] === 'string') start--;
  const own = parts.slice(start, at) as string[];
  const all = start === 0 ? own : [parts[0] as string, ...own];
  return all.filter((word) => !/^[=:()|]$/.test(word)).join(' ');
}

const HEX = /^(?:0x)?[0-9a-f]+$/i;

/** The digits of a hexadecimal number, or undefined. Longer than 40 characters is none. */
export function hexDigits(text: string): string | undefined {
  if (text.length > 40 || !HEX.test(text)) return undefined;
  return /^0x/i.test(text) ? text.slice(2) : text;
}

/**
 * Tries a label at the head of the stream.
 * @throws DumpError if the label is there and a value behind it cannot be one
 */
export function matchLabel(stream: TokenStream, { parts }: Label): Match | undefined {
  const reads: Read[] = [];
  const notes: string[] = [];
  const lastHole = parts.findLastIndex((part) => typeof part !== 'string');
  let at = 0;
  for (const [index, part] of parts.entries()) {
    const token = stream.peek(at);
    if (typeof part === 'string') {
      if (token?.text === part) at++;
      else if (reads.length === 0 || index > lastHole) return undefined;
      else break;
      continue;
    }
    const name = describe(parts, index);
    if (!token) {
      notes.push(`the text ends before the value of ${name}`);
      break;
    }
    // `CS:` and a number is a label, `CS:` and a word may be anything.
    if (reads.length === 0 && parts[index - 1] === ':' && !/^[0-9a-f]/i.test(token.text)) return undefined;
    const value = readValue(stream, at, part, name);
    at += value.length;
    notes.push(...value.notes);
    if (value.digits !== undefined) {
      reads.push({
        name: part.name,
        value: BigInt(`0x${value.digits}`),
        line: token.line,
        source: token.source,
      });
    }
    if (value.ends) break;
  }
  return { reads, length: at, notes };
}

interface Value {
  readonly digits?: string;
  readonly length: number;
  readonly notes: readonly string[];
  /** The label goes no further. */
  readonly ends?: boolean;
}

function readValue(stream: TokenStream, at: number, hole: Hole, name: string): Value {
  const token = stream.peek(at) as Token;
  const next = stream.peek(at + 1);
  const cut = { length: 1, notes: [`line ${token.line}: the text ends within the value of ${name}`] };
  if (!next && token.text.toLowerCase() === '0x') return cut;
  const digits = hexDigits(token.text);
  // Wrapping moves a value to the next line as a whole: anything else there belongs to that line.
  const whole = digits !== undefined && digits.length >= hole.digits;
  if (token.first && !whole) {
    const before = `line ${token.line}: the line before ends without the value of ${name}, which is unknown`;
    return { length: 0, notes: [before], ends: true };
  }
  if (digits === undefined) {
    const longNumber = token.text.length > 40 && /^(?:0x)?[0-9a-f]{38}/i.test(token.text);
    const why = longNumber ? 'has too many digits' : 'is no hexadecimal number';
    throw new DumpError(`${name}: "${quoted(token.text, 40)}" ${why}`, token.line);
  }
  if (digits.length > hole.most) {
    throw new DumpError(
      `${name}: "${token.text}" has too many digits, ${digits.length} of at most ${hole.most}`,
      token.line,
    );
  }
  if (digits.length >= hole.digits) return { digits, length: 1, notes: [] };

  if (!next) return cut;
  const joined = digits + next.text;
  if (next.first && joined.length === hole.digits && hexDigits(joined) !== undefined) {
    return { digits: joined, length: 2, notes: [] };
  }
  return {
    digits,
    length: 1,
    notes: [`line ${token.line}: ${name} has ${digits.length} digits where ${hole.digits} are printed`],
  };
}
