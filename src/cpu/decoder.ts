/**
 * Decodes one instruction (SDM vol. 2A chapter 2): prefixes, opcode, ModR/M, SIB, displacement,
 * immediate. What the bytes mean comes from the opcode map; nothing here depends on the state of a
 * processor but the size of its code and what CPUID enumerates.
 */

import { locked } from './bus-lock.ts';
import type { CpuidFeatures } from './cpuid.ts';
import { Instruction, Segment } from './instruction.ts';
import { type CompiledRow, type OpcodeIndex, OpcodeMap, type Operand, Prefix } from './opcode-index.ts';
import { Encoding, namedOpcode } from './opcode-names.ts';
import {
  behind,
  DESTINATION_OPERAND,
  formOf,
  IMMEDIATE_OPERAND,
  MEMORY_OPERAND,
  type MemoryUse,
  onlyInProtectedMode,
} from './operand-forms.ts';
import { Register } from './registers.ts';

/** Longest instruction, in bytes. */
export const MAX_INSTRUCTION_BYTES = 15;

/** Why there is no instruction: more bytes are needed, or it would have more than 15. */
export const DecodeFailure = { NeedsMore: 0, TooLong: 1 } as const;
export type DecodeFailure = (typeof DecodeFailure)[keyof typeof DecodeFailure];

const ZERO = 8 * Register.ZERO;
const RIP = 8 * Register.RIP;
const XMM = 8 * Register.XMM0;
const FPR = 8 * Register['FPR0.significand'];
const NO_SEGMENT = -1;
const CONTROL_REGISTERS: ReadonlySet<number> = new Set([0, 2, 3, 4, 8]);

/** Base and index of the 16-bit addressing forms by r/m (SDM vol. 2A Table 2-1). */
const BASES_16 = [3, 3, 5, 5, 6, 7, 5, 3] as const;
const INDEXES_16 = [6, 7, 6, 7, -1, -1, -1, -1] as const;

export class Decoder {
  private readonly opcodes: OpcodeIndex;
  private readonly features: CpuidFeatures;
  private bytes: Uint8Array = new Uint8Array(0);
  private at = 0;
  private end = 0;
  private short = false;
  private codeBits = 16;
  private rex = 0;
  private hasRex = false;

  constructor(opcodes: OpcodeIndex, features: CpuidFeatures) {
    this.opcodes = opcodes;
    this.features = features;
  }

  /**
   * The instruction at the start of `bytes`, of which `available` (at most 15) can be read, in code of
   * 16, 32 or 64 bits. An encoding that is not defined is an instruction that raises #UD.
   */
  decode(bytes: Uint8Array, available: number, codeBits: number): Instruction | DecodeFailure {
    this.bytes = bytes;
    this.at = 0;
    this.end = available;
    this.short = false;
    this.codeBits = codeBits;
    const i = this.parse();
    if (!this.short) return i;
    return available >= MAX_INSTRUCTION_BYTES ? DecodeFailure.TooLong : DecodeFailure.NeedsMore;
  }

  private next8(): number {
    if (this.at >= this.end) {
      this.short = true;
      return 0;
    }
    return this.bytes[this.at++] as number;
  }

  private next16(): number {
    return this.next8() | (this.next8() << 8);
  }

  private next32(): number {
    return this.next16() | (this.next16() << 16);
  }

  private undefinedOpcode(): Instruction {
    const i = new Instruction(this.opcodes.undefinedRow, this.opcodes.undefinedOpcode);
    i.length = this.at;
    return i;
  }

  /** An opcode that the map does not have: #UD, by name if it has one. */
  private unknownOpcode(
    encoding: Encoding,
    map: number,
    prefix: number,
    opcode: number,
    modrm: number,
    w: boolean,
    l: number,
  ): Instruction {
    const row = namedOpcode(encoding, map, prefix, opcode, modrm, w, l);
    if (row === undefined) return this.undefinedOpcode();
    const { unmodelledInstruction } = this.opcodes;
    const i = new Instruction(row, unmodelledInstruction);
    if (encoding !== Encoding.Legacy && this.codeBits !== 64)
      i.run = onlyInProtectedMode(unmodelledInstruction);
    i.length = this.at;
    return i;
  }

