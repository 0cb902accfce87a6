/** Every bit of every kind of EPT entry on processors of every physical-address width (SDM Tables 31-1 to 31-7, §31.3.3.1). */
import { describe, expect, it } from 'vitest';
import { LINEAR_ACCESS } from '../../../src/cpu/guest-physical.ts';
import { Access } from '../../../src/cpu/tlb.ts';
import { PageRight } from '../../../src/cpu/translation-cache.ts';
import type { ControlId } from '../../../src/vmcs/controls.ts';
import { controlsOf } from '../../../src/vmx/effective-controls.ts';
import { ExtendedPageTables } from '../../../src/vmx/ept/extended-page-tables.ts';
import type { ExitRequest } from '../../../src/vmx/exit/exit-request.ts';
import { guestProcessor } from '../../support/vmx-processor.ts';

const ROOT = 0x10_0000;
const GPA = 0x1678;

interface Rules {
  readonly width: number;
  readonly controls?: readonly ControlId[];
  /** IA32_VMX_EPT_VPID_CAP; that of the profile if left out. */
  readonly eptVpidCap?: bigint;
}

/** Tries entries at one level of a 5-level walk whose other entries allow everything. */
class Trial {
  private readonly p: ReturnType<typeof guestProcessor>;
  private readonly ept: ExtendedPageTables;
  private reason = 0;

  constructor({ width, controls = [], eptVpidCap }: Rules) {
    this.p = guestProcessor({
      controls: [
        'proc.activateSecondaryControls',
        'proc.activateTertiaryControls',
        'proc2.enableEpt',
        ...controls,
      ],
      fields: { eptPointer: BigInt(ROOT) | 0x26n },
      features: { physicalAddressBits: width },
      ...(eptVpidCap !== undefined && { msrs: { IA32_VMX_EPT_VPID_CAP: eptVpidCap } }),
    });
    this.ept = new ExtendedPageTables(this.p, ({ reason }) => {
      this.reason = reason;
    });
    this.ept.follow(this.p.copy, controlsOf(this.p.copy, this.p.capabilities));
  }

  /** Exit reason of a read, a write and a fetch by way of `entry` at `level`; 0 where there is none. */
  try(level: number, entry: bigint): number[] {
    const { memory } = this.p.cpu;
    for (let at = 5; at >= 1; at--) {
      const next = at === 1 ? 0x20_0437n : BigInt(ROOT + 0x1000 * (6 - at)) | 0x407n;
      memory.write64(ROOT + 0x1000 * (5 - at) + (at === 1 ? 8 : 0), at === level ? entry : next);
    }
    LINEAR_ACCESS.rights = PageRight.Unpaged;
    return [Access.Read, Access.Write, Access.Fetch].map((access) => {
      this.ept.forgetMappings();
      this.reason = 0;
      return this.ept.page(GPA, access) ? 0 : this.reason;
    });
  }
}

const VIOLATION = 48;
const MISCONFIGURATION = 49;
const WIDTHS = Array.from({ length: 17 }, (_, n) => 36 + n);
const table = (level: number) => BigInt(ROOT + 0x1000 * (6 - level)) | 0x407n;

/** The kinds of entries: level, one that is legal, and bits that are reserved besides 51:MAXPHYADDR. */
const KINDS: readonly { name: string; level: number; legal: bigint; reserved: (bit: number) => boolean }[] = [
  { name: 'PML5E', level: 5, legal: table(5), reserved: (b) => b >= 3 && b <= 7 },
  { name: 'PML4E', level: 4, legal: table(4), reserved: (b) => b >= 3 && b <= 7 },
  { name: 'PDPTE of a directory', level: 3, legal: table(3), reserved: (b) => b >= 3 && b <= 6 },
  { name: 'PDE of a page table', level: 2, legal: table(2), reserved: (b) => b >= 3 && b <= 6 },
  { name: 'PDPTE of a page', level: 3, legal: 0x4000_00b7n, reserved: (b) => b >= 12 && b <= 29 },
  { name: 'PDE of a page', level: 2, legal: 0x20_00b7n, reserved: (b) => b >= 12 && b <= 20 },
  { name: 'PTE', level: 1, legal: 0x20_0037n, reserved: () => false },
];

