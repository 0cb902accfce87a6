/**
 * The software-use rules whose violation a machine of this kind can see (SDM §27.11 and the sections
 * named): undefined behaviour on silicon, a reported hazard here. `ub` is the row of the rule in the
 * manual's guidance; rules with a defined failure need no row, because the failure tells.
 */
import type { SdmSection } from '../../sdm/sections.ts';

export interface HazardRow {
  readonly sdm: SdmSection;
  /** `undefined`: the manual promises nothing afterwards. `lint`: allowed, but advised against. */
  readonly kind: 'undefined' | 'lint';
  /** What software must do. */
  readonly rule: string;
  /** An instance of getting it wrong. */
  readonly example: string;
}

export const HAZARDS = {
  'vmcs.active-elsewhere': {
    sdm: '27.11.1',
    kind: 'undefined',
    rule: 'A VMCS is active on at most one logical processor: VMCLEAR it on the old one before VMPTRLD on the new one.',
    example: 'CPU 1 executes VMPTRLD of a VMCS that CPU 0 never VMCLEARed.',
  },
  'vmcs.vmclear-elsewhere': {
    sdm: '27.11.1',
    kind: 'undefined',
    rule: 'VMCLEAR is executed on the logical processor on which the VMCS is active.',
    example:
      'CPU 1 executes VMCLEAR of a VMCS that is active on CPU 0; the data CPU 0 holds are not written back.',
  },
  'vmcs.shadow-active-elsewhere': {
    sdm: '27.11.1',
    kind: 'undefined',
    rule: 'A shadow VMCS that VM entry made active through the VMCS link pointer is VMCLEARed before another logical processor uses it.',
    example: 'VM entry on CPU 1 with a link pointer to a shadow VMCS that is still active on CPU 0.',
  },
  'vmcs.shadow-indicator-changed': {
    sdm: '27.11.1',
    kind: 'undefined',
    rule: 'The shadow-VMCS indicator of an active VMCS is not modified.',
    example: 'A store changes bit 31 of the first dword of an active VMCS region.',
  },
  'vmcs.memory-read': {
    sdm: '27.11.1',
    kind: 'undefined',
    rule: 'The data of an active VMCS are read with VMREAD, not with ordinary loads.',
    example: 'A load from an active VMCS region returns data that are not those of the VMCS.',
  },
  'vmcs.memory-write': {
    sdm: '27.11.1',
    kind: 'undefined',
    rule: 'The data of an active VMCS are written with VMWRITE, not with ordinary stores.',
    example: 'A store into an active VMCS region is lost, or corrupts it at the next VMCLEAR.',
  },
  'vmcs.format-dependence': {
    sdm: '27.11.1',
    kind: 'lint',
    rule: 'Fields are accessed with VMREAD and VMWRITE only, because the format of the data belongs to the revision.',
    example: 'A store into the data of an inactive VMCS region.',
  },
  'vmcs.left-active': {
    sdm: '27.11.1',
    kind: 'undefined',
    rule: 'Every active VMCS that may be used again is VMCLEARed before VMXOFF.',
    example: 'VMXOFF while two VMCSs are active; their latest data are lost.',
  },
  'vmcs.power-removed': {
    sdm: '27.11.1',
    kind: 'undefined',
    rule: 'Every active VMCS is VMCLEARed before the processor loses power or is reset.',
    example: 'RESET of a processor with an active VMCS.',
  },
  'vmcs.corrupted-use': {
    sdm: '27.11.1',
    kind: 'undefined',
    rule: 'A VMCS that may be corrupted is not used before it is initialised again.',
    example: 'VMPTRLD of a VMCS that was active when its processor left VMX operation.',
  },
  'vmcs.uninitialised-field': {
    sdm: '27.11.3',
    kind: 'undefined',
    rule: 'Every field that VM entry will use is written with VMWRITE first.',
    example: 'VMLAUNCH without ever having written the host RIP.',
  },
  'vmcs.not-cleared': {
    sdm: '27.11.3',
    kind: 'undefined',
    rule: 'A new VMCS region is initialised with VMCLEAR before its first VMPTRLD.',
    example: 'VMPTRLD of a region in which only the revision identifier was written.',
  },
  'vmcs.needless-migration': {
    sdm: '27.11.3',
    kind: 'lint',
    rule: 'A VMCS is not VMCLEARed and launched again unless it moves to another logical processor.',
    example: 'VMCLEAR, VMPTRLD and VMLAUNCH on the same processor where VMRESUME would do.',
  },
  'vmcs.region-overwritten': {
    sdm: '27.11.1',
    kind: 'undefined',
    rule: 'The memory of an active VMCS or of a VMXON region is not given another use.',
    example: 'VMXON with the address of a VMCS that is active on another processor.',
  },
  'structure.modified-in-use': {
    sdm: '27.11.4',
    kind: 'undefined',
    rule: 'A structure that the current VMCS points to is not modified while the processor is in VMX non-root operation.',
    example: 'CPU 1 stores into the MSR bitmap of a guest that is running on CPU 0.',
  },
  'vmxon.region-shared': {
    sdm: '27.11.5',
    kind: 'undefined',
    rule: 'Every logical processor has a VMXON region of its own.',
    example: 'Two processors execute VMXON with the same address.',
  },
  'vmxon.memory-access': {
    sdm: '27.11.5',
    kind: 'undefined',
    rule: 'The VMXON region is neither read nor modified between VMXON and VMXOFF.',
    example: 'A store into the VMXON region.',
  },
  'msr-area.too-long': {
    sdm: '27.7.2',
    kind: 'undefined',
    rule: 'The counts of MSR areas do not exceed the maximum that IA32_VMX_MISC[27:25] recommends.',
    example: 'VM entry with a VM-exit MSR-store count of 513 where 512 is recommended.',
  },
  'msr-area.spec-ctrl': {
    sdm: '29.4',
    kind: 'undefined',
    rule: 'IA32_SPEC_CTRL is in no MSR area while "virtualize IA32_SPEC_CTRL" is 1.',
    example: 'The VM-entry MSR-load area names MSR 48H.',
  },
  'vmwrite.high-before-full': {
    sdm: '27.11.2',
    kind: 'lint',
    rule: 'Outside 64-bit mode a 64-bit field is written with full access first and high access second.',
    example: 'VMWRITE of the high half, then of the whole field, which clears the high half again.',
  },
} as const satisfies Record<string, HazardRow>;

