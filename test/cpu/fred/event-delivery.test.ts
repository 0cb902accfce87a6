import { describe, expect, it } from 'vitest';
import { Attention } from '../../../src/cpu/attention.ts';
import { writeCr4 } from '../../../src/cpu/control-register-writes.ts';
import { Register } from '../../../src/cpu/registers.ts';
import { CODE, STACK_TOP } from '../../support/code.ts';
import {
  ENTRY,
  ENTRY_AT_CPL0,
  FRED_STACKS,
  type FredOptions,
  fredWorld,
  GS_OF_SUPERVISOR,
  GS_OF_USER,
  lastFrame,
  stackLevel,
} from '../../support/fred.ts';
import { requestInterrupt } from '../../support/guest-events.ts';
import { Selector, type World } from '../../support/tables.ts';

function run(code: string | Uint8Array, options: FredOptions = {}, prepare: (w: World) => void = () => {}) {
  const w = fredWorld(code, options);
  prepare(w);
  w.cpu.run(1);
  return w;
}

const bytes = (...values: number[]) => Uint8Array.from(values);
const NOT_CANONICAL = 0x1000_0000_0000_0000n;

describe('an event at CPL 3', () => {
  const w = run('mov rax, [rbx]', { ring: 3, flags: 0x4_0202n, levels: { 13: 3 } }, ({ cpu }) => {
    cpu.set('RBX', NOT_CANONICAL);
  });

  it('goes to the first entry point on the stack of level 0, whatever the level of its vector', () => {
    expect(w.cpu.get('RIP')).toBe(BigInt(ENTRY));
    expect(w.cpu.get('RSP')).toBe(BigInt(FRED_STACKS[0] - 64));
    expect(stackLevel(w.cpu)).toBe(0);
  });

  it('leaves a frame of 64 bytes', () => {
    expect(lastFrame(w)).toEqual({
      errorCode: 0n,
      rip: BigInt(CODE),
      cs: BigInt(Selector.Code3),
      rflags: 0x5_0202n,
      rsp: BigInt(STACK_TOP),
      ss: Selector.Data3,
      blockedBySti: 0,
      call: 0,
      nmi: 0,
      reserved: 0,
      vector: 13,
      type: 3,
      in64BitMode: 1,
      nested: 0,
      length: 0,
      data: 0n,
      zero: 0n,
    });
  });

  it('establishes CPL 0 with the segments of IA32_STAR, the base of GS, and RFLAGS = 2', () => {
    expect(w.cpu.processor.cpl).toBe(0);
    expect(w.cpu.get('CS.selector')).toBe(BigInt(Selector.Code0));
    expect(w.cpu.get('CS.accessRights')).toBe(0xa09bn);
    expect(w.cpu.get('SS.selector')).toBe(BigInt(Selector.Code0 + 8));
    expect(w.cpu.get('SS.accessRights')).toBe(0xc093n);
    expect(w.cpu.get('GS.base')).toBe(GS_OF_SUPERVISOR);
    expect(w.cpu.get('IA32_KERNEL_GS_BASE')).toBe(GS_OF_USER);
    expect(w.cpu.get('RFLAGS')).toBe(2n);
  });

  it('from compatibility mode has bit 57 of the SS image 0', () => {
    const compatible = run(bytes(0x0f, 0x0b), { ring: 3 }, ({ cpu }) => cpu.set('CS.accessRights', 0xc0fbn));
    expect(lastFrame(compatible)).toMatchObject({ vector: 6, in64BitMode: 0 });
    expect(compatible.cpu.mode).toBe(4);
  });
});

