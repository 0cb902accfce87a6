/**
 * Basic exit reasons (SDM Appendix C) and, for each, what a VM exit may record besides the reason
 * (SDM §30.2): which information fields are defined, and what becomes of pending debug exceptions.
 */
import type { SdmSection } from '../../sdm/sections.ts';

export const ExitReason = {
  ExceptionOrNmi: 0,
  ExternalInterrupt: 1,
  TripleFault: 2,
  InitSignal: 3,
  StartupIpi: 4,
  IoSmi: 5,
  OtherSmi: 6,
  InterruptWindow: 7,
  NmiWindow: 8,
  TaskSwitch: 9,
  Cpuid: 10,
  Getsec: 11,
  Hlt: 12,
  Invd: 13,
  Invlpg: 14,
  Rdpmc: 15,
  Rdtsc: 16,
  Rsm: 17,
  Vmcall: 18,
  Vmclear: 19,
  Vmlaunch: 20,
  Vmptrld: 21,
  Vmptrst: 22,
  Vmread: 23,
  Vmresume: 24,
  Vmwrite: 25,
  Vmxoff: 26,
  Vmxon: 27,
  ControlRegisterAccess: 28,
  MovDr: 29,
  IoInstruction: 30,
  Rdmsr: 31,
  Wrmsr: 32,
  EntryFailureGuestState: 33,
  EntryFailureMsrLoading: 34,
  Mwait: 36,
  MonitorTrapFlag: 37,
  Monitor: 39,
  Pause: 40,
  EntryFailureMachineCheck: 41,
  TprBelowThreshold: 43,
  ApicAccess: 44,
  VirtualizedEoi: 45,
  GdtrOrIdtrAccess: 46,
  LdtrOrTrAccess: 47,
  EptViolation: 48,
  EptMisconfiguration: 49,
  Invept: 50,
  Rdtscp: 51,
  VmxPreemptionTimerExpired: 52,
  Invvpid: 53,
  WbinvdOrWbnoinvd: 54,
  Xsetbv: 55,
  ApicWrite: 56,
  Rdrand: 57,
  Invpcid: 58,
  Vmfunc: 59,
  Encls: 60,
  Rdseed: 61,
  PageModificationLogFull: 62,
  Xsaves: 63,
  Xrstors: 64,
  Pconfig: 65,
  SppRelatedEvent: 66,
  Umwait: 67,
  Tpause: 68,
  Loadiwkey: 69,
  EnqcmdPasidTranslation: 72,
  EnqcmdsPasidTranslation: 73,
  BusLock: 74,
  InstructionTimeout: 75,
  Seamcall: 76,
  Tdcall: 77,
  Rdmsrlist: 78,
  Wrmsrlist: 79,
  Urdmsr: 80,
  Uwrmsr: 81,
  RdmsrImmediate: 84,
  WrmsrnsImmediate: 85,
} as const;
export type ExitReason = (typeof ExitReason)[keyof typeof ExitReason];

/** Information beyond the exit reason that a VM exit may record. */
export type ExitInformation =
  | 'qualification'
  | 'guestLinearAddress'
  | 'guestPhysicalAddress'
  | 'instructionLength'
  | 'instructionInformation'
  | 'event'
  | 'originalEvent'
  | 'msrData';

export interface ExitReasonSpec {
  readonly name: string;
  /** Where the manual describes the cause. */
  readonly sdm: SdmSection;
  /** When the exit happens relative to the instruction (SDM §28.1, §30.1). */
  readonly class: 'fault-like' | 'trap-like' | 'boundary' | 'abort' | 'entry-failure';
  /** What may be recorded; the exit qualification is cleared where it is not named (SDM §30.2.1). */
  readonly records: readonly ExitInformation[];
  /** Bits of the exit qualification that are defined. */
  readonly qualificationMask: bigint;
  /** Pending debug exceptions are saved rather than cleared (SDM §30.3.4). */
  readonly keepsPendingDebug: boolean;
}

const ALL = 0xffff_ffff_ffff_ffffn;

interface Options {
  readonly class?: ExitReasonSpec['class'];
  readonly records?: readonly ExitInformation[];
  readonly mask?: bigint;
  readonly keepsPendingDebug?: boolean;
}

