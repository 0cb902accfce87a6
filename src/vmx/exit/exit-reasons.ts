/**
 * Basic exit reasons (SDM Appendix C) and, for each, what its VM exits record and save (SDM §30.2,
 * §30.3): the rules by which a field is defined, and what becomes of RFLAGS.RF and of pending debug
 * exceptions.
 */
import type { SdmSection } from '../../sdm/sections.ts';
import type { InformationName, QualificationName } from './qualifications.ts';

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
  Enclv: 70,
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

/** When the exit happens relative to the instruction (SDM §28.1, §28.2, §30.1). */
export type ExitClass = 'fault-like' | 'trap-like' | 'boundary' | 'abort' | 'entry-failure';

/** What the exit qualification holds (SDM §30.2.1); `of-event` depends on the exiting event. */
type QualificationRule = QualificationName | 'cleared' | 'of-event';

/** When the guest-linear address is defined (SDM §30.2.1). */
type LinearAddressRule =
  | 'never'
  | 'always'
  | 'lmsw-from-memory'
  | 'string-io'
  | 'qualification-bit-7'
  | 'busy-shadow-stack';

/** When there is an exiting event (SDM §30.2.2); `acknowledged`: with "acknowledge interrupt on exit". */
type ExitingEventRule = 'never' | 'always' | 'acknowledged';

/**
 * When there is an original event (SDM §30.2.4): a nested exception, a task gate in the IDT, an access
 * whose qualification says so, any access of event delivery.
 */
type OriginalEventRule = 'never' | 'nested' | 'task-gate' | 'apic-access' | 'delivery';

/**
 * When the VM-exit instruction length is defined (SDM §30.2.5): always; for a software event, whether
 * exiting or original; for a task switch by an instruction or a software event. For an access outside
 * event delivery it is undefined, and that of the instruction, as on processors: hypervisors skip
 * emulated accesses by it.
 */
type LengthRule = 'never' | 'instruction' | 'software-event' | 'access' | 'task-switch';

/**
 * RFLAGS.RF as saved (SDM §30.3.3): 0; as it is; 1 unless an event is being delivered; as in the image
 * that delivery of the event, or the task switch, would have saved.
 */
type ResumeFlagRule = 'cleared' | 'kept' | 'access' | 'event' | 'task-switch';

/** When pending debug exceptions are saved (SDM §30.3.4): besides under blocking by MOV SS. */
type PendingDebugRule = 'cleared' | 'kept' | 'machine-check' | 'trace';

export interface ExitReasonSpec {
  readonly name: string;
  /** Where the manual describes the cause. */
  readonly sdm: SdmSection;
  /** For exceptions, which may be any of the first four, `fault-like`. */
  readonly class: ExitClass;
  readonly qualification: QualificationRule;
  readonly guestLinearAddress: LinearAddressRule;
  readonly guestPhysicalAddress: boolean;
  readonly exitingEvent: ExitingEventRule;
  readonly originalEvent: OriginalEventRule;
  readonly instructionLength: LengthRule;
  /** Bytes of the shortest encoding (of MOV CR, of a far CALL): recorded if a request names no length. */
  readonly shortestLength: number;
  readonly instructionInformation: InformationName | undefined;
  readonly msrData: boolean;
  readonly resumeFlag: ResumeFlagRule;
  readonly pendingDebug: PendingDebugRule;
  /** A user of the library may cause the exit; otherwise only VM entry does, or nothing here can. */
  readonly apiCausable: boolean;
}

type Details = Partial<Omit<ExitReasonSpec, 'name' | 'sdm'>>;

function spec(name: string, sdm: SdmSection, details: Details): ExitReasonSpec {
  return {
    name,
    sdm,
    class: 'fault-like',
    qualification: 'cleared',
    guestLinearAddress: 'never',
    guestPhysicalAddress: false,
    exitingEvent: 'never',
    originalEvent: 'never',
    instructionLength: 'never',
    shortestLength: 0,
    instructionInformation: undefined,
    msrData: false,
    resumeFlag: 'kept',
    pendingDebug: 'cleared',
    apiCausable: true,
    ...details,
  };
}

/** An instruction that exits instead of executing. */
function instruction(
  name: string,
  sdm: SdmSection,
  shortestLength: number,
  details: Details = {},
): ExitReasonSpec {
  return spec(name, sdm, {
    instructionLength: 'instruction',
    shortestLength,
    resumeFlag: 'cleared',
    ...details,
  });
}

/** An instruction that reports the displacement of its operand and its instruction information. */
function withOperand(
  name: string,
  sdm: SdmSection,
  shortestLength: number,
  instructionInformation: InformationName,
): ExitReasonSpec {
  return instruction(name, sdm, shortestLength, { qualification: 'displacement', instructionInformation });
}

