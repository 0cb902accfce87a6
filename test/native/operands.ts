/** Names of registers and flags, operands, and the encodings that a template may ask for. */

export const RAX = 0;
export const RCX = 1;
export const RDX = 2;
export const RBX = 3;
export const RSP = 4;
export const RBP = 5;
export const RSI = 6;
export const RDI = 7;

export const CF = 1;
export const PF = 4;
export const AF = 0x10;
export const ZF = 0x40;
export const SF = 0x80;
export const DF = 0x400;
export const OF = 0x800;

export type Size = 8 | 16 | 32 | 64;
export const SIZES: readonly Size[] = [8, 16, 32, 64];
export const WIDE_SIZES: readonly Size[] = [16, 32, 64];

export interface RegisterOperand {
  readonly register: number;
}

export interface MemoryOperand {
  readonly address: bigint;
  /** ModRM without its reg field, SIB and displacement. */
  readonly mod: number;
  readonly rm: number;
  readonly sib: number | undefined;
  readonly base: number;
  readonly index: number;
  readonly displacement: readonly number[];
  readonly ripRelative: boolean;
  /** Prefix 67H: 32 bits in 64-bit code, 16 in code of 32 bits. */
  readonly shortAddress: boolean;
  readonly gs: boolean;
  /** The segment in ES is the small one, and a prefix names it. */
  readonly es: boolean;
}

export type Operand = RegisterOperand | MemoryOperand;

export function isMemory(operand: Operand): operand is MemoryOperand {
  return 'address' in operand;
}

export interface MemoryOptions {
  /** Alignment of the address; 1 if left out. */
  readonly align?: number;
  /** Never a fault. */
  readonly valid?: boolean;
  /** The address itself. */
  readonly at?: bigint;
}

export interface LegacyForm {
  /** Escape bytes and opcode. */
  readonly opcode: readonly number[];
  /** 16 asks for prefix 66H, 64 for REX.W. */
  readonly size?: Size;
  /** ModRM.reg as a register. */
  readonly reg?: number;
  /** ModRM.reg as part of the opcode. */
  readonly digit?: number;
  readonly rm?: Operand;
  /** A register in the low bits of the last opcode byte. */
  readonly plus?: number;
  readonly immediate?: readonly number[];
  /** 66H, F2H or F3H as part of the opcode. */
  readonly mandatory?: number;
  readonly lock?: boolean;
  /** Redundant prefixes: `any`, only segment overrides, or none. */
  readonly redundant?: 'any' | 'segment' | 'none';
  /** Byte registers 4–7 may be AH … BH: REX is not added unless something needs it. */
  readonly prefixes?: readonly number[];
}

export interface VexForm {
  readonly map: 1 | 2 | 3;
  readonly pp: 0 | 1 | 2 | 3;
  readonly w: 0 | 1;
  readonly vvvv?: number;
  readonly opcode: number;
  readonly reg?: number;
  readonly digit?: number;
  readonly rm: Operand;
  readonly immediate?: readonly number[];
}

/** ModRM and SIB: no index register. */
export const NO_INDEX = 4;

/** Little-endian bytes of a value. */
export function littleEndian(value: bigint | number, bytes: number): number[] {
  const whole = BigInt.asUintN(64, BigInt(value));
  return Array.from({ length: bytes }, (_, i) => Number((whole >> BigInt(8 * i)) & 0xffn));
}
