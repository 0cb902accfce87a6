import { describe, expect, it } from 'vitest';
import { SingleInstruction, type State } from '../../support/single-instruction.ts';

const AREA = 0x4000;
const at = (address: number) => ({ RAX: BigInt(address) });
const SSE_ON: State = { CR0: 0x33n, CR4: 0x620n };
const TS = 8n;
const EM = 4n;
/** An unmasked invalid operation that is pending. */
const PENDING: State = { FCW: 0x37en, FSW: 0x8081n };

const run = (code: string, state: State) => new SingleInstruction().run(code, { ...SSE_ON, ...state });

describe('availability of SSE, MMX and x87 instructions', () => {
  it.each<[string, State, number]>([
    ['movaps xmm0, xmm1', { CR4: 0x420n }, 6],
    ['movaps xmm0, xmm1', { CR0: 0x33n | TS }, 7],
    ['ldmxcsr [rax]', { CR4: 0x420n }, 6],
    ['paddb mm0, mm1', { CR0: 0x33n | EM }, 6],
    ['paddb mm0, mm1', { CR0: 0x33n | TS }, 7],
    ['paddb mm0, mm1', PENDING, 16],
    ['movdq2q mm0, xmm1', PENDING, 16],
    ['fxsave [rax]', { CR0: 0x33n | EM, ...at(AREA) }, 7],
    ['fxsave [rax]', { CR0: 0x33n | TS, ...at(AREA) }, 7],
  ])('%s in %o raises vector %i', (code, state, vector) => {
    expect(run(code, state).vector).toBe(vector);
  });

  it('is asked before the operand in memory is looked at', () => {
    const state = { CR0: 0x33n | TS, RAX: 1n << 60n };
    expect(run('movaps xmm0, [rax]', state).vector).toBe(7);
    expect(run('movaps [rax], xmm0', state).vector).toBe(7);
  });

  it('does not need CR4.OSFXSR for MMX, and SSE does not see a pending x87 exception', () => {
    expect(run('paddb mm0, mm1', { CR4: 0n }).vector).toBeUndefined();
    expect(run('movaps xmm0, xmm1', PENDING).vector).toBeUndefined();
  });
});

describe('alignment of 16-byte operands', () => {
  it.each([
    'movaps xmm0, [rax]',
    'movaps [rax], xmm0',
    'paddb xmm0, [rax]',
    'movntdq [rax], xmm0',
    'fxsave [rax]',
    'fxrstor [rax]',
  ])('%s needs it', (code) => {
    expect(run(code, at(AREA + 8))).toMatchObject({ vector: 13, errorCode: 0 });
    expect(run(code, at(AREA)).vector).toBeUndefined();
  });

  it.each(['movups xmm0, [rax]', 'movdqu [rax], xmm0', 'paddb mm0, [rax]'])('%s does not', (code) => {
    expect(run(code, at(AREA + 1)).vector).toBeUndefined();
  });
});

describe('MMX registers', () => {
  it('are x87 significands: a write sets the exponent, the tags and TOP', () => {
    const one = new SingleInstruction();
    one.run('movq mm3, [rax]', { ...SSE_ON, ...at(AREA), FSW: 0x3a00n });
    expect(one.get('FPR3.exponent')).toBe(0xffffn);
    expect(one.get('FTW')).toBe(0n);
    expect(one.get('FSW')).toBe(0x200n);
    one.run('emms', { RIP: 0x1_0000n });
    expect(one.get('FTW')).toBe(0xffffn);
  });

  it('leave x87 state alone if their store faults', () => {
    const one = new SingleInstruction();
    const state = { ...SSE_ON, RAX: 1n << 60n, FSW: 0x3800n };
    expect(one.run('movq [rax], mm3', state).vector).toBe(13);
    expect(one.get('FTW')).toBe(0xffffn);
    expect(one.get('FSW')).toBe(0x3800n);
  });
});

