/**
 * The registers of a logical processor as one table of aligned 64-bit slots in one buffer: a snapshot
 * is a copy, and state moves between the processor and a VMCS as slot-to-slot copies. Names are the
 * manual's; `FS.base` and `GS.base` are also the MSRs IA32_FS_BASE and IA32_GS_BASE.
 */

const SEGMENTS = ['ES', 'CS', 'SS', 'DS', 'FS', 'GS', 'LDTR', 'TR'] as const;
export type SegmentName = (typeof SEGMENTS)[number];
export const SEGMENT_NAMES: readonly SegmentName[] = SEGMENTS;

const GENERAL = [
  'RAX',
  'RCX',
  'RDX',
  'RBX',
  'RSP',
  'RBP',
  'RSI',
  'RDI',
  'R8',
  'R9',
  'R10',
  'R11',
  'R12',
  'R13',
  'R14',
  'R15',
] as const;

const SYSTEM = [
  'RIP',
  'RFLAGS',
  'SSP',
  'CR0',
  'CR2',
  'CR3',
  'CR4',
  'CR8',
  'DR0',
  'DR1',
  'DR2',
  'DR3',
  'DR6',
  'DR7',
  'XCR0',
  /** User-interrupt flag: 0 or 1. */
  'UIF',
  'PDPTE0',
  'PDPTE1',
  'PDPTE2',
  'PDPTE3',
  'GDTR.base',
  'GDTR.limit',
  'IDTR.base',
  'IDTR.limit',
] as const;

const MSRS = [
  'IA32_EFER',
  'IA32_DEBUGCTL',
  'IA32_PAT',
  'IA32_SYSENTER_CS',
  'IA32_SYSENTER_ESP',
  'IA32_SYSENTER_EIP',
  'IA32_PERF_GLOBAL_CTRL',
  'IA32_PERF_GLOBAL_STATUS',
  'IA32_PERF_GLOBAL_OVF_CTRL',
  'IA32_BNDCFGS',
  'IA32_RTIT_CTL',
  'IA32_LBR_CTL',
  'IA32_SPEC_CTRL',
  'IA32_UMWAIT_CONTROL',
  'IA32_S_CET',
  'IA32_U_CET',
  'IA32_PL0_SSP',
  'IA32_PL1_SSP',
  'IA32_PL2_SSP',
  'IA32_PL3_SSP',
  'IA32_INTERRUPT_SSP_TABLE_ADDR',
  'IA32_PKRS',
  'IA32_BARRIER',
  'IA32_PASID',
  'IA32_UINTR_MISC',
  'IA32_UINTR_RR',
  'IA32_UINTR_HANDLER',
  'IA32_UINTR_STACKADJUST',
  'IA32_UINTR_PD',
  'IA32_UINTR_TT',
  'IA32_FRED_CONFIG',
  'IA32_FRED_RSP0',
  'IA32_FRED_RSP1',
  'IA32_FRED_RSP2',
  'IA32_FRED_RSP3',
  'IA32_FRED_STKLVLS',
  'IA32_FRED_SSP1',
  'IA32_FRED_SSP2',
  'IA32_FRED_SSP3',
  'IA32_STAR',
  'IA32_LSTAR',
  'IA32_CSTAR',
  'IA32_FMASK',
  'IA32_KERNEL_GS_BASE',
  'IA32_TSC_AUX',
  'IA32_XSS',
  'IA32_APIC_BASE',
  'IA32_FEATURE_CONTROL',
  'IA32_SMM_MONITOR_CTL',
  'IA32_SMBASE',
  'IA32_TME_ACTIVATE',
  'IA32_TIME_STAMP_COUNTER',
  'IA32_TSC_DEADLINE',
  'IA32_MISC_ENABLE',
  'IA32_PLATFORM_ID',
  'IA32_BIOS_SIGN_ID',
  'IA32_MTRRCAP',
  'IA32_MTRR_DEF_TYPE',
] as const;

/** Variable memory-type ranges of a processor: IA32_MTRR_PHYSBASEn and IA32_MTRR_PHYSMASKn. */
export const VARIABLE_RANGES = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9] as const;
/** Fixed memory-type ranges, by their MSRs. */
export const FIXED_RANGES = {
  IA32_MTRR_FIX64K_00000: 0x250,
  IA32_MTRR_FIX16K_80000: 0x258,
  IA32_MTRR_FIX16K_A0000: 0x259,
  IA32_MTRR_FIX4K_C0000: 0x268,
  IA32_MTRR_FIX4K_C8000: 0x269,
  IA32_MTRR_FIX4K_D0000: 0x26a,
  IA32_MTRR_FIX4K_D8000: 0x26b,
  IA32_MTRR_FIX4K_E0000: 0x26c,
  IA32_MTRR_FIX4K_E8000: 0x26d,
  IA32_MTRR_FIX4K_F0000: 0x26e,
  IA32_MTRR_FIX4K_F8000: 0x26f,
} as const;
type MemoryTypeRange =
  | `IA32_MTRR_PHYS${'BASE' | 'MASK'}${(typeof VARIABLE_RANGES)[number]}`
  | keyof typeof FIXED_RANGES;
