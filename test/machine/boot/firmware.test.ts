import { describe, expect, it } from 'vitest';
import { leaveFirmwareState } from '../../../src/machine/boot/firmware.ts';
import { Machine } from '../../../src/machine/machine.ts';
import { isUsable, memoryMap } from '../../../src/machine/memory-map.ts';
import { loadApic } from '../../support/apic.ts';

const RAM = 16 * 2 ** 20;

function booted(cpus: number) {
  const machine = new Machine({ cpus, memory: RAM, devices: {} });
  leaveFirmwareState(machine);
  const { memory } = machine;
  const text = (at: number, length: number) => String.fromCharCode(...memory.readBytes(at, length));
  const sum = (at: number, length: number) =>
    memory.readBytes(at, length).reduce((total, byte) => (total + byte) & 0xff, 0);
  /** Where kernels look: every 16 bytes from E0000H to FFFFFH. */
  const find = (signature: string) => {
    for (let at = 0xe_0000; at < 0x10_0000; at += 16) if (text(at, signature.length) === signature) return at;
    throw new Error(`no ${signature}`);
  };
  return { machine, memory, text, sum, find };
}

/** The MADT's or the MP table's entries. */
function entries(bytes: Uint8Array, lengthOf: (at: number) => number): number[][] {
  const found: number[][] = [];
  for (let at = 0; at < bytes.length; at += lengthOf(at))
    found.push([...bytes.subarray(at, at + lengthOf(at))]);
  return found;
}

describe('ACPI tables', () => {
  const { memory, text, sum, find } = booted(3);
  const rsdp = find('RSD PTR ');
  const tablesOf = (root: number, size: 4 | 8) =>
    Array.from({ length: (memory.read32(root + 4) - 36) / size }, (_, n) =>
      memory.read32(root + 36 + size * n),
    );
  const xsdt = memory.read32(rsdp + 24);
  const rsdt = memory.read32(rsdp + 16);
  const [fadt, madt] = tablesOf(xsdt, 8) as [number, number];

  it('are found from an RSDP whose checksums are right', () => {
    expect([sum(rsdp, 20), sum(rsdp, 36), memory.read8(rsdp + 15), memory.read32(rsdp + 20)]).toEqual([
      0, 0, 2, 36,
    ]);
    expect([text(rsdt, 4), text(xsdt, 4)]).toEqual(['RSDT', 'XSDT']);
    expect(tablesOf(rsdt, 4)).toEqual(tablesOf(xsdt, 8));
    expect([fadt, madt].map((at) => text(at, 4))).toEqual(['FACP', 'APIC']);
  });

  it('have right checksums and lie in reserved memory', () => {
    const dsdt = memory.read32(fadt + 40);
    for (const at of [rsdt, xsdt, fadt, madt, dsdt]) {
      const length = memory.read32(at + 4);
      expect([text(at, 4), sum(at, length)]).toEqual([text(at, 4), 0]);
      expect(isUsable(memoryMap(RAM), at, at + length)).toBe(false);
      expect(at).toBeGreaterThanOrEqual(0xf_0000);
    }
  });

  it('FADT: the same addresses in both forms, FACS aligned, fixed registers where they are', () => {
    const facs = memory.read32(fadt + 36);
    expect([text(facs, 4), facs % 64, memory.read32(facs + 4)]).toEqual(['FACS', 0, 64]);
    expect([memory.read32(fadt + 132), memory.read32(fadt + 140)]).toEqual([facs, memory.read32(fadt + 40)]);
    for (const [short, extended, bits] of [
      [56, 148, 32],
      [64, 172, 16],
      [76, 208, 32],
    ] as const) {
      expect([memory.read8(fadt + extended), memory.read8(fadt + extended + 1)]).toEqual([1, bits]);
      expect(memory.read32(fadt + extended + 4)).toBe(memory.read32(fadt + short));
    }
    expect([memory.read16(fadt + 46), memory.read8(fadt + 108)]).toEqual([9, 0x32]);
    expect([memory.read32(fadt + 120), memory.read8(fadt + 128)]).toEqual([0xcf9, 6]);
  });

  it('DSDT: \\_S5 is a package of the length that it says', () => {
    const dsdt = memory.read32(fadt + 40);
    const aml = [...memory.readBytes(dsdt + 36, memory.read32(dsdt + 4) - 36)];
    expect(aml.slice(0, 6)).toEqual([0x08, 0x5f, 0x53, 0x35, 0x5f, 0x12]);
    expect(aml[6]).toBe(aml.length - 6);
    expect(aml.slice(7)).toEqual([4, 0x0a, 5, 0x0a, 5, 0, 0]);
  });

  it('MADT: processors, the I/O APIC, line 0 at input 2, the SCI, NMI at LINT1', () => {
    const bytes = memory.readBytes(madt + 44, memory.read32(madt + 4) - 44);
    expect([memory.read32(madt + 36), memory.read32(madt + 40)]).toEqual([0xfee0_0000, 1]);
    expect(entries(bytes, (at) => bytes[at + 1] as number)).toEqual([
      [0, 8, 0, 0, 1, 0, 0, 0],
      [0, 8, 1, 1, 1, 0, 0, 0],
      [0, 8, 2, 2, 1, 0, 0, 0],
      [1, 12, 3, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0],
      [2, 10, 0, 0, 2, 0, 0, 0, 0, 0],
      [2, 10, 0, 9, 9, 0, 0, 0, 0x0d, 0],
      [4, 6, 0xff, 0, 0, 1],
    ]);
  });

  it('MADT of 256 processors has an x2APIC entry for the last', () => {
    const many = booted(256);
    const root = many.memory.read32(many.find('RSD PTR ') + 24);
    const at = many.memory.read32(root + 44);
    const bytes = many.memory.readBytes(at + 44, many.memory.read32(at + 4) - 44);
    const found = entries(bytes, (n) => bytes[n + 1] as number);
    expect([found.filter((e) => e[0] === 0).length, found.filter((e) => e[0] === 9)]).toEqual([
      255,
      [[9, 16, 0, 0, 255, 0, 0, 0, 1, 0, 0, 0, 255, 0, 0, 0]],
    ]);
  });
});