describe('MASKMOVDQU', () => {
  it('stores the bytes whose mask is negative, at DS:RDI', () => {
    const one = new SingleInstruction();
    const data = 0x0807_0605_0403_0201n;
    one.run('maskmovdqu xmm1, xmm2', {
      ...SSE_ON,
      RDI: BigInt(AREA + 3),
      XMM1: data,
      XMM2: 0x80ff_7f00_8000_00ffn,
    });
    expect(one.bytes(AREA + 3, 10)).toEqual([1, 0, 0, 4, 0, 0, 7, 8, 0, 0]);
  });
});

describe('FXSAVE and FXRSTOR', () => {
  const filled = (bits: 32 | 64 = 64) => {
    const one = new SingleInstruction({ bits });
    one.machine.memory.writeBytes(AREA, new Uint8Array(512).fill(0xaa));
    one.set({ ...SSE_ON, ...at(AREA) });
    one.set({
      FCW: 0x27fn,
      FSW: 0x2841n,
      FTW: 0xff3fn,
      FOP: 0x123n,
      FIP: 0x1122_3344_5566n,
      FDP: 0x8877_6655_4433n,
      MXCSR: 0x1fa1n,
      'FPR5.significand': 0xabcdn,
      'FPR5.exponent': 0xc001n,
      XMM0: 7n,
      'XMM7.high': 77n,
      'XMM15.high': 0x1234n,
    });
    return one;
  };

  it('saves registers from ST0 on, and pointers of 64 bits with REX.W', () => {
    const one = filled();
    one.run('fxsave64 [rax]');
    expect(one.value(AREA, 4)).toBe(0x2841_027fn);
    expect(one.value(AREA + 4, 4)).toBe(0x0123_0008n);
    expect(one.value(AREA + 8, 8)).toBe(0x1122_3344_5566n);
    expect(one.value(AREA + 16, 8)).toBe(0x8877_6655_4433n);
    expect(one.value(AREA + 24, 8)).toBe(0xffff_0000_1fa1n);
    expect(one.value(AREA + 32, 16)).toBe((0xc001n << 64n) | 0xabcdn);
    expect(one.value(AREA + 160, 8)).toBe(7n);
    expect(one.value(AREA + 160 + 15 * 16 + 8, 8)).toBe(0x1234n);
    expect(one.value(AREA + 416, 1)).toBe(0xaan);
  });

  it('saves pointers of 32 bits without REX.W, and eight XMM registers outside 64-bit mode', () => {
    const one = filled(32);
    one.run('fxsave [eax]');
    expect(one.value(AREA + 8, 8)).toBe(0x3344_5566n);
    expect(one.value(AREA + 160 + 7 * 16 + 8, 8)).toBe(77n);
    expect(one.value(AREA + 160 + 8 * 16, 1)).toBe(0xaan);
  });

  it('restores what it saved', () => {
    const one = filled();
    one.run('fxsave64 [rax]');
    const names = ['FCW', 'FSW', 'FTW', 'FIP', 'MXCSR', 'FPR5.exponent', 'XMM0', 'XMM15.high'] as const;
    const before = names.map((name) => one.get(name));
    for (const name of names) one.set({ [name]: 0n });
    one.run('fxrstor64 [rax]', { RIP: 0x1_0000n });
    expect(names.map((name) => one.get(name))).toEqual(before);
  });

  it('raises #GP for reserved bits of MXCSR, with nothing restored', () => {
    const one = filled();
    one.run('fxsave64 [rax]');
    one.store(AREA + 24, 4, 0x1_1f80n);
    one.set({ XMM0: 5n });
    expect(one.run('fxrstor64 [rax]')).toMatchObject({ vector: 13, errorCode: 0 });
    expect(one.get('XMM0')).toBe(5n);
    one.store(AREA, 4, 0x1_1f80n);
    expect(one.run('ldmxcsr [rax]')).toMatchObject({ vector: 13, errorCode: 0 });
    expect(one.get('MXCSR')).toBe(0x1fa1n);
  });

  it('makes an exception that it unmasks pending', () => {
    const one = filled();
    one.set({ FSW: 1n });
    one.run('fxsave64 [rax]');
    one.store(AREA, 2, 0x37en);
    one.run('fxrstor64 [rax]');
    expect(one.get('FSW')).toBe(0x8081n);
  });
});
