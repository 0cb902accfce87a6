/** `vmxon run IMAGE`: boots a Multiboot image or a flat binary and lets it execute until it ends. */
import type { Command } from 'commander';
import { type BootPlan, isProblem } from '../machine/boot/boot-plan.ts';
import { bootMachine } from '../machine/boot/firmware.ts';
import { planFlat } from '../machine/boot/flat.ts';
import { planMultiboot } from '../machine/boot/multiboot.ts';
import type { LogicalProcessor } from '../machine/logical-processor.ts';
import { Machine } from '../machine/machine.ts';
import { runMachine } from '../machine/run-machine.ts';
import { Field } from '../vmcs/fields.ts';
import { ExitReasonBit } from '../vmcs/formats.ts';
import type { VmxObserver } from '../vmx/vmx-observer.ts';
import { Problem } from './problem.ts';
import { profileNamed } from './profile-argument.ts';
import { OutputFile, readBinary } from './run-files.ts';
import { parseRunOptions, type RunOptions, type RunOptionTexts } from './run-options.ts';
import {
  type CommandEnd,
  EXIT_STATUS_TEXT,
  exitStatus,
  type RunFacts,
  reportJson,
  reportText,
} from './run-report.ts';
import { fileSink, type Sink, standardOutput } from './run-sinks.ts';
import { StatusLine } from './run-status.ts';
import { traceInstructions, traceVmx } from './run-trace.ts';

/** How long a slice is between two looks at signals, output and the time. */
const SLICE_MILLISECONDS = 20;
const FIRST_SLICE = 50_000;

export function addRunCommand(program: Command): void {
  program
    .command('run')
    .description('boot an image and run it: Multiboot 1 (ELF or with its own addresses), or a flat binary')
    .argument('<image>', 'file with the image')
    .option('--append <text>', 'command line of the kernel, after the name of the image')
    .option('--module <file[=text]>', 'load a module with its text; may be repeated', collect)
    .option('--cpu <profile>', 'processor (see "vmxon cpu")', 'full')
    .option('--cpus <n>', 'number of processors', '1')
    .option('--quantum <n>', 'instructions of a turn, of several processors (default: 1000)')
    .option('--interleave <seed>', 'draw turns and their lengths from this seed')
    .option('--memory <size>', 'RAM, such as 64M or 2G', '64M')
    .option('--flat <address>', 'the image is a flat binary for this address')
    .option('--mode <bits>', 'mode in which a flat binary is entered: 16, 32 or 64 (default: 16)')
    .option('--max-instructions <n>', 'stop after so many instructions, such as 500M')
    .option('--timeout <seconds>', 'stop after so many seconds')
    .option('--seed <n>', 'seed of every seeded choice', '0')
    .option('--serial <file>', 'where serial output goes: a file, or stdout', 'stdout')
    .option('--debug-console <file>', 'where output to port E9H goes: a file, or stdout', 'stdout')
    .option('--trace <file>', 'write a line for each VMX instruction, VM entry and VM exit')
    .option('--trace-instructions', 'trace every instruction too')
    .option('--stale-translations', 'look for invalidations that were left out; many times slower')
    .option('--report', 'print a report on standard error at the end')
    .option('--json', 'print that report as JSON')
    .addHelpText('after', `\n${EXIT_STATUS_TEXT}`)
    .action(async (image: string, texts: RunOptionTexts) => {
      process.exitCode = await run(image, parseRunOptions(texts));
    });
}

function collect(value: string, values: readonly string[] = []): readonly string[] {
  return [...values, value];
}

function report(facts: RunFacts, machine: Machine, form: RunOptions['report']): void {
  if (form === 'none') return;
  const text =
    form === 'json' ? JSON.stringify(reportJson(facts, machine), null, 2) : reportText(facts, machine);
  process.stderr.write(`${text}\n`);
}

