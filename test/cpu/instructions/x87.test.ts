import { describe, expect, it } from 'vitest';
import { SingleInstruction, type State } from '../../support/single-instruction.ts';

const AREA = 0x4000;
const ON: State = { CR0: 0x33n, CR4: 0x620n, RAX: BigInt(AREA) };
const ONE = 1n << 63n;

/** Executes `codes` one after another. */
function run(codes: readonly string[], state: State = {}, bits: 16 | 32 | 64 = 64): SingleInstruction {
  const one = new SingleInstruction({ bits });
  one.set({ ...ON, ...state });
  for (const code of codes) expect(one.run(code, { RIP: 0x1_0000n }).vector).toBeUndefined();
  return one;
}

describe('the probe of an operating system for an x87 unit', () => {
  it('finds 0 in FSW and 37FH in FCW after FNINIT', () => {
    const one = run(['fninit', 'fnstsw [rax]', 'fnstcw [rax+2]'], { FSW: 0x5a5an });
    expect(one.value(AREA, 4)).toBe(0x037f_0000n);
    expect(run(['fninit', 'fnstsw ax'], { FSW: 0x5a5an }).get('RAX')).toBe(BigInt(AREA & 0xffff_0000));
  });
});

describe('the register stack', () => {
  it('counts down with loads, and ST(i) follows', () => {
    const one = run(['fninit', 'fld1', 'fldz', 'fxch st(1)']);
    expect(one.get('FSW')).toBe(0x3000n);
    expect(one.get('FTW')).toBe(0x0fffn);
    expect([one.get('FPR6.significand'), one.get('FPR6.exponent')]).toEqual([ONE, 0x3fffn]);
  });

  it('underflows into the indefinite, and overflows with C1', () => {
    const under = run(['fninit', 'fadd st(0), st(1)']);
    expect(under.get('FSW')).toBe(0x41n);
    expect(under.get('FPR0.exponent')).toBe(0xffffn);
    const over = run(['fninit', ...Array.from({ length: 9 }, () => 'fld1')]);
    expect(over.get('FSW')).toBe(0x3a41n);
    expect(over.get('FPR7.significand')).toBe(3n << 62n);
  });

  it('keeps operands and TOP if the fault is unmasked, which the next waiting instruction reports', () => {
    const one = run(['fninit', 'fldcw [rax]', 'fld st(3)'], {});
    expect(one.get('FSW')).toBe(0x80c1n);
    expect(one.run('fwait').vector).toBe(16);
    expect(one.run('fnstsw ax').vector).toBeUndefined();
    one.set({ CR0: 0x13n });
    expect(one.run('fld1').vector).toBeUndefined();
  });
});

describe('80-bit precision', () => {
  it('is that of FCW.PC, and results are rounded as FCW.RC says', () => {
    const third = (control: bigint) => {
      const one = new SingleInstruction();
      one.store(AREA, 2, control);
      one.store(AREA + 4, 4, 3n);
      one.set(ON);
      for (const code of ['fninit', 'fldcw [rax]', 'fld1', 'fidiv dword ptr [rax+4]'])
        one.run(code, { RIP: 0x1_0000n });
      return one.get('FPR7.significand');
    };
    expect(third(0x37fn)).toBe(0xaaaa_aaaa_aaaa_aaabn);
    expect(third(0x77fn)).toBe(0xaaaa_aaaa_aaaa_aaaan);
    expect(third(0x27fn)).toBe(0xaaaa_aaaa_aaaa_a800n);
    expect(third(0x07fn)).toBe(0xaaaa_ab00_0000_0000n);
  });

  it('stores no result and pops nothing if the store faults', () => {
    const one = run(['fninit', 'fld1']);
    const before = one.get('FSW');
    expect(one.run('fstp qword ptr [rax]', { RAX: 1n << 60n }).vector).toBe(13);
    expect(one.get('FSW')).toBe(before);
    expect(one.get('FTW')).toBe(0x3fffn);
  });
});

describe('environments', () => {
  const state: State = {
    FSW: 0x3800n,
    FTW: 0x3fffn,
    FOP: 0x123n,
    FIP: 0xabcd_1234n,
    FDP: 0x5678_9abcn,
    FCW: 0x372n,
  };

  it('have words of 32 bits in protected mode, and FNSTENV masks all exceptions', () => {
    const one = run(['fnstenv [eax]'], { ...state, 'FPR7.significand': ONE, 'FPR7.exponent': 0x3fffn }, 32);
    const words = [0, 1, 2, 3, 4, 5, 6].map((n) => one.value(AREA + 4 * n, 4));
    expect(words).toEqual([
      0xffff_0372n,
      0xffff_3800n,
      0xffff_3fffn,
      0xabcd_1234n,
      0x0123_0000n,
      0x5678_9abcn,
      0xffff_0000n,
    ]);
    expect(one.get('FCW')).toBe(0x37fn);
  });

  it('have words of 16 bits with linear addresses in real-address mode', () => {
    const one = run(
      ['fnstenv [bx]'],
      { ...state, CR0: 0x32n, RBX: BigInt(AREA), FIP: 0xb_1234n, FDP: 0xc_9abcn },
      16,
    );
    const words = [3, 4, 5, 6].map((n) => one.value(AREA + 2 * n, 2));
    expect(words).toEqual([0x1234n, 0xb123n, 0x9abcn, 0xc000n]);
  });

  it('return with FRSTOR as FNSAVE saved them, after which the unit is as after FNINIT', () => {
    const one = run(['fninit', 'fld1', 'fldpi', 'fnsave [rax]']);
    expect([one.get('FSW'), one.get('FTW'), one.get('FCW')]).toEqual([0n, 0xffffn, 0x37fn]);
    one.set({ 'FPR6.significand': 0n });
    one.run('frstor [rax]', { RIP: 0x1_0000n });
    expect([one.get('FSW'), one.get('FTW'), one.get('FPR6.significand')]).toEqual([
      0x3000n,
      0x0fffn,
      0xc90f_daa2_2168_c235n,
    ]);
    expect(one.bytes(AREA + 108, 1)).toEqual([0]);
  });
});

describe('pointers', () => {
  it('are those of the last instruction that is no control instruction', () => {
    const one = run(['fninit', 'fld dword ptr [rax+8]', 'fnstcw [rax]']);
    expect(one.get('FIP')).toBe(0x1_0000n);
    expect(one.get('FDP')).toBe(BigInt(AREA + 8));
    expect(one.get('FOP')).toBe(0n);
  });
});
