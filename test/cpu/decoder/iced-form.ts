/** What iced-x86 makes of an instruction, in the terms of the comparison. */
import * as iced from 'iced-x86';
import { type InstructionForm, segmentText } from './own-form.ts';

const { OpKind } = iced;

const registerName = (register: iced.Register): string => (iced.Register[register] as string).toUpperCase();
const hex = (value: bigint, bits: number) => BigInt.asUintN(bits, value).toString(16);

const SOURCES = new Map<iced.OpKind, string>([
  [OpKind.MemorySegSI, 'SI 16'],
  [OpKind.MemorySegESI, 'SI 32'],
  [OpKind.MemorySegRSI, 'SI 64'],
]);
const DESTINATIONS = new Map<iced.OpKind, string>([
  [OpKind.MemoryESDI, 'DI 16'],
  [OpKind.MemoryESEDI, 'DI 32'],
  [OpKind.MemoryESRDI, 'DI 64'],
]);

/** Bits of an immediate operand after its extension. */
const IMMEDIATES = new Map<iced.OpKind, number>([
  [OpKind.Immediate8, 8],
  [OpKind.Immediate8_2nd, 8],
  [OpKind.Immediate16, 16],
  [OpKind.Immediate32, 32],
  [OpKind.Immediate64, 64],
  [OpKind.Immediate8to16, 16],
  [OpKind.Immediate8to32, 32],
  [OpKind.Immediate8to64, 64],
  [OpKind.Immediate32to64, 64],
]);

function addressBitsOf(i: iced.Instruction, bits: number): number {
  for (const register of [i.memoryBase, i.memoryIndex]) {
    if (register === iced.Register.None) continue;
    const name = registerName(register);
    if (/^E|^R\d+D$/.test(name)) return 32;
    return /^R/.test(name) ? 64 : 16;
  }
  const { memoryDisplSize } = i;
  if (memoryDisplSize === 2) return 16;
  return bits === 64 && memoryDisplSize === 8 ? 64 : 32;
}

/** Segments only matter where they can have a base. */
const segmentOf = (i: iced.Instruction, bits: number) => segmentText(registerName(i.memorySegment), bits);

function address(i: iced.Instruction, bits: number): string {
  const size = iced.MemorySizeExt.size(i.memorySize);
  const prefix = `${size === 0 ? '' : `${size} `}${segmentOf(i, bits)}`;
  const addressBits = addressBitsOf(i, bits);
  if (i.isIpRelMemoryOperand) return `${prefix}[IP+${hex(i.ipRelMemoryAddress, addressBits)}]`;
  const registers: string[] = [];
  if (i.memoryBase !== iced.Register.None) registers.push(registerName(i.memoryBase));
  if (i.memoryIndex !== iced.Register.None) {
    registers.push(`${registerName(i.memoryIndex)}*${i.memoryIndexScale}`);
  }
  return `${prefix}[${[...registers, hex(i.memoryDisplacement, addressBits)].join('+')}]`;
}

function operandText(i: iced.Instruction, n: number, bits: number): string {
  const kind = i.opKind(n);
  if (kind === OpKind.Register) return registerName(i.opRegister(n));
  if (kind === OpKind.Memory) return address(i, bits);
  const immediateBits = IMMEDIATES.get(kind);
  if (immediateBits !== undefined) return `#${hex(i.immediate(n), immediateBits)}`;
  const source = SOURCES.get(kind);
  if (source !== undefined) return `${segmentOf(i, bits)}[${source}]`;
  const destination = DESTINATIONS.get(kind);
  if (destination !== undefined) return `ES:[${destination}]`;
  switch (kind) {
    case OpKind.NearBranch16:
    case OpKind.NearBranch32:
    case OpKind.NearBranch64:
      return `->${i.nearBranchTarget.toString(16)}`;
    case OpKind.FarBranch16:
      return `->${i.farBranchSelector.toString(16)}:${i.farBranch16.toString(16)}`;
    case OpKind.FarBranch32:
      return `->${i.farBranchSelector.toString(16)}:${(i.farBranch32 >>> 0).toString(16)}`;
    default:
      return `?${OpKind[kind]}`;
  }
}

export class IcedDecoder {
  private readonly instruction = new iced.Instruction();

  /** The instruction at the start of `bytes`, or undefined if there is none. */
  decode(bytes: Uint8Array, bits: number): InstructionForm | undefined {
    const decoder = new iced.Decoder(bits, bytes, iced.DecoderOptions.None);
    const i = this.instruction;
    decoder.decodeOut(i);
    decoder.free();
    if (i.code === iced.Code.INVALID) return undefined;
    const operands = Array.from({ length: i.opCount }, (_, n) => operandText(i, n, bits));
    return {
      mnemonic: (iced.Mnemonic[i.mnemonic] as string).toUpperCase(),
      length: i.length,
      operands,
      lock: i.hasLockPrefix,
      repeat: i.hasRepnePrefix ? 'REPNE' : i.hasRepPrefix ? 'REP' : '',
    };
  }
}
