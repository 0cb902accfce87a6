import { raise, Vector } from './exceptions.ts';
import type { Instruction, Next } from './instruction.ts';
import type { Enabling, Intercept, VmxInstruction } from './intercept.ts';
import type { MsrAccess } from './msr-catalogue.ts';
import type { Processor } from './processor.ts';
import type { Access } from './tlb.ts';

/** Places among the events of an instruction boundary (SDM vol. 3A Table 7-2; boundary.ts) where VT-x has events of its own. */
export const BoundaryStage = {
  /** Before everything else: what VM entry or the last operation leaves to be done. */
  First: 0,
  /** After SMI and INIT, before debug traps on the previous instruction: monitor trap flag. */
  BeforeTraps: 1,
  /** After them, before NMIs: preemption timer, NMI window. */
  BeforeNmi: 2,
  /** After NMIs, before external interrupts: interrupt window, virtual interrupts. */
  BeforeInterrupts: 3,
  /** No boundary: the delivery of events goes on and on (SDM §28.2, instruction timeout). */
  Stalled: 4,
} as const;
export type BoundaryStage = (typeof BoundaryStage)[keyof typeof BoundaryStage];

/**
 * The only thing the processor knows of VT-x: the questions it asks. `src/vmx` answers them; a
 * processor without VMX, or outside VMX operation, gets the answers of {@link NO_VMX}.
 */
export interface VmxPort {
  /** Value of a VMX capability MSR (480H–4FFH), or undefined if the MSR does not exist (SDM Appendix A). */
  capabilityMsr(index: number): bigint | undefined;
  /** Whether VMX operation allows `value` in CR0 or CR4 (SDM §26.8); always true outside VMX operation. */
  allowsControlRegister(register: 'CR0' | 'CR4', value: bigint): boolean;
  /** Whether WRMSR may write IA32_RTIT_CTL now (SDM §26.8). */
  allowsRtitCtlWrite(): boolean;
  /**
   * Whether instruction `i`, executed in VMX non-root operation, exits for `cause`; the exit is then
   * pending. `a` and `b` as {@link Intercept} says.
   */
  intercepts(i: Instruction, cause: Intercept, a: number, b: number): boolean;
  /** In VMX non-root operation: whether the control of `enabling` is 1 (SDM §28.3). */
  enables(enabling: Enabling): boolean;
  /** Executes a decoded VMX instruction on `cpu`; RIP has advanced. */
  execute(cpu: Processor, instruction: VmxInstruction, i: Instruction): Next;
  /** In VMX non-root operation: what MOV from CR0 or CR4 and SMSW read (SDM §28.3). */
  visibleControlRegister(register: 'CR0' | 'CR4'): bigint;
  /** In VMX non-root operation: what a write of `source` makes of CR0 or CR4; bits of the host stay (SDM §28.3). */
  writtenControlRegister(register: 'CR0' | 'CR4', source: bigint): bigint;
  /** In VMX non-root operation: the time-stamp counter as software sees it. */
  visibleTsc(tsc: bigint): bigint;
  /** In VMX non-root operation: what RDMSR gives instead of the MSR; undefined if it is not special (SDM §28.3). */
  readSpecialMsr(index: number): bigint | undefined;
  /** In VMX non-root operation: WRMSR of a special MSR; undefined if it is not special (SDM §28.3). */
  writeSpecialMsr(index: number, value: bigint): MsrAccess | undefined;
  /** In VMX non-root operation: what MOV from CR8 gives instead of the register; −1 if it is not special (SDM §32.3). */
  readSpecialTpr(): number;
  /** In VMX non-root operation: MOV of `value` (0–15) to CR8; false if it is not special (SDM §32.3). */
  writeSpecialTpr(value: number): boolean;
  /** In VMX non-root operation: ticks that a virtual delay of TPAUSE or UMWAIT takes (SDM §28.3). */
  physicalDelay(virtual: bigint): bigint;
  /**
   * In VMX non-root operation: SENDUIPI notifies the APIC ID `destination` with `vector`; false if it does so by
   * an ordinary IPI (SDM §32.7).
   */
  virtualizesSenduipi(vector: number, destination: number): boolean;
  /**
   * Performs the VM exit that an instruction asked for (Next.VmExit) or that an access came to
   * (`raiseVmExit`); RIP is that of the instruction, or what an event being delivered would save.
   */
  exitPending(instructionLength?: number): void;

  /** Whether an SMI, which is then taken, causes a VM exit: under dual-monitor treatment (SDM §34.15.2). */
  exitsOnSmi(): boolean;
  /** Whether VMX operation blocks INIT signals (SDM §26.8). */
  blocksInit(): boolean;

