/** `vmxon check FILE|-`: why the VM entry of a dump fails. */
import { readFileSync } from 'node:fs';
import type { Command } from 'commander';
import { hex } from '../bits/u64.ts';
import { type CheckReport, type CpuDependentFailure, checkImage } from '../dumps/check-image.ts';
import { readDump } from '../dumps/read-dump.ts';
import { DumpError, type Reported, type VmcsImage } from '../dumps/vmcs-image.ts';
import type { CpuProfile } from '../vmx/capabilities/profiles.ts';
import type { Failure } from '../vmx/entry/explain.ts';
import { exitReasonSpec } from '../vmx/exit/exit-reasons.ts';
import { instructionErrorMeaning } from '../vmx/instruction-errors.ts';
import { colours } from './colours.ts';
import { paragraph, plural, print, printJson } from './output.ts';
import { Problem } from './problem.ts';
import { profileNamed } from './profile-argument.ts';

/** Larger input is no dump. */
const MOST_BYTES = 64 * 1024 * 1024;
/** Most names of unknown fields that are worth reading. */
const MOST_NAMES = 20;

interface CheckOptions {
  readonly cpu?: string;
  readonly json?: boolean;
}

export function addCheckCommand(program: Command): void {
  program
    .command('check')
    .description('say why the VM entry of a dump fails (KVM, Xen, QEMU, HAXM or JSON)')
    .argument('<file>', 'file with the dump, or - for standard input')
    .option('--cpu <profile>', 'processor whose capability MSRs count (see "vmxon cpu")')
    .option('--json', 'print JSON')
    .addHelpText('after', '\nExit status: 0 no failing check, 1 some check fails, 2 unusable input.')
    .action(async (file: string, options: CheckOptions) => {
      const profile = options.cpu === undefined ? undefined : profileNamed(options.cpu);
      const report = checkImage(readImage(await readInput(file), file), profile);
      if (options.json) printJson(asJson(report));
      else print(asText(report, profile));
      process.exitCode = report.failures.length > 0 || report.cause.length > 0 ? 1 : 0;
    });
}

async function readInput(file: string): Promise<string> {
  try {
    const bytes = file === '-' ? await readStandardInput() : readFileSync(file);
    if (bytes.length > MOST_BYTES) throw new Problem(`${file}: larger than ${MOST_BYTES >> 20} MiB, no dump`);
    const encoding = bytes[0] === 0xff && bytes[1] === 0xfe ? 'utf-16le' : 'utf-8';
    return new TextDecoder(encoding).decode(bytes);
  } catch (error) {
    if (error instanceof Problem) throw error;
    const { code, message } = error as NodeJS.ErrnoException;
    const reasons: Record<string, string> = {
      ENOENT: 'there is no such file',
      EISDIR: 'it is a directory',
      EACCES: 'no permission to read it',
    };
    throw new Problem(`${file === '' ? '""' : file}: ${reasons[code ?? ''] ?? message}`);
  }
}

async function readStandardInput(): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of process.stdin) {
    chunks.push(chunk as Buffer);
    length += (chunk as Buffer).length;
    if (length > MOST_BYTES) break;
  }
  return Buffer.concat(chunks);
}

function readImage(text: string, file: string): VmcsImage {
  try {
    return readDump(text);
  } catch (error) {
    if (error instanceof DumpError)
      throw new Problem(`${file === '-' ? 'standard input' : file}: ${error.message}`);
    throw error;
  }
}

function failureJson({ id, section, title, rule, fields, appliesBecause, fix, consequence }: Failure) {
  return { id, section, title, rule, fields, appliesBecause, fix, consequence };
}

/** The report as programs read it. */
function asJson(report: CheckReport) {
  return {
    format: report.format,
    variant: report.variant,
    cpu: report.cpu ?? null,
    verdict: report.verdict,
    failures: report.failures.map(failureJson),
    cause: report.cause,
    cpuDependent: report.cpuDependent.map((d) => ({
      ...failureJson(d),
      failsOn: d.failsOn,
      holdsOn: d.holdsOn,
    })),
    unknown: report.unknown,
    reported: report.reported,
    agrees: report.agrees ?? null,
    consistentWith: report.consistentWith,
    notes: report.notes,
  };
}

/** What the machine said, in words; undefined if it said nothing. */
function reportedText({
  exitReason,
  exitQualification,
  instructionError,
  source,
}: Reported): string | undefined {
  const parts: string[] = [];
  if (instructionError !== undefined) {
    parts.push(
      `VM-instruction error ${instructionError}: ${instructionErrorMeaning(instructionError) ?? 'not defined'}`,
    );
  } else if (exitReason !== undefined) {
    const basic = exitReason & 0xffff;
    const name = exitReasonSpec(basic)?.name ?? 'not defined';
    const kind = exitReason >>> 31 === 1 ? 'VM-entry failure' : 'VM exit';
    const qualification =
      exitQualification === undefined ? '' : `, exit qualification ${hex(exitQualification)}`;
    parts.push(`${kind}, exit reason ${basic} (${name})${qualification}`);
  }
  if (source !== undefined) parts.push(`"${source}"`);
  return parts.length === 0 ? undefined : parts.join(' — ');
}

