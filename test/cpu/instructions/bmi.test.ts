import { describe, expect, it } from 'vitest';
import { Operands } from '../../support/random-operands.ts';
import { SingleInstruction } from '../../support/single-instruction.ts';

const CF = 1;
const PF = 4;
const ZF = 0x40;
const SF = 0x80;
const OF = 0x800;
const WIDTHS = [32, 64] as const;
type Width = (typeof WIDTHS)[number];

interface Expected {
  readonly result: bigint;
  /** Flags that are defined, and which of them are set besides ZF and SF of the result. */
  readonly carry?: boolean;
  readonly flags: number;
}

const LOGIC = CF | ZF | SF | OF;
const bitAt = (value: bigint, n: number) => (value >> BigInt(n)) & 1n;

/** RAX, and its value from RBX and RCX (the register in VEX.vvvv, or the count). */
const OPERATIONS: Readonly<Record<string, (b: bigint, c: bigint, width: Width) => Expected>> = {
  'andn rax, rcx, rbx': (b, c) => ({ result: ~c & b, flags: LOGIC }),
  'bextr rax, rbx, rcx': (b, c, width) => {
    let result = 0n;
    const [start, length] = [Number(c & 0xffn), Number((c >> 8n) & 0xffn)];
    for (let n = 0; n < length && start + n < width; n++) result |= bitAt(b, start + n) << BigInt(n);
    return { result, flags: CF | ZF | OF };
  },
  'blsi rax, rbx': (b) => ({ result: b & -b, carry: b !== 0n, flags: LOGIC }),
  'blsmsk rax, rbx': (b) => ({ result: b ^ (b - 1n), carry: b === 0n, flags: LOGIC }),
  'blsr rax, rbx': (b) => ({ result: b & (b - 1n), carry: b === 0n, flags: LOGIC }),
  'bzhi rax, rbx, rcx': (b, c, width) => {
    const from = Number(c & 0xffn);
    return { result: from < width ? b % (1n << BigInt(from)) : b, carry: from >= width, flags: LOGIC };
  },
  'pdep rax, rbx, rcx': (b, c, width) => {
    let [result, k] = [0n, 0];
    for (let n = 0; n < width; n++) if (bitAt(c, n)) result |= bitAt(b, k++) << BigInt(n);
    return { result, flags: 0 };
  },
  'pext rax, rbx, rcx': (b, c, width) => {
    let [result, k] = [0n, 0n];
    for (let n = 0; n < width; n++) if (bitAt(c, n)) result |= bitAt(b, n) << k++;
    return { result, flags: 0 };
  },
  'rorx rax, rbx, 13': (b, _, width) => ({ result: (b >> 13n) | (b << BigInt(width - 13)), flags: 0 }),
  'sarx rax, rbx, rcx': (b, c, width) => ({
    result: BigInt.asIntN(width, b) >> (c & BigInt(width - 1)),
    flags: 0,
  }),
  'shlx rax, rbx, rcx': (b, c, width) => ({ result: b << (c & BigInt(width - 1)), flags: 0 }),
  'shrx rax, rbx, rcx': (b, c, width) => ({ result: b >> (c & BigInt(width - 1)), flags: 0 }),
};

const PDEP_MASK = 0x8421_1248_f00f_0ff0n;

describe('BMI1 and BMI2', () => {
  it.each(Object.keys(OPERATIONS).flatMap((code) => WIDTHS.map((width) => [code, width] as const)))(
    '%s (%i)',
    (code, width) => {
      const operands = new Operands(width + code.charCodeAt(2));
      const one = new SingleInstruction();
      const text = width === 64 ? code : code.replace(/\br([abc]x)\b/g, 'e$1');
      for (let trial = 0; trial < 60; trial++) {
        const RBX = operands.value(width);
        const RCX = trial % 10 === 0 ? PDEP_MASK : operands.value(width);
        const before = 2 | (operands.next() & 0x8d5);
        one.run(text, {
          RBX,
          RCX,
          RAX: -1n & 0xffff_ffff_ffff_ffffn,
          RFLAGS: BigInt(before),
          RIP: 0x1_0000n,
        });
        const b = BigInt.asUintN(width, RBX);
        const c = BigInt.asUintN(width, RCX);
        const expected = (OPERATIONS[code] as (typeof OPERATIONS)[string])(b, c, width);
        const result = BigInt.asUintN(width, expected.result);
        expect(one.get('RAX'), `${b.toString(16)} ${c.toString(16)}`).toBe(result);
        const computed =
          (expected.carry ? CF : 0) | (result === 0n ? ZF : 0) | (bitAt(result, width - 1) ? SF : 0);
        const mask = expected.flags;
        expect(one.flags()).toBe((before & ~mask) | (computed & mask));
      }
    },
  );

  it('MULX keeps flags, and has the high half in a destination named twice', () => {
    const one = new SingleInstruction();
    const operands = new Operands(5);
    for (let trial = 0; trial < 60; trial++) {
      const [RDX, RBX] = [operands.value(), operands.value()];
      one.run('mulx rax, rcx, rbx', { RDX, RBX, RFLAGS: 0x8d7n, RIP: 0x1_0000n });
      expect((one.get('RAX') << 64n) | one.get('RCX')).toBe(RDX * RBX);
      expect(one.flags()).toBe(0x8d7);
      one.run('mulx eax, eax, ebx', { RDX, RBX, RIP: 0x1_0000n });
      expect(one.get('RAX')).toBe((BigInt.asUintN(32, RDX) * BigInt.asUintN(32, RBX)) >> 32n);
    }
  });

  it('reads an operand in memory of 32 bits in 16-bit code of protected mode', () => {
    const one = new SingleInstruction({ bits: 32 });
    one.set({ 'CS.accessRights': 0x809bn, RBX: 0x2000n, RCX: 0n });
    one.store(0x2000, 4, 0x1234_5678n);
    // VEX.LZ.0F38 F2 /r: ANDN EAX, ECX, [BX+SI] would be mod 0 rm 0; rm 7 is [BX].
    one.run(Uint8Array.of(0xc4, 0xe2, 0x70, 0xf2, 0x07));
    expect(one.get('RAX')).toBe(0x1234_5678n);
  });

  it('is undefined in real-address and virtual-8086 mode, whatever its operand', () => {
    const bytes = Uint8Array.of(0xc4, 0xe2, 0x70, 0xf2, 0xc3);
    const real = new SingleInstruction({ bits: 16 });
    expect(real.run(bytes).vector).toBe(6);
    const virtual = new SingleInstruction({ bits: 16 });
    virtual.set({ CR0: 0x11n, 'SS.accessRights': 0xf3n, RFLAGS: 0x2_0002n });
    expect(virtual.run(bytes).vector).toBe(6);
  });

  it('is undefined with L1, or with a register in VEX.vvvv that has no use', () => {
    const one = new SingleInstruction();
    expect(one.run(Uint8Array.of(0xc4, 0xe2, 0x74, 0xf2, 0xc3)).vector).toBe(6);
    expect(one.run(Uint8Array.of(0xc4, 0xe3, 0x73, 0xf0, 0xc3, 5)).vector).toBe(6);
    expect(one.run(Uint8Array.of(0xc4, 0xe3, 0x7b, 0xf0, 0xc3, 5)).vector).toBeUndefined();
  });
});

