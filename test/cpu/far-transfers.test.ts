import { describe, expect, it } from 'vitest';
import { CODE, STACK_TOP } from '../support/code.ts';
import {
  delivered,
  enterRing,
  gate,
  Selector,
  STACK0,
  segment,
  setDescriptor,
  stackItems,
  TSS,
  type World,
  world,
} from '../support/tables.ts';

const le = (value: number, bytes: number) =>
  Array.from({ length: bytes }, (_, n) => Math.floor(value / 256 ** n) & 0xff);
const farDirect = (opcode: number, selector: number, offset: number) =>
  Uint8Array.from([opcode, ...le(offset, 4), ...le(selector, 2)]);
const JMP = 0xea;
const CALL = 0x9a;
/** `CALL` or `JMP` through the far pointer at 5000H, in 64-bit code; the offset has 32 bits. */
const farIndirect = (digit: 3 | 5, w = false) =>
  Uint8Array.from([...(w ? [0x48] : []), 0xff, 0x04 | (digit << 3), 0x25, 0, 0x50, 0, 0]);

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

function pointer(w: World, offset: bigint, selector: number, bytes: 4 | 8): void {
  w.machine.memory.write64(0x5000, offset);
  w.machine.memory.write16(0x5000 + bytes, selector);
}

describe('far JMP and CALL of code', () => {
  it('JMP loads CS and EIP, RPL of CS is the CPL', () => {
    const w = run(32, farDirect(JMP, Selector.Conforming, 0x1234), 3);
    expect(w.cpu.get('CS.selector')).toBe(BigInt(Selector.Conforming | 3));
    expect(w.cpu.get('RIP')).toBe(0x1234n);
    expect(w.cpu.cpl).toBe(3);
  });

  it('CALL pushes CS and the address of the next instruction', () => {
    const w = run(32, farDirect(CALL, Selector.Code16, 0x1234));
    expect(w.cpu.processor.codeBits).toBe(16);
    expect(stackItems(w, 2, 4)).toEqual([CODE + 7, Selector.Code0]);
  });

  it('an operand size of 16 bits truncates the offset and halves the frame', () => {
    const w = run(32, Uint8Array.from([0x66, CALL, 0x34, 0x12, Selector.Code16, 0]));
    expect(w.cpu.get('RIP')).toBe(0x1234n);
    expect(stackItems(w, 2, 2)).toEqual([(CODE + 6) & 0xffff, Selector.Code0]);
  });

  const refused: [string, number, number, 0 | 3, number, number][] = [
    ['a null selector', 0xc09b, 0, 0, 13, 0],
    ['a selector beyond the GDT', 0xc09b, 0x100, 0, 13, 0x100],
    ['data', 0xc093, 0x80, 0, 13, 0x80],
    ['non-conforming code of another DPL', 0xc09b, 0x80, 3, 13, 0x80],
    ['an RPL above the CPL', 0xc09b, 0x83, 0, 13, 0x80],
    ['conforming code of a higher DPL', 0xc0ff, 0x80, 0, 13, 0x80],
    ['code that is not present', 0xc01b, 0x80, 0, 11, 0x80],
    ['an offset beyond the limit', 0x409b, 0x80, 0, 13, 0],
  ];
  for (const [name, rights, selector, ring, vector, errorCode] of refused) {
    it(`refuse ${name}`, () => {
      for (const opcode of [JMP, CALL]) {
        const w = run(32, farDirect(opcode, selector, 0x10_0000), ring, (x) =>
          setDescriptor(x, Selector.Free, segment(0, 0xf_ffff, rights)),
        );
        expect(delivered(w)).toEqual({ vector, errorCode, rip: CODE });
      }
    });
  }

  it('go from 64-bit mode to compatibility mode and back', () => {
    const w = run(64, farIndirect(5), 0, (x) => {
      x.machine.memory.write32(0x5000, 0x1_2000);
      x.machine.memory.write16(0x5004, Selector.Code32);
      x.machine.memory.writeBytes(0x1_2000, farDirect(CALL, Selector.Code0, 0x1_3000));
    });
    expect(w.cpu.mode).toBe(3);
    w.cpu.run(1);
    expect(w.cpu.mode).toBe(4);
    expect(stackItems(w, 1, 8)).toEqual([Selector.Code32 * 2 ** 32 + 0x1_2007]);
  });

  it('with REX.W the offset has 64 bits and must be canonical', () => {
    const w = run(64, farIndirect(5, true), 0, (x) => pointer(x, 0xffff_8000_0000_1000n, Selector.Code0, 8));
    expect(w.cpu.get('RIP')).toBe(0xffff_8000_0000_1000n);
    const bad = run(64, farIndirect(5, true), 0, (x) => pointer(x, 0x8000_0000_0000n, Selector.Code0, 8));
    expect(delivered(bad)).toEqual({ vector: 13, errorCode: 0, rip: CODE });
  });

  it('code with both L and D is refused in IA-32e mode', () => {
    const w = run(64, farIndirect(5), 0, (x) => {
      setDescriptor(x, Selector.Free, segment(0, 0xf_ffff, 0xe09b));
      x.machine.memory.write32(0x5000, 0x1_2000);
      x.machine.memory.write16(0x5004, Selector.Free);
    });
    expect(delivered(w)).toEqual({ vector: 13, errorCode: 0x80, rip: CODE });
  });

  it('in real-address mode change only selector and base', () => {
    const w = world(Uint8Array.from([CALL, 0x34, 0x12, 0x00, 0x20]), { bits: 16 });
    w.cpu.set('RIP', 0n);
    w.cpu.run(1);
    expect(w.cpu.get('CS.base')).toBe(0x2_0000n);
    expect(w.cpu.get('RIP')).toBe(0x1234n);
    expect(stackItems(w, 2, 2)).toEqual([5, CODE >> 4]);
  });
});

