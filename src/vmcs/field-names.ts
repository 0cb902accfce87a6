/**
 * Other names of VMCS fields: earlier editions of the manual, and the identifiers of well-known
 * software. People search for these; {@link findField} accepts them all.
 */
import { decodeEncoding } from './encoding.ts';
import { FIELDS, type FieldName, fieldOf, type VmcsField } from './fields.ts';

/** Names by field, earlier editions of the manual first. */
export const FIELD_ALIASES: Readonly<Record<FieldName, readonly string[]>> = {
  vpid: ['VIRTUAL_PROCESSOR_ID', 'VMCS_16BIT_CONTROL_VPID', 'VPID', 'VMX_VMCS16_VPID', 'VMCS_CTRL_VPID'],
  postedInterruptNotificationVector: [
    'POSTED_INTR_NV',
    'VMCS_16BIT_CONTROL_POSTED_INTERRUPT_VECTOR',
    'POSTED_INT_NOTIFICATION',
    'VMX_VMCS16_POSTED_INT_NOTIFY_VECTOR',
    'VMCS_CTRL_POSTED_INTR_NOTIFY_VECTOR',
  ],
  eptpIndex: ['VMCS_16BIT_CONTROL_EPTP_INDEX', 'EPTP_INDEX', 'VMX_VMCS16_EPTP_INDEX', 'VMCS_CTRL_EPTP_INDEX'],
  hlatPrefixSize: [
    'VMCS_16BIT_CONTROL_HLAT_PREFIX',
    'HLAT_PREFIX_SIZE',
    'VMX_VMCS16_HLAT_PREFIX_SIZE',
    'VMCS_CTRL_HLAT_PREFIX_SIZE',
  ],
  lastPidPointerIndex: [
    'LAST_PID_POINTER_INDEX',
    'VMCS_16BIT_CONTROL_LAST_PID_POINTER_INDEX',
    'LAST_PID_PTR',
    'VMCS_CTRL_LAST_PID_PTR_INDEX',
  ],
  virtualTimerVector: ['GUEST_APIC_TIMER_VECTOR', 'VMCS_16BIT_CONTROL_VIRTUAL_TIMER_VECTOR'],
  guestEsSelector: [
    'GUEST_ES_SELECTOR',
    'VMCS_16BIT_GUEST_ES_SELECTOR',
    'GUEST_SEL_ES',
    'VMX_VMCS16_GUEST_ES_SEL',
    'VMCS_GUEST_ES_SEL',
  ],
  guestCsSelector: [
    'GUEST_CS_SELECTOR',
    'VMCS_16BIT_GUEST_CS_SELECTOR',
    'GUEST_SEL_CS',
    'VMX_VMCS16_GUEST_CS_SEL',
    'VMCS_GUEST_CS_SEL',
  ],
  guestSsSelector: [
    'GUEST_SS_SELECTOR',
    'VMCS_16BIT_GUEST_SS_SELECTOR',
    'GUEST_SEL_SS',
    'VMX_VMCS16_GUEST_SS_SEL',
    'VMCS_GUEST_SS_SEL',
  ],
  guestDsSelector: [
    'GUEST_DS_SELECTOR',
    'VMCS_16BIT_GUEST_DS_SELECTOR',
    'GUEST_SEL_DS',
    'VMX_VMCS16_GUEST_DS_SEL',
    'VMCS_GUEST_DS_SEL',
  ],
  guestFsSelector: [
    'GUEST_FS_SELECTOR',
    'VMCS_16BIT_GUEST_FS_SELECTOR',
    'GUEST_SEL_FS',
    'VMX_VMCS16_GUEST_FS_SEL',
    'VMCS_GUEST_FS_SEL',
  ],
  guestGsSelector: [
    'GUEST_GS_SELECTOR',
    'VMCS_16BIT_GUEST_GS_SELECTOR',
    'GUEST_SEL_GS',
    'VMX_VMCS16_GUEST_GS_SEL',
    'VMCS_GUEST_GS_SEL',
  ],
  guestLdtrSelector: [
    'GUEST_LDTR_SELECTOR',
    'VMCS_16BIT_GUEST_LDTR_SELECTOR',
    'GUEST_SEL_LDTR',
    'VMX_VMCS16_GUEST_LDTR_SEL',
    'VMCS_GUEST_LDTR_SEL',
  ],
  guestTrSelector: [
    'GUEST_TR_SELECTOR',
    'VMCS_16BIT_GUEST_TR_SELECTOR',
    'GUEST_SEL_TR',
    'VMX_VMCS16_GUEST_TR_SEL',
    'VMCS_GUEST_TR_SEL',
  ],
  guestInterruptStatus: [
    'GUEST_INTR_STATUS',
    'VMCS_16BIT_GUEST_INTERRUPT_STATUS',
    'GUEST_INT_STATUS',
    'VMX_VMCS16_GUEST_INTR_STATUS',
    'VMCS_GUEST_INTR_STATUS',
  ],
  pmlIndex: [
    'GUEST_PML_INDEX',
    'VMCS_16BIT_GUEST_PML_INDEX',
    'PML_INDEX',
    'VMX_VMCS16_GUEST_PML_INDEX',
    'VMCS_GUEST_PML_INDEX',
  ],
  guestUinv: ['VMCS_16BIT_GUEST_UINV', 'GUEST_UINV', 'VMCS_GUEST_UINV'],
  hostEsSelector: [
    'HOST_ES_SELECTOR',
    'VMCS_16BIT_HOST_ES_SELECTOR',
    'HOST_SEL_ES',
    'VMX_VMCS16_HOST_ES_SEL',
    'VMCS_HOST_ES_SEL',
  ],
  hostCsSelector: [
    'HOST_CS_SELECTOR',
    'VMCS_16BIT_HOST_CS_SELECTOR',
    'HOST_SEL_CS',
    'VMX_VMCS16_HOST_CS_SEL',
    'VMCS_HOST_CS_SEL',
  ],
  hostSsSelector: [
    'HOST_SS_SELECTOR',
    'VMCS_16BIT_HOST_SS_SELECTOR',
    'HOST_SEL_SS',
    'VMX_VMCS16_HOST_SS_SEL',
    'VMCS_HOST_SS_SEL',
  ],
  hostDsSelector: [
    'HOST_DS_SELECTOR',
    'VMCS_16BIT_HOST_DS_SELECTOR',
    'HOST_SEL_DS',
    'VMX_VMCS16_HOST_DS_SEL',
    'VMCS_HOST_DS_SEL',
  ],
  hostFsSelector: [
    'HOST_FS_SELECTOR',
    'VMCS_16BIT_HOST_FS_SELECTOR',
    'HOST_SEL_FS',
    'VMX_VMCS16_HOST_FS_SEL',
    'VMCS_HOST_FS_SEL',
  ],
  hostGsSelector: [
    'HOST_GS_SELECTOR',
    'VMCS_16BIT_HOST_GS_SELECTOR',
    'HOST_SEL_GS',
    'VMX_VMCS16_HOST_GS_SEL',
    'VMCS_HOST_GS_SEL',
  ],
  hostTrSelector: [
    'HOST_TR_SELECTOR',
    'VMCS_16BIT_HOST_TR_SELECTOR',
    'HOST_SEL_TR',
    'VMX_VMCS16_HOST_TR_SEL',
    'VMCS_HOST_TR_SEL',
  ],
  ioBitmapAAddress: [
    'IO_BITMAP_A',
    'VMCS_64BIT_CONTROL_IO_BITMAP_A',
    'BITMAP_IO_A',
    'VMX_VMCS64_CTRL_IO_BITMAP_A_FULL',
    'VMCS_CTRL_IO_BITMAP_A',
  ],
  ioBitmapBAddress: [
    'IO_BITMAP_B',
    'VMCS_64BIT_CONTROL_IO_BITMAP_B',
    'BITMAP_IO_B',
    'VMX_VMCS64_CTRL_IO_BITMAP_B_FULL',
    'VMCS_CTRL_IO_BITMAP_B',
  ],
  msrBitmapAddress: [
    'MSR_BITMAP',
    'VMCS_64BIT_CONTROL_MSR_BITMAPS',
    'BITMAP_MSR',
    'VMX_VMCS64_CTRL_MSR_BITMAP_FULL',
    'VMCS_CTRL_MSR_BITMAP',
  ],
  vmExitMsrStoreAddress: [
    'VM_EXIT_MSR_STORE_ADDR',
    'VMCS_64BIT_CONTROL_VMEXIT_MSR_STORE_ADDR',
    'EXI_MSR_ST_ADDR',
    'VMX_VMCS64_CTRL_EXIT_MSR_STORE_FULL',
    'VMCS_CTRL_VMEXIT_MSR_STORE',
  ],
  vmExitMsrLoadAddress: [
    'VM_EXIT_MSR_LOAD_ADDR',
    'VMCS_64BIT_CONTROL_VMEXIT_MSR_LOAD_ADDR',
    'EXI_MSR_LD_ADDR',
    'VMX_VMCS64_CTRL_EXIT_MSR_LOAD_FULL',
    'VMCS_CTRL_VMEXIT_MSR_LOAD',
  ],
  vmEntryMsrLoadAddress: [
    'VM_ENTRY_MSR_LOAD_ADDR',
    'VMCS_64BIT_CONTROL_VMENTRY_MSR_LOAD_ADDR',
    'ENT_MSR_LD_ADDR',
    'VMX_VMCS64_CTRL_ENTRY_MSR_LOAD_FULL',
    'VMCS_CTRL_VMENTRY_MSR_LOAD',
  ],
  executiveVmcsPointer: [
    'VMCS_64BIT_CONTROL_EXECUTIVE_VMCS_PTR',
    'EXEC_VMCS_PTR',
    'VMX_VMCS64_CTRL_EXEC_VMCS_PTR_FULL',
    'VMCS_CTRL_EXEC_VMCS_PTR',
  ],
  pmlAddress: [
    'PML_ADDRESS',
    'VMCS_64BIT_CONTROL_PML_ADDRESS',
    'VMX_VMCS64_CTRL_EXEC_PML_ADDR_FULL',
    'VMCS_CTRL_PML_ADDR',
  ],
  tscOffset: [
    'TSC_OFFSET',
    'VMCS_64BIT_CONTROL_TSC_OFFSET',
    'VMX_VMCS64_CTRL_TSC_OFFSET_FULL',
    'VMCS_CTRL_TSC_OFFSET',
  ],
  virtualApicAddress: [
    'VIRTUAL_APIC_PAGE_ADDR',
    'VMCS_64BIT_CONTROL_VIRTUAL_APIC_PAGE_ADDR',
    'APIC_PAGE_ADDR',
    'VMX_VMCS64_CTRL_VIRT_APIC_PAGEADDR_FULL',
    'VMCS_CTRL_VAPIC_PAGEADDR',
  ],
  apicAccessAddress: [
    'APIC_ACCESS_ADDR',
    'VMCS_64BIT_CONTROL_APIC_ACCESS_ADDR',
    'APIC_ACCS_ADDR',
    'VMX_VMCS64_CTRL_APIC_ACCESSADDR_FULL',
    'VMCS_CTRL_APIC_ACCESSADDR',
  ],
  postedInterruptDescriptorAddress: [
    'POSTED_INTR_DESC_ADDR',
    'VMCS_64BIT_CONTROL_POSTED_INTERRUPT_DESC_ADDR',
    'POSTED_INT_DESC_ADDR',
    'VMX_VMCS64_CTRL_POSTED_INTR_DESC_FULL',
    'VMCS_CTRL_POSTED_INTR_DESC',
  ],
  vmFunctionControls: [
    'VM_FUNCTION_CONTROL',
    'VMCS_64BIT_CONTROL_VMFUNC_CTRLS',
    'VMFUNC_CONTROLS',
    'VMX_VMCS64_CTRL_VMFUNC_CTRLS_FULL',
    'VMCS_CTRL_VMFUNC_CTRLS',
  ],
  eptPointer: [
    'EPT_POINTER',
    'VMCS_64BIT_CONTROL_EPTPTR',
    'EPTP',
    'VMX_VMCS64_CTRL_EPTP_FULL',
    'VMCS_CTRL_EPTP',
  ],
  eoiExitBitmap0: [
    'EOI_EXIT_BITMAP0',
    'VMCS_64BIT_CONTROL_EOI_EXIT_BITMAP0',
    'BITMAP_EOI0',
    'VMX_VMCS64_CTRL_EOI_BITMAP_0_FULL',
    'VMCS_CTRL_EOI_BITMAP_0',
  ],
  eoiExitBitmap1: [
    'EOI_EXIT_BITMAP1',
    'VMCS_64BIT_CONTROL_EOI_EXIT_BITMAP1',
    'BITMAP_EOI1',
    'VMX_VMCS64_CTRL_EOI_BITMAP_1_FULL',
    'VMCS_CTRL_EOI_BITMAP_1',
  ],
  eoiExitBitmap2: [
    'EOI_EXIT_BITMAP2',
    'VMCS_64BIT_CONTROL_EOI_EXIT_BITMAP2',
    'BITMAP_EOI2',
    'VMX_VMCS64_CTRL_EOI_BITMAP_2_FULL',
    'VMCS_CTRL_EOI_BITMAP_2',
  ],
  eoiExitBitmap3: [
    'EOI_EXIT_BITMAP3',
    'VMCS_64BIT_CONTROL_EOI_EXIT_BITMAP3',
    'BITMAP_EOI3',
    'VMX_VMCS64_CTRL_EOI_BITMAP_3_FULL',
    'VMCS_CTRL_EOI_BITMAP_3',
  ],
  eptpListAddress: [
    'EPTP_LIST_ADDRESS',
    'VMCS_64BIT_CONTROL_EPTP_LIST_ADDRESS',
    'EPTP_LIST',
    'VMX_VMCS64_CTRL_EPTP_LIST_FULL',
    'VMCS_CTRL_EPTP_LIST',
  ],
  vmreadBitmapAddress: [
    'VMREAD_BITMAP',
    'VMCS_64BIT_CONTROL_VMREAD_BITMAP_ADDR',
    'BITMAP_VMREAD',
    'VMX_VMCS64_CTRL_VMREAD_BITMAP_FULL',
    'VMCS_CTRL_VMREAD_BITMAP',
  ],
  vmwriteBitmapAddress: [
    'VMWRITE_BITMAP',
    'VMCS_64BIT_CONTROL_VMWRITE_BITMAP_ADDR',
    'BITMAP_VMWRITE',
    'VMX_VMCS64_CTRL_VMWRITE_BITMAP_FULL',
    'VMCS_CTRL_VMWRITE_BITMAP',
  ],
  virtualizationExceptionInformationAddress: [
    'VE_INFORMATION_ADDRESS',
    'VMCS_64BIT_CONTROL_VE_EXCEPTION_INFO_ADDR',
    'VE_INFO_ADDRESS',
    'VMX_VMCS64_CTRL_VE_XCPT_INFO_ADDR_FULL',
    'VMCS_CTRL_VIRTXCPT_INFO_ADDR',
  ],
  xssExitingBitmap: [
    'XSS_EXIT_BITMAP',
    'VMCS_64BIT_CONTROL_XSS_EXITING_BITMAP',
    'BITMAP_XSS',
    'VMX_VMCS64_CTRL_XSS_EXITING_BITMAP_FULL',
    'VMCS_CTRL_XSS_EXITING_BITMAP',
  ],
  enclsExitingBitmap: [
    'ENCLS_EXITING_BITMAP',
    'VMCS_64BIT_CONTROL_ENCLS_EXITING_BITMAP',
    'BITMAP_ENCLS',
    'VMX_VMCS64_CTRL_ENCLS_EXITING_BITMAP_FULL',
    'VMCS_CTRL_ENCLS_EXITING_BITMAP',
  ],
  sppTablePointer: [
    'VMCS_64BIT_CONTROL_SPPTP',
    'SPP_TABLE_PTR',
    'VMX_VMCS64_CTRL_SPPTP_FULL',
    'VMCS_CTRL_SPP_TABLE_POINTER',
  ],
  tscMultiplier: [
    'TSC_MULTIPLIER',
    'VMCS_64BIT_CONTROL_TSC_MULTIPLIER',
    'VMX_VMCS64_CTRL_TSC_MULTIPLIER_FULL',
    'VMCS_CTRL_TSC_MULTIPLIER',
  ],
  tertiaryProcessorBasedControls: [
    'TERTIARY_VM_EXEC_CONTROL',
    'VMCS_64BIT_CONTROL_TERTIARY_VMEXEC_CONTROLS',
    'CPU_CONTROLS_TER',
    'VMX_VMCS64_CTRL_PROC_EXEC3_FULL',
    'VMCS_CTRL_PROC_EXEC3',
  ],
  lowPasidDirectoryAddress: [
    'VMCS_64BIT_CONTROL_LO_PASID_DIRECTORY_ADDR',
    'PASID_DIR_ADDR_LO',
    'VMCS_CTRL_LOW_PASID_DIR_ADDR',
  ],
  highPasidDirectoryAddress: [
    'VMCS_64BIT_CONTROL_HI_PASID_DIRECTORY_ADDR',
    'PASID_DIR_ADDR_HI',
    'VMCS_CTRL_HIGH_PASID_DIR_ADDR',
  ],
  seamSharedEptPointer: [
    'Shared EPT pointer',
    'SHARED_EPT_POINTER',
    'VMCS_64BIT_CONTROL_SEAM_SHARED_EPT_POINTER',
    'SHARED_EPTP',
    'VMCS_CTRL_SHARED_EPTP',
  ],
  pconfigExitingBitmap: [
    'VMCS_64BIT_CONTROL_PCONFIG_EXITING_BITMAP',
    'BITMAP_PCONFIG',
    'VMX_VMCS64_CTRL_PCONFIG_EXITING_BITMAP_FULL',
    'VMCS_CTRL_PCONFIG_BITMAP',
  ],
  hlatPointer: [
    'VMCS_64BIT_CONTROL_HLAT_POINTER',
    'HLATP',
    'VMX_VMCS64_CTRL_HLAT_PTR_FULL',
    'VMCS_CTRL_HLATP',
  ],
  pidPointerTableAddress: [
    'PID_POINTER_TABLE',
    'VMCS_64BIT_CONTROL_PID_POINTER_TABLE_ADDRESS',
    'PID_PTR',
    'VMCS_CTRL_PID_PTR_TABLE',
  ],
  secondaryVmExitControls: [
    'SECONDARY_VM_EXIT_CONTROLS',
    'VMCS_64BIT_CONTROL_SECONDARY_VMEXIT_CONTROLS',
    'EXI_CONTROLS_SEC',
    'VMX_VMCS64_CTRL_EXIT2_FULL',
    'VMCS_CTRL_SECONDARY_EXIT',
  ],
  ia32SpecCtrlMask: ['VMCS_64BIT_CONTROL_IA32_SPEC_CTRL_MASK', 'SPEC_CTRL_MASK', 'VMCS_CTRL_SPEC_CTRL_MASK'],
  ia32SpecCtrlShadow: [
    'VMCS_64BIT_CONTROL_IA32_SPEC_CTRL_SHADOW',
    'SPEC_CTRL_SHADOW',
    'VMCS_CTRL_SPEC_CTRL_SHADOW',
  ],
  guestDeadlineShadow: ['GUEST_DEADLINE_VIR', 'VMCS_64BIT_CONTROL_GUEST_DEADLINE_SHADOW'],
  injectedEventData: ['INJECTED_EVENT_DATA', 'VMCS_64BIT_CONTROL_INJECTED_EVENT_DATA', 'INJ_EVENT_DATA'],
  guestPhysicalAddress: [
    'GUEST_PHYSICAL_ADDRESS',
    'VMCS_64BIT_GUEST_PHYSICAL_ADDR',
    'VMX_VMCS64_RO_GUEST_PHYS_ADDR_FULL',
    'VMCS_GUEST_PHYS_ADDR',
  ],
  msrData: ['VMCS_64BIT_MSR_DATA', 'MSR_DATA'],
  originalEventData: ['ORIGINAL_EVENT_DATA', 'VMCS_64BIT_ORIGINAL_EVENT_DATA', 'ORG_EVENT_DATA'],
  vmcsLinkPointer: [
    'VMCS_LINK_POINTER',
    'VMCS_64BIT_GUEST_LINK_POINTER',
    'VMCS_LINK_PTR',
    'VMX_VMCS64_GUEST_VMCS_LINK_PTR_FULL',
    'VMCS_GUEST_VMCS_LINK_PTR',
  ],
  guestIa32Debugctl: [
    'GUEST_IA32_DEBUGCTL',
    'VMCS_64BIT_GUEST_IA32_DEBUGCTL',
    'GUEST_DEBUGCTL',
    'VMX_VMCS64_GUEST_DEBUGCTL_FULL',
    'VMCS_GUEST_DEBUGCTL',
  ],
  guestIa32Pat: [
    'GUEST_IA32_PAT',
    'VMCS_64BIT_GUEST_IA32_PAT',
    'GUEST_PAT',
    'VMX_VMCS64_GUEST_PAT_FULL',
    'VMCS_GUEST_PAT',
  ],
  guestIa32Efer: [
    'GUEST_IA32_EFER',
    'VMCS_64BIT_GUEST_IA32_EFER',
    'GUEST_EFER',
    'VMX_VMCS64_GUEST_EFER_FULL',
    'VMCS_GUEST_EFER',
  ],
  guestIa32PerfGlobalCtrl: [
    'GUEST_IA32_PERF_GLOBAL_CTRL',
    'VMCS_64BIT_GUEST_IA32_PERF_GLOBAL_CTRL',
    'GUEST_PERF_GLOBAL_CTRL',
    'VMX_VMCS64_GUEST_PERF_GLOBAL_CTRL_FULL',
    'VMCS_GUEST_PERF_GLOBAL_CTRL',
  ],
  guestPdpte0: [
    'GUEST_PDPTR0',
    'VMCS_64BIT_GUEST_IA32_PDPTE0',
    'GUEST_PDPTE0',
    'VMX_VMCS64_GUEST_PDPTE0_FULL',
    'VMCS_GUEST_PDPTE0',
  ],
  guestPdpte1: [
    'GUEST_PDPTR1',
    'VMCS_64BIT_GUEST_IA32_PDPTE1',
    'GUEST_PDPTE1',
    'VMX_VMCS64_GUEST_PDPTE1_FULL',
    'VMCS_GUEST_PDPTE1',
  ],
  guestPdpte2: [
    'GUEST_PDPTR2',
    'VMCS_64BIT_GUEST_IA32_PDPTE2',
    'GUEST_PDPTE2',
    'VMX_VMCS64_GUEST_PDPTE2_FULL',
    'VMCS_GUEST_PDPTE2',
  ],
  guestPdpte3: [
    'GUEST_PDPTR3',
    'VMCS_64BIT_GUEST_IA32_PDPTE3',
    'GUEST_PDPTE3',
    'VMX_VMCS64_GUEST_PDPTE3_FULL',
    'VMCS_GUEST_PDPTE3',
  ],
  guestIa32Bndcfgs: [
    'GUEST_BNDCFGS',
    'VMCS_64BIT_GUEST_IA32_BNDCFGS',
    'VMX_VMCS64_GUEST_BNDCFGS_FULL',
    'VMCS_GUEST_BNDCFGS',
  ],
  guestIa32RtitCtl: [
    'GUEST_IA32_RTIT_CTL',
    'VMCS_64BIT_GUEST_IA32_RTIT_CTL',
    'GUEST_RTIT_CTL',
    'VMX_VMCS64_GUEST_RTIT_CTL_FULL',
    'VMCS_GUEST_RTIT_CTL',
  ],
  guestIa32LbrCtl: ['GUEST_LBR_CTL', 'VMCS_GUEST_LBR_CTL'],
  guestIa32Pkrs: [
    'VMCS_64BIT_GUEST_IA32_PKRS',
    'GUEST_PKRS',
    'VMX_VMCS64_GUEST_PKRS_FULL',
    'VMCS_GUEST_PKRS',
  ],
  guestIa32FredConfig: ['GUEST_IA32_FRED_CONFIG', 'VMCS_64BIT_GUEST_IA32_FRED_CONFIG', 'GUEST_FRED_CONFIG'],
  guestIa32FredRsp1: ['GUEST_IA32_FRED_RSP1', 'VMCS_64BIT_GUEST_IA32_FRED_RSP1', 'GUEST_FRED_RSP1'],
  guestIa32FredRsp2: ['GUEST_IA32_FRED_RSP2', 'VMCS_64BIT_GUEST_IA32_FRED_RSP2', 'GUEST_FRED_RSP2'],
  guestIa32FredRsp3: ['GUEST_IA32_FRED_RSP3', 'VMCS_64BIT_GUEST_IA32_FRED_RSP3', 'GUEST_FRED_RSP3'],
  guestIa32FredStklvls: [
    'GUEST_IA32_FRED_STKLVLS',
    'VMCS_64BIT_GUEST_IA32_FRED_STACK_LEVELS',
    'GUEST_FRED_STKLVLS',
  ],
  guestIa32FredSsp1: ['VMCS_64BIT_GUEST_IA32_FRED_SSP1', 'GUEST_FRED_SSP1'],
  guestIa32FredSsp2: ['VMCS_64BIT_GUEST_IA32_FRED_SSP2', 'GUEST_FRED_SSP2'],
  guestIa32FredSsp3: ['VMCS_64BIT_GUEST_IA32_FRED_SSP3', 'GUEST_FRED_SSP3'],
  guestIa32SpecCtrl: ['VMCS_64BIT_GUEST_IA32_SPEC_CTRL'],
  guestDeadline: ['GUEST_DEADLINE_PHY', 'VMCS_64BIT_GUEST_DEADLINE'],
  hostIa32Pat: [
    'HOST_IA32_PAT',
    'VMCS_64BIT_HOST_IA32_PAT',
    'HOST_PAT',
    'VMX_VMCS64_HOST_PAT_FULL',
    'VMCS_HOST_PAT',
  ],
  hostIa32Efer: [
    'HOST_IA32_EFER',
    'VMCS_64BIT_HOST_IA32_EFER',
    'HOST_EFER',
    'VMX_VMCS64_HOST_EFER_FULL',
    'VMCS_HOST_EFER',
  ],
  hostIa32PerfGlobalCtrl: [
    'HOST_IA32_PERF_GLOBAL_CTRL',
    'VMCS_64BIT_HOST_IA32_PERF_GLOBAL_CTRL',
    'HOST_PERF_GLOBAL_CTRL',
    'VMX_VMCS64_HOST_PERF_GLOBAL_CTRL_FULL',
    'VMCS_HOST_PERF_GLOBAL_CTRL',
  ],
  hostIa32Pkrs: ['VMCS_64BIT_HOST_IA32_PKRS', 'HOST_PKRS', 'VMX_VMCS64_HOST_PKRS_FULL', 'VMCS_HOST_PKRS'],
  hostIa32FredConfig: ['VMCS_64BIT_HOST_IA32_FRED_CONFIG', 'HOST_FRED_CONFIG'],
  hostIa32FredRsp1: ['VMCS_64BIT_HOST_IA32_FRED_RSP1', 'HOST_FRED_RSP1'],
  hostIa32FredRsp2: ['VMCS_64BIT_HOST_IA32_FRED_RSP2', 'HOST_FRED_RSP2'],
  hostIa32FredRsp3: ['VMCS_64BIT_HOST_IA32_FRED_RSP3', 'HOST_FRED_RSP3'],
  hostIa32FredStklvls: ['VMCS_64BIT_HOST_IA32_FRED_STACK_LEVELS', 'HOST_FRED_STKLVLS'],
  hostIa32FredSsp1: ['VMCS_64BIT_HOST_IA32_FRED_SSP1', 'HOST_FRED_SSP1'],
  hostIa32FredSsp2: ['VMCS_64BIT_HOST_IA32_FRED_SSP2', 'HOST_FRED_SSP2'],
  hostIa32FredSsp3: ['VMCS_64BIT_HOST_IA32_FRED_SSP3', 'HOST_FRED_SSP3'],
  hostIa32SpecCtrl: ['VMCS_64BIT_HOST_IA32_SPEC_CTRL'],
  pinBasedControls: [
    'PIN_BASED_VM_EXEC_CONTROL',
    'VMCS_32BIT_CONTROL_PIN_BASED_EXEC_CONTROLS',
    'PIN_CONTROLS',
    'VMX_VMCS32_CTRL_PIN_EXEC',
    'VMCS_CTRL_PIN_EXEC',
  ],
  primaryProcessorBasedControls: [
    'CPU_BASED_VM_EXEC_CONTROL',
    'VMCS_32BIT_CONTROL_PROCESSOR_BASED_VMEXEC_CONTROLS',
    'CPU_CONTROLS_PRI',
    'VMX_VMCS32_CTRL_PROC_EXEC',
    'VMCS_CTRL_PROC_EXEC',
  ],
  exceptionBitmap: [
    'EXCEPTION_BITMAP',
    'VMCS_32BIT_CONTROL_EXECUTION_BITMAP',
    'BITMAP_EXC',
    'VMX_VMCS32_CTRL_EXCEPTION_BITMAP',
    'VMCS_CTRL_EXCEPTION_BITMAP',
  ],
  pageFaultErrorCodeMask: [
    'PAGE_FAULT_ERROR_CODE_MASK',
    'VMCS_32BIT_CONTROL_PAGE_FAULT_ERR_CODE_MASK',
    'PF_ERROR_MASK',
    'VMX_VMCS32_CTRL_PAGEFAULT_ERROR_MASK',
    'VMCS_CTRL_PAGEFAULT_ERROR_MASK',
  ],
  pageFaultErrorCodeMatch: [
    'PAGE_FAULT_ERROR_CODE_MATCH',
    'VMCS_32BIT_CONTROL_PAGE_FAULT_ERR_CODE_MATCH',
    'PF_ERROR_MATCH',
    'VMX_VMCS32_CTRL_PAGEFAULT_ERROR_MATCH',
    'VMCS_CTRL_PAGEFAULT_ERROR_MATCH',
  ],
  cr3TargetCount: [
    'CR3_TARGET_COUNT',
    'VMCS_32BIT_CONTROL_CR3_TARGET_COUNT',
    'VMX_VMCS32_CTRL_CR3_TARGET_COUNT',
    'VMCS_CTRL_CR3_TARGET_COUNT',
  ],
  primaryVmExitControls: [
    'VM-exit controls',
    'VM_EXIT_CONTROLS',
    'VMCS_32BIT_CONTROL_VMEXIT_CONTROLS',
    'EXI_CONTROLS_PRI',
    'VMX_VMCS32_CTRL_EXIT',
    'VMCS_CTRL_PRIMARY_EXIT',
  ],
  vmExitMsrStoreCount: [
    'VM_EXIT_MSR_STORE_COUNT',
    'VMCS_32BIT_CONTROL_VMEXIT_MSR_STORE_COUNT',
    'EXI_MSR_ST_CNT',
    'VMX_VMCS32_CTRL_EXIT_MSR_STORE_COUNT',
    'VMCS_CTRL_EXIT_MSR_STORE_COUNT',
  ],
  vmExitMsrLoadCount: [
    'VM_EXIT_MSR_LOAD_COUNT',
    'VMCS_32BIT_CONTROL_VMEXIT_MSR_LOAD_COUNT',
    'EXI_MSR_LD_CNT',
    'VMX_VMCS32_CTRL_EXIT_MSR_LOAD_COUNT',
    'VMCS_CTRL_EXIT_MSR_LOAD_COUNT',
  ],
  vmEntryControls: [
    'VM_ENTRY_CONTROLS',
    'VMCS_32BIT_CONTROL_VMENTRY_CONTROLS',
    'ENT_CONTROLS',
    'VMX_VMCS32_CTRL_ENTRY',
    'VMCS_CTRL_ENTRY',
  ],
  vmEntryMsrLoadCount: [
    'VM_ENTRY_MSR_LOAD_COUNT',
    'VMCS_32BIT_CONTROL_VMENTRY_MSR_LOAD_COUNT',
    'ENT_MSR_LD_CNT',
    'VMX_VMCS32_CTRL_ENTRY_MSR_LOAD_COUNT',
    'VMCS_CTRL_ENTRY_MSR_LOAD_COUNT',
  ],
  injectedEventIdentification: [
    'VM-entry interruption-information field',
    'VM_ENTRY_INTR_INFO_FIELD',
    'VMCS_32BIT_CONTROL_VMENTRY_INTERRUPTION_INFO',
    'INJ_EVENT_IDENT',
    'VMX_VMCS32_CTRL_ENTRY_INTERRUPTION_INFO',
    'VMCS_CTRL_ENTRY_INTERRUPTION_INFO',
  ],
  injectedEventErrorCode: [
    'VM-entry exception error code',
    'VM_ENTRY_EXCEPTION_ERROR_CODE',
    'VMCS_32BIT_CONTROL_VMENTRY_EXCEPTION_ERR_CODE',
    'INJ_EVENT_ERROR',
    'VMX_VMCS32_CTRL_ENTRY_EXCEPTION_ERRCODE',
    'VMCS_CTRL_ENTRY_EXCEPTION_ERRCODE',
  ],
  vmEntryInstructionLength: [
    'VM_ENTRY_INSTRUCTION_LEN',
    'VMCS_32BIT_CONTROL_VMENTRY_INSTRUCTION_LENGTH',
    'ENT_INST_LEN',
    'VMX_VMCS32_CTRL_ENTRY_INSTR_LENGTH',
    'VMCS_CTRL_ENTRY_INSTR_LENGTH',
  ],
  tprThreshold: [
    'TPR_THRESHOLD',
    'VMCS_32BIT_CONTROL_TPR_THRESHOLD',
    'VMX_VMCS32_CTRL_TPR_THRESHOLD',
    'VMCS_CTRL_TPR_THRESHOLD',
  ],
  secondaryProcessorBasedControls: [
    'SECONDARY_VM_EXEC_CONTROL',
    'VMCS_32BIT_CONTROL_SECONDARY_VMEXEC_CONTROLS',
    'CPU_CONTROLS_SEC',
    'VMX_VMCS32_CTRL_PROC_EXEC2',
    'VMCS_CTRL_PROC_EXEC2',
  ],
  pleGap: [
    'PLE_GAP',
    'VMCS_32BIT_CONTROL_PAUSE_LOOP_EXITING_GAP',
    'VMX_VMCS32_CTRL_PLE_GAP',
    'VMCS_CTRL_PLE_GAP',
  ],
  pleWindow: [
    'PLE_WINDOW',
    'VMCS_32BIT_CONTROL_PAUSE_LOOP_EXITING_WINDOW',
    'VMX_VMCS32_CTRL_PLE_WINDOW',
    'VMCS_CTRL_PLE_WINDOW',
  ],
  instructionTimeoutControl: ['NOTIFY_WINDOW', 'VMCS_32BIT_CONTROL_INSTRUCTION_TIMEOUT_CTRL', 'INST_TIMEOUT'],
  seamGuestKeyId: ['VMCS_32BIT_CONTROL_SEAM_GUEST_KEYID'],
  vmInstructionError: [
    'VM_INSTRUCTION_ERROR',
    'VMCS_32BIT_INSTRUCTION_ERROR',
    'VMX_INST_ERROR',
    'VMX_VMCS32_RO_VM_INSTR_ERROR',
    'VMCS_VM_INSTR_ERROR',
  ],
  exitReason: [
    'VM_EXIT_REASON',
    'VMCS_32BIT_VMEXIT_REASON',
    'EXI_REASON',
    'VMX_VMCS32_RO_EXIT_REASON',
    'VMCS_EXIT_REASON',
  ],
  exitingEventIdentification: [
    'VM-exit interruption information',
    'VM_EXIT_INTR_INFO',
    'VMCS_32BIT_VMEXIT_INTERRUPTION_INFO',
    'EXI_EVENT_IDENT',
    'VMX_VMCS32_RO_EXIT_INTERRUPTION_INFO',
    'VMCS_EXIT_INTERRUPTION_INFO',
  ],
  exitingEventErrorCode: [
    'VM-exit interruption error code',
    'VM_EXIT_INTR_ERROR_CODE',
    'VMCS_32BIT_VMEXIT_INTERRUPTION_ERR_CODE',
    'EXI_EVENT_ERROR',
    'VMX_VMCS32_RO_EXIT_INTERRUPTION_ERROR_CODE',
    'VMCS_EXIT_INTERRUPTION_ERROR_CODE',
  ],
  originalEventIdentification: [
    'IDT-vectoring information field',
    'IDT_VECTORING_INFO_FIELD',
    'VMCS_32BIT_IDT_VECTORING_INFO',
    'ORG_EVENT_IDENT',
    'VMX_VMCS32_RO_IDT_VECTORING_INFO',
    'VMCS_IDT_VECTORING_INFO',
  ],
  originalEventErrorCode: [
    'IDT-vectoring error code',
    'IDT_VECTORING_ERROR_CODE',
    'VMCS_32BIT_IDT_VECTORING_ERR_CODE',
    'ORG_EVENT_ERROR',
    'VMX_VMCS32_RO_IDT_VECTORING_ERROR_CODE',
    'VMCS_IDT_VECTORING_ERROR_CODE',
  ],
  vmExitInstructionLength: [
    'VM_EXIT_INSTRUCTION_LEN',
    'VMCS_32BIT_VMEXIT_INSTRUCTION_LENGTH',
    'EXI_INST_LEN',
    'VMX_VMCS32_RO_EXIT_INSTR_LENGTH',
    'VMCS_EXIT_INSTR_LENGTH',
  ],
  vmExitInstructionInformation: [
    'VMX_INSTRUCTION_INFO',
    'VMCS_32BIT_VMEXIT_INSTRUCTION_INFO',
    'EXI_INST_INFO',
    'VMX_VMCS32_RO_EXIT_INSTR_INFO',
    'VMCS_EXIT_INSTR_INFO',
  ],
  guestEsLimit: [
    'GUEST_ES_LIMIT',
    'VMCS_32BIT_GUEST_ES_LIMIT',
    'GUEST_LIMIT_ES',
    'VMX_VMCS32_GUEST_ES_LIMIT',
    'VMCS_GUEST_ES_LIMIT',
  ],
  guestCsLimit: [
    'GUEST_CS_LIMIT',
    'VMCS_32BIT_GUEST_CS_LIMIT',
    'GUEST_LIMIT_CS',
    'VMX_VMCS32_GUEST_CS_LIMIT',
    'VMCS_GUEST_CS_LIMIT',
  ],
  guestSsLimit: [
    'GUEST_SS_LIMIT',
    'VMCS_32BIT_GUEST_SS_LIMIT',
    'GUEST_LIMIT_SS',
    'VMX_VMCS32_GUEST_SS_LIMIT',
    'VMCS_GUEST_SS_LIMIT',
  ],
  guestDsLimit: [
    'GUEST_DS_LIMIT',
    'VMCS_32BIT_GUEST_DS_LIMIT',
    'GUEST_LIMIT_DS',
    'VMX_VMCS32_GUEST_DS_LIMIT',
    'VMCS_GUEST_DS_LIMIT',
  ],
  guestFsLimit: [
    'GUEST_FS_LIMIT',
    'VMCS_32BIT_GUEST_FS_LIMIT',
    'GUEST_LIMIT_FS',
    'VMX_VMCS32_GUEST_FS_LIMIT',
    'VMCS_GUEST_FS_LIMIT',
  ],
  guestGsLimit: [
    'GUEST_GS_LIMIT',
    'VMCS_32BIT_GUEST_GS_LIMIT',
    'GUEST_LIMIT_GS',
    'VMX_VMCS32_GUEST_GS_LIMIT',
    'VMCS_GUEST_GS_LIMIT',
  ],
  guestLdtrLimit: [
    'GUEST_LDTR_LIMIT',
    'VMCS_32BIT_GUEST_LDTR_LIMIT',
    'GUEST_LIMIT_LDTR',
    'VMX_VMCS32_GUEST_LDTR_LIMIT',
    'VMCS_GUEST_LDTR_LIMIT',
  ],
  guestTrLimit: [
    'GUEST_TR_LIMIT',
    'VMCS_32BIT_GUEST_TR_LIMIT',
    'GUEST_LIMIT_TR',
    'VMX_VMCS32_GUEST_TR_LIMIT',
    'VMCS_GUEST_TR_LIMIT',
  ],
  guestGdtrLimit: [
    'GUEST_GDTR_LIMIT',
    'VMCS_32BIT_GUEST_GDTR_LIMIT',
    'GUEST_LIMIT_GDTR',
    'VMX_VMCS32_GUEST_GDTR_LIMIT',
    'VMCS_GUEST_GDTR_LIMIT',
  ],
  guestIdtrLimit: [
    'GUEST_IDTR_LIMIT',
    'VMCS_32BIT_GUEST_IDTR_LIMIT',
    'GUEST_LIMIT_IDTR',
    'VMX_VMCS32_GUEST_IDTR_LIMIT',
    'VMCS_GUEST_IDTR_LIMIT',
  ],
  guestEsAccessRights: [
    'GUEST_ES_AR_BYTES',
    'VMCS_32BIT_GUEST_ES_ACCESS_RIGHTS',
    'GUEST_AR_ES',
    'VMX_VMCS32_GUEST_ES_ACCESS_RIGHTS',
    'VMCS_GUEST_ES_ACCESS_RIGHTS',
  ],
  guestCsAccessRights: [
    'GUEST_CS_AR_BYTES',
    'VMCS_32BIT_GUEST_CS_ACCESS_RIGHTS',
    'GUEST_AR_CS',
    'VMX_VMCS32_GUEST_CS_ACCESS_RIGHTS',
    'VMCS_GUEST_CS_ACCESS_RIGHTS',
  ],
  guestSsAccessRights: [
    'GUEST_SS_AR_BYTES',
    'VMCS_32BIT_GUEST_SS_ACCESS_RIGHTS',
    'GUEST_AR_SS',
    'VMX_VMCS32_GUEST_SS_ACCESS_RIGHTS',
    'VMCS_GUEST_SS_ACCESS_RIGHTS',
  ],
  guestDsAccessRights: [
    'GUEST_DS_AR_BYTES',
    'VMCS_32BIT_GUEST_DS_ACCESS_RIGHTS',
    'GUEST_AR_DS',
    'VMX_VMCS32_GUEST_DS_ACCESS_RIGHTS',
    'VMCS_GUEST_DS_ACCESS_RIGHTS',
  ],
  guestFsAccessRights: [
    'GUEST_FS_AR_BYTES',
    'VMCS_32BIT_GUEST_FS_ACCESS_RIGHTS',
    'GUEST_AR_FS',
    'VMX_VMCS32_GUEST_FS_ACCESS_RIGHTS',
    'VMCS_GUEST_FS_ACCESS_RIGHTS',
  ],
  guestGsAccessRights: [
    'GUEST_GS_AR_BYTES',
    'VMCS_32BIT_GUEST_GS_ACCESS_RIGHTS',
    'GUEST_AR_GS',
    'VMX_VMCS32_GUEST_GS_ACCESS_RIGHTS',
    'VMCS_GUEST_GS_ACCESS_RIGHTS',
  ],
  guestLdtrAccessRights: [
    'GUEST_LDTR_AR_BYTES',
    'VMCS_32BIT_GUEST_LDTR_ACCESS_RIGHTS',
    'GUEST_AR_LDTR',
    'VMX_VMCS32_GUEST_LDTR_ACCESS_RIGHTS',
    'VMCS_GUEST_LDTR_ACCESS_RIGHTS',
  ],
  guestTrAccessRights: [
    'GUEST_TR_AR_BYTES',
    'VMCS_32BIT_GUEST_TR_ACCESS_RIGHTS',
    'GUEST_AR_TR',
    'VMX_VMCS32_GUEST_TR_ACCESS_RIGHTS',
    'VMCS_GUEST_TR_ACCESS_RIGHTS',
  ],
  guestInterruptibilityState: [
    'GUEST_INTERRUPTIBILITY_INFO',
    'VMCS_32BIT_GUEST_INTERRUPTIBILITY_STATE',
    'GUEST_INTR_STATE',
    'VMX_VMCS32_GUEST_INT_STATE',
    'VMCS_GUEST_INTERRUPTIBILITY_STATE',
  ],
  guestActivityState: [
    'GUEST_ACTIVITY_STATE',
    'VMCS_32BIT_GUEST_ACTIVITY_STATE',
    'GUEST_ACTV_STATE',
    'VMX_VMCS32_GUEST_ACTIVITY_STATE',
    'VMCS_GUEST_ACTIVITY_STATE',
  ],
  guestSmbase: ['VMCS_32BIT_GUEST_SMBASE', 'GUEST_SMBASE', 'VMX_VMCS32_GUEST_SMBASE', 'VMCS_GUEST_SMBASE'],
  guestIa32SysenterCs: [
    'GUEST_SYSENTER_CS',
    'VMCS_32BIT_GUEST_IA32_SYSENTER_CS_MSR',
    'VMX_VMCS32_GUEST_SYSENTER_CS',
    'VMCS_GUEST_SYSENTER_CS',
  ],
  vmxPreemptionTimerValue: [
    'VMX_PREEMPTION_TIMER_VALUE',
    'VMCS_32BIT_GUEST_PREEMPTION_TIMER_VALUE',
    'PREEMPTION_TIMER',
    'VMX_VMCS32_PREEMPT_TIMER_VALUE',
    'VMCS_GUEST_PREEMPT_TIMER_VALUE',
  ],
  hostIa32SysenterCs: [
    'HOST_IA32_SYSENTER_CS',
    'VMCS_32BIT_HOST_IA32_SYSENTER_CS_MSR',
    'HOST_SYSENTER_CS',
    'VMX_VMCS32_HOST_SYSENTER_CS',
    'VMCS_HOST_SYSENTER_CS',
  ],
  cr0GuestHostMask: [
    'CR0_GUEST_HOST_MASK',
    'VMCS_CONTROL_CR0_GUEST_HOST_MASK',
    'CR0_MASK',
    'VMX_VMCS_CTRL_CR0_MASK',
    'VMCS_CTRL_CR0_MASK',
  ],
  cr4GuestHostMask: [
    'CR4_GUEST_HOST_MASK',
    'VMCS_CONTROL_CR4_GUEST_HOST_MASK',
    'CR4_MASK',
    'VMX_VMCS_CTRL_CR4_MASK',
    'VMCS_CTRL_CR4_MASK',
  ],
  cr0ReadShadow: [
    'CR0_READ_SHADOW',
    'VMCS_CONTROL_CR0_READ_SHADOW',
    'VMX_VMCS_CTRL_CR0_READ_SHADOW',
    'VMCS_CTRL_CR0_READ_SHADOW',
  ],
  cr4ReadShadow: [
    'CR4_READ_SHADOW',
    'VMCS_CONTROL_CR4_READ_SHADOW',
    'VMX_VMCS_CTRL_CR4_READ_SHADOW',
    'VMCS_CTRL_CR4_READ_SHADOW',
  ],
  cr3TargetValue0: [
    'CR3_TARGET_VALUE0',
    'VMCS_CR3_TARGET0',
    'CR3_TARGET_0',
    'VMX_VMCS_CTRL_CR3_TARGET_VAL0',
    'VMCS_CTRL_CR3_TARGET_VAL0',
  ],
  cr3TargetValue1: [
    'CR3_TARGET_VALUE1',
    'VMCS_CR3_TARGET1',
    'CR3_TARGET_1',
    'VMX_VMCS_CTRL_CR3_TARGET_VAL1',
    'VMCS_CTRL_CR3_TARGET_VAL1',
  ],
  cr3TargetValue2: [
    'CR3_TARGET_VALUE2',
    'VMCS_CR3_TARGET2',
    'CR3_TARGET_2',
    'VMX_VMCS_CTRL_CR3_TARGET_VAL2',
    'VMCS_CTRL_CR3_TARGET_VAL2',
  ],
  cr3TargetValue3: [
    'CR3_TARGET_VALUE3',
    'VMCS_CR3_TARGET3',
    'CR3_TARGET_3',
    'VMX_VMCS_CTRL_CR3_TARGET_VAL3',
    'VMCS_CTRL_CR3_TARGET_VAL3',
  ],
  exitQualification: [
    'EXIT_QUALIFICATION',
    'VMCS_VMEXIT_QUALIFICATION',
    'EXI_QUALIFICATION',
    'VMX_VMCS_RO_EXIT_QUALIFICATION',
    'VMCS_EXIT_QUALIFICATION',
  ],
  ioRcx: ['VMCS_IO_RCX', 'IO_RCX', 'VMX_VMCS_RO_IO_RCX'],
  ioRsi: ['VMCS_IO_RSI', 'IO_RSI', 'VMX_VMCS_RO_IO_RSI'],
  ioRdi: ['VMCS_IO_RDI', 'IO_RDI', 'VMX_VMCS_RO_IO_RDI'],
  ioRip: ['VMCS_IO_RIP', 'IO_RIP', 'VMX_VMCS_RO_IO_RIP'],
  guestLinearAddress: [
    'GUEST_LINEAR_ADDRESS',
    'VMCS_GUEST_LINEAR_ADDR',
    'VMX_VMCS_RO_GUEST_LINEAR_ADDR',
    'VMCS_EXIT_GUEST_LINEAR_ADDR',
  ],
  guestCr0: ['GUEST_CR0', 'VMCS_GUEST_CR0', 'VMX_VMCS_GUEST_CR0'],
  guestCr3: ['GUEST_CR3', 'VMCS_GUEST_CR3', 'VMX_VMCS_GUEST_CR3'],
  guestCr4: ['GUEST_CR4', 'VMCS_GUEST_CR4', 'VMX_VMCS_GUEST_CR4'],
  guestEsBase: ['GUEST_ES_BASE', 'VMCS_GUEST_ES_BASE', 'GUEST_BASE_ES', 'VMX_VMCS_GUEST_ES_BASE'],
  guestCsBase: ['GUEST_CS_BASE', 'VMCS_GUEST_CS_BASE', 'GUEST_BASE_CS', 'VMX_VMCS_GUEST_CS_BASE'],
  guestSsBase: ['GUEST_SS_BASE', 'VMCS_GUEST_SS_BASE', 'GUEST_BASE_SS', 'VMX_VMCS_GUEST_SS_BASE'],
  guestDsBase: ['GUEST_DS_BASE', 'VMCS_GUEST_DS_BASE', 'GUEST_BASE_DS', 'VMX_VMCS_GUEST_DS_BASE'],
  guestFsBase: ['GUEST_FS_BASE', 'VMCS_GUEST_FS_BASE', 'GUEST_BASE_FS', 'VMX_VMCS_GUEST_FS_BASE'],
  guestGsBase: ['GUEST_GS_BASE', 'VMCS_GUEST_GS_BASE', 'GUEST_BASE_GS', 'VMX_VMCS_GUEST_GS_BASE'],
  guestLdtrBase: ['GUEST_LDTR_BASE', 'VMCS_GUEST_LDTR_BASE', 'GUEST_BASE_LDTR', 'VMX_VMCS_GUEST_LDTR_BASE'],
  guestTrBase: ['GUEST_TR_BASE', 'VMCS_GUEST_TR_BASE', 'GUEST_BASE_TR', 'VMX_VMCS_GUEST_TR_BASE'],
  guestGdtrBase: ['GUEST_GDTR_BASE', 'VMCS_GUEST_GDTR_BASE', 'GUEST_BASE_GDTR', 'VMX_VMCS_GUEST_GDTR_BASE'],
  guestIdtrBase: ['GUEST_IDTR_BASE', 'VMCS_GUEST_IDTR_BASE', 'GUEST_BASE_IDTR', 'VMX_VMCS_GUEST_IDTR_BASE'],
  guestDr7: ['GUEST_DR7', 'VMCS_GUEST_DR7', 'VMX_VMCS_GUEST_DR7'],
  guestRsp: ['GUEST_RSP', 'VMCS_GUEST_RSP', 'VMX_VMCS_GUEST_RSP'],
  guestRip: ['GUEST_RIP', 'VMCS_GUEST_RIP', 'VMX_VMCS_GUEST_RIP'],
  guestRflags: ['GUEST_RFLAGS', 'VMCS_GUEST_RFLAGS', 'VMX_VMCS_GUEST_RFLAGS'],
  guestPendingDebugExceptions: [
    'GUEST_PENDING_DBG_EXCEPTIONS',
    'VMCS_GUEST_PENDING_DBG_EXCEPTIONS',
    'GUEST_PENDING_DEBUG',
    'VMX_VMCS_GUEST_PENDING_DEBUG_XCPTS',
    'VMCS_GUEST_PENDING_DEBUG_EXCEPTIONS',
  ],
  guestIa32SysenterEsp: [
    'GUEST_SYSENTER_ESP',
    'VMCS_GUEST_IA32_SYSENTER_ESP_MSR',
    'VMX_VMCS_GUEST_SYSENTER_ESP',
    'VMCS_GUEST_SYSENTER_ESP',
  ],
  guestIa32SysenterEip: [
    'GUEST_SYSENTER_EIP',
    'VMCS_GUEST_IA32_SYSENTER_EIP_MSR',
    'VMX_VMCS_GUEST_SYSENTER_EIP',
    'VMCS_GUEST_SYSENTER_EIP',
  ],
  guestIa32SCet: ['GUEST_S_CET', 'VMCS_GUEST_IA32_S_CET', 'VMX_VMCS_GUEST_S_CET', 'VMCS_GUEST_S_CET'],
  guestSsp: ['GUEST_SSP', 'VMCS_GUEST_SSP', 'VMX_VMCS_GUEST_SSP'],
  guestIa32InterruptSspTableAddr: [
    'GUEST_INTR_SSP_TABLE',
    'VMCS_GUEST_INTERRUPT_SSP_TABLE_ADDR',
    'GUEST_SSP_TABLE_ADDR',
    'VMX_VMCS_GUEST_INTR_SSP_TABLE_ADDR',
  ],
  hostCr0: ['HOST_CR0', 'VMCS_HOST_CR0', 'VMX_VMCS_HOST_CR0'],
  hostCr3: ['HOST_CR3', 'VMCS_HOST_CR3', 'VMX_VMCS_HOST_CR3'],
  hostCr4: ['HOST_CR4', 'VMCS_HOST_CR4', 'VMX_VMCS_HOST_CR4'],
  hostFsBase: ['HOST_FS_BASE', 'VMCS_HOST_FS_BASE', 'HOST_BASE_FS', 'VMX_VMCS_HOST_FS_BASE'],
  hostGsBase: ['HOST_GS_BASE', 'VMCS_HOST_GS_BASE', 'HOST_BASE_GS', 'VMX_VMCS_HOST_GS_BASE'],
  hostTrBase: ['HOST_TR_BASE', 'VMCS_HOST_TR_BASE', 'HOST_BASE_TR', 'VMX_VMCS_HOST_TR_BASE'],
  hostGdtrBase: ['HOST_GDTR_BASE', 'VMCS_HOST_GDTR_BASE', 'HOST_BASE_GDTR', 'VMX_VMCS_HOST_GDTR_BASE'],
  hostIdtrBase: ['HOST_IDTR_BASE', 'VMCS_HOST_IDTR_BASE', 'HOST_BASE_IDTR', 'VMX_VMCS_HOST_IDTR_BASE'],
  hostIa32SysenterEsp: [
    'HOST_IA32_SYSENTER_ESP',
    'VMCS_HOST_IA32_SYSENTER_ESP_MSR',
    'HOST_SYSENTER_ESP',
    'VMX_VMCS_HOST_SYSENTER_ESP',
    'VMCS_HOST_SYSENTER_ESP',
  ],
  hostIa32SysenterEip: [
    'HOST_IA32_SYSENTER_EIP',
    'VMCS_HOST_IA32_SYSENTER_EIP_MSR',
    'HOST_SYSENTER_EIP',
    'VMX_VMCS_HOST_SYSENTER_EIP',
    'VMCS_HOST_SYSENTER_EIP',
  ],
  hostRsp: ['HOST_RSP', 'VMCS_HOST_RSP', 'VMX_VMCS_HOST_RSP'],
  hostRip: ['HOST_RIP', 'VMCS_HOST_RIP', 'VMX_VMCS_HOST_RIP'],
  hostIa32SCet: ['HOST_S_CET', 'VMCS_HOST_IA32_S_CET', 'VMX_VMCS_HOST_S_CET', 'VMCS_HOST_S_CET'],
  hostSsp: ['HOST_SSP', 'VMCS_HOST_SSP', 'VMX_VMCS_HOST_SSP'],
  hostIa32InterruptSspTableAddr: [
    'HOST_INTR_SSP_TABLE',
    'VMCS_HOST_INTERRUPT_SSP_TABLE_ADDR',
    'HOST_SSP_TABLE_ADDR',
    'VMX_VMCS_HOST_INTR_SSP_TABLE_ADDR',
  ],
};