describe('ADCX and ADOX', () => {
  it.each([
    ['adcx', CF],
    ['adox', OF],
  ] as const)('%s carries through its own flag', (name, flag) => {
    const operands = new Operands(flag);
    const one = new SingleInstruction();
    for (let trial = 0; trial < 200; trial++) {
      const width = WIDTHS[trial % 2] as Width;
      const [RAX, RBX] = [operands.value(width), operands.value(width)];
      const before = 2 | (operands.next() & 0x8d5);
      const code = width === 64 ? `${name} rax, rbx` : `${name} eax, ebx`;
      one.run(code, { RAX, RBX, RFLAGS: BigInt(before), RIP: 0x1_0000n });
      const sum = BigInt.asUintN(width, RAX) + BigInt.asUintN(width, RBX) + (before & flag ? 1n : 0n);
      expect(one.get('RAX')).toBe(BigInt.asUintN(width, sum));
      expect(one.flags()).toBe((before & ~flag) | (sum >> BigInt(width) ? flag : 0));
    }
  });
});

describe('CRC32', () => {
  it('computes CRC-32C of "123456789"', () => {
    const one = new SingleInstruction();
    one.set({ RAX: 0xffff_ffffn });
    for (const character of '123456789') {
      one.run('crc32 eax, bl', { RBX: BigInt(character.charCodeAt(0)), RIP: 0x1_0000n });
    }
    expect(one.get('RAX') ^ 0xffff_ffffn).toBe(0xe306_9283n);
  });

  it('of wider sources is that of their bytes', () => {
    const one = new SingleInstruction();
    const RBX = 0x8877_6655_4433_2211n;
    for (const [code, bytes] of [
      ['crc32 eax, bx', 2],
      ['crc32 eax, ebx', 4],
      ['crc32 rax, rbx', 8],
    ] as const) {
      one.set({ RAX: 0x1234n, RBX, RCX: 0x1234n });
      for (let n = 0; n < bytes; n++) {
        one.run('crc32 ecx, dl', { RDX: (RBX >> BigInt(8 * n)) & 0xffn, RIP: 0x1_0000n });
      }
      one.run(code, { RIP: 0x1_0000n });
      expect(one.get('RAX'), code).toBe(one.get('RCX'));
    }
  });
});

describe('MOVBE', () => {
  it.each([
    ['ax', 2, 0x2211n],
    ['eax', 4, 0x4433_2211n],
    ['rax', 8, 0x8877_6655_4433_2211n],
  ])('%s', (register, bytes, value) => {
    const one = new SingleInstruction();
    one.store(0x2000, 8, 0x1122_3344_5566_7788n);
    const source = 0x1122_3344_5566_7788n >> BigInt(64 - 8 * bytes);
    one.store(0x3000, bytes, source);
    one.run(`movbe ${register}, [0x3000]`, { RAX: 0n });
    expect(one.get('RAX')).toBe(value);
    one.run(`movbe [0x2000], ${register}`, { RIP: 0x1_0000n });
    expect(one.value(0x2000, bytes)).toBe(source);
    expect(one.value(0x2000 + bytes, 8)).toBe(bytes === 8 ? 0n : 0x1122_3344_5566_7788n >> BigInt(8 * bytes));
  });

  it('has no register form', () => {
    const one = new SingleInstruction();
    expect(one.run(Uint8Array.of(0x0f, 0x38, 0xf0, 0xc3)).vector).toBe(6);
    expect(one.flags() & PF).toBe(0);
  });
});
