import { describe, expect, it } from 'vitest';
import {
  type CetOptions,
  CLRSSBSY_RBX,
  cetWorld,
  INCSSPD_EAX,
  INCSSPQ_RAX,
  RDSSPD_EAX,
  RDSSPQ_RAX,
  RSTORSSP_RBX,
  SAVEPREVSSP,
  SETSSBSY,
  SH_STK_EN,
  SHADOW_TOP,
  TOKEN0,
  WR_SHSTK_EN,
  WRSSD,
  WRSSQ,
  WRUSSD,
  WRUSSQ,
} from '../../support/cet.ts';
import { CODE } from '../../support/code.ts';
import { delivered, type World } from '../../support/tables.ts';

const ENABLED = { s: SH_STK_EN };
const BUSY = 1n;
const CF = 1n;
const ARITHMETIC = 0x8d5n;
const GP0 = { vector: 13, errorCode: 0, rip: CODE };
const UD = { vector: 6, rip: CODE };

function ran(code: string, options: CetOptions = ENABLED, prepare: (w: World) => void = () => {}): World {
  const w = cetWorld(code, options);
  prepare(w);
  w.cpu.run(1);
  return w;
}

describe('RDSSP', () => {
  it('reads SSP, of 32 bits with zeros above', () => {
    expect(ran(RDSSPQ_RAX).cpu.get('RAX')).toBe(BigInt(SHADOW_TOP));
    const half = ran(RDSSPD_EAX, ENABLED, ({ cpu }) => {
      cpu.set('RAX', 0xffff_ffff_ffff_ffffn);
      cpu.set('SSP', 0x1_2345_6788n);
    });
    expect(half.cpu.get('RAX')).toBe(0x2345_6788n);
  });

  it('does nothing without a shadow stack', () => {
    for (const options of [{ s: 0n }, { ...ENABLED, ring: 3 }, { s: SH_STK_EN, bits: 16 }] as const) {
      const w = ran(RDSSPD_EAX, options, ({ cpu }) => cpu.set('RAX', 7n));
      expect([w.cpu.get('RAX'), Number(w.cpu.get('RIP')) & 0xff]).toEqual([7n, 4]);
    }
  });
});

describe('INCSSP', () => {
  it('moves SSP by bits 7:0 of the register, times 8 or 4', () => {
    const by = (code: string, count: bigint, bits: 32 | 64 = 64) =>
      ran(code, { ...ENABLED, bits }, ({ cpu }) => cpu.set('RAX', count)).cpu.get('SSP') - BigInt(SHADOW_TOP);
    expect(by(INCSSPQ_RAX, 0x103n)).toBe(24n);
    expect(by(INCSSPD_EAX, 0x1ffn)).toBe(255n * 4n);
    expect(by(INCSSPD_EAX, 3n, 32)).toBe(12n);
    expect(by(INCSSPQ_RAX, 0n)).toBe(0n);
  });
});

