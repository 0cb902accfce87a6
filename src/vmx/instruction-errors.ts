/** VM-instruction errors (SDM §33.4, Table 33-1): number, name, and what each means in our words. */

export const InstructionError = {
  VmcallInRoot: 1,
  VmclearInvalidAddress: 2,
  VmclearVmxonPointer: 3,
  VmlaunchNotClear: 4,
  VmresumeNotLaunched: 5,
  VmresumeAfterVmxoff: 6,
  EntryInvalidControl: 7,
  EntryInvalidHostState: 8,
  VmptrldInvalidAddress: 9,
  VmptrldVmxonPointer: 10,
  VmptrldWrongRevision: 11,
  UnsupportedField: 12,
  VmwriteReadOnlyField: 13,
  VmxonInRoot: 15,
  EntryInvalidExecutiveVmcs: 16,
  EntryExecutiveNotLaunched: 17,
  EntryExecutiveNotVmxonPointer: 18,
  VmcallNotClear: 19,
  VmcallInvalidExitControls: 20,
  VmcallWrongMsegRevision: 22,
  VmxoffDualMonitor: 23,
  VmcallInvalidSmmMonitorFeatures: 24,
  EntryInvalidExecutiveControls: 25,
  EntryBlockedByMovSs: 26,
  InvalidInvalidationOperand: 28,
} as const;
export type InstructionError = (typeof InstructionError)[keyof typeof InstructionError];

const MEANINGS: Readonly<Record<InstructionError, string>> = {
  1: 'VMCALL executed in VMX root operation',
  2: 'VMCLEAR with an invalid physical address',
  3: 'VMCLEAR with the VMXON pointer',
  4: 'VMLAUNCH with a VMCS whose launch state is not clear',
  5: 'VMRESUME with a VMCS whose launch state is not launched',
  6: 'VMRESUME after VMXOFF',
  7: 'VM entry with an invalid control field',
  8: 'VM entry with an invalid host-state field',
  9: 'VMPTRLD with an invalid physical address',
  10: 'VMPTRLD with the VMXON pointer',
  11: 'VMPTRLD with a wrong VMCS revision identifier',
  12: 'VMREAD or VMWRITE of a field the processor does not support',
  13: 'VMWRITE to a read-only field',
  15: 'VMXON executed in VMX root operation',
  16: 'VM entry with an invalid executive-VMCS pointer',
  17: 'VM entry with an executive VMCS that is not launched',
  18: 'VM entry with an executive-VMCS pointer that is not the VMXON pointer',
  19: 'VMCALL with a VMCS that is not clear (activating dual-monitor treatment)',
  20: 'VMCALL with invalid VM-exit control fields',
  22: 'VMCALL with a wrong MSEG revision identifier',
  23: 'VMXOFF under dual-monitor treatment of SMIs and SMM',
  24: 'VMCALL with invalid SMM-monitor features',
  25: 'VM entry with invalid VM-execution controls in the executive VMCS',
  26: 'VM entry while events are blocked by MOV SS',
  28: 'INVEPT or INVVPID with an invalid operand',
};

/** What VM-instruction error `error` means, or undefined for a number the manual does not define. */
export function instructionErrorMeaning(error: number): string | undefined {
  return (MEANINGS as Readonly<Record<number, string>>)[error];
}
