/** `npm run test:properties`: a longer campaign of the properties, with the seed that replays it. */
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Command, InvalidArgumentError, Option } from 'commander';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const VITEST = fileURLToPath(new URL('../node_modules/vitest/vitest.mjs', import.meta.url));
const LONGEST_TIMEOUT = 2 ** 31 - 1;
const LARGEST_SEED = 2 ** 31 - 1;

function wholeNumber(least: number, most: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!/^-?\d+$/.test(text) || value < least || value > most) {
      throw new InvalidArgumentError(`It must be a whole number from ${least} to ${most}.`);
    }
    return value;
  };
}

interface Options {
  readonly runs: number;
  readonly seed?: number;
  readonly first?: number;
  readonly only?: string;
}

/** How many properties were run, according to the test runner's report. */
function propertiesRun(report: string): number {
  const counts = JSON.parse(readFileSync(report, 'utf8')) as Record<string, number>;
  return (counts['numPassedTests'] ?? 0) + (counts['numFailedTests'] ?? 0);
}

function campaign({ runs, seed = Math.floor(Math.random() * LARGEST_SEED), first = 0, only }: Options): void {
  const replay = `npm run test:properties -- --runs ${runs} --seed ${seed}${first === 0 ? '' : ` --first ${first}`}${only === undefined ? '' : ` --only '${only}'`}`;
  console.log(`${runs} runs of each property, seed ${seed}. To replay: ${replay}`);
  const filter = only === undefined ? [] : ['--testNamePattern', only];
  // Each run takes milliseconds; a property that takes this long hangs.
  const timeout = Math.min(60_000 + 100 * runs, LONGEST_TIMEOUT);
  const args = [VITEST, 'run', 'test/properties', '--testTimeout', `${timeout}`, ...filter];
  // So that a campaign's progress is printed as it is made.
  args.push('--disableConsoleIntercept');
  const folder = mkdtempSync(join(tmpdir(), 'vmxon-properties-'));
  const report = join(folder, 'report.json');
  process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
  const env = {
    ...process.env,
    VMXON_TEST_REPORT: report,
    VMXON_RUNS: `${runs}`,
    VMXON_SEED: `${seed}`,
    VMXON_FIRST: `${first}`,
  };
  const child = spawn(process.execPath, args, { cwd: ROOT, env, stdio: 'inherit' });
  child.on('error', (error) => {
    console.error(`the properties could not be run: ${error.message}`);
    process.exitCode = 2;
  });
  child.on('exit', (code, signal) => {
    if (code !== 0)
      console.error(`Not all properties hold${signal ? ` (${signal})` : ''}. To replay: ${replay}`);
    process.exitCode = code ?? 1;
    if (code === 0 && propertiesRun(report) === 0) {
      console.error(`no property has a name that matches ${only}`);
      process.exitCode = 2;
    }
  });
}

new Command('npm run test:properties --')
  .description('Runs the property tests many times, from a seed that is printed and can be given again.')
  .addOption(
    new Option('-r, --runs <number>', 'runs of each property')
      .default(1000)
      .argParser(wholeNumber(1, 1_000_000_000)),
  )
  .addOption(
    new Option('-s, --seed <number>', 'seed of all of them; an arbitrary one if left out').argParser(
      wholeNumber(-(2 ** 31), LARGEST_SEED),
    ),
  )
  .addOption(
    new Option(
      '-f, --first <number>',
      'number of the first trial of hostile input, to run one again',
    ).argParser(wholeNumber(0, 1_000_000_000)),
  )
  .option('-o, --only <pattern>', 'only properties whose name matches this regular expression')
  .action(campaign)
  .parse();
