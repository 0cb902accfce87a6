import { describe, expect, it } from 'vitest';
import { cetWorld, SH_STK_EN, SHADOW_TOP, shadowItems } from '../../support/cet.ts';
import { CODE, STACK_TOP } from '../../support/code.ts';
import { delivered, stackItems } from '../../support/tables.ts';

const ENABLED = { s: SH_STK_EN };

describe('near CALL with a shadow stack', () => {
  it('pushes the return address on both stacks, 8 bytes in 64-bit mode', () => {
    const w = cetWorld('call there; nop; there: nop', ENABLED);
    w.cpu.run(1);
    expect(w.cpu.get('RIP')).toBe(BigInt(CODE + 6));
    expect(stackItems(w, 1, 8)).toEqual([CODE + 5]);
    expect(w.cpu.get('SSP')).toBe(BigInt(SHADOW_TOP - 8));
    expect(shadowItems(w, 1)).toEqual([CODE + 5]);
  });

  it('pushes 4 bytes in 32-bit mode, IP with zeros for an operand of 16 bits', () => {
    const w = cetWorld('call there; nop; there: nop', { ...ENABLED, bits: 32 });
    w.cpu.run(1);
    expect(w.cpu.get('SSP')).toBe(BigInt(SHADOW_TOP - 4));
    expect(shadowItems(w, 1, 4)).toEqual([CODE + 5]);
    const short = cetWorld(Uint8Array.from([0x66, 0xe8, 0x10, 0x00]), { ...ENABLED, bits: 32 });
    short.cpu.run(1);
    expect(shadowItems(short, 1, 4)).toEqual([(CODE + 4) & 0xffff]);
    expect(stackItems(short, 1, 2)).toEqual([(CODE + 4) & 0xffff]);
  });

  it('of the next instruction pushes on the data stack alone', () => {
    const w = cetWorld(Uint8Array.from([0xe8, 0, 0, 0, 0]), ENABLED);
    w.cpu.run(1);
    expect(stackItems(w, 1, 8)).toEqual([CODE + 5]);
    expect(w.cpu.get('SSP')).toBe(BigInt(SHADOW_TOP));
  });

  it('through a register or memory always pushes', () => {
    for (const code of ['call rax', 'call [rbx]']) {
      const w = cetWorld(code, ENABLED);
      w.cpu.set('RAX', BigInt(CODE + 2));
      w.cpu.set('RBX', 0x5000n);
      w.machine.memory.write64(0x5000, BigInt(CODE + 2));
      w.cpu.run(1);
      expect([code, w.cpu.get('RIP')]).toEqual([code, BigInt(CODE + 2)]);
      expect(shadowItems(w, 1)).toEqual([CODE + 2]);
    }
  });

  it.each([
    ['CR4.CET is 0', { CR4: 0x2020n }],
    ['SH_STK_EN is 0', { IA32_S_CET: 0n }],
  ] as const)('does not where %s', (_, state) => {
    const w = cetWorld('call there; nop; there: nop', ENABLED);
    for (const [name, value] of Object.entries(state)) w.cpu.set(name as 'CR4', value);
    w.cpu.run(1);
    expect(w.cpu.get('SSP')).toBe(BigInt(SHADOW_TOP));
    expect(w.cpu.get('RSP')).toBe(BigInt(STACK_TOP - 8));
  });

  it('is enabled by IA32_U_CET at CPL 3, by IA32_S_CET below', () => {
    for (const [ring, s, u, pushes] of [
      [3, 0n, 1n, true],
      [3, 1n, 0n, false],
      [1, 1n, 0n, true],
      [1, 0n, 1n, false],
    ] as const) {
      const w = cetWorld('call there; nop; there: nop', { ring, s, u });
      w.cpu.run(1);
      expect([ring, s, w.cpu.get('SSP') !== BigInt(SHADOW_TOP)]).toEqual([ring, s, pushes]);
    }
  });

  it('follows WRMSR at once', () => {
    const w = cetWorld('mov ecx, 0x6a2; mov eax, 1; xor edx, edx; wrmsr; call there; nop; there: nop');
    w.cpu.run(5);
    expect(w.cpu.get('SSP')).toBe(BigInt(SHADOW_TOP - 8));
  });

  it('raises #GP(0) where the shadow stack is not canonical, with RSP and SSP unchanged', () => {
    const w = cetWorld('call there; nop; there: nop', { ring: 3, u: SH_STK_EN });
    w.cpu.set('SSP', 0xffff_8000_0000_0000n);
    w.cpu.run(1);
    expect(delivered(w)).toEqual({ vector: 13, errorCode: 0, rip: CODE });
    expect(stackItems(w, 5, 8)[4]).toBe(STACK_TOP);
    expect(w.cpu.get('IA32_PL3_SSP')).toBe(0xffff_8000_0000_0000n);
  });
});

describe('near RET with a shadow stack', () => {
  it('returns where both stacks agree, and pops both', () => {
    for (const bits of [32, 64] as const) {
      const w = cetWorld('call there; nop; there: ret 16', { ...ENABLED, bits });
      w.cpu.run(2);
      expect(w.cpu.get('RIP')).toBe(BigInt(CODE + 5));
      expect(w.cpu.get('SSP')).toBe(BigInt(SHADOW_TOP));
      expect(w.cpu.get('RSP')).toBe(BigInt(STACK_TOP + 16));
    }
  });

  it('raises #CP(1) at the RET where they do not, with both pointers unchanged', () => {
    const w = cetWorld('call there; nop; there: inc byte ptr [rsp]; ret', ENABLED);
    w.cpu.run(2);
    const before = [w.cpu.get('RSP'), w.cpu.get('SSP')];
    w.cpu.run(1);
    expect(delivered(w)).toEqual({ vector: 21, errorCode: 1, rip: CODE + 9 });
    // The event itself pushed a frame of 24 bytes on the shadow stack.
    expect(stackItems(w, 5, 8)[4]).toBe(Number(before[0]));
    expect(shadowItems(w, 1)).toEqual([Number(before[1])]);
  });

  it('compares all 64 bits, of an operand of 32 bits 32', () => {
    const w = cetWorld('ret', ENABLED);
    w.machine.memory.write64(STACK_TOP, BigInt(CODE));
    w.machine.memory.write64(SHADOW_TOP, BigInt(CODE) | (1n << 63n));
    w.cpu.run(1);
    expect(delivered(w)).toMatchObject({ vector: 21, errorCode: 1 });
    const legacy = cetWorld('ret', { ...ENABLED, bits: 32 });
    legacy.machine.memory.write64(STACK_TOP, BigInt(CODE));
    legacy.machine.memory.write64(SHADOW_TOP, BigInt(CODE) | (1n << 63n));
    legacy.cpu.run(1);
    expect(legacy.cpu.get('RIP')).toBe(BigInt(CODE));
    expect(legacy.cpu.get('SSP')).toBe(BigInt(SHADOW_TOP + 4));
  });
});
