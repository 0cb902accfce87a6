/**
 * Processor profiles as data: capability MSRs as read from silicon, and the CPUID facts that register
 * formats depend on. `full` is no silicon: it is everything that is implemented here.
 */
import { mask } from '../../bits/u64.ts';
import type { CpuidFeatures } from '../../cpu/cpuid.ts';
import { FIELDS } from '../../vmcs/fields.ts';
import { type RegionFormat, regionFormat } from '../../vmcs/layout.ts';
import { advertise, fullMsrs } from './advertise.ts';
import { VmxCapabilities } from './capabilities.ts';
import type { CapabilityMsrValues } from './capability-msrs.ts';
import type { ControlStatus } from './control-status.ts';
import { EVERY_INSTRUCTION_SET, GENERATIONS } from './generations.ts';
import { runningFeatures } from './running-features.ts';

/** One processor model. */
export interface CpuProfile {
  readonly name: string;
  /** What is printed for people. */
  readonly title: string;
  /** Other names people ask for. */
  readonly aliases: readonly string[];
  /** CPUID.01H:EAX. */
  readonly signature: number;
  readonly features: CpuidFeatures;
  /** Capability MSRs as the silicon reports them. */
  readonly msrs: CapabilityMsrValues;
  /** MSRs and CPUID facts that no dump gives, and how they were completed. */
  readonly completed: readonly string[];
}

/** CPUID facts all silicon profiles share; each profile states where it differs. */
const COMMON_FEATURES: CpuidFeatures = {
  ...GENERATIONS.skylake,
  highestBasicLeaf: 0x16,
  physicalAddressBits: 39,
  linearAddressBits: 48,
  intel64: true,
  executeDisable: true,
  gigabytePages: true,
  vmx: true,
  smx: false,
  sgx: false,
  rtm: false,
  mpx: false,
  intelPt: false,
  cetShadowStack: false,
  cetIndirectBranchTracking: false,
  supervisorProtectionKeys: false,
  busLockDetection: false,
  userInterrupts: false,
  architecturalLbrs: false,
  fred: false,
  specCtrlBits: 0b111,
  generalPurposeCounters: 8,
  fixedCounters: 3,
  performanceMetrics: false,
  totalMemoryEncryption: false,
  tscAux: true,
  tscDeadline: true,
  x2apic: true,
  debugctlBits: 0x5fc3,
  cr4Bits: 0n,
};

/** Builds the MSRs every dump agrees on, plus those given. */
function msrs(values: CapabilityMsrValues): CapabilityMsrValues {
  return {
    IA32_VMX_CR0_FIXED0: 0x8000_0021n,
    IA32_VMX_CR0_FIXED1: 0xffff_ffffn,
    IA32_VMX_CR4_FIXED0: 0x2000n,
    ...values,
  };
}

function silicon(
  name: string,
  title: string,
  aliases: readonly string[],
  signature: number,
  features: Partial<CpuidFeatures>,
  values: CapabilityMsrValues,
  completed: readonly string[] = [],
): CpuProfile {
  return {
    name,
    title,
    aliases,
    signature,
    features: { ...COMMON_FEATURES, cr4Bits: values.IA32_VMX_CR4_FIXED1 ?? 0n, ...features },
    msrs: msrs(values),
    completed,
  };
}

const NO_DUMP_OF_VMFUNC = 'IA32_VMX_VMFUNC: no dump has it; EPTP switching is the only VM function there is';
const NO_SPEC_CTRL_YET =
  'IA32_SPEC_CTRL: the dump is older than the microcode that adds it; IBRS, STIBP and SSBD, as with that microcode';
const NO_DUMP_OF_PERF_CAPABILITIES =
  'IA32_PERF_CAPABILITIES[15]: no dump has it; 1, as on every core with fixed counter 3';

