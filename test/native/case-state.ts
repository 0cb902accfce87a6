/**
 * A case while its template puts it together: the state before the instruction, which the template may
 * change, and what it says about the result.
 */
import { Choice } from './choice.ts';
import {
  CODE_OFFSET,
  DATA_PAGE,
  DATA_WINDOW,
  FX,
  fill,
  fillFx,
  keepLowerHalves,
  type NativeCase,
  PAGE,
  STACK_PAGE,
  STACK_WINDOW,
  WINDOW,
} from './native-case.ts';
import { isMemory, littleEndian, type Operand, RSP, type Size } from './operands.ts';

export class CaseState {
  readonly random: Choice;
  /** Size of code, and of addresses and the stack. */
  readonly bits: 32 | 64;
  readonly gprs: BigUint64Array;
  rflags: number;
  readonly data: Uint8Array;
  readonly stack: Uint8Array;
  fx: Uint8Array | undefined;
  codeOffset = CODE_OFFSET;
  repeats = false;
  pushesFlags = false;
  smallEs = false;
  undefinedFlags = 0;
  undefinedRegisters = 0;
  undefinedStatusWord = 0;
  undefinedLastPlaces = 0;
  /** Whether the instruction emitted has a REX prefix in effect: byte registers 4–7 are then SPL … DIL. */
  hasRex = false;
  protected code: number[] = [];
  protected readonly reserved = new Set<number>();
  private readonly seed: number;
  private readonly template: string;

  constructor(template: string, seed: number, bits: 32 | 64 = 64) {
    this.template = template;
    this.seed = seed;
    this.random = new Choice(seed ^ 0x9e37_79b9);
    this.bits = bits;
    const state = fill(seed, bits);
    this.gprs = state.gprs;
    this.rflags = state.rflags;
    this.data = state.data;
    this.stack = state.stack;
  }

  finish(): NativeCase {
    const { template, seed, bits, smallEs, codeOffset, repeats, pushesFlags, gprs, rflags, data, stack, fx } =
      this;
    if (bits === 32) keepLowerHalves(gprs);
    if (this.code.length === 0 || this.code.length > 16) throw new Error(`${template}: bad length`);
    return {
      template,
      seed,
      bits,
      smallEs,
      code: Uint8Array.from(this.code),
      codeOffset,
      repeats,
      pushesFlags,
      gprs,
      rflags,
      data,
      stack,
      fx,
      undefined: {
        flags: this.undefinedFlags,
        registers: this.undefinedRegisters,
        statusWord: this.undefinedStatusWord,
        lastPlaces: this.undefinedLastPlaces,
      },
    };
  }

  /** The case is about x87, MMX or SSE: its FXSAVE image, filled. */
  withFx(): DataView {
    this.fx ??= fillFx(this.seed);
    return new DataView(this.fx.buffer, 0, FX);
  }

  /** Keeps registers out of address computations that follow. */
  reserve(...registers: number[]): void {
    for (const register of registers) this.reserved.add(register);
  }

  /** Whether a byte register number stands for bits 15:8 of a register, given the instruction emitted. */
  private isHigh(size: Size, register: number): boolean {
    return size === 8 && !this.hasRex && register >= 4 && register < 8;
  }

  /** Value of an operand before the instruction (after it was emitted). */
  valueOf(operand: Operand, size: Size): bigint {
    if (isMemory(operand)) {
      let value = 0n;
      for (let i = 0; i < size / 8; i++) {
        const offset = Number(operand.address) - DATA_PAGE - DATA_WINDOW + i;
        value |= BigInt(this.data[offset] ?? 0) << BigInt(8 * i);
      }
      return value;
    }
    if (this.isHigh(size, operand.register))
      return ((this.gprs[operand.register - 4] as bigint) >> 8n) & 0xffn;
    return BigInt.asUintN(size, this.gprs[operand.register] as bigint);
  }

  /** Sets the value of an operand before the instruction (after it was emitted). */
  setValue(operand: Operand, size: Size, value: bigint): void {
    if (isMemory(operand)) {
      const offset = Number(operand.address) - DATA_PAGE - DATA_WINDOW;
      if (offset < 0) return;
      littleEndian(value, size / 8).forEach((byte, i) => {
        if (offset + i < WINDOW) this.data[offset + i] = byte;
      });
      return;
    }
    const high = this.isHigh(size, operand.register);
    const register = high ? operand.register - 4 : operand.register;
    const shift = high ? 8n : 0n;
    const mask = ((1n << BigInt(size)) - 1n) << shift;
    const old = this.gprs[register] as bigint;
    this.gprs[register] = (old & ~mask) | ((value << shift) & mask);
  }

  /** Moves RSP to where a push or a pop of up to 8 bytes faults, rarely. */
  stackEdges(): void {
    if (this.random.chance(4)) {
      const at = this.random.pick([0, 4, 7, PAGE, PAGE - 1, PAGE - 4, PAGE - 7]);
      this.gprs[RSP] = BigInt(STACK_PAGE + at);
    } else if (this.random.chance(2))
      this.gprs[RSP] = 0x8000_0000_0000_0000n + BigInt(this.random.below(256));
  }

  /** Writes to the stack window at RSP, as far as RSP is in it. */
  setStack(offset: number, bytes: readonly number[]): void {
    const at = Number((this.gprs[RSP] as bigint) - BigInt(STACK_PAGE + STACK_WINDOW)) + offset;
    bytes.forEach((byte, i) => {
      if (at + i >= 0 && at + i < WINDOW) this.stack[at + i] = byte;
    });
  }
}
