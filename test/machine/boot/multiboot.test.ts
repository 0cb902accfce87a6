import { describe, expect, it } from 'vitest';
import { applyBootPlan, type BootPlan, isProblem } from '../../../src/machine/boot/boot-plan.ts';
import { type MultibootOptions, planMultiboot } from '../../../src/machine/boot/multiboot.ts';
import { Machine } from '../../../src/machine/machine.ts';
import { buildElf, concat, multibootElf, multibootHeader } from '../../support/elf-builder.ts';

const MIB = 0x10_0000;
const GIB = 2 ** 30;
const CODE = Uint8Array.of(0xf4, 0xeb, 0xfd, 0x90);

function booted(image: Uint8Array, options: Partial<MultibootOptions> = {}) {
  const plan = planMultiboot(image, { ramSize: 64 * MIB, ...options });
  if (isProblem(plan)) throw new Error(plan.problem);
  const machine = new Machine();
  const { memory } = machine;
  const { processor } = machine.cpu(0);
  applyBootPlan(plan, memory, processor);
  const info = Number(processor.read('RBX'));
  const text = (address: number) => {
    let string = '';
    for (let at = address; memory.read8(at) !== 0; at++) string += String.fromCharCode(memory.read8(at));
    return string;
  };
  return { plan, memory, processor, info, text, u32: (offset: number) => memory.read32(info + offset) };
}

function problemOf(image: Uint8Array, options: Partial<MultibootOptions> = {}): string {
  const plan = planMultiboot(image, { ramSize: 64 * MIB, ...options });
  return isProblem(plan) ? plan.problem : 'no problem';
}

describe('the state at entry', () => {
  it('is that of the specification', () => {
    const { processor, memory } = booted(multibootElf(CODE));
    const read = (name: Parameters<typeof processor.read>[0]) => processor.read(name);
    expect(read('RAX')).toBe(0x2bad_b002n);
    expect(read('RIP')).toBe(0x10_000cn);
    expect(read('CR0') & 0x8000_0001n).toBe(1n);
    expect(read('RFLAGS') & 0x2_0200n).toBe(0n);
    expect([read('CS.base'), read('CS.limit'), read('CS.accessRights')]).toEqual([0n, 0xffff_ffffn, 0xc09bn]);
    for (const s of ['DS', 'ES', 'FS', 'GS', 'SS'] as const) {
      expect([read(`${s}.base`), read(`${s}.limit`), read(`${s}.accessRights`)]).toEqual([
        0n,
        0xffff_ffffn,
        0xc093n,
      ]);
    }
    expect([processor.mode, processor.cpl, read('a20mMode')]).toEqual([2, 0, 0n]);
    const gdt = Number(read('GDTR.base'));
    expect([0, 8, 16].map((n) => memory.read64(gdt + n))).toEqual([
      0n,
      0x00cf_9b00_0000_ffffn,
      0x00cf_9300_0000_ffffn,
    ]);
    expect([read('CS.selector'), read('SS.selector'), read('GDTR.limit')]).toEqual([8n, 16n, 23n]);
  });

  it('has VMX enabled and locked by firmware', () => {
    expect(booted(multibootElf(CODE)).processor.read('IA32_FEATURE_CONTROL')).toBe(5n);
  });
});