const PENRYN = silicon(
  'penryn',
  'Xeon X5482 (Penryn/Harpertown)',
  ['harpertown', 'core2'],
  0x10676,
  {
    ...GENERATIONS.penryn,
    highestBasicLeaf: 0xa,
    physicalAddressBits: 38,
    gigabytePages: false,
    specCtrlBits: 0,
    generalPurposeCounters: 2,
    tscAux: false,
    tscDeadline: false,
    x2apic: false,
  },
  {
    IA32_VMX_BASIC: 0x005a_0800_0000_000dn,
    IA32_VMX_PINBASED_CTLS: 0x0000_003f_0000_0016n,
    IA32_VMX_PROCBASED_CTLS: 0xf7f9_fffe_0401_e172n,
    IA32_VMX_EXIT_CTLS: 0x0003_ffff_0003_6dffn,
    IA32_VMX_ENTRY_CTLS: 0x0000_3fff_0000_11ffn,
    IA32_VMX_MISC: 0x0000_0000_0004_03c0n,
    IA32_VMX_CR4_FIXED1: 0x27ffn,
    IA32_VMX_VMCS_ENUM: 0x2cn,
    IA32_VMX_PROCBASED_CTLS2: 0x0000_0041_0000_0000n,
  },
  [
    'the TRUE MSRs and IA32_VMX_EPT_VPID_CAP: do not exist, because IA32_VMX_BASIC[55] and both EPT and VPID are 0',
  ],
);

const SANDY_BRIDGE = silicon(
  'sandy-bridge',
  'Core i7-2635QM (Sandy Bridge)',
  ['snb', 'sandybridge'],
  0x206a7,
  {
    ...GENERATIONS.sandyBridge,
    highestBasicLeaf: 0xd,
    physicalAddressBits: 36,
    gigabytePages: false,
    generalPurposeCounters: 4,
  },
  {
    IA32_VMX_BASIC: 0x00da_0400_0000_0010n,
    IA32_VMX_PINBASED_CTLS: 0x0000_007f_0000_0016n,
    IA32_VMX_PROCBASED_CTLS: 0xfff9_fffe_0401_e172n,
    IA32_VMX_EXIT_CTLS: 0x007f_ffff_0003_6dffn,
    IA32_VMX_ENTRY_CTLS: 0x0000_ffff_0000_11ffn,
    IA32_VMX_MISC: 0x0000_0000_1004_01e5n,
    IA32_VMX_CR4_FIXED1: 0x6_27ffn,
    IA32_VMX_VMCS_ENUM: 0x2an,
    IA32_VMX_PROCBASED_CTLS2: 0x0000_00ff_0000_0000n,
    IA32_VMX_EPT_VPID_CAP: 0x0000_0f01_0611_4141n,
    IA32_VMX_TRUE_PINBASED_CTLS: 0x0000_007f_0000_0016n,
    IA32_VMX_TRUE_PROCBASED_CTLS: 0xfff9_fffe_0400_6172n,
    IA32_VMX_TRUE_EXIT_CTLS: 0x007f_ffff_0003_6dfbn,
    IA32_VMX_TRUE_ENTRY_CTLS: 0x0000_ffff_0000_11fbn,
  },
  [NO_SPEC_CTRL_YET],
);

const BROADWELL = silicon(
  'broadwell',
  'Core M-5Y70 (Broadwell)',
  ['bdw', 'broadwell-ult'],
  0x306d4,
  { ...GENERATIONS.broadwell, highestBasicLeaf: 0x14, smx: true, generalPurposeCounters: 4, intelPt: true },
  {
    IA32_VMX_BASIC: 0x00da_0400_0000_0012n,
    IA32_VMX_PINBASED_CTLS: 0x0000_007f_0000_0016n,
    IA32_VMX_PROCBASED_CTLS: 0xfff9_fffe_0401_e172n,
    IA32_VMX_EXIT_CTLS: 0x007f_ffff_0003_6dffn,
    IA32_VMX_ENTRY_CTLS: 0x0000_ffff_0000_11ffn,
    IA32_VMX_MISC: 0x0000_0000_3004_81e5n,
    IA32_VMX_CR4_FIXED1: 0x37_67ffn,
    IA32_VMX_VMCS_ENUM: 0x2an,
    IA32_VMX_PROCBASED_CTLS2: 0x0005_7cff_0000_0000n,
    IA32_VMX_EPT_VPID_CAP: 0x0000_0f01_0633_4141n,
    IA32_VMX_TRUE_PINBASED_CTLS: 0x0000_007f_0000_0016n,
    IA32_VMX_TRUE_PROCBASED_CTLS: 0xfff9_fffe_0400_6172n,
    IA32_VMX_TRUE_EXIT_CTLS: 0x007f_ffff_0003_6dfbn,
    IA32_VMX_TRUE_ENTRY_CTLS: 0x0000_ffff_0000_11fbn,
    IA32_VMX_VMFUNC: 1n,
  },
  [
    NO_DUMP_OF_VMFUNC,
    NO_SPEC_CTRL_YET,
    'CPUID: that of a Core i7-5600U, which has the same signature, but without RTM',
  ],
);

