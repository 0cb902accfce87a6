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
  /** IN, OUT, INS, OUTS; `a`: port, `b`: bytes. */
  IO: 6,
  INVLPG: 7,
  INVPCID: 8,
  /** LGDT, LIDT, SGDT, SIDT. */
  GDTR_IDTR: 9,
  /** LLDT, LTR, SLDT, STR. */
  LDTR_TR: 10,
  /** `a`: source operand. */
  LMSW: 11,
  MONITOR: 12,
  MWAIT: 13,
  /** `a`: control register; `b` unused. */
  MOV_FROM_CR: 14,
  /** `a`: control register; the value is in the slot of `i.s`. */
  MOV_TO_CR: 15,
  /** MOV to or from DRn. */
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
  LOADIWKEY: 32,
  ENCLS: 33,
  ENCLV: 34,
  PCONFIG: 35,
  ENQCMD: 36,
  ENQCMDS: 37,
  WBNOINVD: 38,
  RDMSRLIST: 39,
  WRMSRLIST: 40,
} as const;
export type Intercept = (typeof Intercept)[keyof typeof Intercept];

/** Whether the instruction exits for `cause`; the exit then is pending at the port. */
export function intercepted(cpu: Processor, i: Instruction, cause: Intercept, a = 0, b = 0): boolean {
  return cpu.nonRoot && cpu.vmxPort.intercepts(i, cause, a, b);
}