const MEMORY_TYPE_RANGES: readonly MemoryTypeRange[] = [
  ...VARIABLE_RANGES.flatMap((n): MemoryTypeRange[] => [`IA32_MTRR_PHYSBASE${n}`, `IA32_MTRR_PHYSMASK${n}`]),
  ...(Object.keys(FIXED_RANGES) as (keyof typeof FIXED_RANGES)[]),
];

/** General-purpose performance counters that a processor may have: IA32_PMCn and IA32_PERFEVTSELn. */
export const COUNTERS = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9] as const;
type CounterMsr = `IA32_${'PMC' | 'PERFEVTSEL'}${(typeof COUNTERS)[number]}`;
const COUNTER_MSRS = COUNTERS.flatMap((n): CounterMsr[] => [`IA32_PMC${n}`, `IA32_PERFEVTSEL${n}`]);

/** State that is no register: interruptibility, activity, pending debug exceptions and the like. */
const NON_REGISTER = [
  /** Table 27-3 of the SDM, as the processor's own state (0 or 1 each). */
  'blockingBySti',
  'blockingByMovSs',
  'blockingBySmi',
  'blockingByNmi',
  'enclaveInterruption',
  /** 0 active, 1 HLT, 2 shutdown, 3 wait-for-SIPI. */
  'activityState',
  'pendingDebugExceptions',
  /** Whether a MONITOR address range is armed, or MWAIT waits: monitored-line.ts. */
  'monitorArmed',
  'a20mMode',
  'inSmm',
  'inSmx',
] as const;

const EIGHT = [0, 1, 2, 3, 4, 5, 6, 7] as const;
const SIXTEEN = [...EIGHT, 8, 9, 10, 11, 12, 13, 14, 15] as const;
const VECTOR = SIXTEEN.flatMap((n) => [`XMM${n}`, `XMM${n}.high`] as const);

/** x87 state by physical register; MMX registers are the significands (SDM vol. 1 §8.1, §9.2). */
const FLOATING = [
  ...EIGHT.flatMap((n) => [`FPR${n}.significand`, `FPR${n}.exponent`] as const),
  'FCW',
  'FSW',
  'FTW',
  'FOP',
  'FIP',
  'FDP',
  'MXCSR',
  'PKRU',
] as const;

/** What the executing processor works with between instructions' operands; no software sees it. */
const WORKING = [
  /** Always 0: the base or index that an address does not have. */
  'ZERO',
  /** Operand in memory, of up to 16 bytes. */
  'T0',
  'T0.high',
  /** Immediate operand. */
  'T1',
  /** Further temporaries of single instructions. */
  'T2',
  'T3',
  /** Linear address of the memory operand. */
  'linear',
  /** Arithmetic flags not yet in RFLAGS (cpu/flags.ts): the result; carries, and whether they hold. */
  'lazyResult',
  'lazyCarries',
  /** Why the next instruction boundary needs a look, as bits of {@link Attention}. */
  'attention',
  /** Exception that the current instruction raised: vector and whether it has an error code; the code. */
  'fault',
  'faultErrorCode',
  /** Linear address that a page fault is about, before CR2 has it. */
  'faultAddress',
  /** Causes of a debug exception in the form of DR6 (1 for each cause), before DR6 has them. */
  'debugCauses',
  /** EXT of error codes that refer to selectors: 1 while an event that software did not ask for is delivered. */
  'external',
  /** Data and I/O breakpoints that the current instruction met: bits 3:0. */
  'breakpointsMet',
  /** What held when the current instruction began, as bits of {@link Before} (boundary.ts). */
  'before',
  /** The event being delivered: event identification (event.ts), 0 if none; error code; instruction length. */
  'originalEvent',
  'originalEventErrorCode',
  'originalEventLength',
  /** Flags that the image of RFLAGS has in addition when the event is delivered: RF. */
  'originalEventFlags',
  /** What FRED delivery saves of it: event data, and whether STI blocked events when it came. */
  'originalEventData',
  'originalEventBlockedBySti',
  /** 1 while the delivery of the event meets exceptions without end, and time passes. */
  'deliveryStalled',
  /** Return address of the event being delivered. */
  'returnAddress',
  /** Descriptor or gate in memory. */
  'descriptor',
  'descriptor.high',
  /** What is pushed to or popped from the stack of a far transfer. */
  'stackItem',
  /** 1 while an NMI, an SMI or an INIT signal is latched that is not yet taken. */
  'nmiPending',
  'smiPending',
  'initPending',
  /** 1 while a start-up IPI is latched; the other half is its vector. */
  'sipiPending',
  'machineCheckPending',
  /** 1 while a user interrupt is recognised as pending. */
  'userInterruptPending',
  /** 1 while a user interrupt is delivered: its accesses are not those of an instruction. */
  'userInterruptDelivery',
  /** 1 while an IRET executes that ended blocking by NMI, and VM exits that it causes report it. */
  'unblockedByIret',
  /** The last I/O instruction or iteration (io-instruction.ts): when it ended, what it was, and registers before it. */
  'ioEnd',
  'ioQualification',
  'ioLinear',
  'ioRcx',
  'ioRsi',
  'ioRdi',
  'ioRip',
  /** Physical address of the monitored line. */
  'monitoredLine',
] as const;

