import { describe, expect, it } from 'vitest';
import { SingleInstruction, type State } from '../../support/single-instruction.ts';

const STACK = 0x8000;
const RF = 1 << 16;
const AC = 1 << 18;
const VIF = 1 << 19;
const VIP = 1 << 20;
const ID = 1 << 21;
const IOPL3 = 3 << 12;
const IF = 0x200;
const TF = 0x100;
const NT = 0x4000;

/** Virtual-8086 mode with `iopl` and CR4.VME. */
function virtual8086(flags: number, vme: boolean): SingleInstruction {
  const one = new SingleInstruction({ bits: 16 });
  one.set({
    CR0: 0x11n,
    CR4: vme ? 1n : 0n,
    'SS.accessRights': 0xf3n,
    'CS.accessRights': 0xf3n,
    RFLAGS: BigInt(2 | (1 << 17) | flags),
    RSP: BigInt(STACK),
  });
  return one;
}

/** 32-bit code at CPL 3. */
function user(state: State): SingleInstruction {
  const one = new SingleInstruction({ bits: 32 });
  one.set({ 'SS.accessRights': 0xc0f3n, RSP: BigInt(STACK), ...state });
  return one;
}

const pushed = (one: SingleInstruction, bytes: number) => Number(one.value(STACK - bytes, bytes));

describe('PUSHF', () => {
  it('pushes all flags but RF and VM', () => {
    const one = new SingleInstruction();
    const flags = 0x8d7 | AC | ID | RF | VIF;
    one.run('pushfq', { RSP: BigInt(STACK), RFLAGS: BigInt(flags) });
    expect(pushed(one, 8)).toBe(flags & ~RF);
  });

  it('pushes flags that were computed a moment ago', () => {
    const one = new SingleInstruction();
    one.set({ RSP: BigInt(STACK), RAX: 1n });
    one.run('sub eax, eax');
    one.run('pushfq', { RIP: 0x1_0000n });
    expect(pushed(one, 8) & 0x8d5).toBe(0x44);
  });

  it('pushes VIF as IF and an IOPL of 3 with CR4.VME', () => {
    const one = virtual8086(VIF, true);
    one.run('pushf');
    expect(pushed(one, 2)).toBe(2 | IF | IOPL3);
    const clear = virtual8086(IF, true);
    clear.run('pushf');
    expect(pushed(clear, 2)).toBe(2 | IOPL3);
  });

  it.each([
    ['without CR4.VME', false, 'pushf'],
    ['of 32 bits', true, 'pushfd'],
  ] as const)('%s is #GP(0) in virtual-8086 mode with an IOPL below 3', (_, vme, code) => {
    const one = virtual8086(0, vme);
    const bytes = Uint8Array.from(code === 'pushf' ? [0x9c] : [0x66, 0x9c]);
    expect(one.run(bytes)).toMatchObject({ vector: 13, errorCode: 0 });
    expect(virtual8086(IOPL3, vme).run(bytes).vector).toBeUndefined();
  });
});

describe('POPF', () => {
  const all = 0x3f_7fd5 & ~(1 << 17);
  const popped = (one: SingleInstruction, code: string, value: number) => {
    one.store(STACK, 8, BigInt(value));
    const result = one.run(code);
    expect(result.vector).toBeUndefined();
    return one.flags();
  };

  it('sets all but VM, VIF, VIP and RF at CPL 0', () => {
    const one = new SingleInstruction();
    one.set({ RSP: BigInt(STACK), RFLAGS: 2n });
    expect(popped(one, 'popfq', all)).toBe(2 | (all & ~(VIF | VIP | RF)));
    expect(one.get('RSP')).toBe(BigInt(STACK + 8));
  });

  it('keeps the upper half with 16 bits', () => {
    const one = new SingleInstruction();
    one.set({ RSP: BigInt(STACK), RFLAGS: BigInt(2 | AC) });
    expect(popped(one, 'popf', ID | 1)).toBe(3 | AC);
  });

  it('keeps IF and IOPL at a CPL above IOPL', () => {
    const one = user({ RFLAGS: BigInt(2 | IF) });
    expect(popped(one, 'popfd', IOPL3 | NT)).toBe(2 | IF | NT);
  });

  it('sets IF but not IOPL at a CPL of 3 with IOPL 3', () => {
    const one = user({ RFLAGS: BigInt(2 | IF | IOPL3) });
    expect(popped(one, 'popfd', 0)).toBe(2 | IOPL3);
  });

  it('switches alignment checking with AC', () => {
    const one = user({ CR0: (1n << 18n) | 0x11n, RFLAGS: 2n });
    popped(one, 'popfd', AC);
    expect(one.cpu.alignmentChecked).toBe(true);
  });

  it('moves IF to VIF in virtual-8086 mode with CR4.VME', () => {
    const one = virtual8086(0, true);
    expect(popped(one, 'popf', IF | IOPL3 | 1)).toBe(2 | (1 << 17) | VIF | 1);
  });

  it.each([
    ['without CR4.VME', 0, false, 2, false],
    ['that sets TF', 0, true, TF | 2, false],
    ['that sets IF while VIP', VIP, true, IF | 2, false],
    ['that clears IF while VIP', VIP, true, 2, true],
  ] as const)('%s in virtual-8086 mode', (_, flags, vme, value, works) => {
    const one = virtual8086(flags, vme);
    one.store(STACK, 2, BigInt(value));
    const result = one.run('popf');
    expect(result.vector).toBe(works ? undefined : 13);
    expect(one.get('RSP')).toBe(BigInt(works ? STACK + 2 : STACK));
  });
});

describe('single flags', () => {
  it.each([
    ['clc', 0x8d7, 0x8d6],
    ['stc', 2, 3],
    ['cmc', 2, 3],
    ['cmc', 3, 2],
    ['cld', 0xc02, 0x802],
    ['std', 0x802, 0xc02],
  ])('%s', (code, before, after) => {
    const one = new SingleInstruction();
    one.run(code, { RFLAGS: BigInt(before) });
    expect(one.flags()).toBe(after);
  });

  it('LAHF and SAHF move the low byte', () => {
    const one = new SingleInstruction();
    one.run('lahf', { RAX: 0xffff_0012n, RFLAGS: 0x8d7n });
    expect(one.get('RAX')).toBe(0xffff_d712n);
    one.run('sahf', { RAX: 0xff00n, RFLAGS: 2n });
    expect(one.flags()).toBe(0xd7);
    one.run('sahf', { RAX: 0n, RFLAGS: 0x8d7n });
    expect(one.flags()).toBe(0x802);
  });
});
