/**
 * Sets of instructions that CPUID enumerates: where, and the instructions by which one knows that a set
 * is in the opcode map. A processor has a set or not ({@link InstructionSets}); opcode rows ask for it.
 */

export type CpuidRegister = 'EAX' | 'EBX' | 'ECX' | 'EDX';

export interface InstructionSetRow {
  /** Leaf, subleaf, register and bit of CPUID. */
  readonly cpuid: readonly [leaf: number, subleaf: number, register: CpuidRegister, bit: number];
  /** The manual's name of the flag. */
  readonly flag: string;
  /** Mnemonics of opcode rows. */
  readonly instructions: readonly string[];
}

function set(
  flag: string,
  cpuid: InstructionSetRow['cpuid'],
  ...instructions: readonly string[]
): InstructionSetRow {
  return { cpuid, flag, instructions };
}

const BMI1 = ['ANDN', 'BEXTR', 'BLSI', 'BLSMSK', 'BLSR', 'TZCNT'];
const BMI2 = ['BZHI', 'MULX', 'PDEP', 'PEXT', 'RORX', 'SARX', 'SHLX', 'SHRX'];

export const INSTRUCTION_SETS = {
  x87: set('FPU', [1, 0, 'EDX', 0], 'FLD', 'FSTP', 'FADD', 'FNINIT', 'FNSTCW'),
  sysenter: set('SEP', [1, 0, 'EDX', 11], 'SYSENTER', 'SYSEXIT'),
  clflush: set('CLFSH', [1, 0, 'EDX', 19], 'CLFLUSH'),
  mmx: set('MMX', [1, 0, 'EDX', 23], 'MOVD', 'PADDB', 'EMMS'),
  fxsr: set('FXSR', [1, 0, 'EDX', 24], 'FXSAVE', 'FXRSTOR'),
  sse: set('SSE', [1, 0, 'EDX', 25], 'MOVAPS', 'ADDPS', 'CVTSI2SS', 'LDMXCSR', 'STMXCSR'),
  sse2: set('SSE2', [1, 0, 'EDX', 26], 'MOVAPD', 'MOVDQA', 'PADDB', 'ADDPD', 'CVTSI2SD'),
  monitor: set('MONITOR', [1, 0, 'ECX', 3], 'MONITOR', 'MWAIT'),
  cmpxchg16b: set('CMPXCHG16B', [1, 0, 'ECX', 13], 'CMPXCHG16B'),
  movbe: set('MOVBE', [1, 0, 'ECX', 22], 'MOVBE'),
  popcnt: set('POPCNT', [1, 0, 'ECX', 23], 'POPCNT'),
  xsave: set('XSAVE', [1, 0, 'ECX', 26], 'XSAVE', 'XRSTOR', 'XGETBV', 'XSETBV'),
  rdrand: set('RDRAND', [1, 0, 'ECX', 30], 'RDRAND'),
  bmi1: set('BMI1', [7, 0, 'EBX', 3], ...BMI1),
  bmi2: set('BMI2', [7, 0, 'EBX', 8], ...BMI2),
  enhancedRepMovsb: set('ERMS', [7, 0, 'EBX', 9], 'MOVSB', 'STOSB'),
  invpcid: set('INVPCID', [7, 0, 'EBX', 10], 'INVPCID'),
  rdseed: set('RDSEED', [7, 0, 'EBX', 18], 'RDSEED'),
  adx: set('ADX', [7, 0, 'EBX', 19], 'ADCX', 'ADOX'),
  clflushopt: set('CLFLUSHOPT', [7, 0, 'EBX', 23], 'CLFLUSHOPT'),
  clwb: set('CLWB', [7, 0, 'EBX', 24], 'CLWB'),
  userWaitAndPause: set('WAITPKG', [7, 0, 'ECX', 5], 'UMONITOR', 'UMWAIT', 'TPAUSE'),
  rdpid: set('RDPID', [7, 0, 'ECX', 22], 'RDPID'),
  cldemote: set('CLDEMOTE', [7, 0, 'ECX', 25], 'CLDEMOTE'),
  movdiri: set('MOVDIRI', [7, 0, 'ECX', 27], 'MOVDIRI'),
  movdir64b: set('MOVDIR64B', [7, 0, 'ECX', 28], 'MOVDIR64B'),
  /** IA32_PASID comes with it. */
  enqcmd: set('ENQCMD', [7, 0, 'ECX', 29], 'ENQCMD', 'ENQCMDS'),
  fastShortRepMovsb: set('FSRM', [7, 0, 'EDX', 4], 'MOVSB'),
  serialize: set('SERIALIZE', [7, 0, 'EDX', 14], 'SERIALIZE'),
  lkgs: set('LKGS', [7, 1, 'EAX', 18], 'LKGS'),
  wrmsrns: set('WRMSRNS', [7, 1, 'EAX', 19], 'WRMSRNS'),
  historyReset: set('HRESET', [7, 1, 'EAX', 22], 'HRESET'),
  msrList: set('MSRLIST', [7, 1, 'EAX', 27], 'RDMSRLIST', 'WRMSRLIST'),
  xsaveopt: set('XSAVEOPT', [0xd, 1, 'EAX', 0], 'XSAVEOPT'),
  xsavec: set('XSAVEC', [0xd, 1, 'EAX', 1], 'XSAVEC'),
  /** IA32_XSS comes with it. */
  xsaves: set('XSAVES', [0xd, 1, 'EAX', 3], 'XSAVES', 'XRSTORS'),
  lzcnt: set('LZCNT', [0x8000_0001, 0, 'ECX', 5], 'LZCNT'),
  prefetchw: set('PREFETCHW', [0x8000_0001, 0, 'ECX', 8], 'PREFETCHW'),
  syscall: set('SYSCALL', [0x8000_0001, 0, 'EDX', 11], 'SYSCALL', 'SYSRET'),
  wbnoinvd: set('WBNOINVD', [0x8000_0008, 0, 'EBX', 9], 'WBNOINVD'),
} as const satisfies Readonly<Record<string, InstructionSetRow>>;

export type InstructionSet = keyof typeof INSTRUCTION_SETS;
export const INSTRUCTION_SET_NAMES = Object.keys(INSTRUCTION_SETS) as readonly InstructionSet[];

/** Which sets a processor has. */
export type InstructionSets = { readonly [Name in InstructionSet]: boolean };