describe('an ELF image', () => {
  it.each([32, 64] as const)('of %i bits is loaded by physical addresses', (bits) => {
    const virtual = bits === 64 ? 0xffff_ffff_8010_0000n : 0xc010_0000n;
    const image = buildElf({
      bits,
      entry: virtual + 12n,
      segments: [
        { physical: 0x10_0000, virtual, bytes: concat(multibootHeader(0), CODE), memorySize: 0x3000 },
        { physical: 0x20_0001, bytes: Uint8Array.of(1, 2, 3) },
        { physical: 0xffff_0000, bytes: Uint8Array.of(9), type: 4 },
      ],
    });
    const { memory, processor } = booted(image);
    expect(processor.read('RIP')).toBe(0x10_000cn);
    expect([...memory.readBytes(0x10_000c, 4)]).toEqual([...CODE]);
    expect([...memory.readBytes(0x20_0000, 5)]).toEqual([0, 1, 2, 3, 0]);
    expect(memory.read8(0xffff_0000)).toBe(0);
  });

  it('may give a physical entry point', () => {
    const image = buildElf({
      bits: 32,
      entry: 0x10_000cn,
      segments: [{ physical: 0x10_0000, virtual: 0xc010_0000n, bytes: concat(multibootHeader(0), CODE) }],
    });
    expect(booted(image).processor.read('RIP')).toBe(0x10_000cn);
  });

  it.each([32, 64] as const)('of %i bits hands over its sections, those without address loaded', (bits) => {
    const image = buildElf({
      bits,
      entry: 0x10_000cn,
      segments: [{ physical: 0x10_0000, bytes: concat(multibootHeader(0), CODE), memorySize: 0x2000 }],
      sections: [
        { type: 1, flags: 2, address: 0x10_0000, bytes: Uint8Array.of(7) },
        { type: 2, bytes: Uint8Array.of(0xaa, 0xbb) },
        { type: 8, bytes: Uint8Array.of(1) },
        { type: 3, bytes: Uint8Array.of(0, 0x2e, 0) },
      ],
    });
    const { u32, memory } = booted(image);
    expect(u32(0) & 0x20).toBe(0x20);
    const size = bits === 64 ? 64 : 40;
    expect([u32(28), u32(32), u32(40)]).toEqual([5, size, 4]);
    const address = (n: number) => memory.read32(u32(36) + n * size + (bits === 64 ? 16 : 12));
    expect([address(0), address(1), address(3)]).toEqual([0, 0x10_0000, 0]);
    expect([...memory.readBytes(address(2), 2)]).toEqual([0xaa, 0xbb]);
    expect([...memory.readBytes(address(4), 3)]).toEqual([0, 0x2e, 0]);
    expect(address(2)).toBeGreaterThanOrEqual(0x10_2000);
  });

  it('is the same as the Buffer that a file is read into, which stays as it is', () => {
    const sections = [{ type: 2, bytes: Uint8Array.of(0xaa, 0xbb) }];
    const segments = [{ physical: 0x10_0000, bytes: concat(multibootHeader(0), CODE) }];
    const image = buildElf({ bits: 32, entry: 0x10_000cn, segments, sections });
    const file = Buffer.concat([Buffer.alloc(9), image]).subarray(9);
    expect(booted(file).plan).toEqual(booted(image).plan);
    expect([...file]).toEqual([...image]);
  });

  it('keeps its sections to itself if they are not in the file, and says so', () => {
    const image = multibootElf(CODE);
    new DataView(image.buffer).setUint16(48, 9, true);
    new DataView(image.buffer).setUint32(32, 0x7fff_0000, true);
    const { u32, plan } = booted(image);
    expect(u32(0) & 0x20).toBe(0);
    expect(plan.notes).toEqual([expect.stringContaining('section header table at offset 0x7fff0000')]);
  });
});

