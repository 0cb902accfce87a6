import { describe, expect, it } from 'vitest';
import { ENDBR_EN, SH_STK_EN, SHADOW_TOP, SUPPRESS, shadowItems, TRACKER } from '../../support/cet.ts';
import { CODE } from '../../support/code.ts';
import { ENTRY, ENTRY_AT_CPL0, type FredOptions, frameOf, fredWorld, STAR } from '../../support/fred.ts';
import { Selector, type World } from '../../support/tables.ts';

const ERETS = Uint8Array.of(0xf2, 0x0f, 0x01, 0xca);
const ERETU = Uint8Array.of(0xf3, 0x0f, 0x01, 0xca);
/** IA32_PL0_SSP and IA32_FRED_SSP1–3. */
const SHADOW_STACKS = [0x3_1000, 0x3_2000, 0x3_3000, 0x3_5000] as const;
const USER64 = Number((STAR >> 48n) + 16n);
const USER32 = Number(STAR >> 48n);

interface Options extends FredOptions {
  readonly s?: bigint;
  readonly u?: bigint;
  readonly code?: string;
}

/** FRED with CET, before one instruction that raises #UD. */
function started({ s = SH_STK_EN, u = SH_STK_EN, code = 'ud2', ...options }: Options): World {
  const w = fredWorld(code, options);
  const { cpu } = w;
  cpu.set('CR0', cpu.get('CR0') | (1n << 16n));
  cpu.set('CR4', cpu.get('CR4') | (1n << 23n));
  cpu.set('IA32_S_CET', s);
  cpu.set('IA32_U_CET', u);
  cpu.set('SSP', BigInt(SHADOW_TOP));
  cpu.set('IA32_PL0_SSP', BigInt(SHADOW_STACKS[0]));
  cpu.set('IA32_PL3_SSP', BigInt(SHADOW_TOP - 0x100));
  cpu.set('IA32_FRED_SSP1', BigInt(SHADOW_STACKS[1]));
  cpu.set('IA32_FRED_SSP2', BigInt(SHADOW_STACKS[2]));
  cpu.set('IA32_FRED_SSP3', BigInt(SHADOW_STACKS[3]));
  w.machine.memory.writeBytes(ENTRY, ERETU);
  w.machine.memory.writeBytes(ENTRY_AT_CPL0, ERETS);
  return w;
}

function delivered(options: Options): World {
  const w = started(options);
  w.cpu.run(1);
  return w;
}

describe('FRED event delivery with shadow stacks', () => {
  it('from CPL 3: SSP goes to IA32_PL3_SSP, that of stack level 0 takes its place, nothing is pushed', () => {
    const w = delivered({ ring: 3 });
    expect([w.cpu.get('SSP'), w.cpu.get('IA32_PL3_SSP')]).toEqual([
      BigInt(SHADOW_STACKS[0]),
      BigInt(SHADOW_TOP),
    ]);
    expect(w.machine.memory.read64(SHADOW_STACKS[0])).toBe(0n);
  });

  it('at CPL 0 on the same level: a frame with the image of CS, the return address and SSP', () => {
    const w = delivered({});
    expect(w.cpu.get('SSP')).toBe(BigInt(SHADOW_TOP - 24));
    expect(shadowItems(w, 3)).toEqual([SHADOW_TOP, CODE, Selector.Code0]);
    const odd = started({});
    odd.cpu.set('SSP', BigInt(SHADOW_TOP + 4));
    odd.machine.memory.write32(SHADOW_TOP, 0xffff_ffff);
    odd.cpu.run(1);
    expect(shadowItems(odd, 4)).toEqual([SHADOW_TOP + 4, CODE, Selector.Code0, 0]);
  });

  it('at CPL 0 to a higher level: on the shadow stack of that level', () => {
    const w = delivered({ config: 1, levels: { 6: 2 } });
    expect(w.cpu.get('SSP')).toBe(BigInt(SHADOW_STACKS[2] - 24));
    expect(shadowItems(w, 3)).toEqual([SHADOW_TOP, CODE, Selector.Code0 | (1 << 16)]);
  });

  it('without supervisor shadow stacks leaves SSP to IA32_PL3_SSP alone', () => {
    const w = delivered({ ring: 3, s: 0n });
    expect([w.cpu.get('SSP'), w.cpu.get('IA32_PL3_SSP')]).toEqual([BigInt(SHADOW_TOP), BigInt(SHADOW_TOP)]);
  });
});

