/**
 * What CPUID answers (SDM vol. 2A, CPUID): flags by leaf, register and bit, and the leaves that are
 * numbers. A flag is 1 only for what the processor has and the opcode map models. What depends on the
 * state of the processor (OSXSAVE, OSPKE, SYSCALL, sizes of the XSAVE area) is added when it is asked.
 */
import { bit } from '../bits/u64.ts';
import type { CpuidFeatures, ProcessorIdentity } from './cpuid.ts';
import { type CpuidRegister, INSTRUCTION_SETS, type InstructionSet } from './instruction-sets.ts';
import { xssReserved } from './msr-catalogue.ts';
import { performanceLeaf } from './performance-counters.ts';
import { CR4 } from './registers.ts';

/** EAX, EBX, ECX, EDX. */
export type CpuidLeaf = readonly [eax: number, ebx: number, ecx: number, edx: number];

export interface CpuidFlag {
  readonly leaf: number;
  readonly subleaf: number;
  readonly register: CpuidRegister;
  readonly bit: number;
  /** The manual's name. */
  readonly name: string;
  readonly holds: (features: CpuidFeatures) => boolean;
}

type FlagRow = readonly [bit: number, name: string, holds: (features: CpuidFeatures) => boolean];

const always = () => true;
const cr4 = (position: number) => (f: CpuidFeatures) => bit(f.cr4Bits, position);
const speculation = (mask: number) => (f: CpuidFeatures) => (f.specCtrlBits & mask) === mask;

function flags(
  leaf: number,
  subleaf: number,
  register: CpuidRegister,
  ...rows: readonly FlagRow[]
): readonly CpuidFlag[] {
  return rows.map(([position, name, holds]) => ({ leaf, subleaf, register, bit: position, name, holds }));
}

const setFlags = (Object.keys(INSTRUCTION_SETS) as InstructionSet[]).map((name): CpuidFlag => {
  const { cpuid, flag } = INSTRUCTION_SETS[name];
  const [leaf, subleaf, register, position] = cpuid;
  return { leaf, subleaf, register, bit: position, name: flag, holds: (f) => f[name] };
});

/** Every flag that can be 1, but those that depend on the processor's state. */
export const CPUID_FLAGS: readonly CpuidFlag[] = [
  ...setFlags,
  ...flags(
    1,
    0,
    'ECX',
    [5, 'VMX', (f) => f.vmx],
    [6, 'SMX', (f) => f.smx],
    [17, 'PCID', cr4(CR4.PCIDE)],
    [21, 'x2APIC', (f) => f.x2apic],
    [24, 'TSC-Deadline', (f) => f.tscDeadline],
  ),
  ...flags(
    1,
    0,
    'EDX',
    [1, 'VME', cr4(CR4.VME)],
    [2, 'DE', cr4(CR4.DE)],
    [3, 'PSE', cr4(CR4.PSE)],
    [4, 'TSC', always],
    [5, 'MSR', always],
    [6, 'PAE', cr4(CR4.PAE)],
    [7, 'MCE', cr4(CR4.MCE)],
    [8, 'CX8', always],
    [13, 'PGE', cr4(CR4.PGE)],
    [15, 'CMOV', always],
    [16, 'PAT', always],
    [17, 'PSE-36', cr4(CR4.PSE)],
  ),
  ...flags(
    7,
    0,
    'EBX',
    [0, 'FSGSBASE', cr4(CR4.FSGSBASE)],
    [2, 'SGX', (f) => f.sgx],
    [7, 'SMEP', cr4(CR4.SMEP)],
    [11, 'RTM', (f) => f.rtm],
    [14, 'MPX', (f) => f.mpx],
    [20, 'SMAP', cr4(CR4.SMAP)],
    [25, 'Intel PT', (f) => f.intelPt],
  ),
  ...flags(
    7,
    0,
    'ECX',
    [2, 'UMIP', cr4(CR4.UMIP)],
    [3, 'PKU', cr4(CR4.PKE)],
    [7, 'CET_SS', (f) => f.cetShadowStack],
    [13, 'TME_EN', (f) => f.totalMemoryEncryption],
    [16, 'LA57', cr4(CR4.LA57)],
    [23, 'KL', cr4(CR4.KL)],
    [24, 'BUS_LOCK_DETECT', (f) => f.busLockDetection],
    [31, 'PKS', (f) => f.supervisorProtectionKeys],
  ),
  ...flags(
    7,
    0,
    'EDX',
    [5, 'UINTR', (f) => f.userInterrupts],
    [19, 'Architectural LBRs', (f) => f.architecturalLbrs],
    [20, 'CET_IBT', (f) => f.cetIndirectBranchTracking],
    [26, 'IBRS and IBPB', speculation(1 << 0)],
    [27, 'STIBP', speculation(1 << 1)],
    [31, 'SSBD', speculation(1 << 2)],
  ),
  ...flags(
    7,
    1,
    'EAX',
    [6, 'LASS', cr4(CR4.LASS)],
    [17, 'FRED', (f) => f.fred],
    [26, 'LAM', cr4(CR4.LAM_SUP)],
  ),
  ...flags(
    7,
    2,
    'EDX',
    [0, 'PSFD', speculation(1 << 7)],
    [1, 'IPRED_CTRL', speculation(0b11 << 3)],
    [2, 'RRSBA_CTRL', speculation(0b11 << 5)],
    [3, 'DDPD_U', speculation(1 << 8)],
    [4, 'BHI_CTRL', speculation(1 << 10)],
  ),
  ...flags(0xd, 1, 'EAX', [2, 'XGETBV with ECX = 1', (f) => f.xsavec]),
  ...flags(0x8000_0001, 0, 'ECX', [0, 'LAHF/SAHF in 64-bit mode', (f) => f.intel64]),
  ...flags(
    0x8000_0001,
    0,
    'EDX',
    [20, 'NX', (f) => f.executeDisable],
    [26, '1-GByte pages', (f) => f.gigabytePages],
    [27, 'RDTSCP', (f) => f.tscAux],
    [29, 'LM', (f) => f.intel64],
  ),
  ...flags(0x8000_0007, 0, 'EDX', [8, 'Invariant TSC', always]),
];

