/** A witness for every check on controls and on the host-state area (SDM §29.2). */
import type { ControlId } from '../../../src/vmcs/controls.ts';
import type { FieldName } from '../../../src/vmcs/fields.ts';
import { type EventIdentification, EventType, encodeEvent } from '../../../src/vmcs/formats.ts';
import type { CapabilityMsrName } from '../../../src/vmx/capabilities/capability-msrs.ts';
import { capabilitiesOf, findProfile } from '../../../src/vmx/capabilities/profiles.ts';
import { ADDRESS_SPACE_SIZE } from '../../../src/vmx/entry/checks/address-space.ts';
import { ENTRY_CONTROLS, EVENT_INJECTION } from '../../../src/vmx/entry/checks/entry-controls.ts';
import { EXECUTION_CONTROL_ADDRESSES } from '../../../src/vmx/entry/checks/execution-control-addresses.ts';
import { EXECUTION_CONTROLS } from '../../../src/vmx/entry/checks/execution-controls.ts';
import { EXIT_CONTROLS } from '../../../src/vmx/entry/checks/exit-controls.ts';
import { HOST_REGISTERS } from '../../../src/vmx/entry/checks/host-registers.ts';
import { HOST_SEGMENTS } from '../../../src/vmx/entry/checks/host-segments.ts';
import type { Witness } from '../../support/witness.ts';

export const CONTROL_LISTS = [
  EXECUTION_CONTROLS,
  EXECUTION_CONTROL_ADDRESSES,
  EXIT_CONTROLS,
  ENTRY_CONTROLS,
  EVENT_INJECTION,
  HOST_REGISTERS,
  HOST_SEGMENTS,
  ADDRESS_SPACE_SIZE,
] as const;

export type ControlCheckId = (typeof CONTROL_LISTS)[number]['rows'][number]['id'];

const one = (position: number) => 1n << BigInt(position);

/** The first bit beyond the physical-address width of `full`. */
const BEYOND = one(52);
/** Not canonical for 57 bits, nor for 48. */
const NOT_CANONICAL = one(56);
/** Canonical for 57 bits but not for 48. */
const NEEDS_57_BITS = one(47);

const full = capabilitiesOf(findProfile('full')!, 'checked').msrs;
const without = (name: CapabilityMsrName, position: number) => ({
  [name]: (full[name] ?? 0n) & ~one(position),
});
const WITHOUT_MTF = without('IA32_VMX_TRUE_PROCBASED_CTLS', 32 + 27);
const WITH_SMM_CONTROLS = {
  IA32_VMX_TRUE_ENTRY_CTLS: (full.IA32_VMX_TRUE_ENTRY_CTLS ?? 0n) | (0b11n << 42n),
};

function changed(field: FieldName, value: bigint, controls: readonly ControlId[] = []): Witness {
  return { controls, fields: { [field]: value } };
}

function page<const Name extends string>(name: Name, field: FieldName, controls: readonly ControlId[]) {
  return {
    [`ctrl.${name}.align`]: changed(field, 0x800n, controls),
    [`ctrl.${name}.width`]: changed(field, BEYOND, controls),
  } as Record<`ctrl.${Name}.${'align' | 'width'}`, Witness>;
}

function msrArea<const Name extends string>(name: Name, address: FieldName, count: FieldName) {
  const area = (at: bigint, entries: bigint): Witness => ({ fields: { [address]: at, [count]: entries } });
  return {
    [`ctrl.${name}.align`]: area(8n, 1n),
    [`ctrl.${name}.width`]: { ...area(BEYOND, 1n), also: [`ctrl.${name}.last-byte-width`] },
    [`ctrl.${name}.last-byte-width`]: area(BEYOND - 16n, 2n),
  } as Record<`ctrl.${Name}.${'align' | 'width' | 'last-byte-width'}`, Witness>;
}

function selector<const Name extends string>(name: Name, field: FieldName, legal: bigint) {
  return {
    [`host.${name}.sel-rpl`]: changed(field, legal | 1n),
    [`host.${name}.sel-ti`]: changed(field, legal | 4n),
  } as Record<`host.${Name}.${'sel-rpl' | 'sel-ti'}`, Witness>;
}

