/** Test data: tab-separated rows, `#` begins a comment line. */
import { readFileSync } from 'node:fs';

/** The rows of a file that lies beside the test, each padded to `columns` cells. */
export function readTsv(file: string, base: string, columns: number): string[][] {
  return readFileSync(new URL(file, base), 'utf8')
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => {
      const cells = line.split('\t');
      return Array.from({ length: columns }, (_, i) => cells[i] ?? '');
    });
}