/** Frequency of the time-stamp counter: one tick an instruction, one instruction a nanosecond. */
const TSC_HERTZ = 1_000_000_000;
const CRYSTAL_HERTZ = 25_000_000;
/** Ticks of the TSC for one of the crystal clock. */
export const TSC_PER_CRYSTAL_TICK = TSC_HERTZ / CRYSTAL_HERTZ;

const REGISTERS = ['EAX', 'EBX', 'ECX', 'EDX'] as const;
const HIGHEST_EXTENDED = 0x8000_0008;
const VENDOR = 'GenuineIntel';

/** Legacy region and header of the XSAVE area. */
const XSAVE_BASE_BYTES = 576;
/** PKRU as a state component: its number, bytes, and place in the standard format (SDM vol. 1 §13.5.6). */
export const PKRU_COMPONENT = 9;
const PKRU_BYTES = 8;
export const PKRU_OFFSET = 2688;

/** Bits of XCR0 that are not reserved: x87 and SSE state, and PKRU where there are protection keys. */
export function xcr0Components(f: CpuidFeatures): number {
  return 3 | (((f.cr4Bits >> BigInt(CR4.PKE)) & 1n) === 1n ? 1 << PKRU_COMPONENT : 0);
}

/** Bytes of the XSAVE area in the standard format for components of XCR0. */
export function standardBytes(components: number): number {
  return (components >>> PKRU_COMPONENT) & 1 ? PKRU_OFFSET + PKRU_BYTES : XSAVE_BASE_BYTES;
}

/** Bytes of the supervisor state components that IA32_XSS can enable (SDM vol. 1 §13.1). */
const SUPERVISOR_COMPONENTS: Readonly<Record<number, number>> = {
  8: 128,
  10: 8,
  11: 16,
  12: 24,
  14: 48,
  15: 808,
};

/** Caches (leaf 4): type, level, ways, KBytes; lines of 64 bytes. */
const CACHES = [
  [1, 1, 8, 32],
  [2, 1, 8, 32],
  [3, 2, 4, 256],
  [3, 3, 16, 8192],
] as const;
const LINE = 64;

export class CpuidLeaves {
  private readonly features: CpuidFeatures;
  private readonly identity: ProcessorIdentity;
  /** Number of this processor, which is its APIC identifier. */
  private readonly index: number;

  constructor(features: CpuidFeatures, identity: ProcessorIdentity, index: number) {
    this.features = features;
    this.identity = identity;
    this.index = index;
  }

  /**
   * The leaf, without what depends on the state. `limited`: IA32_MISC_ENABLE[22]. A leaf above the
   * highest is answered as the highest basic leaf.
   */
  read(leaf: number, subleaf: number, limited = false): CpuidLeaf {
    const highest = limited ? 2 : this.features.highestBasicLeaf;
    const exists = leaf >= 0x8000_0000 ? leaf <= HIGHEST_EXTENDED : leaf <= highest;
    if (!exists) return this.read(highest, subleaf, limited);
    if (leaf === 0) return [highest, text(VENDOR, 0), text(VENDOR, 8), text(VENDOR, 4)];
    const numbers = this.numbers(leaf, subleaf);
    const withFlags = [...numbers] as [number, number, number, number];
    for (const flag of CPUID_FLAGS) {
      if (flag.leaf !== leaf || (flag.subleaf !== subleaf && hasSubleaves(leaf))) continue;
      if (flag.holds(this.features)) {
        const at = REGISTERS.indexOf(flag.register);
        withFlags[at] = ((withFlags[at] as number) | (1 << flag.bit)) >>> 0;
      }
    }
    return withFlags;
  }

