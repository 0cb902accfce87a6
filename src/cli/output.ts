/** What every command prints with: text, JSON, tables and wrapped paragraphs on standard output. */
import Table from 'cli-table3';

/** Widest line that paragraphs are wrapped to: that of the terminal, or else 80. */
const COLUMNS = Math.max(60, Math.min(process.stdout.columns ?? 80, 120));

export function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

/** Numbers stay numbers; what may have 64 bits is a hexadecimal string. */
export function printJson(value: unknown): void {
  print(JSON.stringify(value, (_, v: unknown) => (typeof v === 'bigint' ? `0x${v.toString(16)}` : v), 2));
}

/** A word that is longer may be broken after `_`, `.`, `/` and `-`, and before a capital letter. */
const LONG_WORD = 13;

/** Pieces between which a cell may be broken, with the spaces. */
function piecesOf(text: string): readonly string[] {
  return (text.match(/\s+|\S+/g) ?? []).flatMap((word) =>
    word.length > LONG_WORD ? word.split(/(?<=[_./-])|(?<=[a-z])(?=[A-Z])/) : [word],
  );
}

/** Breaks a cell into lines of at most `width` where its pieces allow that. */
function brokenCell(text: string, width: number): string {
  if (text.length <= width) return text;
  const lines: string[] = [];
  let line = '';
  for (const piece of piecesOf(text)) {
    if (line !== '' && (line + piece).trimEnd().length > width) {
      lines.push(line.trimEnd());
      line = piece.trimStart();
    } else line += piece;
  }
  return [...lines, line.trimEnd()].join('\n');
}

const GAP = 2;

/** Widths of the columns such that a row fits: the widest columns give way, down to their longest piece. */
function columnWidths(rows: readonly (readonly string[])[]): number[] {
  const longest = (column: number, pieces: (text: string) => readonly string[]) =>
    rows.reduce(
      (most, row) => pieces(row[column] ?? '').reduce((m, p) => Math.max(m, p.trim().length), most),
      0,
    );
  const columns = [...(rows[0] ?? []).keys()];
  const widths = columns.map((column) => longest(column, (text) => [text]));
  const least = columns.map((column) => longest(column, piecesOf));
  let over = widths.reduce((sum, width) => sum + width + GAP, -GAP) - COLUMNS;
  for (; over > 0; over--) {
    const wide = columns.filter((column) => (widths[column] as number) > (least[column] as number));
    if (wide.length === 0) break;
    const widest = wide.reduce((a, b) => ((widths[a] as number) >= (widths[b] as number) ? a : b));
    (widths[widest] as number)--;
  }
  return widths;
}

/** A table without colours, as wide as the terminal if its words allow; every row has as many cells as `head`. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = columnWidths([head, ...rows]);
  const broken = (row: readonly string[]) => row.map((cell, i) => brokenCell(cell, widths[i] as number));
  const drawn = new Table({
    head: broken(head),
    style: { head: [], border: [], compact: true, 'padding-left': 0, 'padding-right': 0 },
    chars: {
      top: '',
      'top-mid': '',
      'top-left': '',
      'top-right': '',
      bottom: '',
      'bottom-mid': '',
      'bottom-left': '',
      'bottom-right': '',
      left: '',
      'left-mid': '',
      mid: '─',
      'mid-mid': '─'.repeat(GAP),
      right: '',
      'right-mid': '',
      middle: ' '.repeat(GAP),
    },
  });
  drawn.push(...rows.map(broken));
  return drawn
    .toString()
    .split('\n')
    .map((line) => line.trimEnd())
    .join('\n');
}

/** Wraps `text` behind a label of `indent` columns. */
export function paragraph(label: string, text: string, indent = 12): string {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    if (line !== '' && indent + line.length + 1 + word.length > COLUMNS) {
      lines.push(line);
      line = word;
    } else {
      line = line === '' ? word : `${line} ${word}`;
    }
  }
  lines.push(line);
  return lines.map((l, i) => (i === 0 ? label.padEnd(indent) : ' '.repeat(indent)) + l).join('\n');
}

/** `1 check`, `2 checks`. */
export function plural(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`;
}
