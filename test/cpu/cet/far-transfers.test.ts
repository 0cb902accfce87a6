import { describe, expect, it } from 'vitest';
import {
  type CetOptions,
  cetWorld,
  SH_STK_EN,
  SHADOW_TOP,
  SSP_TABLE,
  shadowItems,
  TOKEN_IST,
  TOKEN0,
  TOKEN1,
} from '../../support/cet.ts';
import { CODE, STACK_TOP } from '../../support/code.ts';
import {
  delivered,
  enterVirtual8086,
  gate,
  handler,
  IDT,
  Selector,
  STACK0,
  setDescriptor,
  setGate,
  type World,
} from '../../support/tables.ts';

const BUSY = 1n;
const IRETQ = [0x48, 0xcf];
const RETFQ = [0x48, 0xcb];
const both = { s: SH_STK_EN, u: SH_STK_EN };

const at = (w: World, address: number, ...bytes: number[]) =>
  w.machine.memory.writeBytes(address, Uint8Array.from(bytes));
const token = (w: World, address: number) => w.machine.memory.read64(address);
const farCall = (selector: number, offset: number) =>
  Uint8Array.from([
    0x9a,
    offset & 0xff,
    (offset >> 8) & 0xff,
    offset >> 16,
    0,
    selector & 0xff,
    selector >> 8,
  ]);
/** `CALL` through the far pointer at 5000H, with a 64-bit offset. */
const CALL_M1664 = Uint8Array.from([0x48, 0xff, 0x1c, 0x25, 0, 0x50, 0, 0]);

function started(
  code: string | Uint8Array,
  options: CetOptions,
  prepare: (w: World) => void = () => {},
): World {
  const w = cetWorld(code, options);
  prepare(w);
  w.cpu.run(1);
  return w;
}

describe('far CALL and RET at one privilege level', () => {
  it('push CS, linear return address and SSP, and pop them', () => {
    const w = started(farCall(Selector.Code0, 0x1_0100), { ...both, bits: 32 });
    expect(shadowItems(w, 3)).toEqual([SHADOW_TOP, CODE + 7, Selector.Code0]);
    at(w, 0x1_0100, 0xcb);
    w.cpu.run(1);
    expect([w.cpu.get('RIP'), w.cpu.get('SSP')]).toEqual([BigInt(CODE + 7), BigInt(SHADOW_TOP)]);
  });

  it('align the frame, with a hole of zeros above it', () => {
    const w = started(farCall(Selector.Code0, 0x1_0100), { ...both, bits: 32 }, (x) => {
      x.cpu.set('SSP', BigInt(SHADOW_TOP + 4));
      x.machine.memory.write32(SHADOW_TOP, 0xffff_ffff);
    });
    expect(w.cpu.get('SSP')).toBe(BigInt(SHADOW_TOP - 24));
    expect(shadowItems(w, 4)).toEqual([SHADOW_TOP + 4, CODE + 7, Selector.Code0, 0]);
  });

  it('use 16 bits of the selector and the base of CS', () => {
    const w = started(Uint8Array.from([0x9a, 0x00, 0x02, Selector.Code16, 0]), { ...both, bits: 32 }, (x) => {
      x.cpu.set('CS.selector', BigInt(Selector.Code16));
      x.cpu.set('CS.base', 0x1_0000n);
      x.cpu.set('CS.limit', 0xffffn);
      x.cpu.set('CS.accessRights', 0x9bn);
      x.cpu.set('RIP', 0n);
    });
    expect(shadowItems(w, 3)).toEqual([SHADOW_TOP, CODE + 5, Selector.Code16]);
    at(w, 0x1_0200, 0xcb);
    w.cpu.run(1);
    expect([w.cpu.get('RIP'), w.cpu.get('SSP')]).toEqual([5n, BigInt(SHADOW_TOP)]);
  });

  it.each([
    ['CS', 16, 0x1_0000_0000_0010n],
    ['the linear address', 8, 1n],
    ['SSP that is not aligned', 0, BigInt(SHADOW_TOP) | 2n],
  ])('RET raises #CP(2) for another %s', (_, offset, value) => {
    const w = started(farCall(Selector.Code0, 0x1_0100), { ...both, bits: 32 });
    at(w, 0x1_0100, 0xcb);
    w.machine.memory.write64(Number(w.cpu.get('SSP')) + offset, value);
    w.cpu.run(1);
    expect(delivered(w)).toMatchObject({ vector: 21, errorCode: 2, rip: 0x1_0100 });
  });

  it('RET raises #CP(2) for a frame that is not aligned, #GP(0) for SSP above 4 GBytes', () => {
    const odd = started(farCall(Selector.Code0, 0x1_0100), { ...both, bits: 32 });
    at(odd, 0x1_0100, 0xcb);
    odd.cpu.set('SSP', odd.cpu.get('SSP') + 4n);
    odd.cpu.run(1);
    expect(delivered(odd)).toMatchObject({ vector: 21, errorCode: 2 });
    const high = started(farCall(Selector.Code0, 0x1_0100), { ...both, bits: 32 });
    at(high, 0x1_0100, 0xcb);
    high.machine.memory.write64(Number(high.cpu.get('SSP')), 0x1_0000_0000n);
    high.cpu.run(1);
    expect(delivered(high)).toMatchObject({ vector: 13, errorCode: 0, rip: 0x1_0100 });
  });

  it('CALL and JMP to compatibility mode need SSP below 4 GBytes', () => {
    for (const digit of [0x1c, 0x2c]) {
      const w = started(Uint8Array.from([0xff, digit, 0x25, 0, 0x50, 0, 0]), { ...both, ring: 3 }, (x) => {
        x.machine.memory.write32(0x5000, 0x1_0100);
        x.machine.memory.write16(0x5004, Selector.Code32Ring3);
        x.cpu.set('SSP', 0x1_0000_0000n);
      });
      expect(delivered(w)).toMatchObject({ vector: 13, errorCode: 0, rip: CODE });
    }
  });
});

