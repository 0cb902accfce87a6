import { describe, expect, it } from 'vitest';
import type { CpuidFeatures } from '../../src/cpu/cpuid.ts';
import { invalidateEverything, invalidateLinearPage, translate } from '../../src/cpu/paging.ts';
import { PhysicalMemory } from '../../src/cpu/physical-memory.ts';
import { Processor } from '../../src/cpu/processor.ts';
import { Register } from '../../src/cpu/registers.ts';
import { STATE_BYTES } from '../../src/cpu/state-layout.ts';
import { Access } from '../../src/cpu/tlb.ts';
import { findProfile } from '../../src/vmx/capabilities/profiles.ts';

const FULL = (findProfile('full') as { features: CpuidFeatures }).features;
const [PML4, PDPT, PD, PT] = [0x1000, 0x2000, 0x3000, 0x4000];
const LINEAR = 0x0000_7f12_3456_7000n;
const FRAME = 0x9000n;
const [P, RW, US, A, D, PS, G] = [1n, 2n, 4n, 0x20n, 0x40n, 0x80n, 0x100n];
const XD = 1n << 63n;
const index = (level: number) => Number((LINEAR >> BigInt(12 + 9 * (level - 1))) & 0x1ffn);

/** A processor in 64-bit mode with 4-level paging that maps {@link LINEAR} with the given leaf and directory entries. */
function paged(leaf: bigint, directory = P | RW | US, settings: Partial<Settings> = {}): Processor {
  const {
    features = FULL,
    wp = true,
    smep = false,
    smap = false,
    nxe = true,
    cpl = 0,
    ac = false,
  } = settings;
  const memory = new PhysicalMemory({ ramBytes: 0x1_0000, stateBytes: STATE_BYTES });
  const cpu = new Processor(0, features, memory);
  memory.write64(PML4 + 8 * index(4), BigInt(PDPT) | P | RW | US);
  memory.write64(PDPT + 8 * index(3), BigInt(PD) | P | RW | US);
  memory.write64(PD + 8 * index(2), (directory & PS) !== 0n ? directory : BigInt(PT) | directory);
  memory.write64(PT + 8 * index(1), leaf);
  cpu.write('CR3', BigInt(PML4));
  cpu.write('CR4', 0x20n | 0x80n | (smep ? 1n << 20n : 0n) | (smap ? 1n << 21n : 0n));
  cpu.write('IA32_EFER', 0x500n | (nxe ? 0x800n : 0n));
  cpu.write('CS.accessRights', 0xa09bn | (BigInt(cpl) << 5n));
  cpu.write('SS.accessRights', 0xc093n | (BigInt(cpl) << 5n));
  cpu.write('RFLAGS', 2n | (ac ? 1n << 18n : 0n));
  cpu.write('CR0', 0x8000_0011n | (wp ? 1n << 16n : 0n));
  return cpu;
}

interface Settings {
  readonly features: CpuidFeatures;
  readonly wp: boolean;
  readonly smep: boolean;
  readonly smap: boolean;
  readonly nxe: boolean;
  readonly cpl: number;
  readonly ac: boolean;
}

/** Outcome of one access: the physical page, or the error code of the page fault. */
function access(cpu: Processor, kind: number, linear = LINEAR): { page: number } | { error: number } {
  const shift = kind === Access.Fetch ? (cpu.cpl === 3 ? 0 : 3) : cpu.accessClass;
  const lo = Number(BigInt.asIntN(32, linear));
  const hi = Number(BigInt.asIntN(32, linear >> 32n));
  const entry = translate(cpu, lo, hi, kind << shift);
  if (entry >= 0) return { page: cpu.tlb.physical[entry] as number };
  expect(cpu.quads[Register.faultAddress]).toBe(linear);
  expect(cpu.words[2 * Register.fault]).toBe(14);
  return { error: cpu.words[2 * Register.faultErrorCode] as number };
}

const both = [false, true];