describe('an image with addresses in its header', () => {
  const image = (addresses: readonly number[], before = 0, after = CODE) =>
    concat(new Uint8Array(before).fill(0xcc), multibootHeader(0x1_0000, addresses), after);

  it('is loaded from the place that the header implies, up to the end of the file', () => {
    const { memory, processor } = booted(image([0x20_0010, 0x20_0008, 0, 0, 0x20_0030], 16));
    expect(processor.read('RIP')).toBe(0x20_0030n);
    expect([...memory.readBytes(0x20_0007, 9)]).toEqual([0, ...Array(8).fill(0xcc)]);
    expect(memory.read32(0x20_0010)).toBe(0x1bad_b002);
    expect([...memory.readBytes(0x20_0030, 5)]).toEqual([...CODE, 0]);
  });

  it('is loaded only as far as the header says, and its bss is kept free', () => {
    const { memory, plan } = booted(image([0x20_0000, 0x20_0000, 0x20_0022, 0x40_0000, 0x20_0020]), {
      modules: [{ bytes: CODE, text: '' }],
    });
    expect([...memory.readBytes(0x20_0020, 4)]).toEqual([CODE[0], CODE[1], 0, 0]);
    expect(plan.pieces.some((p) => p.start === 0x40_0000 && p.bytes === CODE)).toBe(true);
  });

  it('takes precedence over the ELF file that holds it', () => {
    const elf = buildElf({
      bits: 32,
      entry: 0x10_0020n,
      segments: [
        { physical: 0x10_0000, bytes: multibootHeader(0x1_0000, [0x30_0060, 0x30_0060, 0, 0, 0x30_0060]) },
      ],
    });
    const { processor, memory } = booted(elf);
    expect(processor.read('RIP')).toBe(0x30_0060n);
    expect(memory.read32(0x10_0000)).toBe(0);
  });

  it.each([
    ['before the start of the file', [0x20_0010, 0x20_0000, 0, 0, 0x20_0000]],
    ['before the start of the file', [0x10_0000, 0x20_0000, 0, 0, 0x20_0000]],
    ['not in the file', [0x20_0000, 0x20_0000, 0x20_1000, 0, 0x20_0000]],
    ['not in the file', [0x20_0000, 0x20_0000, 0x1f_0000, 0, 0x20_0000]],
    ['ends the bss at 0x200010', [0x20_0000, 0x20_0000, 0, 0x20_0010, 0x20_0000]],
    ['entry point 0x300000', [0x20_0000, 0x20_0000, 0, 0, 0x30_0000]],
    ['no RAM', [0x9_f000, 0x9_f000, 0, 0x9_fe00, 0x9_f000]],
    ['no RAM', [0xffff_fff0, 0xffff_fff0, 0, 0, 0xffff_fff0]],
  ])('is refused: %s', (message, addresses) => {
    expect(problemOf(image(addresses))).toContain(message);
  });
});

describe('the information structure', () => {
  it('tells the size of memory and its map', () => {
    const { u32, memory } = booted(multibootElf(CODE), { ramSize: 5 * GIB });
    expect(u32(0)).toBe(0x24d);
    expect([u32(4), u32(8)]).toEqual([639, 3 * 1024 * 1024 - 1024]);
    const entries: [bigint, bigint, number][] = [];
    for (let at = u32(48); at < u32(48) + u32(44); at += memory.read32(at) + 4) {
      entries.push([memory.read64(at + 4), memory.read64(at + 12), memory.read32(at + 20)]);
    }
    expect(entries).toEqual([
      [0n, 0x9_fc00n, 1],
      [0x9_fc00n, 0x400n, 2],
      [0xf_0000n, 0x1_0000n, 2],
      [0x10_0000n, 0xbff0_0000n, 1],
      [0xfec0_0000n, 0x140_0000n, 2],
      [0x1_0000_0000n, 0x8000_0000n, 1],
    ]);
  });

  it('has the command line and the name of the loader', () => {
    const { u32, text } = booted(multibootElf(CODE), { commandLine: 'kernel a=1 "b c"' });
    expect([text(u32(16)), text(u32(64))]).toEqual(['kernel a=1 "b c"', 'vmxon']);
  });

  it('lists modules with their strings, each on a page of its own after the image', () => {
    const modules = [
      { bytes: Uint8Array.of(1, 2, 3), text: 'first x' },
      { bytes: new Uint8Array(5000).fill(4), text: '' },
      { bytes: new Uint8Array(0), text: 'empty' },
    ];
    const { u32, memory, text } = booted(multibootElf(CODE), { modules });
    expect(u32(20)).toBe(3);
    const list = [0, 1, 2].map((i) => [0, 4, 8, 12].map((n) => memory.read32(u32(24) + 16 * i + n)));
    expect(list.map(([start, end]) => [start, end! - start!])).toEqual([
      [0x10_1000, 3],
      [0x10_2000, 5000],
      [0x10_4000, 0],
    ]);
    expect(list.map((m) => [text(m[2]!), m[3]])).toEqual([
      ['first x', 0],
      ['', 0],
      ['empty', 0],
    ]);
    expect([...memory.readBytes(0x10_1000, 4)]).toEqual([1, 2, 3, 0]);
  });

  it('lies clear of an image in low memory', () => {
    const image = buildElf({
      bits: 32,
      entry: 0x100cn,
      segments: [{ physical: 0x1000, bytes: concat(multibootHeader(0), CODE), memorySize: 0x8_0000 }],
    });
    const { info, processor } = booted(image);
    expect(info).toBeGreaterThanOrEqual(0x8_1000);
    expect(Number(processor.read('GDTR.base'))).toBeGreaterThanOrEqual(0x8_1000);
  });
});