describe('an event at CPL 0', () => {
  it('goes to the entry point 256 bytes on and keeps segments and GS', () => {
    const w = run('ud2');
    expect(w.cpu.get('RIP')).toBe(BigInt(ENTRY_AT_CPL0));
    expect(w.cpu.get('CS.selector')).toBe(BigInt(Selector.Code0));
    expect(w.cpu.get('SS.selector')).toBe(BigInt(Selector.Data0));
    expect(w.cpu.get('GS.base')).toBe(GS_OF_USER);
  });

  it.each([
    [STACK_TOP, 0, STACK_TOP],
    [STACK_TOP + 0x7b, 0, STACK_TOP + 0x40],
    [STACK_TOP + 0x7b, 0x80, STACK_TOP - 0x40],
    [STACK_TOP, 0x1c0, STACK_TOP - 0x1c0],
  ])('from RSP %i with redzone %i pushes below %i', (rsp, redzone, top) => {
    const w = run('ud2', { config: redzone }, ({ cpu }) => cpu.set('RSP', BigInt(rsp)));
    expect(w.cpu.get('RSP')).toBe(BigInt(top - 64));
    expect(lastFrame(w).rsp).toBe(BigInt(rsp));
  });

  it.each([
    [0, 2, 2, FRED_STACKS[2]],
    [1, 3, 3, FRED_STACKS[3]],
    [2, 2, 2, STACK_TOP],
    [3, 1, 3, STACK_TOP],
  ])('on level %i for a vector of level %i runs on level %i', (current, level, expected, top) => {
    const w = run('ud2', { config: current, levels: { 6: level, 7: 0, 5: 0 } });
    expect(stackLevel(w.cpu)).toBe(expected);
    expect(w.cpu.get('RSP')).toBe(BigInt(top - 64));
    expect(lastFrame(w).cs).toBe(BigInt(Selector.Code0 | (current << 16)));
  });

  it('finds the level of vectors above 15 in the upper half of IA32_FRED_STKLVLS', () => {
    const w = run('fldz', { levels: { 16: 1 } }, ({ cpu }) => {
      cpu.set('CR0', cpu.get('CR0') | 0x20n);
      cpu.set('FSW', 0x81n);
      cpu.set('FCW', 0x37en);
    });
    expect(lastFrame(w).vector).toBe(16);
    expect(stackLevel(w.cpu)).toBe(1);
  });
});

describe('software', () => {
  it.each([
    ['INT n', bytes(0xcd, 0x80), 0x80, 4, 2, 1],
    ['INT3', bytes(0xcc), 3, 6, 1, 0],
    ['INT1', bytes(0xf1), 1, 5, 1, 0],
    ['SYSCALL', bytes(0x0f, 0x05), 1, 7, 2, 1],
    ['SYSENTER', bytes(0x0f, 0x34), 2, 7, 2, 1],
  ])('%s is an event that returns behind it', (_name, code, vector, type, length, call) => {
    for (const ring of [0, 3] as const) {
      const w = run(code, { ring, levels: { 1: 2, 3: 2 }, flags: 0x1_0202n });
      expect(lastFrame(w)).toMatchObject({ vector, type, length, call, nmi: 0, data: 0n, errorCode: 0n });
      expect(lastFrame(w)).toMatchObject({ rip: BigInt(CODE + length), rflags: 0x202n });
      expect(stackLevel(w.cpu)).toBe(ring === 0 && type !== 4 && type !== 7 ? 2 : 0);
    }
  });

  it('SYSCALL leaves RCX and R11, and needs IA32_EFER.SCE', () => {
    const w = run('syscall', { ring: 3 }, ({ cpu }) => cpu.set('R11', 7n));
    expect([w.cpu.get('RCX'), w.cpu.get('R11')]).toEqual([0n, 7n]);
    const without = run('syscall', {}, ({ cpu }) => cpu.set('IA32_EFER', cpu.get('IA32_EFER') & ~1n));
    expect(lastFrame(without)).toMatchObject({ vector: 6, type: 3, rip: BigInt(CODE) });
  });

  it('may not use SYSRET, SYSEXIT and SWAPGS', () => {
    for (const code of [bytes(0x48, 0x0f, 0x07), bytes(0x48, 0x0f, 0x35), bytes(0x0f, 0x01, 0xf8)]) {
      expect(lastFrame(run(code)), `${code}`).toMatchObject({ vector: 6, rip: BigInt(CODE) });
    }
  });
});

