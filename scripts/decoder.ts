/** `npm run test:decoder`: byte strings decoded by vmxon and by iced-x86 in each size of code, and compared. */
import { Command, InvalidArgumentError } from 'commander';
import { print, table } from '../src/cli/output.ts';
import { ByteStrings } from '../test/cpu/decoder/byte-strings.ts';
import { Comparison, newTally, type Tally } from '../test/cpu/decoder/comparison.ts';
import { FEATURES } from '../test/cpu/decoder/features.ts';

interface Options {
  readonly count: number;
  readonly seed: number;
  readonly bits?: number;
  readonly show: number;
}

const PROGRESS = 250_000;

function wholeNumber(text: string): number {
  const value = Number(text);
  if (!/^\d+$/.test(text) || value > 2 ** 32 - 1)
    throw new InvalidArgumentError('It must be a whole number.');
  return value;
}

const most = (counts: ReadonlyMap<string, number>) => [...counts].sort((a, b) => b[1] - a[1]);

function report(bits: number, tally: Tally, show: number): void {
  const sum = (counts: ReadonlyMap<string, number>) => [...counts.values()].reduce((a, b) => a + b, 0);
  print(
    `${bits}-bit code: ${tally.strings} strings, ${tally.valid} instructions equal, ${tally.invalid} undefined in both, ` +
      `${sum(tally.named)} of ${tally.named.size} instructions known by name, ` +
      `${sum(tally.notInTheMap)} of ${tally.notInTheMap.size} not known, ${tally.different} differences`,
  );
  for (const [id, count] of most(tally.intended)) print(`  intended: ${id}: ${count}`);
  const shown = tally.differences.slice(0, show);
  if (shown.length > 0) {
    print(
      table(
        ['bytes', 'what', 'vmxon', 'iced-x86'],
        shown.map((d) => [d.bytes, d.what, d.own, d.iced]),
      ),
    );
  }
}

function campaign({ count, seed, bits, show }: Options): void {
  const comparison = new Comparison(FEATURES);
  const missing = new Map<string, number>();
  let differences = 0;
  for (const size of bits === undefined ? [16, 32, 64] : [bits]) {
    const strings = new ByteStrings(seed + size);
    const tally = newTally();
    for (let n = 1; n <= count; n++) {
      comparison.compare(strings.next(size), size, tally);
      if (n % PROGRESS === 0) process.stderr.write(`${size}-bit code: ${n} of ${count}\n`);
    }
    report(size, tally, show);
    differences += tally.different;
    for (const [name, n] of tally.notInTheMap) missing.set(name, (missing.get(name) ?? 0) + n);
  }
  print(
    `Not known: ${most(missing)
      .map(([name]) => name)
      .sort()
      .join(' ')}`,
  );
  process.exitCode = differences === 0 ? 0 : 1;
}

new Command('npm run test:decoder --')
  .description('Compares the decoder with iced-x86.')
  .option('--count <number>', 'byte strings in each size of code', wholeNumber, 1_000_000)
  .option('--seed <number>', 'what the strings come from', wholeNumber, 1)
  .option('--bits <16|32|64>', 'only this size of code', wholeNumber)
  .option('--show <number>', 'differences to print', wholeNumber, 50)
  .action(campaign)
  .parse();
