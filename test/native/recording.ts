/**
 * A case and its native result as one line of text. Registers and memory are written where they differ
 * from what the seed fills in (the case) and from the case (the result).
 */
import {
  CODE_OFFSET,
  CODE_PAGE,
  type Fault,
  fill,
  fillFx,
  initialMemory,
  type NativeCase,
  type NativeResult,
} from './native-case.ts';

const hexBytes = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');
const fromHex = (text: string) => Uint8Array.from(Buffer.from(text, 'hex'));

/** `offset:bytes` of each run in which `now` differs from `before`. */
function runs(before: Uint8Array, now: Uint8Array): string {
  const list: string[] = [];
  for (let i = 0; i < now.length; i++) {
    if (before[i] === now[i]) continue;
    let end = i + 1;
    while (end < now.length && before[end] !== now[end]) end++;
    list.push(`${i.toString(16)}:${hexBytes(now.subarray(i, end))}`);
    i = end;
  }
  return list.join(',');
}

function applyRuns(target: Uint8Array, text: string): void {
  for (const run of text === '' ? [] : text.split(',')) {
    const [offset = '', bytes = ''] = run.split(':');
    target.set(fromHex(bytes), Number.parseInt(offset, 16));
  }
}

function registerRuns(before: BigUint64Array, now: BigUint64Array): string {
  const list: string[] = [];
  now.forEach((value, i) => {
    if (value !== before[i]) list.push(`${i}:${value.toString(16)}`);
  });
  return list.join(',');
}

function applyRegisters(target: BigUint64Array, text: string): void {
  for (const item of text === '' ? [] : text.split(',')) {
    const [index, value] = item.split(':');
    target[Number(index)] = BigInt(`0x${value}`);
  }
}

/** `key=value` of what is not empty. */
function fields(values: Readonly<Record<string, string>>): string {
  const present = Object.entries(values).filter(([, value]) => value !== '');
  return present.map(([key, value]) => `${key}=${value}`).join(' ');
}

function parseFields(text: string): Record<string, string> {
  const pairs = text.split(' ').filter((item) => item !== '');
  return Object.fromEntries(pairs.map((item) => item.split('=', 2)));
}

const number = (value: number, usual: number) => (value === usual ? '' : value.toString(16));
const parse = (text: string | undefined, usual: number) =>
  text === undefined ? usual : Number.parseInt(text, 16);

function changedMemory(memory: Uint8Array, changes: ReadonlyMap<number, number>): string {
  const now = memory.slice();
  for (const [offset, value] of changes) now[offset] = value;
  return runs(memory, now);
}

/** What an FXSAVE image keeps of pointers and reserved bytes differs between processors. */
function comparable(fx: Uint8Array, before: Uint8Array): Uint8Array {
  const image = fx.slice();
  const keep = (offset: number, length: number) =>
    image.set(before.subarray(offset, offset + length), offset);
  keep(5, 19);
  keep(28, 4);
  for (let i = 0; i < 8; i++) keep(42 + 16 * i, 6);
  return image;
}

function caseFields(c: NativeCase): string {
  const state = fill(c.seed, c.bits);
  return fields({
    b: c.bits === 32 ? '32' : '',
    es: c.smallEs ? '1' : '',
    at: number(c.codeOffset, CODE_OFFSET),
    repeats: c.repeats ? '1' : '',
    pushes: c.pushesFlags ? '1' : '',
    fx: c.fx ? runs(fillFx(c.seed), c.fx) || '-' : '',
    r: registerRuns(state.gprs, c.gprs),
    f: number(c.rflags, state.rflags),
    d: runs(state.data, c.data),
    s: runs(state.stack, c.stack),
    uf: number(c.undefined.flags, 0),
    ur: number(c.undefined.registers, 0),
    us: number(c.undefined.statusWord, 0),
    up: number(c.undefined.lastPlaces, 0),
  });
}

/** Flags of the result that the harness itself sets: TF and RF. */
const HARNESS_FLAGS = 0x1_0100;

function resultFields(c: NativeCase, result: NativeResult): string {
  const { fault } = result;
  const describe = ({ vector, error, address }: Fault) =>
    [vector, error, address].map((value) => value.toString(16)).join(':');
  return fields({
    fault: fault ? describe(fault) : '',
    rip: result.rip === BigInt(CODE_PAGE + c.codeOffset) ? '' : result.rip.toString(16),
    f: number(result.rflags & ~HARNESS_FLAGS, c.rflags),
    r: registerRuns(c.gprs, result.gprs),
    m: changedMemory(initialMemory(c), result.changes),
    fx: c.fx && result.fx ? runs(c.fx, comparable(result.fx, c.fx)) : '',
  });
}

/** The line of a case alone. */
export function caseLine(c: NativeCase): string {
  return `${c.template} ${c.seed.toString(16)} ${hexBytes(c.code)} ${caseFields(c)}`.trimEnd();
}

/** The line of a case and its result. */
export function recordLine(c: NativeCase, result: NativeResult): string {
  return `${caseLine(c)} => ${resultFields(c, result)}`.trimEnd();
}

/** The case and the result of a line. */
export function parseLine(line: string): { readonly case: NativeCase; readonly result: NativeResult } {
  const [before = '', after = ''] = line.split('=>');
  const [template = '', seedText, code = '', ...rest] = before.trim().split(' ');
  const seed = parse(seedText, 0);
  const given = parseFields(rest.join(' '));
  const bits = given['b'] === '32' ? 32 : 64;
  const state = fill(seed, bits);
  applyRegisters(state.gprs, given['r'] ?? '');
  applyRuns(state.data, given['d'] ?? '');
  applyRuns(state.stack, given['s'] ?? '');
  let fx: Uint8Array | undefined;
  if (given['fx'] !== undefined) {
    fx = fillFx(seed);
    if (given['fx'] !== '-') applyRuns(fx, given['fx']);
  }
  const c: NativeCase = {
    template,
    seed,
    bits,
    smallEs: given['es'] !== undefined,
    code: fromHex(code),
    codeOffset: parse(given['at'], CODE_OFFSET),
    repeats: given['repeats'] !== undefined,
    pushesFlags: given['pushes'] !== undefined,
    gprs: state.gprs,
    rflags: parse(given['f'], state.rflags),
    data: state.data,
    stack: state.stack,
    fx,
    undefined: {
      flags: parse(given['uf'], 0),
      registers: parse(given['ur'], 0),
      statusWord: parse(given['us'], 0),
      lastPlaces: parse(given['up'], 0),
    },
  };
  return { case: c, result: parseResult(c, parseFields(after)) };
}

function parseResult(c: NativeCase, got: Readonly<Record<string, string>>): NativeResult {
  const gprs = c.gprs.slice();
  applyRegisters(gprs, got['r'] ?? '');
  const memory = initialMemory(c);
  const now = memory.slice();
  applyRuns(now, got['m'] ?? '');
  const changes = new Map<number, number>();
  now.forEach((value, offset) => {
    if (value !== memory[offset]) changes.set(offset, value);
  });
  const fx = c.fx?.slice();
  if (fx) applyRuns(fx, got['fx'] ?? '');
  const [vector, error, address] = got['fault']?.split(':') ?? [];
  return {
    fault:
      vector === undefined
        ? undefined
        : { vector: parse(vector, 0), error: parse(error, 0), address: BigInt(`0x${address}`) },
    rip: got['rip'] === undefined ? BigInt(CODE_PAGE + c.codeOffset) : BigInt(`0x${got['rip']}`),
    rflags: parse(got['f'], c.rflags),
    gprs,
    fx,
    changes,
  };
}
