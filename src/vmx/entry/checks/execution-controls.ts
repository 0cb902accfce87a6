/**
 * Checks on the VM-execution control fields (SDM §29.2.1.1), all but those on single addresses: allowed
 * settings, controls that need or exclude each other, TPR threshold, interrupt vectors, EPTP, HLATP.
 */
import { isAligned } from '../../../bits/address.ts';
import { mask } from '../../../bits/u64.ts';
import {
  EPTP_ACCESSED_DIRTY,
  EPTP_ADDRESS,
  EPTP_MEMORY_TYPE,
  EPTP_WALK_LENGTH,
  eptpAccessedDirtyReserved,
  eptpMemoryTypes,
  eptpReserved,
  eptpWalkLengths,
} from '../../ept/eptp.ts';
import { checkList, checksOf, condition, type FieldChange, INVALID_CONTROL, off, on, set } from '../check.ts';
import type { CheckContext } from '../check-context.ts';
import { allowed0, allowed1 } from './allowed-settings.ts';
import { isOff, needs, reservedZero, withinAddressWidth, zero } from './requirements.ts';

const check = checksOf('29.2.1.1', INVALID_CONTROL);

/** "[dependent] may be 1 only with [needed]." */
const NEEDS = [
  ['ctrl.virtual-nmis.needs-nmi-exiting', 'pin.virtualNmis', 'pin.nmiExiting'],
  ['ctrl.nmi-window.needs-virtual-nmis', 'proc.nmiWindowExiting', 'pin.virtualNmis'],
  ['ctrl.x2apic.needs-tpr-shadow', 'proc2.virtualizeX2apicMode', 'proc.useTprShadow'],
  ['ctrl.apic-register.needs-tpr-shadow', 'proc2.apicRegisterVirtualization', 'proc.useTprShadow'],
  ['ctrl.vid.needs-tpr-shadow', 'proc2.virtualInterruptDelivery', 'proc.useTprShadow'],
  ['ctrl.ipi-virt.needs-tpr-shadow', 'proc3.ipiVirtualization', 'proc.useTprShadow'],
  ['ctrl.vid.needs-ext-int-exiting', 'proc2.virtualInterruptDelivery', 'pin.externalInterruptExiting'],
  ['ctrl.posted-int.needs-vid', 'pin.processPostedInterrupts', 'proc2.virtualInterruptDelivery'],
  ['ctrl.posted-int.needs-ack-on-exit', 'pin.processPostedInterrupts', 'exit.acknowledgeInterruptOnExit'],
  ['ctrl.ept.for-pml', 'proc2.enablePml', 'proc2.enableEpt'],
  ['ctrl.ept.for-unrestricted', 'proc2.unrestrictedGuest', 'proc2.enableEpt'],
  ['ctrl.ept.for-mbec', 'proc2.modeBasedExecuteControlForEpt', 'proc2.enableEpt'],
  ['ctrl.ept.for-spp', 'proc2.subPageWritePermissionsForEpt', 'proc2.enableEpt'],
  ['ctrl.ept.for-pt-gpa', 'proc2.intelPtUsesGuestPhysicalAddresses', 'proc2.enableEpt'],
  ['ctrl.ept.for-pebs-gpa', 'proc3.pebsUsesGuestPhysicalAddresses', 'proc2.enableEpt'],
  ['ctrl.ept.for-hlat', 'proc3.enableHlat', 'proc2.enableEpt'],
  ['ctrl.ept.for-paging-write', 'proc3.eptPagingWriteControl', 'proc2.enableEpt'],
  ['ctrl.ept.for-guest-paging-verify', 'proc3.guestPagingVerification', 'proc2.enableEpt'],
  ['ctrl.vmfunc.eptp-switching-needs-ept', 'vmfunc.eptpSwitching', 'proc2.enableEpt'],
  ['ctrl.pt-gpa.needs-load-rtit', 'proc2.intelPtUsesGuestPhysicalAddresses', 'entry.loadIa32RtitCtl'],
  ['ctrl.pt-gpa.needs-clear-rtit', 'proc2.intelPtUsesGuestPhysicalAddresses', 'exit.clearIa32RtitCtl'],
  ['ctrl.apic-timer.needs-vid', 'proc3.apicTimerVirtualization', 'proc2.virtualInterruptDelivery'],
] as const;

