import { describe, expect, it } from 'vitest';
import { Operands } from '../../support/random-operands.ts';
import { SingleInstruction } from '../../support/single-instruction.ts';

const CF = 1;
const ZF = 0x40;
const SF = 0x80;
const OF = 0x800;
type Size = 8 | 16 | 32 | 64;
const SIZES = [8, 16, 32, 64] as const;

interface Outcome {
  readonly result: bigint;
  readonly carry: boolean;
  /** Flags of the result are set, not only CF and OF. */
  readonly arithmetic: boolean;
}

/** One step of a shift or rotation. */
type Step = (a: bigint, carry: boolean, size: Size) => { a: bigint; carry: boolean };

const top = (size: Size) => 1n << BigInt(size - 1);
const left: Step = (a, _, size) => ({ a: BigInt.asUintN(size, a << 1n), carry: (a & top(size)) !== 0n });
const right: Step = (a) => ({ a: a >> 1n, carry: (a & 1n) !== 0n });
const STEPS: Readonly<Record<string, Step>> = {
  ROL: (a, c, size) => {
    const { a: moved, carry } = left(a, c, size);
    return { a: moved | (carry ? 1n : 0n), carry };
  },
  ROR: (a, c, size) => {
    const { a: moved, carry } = right(a, c, size);
    return { a: moved | (carry ? top(size) : 0n), carry };
  },
  RCL: (a, c, size) => {
    const { a: moved, carry } = left(a, c, size);
    return { a: moved | (c ? 1n : 0n), carry };
  },
  RCR: (a, c, size) => {
    const { a: moved, carry } = right(a, c, size);
    return { a: moved | (c ? top(size) : 0n), carry };
  },
  SHL: left,
  SHR: right,
  SAL: left,
  SAR: (a, c, size) => {
    const { a: moved, carry } = right(a, c, size);
    return { a: moved | (a & top(size)), carry };
  },
};

function reference(name: string, a: bigint, carry: boolean, count: number, size: Size): Outcome {
  let state = { a, carry };
  for (let n = 0; n < count; n++) state = (STEPS[name] as Step)(state.a, state.carry, size);
  return { result: state.a, carry: state.carry, arithmetic: name.startsWith('S') };
}

const encode = (digit: number, size: Size) => {
  const prefix = size === 16 ? [0x66] : size === 64 ? [0x48] : [];
  return Uint8Array.from([...prefix, size === 8 ? 0xd2 : 0xd3, 0xc0 | (digit << 3)]);
};

/** The register after a write of `size` bits over `old`. */
const written = (old: bigint, value: bigint, size: Size) => {
  if (size >= 32) return value;
  return ((old >> BigInt(size)) << BigInt(size)) | value;
};

describe('shifts and rotations by CL', () => {
  it.each(Object.keys(STEPS).map((name, digit) => [name, digit] as const))('%s', (name, digit) => {
    const operands = new Operands(digit + 1);
    const one = new SingleInstruction();
    for (let trial = 0; trial < 400; trial++) {
      const size = SIZES[trial % 4] as Size;
      const RAX = operands.value(size);
      const cl = operands.below(256);
      const before = 2 | (operands.next() & 0x8d5);
      one.run(encode(digit, size), { RAX, RCX: BigInt(cl), RFLAGS: BigInt(before), RIP: 0x1_0000n });
      const count = cl & (size === 64 ? 63 : 31);
      const a = BigInt.asUintN(size, RAX);
      const { result, carry, arithmetic } = reference(name, a, (before & CF) !== 0, count, size);
      const where = `${size} bits, ${a.toString(16)} by ${cl}`;
      expect(one.get('RAX'), where).toBe(written(RAX, result, size));
      const flags = one.flags();
      // A rotation through CF by a multiple of 9 or 17 changes nothing, like one by 0.
      if (count === 0) {
        expect(flags, where).toBe(before);
        continue;
      }
      expect(flags & CF, where).toBe(carry ? CF : 0);
      if (arithmetic) {
        expect(flags & ZF, where).toBe(result === 0n ? ZF : 0);
        expect(flags & SF, where).toBe((result & top(size)) !== 0n ? SF : 0);
      } else expect(flags & 0xd4, where).toBe(before & 0xd4);
      if (count === 1) {
        // The sign changed; of rotations and shifts to the right that is what OF says as well.
        const changed = ((result ^ a) & top(size)) !== 0n;
        expect(flags & OF, where).toBe(changed ? OF : 0);
      }
    }
  });

  it('take the count from an immediate or as 1', () => {
    const one = new SingleInstruction();
    one.run('shl eax, 4', { RAX: 0x1_8765_4321n });
    expect(one.get('RAX')).toBe(0x7654_3210n);
    one.run('sar rax, 1', { RAX: 0x8000_0000_0000_0000n, RIP: 0x1_0000n });
    expect(one.get('RAX')).toBe(0xc000_0000_0000_0000n);
    one.store(0x2000, 8, 0x81n);
    one.run('rol byte ptr [0x2000], 1', { RIP: 0x1_0000n });
    expect(one.value(0x2000, 8)).toBe(3n);
  });

  it('write a register of 32 bits even by 0', () => {
    const one = new SingleInstruction();
    one.run('shr eax, cl', { RAX: 0x1_0000_0001n, RCX: 32n });
    expect(one.get('RAX')).toBe(1n);
  });
});

describe('SHLD and SHRD', () => {
  it.each([
    ['SHLD', 0xa5, 16],
    ['SHLD', 0xa5, 32],
    ['SHLD', 0xa5, 64],
    ['SHRD', 0xad, 16],
    ['SHRD', 0xad, 32],
    ['SHRD', 0xad, 64],
  ] as const)('%s (0F %i) of %i bits', (name, opcode, size) => {
    const operands = new Operands(size + opcode);
    const one = new SingleInstruction();
    const prefix = size === 16 ? [0x66] : size === 64 ? [0x48] : [];
    for (let trial = 0; trial < 200; trial++) {
      const RAX = operands.value(size);
      const RDX = operands.value(size);
      const cl = operands.below(256);
      const before = 2 | (operands.next() & 0x8d5);
      const state = { RAX, RDX, RCX: BigInt(cl), RFLAGS: BigInt(before), RIP: 0x1_0000n };
      one.run(Uint8Array.from([...prefix, 0x0f, opcode, 0xd0]), state);
      const count = BigInt(cl & (size === 64 ? 63 : 31));
      const a = BigInt.asUintN(size, RAX);
      const b = BigInt.asUintN(size, RDX);
      const bits = BigInt(size);
      // Destination, source, and the destination again, as far as 16 bits need it.
      const triple = (a << (2n * bits)) | (b << bits) | a;
      const shifted = name === 'SHLD' ? (triple << count) >> (2n * bits) : triple >> count;
      const result = BigInt.asUintN(size, shifted);
      const carry = name === 'SHLD' ? (triple >> (3n * bits - count)) & 1n : (triple >> (count - 1n)) & 1n;
      const where = `${a.toString(16)}:${b.toString(16)} by ${cl}`;
      expect(one.get('RAX'), where).toBe(written(RAX, count === 0n ? a : result, size));
      const flags = one.flags();
      if (count === 0n) {
        expect(flags, where).toBe(before);
        continue;
      }
      expect(flags & CF, where).toBe(Number(carry));
      expect(flags & ZF, where).toBe(result === 0n ? ZF : 0);
      expect(flags & SF, where).toBe((result & top(size)) !== 0n ? SF : 0);
      if (count === 1n) expect(flags & OF, where).toBe(((result ^ a) & top(size)) !== 0n ? OF : 0);
    }
  });
});