/** Misprints of the article this project began from, so that a reader of it finds every field. */
const MISPRINTS: readonly (readonly [printed: string, field: FieldName, access: 'full' | 'high'])[] = [
  ['Io_bitmap_ B', 'ioBitmapBAddress', 'full'],
  ['Io_bitmap_ B _high', 'ioBitmapBAddress', 'high'],
  ['Excutive_vmcsp', 'executiveVmcsPointer', 'full'],
  ['Excutive_vmcsp_high', 'executiveVmcsPointer', 'high'],
  ['Eoi_exit_bitmaphigh high', 'eoiExitBitmap1', 'high'],
  ['Prediction_bitmap', 'exceptionBitmap', 'full'],
  ['Idt_vectoring_error_code', 'originalEventErrorCode', 'full'],
  ['Vm_exit_instruction_len', 'vmExitInstructionLength', 'full'],
  ['Vmx_instruction_info', 'vmExitInstructionInformation', 'full'],
  ['Guest_32a', 'guestCr3', 'full'],
  ['Host_32a', 'hostCr3', 'full'],
];

/** A field and the access (full or high half) that a name or encoding asks for. */
export interface FieldReference {
  readonly field: VmcsField;
  readonly access: 'full' | 'high';
  /** The encoding VMREAD and VMWRITE take for it. */
  readonly encoding: number;
}

