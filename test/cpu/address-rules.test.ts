import { describe, expect, it } from 'vitest';
import type { RegisterName } from '../../src/cpu/registers.ts';
import { CODE } from '../support/code.ts';
import { SingleInstruction, type State } from '../support/single-instruction.ts';
import { delivered, enterRing, GDT, IDT, Selector, STACK0, TSS, world } from '../support/tables.ts';

const PML4 = 0xa000;
const PDPT = 0xb000;
const PML5 = 0xc000;
const DATA = 0x5_0000n;
const UPPER = 0xffff_8000_0000_0000n;
const LAM_U57 = 1n << 61n;
const LAM_U48 = 1n << 62n;
const LAM_SUP = 1n << 28n;
const LASS = 1n << 27n;
const SMAP = 1n << 21n;
const LA57 = 1n << 12n;
const AC = 1n << 18n;
const PAE = 0x20n;
const GP = 13;
const SS = 12;

/** The first GByte at 0 for everybody and at {@link UPPER} for supervisor mode. */
function writePaging(write64: (at: number, value: bigint) => void): void {
  write64(PML5, BigInt(PML4) | 7n);
  write64(PML5 + 8 * 511, BigInt(PML4) | 7n);
  write64(PML4, BigInt(PDPT) | 7n);
  write64(PML4 + 8 * 256, BigInt(PDPT) | 3n);
  write64(PDPT, 0x87n);
}

/** What an instruction comes to at a CPL: the vector of its exception, or what it loaded to RAX. */
function load(address: bigint, { cr3 = 0n, cr4 = 0n, cpl = 0, flags = 0n, code = 'mov rax, [rbx]' } = {}) {
  const one = new SingleInstruction({ level: 'complete' });
  writePaging((at, value) => one.machine.memory.write64(at, value));
  one.store(Number(DATA), 8, 0x1234n);
  const state: State = {
    CR4: PAE | cr4,
    CR3: BigInt((cr4 & LA57) !== 0n ? PML5 : PML4) | cr3,
    CR0: 0x8000_0011n,
    IA32_EFER: 0x500n,
    RFLAGS: 2n | flags,
    'CS.accessRights': 0xa09bn | BigInt(cpl << 5),
    'SS.accessRights': 0xc093n | BigInt(cpl << 5),
    'GDTR.base': DATA,
    'GDTR.limit': 0xfffn,
  };
  one.set(state);
  // RSP last: it may be the operand.
  const { vector } = one.run(code, { RBX: address, RCX: 8n, RSP: address, RIP: UPPER | BigInt(CODE) });
  return { vector, rax: one.get('RAX'), one };
}

const metadata = (bits: bigint, address = DATA) => bits | address;

describe('linear-address masking', () => {
  it.each<[string, bigint, State['CR3'], bigint, boolean]>([
    ['LAM_U48 masks bits 62:48', metadata(0x7abc_0000_0000_0000n), LAM_U48, 0n, true],
    ['LAM_U48 does not mask bit 47', metadata(0x7abc_8000_0000_0000n), LAM_U48, 0n, false],
    ['LAM_U57 masks bits 62:57', metadata(0x5600_0000_0000_0000n), LAM_U57, 0n, true],
    ['LAM_U57 does not mask bit 56', metadata(0x0100_0000_0000_0000n), LAM_U57, 0n, false],
    ['LAM_U57 does not mask bit 48', metadata(0x0001_0000_0000_0000n), LAM_U57, 0n, false],
    ['LAM_U57 goes before LAM_U48', metadata(0x0001_0000_0000_0000n), LAM_U57 | LAM_U48, 0n, false],
    ['without either all bits count', metadata(0x5600_0000_0000_0000n), 0n, 0n, false],
    ['LAM_SUP leaves user addresses alone', metadata(0x5600_0000_0000_0000n), 0n, LAM_SUP, false],
    ['LAM_SUP masks bits 62:48', 0x8abc_8000_0000_0000n | DATA, 0n, LAM_SUP, true],
    ['LAM_SUP does not mask bit 47', 0x8abc_0000_0000_0000n | DATA, 0n, LAM_SUP, false],
    ['LAM_U48 leaves supervisor addresses alone', 0x8abc_8000_0000_0000n | DATA, LAM_U48, 0n, false],
    ['LAM_U48 with 5-level paging masks bits 62:48', metadata(0x00ab_0000_0000_0000n), LAM_U48, LA57, true],
    ['LAM_SUP with 5-level paging masks bits 62:57', 0x81ff_8000_0000_0000n | DATA, 0n, LAM_SUP | LA57, true],
    ['… and no others', 0x80ff_8000_0000_0000n | DATA, 0n, LAM_SUP | LA57, false],
  ])('%s', (_, address, cr3, cr4, allowed) => {
    for (const cpl of address >> 63n === 1n ? [0] : [0, 3]) {
      const { vector, rax } = load(address, { cr3: cr3 as bigint, cr4, cpl });
      expect(vector).toBe(allowed ? undefined : GP);
      if (allowed) expect(rax).toBe(0x1234n);
    }
  });

  it('stores, read-modify-writes, strings and the stack too; RSP keeps its metadata', () => {
    const address = metadata(0x7a00_0000_0000_0000n);
    for (const code of [
      'mov [rbx], rax',
      'add [rbx], rax',
      'push rax',
      'pop rax',
      'movaps xmm0, [rbx]',
      'mov rax, fs:[rbx]',
    ]) {
      const { vector, one } = load(address, { cr3: LAM_U57, code, cr4: 0x600n });
      expect(vector, code).toBeUndefined();
      const moved = code === 'push rax' ? -8n : code === 'pop rax' ? 8n : 0n;
      expect(one.get('RSP')).toBe(address + moved);
    }
    expect(load(address, { code: 'push rax' }).vector).toBe(SS);
  });

  it('CR2 has the address without metadata', () => {
    const { vector, one } = load(metadata(0x5600_0000_0000_0000n, 0x40_0000_0000n), { cr3: LAM_U57 });
    expect(vector).toBe(14);
    one.cpu.requestAttention();
    expect(one.get('faultAddress' as RegisterName)).toBe(0x40_0000_0000n);
  });

  it('does not hold for branches, and not in compatibility mode', () => {
    expect(load(metadata(0x5600_0000_0000_0000n), { cr3: LAM_U57, code: 'jmp rbx' }).vector).toBe(GP);
    const one = new SingleInstruction({ level: 'complete' });
    one.set({ CR3: LAM_U57, CR4: PAE | LAM_SUP, 'CS.accessRights': 0xc09bn });
    for (const name of ['DS', 'SS', 'CS'] as const) one.set({ [`${name}.limit`]: 0xffff_ffffn });
    one.set({ 'DS.accessRights': 0xc093n });
    expect(one.cpu.codeBits).toBe(32);
    one.store(Number(DATA), 4, 0x77n);
    expect(one.run(Uint8Array.of(0x8b, 0x03), { RBX: DATA, RIP: BigInt(CODE) }).vector).toBeUndefined();
    expect(one.get('RAX')).toBe(0x77n);
  });

  it('its bits can be written to CR3 and CR4', () => {
    const one = new SingleInstruction({ level: 'complete' });
    expect(one.run('mov cr3, rax', { RAX: LAM_U57 | LAM_U48, RIP: BigInt(CODE) }).vector).toBeUndefined();
    expect(one.run('mov cr4, rax', { RAX: PAE | LAM_SUP | LASS, RIP: BigInt(CODE) }).vector).toBeUndefined();
    one.run('cpuid', { RAX: 7n, RCX: 1n, RIP: BigInt(CODE) });
    expect(one.get('RAX') & ((1n << 26n) | (1n << 6n))).toBe((1n << 26n) | (1n << 6n));
  });
});

