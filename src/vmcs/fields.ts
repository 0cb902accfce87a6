/**
 * The VMCS field catalogue: one row a field, grouped as SDM Appendix B, encodings as printed there.
 * 205 fields; the 77 that are 64 bits wide have a second, "high" encoding, which makes 282.
 * Width, type, high access and storage slot are derived from the encoding and the row's place.
 */
import type { ControlId } from './controls.ts';
import { type FieldType, type FieldWidth, typeOf, widthInBits, widthOf } from './encoding.ts';

/** What makes a field exist: the 1-setting of a control, or a CPUID feature. */
export type FieldCondition = ControlId | 'cpuid.fred';

interface FieldRow {
  readonly encoding: number;
  readonly name: string;
  readonly existsIf: readonly FieldCondition[];
}

function field(encoding: number, name: string, ...existsIf: FieldCondition[]): FieldRow {
  return { encoding, name, existsIf };
}

const ROWS = {
  // Table B-1: 16-bit control fields
  vpid: field(0x0000, 'Virtual-processor identifier (VPID)', 'proc2.enableVpid'),
  postedInterruptNotificationVector: field(
    0x0002,
    'Posted-interrupt notification vector',
    'pin.processPostedInterrupts',
  ),
  eptpIndex: field(0x0004, 'EPTP index', 'proc2.eptViolationVe'),
  hlatPrefixSize: field(0x0006, 'HLAT prefix size', 'proc3.enableHlat'),
  lastPidPointerIndex: field(0x0008, 'Last PID-pointer index', 'proc3.ipiVirtualization'),
  virtualTimerVector: field(0x000a, 'Virtual timer vector', 'proc3.apicTimerVirtualization'),
  // Table B-2: 16-bit guest-state fields
  guestEsSelector: field(0x0800, 'Guest ES selector'),
  guestCsSelector: field(0x0802, 'Guest CS selector'),
  guestSsSelector: field(0x0804, 'Guest SS selector'),
  guestDsSelector: field(0x0806, 'Guest DS selector'),
  guestFsSelector: field(0x0808, 'Guest FS selector'),
  guestGsSelector: field(0x080a, 'Guest GS selector'),
  guestLdtrSelector: field(0x080c, 'Guest LDTR selector'),
  guestTrSelector: field(0x080e, 'Guest TR selector'),
  guestInterruptStatus: field(0x0810, 'Guest interrupt status', 'proc2.virtualInterruptDelivery'),
  pmlIndex: field(0x0812, 'PML index', 'proc2.enablePml'),
  guestUinv: field(0x0814, 'Guest UINV', 'exit.clearUinv', 'entry.loadUinv'),
  // Table B-3: 16-bit host-state fields
  hostEsSelector: field(0x0c00, 'Host ES selector'),
  hostCsSelector: field(0x0c02, 'Host CS selector'),
  hostSsSelector: field(0x0c04, 'Host SS selector'),
  hostDsSelector: field(0x0c06, 'Host DS selector'),
  hostFsSelector: field(0x0c08, 'Host FS selector'),
  hostGsSelector: field(0x0c0a, 'Host GS selector'),
  hostTrSelector: field(0x0c0c, 'Host TR selector'),
  // Table B-4: 64-bit control fields
  ioBitmapAAddress: field(0x2000, 'Address of I/O bitmap A'),
  ioBitmapBAddress: field(0x2002, 'Address of I/O bitmap B'),
  msrBitmapAddress: field(0x2004, 'Address of MSR bitmaps', 'proc.useMsrBitmaps'),
  vmExitMsrStoreAddress: field(0x2006, 'VM-exit MSR-store address'),
  vmExitMsrLoadAddress: field(0x2008, 'VM-exit MSR-load address'),
  vmEntryMsrLoadAddress: field(0x200a, 'VM-entry MSR-load address'),
  executiveVmcsPointer: field(0x200c, 'Executive-VMCS pointer'),
  pmlAddress: field(0x200e, 'PML address', 'proc2.enablePml'),
  tscOffset: field(0x2010, 'TSC offset'),
  virtualApicAddress: field(0x2012, 'Virtual-APIC address', 'proc.useTprShadow'),
  apicAccessAddress: field(0x2014, 'APIC-access address', 'proc2.virtualizeApicAccesses'),
  postedInterruptDescriptorAddress: field(
    0x2016,
    'Posted-interrupt descriptor address',
    'pin.processPostedInterrupts',
  ),
  vmFunctionControls: field(0x2018, 'VM-function controls', 'proc2.enableVmFunctions'),
  eptPointer: field(0x201a, 'EPT pointer (EPTP)', 'proc2.enableEpt'),
  eoiExitBitmap0: field(0x201c, 'EOI-exit bitmap 0 (EOI_EXIT0)', 'proc2.virtualInterruptDelivery'),
  eoiExitBitmap1: field(0x201e, 'EOI-exit bitmap 1 (EOI_EXIT1)', 'proc2.virtualInterruptDelivery'),
  eoiExitBitmap2: field(0x2020, 'EOI-exit bitmap 2 (EOI_EXIT2)', 'proc2.virtualInterruptDelivery'),
  eoiExitBitmap3: field(0x2022, 'EOI-exit bitmap 3 (EOI_EXIT3)', 'proc2.virtualInterruptDelivery'),
  eptpListAddress: field(0x2024, 'EPTP-list address', 'vmfunc.eptpSwitching'),
  vmreadBitmapAddress: field(0x2026, 'VMREAD-bitmap address', 'proc2.vmcsShadowing'),
  vmwriteBitmapAddress: field(0x2028, 'VMWRITE-bitmap address', 'proc2.vmcsShadowing'),
  virtualizationExceptionInformationAddress: field(
    0x202a,
    'Virtualization-exception information address',
    'proc2.eptViolationVe',
  ),
  xssExitingBitmap: field(0x202c, 'XSS-exiting bitmap', 'proc2.enableXsavesXrstors'),
  enclsExitingBitmap: field(0x202e, 'ENCLS-exiting bitmap', 'proc2.enableEnclsExiting'),
  sppTablePointer: field(0x2030, 'Sub-page-permission-table pointer', 'proc2.subPageWritePermissionsForEpt'),
  tscMultiplier: field(0x2032, 'TSC multiplier', 'proc2.useTscScaling'),
  tertiaryProcessorBasedControls: field(
    0x2034,
    'Tertiary processor-based VM-execution controls',
    'proc.activateTertiaryControls',
  ),
  lowPasidDirectoryAddress: field(0x2038, 'Low PASID directory address', 'proc2.pasidTranslation'),
  highPasidDirectoryAddress: field(0x203a, 'High PASID directory address', 'proc2.pasidTranslation'),
  seamSharedEptPointer: field(0x203c, 'SEAM shared EPT pointer', 'proc3.seamGuestPhysicalAddressWidth'),
  pconfigExitingBitmap: field(0x203e, 'PCONFIG-exiting bitmap', 'proc2.enablePconfig'),
  hlatPointer: field(
    0x2040,
    'Hypervisor-managed linear-address translation pointer (HLATP)',
    'proc3.enableHlat',
  ),
  pidPointerTableAddress: field(0x2042, 'PID-pointer table address', 'proc3.ipiVirtualization'),
  secondaryVmExitControls: field(0x2044, 'Secondary VM-exit controls', 'exit.activateSecondaryControls'),
  ia32SpecCtrlMask: field(0x204a, 'IA32_SPEC_CTRL mask', 'proc3.virtualizeIa32SpecCtrl'),
  ia32SpecCtrlShadow: field(0x204c, 'IA32_SPEC_CTRL shadow', 'proc3.virtualizeIa32SpecCtrl'),
  guestDeadlineShadow: field(0x204e, 'Guest deadline shadow', 'proc3.apicTimerVirtualization'),
  injectedEventData: field(0x2052, 'Injected-event data', 'cpuid.fred'),
  // Table B-5: 64-bit read-only data fields
  guestPhysicalAddress: field(0x2400, 'Guest-physical address', 'proc2.enableEpt'),
  msrData: field(0x2402, 'MSR data', 'proc3.enableMsrListInstructions'),
  originalEventData: field(0x2404, 'Original-event data', 'cpuid.fred'),
  // Table B-6: 64-bit guest-state fields
  vmcsLinkPointer: field(0x2800, 'VMCS link pointer'),
  guestIa32Debugctl: field(0x2802, 'Guest IA32_DEBUGCTL'),
  guestIa32Pat: field(0x2804, 'Guest IA32_PAT', 'entry.loadIa32Pat', 'exit.saveIa32Pat'),
  guestIa32Efer: field(0x2806, 'Guest IA32_EFER', 'entry.loadIa32Efer', 'exit.saveIa32Efer'),
  guestIa32PerfGlobalCtrl: field(0x2808, 'Guest IA32_PERF_GLOBAL_CTRL', 'entry.loadIa32PerfGlobalCtrl'),
  guestPdpte0: field(0x280a, 'Guest PDPTE0', 'proc2.enableEpt'),
  guestPdpte1: field(0x280c, 'Guest PDPTE1', 'proc2.enableEpt'),
  guestPdpte2: field(0x280e, 'Guest PDPTE2', 'proc2.enableEpt'),
  guestPdpte3: field(0x2810, 'Guest PDPTE3', 'proc2.enableEpt'),
  guestIa32Bndcfgs: field(0x2812, 'Guest IA32_BNDCFGS', 'entry.loadIa32Bndcfgs', 'exit.clearIa32Bndcfgs'),
  guestIa32RtitCtl: field(0x2814, 'Guest IA32_RTIT_CTL', 'entry.loadIa32RtitCtl', 'exit.clearIa32RtitCtl'),
  guestIa32LbrCtl: field(0x2816, 'Guest IA32_LBR_CTL', 'entry.loadGuestIa32LbrCtl', 'exit.clearIa32LbrCtl'),
  guestIa32Pkrs: field(0x2818, 'Guest IA32_PKRS', 'entry.loadPkrs'),
  guestIa32FredConfig: field(0x281a, 'Guest IA32_FRED_CONFIG', 'entry.loadFred', 'exit2.saveFred'),
  guestIa32FredRsp1: field(0x281c, 'Guest IA32_FRED_RSP1', 'entry.loadFred', 'exit2.saveFred'),
  guestIa32FredRsp2: field(0x281e, 'Guest IA32_FRED_RSP2', 'entry.loadFred', 'exit2.saveFred'),
  guestIa32FredRsp3: field(0x2820, 'Guest IA32_FRED_RSP3', 'entry.loadFred', 'exit2.saveFred'),
  guestIa32FredStklvls: field(0x2822, 'Guest IA32_FRED_STKLVLS', 'entry.loadFred', 'exit2.saveFred'),
  guestIa32FredSsp1: field(0x2824, 'Guest IA32_FRED_SSP1', 'entry.loadFred', 'exit2.saveFred'),
  guestIa32FredSsp2: field(0x2826, 'Guest IA32_FRED_SSP2', 'entry.loadFred', 'exit2.saveFred'),
  guestIa32FredSsp3: field(0x2828, 'Guest IA32_FRED_SSP3', 'entry.loadFred', 'exit2.saveFred'),
  guestIa32SpecCtrl: field(0x282e, 'Guest IA32_SPEC_CTRL', 'entry.loadIa32SpecCtrl'),
  guestDeadline: field(0x2830, 'Guest deadline', 'proc3.apicTimerVirtualization'),
  // Table B-7: 64-bit host-state fields
  hostIa32Pat: field(0x2c00, 'Host IA32_PAT', 'exit.loadIa32Pat'),
  hostIa32Efer: field(0x2c02, 'Host IA32_EFER', 'exit.loadIa32Efer'),
  hostIa32PerfGlobalCtrl: field(0x2c04, 'Host IA32_PERF_GLOBAL_CTRL', 'exit.loadIa32PerfGlobalCtrl'),
  hostIa32Pkrs: field(0x2c06, 'Host IA32_PKRS', 'exit.loadPkrs'),
  hostIa32FredConfig: field(0x2c08, 'Host IA32_FRED_CONFIG', 'exit2.loadFred'),
  hostIa32FredRsp1: field(0x2c0a, 'Host IA32_FRED_RSP1', 'exit2.loadFred'),
  hostIa32FredRsp2: field(0x2c0c, 'Host IA32_FRED_RSP2', 'exit2.loadFred'),
  hostIa32FredRsp3: field(0x2c0e, 'Host IA32_FRED_RSP3', 'exit2.loadFred'),
  hostIa32FredStklvls: field(0x2c10, 'Host IA32_FRED_STKLVLS', 'exit2.loadFred'),
  hostIa32FredSsp1: field(0x2c12, 'Host IA32_FRED_SSP1', 'exit2.loadFred'),
  hostIa32FredSsp2: field(0x2c14, 'Host IA32_FRED_SSP2', 'exit2.loadFred'),
  hostIa32FredSsp3: field(0x2c16, 'Host IA32_FRED_SSP3', 'exit2.loadFred'),
  hostIa32SpecCtrl: field(0x2c1a, 'Host IA32_SPEC_CTRL', 'exit2.loadIa32SpecCtrl'),
  // Table B-8: 32-bit control fields
  pinBasedControls: field(0x4000, 'Pin-based VM-execution controls'),
  primaryProcessorBasedControls: field(0x4002, 'Primary processor-based VM-execution controls'),
  exceptionBitmap: field(0x4004, 'Exception bitmap'),
  pageFaultErrorCodeMask: field(0x4006, 'Page-fault error-code mask'),
  pageFaultErrorCodeMatch: field(0x4008, 'Page-fault error-code match'),
  cr3TargetCount: field(0x400a, 'CR3-target count'),
  primaryVmExitControls: field(0x400c, 'Primary VM-exit controls'),
  vmExitMsrStoreCount: field(0x400e, 'VM-exit MSR-store count'),
  vmExitMsrLoadCount: field(0x4010, 'VM-exit MSR-load count'),
  vmEntryControls: field(0x4012, 'VM-entry controls'),
  vmEntryMsrLoadCount: field(0x4014, 'VM-entry MSR-load count'),
  injectedEventIdentification: field(0x4016, 'Injected-event identification'),
  injectedEventErrorCode: field(0x4018, 'Injected-event error code'),
  vmEntryInstructionLength: field(0x401a, 'VM-entry instruction length'),
  tprThreshold: field(0x401c, 'TPR threshold', 'proc.useTprShadow'),
  secondaryProcessorBasedControls: field(
    0x401e,
    'Secondary processor-based VM-execution controls',
    'proc.activateSecondaryControls',
  ),
  pleGap: field(0x4020, 'PLE_Gap', 'proc2.pauseLoopExiting'),
  pleWindow: field(0x4022, 'PLE_Window', 'proc2.pauseLoopExiting'),
  instructionTimeoutControl: field(0x4024, 'Instruction-timeout control', 'proc2.instructionTimeout'),
  seamGuestKeyId: field(0x4026, 'SEAM-guest KeyID', 'proc3.seamGuestPhysicalAddressWidth'),
  // Table B-9: 32-bit read-only data fields
  vmInstructionError: field(0x4400, 'VM-instruction error'),
  exitReason: field(0x4402, 'Exit reason'),
  exitingEventIdentification: field(0x4404, 'Exiting-event identification'),
  exitingEventErrorCode: field(0x4406, 'Exiting-event error code'),
  originalEventIdentification: field(0x4408, 'Original-event identification'),
  originalEventErrorCode: field(0x440a, 'Original-event error code'),
  vmExitInstructionLength: field(0x440c, 'VM-exit instruction length'),
  vmExitInstructionInformation: field(0x440e, 'VM-exit instruction information'),
  // Table B-10: 32-bit guest-state fields
  guestEsLimit: field(0x4800, 'Guest ES limit'),
  guestCsLimit: field(0x4802, 'Guest CS limit'),
  guestSsLimit: field(0x4804, 'Guest SS limit'),
  guestDsLimit: field(0x4806, 'Guest DS limit'),
  guestFsLimit: field(0x4808, 'Guest FS limit'),
  guestGsLimit: field(0x480a, 'Guest GS limit'),
  guestLdtrLimit: field(0x480c, 'Guest LDTR limit'),
  guestTrLimit: field(0x480e, 'Guest TR limit'),
  guestGdtrLimit: field(0x4810, 'Guest GDTR limit'),
  guestIdtrLimit: field(0x4812, 'Guest IDTR limit'),
  guestEsAccessRights: field(0x4814, 'Guest ES access rights'),
  guestCsAccessRights: field(0x4816, 'Guest CS access rights'),
  guestSsAccessRights: field(0x4818, 'Guest SS access rights'),
  guestDsAccessRights: field(0x481a, 'Guest DS access rights'),
  guestFsAccessRights: field(0x481c, 'Guest FS access rights'),
  guestGsAccessRights: field(0x481e, 'Guest GS access rights'),
  guestLdtrAccessRights: field(0x4820, 'Guest LDTR access rights'),
  guestTrAccessRights: field(0x4822, 'Guest TR access rights'),
  guestInterruptibilityState: field(0x4824, 'Guest interruptibility state'),
  guestActivityState: field(0x4826, 'Guest activity state'),
  guestSmbase: field(0x4828, 'Guest SMBASE'),
  guestIa32SysenterCs: field(0x482a, 'Guest IA32_SYSENTER_CS'),
  vmxPreemptionTimerValue: field(0x482e, 'VMX-preemption timer value', 'pin.activateVmxPreemptionTimer'),
  // Table B-11: 32-bit host-state field
  hostIa32SysenterCs: field(0x4c00, 'Host IA32_SYSENTER_CS'),
  // Table B-12: natural-width control fields
  cr0GuestHostMask: field(0x6000, 'CR0 guest/host mask'),
  cr4GuestHostMask: field(0x6002, 'CR4 guest/host mask'),
  cr0ReadShadow: field(0x6004, 'CR0 read shadow'),
  cr4ReadShadow: field(0x6006, 'CR4 read shadow'),
  cr3TargetValue0: field(0x6008, 'CR3-target value 0'),
  cr3TargetValue1: field(0x600a, 'CR3-target value 1'),
  cr3TargetValue2: field(0x600c, 'CR3-target value 2'),
  cr3TargetValue3: field(0x600e, 'CR3-target value 3'),
  // Table B-13: natural-width read-only data fields
  exitQualification: field(0x6400, 'Exit qualification'),
  ioRcx: field(0x6402, 'I/O RCX'),
  ioRsi: field(0x6404, 'I/O RSI'),
  ioRdi: field(0x6406, 'I/O RDI'),
  ioRip: field(0x6408, 'I/O RIP'),
  guestLinearAddress: field(0x640a, 'Guest-linear address'),
  // Table B-14: natural-width guest-state fields
  guestCr0: field(0x6800, 'Guest CR0'),
  guestCr3: field(0x6802, 'Guest CR3'),
  guestCr4: field(0x6804, 'Guest CR4'),
  guestEsBase: field(0x6806, 'Guest ES base'),
  guestCsBase: field(0x6808, 'Guest CS base'),
  guestSsBase: field(0x680a, 'Guest SS base'),
  guestDsBase: field(0x680c, 'Guest DS base'),
  guestFsBase: field(0x680e, 'Guest FS base'),
  guestGsBase: field(0x6810, 'Guest GS base'),
  guestLdtrBase: field(0x6812, 'Guest LDTR base'),
  guestTrBase: field(0x6814, 'Guest TR base'),
  guestGdtrBase: field(0x6816, 'Guest GDTR base'),
  guestIdtrBase: field(0x6818, 'Guest IDTR base'),
  guestDr7: field(0x681a, 'Guest DR7'),
  guestRsp: field(0x681c, 'Guest RSP'),
  guestRip: field(0x681e, 'Guest RIP'),
  guestRflags: field(0x6820, 'Guest RFLAGS'),
  guestPendingDebugExceptions: field(0x6822, 'Guest pending debug exceptions'),
  guestIa32SysenterEsp: field(0x6824, 'Guest IA32_SYSENTER_ESP'),
  guestIa32SysenterEip: field(0x6826, 'Guest IA32_SYSENTER_EIP'),
  guestIa32SCet: field(0x6828, 'Guest IA32_S_CET', 'entry.loadCetState'),
  guestSsp: field(0x682a, 'Guest SSP', 'entry.loadCetState'),
  guestIa32InterruptSspTableAddr: field(0x682c, 'Guest IA32_INTERRUPT_SSP_TABLE_ADDR', 'entry.loadCetState'),
  // Table B-15: natural-width host-state fields
  hostCr0: field(0x6c00, 'Host CR0'),
  hostCr3: field(0x6c02, 'Host CR3'),
  hostCr4: field(0x6c04, 'Host CR4'),
  hostFsBase: field(0x6c06, 'Host FS base'),
  hostGsBase: field(0x6c08, 'Host GS base'),
  hostTrBase: field(0x6c0a, 'Host TR base'),
  hostGdtrBase: field(0x6c0c, 'Host GDTR base'),
  hostIdtrBase: field(0x6c0e, 'Host IDTR base'),
  hostIa32SysenterEsp: field(0x6c10, 'Host IA32_SYSENTER_ESP'),
  hostIa32SysenterEip: field(0x6c12, 'Host IA32_SYSENTER_EIP'),
  hostRsp: field(0x6c14, 'Host RSP'),
  hostRip: field(0x6c16, 'Host RIP'),
  hostIa32SCet: field(0x6c18, 'Host IA32_S_CET', 'exit.loadCetState'),
  hostSsp: field(0x6c1a, 'Host SSP', 'exit.loadCetState'),
  hostIa32InterruptSspTableAddr: field(0x6c1c, 'Host IA32_INTERRUPT_SSP_TABLE_ADDR', 'exit.loadCetState'),
} as const satisfies Record<string, FieldRow>;

