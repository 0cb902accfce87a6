/** Memory types without EPT: ranges, and ranges combined with PAT (SDM vol. 3A §14.11.4, Table 14-7). */
import { describe, expect, it } from 'vitest';
import { rangeType } from '../../src/cpu/memory-type-ranges.ts';
import type { LogicalProcessor } from '../../src/machine/logical-processor.ts';
import { Machine } from '../../src/machine/machine.ts';
import { mapIdentity } from '../support/guest.ts';

const TYPES = { 0: 'UC', 1: 'WC', 4: 'WT', 5: 'WP', 6: 'WB' } as const;
const UC = 0;
const WC = 1;
const WT = 4;
const WP = 5;
const WB = 6;
const DEFAULT = 0xc00n;

function processor(type = WB): LogicalProcessor {
  const machine = new Machine({ memory: 0x40_0000 });
  mapIdentity(machine);
  const cpu = machine.cpu(0);
  cpu.set('IA32_MTRR_DEF_TYPE', DEFAULT | BigInt(type));
  return cpu;
}

function range(cpu: LogicalProcessor, n: 0 | 1, base: number, size: number, type: number): void {
  cpu.set(`IA32_MTRR_PHYSBASE${n}`, BigInt(base + type));
  cpu.set(`IA32_MTRR_PHYSMASK${n}`, (((1n << 46n) - BigInt(size)) & ~0xfffn) | 0x800n);
}

const at = (cpu: LogicalProcessor, physical: number) => TYPES[rangeType(cpu.processor, physical) as 0];

describe('memory-type ranges', () => {
  it('all memory is uncacheable while they are disabled, as after RESET', () => {
    const cpu = new Machine({ memory: 0x1000 }).cpu(0);
    expect(at(cpu, 0x1_0000_0000)).toBe('UC');
    cpu.set('IA32_MTRR_DEF_TYPE', 0x406n);
    expect(at(cpu, 0x1_0000_0000)).toBe('UC');
  });

  it('variable ranges cover what their mask says, also above 4 GBytes; elsewhere is the default type', () => {
    const cpu = processor();
    range(cpu, 0, 0x2_4000_0000, 0x4000_0000, WC);
    expect([0x2_3fff_f000, 0x2_4000_0000, 0x2_7fff_f000, 0x2_8000_0000].map((a) => at(cpu, a))).toEqual([
      'WB',
      'WC',
      'WC',
      'WB',
    ]);
    cpu.set('IA32_MTRR_PHYSMASK0', cpu.get('IA32_MTRR_PHYSMASK0') & ~0x800n);
    expect(at(cpu, 0x2_4000_0000)).toBe('WB');
  });

  it('where they overlap UC wins over all, and WT over WB', () => {
    for (const [a, b, expected] of [
      [WB, UC, 'UC'],
      [WC, UC, 'UC'],
      [WB, WT, 'WT'],
      [WT, WB, 'WT'],
      [WP, WP, 'WP'],
    ] as const) {
      const cpu = processor(WC);
      range(cpu, 0, 0x4000_0000, 0x4000_0000, a);
      range(cpu, 1, 0x4000_0000, 0x1000, b);
      expect(at(cpu, 0x4000_0000)).toBe(expected);
      expect(at(cpu, 0x4000_1000)).toBe(TYPES[a]);
    }
  });

  it('fixed ranges have a byte each, before variable ones, if they are enabled', () => {
    const cpu = processor(WP);
    range(cpu, 0, 0, 0x10_0000, WT);
    cpu.set('IA32_MTRR_FIX64K_00000', 0x06n << 56n);
    cpu.set('IA32_MTRR_FIX16K_A0000', 0x01n << 8n);
    cpu.set('IA32_MTRR_FIX4K_F8000', (0x06n << 56n) | 0x05n);
    const addresses = [
      0x6_f000, 0x7_0000, 0x7_f000, 0xa_3000, 0xa_4000, 0xf_8000, 0xf_9000, 0xf_f000, 0x10_0000,
    ];
    expect(addresses.map((a) => at(cpu, a))).toEqual(['UC', 'WB', 'WB', 'UC', 'WC', 'WP', 'UC', 'WB', 'WP']);
    cpu.set('IA32_MTRR_DEF_TYPE', 0x805n);
    expect(at(cpu, 0x7_0000)).toBe('WT');
  });
});

describe('the memory type of a page without EPT', () => {
  it('is that of the range without paging, and UC while CR0.CD is 1', () => {
    const cpu = processor(WC);
    cpu.set('CR0', 0x11n);
    expect(cpu.translation(0x20_0000n)).toMatchObject({ physical: 0x20_0000, memoryType: 'WC', entries: [] });
    cpu.set('CR0', 0x4000_0011n);
    expect(cpu.translation(0x20_0000n).memoryType).toBe('UC');
  });

  it('is that of the range and of PAT, for pages and for paging structures', () => {
    const cpu = processor();
    cpu.set('CR0', 0x8000_0011n);
    cpu.set('CR4', 0x20n);
    cpu.set('IA32_EFER', 0x500n);
    cpu.set('CR3', 0x30_0010n);
    range(cpu, 0, 0x30_0000, 0x1000, WT);
    const { memory } = cpu.processor;
    // PAT, PCD and PWT of the entry for 2 MBytes.
    memory.write64(0x30_2000, 0x1087n);
    const found = cpu.translation(0n);
    // The first structure is referenced by CR3 with PCD, that is UC-.
    expect(found.entries.map((e) => e.memoryType)).toEqual(['UC', 'WB', 'WB']);
    cpu.set('IA32_PAT', 0x0007_0401_0007_0406n);
    expect(found.memoryType).toBe('UC');
    cpu.set('IA32_MTRR_FIX64K_00000', 0x0606_0606_0606_0606n);
    expect(cpu.translation(0n).memoryType).toBe('WC');
    cpu.set('CR3', 0x30_0000n);
    expect(cpu.translation(0n).entries.map((e) => e.memoryType)).toEqual(['WT', 'WB', 'WB']);
  });

  it('of PAE paging starts from the PDPTE registers', () => {
    const cpu = processor();
    cpu.set('CR0', 0x8000_0011n);
    cpu.set('CR4', 0x20n);
    cpu.set('PDPTE0', 0x30_2009n);
    expect(cpu.translation(0x20_0000n)).toMatchObject({ physical: 0x20_0000, memoryType: 'WB' });
    expect(cpu.translation(0x20_0000n).entries.map((e) => e.memoryType)).toEqual(['WT']);
  });
});
