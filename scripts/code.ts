/**
 * `npm run test:code`: random bytes executed as code from random states, each trial twice and in pieces of
 * different sizes, and compared. What goes wrong is named with the number of the trial that replays it.
 */
import { Command, InvalidArgumentError } from 'commander';
import { print } from '../src/cli/output.ts';
import { EXIT_REASONS, type ExitReason } from '../src/vmx/exit/exit-reasons.ts';
import { compareRuns, newCoverage } from '../test/properties/random-code.ts';

interface Options {
  readonly instructions: number;
  readonly seed?: number;
  readonly first: number;
  readonly trials?: number;
}

const LARGEST_SEED = 2 ** 31 - 1;
const BETWEEN_REPORTS = 10_000;

function wholeNumber(most: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!/^\d+$/.test(text) || value > most)
      throw new InvalidArgumentError(`It must be a whole number up to ${most}.`);
    return value;
  };
}

const list = (counts: ReadonlyMap<string, number>) =>
  [...counts]
    .sort((a, b) => b[1] - a[1])
    .map(([name, count]) => `${count} × ${name}`)
    .join(', ') || 'none';

function campaign({ instructions, first, trials, ...given }: Options): void {
  const { seed = Math.floor(Math.random() * LARGEST_SEED) } = given;
  print(
    `${instructions} instructions, seed ${seed}. To replay: npm run test:code -- --instructions ${instructions} --seed ${seed}`,
  );
  const coverage = newCoverage();
  let failures = 0;
  let reported = performance.now();
  let number = first;
  for (; coverage.executed < instructions && number - first < (trials ?? Infinity); number++) {
    const wrong = compareRuns(seed, number, coverage);
    if (wrong !== undefined) {
      failures++;
      print(
        `trial ${number}: ${wrong}\n  alone: npm run test:code -- --seed ${seed} --first ${number} --trials 1`,
      );
    }
    if (performance.now() - reported > BETWEEN_REPORTS) {
      reported = performance.now();
      process.stderr.write(`${coverage.executed} of ${instructions} instructions, ${number + 1} trials\n`);
    }
  }
  const exits = new Map(
    [...coverage.exits].map(([reason, count]) => [
      EXIT_REASONS[reason as ExitReason]?.name ?? `${reason}`,
      count,
    ]),
  );
  print(`${coverage.executed} instructions in ${number - first} trials, ${failures} failures.`);
  print(`Modes: ${[...coverage.modes].sort().join(', ')}.`);
  print(`VM exits: ${list(exits)}.`);
  print(`Not modelled: ${coverage.unmodelled.size} instructions.`);
  process.exitCode = failures === 0 ? 0 : 1;
}

new Command('npm run test:code --')
  .description(
    'Executes random bytes as code in every mode and as guest code, and compares two runs of each.',
  )
  .option('--instructions <number>', 'instructions in all', wholeNumber(1e12), 1_000_000)
  .option(
    '--seed <number>',
    'what everything comes from; an arbitrary one if left out',
    wholeNumber(LARGEST_SEED),
  )
  .option('--first <number>', 'number of the first trial', wholeNumber(1e9), 0)
  .option('--trials <number>', 'at most so many trials', wholeNumber(1e9))
  .action(campaign)
  .parse();