const SKYLAKE_X = silicon(
  'skylake-x',
  'Core i7-7800X (Skylake-X)',
  ['skx'],
  0x50654,
  {
    ...GENERATIONS.skylakeX,
    physicalAddressBits: 46,
    rtm: true,
    mpx: true,
    intelPt: true,
    generalPurposeCounters: 4,
  },
  {
    IA32_VMX_BASIC: 0x00da_0400_0000_0004n,
    IA32_VMX_PINBASED_CTLS: 0x0000_00ff_0000_0016n,
    IA32_VMX_PROCBASED_CTLS: 0xfff9_fffe_0401_e172n,
    IA32_VMX_EXIT_CTLS: 0x01ff_ffff_0003_6dffn,
    IA32_VMX_ENTRY_CTLS: 0x0003_ffff_0000_11ffn,
    IA32_VMX_MISC: 0x0000_0000_7004_c1e7n,
    IA32_VMX_CR4_FIXED1: 0x37_27ffn,
    IA32_VMX_VMCS_ENUM: 0x2en,
    IA32_VMX_PROCBASED_CTLS2: 0x025d_3fff_0000_0000n,
    IA32_VMX_EPT_VPID_CAP: 0x0000_0f01_0673_4141n,
    IA32_VMX_TRUE_PINBASED_CTLS: 0x0000_00ff_0000_0016n,
    IA32_VMX_TRUE_PROCBASED_CTLS: 0xfff9_fffe_0400_6172n,
    IA32_VMX_TRUE_EXIT_CTLS: 0x01ff_ffff_0003_6dfbn,
    IA32_VMX_TRUE_ENTRY_CTLS: 0x0003_ffff_0000_11fbn,
    IA32_VMX_VMFUNC: 1n,
  },
  [NO_DUMP_OF_VMFUNC, NO_SPEC_CTRL_YET],
);

const SKYLAKE = silicon(
  'skylake',
  'Skylake and Coffee Lake client (i7-8850H, CPUID 906EX)',
  ['skl', 'coffee-lake', 'cfl'],
  0x906ea,
  { sgx: true, smx: true, rtm: true, mpx: true, intelPt: true, generalPurposeCounters: 4 },
  {
    IA32_VMX_BASIC: 0x00da_0400_0000_0004n,
    IA32_VMX_PINBASED_CTLS: 0x0000_007f_0000_0016n,
    IA32_VMX_PROCBASED_CTLS: 0xfff9_fffe_0401_e172n,
    IA32_VMX_EXIT_CTLS: 0x01ff_ffff_0003_6dffn,
    IA32_VMX_ENTRY_CTLS: 0x0003_ffff_0000_11ffn,
    IA32_VMX_MISC: 0x0000_0000_7004_c1e7n,
    IA32_VMX_CR4_FIXED1: 0x37_67ffn,
    IA32_VMX_VMCS_ENUM: 0x2en,
    IA32_VMX_PROCBASED_CTLS2: 0x005f_bcff_0000_0000n,
    IA32_VMX_EPT_VPID_CAP: 0x0000_0f01_0673_4141n,
    IA32_VMX_TRUE_PINBASED_CTLS: 0x0000_007f_0000_0016n,
    IA32_VMX_TRUE_PROCBASED_CTLS: 0xfff9_fffe_0400_6172n,
    IA32_VMX_TRUE_EXIT_CTLS: 0x01ff_ffff_0003_6dfbn,
    IA32_VMX_TRUE_ENTRY_CTLS: 0x0003_ffff_0000_11fbn,
    IA32_VMX_VMFUNC: 1n,
  },
  [
    ...(['BASIC', 'MISC', 'EPT_VPID_CAP'] as const).map((n) => `IA32_VMX_${n}: as printed for an i7-8850H`),
    ...(['PINBASED_CTLS', 'PROCBASED_CTLS', 'PROCBASED_CTLS2'] as const).map(
      (n) => `IA32_VMX_${n}: allowed-1 settings as printed for a CPUID 906EB, the rest as on every part`,
    ),
    ...(
      [
        'EXIT_CTLS',
        'ENTRY_CTLS',
        'CR4_FIXED1',
        'VMCS_ENUM',
        'TRUE_PINBASED_CTLS',
        'TRUE_PROCBASED_CTLS',
        'TRUE_EXIT_CTLS',
        'TRUE_ENTRY_CTLS',
      ] as const
    ).map((n) => `IA32_VMX_${n}: in no dump; as on Skylake-X, which shares the revision identifier`),
    ...(['CR0_FIXED0', 'CR0_FIXED1', 'CR4_FIXED0'] as const).map((n) => `IA32_VMX_${n}: as on every part`),
    'CPUID: in no dump; as Skylake-X, with SMX and SGX as the client parts enumerate them',
    NO_DUMP_OF_VMFUNC,
  ],
);