describe('no piece overlaps another', () => {
  it('whatever is loaded', () => {
    const { plan } = booted(multibootElf(CODE), {
      modules: Array.from({ length: 5 }, (_, i) => ({ bytes: new Uint8Array(1000 * i), text: `${i}` })),
    });
    expectDisjoint(plan);
  });
});

function expectDisjoint(plan: BootPlan): void {
  const pieces = plan.pieces.filter((p) => p.bytes.length > 0).sort((a, b) => a.start - b.start);
  pieces.forEach((piece, i) => {
    expect(piece.start).toBeGreaterThanOrEqual(
      i === 0 ? 0 : pieces[i - 1]!.start + pieces[i - 1]!.bytes.length,
    );
  });
}

describe('the header', () => {
  it('may lie anywhere in the first 8 KBytes, aligned to 4', () => {
    const at = (offset: number) =>
      concat(
        new Uint8Array(offset),
        multibootHeader(0x1_0000, [0x10_0000 + offset, 0x10_0000, 0, 0, 0x10_0000]),
      );
    expect(problemOf(at(8192 - 32))).toBe('no problem');
    expect(problemOf(at(8192 - 28))).toContain('address fields that end beyond 0x2000');
    expect(problemOf(at(8192))).toBe('there is no Multiboot header in the first 8192 bytes');
    expect(problemOf(at(102))).toBe('the Multiboot header at offset 0x66 is not aligned to 4 bytes');
  });

  it('is the first one whose checksum holds', () => {
    const addresses = [0x10_000c, 0x10_0000, 0, 0, 0x10_0000];
    const image = concat(multibootHeader(0, [], 1), multibootHeader(0x1_0000, addresses));
    expect(problemOf(image)).toBe('no problem');
  });

  it('may ask for a video mode, which is noted', () => {
    expect(booted(multibootElf(CODE, 32, 7)).plan.notes).toEqual([expect.stringContaining('video mode')]);
  });

  it.each([
    ['checksum', multibootHeader(3, [], 0x1234)],
    ['requires features 0x8', multibootHeader(0x8)],
    ['requires features 0x8000', multibootHeader(0x8003)],
    ['is cut off', multibootHeader(0).slice(0, 8)],
    ['Multiboot 2', Uint8Array.of(0xd6, 0x50, 0x52, 0xe8, 0, 0, 0, 0)],
    ['no Multiboot header', new Uint8Array(100)],
    ['first 0 bytes', new Uint8Array(0)],
    ['no ELF file', multibootHeader(0)],
    ['address fields', multibootHeader(0x1_0000)],
  ])('is refused: %s', (message, image) => {
    expect(problemOf(image)).toContain(message);
  });
});

