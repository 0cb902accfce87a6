import { describe, expect, it } from 'vitest';
import { Prng } from '../../src/bits/prng.ts';
import { Mode } from '../../src/cpu/mode.ts';
import { CODE } from '../support/code.ts';
import { enterRing, enterVirtual8086, GDT, IDT, TSS, type World, world } from '../support/tables.ts';

const OPCODES = [
  [0xcf],
  [0x48, 0xcf],
  [0xcb],
  [0xca, 4, 0],
  [0xcd],
  [0xcc],
  [0xce],
  [0xf1],
  [0x8e],
  [0x8c],
  [0xea],
  [0x9a],
  [0xff],
  [0x0f, 0x00],
  [0x0f, 0x01],
  [0x0f, 0x05],
  [0x0f, 0x07],
  [0x0f, 0x34],
  [0x0f, 0x35],
  [0x0f, 0xb2],
  [0xc4],
  [0x1f],
  [0x17],
  [0x0f, 0xa1],
  [0xfa],
  [0xfb],
  [0xf4],
  [0x9d],
  [0x0f, 0x02],
] as const;
const PREFIXES = [0x66, 0x67, 0x48, 0x36];
const ITEMS = [0x10, 0x18, 0x23, 0x2b, 0x2_0202, 0x4202];
/** What software can put into RFLAGS but VM, which needs the segments of virtual-8086 mode. */
const FLAGS = 0x3d_7fd5;

/** A world whose code, tables, stack and registers are random around what makes sense. */
function randomWorld(r: Prng): World {
  const bits = ([16, 32, 64] as const)[r.below(3)] ?? 64;
  const w = world('', { bits });
  const { cpu } = w;
  const { memory } = w.machine;
  const pick = <T>(from: readonly T[]) => from[r.below(from.length)] as T;
  if (bits !== 16 && r.below(2) === 0) enterRing(w, 3);
  const code: number[] = [];
  while (code.length < 200) {
    if (r.below(3) === 0) code.push(pick(PREFIXES));
    code.push(...pick(OPCODES));
    for (let n = r.below(4); n > 0; n--) code.push(r.below(256));
  }
  memory.writeBytes(CODE, Uint8Array.from(code));
  const spoil = (start: number, length: number, most: number) => {
    for (let n = r.below(most); n > 0; n--) memory.write8(start + r.below(length), r.below(256));
  };
  spoil(GDT, 0x100, 20);
  spoil(IDT, 0x1000, 30);
  spoil(TSS, 0x70, 10);
  for (let n = 0; n < 100; n++) {
    memory.write32(0x9_0000 + 4 * n, pick([...ITEMS, CODE + r.below(200), r.below(0x100), r.next()]));
  }
  for (const name of ['RAX', 'RBX', 'RCX', 'RDX', 'RSI', 'RDI', 'R11'] as const) {
    cpu.set(name, pick([BigInt(r.below(0x100)), 0x2bn, BigInt(CODE), BigInt(r.next()), (1n << 64n) - 256n]));
  }
  cpu.set('RFLAGS', BigInt((r.next() & FLAGS) | 2));
  if (r.below(3) === 0) {
    cpu.set('DR7', BigInt(r.next()));
    cpu.set('DR0', BigInt(CODE + r.below(100)));
    cpu.set('DR1', BigInt(0x9_0000 + r.below(100)));
  }
  cpu.set('CR4', cpu.get('CR4') | BigInt(r.below(4)));
  cpu.set('IA32_EFER', cpu.get('IA32_EFER') | 1n);
  cpu.set('IA32_SYSENTER_CS', 0x10n);
  if (bits === 16) cpu.set('RIP', 0n);
  if (bits === 32 && r.below(4) === 0) enterVirtual8086(w, r.next() & FLAGS);
  return w;
}

/** What holds between any two instructions. */
function expectConsistent({ cpu }: World): void {
  const { cpl, mode } = cpu.processor;
  const rpl = Number(cpu.get('CS.selector') & 3n);
  if (mode === Mode.Real) expect(cpl).toBe(0);
  else if (mode === Mode.Virtual8086) expect(cpl).toBe(3);
  else expect(rpl).toBe(cpl);
  if (mode !== Mode.Bit64) expect(cpu.get('RIP') >> 32n).toBe(0n);
  expect(cpu.get('originalEvent')).toBe(0n);
  expect(cpu.get('RFLAGS') & 0x2an).toBe(2n);
}

describe('random software that transfers control', () => {
  it('keeps CPL, selectors, mode and RIP consistent, and repeats to the bit', () => {
    const modes = new Set<number>();
    for (let seed = 1; seed <= 150; seed++) {
      const first = randomWorld(new Prng(seed));
      const second = randomWorld(new Prng(seed));
      for (let step = 0; step < 40 && first.cpu.get('activityState') === 0n; step++) {
        first.cpu.run(1);
        modes.add(first.cpu.mode);
        expectConsistent(first);
      }
      second.cpu.run(first.cpu.processor.executed);
      expect(second.cpu.processor.words).toEqual(first.cpu.processor.words);
    }
    expect([...modes].sort()).toEqual([
      Mode.Real,
      Mode.Virtual8086,
      Mode.Protected,
      Mode.Compatibility,
      Mode.Bit64,
    ]);
  });
});
