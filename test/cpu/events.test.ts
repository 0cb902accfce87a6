import { describe, expect, it } from 'vitest';
import { Register } from '../../src/cpu/registers.ts';
import { CODE, STACK_TOP } from '../support/code.ts';
import {
  delivered,
  enterRing,
  GDT,
  gate,
  handler,
  IST1,
  Selector,
  STACK0,
  segment,
  setDescriptor,
  setGate,
  stackItems,
  TSS,
  type World,
  world,
} from '../support/tables.ts';

const IF = 0x200n;
const RF = 0x1_0000;
const UD = 'ud2';

/** Executes one instruction at this CPL after `prepare`. */
function run(bits: 32 | 64, code: string, ring: 0 | 1 | 3, prepare: (w: World) => void = () => {}): World {
  const w = world(code, { bits });
  if (ring !== 0) enterRing(w, ring);
  w.cpu.set('RFLAGS', 0x202n);
  prepare(w);
  w.cpu.run(1);
  return w;
}

describe('delivery in 64-bit mode', () => {
  it('pushes SS, RSP, RFLAGS, CS and RIP on the aligned stack in use', () => {
    const w = run(64, UD, 0, ({ cpu }) => cpu.set('RSP', BigInt(STACK_TOP - 4)));
    expect(w.cpu.get('RIP')).toBe(BigInt(handler(6)));
    expect(w.cpu.get('RSP')).toBe(BigInt(STACK_TOP - 16 - 40));
    expect(stackItems(w, 5, 8)).toEqual([CODE, 0x10, 0x202 | RF, STACK_TOP - 4, 0x18]);
    expect(w.cpu.get('RFLAGS')).toBe(2n);
    expect(w.cpu.get('SS.selector')).toBe(0x18n);
  });

  it('takes RSP of the new privilege level from the TSS, with a null SS', () => {
    const w = run(64, UD, 3);
    expect(w.cpu.cpl).toBe(0);
    expect(w.cpu.get('CS.selector')).toBe(BigInt(Selector.Code0));
    expect(w.cpu.get('SS.selector')).toBe(0n);
    expect(w.cpu.get('RSP')).toBe(BigInt(STACK0 - 40));
    expect(stackItems(w, 5, 8)).toEqual([CODE, Selector.Code3, 0x202 | RF, STACK_TOP, Selector.Data3]);
  });

  it('takes RSP from the interrupt stack table if the gate says so, without a change of SS at the same CPL', () => {
    const w = run(64, UD, 0, (x) => setGate(x, 6, gate(Selector.Code0, handler(6), 0x8e, 1)));
    expect(w.cpu.get('RSP')).toBe(BigInt(IST1 - 40));
    expect(w.cpu.get('SS.selector')).toBe(0x18n);
  });

  it('a trap gate leaves IF', () => {
    const w = run(64, UD, 0, (x) => setGate(x, 6, gate(Selector.Code0, handler(6), 0x8f)));
    expect(w.cpu.get('RFLAGS')).toBe(2n | IF);
  });

  it('enters 64-bit mode from compatibility mode', () => {
    const w = run(64, '.byte 0x0f, 0x0b', 3, ({ cpu }) => {
      cpu.set('CS.accessRights', 0xc0fbn);
      cpu.set('CS.selector', BigInt(Selector.Code32Ring3));
    });
    expect(w.cpu.mode).toBe(4);
    expect(stackItems(w, 2, 8)).toEqual([CODE, Selector.Code32Ring3]);
  });

  it('pushes the error code below RIP', () => {
    const w = run(64, 'mov ds, ax', 0, ({ cpu }) => cpu.set('RAX', 0x1238n));
    expect(stackItems(w, 3, 8)).toEqual([0x1238, CODE, 0x10]);
  });

  const gates: [string, (w: World) => void, number, number][] = [
    ['a gate that is not present', (w) => setGate(w, 6, gate(0x10, handler(6), 0x0e)), 11, 6 * 8 + 3],
    ['a task gate', (w) => setGate(w, 6, gate(0x10, 0, 0x85)), 13, 6 * 8 + 3],
    ['a 16-bit gate', (w) => setGate(w, 6, gate(0x10, handler(6), 0x86)), 13, 6 * 8 + 3],
    ['a null code selector', (w) => setGate(w, 6, gate(0, handler(6), 0x8e)), 13, 1],
    ['a code selector beyond the GDT', (w) => setGate(w, 6, gate(0x1000, handler(6), 0x8e)), 13, 0x1001],
    ['a data segment', (w) => setGate(w, 6, gate(Selector.Data0, handler(6), 0x8e)), 13, 0x19],
    ['32-bit code', (w) => setGate(w, 6, gate(Selector.Code32, handler(6), 0x8e)), 13, 0x71],
    ['less privileged code', (w) => setGate(w, 6, gate(Selector.Code3, handler(6), 0x8e)), 13, 0x21],
  ];
  for (const [name, prepare, vector, errorCode] of gates) {
    it(`${name}: the error code has EXT for a hardware exception`, () => {
      // #GP and #NP are contributory, #UD is benign: they are delivered one after the other.
      const w = run(64, UD, 0, prepare);
      expect(delivered(w)).toEqual({ vector, errorCode, rip: CODE });
    });
  }

  it('code that is not present: #NP with the selector', () => {
    const w = run(64, UD, 0, (x) => {
      setDescriptor(x, Selector.Free, segment(0, 0xf_ffff, 0xa01b));
      setGate(x, 6, gate(Selector.Free, handler(6), 0x8e));
    });
    expect(delivered(w)).toEqual({ vector: 11, errorCode: 0x81, rip: CODE });
  });

  it('a handler that is not canonical: #GP(EXT)', () => {
    const w = run(64, UD, 0, (x) => x.machine.memory.write32(0x3000 + 6 * 16 + 8, 0x8000));
    expect(delivered(w)).toEqual({ vector: 13, errorCode: 1, rip: CODE });
  });

  it('a TSS that is too short: #TS with its selector', () => {
    const w = run(64, UD, 0, (x) => {
      setGate(x, 6, gate(0x10, handler(6), 0x8e, 1));
      x.cpu.set('TR.limit', 42n);
    });
    expect(delivered(w)).toEqual({ vector: 10, errorCode: Selector.Tss | 1, rip: CODE });
  });

  it('a stack that is not canonical: #SS(EXT), and registers as before', () => {
    const w = run(64, UD, 3, (x) => {
      setGate(x, 6, gate(0x10, handler(6), 0x8e, 1));
      x.machine.memory.write64(TSS + 36, 0x8000_0000_1000n);
    });
    expect(delivered(w)).toEqual({ vector: 12, errorCode: 1, rip: CODE });
    expect(stackItems(w, 6, 8)).toEqual([1, CODE, Selector.Code3, 0x202 | RF, STACK_TOP, Selector.Data3]);
  });
});