const CANNON_LAKE = silicon(
  'cannon-lake',
  'Core i3-8121U (Cannon Lake)',
  ['cannonlake', 'cnl'],
  0x60663,
  { mpx: true, intelPt: true, generalPurposeCounters: 4 },
  {
    IA32_VMX_BASIC: 0x00da_0400_0000_0004n,
    IA32_VMX_PINBASED_CTLS: 0x0000_007f_0000_0016n,
    IA32_VMX_PROCBASED_CTLS: 0xfff9_fffe_0401_e172n,
    IA32_VMX_EXIT_CTLS: 0x01ff_ffff_0003_6dffn,
    IA32_VMX_ENTRY_CTLS: 0x0003_ffff_0000_11ffn,
    IA32_VMX_MISC: 0x0000_0000_7004_c1e7n,
    IA32_VMX_CR4_FIXED1: 0x77_2fffn,
    IA32_VMX_VMCS_ENUM: 0x2en,
    IA32_VMX_PROCBASED_CTLS2: 0x025f_3cff_0000_0000n,
    IA32_VMX_EPT_VPID_CAP: 0x0000_0f01_0673_4141n,
    IA32_VMX_TRUE_PINBASED_CTLS: 0x0000_007f_0000_0016n,
    IA32_VMX_TRUE_PROCBASED_CTLS: 0xfff9_fffe_0400_6172n,
    IA32_VMX_TRUE_EXIT_CTLS: 0x01ff_ffff_0003_6dfbn,
    IA32_VMX_TRUE_ENTRY_CTLS: 0x0003_ffff_0000_11fbn,
    IA32_VMX_VMFUNC: 1n,
  },
  [
    NO_DUMP_OF_VMFUNC,
    NO_SPEC_CTRL_YET,
    'CPUID.80000008H: no dump has it; 39 physical-address bits, as on every other mobile part until Tiger Lake',
    'CPUID, instruction sets: no dump has them; those of Skylake',
  ],
);

const ICE_LAKE = silicon(
  'ice-lake',
  'Core i7-1065G7 (Ice Lake)',
  ['icelake', 'icl'],
  0x706e5,
  {
    ...GENERATIONS.iceLake,
    highestBasicLeaf: 0x1b,
    sgx: true,
    intelPt: true,
    performanceMetrics: true,
    fixedCounters: 4,
  },
  {
    IA32_VMX_BASIC: 0x00da_0500_0000_0013n,
    IA32_VMX_PINBASED_CTLS: 0x0000_00ff_0000_0016n,
    IA32_VMX_PROCBASED_CTLS: 0xfff9_fffe_0401_e172n,
    IA32_VMX_EXIT_CTLS: 0x037f_ffff_0003_6dffn,
    IA32_VMX_ENTRY_CTLS: 0x0006_ffff_0000_11ffn,
    IA32_VMX_MISC: 0x0000_0000_7004_c1e7n,
    IA32_VMX_CR4_FIXED1: 0x77_2fffn,
    IA32_VMX_VMCS_ENUM: 0x2en,
    IA32_VMX_PROCBASED_CTLS2: 0x335f_bfff_0000_0000n,
    IA32_VMX_EPT_VPID_CAP: 0x0000_0f01_0673_4141n,
    IA32_VMX_TRUE_PINBASED_CTLS: 0x0000_00ff_0000_0016n,
    IA32_VMX_TRUE_PROCBASED_CTLS: 0xfff9_fffe_0400_6172n,
    IA32_VMX_TRUE_EXIT_CTLS: 0x037f_ffff_0003_6dfbn,
    IA32_VMX_TRUE_ENTRY_CTLS: 0x0006_ffff_0000_11fbn,
    IA32_VMX_VMFUNC: 1n,
  },
  [
    NO_DUMP_OF_VMFUNC,
    NO_DUMP_OF_PERF_CAPABILITIES,
    'CPUID.80000008H: no dump has it; 39 physical-address bits, as on Tiger Lake',
    'CPUID, instruction sets: no dump has them; those of Skylake, RDPID and FSRM',
    'CPUID.07H.0:EBX: no dump has it; SGX and Intel PT, because the VMX controls that serve them may be 1',
  ],
);

