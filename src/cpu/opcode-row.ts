/**
 * One row of the opcode map (SDM vol. 2D Appendix A): how an instruction is encoded, what its operands
 * are, and what executes it. Decoder, disassembly and documentation are derived from these rows.
 */
import type { CpuidFeatures } from './cpuid.ts';
import type { Execute } from './instruction.ts';

/** Operation by operand size: 8 bits for byte opcodes, otherwise as prefixes and mode say. */
export interface SizedExecute {
  readonly 8?: Execute;
  readonly 16?: Execute;
  readonly 32?: Execute;
  readonly 64?: Execute;
}

export interface OpcodeRow {
  /**
   * Opcode in hexadecimal, as the manual prints it: `[NP|NFx|66|F3|F2] [0F [38|3A]] xx [/digit | +r]
   * [mod=3 | mod!=3] [W0 | W1]`, or `VEX.[L0|L1|LIG].[NP|66|F3|F2].[0F|0F38|0F3A].[W0|W1|WIG] xx [/digit]`.
   */
  readonly opcode: string;
  readonly mnemonic: string;
  /**
   * Operands, separated by blanks, each in the manual's notation (vol. 2D §A.2): addressing (E, G, I, J,
   * M, O, R, S, C, D, X, Y, V, W, P, Q, N, U, B, H, A) and type (b, w, d, q, v, y, z, dq, x, …), or a
   * fixed register (`AL`, `rAX` for the operand size, `CL`, `DX`, `1`, `ES`…), or `Z` + type for a
   * register in the opcode byte. `E` operands say how memory is used: nothing reads, `+` reads and
   * writes, `=` writes; `!` leaves the access to the operation. An operand in memory of 16 bytes has to
   * be aligned if its type is `dq`, `ps` or `pd`, not if it is `x`.
   */
  readonly operands: string;
  /** What executes it; undefined where the instruction is known but not modelled (#UD, and reported). */
  readonly execute: Execute | SizedExecute | undefined;
  /** Asked before operands in memory are accessed; anything but Next.Sequential ends the instruction. */
  readonly guard?: Execute;
  /** `no64`: invalid in 64-bit mode; `only64`: invalid elsewhere. */
  readonly mode?: 'no64' | 'only64';
  /** `d64`: operand size 64 by default in 64-bit mode; `f64`: always there; prefix 66 then has no effect. */
  readonly size?: 'd64' | 'f64';
  /** #UD in real-address and virtual-8086 mode; so is everything with a VEX prefix. */
  readonly protectedMode?: true;
  /** LOCK is allowed with a memory destination. */
  readonly lock?: true;
  /** F2/F3 are repeat prefixes of it. */
  readonly repeat?: 'rep' | 'repe';
  /** Ends a decoded block: what follows depends on what it does. */
  readonly ends?: true;
  /** Begins a decoded block: it sees how many instructions were executed (IN, OUT, RDTSC and the like). */
  readonly begins?: true;
  /** #UD unless the processor has this. */
  readonly feature?: (features: CpuidFeatures) => boolean;
}