describe('call gates', () => {
  const callGate =
    (selector: number, rights: number, parameters = 0) =>
    (w: World) =>
      setDescriptor(w, Selector.Free, gate(selector, 0x1_5678, rights, parameters), 0n);
  const call = farDirect(CALL, Selector.Free, 0xdead_beef);

  it('32-bit: to more privilege with parameters', () => {
    const w = run(32, call, 3, (x) => {
      callGate(Selector.Code0, 0xec, 2)(x);
      x.machine.memory.write32(STACK_TOP, 0x1111_1111);
      x.machine.memory.write32(STACK_TOP + 4, 0x2222_2222);
    });
    expect(w.cpu.cpl).toBe(0);
    expect(w.cpu.get('RIP')).toBe(0x1_5678n);
    expect(w.cpu.get('CS.selector')).toBe(BigInt(Selector.Code0));
    expect(w.cpu.get('SS.selector')).toBe(BigInt(Selector.Data0));
    expect(w.cpu.get('RSP')).toBe(BigInt(STACK0 - 24));
    expect(stackItems(w, 6, 4)).toEqual([
      CODE + 7,
      Selector.Code3,
      0x1111_1111,
      0x2222_2222,
      STACK_TOP,
      Selector.Data3,
    ]);
  });

  it('16-bit: offset and items of 16 bits', () => {
    const w = run(32, call, 3, callGate(Selector.Code0, 0xe4, 1));
    expect(w.cpu.get('RIP')).toBe(0x5678n);
    expect(w.cpu.get('RSP')).toBe(BigInt(STACK0 - 10));
    expect(stackItems(w, 2, 2)).toEqual([(CODE + 7) & 0xffff, Selector.Code3]);
  });

  it('at the same privilege push a return address only', () => {
    const w = run(32, call, 0, callGate(Selector.Code0, 0x8c, 2));
    expect(stackItems(w, 2, 4)).toEqual([CODE + 7, Selector.Code0]);
    expect(w.cpu.get('RSP')).toBe(BigInt(STACK_TOP - 8));
  });

  it('64-bit: to more privilege with a null SS', () => {
    const w = run(64, farIndirect(3), 3, (x) => {
      callGate(Selector.Code0, 0xec)(x);
      x.machine.memory.write16(0x5004, Selector.Free);
    });
    expect(w.cpu.cpl).toBe(0);
    expect(w.cpu.get('SS.selector')).toBe(0n);
    expect(w.cpu.get('RSP')).toBe(BigInt(STACK0 - 32));
    expect(stackItems(w, 4, 8)).toEqual([CODE + 7, Selector.Code3, STACK_TOP, Selector.Data3]);
  });

  it('JMP does not change privilege', () => {
    const same = run(32, farDirect(JMP, Selector.Free, 0), 3, callGate(Selector.Code3, 0xec));
    expect(same.cpu.get('RIP')).toBe(0x1_5678n);
    const more = run(32, farDirect(JMP, Selector.Free, 0), 3, callGate(Selector.Code0, 0xec));
    expect(delivered(more)).toEqual({ vector: 13, errorCode: Selector.Code0, rip: CODE });
  });

  const refused: [string, 0 | 3, (w: World) => void, number, number][] = [
    ['a gate of lower DPL', 3, callGate(Selector.Code0, 0x8c), 13, 0x80],
    ['a gate that is not present', 3, callGate(Selector.Code0, 0x6c), 11, 0x80],
    ['a null code selector', 3, callGate(0, 0xec), 13, 0],
    ['a code selector beyond the GDT', 3, callGate(0x100, 0xec), 13, 0x100],
    ['data behind the gate', 3, callGate(Selector.Data0, 0xec), 13, Selector.Data0],
    ['less privileged code', 0, callGate(Selector.Code3, 0xec), 13, Selector.Code3 & ~3],
    ['a gate of interrupts', 3, callGate(Selector.Code0, 0xee), 13, 0x80],
  ];
  for (const [name, ring, prepare, vector, errorCode] of refused) {
    it(`CALL refuses ${name}`, () => {
      expect(delivered(run(32, call, ring, prepare))).toEqual({ vector, errorCode, rip: CODE });
    });
  }

  it('an RPL above the DPL of the gate', () => {
    const w = run(32, farDirect(CALL, Selector.Free | 3, 0), 0, callGate(Selector.Code0, 0x8c));
    expect(delivered(w)).toEqual({ vector: 13, errorCode: 0x80, rip: CODE });
  });

  it('the stack of the TSS is checked: #TS and #SS', () => {
    const one = (prepare: (w: World) => void) =>
      run(32, call, 3, (x) => {
        callGate(Selector.Code1, 0xec)(x);
        prepare(x);
      });
    expect(delivered(one(({ machine }) => machine.memory.write32(TSS + 16, 0)))).toMatchObject({
      vector: 10,
      errorCode: 0,
    });
    expect(delivered(one(({ machine }) => machine.memory.write32(TSS + 16, 0x18)))).toMatchObject({
      vector: 10,
      errorCode: 0x18,
    });
    expect(delivered(one(({ cpu }) => cpu.set('TR.limit', 16n)))).toMatchObject({
      vector: 10,
      errorCode: Selector.Tss,
    });
    const gone = one((x) => setDescriptor(x, Selector.Data1, segment(0, 0xf_ffff, 0xc033)));
    expect(delivered(gone)).toMatchObject({ vector: 12, errorCode: Selector.Data1 & ~3 });
  });
});

