import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { U64_MAX } from '../../src/bits/u64.ts';
import type { CpuidFeatures } from '../../src/cpu/cpuid.ts';
import { MSRS, type MsrAccess, msrRow } from '../../src/cpu/msr-catalogue.ts';
import { checkMsrWrite, IA32_EFER_INDEX, IA32_FEATURE_CONTROL } from '../../src/cpu/msrs.ts';
import { PhysicalMemory } from '../../src/cpu/physical-memory.ts';
import { Processor } from '../../src/cpu/processor.ts';
import { FIXED_RANGES, Register } from '../../src/cpu/registers.ts';
import { NO_VMX, type VmxPort } from '../../src/cpu/vmx-port.ts';
import { findProfile, PROFILES } from '../../src/vmx/capabilities/profiles.ts';

// The most counters that any processor has.
const FULL = { ...findProfile('full')!.features, generalPurposeCounters: 10 };

function processor(features: Partial<CpuidFeatures> = {}, port: Partial<VmxPort> = {}): Processor {
  const cpu = new Processor(0, { ...FULL, ...features }, new PhysicalMemory());
  cpu.vmxPort = { ...NO_VMX, ...port };
  return cpu;
}

const at = (...positions: number[]) => positions.reduce((m, p) => m | (1n << BigInt(p)), 0n);
/** Not canonical, even with 57 bits. */
const WILD = 0x0100_0000_0000_0000n;
/** Canonical with 57 bits and not with 48. */
const LA57 = 0x0080_0000_0000_0000n;
const PAGE = 0x1000n;
const R: MsrAccess = 'reserved-bit';
const C: MsrAccess = 'not-canonical';
const B: MsrAccess = 'bad-value';

