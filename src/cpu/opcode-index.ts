/**
 * The opcode map, compiled for the decoder: rows by map and opcode byte, with the conditions of each
 * on prefixes, ModR/M, mode and VEX as numbers.
 */
import type { Execute } from './instruction.ts';
import type { OpcodeRow } from './opcode-row.ts';
import type { MemoryUse } from './operand-forms.ts';
import { Register } from './registers.ts';

/** Opcode maps; VEX maps follow VexBase by the number in the prefix. */
export const OpcodeMap = {
  OneByte: 0,
  TwoByte: 1,
  ThreeByte38: 2,
  ThreeByte3A: 3,
  VexBase: 4,
  Vex0F: 5,
  Vex0F38: 6,
  Vex0F3A: 7,
} as const;
export type OpcodeMap = number;

/** Mandatory prefix; Any where the opcode does not care, NoRepeat where it must not be F2 or F3. */
export const Prefix = { Any: -1, None: 0, P66: 1, F3: 2, F2: 3, NoRepeat: 4 } as const;
export type Prefix = (typeof Prefix)[keyof typeof Prefix];

export interface Operand {
  /** Addressing letter of {@link OpcodeRow.operands}, or `fixed`. */
  readonly kind: string;
  /** Type letters: b, w, d, q, v, y, z, dq, … */
  readonly type: string;
  /** Bytes of the operand in memory; 0 if they depend on the operand size or the operation accesses memory itself. */
  readonly bytes: number;
  readonly use: MemoryUse;
  readonly isRegisterOrMemory: boolean;
  readonly isSigned: boolean;
  readonly isSecondImmediate: boolean;
  /** Byte offset of a fixed register in the state, or number of a fixed segment register. */
  readonly register: number;
}

export interface CompiledRow {
  readonly row: OpcodeRow;
  readonly prefix: Prefix;
  readonly operands: readonly Operand[];
  readonly hasModrm: boolean;
  /** ModR/M names a register whatever its mod (MOV to and from control and debug registers). */
  readonly registerOnly: boolean;
  /** The opcode byte's low bits are a register; −1 if not. */
  readonly opcodeRegister: number;
  readonly isByte: boolean;
  readonly usesVvvv: boolean;
  /** `reg` of ModR/M is a segment register, and the first operand. */
  readonly namesSegment: boolean;
  readonly writesSegment: boolean;
  readonly namesControlRegister: boolean;
  readonly namesDebugRegister: boolean;
  /** The operand size is 32 or 64, never 16. */
  readonly atLeast32: boolean;
  /** Conditions; −1 for none. */
  readonly digit: number;
  /** 3: register form only; 0: memory only; −1: both. */
  readonly mod: number;
  readonly rm: number;
  readonly rexB: number;
  readonly vexL: number;
  readonly vexW: number;
  readonly vex: boolean;
}

/** Rows of one opcode byte, those with more conditions first. */
export class Candidates {
  readonly hasModrm: boolean;
  private readonly list: readonly CompiledRow[];

  constructor(list: readonly CompiledRow[]) {
    this.list = [...list].sort((a, b) => conditions(b) - conditions(a));
    this.hasModrm = list.some((row) => row.hasModrm);
  }

  /** The first row whose conditions hold. `vexL` is −1 without a VEX prefix. */
  find(
    prefix: Prefix,
    modrm: number,
    is64: boolean,
    vexL: number,
    w: boolean,
    rexB: number,
  ): CompiledRow | undefined {
    for (const row of this.list) {
      if (row.prefix === Prefix.NoRepeat) {
        if (prefix === Prefix.F3 || prefix === Prefix.F2) continue;
      } else if (row.prefix !== Prefix.Any && row.prefix !== prefix) continue;
      if (row.row.mode !== undefined && (row.row.mode === 'only64') !== is64) continue;
      if (row.digit >= 0 && row.digit !== ((modrm >> 3) & 7)) continue;
      if (row.mod >= 0 && (row.mod === 3) !== modrm >> 6 > 2) continue;
      if (row.rm >= 0 && row.rm !== (modrm & 7)) continue;
      if (row.rexB >= 0 && row.rexB !== rexB) continue;
      if (row.vexL >= 0 && row.vexL !== vexL) continue;
      if (row.vexW >= 0 && row.vexW !== (w ? 1 : 0)) continue;
      return row;
    }
    return undefined;
  }
}

/** Number of conditions; a mandatory prefix goes before all others. */
function conditions(row: CompiledRow): number {
  const others = [row.digit, row.mod, row.rm, row.rexB, row.vexL, row.vexW].filter((c) => c >= 0).length;
  return (row.prefix >= 0 ? 10 : 0) + others;
}