describe.each(KINDS)('$name', ({ level, legal, reserved }) => {
  it('is misconfigured by reserved bits and by no others, for every width from 36 to 52', () => {
    for (const width of WIDTHS) {
      const trial = new Trial({ width });
      expect(trial.try(level, legal), `width ${width}`).toEqual([0, 0, 0]);
      for (let bit = 3; bit < 64; bit++) {
        // Bits of a memory type and bit 7, which makes it another kind of entry, are tried below; an
        // address bit may lead to where nothing is.
        const changed = legal | (1n << BigInt(bit));
        if (changed === legal || (bit === 7 && level > 1 && level <= 3)) continue;
        const isLeaf = level === 1 || (legal & 0x80n) !== 0n;
        if (isLeaf && bit <= 5) continue;
        const isReserved = reserved(bit) || (bit >= width && bit <= 51);
        const outcome = trial.try(level, changed);
        if (isReserved) expect(outcome, `width ${width} bit ${bit}`).toEqual(Array(3).fill(MISCONFIGURATION));
        else expect(outcome, `width ${width} bit ${bit}`).not.toContain(MISCONFIGURATION);
      }
    }
  });

  it('is not present with bits 2:0 clear, whatever else it has', () => {
    const trial = new Trial({ width: 40 });
    for (const entry of [0n, 0xffff_ffff_ffff_fff8n, 0x400n]) {
      expect(trial.try(level, entry)).toEqual(Array(3).fill(VIOLATION));
    }
    const modeBased = new Trial({ width: 40, controls: ['proc2.modeBasedExecuteControlForEpt'] });
    // Bit 10 alone lets code be fetched from user-mode addresses, as all are without paging.
    const only = (legal & ~7n) | 0x400n;
    expect(modeBased.try(level, only)).toEqual([VIOLATION, VIOLATION, 0]);
  });

  it('allows what its bits 2:0 say, and is misconfigured if it may be written but not read', () => {
    const trial = new Trial({ width: 46 });
    for (let rights = 1; rights < 8; rights++) {
      const expected =
        (rights & 3) === 2
          ? Array(3).fill(MISCONFIGURATION)
          : [1, 2, 4].map((right) => ((rights & right) !== 0 ? 0 : VIOLATION));
      expect(trial.try(level, (legal & ~7n) | BigInt(rights)), `rights ${rights}`).toEqual(expected);
    }
  });
});

describe('capabilities', () => {
  const ALL = (1n << 48n) - 1n;
  const without = (bit: number) => ALL & ~(1n << BigInt(bit));

  it('make execute-only entries, large pages and pages of 1 GByte misconfigurations where they are missing', () => {
    const wrong = Array(3).fill(MISCONFIGURATION);
    const executes = new Trial({ width: 46, eptVpidCap: without(0) });
    for (const { level, legal } of KINDS) expect(executes.try(level, (legal & ~7n) | 4n)).toEqual(wrong);
    const userExecutes = new Trial({
      width: 46,
      eptVpidCap: without(0),
      controls: ['proc2.modeBasedExecuteControlForEpt'],
    });
    expect(userExecutes.try(1, 0x20_0430n)).toEqual(wrong);
    expect(new Trial({ width: 46, eptVpidCap: without(16) }).try(2, 0x20_00b7n)).toEqual(wrong);
    expect(new Trial({ width: 46, eptVpidCap: without(17) }).try(3, 0x4000_00b7n)).toEqual(wrong);
  });
});

describe('guest-physical addresses beyond 48 bits', () => {
  const BEYOND = 2 ** 48 + GPA;

  function read(levels: 4 | 5) {
    let exit: ExitRequest | undefined;
    const p = guestProcessor({
      controls: ['proc.activateSecondaryControls', 'proc2.enableEpt', 'proc2.eptViolationVe'],
      fields: {
        eptPointer: BigInt(ROOT) | BigInt((levels - 1) << 3) | 6n,
        virtualizationExceptionInformationAddress: 0x30_0000n,
      },
      features: { physicalAddressBits: 52 },
    });
    const ept = new ExtendedPageTables(p, (request) => {
      exit = request;
    });
    ept.follow(p.copy, controlsOf(p.copy, p.capabilities));
    const { memory } = p.cpu;
    memory.write64(0x30_0004, 0n);
    for (let n = 0; n < levels; n++) {
      const last = n === levels - 1;
      const at = ROOT + 0x1000 * n + (last ? 8 : 0);
      memory.write64(at, last ? 0x20_0437n : BigInt(ROOT + 0x1000 * (n + 1)) | 7n);
      // Bit 48 selects the second entry of a PML5.
      if (n === 0 && levels === 5) memory.write64(at + 8, BigInt(ROOT + 0x1000) | 7n);
    }
    LINEAR_ACCESS.rights = PageRight.Unpaged;
    return { allowed: ept.page(BEYOND, Access.Read), exit, busy: memory.read32(0x30_0004) };
  }

  it('are violations with 4 levels, without rights and never a #VE, and translated with 5', () => {
    const { allowed, exit, busy } = read(4);
    expect([allowed, exit?.reason, busy]).toEqual([false, VIOLATION, 0]);
    expect((exit?.qualification as bigint) & 0x7fn).toBe(1n);
    expect(exit?.guestPhysicalAddress).toBe(BigInt(BEYOND));
    expect(read(5).allowed).toBe(true);
  });
});

describe('memory types', () => {
  it('2, 3 and 7 are reserved in every entry that maps a page', () => {
    const trial = new Trial({ width: 46 });
    for (const { level, legal } of KINDS.filter((k) => k.level === 1 || (k.legal & 0x80n) !== 0n)) {
      for (let type = 0; type < 8; type++) {
        const outcome = trial.try(level, (legal & ~0x38n) | BigInt(type << 3));
        expect(outcome, `type ${type}`).toEqual(
          Array(3).fill([2, 3, 7].includes(type) ? MISCONFIGURATION : 0),
        );
      }
    }
  });
});