/** By MSR, on a processor that has everything: values WRMSR takes, and values it refuses. */
const RULES: readonly (readonly [name: string, index: number, good: bigint[], bad: [bigint, MsrAccess][]])[] =
  [
    ['IA32_TIME_STAMP_COUNTER', 0x10, [0n, U64_MAX], []],
    [
      'IA32_APIC_BASE',
      0x1b,
      [0xfee0_0900n, at(10, 11), 0xf_ffff_ffff_f000n],
      [
        [at(0), R],
        [at(7), R],
        [at(9), R],
        [at(52), R],
      ],
    ],
    [
      'IA32_SPEC_CTRL',
      0x48,
      [0n, at(0, 1, 2, 3, 4, 5, 6, 7, 8, 10)],
      [
        [at(9), R],
        [at(11), R],
        [at(32), R],
      ],
    ],
    ['IA32_PLATFORM_ID', 0x17, [], [[0n, 'read-only']]],
    ['IA32_BARRIER', 0x2f, [], [[0n, 'read-only']]],
    ['IA32_BIOS_SIGN_ID', 0x8b, [0n, U64_MAX], []],
    ['IA32_MTRRCAP', 0xfe, [], [[0x50an, 'read-only']]],
    ...Array.from({ length: 10 }, (_, n) => n).flatMap((n): (typeof RULES)[number][] => [
      [
        `IA32_MTRR_PHYSBASE${n}`,
        0x200 + 2 * n,
        [0n, 0xf_ffff_ffff_f006n, 1n, 4n, 5n],
        [
          [at(8), R],
          [at(11), R],
          [at(52), R],
          [2n, B],
          [3n, B],
          [7n, B],
          [0x80n, B],
        ],
      ],
      [
        `IA32_MTRR_PHYSMASK${n}`,
        0x201 + 2 * n,
        [0n, 0xf_ffff_ffff_f800n],
        [
          [at(0), R],
          [at(10), R],
          [at(52), R],
        ],
      ],
    ]),
    ...(Object.entries(FIXED_RANGES) as [string, number][]).map(([name, index]): (typeof RULES)[number] => [
      name,
      index,
      [0n, 0x0606_0504_0100_0606n],
      [
        [2n, B],
        [0x07n << 56n, B],
        [0x03n << 32n, B],
      ],
    ]),
    [
      'IA32_MTRR_DEF_TYPE',
      0x2ff,
      [0n, 0xc06n],
      [
        [at(8), R],
        [at(9), R],
        [at(12), R],
        [7n, B],
      ],
    ],
    ['IA32_SYSENTER_CS', 0x174, [0x10n, 0xffff_ffffn, at(32), at(63)], []],
    ['IA32_SYSENTER_ESP', 0x175, [0n, LA57, U64_MAX], [[WILD, C]]],
    ['IA32_SYSENTER_EIP', 0x176, [0n, LA57, U64_MAX], [[WILD, C]]],
    [
      'IA32_MISC_ENABLE',
      0x1a0,
      [0x85_0089n, at(34)],
      [
        [at(1), R],
        [at(63), R],
      ],
    ],
    [
      'IA32_DEBUGCTL',
      0x1d9,
      [at(0, 1, 2), at(6, 7, 8, 9, 10, 11, 12, 14, 15)],
      [
        [at(3), R],
        [at(5), R],
        [at(16), R],
        [at(63), R],
      ],
    ],
    [
      'IA32_PAT',
      0x277,
      [0x0007_0406_0007_0406n, 0x0105_0706_0400_0607n],
      [
        [0x02n, B],
        [0x0300n, B],
        [0x08n << 56n, B],
        [0xffn << 16n, B],
      ],
    ],
    [
      'IA32_PERF_GLOBAL_CTRL',
      0x38f,
      [0n, at(48, 35, 32, 7, 0)],
      [
        [at(10), R],
        [at(36), R],
        [at(31), R],
        [at(47), R],
        [at(49), R],
      ],
    ],
    [
      'IA32_RTIT_CTL',
      0x570,
      [at(0, 13), at(27, 31, 32, 47, 55, 56)],
      [
        [at(18), R],
        [at(23), R],
        [at(28), R],
        [at(30), R],
        [at(48), R],
        [at(54), R],
        [at(57), R],
      ],
    ],
    ...([0x6a0, 0x6a2] as const).map((index): (typeof RULES)[number] => [
      index === 0x6a0 ? 'IA32_U_CET' : 'IA32_S_CET',
      index,
      [0x3fn, at(10), at(11), LA57 | 0x3fn],
      [
        [at(6), R],
        [at(9), R],
        [at(10, 11), B],
        [WILD, C],
      ],
    ]),
    ...[0, 1, 2, 3].map((level): (typeof RULES)[number] => [
      `IA32_PL${level}_SSP`,
      0x6a4 + level,
      [4n, 8n, LA57],
      [
        [1n, R],
        [2n, R],
        [WILD, C],
      ],
    ]),
    ['IA32_INTERRUPT_SSP_TABLE_ADDR', 0x6a8, [1n, LA57], [[WILD, C]]],
    ['IA32_TSC_DEADLINE', 0x6e0, [0n, U64_MAX], []],
    [
      'IA32_UMWAIT_CONTROL',
      0xe1,
      [0xffff_fffdn],
      [
        [at(1), R],
        [at(32), R],
      ],
    ],
    ['IA32_PKRS', 0x6e1, [0xffff_ffffn], [[at(32), R]]],
    ['IA32_TME_ACTIVATE', 0x982, [3n], []],
    ['IA32_UINTR_RR', 0x985, [0n, U64_MAX], []],
    ['IA32_UINTR_HANDLER', 0x986, [1n, LA57], [[WILD, C]]],
    [
      'IA32_UINTR_STACKADJUST',
      0x987,
      [9n, LA57],
      [
        [2n, R],
        [4n, R],
        [WILD, C],
      ],
    ],
    ['IA32_UINTR_MISC', 0x988, [0xff_ffff_ffffn], [[at(40), R]]],
    [
      'IA32_UINTR_PD',
      0x989,
      [0x40n, LA57],
      [
        [1n, R],
        [0x20n, R],
        [WILD, C],
      ],
    ],
    [
      'IA32_UINTR_TT',
      0x98a,
      [0x11n, LA57],
      [
        [2n, R],
        [8n, R],
        [WILD, C],
      ],
    ],
    [
      'IA32_BNDCFGS',
      0xd90,
      [3n, LA57 | PAGE],
      [
        [at(2), R],
        [at(11), R],
        [WILD, C],
      ],
    ],
    [
      'IA32_PASID',
      0xd93,
      [at(31) | 0xf_ffffn],
      [
        [at(20), R],
        [at(30), R],
        [at(32), R],
      ],
    ],
    ...Array.from({ length: 10 }, (_, n) => n).flatMap((n): (typeof RULES)[number][] => [
      [`IA32_PMC${n}`, 0xc1 + n, [0n, 0x7fff_ffffn], []],
      [
        `IA32_PERFEVTSEL${n}`,
        0x186 + n,
        [0n, 0xffdf_ffffn],
        [
          [at(21), R],
          [at(32), R],
          [at(63), R],
        ],
      ],
    ]),
    ['IA32_PERF_GLOBAL_STATUS', 0x38e, [], [[0n, 'read-only']]],
    [
      'IA32_PERF_GLOBAL_OVF_CTRL',
      0x390,
      [0n],
      [
        [at(10), R],
        [at(36), R],
        [at(61), R],
      ],
    ],
    [
      'IA32_XSS',
      0xda0,
      [at(8, 10, 11, 12, 14, 15)],
      [
        [at(0), R],
        [at(7), R],
        [at(9), R],
        [at(17), R],
      ],
    ],
    [
      'IA32_LBR_CTL',
      0x14ce,
      [at(0, 3, 16, 22)],
      [
        [at(4), R],
        [at(15), R],
        [at(23), R],
      ],
    ],
    ...[0, 1, 2, 3].map((level): (typeof RULES)[number] => [
      `IA32_FRED_RSP${level}`,
      0x1cc + level,
      [0x40n, LA57],
      [
        [0x20n, R],
        [1n, R],
        [WILD, C],
      ],
    ]),
    ['IA32_FRED_STKLVLS', 0x1d0, [U64_MAX], []],
    ...[1, 2, 3].map((level): (typeof RULES)[number] => [
      `IA32_FRED_SSP${level}`,
      0x1d0 + level,
      [8n, LA57],
      [
        [4n, R],
        [WILD, C],
      ],
    ]),
    [
      'IA32_FRED_CONFIG',
      0x1d4,
      [0x3n, at(3, 6, 8, 9, 10), LA57 | PAGE],
      [
        [at(2), R],
        [at(4), R],
        [at(5), R],
        [at(11), R],
        [WILD, C],
      ],
    ],
    [
      'IA32_EFER',
      0xc000_0080,
      [0n, at(0, 8, 10, 11)],
      [
        [at(1), R],
        [at(9), R],
        [at(12), R],
        [at(63), R],
      ],
    ],
    ['IA32_STAR', 0xc000_0081, [U64_MAX], []],
    ['IA32_LSTAR', 0xc000_0082, [LA57], [[WILD, C]]],
    ['IA32_CSTAR', 0xc000_0083, [LA57], [[WILD, C]]],
    ['IA32_FMASK', 0xc000_0084, [0x4_7700n, at(32), at(63)], []],
    ['FS.base', 0xc000_0100, [LA57, U64_MAX], [[WILD, C]]],
    ['GS.base', 0xc000_0101, [LA57, U64_MAX], [[WILD, C]]],
    ['IA32_KERNEL_GS_BASE', 0xc000_0102, [LA57, U64_MAX], [[WILD, C]]],
    ['IA32_TSC_AUX', 0xc000_0103, [0xffff_ffffn], [[at(32), R]]],
  ];