describe('delivery in 32-bit protected mode', () => {
  it('pushes EFLAGS, CS and EIP at the same privilege', () => {
    const w = run(32, UD, 0);
    expect(w.cpu.get('RIP')).toBe(BigInt(handler(6)));
    expect(stackItems(w, 3, 4)).toEqual([CODE, 0x10, 0x202 | RF]);
    expect(w.cpu.get('RSP')).toBe(BigInt(STACK_TOP - 12));
    expect(w.cpu.get('RFLAGS')).toBe(2n);
  });

  it('pushes SS and ESP too on the stack of more privilege', () => {
    const w = run(32, UD, 3);
    expect(w.cpu.cpl).toBe(0);
    expect(w.cpu.get('SS.selector')).toBe(BigInt(Selector.Data0));
    expect(stackItems(w, 5, 4)).toEqual([CODE, Selector.Code3, 0x202 | RF, STACK_TOP, Selector.Data3]);
    expect(w.cpu.get('RSP')).toBe(BigInt(STACK0 - 20));
  });

  it('conforming code runs at the CPL of the interrupted', () => {
    const w = run(32, UD, 3, (x) => setGate(x, 6, gate(Selector.Conforming, handler(6), 0x8e)));
    expect(w.cpu.cpl).toBe(3);
    expect(w.cpu.get('CS.selector')).toBe(BigInt(Selector.Conforming | 3));
    expect(stackItems(w, 3, 4)).toEqual([CODE, Selector.Code3, 0x202 | RF]);
  });

  it('a 16-bit gate has a frame of words, error code included', () => {
    const w = run(32, 'mov ds, ax', 0, (x) => {
      setGate(x, 13, gate(Selector.Code16, 0x1230, 0x86));
      x.cpu.set('RAX', 0x1238n);
      x.cpu.set('RIP', BigInt(CODE));
    });
    expect(w.cpu.get('RIP')).toBe(0x1230n);
    expect(w.cpu.processor.codeBits).toBe(16);
    expect(stackItems(w, 4, 2)).toEqual([0x1238, CODE & 0xffff, 0x10, 0x202]);
    expect(w.cpu.get('RSP')).toBe(BigInt(STACK_TOP - 8));
  });

  it('sets the accessed bits of what it loads', () => {
    const w = run(32, UD, 3, (x) => {
      setDescriptor(x, Selector.Code0, segment(0, 0xf_ffff, 0xc09a));
      setDescriptor(x, Selector.Data0, segment(0, 0xf_ffff, 0xc092));
    });
    expect(w.machine.memory.read8(GDT + 0x15)).toBe(0x9b);
    expect(w.machine.memory.read8(GDT + 0x1d)).toBe(0x93);
  });

  const stacks: [string, (w: World) => void, number, number][] = [
    ['a null SS in the TSS', ({ machine }) => machine.memory.write32(TSS + 8, 0), 10, 1],
    ['an SS beyond the GDT', ({ machine }) => machine.memory.write32(TSS + 8, 0x1000), 10, 0x1001],
    ['an SS of another RPL', ({ machine }) => machine.memory.write32(TSS + 8, 0x19), 10, 0x19],
    ['an SS of another DPL', ({ machine }) => machine.memory.write32(TSS + 8, 0x28), 10, 0x29],
    ['an SS that is code', ({ machine }) => machine.memory.write32(TSS + 8, 0x10), 10, 0x11],
    ['a TSS that is too short', ({ cpu }) => cpu.set('TR.limit', 8n), 10, 0x39],
  ];
  for (const [name, prepare, vector, errorCode] of stacks) {
    it(`${name}: #TS`, () => {
      // The handler of #TS is conforming: it needs no stack of its own.
      const w = run(32, UD, 3, (x) => {
        prepare(x);
        setGate(x, vector, gate(Selector.Conforming, handler(vector), 0x8e));
      });
      expect(delivered(w)).toEqual({ vector, errorCode, rip: CODE });
      expect(w.cpu.get('RSP')).toBe(BigInt(STACK_TOP - 16));
    });
  }

  it('a stack that is not present or has no room: #SS with its selector', () => {
    for (const [limit, rights] of [
      [0xf_ffff, 0xc013],
      [0x3, 0x4093],
    ] as const) {
      const w = run(32, UD, 3, (x) => {
        setDescriptor(x, Selector.Free, segment(0, limit, rights));
        x.machine.memory.write32(TSS + 4, 0x40);
        x.machine.memory.write32(TSS + 8, Selector.Free);
        setGate(x, 12, gate(Selector.Conforming, handler(12), 0x8e));
      });
      expect(delivered(w)).toEqual({ vector: 12, errorCode: 0x81, rip: CODE });
      expect(w.cpu.get('SS.selector')).toBe(BigInt(Selector.Data3));
    }
  });

  it('an offset beyond the code segment: #GP(EXT)', () => {
    const w = run(32, UD, 0, (x) => setGate(x, 6, gate(Selector.Code16, 0x1_0000, 0x8e)));
    expect(delivered(w)).toEqual({ vector: 13, errorCode: 1, rip: CODE });
  });
});