describe('SAVEPREVSSP and RSTORSSP', () => {
  const OTHER = 0x3_0ff8;
  const restorable = (value: bigint, options: CetOptions = ENABLED, code = RSTORSSP_RBX) =>
    ran(code, options, ({ cpu, machine }) => {
      cpu.set('RBX', BigInt(OTHER));
      cpu.set('RFLAGS', 2n | ARITHMETIC);
      machine.memory.write64(OTHER, value);
    });

  it('switch to another shadow stack and back', () => {
    const w = restorable(
      BigInt(OTHER + 8) | 1n,
      ENABLED,
      `${RSTORSSP_RBX}; ${SAVEPREVSSP}; mov ebx, ${SHADOW_TOP - 8}; ${RSTORSSP_RBX}`,
    );
    expect(w.cpu.get('SSP')).toBe(BigInt(OTHER));
    expect(w.machine.memory.read64(OTHER)).toBe(BigInt(SHADOW_TOP) | 3n);
    expect(w.cpu.get('RFLAGS') & ARITHMETIC).toBe(0n);
    w.cpu.run(1);
    expect(w.cpu.get('SSP')).toBe(BigInt(OTHER + 8));
    expect(w.machine.memory.read64(SHADOW_TOP - 8)).toBe(BigInt(SHADOW_TOP) | 1n);
    w.cpu.run(2);
    expect(w.cpu.get('SSP')).toBe(BigInt(SHADOW_TOP - 8));
    expect(w.machine.memory.read64(SHADOW_TOP - 8)).toBe(BigInt(OTHER + 8) | 3n);
  });

  it('know a hole of four bytes, which CF announces', () => {
    const w = restorable(BigInt(OTHER + 12), { ...ENABLED, bits: 32 }, `${RSTORSSP_RBX}; ${SAVEPREVSSP}`);
    expect(w.cpu.get('RFLAGS') & ARITHMETIC).toBe(CF);
    w.machine.memory.write32(OTHER + 8, 0);
    w.cpu.run(1);
    expect(w.cpu.get('SSP')).toBe(BigInt(OTHER + 12));
    expect(w.machine.memory.read64(SHADOW_TOP - 8)).toBe(BigInt(SHADOW_TOP));
  });

  it.each([
    ['the mode', BigInt(OTHER + 8), 64],
    ['the mode, outside 64-bit mode', BigInt(OTHER + 8) | 1n, 32],
    ['bit 1', BigInt(OTHER + 8) | 3n, 64],
    ['the address', BigInt(OTHER + 16) | 1n, 64],
    ['bits 63:32 outside 64-bit mode', 0x1_0000_0000n + BigInt(OTHER + 8), 32],
  ] as const)('RSTORSSP raises #CP(4) for a token with the wrong %s, which stays', (_, value, bits) => {
    const w = restorable(value, { ...ENABLED, bits });
    expect(delivered(w)).toEqual({ vector: 21, errorCode: 4, rip: CODE });
    expect(w.machine.memory.read64(OTHER)).toBe(value);
  });

  it('RSTORSSP raises #GP(0) for an operand that is not aligned to 8 bytes', () => {
    expect(delivered(ran(RSTORSSP_RBX, ENABLED, ({ cpu }) => cpu.set('RBX', BigInt(OTHER + 4))))).toEqual(
      GP0,
    );
  });

  const saving = (token: bigint, flags: bigint, bits: 32 | 64 = 64, hole = 0) =>
    delivered(
      ran(SAVEPREVSSP, { ...ENABLED, bits }, ({ cpu, machine }) => {
        machine.memory.write64(SHADOW_TOP, token);
        machine.memory.write32(SHADOW_TOP + 8, hole);
        cpu.set('RFLAGS', 2n | flags);
      }),
    );

  it('SAVEPREVSSP raises #GP(0) for what is no previous-SSP token, and for a hole that cannot be or is not 0', () => {
    const token = BigInt(OTHER + 8);
    expect(saving(token | 1n, 0n)).toEqual(GP0);
    expect(saving(token | 3n, CF)).toEqual(GP0);
    expect(saving(token | 2n, CF, 32, 1)).toEqual(GP0);
    expect(saving(token | 2n | (1n << 32n), 0n, 32)).toEqual(GP0);
    expect(delivered(ran(SAVEPREVSSP, ENABLED, ({ cpu }) => cpu.set('SSP', BigInt(SHADOW_TOP - 4))))).toEqual(
      GP0,
    );
  });
});

describe('WRSS and WRUSS', () => {
  const written = (code: string, options: CetOptions, address = 0x5000n) =>
    ran(code, options, ({ cpu }) => {
      cpu.set('RAX', 0x1122_3344_5566_7788n);
      cpu.set('RBX', address);
    });

  it.each([
    ['WRSSQ', WRSSQ, 0x1122_3344_5566_7788n, { s: SH_STK_EN | WR_SHSTK_EN }],
    ['WRSSD', WRSSD, 0x5566_7788n, { s: SH_STK_EN | WR_SHSTK_EN }],
    ['WRSSQ at CPL 3', WRSSQ, 0x1122_3344_5566_7788n, { u: SH_STK_EN | WR_SHSTK_EN, ring: 3 }],
    ['WRUSSQ', WRUSSQ, 0x1122_3344_5566_7788n, {}],
    ['WRUSSD', WRUSSD, 0x5566_7788n, {}],
  ] as const)('%s stores its register', (_, code, value, options) => {
    expect(written(code, options).machine.memory.read64(0x5000)).toBe(value);
  });

  it('need an aligned operand', () => {
    const s = SH_STK_EN | WR_SHSTK_EN;
    expect(delivered(written(WRSSQ, { s }, 0x5004n))).toEqual(GP0);
    expect(delivered(written(WRSSD, { s }, 0x5002n))).toEqual(GP0);
    expect(delivered(written(WRUSSQ, {}, 0x5004n))).toEqual(GP0);
    expect(written(WRSSD, { s }, 0x5004n).machine.memory.read32(0x5004)).toBe(0x5566_7788);
  });

  it('WRSS needs both enable bits, WRUSS CR4.CET and CPL 0', () => {
    expect(delivered(written(WRSSQ, { s: SH_STK_EN }))).toEqual(UD);
    expect(delivered(written(WRSSQ, { s: WR_SHSTK_EN }))).toEqual(UD);
    expect(delivered(written(WRSSQ, { s: SH_STK_EN | WR_SHSTK_EN, ring: 3 }))).toMatchObject({ vector: 6 });
    expect(delivered(written(WRUSSQ, { u: SH_STK_EN, ring: 3 }))).toMatchObject({ vector: 13, errorCode: 0 });
    const off = ran(WRUSSQ, {}, ({ cpu }) => cpu.set('CR4', cpu.get('CR4') & ~(1n << 23n)));
    expect(delivered(off)).toEqual(UD);
  });
});