  /**
   * An SMI is about to be delivered: VMX operation is left until RSM, and CR4.VMXE is 0 (SDM §34.14.1).
   * Answers the EPTP, in VMX non-root operation with "enable EPT".
   */
  entersSmm(): bigint | undefined;
  /** RSM has restored the registers: VMX operation goes on as the SMI found it (SDM §34.14.2). */
  leavesSmm(): void;

  // Accesses to the page `apicAccessPage`, at `offset` of it, that came from a linear address; false after
  // an exit was made pending in place of the access (SDM §32.4).

  /** A load of `bytes` bytes to byte offset `to` of the state. */
  loadVirtualApic(offset: number, to: number, bytes: number): boolean;
  /** A store of `bytes` bytes from byte offset `from` of the state. */
  storeVirtualApic(offset: number, from: number, bytes: number): boolean;
  /** Whether a store would be performed; it makes the exit pending if not. */
  probeVirtualApicStore(offset: number, bytes: number): boolean;
  /** ENTER: what follows a store of one byte, which is not made. */
  touchVirtualApic(offset: number): boolean;
  /** An access that is never performed: it fetches code, or goes across pages. */
  refuseVirtualApic(offset: number, access: Access): false;

  // The remaining questions are asked in VMX non-root operation only, and exits are performed at once.

  /**
   * Whether an exception, INT1, INT3 or INTO ({@link identifyEvent}; RIP as for its delivery) causes a
   * VM exit, by the exception bitmap (SDM §28.2). What #DB and #PF report is in the slots `debugCauses`
   * and `faultAddress`; the event whose delivery met it, if any, in the slots `originalEvent…`. Other
   * types of event never do.
   */
  exitsOnEvent(event: number, errorCode: number, instructionLength: number): boolean;
  /** Whether a triple fault causes a VM exit rather than shutdown. */
  exitsOnTripleFault(): boolean;
  /**
   * Whether a task switch through the IDT to the TSS of `selector` causes a VM exit (SDM §28.4.2).
   * Task switches of instructions ask `intercepts`.
   */
  exitsOnTaskSwitch(selector: number): boolean;
  /** Whether an INIT signal causes a VM exit: it does unless the guest waits for a SIPI. */
  exitsOnInit(): boolean;
  /** Whether a start-up IPI to a guest that waits for it causes a VM exit. */
  exitsOnStartUp(vector: number): boolean;
  /** Whether an NMI that is not blocked causes a VM exit. */
  exitsOnNmi(): boolean;
  /** Whether an external interrupt causes a VM exit; RFLAGS.IF and blocking have not been looked at. */
  exitsOnExternalInterrupt(): boolean;
  /**
   * Whether something of `stage` happens at this instruction boundary ({@link BoundaryStage}): an exit, or
   * an event that VT-x delivers. Asked while something asks for attention, so at each boundary while
   * Attention.Vmx is asked for again each time.
   */
  exitsAtBoundary(stage: BoundaryStage): boolean;
  /** An instruction begins (`executes`), or an event was taken before one could (SDM §28.5.2). */
  proceeds(executes: boolean): void;
  /** Whether MWAIT that interrupts end although RFLAGS.IF = 0 goes on without waiting (SDM §28.3). */
  mwaitGoesOn(): boolean;
  /** The instruction that ends has locked the bus. */
  busLocked(): void;
  /** IRET ends blocking by NMI or virtual-NMI blocking, as the controls say; whether exits report it (SDM §28.3, §30.2.3). */
  iretUnblocksNmi(): boolean;
}

export const NO_VMX: VmxPort = {
  capabilityMsr: () => undefined,
  allowsControlRegister: () => true,
  allowsRtitCtlWrite: () => true,
  intercepts: () => false,
  enables: () => true,
  execute: (cpu) => raise(cpu, Vector.UD),
  visibleControlRegister: () => 0n,
  writtenControlRegister: (_register, source) => source,
  visibleTsc: (tsc) => tsc,
  readSpecialMsr: () => undefined,
  writeSpecialMsr: () => undefined,
  readSpecialTpr: () => -1,
  writeSpecialTpr: () => false,
  physicalDelay: (virtual) => virtual,
  virtualizesSenduipi: () => false,
  exitPending: () => {},
  loadVirtualApic: () => true,
  storeVirtualApic: () => true,
  probeVirtualApicStore: () => true,
  touchVirtualApic: () => true,
  refuseVirtualApic: () => false,
  exitsOnEvent: () => false,
  exitsOnTripleFault: () => false,
  exitsOnTaskSwitch: () => false,
  exitsOnSmi: () => false,
  blocksInit: () => false,
  entersSmm: () => undefined,
  leavesSmm: () => {},
  exitsOnInit: () => false,
  exitsOnStartUp: () => false,
  exitsOnNmi: () => false,
  exitsOnExternalInterrupt: () => false,
  exitsAtBoundary: () => false,
  proceeds: () => {},
  mwaitGoesOn: () => false,
  busLocked: () => {},
  iretUnblocksNmi: () => false,
};