describe('exceptions during delivery', () => {
  const breakGate = (w: World, vector: number) => setGate(w, vector, gate(0x10, handler(vector), 0x0e));

  it('contributory on contributory: #DF with error code 0', () => {
    const w = run(64, 'mov ds, ax', 0, (x) => {
      x.cpu.set('RAX', 0x1238n);
      breakGate(x, 13);
    });
    expect(delivered(w)).toEqual({ vector: 8, errorCode: 0, rip: CODE });
  });

  it('contributory on benign: one after the other', () => {
    const w = run(64, UD, 0, (x) => breakGate(x, 6));
    expect(delivered(w)).toEqual({ vector: 11, errorCode: 6 * 8 + 3, rip: CODE });
  });

  it('three: shutdown, with registers as before', () => {
    const w = run(64, 'mov ds, ax', 3, (x) => {
      x.cpu.set('RAX', 0x1238n);
      breakGate(x, 13);
      breakGate(x, 8);
    });
    expect(w.cpu.get('activityState')).toBe(2n);
    expect(w.cpu.get('RIP')).toBe(BigInt(CODE));
    expect(w.cpu.get('RSP')).toBe(BigInt(STACK_TOP));
    expect(w.cpu.cpl).toBe(3);
    const executed = w.cpu.processor.executed;
    w.cpu.run(5);
    expect(w.cpu.processor.executed).toBe(executed);
  });
});