function headline(report: CheckReport): string {
  const causes = report.cpuDependent.filter((d) => report.cause.includes(d.id));
  const first = [...report.failures, ...causes].find(
    (f) => f.consequence.startsWith('VMfail') === (report.verdict === 'vmfail'),
  );
  if (first === undefined) {
    return report.unknown.length > 0
      ? `${colours.green('no failing check')} among those the dump allows`
      : colours.green('no failing check');
  }
  const depends = causes.some((c) => c === first) ? ' (depends on the processor)' : '';
  return `${colours.red(report.verdict)} — ${first.consequence}${depends}`;
}

function agreementText({ agrees, verdict, reported }: CheckReport): string {
  if (agrees === true) return colours.green('agrees with the checks');
  const failed = reported.instructionError !== undefined || (reported.exitReason ?? 0) >>> 31 === 1;
  if (verdict === 'no-failing-check' && failed) {
    return colours.yellow(
      'no check that could be made explains it; see the notes and the checks that could not',
    );
  }
  return agrees === false ? colours.yellow('does not agree with the checks') : '';
}

function block(failure: Failure, mark: string, more: readonly (readonly [string, string])[] = []): string {
  const fields = Object.entries(failure.fields);
  const widest = Math.max(0, ...fields.map(([name]) => name.length));
  return [
    `${mark} ${colours.bold(failure.id)}  §${failure.section} ${failure.title}`,
    paragraph('  rule', failure.rule),
    paragraph(
      '  applies',
      failure.appliesBecause === 'always' ? 'always' : `because ${failure.appliesBecause}`,
    ),
    ...fields.map(
      ([name, value], i) => `${(i === 0 ? '  fields' : '').padEnd(12)}${name.padEnd(widest)}  ${value}`,
    ),
    paragraph('  fix', failure.fix),
    paragraph('  outcome', failure.consequence),
    ...more.map(([label, text]) => paragraph(`  ${label}`, text)),
  ].join('\n');
}

function dependentBlock(failure: CpuDependentFailure, report: CheckReport): string {
  const isCause = report.cause.includes(failure.id);
  return block(failure, isCause ? colours.red('✗') : colours.yellow('?'), [
    ['fails on', failure.failsOn.join(', ')],
    ['holds on', failure.holdsOn.join(', ') || 'no profile'],
  ]);
}

function unknownLines({ unknown }: CheckReport): string[] {
  if (unknown.length === 0) return [];
  const counts = new Map<string, number>();
  for (const { missing } of unknown) for (const m of missing) counts.set(m, (counts.get(m) ?? 0) + 1);
  const names = [...counts].sort((a, b) => b[1] - a[1]).map(([name, count]) => `${name} (${count})`);
  const listed = [
    ...names.slice(0, MOST_NAMES),
    ...(names.length > MOST_NAMES ? [`and ${names.length - MOST_NAMES} more (--json lists them)`] : []),
  ].join(', ');
  return [
    '',
    `${plural(unknown.length, 'check')} could not be made. Not known, and the number of checks that need it:`,
    paragraph('', listed, 2),
  ];
}

/** The report as people read it. */
function asText(report: CheckReport, profile: CpuProfile | undefined): string {
  const lines = [headline(report), ''];
  const variant = report.variant === undefined ? '' : ` ${report.variant}`;
  lines.push(paragraph('  dump', `${report.format}${variant}, ${plural(report.fieldCount, 'field')}`));
  lines.push(
    paragraph('  processor', profile ? `${profile.name}: ${profile.title}` : 'any (choose one with --cpu)'),
  );
  const reported = reportedText(report.reported);
  lines.push(paragraph('  reported', reported ?? 'nothing'));
  const agrees = agreementText(report);
  if (agrees !== '') lines.push(paragraph('', agrees));

  for (const failure of report.failures) lines.push('', block(failure, colours.red('✗')));

  const causes = report.cpuDependent.filter((d) => report.cause.includes(d.id));
  if (causes.length > 0) {
    lines.push('', 'Depends on the processor, and is the cause of what the machine reported:');
    for (const cause of causes) lines.push('', dependentBlock(cause, report));
  }
  const others = report.cpuDependent.filter((d) => !report.cause.includes(d.id));
  const shown = others.filter((d) => d.failsOn.some((name) => report.consistentWith.includes(name)));
  if (shown.length > 0) {
    lines.push('', 'Depends on the processor:');
    for (const failure of shown) lines.push('', dependentBlock(failure, report));
  }
  const rest = others.length - shown.length;
  if (rest > 0) {
    lines.push('', `On processors that the dump cannot be of, ${rest} more would fail (--json lists them).`);
  }
  lines.push(...unknownLines(report));
  if (report.notes.length > 0) {
    lines.push('', ...report.notes.map((note) => paragraph('note:', note, 6)));
  }
  return lines.join('\n');
}