describe('ERETS with shadow stacks', () => {
  it('takes SSP from the frame, and leaves a higher level as it was entered', () => {
    for (const options of [{}, { config: 1, levels: { 6: 2 } }]) {
      const w = delivered(options);
      w.cpu.run(1);
      expect([w.cpu.get('RIP'), w.cpu.get('SSP')]).toEqual([BigInt(CODE), BigInt(SHADOW_TOP)]);
    }
  });

  const faults = (change: (w: World, ssp: number) => void, options: Options = {}) => {
    const w = delivered(options);
    change(w, Number(w.cpu.get('SSP')));
    w.cpu.run(1);
    const { vector, errorCode, rip } = frameOf(w.machine, w.cpu.get('RSP'));
    return { vector, errorCode, rip };
  };
  const cp = { vector: 21, errorCode: 2n, rip: BigInt(ENTRY_AT_CPL0) };

  it('raises #CP(2) where the frames differ', () => {
    expect(faults(({ machine }, ssp) => machine.memory.write64(ssp + 8, 1n))).toEqual(cp);
    expect(faults(({ machine }, ssp) => machine.memory.write64(ssp + 16, 0x1_0010n))).toEqual(cp);
    expect(faults(({ machine }, ssp) => machine.memory.write64(ssp, 2n))).toEqual(cp);
    expect(faults(({ cpu }, ssp) => cpu.set('SSP', BigInt(ssp + 4)))).toEqual(cp);
  });

  it('raises #CP(2) where a level is not left as it was entered, #GP(0) for SSP that is not canonical', () => {
    const options = { config: 1, levels: { 6: 2, 21: 3, 13: 3 } };
    expect(faults(({ cpu }) => cpu.set('IA32_FRED_SSP2', BigInt(SHADOW_STACKS[2] + 8)), options)).toEqual(cp);
    expect(faults(({ machine }, ssp) => machine.memory.write64(ssp, 1n << 60n), options)).toMatchObject({
      vector: 13,
      errorCode: 0n,
    });
  });
});

describe('ERETU with shadow stacks', () => {
  const returning = (cs: number, prepare: (w: World) => void = () => {}) => {
    const w = delivered({ ring: 3 });
    const { memory } = w.machine;
    const rsp = Number(w.cpu.get('RSP'));
    memory.write64(rsp + 16, BigInt(cs));
    memory.write64(rsp + 40, BigInt(USER32 + 8));
    prepare(w);
    w.cpu.run(1);
    return w;
  };

  it('takes SSP from IA32_PL3_SSP', () => {
    for (const cs of [USER64, USER32, Selector.Code3]) {
      const w = returning(cs);
      expect([cs, w.cpu.cpl, w.cpu.get('SSP')]).toEqual([cs, 3, BigInt(SHADOW_TOP)]);
    }
  });

  it('raises #CP(2) unless the shadow stack of stack level 0 is empty', () => {
    const w = returning(USER64, ({ cpu }) => cpu.set('SSP', BigInt(SHADOW_STACKS[0] - 8)));
    expect(frameOf(w.machine, w.cpu.get('RSP'))).toMatchObject({
      vector: 21,
      errorCode: 2n,
      rip: BigInt(ENTRY),
    });
  });

  it('raises #GP(0) to compatibility mode for IA32_PL3_SSP above 4 GBytes', () => {
    const w = returning(USER32, ({ cpu }) => cpu.set('IA32_PL3_SSP', 1n << 32n));
    expect(frameOf(w.machine, w.cpu.get('RSP'))).toMatchObject({
      vector: 13,
      errorCode: 0n,
      rip: BigInt(ENTRY),
    });
  });
});

describe('FRED and indirect-branch tracking', () => {
  it('delivery at CPL 0 notes in the image of CS that the tracker waits, and it waits no more; ERETS restores it', () => {
    const w = delivered({ s: SH_STK_EN | ENDBR_EN | TRACKER });
    // The instruction is no ENDBRANCH.
    const frame = frameOf(w.machine, w.cpu.get('RSP'));
    expect([frame.vector, frame.cs]).toEqual([21, BigInt(Selector.Code0 | (1 << 18))]);
    expect(shadowItems(w, 3)[2]).toBe(Selector.Code0 | (1 << 18));
    expect(w.cpu.get('IA32_S_CET')).toBe(SH_STK_EN | ENDBR_EN);
    w.cpu.run(1);
    expect([w.cpu.get('RIP'), w.cpu.get('IA32_S_CET')]).toEqual([
      BigInt(CODE),
      SH_STK_EN | ENDBR_EN | TRACKER,
    ]);
  });

  it('ERETS does not where tracking is suppressed or off', () => {
    for (const s of [ENDBR_EN | SUPPRESS, 0n]) {
      const w = delivered({ s: ENDBR_EN | TRACKER });
      w.cpu.set('IA32_S_CET', s);
      w.cpu.run(1);
      expect([w.cpu.get('RIP'), w.cpu.get('IA32_S_CET')]).toEqual([BigInt(CODE), s]);
    }
  });

  it('a user tracker that waits stays in IA32_U_CET, and ERETU goes back to it', () => {
    const w = delivered({ ring: 3, u: ENDBR_EN | TRACKER, s: ENDBR_EN });
    expect(frameOf(w.machine, w.cpu.get('RSP')).cs).toBe(BigInt(Selector.Code3));
    w.cpu.run(1);
    expect(w.cpu.get('IA32_U_CET')).toBe(ENDBR_EN | TRACKER);
    expect([w.cpu.cpl, w.cpu.get('IA32_S_CET')]).toEqual([3, ENDBR_EN]);
  });
});