describe('a delivery that comes to no end', () => {
  /** Pushing on a misaligned stack at CPL 3 is #AC, and so is pushing for that. */
  const endless = () =>
    run(32, 'mov eax, [esp]', 3, (w) => {
      setGate(w, 17, gate(Selector.Code3, handler(17), 0xee));
      w.cpu.set('CR0', w.cpu.get('CR0') | (1n << 18n));
      w.cpu.set('RFLAGS', 0x4_0202n);
      w.cpu.set('RSP', BigInt(STACK_TOP - 2));
    });

  it('lets time pass, and nothing else', () => {
    const { cpu } = endless();
    const before = cpu.processor.words.slice();
    cpu.processor.requestNmi();
    cpu.run(1000);
    expect(cpu.processor.executed).toBe(1001);
    expect(cpu.get('RIP')).toBe(BigInt(CODE));
    expect(cpu.get('nmiPending')).toBe(1n);
    cpu.set('nmiPending', 0n);
    for (const name of ['RSP', 'RFLAGS', 'CS.selector', 'originalEvent'] as const) {
      expect(cpu.get(name)).toBe(BigInt(before[2 * Register[name]] as number));
    }
  });

  it('ends with RESET', () => {
    const { cpu } = endless();
    cpu.reset();
    expect(cpu.get('originalEvent')).toBe(0n);
    cpu.run(1);
    expect(cpu.get('RIP')).not.toBe(0xfff0n);
  });
});

describe('real-address mode', () => {
  const real = (code: string) => {
    const w = world(code, { bits: 16 });
    w.cpu.set('RIP', 0n);
    w.cpu.set('RFLAGS', 0x302n);
    w.cpu.set('IDTR.base', 0n);
    w.cpu.set('IDTR.limit', 0x3ffn);
    w.machine.memory.write32(6 * 4, 0x1234_0700);
    w.machine.memory.write32(13 * 4, 0x2000_0013);
    w.machine.memory.write32(8 * 4, 0x2000_0008);
    return w;
  };

  it('pushes FLAGS, CS and IP, and clears IF and TF', () => {
    const w = real(UD);
    w.cpu.run(1);
    expect(w.cpu.get('RIP')).toBe(0x700n);
    expect(w.cpu.get('CS.selector')).toBe(0x1234n);
    expect(w.cpu.get('CS.base')).toBe(0x1_2340n);
    expect(stackItems(w, 3, 2)).toEqual([0, CODE >> 4, 0x302]);
    expect(w.cpu.get('RFLAGS')).toBe(2n);
  });

  it('a vector beyond the limit: #GP without error code, then #DF', () => {
    const w = real(UD);
    w.cpu.set('IDTR.limit', 0x17n);
    w.cpu.run(1);
    expect(w.cpu.get('activityState')).toBe(2n);
    const next = real(UD);
    next.cpu.set('IDTR.limit', 0x37n);
    next.machine.memory.write32(6 * 4, 0x1234_0700);
    next.cpu.set('RSP', 1n);
    next.cpu.run(1);
    expect(next.cpu.get('activityState')).toBe(2n);
  });
});