describe('SETSSBSY and CLRSSBSY', () => {
  it('SETSSBSY takes the shadow stack of IA32_PL0_SSP', () => {
    const w = ran(SETSSBSY);
    expect(w.cpu.get('SSP')).toBe(BigInt(TOKEN0));
    expect(w.machine.memory.read64(TOKEN0)).toBe(BigInt(TOKEN0) | BUSY);
  });

  it('SETSSBSY raises #CP(5) for a token that is busy or another', () => {
    for (const value of [BigInt(TOKEN0) | BUSY, 0n]) {
      const w = ran(SETSSBSY, ENABLED, ({ machine }) => machine.memory.write64(TOKEN0, value));
      expect(delivered(w)).toEqual({ vector: 21, errorCode: 5, rip: CODE });
      expect(w.machine.memory.read64(TOKEN0)).toBe(value);
    }
  });

  it('CLRSSBSY frees the operand, says with CF whether it was busy, and clears SSP', () => {
    for (const [before, after, cf] of [
      [BigInt(TOKEN0) | BUSY, BigInt(TOKEN0), 0n],
      [BigInt(TOKEN0), BigInt(TOKEN0), CF],
    ] as const) {
      const w = ran(CLRSSBSY_RBX, ENABLED, ({ cpu, machine }) => {
        machine.memory.write64(TOKEN0, before);
        cpu.set('RBX', BigInt(TOKEN0));
        cpu.set('RFLAGS', 2n | ARITHMETIC);
      });
      expect(w.machine.memory.read64(TOKEN0)).toBe(after);
      expect([w.cpu.get('RFLAGS') & ARITHMETIC, w.cpu.get('SSP')]).toEqual([cf, 0n]);
    }
  });

  it('raise #GP(0) where the token is not aligned, and at other privilege levels', () => {
    expect(
      delivered(ran(SETSSBSY, ENABLED, ({ cpu }) => cpu.set('IA32_PL0_SSP', BigInt(TOKEN0 + 4)))),
    ).toEqual(GP0);
    expect(delivered(ran(CLRSSBSY_RBX, ENABLED, ({ cpu }) => cpu.set('RBX', BigInt(TOKEN0 + 4))))).toEqual(
      GP0,
    );
    for (const code of [SETSSBSY, CLRSSBSY_RBX]) {
      const w = ran(code, { ...ENABLED, ring: 3 });
      expect(delivered(w)).toMatchObject({ vector: 13, errorCode: 0 });
    }
  });
});

describe('shadow-stack instructions', () => {
  const all = {
    INCSSP: INCSSPD_EAX,
    SAVEPREVSSP,
    RSTORSSP: RSTORSSP_RBX,
    WRSS: WRSSD,
    SETSSBSY,
    CLRSSBSY: CLRSSBSY_RBX,
  };
  it.each(Object.entries(all))('%s raises #UD where shadow stacks are not enabled', (_, code) => {
    expect(delivered(ran(code, { s: 0n, u: SH_STK_EN }))).toEqual(UD);
    const real = cetWorld(code, { s: SH_STK_EN | WR_SHSTK_EN, bits: 16 });
    real.cpu.set('IDTR.base', 0n);
    real.cpu.set('IDTR.limit', 0x3ffn);
    real.machine.memory.write32(4 * 6, 0x1234);
    real.cpu.run(1);
    expect(real.cpu.get('RIP')).toBe(0x1234n);
  });

  it.each(Object.entries({ ...all, WRUSS: WRUSSD }))('%s does not exist without CET_SS', (_, code) => {
    const w = cetWorld(code, { ...ENABLED, profile: 'skylake' });
    w.cpu.run(1);
    expect(delivered(w)).toEqual(UD);
  });
});
