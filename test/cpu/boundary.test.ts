import { describe, expect, it } from 'vitest';
import { Attention } from '../../src/cpu/attention.ts';
import { CODE } from '../support/code.ts';
import { delivered, enterRing, handler, Selector, stackItems, type World, world } from '../support/tables.ts';

const TF = 0x100n;
const IF = 0x200n;
const RF = 0x1_0000;
const DR6_IDLE = 0xffff_0ff0n;
const BS = 0x4000n;
const NOP = 0x90;
const nops = (count: number) => Uint8Array.from({ length: count }, () => NOP);

function start(code: string | Uint8Array, flags = 2n, bits: 32 | 64 = 64): World {
  const w = world(code, { bits });
  w.cpu.set('RFLAGS', 2n | flags);
  return w;
}

/** Asserts INTR with `vector` until it is acknowledged. */
function interrupt({ cpu }: World, vector: number): { readonly acknowledged: boolean } {
  const state = { acknowledged: false };
  cpu.processor.interrupts = {
    requested: () => !state.acknowledged,
    acknowledge: () => {
      state.acknowledged = true;
      return vector;
    },
  };
  cpu.processor.requestAttention(Attention.Event);
  return state;
}

const rip = (w: World) => Number(w.cpu.get('RIP'));

describe('single-step', () => {
  it('traps after the instruction, with RIP behind it and TF cleared for the handler', () => {
    const w = start(nops(3), TF);
    w.cpu.run(2);
    expect(rip(w)).toBe(handler(1));
    expect(stackItems(w, 3, 8)).toEqual([CODE + 1, Selector.Code0, 0x102]);
    expect(w.cpu.get('DR6')).toBe(DR6_IDLE | BS);
    expect(w.cpu.get('RFLAGS')).toBe(2n);
  });

  it('sets the bits of DR6 that are 0 for a bus lock or a transaction, as INT1 does', () => {
    const steps = start(nops(3), TF);
    steps.cpu.set('DR6', 0xfffe_07f0n);
    steps.cpu.run(2);
    expect(steps.cpu.get('DR6')).toBe(DR6_IDLE | BS);
    const traps = start(Uint8Array.of(0xf1));
    traps.cpu.set('DR6', 0xfffe_07f0n);
    traps.cpu.run(1);
    expect(rip(traps)).toBe(handler(1));
    expect(traps.cpu.get('DR6')).toBe(DR6_IDLE);
  });

  it('follows POPF that clears TF, and the instruction after POPF that sets it', () => {
    const clears = start('popfq\nnop', TF);
    clears.machine.memory.write64(0x9_0000, 2n);
    clears.cpu.run(2);
    expect(stackItems(clears, 3, 8)).toEqual([CODE + 1, Selector.Code0, 2]);
    const sets = start('popfq\nnop\nnop');
    sets.machine.memory.write64(0x9_0000, 0x102n);
    sets.cpu.run(2);
    expect(rip(sets)).toBe(CODE + 2);
    sets.cpu.run(1);
    expect(stackItems(sets, 1, 8)).toEqual([CODE + 2]);
  });

  it('does not follow an instruction that faults, INT n, or a taken branch that BTF does not want', () => {
    const faults = start('ud2', TF);
    faults.cpu.run(2);
    expect(rip(faults)).toBe(handler(6) + 2);
    const software = start(Uint8Array.from([0xcd, 0x80]), TF);
    software.cpu.run(1);
    expect(rip(software)).toBe(handler(0x80));
    expect(stackItems(software, 3, 8)).toEqual([CODE + 2, Selector.Code0, 0x102]);
    expect(software.cpu.get('pendingDebugExceptions')).toBe(0n);
    const branches = start('nop\njmp target\nnop\ntarget: nop', TF);
    branches.cpu.set('IA32_DEBUGCTL', 2n);
    branches.cpu.run(3);
    expect(stackItems(branches, 1, 8)).toEqual([CODE + 4]);
    expect(branches.cpu.get('IA32_DEBUGCTL')).toBe(0n);
  });

  it('is held back by MOV SS', () => {
    const w = start('mov ss, eax\nnop\nnop', TF);
    w.cpu.set('RAX', BigInt(Selector.Data0));
    w.cpu.run(2);
    expect(rip(w)).toBe(CODE + 3);
    w.cpu.run(1);
    expect(stackItems(w, 1, 8)).toEqual([CODE + 3]);
  });

  it('that MOV SS held back comes at the first instruction of the handler of INT3', () => {
    const w = start('mov ss, eax\nint3', TF);
    w.cpu.set('RAX', BigInt(Selector.Data0));
    w.cpu.run(3);
    expect(rip(w)).toBe(handler(1));
    expect(stackItems(w, 1, 8)).toEqual([handler(3)]);
  });
});

