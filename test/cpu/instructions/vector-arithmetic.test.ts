import { describe, expect, it } from 'vitest';
import { Prng } from '../../../src/bits/prng.ts';
import { SingleInstruction, type State } from '../../support/single-instruction.ts';

const SSE_ON: State = { CR0: 0x33n, CR4: 0x620n };
const DEFAULT = 0x1f80n;
const INEXACT = 0x20n;

const view = new DataView(new ArrayBuffer(8));
function bits64(value: number): bigint {
  view.setFloat64(0, value);
  return view.getBigUint64(0);
}
function bits32(value: number): bigint {
  view.setFloat32(0, value);
  return BigInt(view.getUint32(0));
}

const run = (code: string, state: State) => {
  const one = new SingleInstruction();
  const result = one.run(code, { ...SSE_ON, MXCSR: DEFAULT, ...state });
  return { one, result };
};

describe('SIMD floating-point exceptions', () => {
  const overZero: State = { XMM0: bits64(1), XMM1: 0n };

  it('masked, give a default result and a sticky flag', () => {
    const { one } = run('divsd xmm0, xmm1', overZero);
    expect(one.get('XMM0')).toBe(bits64(Number.POSITIVE_INFINITY));
    expect(one.get('MXCSR')).toBe(DEFAULT | 4n);
  });

  it('unmasked, raise #XM with the flag set and the destination as it was', () => {
    const { one, result } = run('divsd xmm0, xmm1', { ...overZero, MXCSR: DEFAULT & ~0x200n, CR4: 0x620n });
    expect(result.vector).toBe(19);
    expect(one.get('XMM0')).toBe(bits64(1));
    expect(one.get('MXCSR')).toBe((DEFAULT & ~0x200n) | 4n);
  });

  it('unmasked, raise #UD without CR4.OSXMMEXCPT', () => {
    const { result } = run('divsd xmm0, xmm1', { ...overZero, MXCSR: DEFAULT & ~0x200n, CR4: 0x220n });
    expect(result.vector).toBe(6);
  });

  it('leave the flags alone if COMISD faults', () => {
    const state = { XMM0: 0x7ff8n << 48n, RFLAGS: 0x8d7n, MXCSR: DEFAULT & ~0x80n };
    const { one, result } = run('comisd xmm0, xmm1', state);
    expect(result.vector).toBe(19);
    expect(one.flags() & 0x8d5).toBe(0x8d5);
  });
});

describe('arithmetic through the numbers of JavaScript', () => {
  const OPERATIONS = ['add', 'sub', 'mul', 'div', 'sqrt'] as const;
  const random = new Prng(7);
  const special = [
    0,
    -0,
    1,
    -1,
    2 ** -1022,
    2 ** -1021,
    2 ** -126,
    2 ** -125,
    Number.MAX_VALUE,
    3,
    0.1,
    5e-324,
    1e-310,
  ];
  const number = () => {
    const kind = random.below(4);
    if (kind === 0) return special[random.below(special.length)] as number;
    const exponent = kind === 1 ? random.below(40) - 20 : random.below(500) - 250;
    return (random.below(2) === 0 ? 1 : -1) * random.below(0x1000_0000) * 2 ** exponent;
  };

  /** The same operation with a flag of rounding that keeps it from the fast path, but changes nothing. */
  it.each(['sd', 'ss', 'pd', 'ps'])('has the results and flags of the exact one: %s', (type) => {
    const one = new SingleInstruction();
    const bits = type.endsWith('d') ? bits64 : (value: number) => bits32(value) | (bits32(number()) << 32n);
    for (let n = 0; n < 600; n++) {
      const code = `${OPERATIONS[n % 5]}${type} xmm0, xmm1`;
      const state: State = {
        ...SSE_ON,
        XMM0: bits(number()),
        XMM1: bits(number()),
        'XMM0.high': bits(number()),
        'XMM1.high': bits(number()),
        RIP: 0x1_0000n,
      };
      const sticky = n % 2 === 0 ? INEXACT : 0n;
      const outcome = (masks: bigint) => {
        one.run(code, { ...state, MXCSR: masks | sticky });
        return [one.get('XMM0'), one.get('XMM0.high'), one.get('MXCSR') & 0x3fn];
      };
      const fast = outcome(DEFAULT);
      // An unmasked denormal exception sends the operation the exact way; where it is raised there is nothing to compare.
      const exact = outcome(DEFAULT & ~0x100n);
      if ((fast[2] as bigint) & 2n) continue;
      expect([code, ...fast]).toEqual([code, ...exact]);
    }
  });
});
