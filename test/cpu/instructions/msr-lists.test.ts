import { describe, expect, it } from 'vitest';
import { requestInterrupt } from '../../support/guest-events.ts';
import { INDICES, RDMSRLIST, VALUES, values, WRMSRLIST, writeList } from '../../support/msr-lists.ts';
import { SingleInstruction, type State } from '../../support/single-instruction.ts';
import { handler, world } from '../../support/tables.ts';

const STATE: State = {
  RSI: BigInt(INDICES),
  RDI: BigInt(VALUES),
  IA32_KERNEL_GS_BASE: 0x11n,
  IA32_LSTAR: 0x22n,
};
const KERNEL_GS_BASE = 0xc000_0102n;
const LSTAR = 0xc000_0082n;

function one(entries: readonly (readonly [bigint, bigint])[], mask: bigint, state: State = {}) {
  const single = new SingleInstruction();
  writeList(single.machine.memory, entries);
  single.set({ ...STATE, RCX: mask, ...state });
  return single;
}

describe('RDMSRLIST', () => {
  it('stores the MSRs of the mask, from the lowest bit on, and clears it', () => {
    const s = one(
      [
        [KERNEL_GS_BASE, 1n],
        [0n, 2n],
        [LSTAR, 3n],
        [0x2fn, 4n],
      ],
      0b1101n,
    );
    expect(s.run(RDMSRLIST).vector).toBeUndefined();
    expect(values(s.machine.memory, 4)).toEqual([0x11n, 2n, 0x22n, 0n]);
    expect(s.get('RCX')).toBe(0n);
  });

  it('reaches entry 63', () => {
    const s = one([], 1n << 63n);
    s.machine.memory.write64(INDICES + 8 * 63, LSTAR);
    expect(s.run(RDMSRLIST).vector).toBeUndefined();
    expect([s.machine.memory.read64(VALUES + 8 * 63), s.get('RCX')]).toEqual([0x22n, 0n]);
  });

  it('does nothing with an empty mask', () => {
    expect(one([], 0n, { RSI: 1n << 40n }).run(RDMSRLIST).vector).toBeUndefined();
  });
});

describe('WRMSRLIST', () => {
  it('writes the MSRs of the mask', () => {
    const s = one(
      [
        [KERNEL_GS_BASE, 5n],
        [LSTAR, 6n],
      ],
      0b11n,
    );
    expect(s.run(WRMSRLIST).vector).toBeUndefined();
    expect([s.get('IA32_KERNEL_GS_BASE'), s.get('IA32_LSTAR'), s.get('RCX')]).toEqual([5n, 6n, 0n]);
  });

  it('stops at what WRMSR does not take, with the entries before done', () => {
    const s = one(
      [
        [KERNEL_GS_BASE, 5n],
        [LSTAR, 1n << 60n],
        [KERNEL_GS_BASE, 7n],
      ],
      0b111n,
    );
    expect(s.run(WRMSRLIST)).toMatchObject({ vector: 13, errorCode: 0 });
    expect([s.get('IA32_KERNEL_GS_BASE'), s.get('IA32_LSTAR'), s.get('RCX')]).toEqual([5n, 0x22n, 0b110n]);
  });
});

describe.each([
  ['RDMSRLIST', RDMSRLIST],
  ['WRMSRLIST', WRMSRLIST],
])('%s', (_, code) => {
  const entries = [[KERNEL_GS_BASE, 5n]] as const;

  it.each<[string, readonly (readonly [bigint, bigint])[], State]>([
    ['CPL 3', entries, { 'SS.accessRights': 0xc0f3n }],
    ['indices that are not aligned', entries, { RSI: BigInt(INDICES) + 4n }],
    ['values that are not aligned', entries, { RDI: BigInt(VALUES) + 1n }],
    ['indices that are not canonical', entries, { RSI: 1n << 60n }],
    ['values that are not canonical', entries, { RDI: 1n << 60n }],
    ['an index of more than 32 bits', [[KERNEL_GS_BASE | (1n << 32n), 5n]], {}],
    ['an MSR that does not exist', [[0x2000_0000n, 5n]], {}],
  ])('faults at %s', (_, list, state) => {
    const s = one(list, 1n, state);
    expect(s.run(code)).toMatchObject({ vector: 13, errorCode: 0 });
    expect([s.get('RCX'), s.get('IA32_KERNEL_GS_BASE'), values(s.machine.memory, 1)]).toEqual([
      1n,
      0x11n,
      [5n],
    ]);
  });

  it('is undefined outside 64-bit mode and on processors without it', () => {
    expect(new SingleInstruction({ bits: 32 }).run(code).vector).toBe(6);
    expect(new SingleInstruction({ profile: 'skylake' }).run(code).vector).toBe(6);
  });

  it('can be interrupted between two entries', () => {
    const w = world(code);
    writeList(
      w.machine.memory,
      Array.from({ length: 64 }, () => [KERNEL_GS_BASE, 5n] as const),
    );
    for (const [name, value] of Object.entries(STATE)) w.cpu.set(name as 'RSI', value as bigint);
    w.cpu.set('RCX', (1n << 64n) - 1n);
    w.cpu.set('RFLAGS', 0x202n);
    w.cpu.run(40);
    requestInterrupt(w.cpu, 0x40);
    const rip = w.cpu.get('RIP');
    w.cpu.run(1);
    expect([w.cpu.get('RIP'), w.cpu.get('RCX')]).toEqual([BigInt(handler(0x40)), 0xffff_ff00_0000_0000n]);
    const rsp = Number(w.cpu.get('RSP'));
    expect([w.machine.memory.read64(rsp), w.machine.memory.read64(rsp + 16)]).toEqual([rip, 0x1_0202n]);
  });
});