describe('4-level paging (SDM vol. 3A §5.5, §5.6)', () => {
  it('lets through exactly the accesses that rights and settings allow, with the exact error code', () => {
    for (const us of both)
      for (const rw of both)
        for (const xd of both)
          for (const wp of both)
            for (const smep of both)
              for (const smap of both)
                for (const ac of both)
                  for (const cpl of [0, 3])
                    for (const kind of [Access.Read, Access.Write, Access.Fetch]) {
                      const leaf = FRAME | P | (us ? US : 0n) | (rw ? RW : 0n) | (xd ? XD : 0n);
                      const cpu = paged(leaf, P | RW | US, { wp, smep, smap, ac, cpl });
                      let allowed: boolean;
                      if (cpl === 3) {
                        allowed = us;
                        if (kind === Access.Write) allowed &&= rw;
                      } else {
                        allowed = true;
                        if (kind === Access.Write && wp) allowed &&= rw;
                        if (us && kind === Access.Fetch) allowed &&= !smep;
                        if (us && kind !== Access.Fetch) allowed &&= !smap || ac;
                      }
                      if (kind === Access.Fetch) allowed &&= !xd;
                      const error =
                        1 |
                        (kind === Access.Write ? 2 : 0) |
                        (cpl === 3 ? 4 : 0) |
                        (kind === Access.Fetch ? 16 : 0);
                      const expected = allowed ? { page: Number(FRAME) } : { error };
                      const where = JSON.stringify({ us, rw, xd, wp, smep, smap, ac, cpl, kind });
                      expect(access(cpu, kind), where).toEqual(expected);
                      // Again, now perhaps from the TLB.
                      expect(access(cpu, kind), where).toEqual(expected);
                    }
  });

  it('sets accessed flags on the way and the dirty flag on the first write, not on a denied one', () => {
    const cpu = paged(FRAME | P | RW | US);
    const leaf = () => cpu.memory.read64(PT + 8 * index(1)) & (A | D);
    expect(leaf()).toBe(0n);
    access(cpu, Access.Read);
    expect(leaf()).toBe(A);
    expect(cpu.memory.read64(PML4 + 8 * index(4)) & A).toBe(A);
    access(cpu, Access.Write);
    expect(leaf()).toBe(A | D);
    const denied = paged(FRAME | P);
    access(denied, Access.Write);
    expect(denied.memory.read64(PT + 8 * index(1)) & D).toBe(0n);
  });

  it('faults for a page that is not present and for reserved bits, at any level', () => {
    expect(access(paged(FRAME), Access.Read)).toEqual({ error: 0 });
    expect(access(paged(FRAME | P, 0n), Access.Write)).toEqual({ error: 2 });
    expect(access(paged(FRAME | P | XD, P | RW | US, { nxe: false }), Access.Read)).toEqual({ error: 9 });
    const width = { ...FULL, physicalAddressBits: 40 };
    expect(access(paged(FRAME | P | (1n << 40n), P | RW | US, { features: width }), Access.Read)).toEqual({
      error: 9,
    });
    expect(access(paged(FRAME | P | (1n << 39n), P | RW | US, { features: width }), Access.Read)).toEqual({
      page: Number(FRAME) + 2 ** 39,
    });
  });

  it('maps pages of 2 MBytes and finds their reserved bits', () => {
    const within = Number(LINEAR & 0x1f_f000n);
    expect(access(paged(0n, 0x40_0000n | P | RW | US | PS), Access.Read)).toEqual({
      page: 0x40_0000 + within,
    });
    expect(access(paged(0n, 0x40_2000n | P | RW | US | PS), Access.Read)).toEqual({ error: 9 });
  });

  it('keeps a translation until it is invalidated, and walks before it faults', () => {
    const cpu = paged(FRAME | P | RW | US);
    access(cpu, Access.Read);
    cpu.memory.write64(PT + 8 * index(1), 0xa000n | P | RW | US);
    expect(access(cpu, Access.Read)).toEqual({ page: Number(FRAME) });
    invalidateLinearPage(cpu, Number(BigInt.asIntN(32, LINEAR)), Number(LINEAR >> 32n));
    expect(access(cpu, Access.Read)).toEqual({ page: 0xa000 });
    const readOnly = paged(FRAME | P | US);
    access(readOnly, Access.Read);
    readOnly.memory.write64(PT + 8 * index(1), FRAME | P | US | RW);
    expect(access(readOnly, Access.Write)).toEqual({ page: Number(FRAME) });
  });

  it('keeps global translations across CR3, and drops them when everything is invalidated', () => {
    for (const flags of [0n, G]) {
      const cpu = paged(FRAME | P | RW | US | flags);
      access(cpu, Access.Read);
      cpu.memory.write64(PT + 8 * index(1), 0xa000n | P | RW | US);
      cpu.translations.invalidateContext(0, false);
      cpu.tlb.forgetAll();
      expect(access(cpu, Access.Read)).toEqual({ page: flags === G ? Number(FRAME) : 0xa000 });
      invalidateEverything(cpu);
      expect(access(cpu, Access.Read)).toEqual({ page: 0xa000 });
    }
  });

  it('applies protection keys to user pages', () => {
    for (const [pkru, read, write] of [
      [0b00n, true, true],
      [0b10n, true, false],
      [0b01n, false, false],
    ] as const) {
      const cpu = paged(FRAME | P | RW | US | (5n << 59n), P | RW | US, { cpl: 3 });
      cpu.write('CR4', cpu.read('CR4') | (1n << 22n));
      cpu.write('PKRU', pkru << 10n);
      expect(access(cpu, Access.Read)).toEqual(read ? { page: Number(FRAME) } : { error: 0x25 });
      expect(access(cpu, Access.Write)).toEqual(write ? { page: Number(FRAME) } : { error: 0x27 });
    }
  });

  it('reports that a protection key denies an access which the page denies too', () => {
    for (const [pkru, cr0, cpl, read, write, fetch] of [
      [0b00n, 0n, 3, 0, 7, 0x15],
      [0b10n, 0n, 3, 0, 0x27, 0x15],
      [0b01n, 0n, 3, 0x25, 0x27, 0x15],
      // Supervisor-mode writes are denied by a key, or by the page, with CR0.WP alone.
      [0b10n, 0n, 0, 0, 0, 0],
      [0b10n, 1n << 16n, 0, 0, 0x23, 0],
    ] as const) {
      const cpu = paged(FRAME | P | US | (5n << 59n) | (cpl === 3 ? XD : 0n), P | RW | US, { cpl });
      cpu.write('CR4', cpu.read('CR4') | (1n << 22n));
      cpu.write('CR0', (cpu.read('CR0') & ~(1n << 16n)) | cr0);
      cpu.write('PKRU', pkru << 10n);
      const expected = (error: number) => (error === 0 ? { page: Number(FRAME) } : { error });
      const what = `PKRU ${pkru}, CPL ${cpl}, CR0.WP ${cr0 !== 0n}`;
      expect(access(cpu, Access.Read), what).toEqual(expected(read));
      expect(access(cpu, Access.Write), what).toEqual(expected(write));
      expect(access(cpu, Access.Fetch), what).toEqual(expected(fetch));
    }
  });
});