describe('linear-address-space separation', () => {
  it.each<[string, bigint, { cr4: bigint; cpl?: number; flags?: bigint; code?: string }, number | undefined]>(
    [
      ['user mode: addresses with bit 63', UPPER | DATA, { cr4: LASS, cpl: 3 }, GP],
      ['user mode: that are not mapped', UPPER | (1n << 46n), { cr4: LASS, cpl: 3 }, GP],
      ['user mode: the stack', UPPER | DATA, { cr4: LASS, cpl: 3, code: 'push rax' }, SS],
      ['user mode: its own half', DATA, { cr4: LASS | SMAP, cpl: 3 }, undefined],
      ['supervisor mode: its own half', UPPER | DATA, { cr4: LASS | SMAP }, undefined],
      ['supervisor mode without SMAP', DATA, { cr4: LASS }, undefined],
      ['supervisor mode with SMAP', DATA, { cr4: LASS | SMAP }, GP],
      ['supervisor mode with SMAP: the stack', DATA, { cr4: LASS | SMAP, code: 'pop rax' }, SS],
      ['supervisor mode with SMAP and RFLAGS.AC', DATA, { cr4: LASS | SMAP, flags: AC }, undefined],
      [
        'implicit accesses, whatever RFLAGS.AC',
        DATA,
        { cr4: LASS | SMAP, flags: AC, code: 'lar eax, ecx' },
        GP,
      ],
      ['implicit accesses without SMAP', DATA, { cr4: LASS, code: 'lar eax, ecx' }, undefined],
    ],
  )('%s', (_, address, setting, vector) => {
    expect(load(address, setting).vector).toBe(vector);
  });

  it.each([
    ['supervisor mode does not fetch from the lower half', 0, GP],
    ['user mode does', 3, undefined],
  ] as const)('%s', (_, ring, vector) => {
    const w = world('nop', { level: 'complete' });
    writePaging((at, value) => w.machine.memory.write64(at, value));
    if (ring === 3) enterRing(w, 3);
    const { cpu } = w;
    cpu.set('CR3', BigInt(PML4));
    cpu.set('CR4', PAE | LASS);
    cpu.set('CR0', 0x8000_0011n);
    cpu.run(1);
    if (vector === undefined) expect(cpu.get('RIP')).toBe(BigInt(CODE + 1));
    else expect(delivered(w)).toMatchObject({ vector, errorCode: 0, rip: CODE });
  });

  it('user mode does not fetch from the upper half, and events come to a stack and tables there', () => {
    const w = world('nop', { level: 'complete' });
    writePaging((at, value) => w.machine.memory.write64(at, value));
    enterRing(w, 3);
    const { cpu } = w;
    for (const [name, at] of [
      ['GDTR', GDT],
      ['IDTR', IDT],
      ['TR', TSS],
    ] as const) {
      cpu.set(`${name}.base`, UPPER | BigInt(at));
    }
    w.machine.memory.write64(TSS + 4, UPPER | BigInt(STACK0));
    cpu.set('CR3', BigInt(PML4));
    cpu.set('CR4', PAE | LASS | SMAP);
    cpu.set('CR0', 0x8000_0011n);
    cpu.set('RIP', UPPER | BigInt(CODE));
    cpu.run(1);
    expect(cpu.get('CS.selector')).toBe(BigInt(Selector.Code0));
    expect(cpu.get('RSP')).toBe((UPPER | BigInt(STACK0)) - 48n);
    expect(w.machine.memory.read64(STACK0 - 40)).toBe(UPPER | BigInt(CODE));
  });
});