function fredPointer<const Name extends string>(name: Name, field: FieldName, misaligned: bigint) {
  return {
    [`host.fred-${name}.canonical`]: changed(field, NOT_CANONICAL, ['exit2.loadFred']),
    [`host.fred-${name}.align`]: changed(field, misaligned, ['exit2.loadFred']),
  } as Record<`host.fred-${Name}.${'canonical' | 'align'}`, Witness>;
}

/** An event to be injected; by an instruction of 2 bytes, if it is by one. */
function injecting(
  type: EventType,
  vector: number,
  flags: Partial<EventIdentification> = {},
  witness: Witness = {},
): Witness {
  const event = {
    vector,
    type,
    errorCode: false,
    nmiUnblocking: false,
    nested: false,
    valid: true,
    ...flags,
  };
  return {
    ...witness,
    fields: {
      injectedEventIdentification: BigInt(encodeEvent(event)),
      vmEntryInstructionLength: 2n,
      ...witness.fields,
    },
  };
}

/** A 32-bit host outside IA-32e mode, and a 32-bit guest. */
function host32(fields: Witness['fields'] = {}, controls: readonly ControlId[] = []): Witness {
  return {
    controls,
    off: ['exit.hostAddressSpaceSize', 'entry.ia32eModeGuest'],
    fields,
    environment: { ia32eMode: false },
  };
}

const VIRTUAL_INTERRUPTS = [
  'proc.useTprShadow',
  'pin.externalInterruptExiting',
  'proc2.virtualInterruptDelivery',
] as const;
const POSTED_INTERRUPTS = [
  ...VIRTUAL_INTERRUPTS,
  'pin.processPostedInterrupts',
  'exit.acknowledgeInterruptOnExit',
] as const;
const APIC_TIMER = [...VIRTUAL_INTERRUPTS, 'proc3.apicTimerVirtualization'] as const;
const IPI = ['proc.useTprShadow', 'proc3.ipiVirtualization'] as const;
const HLAT = ['proc2.enableEpt', 'proc3.enableHlat'] as const;
const PT_GPA = [
  'proc2.enableEpt',
  'proc2.intelPtUsesGuestPhysicalAddresses',
  'entry.loadIa32RtitCtl',
  'exit.clearIa32RtitCtl',
] as const;
const ONLY_NE = 0x20n;

