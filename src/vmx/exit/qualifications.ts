/**
 * Formats of the exit qualification (SDM §30.2.1) and of the VM-exit instruction information
 * (§30.2.5), as tables of named bit ranges. What a format does not name is undefined and recorded as 0.
 * General registers are numbered 0 RAX, 1 RCX, 2 RDX, 3 RBX, 4 RSP, 5 RBP, 6 RSI, 7 RDI, 8–15 R8–R15;
 * segments 0 ES, 1 CS, 2 SS, 3 DS, 4 FS, 5 GS.
 */
import { bits, mask, U64_MAX } from '../../bits/u64.ts';

/** Named parts of a field. */
export type BitLayout = Readonly<Record<string, readonly [high: number, low: number]>>;

/** One format. */
export interface BitFormat<L extends BitLayout = BitLayout> {
  readonly title: string;
  /** Empty where the whole field is one value. */
  readonly parts: L;
  /** Bits that are defined. */
  readonly mask: bigint;
}

function format<const L extends BitLayout>(title: string, parts: L): BitFormat<L> {
  const defined = Object.values(parts).reduce((sum, [high, low]) => sum | mask(high, low), 0n);
  return { title, parts, mask: defined };
}

/** A field that is one value of `width` bits. */
function whole(title: string, width = 64): BitFormat {
  return { title, parts: {}, mask: width === 64 ? U64_MAX : mask(width - 1, 0) };
}

const ADDRESS_SIZE = [9, 7] as const;
const SEGMENT = [17, 15] as const;

/** The parts of a memory operand. Sizes: 0 16, 1 32, 2 64 bits; scaling: 0 none, 1 ×2, 2 ×4, 3 ×8. */
const MEMORY_OPERAND = {
  scaling: [1, 0],
  addressSize: ADDRESS_SIZE,
  segment: SEGMENT,
  indexRegister: [21, 18],
  indexInvalid: [22, 22],
  baseRegister: [26, 23],
  baseInvalid: [27, 27],
} as const;

/** A memory operand, or register 1 where `registerForm` is 1. */
const REGISTER_OR_MEMORY = { ...MEMORY_OPERAND, register1: [6, 3], registerForm: [10, 10] } as const;

/** Formats of the exit qualification. */
export const QUALIFICATIONS = {
  debugException: format('Debug exception (Table 30-1)', {
    breakpoints: [3, 0],
    busLock: [11, 11],
    debugRegisterAccess: [13, 13],
    singleStep: [14, 14],
    rtm: [16, 16],
  }),
  linearAddress: whole('Linear address'),
  displacement: whole('Displacement of the memory operand'),
  sipi: format('Start-up IPI', { vector: [7, 0] }),
  ioSmi: format('I/O SMI (Table 34-9)', {
    size: [2, 0],
    input: [3, 3],
    string: [4, 4],
    rep: [5, 5],
    immediate: [6, 6],
    port: [31, 16],
  }),
  taskSwitch: format('Task switch (Table 30-2)', { selector: [15, 0], source: [31, 30] }),
  controlRegister: format('Control-register access (Table 30-3)', {
    register: [3, 0],
    access: [5, 4],
    memoryOperand: [6, 6],
    generalRegister: [11, 8],
    source: [31, 16],
  }),
  movDr: format('MOV DR (Table 30-4)', { register: [2, 0], fromDr: [4, 4], generalRegister: [11, 8] }),
  io: format('I/O instruction (Table 30-5)', {
    /** 0 one byte, 1 two, 3 four. */
    size: [2, 0],
    input: [3, 3],
    string: [4, 4],
    rep: [5, 5],
    /** 0: the port is in DX. */
    immediate: [6, 6],
    port: [31, 16],
  }),
  wrmsr: format('WRMSR or WRMSRNS', { nonSerializing: [0, 0] }),
  mwait: format('MWAIT', { monitorArmed: [0, 0] }),
  apicAccess: format('APIC access (Table 30-6)', {
    offset: [11, 0],
    access: [15, 12],
    asynchronous: [16, 16],
  }),
  vector: format('Virtualized EOI', { vector: [7, 0] }),
  eptViolation: format('EPT violation (Table 30-7)', {
    read: [0, 0],
    write: [1, 1],
    fetch: [2, 2],
    readable: [3, 3],
    writable: [4, 4],
    executable: [5, 5],
    userExecutable: [6, 6],
    linearAddressValid: [7, 7],
    /** 1: the access is to the translation; 0: to a paging-structure entry. */
    translation: [8, 8],
    userMode: [9, 9],
    writablePage: [10, 10],
    executeDisable: [11, 11],
    nmiUnblocking: [12, 12],
    shadowStackAccess: [13, 13],
    supervisorShadowStack: [14, 14],
    guestPagingVerification: [15, 15],
    asynchronous: [16, 16],
  }),
  wbinvd: format('WBINVD or WBNOINVD', { noInvalidate: [0, 0] }),
  apicWrite: format('APIC write', { offset: [11, 0] }),
  pmlFull: format('Page-modification log full', { nmiUnblocking: [12, 12], asynchronous: [16, 16] }),
  spp: format('SPP-related event', { miss: [11, 11], nmiUnblocking: [12, 12], asynchronous: [16, 16] }),
  pasid: format('ENQCMD', { pasid: [19, 0] }),
  sourceOperand: whole('ENQCMDS: low half of the source operand', 32),
  instructionTimeout: format('Instruction timeout', { contextInvalid: [0, 0], nmiUnblocking: [12, 12] }),
  msr: whole('Number of the MSR', 32),
  invalidGuestState: format('VM-entry failure (SDM §29.8)', { cause: [2, 0] }),
  msrLoadEntry: whole('Number of the entry that failed, from 1', 32),
} as const satisfies Record<string, BitFormat>;
export type QualificationName = keyof typeof QUALIFICATIONS;

