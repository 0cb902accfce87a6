import { describe, expect, it } from 'vitest';
import type { RegisterName } from '../../../src/cpu/registers.ts';
import { RSTORSSP_RBX, SETSSBSY, SH_STK_EN, WR_SHSTK_EN, WRSSQ, WRUSSQ } from '../../support/cet.ts';
import { SingleInstruction } from '../../support/single-instruction.ts';

const PML4 = 0xa000;
const PDPT = 0xb000;
const DIRECTORY = 0xc000;
const TABLE = 0xd000;
const PAGE = 0x5_0000;
const STACK = 0x6_0000;
const P = 1n;
const W = 2n;
const U = 4n;
const D = 1n << 6n;
const KEY_1 = 1n << 59n;
/** Page-fault error code. */
const Code = { P: 1, W: 2, U: 4, PK: 32, SS: 64 } as const;
const CR4 = 0x2020n | (1n << 22n) | (1n << 23n);

interface Pages {
  readonly ring?: 0 | 3;
  /** Flags of the page that SSP, RBX and IA32_PL0_SSP point into, and of the directory entry above it. */
  readonly page: bigint;
  readonly directory?: bigint;
  readonly state?: Partial<Record<RegisterName, bigint>>;
}

/** `code` in 64-bit mode with 4-level paging, one to one. */
function prepared({ ring = 0, page, directory = P | W | U, state = {} }: Pages): SingleInstruction {
  const one = new SingleInstruction();
  const { memory } = one.machine;
  memory.write64(PML4, BigInt(PDPT) | P | W | U);
  memory.write64(PDPT, BigInt(DIRECTORY) | P | W | U);
  memory.write64(DIRECTORY, BigInt(TABLE) | directory);
  for (let n = 0; n < 256; n++) memory.write64(TABLE + 8 * n, BigInt(n << 12) | P | W | U);
  memory.write64(TABLE + 8 * (PAGE >> 12), BigInt(PAGE) | page);
  const dpl = BigInt(ring << 5);
  one.set({
    CR3: BigInt(PML4),
    CR0: one.get('CR0') | (1n << 31n) | (1n << 16n),
    CR4,
    'CS.accessRights': 0xa09bn | dpl,
    'SS.accessRights': 0xc093n | dpl,
    IA32_S_CET: SH_STK_EN | WR_SHSTK_EN,
    IA32_U_CET: SH_STK_EN | WR_SHSTK_EN,
    IA32_PL0_SSP: BigInt(PAGE + 0x808),
    SSP: BigInt(PAGE + 0x808),
    RBX: BigInt(PAGE + 0x808),
    RSP: BigInt(STACK + 0x800),
    ...state,
  });
  return one;
}

/** Error code of the page fault that `code` raises; undefined if it raises none. */
function faultOf(code: string, pages: Pages): number | undefined {
  const { vector, errorCode } = prepared(pages).run(code);
  return vector === 14 ? errorCode : undefined;
}

const call = 'call rax';
const shadow = P | D;