describe('every MSR of the catalogue', () => {
  it('has a rule here', () => {
    expect(RULES.map(([, index]) => index).sort()).toEqual(MSRS.map((row) => row.index).sort());
    expect(new Set(MSRS.map((row) => row.slot)).size).toBe(MSRS.length);
  });

  it.each(RULES)('%s', (name, index, good, bad) => {
    expect(msrRow(index)).toMatchObject({ index, name });
    const cpu = processor();
    const stored = ['IA32_SYSENTER_CS', 'IA32_FMASK'].includes(name) ? 0xffff_ffffn : U64_MAX;
    const lma = name === 'IA32_EFER' ? at(10) : 0n;
    for (const value of good) {
      expect(cpu.writeMsr(index, value), `0x${value.toString(16)}`).toBe('ok');
      expect(cpu.readMsr(index)).toBe(value & stored & ~lma);
    }
    const before = cpu.quads.slice();
    for (const [value, why] of bad) {
      expect(cpu.writeMsr(index, value), `0x${value.toString(16)}`).toBe(why);
      expect(cpu.quads).toEqual(before);
    }
  });

  it.each(MSRS.map((row) => [row.name, row] as const))('%s takes no reserved bit', (_, row) => {
    fc.assert(
      fc.property(fc.bigInt(0n, U64_MAX), (value) => {
        const reserved = row.reserved(FULL);
        expect(processor().writeMsr(row.index, value & ~reserved)).not.toBe('reserved-bit');
        if ((value & reserved) !== 0n) expect(processor().writeMsr(row.index, value)).toBe('reserved-bit');
      }),
      { numRuns: 20 },
    );
  });

  it('does not exist if there is no row for it', () => {
    const cpu = processor();
    for (const index of [0x11, 0x9b, 0x9e, 0x79, 0x2fe, 0xc000_0085, 0xffff_ffff]) {
      expect(cpu.readMsr(index)).toBeUndefined();
      expect(cpu.writeMsr(index, 0n)).toBe('does-not-exist');
    }
  });
});

