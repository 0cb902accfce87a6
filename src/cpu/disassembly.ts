/**
 * Instructions as text in the manual's syntax, from the decoded instruction and its row of the opcode
 * map: `MOV DWORD PTR [RBX+RCX*4-10H], EAX`. Numbers are hexadecimal.
 */
import { type Instruction, Segment } from './instruction.ts';
import { Register } from './registers.ts';

const LOW_BYTES = ['AL', 'CL', 'DL', 'BL', 'SPL', 'BPL', 'SIL', 'DIL'];
const HIGH_BYTES = ['AH', 'CH', 'DH', 'BH'];
const WORDS = ['AX', 'CX', 'DX', 'BX', 'SP', 'BP', 'SI', 'DI'];
const SEGMENTS = ['ES', 'CS', 'SS', 'DS', 'FS', 'GS'];
const XMM = 8 * Register.XMM0;
const RIP = 8 * Register.RIP;
const POINTERS: Readonly<Record<number, string>> = {
  8: 'BYTE',
  16: 'WORD',
  32: 'DWORD',
  48: 'FWORD',
  64: 'QWORD',
  80: 'TBYTE',
  128: 'XMMWORD',
};
const TYPE_BITS: Readonly<Record<string, number>> = {
  b: 8,
  bs: 8,
  w: 16,
  d: 32,
  ss: 32,
  q: 64,
  sd: 64,
  t: 80,
  dq: 128,
  x: 128,
  ps: 128,
  pd: 128,
};

/** The instruction `i`, whose first byte is at offset `address` of the code segment. */
export function disassemble(i: Instruction, address: bigint): string {
  const operands = i.row.operands === '' ? [] : i.row.operands.split(' ');
  const texts = operands.map((operand, n) => operandText(i, operand, [i.d, i.s, i.t][n] ?? 0, address));
  const prefix = i.lock ? 'LOCK ' : repeatText(i);
  return `${prefix}${mnemonicOf(i)}${texts.length === 0 ? '' : ` ${texts.join(', ')}`}`;
}

/** A row for several sizes names the instruction of each: `CBW/CWDE/CDQE`; that of JCXZ is the address size. */
function mnemonicOf({ row, operandBits, addressBits }: Instruction): string {
  const names = row.mnemonic.split('/');
  const size = row.mnemonic.startsWith('JCXZ') ? addressBits : operandBits;
  return names[Math.min(size >> 5, names.length - 1)] as string;
}

function repeatText(i: Instruction): string {
  if (i.repeat === 0) return '';
  if (i.repeat === 0xf2) return 'REPNE ';
  return i.row.repeat === 'repe' ? 'REPE ' : 'REP ';
}

/** `at`: where the decoder found the operand in the processor's state. */
function operandText(i: Instruction, operand: string, at: number, address: bigint): string {
  const [, kind, type] = /^([A-Z])([a-z]*)2?[+=!]?$/.exec(operand) ?? [];
  if (kind === undefined) return fixedText(i, operand);
  const bits = typeBits(i, type ?? '');
  switch (kind) {
    case 'E':
    case 'M':
    case 'R':
    case 'O':
      return i.hasMemory ? memoryText(i, bits) : registerText(at, bits);
    case 'W':
    case 'U':
      return i.hasMemory ? memoryText(i, bits) : `XMM${(at - XMM) / 16}`;
    case 'Q':
    case 'N':
      return i.hasMemory ? memoryText(i, bits) : `MM${i.rm & 7}`;
    case 'V':
    case 'H':
      return `XMM${(at - XMM) / 16}`;
    case 'P':
      return `MM${i.reg & 7}`;
    case 'S':
      return SEGMENTS[i.reg] ?? `segment ${i.reg}`;
    case 'C':
      return `CR${i.reg}`;
    case 'D':
      return `DR${i.reg}`;
    case 'I':
      return operand.includes('2') ? hexText(BigInt(i.immediate2)) : immediateText(i, type ?? '');
    case 'J':
      return hexText(BigInt.asUintN(i.operandBits, address + BigInt(i.length) + BigInt(i.immediate)));
    case 'A':
      return `${hexText(BigInt(i.immediate2))}:${hexText(BigInt(i.immediate >>> 0))}`;
    case 'X':
      return `${segmentPrefix(i, Segment.DS)}[${addressRegister(6, i.addressBits)}]`;
    case 'Y':
      return `ES:[${addressRegister(7, i.addressBits)}]`;
    default:
      // G, Z, B.
      return registerText(at, bits);
  }
}

