import { describe, expect, it } from 'vitest';
import { SingleInstruction, type State } from '../../support/single-instruction.ts';

const AREA = 0x4000;
const BV = AREA + 512;
const OSXSAVE = 1n << 18n;
const ON: State = { CR0: 0x33n, CR4: 0x620n | OSXSAVE, XCR0: 3n, RBX: BigInt(AREA), RAX: 7n, RDX: 0n };
const ALL = new Uint8Array(1024).fill(0xaa);
const COMPACTED = 1n << 63n;

function prepared(state: State = {}): SingleInstruction {
  const one = new SingleInstruction();
  one.machine.memory.writeBytes(AREA, ALL);
  one.store(BV, 64, 0n);
  one.set({ ...ON, FCW: 0x37fn, ...state });
  return one;
}

const again = (one: SingleInstruction, code: string, state: State = {}) =>
  one.run(code, { RIP: 0x1_0000n, ...state });

describe('the XSAVE family', () => {
  const codes = [
    'xsave [rbx]',
    'xsaveopt [rbx]',
    'xsavec [rbx]',
    'xsaves [rbx]',
    'xrstor [rbx]',
    'xrstors [rbx]',
  ];

  it.each(codes)('%s needs CR4.OSXSAVE, not CR0.TS, and 64-byte alignment', (code) => {
    expect(prepared().run(code, { CR4: 0x620n }).vector).toBe(6);
    expect(prepared().run(code, { CR0: 0x3bn }).vector).toBe(7);
    expect(prepared().run(code, { RBX: BigInt(AREA + 16) })).toMatchObject({ vector: 13, errorCode: 0 });
  });

  it.each(['xsaves [rbx]', 'xrstors [rbx]'])('%s needs CPL 0', (code) => {
    expect(prepared({ 'SS.accessRights': 0xc0f3n }).run(code)).toMatchObject({ vector: 13, errorCode: 0 });
  });
});

describe('XSAVE', () => {
  it('saves what is asked for and enabled, and leaves the rest of the header alone', () => {
    const one = prepared({ XMM0: 5n });
    one.store(BV, 8, 4n);
    again(one, 'xsave [rbx]', { RAX: 2n });
    expect(one.value(BV, 8)).toBe(6n);
    expect(one.value(AREA, 2)).toBe(0xaaaan);
    expect(one.value(AREA + 24, 4)).toBe(0x1f80n);
    expect(one.value(AREA + 160, 8)).toBe(5n);
  });

  it('saves components in their initial configuration, which XSAVEOPT leaves out', () => {
    const one = prepared();
    again(one, 'xsave [rbx]');
    expect([one.value(BV, 8), one.value(AREA, 2), one.value(AREA + 160, 8)]).toEqual([0n, 0x37fn, 0n]);
    const other = prepared();
    again(other, 'xsaveopt [rbx]');
    expect([other.value(BV, 8), other.value(AREA, 2), other.value(AREA + 160, 1)]).toEqual([
      0n,
      0xaaaan,
      0xaan,
    ]);
  });
});

describe('XSAVEC', () => {
  it('says in XCOMP_BV what was asked for, and takes MXCSR into account', () => {
    const one = prepared({ MXCSR: 0x1fa0n });
    again(one, 'xsavec [rbx]');
    expect([one.value(BV, 8), one.value(BV + 8, 8)]).toEqual([2n, COMPACTED | 3n]);
    expect(one.value(AREA + 24, 4)).toBe(0x1fa0n);
  });
});

describe('XRSTOR', () => {
  it('restores what the area has and initialises the rest that is asked for', () => {
    const one = prepared({ XMM0: 5n, FSW: 0x3800n });
    again(one, 'xsave [rbx]');
    one.store(BV, 8, 2n);
    again(one, 'xrstor [rbx]', { XMM0: 9n, FCW: 0x27fn, MXCSR: 0x1fffn });
    expect([one.get('XMM0'), one.get('FCW'), one.get('FSW'), one.get('MXCSR')]).toEqual([
      5n,
      0x37fn,
      0n,
      0x1f80n,
    ]);
  });

  it.each<[string, number, bigint]>([
    ['a component that XCR0 has not', BV, 4n],
    ['XCOMP_BV without bit 63', BV + 8, 1n],
    ['a reserved byte', BV + 16, 1n],
    ['a component of the compacted format that XCR0 has not', BV + 8, COMPACTED | 4n],
    ['reserved bits of MXCSR', AREA + 24, 0x1_0000n],
  ])('raises #GP(0) for %s', (_, address, value) => {
    const one = prepared({ XMM0: 5n });
    again(one, 'xsave [rbx]');
    one.store(address, 8, value);
    expect(again(one, 'xrstor [rbx]', { XMM0: 9n })).toMatchObject({ vector: 13, errorCode: 0 });
    expect(one.get('XMM0')).toBe(9n);
  });

  it('takes the compacted format, XRSTORS no other', () => {
    const one = prepared({ XMM0: 5n });
    again(one, 'xsavec [rbx]');
    again(one, 'xrstor [rbx]', { XMM0: 9n });
    expect(one.get('XMM0')).toBe(5n);
    again(one, 'xrstors [rbx]', { XMM0: 9n });
    expect(one.get('XMM0')).toBe(5n);
    one.store(BV + 8, 8, 0n);
    expect(again(one, 'xrstors [rbx]')).toMatchObject({ vector: 13, errorCode: 0 });
  });
});

describe('XSAVES', () => {
  it('puts the supervisor components of IA32_XSS behind the header', () => {
    const state: State = { IA32_XSS: 0x1800n, IA32_U_CET: 1n, IA32_PL1_SSP: 0x1000n };
    const one = prepared({ ...state, RAX: 0x1803n });
    expect(again(one, 'xsaves [rbx]').vector).toBeUndefined();
    expect([one.value(BV, 8), one.value(BV + 8, 8)]).toEqual([0x1800n, COMPACTED | 0x1803n]);
    expect(one.value(AREA + 576, 8)).toBe(1n);
    expect(one.value(AREA + 576 + 16 + 8, 8)).toBe(0x1000n);
  });
});
