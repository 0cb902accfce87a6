import { describe, expect, it } from 'vitest';
import { assemble } from '../../support/assemble.ts';
import {
  cetWorld,
  ENDBR_EN,
  SH_STK_EN,
  SHADOW_TOP,
  SUPPRESS,
  shadowItems,
  TRACKER,
} from '../../support/cet.ts';
import { CODE, STACK_TOP } from '../../support/code.ts';
import { delivered, type World } from '../../support/tables.ts';
import { CR4_UINTR, UIRET } from '../../support/user-interrupts.ts';

const HANDLER = 0x2_8000;

/** User code with a user interrupt that waits, and a handler that returns. */
function interrupted(u: bigint, handler = `pop rax; ${UIRET}`): World {
  const w = cetWorld('nop', { ring: 3, u });
  w.machine.memory.writeBytes(HANDLER, assemble(handler, 64, HANDLER));
  w.cpu.set('CR4', w.cpu.get('CR4') | CR4_UINTR);
  w.cpu.set('IA32_UINTR_HANDLER', BigInt(HANDLER));
  w.cpu.set('UIF', 1n);
  w.cpu.set('RFLAGS', 0x202n);
  w.cpu.wrmsr(0x985, 1n << 5n);
  w.cpu.run(1);
  return w;
}

describe('user interrupts with control-flow enforcement', () => {
  it('delivery pushes the return address on the shadow stack, and UIRET pops it', () => {
    const w = interrupted(SH_STK_EN);
    expect(w.cpu.get('RIP')).toBe(BigInt(HANDLER));
    expect([w.cpu.get('SSP'), ...shadowItems(w, 1)]).toEqual([BigInt(SHADOW_TOP - 8), CODE]);
    w.cpu.run(2);
    expect([w.cpu.get('RIP'), w.cpu.get('SSP'), w.cpu.get('RSP')]).toEqual([
      BigInt(CODE),
      BigInt(SHADOW_TOP),
      BigInt(STACK_TOP),
    ]);
  });

  it('UIRET to another address raises #CP(2), with SSP as it was', () => {
    const w = interrupted(SH_STK_EN, `pop rax; inc byte ptr [rsp]; ${UIRET}`);
    w.cpu.run(3);
    expect(delivered(w)).toEqual({ vector: 21, errorCode: 2, rip: HANDLER + 4 });
    expect(w.cpu.get('IA32_PL3_SSP')).toBe(BigInt(SHADOW_TOP - 8));
  });

  it('the handler has to begin with an ENDBRANCH', () => {
    for (const u of [ENDBR_EN, ENDBR_EN | SUPPRESS]) {
      const w = interrupted(u);
      expect(w.cpu.get('IA32_U_CET')).toBe(ENDBR_EN | TRACKER);
      w.cpu.run(1);
      expect(delivered(w)).toEqual({ vector: 21, errorCode: 3, rip: HANDLER });
    }
  });
});
