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

describe('PKRU', () => {
  const STANDARD = AREA + 2688;
  const asked: State = { XCR0: 0x203n, RAX: 0x203n, PKRU: 0x1234_5678n };

  it('is at 2688 in the standard format, if XCR0 has it', () => {
    const one = prepared(asked);
    again(one, 'xsave [rbx]');
    expect([one.value(STANDARD, 8), one.value(BV, 8)]).toEqual([0x1234_5678n, 0x200n]);
    again(one, 'xrstor [rbx]', { PKRU: 5n });
    expect(one.get('PKRU')).toBe(0x1234_5678n);
    one.store(BV, 8, 0n);
    again(one, 'xrstor [rbx]');
    expect(one.get('PKRU')).toBe(0n);
    again(one, 'xrstor [rbx]', { PKRU: 5n, RAX: 3n });
    expect(one.get('PKRU')).toBe(5n);
    expect(prepared({ XCR0: 3n, PKRU: 5n }).run('xsave [rbx]', { RAX: 0x200n }).vector).toBeUndefined();
    one.store(BV, 8, 0x200n);
    expect(again(one, 'xrstor [rbx]', { XCR0: 3n })).toMatchObject({ vector: 13 });
  });

  it('is behind the header in the compacted format, before CET state', () => {
    const one = prepared({ ...asked, IA32_XSS: 0x800n, IA32_U_CET: 3n, RAX: 0xa00n });
    again(one, 'xsaves [rbx]');
    expect([one.value(BV, 8), one.value(AREA + 576, 8), one.value(AREA + 584, 8)]).toEqual([
      0xa00n,
      0x1234_5678n,
      3n,
    ]);
    again(one, 'xrstors [rbx]', { PKRU: 0n, IA32_U_CET: 0n });
    expect([one.get('PKRU'), one.get('IA32_U_CET')]).toEqual([0x1234_5678n, 3n]);
  });

  it('XSETBV enables it, and CPUID tells where it is', () => {
    const one = prepared();
    again(one, 'xsetbv', { RCX: 0n, RAX: 0x203n });
    expect(one.get('XCR0')).toBe(0x203n);
    const leaf = (subleaf: bigint) => {
      again(one, 'cpuid', { RAX: 0xdn, RCX: subleaf });
      return [one.get('RAX'), one.get('RBX'), one.get('RCX')];
    };
    expect(leaf(0n)).toEqual([0x203n, 2696n, 2696n]);
    expect(leaf(9n)).toEqual([8n, 2688n, 0n]);
    expect(leaf(1n)[1]).toBe(584n);
    expect(prepared({ ...ON }).run('xsetbv', { RCX: 0n, RAX: 0x403n }).vector).toBe(13);
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

  it('saves user-interrupt state with UIF and clears UINV, which has to be 0 when XRSTORS restores it', () => {
    const state: State = {
      IA32_UINTR_HANDLER: 0x1000n,
      IA32_UINTR_STACKADJUST: 0x80n,
      IA32_UINTR_MISC: 0xec_0000_0007n,
      IA32_UINTR_PD: 0x2000n,
      IA32_UINTR_RR: 0x8000_0000_0000_0001n,
      IA32_UINTR_TT: 0x3001n,
      UIF: 1n,
    };
    const one = prepared({ ...state, IA32_XSS: 0x4000n, RAX: 0x4000n });
    expect(again(one, 'xsaves [rbx]').vector).toBeUndefined();
    const stored = [0, 8, 16, 24, 32, 40].map((at) => one.value(AREA + 576 + at, 8));
    expect(stored).toEqual([
      0x1000n,
      0x80n,
      0x8000_00ec_0000_0007n,
      0x2000n,
      0x8000_0000_0000_0001n,
      0x3001n,
    ]);
    expect([one.value(BV, 8), one.value(BV + 8, 8)]).toEqual([0x4000n, COMPACTED | 0x4000n]);
    expect([one.get('IA32_UINTR_MISC'), one.get('UIF')]).toEqual([7n, 1n]);
    const lost: State = {
      IA32_UINTR_HANDLER: 0n,
      IA32_UINTR_RR: 0n,
      UIF: 0n,
      IA32_UINTR_MISC: 0x31_0000_0000n,
    };
    expect(again(one, 'xrstors [rbx]', lost)).toMatchObject({ vector: 13, errorCode: 0 });
    expect(one.get('IA32_UINTR_HANDLER')).toBe(0n);
    expect(again(one, 'xrstors [rbx]', { ...lost, IA32_UINTR_MISC: 3n }).vector).toBeUndefined();
    for (const [name, value] of Object.entries(state)) expect(one.get(name as 'UIF'), name).toBe(value);
    // The initial configuration.
    one.store(BV, 8, 0n);
    expect(again(one, 'xrstors [rbx]').vector).toBeUndefined();
    for (const name of Object.keys(state)) expect(one.get(name as 'UIF'), name).toBe(0n);
    // Bits that WRMSR does not take.
    one.store(BV, 8, 0x4000n);
    one.store(AREA + 576 + 21, 1, 1n);
    expect(again(one, 'xrstors [rbx]')).toMatchObject({ vector: 13, errorCode: 0 });
  });
});