/** Remembers the first signal that asks for an end. From here on none ends the process at once. */
class Signals {
  first: 'SIGINT' | 'SIGTERM' | undefined;
  readonly raised: Promise<void>;
  #raise = () => {};
  readonly #note = (signal: NodeJS.Signals) => {
    this.first ??= signal as 'SIGINT' | 'SIGTERM';
    this.#raise();
  };

  constructor() {
    this.raised = new Promise((resolve) => {
      this.#raise = resolve;
    });
    process.on('SIGINT', this.#note).on('SIGTERM', this.#note);
  }

  ignore(): void {
    process.off('SIGINT', this.#note).off('SIGTERM', this.#note);
  }
}

async function run(image: string, options: RunOptions): Promise<number> {
  const signals = new Signals();
  try {
    return await runWatched(image, options, signals);
  } finally {
    signals.ignore();
  }
}

async function runWatched(image: string, options: RunOptions, signals: Signals): Promise<number> {
  const plan = planBoot(image, options);
  for (const note of plan.notes) process.stderr.write(`vmxon: ${image}: ${note}\n`);
  const status = new StatusLine(process.stderr);
  const sinks = new Map<string, Sink>();
  const sinkOf = (name: string): Sink => {
    const known = sinks.get(name);
    if (known !== undefined) return known;
    const sink = name === 'stdout' ? standardOutput(status) : fileSink(name);
    sinks.set(name, sink);
    return sink;
  };
  const machine = makeMachine(image, options, sinkOf(options.serial), sinkOf(options.debugConsole));
  bootMachine(machine, plan);
  const trace = options.trace === undefined ? undefined : new OutputFile(options.trace);
  const counts = { exits: new Map<number, number>(), entryFailures: new Map<number, number>() };
  observe(machine, counts, trace, options.traceInstructions);

  const started = performance.now();
  const flush = async () => {
    for (const sink of sinks.values()) sink.flush();
    if (!process.stdout.writableNeedDrain) return;
    const drained = new Promise<void>((done) => process.stdout.once('drain', done));
    await Promise.race([drained, signals.raised]);
  };
  const end = await runUntilEnd(machine, options, signals, status, flush);
  status.clear();
  for (const sink of sinks.values()) sink.complete();
  trace?.complete();
  report(
    {
      end,
      image,
      profile: options.profile,
      memory: options.memory,
      seed: options.seed,
      seconds: (performance.now() - started) / 1000,
      ...counts,
      notes: plan.notes,
    },
    machine,
    options.report,
  );
  return exitStatus(end);
}

/** Reads the image and its modules and works out how they are loaded. @throws Problem */
function planBoot(image: string, { flat, memory, append, modules, profile }: RunOptions): BootPlan {
  const bytes = readBinary(image, memory);
  const plan =
    flat === undefined
      ? planMultiboot(bytes, {
          ramSize: memory,
          commandLine: commandLine(image, append),
          modules: modules.map((m) => ({ bytes: readBinary(m.path, memory), text: m.text })),
        })
      : planFlat(bytes, { ramSize: memory, features: profileNamed(profile).features, ...flat });
  if (isProblem(plan)) throw new Problem(`${image}: ${plan.problem}`);
  return plan;
}

/** The name of the image comes first, as with other loaders. */
function commandLine(image: string, append: string | undefined): string {
  return append === undefined ? image : `${image} ${append}`;
}

/** @throws Problem if the memory cannot be had */
function makeMachine(image: string, options: RunOptions, serial: Sink, debugConsole: Sink): Machine {
  try {
    return new Machine({
      level: 'complete',
      profile: options.profile,
      cpus: options.cpus,
      memory: options.memory,
      seed: options.seed,
      interleaving: options.interleaving,
      detectStaleTranslations: options.detectStaleTranslations,
      devices: {
        commandLine: commandLine(image, options.append),
        serial: serial.put,
        debugConsole: debugConsole.put,
      },
    });
  } catch (error) {
    if (error instanceof RangeError) throw new Problem(`--memory: ${error.message}`);
    throw error;
  }
}

function observe(
  machine: Machine,
  counts: { readonly exits: Map<number, number>; readonly entryFailures: Map<number, number> },
  trace: OutputFile | undefined,
  instructions: boolean,
): void {
  const encoder = new TextEncoder();
  const write = (line: string) => trace?.write(encoder.encode(line));
  for (const cpu of machine.processors) {
    observeProcessor(cpu, counts, trace === undefined ? undefined : write, instructions);
  }
}

function observeProcessor(
  cpu: LogicalProcessor,
  counts: { readonly exits: Map<number, number>; readonly entryFailures: Map<number, number> },
  write: ((line: string) => void) | undefined,
  instructions: boolean,
): void {
  const tracer: VmxObserver | undefined = write === undefined ? undefined : traceVmx(cpu, write);
  if (instructions && write !== undefined) traceInstructions(cpu, write);
  cpu.unit.observe({
    ...tracer,
    exit: (copy) => {
      const reason = copy.words[2 * Field.exitReason] as number;
      const failed = (reason & ExitReasonBit.EntryFailure) !== 0;
      const map = failed ? counts.entryFailures : counts.exits;
      map.set(reason & 0xffff, (map.get(reason & 0xffff) ?? 0) + 1);
      tracer?.exit(copy);
    },
  });
}

/** Executes in slices, between which signals, the clock and output have their turn. */
async function runUntilEnd(
  machine: Machine,
  { maxInstructions, timeoutSeconds }: RunOptions,
  signals: Signals,
  status: StatusLine,
  flush: () => Promise<void>,
): Promise<CommandEnd> {
  const started = performance.now();
  let slice = FIRST_SLICE;
  for (;;) {
    const left = maxInstructions - machine.executed;
    if (left <= 0) return { kind: 'instruction-limit' };
    const before = performance.now();
    const end = runMachine(machine, Math.min(slice, left));
    await flush();
    if (end !== undefined) return end;
    await new Promise(setImmediate);
    if (signals.first !== undefined) return { kind: 'interrupted', signal: signals.first };
    const now = performance.now();
    if (now - started >= timeoutSeconds * 1000) return { kind: 'timeout' };
    status.show(machine.executed, (now - started) / 1000);
    slice = Math.round(Math.max(1000, slice * Math.min(2, SLICE_MILLISECONDS / Math.max(now - before, 1))));
  }
}
