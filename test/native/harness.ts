/** The other end of harness.c: builds it, hands it cases, reads what the processor did with them. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, statSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import {
  FX,
  initialMemory,
  type NativeCase,
  type NativeResult,
  PAGE,
  STACK_PAGE,
  WINDOW,
} from './native-case.ts';
import type { HostFeature } from './templates/template.ts';

const SOURCE = fileURLToPath(new URL('./harness.c', import.meta.url));
const BUILD = fileURLToPath(new URL('../../build/', import.meta.url));
const PROGRAM = `${BUILD}native-harness`;

const CASE_BYTES = 1088;
const RESULT_BYTES = 584;
const REPEATS = 1;
const HAS_FX = 2;
const COMPATIBILITY = 4;
const SMALL_ES = 8;
/** Vector of the single-step trap: the instruction was executed. */
const STEPPED = 1;

/** Why nothing can be executed natively here, or undefined. */
export function whyNotNative(): string | undefined {
  if (process.platform !== 'linux' || process.arch !== 'x64')
    return `native execution needs x86-64 Linux; this is ${process.platform} on ${process.arch}`;
  if (spawnSync('gcc', ['--version']).status !== 0)
    return 'native execution needs gcc, which is not installed';
  return undefined;
}

/** Flags of /proc/cpuinfo. */
export function hostFeatures(): ReadonlySet<HostFeature> {
  const line = /^flags\s*:(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1] ?? '';
  return new Set(line.trim().split(/\s+/) as HostFeature[]);
}

/** Builds the harness unless it is newer than its source. */
export function buildHarness(): void {
  if (existsSync(PROGRAM) && statSync(PROGRAM).mtimeMs > statSync(SOURCE).mtimeMs) return;
  mkdirSync(BUILD, { recursive: true });
  const args = ['-O2', '-Wall', '-Wextra', '-Werror', '-pie', '-fPIE', '-o', PROGRAM, SOURCE];
  const built = spawnSync('gcc', args, { encoding: 'utf8' });
  if (built.status !== 0) throw new Error(`the harness does not compile:\n${built.stderr}`);
}

function flagsOf(c: NativeCase): number {
  const repeats = c.repeats ? REPEATS : 0;
  const fx = c.fx ? HAS_FX : 0;
  return repeats | fx | (c.bits === 32 ? COMPATIBILITY : 0) | (c.smallEs ? SMALL_ES : 0);
}

function encode(cases: readonly NativeCase[]): Uint8Array {
  const bytes = new Uint8Array(cases.length * CASE_BYTES);
  const view = new DataView(bytes.buffer);
  cases.forEach((c, i) => {
    const at = i * CASE_BYTES;
    bytes.set(c.code, at);
    bytes[at + 16] = c.code.length;
    bytes[at + 17] = flagsOf(c);
    view.setUint16(at + 18, c.codeOffset, true);
    view.setBigUint64(at + 24, BigInt(c.rflags), true);
    c.gprs.forEach((value, register) => {
      view.setBigUint64(at + 32 + 8 * register, value, true);
    });
    bytes.set(c.data, at + 160);
    bytes.set(c.stack, at + 160 + WINDOW);
    if (c.fx) bytes.set(c.fx, at + 160 + 2 * WINDOW);
  });
  return bytes;
}

/** TF in the image of RFLAGS at the top of the stack is the harness's, not the case's. */
function clearPushedTf(c: NativeCase, rsp: bigint, changes: Map<number, number>): void {
  const offset = Number(rsp) + 1 - STACK_PAGE + PAGE;
  const before = initialMemory(c)[offset] as number;
  const value = (changes.get(offset) ?? before) & ~1;
  if (value === before) changes.delete(offset);
  else changes.set(offset, value);
}

function decode(bytes: Uint8Array, cases: readonly NativeCase[]): NativeResult[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  return cases.map((c) => {
    const vector = view.getUint32(at, true);
    const error = view.getUint32(at + 4, true);
    const address = view.getBigUint64(at + 8, true);
    const rip = view.getBigUint64(at + 16, true);
    const rflags = Number(view.getBigUint64(at + 24, true));
    const register = (index: number) => view.getBigUint64(at + 32 + 8 * index, true);
    const gprs = BigUint64Array.from({ length: 16 }, (_, index) => register(index));
    const fx = c.fx ? bytes.slice(at + 160, at + 160 + FX) : undefined;
    const changed = view.getUint32(at + 164 + FX, true);
    at += RESULT_BYTES;
    const changes = new Map<number, number>();
    for (let i = 0; i < changed; i++, at += 4) changes.set(view.getUint16(at, true), bytes[at + 2] as number);
    if (c.pushesFlags && vector === STEPPED) clearPushedTf(c, gprs[4] as bigint, changes);
    const fault = vector === STEPPED ? undefined : { vector, error, address };
    return { fault, rip, rflags, gprs, fx, changes };
  });
}

/** Executes cases natively, in order. */
export function executeNatively(cases: readonly NativeCase[]): NativeResult[] {
  const run = spawnSync(PROGRAM, { input: encode(cases), maxBuffer: 2 ** 31 });
  if (run.error) throw run.error;
  if (run.status !== 0) throw new Error(`the harness failed (${run.signal ?? run.status}): ${run.stderr}`);
  const { buffer, byteOffset, byteLength } = run.stdout;
  return decode(new Uint8Array(buffer, byteOffset, byteLength), cases);
}