type SegmentSlot = `${SegmentName}.${'selector' | 'base' | 'limit' | 'accessRights'}`;

/** Name of a register slot. */
export type RegisterName =
  | (typeof GENERAL)[number]
  | (typeof SYSTEM)[number]
  | SegmentSlot
  | (typeof MSRS)[number]
  | MemoryTypeRange
  | CounterMsr
  | (typeof NON_REGISTER)[number]
  | (typeof VECTOR)[number]
  | (typeof FLOATING)[number]
  | (typeof WORKING)[number];

/** All register names; the index is the slot. */
export const REGISTERS: readonly RegisterName[] = [
  ...GENERAL,
  ...SYSTEM,
  ...SEGMENTS.flatMap((s): SegmentSlot[] => [
    `${s}.selector`,
    `${s}.base`,
    `${s}.limit`,
    `${s}.accessRights`,
  ]),
  ...MSRS,
  ...MEMORY_TYPE_RANGES,
  ...COUNTER_MSRS,
  ...NON_REGISTER,
  ...VECTOR,
  ...FLOATING,
  ...WORKING,
];

export const REGISTER_COUNT = REGISTERS.length;

/** Slots behind the registers in the same buffer: hot state of whoever implements the VMX port. */
export const PORT_SLOTS = 384;
/** First word of the port's slots: 1 if state may have changed since the port's last checks, else 0. */
export const CHECKS_NEEDED = 2 * REGISTER_COUNT;

/** Slot of each register: `Register.RIP`, `Register['CS.base']`. General registers are 0–15. */
export const Register = Object.fromEntries(REGISTERS.map((name, slot) => [name, slot])) as {
  readonly [K in RegisterName]: number;
};

/** Bit positions of RFLAGS (SDM vol. 1 §3.4.3). */
export const RFLAGS = {
  CF: 0,
  PF: 2,
  AF: 4,
  ZF: 6,
  SF: 7,
  TF: 8,
  IF: 9,
  DF: 10,
  OF: 11,
  IOPL: 12,
  NT: 14,
  RF: 16,
  VM: 17,
  AC: 18,
  VIF: 19,
  VIP: 20,
  ID: 21,
} as const;

/** CF, PF, AF, ZF, SF, OF. */
export const ARITHMETIC_FLAGS = 0x8d5;

/** Bit positions of CR0 (SDM vol. 3A §2.5). */
export const CR0 = {
  PE: 0,
  MP: 1,
  EM: 2,
  TS: 3,
  ET: 4,
  NE: 5,
  WP: 16,
  AM: 18,
  NW: 29,
  CD: 30,
  PG: 31,
} as const;

/** Bit positions of CR4 (SDM vol. 3A §2.5). */
export const CR4 = {
  VME: 0,
  PVI: 1,
  TSD: 2,
  DE: 3,
  PSE: 4,
  PAE: 5,
  MCE: 6,
  PGE: 7,
  PCE: 8,
  OSFXSR: 9,
  OSXMMEXCPT: 10,
  UMIP: 11,
  LA57: 12,
  VMXE: 13,
  SMXE: 14,
  FSGSBASE: 16,
  PCIDE: 17,
  OSXSAVE: 18,
  KL: 19,
  SMEP: 20,
  SMAP: 21,
  PKE: 22,
  CET: 23,
  PKS: 24,
  UINTR: 25,
  LASS: 27,
  LAM_SUP: 28,
  FRED: 32,
} as const;

/** Bit positions of IA32_EFER (SDM vol. 3A §2.2.1). */
export const EFER = { SCE: 0, LME: 8, LMA: 10, NXE: 11 } as const;