function typeBits(i: Instruction, type: string): number {
  if (type === 'v') return i.operandBits;
  if (type === 'y') return i.operandBits === 64 ? 64 : 32;
  if (type === 'z') return i.operandBits === 16 ? 16 : 32;
  // Two bounds.
  if (type === 'a') return 2 * i.operandBits;
  // A far pointer: a selector after an offset of the operand size.
  if (type === 'p') return i.operandBits + 16;
  return TYPE_BITS[type] ?? 0;
}

/** `rAX` and the like have the operand size, `eAX` at most 32 bits; others are what they say. */
function fixedText(i: Instruction, operand: string): string {
  if (operand === 'ST0') return 'ST(0)';
  if (operand === 'STi') return `ST(${i.rm & 7})`;
  if (!/^[re][A-Z]{2}$/.test(operand)) return operand;
  const number = WORDS.indexOf(operand.slice(1));
  if (number < 0) return operand;
  return registerText(8 * number, operand[0] === 'e' ? Math.min(i.operandBits, 32) : i.operandBits);
}

function registerText(at: number, bits: number): string {
  const number = at >> 3;
  if (bits === 8) return at & 1 ? (HIGH_BYTES[number] as string) : (LOW_BYTES[number] ?? `R${number}B`);
  if (number >= 8) return `R${number}${bits === 32 ? 'D' : bits === 16 ? 'W' : ''}`;
  const word = WORDS[number] as string;
  return bits === 16 ? word : `${bits === 32 ? 'E' : 'R'}${word}`;
}

function addressRegister(number: number, addressBits: number): string {
  return registerText(8 * number, addressBits);
}

function memoryText(i: Instruction, bits: number): string {
  const pointer = POINTERS[bits];
  const size = pointer === undefined ? '' : `${pointer} PTR `;
  return `${size}${segmentPrefix(i, defaultSegment(i))}[${addressText(i)}]`;
}

function defaultSegment(i: Instruction): Segment {
  const base = i.base >> 3;
  return i.hasBase && (base === 4 || base === 5) ? Segment.SS : Segment.DS;
}

function segmentPrefix(i: Instruction, usual: Segment): string {
  return i.segment === usual ? '' : `${SEGMENTS[i.segment]}:`;
}

function addressText(i: Instruction): string {
  const parts: string[] = [];
  if (i.base === RIP) parts.push('RIP');
  else if (i.hasBase) parts.push(registerText(i.base, i.addressBits));
  if (i.hasIndex) {
    const index = registerText(i.index, i.addressBits);
    parts.push(i.scale === 0 && i.hasBase ? index : `${index}*${1 << i.scale}`);
  }
  const displacement = (BigInt(i.displacementHigh) << 32n) | BigInt(i.displacement >>> 0);
  if (parts.length === 0) return hexText(BigInt.asUintN(i.addressBits, displacement));
  if (displacement === 0n) return parts.join('+');
  const sign = displacement < 0n ? '-' : '+';
  return `${parts.join('+')}${sign}${hexText(displacement < 0n ? -displacement : displacement)}`;
}

/** An immediate as the operation sees it, at the width of the operation. */
function immediateText(i: Instruction, type: string): string {
  const value = (BigInt(i.immediateHigh) << 32n) | BigInt(i.immediate >>> 0);
  const width = type === 'b' ? 8 : type === 'w' ? 16 : i.operandBits;
  return hexText(BigInt.asUintN(width, value));
}

/** Hexadecimal as assemblers take it: it starts with a digit and ends in H. */
function hexText(value: bigint): string {
  const digits = value.toString(16).toUpperCase();
  return `${/^[A-F]/.test(digits) ? '0' : ''}${digits}H`;
}