describe('breakpoints', () => {
  const dr7 = (n: number, condition: number, length: number) =>
    BigInt(0x400 | (1 << (2 * n)) | (condition << (16 + 4 * n)) | (length << (18 + 4 * n)));

  it('on an instruction: a fault before it, unless RF is 1', () => {
    const w = start(nops(3));
    w.cpu.set('DR1', BigInt(CODE + 1));
    w.cpu.set('DR7', dr7(1, 0, 0));
    w.cpu.run(2);
    expect(rip(w)).toBe(handler(1));
    expect(stackItems(w, 3, 8)).toEqual([CODE + 1, Selector.Code0, 2]);
    expect(w.cpu.get('DR6')).toBe(DR6_IDLE | 2n);
    const resumed = start(nops(3), BigInt(RF));
    resumed.cpu.set('DR1', BigInt(CODE));
    resumed.cpu.set('DR7', dr7(1, 0, 0));
    resumed.cpu.run(1);
    expect(rip(resumed)).toBe(CODE + 1);
    expect(resumed.cpu.get('RFLAGS')).toBe(2n);
  });

  const data: [string, number, number, boolean][] = [
    ['mov [0x5004], eax', 1, 3, true],
    ['mov eax, [0x5004]', 1, 3, false],
    ['mov eax, [0x5004]', 3, 3, true],
    ['mov [0x5003], ax', 1, 3, true],
    ['mov [0x5002], ax', 1, 3, false],
    ['mov [0x5008], eax', 1, 3, false],
    ['mov rax, [0x5008]', 3, 2, false],
    ['add byte ptr [0x5007], 1', 1, 3, true],
    ['push rax', 1, 3, false],
  ];
  for (const [code, condition, length, met] of data) {
    it(`on data: ${code} with R/W ${condition}, LEN ${length}: ${met ? 'a trap after it' : 'nothing'}`, () => {
      const w = start(`${code}\nnop`);
      w.cpu.set('DR0', 0x5004n);
      w.cpu.set('DR7', dr7(0, condition, length));
      w.cpu.run(2);
      expect(rip(w) === handler(1)).toBe(met);
      expect(w.cpu.get('DR6')).toBe(met ? DR6_IDLE | 1n : DR6_IDLE);
      if (!met) return;
      // One trap, not another one before the first instruction of the handler.
      const stack = w.cpu.get('RSP');
      w.cpu.run(1);
      expect(w.cpu.get('RSP')).toBe(stack);
    });
  }

  it('on data of an instruction that faults: none', () => {
    const w = start('mov ss, [0x5004]\nnop');
    w.machine.memory.write16(0x5004, 0x1000);
    w.cpu.set('DR0', 0x5004n);
    w.cpu.set('DR7', dr7(0, 3, 0));
    w.cpu.run(2);
    expect(stackItems(w, 2, 8)[0]).toBe(0x1000);
    expect(w.cpu.get('pendingDebugExceptions')).toBe(0n);
  });

  it('met by a delivery: before the first instruction of the handler', () => {
    const w = start('ud2');
    w.cpu.set('DR0', 0x8_fff8n);
    w.cpu.set('DR7', dr7(0, 1, 2));
    w.cpu.run(2);
    expect(stackItems(w, 1, 8)).toEqual([handler(6)]);
  });
});

describe('external interrupts', () => {
  it('wait for RFLAGS.IF, and are delivered without an instruction', () => {
    const w = start(nops(4));
    const line = interrupt(w, 0x30);
    w.cpu.run(2);
    expect(line.acknowledged).toBe(false);
    w.cpu.set('RFLAGS', 2n | IF);
    w.cpu.run(1);
    expect(rip(w)).toBe(handler(0x30));
    expect(stackItems(w, 3, 8)).toEqual([CODE + 2, Selector.Code0, 0x202]);
  });

  it('wait one instruction after STI, and after MOV SS', () => {
    const sti = start('sti\nnop\nnop');
    interrupt(sti, 0x30);
    sti.cpu.run(3);
    expect(stackItems(sti, 1, 8)).toEqual([CODE + 2]);
    const movSs = start('mov ss, eax\nnop\nnop', IF);
    movSs.cpu.set('RAX', BigInt(Selector.Data0));
    movSs.cpu.run(1);
    interrupt(movSs, 0x30);
    movSs.cpu.run(2);
    expect(stackItems(movSs, 1, 8)).toEqual([CODE + 3]);
  });

  it('a second STI does not block again', () => {
    const w = start('sti\nsti\nnop');
    interrupt(w, 0x30);
    w.cpu.run(3);
    expect(stackItems(w, 1, 8)).toEqual([CODE + 2]);
  });

  it('use gates without a check of their DPL, and error codes have EXT', () => {
    const w = start(nops(2), IF);
    enterRing(w, 3);
    interrupt(w, 0x30);
    w.cpu.run(1);
    expect(rip(w)).toBe(handler(0x30));
    const beyond = start(nops(2), IF);
    beyond.cpu.set('IDTR.limit', 0x2ffn);
    interrupt(beyond, 0x30);
    beyond.cpu.run(1);
    expect(delivered(beyond)).toEqual({ vector: 13, errorCode: (0x30 << 3) | 3, rip: CODE });
  });

  it('between iterations of a repeated string instruction: RF in the image, RIP at the instruction', () => {
    const w = start('rep stosb\nnop', IF);
    w.cpu.set('RCX', 10n);
    w.cpu.set('RDI', 0x5000n);
    w.cpu.set('RFLAGS', 2n | IF | TF);
    w.cpu.run(2);
    expect(rip(w)).toBe(handler(1));
    expect(stackItems(w, 3, 8)).toEqual([CODE, Selector.Code0, 0x302 | RF]);
    expect(w.cpu.get('RCX')).toBe(9n);
  });
});

