import { describe, expect, it } from 'vitest';
import { CODE, STACK_TOP } from '../support/code.ts';
import {
  delivered,
  enterRing,
  enterVirtual8086,
  gate,
  handler,
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

const IRET = Uint8Array.from([0xcf]);
const IRETQ = Uint8Array.from([0x48, 0xcf]);
const VM = 0x2_0000;
const IOPL3 = 0x3000;

function run(
  bits: 32 | 64,
  code: string | Uint8Array,
  ring: 0 | 1 | 3 = 0,
  prepare: (w: World) => void = () => {},
): World {
  const w = world(code, { bits });
  if (ring !== 0) enterRing(w, ring);
  prepare(w);
  w.cpu.run(1);
  return w;
}

/** Puts items on the stack in use. */
const frame =
  (...items: number[]) =>
  (w: World) => {
    items.forEach((item, n) => {
      if (w.bits === 64) w.machine.memory.write64(STACK_TOP + 8 * n, BigInt(item));
      else w.machine.memory.write32(STACK_TOP + 4 * n, item);
    });
  };

function virtual8086(code: Uint8Array, flags: number, cr4 = 0): World {
  const w = world(code, { bits: 32 });
  w.cpu.set('CR4', BigInt(cr4));
  enterVirtual8086(w, flags);
  expect(w.cpu.mode).toBe(1);
  return w;
}

describe('INT n, INT3, INTO, INT1', () => {
  it('return behind the instruction, with RF as it was', () => {
    for (const [bytes, vector] of [
      [[0xcd, 0x80], 0x80],
      [[0xcc], 3],
      [[0xf1], 1],
    ] as const) {
      const w = run(64, Uint8Array.from(bytes), 3, (x) => {
        setGate(x, vector, gate(Selector.Code0, handler(vector), 0xee));
        x.cpu.set('RFLAGS', 0x202n);
      });
      expect(w.cpu.get('RIP')).toBe(BigInt(handler(vector)));
      expect(stackItems(w, 3, 8)).toEqual([CODE + bytes.length, Selector.Code3, 0x202]);
    }
  });

  it('INTO only with OF', () => {
    const clear = run(32, Uint8Array.from([0xce]));
    expect(clear.cpu.get('RIP')).toBe(BigInt(CODE + 1));
    const set = run(32, Uint8Array.from([0xce]), 0, ({ cpu }) => cpu.set('RFLAGS', 0x802n));
    expect(delivered(set)).toEqual({ vector: 4, rip: CODE + 1 });
  });

  it('need a gate whose DPL is at least the CPL: #GP with the vector and without EXT', () => {
    for (const [bytes, vector] of [
      [[0xcd, 0x80], 0x80],
      [[0xcc], 3],
    ] as const) {
      const w = run(64, Uint8Array.from(bytes), 3);
      expect(delivered(w)).toEqual({ vector: 13, errorCode: (vector << 3) | 2, rip: CODE });
    }
    // INT1 is an event of the processor: no check, and EXT is 1.
    const w = run(64, Uint8Array.from([0xf1]), 3, (x) => setGate(x, 1, gate(0x10, 0, 0x0e)));
    expect(delivered(w)).toEqual({ vector: 11, errorCode: 8 | 3, rip: CODE });
  });

  it('a gate that is not present, a limit that excludes it: no EXT', () => {
    const gone = run(64, Uint8Array.from([0xcd, 0x80]), 0, (x) => setGate(x, 0x80, gate(0x10, 0, 0x0e)));
    expect(delivered(gone)).toEqual({ vector: 11, errorCode: 0x402, rip: CODE });
    const beyond = run(64, Uint8Array.from([0xcd, 0x80]), 0, ({ cpu }) => cpu.set('IDTR.limit', 0x7ffn));
    expect(delivered(beyond)).toEqual({ vector: 13, errorCode: 0x402, rip: CODE });
  });
});

describe('IRET', () => {
  it('32-bit: at the same privilege pops EIP, CS, EFLAGS', () => {
    const w = run(32, IRET, 0, frame(0x1_2345, Selector.Code0, 0x3_3ed7 & ~VM));
    expect(w.cpu.get('RIP')).toBe(0x1_2345n);
    expect(w.cpu.get('RSP')).toBe(BigInt(STACK_TOP + 12));
    expect(w.cpu.get('RFLAGS')).toBe(0x1_3ed7n);
  });

  it('to less privilege pops ESP and SS, and drops privileged data segments', () => {
    const w = run(32, IRET, 0, frame(0x1_2345, Selector.Code3, 0x202, 0x7_0000, Selector.Data3));
    expect(w.cpu.cpl).toBe(3);
    expect(w.cpu.get('RSP')).toBe(0x7_0000n);
    expect(w.cpu.get('ES.selector')).toBe(0n);
  });

  it('64-bit: always pops RSP and SS', () => {
    const w = run(64, IRETQ, 0, frame(0x1_2345, Selector.Code0, 0x202, 0x7_0000, Selector.Data0));
    expect(w.cpu.get('RSP')).toBe(0x7_0000n);
    const nullSs = run(64, IRETQ, 0, frame(0x1_2345, Selector.Code0, 0x202, 0x7_0000, 0));
    expect(nullSs.cpu.get('SS.accessRights') & 0x1_0000n).toBe(0x1_0000n);
  });

  it('64-bit: into compatibility mode, and to a 16-bit stack whose upper RSP stays', () => {
    const w = run(64, IRETQ, 0, frame(0x1_2345, Selector.Code32Ring3, 0x202, 0x7_0000, Selector.Data3));
    expect([w.cpu.mode, w.cpu.cpl]).toEqual([3, 3]);
    const narrow = run(64, IRETQ, 0, (x) => {
      setDescriptor(x, Selector.Free, segment(0x1000, 0xffff, 0xf3));
      frame(0x1_2345, Selector.Code32Ring3, 0x202, 0x1234, Selector.Free | 3)(x);
    });
    expect(narrow.cpu.get('RSP')).toBe(0x9_1234n);
  });

  it('at CPL 3 IOPL stays, and IF unless IOPL allows it', () => {
    const low = run(32, IRET, 3, frame(0x1_2345, Selector.Code3, 0x3202));
    expect(low.cpu.get('RFLAGS')).toBe(2n);
    const high = run(32, IRET, 3, (w) => {
      w.cpu.set('RFLAGS', 0x3002n);
      frame(0x1_2345, Selector.Code3, 0x202)(w);
    });
    expect(high.cpu.get('RFLAGS')).toBe(0x3202n);
  });

  it('ends blocking by NMI even if it faults', () => {
    const w = run(32, IRET, 0, (x) => {
      x.cpu.set('blockingByNmi', 1n);
      frame(0, 0, 0)(x);
    });
    expect(delivered(w)).toEqual({ vector: 13, errorCode: 0, rip: CODE });
    expect(w.cpu.get('blockingByNmi')).toBe(0n);
  });

  it('RF from the image holds for the next instruction only', () => {
    const w = world(IRET, { bits: 32 });
    frame(0x1_2345, Selector.Code0, 0x1_0002)(w);
    w.machine.memory.writeBytes(0x1_2345, Uint8Array.from([0x90, 0x90]));
    w.cpu.run(1);
    expect(w.cpu.get('RFLAGS')).toBe(0x1_0002n);
    w.cpu.run(1);
    expect(w.cpu.get('RFLAGS')).toBe(2n);
  });

  it('with NT is #GP(0) in IA-32e mode', () => {
    const w = run(64, IRETQ, 0, ({ cpu }) => cpu.set('RFLAGS', 0x4002n));
    expect(delivered(w)).toEqual({ vector: 13, errorCode: 0, rip: CODE });
  });

  it('to virtual-8086 mode pops all segments', () => {
    const w = run(32, IRET, 0, frame(0x1234, 0x2000, VM | IOPL3 | 0x202, 0xf000, 0x7000, 0xe, 0xd, 0xf, 0x9));
    const { cpu } = w;
    expect([cpu.mode, cpu.cpl]).toEqual([1, 3]);
    expect([cpu.get('CS.base'), cpu.get('RIP'), cpu.get('SS.base'), cpu.get('RSP')]).toEqual([
      0x2_0000n,
      0x1234n,
      0x7_0000n,
      0xf000n,
    ]);
    expect((['ES', 'DS', 'FS', 'GS'] as const).map((s) => cpu.get(`${s}.selector`))).toEqual([
      0xen,
      0xdn,
      0xfn,
      9n,
    ]);
    expect(cpu.get('DS.accessRights')).toBe(0xf3n);
    const far = run(32, IRET, 0, frame(0x1_0000, 0x2000, VM, 0, 0, 0, 0, 0, 0));
    expect(delivered(far)).toEqual({ vector: 13, errorCode: 0, rip: CODE });
  });

  it('in real-address mode', () => {
    const w = world(IRET, { bits: 16 });
    w.cpu.set('RIP', 0n);
    w.machine.memory.write16(0xf000, 0x1234);
    w.machine.memory.write16(0xf002, 0x2000);
    w.machine.memory.write16(0xf004, 0x7202);
    w.cpu.run(1);
    expect([w.cpu.get('CS.base'), w.cpu.get('RIP'), w.cpu.get('RFLAGS')]).toEqual([
      0x2_0000n,
      0x1234n,
      0x7202n,
    ]);
  });
});

describe('virtual-8086 mode', () => {
  it('an exception saves all segments on the stack of CPL 0 and makes them null', () => {
    const w = virtual8086(Uint8Array.from([0x0f, 0x0b]), IOPL3);
    w.cpu.run(1);
    expect([w.cpu.mode, w.cpu.cpl]).toEqual([2, 0]);
    expect(w.cpu.get('RSP')).toBe(BigInt(STACK0 - 36));
    expect(stackItems(w, 9, 4)).toEqual([0, 0x1000, VM | IOPL3 | 0x1_0002, 0xf000, 0x7000, 2, 1, 3, 4]);
    expect(w.cpu.get('DS.selector')).toBe(0n);
  });

  it('handlers must be at privilege level 0: #GP with the selector', () => {
    const w = virtual8086(Uint8Array.from([0x0f, 0x0b]), IOPL3);
    setGate(w, 6, gate(Selector.Code1, handler(6), 0x8e));
    w.cpu.run(1);
    expect(delivered(w)).toMatchObject({ vector: 13, errorCode: (Selector.Code1 & ~3) | 1 });
  });

  it('INT n: #GP(0) with IOPL below 3, through the gate with IOPL 3', () => {
    const w = virtual8086(Uint8Array.from([0xcd, 0x21]), 0);
    w.cpu.run(1);
    expect(delivered(w)).toEqual({ vector: 13, errorCode: 0, rip: 0 });
    const direct = virtual8086(Uint8Array.from([0xcd, 0x21]), IOPL3);
    setGate(direct, 0x21, gate(Selector.Code0, handler(0x21), 0xee));
    direct.cpu.run(1);
    expect(stackItems(direct, 1, 4)).toEqual([2]);
  });

  it('INT3 is not sensitive to IOPL', () => {
    const w = virtual8086(Uint8Array.from([0xcc]), 0);
    setGate(w, 3, gate(Selector.Code0, handler(3), 0xee));
    w.cpu.run(1);
    expect(w.cpu.get('RIP')).toBe(BigInt(handler(3)));
  });

  it('with VME the redirection bitmap decides, and IF is virtual below IOPL 3', () => {
    const one = (flags: number, redirected: boolean) => {
      const w = virtual8086(Uint8Array.from([0xcd, 0x21]), flags, 1);
      w.machine.memory.write32(0x21 * 4, 0x2000_0100);
      w.machine.memory.write8(TSS + 0x2000 - 32 + 4, redirected ? 0 : 2);
      setGate(w, 0x21, gate(Selector.Code0, handler(0x21), 0xee));
      w.cpu.run(1);
      return w;
    };
    const virtualIf = one(0x8_0200, true);
    expect([virtualIf.cpu.mode, virtualIf.cpu.get('CS.base'), virtualIf.cpu.get('RIP')]).toEqual([
      1,
      0x2_0000n,
      0x100n,
    ]);
    expect(stackItems(virtualIf, 3, 2)).toEqual([2, 0x1000, IOPL3 | 0x202]);
    expect(virtualIf.cpu.get('RFLAGS')).toBe(BigInt(VM | 0x202));
    const direct = one(IOPL3 | 0x200, true);
    expect(direct.cpu.get('RFLAGS')).toBe(BigInt(VM | IOPL3 | 2));
    expect(delivered(one(0, false))).toEqual({ vector: 13, errorCode: 0, rip: 0 });
    expect(one(IOPL3, false).cpu.get('RIP')).toBe(BigInt(handler(0x21)));
  });

  it('CLI, STI and IRET with VME work on VIF', () => {
    const w = virtual8086(Uint8Array.from([0xfb, 0xfa, 0xcf]), 0, 1);
    w.machine.memory.write32(0x7_f000, 0x1000_0010);
    w.machine.memory.write16(0x7_f004, 0x0202);
    w.cpu.run(1);
    expect(w.cpu.get('RFLAGS')).toBe(BigInt(VM | 0x8_0002));
    w.cpu.run(1);
    expect(w.cpu.get('RFLAGS')).toBe(BigInt(VM | 2));
    w.cpu.run(1);
    expect([w.cpu.get('RIP'), w.cpu.get('RFLAGS')]).toEqual([0x10n, BigInt(VM | 0x8_0002)]);
  });

  it('STI with VIP and IRET below IOPL 3 without VME are #GP(0)', () => {
    for (const [bytes, flags, cr4] of [
      [[0xfb], 0x10_0000, 1],
      [[0xfb], 0, 0],
      [[0xfa], 0, 0],
      [[0xcf], 0, 0],
      [[0x66, 0xcf], 0, 1],
    ] as const) {
      const w = virtual8086(Uint8Array.from(bytes), flags, cr4);
      w.cpu.run(1);
      expect(delivered(w)).toEqual({ vector: 13, errorCode: 0, rip: 0 });
    }
  });
});

describe('CLI and STI in protected mode', () => {
  it('are for a CPL not above IOPL', () => {
    expect(delivered(run(32, 'cli', 3))).toEqual({ vector: 13, errorCode: 0, rip: CODE });
    const w = run(32, 'sti', 3, ({ cpu }) => cpu.set('RFLAGS', 0x3002n));
    expect(w.cpu.get('RFLAGS')).toBe(0x3202n);
  });

  it('with PVI work on VIF at CPL 3', () => {
    const pvi = ({ cpu }: World) => cpu.set('CR4', 2n);
    expect(run(32, 'sti', 3, pvi).cpu.get('RFLAGS')).toBe(0x8_0002n);
    expect(delivered(run(32, 'sti', 1, pvi))).toEqual({ vector: 13, errorCode: 0, rip: CODE });
  });
});