export class OpcodeIndex {
  readonly undefinedRow: OpcodeRow;
  /** What an encoding does that is not defined: #UD. */
  readonly undefinedOpcode: Execute;
  /** What an instruction does that is known but not modelled: #UD, and it is counted. */
  readonly unmodelledInstruction: Execute;
  private readonly byOpcode = new Map<number, Candidates>();

  /** @throws Error if a row is not in the notation of {@link OpcodeRow} */
  constructor(rows: readonly OpcodeRow[], undefinedOpcode: Execute, unmodelledInstruction: Execute) {
    this.undefinedOpcode = undefinedOpcode;
    this.unmodelledInstruction = unmodelledInstruction;
    this.undefinedRow = { opcode: '', mnemonic: '(bad)', operands: '', execute: undefinedOpcode };
    const lists = new Map<number, CompiledRow[]>();
    for (const row of rows) {
      for (const { key, compiled } of compileRow(row)) {
        const list = lists.get(key);
        if (list === undefined) lists.set(key, [compiled]);
        else list.push(compiled);
      }
    }
    for (const [key, list] of lists) this.byOpcode.set(key, new Candidates(list));
  }

  /** Rows of `opcode` in `map`, or undefined if the opcode is not defined. */
  rows(map: OpcodeMap, opcode: number): Candidates | undefined {
    return this.byOpcode.get((map << 8) | opcode);
  }
}

const MAPS: Readonly<Record<string, OpcodeMap>> = {
  '': OpcodeMap.OneByte,
  '0F': OpcodeMap.TwoByte,
  '0F38': OpcodeMap.ThreeByte38,
  '0F3A': OpcodeMap.ThreeByte3A,
};
const VEX_MAPS: Readonly<Record<string, OpcodeMap>> = {
  '0F': OpcodeMap.Vex0F,
  '0F38': OpcodeMap.Vex0F38,
  '0F3A': OpcodeMap.Vex0F3A,
};
const PREFIX_NAMES: Readonly<Record<string, Prefix>> = {
  NP: Prefix.None,
  NFx: Prefix.NoRepeat,
  '66': Prefix.P66,
  F3: Prefix.F3,
  F2: Prefix.F2,
};

function compileRow(row: OpcodeRow): { key: number; compiled: CompiledRow }[] {
  const bad = (what: string) => new Error(`opcode row "${row.opcode}" (${row.mnemonic}): ${what}`);
  const tokens = row.opcode.split(' ');
  let prefix: Prefix = Prefix.Any;
  let map: OpcodeMap = OpcodeMap.OneByte;
  let [vex, vexL, vexW] = [false, -1, -1];
  if (tokens[0]?.startsWith('VEX.')) {
    vex = true;
    for (const part of (tokens.shift() as string).split('.').slice(1)) {
      if (part === 'L0' || part === 'L1') vexL = Number(part[1]);
      else if (part === 'W0' || part === 'W1') vexW = Number(part[1]);
      else if (part in PREFIX_NAMES) prefix = PREFIX_NAMES[part] as Prefix;
      else if (part in VEX_MAPS) map = VEX_MAPS[part] as OpcodeMap;
      else if (part !== 'LIG' && part !== 'WIG') throw bad(`unknown ${part}`);
    }
  } else {
    // `F3 90` has a prefix; `F3` alone would be an opcode.
    if (tokens.length > 1 && (tokens[0] as string) in PREFIX_NAMES && /^[0-9A-F]{2}$/.test(tokens[1] ?? '')) {
      prefix = PREFIX_NAMES[tokens.shift() as string] as Prefix;
    }
    let escapeBytes = '';
    if (tokens[0] === '0F' && tokens.length > 1) {
      escapeBytes = tokens.shift() as string;
      const rest = tokens.join(' ');
      if (/^3[8A] [0-9A-F]{2}\b/.test(rest)) escapeBytes += tokens.shift();
    }
    map = MAPS[escapeBytes] as OpcodeMap;
  }
  const opcode = Number.parseInt(tokens.shift() ?? '', 16);
  if (!(opcode >= 0 && opcode <= 255)) throw bad('no opcode byte');
  let [digit, mod, rm, rexB] = [-1, -1, -1, -1];
  let inOpcode = false;
  let modrm = false;
  for (const token of tokens) {
    if (/^\/[0-7]$/.test(token)) digit = Number(token[1]);
    else if (token === '/r') modrm = true;
    else if (token === '+r') inOpcode = true;
    else if (token === 'mod=3') mod = 3;
    else if (token === 'mod!=3') mod = 0;
    else if (/^rm=[0-7]$/.test(token)) rm = Number(token[3]);
    else if (token === 'b=0') rexB = 0;
    else if (token === 'W0' || token === 'W1') vexW = Number(token[1]);
    else throw bad(`unknown ${token}`);
  }
  const operands = row.operands === '' ? [] : row.operands.split(' ').map(parseOperand);
  const fromModrm = operands.some((o) => 'EGMRVWUPQNSCD'.includes(o.kind));
  const sized = operands.find((o) => o.kind !== 'I');
  const compiled: CompiledRow = {
    row,
    prefix,
    operands,
    hasModrm: modrm || fromModrm || digit >= 0 || mod >= 0,
    registerOnly: operands.some((o) => o.kind === 'C' || o.kind === 'D'),
    opcodeRegister: -1,
    isByte: sized !== undefined && sized.type === 'b' && 'EGZXYOfixedR'.includes(sized.kind),
    usesVvvv: operands.some((o) => o.kind === 'B' || o.kind === 'H'),
    namesSegment: operands.some((o) => o.kind === 'S'),
    writesSegment: operands[0]?.kind === 'S',
    namesControlRegister: operands.some((o) => o.kind === 'C'),
    namesDebugRegister: operands.some((o) => o.kind === 'D'),
    atLeast32: operands.some((o) => o.type === 'y') && !operands.some((o) => o.type === 'v'),
    digit,
    mod,
    rm,
    rexB,
    vexL,
    vexW,
    vex,
  };
  const key = (map << 8) | opcode;
  if (!inOpcode) return [{ key, compiled }];
  return Array.from({ length: 8 }, (_, n) => ({
    key: key + n,
    compiled: { ...compiled, opcodeRegister: n },
  }));
}

