import { describe, expect, it } from 'vitest';
import {
  type CetOptions,
  cetWorld,
  ENDBR_EN,
  ENDBR32,
  ENDBR64,
  LEG_IW_EN,
  NO_TRACK_EN,
  SUPPRESS,
  SUPPRESS_DIS,
  TRACKER,
} from '../../support/cet.ts';
import { CODE } from '../../support/code.ts';
import { delivered, gate, handler, Selector, setGate, type World } from '../../support/tables.ts';

/** Two bytes of branch to the instruction behind it. */
const branch = (code: string, options: CetOptions): World => {
  const w = cetWorld(code, { s: ENDBR_EN, ...options });
  w.cpu.set('RAX', BigInt(CODE + 2));
  return w;
};

describe('indirect-branch tracking', () => {
  it.each(['jmp rax', 'call rax'])('%s to another instruction than ENDBR64 raises #CP(3) there', (code) => {
    const w = branch(`${code}; nop`, {});
    w.cpu.run(1);
    expect([w.cpu.get('RIP'), w.cpu.get('IA32_S_CET')]).toEqual([BigInt(CODE + 2), ENDBR_EN | TRACKER]);
    w.cpu.run(1);
    expect(delivered(w)).toEqual({ vector: 21, errorCode: 3, rip: CODE + 2 });
  });

  it.each(['jmp eax', 'call eax'])('%s in 32-bit code wants ENDBR32', (code) => {
    const w = branch(`${code}; ${ENDBR32}; nop`, { bits: 32 });
    w.cpu.run(3);
    expect([w.cpu.get('RIP'), w.cpu.get('IA32_S_CET')]).toEqual([BigInt(CODE + 7), ENDBR_EN]);
    const wrong = branch(`${code}; ${ENDBR64}`, { bits: 32 });
    wrong.cpu.run(2);
    expect(delivered(wrong)).toEqual({ vector: 21, errorCode: 3, rip: CODE + 2 });
  });

  it('ENDBR64 ends the wait; a program of many branches runs whatever the pieces', () => {
    const code = `lea rax, [rip + there]; jmp rax; nop; there: ${ENDBR64}; inc ebx; cmp ebx, 5; jne again
      hlt; again: jmp rax`;
    for (const piece of [1, 1000]) {
      const w = cetWorld(code, { s: ENDBR_EN });
      w.cpu.set('RBX', 0n);
      for (let n = 0; n < 60; n += piece) w.cpu.run(piece);
      expect([w.cpu.get('RBX'), w.cpu.get('IA32_S_CET')]).toEqual([5n, ENDBR_EN]);
      expect(w.machine.memory.read8(Number(w.cpu.get('RIP')) - 1)).toBe(0xf4);
    }
  });

  it('direct branches, RET and Jcc are not tracked', () => {
    const w = branch('jmp there; nop; there: call here; here: ret', {});
    w.cpu.run(3);
    expect(w.cpu.get('IA32_S_CET')).toBe(ENDBR_EN);
  });

  it('is that of IA32_U_CET at CPL 3', () => {
    const w = branch('jmp rax; nop', { ring: 3, s: 0n, u: ENDBR_EN });
    w.cpu.run(2);
    expect(delivered(w)).toMatchObject({ vector: 21, errorCode: 3 });
    expect(w.cpu.get('IA32_U_CET')).toBe(ENDBR_EN | TRACKER);
    const off = branch('jmp rax; nop', { ring: 3, s: ENDBR_EN, u: 0n });
    off.cpu.run(2);
    expect(off.cpu.get('RIP')).toBe(BigInt(CODE + 3));
  });

  it('comes before #UD and after a code breakpoint', () => {
    const w = branch('jmp rax; ud2', {});
    w.cpu.run(2);
    expect(delivered(w).vector).toBe(21);
    const broken = branch('jmp rax; nop', {});
    broken.cpu.set('DR0', BigInt(CODE + 2));
    broken.cpu.set('DR7', 0x401n | 1n);
    broken.cpu.run(2);
    expect(delivered(broken).vector).toBe(1);
  });

  it.each([
    ['INT3', 'int3', 3],
    ['INT1', '.byte 0xf1', 1],
  ])('%s is delivered, and the user tracker goes on waiting', (_, code, vector) => {
    const w = branch(`jmp rax; ${code}`, { ring: 3, s: 0n, u: ENDBR_EN });
    setGate(w, vector, gate(Selector.Code0, handler(vector), 0xee));
    w.cpu.run(2);
    expect(delivered(w).vector).toBe(vector);
    expect(w.cpu.get('IA32_U_CET')).toBe(ENDBR_EN | TRACKER);
  });

  it('events and far branches lead to an ENDBRANCH too, also where tracking was suppressed', () => {
    const w = cetWorld('int 0x40', { s: ENDBR_EN | SUPPRESS });
    w.cpu.run(1);
    expect(w.cpu.get('IA32_S_CET')).toBe(ENDBR_EN | TRACKER);
    w.machine.memory.writeBytes(handler(0x40), Uint8Array.from([0xf3, 0x0f, 0x1e, 0xfa, 0x48, 0xcf]));
    w.cpu.run(2);
    expect([w.cpu.get('RIP'), w.cpu.get('IA32_S_CET')]).toEqual([BigInt(CODE + 2), ENDBR_EN]);
    const far = cetWorld(Uint8Array.from([0xea, 7, 0, 1, 0, Selector.Code0, 0, 0x90]), {
      s: ENDBR_EN | SUPPRESS,
      bits: 32,
    });
    far.cpu.run(2);
    expect(delivered(far)).toEqual({ vector: 21, errorCode: 3, rip: CODE + 7 });
  });

  it('an event between branch and target leaves a user tracker waiting for what IRET returns to', () => {
    const w = branch('jmp rax; nop', { ring: 3, s: 0n, u: ENDBR_EN });
    w.machine.memory.writeBytes(handler(2), Uint8Array.from([0x48, 0xcf]));
    w.cpu.run(1);
    w.cpu.processor.requestNmi();
    w.cpu.run(2);
    expect([w.cpu.cpl, w.cpu.get('RIP')]).toEqual([3, BigInt(CODE + 2)]);
    w.cpu.run(1);
    expect(delivered(w)).toMatchObject({ vector: 21, errorCode: 3 });
  });
});

