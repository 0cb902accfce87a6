/**
 * Which fields a VM entry, the guest and the next VM exit use under the current controls (SDM
 * §27.11.3): those software has to initialise. Fields that exist but are not used need no value.
 */
import type { ControlId } from '../../vmcs/controls.ts';
import { FIELDS, Field, type FieldName } from '../../vmcs/fields.ts';
import type { ProcessorCopy } from '../../vmcs/processor-copy.ts';
import { controlRef, isOn } from '../effective-controls.ts';
import type { VmxProcessor } from '../vmx-state.ts';

/** Fields that are used only if this control is 1; `never` for those no entry or exit reads. */
const USED_IF: Partial<Record<FieldName, ControlId | 'never'>> = {
  vpid: 'proc2.enableVpid',
  postedInterruptNotificationVector: 'pin.processPostedInterrupts',
  eptpIndex: 'proc2.eptViolationVe',
  hlatPrefixSize: 'proc3.enableHlat',
  lastPidPointerIndex: 'proc3.ipiVirtualization',
  virtualTimerVector: 'proc3.apicTimerVirtualization',
  guestInterruptStatus: 'proc2.virtualInterruptDelivery',
  pmlIndex: 'proc2.enablePml',
  guestUinv: 'entry.loadUinv',
  ioBitmapAAddress: 'proc.useIoBitmaps',
  ioBitmapBAddress: 'proc.useIoBitmaps',
  msrBitmapAddress: 'proc.useMsrBitmaps',
  vmExitMsrStoreAddress: 'never',
  vmExitMsrLoadAddress: 'never',
  vmEntryMsrLoadAddress: 'never',
  executiveVmcsPointer: 'never',
  pmlAddress: 'proc2.enablePml',
  tscOffset: 'proc.useTscOffsetting',
  virtualApicAddress: 'proc.useTprShadow',
  apicAccessAddress: 'proc2.virtualizeApicAccesses',
  postedInterruptDescriptorAddress: 'pin.processPostedInterrupts',
  vmFunctionControls: 'proc2.enableVmFunctions',
  eptPointer: 'proc2.enableEpt',
  eoiExitBitmap0: 'proc2.virtualInterruptDelivery',
  eoiExitBitmap1: 'proc2.virtualInterruptDelivery',
  eoiExitBitmap2: 'proc2.virtualInterruptDelivery',
  eoiExitBitmap3: 'proc2.virtualInterruptDelivery',
  eptpListAddress: 'vmfunc.eptpSwitching',
  vmreadBitmapAddress: 'proc2.vmcsShadowing',
  vmwriteBitmapAddress: 'proc2.vmcsShadowing',
  virtualizationExceptionInformationAddress: 'proc2.eptViolationVe',
  xssExitingBitmap: 'proc2.enableXsavesXrstors',
  enclsExitingBitmap: 'proc2.enableEnclsExiting',
  sppTablePointer: 'proc2.subPageWritePermissionsForEpt',
  tscMultiplier: 'proc2.useTscScaling',
  tertiaryProcessorBasedControls: 'proc.activateTertiaryControls',
  lowPasidDirectoryAddress: 'proc2.pasidTranslation',
  highPasidDirectoryAddress: 'proc2.pasidTranslation',
  pconfigExitingBitmap: 'proc2.enablePconfig',
  hlatPointer: 'proc3.enableHlat',
  pidPointerTableAddress: 'proc3.ipiVirtualization',
  secondaryVmExitControls: 'exit.activateSecondaryControls',
  ia32SpecCtrlMask: 'proc3.virtualizeIa32SpecCtrl',
  ia32SpecCtrlShadow: 'proc3.virtualizeIa32SpecCtrl',
  guestDeadlineShadow: 'proc3.apicTimerVirtualization',
  injectedEventData: 'never',
  guestIa32Debugctl: 'entry.loadDebugControls',
  guestDr7: 'entry.loadDebugControls',
  guestIa32Pat: 'entry.loadIa32Pat',
  guestIa32Efer: 'entry.loadIa32Efer',
  guestIa32PerfGlobalCtrl: 'entry.loadIa32PerfGlobalCtrl',
  guestPdpte0: 'never',
  guestPdpte1: 'never',
  guestPdpte2: 'never',
  guestPdpte3: 'never',
  guestIa32Bndcfgs: 'entry.loadIa32Bndcfgs',
  guestIa32RtitCtl: 'entry.loadIa32RtitCtl',
  guestIa32LbrCtl: 'entry.loadGuestIa32LbrCtl',
  guestIa32Pkrs: 'entry.loadPkrs',
  guestIa32FredConfig: 'entry.loadFred',
  guestIa32FredRsp1: 'entry.loadFred',
  guestIa32FredRsp2: 'entry.loadFred',
  guestIa32FredRsp3: 'entry.loadFred',
  guestIa32FredStklvls: 'entry.loadFred',
  guestIa32FredSsp1: 'entry.loadFred',
  guestIa32FredSsp2: 'entry.loadFred',
  guestIa32FredSsp3: 'entry.loadFred',
  guestIa32SpecCtrl: 'entry.loadIa32SpecCtrl',
  guestDeadline: 'proc3.apicTimerVirtualization',
  guestIa32SCet: 'entry.loadCetState',
  guestSsp: 'entry.loadCetState',
  guestIa32InterruptSspTableAddr: 'entry.loadCetState',
  guestSmbase: 'never',
  vmxPreemptionTimerValue: 'pin.activateVmxPreemptionTimer',
  hostIa32Pat: 'exit.loadIa32Pat',
  hostIa32Efer: 'exit.loadIa32Efer',
  hostIa32PerfGlobalCtrl: 'exit.loadIa32PerfGlobalCtrl',
  hostIa32Pkrs: 'exit.loadPkrs',
  hostIa32FredConfig: 'exit2.loadFred',
  hostIa32FredRsp1: 'exit2.loadFred',
  hostIa32FredRsp2: 'exit2.loadFred',
  hostIa32FredRsp3: 'exit2.loadFred',
  hostIa32FredStklvls: 'exit2.loadFred',
  hostIa32FredSsp1: 'exit2.loadFred',
  hostIa32FredSsp2: 'exit2.loadFred',
  hostIa32FredSsp3: 'exit2.loadFred',
  hostIa32SpecCtrl: 'exit2.loadIa32SpecCtrl',
  hostIa32SCet: 'exit.loadCetState',
  hostSsp: 'exit.loadCetState',
  hostIa32InterruptSspTableAddr: 'exit.loadCetState',
  injectedEventErrorCode: 'never',
  vmEntryInstructionLength: 'never',
  tprThreshold: 'proc.useTprShadow',
  secondaryProcessorBasedControls: 'proc.activateSecondaryControls',
  pleGap: 'proc2.pauseLoopExiting',
  pleWindow: 'proc2.pauseLoopExiting',
  instructionTimeoutControl: 'proc2.instructionTimeout',
  seamGuestKeyId: 'never',
  seamSharedEptPointer: 'never',
  cr3TargetValue0: 'never',
  cr3TargetValue1: 'never',
  cr3TargetValue2: 'never',
  cr3TargetValue3: 'never',
};