function spec(name: string, sdm: SdmSection, options: Options = {}): ExitReasonSpec {
  const records = options.records ?? [];
  return {
    name,
    sdm,
    class: options.class ?? 'fault-like',
    records,
    qualificationMask: options.mask ?? (records.includes('qualification') ? ALL : 0n),
    keepsPendingDebug: options.keepsPendingDebug ?? false,
  };
}

/** An instruction that exits with its length only. */
function instruction(name: string, sdm: SdmSection, ...more: ExitInformation[]): ExitReasonSpec {
  return spec(name, sdm, { records: ['instructionLength', ...more] });
}

/** An instruction whose displacement and operands are reported. */
function withOperand(name: string, sdm: SdmSection): ExitReasonSpec {
  return instruction(name, sdm, 'qualification', 'instructionInformation');
}

const BOUNDARY = { class: 'boundary' } as const;
const ENTRY_FAILURE = { class: 'entry-failure', records: ['qualification'] } as const;

/** Every basic exit reason and what its exits record. */
export const EXIT_REASONS: Readonly<Record<ExitReason, ExitReasonSpec>> = {
  0: spec('Exception or NMI', '28.2', {
    records: ['qualification', 'event', 'originalEvent', 'instructionLength'],
  }),
  1: spec('External interrupt', '28.2', { class: 'boundary', records: ['event'] }),
  2: spec('Triple fault', '28.2', { class: 'abort' }),
  3: spec('INIT signal', '28.2', { class: 'boundary', keepsPendingDebug: true }),
  4: spec('Start-up IPI (SIPI)', '28.2', { class: 'boundary', records: ['qualification'], mask: 0xffn }),
  5: spec('I/O system-management interrupt', '34.15.2.3', {
    class: 'boundary',
    records: ['qualification', 'guestLinearAddress'],
    mask: 0xffff_007fn,
    keepsPendingDebug: true,
  }),
  6: spec('Other system-management interrupt', '34.15.2.3', { class: 'boundary', keepsPendingDebug: true }),
  7: spec('Interrupt window', '28.2', BOUNDARY),
  8: spec('NMI window', '28.2', BOUNDARY),
  9: spec('Task switch', '28.4.2', {
    records: ['qualification', 'originalEvent', 'event', 'instructionLength'],
    mask: 0xc000_ffffn,
  }),
  10: instruction('CPUID', '28.1.2'),
  11: instruction('GETSEC', '28.1.2'),
  12: instruction('HLT', '28.1.3'),
  13: instruction('INVD', '28.1.2'),
  14: instruction('INVLPG', '28.1.3', 'qualification'),
  15: instruction('RDPMC', '28.1.3'),
  16: instruction('RDTSC', '28.1.3'),
  17: instruction('RSM', '28.1.3'),
  18: instruction('VMCALL', '28.1.2'),
  19: withOperand('VMCLEAR', '28.1.2'),
  20: instruction('VMLAUNCH', '28.1.2'),
  21: withOperand('VMPTRLD', '28.1.2'),
  22: withOperand('VMPTRST', '28.1.2'),
  23: withOperand('VMREAD', '28.1.3'),
  24: instruction('VMRESUME', '28.1.2'),
  25: withOperand('VMWRITE', '28.1.3'),
  26: instruction('VMXOFF', '28.1.2'),
  27: withOperand('VMXON', '28.1.2'),
  28: spec('Control-register access', '28.1.3', {
    records: ['qualification', 'guestLinearAddress', 'instructionLength'],
    mask: 0xffff_0f7fn,
  }),
  29: spec('MOV DR', '28.1.3', { records: ['qualification', 'instructionLength'], mask: 0xf17n }),
  30: spec('I/O instruction', '28.1.3', {
    records: ['qualification', 'guestLinearAddress', 'instructionLength', 'instructionInformation'],
    mask: 0xffff_007fn,
  }),
  31: instruction('RDMSR', '28.1.3'),
  32: spec('WRMSR or WRMSRNS', '28.1.3', { records: ['qualification', 'instructionLength'], mask: 1n }),
  33: spec('VM-entry failure: invalid guest state', '29.8', ENTRY_FAILURE),
  34: spec('VM-entry failure: MSR loading', '29.8', ENTRY_FAILURE),
  36: spec('MWAIT', '28.1.3', { records: ['qualification', 'instructionLength'], mask: 1n }),
  37: spec('Monitor trap flag', '28.5.2', { class: 'boundary', keepsPendingDebug: true }),
  39: instruction('MONITOR', '28.1.3'),
  40: instruction('PAUSE', '28.1.3'),
  41: spec('VM-entry failure: machine-check event', '29.9', { class: 'entry-failure' }),
  43: spec('TPR below threshold', '32.1.2', { class: 'trap-like', keepsPendingDebug: true }),
  44: spec('APIC access', '32.4', {
    records: ['qualification', 'originalEvent', 'instructionLength'],
    mask: 0x1_ffffn,
  }),
  45: spec('Virtualized EOI', '32.1.4', {
    class: 'trap-like',
    records: ['qualification'],
    mask: 0xffn,
    keepsPendingDebug: true,
  }),
  46: withOperand('Access to GDTR or IDTR', '28.1.3'),
  47: withOperand('Access to LDTR or TR', '28.1.3'),
  48: spec('EPT violation', '31.3.3.2', {
    records: [
      'qualification',
      'guestLinearAddress',
      'guestPhysicalAddress',
      'originalEvent',
      'instructionLength',
    ],
    mask: 0x1_ffffn,
  }),
  49: spec('EPT misconfiguration', '31.3.3.1', {
    records: ['guestLinearAddress', 'guestPhysicalAddress', 'originalEvent'],
  }),
  50: withOperand('INVEPT', '28.1.2'),
  51: instruction('RDTSCP', '28.1.3'),
  52: spec('VMX-preemption timer expired', '28.5.1', BOUNDARY),
  53: withOperand('INVVPID', '28.1.2'),
  54: spec('WBINVD or WBNOINVD', '28.1.3', { records: ['qualification', 'instructionLength'], mask: 1n }),
  55: instruction('XSETBV', '28.1.2'),
  56: spec('APIC write', '32.4.3.3', {
    class: 'trap-like',
    records: ['qualification'],
    mask: 0xfffn,
    keepsPendingDebug: true,
  }),
  57: instruction('RDRAND', '28.1.3', 'instructionInformation'),
  58: withOperand('INVPCID', '28.1.3'),
  59: instruction('VMFUNC', '28.5.7'),
  60: instruction('ENCLS', '28.1.3'),
  61: instruction('RDSEED', '28.1.3', 'instructionInformation'),
  62: spec('Page-modification log full', '31.3.6', {
    records: ['qualification', 'guestLinearAddress', 'originalEvent', 'instructionLength'],
    mask: 0x1_1000n,
  }),
  63: withOperand('XSAVES', '28.1.3'),
  64: withOperand('XRSTORS', '28.1.3'),
  65: instruction('PCONFIG', '28.1.3'),
  66: spec('SPP-related event', '31.3.4', {
    records: [
      'qualification',
      'guestLinearAddress',
      'guestPhysicalAddress',
      'originalEvent',
      'instructionLength',
    ],
    mask: 0x1_1800n,
  }),
  67: instruction('UMWAIT', '28.1.3', 'instructionInformation'),
  68: instruction('TPAUSE', '28.1.3', 'instructionInformation'),
  69: instruction('LOADIWKEY', '28.1.3', 'instructionInformation'),
  72: spec('ENQCMD PASID translation', '28.5.9', {
    records: ['qualification', 'instructionLength'],
    mask: 0xf_ffffn,
  }),
  73: spec('ENQCMDS PASID translation', '28.5.9', {
    records: ['qualification', 'instructionLength'],
    mask: 0xffff_ffffn,
  }),
  74: spec('Bus lock', '28.2', { class: 'trap-like', keepsPendingDebug: true }),
  75: spec('Instruction timeout', '28.2', {
    class: 'abort',
    records: ['qualification', 'guestLinearAddress'],
    mask: 0x1001n,
  }),
  76: instruction('SEAMCALL', '35.5'),
  77: instruction('TDCALL', '35.5'),
  78: instruction('RDMSRLIST', '28.1.3', 'qualification'),
  79: instruction('WRMSRLIST', '28.1.3', 'qualification', 'msrData'),
  80: withOperand('URDMSR', '28.1.3'),
  81: withOperand('UWRMSR', '28.1.3'),
  84: withOperand('RDMSR, immediate form', '28.1.3'),
  85: withOperand('WRMSRNS, immediate form', '28.1.3'),
};

/** The spec of a reason, or undefined for a number no reason has. */
export function exitReasonSpec(reason: number): ExitReasonSpec | undefined {
  return (EXIT_REASONS as Readonly<Record<number, ExitReasonSpec>>)[reason];
}