export const CONTROL_WITNESSES: Record<ControlCheckId, Witness> = {
  // §29.2.1.1
  'ctrl.pin.allowed0': changed('pinBasedControls', 0n),
  'ctrl.pin.allowed1': changed('pinBasedControls', 0x116n),
  'ctrl.proc.allowed0': changed('primaryProcessorBasedControls', 0n),
  'ctrl.proc.allowed1': changed('primaryProcessorBasedControls', 0x0400_6173n),
  'ctrl.proc2.allowed1': changed('secondaryProcessorBasedControls', one(28), [
    'proc.activateSecondaryControls',
  ]),
  'ctrl.proc3.allowed1': changed('tertiaryProcessorBasedControls', one(63), [
    'proc.activateTertiaryControls',
  ]),
  'ctrl.vmfunc.allowed1': changed('vmFunctionControls', one(63), ['proc2.enableVmFunctions']),
  'ctrl.cr3-target-count.max': changed('cr3TargetCount', 5n),
  'ctrl.tpr-threshold.reserved': changed('tprThreshold', 0x10n, ['proc.useTprShadow']),
  'ctrl.tpr-threshold.le-vtpr': {
    controls: ['proc.useTprShadow'],
    fields: { virtualApicAddress: 0x5000n, tprThreshold: 5n },
    memory: [[0x5080, 0x4fn]],
  },
  'ctrl.virtual-nmis.needs-nmi-exiting': { controls: ['pin.virtualNmis'] },
  'ctrl.nmi-window.needs-virtual-nmis': { controls: ['pin.nmiExiting', 'proc.nmiWindowExiting'] },
  'ctrl.x2apic.needs-tpr-shadow': { controls: ['proc2.virtualizeX2apicMode'] },
  'ctrl.apic-register.needs-tpr-shadow': { controls: ['proc2.apicRegisterVirtualization'] },
  'ctrl.vid.needs-tpr-shadow': { controls: VIRTUAL_INTERRUPTS, off: ['proc.useTprShadow'] },
  'ctrl.ipi-virt.needs-tpr-shadow': { controls: IPI, off: ['proc.useTprShadow'] },
  'ctrl.vid.needs-ext-int-exiting': { controls: VIRTUAL_INTERRUPTS, off: ['pin.externalInterruptExiting'] },
  'ctrl.posted-int.needs-vid': { controls: POSTED_INTERRUPTS, off: ['proc2.virtualInterruptDelivery'] },
  'ctrl.posted-int.needs-ack-on-exit': {
    controls: POSTED_INTERRUPTS,
    off: ['exit.acknowledgeInterruptOnExit'],
  },
  'ctrl.ept.for-pml': { controls: ['proc2.enablePml'] },
  'ctrl.ept.for-unrestricted': { controls: ['proc2.unrestrictedGuest'] },
  'ctrl.ept.for-mbec': { controls: ['proc2.modeBasedExecuteControlForEpt'] },
  'ctrl.ept.for-spp': { controls: ['proc2.subPageWritePermissionsForEpt'] },
  'ctrl.ept.for-pt-gpa': { controls: PT_GPA, off: ['proc2.enableEpt'] },
  'ctrl.ept.for-pebs-gpa': { controls: ['proc3.pebsUsesGuestPhysicalAddresses'] },
  'ctrl.ept.for-hlat': { controls: ['proc3.enableHlat'] },
  'ctrl.ept.for-paging-write': { controls: ['proc3.eptPagingWriteControl'] },
  'ctrl.ept.for-guest-paging-verify': { controls: ['proc3.guestPagingVerification'] },
  'ctrl.vmfunc.eptp-switching-needs-ept': { controls: ['vmfunc.eptpSwitching'] },
  'ctrl.pt-gpa.needs-load-rtit': { controls: PT_GPA, off: ['entry.loadIa32RtitCtl'] },
  'ctrl.pt-gpa.needs-clear-rtit': { controls: PT_GPA, off: ['exit.clearIa32RtitCtl'] },
  'ctrl.apic-timer.needs-vid': { controls: APIC_TIMER, off: ['proc2.virtualInterruptDelivery'] },
  'ctrl.x2apic.excludes-apic-access': {
    controls: ['proc.useTprShadow', 'proc2.virtualizeX2apicMode', 'proc2.virtualizeApicAccesses'],
  },
  'ctrl.apic-timer.excludes-rdtsc-exiting': { controls: [...APIC_TIMER, 'proc.rdtscExiting'] },
  'ctrl.pt.load-rtit-while-tracing': {
    controls: ['entry.loadIa32RtitCtl'],
    environment: { traceEnabled: true },
  },
  'ctrl.posted-int.vector-range': changed('postedInterruptNotificationVector', 0x100n, POSTED_INTERRUPTS),
  'ctrl.apic-timer.vector-range': changed('virtualTimerVector', 0x100n, APIC_TIMER),
  'ctrl.vpid.nonzero': changed('vpid', 0n, ['proc2.enableVpid']),
  'ctrl.tsc-scaling.multiplier-nonzero': changed('tscMultiplier', 0n, ['proc2.useTscScaling']),
  'ctrl.eptp.memtype': changed('eptPointer', 0x1dn, ['proc2.enableEpt']),
  'ctrl.eptp.walk-length': changed('eptPointer', 0x16n, ['proc2.enableEpt']),
  'ctrl.eptp.ad-flag': {
    ...changed('eptPointer', 0x5en, ['proc2.enableEpt']),
    msrs: without('IA32_VMX_EPT_VPID_CAP', 21),
  },
  'ctrl.eptp.reserved-11-7': changed('eptPointer', 0x11en, ['proc2.enableEpt']),
  'ctrl.eptp.width': changed('eptPointer', BEYOND | 0x1en, ['proc2.enableEpt']),
  'ctrl.hlatp.reserved-2-0': changed('hlatPointer', 1n, HLAT),
  'ctrl.hlatp.reserved-11-5': changed('hlatPointer', 0x20n, HLAT),
  'ctrl.hlatp.width': changed('hlatPointer', BEYOND, HLAT),
  ...page('io-bitmap-a', 'ioBitmapAAddress', ['proc.useIoBitmaps']),
  ...page('io-bitmap-b', 'ioBitmapBAddress', ['proc.useIoBitmaps']),
  ...page('msr-bitmap', 'msrBitmapAddress', ['proc.useMsrBitmaps']),
  ...page('vapic', 'virtualApicAddress', ['proc.useTprShadow']),
  ...page('apic-access', 'apicAccessAddress', ['proc2.virtualizeApicAccesses']),
  ...page('pml', 'pmlAddress', ['proc2.enableEpt', 'proc2.enablePml']),
  ...page('sppt', 'sppTablePointer', ['proc2.enableEpt', 'proc2.subPageWritePermissionsForEpt']),
  ...page('eptp-list', 'eptpListAddress', ['proc2.enableEpt', 'vmfunc.eptpSwitching']),
  ...page('vmread-bitmap', 'vmreadBitmapAddress', ['proc2.vmcsShadowing']),
  ...page('vmwrite-bitmap', 'vmwriteBitmapAddress', ['proc2.vmcsShadowing']),
  ...page('ve-info', 'virtualizationExceptionInformationAddress', ['proc2.eptViolationVe']),
  ...page('pasid-dir-low', 'lowPasidDirectoryAddress', ['proc2.pasidTranslation']),
  ...page('pasid-dir-high', 'highPasidDirectoryAddress', ['proc2.pasidTranslation']),
  'ctrl.posted-int.desc-align': changed('postedInterruptDescriptorAddress', 0x20n, POSTED_INTERRUPTS),
  'ctrl.posted-int.desc-width': changed('postedInterruptDescriptorAddress', BEYOND, POSTED_INTERRUPTS),
  'ctrl.pid-table.align': changed('pidPointerTableAddress', 4n, IPI),
  'ctrl.pid-table.width': {
    ...changed('pidPointerTableAddress', BEYOND, IPI),
    also: ['ctrl.pid-table.last-entry-width'],
  },
  'ctrl.pid-table.last-entry-width': {
    controls: IPI,
    fields: { pidPointerTableAddress: BEYOND - 8n, lastPidPointerIndex: 1n },
  },

  // §29.2.1.2
  'ctrl.exit.allowed0': changed('primaryVmExitControls', 0x200n),
  'ctrl.exit.allowed1': {
    profile: 'tiger-lake',
    controls: ['exit.activateSecondaryControls'],
  },
  'ctrl.exit2.allowed1': changed('secondaryVmExitControls', one(63), ['exit.activateSecondaryControls']),
  'ctrl.exit.save-timer-needs-timer': { controls: ['exit.saveVmxPreemptionTimerValue'] },
  ...msrArea('exit-msr-store', 'vmExitMsrStoreAddress', 'vmExitMsrStoreCount'),
  ...msrArea('exit-msr-load', 'vmExitMsrLoadAddress', 'vmExitMsrLoadCount'),

  // §29.2.1.3
  'ctrl.entry.allowed0': changed('vmEntryControls', 0x200n),
  'ctrl.entry.allowed1': { controls: ['entry.allowSeamGuestTelemetry'] },
  ...msrArea('entry-msr-load', 'vmEntryMsrLoadAddress', 'vmEntryMsrLoadCount'),
  'ctrl.entry-to-smm.only-in-smm': {
    controls: ['entry.entryToSmm'],
    msrs: WITH_SMM_CONTROLS,
    also: ['guest.intr.smi-entry-to-smm'],
  },
  'ctrl.deactivate-dual-monitor.only-in-smm': {
    controls: ['entry.deactivateDualMonitorTreatment'],
    msrs: WITH_SMM_CONTROLS,
  },
  'ctrl.smm-controls.exclusive': {
    controls: ['entry.entryToSmm', 'entry.deactivateDualMonitorTreatment'],
    fields: { guestInterruptibilityState: 4n },
    environment: { inSmm: true },
    msrs: WITH_SMM_CONTROLS,
  },
  'inject.type.not-1': injecting(EventType.Reserved, 0),
  'inject.type.other-supported': injecting(
    EventType.Other,
    0,
    {},
    { msrs: WITHOUT_MTF, features: { fred: false }, also: ['inject.vector.other-mtf'] },
  ),
  'inject.vector.nmi': injecting(EventType.Nmi, 3),
  'inject.vector.hw-exception': injecting(EventType.HardwareException, 32),
  'inject.vector.other-range': injecting(EventType.Other, 3),
  'inject.vector.other-mtf': injecting(EventType.Other, 0, {}, { msrs: WITHOUT_MTF }),
  'inject.vector.other-fred': injecting(EventType.Other, 1),
  'inject.error-code.required': injecting(
    EventType.HardwareException,
    13,
    {},
    { msrs: without('IA32_VMX_BASIC', 56) },
  ),
  'inject.error-code.only-hw-exception': injecting(EventType.SoftwareInterrupt, 0x80, { errorCode: true }),
  'inject.error-code.not-real-mode': injecting(
    EventType.HardwareException,
    13,
    { errorCode: true },
    {
      controls: ['proc2.enableEpt', 'proc2.unrestrictedGuest'],
      off: ['entry.ia32eModeGuest'],
      fields: { guestCr0: ONLY_NE },
    },
  ),
  'inject.error-code.not-vector': injecting(
    EventType.HardwareException,
    6,
    { errorCode: true },
    { msrs: without('IA32_VMX_BASIC', 56) },
  ),
  'inject.nested.only-hw-exception': injecting(EventType.SoftwareInterrupt, 0x80, { nested: true }),
  'inject.nested.supported': injecting(
    EventType.HardwareException,
    6,
    { nested: true },
    { msrs: without('IA32_VMX_BASIC', 58) },
  ),
  'inject.reserved-bits': injecting(EventType.HardwareException, 6, { nmiUnblocking: true }),
  'inject.error-code-field.high': injecting(
    EventType.HardwareException,
    13,
    { errorCode: true },
    { fields: { injectedEventErrorCode: 0x1_0000n } },
  ),
  'inject.instr-length.max': injecting(
    EventType.SoftwareException,
    3,
    {},
    { fields: { vmEntryInstructionLength: 16n } },
  ),
  'inject.instr-length.nonzero': injecting(
    EventType.SoftwareException,
    3,
    {},
    { fields: { vmEntryInstructionLength: 0n }, msrs: without('IA32_VMX_MISC', 30) },
  ),

  // §29.2.2
  'host.cr0.fixed': changed('hostCr0', 0x8000_0001n),
  'host.cr4.fixed': changed('hostCr4', 0x20n),
  'host.cr4.cet-needs-wp': changed('hostCr4', 0x80_2020n),
  'host.cr3.width': changed('hostCr3', BEYOND),
  'host.cr3.bit63': { ...changed('hostCr3', one(63)), also: ['host.cr3.width'] },
  'host.sysenter-esp.canonical': changed('hostIa32SysenterEsp', NOT_CANONICAL),
  'host.sysenter-eip.canonical': changed('hostIa32SysenterEip', NOT_CANONICAL),
  'host.perf-global-ctrl.reserved': changed('hostIa32PerfGlobalCtrl', one(63), [
    'exit.loadIa32PerfGlobalCtrl',
  ]),
  'host.pat.memtype': changed('hostIa32Pat', 2n << 56n, ['exit.loadIa32Pat']),
  'host.efer.reserved': changed('hostIa32Efer', 0x502n, ['exit.loadIa32Efer']),
  'host.efer.lma-eq-host64': changed('hostIa32Efer', 0x100n, ['exit.loadIa32Efer']),
  'host.efer.lme-eq-host64': changed('hostIa32Efer', 0x400n, ['exit.loadIa32Efer']),
  'host.s-cet.reserved': changed('hostIa32SCet', 0x40n, ['exit.loadCetState']),
  'host.s-cet.suppress-tracker': changed('hostIa32SCet', 0xc00n, ['exit.loadCetState']),
  'host.ssp.align': changed('hostSsp', 2n, ['exit.loadCetState']),
  'host.pkrs.high': changed('hostIa32Pkrs', one(32), ['exit.loadPkrs']),
  'host.fred-config.reserved': changed('hostIa32FredConfig', 4n, ['exit2.loadFred']),
  'host.fred-config.canonical': changed('hostIa32FredConfig', NOT_CANONICAL, ['exit2.loadFred']),
  ...fredPointer('rsp1', 'hostIa32FredRsp1', 0x20n),
  ...fredPointer('rsp2', 'hostIa32FredRsp2', 0x20n),
  ...fredPointer('rsp3', 'hostIa32FredRsp3', 0x20n),
  ...fredPointer('ssp1', 'hostIa32FredSsp1', 4n),
  ...fredPointer('ssp2', 'hostIa32FredSsp2', 4n),
  ...fredPointer('ssp3', 'hostIa32FredSsp3', 4n),
  'host.spec-ctrl.reserved': changed('hostIa32SpecCtrl', one(63), ['exit2.loadIa32SpecCtrl']),

  // §29.2.3
  ...selector('cs', 'hostCsSelector', 0x08n),
  ...selector('ss', 'hostSsSelector', 0x10n),
  ...selector('ds', 'hostDsSelector', 0n),
  ...selector('es', 'hostEsSelector', 0n),
  ...selector('fs', 'hostFsSelector', 0n),
  ...selector('gs', 'hostGsSelector', 0n),
  ...selector('tr', 'hostTrSelector', 0x18n),
  'host.cs.sel-nonnull': changed('hostCsSelector', 0n),
  'host.tr.sel-nonnull': changed('hostTrSelector', 0n),
  'host.ss.sel-nonnull': host32({ hostSsSelector: 0n }),
  'host.fs.base-canonical': changed('hostFsBase', NOT_CANONICAL),
  'host.gs.base-canonical': changed('hostGsBase', NOT_CANONICAL),
  'host.gdtr.base-canonical': changed('hostGdtrBase', NOT_CANONICAL),
  'host.idtr.base-canonical': changed('hostIdtrBase', NOT_CANONICAL),
  'host.tr.base-canonical': changed('hostTrBase', NOT_CANONICAL),

  // §29.2.4
  'host.addrspace.legacy-no-ia32e-guest': {
    off: ['exit.hostAddressSpaceSize'],
    environment: { ia32eMode: false },
    also: ['host.addrspace.host32-no-ia32e-guest'],
  },
  'host.addrspace.legacy-no-host64': {
    off: ['entry.ia32eModeGuest'],
    environment: { ia32eMode: false },
  },
  'host.addrspace.long-needs-host64': { off: ['exit.hostAddressSpaceSize', 'entry.ia32eModeGuest'] },
  'host.addrspace.host32-no-ia32e-guest': {
    off: ['exit.hostAddressSpaceSize'],
    also: ['host.addrspace.long-needs-host64'],
  },
  'host.cr4.pcide-needs-host64': host32({ hostCr4: 0x2_2000n }),
  'host.cr4.fred-needs-host64': host32({ hostCr4: one(32) | 0x2000n }),
  'host.rip.high-if-host32': host32({ hostRip: one(32) }),
  'host.s-cet.high-if-host32': host32({ hostIa32SCet: one(32) }, ['exit.loadCetState']),
  'host.ssp.high-if-host32': host32({ hostSsp: one(32) }, ['exit.loadCetState']),
  'host.cr4.pae-if-host64': changed('hostCr4', 0x2000n),
  'host.rip.canonical-if-host64': changed('hostRip', NEEDS_57_BITS),
  'host.s-cet.canonical-if-host64': changed('hostIa32SCet', NOT_CANONICAL, ['exit.loadCetState']),
  'host.ssp.canonical-if-host64': changed('hostSsp', NEEDS_57_BITS, ['exit.loadCetState']),
  'host.int-ssp-table.canonical': changed('hostIa32InterruptSspTableAddr', NOT_CANONICAL, [
    'exit.loadCetState',
  ]),
  'ctrl.entry.ia32e-guest-unsupported': {
    features: { intel64: false },
    controls: ['entry.ia32eModeGuest'],
  },
  'ctrl.exit.host64-unsupported': {
    features: { intel64: false },
    controls: ['exit.hostAddressSpaceSize'],
  },
};
