/** Why an instruction boundary needs more than the next instruction. */
export const Attention = {
  /** What was decoded or translated may no longer hold. */
  Lookup: 1,
  /** Blocking by STI or by MOV SS ends after the next instruction. */
  Blocking: 2,
  /** RFLAGS.RF is 1: it is cleared after the next instruction. */
  ResumeFlag: 4,
  /** RFLAGS.TF is 1: a single-step trap follows the next instruction. */
  SingleStep: 8,
  /** DR7 enables a breakpoint on instructions. */
  InstructionBreakpoints: 16,
  /** A debug exception is pending: a data or I/O breakpoint was met, or a trap was held back. */
  PendingDebug: 32,
  /** An event from outside may be pending: interrupt, NMI, INIT, SMI. */
  Event: 64,
  /** VT-x has something at the next boundary: VM entry was just performed, the monitor trap flag. */
  Vmx: 128,
  /** The processor is not active, or the machine stopped. */
  Inactive: 256,
  /** The next instruction has to be an ENDBRANCH. */
  Endbranch: 512,
} as const;
export type Attention = number;