export type HazardId = keyof typeof HAZARDS;

/**
 * The rules UB-01 … UB-30 of the reference for software use of VMCSs: the hazards that report a
 * violation, or why none is needed or possible at this level.
 */
export const SOFTWARE_USE_RULES: Readonly<Record<string, readonly HazardId[] | string>> = {
  'UB-01': ['vmcs.active-elsewhere', 'vmcs.vmclear-elsewhere'],
  'UB-02': ['vmcs.active-elsewhere', 'vmcs.vmclear-elsewhere'],
  'UB-03': ['vmcs.shadow-active-elsewhere'],
  'UB-04': ['vmcs.shadow-indicator-changed'],
  'UB-05': ['vmcs.memory-read'],
  'UB-06': ['vmcs.memory-write'],
  'UB-07': ['vmcs.memory-read', 'vmcs.memory-write', 'vmcs.format-dependence'],
  'UB-08': 'linear mappings of a region are invisible until an access is made, which UB-05 and UB-06 report',
  'UB-09': ['vmcs.left-active'],
  'UB-10': ['vmcs.power-removed'],
  'UB-11': ['vmcs.corrupted-use'],
  'UB-12': ['vmcs.uninitialised-field'],
  'UB-13': ['vmcs.not-cleared'],
  'UB-14': ['vmcs.not-cleared'],
  'UB-15': 'VMfailValid 5',
  'UB-16': 'VMfailValid 4',
  'UB-17': ['vmcs.needless-migration'],
  'UB-18': ['structure.modified-in-use'],
  'UB-19': 'a statement, not a rule: nothing to violate',
  'UB-20': 'VMfailInvalid',
  'UB-21': 'VMfailInvalid',
  'UB-22': 'VMfailInvalid',
  'UB-23': ['vmxon.region-shared', 'vmcs.region-overwritten'],
  'UB-24': ['vmxon.memory-access'],
  'UB-25': 'VMfailValid 11 or VMfailInvalid',
  'UB-26':
    'memory types are computed with second-level address translation; physical memory here is write-back',
  'UB-27': ['msr-area.too-long'],
  'UB-28': 'VMfailValid 7 where the capability MSRs require the bit',
  'UB-29': 'VM-entry failure 33 with exit qualification 4',
  'UB-30': ['vmwrite.high-before-full'],
};
