import { describe, expect, it } from 'vitest';
import {
  type CetOptions,
  cetWorld,
  ENDBR_EN,
  SH_STK_EN,
  SHADOW_TOP,
  shadowItems,
  TOKEN1,
  TRACKER,
} from '../../support/cet.ts';
import { CODE } from '../../support/code.ts';
import {
  delivered,
  gate,
  Selector,
  segment,
  setDescriptor,
  setGate,
  TSS,
  type World,
} from '../../support/tables.ts';

const NEW_TSS = 0x7000;
const EIP = 0x1_2345;
const STACK = 0x5_0000;
/** The new task's token. */
const TOKEN = TOKEN1;
const BUSY = 1n;
const far = (opcode: number) =>
  Uint8Array.from([opcode, 0, 0, 0, 0, Selector.Free & 0xff, Selector.Free >> 8]);
const CALL = far(0x9a);
const JMP = far(0xea);

interface Task extends CetOptions {
  readonly limit?: number;
  readonly rights?: number;
  readonly eflags?: number;
  readonly user?: boolean;
  readonly prepare?: (w: World) => void;
}

/** A switch by `code` to a task whose TSS has SSP. */
function switched(code: Uint8Array, options: Task = {}): World {
  const { limit = 0x6b, rights = 0x89, eflags = 0x202, user = false, prepare, ...rest } = options;
  const w = cetWorld(code, { s: SH_STK_EN, ...rest, bits: 32 });
  const { memory } = w.machine;
  setDescriptor(w, Selector.Free, segment(NEW_TSS, limit, rights));
  setDescriptor(w, Selector.Tss, segment(TSS, 0x2fff, 0x8b));
  memory.write32(NEW_TSS + 0x20, EIP);
  memory.write32(NEW_TSS + 0x24, eflags);
  memory.write32(NEW_TSS + 0x38, STACK);
  const [cs, ss] = user ? [Selector.Code3, Selector.Data3] : [Selector.Code0, Selector.Data0];
  [0, cs, ss, ss, 0, 0].forEach((selector, n) => {
    memory.write32(NEW_TSS + 0x48 + 4 * n, selector);
  });
  memory.write32(NEW_TSS + 0x60, 0);
  memory.write32(NEW_TSS + 0x64, 0);
  memory.write32(NEW_TSS + 0x68, TOKEN);
  memory.writeBytes(EIP, Uint8Array.of(0xcf));
  // Faults of the new task are handled on its shadow stack.
  prepare?.(w);
  w.cpu.run(1);
  return w;
}

const token = (w: World) => w.machine.memory.read64(TOKEN);

describe('task switches with shadow stacks', () => {
  it('CALL takes SSP of the TSS, with its token, and pushes a frame there; IRET goes back', () => {
    const w = switched(CALL);
    expect([w.cpu.get('RIP'), w.cpu.get('SSP'), token(w)]).toEqual([
      BigInt(EIP),
      BigInt(TOKEN - 24),
      BigInt(TOKEN) | BUSY,
    ]);
    expect(shadowItems(w, 3)).toEqual([SHADOW_TOP, CODE + 7, Selector.Code0]);
    w.cpu.run(1);
    expect([w.cpu.get('RIP'), w.cpu.get('SSP'), token(w)]).toEqual([
      BigInt(CODE + 7),
      BigInt(SHADOW_TOP),
      BigInt(TOKEN),
    ]);
  });

  it('JMP pushes no frame, an event through a task gate does', () => {
    const jump = switched(JMP);
    expect([jump.cpu.get('SSP'), token(jump)]).toEqual([BigInt(TOKEN), BigInt(TOKEN) | BUSY]);
    const event = switched(Uint8Array.of(0x0f, 0x0b), {
      prepare: (w) => setGate(w, 6, gate(Selector.Free, 0, 0x85)),
    });
    expect(shadowItems(event, 3)).toEqual([SHADOW_TOP, CODE, Selector.Code0]);
  });

  it('from CPL 3 to less IA32_PL3_SSP keeps SSP, and a task at CPL 3 has a token as well', () => {
    const up = switched(Uint8Array.of(0x0f, 0x0b), {
      ring: 3,
      u: SH_STK_EN,
      prepare: (w) => {
        setGate(w, 6, gate(Selector.Free, 0, 0x85));
        w.cpu.set('SSP', BigInt(SHADOW_TOP - 8));
      },
    });
    expect([up.cpu.get('SSP'), up.cpu.get('IA32_PL3_SSP')]).toEqual([BigInt(TOKEN), BigInt(SHADOW_TOP - 8)]);
    up.cpu.run(1);
    expect([up.cpu.cpl, up.cpu.get('SSP'), token(up)]).toEqual([3, BigInt(SHADOW_TOP - 8), BigInt(TOKEN)]);
    const user = switched(JMP, { user: true, u: SH_STK_EN });
    expect([user.cpu.cpl, user.cpu.get('SSP'), token(user)]).toEqual([
      3,
      BigInt(TOKEN),
      BigInt(TOKEN) | BUSY,
    ]);
  });

  it.each([
    ['a TSS without room for SSP', { limit: 0x6a }],
    ['a TSS of 16 bits', { rights: 0x81 }],
    ['virtual-8086 mode', { eflags: 0x2_0202 }],
  ] as const)('%s is refused with #TS before the switch', (_, options) => {
    const w = switched(CALL, options);
    expect(delivered(w)).toEqual({ vector: 10, errorCode: Selector.Free, rip: CODE });
    expect(w.cpu.get('TR.selector')).toBe(BigInt(Selector.Tss));
  });

  it('without shadow stacks SSP of the TSS is not looked at', () => {
    const w = switched(CALL, { s: 0n, limit: 0x67 });
    expect([w.cpu.get('RIP'), w.cpu.get('SSP'), token(w)]).toEqual([
      BigInt(EIP),
      BigInt(SHADOW_TOP),
      BigInt(TOKEN),
    ]);
  });

  it.each([
    ['a busy token', (w: World) => w.machine.memory.write64(TOKEN, BigInt(TOKEN) | BUSY)],
    ['SSP that is not aligned', (w: World) => w.machine.memory.write32(NEW_TSS + 0x68, TOKEN + 4)],
  ])('%s gives #TS in the new task', (_, prepare) => {
    const w = switched(CALL, { prepare });
    expect(delivered(w)).toEqual({ vector: 10, errorCode: Selector.Free, rip: EIP });
    expect(w.cpu.get('TR.selector')).toBe(BigInt(Selector.Free));
  });

  it('IRET to a task that goes on elsewhere than the frame says raises #CP(2) there', () => {
    const w = switched(CALL);
    w.machine.memory.write32(TSS + 0x20, CODE + 8);
    w.cpu.run(1);
    expect(delivered(w)).toEqual({ vector: 21, errorCode: 2, rip: CODE + 8 });
    expect(w.cpu.get('TR.selector')).toBe(BigInt(Selector.Tss));
  });

  it('a task begins with an ENDBRANCH, but not one that IRET goes back to', () => {
    const w = switched(CALL, { s: ENDBR_EN });
    expect(w.cpu.get('IA32_S_CET')).toBe(ENDBR_EN | TRACKER);
    w.cpu.set('IA32_S_CET', ENDBR_EN);
    w.cpu.run(1);
    expect([w.cpu.get('RIP'), w.cpu.get('IA32_S_CET')]).toEqual([BigInt(CODE + 7), ENDBR_EN]);
  });
});