const TIGER_LAKE = silicon(
  'tiger-lake',
  'Core i5-1135G7 (Tiger Lake)',
  ['tigerlake', 'tgl'],
  0x806c1,
  {
    ...GENERATIONS.tigerLake,
    highestBasicLeaf: 0x1b,
    intelPt: true,
    cetShadowStack: true,
    cetIndirectBranchTracking: true,
    performanceMetrics: true,
    fixedCounters: 4,
  },
  {
    IA32_VMX_BASIC: 0x01da_0500_0000_0013n,
    IA32_VMX_PINBASED_CTLS: 0x0000_00ff_0000_0016n,
    IA32_VMX_PROCBASED_CTLS: 0xfffb_fffe_0401_e172n,
    IA32_VMX_EXIT_CTLS: 0x137f_ffff_0003_6dffn,
    IA32_VMX_ENTRY_CTLS: 0x0016_ffff_0000_11ffn,
    IA32_VMX_MISC: 0x0000_0000_7004_c1e7n,
    IA32_VMX_CR4_FIXED1: 0xff_2fffn,
    IA32_VMX_VMCS_ENUM: 0x2en,
    IA32_VMX_PROCBASED_CTLS2: 0x035f_3fff_0000_0000n,
    IA32_VMX_EPT_VPID_CAP: 0x0000_0f01_06f3_4141n,
    IA32_VMX_TRUE_PINBASED_CTLS: 0x0000_00ff_0000_0016n,
    IA32_VMX_TRUE_PROCBASED_CTLS: 0xfffb_fffe_0400_6172n,
    IA32_VMX_TRUE_EXIT_CTLS: 0x137f_ffff_0003_6dfbn,
    IA32_VMX_TRUE_ENTRY_CTLS: 0x0016_ffff_0000_11fbn,
    IA32_VMX_VMFUNC: 1n,
    IA32_VMX_PROCBASED_CTLS3: 0x1n,
  },
  [
    NO_DUMP_OF_VMFUNC,
    NO_DUMP_OF_PERF_CAPABILITIES,
    'IA32_VMX_PROCBASED_CTLS3: no dump has it; LOADIWKEY exiting, because CR4_FIXED1 allows CR4.KL and nothing else of the tertiary controls is older',
  ],
);