describe('snapshots', () => {
  it('between two iterations keep that RF belongs into the image', () => {
    const w = start('rep stosb\nnop', IF);
    w.cpu.set('RCX', 10n);
    w.cpu.set('RDI', 0x5000n);
    w.cpu.run(3);
    const kept = w.machine.snapshot();
    w.cpu.run(20);
    w.machine.restore(kept);
    interrupt(w, 0x30);
    w.cpu.run(1);
    expect(w.cpu.get('RCX')).toBe(7n);
    expect(stackItems(w, 3, 8)).toEqual([CODE, Selector.Code0, 0x202 | RF]);
  });
});

describe('NMI', () => {
  it('is delivered whatever IF, and blocks NMIs until IRET', () => {
    const w = start(nops(2));
    w.machine.memory.writeBytes(handler(2), Uint8Array.from([NOP, 0x48, 0xcf]));
    w.cpu.processor.requestNmi();
    w.cpu.run(1);
    expect(rip(w)).toBe(handler(2));
    expect(w.cpu.get('blockingByNmi')).toBe(1n);
    w.cpu.processor.requestNmi();
    w.cpu.run(1);
    expect(rip(w)).toBe(handler(2) + 1);
    w.cpu.run(2);
    expect(rip(w)).toBe(handler(2));
    expect(stackItems(w, 1, 8)).toEqual([CODE]);
  });

  it('comes before an interrupt and after a debug trap', () => {
    const w = start(nops(2), IF | TF);
    w.cpu.run(1);
    interrupt(w, 0x30);
    w.cpu.processor.requestNmi();
    w.cpu.run(2);
    expect(rip(w)).toBe(handler(2));
    expect(stackItems(w, 1, 8)).toEqual([handler(1)]);
  });
});

describe('HLT and shutdown', () => {
  it('HLT waits for an interrupt that is not masked and returns behind it', () => {
    const w = start('hlt\nnop');
    w.cpu.run(5);
    expect(w.cpu.processor.executed).toBe(1);
    expect(w.cpu.get('activityState')).toBe(1n);
    interrupt(w, 0x30);
    w.cpu.run(5);
    expect(w.cpu.processor.executed).toBe(1);
    w.cpu.set('RFLAGS', 2n | IF);
    w.cpu.run(1);
    expect(w.cpu.get('activityState')).toBe(0n);
    expect(stackItems(w, 1, 8)).toEqual([CODE + 1]);
  });

  it('HLT is for CPL 0', () => {
    const w = start('hlt');
    enterRing(w, 3);
    w.cpu.run(1);
    expect(delivered(w)).toEqual({ vector: 13, errorCode: 0, rip: CODE });
  });

  it('an NMI ends HLT and shutdown, an interrupt does not end shutdown', () => {
    const w = start(nops(1), IF);
    w.cpu.set('activityState', 2n);
    interrupt(w, 0x30);
    w.cpu.run(5);
    expect(w.cpu.get('activityState')).toBe(2n);
    w.cpu.processor.requestNmi();
    w.cpu.run(1);
    expect(rip(w)).toBe(handler(2));
    expect(w.cpu.get('activityState')).toBe(0n);
  });

  it('STI and HLT in sequence cannot lose an interrupt', () => {
    const w = start('sti\nhlt\nnop');
    interrupt(w, 0x30);
    w.cpu.run(3);
    expect(rip(w)).toBe(handler(0x30));
    expect(stackItems(w, 1, 8)).toEqual([CODE + 2]);
  });
});