  /** All instructions with an EVEX prefix are known by name only. */
  private evex(): Instruction {
    const first = this.next8();
    const second = this.next8();
    const third = this.next8();
    const opcode = this.next8();
    const modrm = this.next8();
    if ((first & 8) !== 0 || (second & 4) === 0) return this.undefinedOpcode();
    const w = second >= 0x80;
    return this.unknownOpcode(Encoding.Evex, first & 7, second & 3, opcode, modrm, w, (third >> 5) & 3);
  }

  private parse(): Instruction {
    let operandPrefix = false;
    let addressPrefix = false;
    let lock = false;
    let repeat = 0;
    let segment = NO_SEGMENT;
    let hasNoTrack = false;
    this.rex = 0;
    this.hasRex = false;
    let opcode = 0;
    for (;;) {
      opcode = this.next8();
      if (this.short) return this.undefinedOpcode();
      if (this.codeBits === 64 && (opcode & 0xf0) === 0x40) {
        this.rex = opcode;
        this.hasRex = true;
        continue;
      }
      const group = PREFIXES[opcode] as number;
      if (group === NOT_A_PREFIX) break;
      // A REX prefix counts only directly before the opcode.
      this.rex = 0;
      this.hasRex = false;
      if (group === OPERAND_SIZE) operandPrefix = true;
      else if (group === ADDRESS_SIZE) addressPrefix = true;
      else if (group === LOCK) lock = true;
      else if (group === REPEAT) repeat = opcode;
      else if (this.codeBits !== 64 || group >= Segment.FS) segment = group;
      else if (group === Segment.DS) hasNoTrack = true;
    }
    if (opcode === 0x62 && this.isVex()) {
      return lock || repeat !== 0 || operandPrefix || this.hasRex ? this.undefinedOpcode() : this.evex();
    }
    let map: OpcodeMap = OpcodeMap.OneByte;
    let vex = 0;
    let vexByte = 0;
    if ((opcode === 0xc4 || opcode === 0xc5) && this.isVex()) {
      if (lock || repeat !== 0 || operandPrefix || this.hasRex) {
        this.next8();
        return this.undefinedOpcode();
      }
      vex = opcode;
      const first = this.next8();
      const second = vex === 0xc4 ? this.next8() : first;
      vexByte = second;
      if (vex === 0xc4) {
        this.rex = ((~first >> 5) & 7) | ((second >> 4) & 8);
        map = (first & 0x1f) + OpcodeMap.VexBase;
        // REX order is R=4, X=2, B=1, as in the VEX byte inverted.
      } else {
        this.rex = (~first >> 5) & 4;
        vexByte = second & 0x7f;
        map = OpcodeMap.Vex0F;
      }
      if (this.codeBits !== 64) this.rex &= 8;
      opcode = this.next8();
    } else if (opcode === 0x0f) {
      opcode = this.next8();
      map = OpcodeMap.TwoByte;
      if (opcode === 0x38 || opcode === 0x3a) {
        map = opcode === 0x38 ? OpcodeMap.ThreeByte38 : OpcodeMap.ThreeByte3A;
        opcode = this.next8();
      }
    }
    if (this.short) return this.undefinedOpcode();
    const w = (this.rex & 8) !== 0;
    let mandatory: Prefix;
    if (vex !== 0) mandatory = [Prefix.None, Prefix.P66, Prefix.F3, Prefix.F2][vexByte & 3] as Prefix;
    else if (repeat !== 0) mandatory = repeat === 0xf3 ? Prefix.F3 : Prefix.F2;
    else mandatory = operandPrefix ? Prefix.P66 : Prefix.None;
    const candidates = this.opcodes.rows(map, opcode);
    // Peeks at ModR/M: rows can depend on it.
    const modrm = this.at < this.end ? (this.bytes[this.at] as number) : 0;
    const needsModrm = candidates?.hasModrm === true;
    if (needsModrm && this.at >= this.end) {
      this.short = true;
      return this.undefinedOpcode();
    }
    const is64 = this.codeBits === 64;
    const vexL = vex === 0 ? -1 : (vexByte >> 2) & 1;
    const row = candidates?.find(mandatory, modrm, is64, vexL, w, this.rex & 1);
    if (row === undefined) {
      if (needsModrm) this.next8();
      if (lock) return this.undefinedOpcode();
      if (vex === 0) return this.unknownOpcode(Encoding.Legacy, map, mandatory, opcode, modrm, w, vexL);
      const vexMap = Math.min(map - OpcodeMap.VexBase, 7);
      return this.unknownOpcode(Encoding.Vex, vexMap, mandatory, opcode, modrm, w, vexL);
    }
    const i = new Instruction(row.row, this.opcodes.undefinedOpcode);
    i.w = w;
    const vvvv = vex === 0 ? 0 : (~vexByte >> 3) & 15;
    // Outside 64-bit code there are eight registers, and the highest bit counts only where none is named.
    i.vvvv = is64 ? vvvv : vvvv & 7;
    i.vectorLength = (vexByte >> 2) & 1;
    i.repeat = row.row.repeat === undefined ? 0 : repeat;
    i.lock = lock;
    i.noTrack = is64 ? hasNoTrack && segment === NO_SEGMENT : segment === Segment.DS;
    i.operandBits = this.operandBits(row, operandPrefix && !(row.prefix === Prefix.P66), w);
    if (row.atLeast32 && i.operandBits === 16) i.operandBits = 32;
    i.addressBits = this.addressBits(addressPrefix);
    if (row.hasModrm) this.modrm(i, segment, row);
    else i.reg = row.opcodeRegister >= 0 ? row.opcodeRegister | ((this.rex & 1) << 3) : 0;
    if (!row.hasModrm) i.segment = (segment === NO_SEGMENT ? Segment.DS : segment) as Segment;
    this.operands(i, row);
    i.length = this.at;
    if (this.short) return i;
    if (!this.allowed(i, row, lock, vvvv)) return this.undefinedOpcode();
    // XCHG with memory is locked without the prefix too.
    if (i.hasMemory && (lock || row.row.mnemonic === 'XCHG')) i.run = locked(i.run);
    return i;
  }