describe('what the frame says', () => {
  it('the address of #PF, which CR2 has too', () => {
    const w = run('mov rax, [rbx]', {}, ({ cpu, machine }) => {
      const pml4 = 0x5000;
      machine.memory.write64(pml4, 0x6003n);
      machine.memory.write64(0x6000, 0x7003n);
      machine.memory.write64(0x7000, 0x83n);
      cpu.set('CR3', BigInt(pml4));
      cpu.set('CR0', cpu.get('CR0') | (1n << 31n));
      cpu.set('RBX', 0x1234_5678_9000n);
    });
    expect(lastFrame(w)).toMatchObject({ vector: 14, errorCode: 0n, data: 0x1234_5678_9000n });
    expect(w.cpu.get('CR2')).toBe(0x1234_5678_9000n);
  });

  it('the causes of #DB, each as 1', () => {
    const w = fredWorld('nop', { flags: 0x102n });
    w.cpu.set('DR6', 0xffff_0ff0n);
    w.cpu.run(2);
    expect(lastFrame(w)).toMatchObject({ vector: 1, type: 3, data: 0x4000n, rip: BigInt(CODE + 1) });
    expect(w.cpu.get('DR6')).toBe(0xffff_4ff0n);
  });

  it('an external interrupt, on the level that IA32_FRED_CONFIG has for them', () => {
    const w = fredWorld('nop', { flags: 0x202n, config: 2 << 9 });
    requestInterrupt(w.cpu, 0x11);
    w.cpu.run(1);
    expect(lastFrame(w)).toMatchObject({ vector: 0x11, type: 0, call: 0, nmi: 0, rip: BigInt(CODE) });
    expect(stackLevel(w.cpu)).toBe(2);
  });

  it('an NMI, which blocks others', () => {
    const w = fredWorld('nop', { ring: 3 });
    w.cpu.processor.i32[2 * Register.nmiPending] = 1;
    w.cpu.processor.requestAttention(Attention.Event);
    w.cpu.run(1);
    expect(lastFrame(w)).toMatchObject({ vector: 2, type: 2, nmi: 1, call: 0 });
    expect(w.cpu.get('blockingByNmi')).toBe(1n);
  });

  it('blocking by STI, which ends', () => {
    const w = fredWorld('sti\nud2');
    w.cpu.run(2);
    expect(lastFrame(w)).toMatchObject({ vector: 6, blockedBySti: 1, rflags: 0x1_0202n });
    expect(w.cpu.get('blockingBySti')).toBe(0n);
    w.cpu.set('RIP', BigInt(CODE + 1));
    w.cpu.run(1);
    expect(lastFrame(w).blockedBySti).toBe(0);
  });

  it('nothing of the debug traps that MOV SS held back', () => {
    const w = fredWorld('mov ss, eax\nint 0x80', { ring: 3, flags: 0x102n });
    w.cpu.set('RAX', BigInt(Selector.Data3));
    w.cpu.run(2);
    expect(lastFrame(w)).toMatchObject({ vector: 0x80, rflags: 0x102n });
    expect(w.cpu.get('pendingDebugExceptions')).toBe(0n);
  });
});

describe('a fault met by delivery', () => {
  const off = (w: World) => w.cpu.set('RSP', NOT_CANONICAL);

  it('is nested: its level counts at CPL 3 too, and the frame returns to the first event', () => {
    const w = run('ud2', { ring: 3, levels: { 12: 1 } }, ({ cpu }) =>
      cpu.set('IA32_FRED_RSP0', NOT_CANONICAL),
    );
    expect(lastFrame(w)).toMatchObject({
      vector: 12,
      nested: 1,
      cs: BigInt(Selector.Code3),
      rip: BigInt(CODE),
    });
    expect(w.cpu.get('RIP')).toBe(BigInt(ENTRY));
    expect(w.cpu.get('RSP')).toBe(BigInt(FRED_STACKS[1] - 64));
    expect(stackLevel(w.cpu)).toBe(1);
  });

  it('of a contributory exception makes #DF, which is not nested', () => {
    const w = run('mov rax, [rbx]', { levels: { 8: 3 } }, (x) => {
      x.cpu.set('RBX', NOT_CANONICAL);
      off(x);
    });
    expect(lastFrame(w)).toMatchObject({ vector: 8, type: 3, nested: 0, errorCode: 0n, rsp: NOT_CANONICAL });
    expect(w.cpu.get('RSP')).toBe(BigInt(FRED_STACKS[3] - 64));
  });

  it('of a double fault shuts the processor down', () => {
    const w = run('mov rax, [rbx]', {}, (x) => {
      x.cpu.set('RBX', NOT_CANONICAL);
      off(x);
    });
    expect(w.cpu.get('activityState')).toBe(2n);
    expect(w.cpu.get('RIP')).toBe(BigInt(CODE));
  });
});

describe('CR4.FRED', () => {
  it('can be set in IA-32e mode only', () => {
    const w = fredWorld('nop');
    const { processor } = w.cpu;
    const wanted = w.cpu.get('CR4');
    w.cpu.set('CR4', wanted & 0xffff_ffffn);
    expect(writeCr4(processor, wanted)).toBe(true);
    expect(w.cpu.get('CR4')).toBe(wanted);
    w.cpu.set('CR4', 0x20n);
    w.cpu.set('IA32_EFER', 0n);
    expect(writeCr4(processor, wanted)).toBe(false);
    expect(w.cpu.get('CR4')).toBe(0x20n);
  });
});