  private numbers(leaf: number, subleaf: number): CpuidLeaf {
    const { features: f, identity } = this;
    switch (leaf) {
      case 1: {
        const many = identity.processors > 1;
        const count = many ? identity.processors & 0xff : 0;
        // EDX[28], HTT: EBX[23:16] is valid.
        return [
          identity.signature,
          (this.index << 24) | (count << 16) | ((LINE >> 3) << 8),
          0,
          many ? 1 << 28 : 0,
        ];
      }
      case 2:
        // One descriptor, FFH: leaf 4 describes the caches.
        return [0x0000_ff01, 0, 0, 0];
      case 4:
        return this.cache(subleaf);
      case 5:
        // Monitor lines of 64 bytes; interrupts end MWAIT also when masked; one C1 state.
        return f.monitor ? [LINE, LINE, 3, 0x10] : [0, 0, 0, 0];
      case 7: {
        const highest = f.fred || f.specCtrlBits > 7 || f.wrmsrns || f.msrList || f.historyReset ? 2 : 0;
        return [subleaf === 0 ? highest : 0, 0, 0, 0];
      }
      case 0xa:
        return performanceLeaf(f);
      case 0xb:
      case 0x1f:
        return this.topology(subleaf);
      case 0xd:
        return f.xsave ? this.extendedState(subleaf) : [0, 0, 0, 0];
      case 0x15:
        return [1, TSC_PER_CRYSTAL_TICK, CRYSTAL_HERTZ, 0];
      case 0x16:
        return [TSC_HERTZ / 1_000_000, TSC_HERTZ / 1_000_000, 100, 0];
      case 0x8000_0000:
        return [HIGHEST_EXTENDED, 0, 0, 0];
      case 0x8000_0002:
      case 0x8000_0003:
      case 0x8000_0004: {
        const at = 16 * (leaf - 0x8000_0002);
        const brand = identity.brand.slice(0, 47);
        return [text(brand, at), text(brand, at + 4), text(brand, at + 8), text(brand, at + 12)];
      }
      case 0x8000_0006: {
        const [, , , kilobytes] = CACHES[2];
        // Associativity 4: four ways.
        return [0, 0, (kilobytes << 16) | (4 << 12) | LINE, 0];
      }
      case 0x8000_0008:
        return [f.physicalAddressBits | (f.linearAddressBits << 8), 0, 0, 0];
      default:
        return [0, 0, 0, 0];
    }
  }

  private cache(subleaf: number): CpuidLeaf {
    const cache = CACHES[subleaf];
    if (cache === undefined) return [0, 0, 0, 0];
    const [type, level, ways, kilobytes] = cache;
    const sharing = level === 3 ? this.identity.processors - 1 : 0;
    const cores = Math.min(this.identity.processors - 1, 63);
    const sets = (kilobytes * 1024) / (ways * LINE);
    const selfInitializing = 1 << 8;
    const eax = (cores << 26) | (sharing << 14) | selfInitializing | (level << 5) | type;
    return [eax >>> 0, (((ways - 1) << 22) | (LINE - 1)) >>> 0, sets - 1, 0];
  }

  /** Two domains: the logical processor, alone in its core, and the core in the package. */
  private topology(subleaf: number): CpuidLeaf {
    const { processors } = this.identity;
    const level = subleaf & 0xff;
    if (level === 0) return [0, 1, 1 << 8, this.index];
    if (level === 1) return [Math.ceil(Math.log2(processors)), processors, (2 << 8) | 1, this.index];
    return [0, 0, level, this.index];
  }

  private extendedState(subleaf: number): CpuidLeaf {
    const xss = this.supervisorComponents();
    const xcr0 = xcr0Components(this.features);
    if (subleaf === 0) return [xcr0, XSAVE_BASE_BYTES, standardBytes(xcr0), 0];
    if (subleaf === 1) return [0, 0, xss, 0];
    if (subleaf === PKRU_COMPONENT && (xcr0 >>> PKRU_COMPONENT) & 1) return [PKRU_BYTES, PKRU_OFFSET, 0, 0];
    const bytes = subleaf < 32 && (xss >>> subleaf) & 1 ? SUPERVISOR_COMPONENTS[subleaf] : undefined;
    return bytes === undefined ? [0, 0, 0, 0] : [bytes, 0, 1, 0];
  }

  /** Bits of IA32_XSS that are not reserved. */
  private supervisorComponents(): number {
    return this.features.xsaves ? Number(~xssReserved(this.features) & 0xffff_ffffn) : 0;
  }

  /** Bytes of the XSAVE area in compacted form for `components` of XCR0 and IA32_XSS. */
  compactedBytes(components: number): number {
    let bytes = XSAVE_BASE_BYTES + ((components >>> PKRU_COMPONENT) & 1 ? PKRU_BYTES : 0);
    for (const [component, size] of Object.entries(SUPERVISOR_COMPONENTS)) {
      if ((components >>> Number(component)) & 1) bytes += size;
    }
    return bytes;
  }
}

/** Leaves whose flags are those of one subleaf. */
function hasSubleaves(leaf: number): boolean {
  return leaf === 7 || leaf === 0xd;
}

/** Four characters as a little-endian number, NUL beyond the end. */
function text(characters: string, at: number): number {
  let value = 0;
  for (let n = 3; n >= 0; n--) value = (value << 8) | (characters.charCodeAt(at + n) & 0x7f);
  return value >>> 0;
}