describe('shadow-stack pages', () => {
  it('are read-only and dirty below entries that allow writes', () => {
    const present = Code.P | Code.W | Code.SS;
    expect(faultOf(call, { page: shadow })).toBeUndefined();
    expect(faultOf(call, { page: P | W | D })).toBe(present);
    expect(faultOf(call, { page: P })).toBe(present);
    expect(faultOf(call, { page: P | W })).toBe(present);
    expect(faultOf(WRSSQ, { page: shadow, directory: P | U })).toBe(present);
    expect(faultOf(call, { page: D })).toBe(Code.W | Code.SS);
  });

  it('are those of the CPL: user pages at CPL 3, supervisor pages below', () => {
    const user = Code.P | Code.W | Code.U | Code.SS;
    expect(faultOf(call, { page: shadow | U, ring: 3, directory: P | W | U })).toBeUndefined();
    expect(faultOf(call, { page: shadow, ring: 3 })).toBe(user);
    expect(faultOf(call, { page: shadow | U })).toBe(Code.P | Code.W | Code.SS);
    expect(faultOf(call, { page: P | W | U | D, ring: 3 })).toBe(user);
  });

  it('RET reads them, and nothing else', () => {
    expect(faultOf('ret', { page: P | W | D })).toBe(Code.P | Code.SS);
    expect(faultOf('ret', { page: P | W | U | D, ring: 3 })).toBe(Code.P | Code.U | Code.SS);
    expect(faultOf('ret', { page: shadow })).toBeUndefined();
  });

  it('are not written to by other instructions', () => {
    expect(faultOf('mov [rbx], rax', { page: shadow })).toBe(Code.P | Code.W);
    expect(faultOf('mov [rbx], rax', { page: shadow | U, ring: 3 })).toBe(Code.P | Code.W | Code.U);
    expect(faultOf('mov rax, [rbx]', { page: shadow })).toBeUndefined();
  });

  it('WRSS writes to those of the CPL, WRUSS to those of user mode', () => {
    expect(faultOf(WRSSQ, { page: shadow })).toBeUndefined();
    expect(faultOf(WRSSQ, { page: P | W | D })).toBe(Code.P | Code.W | Code.SS);
    expect(faultOf(WRUSSQ, { page: shadow | U })).toBeUndefined();
    expect(faultOf(WRUSSQ, { page: shadow })).toBe(Code.P | Code.W | Code.U | Code.SS);
    expect(faultOf(WRUSSQ, { page: P | W | U | D })).toBe(Code.P | Code.W | Code.U | Code.SS);
  });

  it('tokens are locked, so that a fault is one of a write', () => {
    expect(faultOf(RSTORSSP_RBX, { page: P | W | D })).toBe(Code.P | Code.W | Code.SS);
    expect(faultOf(SETSSBSY, { page: P | W | D })).toBe(Code.P | Code.W | Code.SS);
  });

  it('obey protection keys: access disable, and write disable', () => {
    const pages = (PKRU: bigint): Pages => ({ page: shadow | U | KEY_1, ring: 3, state: { PKRU } });
    const code = Code.P | Code.U | Code.SS | Code.PK;
    expect(faultOf(call, pages(0n))).toBeUndefined();
    expect(faultOf(call, pages(8n))).toBe(code | Code.W);
    expect(faultOf('ret', pages(8n))).toBeUndefined();
    expect(faultOf('ret', pages(4n))).toBe(code);
  });

  it('SMAP and RFLAGS.AC do not matter', () => {
    const state = { CR4: CR4 | (1n << 21n), RFLAGS: 0x4_0002n };
    expect(faultOf(WRUSSQ, { page: shadow | U, state: { ...state, RFLAGS: 2n } })).toBeUndefined();
    expect(faultOf(WRSSQ, { page: shadow | U, state })).toBe(Code.P | Code.W | Code.SS);
  });

  it('may be read-only without the dirty flag, and become shadow-stack pages without an invalidation', () => {
    const one = prepared({ page: P });
    expect(one.run('mov rax, [rbx]').vector).toBeUndefined();
    one.machine.memory.write64(TABLE + 8 * (PAGE >> 12), BigInt(PAGE) | shadow);
    expect(one.run(WRSSQ).vector).toBeUndefined();
  });

  it('with CR0.WP at 0 and CR4.CET at 0 supervisor mode writes to them as to other pages', () => {
    const one = prepared({ page: shadow });
    one.set({ CR4: CR4 & ~(1n << 23n), CR0: one.get('CR0') & ~(1n << 16n) });
    expect(one.run('mov [rbx], rax').vector).toBeUndefined();
  });

  it('CALL that faults there leaves RSP and SSP, and loads CR2 with the address', () => {
    const one = prepared({ page: P | W | D });
    const before = [one.get('RSP'), one.get('SSP')];
    expect(one.run(call).vector).toBe(14);
    expect([one.get('RSP'), one.get('SSP')]).toEqual(before);
    expect(one.get('faultAddress')).toBe(BigInt(PAGE + 0x800));
  });
});

describe('CR4.CET', () => {
  it('needs CR0.WP, which then cannot be cleared', () => {
    const one = prepared({ page: shadow });
    one.set({ CR4: CR4 & ~(1n << 23n), CR0: one.get('CR0') & ~(1n << 16n), RAX: CR4 });
    expect(one.run('mov cr4, rax')).toMatchObject({ vector: 13, errorCode: 0 });
    one.set({ CR0: one.get('CR0') | (1n << 16n), RAX: CR4 });
    expect(one.run('mov cr4, rax').vector).toBeUndefined();
    one.set({ RAX: one.get('CR0') & ~(1n << 16n) });
    expect(one.run('mov cr0, rax')).toMatchObject({ vector: 13, errorCode: 0 });
  });
});
