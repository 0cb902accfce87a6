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
  /** Performs the VM exit that an instruction asked for (Next.VmExit); RIP is that of the instruction. */
  exitPending(): void;
}

export const NO_VMX: VmxPort = {
  capabilityMsr: () => undefined,
  allowsControlRegister: () => true,
  allowsRtitCtlWrite: () => true,
  exitPending: () => {},
};
