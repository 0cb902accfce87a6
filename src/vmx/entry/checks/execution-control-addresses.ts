/** Checks on the addresses among the VM-execution control fields (SDM §29.2.1.1). */
import { mask } from '../../../bits/u64.ts';
import { checkList, checksOf, INVALID_CONTROL, on } from '../check.ts';
import { withinAddressWidth, zero } from './requirements.ts';
import { endsWithinAddressWidth } from './tables-in-memory.ts';

const check = checksOf('29.2.1.1', INVALID_CONTROL);

/** Pages: name in ids, title, field, the controls that bring the address into use. */
const PAGES = [
  ['io-bitmap-a', 'I/O-bitmap A address', 'ioBitmapAAddress', ['proc.useIoBitmaps']],
  ['io-bitmap-b', 'I/O-bitmap B address', 'ioBitmapBAddress', ['proc.useIoBitmaps']],
  ['msr-bitmap', 'MSR-bitmap address', 'msrBitmapAddress', ['proc.useMsrBitmaps']],
  ['vapic', 'Virtual-APIC address', 'virtualApicAddress', ['proc.useTprShadow']],
  ['apic-access', 'APIC-access address', 'apicAccessAddress', ['proc2.virtualizeApicAccesses']],
  ['pml', 'PML address', 'pmlAddress', ['proc2.enablePml']],
  ['sppt', 'Sub-page-permission-table pointer', 'sppTablePointer', ['proc2.subPageWritePermissionsForEpt']],
  ['eptp-list', 'EPTP-list address', 'eptpListAddress', ['proc2.enableVmFunctions', 'vmfunc.eptpSwitching']],
  ['vmread-bitmap', 'VMREAD-bitmap address', 'vmreadBitmapAddress', ['proc2.vmcsShadowing']],
  ['vmwrite-bitmap', 'VMWRITE-bitmap address', 'vmwriteBitmapAddress', ['proc2.vmcsShadowing']],
  [
    've-info',
    'Virtualization-exception information address',
    'virtualizationExceptionInformationAddress',
    ['proc2.eptViolationVe'],
  ],
  ['pasid-dir-low', 'Low PASID directory address', 'lowPasidDirectoryAddress', ['proc2.pasidTranslation']],
  ['pasid-dir-high', 'High PASID directory address', 'highPasidDirectoryAddress', ['proc2.pasidTranslation']],
] as const;

const BEYOND = 'no bit beyond the physical-address width is 1';

export const EXECUTION_CONTROL_ADDRESSES = checkList('29.2.1.1', [
  ...PAGES.flatMap(([name, title, field, controls]) => [
    check(`ctrl.${name}.align`, {
      rule: `${title}: bits 11:0 are 0.`,
      when: controls.map(on),
      ...zero(field, mask(11, 0)),
    }),
    check(`ctrl.${name}.width`, {
      rule: `${title}: ${BEYOND}.`,
      when: controls.map(on),
      ...withinAddressWidth(field),
    }),
  ]),
  check('ctrl.posted-int.desc-align', {
    rule: 'Posted-interrupt descriptor address: bits 5:0 are 0.',
    when: [on('pin.processPostedInterrupts')],
    ...zero('postedInterruptDescriptorAddress', mask(5, 0)),
  }),
  check('ctrl.posted-int.desc-width', {
    rule: `Posted-interrupt descriptor address: ${BEYOND}.`,
    when: [on('pin.processPostedInterrupts')],
    ...withinAddressWidth('postedInterruptDescriptorAddress'),
  }),
  check('ctrl.pid-table.align', {
    rule: 'PID-pointer table address: bits 2:0 are 0.',
    when: [on('proc3.ipiVirtualization')],
    ...zero('pidPointerTableAddress', mask(2, 0)),
  }),
  check('ctrl.pid-table.width', {
    rule: `PID-pointer table address: ${BEYOND}.`,
    when: [on('proc3.ipiVirtualization')],
    ...withinAddressWidth('pidPointerTableAddress'),
  }),
  check('ctrl.pid-table.last-entry-width', {
    rule: 'PID-pointer table: the address of its last entry has no bit beyond the physical-address width.',
    when: [on('proc3.ipiVirtualization')],
    ...endsWithinAddressWidth('pidPointerTableAddress', 'lastPidPointerIndex', 8, 'last-entry'),
  }),
]);