describe('shadow stacks of more privilege', () => {
  const throughGate = (prepare: (w: World) => void = () => {}, options: CetOptions = {}) =>
    started(CALL_M1664, { ...both, ring: 3, ...options }, (x) => {
      setDescriptor(x, Selector.Free, gate(Selector.Code0, 0x1_0100, 0xec), 0n);
      x.machine.memory.write16(0x5008, Selector.Free | 3);
      prepare(x);
    });

  it('CALL from CPL 3 takes that of IA32_PL0_SSP, busy then, without a frame; RET frees it', () => {
    const w = throughGate((x) => x.cpu.set('SSP', BigInt(SHADOW_TOP - 8)));
    expect([w.cpu.cpl, w.cpu.get('SSP')]).toEqual([0, BigInt(TOKEN0)]);
    expect(token(w, TOKEN0)).toBe(BigInt(TOKEN0) | BUSY);
    expect(w.cpu.get('IA32_PL3_SSP')).toBe(BigInt(SHADOW_TOP - 8));
    at(w, 0x1_0100, ...RETFQ);
    w.cpu.run(1);
    expect([w.cpu.cpl, w.cpu.get('SSP')]).toEqual([3, BigInt(SHADOW_TOP - 8)]);
    expect(token(w, TOKEN0)).toBe(BigInt(TOKEN0));
  });

  it('CALL from CPL 1 pushes a frame there, which RET checks', () => {
    const w = throughGate(() => {}, { ring: 1 });
    expect(w.cpu.get('SSP')).toBe(BigInt(TOKEN0 - 24));
    expect(shadowItems(w, 3)).toEqual([SHADOW_TOP, CODE + 8, Selector.Code1]);
    at(w, 0x1_0100, ...RETFQ);
    w.cpu.run(1);
    expect([w.cpu.cpl, w.cpu.get('SSP'), token(w, TOKEN0)]).toEqual([1, BigInt(SHADOW_TOP), BigInt(TOKEN0)]);
  });

  it('IA32_PL3_SSP keeps the linear-address width of SSP', () => {
    const w = throughGate((x) => x.cpu.set('SSP', 0x00ff_ffff_ffff_fff8n));
    const width = w.cpu.processor.features.linearAddressBits;
    const expected = width === 57 ? 0x00ff_ffff_ffff_fff8n : 0xffff_ffff_ffff_fff8n;
    expect(w.cpu.get('IA32_PL3_SSP')).toBe(BigInt.asUintN(64, BigInt.asIntN(width, expected)));
  });

  it.each([
    ['a busy token', (x: World) => x.machine.memory.write64(TOKEN0, BigInt(TOKEN0) | BUSY)],
    ['a token of another address', (x: World) => x.machine.memory.write64(TOKEN0, BigInt(TOKEN0 - 32))],
    ['a token that is not aligned', (x: World) => x.cpu.set('IA32_PL0_SSP', BigInt(TOKEN0 + 4))],
    [
      'a frame outside the 32 bytes of the token',
      (x: World) => {
        x.cpu.set('IA32_PL0_SSP', BigInt(TOKEN0 - 8));
        x.machine.memory.write64(TOKEN0 - 8, BigInt(TOKEN0 - 8));
      },
    ],
  ])('%s is refused with #GP(0), and nothing has changed', (_, prepare) => {
    // The fault is handled at CPL 3, which needs no token.
    const w = throughGate((x) => {
      prepare(x);
      setGate(x, 13, gate(Selector.Conforming, handler(13), 0x8e));
    });
    expect(delivered(w)).toMatchObject({ vector: 13, errorCode: 0, rip: CODE });
    expect(w.cpu.cpl).toBe(3);
    expect(w.cpu.get('RSP')).toBe(BigInt(STACK_TOP - 48));
    expect(shadowItems(w, 1)).toEqual([SHADOW_TOP]);
  });

  it('without supervisor shadow stacks only IA32_PL3_SSP is written, and RET loads it', () => {
    const w = throughGate((x) => x.cpu.set('SSP', BigInt(SHADOW_TOP - 16)), { s: 0n });
    expect(w.cpu.get('IA32_PL3_SSP')).toBe(BigInt(SHADOW_TOP - 16));
    expect(token(w, TOKEN0)).toBe(BigInt(TOKEN0));
    w.cpu.set('SSP', 0n);
    at(w, 0x1_0100, ...RETFQ);
    w.cpu.run(1);
    expect(w.cpu.get('SSP')).toBe(BigInt(SHADOW_TOP - 16));
  });
});