const ROWS = FIELDS.flatMap(({ slot, key, type }) => {
  const usedIf = USED_IF[key];
  if (type === 'exit-information' || usedIf === 'never') return [];
  return [{ slot, control: usedIf === undefined ? undefined : controlRef(usedIf) }];
});

/** MSR areas and CR3-target values are used as far as their counts say. */
const BY_COUNT = [
  { count: Field.vmExitMsrStoreCount, first: Field.vmExitMsrStoreAddress, each: false },
  { count: Field.vmExitMsrLoadCount, first: Field.vmExitMsrLoadAddress, each: false },
  { count: Field.vmEntryMsrLoadCount, first: Field.vmEntryMsrLoadAddress, each: false },
  { count: Field.cr3TargetCount, first: Field.cr3TargetValue0, each: true },
] as const;

/** Slots of the fields that are used under the controls of `copy`. */
export function usedFields(p: VmxProcessor, copy: ProcessorCopy): number[] {
  const slots: number[] = [];
  for (const { slot, control } of ROWS) {
    if (p.capabilities.fieldExists[slot] === 0) continue;
    if (control === undefined || isOn(copy, p.capabilities, control)) slots.push(slot);
  }
  for (const { count, first, each } of BY_COUNT) {
    const used = Math.min(copy.words[2 * count] as number, each ? 4 : 1);
    for (let i = 0; i < used; i++) slots.push(first + i);
  }
  return slots;
}