describe('a broken ELF image is refused', () => {
  const patched = (bits: 32 | 64, patch: (view: DataView) => void, code = CODE) => {
    const image = multibootElf(code, bits);
    patch(new DataView(image.buffer));
    return problemOf(image);
  };
  const u16 = (at: number, value: number) => (v: DataView) => v.setUint16(at, value, true);
  const u32 = (at: number, value: number) => (v: DataView) => v.setUint32(at, value, true);
  const u64 = (at: number, value: bigint) => (v: DataView) => v.setBigUint64(at, value, true);

  it.each([
    ['ELF class at offset 4 is 3', 32, (v: DataView) => v.setUint8(4, 3)],
    ['data encoding at offset 5 is 2', 32, (v: DataView) => v.setUint8(5, 2)],
    ['ELF machine at offset 18 is 40', 32, u16(18, 40)],
    ['ELF type at offset 16 is 3', 64, u16(16, 3)],
    ['no program headers', 32, u16(44, 0)],
    ['65535 program headers', 32, u16(44, 0xffff)],
    ['reach beyond the end', 32, u16(44, 0xfffe)],
    ['has 16 bytes, fewer than 32', 32, u16(42, 16)],
    ['has 32 bytes, fewer than 56', 64, u16(54, 32)],
    ['at offset 0xffffffff', 32, u32(28, 0xffff_ffff)],
    ['program headers at offset 0x', 64, u64(32, 0xffff_ffff_ffff_fff0n)],
    ['no loadable segment', 32, u32(52, 2)],
    ['no loadable segment', 32, (v: DataView) => [68, 72].map((at) => v.setUint32(at, 0, true))],
    ['segment 0 has 0x10 bytes in the file but only 0xf', 32, u32(72, 0xf)],
    ['segment 0 at offset 0xfffffff0', 32, u32(56, 0xffff_fff0)],
    ['segment 0 at offset 0x', 64, u64(72, 0xffff_ffff_ffff_ffffn)],
    ['no RAM', 32, u32(64, 0xf000_0000)],
    ['no RAM', 32, u32(72, 0xffff_ffff)],
    ['no RAM', 64, u64(104, 0xffff_ffff_ffff_ffffn)],
    ['no RAM', 32, u32(64, 0x9_fff8)],
    ['entry point 0x42 lies in no', 32, u32(24, 0x42)],
  ] as const)('%s', (message, bits, patch) => {
    expect(patched(bits, patch)).toContain(message);
  });

  it('cut off inside its header', () => {
    const image = concat(Uint8Array.of(0x7f, 0x45, 0x4c, 0x46, 2, 1), new Uint8Array(2), multibootHeader(0));
    expect(problemOf(image)).toContain('inside the ELF header');
    expect(problemOf(concat(image.slice(0, 4), multibootHeader(0)))).toContain('inside the ELF header');
  });

  it('with segments on top of each other', () => {
    const image = buildElf({
      bits: 32,
      entry: 0x10_000cn,
      segments: [
        { physical: 0x10_0000, bytes: concat(multibootHeader(0), CODE), memorySize: 0x1001 },
        { physical: 0x10_1000, bytes: CODE },
      ],
    });
    expect(problemOf(image)).toBe(
      'segment 1 at 0x101000 to 0x101004 overlaps segment 0 at 0x100000 to 0x101001',
    );
  });

  it('entered above 4 GBytes', () => {
    const image = buildElf({
      bits: 64,
      entry: 0x1_0000_000cn,
      segments: [{ physical: 2 ** 32, bytes: concat(multibootHeader(0), CODE) }],
    });
    expect(problemOf(image, { ramSize: 5 * GIB })).toContain('above 4 GBytes');
  });

  it('or modules for which there is no room', () => {
    const modules = [{ bytes: new Uint8Array(2 * MIB), text: '' }];
    expect(problemOf(multibootElf(CODE), { ramSize: 2 * MIB, modules })).toBe(
      'there is no room for module 1 of 2097152 bytes',
    );
    const commandLine = 'x'.repeat(3 * MIB);
    expect(problemOf(multibootElf(CODE), { ramSize: 2 * MIB, commandLine })).toContain(
      'no room below 4 GBytes for the information structure',
    );
  });
});