describe('far RET', () => {
  const RETF = Uint8Array.from([0xcb]);
  const RETF_8 = Uint8Array.from([0xca, 8, 0]);
  const frame =
    (...items: number[]) =>
    (w: World) => {
      items.forEach((item, n) => {
        if (w.bits === 64) w.machine.memory.write64(STACK_TOP + 8 * n, BigInt(item));
        else w.machine.memory.write32(STACK_TOP + 4 * n, item);
      });
    };

  it('at the same privilege', () => {
    const w = run(32, RETF_8, 0, frame(0x1_2345, Selector.Code0));
    expect(w.cpu.get('RIP')).toBe(0x1_2345n);
    expect(w.cpu.get('RSP')).toBe(BigInt(STACK_TOP + 16));
  });

  it('to less privilege: both stacks lose the parameters, privileged data segments become null', () => {
    const w = run(32, RETF_8, 0, frame(0x1_2345, Selector.Code3, 1, 2, 0x7_0000, Selector.Data3));
    expect(w.cpu.cpl).toBe(3);
    expect(w.cpu.get('SS.selector')).toBe(BigInt(Selector.Data3));
    expect(w.cpu.get('RSP')).toBe(0x7_0008n);
    expect(w.cpu.get('DS.selector')).toBe(0n);
    expect(w.cpu.get('DS.accessRights') & 0x1_0000n).toBe(0x1_0000n);
  });

  const refused: [string, 0 | 3, number[], number, number][] = [
    ['a null selector', 0, [0, 0], 13, 0],
    ['a selector beyond the GDT', 0, [0, 0x100], 13, 0x100],
    ['data', 0, [0, Selector.Data0], 13, Selector.Data0],
    ['more privilege', 3, [0, Selector.Code0], 13, Selector.Code0],
    ['non-conforming code of another DPL', 0, [0, Selector.Code0 | 3], 13, Selector.Code0],
    ['an offset beyond the limit', 0, [0x1_0000, Selector.Code16], 13, 0],
    ['a null SS', 0, [0, Selector.Code3, 0, 0], 13, 0],
    ['an SS of another privilege', 0, [0, Selector.Code3, 0, Selector.Data0], 13, Selector.Data0],
    ['an SS beyond the GDT', 0, [0, Selector.Code3, 0, 0x103], 13, 0x100],
  ];
  for (const [name, ring, items, vector, errorCode] of refused) {
    it(`refuses ${name}`, () => {
      expect(delivered(run(32, RETF, ring, frame(...items)))).toEqual({ vector, errorCode, rip: CODE });
    });
  }

  it('64-bit: a null SS is allowed below CPL 3', () => {
    const code = Uint8Array.from([0x48, 0xcb]);
    const w = run(64, code, 0, frame(0x1_2345, Selector.Code1, 0x7_0000, 1));
    expect(w.cpu.cpl).toBe(1);
    expect(w.cpu.get('SS.selector')).toBe(1n);
    const bad = run(64, code, 0, frame(0x1_2345, Selector.Code3, 0x7_0000, 3));
    expect(delivered(bad)).toEqual({ vector: 13, errorCode: 0, rip: CODE });
  });
});