const ARROW_LAKE = silicon(
  'arrow-lake',
  'Core Ultra 5 245K (Arrow Lake-S)',
  ['arrowlake', 'arl'],
  0xc0662,
  {
    ...GENERATIONS.arrowLake,
    highestBasicLeaf: 0x23,
    physicalAddressBits: 46,
    smx: true,
    intelPt: true,
    cetShadowStack: true,
    cetIndirectBranchTracking: true,
    supervisorProtectionKeys: true,
    userInterrupts: true,
    architecturalLbrs: true,
    generalPurposeCounters: 10,
    performanceMetrics: true,
    fixedCounters: 4,
    busLockDetection: true,
    totalMemoryEncryption: true,
    specCtrlBits: 0x5ff,
  },
  {
    IA32_VMX_BASIC: 0x03da_0600_0000_0015n,
    IA32_VMX_PINBASED_CTLS: 0x0000_00ff_0000_0016n,
    IA32_VMX_PROCBASED_CTLS: 0xfffb_fffe_0401_e172n,
    IA32_VMX_EXIT_CTLS: 0xff7f_ffff_0003_6dffn,
    IA32_VMX_ENTRY_CTLS: 0x007e_ffff_0000_11ffn,
    IA32_VMX_MISC: 0x0000_0000_7004_c1e7n,
    IA32_VMX_CR4_FIXED1: 0x1bf7_6fffn,
    IA32_VMX_VMCS_ENUM: 0x2en,
    IA32_VMX_PROCBASED_CTLS2: 0xc75f_7fff_0000_0000n,
    IA32_VMX_EPT_VPID_CAP: 0x0000_0f01_06f3_4141n,
    IA32_VMX_TRUE_PINBASED_CTLS: 0x0000_00ff_0000_0016n,
    IA32_VMX_TRUE_PROCBASED_CTLS: 0xfffb_fffe_0400_6172n,
    IA32_VMX_TRUE_EXIT_CTLS: 0xff7f_ffff_0003_6dfbn,
    IA32_VMX_TRUE_ENTRY_CTLS: 0x007e_ffff_0000_11fbn,
    IA32_VMX_VMFUNC: 1n,
    IA32_VMX_PROCBASED_CTLS3: 0x1en,
    IA32_VMX_EXIT_CTLS2: 0x8n,
  },
  [
    NO_DUMP_OF_VMFUNC,
    NO_DUMP_OF_PERF_CAPABILITIES,
    'IA32_VMX_PROCBASED_CTLS3: no dump has it; HLAT, paging-write control, guest-paging verification and IPI virtualization',
    'IA32_VMX_EXIT_CTLS2: no dump has it; prematurely busy shadow stack, the only control there that needs no later feature',
  ],
);

const WILDCAT_LAKE = silicon(
  'wildcat-lake',
  'Core 5 320 (Wildcat Lake)',
  ['wildcatlake', 'wcl'],
  0xd0651,
  {
    ...ARROW_LAKE.features,
    ...GENERATIONS.wildcatLake,
    totalMemoryEncryption: false,
    fred: true,
    cr4Bits: 0x1_1bf7_6fffn,
  },
  {
    ...ARROW_LAKE.msrs,
    IA32_VMX_BASIC: 0x07da_0600_0000_0015n,
    IA32_VMX_ENTRY_CTLS: 0x01fe_ffff_0000_11ffn,
    IA32_VMX_CR4_FIXED1: 0x1_1bf7_6fffn,
    IA32_VMX_EPT_VPID_CAP: 0x0001_0f01_06f3_4141n,
    IA32_VMX_TRUE_ENTRY_CTLS: 0x01fe_ffff_0000_11fbn,
    IA32_VMX_PROCBASED_CTLS3: 0xden,
    IA32_VMX_EXIT_CTLS2: 0xfn,
  },
  [
    NO_DUMP_OF_VMFUNC,
    NO_DUMP_OF_PERF_CAPABILITIES,
    'IA32_VMX_PROCBASED_CTLS3: no dump has it; as Arrow Lake, virtualize IA32_SPEC_CTRL, and MSR-list instructions because CPUID.07H.1:EAX[27] is 1',
    'IA32_VMX_EXIT_CTLS2: no dump has it; save and load FRED and load IA32_SPEC_CTRL, the counterparts of entry bits 23 and 24',
  ],
);

const FULL_FEATURES: CpuidFeatures = {
  ...COMMON_FEATURES,
  ...EVERY_INSTRUCTION_SET,
  highestBasicLeaf: 0x23,
  physicalAddressBits: 52,
  linearAddressBits: 57,
  smx: true,
  sgx: true,
  rtm: true,
  mpx: true,
  intelPt: true,
  cetShadowStack: true,
  cetIndirectBranchTracking: true,
  supervisorProtectionKeys: true,
  busLockDetection: true,
  userInterrupts: true,
  architecturalLbrs: true,
  fred: true,
  specCtrlBits: 0x5ff,
  fixedCounters: 4,
  performanceMetrics: true,
  totalMemoryEncryption: true,
  cr4Bits: (1n << 32n) | mask(28, 27) | mask(25, 16) | mask(14, 0),
};

const FULL: CpuProfile = {
  name: 'full',
  title: 'everything vmxon implements',
  aliases: [],
  signature: 0,
  features: FULL_FEATURES,
  msrs: fullMsrs(FULL_FEATURES),
  completed: [],
};

