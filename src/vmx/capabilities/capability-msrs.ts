/** VMX capability MSRs (SDM Appendix A): numbers, and the bits of those that are not control settings. */
import type { ControlGroupName } from '../../vmcs/controls.ts';

export const CapabilityMsr = {
  IA32_VMX_BASIC: 0x480,
  IA32_VMX_PINBASED_CTLS: 0x481,
  IA32_VMX_PROCBASED_CTLS: 0x482,
  IA32_VMX_EXIT_CTLS: 0x483,
  IA32_VMX_ENTRY_CTLS: 0x484,
  IA32_VMX_MISC: 0x485,
  IA32_VMX_CR0_FIXED0: 0x486,
  IA32_VMX_CR0_FIXED1: 0x487,
  IA32_VMX_CR4_FIXED0: 0x488,
  IA32_VMX_CR4_FIXED1: 0x489,
  IA32_VMX_VMCS_ENUM: 0x48a,
  IA32_VMX_PROCBASED_CTLS2: 0x48b,
  IA32_VMX_EPT_VPID_CAP: 0x48c,
  IA32_VMX_TRUE_PINBASED_CTLS: 0x48d,
  IA32_VMX_TRUE_PROCBASED_CTLS: 0x48e,
  IA32_VMX_TRUE_EXIT_CTLS: 0x48f,
  IA32_VMX_TRUE_ENTRY_CTLS: 0x490,
  IA32_VMX_VMFUNC: 0x491,
  IA32_VMX_PROCBASED_CTLS3: 0x492,
  IA32_VMX_EXIT_CTLS2: 0x493,
} as const;

export type CapabilityMsrName = keyof typeof CapabilityMsr;
export const CAPABILITY_MSR_NAMES = Object.keys(CapabilityMsr) as CapabilityMsrName[];

/** Values of capability MSRs; a name that is missing is an MSR that does not exist. */
export type CapabilityMsrValues = Partial<Readonly<Record<CapabilityMsrName, bigint>>>;

/**
 * Which MSR reports a group: `pair` has allowed-0 settings in bits 31:0 and allowed-1 settings in
 * 63:32 and a TRUE twin (§A.3.1 …); `high` has allowed-1 settings in 63:32 (§A.3.3); `flat` has them
 * in 63:0 (§A.3.4, §A.4.2, §A.11).
 */
export const CONTROL_GROUP_MSRS: Readonly<
  Record<
    ControlGroupName,
    {
      readonly format: 'pair' | 'high' | 'flat';
      readonly msr: CapabilityMsrName;
      readonly trueMsr?: CapabilityMsrName;
    }
  >
> = {
  pin: { format: 'pair', msr: 'IA32_VMX_PINBASED_CTLS', trueMsr: 'IA32_VMX_TRUE_PINBASED_CTLS' },
  proc: { format: 'pair', msr: 'IA32_VMX_PROCBASED_CTLS', trueMsr: 'IA32_VMX_TRUE_PROCBASED_CTLS' },
  exit: { format: 'pair', msr: 'IA32_VMX_EXIT_CTLS', trueMsr: 'IA32_VMX_TRUE_EXIT_CTLS' },
  entry: { format: 'pair', msr: 'IA32_VMX_ENTRY_CTLS', trueMsr: 'IA32_VMX_TRUE_ENTRY_CTLS' },
  proc2: { format: 'high', msr: 'IA32_VMX_PROCBASED_CTLS2' },
  proc3: { format: 'flat', msr: 'IA32_VMX_PROCBASED_CTLS3' },
  exit2: { format: 'flat', msr: 'IA32_VMX_EXIT_CTLS2' },
  vmfunc: { format: 'flat', msr: 'IA32_VMX_VMFUNC' },
};

/** Bit positions of IA32_VMX_BASIC above the revision identifier (§A.1). */
export const Basic = {
  REGION_SIZE_LOW: 32,
  ADDRESSES_32_BITS: 48,
  DUAL_MONITOR: 49,
  MEMORY_TYPE_LOW: 50,
  INS_OUTS_INFORMATION: 54,
  TRUE_CONTROLS: 55,
  ANY_ERROR_CODE: 56,
  NESTED_EXCEPTION: 58,
} as const;

/** Bit positions of IA32_VMX_MISC (§A.6). */
export const Misc = {
  STORE_LMA: 5,
  ACTIVITY_HLT: 6,
  ACTIVITY_SHUTDOWN: 7,
  ACTIVITY_WAIT_FOR_SIPI: 8,
  INTEL_PT_IN_VMX: 14,
  READ_SMBASE_IN_SMM: 15,
  CR3_TARGETS_LOW: 16,
  MSR_LIST_LOW: 25,
  SMM_MONITOR_CTL_2: 28,
  WRITE_ANY_FIELD: 29,
  ZERO_LENGTH_INJECTION: 30,
} as const;

/** Bit positions of IA32_VMX_EPT_VPID_CAP (§A.10). */
export const EptVpidCap = {
  EXECUTE_ONLY: 0,
  WALK_LENGTH_4: 6,
  WALK_LENGTH_5: 7,
  UC: 8,
  WB: 14,
  PAGE_2M: 16,
  PAGE_1G: 17,
  INVEPT: 20,
  ACCESSED_DIRTY: 21,
  ADVANCED_EXIT_INFORMATION: 22,
  SUPERVISOR_SHADOW_STACK: 23,
  INVEPT_SINGLE_CONTEXT: 25,
  INVEPT_ALL_CONTEXT: 26,
  INVVPID: 32,
  INVVPID_INDIVIDUAL_ADDRESS: 40,
  INVVPID_SINGLE_CONTEXT: 41,
  INVVPID_ALL_CONTEXT: 42,
  INVVPID_SINGLE_CONTEXT_RETAINING_GLOBALS: 43,
} as const;