describe('fast system calls', () => {
  const prepare = ({ cpu }: World) => {
    cpu.set('IA32_EFER', cpu.get('IA32_EFER') | 1n);
    cpu.set('IA32_STAR', (0x1bn << 48n) | (0x10n << 32n));
    cpu.set('IA32_LSTAR', 0xffff_8000_0000_1000n);
    cpu.set('IA32_FMASK', 0x700n);
  };

  it('SYSCALL enters LSTAR with flat segments, RCX and R11 keep RIP and RFLAGS', () => {
    const w = run(64, 'syscall', 3, (x) => {
      prepare(x);
      x.cpu.set('RFLAGS', 0x3202n);
    });
    expect(w.cpu.get('RIP')).toBe(0xffff_8000_0000_1000n);
    expect(w.cpu.get('RCX')).toBe(BigInt(CODE + 2));
    expect(w.cpu.get('R11')).toBe(0x3202n);
    expect(w.cpu.get('RFLAGS')).toBe(0x3002n);
    expect([w.cpu.get('CS.selector'), w.cpu.get('SS.selector')]).toEqual([0x10n, 0x18n]);
    expect([w.cpu.get('CS.accessRights'), w.cpu.get('SS.accessRights')]).toEqual([0xa09bn, 0xc093n]);
    expect(w.cpu.cpl).toBe(0);
  });

  it('SYSRET returns to 64-bit or compatibility code', () => {
    for (const [code, mode, selector] of [
      ['.byte 0x48, 0x0f, 0x07', 4, 0x2bn],
      ['.byte 0x0f, 0x07', 3, 0x1bn],
    ] as const) {
      const w = run(64, code, 0, (x) => {
        prepare(x);
        x.cpu.set('RCX', 0x1_2345n);
        x.cpu.set('R11', 0x3_3302n);
      });
      expect(w.cpu.mode).toBe(mode);
      expect(w.cpu.cpl).toBe(3);
      expect(w.cpu.get('CS.selector')).toBe(selector);
      expect(w.cpu.get('SS.selector')).toBe(0x23n);
      expect(w.cpu.get('RIP')).toBe(0x1_2345n);
      expect(w.cpu.get('RFLAGS')).toBe(0x3302n);
    }
  });

  it('SYSRET faults above CPL 0 and for an RCX that is not canonical; both want EFER.SCE', () => {
    const sysretq = '.byte 0x48, 0x0f, 0x07';
    const user = run(64, sysretq, 3, prepare);
    expect(delivered(user)).toEqual({ vector: 13, errorCode: 0, rip: CODE });
    const bad = run(64, sysretq, 0, (x) => {
      prepare(x);
      x.cpu.set('RCX', 1n << 47n);
    });
    expect(delivered(bad)).toEqual({ vector: 13, errorCode: 0, rip: CODE });
    for (const code of ['syscall', sysretq]) {
      expect(delivered(run(64, code))).toEqual({ vector: 6, rip: CODE });
    }
  });

  it('SYSENTER and SYSEXIT', () => {
    const msrs = ({ cpu }: World) => {
      cpu.set('IA32_SYSENTER_CS', 0x10n);
      cpu.set('IA32_SYSENTER_ESP', 0x6_0000n);
      cpu.set('IA32_SYSENTER_EIP', 0x1_2345n);
    };
    const w = run(32, 'sysenter', 3, (x) => {
      msrs(x);
      x.cpu.set('RFLAGS', 0x202n);
    });
    expect(w.cpu.cpl).toBe(0);
    expect([w.cpu.get('RIP'), w.cpu.get('RSP'), w.cpu.get('RFLAGS')]).toEqual([0x1_2345n, 0x6_0000n, 2n]);
    expect(w.cpu.get('CS.accessRights')).toBe(0xc09bn);
    const back = run(32, 'sysexit', 0, (x) => {
      msrs(x);
      x.cpu.set('RCX', 0x7_0000n);
      x.cpu.set('RDX', 0x1_5000n);
    });
    expect(back.cpu.cpl).toBe(3);
    expect([back.cpu.get('RIP'), back.cpu.get('RSP')]).toEqual([0x1_5000n, 0x7_0000n]);
    expect([back.cpu.get('CS.selector'), back.cpu.get('SS.selector')]).toEqual([0x23n, 0x2bn]);
    const long = run(64, '.byte 0x48, 0x0f, 0x35', 0, (x) => {
      msrs(x);
      x.cpu.set('RDX', 0x1_5000n);
    });
    expect([long.cpu.get('CS.selector'), long.cpu.get('SS.selector')]).toEqual([0x33n, 0x3bn]);
    expect(long.cpu.mode).toBe(4);
    expect(delivered(run(32, 'sysenter', 3))).toEqual({ vector: 13, errorCode: 0, rip: CODE });
    expect(delivered(run(32, 'sysexit', 3, msrs))).toEqual({ vector: 13, errorCode: 0, rip: CODE });
  });
});
