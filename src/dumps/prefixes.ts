/**
 * From the text of a log or a mail to the lines that were printed: quoted-printable, terminal colours,
 * markup, mail quoting and log prefixes go. Every pattern looks at a bounded piece of the line, so that
 * a line may have any length. Line numbers stay those of the original text.
 */

import { withoutMarkup } from './markup.ts';

/** One line without its prefixes. */
export interface LogLine {
  readonly text: string;
  /** 1-based, in the original text. */
  readonly number: number;
}

/** No prefix is longer; what stands beyond is text. */
const PREFIX_ROOM = 512;

const PREFIXES: readonly RegExp[] = [
  // mail quoting
  /\s*>+ ?/y,
  // Jun 24 17:25:51 host kernel:
  /\s*[A-Z][a-z]{2} {1,2}\d{1,2} \d\d:\d\d:\d\d(?:\.\d{1,9})? [\w.-]{1,64} [\w./-]{1,32}(?:\[\d{1,9}\])?: ?/y,
  // 2022-06-24T17:25:51.123456+02:00 host kernel:
  /\s*\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?(?:\s{1,4}[\w.-]{1,64} (?:kernel|\/netbsd)(?:\[\d{1,9}\])?:)? ?/y,
  // [ 2311.499051]  [12.3][T99]  [Mon Jun 24 17:25:51 2022]  [...]  <3>[ 1.2]
  /\s*(?:<\d{1,2}>)?\[[^\][]{0,40}\] ?/y,
  // <3>  (3)[1234:qemu]  3,1234,123456789,-;
  /\s*<\d{1,3}>\d{0,2} ?/y,
  /\s*\(\d\)(?=\[)/y,
  /\s*\d{1,3},\d{1,12},\d{1,20},[-a-z]{1,4};/y,
  // the same, its beginning cut off
  /\s*\d{1,10}[.,]\d{3,9}\] ?/y,
  /\s*\(XEN\) ?/y,
  /\s*\(intelhaxm\) ?/y,
  /\s*kvm_intel: ?/y,
  /\s*haxm_[a-z]{4,8}: ?/y,
  // CPU 0/KVM-251862 [019]  6384.132438: bprint:
  /[^\n]{1,32}?-\d{1,10} {1,4}\[\d{3}\] {1,4}(?:[\w.]{4,8} {1,4})?\d{1,10}\.\d{1,9}: {1,4}(?:b?(?:print|puts):)?/y,
  /\s*(?:dump_vmcs|vmx_dump_[a-z]{1,16})(?:\.[a-z0-9]{1,16}){0,3}: ?/y,
];

/** Removes log prefixes and mail quoting from the beginning of a line, as often as they repeat. */
export function stripPrefixes(line: string): string {
  let rest = line;
  for (;;) {
    const head = rest.slice(0, PREFIX_ROOM);
    const position = prefixesOf(head);
    if (position === 0) return rest;
    rest = rest.slice(position);
  }
}

function prefixesOf(head: string): number {
  let position = 0;
  for (let progress = true; progress; ) {
    progress = false;
    for (const prefix of PREFIXES) {
      prefix.lastIndex = position;
      if (!prefix.test(head)) continue;
      position = prefix.lastIndex;
      progress = true;
    }
  }
  return position;
}

const ESCAPE = String.fromCharCode(27);
const COLOURS = new RegExp(`${ESCAPE}\\[[0-9;?]{0,32}[A-Za-z]`, 'g');

function countOf(text: string, wanted: string): number {
  let count = 0;
  for (let at = text.indexOf(wanted); at >= 0; at = text.indexOf(wanted, at + wanted.length)) count++;
  return count;
}

/** Every `=` of a quoted-printable text is `=3D`; dumps are full of `=`, and of lower-case digits. */
function isQuotedPrintable(text: string): boolean {
  const encoded = countOf(text, '=3D');
  return encoded > 0 && encoded > countOf(text, '=0x') + countOf(text, '= 0x');
}

function decodeQuotedPrintable(line: string): string {
  return line.replaceAll(/(?:=[0-9A-F]{2})+/g, (run) => {
    const bytes = Uint8Array.from(run.slice(1).split('='), (digits) => Number.parseInt(digits, 16));
    return new TextDecoder().decode(bytes);
  });
}

function* rawLines(text: string): Generator<LogLine> {
  let number = 1;
  for (let start = 0; start <= text.length; number++) {
    const newline = text.indexOf('\n', start);
    const end = newline < 0 ? text.length : newline;
    const line = text.slice(start, end);
    yield { text: line.endsWith('\r') ? line.slice(0, -1) : line, number };
    start = end + 1;
  }
}

/** Joins the lines that quoted-printable broke with a `=` at the end, and decodes. */
function* quotedPrintableLines(text: string): Generator<LogLine> {
  let pieces: string[] = [];
  let first = 1;
  for (const line of rawLines(text)) {
    if (pieces.length === 0) first = line.number;
    if (line.text.endsWith('=')) {
      pieces.push(line.text.slice(0, -1));
      continue;
    }
    pieces.push(line.text);
    yield { text: decodeQuotedPrintable(pieces.join('')), number: first };
    pieces = [];
  }
  if (pieces.length > 0) yield { text: decodeQuotedPrintable(pieces.join('')), number: first };
}

/** The lines of a text as they were printed. */
export function* logLines(text: string): Generator<LogLine> {
  const lines = isQuotedPrintable(text) ? quotedPrintableLines(text) : rawLines(text);
  for (const line of lines) {
    const coloured = line.text.includes(ESCAPE) ? line.text.replaceAll(COLOURS, '') : line.text;
    const plain = withoutMarkup(coloured);
    // A lone CR is what an overwritten terminal line leaves.
    if (!/[\r\n]/.test(plain)) yield { text: stripPrefixes(plain), number: line.number };
    else for (const part of plain.split(/[\r\n]+/)) yield { text: stripPrefixes(part), number: line.number };
  }
}