/** All profiles, oldest first, `full` last. */
export const PROFILES: readonly CpuProfile[] = [
  PENRYN,
  SANDY_BRIDGE,
  BROADWELL,
  SKYLAKE_X,
  SKYLAKE,
  CANNON_LAKE,
  ICE_LAKE,
  TIGER_LAKE,
  ARROW_LAKE,
  WILDCAT_LAKE,
  FULL,
];

/** Profiles of real parts. */
export const SILICON_PROFILES: readonly CpuProfile[] = PROFILES.filter((p) => p !== FULL);

/** Finds a profile by name or alias; case, spaces, `-` and `_` do not matter. */
export function findProfile(name: string): CpuProfile | undefined {
  const normalise = (text: string) => text.toLowerCase().replaceAll(/[\s_-]/g, '');
  const wanted = normalise(name);
  return PROFILES.find((p) => [p.name, ...p.aliases].some((n) => normalise(n) === wanted));
}

const formats = new Map<string, RegionFormat>();

/**
 * The format of a revision. One revision, one region size, one format (SDM §27.2): it has a place
 * for every field of every silicon profile with that revision, then for as many others as fit.
 */
function formatOf(capabilities: VmxCapabilities): RegionFormat {
  const { revision, regionSize } = capabilities;
  const key = `${revision}/${regionSize}`;
  let format = formats.get(key);
  if (format === undefined) {
    const silicon = SILICON_PROFILES.map((p) => siliconCapabilities(p)).filter(
      (c) => c.revision === revision && c.regionSize === regionSize,
    );
    // Only a revision that no silicon profile has takes its first user's fields first.
    const first = silicon.length > 0 ? silicon : [capabilities];
    format = fullestFormat(revision, regionSize, (slot) => first.some((c) => c.fieldExists[slot] === 1));
    formats.set(key, format);
  }
  const known = format;
  if (FIELDS.some((f) => capabilities.fieldExists[f.slot] && (known.offsets[f.slot] as number) < 0)) {
    throw new RangeError(`the format of revision ${revision} has no place for every field of this processor`);
  }
  return format;
}

/** A format with a place for every needed field and, in the catalogue's order, every other that fits. */
function fullestFormat(
  revision: number,
  regionSize: number,
  needed: (slot: number) => boolean,
): RegionFormat {
  const placed = new Set(FIELDS.map((f) => f.slot).filter(needed));
  let format = regionFormat(revision, regionSize, needed);
  for (const { slot } of FIELDS.filter((f) => !placed.has(f.slot))) {
    placed.add(slot);
    try {
      format = regionFormat(revision, regionSize, (s) => placed.has(s));
    } catch {
      placed.delete(slot);
    }
  }
  return format;
}

const NO_FORMAT: RegionFormat = regionFormat(0, 4096, () => false);
const siliconCache = new Map<CpuProfile, VmxCapabilities>();

function siliconCapabilities(profile: CpuProfile): VmxCapabilities {
  let capabilities = siliconCache.get(profile);
  if (capabilities === undefined) {
    capabilities = new VmxCapabilities(profile.features, profile.msrs, () => NO_FORMAT);
    siliconCache.set(profile, capabilities);
  }
  return capabilities;
}

const advertised = new Map<string, VmxCapabilities>();

/**
 * What a processor of `profile` advertises: what its silicon does, less what is not implemented at
 * least to `level` (`silicon` leaves nothing out; it is what a dump of the real part is checked with).
 * At `complete`, a machine that runs code, features without behaviour are left out too.
 */
export function capabilitiesOf(
  profile: CpuProfile,
  level: Exclude<ControlStatus, 'absent'> | 'silicon' = 'checked',
): VmxCapabilities {
  const key = `${profile.name}/${level}`;
  let capabilities = advertised.get(key);
  if (capabilities === undefined) {
    const features = level === 'complete' ? runningFeatures(profile.features) : profile.features;
    const values = level === 'silicon' ? profile.msrs : advertise(profile.msrs, features, level);
    capabilities = new VmxCapabilities(features, values, formatOf);
    advertised.set(key, capabilities);
  }
  return capabilities;
}

/** Capabilities from MSR values of one's own, held to the rules of SDM Appendix A. */
export function customCapabilities(features: CpuidFeatures, values: CapabilityMsrValues): VmxCapabilities {
  return new VmxCapabilities(features, values, formatOf);
}
