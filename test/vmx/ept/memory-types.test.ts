/** Memory types under EPT (SDM §31.3.7, vol. 3A Table 14-7), and the walk without effects that reports them. */
import { describe, expect, it } from 'vitest';
import type { LogicalProcessor } from '../../../src/machine/logical-processor.ts';
import { DATA, Ept, eptGuest, FRAME, UNPAGED } from '../../support/ept.ts';

const PAT = 0x0007_0105_0007_0406n;
/** By PAT index under {@link PAT}. */
const TYPES = ['WB', 'WT', 'UC-', 'UC', 'WP', 'WC', 'UC-', 'UC'] as const;
const EPT_TYPES = { UC: 0n, WC: 1n, WT: 4n, WP: 5n, WB: 6n } as const;
/** Rows of the table: EPT's type; columns: PAT WB, WT, UC-, UC, WP, WC. */
const TABLE = {
  UC: ['UC', 'UC', 'UC', 'UC', 'UC', 'WC'],
  WC: ['WC', 'UC', 'WC', 'UC', 'UC', 'WC'],
  WT: ['WT', 'WT', 'UC', 'UC', 'WP', 'WC'],
  WP: ['WP', 'UC', 'WC', 'UC', 'WP', 'WC'],
  WB: ['WB', 'WT', 'UC', 'UC', 'WP', 'WC'],
} as const;
const DIRECTORY = 0x30_2000;
const PAGE_TABLE = 0x28_0000;
const LINEAR = 0x40_0000n;

function guestWithPat() {
  return eptGuest('nop', {
    fields: { guestIa32Pat: PAT },
    controls: ['entry.loadIa32Pat'],
    prepare: (_tables, { memory }) => memory.write64(DIRECTORY + 16, BigInt(PAGE_TABLE) | 7n),
  });
}

describe('the memory type of a page', () => {
  it('is that of EPT and of PAT combined', () => {
    const { cpu, machine, tables } = guestWithPat();
    for (const [name, row] of Object.entries(TABLE)) {
      tables.map(DATA, FRAME, Ept.RWX | (EPT_TYPES[name as keyof typeof EPT_TYPES] << 3n));
      row.forEach((expected, index) => {
        // PWT, PCD and, in an entry for 4 KBytes, PAT as bit 7.
        const selector = ((BigInt(index) & 3n) << 3n) | ((BigInt(index) >> 2n) << 7n);
        machine.memory.write64(PAGE_TABLE, BigInt(DATA) | 7n | selector);
        expect(cpu.translation(LINEAR).memoryType, `${name} and ${TYPES[index]}`).toBe(expected);
      });
    }
  });

  it('is that of EPT alone if it says so, and UC while CR0.CD is 1', () => {
    const { cpu, machine, tables } = guestWithPat();
    machine.memory.write64(PAGE_TABLE, BigInt(DATA) | 0x1fn);
    tables.map(DATA, FRAME, Ept.RWX | Ept.WB | Ept.IgnorePat);
    expect(cpu.translation(LINEAR).memoryType).toBe('WB');
    cpu.set('CR0', cpu.get('CR0') | (1n << 30n));
    expect(cpu.translation(LINEAR).memoryType).toBe('UC');
  });
});

it('the memory type of a page without paging is that of EPT with WB, whatever PAT and ranges say', () => {
  const { cpu, tables } = eptGuest('nop', UNPAGED);
  cpu.set('IA32_PAT', 0n);
  for (const type of [0xc00n, 0xc06n]) {
    cpu.set('IA32_MTRR_DEF_TYPE', type);
    for (const [name, bits] of Object.entries(EPT_TYPES)) {
      tables.map(DATA, FRAME, Ept.RWX | (bits << 3n));
      expect(cpu.translation(BigInt(DATA)).memoryType).toBe(name);
    }
  }
});