describe('event delivery and IRET with shadow stacks', () => {
  it('from CPL 3: token and IA32_PL3_SSP; IRET frees the token and takes IA32_PL3_SSP', () => {
    for (const bits of [32, 64] as const) {
      const w = started('ud2', { ...both, ring: 3, bits });
      expect([w.cpu.cpl, w.cpu.get('SSP'), token(w, TOKEN0)]).toEqual([
        0,
        BigInt(TOKEN0),
        BigInt(TOKEN0) | BUSY,
      ]);
      w.cpu.set('IA32_PL3_SSP', BigInt(SHADOW_TOP - 64));
      at(w, handler(6), ...(bits === 64 ? IRETQ : [0xcf]));
      w.cpu.run(1);
      expect([w.cpu.cpl, w.cpu.get('SSP'), token(w, TOKEN0)]).toEqual([
        3,
        BigInt(SHADOW_TOP - 64),
        BigInt(TOKEN0),
      ]);
    }
  });

  it('within CPL 0: a frame on the shadow stack in use, which IRET checks and pops', () => {
    const w = started('int 0x40', both);
    expect(shadowItems(w, 3)).toEqual([SHADOW_TOP, CODE + 2, Selector.Code0]);
    at(w, handler(0x40), ...IRETQ);
    w.cpu.run(1);
    expect([w.cpu.get('RIP'), w.cpu.get('SSP')]).toEqual([BigInt(CODE + 2), BigInt(SHADOW_TOP)]);
  });

  it('IRET with another return address than the shadow stack raises #CP(2)', () => {
    const w = started('int 0x40', both);
    at(w, handler(0x40), ...IRETQ);
    w.machine.memory.write64(Number(w.cpu.get('RSP')), BigInt(CODE));
    w.cpu.run(1);
    expect(delivered(w)).toMatchObject({ vector: 21, errorCode: 2, rip: handler(0x40) });
  });

  const withIst = (vector: number) => (x: World) => {
    x.machine.memory.write64(IDT + 16 * vector, gate(Selector.Code0, handler(vector), 0x8e, 1));
  };

  it('with IST: the shadow stack of the table, whatever the CPL; IRET frees its token', () => {
    const w = started('int 0x40', both, withIst(0x40));
    expect(shadowItems(w, 3)).toEqual([SHADOW_TOP, CODE + 2, Selector.Code0]);
    expect([w.cpu.get('SSP'), token(w, TOKEN_IST)]).toEqual([
      BigInt(TOKEN_IST - 24),
      BigInt(TOKEN_IST) | BUSY,
    ]);
    at(w, handler(0x40), ...IRETQ);
    w.cpu.run(1);
    expect([w.cpu.get('SSP'), token(w, TOKEN_IST)]).toEqual([BigInt(SHADOW_TOP), BigInt(TOKEN_IST)]);
    const user = started('ud2', { ...both, ring: 3 }, withIst(6));
    expect([user.cpu.get('SSP'), token(user, TOKEN_IST)]).toEqual([
      BigInt(TOKEN_IST),
      BigInt(TOKEN_IST) | BUSY,
    ]);
    expect(token(user, TOKEN0)).toBe(BigInt(TOKEN0));
  });

  it('with IST and a busy token #GP(0) comes instead', () => {
    const w = started('int 0x40', both, (x) => {
      withIst(0x40)(x);
      x.machine.memory.write64(TOKEN_IST, BigInt(TOKEN_IST) | BUSY);
    });
    expect(delivered(w)).toMatchObject({ vector: 13, errorCode: 0, rip: CODE });
    expect(token(w, SSP_TABLE + 8)).toBe(BigInt(TOKEN_IST));
  });

  it('from CPL 1 to CPL 0 a frame is pushed below the token', () => {
    const w = started('ud2', { ...both, ring: 1 });
    expect(shadowItems(w, 3)).toEqual([SHADOW_TOP, CODE, Selector.Code1]);
    expect(w.cpu.get('SSP')).toBe(BigInt(TOKEN0 - 24));
    expect(token(w, TOKEN1)).toBe(BigInt(TOKEN1));
  });

  it('IRET to compatibility mode refuses IA32_PL3_SSP above 4 GBytes, and the token stays busy', () => {
    const w = started('ud2', { ...both, ring: 3 });
    w.machine.memory.write64(Number(w.cpu.get('RSP')) + 8, BigInt(Selector.Code32Ring3));
    w.cpu.set('IA32_PL3_SSP', 0x1_0000_0000n);
    at(w, handler(6), ...IRETQ);
    w.cpu.run(1);
    expect(delivered(w)).toMatchObject({ vector: 13, errorCode: 0, rip: handler(6) });
    expect(token(w, TOKEN0)).toBe(BigInt(TOKEN0) | BUSY);
  });

  it('a token that is no longer valid is left alone by IRET', () => {
    const w = started('ud2', { ...both, ring: 3 });
    w.machine.memory.write64(TOKEN0, 5n);
    at(w, handler(6), ...IRETQ);
    w.cpu.run(1);
    expect([w.cpu.cpl, token(w, TOKEN0)]).toEqual([3, 5n]);
  });

  it('from virtual-8086 mode: a token without a frame, freed by IRET, which refuses to go back with user CET', () => {
    const w = started('', { s: SH_STK_EN, bits: 32 }, (x) => {
      enterVirtual8086(x);
      at(x, CODE, 0x0f, 0x0b);
    });
    expect([w.cpu.cpl, w.cpu.get('SSP'), token(w, TOKEN0)]).toEqual([
      0,
      BigInt(TOKEN0),
      BigInt(TOKEN0) | BUSY,
    ]);
    at(w, handler(6), 0xcf);
    w.cpu.set('IA32_U_CET', SH_STK_EN);
    w.cpu.run(1);
    expect(delivered(w)).toMatchObject({ vector: 13, errorCode: 0, rip: handler(6) });
    w.cpu.set('IA32_U_CET', 0n);
    w.cpu.set('RIP', BigInt(handler(6)));
    w.cpu.set('RSP', BigInt(STACK0 - 36));
    w.cpu.set('SSP', BigInt(TOKEN0));
    w.cpu.run(1);
    expect([w.cpu.cpl, token(w, TOKEN0)]).toEqual([3, BigInt(TOKEN0)]);
  });
});

