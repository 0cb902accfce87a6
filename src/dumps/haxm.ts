/**
 * The dump of Intel HAXM: one field a line, `4012 VMX_ENTRY_CONTROLS: 11ff`. The number is the field's
 * encoding, so the names do not matter. Several processors may print at the same time.
 */
import { hex } from '../bits/u64.ts';
import { findField } from '../vmcs/field-names.ts';
import { FIELD_COUNT, type FieldName, fieldOf } from '../vmcs/fields.ts';
import { hexDigits } from './labels.ts';
import { HOST_REPORTS, matchReport, type Report, reportedBy } from './reports.ts';
import { type Token, TokenStream } from './tokens.ts';
import { DumpError, type VmcsImage } from './vmcs-image.ts';

/** So many fields make a dump; HAXM prints more than a hundred. */
const FEWEST_FIELDS = 3;
const HALF_A_DUMP = 40;

const PIN_CONTROLS = 0x4000;

function isName(token: Token | undefined): boolean {
  return token !== undefined && token.text.length <= 64 && /^[A-Z][A-Z0-9]*_[A-Z0-9_]+$/.test(token.text);
}

function encodingAt(stream: TokenStream, at: number): number | undefined {
  const encoding = stream.peek(at);
  if (!encoding || !/^[0-9a-f]{4}$/i.test(encoding.text)) return undefined;
  if (!isName(stream.peek(at + 1)) || stream.peek(at + 2)?.text !== ':') return undefined;
  return Number.parseInt(encoding.text, 16);
}

/**
 * Reads the first dump of a text in HAXM's format, or undefined if there is none.
 * @throws DumpError if a value is too wide for its field
 */
export function readHaxm(text: string): VmcsImage | undefined {
  const stream = new TokenStream(text);
  const values = new Map<FieldName, bigint>();
  const highs = new Map<FieldName, bigint>();
  const notes: string[] = [];
  const unknown = new Set<number>();
  let source: string | undefined;
  let report: Report | undefined;
  let begun = 0;
  const differing = new Set<FieldName>();
  let done = false;
  for (let token = stream.peek(); token; token = stream.peek()) {
    const encoding = encodingAt(stream, 0);
    const value = stream.peek(3);
    if (encoding === undefined) {
      report ??= matchReport(stream, HOST_REPORTS);
      stream.advance(1);
      continue;
    }
    // Interleaving may have torn the value off: the next field stands in its place.
    const digits = value && encodingAt(stream, 3) === undefined ? hexDigits(value.text) : undefined;
    if (encoding === PIN_CONTROLS) {
      begun++;
      done ||= begun > 1 && values.size >= HALF_A_DUMP;
    }
    stream.advance(digits === undefined ? 3 : 4);
    const found = findField(encoding);
    if (!found) {
      if (unknown.size < FIELD_COUNT) unknown.add(encoding);
      continue;
    }
    if (done || digits === undefined) continue;
    const { field, access } = found;
    const most = access === 'high' ? 8 : field.bits / 4;
    if (digits.length > most && BigInt(`0x${digits}`) >> BigInt(4 * most) !== 0n) {
      throw new DumpError(
        `${hex(encoding, 4)} (${field.name}): "${digits}" has too many digits, ${digits.length} of at most ${most}`,
        token.line,
      );
    }
    const into = access === 'high' ? highs : values;
    const read = BigInt(`0x${digits}`);
    if (!into.has(field.key)) into.set(field.key, read);
    else if (into.get(field.key) !== read) differing.add(field.key);
    if (field.key === 'exitReason') source ??= token.source;
  }
  if (values.size < FEWEST_FIELDS) return undefined;

  for (const [key, high] of highs) {
    const low = values.get(key);
    if (low !== undefined && low >> 32n === 0n) values.set(key, (high << 32n) | low);
  }
  if (done) notes.push('the text holds more dumps: this is the first');
  else if (begun > 1) {
    // Each is of one or the other.
    for (const key of differing) values.delete(key);
    notes.push(
      `several processors print at the same time: ${differing.size} fields printed with different values are unknown`,
    );
  } else if (differing.size > 0)
    notes.push(`${differing.size} values are printed again with another value: the first is kept`);
  if (unknown.size > 0) {
    notes.push(
      `no field has these encodings: ${[...unknown]
        .slice(0, 8)
        .map((e) => hex(e, 4))
        .join(', ')}`,
    );
  }
  if (!values.has('exitReason'))
    notes.push('the dump is cut off or incomplete: what it does not print is unknown');
  const error = values.get('vmInstructionError') ?? 0n;
  if (error !== 0n) {
    notes.push(
      `${fieldOf('vmInstructionError').name} holds ${error}; the field keeps its value until the next VMfail`,
    );
  }
  return { format: 'haxm', values, reported: reportedBy(values, report, source, notes), notes };
}