const SEGMENTS = ['ES', 'CS', 'SS', 'DS', 'FS', 'GS'];
const BYTE_REGISTERS = ['AL', 'CL', 'DL', 'BL', 'AH', 'CH', 'DH', 'BH'];
const WORD_REGISTERS = ['AX', 'CX', 'DX', 'BX', 'SP', 'BP', 'SI', 'DI'];
const BYTES: Readonly<Record<string, number>> = {
  b: 1,
  w: 2,
  d: 4,
  q: 8,
  t: 10,
  dq: 16,
  x: 16,
  ps: 16,
  pd: 16,
  ss: 4,
  sd: 8,
};

/** Types of 16 bytes that have to be aligned in memory. */
const ALIGNED_TYPES: ReadonlySet<string> = new Set(['dq', 'ps', 'pd']);

function parseOperand(text: string): Operand {
  const plain = {
    bytes: 0,
    use: 'none',
    isRegisterOrMemory: false,
    isSigned: false,
    isSecondImmediate: false,
    register: 0,
  } as const;
  const fixed = (type: string, register: number): Operand => ({ ...plain, kind: 'fixed', type, register });
  if (text === '1') return { ...plain, kind: 'one', type: 'b' };
  if (SEGMENTS.includes(text)) return fixed('w', SEGMENTS.indexOf(text));
  const byte = BYTE_REGISTERS.indexOf(text);
  if (byte >= 0) return fixed('b', byte < 4 ? 8 * byte : 8 * (byte - 4) + 1);
  const word = WORD_REGISTERS.indexOf(text);
  if (word >= 0) return fixed('w', 8 * word);
  if (/^[er](AX|CX|DX|BX|SP|BP|SI|DI)$/.test(text)) {
    return fixed('v', 8 * WORD_REGISTERS.indexOf(text.slice(1)));
  }
  if (/^ST[0-7i]$/.test(text)) return fixed('t', 8 * Register['FPR0.significand']);
  const match = /^([A-Z])([a-z]*)(2?)([+=!]?)$/.exec(text);
  if (match === null) throw new Error(`unknown operand ${text}`);
  const [, kind = '', type = '', second, suffix] = match;
  const isRegisterOrMemory = 'EMWQO'.includes(kind);
  let use: MemoryUse = 'none';
  if (isRegisterOrMemory && type !== '' && suffix !== '!') {
    const aligned = ALIGNED_TYPES.has(type);
    if (suffix === '+') use = 'modify';
    else if (suffix === '=') use = aligned ? 'writeAligned' : 'write';
    else use = aligned ? 'readAligned' : 'read';
  }
  const baseType = type === 'bs' ? 'b' : type;
  return {
    kind,
    type: baseType,
    bytes: BYTES[type] ?? 0,
    use,
    isRegisterOrMemory,
    isSigned: type === 'bs',
    isSecondImmediate: second === '2',
    register: 0,
  };
}