/** The name of a field as an identifier, e.g. `guestRip`. */
export type FieldName = keyof typeof ROWS;

/** One field of the VMCS. */
export interface VmcsField {
  readonly key: FieldName;
  /** The manual's name (SDM Appendix B, edition of June 2026). */
  readonly name: string;
  /** Encoding for full access. */
  readonly encoding: number;
  readonly width: FieldWidth;
  /** 16, 32 or 64; natural-width fields have 64 bits on a processor that supports Intel 64. */
  readonly bits: 16 | 32 | 64;
  readonly type: FieldType;
  /** Place in the catalogue and in a processor-held copy, 0–204. */
  readonly slot: number;
  /** The field exists if any of these holds; empty means always. */
  readonly existsIf: readonly FieldCondition[];
  /** Encoding for high access, if there is one (64-bit fields). */
  readonly highEncoding: number | undefined;
}

const entries = Object.entries(ROWS) as [FieldName, FieldRow][];

/** All fields in the order of Appendix B; the index is the slot. */
export const FIELDS: readonly VmcsField[] = entries.map(([key, row], slot) => {
  const width = widthOf(row.encoding);
  return {
    key,
    name: row.name,
    encoding: row.encoding,
    width,
    bits: widthInBits(width),
    type: typeOf(row.encoding),
    slot,
    existsIf: row.existsIf,
    highEncoding: width === 64 ? row.encoding + 1 : undefined,
  };
});

export const FIELD_COUNT = FIELDS.length;

/** Slot of each field, by name: `Field.guestRip`. */
export const Field = Object.fromEntries(FIELDS.map((f) => [f.key, f.slot])) as {
  readonly [K in FieldName]: number;
};

/** The row of a field. */
export function fieldOf(key: FieldName): VmcsField {
  return FIELDS[Field[key]] as VmcsField;
}
