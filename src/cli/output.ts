/** What every command prints with: text, JSON, tables and wrapped paragraphs on standard output. */
import Table from 'cli-table3';

/** Widest line that paragraphs are wrapped to. */
const COLUMNS = Math.max(60, Math.min(process.stdout.columns ?? 100, 120));

export function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

/** Numbers stay numbers; what may have 64 bits is a hexadecimal string. */
export function printJson(value: unknown): void {
  print(JSON.stringify(value, (_, v: unknown) => (typeof v === 'bigint' ? `0x${v.toString(16)}` : v), 2));
}

/** A table without colours; every row has as many cells as `head`. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const drawn = new Table({
    head: [...head],
    style: { head: [], border: [], compact: true },
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
      'mid-mid': '─',
      right: '',
      'right-mid': '',
      middle: ' ',
    },
  });
  drawn.push(...rows.map((row) => [...row]));
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