  /** C4, C5 and 62 are prefixes in 64-bit code, and elsewhere if what follows cannot be ModR/M of LES, LDS and BOUND. */
  private isVex(): boolean {
    if (this.codeBits === 64) return true;
    if (this.at >= this.end) {
      this.short = true;
      return false;
    }
    return ((this.bytes[this.at] as number) & 0xc0) === 0xc0;
  }

  private operandBits(row: CompiledRow, prefix: boolean, w: boolean): number {
    if (this.codeBits === 64) {
      if (row.row.size === 'f64' || w) return 64;
      if (row.row.size === 'd64') return prefix ? 16 : 64;
      return prefix ? 16 : 32;
    }
    return (this.codeBits === 32) === prefix ? 16 : 32;
  }

  private addressBits(prefix: boolean): number {
    if (this.codeBits === 64) return prefix ? 32 : 64;
    return (this.codeBits === 32) === prefix ? 16 : 32;
  }

  private allowed(i: Instruction, row: CompiledRow, lock: boolean, vvvv: number): boolean {
    if (lock && !(row.row.lock === true && i.hasMemory)) return false;
    if (!row.usesVvvv && vvvv !== 0) return false;
    if (row.writesSegment && i.reg === Segment.CS) return false;
    if (row.namesSegment && i.reg > Segment.GS) return false;
    if (row.namesControlRegister && !CONTROL_REGISTERS.has(i.reg)) return false;
    if (row.namesDebugRegister && i.reg > 7) return false;
    return row.row.feature === undefined || row.row.feature(this.features);
  }