describe('32-bit and PAE paging (SDM vol. 3A §5.3, §5.4)', () => {
  const legacy = (cr4: bigint): Processor => {
    const memory = new PhysicalMemory({ ramBytes: 0x1_0000, stateBytes: STATE_BYTES });
    const cpu = new Processor(0, FULL, memory);
    cpu.write('CR3', 0x1000n);
    cpu.write('CR4', cr4);
    cpu.write('CR0', 0x8001_0011n);
    return cpu;
  };

  it('32-bit: tables, and pages of 4 MBytes with PSE-36 addresses', () => {
    const cpu = legacy(0x10n);
    cpu.memory.write32(0x1000 + 4 * 3, 0x2003);
    cpu.memory.write32(0x2000 + 4 * 5, 0x7001);
    expect(access(cpu, Access.Read, 0xc0_5000n)).toEqual({ page: 0x7000 });
    expect(access(cpu, Access.Write, 0xc0_5000n)).toEqual({ error: 3 });
    cpu.memory.write32(0x1000 + 4 * 4, 0x0080_0083 | (1 << 13));
    expect(access(cpu, Access.Read, 0x100_5000n)).toEqual({ page: 2 ** 32 + 0x80_5000 });
    cpu.memory.write32(0x1000 + 4 * 6, 0x00a0_0083);
    expect(access(cpu, Access.Read, 0x180_0000n)).toEqual({ error: 9 });
  });

  it('PAE: PDPTE registers, execute-disable, reserved bits 62:52', () => {
    const cpu = legacy(0x20n);
    cpu.write('PDPTE1', 0x2001n);
    cpu.memory.write64(0x2000 + 8, 0x3003n);
    cpu.memory.write64(0x3000, 0x7003n);
    expect(access(cpu, Access.Read, 0x4020_0000n)).toEqual({ page: 0x7000 });
    expect(access(cpu, Access.Read, 0x20_0000n)).toEqual({ error: 0 });
    cpu.memory.write64(0x3008, 0x7003n | (1n << 52n));
    expect(access(cpu, Access.Read, 0x4020_1000n)).toEqual({ error: 9 });
  });
});
