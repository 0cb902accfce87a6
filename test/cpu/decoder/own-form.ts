/** What vmxon's decoder makes of an instruction, in the terms of the comparison. */
import type { Instruction } from '../../../src/cpu/instruction.ts';
import { IMMEDIATE_OPERAND, MEMORY_OPERAND } from '../../../src/cpu/operand-forms.ts';
import { Register } from '../../../src/cpu/registers.ts';

/** An instruction as both decoders can describe it. */
export interface InstructionForm {
  readonly mnemonic: string;
  readonly length: number;
  /** Operands as text: register, immediate, branch target, address. */
  readonly operands: readonly string[];
  readonly lock: boolean;
  /** REP or REPNE in force. */
  readonly repeat: string;
}

const GENERAL = ['AX', 'CX', 'DX', 'BX', 'SP', 'BP', 'SI', 'DI'];
const BYTES = ['AL', 'CL', 'DL', 'BL'];
const HIGH_BYTES = ['AH', 'CH', 'DH', 'BH'];
const SEGMENTS = ['ES', 'CS', 'SS', 'DS', 'FS', 'GS'];

/** Name of the general register at a byte offset of the state. */
function generalName(at: number, bits: number): string {
  const number = at >> 3;
  if (bits === 8) {
    if ((at & 7) === 1) return HIGH_BYTES[number] as string;
    if (number < 4) return BYTES[number] as string;
    return number < 8 ? `${GENERAL[number]}L` : `R${number}L`;
  }
  if (number >= 8) return `R${number}${bits === 64 ? '' : bits === 32 ? 'D' : 'W'}`;
  const prefix = bits === 64 ? 'R' : bits === 32 ? 'E' : '';
  return `${prefix}${GENERAL[number]}`;
}

const hex = (value: bigint, bits: number) => BigInt.asUintN(bits, value).toString(16);
const pair = (low: number, high: number) => (BigInt(high) << 32n) | BigInt(low >>> 0);

/** Bits of a register operand of a type in the manual's notation. */
function bitsOf(type: string, operandBits: number): number {
  switch (type[0]) {
    case 'b':
      return 8;
    case 'w':
      return 16;
    case 'd':
      return 32;
    case 'q':
      return 64;
    case 'y':
      return operandBits === 64 ? 64 : 32;
    case 'z':
      return operandBits === 16 ? 16 : 32;
    default:
      return operandBits;
  }
}

/** In 64-bit code only FS and GS are told apart from the others. */
export const segmentText = (segment: string, bits: number) =>
  bits === 64 && segment !== 'FS' && segment !== 'GS' ? '' : `${segment}:`;

function address(i: Instruction, bits: number, bytes: number): string {
  const registers: string[] = [];
  const displacement = pair(i.displacement, i.displacementHigh);
  const relative = i.base === 8 * Register.RIP;
  if (i.hasBase) registers.push(generalName(i.base, i.addressBits));
  if (i.hasIndex) registers.push(`${generalName(i.index, i.addressBits)}*${1 << i.scale}`);
  const where = relative ? displacement + BigInt(i.length) : displacement;
  const segment = segmentText(SEGMENTS[i.segment] as string, bits);
  const size = bytes === 0 ? '' : `${bytes} `;
  return `${size}${segment}[${[relative ? 'IP' : '', ...registers, hex(where, i.addressBits)].filter(Boolean).join('+')}]`;
}

function operandText(i: Instruction, notation: string, position: number, bits: number): string {
  const at = [i.d, i.s, i.t][position] as number;
  const match = /^([A-Z])([a-z]*)(2?)([+=!]?)$/.exec(notation);
  if (notation === '1') return '#1';
  if (SEGMENTS.includes(notation)) return notation;
  if (notation === 'ST0') return 'ST0';
  if (notation === 'STi') return `ST${i.rm & 7}`;
  const fixed = /^[ABCD][LH]$/.test(notation) ? 8 : /^[A-D]X$/.test(notation) ? 16 : 0;
  if (fixed !== 0) return generalName(at, fixed);
  if (/^r[A-D]X$/.test(notation)) return generalName(at, i.operandBits);
  if (/^e[A-D]X$/.test(notation)) return generalName(at, Math.min(i.operandBits, 32));
  if (match === null) return `?${notation}`;
  const [, kind = '', type = '', second, use] = match;
  const size = bitsOf(type, i.operandBits);
  switch (kind) {
    case 'I':
      if (second === '2') return `#${hex(BigInt(i.immediate2), 8)}`;
      return `#${hex(pair(i.immediate, i.immediateHigh), type === 'b' || type === 'w' ? size : i.operandBits)}`;
    case 'J':
      return `->${hex(pair(i.immediate, i.immediateHigh) + BigInt(i.length), i.operandBits)}`;
    case 'A':
      return `->${hex(BigInt(i.immediate2), 16)}:${hex(BigInt(i.immediate), i.operandBits)}`;
    case 'X':
      return `${segmentText(SEGMENTS[i.segment] as string, bits)}[SI ${i.addressBits}]`;
    case 'Y':
      return `ES:[DI ${i.addressBits}]`;
    case 'S':
      return SEGMENTS[i.reg] ?? '?';
    case 'C':
      return `CR${i.reg}`;
    case 'D':
      return `DR${i.reg}`;
    case 'V':
    case 'H':
    case 'U':
    case 'W':
      if (at !== MEMORY_OPERAND) return `XMM${(at - 8 * Register.XMM0) / 16}`;
      break;
    case 'P':
    case 'Q':
    case 'N':
      if (at !== MEMORY_OPERAND) return `MM${(at - 8 * Register['FPR0.significand']) / 16}`;
      break;
  }
  if ((kind === 'E' || kind === 'M' || kind === 'O' || kind === 'W' || kind === 'Q') && i.hasMemory) {
    const accessed = use === '!' || type === '' ? 0 : i.memoryBytes;
    return address(i, bits, accessed);
  }
  if (at === IMMEDIATE_OPERAND) return `#${hex(pair(i.immediate, i.immediateHigh), i.operandBits)}`;
  return generalName(at, size);
}

/** By operand size, or address size where the count register makes the difference. */
function mnemonicOf(i: Instruction): string {
  const names = i.row.mnemonic.split('/');
  if (names.length === 1) return i.row.mnemonic;
  const bits = i.row.mnemonic.startsWith('JCXZ') ? i.addressBits : i.operandBits;
  return names[bits === 16 ? 0 : bits === 32 ? 1 : 2] ?? (names.at(-1) as string);
}

/** `i` in code of `bits` bits. */
export function ownForm(i: Instruction, bits: number): InstructionForm {
  const notations = i.row.operands === '' ? [] : i.row.operands.split(' ');
  return {
    mnemonic: mnemonicOf(i),
    length: i.length,
    operands: notations.map((notation, n) => operandText(i, notation, n, bits)),
    lock: i.lock,
    repeat: i.repeat === 0 ? '' : i.repeat === 0xf3 ? 'REP' : 'REPNE',
  };
}
