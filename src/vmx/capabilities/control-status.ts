/**
 * How much of each control is here. `checked`: its VM-entry checks and its effects on VM entry and VM
 * exit. `complete`: its behaviour in VMX non-root operation too. `absent`: neither, so that it is
 * never advertised; the reason stands in docs/deviations.md.
 */
import { CONTROLS, type ControlId } from '../../vmcs/controls.ts';

export type ControlStatus = 'absent' | 'checked' | 'complete';

/**
 * Controls whose behaviour in VMX non-root operation is here, whose whole effect is on VM entry or VM
 * exit themselves, and activators of groups.
 */
const COMPLETE: readonly ControlId[] = [
  'pin.externalInterruptExiting',
  'pin.nmiExiting',
  'pin.virtualNmis',
  'pin.activateVmxPreemptionTimer',
  'pin.processPostedInterrupts',
  'proc.interruptWindowExiting',
  'proc.useTscOffsetting',
  'proc.hltExiting',
  'proc.invlpgExiting',
  'proc.mwaitExiting',
  'proc.rdpmcExiting',
  'proc.rdtscExiting',
  'proc.cr3LoadExiting',
  'proc.cr3StoreExiting',
  'proc.cr8LoadExiting',
  'proc.cr8StoreExiting',
  'proc.useTprShadow',
  'proc.movDrExiting',
  'proc.nmiWindowExiting',
  'proc.monitorTrapFlag',
  'proc.unconditionalIoExiting',
  'proc.useIoBitmaps',
  'proc.useMsrBitmaps',
  'proc.monitorExiting',
  'proc.pauseExiting',
  'proc2.enableEpt',
  'proc2.descriptorTableExiting',
  'proc2.enableRdtscp',
  'proc2.virtualizeApicAccesses',
  'proc2.virtualizeX2apicMode',
  'proc2.enableVpid',
  'proc2.wbinvdExiting',
  'proc2.apicRegisterVirtualization',
  'proc2.virtualInterruptDelivery',
  'proc2.unrestrictedGuest',
  'proc2.pauseLoopExiting',
  'proc2.rdrandExiting',
  'proc2.enableInvpcid',
  'proc2.vmcsShadowing',
  'proc2.rdseedExiting',
  'proc2.enableXsavesXrstors',
  'proc2.useTscScaling',
  'proc2.enableUserWaitAndPause',
  'proc2.vmmBusLockDetection',
  'proc2.instructionTimeout',
  'proc2.enableVmFunctions',
  'proc2.enablePml',
  'proc2.eptViolationVe',
  'proc2.modeBasedExecuteControlForEpt',
  'proc2.subPageWritePermissionsForEpt',
  'proc3.enableHlat',
  'proc3.eptPagingWriteControl',
  'proc3.guestPagingVerification',
  'proc3.ipiVirtualization',
  'proc3.virtualizeIa32SpecCtrl',
  'proc3.apicTimerVirtualization',
  'vmfunc.eptpSwitching',
  'exit.acknowledgeInterruptOnExit',
  'exit.saveVmxPreemptionTimerValue',
  'proc.activateSecondaryControls',
  'proc.activateTertiaryControls',
  'exit.saveDebugControls',
  'exit.hostAddressSpaceSize',
  'exit.loadIa32PerfGlobalCtrl',
  'exit.saveIa32Pat',
  'exit.loadIa32Pat',
  'exit.saveIa32Efer',
  'exit.loadIa32Efer',
  'exit.clearIa32Bndcfgs',
  'exit.clearIa32RtitCtl',
  'exit.clearIa32LbrCtl',
  'exit.clearUinv',
  'exit.loadCetState',
  'exit.loadPkrs',
  'exit.saveIa32PerfGlobalCtrl',
  'exit.activateSecondaryControls',
  'exit2.saveFred',
  'exit2.loadFred',
  'exit2.loadIa32SpecCtrl',
  'entry.loadDebugControls',
  'entry.ia32eModeGuest',
  'entry.loadIa32PerfGlobalCtrl',
  'entry.loadIa32Pat',
  'entry.loadIa32Efer',
  'entry.loadIa32Bndcfgs',
  'entry.loadIa32RtitCtl',
  'entry.loadUinv',
  'entry.loadCetState',
  'entry.loadGuestIa32LbrCtl',
  'entry.loadPkrs',
  'entry.loadFred',
  'entry.loadIa32SpecCtrl',
];

/** Controls of dual-monitor treatment and of SEAM. */
const ABSENT: readonly ControlId[] = [
  'entry.entryToSmm',
  'entry.deactivateDualMonitorTreatment',
  'entry.allowSeamGuestTelemetry',
  'proc3.seamGuestPhysicalAddressWidth',
];

/** The status of every control. */
export const CONTROL_STATUS: ReadonlyMap<ControlId, ControlStatus> = new Map(
  CONTROLS.map(({ id }) => [
    id,
    COMPLETE.includes(id) ? 'complete' : ABSENT.includes(id) ? 'absent' : 'checked',
  ]),
);