describe('the memory types of accesses to structures', () => {
  const typesOf = (cpu: LogicalProcessor, structure: 'paging' | 'EPT', linear = LINEAR) =>
    cpu
      .translation(linear)
      .entries.filter((e) => e.structure === structure)
      .map((e) => e.memoryType);

  it('are that of the EPTP for EPT, whatever the ranges, and UC while CR0.CD is 1', () => {
    const { cpu, machine } = guestWithPat();
    machine.memory.write64(PAGE_TABLE, BigInt(DATA) | 7n);
    // Four paging structures and the page, four entries each.
    expect(typesOf(cpu, 'EPT')).toEqual(Array(20).fill('WB'));
    const uncacheable = eptGuest('nop', { eptpFlags: 0n, fields: { eptPointer: 0x38_0018n } });
    expect(new Set(typesOf(uncacheable.cpu, 'EPT'))).toEqual(new Set(['UC']));
    cpu.set('CR0', cpu.get('CR0') | (1n << 30n));
    expect(new Set([...typesOf(cpu, 'EPT'), ...typesOf(cpu, 'paging')])).toEqual(new Set(['UC']));
  });

  it('are those that PWT and PCD of what references them give, and EPT', () => {
    const { cpu, machine, tables } = guestWithPat();
    const { memory } = machine;
    memory.write64(DIRECTORY + 16, BigInt(PAGE_TABLE) | 0xfn);
    memory.write64(0x30_0000, 0x30_1007n | 0x18n);
    expect(typesOf(cpu, 'paging')).toEqual(['WB', 'UC', 'WB', 'WT']);
    cpu.set('CR3', 0x30_0008n);
    expect(typesOf(cpu, 'paging')).toEqual(['WT', 'UC', 'WB', 'WT']);
    // With PCIDs these bits of CR3 are part of one.
    cpu.set('CR4', cpu.get('CR4') | (1n << 17n));
    expect(typesOf(cpu, 'paging')[0]).toBe('WB');
    tables.map(0x30_1000, 0x30_1000, Ept.RWX | Ept.WB | Ept.IgnorePat);
    tables.map(PAGE_TABLE, PAGE_TABLE, Ept.RWX | (1n << 3n));
    expect(typesOf(cpu, 'paging')).toEqual(['WB', 'WB', 'WB', 'UC']);
  });

  it('follow the HLAT pointer, and CR3 again where an entry says so', () => {
    const { cpu, machine } = eptGuest('nop', {
      controls: ['proc.activateTertiaryControls', 'proc3.enableHlat', 'entry.loadIa32Pat'],
      fields: { hlatPointer: 0x28_0008n, hlatPrefixSize: 1n, guestIa32Pat: PAT },
      prepare: (_tables, { memory }) => {
        memory.write64(0x28_0800, 0x28_1007n);
        memory.write64(0x28_1000, 0x28_2007n);
        memory.write64(0x28_2000, 0x20_0087n);
        memory.write64(0x30_0800, 0x30_1007n);
      },
    });
    const high = 0xffff_8000_0000_0000n;
    expect(typesOf(cpu, 'paging', high)).toEqual(['WT', 'WB', 'WB']);
    machine.memory.write64(0x28_1000, 0x28_2807n);
    cpu.set('CR3', 0x30_0018n);
    expect(typesOf(cpu, 'paging', high)).toEqual(['WT', 'WB', 'UC', 'WB', 'WB']);
  });
});

describe('the walk without effects', () => {
  it('names every entry it read, of paging and of EPT, and sets no flag', () => {
    const { cpu, machine, tables } = eptGuest('nop', { eptpFlags: 0x40n });
    const before = [machine.memory.read64(0x30_0000), tables.get(DATA), tables.get(DATA, 4)];
    const probe = cpu.translation(BigInt(DATA + 0x123));
    expect(probe).toMatchObject({ physical: FRAME, lacksAccessed: true, lacksDirty: true });
    // Three entries of the guest, each with four of EPT, and four for the page.
    expect(probe.entries.map((e) => e.structure).join(' ')).toBe(
      [...Array(3).fill('EPT EPT EPT EPT paging'), 'EPT EPT EPT EPT'].join(' '),
    );
    expect([machine.memory.read64(0x30_0000), tables.get(DATA), tables.get(DATA, 4)]).toEqual(before);
  });

  it('says why there is no page', () => {
    const { cpu, machine, tables } = eptGuest('nop');
    tables.map(DATA, 0, 0n);
    expect(cpu.translation(BigInt(DATA)).physical).toBe('not mapped by second-level translation');
    machine.memory.write64(DIRECTORY, 0n);
    expect(cpu.translation(BigInt(DATA)).physical).toBe('page fault');
  });
});