/** VTPR[7:4], or the highest class if the virtual-APIC address is illegal: `ctrl.vapic.*` report that. */
function virtualTaskPriorityClass(c: CheckContext): number {
  const page = c.value('virtualApicAddress');
  if (!isAligned(page, 4096) || !c.withinAddressWidth(page)) return 15;
  return (c.ask(c.environment.read32(Number(page) + 0x80), 'VTPR', 0) >> 4) & 15;
}

const tracing = condition('IA32_RTIT_CTL.TraceEn is 1', [], (c) =>
  c.ask(c.environment.traceEnabled(), 'IA32_RTIT_CTL', false),
);

/** EPTP with the first of the values allowed in `bits`; a processor that allows none has no EPT. */
function withEptpBits(c: CheckContext, bits: bigint, allowed: readonly bigint[]): readonly FieldChange[] {
  const [value] = allowed;
  if (value === undefined) return isOff('proc2.enableEpt').fix(c);
  return set('eptPointer', (c.value('eptPointer') & ~bits) | value);
}

export const EXECUTION_CONTROLS = checkList('29.2.1.1', [
  check('ctrl.pin.allowed0', allowed0('pin')),
  check('ctrl.pin.allowed1', allowed1('pin')),
  check('ctrl.proc.allowed0', allowed0('proc')),
  check('ctrl.proc.allowed1', allowed1('proc')),
  check('ctrl.proc2.allowed1', { when: [on('proc.activateSecondaryControls')], ...allowed1('proc2') }),
  check('ctrl.proc3.allowed1', { when: [on('proc.activateTertiaryControls')], ...allowed1('proc3') }),
  check('ctrl.vmfunc.allowed1', { when: [on('proc2.enableVmFunctions')], ...allowed1('vmfunc') }),

  check('ctrl.cr3-target-count.max', {
    rule: 'CR3-target count is at most the number of CR3-target values that the processor supports.',
    fields: ['cr3TargetCount'],
    holds: (c) => c.low('cr3TargetCount') <= c.capabilities.cr3Targets,
    fix: (c) => set('cr3TargetCount', BigInt(c.capabilities.cr3Targets)),
  }),

  check('ctrl.tpr-threshold.reserved', {
    rule: 'TPR threshold: bits 31:4 are 0.',
    when: [on('proc.useTprShadow'), off('proc2.virtualInterruptDelivery')],
    ...zero('tprThreshold', mask(31, 4)),
  }),
  check('ctrl.tpr-threshold.le-vtpr', {
    rule: 'TPR threshold: bits 3:0 do not exceed VTPR[7:4], the priority class in the virtual-APIC page.',
    when: [
      on('proc.useTprShadow'),
      off('proc2.virtualizeApicAccesses'),
      off('proc2.virtualInterruptDelivery'),
    ],
    fields: ['tprThreshold', 'virtualApicAddress'],
    holds: (c) => c.bits('tprThreshold', 3, 0) <= virtualTaskPriorityClass(c),
    fix: (c) => set('tprThreshold', (c.value('tprThreshold') & ~0xfn) | BigInt(virtualTaskPriorityClass(c))),
    looksOutside: 'memory',
  }),

  ...NEEDS.map(([id, dependent, needed]) =>
    check(id, { when: [on(dependent)], ...needs(dependent, needed) }),
  ),
  check('ctrl.x2apic.excludes-apic-access', {
    when: [on('proc2.virtualizeX2apicMode')],
    ...isOff('proc2.virtualizeApicAccesses'),
  }),
  check('ctrl.apic-timer.excludes-rdtsc-exiting', {
    when: [on('proc3.apicTimerVirtualization')],
    ...isOff('proc.rdtscExiting'),
  }),
  check('ctrl.pt.load-rtit-while-tracing', {
    when: [tracing],
    ...isOff('entry.loadIa32RtitCtl'),
    looksOutside: 'processor',
  }),

  check('ctrl.posted-int.vector-range', {
    rule: 'Posted-interrupt notification vector: bits 15:8 are 0.',
    when: [on('pin.processPostedInterrupts')],
    ...zero('postedInterruptNotificationVector', mask(15, 8)),
  }),
  check('ctrl.apic-timer.vector-range', {
    rule: 'Virtual timer vector: bits 15:8 are 0.',
    when: [on('proc3.apicTimerVirtualization')],
    ...zero('virtualTimerVector', mask(15, 8)),
  }),
  check('ctrl.vpid.nonzero', {
    rule: 'VPID is not 0000H.',
    when: [on('proc2.enableVpid')],
    fields: ['vpid'],
    holds: (c) => c.low('vpid') !== 0,
    fix: () => set('vpid', 1n),
  }),
  check('ctrl.tsc-scaling.multiplier-nonzero', {
    rule: 'TSC multiplier is not 0.',
    when: [on('proc2.useTscScaling')],
    fields: ['tscMultiplier'],
    holds: (c) => c.value('tscMultiplier') !== 0n,
    // A factor of 1.
    fix: () => set('tscMultiplier', 1n << 48n),
  }),

  check('ctrl.eptp.memtype', {
    rule: 'EPTP: bits 2:0 are a memory type that the processor supports for EPT paging structures.',
    when: [on('proc2.enableEpt')],
    fields: ['eptPointer'],
    holds: (c) => eptpMemoryTypes(c.capabilities).includes(c.value('eptPointer') & EPTP_MEMORY_TYPE),
    fix: (c) => withEptpBits(c, EPTP_MEMORY_TYPE, eptpMemoryTypes(c.capabilities)),
  }),
  check('ctrl.eptp.walk-length', {
    rule: 'EPTP: bits 5:3 are a page-walk length that the processor supports, less 1.',
    when: [on('proc2.enableEpt')],
    fields: ['eptPointer'],
    holds: (c) => eptpWalkLengths(c.capabilities).includes(c.value('eptPointer') & EPTP_WALK_LENGTH),
    fix: (c) => withEptpBits(c, EPTP_WALK_LENGTH, eptpWalkLengths(c.capabilities)),
  }),
  check('ctrl.eptp.ad-flag', {
    rule: 'EPTP: bit 6 is 0.',
    when: [
      on('proc2.enableEpt'),
      condition(
        'the processor does not support accessed and dirty flags for EPT',
        [],
        (c) => eptpAccessedDirtyReserved(c.capabilities) !== 0n,
      ),
    ],
    ...zero('eptPointer', EPTP_ACCESSED_DIRTY),
  }),
  check('ctrl.eptp.reserved-11-7', {
    rule: 'EPTP: bits 11:8 are 0, and bit 7 is unless the processor supports supervisor shadow-stack control.',
    when: [on('proc2.enableEpt')],
    ...reservedZero('eptPointer', (c) => eptpReserved(c.capabilities)),
  }),
  check('ctrl.eptp.width', {
    rule: 'EPTP: the address in bits 63:12 has no bit beyond the physical-address width.',
    when: [on('proc2.enableEpt')],
    ...withinAddressWidth('eptPointer', EPTP_ADDRESS),
  }),

  check('ctrl.hlatp.reserved-2-0', {
    rule: 'HLATP: bits 2:0 are 0.',
    when: [on('proc3.enableHlat')],
    ...zero('hlatPointer', mask(2, 0)),
  }),
  check('ctrl.hlatp.reserved-11-5', {
    rule: 'HLATP: bits 11:5 are 0.',
    when: [on('proc3.enableHlat')],
    ...zero('hlatPointer', mask(11, 5)),
  }),
  check('ctrl.hlatp.width', {
    rule: 'HLATP: the address in bits 63:12 has no bit beyond the physical-address width.',
    when: [on('proc3.enableHlat')],
    ...withinAddressWidth('hlatPointer', mask(63, 12)),
  }),
]);
