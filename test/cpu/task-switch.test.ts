import { describe, expect, it } from 'vitest';
import { LINEAR, PageRight } from '../../src/cpu/translation-cache.ts';
import { CODE, STACK_TOP } from '../support/code.ts';
import {
  delivered,
  enterRing,
  GDT,
  gate,
  Selector,
  segment,
  setDescriptor,
  setGate,
  stackItems,
  TSS,
  type World,
  world,
} from '../support/tables.ts';

const NEW_TSS = 0x7000;
const EIP = 0x1_2345;
const STACK = 0x5_0000;
const NT = 0x4000n;
const T_FLAG = 0x64;
const farDirect = (opcode: number, selector: number) =>
  Uint8Array.from([opcode, 0, 0, 0, 0, selector & 0xff, selector >> 8]);
const CALL = farDirect(0x9a, Selector.Free);
const JMP = farDirect(0xea, Selector.Free);

/** A 32-bit TSS at NEW_TSS, described by Selector.Free, of a task at CPL 0. */
function newTask(w: World): void {
  const { memory } = w.machine;
  setDescriptor(w, Selector.Free, segment(NEW_TSS, 0x67, 0x89));
  setDescriptor(w, Selector.Tss, segment(TSS, 0x2fff, 0x8b));
  memory.write32(NEW_TSS + 0x20, EIP);
  memory.write32(NEW_TSS + 0x24, 0x202);
  for (let n = 0; n < 8; n++) memory.write32(NEW_TSS + 0x28 + 4 * n, n === 4 ? STACK : 0x1000 + n);
  const segments = [Selector.Data0, Selector.Code0, Selector.Data0, Selector.Data0, 0, Selector.Data3];
  segments.forEach((selector, n) => {
    memory.write32(NEW_TSS + 0x48 + 4 * n, selector);
  });
  memory.write32(NEW_TSS + 0x60, 0);
  memory.write32(NEW_TSS + T_FLAG, 0);
}

function run(code: Uint8Array, ring: 0 | 3 = 0, prepare: (w: World) => void = () => {}): World {
  const w = world(code, { bits: 32 });
  if (ring !== 0) enterRing(w, ring);
  newTask(w);
  w.cpu.set('RAX', 0xaaaa_aaaan);
  w.cpu.set('RFLAGS', 0x302n & ~0x100n);
  prepare(w);
  w.cpu.run(1);
  return w;
}

const read32 = (w: World, at: number) => w.machine.memory.read32(at);
const type = (w: World, selector: number) => w.machine.memory.read8(GDT + selector + 5) & 0xf;

