/** Options of `vmxon run` as they are written on the command line, and the values they stand for. */

import type { EntryMode } from '../machine/boot/entry-state.ts';
import { MAX_CPUS } from '../machine/machine.ts';
import { SMALLEST_MEMORY } from '../machine/memory-map.ts';
import { DEFAULT_QUANTUM, type Interleaving } from '../machine/scheduler.ts';
import { alternatives, Problem } from './problem.ts';
import { profileNamed } from './profile-argument.ts';

/** Options as commander gives them. */
export interface RunOptionTexts {
  readonly append?: string;
  readonly module?: readonly string[];
  readonly cpu: string;
  readonly cpus: string;
  readonly memory: string;
  readonly flat?: string;
  readonly mode?: string;
  readonly maxInstructions?: string;
  readonly timeout?: string;
  readonly seed: string;
  readonly quantum?: string;
  readonly interleave?: string;
  readonly serial: string;
  readonly debugConsole: string;
  readonly trace?: string;
  readonly traceInstructions?: true;
  readonly staleTranslations?: true;
  readonly report?: true;
  readonly json?: true;
}

interface ModuleArgument {
  readonly path: string;
  readonly text: string;
}

export interface RunOptions {
  readonly append: string | undefined;
  readonly modules: readonly ModuleArgument[];
  readonly profile: string;
  readonly memory: number;
  readonly cpus: number;
  readonly interleaving: Interleaving;
  /** Of a flat binary. */
  readonly flat: { readonly address: number; readonly mode: EntryMode } | undefined;
  /** Infinity if there is no limit, as for {@link timeoutSeconds}. */
  readonly maxInstructions: number;
  readonly timeoutSeconds: number;
  readonly seed: number;
  readonly serial: string;
  readonly debugConsole: string;
  readonly trace: string | undefined;
  readonly traceInstructions: boolean;
  readonly detectStaleTranslations: boolean;
  readonly report: 'none' | 'text' | 'json';
}

const MODES: readonly EntryMode[] = [16, 32, 64];
const BYTES: Readonly<Record<string, number>> = { '': 1, k: 2 ** 10, m: 2 ** 20, g: 2 ** 30 };
const LONGEST_QUANTUM = 1e9;
const COUNTS: Readonly<Record<string, number>> = { '': 1, k: 1e3, m: 1e6, g: 1e9 };

/** @throws Problem naming the option that cannot be used */
export function parseRunOptions(texts: RunOptionTexts): RunOptions {
  if (texts.traceInstructions && texts.trace === undefined) {
    throw new Problem('--trace-instructions needs --trace FILE');
  }
  if (texts.trace !== undefined && [texts.serial, texts.debugConsole].includes(texts.trace)) {
    throw new Problem(`--trace ${texts.trace}: output of the guest already goes there`);
  }
  return {
    append: texts.append,
    modules: (texts.module ?? []).map(parseModule),
    profile: profileNamed(texts.cpu).name,
    memory: parseMemory(texts.memory),
    cpus: wholeNumber('--cpus', texts.cpus, 1, MAX_CPUS),
    interleaving: parseInterleaving(texts),
    flat: parseFlat(texts),
    maxInstructions:
      texts.maxInstructions === undefined
        ? Infinity
        : scaled('--max-instructions', texts.maxInstructions, COUNTS),
    timeoutSeconds: texts.timeout === undefined ? Infinity : parseSeconds(texts.timeout),
    seed: wholeNumber('--seed', texts.seed, 0, 0xffff_ffff),
    serial: texts.serial,
    debugConsole: texts.debugConsole,
    trace: texts.trace,
    traceInstructions: texts.traceInstructions === true,
    detectStaleTranslations: texts.staleTranslations === true,
    report: texts.json ? 'json' : texts.report ? 'text' : 'none',
  };
}

/** `FILE` or `FILE=TEXT`. Without a text a module is told by its file name. */
function parseModule(argument: string): ModuleArgument {
  const at = argument.indexOf('=');
  if (at === 0 || argument === '') throw new Problem(`--module ${argument}: a file name comes first`);
  return at < 0
    ? { path: argument, text: argument }
    : { path: argument.slice(0, at), text: argument.slice(at + 1) };
}

function parseFlat({ flat, mode, module = [] }: RunOptionTexts): RunOptions['flat'] {
  if (flat === undefined) {
    if (mode !== undefined) throw new Problem('--mode is for a flat binary: it needs --flat ADDRESS');
    return undefined;
  }
  if (module.length > 0) throw new Problem('--module does not go with --flat: a flat binary gets no modules');
  const bits = MODES.find((m) => `${m}` === (mode ?? '16'));
  if (bits === undefined) throw new Problem(`--mode ${mode}: use ${alternatives(MODES.map(String))}`);
  return { address: wholeNumber('--flat', flat, 0, Number.MAX_SAFE_INTEGER), mode: bits };
}

function parseInterleaving({ quantum, interleave }: RunOptionTexts): Interleaving {
  return {
    quantum: quantum === undefined ? DEFAULT_QUANTUM : wholeNumber('--quantum', quantum, 1, LONGEST_QUANTUM),
    ...(interleave !== undefined && { seed: wholeNumber('--interleave', interleave, 0, 0xffff_ffff) }),
  };
}

function parseMemory(text: string): number {
  const bytes = scaled('--memory', text.replace(/(?<=[kmg])i?b$/i, ''), BYTES);
  if (bytes < SMALLEST_MEMORY || bytes % 4096 !== 0) {
    throw new Problem(`--memory ${text}: use at least 2M, in whole pages of 4K`);
  }
  return bytes;
}

function parseSeconds(text: string): number {
  const seconds = /^\d+(\.\d+)?$/.test(text) ? Number(text) : Number.NaN;
  if (!(seconds > 0)) throw new Problem(`--timeout ${text}: use a number of seconds above 0`);
  return seconds;
}

/** A positive number with an optional suffix of `units`. */
function scaled(option: string, text: string, units: Readonly<Record<string, number>>): number {
  const parts = /^(\d+)([a-z]?)$/i.exec(text);
  const unit = parts === null ? undefined : units[(parts[2] as string).toLowerCase()];
  const value = unit === undefined || parts === null ? Number.NaN : Number(parts[1]) * unit;
  if (!Number.isSafeInteger(value) || value < 1) {
    throw new Problem(`${option} ${text}: use a positive number, as it is or with K, M or G`);
  }
  return value;
}

/** A decimal number, or a hexadecimal one with 0x. */
function wholeNumber(option: string, text: string, least: number, most: number): number {
  const value = /^(0x[0-9a-f]+|\d+)$/i.test(text) ? Number(text) : Number.NaN;
  if (!(value >= least && value <= most)) {
    throw new Problem(`${option} ${text}: use a whole number from ${least} to ${most}`);
  }
  return value;
}
