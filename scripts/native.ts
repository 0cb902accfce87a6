/**
 * `npm run test:native`: single instructions executed by the processor of this machine and by vmxon,
 * and compared; `--record` writes the native results that `npm test` compares with instead.
 */
import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Command, InvalidArgumentError, Option } from 'commander';
import { Prng } from '../src/bits/prng.ts';
import { print, table } from '../src/cli/output.ts';
import { FLOAT_TEMPLATES, INTEGER_TEMPLATES, makeCase, TEMPLATES } from '../test/native/cases.ts';
import { compare, type Difference, initialValue } from '../test/native/compare.ts';
import { disassemble } from '../test/native/disassemble.ts';
import { createExecutor } from '../test/native/executor.ts';
import { buildHarness, executeNatively, hostFeatures, whyNotNative } from '../test/native/harness.ts';
import type { NativeCase } from '../test/native/native-case.ts';
import { recordLine } from '../test/native/recording.ts';
import type { Template } from '../test/native/templates/template.ts';

const FIXTURES = fileURLToPath(new URL('../test/native/fixtures/', import.meta.url));
const BATCH = 5000;
const RECORDED_PER_TEMPLATE_64 = 24;
const RECORDED_PER_TEMPLATE_32 = 12;
const RECORDED_PER_FLOAT_TEMPLATE = 11;
const RECORDING_SEED = 3;

interface Options {
  readonly cases: number;
  readonly seed?: number;
  readonly only?: string;
  readonly case?: number;
  readonly show: number;
  readonly record?: true;
}

function wholeNumber(least: number, most: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!/^\d+$/.test(text) || value < least || value > most)
      throw new InvalidArgumentError(`It must be a whole number from ${least} to ${most}.`);
    return value;
  };
}

function regularExpression(text: string): string {
  try {
    new RegExp(text);
  } catch (error) {
    throw new InvalidArgumentError((error as Error).message);
  }
  return text;
}

function seedOfCase(text: string): number {
  if (!/^[0-9a-f]{1,8}$/i.test(text)) throw new InvalidArgumentError('It must be a hexadecimal seed.');
  return Number.parseInt(text, 16);
}

/** Templates whose instructions this processor has. */
function usable(templates: readonly Template[], only: string | undefined): Template[] {
  const features = hostFeatures();
  const pattern = only === undefined ? undefined : new RegExp(only);
  return templates.filter(({ name, needs }) => {
    return (needs === undefined || features.has(needs)) && (pattern === undefined || pattern.test(name));
  });
}

function show(c: NativeCase, differences: readonly Difference[]): void {
  print(
    `${c.template}  ${disassemble(c.code, c.codeOffset, c.bits)}  [${Buffer.from(c.code).toString('hex')}]`,
  );
  const rows = differences.map(({ what, native, vmxon }) => [what, initialValue(c, what), native, vmxon]);
  print(table(['', 'before', 'native', 'vmxon'], rows));
  print(`replay: npm run test:native -- --only '^${c.template}$' --case ${c.seed.toString(16)}\n`);
}

function campaign(options: Options): void {
  const { seed = Math.floor(Math.random() * 2 ** 31), cases: count } = options;
  const templates = usable(TEMPLATES, options.only);
  if (templates.length === 0) {
    console.error(`no template that this processor can execute matches ${options.only}`);
    process.exitCode = 2;
    return;
  }
  const total = options.case === undefined ? count : templates.length;
  if (options.case === undefined) {
    const only = options.only === undefined ? '' : ` --only '${options.only}'`;
    print(`${total} cases of ${templates.length} templates, seed ${seed}.`);
    print(`To replay: npm run test:native -- --cases ${count} --seed ${seed}${only}\n`);
  }
  const execute = createExecutor();
  const seeds = new Prng(seed);
  const differing = new Map<string, number>();
  let shown = 0;
  for (let done = 0; done < total; done += BATCH) {
    const cases = Array.from({ length: Math.min(BATCH, total - done) }, (_, i) => {
      const template = templates[(done + i) % templates.length] as Template;
      return makeCase(template, options.case ?? seeds.next());
    });
    executeNatively(cases).forEach((native, i) => {
      const c = cases[i] as NativeCase;
      const differences = compare(c, native, execute(c));
      if (differences.length === 0) return;
      const before = differing.get(c.template) ?? 0;
      differing.set(c.template, before + 1);
      // The first differences, but not all of one template.
      if (shown < options.show && before < 2) {
        shown++;
        show(c, differences);
      }
    });
  }
  const sum = [...differing.values()].reduce((a, b) => a + b, 0);
  if (sum === 0) {
    print(`No differences in ${total} cases.`);
    return;
  }
  const rows = [...differing].sort(([, a], [, b]) => b - a).map(([name, n]) => [name, `${n}`]);
  print(table(['template', 'cases that differ'], rows));
  print(`\n${sum} of ${total} cases differ.`);
  process.exitCode = 1;
}

function record(file: string, templates: readonly Template[], perTemplate: (t: Template) => number): void {
  const seeds = new Prng(RECORDING_SEED);
  const cases = templates.flatMap((template) =>
    Array.from({ length: perTemplate(template) }, () => makeCase(template, seeds.next())),
  );
  const lines = executeNatively(cases).map((result, i) => recordLine(cases[i] as NativeCase, result));
  writeFileSync(`${FIXTURES}${file}`, `${lines.join('\n')}\n`);
  print(`${lines.length} cases of ${templates.length} templates in ${file}`);
}

function recordAll(): void {
  mkdirSync(FIXTURES, { recursive: true });
  for (const name of readdirSync(FIXTURES)) rmSync(`${FIXTURES}${name}`);
  record('integer.txt', usable(INTEGER_TEMPLATES, undefined), ({ bits }) =>
    bits === 32 ? RECORDED_PER_TEMPLATE_32 : RECORDED_PER_TEMPLATE_64,
  );
  record('float.txt', usable(FLOAT_TEMPLATES, undefined), () => RECORDED_PER_FLOAT_TEMPLATE);
}

function main(options: Options): void {
  const why = whyNotNative();
  if (why !== undefined) {
    print(`Nothing compared: ${why}.`);
    return;
  }
  buildHarness();
  if (options.record) recordAll();
  else campaign(options);
}

new Command('npm run test:native --')
  .description('Executes single instructions on the processor of this machine and in vmxon, and compares.')
  .addOption(
    new Option('-c, --cases <number>', 'cases').default(50_000).argParser(wholeNumber(1, 1_000_000_000)),
  )
  .addOption(
    new Option('-s, --seed <number>', 'seed of all cases; an arbitrary one if left out').argParser(
      wholeNumber(0, 2 ** 32 - 1),
    ),
  )
  .addOption(
    new Option('-o, --only <pattern>', 'only templates whose name matches this regular expression').argParser(
      regularExpression,
    ),
  )
  .addOption(new Option('--case <seed>', 'one case of each template, of this seed').argParser(seedOfCase))
  .addOption(
    new Option('--show <number>', 'most differing cases to print')
      .default(10)
      .argParser(wholeNumber(0, 1_000_000)),
  )
  .option('--record', 'execute natively and write the recorded results')
  .action(main)
  .parse();