describe('fast system calls with shadow stacks', () => {
  it('SYSCALL keeps SSP in IA32_PL3_SSP and clears it; SYSRET takes it back', () => {
    const w = started('syscall', { ...both, ring: 3 }, (x) => {
      x.cpu.set('IA32_EFER', x.cpu.get('IA32_EFER') | 1n);
      x.cpu.set('IA32_STAR', 0x0018_0010_0000_0000n);
      x.cpu.set('IA32_LSTAR', 0x1_0100n);
      x.cpu.set('SSP', BigInt(SHADOW_TOP - 8));
    });
    expect([w.cpu.cpl, w.cpu.get('SSP'), w.cpu.get('IA32_PL3_SSP')]).toEqual([0, 0n, BigInt(SHADOW_TOP - 8)]);
    at(w, 0x1_0100, 0x48, 0x0f, 0x07);
    w.cpu.run(1);
    expect([w.cpu.cpl, w.cpu.get('SSP')]).toEqual([3, BigInt(SHADOW_TOP - 8)]);
  });

  it('SYSENTER and SYSEXIT do the same', () => {
    const w = started('sysenter', { ...both, ring: 3, bits: 32 }, (x) => {
      x.cpu.set('IA32_SYSENTER_CS', 0x10n);
      x.cpu.set('IA32_SYSENTER_EIP', 0x1_0100n);
      x.cpu.set('SSP', BigInt(SHADOW_TOP - 8));
    });
    expect([w.cpu.cpl, w.cpu.get('SSP'), w.cpu.get('IA32_PL3_SSP')]).toEqual([0, 0n, BigInt(SHADOW_TOP - 8)]);
    at(w, 0x1_0100, 0x0f, 0x35);
    w.cpu.run(1);
    expect([w.cpu.cpl, w.cpu.get('SSP')]).toEqual([3, BigInt(SHADOW_TOP - 8)]);
  });
});