/** Formats of the VM-exit instruction information. */
export const INSTRUCTION_INFORMATION = {
  stringIo: format('INS, OUTS (Table 30-8)', { addressSize: ADDRESS_SIZE, segment: SEGMENT }),
  invalidation: format('INVEPT, INVPCID, INVVPID (Table 30-9)', { ...MEMORY_OPERAND, register2: [31, 28] }),
  descriptorTable: format('LGDT, LIDT, SGDT, SIDT (Table 30-10)', {
    ...MEMORY_OPERAND,
    operandSize: [11, 11],
    /** 0 SGDT, 1 SIDT, 2 LGDT, 3 LIDT. */
    instruction: [29, 28],
  }),
  systemSegment: format('LLDT, LTR, SLDT, STR (Table 30-11)', {
    ...REGISTER_OR_MEMORY,
    /** 0 SLDT, 1 STR, 2 LLDT, 3 LTR. */
    instruction: [29, 28],
  }),
  random: format('RDRAND, RDSEED (Table 30-12)', { register1: [6, 3], operandSize: [12, 11] }),
  wait: format('TPAUSE, UMWAIT (Table 30-13)', { register1: [6, 3] }),
  memoryOperand: format('VMCLEAR, VMPTRLD, VMPTRST, VMXON, XRSTORS, XSAVES (Table 30-14)', MEMORY_OPERAND),
  vmreadVmwrite: format('VMREAD, VMWRITE (Table 30-15)', { ...REGISTER_OR_MEMORY, register2: [31, 28] }),
  loadiwkey: format('LOADIWKEY (Table 30-16)', { register1: [6, 3], register2: [31, 28] }),
  msrRegister: format('URDMSR, UWRMSR and immediate forms', { register1: [6, 3] }),
} as const satisfies Record<string, BitFormat>;
export type InformationName = keyof typeof INSTRUCTION_INFORMATION;

/** `access` of a control-register access. */
export const ControlRegisterAccess = { MovTo: 0, MovFrom: 1, Clts: 2, Lmsw: 3 } as const;

/** `source` of a task switch. */
export const TaskSwitchSource = { Call: 0, Iret: 1, Jmp: 2, IdtGate: 3 } as const;

/** `access` of an APIC access: linear 0–4, guest-physical 10–15. */
export const ApicAccessType = {
  Read: 0,
  Write: 1,
  Fetch: 2,
  EventDelivery: 3,
  Asynchronous: 4,
  PhysicalEventDelivery: 10,
  PhysicalAsynchronous: 11,
  PhysicalInstruction: 15,
} as const;

/** Values of the parts of a format; a flag may be given as a boolean. */
export type PartsOf<F extends BitFormat> = { readonly [K in keyof F['parts']]?: number | boolean };
export type DecodedParts<F extends BitFormat> = { -readonly [K in keyof F['parts']]: number };

/**
 * The field with the given parts; parts left out are 0.
 * @throws RangeError if a value does not fit its part
 */
export function encodeParts<F extends BitFormat>(layout: F, values: PartsOf<F>): bigint {
  let field = 0n;
  for (const [name, given] of Object.entries(values)) {
    const [high, low] = layout.parts[name] as readonly [number, number];
    const value = BigInt(given as number | boolean);
    if (value >> BigInt(high - low + 1) !== 0n) {
      throw new RangeError(`${layout.title}: ${name} has ${high - low + 1} bits, not room for ${value}`);
    }
    field |= value << BigInt(low);
  }
  return field;
}

/** The parts of a field. */
export function decodeParts<F extends BitFormat>(layout: F, field: bigint): DecodedParts<F> {
  const entries = Object.entries(layout.parts).map(
    ([name, [high, low]]) => [name, Number(bits(field, high, low))] as const,
  );
  return Object.fromEntries(entries) as DecodedParts<F>;
}
