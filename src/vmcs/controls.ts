/**
 * Every control bit of the VMX controls, one row a bit (SDM §27.6.1, §27.6.2, §27.6.14, §27.7.1,
 * §27.8.1): group, position, the manual's name. Which field holds a group, its default1 bits and the
 * control that activates it stand in the group table.
 */
import type { FieldName } from './fields.ts';

interface ControlGroupRow {
  readonly name: string;
  readonly field: FieldName;
  readonly bits: 32 | 64;
  /** Controls of the default1 class (SDM Appendix A.2), as a mask. */
  readonly default1: bigint;
  /** The group counts as 0 unless all of these are 1 (SDM §27.6.2, §27.7.1, §27.6.14). */
  readonly activatedBy: readonly ControlId[];
  readonly sdm: '27.6.1' | '27.6.2' | '27.6.14' | '27.7.1' | '27.8.1';
}

export type ControlGroupName = 'pin' | 'proc' | 'proc2' | 'proc3' | 'exit' | 'exit2' | 'entry' | 'vmfunc';

interface ControlRow {
  readonly group: ControlGroupName;
  readonly bit: number;
  readonly name: string;
}

function rows<const T extends Record<string, readonly [bit: number, name: string]>>(table: T): T {
  return table;
}

const PIN = rows({
  externalInterruptExiting: [0, 'External-interrupt exiting'],
  nmiExiting: [3, 'NMI exiting'],
  virtualNmis: [5, 'Virtual NMIs'],
  activateVmxPreemptionTimer: [6, 'Activate VMX-preemption timer'],
  processPostedInterrupts: [7, 'Process posted interrupts'],
});

const PROC = rows({
  interruptWindowExiting: [2, 'Interrupt-window exiting'],
  useTscOffsetting: [3, 'Use TSC offsetting'],
  hltExiting: [7, 'HLT exiting'],
  invlpgExiting: [9, 'INVLPG exiting'],
  mwaitExiting: [10, 'MWAIT exiting'],
  rdpmcExiting: [11, 'RDPMC exiting'],
  rdtscExiting: [12, 'RDTSC exiting'],
  cr3LoadExiting: [15, 'CR3-load exiting'],
  cr3StoreExiting: [16, 'CR3-store exiting'],
  activateTertiaryControls: [17, 'Activate tertiary controls'],
  cr8LoadExiting: [19, 'CR8-load exiting'],
  cr8StoreExiting: [20, 'CR8-store exiting'],
  useTprShadow: [21, 'Use TPR shadow'],
  nmiWindowExiting: [22, 'NMI-window exiting'],
  movDrExiting: [23, 'MOV-DR exiting'],
  unconditionalIoExiting: [24, 'Unconditional I/O exiting'],
  useIoBitmaps: [25, 'Use I/O bitmaps'],
  monitorTrapFlag: [27, 'Monitor trap flag'],
  useMsrBitmaps: [28, 'Use MSR bitmaps'],
  monitorExiting: [29, 'MONITOR exiting'],
  pauseExiting: [30, 'PAUSE exiting'],
  activateSecondaryControls: [31, 'Activate secondary controls'],
});

const PROC2 = rows({
  virtualizeApicAccesses: [0, 'Virtualize APIC accesses'],
  enableEpt: [1, 'Enable EPT'],
  descriptorTableExiting: [2, 'Descriptor-table exiting'],
  enableRdtscp: [3, 'Enable RDTSCP'],
  virtualizeX2apicMode: [4, 'Virtualize x2APIC mode'],
  enableVpid: [5, 'Enable VPID'],
  wbinvdExiting: [6, 'WBINVD exiting'],
  unrestrictedGuest: [7, 'Unrestricted guest'],
  apicRegisterVirtualization: [8, 'APIC-register virtualization'],
  virtualInterruptDelivery: [9, 'Virtual-interrupt delivery'],
  pauseLoopExiting: [10, 'PAUSE-loop exiting'],
  rdrandExiting: [11, 'RDRAND exiting'],
  enableInvpcid: [12, 'Enable INVPCID'],
  enableVmFunctions: [13, 'Enable VM functions'],
  vmcsShadowing: [14, 'VMCS shadowing'],
  enableEnclsExiting: [15, 'Enable ENCLS exiting'],
  rdseedExiting: [16, 'RDSEED exiting'],
  enablePml: [17, 'Enable PML'],
  eptViolationVe: [18, 'EPT-violation #VE'],
  concealVmxFromPt: [19, 'Conceal VMX from PT'],
  enableXsavesXrstors: [20, 'Enable XSAVES/XRSTORS'],
  pasidTranslation: [21, 'PASID translation'],
  modeBasedExecuteControlForEpt: [22, 'Mode-based execute control for EPT'],
  subPageWritePermissionsForEpt: [23, 'Sub-page write permissions for EPT'],
  intelPtUsesGuestPhysicalAddresses: [24, 'Intel PT uses guest physical addresses'],
  useTscScaling: [25, 'Use TSC scaling'],
  enableUserWaitAndPause: [26, 'Enable user wait and pause'],
  enablePconfig: [27, 'Enable PCONFIG'],
  vmmBusLockDetection: [30, 'VMM bus-lock detection'],
  instructionTimeout: [31, 'Instruction timeout'],
});