/** An asynchronous exit on an instruction boundary. */
function boundary(name: string, sdm: SdmSection, details: Details = {}): ExitReasonSpec {
  return spec(name, sdm, { class: 'boundary', ...details });
}

/** An exit after an instruction, which keeps pending debug exceptions. */
function afterInstruction(name: string, sdm: SdmSection, details: Details = {}): ExitReasonSpec {
  return spec(name, sdm, { class: 'trap-like', pendingDebug: 'kept', ...details });
}

/** An access to memory that exits in the middle of an instruction or of event delivery. */
function access(name: string, sdm: SdmSection, details: Details): ExitReasonSpec {
  return spec(name, sdm, {
    originalEvent: 'delivery',
    instructionLength: 'access',
    resumeFlag: 'access',
    pendingDebug: 'trace',
    ...details,
  });
}

function entryFailure(name: string, sdm: SdmSection, qualification: QualificationRule): ExitReasonSpec {
  return spec(name, sdm, { class: 'entry-failure', qualification, apiCausable: false });
}

/** Every basic exit reason. */
export const EXIT_REASONS: Readonly<Record<ExitReason, ExitReasonSpec>> = {
  0: spec('Exception or NMI', '28.2', {
    qualification: 'of-event',
    exitingEvent: 'always',
    originalEvent: 'nested',
    instructionLength: 'software-event',
    resumeFlag: 'event',
    pendingDebug: 'machine-check',
  }),
  1: boundary('External interrupt', '28.2', { exitingEvent: 'acknowledged', resumeFlag: 'event' }),
  2: spec('Triple fault', '28.2', { class: 'abort' }),
  3: boundary('INIT signal', '28.2', { pendingDebug: 'kept' }),
  4: boundary('Start-up IPI (SIPI)', '28.2', { qualification: 'sipi' }),
  // SMM VM exits, of dual-monitor treatment.
  5: boundary('I/O system-management interrupt', '34.15.2.3', {
    qualification: 'ioSmi',
    guestLinearAddress: 'string-io',
    pendingDebug: 'kept',
    apiCausable: false,
  }),
  6: boundary('Other system-management interrupt', '34.15.2.3', { pendingDebug: 'kept', apiCausable: false }),
  7: boundary('Interrupt window', '28.2'),
  8: boundary('NMI window', '28.2'),
  9: spec('Task switch', '28.4.2', {
    qualification: 'taskSwitch',
    originalEvent: 'task-gate',
    instructionLength: 'task-switch',
    shortestLength: 2,
    resumeFlag: 'task-switch',
  }),
  10: instruction('CPUID', '28.1.2', 2),
  11: instruction('GETSEC', '28.1.2', 2),
  12: instruction('HLT', '28.1.3', 1),
  13: instruction('INVD', '28.1.2', 2),
  14: instruction('INVLPG', '28.1.3', 3, { qualification: 'linearAddress' }),
  15: instruction('RDPMC', '28.1.3', 2),
  16: instruction('RDTSC', '28.1.3', 2),
  17: instruction('RSM', '28.1.3', 2),
  18: instruction('VMCALL', '28.1.2', 3),
  19: withOperand('VMCLEAR', '28.1.2', 4, 'memoryOperand'),
  20: instruction('VMLAUNCH', '28.1.2', 3),
  21: withOperand('VMPTRLD', '28.1.2', 3, 'memoryOperand'),
  22: withOperand('VMPTRST', '28.1.2', 3, 'memoryOperand'),
  23: withOperand('VMREAD', '28.1.3', 3, 'vmreadVmwrite'),
  24: instruction('VMRESUME', '28.1.2', 3),
  25: withOperand('VMWRITE', '28.1.3', 3, 'vmreadVmwrite'),
  26: instruction('VMXOFF', '28.1.2', 3),
  27: withOperand('VMXON', '28.1.2', 4, 'memoryOperand'),
  28: instruction('Control-register access', '28.1.3', 3, {
    qualification: 'controlRegister',
    guestLinearAddress: 'lmsw-from-memory',
  }),
  29: instruction('MOV DR', '28.1.3', 3, { qualification: 'movDr' }),
  30: instruction('I/O instruction', '28.1.3', 1, {
    qualification: 'io',
    guestLinearAddress: 'string-io',
    instructionInformation: 'stringIo',
  }),
  31: instruction('RDMSR', '28.1.3', 2),
  32: instruction('WRMSR or WRMSRNS', '28.1.3', 2, { qualification: 'wrmsr' }),
  33: entryFailure('VM-entry failure: invalid guest state', '29.8', 'invalidGuestState'),
  34: entryFailure('VM-entry failure: MSR loading', '29.8', 'msrLoadEntry'),
  36: instruction('MWAIT', '28.1.3', 3, { qualification: 'mwait' }),
  37: boundary('Monitor trap flag', '28.5.2', { pendingDebug: 'kept' }),
  39: instruction('MONITOR', '28.1.3', 3),
  40: instruction('PAUSE', '28.1.3', 2),
  41: entryFailure('VM-entry failure: machine-check event', '29.9', 'cleared'),
  43: afterInstruction('TPR below threshold', '32.1.2'),
  44: access('APIC access', '32.4', { qualification: 'apicAccess', originalEvent: 'apic-access' }),
  45: afterInstruction('Virtualized EOI', '32.1.4', { qualification: 'vector' }),
  46: withOperand('Access to GDTR or IDTR', '28.1.3', 3, 'descriptorTable'),
  47: withOperand('Access to LDTR or TR', '28.1.3', 3, 'systemSegment'),
  48: access('EPT violation', '31.3.3.2', {
    qualification: 'eptViolation',
    guestLinearAddress: 'qualification-bit-7',
    guestPhysicalAddress: true,
  }),
  49: access('EPT misconfiguration', '31.3.3.1', {
    guestLinearAddress: 'busy-shadow-stack',
    guestPhysicalAddress: true,
  }),
  50: withOperand('INVEPT', '28.1.2', 5, 'invalidation'),
  51: instruction('RDTSCP', '28.1.3', 3),
  52: boundary('VMX-preemption timer expired', '28.5.1'),
  53: withOperand('INVVPID', '28.1.2', 5, 'invalidation'),
  54: instruction('WBINVD or WBNOINVD', '28.1.3', 2, { qualification: 'wbinvd' }),
  55: instruction('XSETBV', '28.1.2', 3),
  56: afterInstruction('APIC write', '32.4.3.3', { qualification: 'apicWrite' }),
  57: instruction('RDRAND', '28.1.3', 3, { instructionInformation: 'random' }),
  58: withOperand('INVPCID', '28.1.3', 5, 'invalidation'),
  59: instruction('VMFUNC', '28.5.7', 3),
  60: instruction('ENCLS', '28.1.3', 3),
  61: instruction('RDSEED', '28.1.3', 3, { instructionInformation: 'random' }),
  62: access('Page-modification log full', '31.3.6', {
    qualification: 'pmlFull',
    guestLinearAddress: 'busy-shadow-stack',
  }),
  63: withOperand('XSAVES', '28.1.3', 3, 'memoryOperand'),
  64: withOperand('XRSTORS', '28.1.3', 3, 'memoryOperand'),
  65: instruction('PCONFIG', '28.1.3', 3),
  66: access('SPP-related event', '31.3.4', {
    qualification: 'spp',
    guestLinearAddress: 'always',
    guestPhysicalAddress: true,
  }),
  67: instruction('UMWAIT', '28.1.3', 4, { instructionInformation: 'wait' }),
  68: instruction('TPAUSE', '28.1.3', 4, { instructionInformation: 'wait' }),
  69: instruction('LOADIWKEY', '28.1.3', 5, { instructionInformation: 'loadiwkey' }),
  // No control of this edition makes ENCLV exit.
  70: instruction('ENCLV', 'C', 3, { apiCausable: false }),
  72: instruction('ENQCMD PASID translation', '28.5.9', 5, { qualification: 'pasid' }),
  73: instruction('ENQCMDS PASID translation', '28.5.9', 5, { qualification: 'sourceOperand' }),
  74: afterInstruction('Bus lock', '28.2'),
  75: spec('Instruction timeout', '28.2', {
    class: 'abort',
    qualification: 'instructionTimeout',
    guestLinearAddress: 'busy-shadow-stack',
  }),
  76: instruction('SEAMCALL', '35.5', 4),
  77: instruction('TDCALL', '35.5', 4),
  78: instruction('RDMSRLIST', '28.1.3', 4, { qualification: 'msr' }),
  79: instruction('WRMSRLIST', '28.1.3', 4, { qualification: 'msr', msrData: true }),
  80: instruction('URDMSR', '28.1.3', 5, { qualification: 'msr', instructionInformation: 'msrRegister' }),
  81: instruction('UWRMSR', '28.1.3', 5, { qualification: 'msr', instructionInformation: 'msrRegister' }),
  84: instruction('RDMSR, immediate form', '28.1.3', 9, {
    qualification: 'msr',
    instructionInformation: 'msrRegister',
  }),
  85: instruction('WRMSRNS, immediate form', '28.1.3', 9, {
    qualification: 'msr',
    instructionInformation: 'msrRegister',
  }),
};

/** The spec of a reason, or undefined for a number no reason has. */
export function exitReasonSpec(reason: number): ExitReasonSpec | undefined {
  return (EXIT_REASONS as Readonly<Record<number, ExitReasonSpec>>)[reason];
}