  private modrm(i: Instruction, segmentPrefix: number, row: CompiledRow): void {
    const byte = this.next8();
    i.mod = byte >> 6;
    i.reg = ((byte >> 3) & 7) | ((this.rex & 4) << 1);
    if (row.namesSegment) i.reg &= 7;
    i.rm = (byte & 7) | ((this.rex & 1) << 3);
    i.segment = Segment.DS;
    if (i.mod !== 3 && !row.registerOnly) {
      i.hasMemory = true;
      if (i.addressBits === 16) this.address16(i, byte & 7);
      else this.address32(i, byte & 7);
    }
    if (segmentPrefix !== NO_SEGMENT) i.segment = segmentPrefix as Segment;
  }

  private address16(i: Instruction, rm: number): void {
    i.base = 8 * (BASES_16[rm] as number);
    i.hasBase = true;
    const index = INDEXES_16[rm] as number;
    i.hasIndex = index >= 0;
    i.index = index >= 0 ? 8 * index : ZERO;
    if (rm === 2 || rm === 3 || (rm === 6 && i.mod !== 0)) i.segment = Segment.SS;
    if (i.mod === 0 && rm === 6) {
      i.base = ZERO;
      i.hasBase = false;
      i.displacement = this.next16();
    } else if (i.mod === 1) i.displacement = (this.next8() << 24) >> 24;
    else if (i.mod === 2) i.displacement = (this.next16() << 16) >> 16;
    i.displacementHigh = i.displacement >> 31;
  }

  private address32(i: Instruction, rm: number): void {
    i.index = ZERO;
    let base = rm | ((this.rex & 1) << 3);
    if (rm === 4) {
      const sib = this.next8();
      const index = ((sib >> 3) & 7) | ((this.rex & 2) << 2);
      base = (sib & 7) | ((this.rex & 1) << 3);
      i.scale = sib >> 6;
      if (index !== 4) {
        i.index = 8 * index;
        i.hasIndex = true;
      }
    }
    i.hasBase = true;
    i.base = 8 * base;
    if ((base & 7) === 5 && i.mod === 0) {
      i.hasBase = false;
      i.base = rm === 5 && this.codeBits === 64 ? RIP : ZERO;
      i.displacement = this.next32();
    } else {
      if (base === 4 || base === 5) i.segment = Segment.SS;
      if (i.mod === 1) i.displacement = (this.next8() << 24) >> 24;
      else if (i.mod === 2) i.displacement = this.next32();
    }
    i.displacementHigh = i.displacement >> 31;
  }

  private operands(i: Instruction, row: CompiledRow): void {
    let use: MemoryUse = 'none';
    let hasImmediate = false;
    const { operands } = row;
    for (let n = 0; n < operands.length; n++) {
      const operand = operands[n] as Operand;
      const at = this.operandOffset(i, row, operand);
      if (n === 0) i.d = at;
      else if (n === 1) i.s = at;
      else i.t = at;
      if (operand.isRegisterOrMemory && i.hasMemory) {
        i.memoryBytes = operandBytes(operand, i.operandBits);
        use = operand.use;
      }
      if (operand.kind === 'I' || operand.kind === 'one') hasImmediate = true;
    }
    const { execute } = row.row;
    const bits = row.isByte ? 8 : i.operandBits;
    const operate = typeof execute === 'function' ? execute : execute?.[bits as 8 | 16 | 32 | 64];
    if (operate === undefined) {
      i.operate = this.opcodes.unmodelledInstruction;
      i.run = i.operate;
      return;
    }
    i.operate = operate;
    i.run = formOf(operate, use, hasImmediate);
    if (row.row.guard !== undefined) i.run = behind(row.row.guard, i.run);
    if ((row.vex || row.row.protectedMode === true) && this.codeBits !== 64) {
      i.run = onlyInProtectedMode(i.run);
    }
  }