describe('existence follows CPUID', () => {
  it.each<[string, Partial<CpuidFeatures>, number[]]>([
    ['IA32_SPEC_CTRL', { specCtrlBits: 0 }, [0x48]],
    ['UMWAIT and TPAUSE', { userWaitAndPause: false }, [0xe1]],
    ['performance counters', { generalPurposeCounters: 0 }, [0xc1, 0x186, 0x38e, 0x38f, 0x390]],
    ['the fifth performance counter', { generalPurposeCounters: 4 }, [0xc5, 0x18a]],
    ['Intel PT', { intelPt: false }, [0x570]],
    ['CET', { cetShadowStack: false, cetIndirectBranchTracking: false }, [0x6a0, 0x6a2, 0x6a4, 0x6a7, 0x6a8]],
    ['shadow stacks', { cetShadowStack: false }, [0x6a4, 0x6a5, 0x6a6, 0x6a7, 0x6a8]],
    ['TSC deadline', { tscDeadline: false }, [0x6e0]],
    ['PKS', { supervisorProtectionKeys: false }, [0x6e1]],
    ['TME', { totalMemoryEncryption: false }, [0x982]],
    ['user interrupts', { userInterrupts: false }, [0x985, 0x986, 0x987, 0x988, 0x989, 0x98a]],
    ['MPX', { mpx: false }, [0xd90]],
    ['XSAVES', { xsaves: false }, [0xda0]],
    ['ENQCMD', { enqcmd: false }, [0xd93]],
    ['lists of MSRs', { msrList: false }, [0x2f]],
    ['LBRs', { architecturalLbrs: false }, [0x14ce]],
    ['FRED', { fred: false }, [0x1cc, 0x1cf, 0x1d0, 0x1d1, 0x1d3, 0x1d4]],
    ['RDTSCP', { tscAux: false }, [0xc000_0103]],
    [
      'Intel 64',
      { intel64: false },
      [0x6a8, 0xc000_0081, 0xc000_0082, 0xc000_0083, 0xc000_0084, 0xc000_0100, 0xc000_0101, 0xc000_0102],
    ],
    ['EFER', { intel64: false, executeDisable: false }, [IA32_EFER_INDEX]],
    ['feature control', { vmx: false, smx: false, sgx: false }, [IA32_FEATURE_CONTROL]],
  ])('without %s', (_, features, indexes) => {
    for (const index of indexes) {
      expect(processor().readMsr(index)).toBeDefined();
      const cpu = processor(features);
      expect(cpu.readMsr(index)).toBeUndefined();
      expect(cpu.writeMsr(index, 0n)).toBe('does-not-exist');
    }
  });

  it('keeps IA32_U_CET and IA32_S_CET with only one half of CET, less the bits of the other', () => {
    const stacks = processor({ cetIndirectBranchTracking: false });
    expect([stacks.writeMsr(0x6a2, 3n), stacks.writeMsr(0x6a2, 4n)]).toEqual(['ok', 'reserved-bit']);
    const branches = processor({ cetShadowStack: false });
    expect([branches.writeMsr(0x6a2, 3n), branches.writeMsr(0x6a2, 4n)]).toEqual(['reserved-bit', 'ok']);
  });

  it('keeps IA32_EFER for NXE alone, without the bits of Intel 64', () => {
    const cpu = processor({ intel64: false });
    expect(cpu.writeMsr(IA32_EFER_INDEX, at(11))).toBe('ok');
    expect(cpu.writeMsr(IA32_EFER_INDEX, at(8))).toBe('reserved-bit');
    expect(processor({ executeDisable: false }).writeMsr(IA32_EFER_INDEX, at(11))).toBe('reserved-bit');
  });

  it.each<[string, Partial<CpuidFeatures>, number, bigint]>([
    ['x2APIC mode without x2APIC', { x2apic: false }, 0x1b, at(10, 11)],
    ['an APIC base beyond MAXPHYADDR', { physicalAddressBits: 36 }, 0x1b, at(36)],
    ['bus-lock detection', { busLockDetection: false }, 0x1d9, at(2)],
    ['RTM debugging', { rtm: false }, 0x1d9, at(15)],
    ['performance metrics', { performanceMetrics: false }, 0x38f, at(48)],
    ['a counter that is not there', { generalPurposeCounters: 4 }, 0x38f, at(4)],
    ['a fixed counter that is not there', { fixedCounters: 3 }, 0x38f, at(35)],
    ['a speculation control that is not there', { specCtrlBits: 7 }, 0x48, at(3)],
    ['PT state without PT', { intelPt: false }, 0xda0, at(8)],
    ['CET state without CET', { cetShadowStack: false, cetIndirectBranchTracking: false }, 0xda0, at(11)],
    ['user-interrupt state without user interrupts', { userInterrupts: false }, 0xda0, at(14)],
    ['LBR state without LBRs', { architecturalLbrs: false }, 0xda0, at(15)],
  ])('refuses %s', (_, features, index, value) => {
    expect(processor().writeMsr(index, value)).toBe('ok');
    expect(processor(features).writeMsr(index, value)).toBe('reserved-bit');
  });

  it('holds linear addresses to 48 bits without 5-level paging', () => {
    expect(processor({ linearAddressBits: 48 }).writeMsr(0xc000_0082, LA57)).toBe('not-canonical');
  });
});