const PROC3 = rows({
  loadiwkeyExiting: [0, 'LOADIWKEY exiting'],
  enableHlat: [1, 'Enable HLAT'],
  eptPagingWriteControl: [2, 'EPT paging-write control'],
  guestPagingVerification: [3, 'Guest-paging verification'],
  ipiVirtualization: [4, 'IPI virtualization'],
  seamGuestPhysicalAddressWidth: [5, 'SEAM guest-physical address width'],
  enableMsrListInstructions: [6, 'Enable MSR-list instructions'],
  virtualizeIa32SpecCtrl: [7, 'Virtualize IA32_SPEC_CTRL'],
  apicTimerVirtualization: [8, 'APIC-timer virtualization'],
  enablePbndkb: [9, 'Enable PBNDKB'],
  pebsUsesGuestPhysicalAddresses: [12, 'PEBS uses guest physical addresses'],
});

const EXIT = rows({
  saveDebugControls: [2, 'Save debug controls'],
  hostAddressSpaceSize: [9, 'Host address-space size'],
  loadIa32PerfGlobalCtrl: [12, 'Load IA32_PERF_GLOBAL_CTRL'],
  acknowledgeInterruptOnExit: [15, 'Acknowledge interrupt on exit'],
  saveIa32Pat: [18, 'Save IA32_PAT'],
  loadIa32Pat: [19, 'Load IA32_PAT'],
  saveIa32Efer: [20, 'Save IA32_EFER'],
  loadIa32Efer: [21, 'Load IA32_EFER'],
  saveVmxPreemptionTimerValue: [22, 'Save VMX-preemption timer value'],
  clearIa32Bndcfgs: [23, 'Clear IA32_BNDCFGS'],
  concealVmxFromPt: [24, 'Conceal VMX from PT'],
  clearIa32RtitCtl: [25, 'Clear IA32_RTIT_CTL'],
  clearIa32LbrCtl: [26, 'Clear IA32_LBR_CTL'],
  clearUinv: [27, 'Clear UINV'],
  loadCetState: [28, 'Load CET state'],
  loadPkrs: [29, 'Load PKRS'],
  saveIa32PerfGlobalCtrl: [30, 'Save IA32_PERF_GLOBAL_CTL'],
  activateSecondaryControls: [31, 'Activate secondary controls'],
});

const EXIT2 = rows({
  saveFred: [0, 'Save FRED'],
  loadFred: [1, 'Load FRED'],
  loadIa32SpecCtrl: [2, 'Load IA32_SPEC_CTRL'],
  prematurelyBusyShadowStack: [3, 'Prematurely busy shadow stack'],
});

const ENTRY = rows({
  loadDebugControls: [2, 'Load debug controls'],
  ia32eModeGuest: [9, 'IA-32e mode guest'],
  entryToSmm: [10, 'Entry to SMM'],
  deactivateDualMonitorTreatment: [11, 'Deactivate dual-monitor treatment'],
  loadIa32PerfGlobalCtrl: [13, 'Load IA32_PERF_GLOBAL_CTRL'],
  loadIa32Pat: [14, 'Load IA32_PAT'],
  loadIa32Efer: [15, 'Load IA32_EFER'],
  loadIa32Bndcfgs: [16, 'Load IA32_BNDCFGS'],
  concealVmxFromPt: [17, 'Conceal VMX from PT'],
  loadIa32RtitCtl: [18, 'Load IA32_RTIT_CTL'],
  loadUinv: [19, 'Load UINV'],
  loadCetState: [20, 'Load CET state'],
  loadGuestIa32LbrCtl: [21, 'Load guest IA32_LBR_CTL'],
  loadPkrs: [22, 'Load PKRS'],
  loadFred: [23, 'Load FRED'],
  loadIa32SpecCtrl: [24, 'Load IA32_SPEC_CTRL'],
  allowSeamGuestTelemetry: [25, 'Allow SEAM-guest telemetry'],
});