  private operandOffset(i: Instruction, row: CompiledRow, operand: Operand): number {
    switch (operand.kind) {
      case 'E':
      case 'M':
      case 'R':
        return i.hasMemory ? MEMORY_OPERAND : this.registerOffset(i.rm, operand);
      case 'G':
        return this.registerOffset(i.reg, operand);
      case 'Z':
        return this.registerOffset(row.opcodeRegister | ((this.rex & 1) << 3), operand);
      case 'B':
        return 8 * i.vvvv;
      case 'V':
        return XMM + 16 * i.reg;
      case 'H':
        return XMM + 16 * i.vvvv;
      case 'W':
      case 'U':
        return i.hasMemory ? MEMORY_OPERAND : XMM + 16 * i.rm;
      case 'P':
        return FPR + 16 * (i.reg & 7);
      case 'Q':
      case 'N':
        return i.hasMemory ? MEMORY_OPERAND : FPR + 16 * (i.rm & 7);
      case 'X':
        return MEMORY_OPERAND;
      case 'Y':
        return DESTINATION_OPERAND;
      case 'I':
        this.immediate(i, operand);
        return IMMEDIATE_OPERAND;
      case 'one':
        i.immediate = 1;
        return IMMEDIATE_OPERAND;
      case 'J':
        this.immediate(i, operand);
        return 0;
      case 'O':
        this.offset(i);
        return MEMORY_OPERAND;
      case 'A':
        i.immediate = i.operandBits === 16 ? this.next16() : this.next32();
        i.immediate2 = this.next16();
        return 0;
      default:
        return operand.register;
    }
  }

  private registerOffset(number: number, operand: Operand): number {
    // Without REX, byte registers 4 to 7 are AH, CH, DH, BH.
    return operand.type === 'b' && number >= 4 && number < 8 && !this.hasRex
      ? 8 * (number - 4) + 1
      : 8 * number;
  }

  private immediate(i: Instruction, operand: Operand): void {
    if (operand.isSecondImmediate) {
      i.immediate2 = this.next8();
      return;
    }
    switch (operand.type) {
      case 'b':
        i.immediate = this.next8();
        i.immediateHigh = 0;
        // Displacements of branches and `bs` are sign-extended.
        if (operand.kind === 'J' || operand.isSigned) i.immediate = (i.immediate << 24) >> 24;
        break;
      case 'w':
        i.immediate = this.next16();
        break;
      case 'v':
        if (i.operandBits === 64) {
          i.immediate = this.next32();
          i.immediateHigh = this.next32();
          return;
        }
        i.immediate = i.operandBits === 16 ? this.next16() : this.next32();
        break;
      default:
        i.immediate = i.operandBits === 16 ? (this.next16() << 16) >> 16 : this.next32();
    }
    i.immediateHigh = i.immediate >> 31;
  }

  private offset(i: Instruction): void {
    i.hasMemory = true;
    i.base = ZERO;
    i.index = ZERO;
    if (i.addressBits === 16) i.displacement = this.next16();
    else i.displacement = this.next32();
    if (i.addressBits === 64) i.displacementHigh = this.next32();
  }
}

function operandBytes(operand: Operand, operandBits: number): number {
  if (operand.bytes > 0) return operand.bytes;
  if (operand.type === 'v') return operandBits >> 3;
  if (operand.type === 'y') return operandBits === 64 ? 8 : 4;
  if (operand.type === 'z') return operandBits === 16 ? 2 : 4;
  if (operand.type === 'a') return operandBits >> 2;
  return 0;
}

const NOT_A_PREFIX = -1;
const OPERAND_SIZE = 10;
const ADDRESS_SIZE = 11;
const LOCK = 12;
const REPEAT = 13;
/** Legacy prefixes by byte: a segment number, or the kind of prefix. */
const PREFIXES = new Int8Array(256).fill(NOT_A_PREFIX);
PREFIXES[0x26] = Segment.ES;
PREFIXES[0x2e] = Segment.CS;
PREFIXES[0x36] = Segment.SS;
PREFIXES[0x3e] = Segment.DS;
PREFIXES[0x64] = Segment.FS;
PREFIXES[0x65] = Segment.GS;
PREFIXES[0x66] = OPERAND_SIZE;
PREFIXES[0x67] = ADDRESS_SIZE;
PREFIXES[0xf0] = LOCK;
PREFIXES[0xf2] = REPEAT;
PREFIXES[0xf3] = REPEAT;
