import { describe, expect, it } from 'vitest';
import { Operands } from '../../support/random-operands.ts';
import { SingleInstruction } from '../../support/single-instruction.ts';

const CF_OF = 0x801;
const SIZES = [8, 16, 32, 64] as const;
type Size = (typeof SIZES)[number];

const prefixOf = (size: Size) => (size === 16 ? [0x66] : size === 64 ? [0x48] : []);
const encode = (digit: number, size: Size) =>
  Uint8Array.from([...prefixOf(size), size === 8 ? 0xf6 : 0xf7, 0xc3 | (digit << 3)]);
const mask = (size: number) => (1n << BigInt(size)) - 1n;

/** The double accumulator: AX, DX:AX, EDX:EAX, RDX:RAX. */
function double(size: Size, rax: bigint, rdx: bigint): bigint {
  if (size === 8) return rax & 0xffffn;
  return ((rdx & mask(size)) << BigInt(size)) | (rax & mask(size));
}

const signedIf = (signed: boolean, bits: number, value: bigint) =>
  signed ? BigInt.asIntN(bits, value) : BigInt.asUintN(bits, value);

describe.each([
  ['MUL', 4, false],
  ['IMUL', 5, true],
] as const)('%s', (_, digit, signed) => {
  it.each(SIZES)('of %i bits', (size) => {
    const operands = new Operands(size * 8 + digit);
    const one = new SingleInstruction();
    for (let trial = 0; trial < 300; trial++) {
      const [RAX, RDX, RBX] = [operands.value(size), operands.quad(), operands.value(size)];
      one.run(encode(digit, size), { RAX, RDX, RBX, RIP: 0x1_0000n });
      const product = signedIf(signed, size, RAX) * signedIf(signed, size, RBX);
      expect(double(size, one.get('RAX'), one.get('RDX'))).toBe(BigInt.asUintN(2 * size, product));
      if (size === 32) expect(one.get('RAX') >> 32n).toBe(0n);
      const fits = product === signedIf(signed, size, product);
      expect(one.flags() & CF_OF).toBe(fits ? 0 : CF_OF);
    }
  });
});

describe.each([
  ['DIV', 6, false],
  ['IDIV', 7, true],
] as const)('%s', (_, digit, signed) => {
  it.each(SIZES)('of %i bits', (size) => {
    const operands = new Operands(size * 8 + digit);
    const one = new SingleInstruction();
    let errors = 0;
    for (let trial = 0; trial < 500; trial++) {
      const RBX = operands.value(size);
      const divisor = signedIf(signed, size, RBX);
      // Dividends whose quotient fits, or just does not.
      const quotient = signedIf(signed, size, operands.value(size)) + (trial % 7 === 0 ? 1n : 0n);
      const remainder = divisor === 0n ? 0n : operands.quad() % (divisor < 0n ? -divisor : divisor);
      const dividend = BigInt.asUintN(
        2 * size,
        quotient * divisor + (quotient < 0n ? -remainder : remainder),
      );
      const state =
        trial % 5 === 0
          ? { RAX: operands.value(size), RDX: operands.value(size) }
          : { RAX: size === 8 ? dividend : dividend & mask(size), RDX: dividend >> BigInt(size) };
      const result = one.run(encode(digit, size), { ...state, RBX, RIP: 0x1_0000n });
      const value = signedIf(signed, 2 * size, double(size, state.RAX, state.RDX));
      const expected = divisor === 0n ? undefined : value / divisor;
      const fits = expected !== undefined && expected === signedIf(signed, size, expected);
      expect(result.vector).toBe(fits ? undefined : 0);
      if (!fits) {
        errors++;
        expect(one.get('RAX')).toBe(state.RAX);
        continue;
      }
      const rest = value % divisor;
      const got = double(size, one.get('RAX'), one.get('RDX'));
      expect(got).toBe(((rest & mask(size)) << BigInt(size)) | (expected & mask(size)));
    }
    expect(errors).toBeGreaterThan(10);
    expect(errors).toBeLessThan(400);
  });
});

describe('IMUL with two and three operands', () => {
  it.each([16, 32, 64] as const)('of %i bits', (size) => {
    const operands = new Operands(size);
    const one = new SingleInstruction();
    for (let trial = 0; trial < 300; trial++) {
      const RAX = operands.value(size);
      // Small numbers multiply without overflow.
      const RBX = trial % 3 === 0 ? BigInt(operands.below(1000)) : operands.value(size);
      one.run(Uint8Array.from([...prefixOf(size), 0x0f, 0xaf, 0xc3]), { RAX, RBX, RIP: 0x1_0000n });
      const product = BigInt.asIntN(size, RAX) * BigInt.asIntN(size, RBX);
      expect(one.get('RAX') & mask(size)).toBe(BigInt.asUintN(size, product));
      expect(one.flags() & CF_OF).toBe(product === BigInt.asIntN(size, product) ? 0 : CF_OF);
      const immediate = operands.below(256);
      one.run(Uint8Array.from([...prefixOf(size), 0x6b, 0xcb, immediate]), { RBX, RCX: 0n, RIP: 0x1_0000n });
      const third = BigInt.asIntN(size, RBX) * BigInt.asIntN(8, BigInt(immediate));
      expect(one.get('RCX')).toBe(BigInt.asUintN(size, third));
      expect(one.flags() & CF_OF).toBe(third === BigInt.asIntN(size, third) ? 0 : CF_OF);
    }
    one.run('imul rcx, rbx, -0x12345678', { RBX: 3n, RIP: 0x1_0000n });
    expect(BigInt.asIntN(64, one.get('RCX'))).toBe(-3n * 0x12345678n);
  });

  it('divides the lowest number by −1 with #DE', () => {
    const one = new SingleInstruction();
    const state = { RAX: 0x8000_0000n, RDX: 0xffff_ffffn, RBX: 0xffff_ffffn };
    expect(one.run('idiv ebx', state).vector).toBe(0);
  });
});

describe('sign extension', () => {
  it.each([
    ['cbw', 0x1122_3344_5566_7788n, 'RAX', 0x1122_3344_5566_ff88n],
    ['cwde', 0x1122_3344_5566_8788n, 'RAX', 0xffff_8788n],
    ['cdqe', 0x1122_3344_8566_7788n, 'RAX', 0xffff_ffff_8566_7788n],
    ['cwd', 0x8000n, 'RDX', 0xaaaa_aaaa_aaaa_ffffn],
    ['cdq', 0x8000_0000n, 'RDX', 0xffff_ffffn],
    ['cqo', 0x8000_0000n, 'RDX', 0n],
    ['cqo', 1n << 63n, 'RDX', 0xffff_ffff_ffff_ffffn],
  ] as const)('%s of %s', (code, RAX, register, value) => {
    const one = new SingleInstruction();
    one.run(code, { RAX, RDX: 0xaaaa_aaaa_aaaa_aaaan });
    expect(one.get(register)).toBe(value);
  });
});