describe('a check of a write', () => {
  it('writes nothing', () => {
    const cpu = processor();
    const before = cpu.quads.slice();
    for (const row of MSRS) expect(checkMsrWrite(cpu, row.index, 0n)).toBe(row.readOnly ? 'read-only' : 'ok');
    expect(checkMsrWrite(cpu, IA32_FEATURE_CONTROL, 1n)).toBe('ok');
    expect(cpu.quads).toEqual(before);
  });

  it('is what a write answers, on every profile', () => {
    const index = fc.constantFrom(...MSRS.map((row) => row.index), IA32_FEATURE_CONTROL, 0x480, 0x12);
    fc.assert(
      fc.property(fc.constantFrom(...PROFILES), index, fc.bigInt(0n, U64_MAX), (profile, msr, value) => {
        const cpu = new Processor(0, profile.features, new PhysicalMemory());
        expect(cpu.writeMsr(msr, value)).toBe(
          checkMsrWrite(new Processor(0, profile.features, cpu.memory), msr, value),
        );
      }),
    );
  });

  it('goes to the slot of the register of that name', () => {
    const cpu = processor();
    cpu.writeMsr(0xc000_0100, 0x1234n);
    expect(cpu.quads[Register['FS.base']]).toBe(0x1234n);
  });
});