/** Lower case, letters and digits only: spelling, spaces and underscores do not matter. */
function normalise(name: string): string {
  return name.toLowerCase().replaceAll(/[^a-z0-9#]/g, '');
}

const byName = new Map<string, FieldReference>();
const byEncoding = new Map<number, FieldReference>();

function register(name: string, reference: FieldReference): void {
  const key = normalise(name);
  if (!byName.has(key)) byName.set(key, reference);
}

for (const field of FIELDS) {
  const full: FieldReference = { field, access: 'full', encoding: field.encoding };
  byEncoding.set(field.encoding, full);
  if (field.highEncoding !== undefined) {
    byEncoding.set(field.highEncoding, { field, access: 'high', encoding: field.highEncoding });
  }
}
// Names of the field itself come before aliases, so that an alias never hides a name.
for (const namesOf of [(f: VmcsField) => [f.key, f.name], (f: VmcsField) => FIELD_ALIASES[f.key]]) {
  for (const field of FIELDS) {
    const full = byEncoding.get(field.encoding) as FieldReference;
    const high = byEncoding.get(field.highEncoding ?? -1);
    for (const name of namesOf(field)) {
      const short = /\((\w+)\)/.exec(name)?.[1];
      for (const spelling of short === undefined ? [name] : [name, name.replace(/\(.*\)/, ''), short]) {
        register(spelling, full);
        register(`${spelling}_full`, full);
        if (high) register(`${spelling.replace(/_FULL$/, '')}_high`, high);
      }
    }
  }
}
for (const [printed, key, access] of MISPRINTS) {
  const field = fieldOf(key);
  const encoding = access === 'high' ? (field.highEncoding as number) : field.encoding;
  register(printed, byEncoding.get(encoding) as FieldReference);
}

/**
 * Finds a field by encoding (a number, or text such as `0x681e` or `681EH`) or by any of its names:
 * the manual's of today or of earlier editions, our identifier, or the identifier other software
 * uses. A `_high` suffix asks for the high half of a 64-bit field.
 */
export function findField(query: string | number): FieldReference | undefined {
  if (typeof query === 'number') return decodeEncoding(query) && byEncoding.get(query);
  const byItsName = byName.get(normalise(query));
  if (byItsName) return byItsName;
  const digits = /^(?:0x([0-9a-f]{1,8})|([0-9a-f]{1,8})h?)$/i.exec(query.trim());
  return byEncoding.get(Number.parseInt(digits?.[1] ?? digits?.[2] ?? '', 16));
}

/** Every field one of whose names contains `text` (spelling as in {@link findField}). */
export function searchFields(text: string): readonly VmcsField[] {
  const wanted = normalise(text);
  if (wanted === '') return [];
  return FIELDS.filter((f) =>
    [f.key, f.name, ...FIELD_ALIASES[f.key]].some((n) => normalise(n).includes(wanted)),
  );
}