const VMFUNC = rows({
  eptpSwitching: [0, 'EPTP switching'],
});

const TABLES = {
  pin: PIN,
  proc: PROC,
  proc2: PROC2,
  proc3: PROC3,
  exit: EXIT,
  exit2: EXIT2,
  entry: ENTRY,
  vmfunc: VMFUNC,
} as const;

/** A control, e.g. `proc2.enableEpt`: group and name. */
export type ControlId = {
  [G in ControlGroupName]: `${G}.${keyof (typeof TABLES)[G] & string}`;
}[ControlGroupName];

/** The control groups and the VMCS fields that hold them. */
export const CONTROL_GROUPS: Readonly<Record<ControlGroupName, ControlGroupRow>> = {
  pin: {
    name: 'Pin-based VM-execution controls',
    field: 'pinBasedControls',
    bits: 32,
    default1: 0x0000_0016n,
    activatedBy: [],
    sdm: '27.6.1',
  },
  proc: {
    name: 'Primary processor-based VM-execution controls',
    field: 'primaryProcessorBasedControls',
    bits: 32,
    default1: 0x0401_e172n,
    activatedBy: [],
    sdm: '27.6.2',
  },
  proc2: {
    name: 'Secondary processor-based VM-execution controls',
    field: 'secondaryProcessorBasedControls',
    bits: 32,
    default1: 0n,
    activatedBy: ['proc.activateSecondaryControls'],
    sdm: '27.6.2',
  },
  proc3: {
    name: 'Tertiary processor-based VM-execution controls',
    field: 'tertiaryProcessorBasedControls',
    bits: 64,
    default1: 0n,
    activatedBy: ['proc.activateTertiaryControls'],
    sdm: '27.6.2',
  },
  exit: {
    name: 'Primary VM-exit controls',
    field: 'primaryVmExitControls',
    bits: 32,
    default1: 0x0003_6dffn,
    activatedBy: [],
    sdm: '27.7.1',
  },
  exit2: {
    name: 'Secondary VM-exit controls',
    field: 'secondaryVmExitControls',
    bits: 64,
    default1: 0n,
    activatedBy: ['exit.activateSecondaryControls'],
    sdm: '27.7.1',
  },
  entry: {
    name: 'VM-entry controls',
    field: 'vmEntryControls',
    bits: 32,
    default1: 0x0000_11ffn,
    activatedBy: [],
    sdm: '27.8.1',
  },
  vmfunc: {
    name: 'VM-function controls',
    field: 'vmFunctionControls',
    bits: 64,
    default1: 0n,
    activatedBy: ['proc.activateSecondaryControls', 'proc2.enableVmFunctions'],
    sdm: '27.6.14',
  },
};

/** One control bit. */
export interface Control extends ControlRow {
  readonly id: ControlId;
  /** `1n << bit`, in the group's field. */
  readonly mask: bigint;
}

/** All control bits, in the order of the manual's tables. */
export const CONTROLS: readonly Control[] = Object.entries(TABLES).flatMap(([group, table]) =>
  Object.entries(table).map(([key, [bit, name]]) => ({
    id: `${group}.${key}` as ControlId,
    group: group as ControlGroupName,
    bit,
    name,
    mask: 1n << BigInt(bit),
  })),
);

const byId = new Map<ControlId, Control>(CONTROLS.map((c) => [c.id, c]));

/** The row of a control. */
export function controlOf(id: ControlId): Control {
  return byId.get(id) as Control;
}

/** Bits that the manual names in a group. */
export function namedControls(group: ControlGroupName): bigint {
  return CONTROLS.filter((c) => c.group === group).reduce((m, c) => m | c.mask, 0n);
}