describe('MP tables', () => {
  it('list processors, bus, I/O APIC and interrupts', () => {
    const { machine, memory, sum, text, find } = booted(2);
    const floating = find('_MP_');
    expect([sum(floating, 16), memory.read8(floating + 9), memory.read8(floating + 12)]).toEqual([0, 4, 0]);
    const table = memory.read32(floating + 4);
    const length = memory.read16(table + 4);
    expect([text(table, 4), sum(table, length), memory.read32(table + 36)]).toEqual(['PCMP', 0, 0xfee0_0000]);
    const bytes = memory.readBytes(table + 44, length - 44);
    const found = entries(bytes, (at) => (bytes[at] === 0 ? 20 : 8));
    expect(found).toHaveLength(memory.read16(table + 34));
    const { signature } = machine.cpu(0).profile;
    expect(found.filter((e) => e[0] === 0).map((e) => [...e.slice(0, 4), memoryWord(e, 4)])).toEqual([
      [0, 0, 0x15, 3, signature],
      [0, 1, 0x15, 1, signature],
    ]);
    expect((found[0]?.[9] as number) & 2).toBe(2);
    expect(found.filter((e) => e[0] === 2)).toEqual([[2, 2, 0x20, 1, 0, 0, 0xc0, 0xfe]]);
    const lines = found.filter((e) => e[0] === 3 && e[1] === 0);
    expect(lines.map((e) => [e[5], e[7]])).toEqual(
      [0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15].map((line) => [line, line === 0 ? 2 : line]),
    );
  });

  const memoryWord = (entry: number[], at: number) =>
    (entry[at] as number) |
    ((entry[at + 1] as number) << 8) |
    ((entry[at + 2] as number) << 16) |
    ((entry[at + 3] as number) << 24);
});

describe('what firmware leaves', () => {
  it('processor 0 in virtual wire mode, the others waiting for a start-up IPI with VMX enabled', () => {
    const { machine } = booted(3);
    const [first, ...others] = machine.processors;
    const registers = ['SpuriousInterruptVector', 'LvtLint0', 'LvtLint1'] as const;
    expect(registers.map((r) => loadApic(first as never, r))).toEqual([0x1ff, 0x700, 0x400]);
    expect(others.map((cpu) => [cpu.get('activityState'), cpu.get('IA32_FEATURE_CONTROL')])).toEqual([
      [3n, 5n],
      [3n, 5n],
    ]);
    expect(registers.map((r) => loadApic(others[0] as never, r))).toEqual([0xff, 0x1_0000, 0x1_0000]);
    machine.platform?.ioApic.store(0xfec0_0000, 0);
    expect(machine.platform?.ioApic.load(0xfec0_0010)).toBe(3 << 24);
  });

  it('nothing in memory on a machine without devices', () => {
    const machine = new Machine({ memory: RAM });
    leaveFirmwareState(machine);
    expect(machine.memory.readBytes(0xf_0000, 0x1_0000).some((byte) => byte !== 0)).toBe(false);
  });
});
