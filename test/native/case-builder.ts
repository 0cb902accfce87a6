/**
 * Puts a case together: operands with registers that make their addresses valid (mostly), and the
 * instruction's bytes with prefixes in any order that the manual allows, redundant ones included.
 */
import { CaseState } from './case-state.ts';
import { CODE_PAGE, DATA_PAGE, DATA_WINDOW, GS_BASE, PAGE, WINDOW } from './native-case.ts';
import {
  isMemory,
  type LegacyForm,
  littleEndian,
  type MemoryOperand,
  type MemoryOptions,
  NO_INDEX,
  type Operand,
  RBP,
  RBX,
  RDI,
  type RegisterOperand,
  RSI,
  SIZES,
  type Size,
  type VexForm,
  WIDE_SIZES,
} from './operands.ts';

/** Base and index of the addresses of 16 bits, by ModRM.rm. */
const SHORT_BASES: readonly (readonly number[])[] = [
  [RBX, RSI],
  [RBX, RDI],
  [RBP, RSI],
  [RBP, RDI],
  [RSI],
  [RDI],
  [RBP],
  [RBX],
];

export class CaseBuilder extends CaseState {
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
    const shortAddress = wide && low && random.chance(15);
    const gs = wide && random.chance(8);
    const offset = BigInt.asUintN(this.bits, gs ? target - BigInt(GS_BASE) : target);
    const set = (register: number, value: bigint) => {
      gprs[register] = BigInt.asUintN(
        64,
        shortAddress ? BigInt.asUintN(32, value) | (random.quad() << 32n) : BigInt.asUintN(this.bits, value),
      );
      this.reserved.add(register);
    };
    if (!wide && random.chance(20)) {
      const short = this.smallSegment(target);
      if (short) return short;
    }
    const common = {
      address: target,
      shortAddress,
      gs,
      es: false,
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

  /** An operand by way of the small segment in ES, addressed with 16 or 32 bits; undefined if registers are taken. */
  private smallSegment(target: bigint): MemoryOperand | undefined {
    const { random, gprs } = this;
    const offset = Number(target) - DATA_PAGE;
    const shortAddress = random.chance(75);
    const mod = random.below(3);
    const rm = shortAddress ? random.below(8) : random.pick([0, 1, 2, 3, 6, 7]);
    const plain = shortAddress ? SHORT_BASES[rm] : [rm];
    // With mod 0, number 6 of the short forms is a displacement alone.
    const registers = (shortAddress && mod === 0 && rm === 6 ? [] : plain) as readonly number[];
    if (registers.some((register) => this.reserved.has(register)) || offset < 0) return undefined;
    const bytes = mod === 1 ? 1 : mod === 2 || registers.length === 0 ? (shortAddress ? 2 : 4) : 0;
    const value = bytes === 1 ? random.below(256) - 128 : bytes === 0 ? 0 : random.next() | 0;
    const displacement = registers.length === 0 ? offset : value;
    const bits = shortAddress ? 16 : 32;
    const [base, index] = registers;
    const rest =
      offset - displacement - (index === undefined ? 0 : Number(BigInt.asUintN(16, gprs[index] as bigint)));
    if (base !== undefined) {
      const upper = shortAddress ? BigInt(random.next() & ~0xffff) : 0n;
      gprs[base] = BigInt.asUintN(32, upper | BigInt.asUintN(bits, BigInt(rest)));
    }
    this.reserve(...registers);
    this.smallEs = true;
    return {
      address: target,
      mod,
      rm,
      sib: undefined,
      base: 0,
      index: 0,
      displacement: littleEndian(displacement, bytes),
      ripRelative: false,
      shortAddress,
      gs: false,
      es: true,
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
    if (memory?.shortAddress) prefixes.push(0x67);
    if (memory?.gs) prefixes.push(0x65);
    if (memory?.es) prefixes.push(0x26);
    if (!memory?.es) this.addRedundant(prefixes, form);
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
        memory?.shortAddress,
        memory?.gs,
        memory?.es,
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
    if (memory?.shortAddress) keep.push(0x67);
    if (memory?.gs) keep.push(0x65);
    if (memory?.es) keep.push(0x26);
    if (form.mandatory !== undefined) keep.push(form.mandatory);
    prefixes.splice(0, prefixes.length, ...keep);
  }

  /** Emits an instruction in VEX encoding, with L = 0. */
  emitVex(form: VexForm): void {
    const { rm } = form;
    const memory = isMemory(rm) ? rm : undefined;
    const prefixes: number[] = [];
    if (memory?.shortAddress) prefixes.push(0x67);
    if (memory?.gs) prefixes.push(0x65);
    else if (memory?.es) prefixes.push(0x26);
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
}
