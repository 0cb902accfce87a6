/**
 * Puts a case together: operands with registers that make their addresses valid (mostly), and the
 * instruction's bytes with prefixes in any order that the manual allows, redundant ones included.
 */
import { Choice } from './choice.ts';
import {
  CODE_OFFSET,
  CODE_PAGE,
  DATA_PAGE,
  DATA_WINDOW,
  FX,
  fill,
  fillFx,
  GS_BASE,
  keepLowerHalves,
  type NativeCase,
  PAGE,
  STACK_PAGE,
  STACK_WINDOW,
  WINDOW,
} from './native-case.ts';
import {
  isMemory,
  type LegacyForm,
  littleEndian,
  type MemoryOperand,
  type MemoryOptions,
  NO_INDEX,
  type Operand,
  type RegisterOperand,
  RSP,
  SIZES,
  type Size,
  type VexForm,
  WIDE_SIZES,
} from './operands.ts';

export class CaseBuilder {
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
  undefinedFlags = 0;
  undefinedRegisters = 0;
  undefinedStatusWord = 0;
  /** Whether the instruction emitted has a REX prefix in effect: byte registers 4–7 are then SPL … DIL. */
  hasRex = false;
  private code: number[] = [];
  private readonly reserved = new Set<number>();
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
    const { template, seed, bits, codeOffset, repeats, pushesFlags, gprs, rflags, data, stack, fx } = this;
    if (bits === 32) keepLowerHalves(gprs);
    if (this.code.length === 0 || this.code.length > 16) throw new Error(`${template}: bad length`);
    return {
      template,
      seed,
      bits,
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

  /** Any general register. */
  register(): number {
    return this.random.below(this.bits === 64 ? 16 : 8);
  }

  size(): Size {
    return this.random.pick(this.bits === 64 ? SIZES : SIZES.slice(0, 3));
  }

  wideSize(): Size {
    return this.random.pick(this.bits === 64 ? WIDE_SIZES : WIDE_SIZES.slice(0, 2));
  }

  /** 32 or 64 bits. */
  longSize(): 32 | 64 {
    return this.bits === 64 ? this.random.pick([32, 64]) : 32;
  }

  /** A register or memory operand. */
  operand(size: number, options?: MemoryOptions): Operand {
    return this.random.chance(50) ? { register: this.register() } : this.memory(size / 8, options);
  }

  /** An address at which `bytes` bytes can be accessed, mostly. */
  address(bytes: number, { align = 1, valid = false }: MemoryOptions = {}): bigint {
    const { random } = this;
    const page = BigInt(DATA_PAGE);
    const kind = valid ? 99 : random.below(100);
    const aligned = (offset: number) => Math.floor(offset / align) * align;
    if (kind < 4 && bytes > 1 && align < bytes) return page + BigInt(PAGE - 1 - random.below(bytes - 1));
    if (kind < 6) return page + BigInt(PAGE + aligned(random.below(WINDOW)));
    if (kind < 8 && this.bits === 64) {
      // Non-canonical: bits 63:47 neither all 0 nor all 1.
      const high = BigInt(1 + random.below(0x1fffe)) << 47n;
      return BigInt.asUintN(64, high | BigInt(random.next() & ~0xff));
    }
    return page + BigInt(DATA_WINDOW + aligned(random.below(WINDOW - bytes + 1)));
  }

  private addressRegister(besides: number): number {
    for (;;) {
      const register = this.register();
      if (!this.reserved.has(register) && register !== besides) return register;
    }
  }

  /** A memory operand of any form, with the registers it needs set. */
  memory(bytes: number, options: MemoryOptions = {}): MemoryOperand {
    const { random, gprs } = this;
    const target = options.at ?? this.address(bytes, options);
    const low = target < 1n << 31n;
    const wide = this.bits === 64;
    const addressSize32 = wide && low && random.chance(15);
    const gs = wide && random.chance(8);
    const offset = BigInt.asUintN(this.bits, gs ? target - BigInt(GS_BASE) : target);
    const set = (register: number, value: bigint) => {
      gprs[register] = BigInt.asUintN(
        64,
        addressSize32 ? BigInt.asUintN(32, value) | (random.quad() << 32n) : BigInt.asUintN(this.bits, value),
      );
      this.reserved.add(register);
    };
    const common = {
      address: target,
      addressSize32,
      gs,
      base: 0,
      index: 0,
      sib: undefined,
      ripRelative: false,
    };
    const form = low ? random.below(8) : 2 + random.below(5);
    const signed8 = () => BigInt(random.below(256) - 128);
    const signed32 = () => BigInt(random.next() | 0);
    // In code of 32 bits this form is an absolute address.
    if (form === 0)
      return { ...common, mod: 0, rm: 5, displacement: littleEndian(offset, 4), ripRelative: wide };
    if (form === 1)
      return {
        ...common,
        mod: 0,
        rm: 4,
        sib: 0x25 | (random.below(4) << 6),
        displacement: littleEndian(offset, 4),
      };
    const displacementKind = random.below(3);
    const displacement = displacementKind === 0 ? 0n : displacementKind === 1 ? signed8() : signed32();
    if (form <= 3) {
      const base = this.addressRegister(-1);
      set(base, offset - displacement);
      const mod = displacementKind === 0 && (base & 7) === 5 ? 1 : displacementKind;
      const withSib = (base & 7) === 4 || random.chance(15);
      return {
        ...common,
        mod,
        rm: withSib ? 4 : base & 7,
        base,
        sib: withSib ? (random.below(4) << 6) | (NO_INDEX << 3) | (base & 7) : undefined,
        displacement: littleEndian(displacement, [0, 1, 4][mod] as number),
      };
    }
    const scale = random.below(4);
    if (form === 7) {
      // Index and displacement, no base.
      const index = this.addressRegister(NO_INDEX);
      const product = BigInt(random.below(0x1000_0000)) << BigInt(scale);
      const rest = offset - product;
      if (rest >= -(1n << 31n) && rest < 1n << 31n) {
        set(index, product >> BigInt(scale));
        const sib = (scale << 6) | ((index & 7) << 3) | 5;
        return { ...common, mod: 0, rm: 4, sib, index, displacement: littleEndian(rest, 4) };
      }
    }
    const base = this.addressRegister(-1);
    const index = this.addressRegister(NO_INDEX);
    if (base === index) {
      const rest = offset - displacement;
      const factor = 1n + (1n << BigInt(scale));
      const value = BigInt(random.below(0x100_0000));
      const difference = rest + displacement - factor * value;
      if (difference >= -(1n << 31n) && difference < 1n << 31n) {
        set(base, value);
        const sib = (scale << 6) | ((index & 7) << 3) | (base & 7);
        return { ...common, mod: 2, rm: 4, sib, base, index, displacement: littleEndian(difference, 4) };
      }
      return this.memory(bytes, { ...options, at: target });
    }
    const indexValue = gprs[index] as bigint;
    this.reserved.add(index);
    set(base, offset - displacement - (indexValue << BigInt(scale)));
    const mod = displacementKind === 0 && (base & 7) === 5 ? 1 : displacementKind;
    const sib = (scale << 6) | ((index & 7) << 3) | (base & 7);
    return {
      ...common,
      mod,
      rm: 4,
      sib,
      base,
      index,
      displacement: littleEndian(displacement, [0, 1, 4][mod] as number),
    };
  }

  private modRm(
    regField: number,
    rm: Operand,
    after: number,
  ): { bytes: number[]; patch: (length: number) => void } {
    if (!isMemory(rm))
      return { bytes: [0xc0 | ((regField & 7) << 3) | (rm.register & 7)], patch: () => undefined };
    const bytes = [(rm.mod << 6) | ((regField & 7) << 3) | rm.rm];
    if (rm.sib !== undefined) bytes.push(rm.sib);
    const at = bytes.length;
    bytes.push(...rm.displacement);
    const patch = (lengthBefore: number) => {
      if (!rm.ripRelative) return;
      const next = CODE_PAGE + this.codeOffset + lengthBefore + bytes.length + after;
      const offset = rm.gs ? rm.address - BigInt(GS_BASE) : rm.address;
      bytes.splice(at, 4, ...littleEndian(offset - BigInt(next), 4));
    };
    return { bytes, patch };
  }

  /** Redundant or unusual prefixes that change nothing. */
  private addRedundant(prefixes: number[], form: LegacyForm): void {
    const { random } = this;
    const kind = form.redundant ?? 'any';
    if (kind === 'none') return;
    const nullOverride = () => random.pick([0x26, 0x2e, 0x36, 0x3e]);
    if (random.chance(8)) prefixes.push(nullOverride());
    if (kind === 'segment') return;
    if (random.chance(3)) prefixes.push(random.pick([0xf2, 0xf3]));
    if (random.chance(5) && form.size === 16) prefixes.push(0x66);
    if (random.chance(3) && form.size === 64) prefixes.push(0x66);
    if (random.chance(3) && (form.rm === undefined || !isMemory(form.rm))) {
      prefixes.push(this.bits === 64 ? random.pick([0x64, 0x65, 0x67]) : random.pick([0x2e, 0x67]));
    }
  }

  private shuffle(list: number[]): void {
    for (let i = list.length - 1; i > 0; i--) {
      const j = this.random.below(i + 1);
      [list[i], list[j]] = [list[j] as number, list[i] as number];
    }
  }

  /** Emits an instruction in legacy encoding. */
  emit(form: LegacyForm): void {
    const { random } = this;
    const prefixes = [...(form.prefixes ?? [])];
    if (form.size === 16) prefixes.push(0x66);
    if (form.lock) prefixes.push(0xf0);
    const rm = form.rm;
    const memory = rm !== undefined && isMemory(rm) ? rm : undefined;
    if (memory?.addressSize32) prefixes.push(0x67);
    if (memory?.gs) prefixes.push(0x65);
    this.addRedundant(prefixes, form);
    this.shuffle(prefixes);
    // A mandatory prefix after any redundant one decides.
    if (form.mandatory !== undefined) prefixes.push(form.mandatory);
    let rex = 0;
    if (form.size === 64) rex |= 8;
    if (form.reg !== undefined && form.reg >= 8) rex |= 4;
    if (memory) {
      if (memory.index >= 8) rex |= 2;
      if (memory.base >= 8) rex |= 1;
    } else if (rm !== undefined && (rm as RegisterOperand).register >= 8) rex |= 1;
    if (form.plus !== undefined && form.plus >= 8) rex |= 1;
    const mayForce = this.bits === 64 && form.redundant !== 'none';
    let hasRex = rex !== 0 || (mayForce && random.chance(20));
    // Bits of REX that mean nothing for this instruction.
    if (hasRex && mayForce && random.chance(20)) {
      if (form.reg === undefined) rex |= random.below(2) << 2;
      if (memory === undefined || memory.sib === undefined) rex |= random.below(2) << 1;
    }
    // A REX prefix before another prefix is ignored (SDM vol. 2A §2.2.1).
    if (mayForce && prefixes.length > 0 && random.chance(3)) {
      prefixes.splice(random.below(prefixes.length), 0, 0x40 | random.below(16));
    }
    this.hasRex = hasRex;
    const opcode = [...form.opcode];
    if (form.plus !== undefined) opcode[opcode.length - 1] = (opcode.at(-1) as number) | (form.plus & 7);
    const immediate = form.immediate ?? [];
    const assemble = () => {
      const code = [...prefixes, ...(hasRex ? [0x40 | rex] : []), ...opcode];
      if (rm !== undefined) {
        const { bytes, patch } = this.modRm(form.reg ?? form.digit ?? 0, rm, immediate.length);
        patch(code.length);
        code.push(...bytes);
      }
      code.push(...immediate);
      return code;
    };
    let code = assemble();
    // Too long: redundant prefixes go first, then a REX prefix that says nothing.
    while (code.length > 15) {
      const needed = [
        form.size === 16,
        memory?.addressSize32,
        memory?.gs,
        form.lock,
        form.mandatory !== undefined,
      ];
      if (prefixes.length > needed.filter(Boolean).length + (form.prefixes?.length ?? 0)) {
        this.dropRedundant(prefixes, form, memory);
      } else if (hasRex && rex === 0) {
        hasRex = false;
        this.hasRex = false;
      } else throw new Error('too long');
      code = assemble();
    }
    this.code = code;
  }

  private dropRedundant(prefixes: number[], form: LegacyForm, memory: MemoryOperand | undefined): void {
    const keep = [...(form.prefixes ?? [])];
    if (form.size === 16) keep.push(0x66);
    if (form.lock) keep.push(0xf0);
    if (memory?.addressSize32) keep.push(0x67);
    if (memory?.gs) keep.push(0x65);
    if (form.mandatory !== undefined) keep.push(form.mandatory);
    prefixes.splice(0, prefixes.length, ...keep);
  }

  /** Emits an instruction in VEX encoding, with L = 0. */
  emitVex(form: VexForm): void {
    const { rm } = form;
    const memory = isMemory(rm) ? rm : undefined;
    const prefixes: number[] = [];
    if (memory?.addressSize32) prefixes.push(0x67);
    if (memory?.gs) prefixes.push(0x65);
    else if (this.random.chance(8)) prefixes.push(this.random.pick([0x26, 0x2e, 0x36, 0x3e]));
    this.shuffle(prefixes);
    const r = (form.reg ?? 0) >= 8 ? 0 : 0x80;
    const x = memory && memory.index >= 8 ? 0 : 0x40;
    const b = (memory ? memory.base : (rm as RegisterOperand).register) >= 8 ? 0 : 0x20;
    const vvvv = (~(form.vvvv ?? 0) & 15) << 3;
    const code = [...prefixes, 0xc4, r | x | b | form.map, (form.w << 7) | vvvv | form.pp, form.opcode];
    const immediate = form.immediate ?? [];
    const { bytes, patch } = this.modRm(form.reg ?? form.digit ?? 0, rm, immediate.length);
    patch(code.length);
    this.hasRex = true;
    this.code = [...code, ...bytes, ...immediate];
  }

  /** Emits bytes as they are. */
  raw(...bytes: number[]): void {
    this.code = bytes;
  }

  /** Length of what was emitted. */
  get length(): number {
    return this.code.length;
  }

  /** Immediate of 1, 2 or 4 bytes (64-bit operands take 4). */
  immediate(size: Size): number[] {
    return littleEndian(this.random.edge(), Math.min(size / 8, 4));
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
