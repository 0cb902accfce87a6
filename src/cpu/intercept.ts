/**
 * Where an instruction may cause a VM exit: its function asks `intercepted` at the place where the
 * manual puts the exit among the faults (SDM §28.1.1), and ends with Next.VmExit if so. Outside VMX
 * non-root operation nothing is asked.
 */
import type { Instruction } from './instruction.ts';
import type { Processor } from './processor.ts';

/**
 * Causes of exits by instructions, one a rule of SDM §28.1. `a` and `b` are what the rule needs to
 * know beyond the instruction: see each.
 */
export const Intercept = {
  CPUID: 0,
  GETSEC: 1,
  INVD: 2,
  XSETBV: 3,
  CLTS: 4,
  HLT: 5,
  /** IN, OUT, INS, OUTS; `a`: port, `b`: bytes; of INS and OUTS the slot `linear` holds the address. */
  IO: 6,
  /** The slot `linear` holds the address. */
  INVLPG: 7,
  INVPCID: 8,
  /** LGDT, LIDT, SGDT, SIDT. */
  GDTR_IDTR: 9,
  /** LLDT, LTR, SLDT, STR. */
  LDTR_TR: 10,
  /** `a`: source operand; the slot `linear` holds the address of one in memory. */
  LMSW: 11,
  MONITOR: 12,
  MWAIT: 13,
  /** `a`: control register. */
  MOV_FROM_CR: 14,
  /** `a`: control register; the value is in the slot of `i.s`. */
  MOV_TO_CR: 15,
  /** `a`: debug register, `b`: 1 for MOV from it. */
  MOV_DR: 16,
  PAUSE: 17,
  /** `a`: index of the MSR. */
  RDMSR: 18,
  WRMSR: 19,
  RDPMC: 20,
  RDTSC: 21,
  RDTSCP: 22,
  RDRAND: 23,
  RDSEED: 24,
  RSM: 25,
  WBINVD: 26,
  XSAVES: 27,
  XRSTORS: 28,
  UMWAIT: 29,
  TPAUSE: 30,
  /** `a`: selector of the TSS, `b`: source as in the exit qualification (SDM §30.2.1). */
  TASK_SWITCH: 31,
  WBNOINVD: 32,
  WRMSRNS: 33,
  /** `a`: index of the MSR, `b`: 1; before the list is looked at, 0 both. The slot `T2` holds what WRMSRLIST writes. */
  RDMSRLIST: 34,
  WRMSRLIST: 35,
  /** ENQCMD and ENQCMDS, of a PASID that has no translation; `a`: the PASID, or the low half of the source. */
  ENQCMD: 36,
  ENQCMDS: 37,
} as const;
export type Intercept = (typeof Intercept)[keyof typeof Intercept];

/** Whether the instruction exits for `cause`; the exit then is pending at the port. */
export function intercepted(cpu: Processor, i: Instruction, cause: Intercept, a = 0, b = 0): boolean {
  return cpu.nonRoot && cpu.vmxPort.intercepts(i, cause, a, b);
}

/** Instructions that a VM-execution control makes available in VMX non-root operation (SDM §28.3). */
export const Enabling = { RDTSCP: 0, INVPCID: 1, XSAVES: 2, USER_WAIT_AND_PAUSE: 3, MSR_LISTS: 4 } as const;
export type Enabling = (typeof Enabling)[keyof typeof Enabling];

/** Whether the instructions of `enabling` do not raise #UD for want of their control. */
export function isEnabled(cpu: Processor, enabling: Enabling): boolean {
  return !cpu.nonRoot || cpu.vmxPort.enables(enabling);
}

/** VMX instructions, which the processor decodes and the port executes. */
export const VmxInstruction = {
  VMXON: 0,
  VMXOFF: 1,
  VMCLEAR: 2,
  VMPTRLD: 3,
  VMPTRST: 4,
  VMREAD: 5,
  VMWRITE: 6,
  VMLAUNCH: 7,
  VMRESUME: 8,
  VMCALL: 9,
  VMFUNC: 10,
  INVEPT: 11,
  INVVPID: 12,
} as const;
export type VmxInstruction = (typeof VmxInstruction)[keyof typeof VmxInstruction];