describe('a task switch', () => {
  it('that changes CR3 forgets all translations but global ones', () => {
    const GLOBAL = PageRight.Global | PageRight.Write;
    const w = run(JMP, 0, ({ cpu, machine: { memory } }) => {
      for (const directory of [0x9_0000, 0x9_1000]) memory.write32(directory, 0x83);
      memory.write32(NEW_TSS + 0x1c, 0x9_1000);
      cpu.set('CR4', cpu.get('CR4') | 0x90n);
      cpu.set('CR3', 0x9_0000n);
      cpu.set('CR0', cpu.get('CR0') | (1n << 31n));
      cpu.processor.updateMode();
      const { translations } = cpu.processor;
      translations.enter(0x50_0000, 0, 0, LINEAR, 0x50_0000, PageRight.Write);
      translations.enter(0x60_0000, 0, 0, LINEAR, 0x60_0000, GLOBAL);
    });
    const { translations } = w.cpu.processor;
    expect([w.cpu.get('RIP'), w.cpu.get('CR3')]).toEqual([BigInt(EIP), 0x9_1000n]);
    expect(translations.find(0x50_0000, 0, 0, LINEAR)).toBe(-1);
    expect(translations.find(0x60_0000, 0, 0, LINEAR)).toBeGreaterThanOrEqual(0);
  });

  it('by CALL saves the old task, nests the new one and loads it', () => {
    const w = run(CALL);
    const { cpu } = w;
    expect(cpu.get('TR.selector')).toBe(BigInt(Selector.Free));
    expect([cpu.get('TR.base'), cpu.get('TR.limit'), cpu.get('TR.accessRights')]).toEqual([
      BigInt(NEW_TSS),
      0x67n,
      0x8bn,
    ]);
    expect([cpu.get('RIP'), cpu.get('RSP'), cpu.get('RAX'), cpu.get('RDI')]).toEqual([
      BigInt(EIP),
      BigInt(STACK),
      0x1000n,
      0x1007n,
    ]);
    expect(cpu.get('RFLAGS')).toBe(0x202n | NT);
    expect(cpu.get('CR0') & 8n).toBe(8n);
    expect([cpu.get('GS.selector'), cpu.get('FS.accessRights') & 0x1_0000n]).toEqual([
      BigInt(Selector.Data3),
      0x1_0000n,
    ]);
    expect(w.machine.memory.read16(NEW_TSS)).toBe(Selector.Tss);
    expect([type(w, Selector.Free), type(w, Selector.Tss)]).toEqual([11, 11]);
    expect([read32(w, TSS + 0x20), read32(w, TSS + 0x24)]).toEqual([CODE + 7, 0x202]);
    expect([read32(w, TSS + 0x28), read32(w, TSS + 0x38)]).toEqual([0xaaaa_aaaa, STACK_TOP]);
    expect(w.machine.memory.read16(TSS + 0x4c)).toBe(Selector.Code0);
  });

  it('by JMP leaves the old task available and does not nest', () => {
    const w = run(JMP);
    expect(w.cpu.get('RFLAGS')).toBe(0x202n);
    expect([type(w, Selector.Free), type(w, Selector.Tss)]).toEqual([11, 9]);
  });

  it.each([
    ['CALL', CALL, 7],
    ['INT n', Uint8Array.from([0xcd, 0x80]), 2],
  ])('by %s saves RF as 0', (_, code, length) => {
    const w = run(code, 0, (x) => {
      setGate(x, 0x80, gate(Selector.Free, 0, 0x85));
      x.cpu.set('RFLAGS', 0x1_0202n);
    });
    expect([read32(w, TSS + 0x20), read32(w, TSS + 0x24)]).toEqual([CODE + length, 0x202]);
  });

  it('by IRET returns to the caller', () => {
    const w = run(CALL, 0, (x) => x.machine.memory.writeBytes(EIP, Uint8Array.from([0xcf])));
    w.cpu.run(1);
    expect(w.cpu.get('TR.selector')).toBe(BigInt(Selector.Tss));
    expect([w.cpu.get('RIP'), w.cpu.get('RAX'), w.cpu.get('RFLAGS')]).toEqual([
      BigInt(CODE + 7),
      0xaaaa_aaaan,
      0x202n,
    ]);
    expect([type(w, Selector.Free), type(w, Selector.Tss)]).toEqual([9, 11]);
    expect(BigInt(read32(w, NEW_TSS + 0x24)) & NT).toBe(0n);
    expect(read32(w, NEW_TSS + 0x20)).toBe(EIP + 1);
  });

  it('through a task gate looks at the DPL of the gate only', () => {
    const through = farDirect(0x9a, Selector.Free2);
    const w = run(through, 3, (x) => setDescriptor(x, Selector.Free2, gate(Selector.Free, 0, 0xe5)));
    expect(w.cpu.get('TR.selector')).toBe(BigInt(Selector.Free));
    expect(w.cpu.cpl).toBe(0);
    const refused = run(through, 3, (x) => setDescriptor(x, Selector.Free2, gate(Selector.Free, 0, 0x85)));
    expect(delivered(refused)).toEqual({ vector: 13, errorCode: Selector.Free2, rip: CODE });
  });

  it('by an exception pushes the error code on the stack of the new task', () => {
    const w = run(Uint8Array.from([0x8e, 0xd8]), 0, (x) => {
      x.cpu.set('RAX', 0x1238n);
      setGate(x, 13, gate(Selector.Free, 0, 0x85));
    });
    expect(w.cpu.get('RIP')).toBe(BigInt(EIP));
    expect(stackItems(w, 1, 4)).toEqual([0x1238]);
    expect(w.cpu.get('RFLAGS')).toBe(0x202n | NT);
    expect([read32(w, TSS + 0x20), read32(w, TSS + 0x24)]).toEqual([CODE, 0x1_0202]);
  });

  it('16-bit: halves of registers, and no CR3', () => {
    const w = run(CALL, 0, (x) => {
      const { memory } = x.machine;
      setDescriptor(x, Selector.Free, segment(NEW_TSS, 0x2b, 0x81));
      memory.write16(NEW_TSS + 0x0e, 0x1234);
      memory.write16(NEW_TSS + 0x10, 0x202);
      for (let n = 0; n < 8; n++) memory.write16(NEW_TSS + 0x12 + 2 * n, 0x2000 + n);
      [Selector.Data16, Selector.Code16, Selector.Data16, 0, 0].forEach((s, n) => {
        memory.write16(NEW_TSS + 0x22 + 2 * n, s);
      });
    });
    expect([w.cpu.get('RIP'), w.cpu.get('RAX')]).toEqual([0x1234n, 0xaaaa_2000n]);
    expect(w.cpu.get('CS.selector')).toBe(BigInt(Selector.Code16));
    expect(type(w, Selector.Free)).toBe(3);
  });

  it('with the T flag is followed by #DB with BT', () => {
    const w = run(JMP, 0, (x) => x.machine.memory.write16(NEW_TSS + T_FLAG, 1));
    expect(delivered(w)).toEqual({ vector: 1, rip: EIP });
    expect(w.cpu.get('DR6') & 0x8000n).toBe(0x8000n);
  });

  it('clears local breakpoints', () => {
    const w = run(JMP, 0, ({ cpu }) => cpu.set('DR7', 0x757n));
    expect(w.cpu.get('DR7')).toBe(0x602n);
  });

  const refused: [string, Uint8Array, 0 | 3, (w: World) => void, number, number][] = [
    ['a TSS whose DPL is below the CPL', CALL, 3, () => {}, 13, 0x80],
    ['a busy TSS', CALL, 0, (w) => setDescriptor(w, 0x80, segment(NEW_TSS, 0x67, 0x8b)), 13, 0x80],
    [
      'a TSS that is not present',
      CALL,
      0,
      (w) => setDescriptor(w, 0x80, segment(NEW_TSS, 0x67, 0x09)),
      11,
      0x80,
    ],
    [
      'a TSS that is too short',
      CALL,
      0,
      (w) => setDescriptor(w, 0x80, segment(NEW_TSS, 0x66, 0x89)),
      10,
      0x80,
    ],
    [
      'IRET to a TSS that is not busy',
      Uint8Array.from([0xcf]),
      0,
      (w) => {
        w.cpu.set('RFLAGS', 0x4002n);
        w.machine.memory.write16(TSS, Selector.Free);
      },
      10,
      0x80,
    ],
  ];
  for (const [name, code, ring, prepare, vector, errorCode] of refused) {
    it(`refuses ${name}, with the old task as it was`, () => {
      const w = run(code, ring, prepare);
      expect(delivered(w)).toEqual({ vector, errorCode, rip: CODE });
      expect(w.cpu.get('TR.selector')).toBe(BigInt(Selector.Tss));
    });
  }

  const ofNewTask: [string, (w: World) => void, number, number][] = [
    [
      'an LDT that is none',
      (w) => w.machine.memory.write16(NEW_TSS + 0x60, Selector.Data0),
      10,
      Selector.Data0,
    ],
    ['a null CS', (w) => w.machine.memory.write16(NEW_TSS + 0x4c, 0), 10, 0],
    [
      'a CS that is data',
      (w) => w.machine.memory.write16(NEW_TSS + 0x4c, Selector.Data0),
      10,
      Selector.Data0,
    ],
    [
      'an SS of another privilege',
      (w) => w.machine.memory.write16(NEW_TSS + 0x50, Selector.Data3),
      10,
      Selector.Data3 & ~3,
    ],
    ['a DS beyond the GDT', (w) => w.machine.memory.write16(NEW_TSS + 0x54, 0x100), 10, 0x100],
    ['an EIP beyond the limit', (w) => w.machine.memory.write16(NEW_TSS + 0x4c, Selector.Code16), 13, 0],
  ];
  for (const [name, prepare, vector, errorCode] of ofNewTask) {
    it(`faults in the new task for ${name}`, () => {
      // A task gate has the handler run on a stack that is whole.
      const handlerTss = 0x7800;
      const w = run(JMP, 0, (x) => {
        prepare(x);
        const bytes = x.machine.memory.readBytes(NEW_TSS, 0x68);
        newTask(x);
        const whole = x.machine.memory.readBytes(NEW_TSS, 0x68);
        x.machine.memory.writeBytes(NEW_TSS, bytes);
        x.machine.memory.writeBytes(handlerTss, whole);
        x.machine.memory.write32(handlerTss + 0x20, 0x1_4000);
        setDescriptor(x, Selector.Free2, segment(handlerTss, 0x67, 0x89));
        setGate(x, vector, gate(Selector.Free2, 0, 0x85));
      });
      expect(w.cpu.get('RIP')).toBe(0x1_4000n);
      expect(w.cpu.get('TR.selector')).toBe(BigInt(Selector.Free2));
      expect(stackItems(w, 1, 4)).toEqual([errorCode]);
      expect(w.machine.memory.read16(handlerTss)).toBe(Selector.Free);
      expect(read32(w, NEW_TSS + 0x20)).toBe(EIP);
    });
  }
});
