import { describe, expect, it } from 'vitest';
import { Mode } from '../../../src/cpu/processor.ts';
import { applyBootPlan, isProblem } from '../../../src/machine/boot/boot-plan.ts';
import type { EntryMode } from '../../../src/machine/boot/entry-state.ts';
import { planFlat } from '../../../src/machine/boot/flat.ts';
import { Machine } from '../../../src/machine/machine.ts';
import { findProfile } from '../../../src/vmx/capabilities/profiles.ts';

const MIB = 0x10_0000;
const GIB = 2 ** 30;
const IMAGE = Uint8Array.from({ length: 600 }, (_, i) => i & 0xff);
const { features } = findProfile('full')!;

function booted(address: number, mode: EntryMode, ramSize = 64 * MIB) {
  const plan = planFlat(IMAGE, { ramSize, address, mode, features });
  if (isProblem(plan)) throw new Error(plan.problem);
  const machine = new Machine();
  const { processor } = machine.cpu(0);
  applyBootPlan(plan, machine.memory, processor);
  expect(Buffer.compare(machine.memory.readBytes(address, IMAGE.length), IMAGE)).toBe(0);
  return { plan, processor, memory: machine.memory };
}

function problemOf(address: number, mode: EntryMode, bytes = IMAGE, changed = {}) {
  const plan = planFlat(bytes, { ramSize: 64 * MIB, address, mode, features: { ...features, ...changed } });
  return isProblem(plan) ? plan.problem : 'no problem';
}

describe('a flat binary', () => {
  it.each([
    [0x7c00, 0, 0x7c00],
    [0xffff, 0, 0xffff],
    [0x1_2345, 0x1234, 5],
    [0x10_0010, 0xffff, 0x20],
  ])('at %i is entered in real mode at %i:%i', (address, selector, offset) => {
    const { processor } = booted(address, 16);
    expect(processor.mode).toBe(Mode.Real);
    expect([processor.read('CS.selector'), processor.read('RIP')]).toEqual([
      BigInt(selector),
      BigInt(offset),
    ]);
    expect(processor.read('CS.base')).toBe(BigInt(selector) * 16n);
    const stack = Number(processor.read('RSP'));
    expect([processor.read('SS.base'), processor.read('IDTR.limit'), stack > 0 && stack <= 0x1_0000]).toEqual(
      [0n, 0x3ffn, true],
    );
    expect(stack <= address || stack - 4096 >= address + IMAGE.length).toBe(true);
  });

  it('is entered in protected mode', () => {
    const { processor } = booted(0x20_0000, 32);
    expect([processor.mode, processor.read('RIP'), processor.read('CS.limit')]).toEqual([
      Mode.Protected,
      0x20_0000n,
      0xffff_ffffn,
    ]);
    expect(processor.read('CR0') & 0x8000_0000n).toBe(0n);
  });

  it('is entered in 64-bit mode with all memory mapped to itself', () => {
    const { processor, memory } = booted(0x20_0000, 64, 6 * GIB);
    expect([processor.mode, processor.read('RIP')]).toEqual([Mode.Bit64, 0x20_0000n]);
    const walk = (linear: number) => {
      const table = (entry: bigint) => Number(entry & 0xf_ffff_ffff_f000n);
      const index = (shift: number) => Math.floor(linear / 2 ** shift) % 512;
      const pml4e = memory.read64(Number(processor.read('CR3')) + 8 * index(39));
      const pdpte = memory.read64(table(pml4e) + 8 * index(30));
      const pde = memory.read64(table(pdpte) + 8 * index(21));
      expect([pml4e & 0x83n, pdpte & 0x83n, pde & 0x83n]).toEqual([3n, 3n, 0x83n]);
      return table(pde) + (linear % 2 ** 21);
    };
    for (const linear of [0, 0x20_0000, 0xfee0_0000, 7 * GIB - 1]) expect(walk(linear)).toBe(linear);
    const pdpt = Number(memory.read64(Number(processor.read('CR3'))) & ~0xfffn);
    expect(memory.read64(pdpt + 8 * 7)).toBe(0n);
  });

  it('may lie where firmware lies', () => {
    booted(0xf_fd00, 16);
    booted(0xa_0000, 32);
  });

  it.each([
    ['the file is empty', 0x7c00, 16, new Uint8Array(0)],
    ['real mode does not reach 0x10fff0', 0x10_fff0, 16, IMAGE],
    ['no RAM', 64 * MIB - 100, 32, IMAGE],
    ['no RAM', 0xffff_ffff, 32, IMAGE],
    ['leaves no room for a stack', 0, 16, new Uint8Array(0x1_0000)],
    ['leaves no room for a stack', 0, 32, new Uint8Array(64 * MIB - 4096)],
    ['leaves no room for page tables', 0, 64, new Uint8Array(64 * MIB - 3 * 4096)],
  ] as const)('is refused: %s', (message, address, mode, bytes) => {
    expect(problemOf(address, mode, bytes)).toContain(message);
  });

  it('needs Intel 64 for 64-bit mode', () => {
    expect(problemOf(0x7c00, 64, IMAGE, { intel64: false })).toBe('this processor has no 64-bit mode');
  });
});