describe('a tracker that waits', () => {
  it('is in snapshots, and waits where one is restored', () => {
    const w = branch('jmp rax; nop', {});
    w.cpu.run(1);
    const other = cetWorld('nop; nop; nop', {});
    other.cpu.restore(w.cpu.snapshot());
    other.cpu.run(1);
    expect(delivered(other)).toEqual({ vector: 21, errorCode: 3, rip: CODE + 2 });
  });

  it('comes after the faults of fetching', () => {
    const w = branch('jmp eax; nop', { bits: 32 });
    w.cpu.run(1);
    w.cpu.set('CS.limit', BigInt(CODE + 1));
    w.cpu.run(1);
    expect(delivered(w)).toEqual({ vector: 13, errorCode: 0, rip: CODE + 2 });
  });
});

describe('no-track prefix', () => {
  const after = (bytes: number[], options: CetOptions) => {
    const w = cetWorld(Uint8Array.from(bytes), options);
    w.cpu.set('RAX', BigInt(CODE));
    w.cpu.run(1);
    return w.cpu.get('IA32_S_CET') & TRACKER;
  };
  const s = ENDBR_EN | NO_TRACK_EN;

  it.each([
    ['3E', [0x3e, 0xff, 0xe0], { s }, 0n],
    ['3E on CALL', [0x3e, 0xff, 0xd0], { s }, 0n],
    ['3E without NO_TRACK_EN', [0x3e, 0xff, 0xe0], { s: ENDBR_EN }, TRACKER],
    ['3E with 64 in 64-bit mode', [0x3e, 0x64, 0xff, 0xe0], { s }, TRACKER],
    ['3E before 2E in 64-bit mode', [0x3e, 0x2e, 0xff, 0xe0], { s }, 0n],
    ['3E before 2E in 32-bit mode', [0x3e, 0x2e, 0xff, 0xe0], { s, bits: 32 }, TRACKER],
    ['3E after 2E in 32-bit mode', [0x2e, 0x3e, 0xff, 0xe0], { s, bits: 32 }, 0n],
    ['no prefix', [0xff, 0xe0], { s }, TRACKER],
  ] as const)('%s', (_, bytes, options, tracker) => {
    expect(after([...bytes], options)).toBe(tracker);
  });
});

describe('legacy compatibility treatment', () => {
  const BITMAP = 0x5000n;
  const legacy = (page: boolean, more = 0n) => {
    const w = branch('jmp rax; nop; nop', { s: BITMAP | ENDBR_EN | LEG_IW_EN | more });
    // Page 10H: bit 0 of byte 2.
    w.machine.memory.write8(Number(BITMAP) + 2, page ? 1 : 0xfe);
    w.cpu.run(2);
    return w;
  };

  it('lets branches go to legacy pages, and suppresses tracking from then on', () => {
    const w = legacy(true);
    expect([w.cpu.get('RIP'), w.cpu.get('IA32_S_CET') & 0xfffn]).toEqual([
      BigInt(CODE + 3),
      ENDBR_EN | LEG_IW_EN | SUPPRESS,
    ]);
    w.cpu.set('RIP', BigInt(CODE));
    w.cpu.run(1);
    expect(w.cpu.get('IA32_S_CET') & TRACKER).toBe(0n);
  });

  it('does not suppress it with SUPPRESS_DIS', () => {
    expect(legacy(true, SUPPRESS_DIS).cpu.get('IA32_S_CET') & (SUPPRESS | TRACKER)).toBe(0n);
  });

  it('raises #CP(3) for other pages', () => {
    const w = legacy(false);
    expect(delivered(w)).toEqual({ vector: 21, errorCode: 3, rip: CODE + 2 });
  });

  it('an ENDBRANCH ends suppression', () => {
    const w = cetWorld(ENDBR64, { s: ENDBR_EN | SUPPRESS });
    w.cpu.run(1);
    expect(w.cpu.get('IA32_S_CET')).toBe(ENDBR_EN);
  });

  it('raises #GP(0) for a bitmap beyond canonical addresses, with the tracker as it was', () => {
    const w = branch('jmp rax; nop', { s: 0x7fff_ffff_f000n | ENDBR_EN | LEG_IW_EN, ring: 0 });
    w.cpu.set('IA32_S_CET', 0x00ff_ffff_ffff_f000n | ENDBR_EN | LEG_IW_EN);
    w.cpu.run(2);
    expect(delivered(w)).toMatchObject({ vector: 13, errorCode: 0, rip: CODE + 2 });
  });
});
