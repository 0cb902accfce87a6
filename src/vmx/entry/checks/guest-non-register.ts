/** Checks on the guest's activity, interruptibility, pending debug exceptions and VMCS link pointer (SDM §29.3.1.5). */
import { isAligned } from '../../../bits/address.ts';
import { mask, U64_MAX } from '../../../bits/u64.ts';
import { RFLAGS } from '../../../cpu/registers.ts';
import { ActivityState, EventType } from '../../../vmcs/formats.ts';
import { Misc } from '../../capabilities/capability-msrs.ts';
import {
  checkList,
  checksOf,
  clear,
  condition,
  fieldsOfControl,
  invalidGuestState,
  on,
  set,
} from '../check.ts';
import type { CheckContext } from '../check-context.ts';
import {
  ACTIVITY_HLT,
  activityIs,
  bitIs,
  DOES_NOT_RETURN_FROM_SMM,
  IF_0,
  INJECTING,
  INJECTING_EXTERNAL_INTERRUPT,
  INJECTING_NMI,
  OUTSIDE_SMM,
  RETURNS_FROM_SMM,
} from './guest-conditions.ts';
import { exactly, one } from './guest-requirements.ts';
import { withinAddressWidth, zero } from './requirements.ts';

const check = checksOf('29.3.1.5', invalidGuestState());

const ACTIVITY = 'guestActivityState';
const EVENT = 'injectedEventIdentification';
const INTERRUPTIBILITY = 'guestInterruptibilityState';
const PENDING = 'guestPendingDebugExceptions';
const LINK = 'vmcsLinkPointer';

const STI = 1n << 0n;
const MOV_SS = 1n << 1n;
const SMI = 1n << 2n;
const NMI = 1n << 3n;

const beActive = () => set(ACTIVITY, BigInt(ActivityState.Active));

const STI_OR_MOV_SS = condition(
  'blocking by STI or blocking by MOV SS is 1',
  [INTERRUPTIBILITY],
  (c) => (c.low(INTERRUPTIBILITY) & 3) !== 0,
);
const ENTRY_TO_SMM = on('entry.entryToSmm');
const CPL_NOT_0 = condition('SS.DPL is not 0', ['guestSsAccessRights'], (c) => c.dpl('ss') !== 0);

const ACTIVITY_BITS: Readonly<Record<number, number>> = {
  [ActivityState.Hlt]: Misc.ACTIVITY_HLT,
  [ActivityState.Shutdown]: Misc.ACTIVITY_SHUTDOWN,
  [ActivityState.WaitForSipi]: Misc.ACTIVITY_WAIT_FOR_SIPI,
};

const DEBUG_EXCEPTION = 1;
const MACHINE_CHECK = 18;
const PENDING_MTF = 0;

/** Events that may be injected into the HLT state. */
function wakesFromHlt(c: CheckContext): boolean {
  const { type, vector } = c.injectedEvent;
  switch (type) {
    case EventType.ExternalInterrupt:
    case EventType.Nmi:
      return true;
    case EventType.HardwareException:
      return vector === DEBUG_EXCEPTION || vector === MACHINE_CHECK;
    case EventType.Other:
      return vector === PENDING_MTF;
    default:
      return false;
  }
}

export const GUEST_ACTIVITY_STATE = checkList('29.3.1.5', [
  check('guest.activity.defined', {
    rule: 'Activity state is 0 (active), 1 (HLT), 2 (shutdown) or 3 (wait-for-SIPI).',
    fields: [ACTIVITY],
    holds: (c) => c.low(ACTIVITY) <= ActivityState.WaitForSipi,
    fix: beActive,
  }),
  check('guest.activity.supported', {
    rule: 'Activity state is one that IA32_VMX_MISC[8:6] reports.',
    when: [condition('the activity state is not 0', [ACTIVITY], (c) => c.low(ACTIVITY) !== 0)],
    fields: [ACTIVITY],
    holds: (c) => {
      const position = ACTIVITY_BITS[c.low(ACTIVITY)];
      return position !== undefined && c.capabilities.has('misc', position);
    },
    fix: beActive,
  }),
  check('guest.activity.hlt-needs-cpl0', {
    rule: 'Activity state is not HLT.',
    when: [CPL_NOT_0],
    fields: [ACTIVITY],
    holds: (c) => c.low(ACTIVITY) !== ActivityState.Hlt,
    fix: beActive,
  }),
  check('guest.activity.active-if-blocking', {
    rule: 'Activity state is active.',
    when: [STI_OR_MOV_SS],
    ...exactly(ACTIVITY, BigInt(ActivityState.Active)),
  }),
  check('guest.activity.inject-hlt', {
    rule: 'The event is an external interrupt, an NMI, a #DB, a machine check or a pending MTF VM exit.',
    when: [ACTIVITY_HLT, INJECTING],
    fields: [EVENT],
    holds: wakesFromHlt,
    fix: beActive,
  }),
  check('guest.activity.inject-shutdown', {
    rule: 'The event is an NMI or a machine check.',
    when: [activityIs('shutdown', ActivityState.Shutdown), INJECTING],
    fields: [EVENT],
    holds: (c) => {
      const { type, vector } = c.injectedEvent;
      return type === EventType.Nmi || (type === EventType.HardwareException && vector === MACHINE_CHECK);
    },
    fix: beActive,
  }),
  check('guest.activity.inject-wait-sipi', {
    rule: 'No event is injected.',
    when: [activityIs('wait-for-SIPI', ActivityState.WaitForSipi)],
    ...zero(EVENT, 1n << 31n),
  }),
  check('guest.activity.wait-sipi-not-entry-to-smm', {
    rule: 'Activity state is not wait-for-SIPI.',
    when: [ENTRY_TO_SMM],
    fields: [ACTIVITY],
    holds: (c) => c.low(ACTIVITY) !== ActivityState.WaitForSipi,
    fix: beActive,
  }),
]);

const noBlockingBySti = { rule: 'Blocking by STI is 0.', ...zero(INTERRUPTIBILITY, STI) };
const noBlockingByMovSs = { rule: 'Blocking by MOV SS is 0.', ...zero(INTERRUPTIBILITY, MOV_SS) };
const ENCLAVE_INTERRUPTION = bitIs('enclave interruption', INTERRUPTIBILITY, 4, 1);

export const GUEST_INTERRUPTIBILITY_STATE = checkList('29.3.1.5', [
  check('guest.intr.reserved', {
    rule: 'Interruptibility state: bits 31:5 are 0.',
    ...zero(INTERRUPTIBILITY, mask(31, 5)),
  }),
  check('guest.intr.not-sti-and-mov-ss', {
    rule: 'Of blocking by STI and blocking by MOV SS, at least one is 0.',
    fields: [INTERRUPTIBILITY],
    holds: (c) => (c.low(INTERRUPTIBILITY) & 3) !== 3,
    fix: (c) => clear(c, INTERRUPTIBILITY, STI),
  }),
  check('guest.intr.sti-needs-if', { when: [IF_0], ...noBlockingBySti }),
  check('guest.intr.sti-not-with-ext-int', { when: [INJECTING_EXTERNAL_INTERRUPT], ...noBlockingBySti }),
  check('guest.intr.mov-ss-not-with-ext-int', {
    when: [INJECTING_EXTERNAL_INTERRUPT],
    ...noBlockingByMovSs,
  }),
  check('guest.intr.sti-not-with-nmi', {
    when: [INJECTING_NMI],
    ...noBlockingBySti,
    consequence: invalidGuestState(3),
  }),
  check('guest.intr.mov-ss-not-with-nmi', { when: [INJECTING_NMI], ...noBlockingByMovSs }),
  check('guest.intr.smi-outside-smm', {
    rule: 'Blocking by SMI is 0.',
    when: [OUTSIDE_SMM],
    ...zero(INTERRUPTIBILITY, SMI),
    looksOutside: 'processor',
  }),
  check('guest.intr.smi-entry-to-smm', {
    rule: 'Blocking by SMI is 1.',
    when: [ENTRY_TO_SMM],
    ...one(INTERRUPTIBILITY, Number(SMI)),
  }),
  check('guest.intr.nmi-virtual-nmis', {
    rule: 'Blocking by NMI is 0.',
    when: [on('pin.virtualNmis'), INJECTING_NMI],
    ...zero(INTERRUPTIBILITY, NMI),
  }),
  check('guest.intr.enclave-not-mov-ss', { when: [ENCLAVE_INTERRUPTION], ...noBlockingByMovSs }),
  check('guest.intr.enclave-needs-sgx', {
    rule: 'The processor supports SGX.',
    when: [ENCLAVE_INTERRUPTION],
    fields: [INTERRUPTIBILITY],
    holds: (c) => c.features.sgx,
    fix: (c) => clear(c, INTERRUPTIBILITY, 1n << 4n),
  }),
]);

const BTF = 1;
const BUS_LOCK = mask(11, 11);
const PENDING_RESERVED = mask(63, 17) | mask(15, 15) | mask(13, 13) | mask(10, 4);

/**
 * DEVIATION(pdbg-bld): the list of §29.3.1.5 reserves bit 11 as well, Table 27-4 defines it; here it
 * is reserved only without bus-lock detection.
 */
const pendingReserved = (c: CheckContext) => PENDING_RESERVED | (c.features.busLockDetection ? 0n : BUS_LOCK);

const STEPPING_HELD_BACK = condition(
  'blocking by STI or by MOV SS is 1 or the activity state is HLT',
  [INTERRUPTIBILITY, ACTIVITY],
  (c) => (c.low(INTERRUPTIBILITY) & 3) !== 0 || c.low(ACTIVITY) === ActivityState.Hlt,
);
const TF_AND_BTF = ['guestRflags', 'guestIa32Debugctl'] as const;
const SINGLE_STEPPING = condition(
  'guest RFLAGS.TF is 1 and guest IA32_DEBUGCTL.BTF is 0',
  TF_AND_BTF,
  (c) => c.bit('guestRflags', RFLAGS.TF) && !c.bit('guestIa32Debugctl', BTF),
);
const NOT_SINGLE_STEPPING = condition(
  'guest RFLAGS.TF is 0 or guest IA32_DEBUGCTL.BTF is 1',
  TF_AND_BTF,
  (c) => !c.bit('guestRflags', RFLAGS.TF) || c.bit('guestIa32Debugctl', BTF),
);
const RTM = 16;
const RTM_1 = bitIs('bit 16 (RTM) of the pending debug exceptions', PENDING, RTM, 1);

/** BS is TF & ~BTF where the next instruction boundary is held back; the DEBUGCTL field counts whether loaded or not. */
export const GUEST_PENDING_DEBUG_EXCEPTIONS = checkList('29.3.1.5', [
  check('guest.pdbg.reserved', {
    rule: 'Pending debug exceptions: bits 10:4, 13, 15 and 63:17, and without bus-lock detection bit 11, are 0.',
    fields: [PENDING],
    holds: (c) => (c.value(PENDING) & pendingReserved(c)) === 0n,
    fix: (c) => clear(c, PENDING, pendingReserved(c)),
  }),
  check('guest.pdbg.bs-set', {
    rule: 'Pending debug exceptions: bit 14 (BS) is 1.',
    when: [STEPPING_HELD_BACK, SINGLE_STEPPING],
    ...one(PENDING, 1 << 14),
  }),
  check('guest.pdbg.bs-clear', {
    rule: 'Pending debug exceptions: bit 14 (BS) is 0.',
    when: [STEPPING_HELD_BACK, NOT_SINGLE_STEPPING],
    ...zero(PENDING, 1n << 14n),
  }),
  check('guest.pdbg.rtm-bits-clear', {
    rule: 'Pending debug exceptions: bits 11:0, 15:13 and 63:17 are 0.',
    when: [RTM_1],
    ...zero(PENDING, mask(11, 0) | mask(15, 13) | mask(63, 17)),
  }),
  check('guest.pdbg.rtm-bit12', {
    rule: 'Pending debug exceptions: bit 12 (enabled breakpoint) is 1.',
    when: [RTM_1],
    ...one(PENDING, 1 << 12),
  }),
  check('guest.pdbg.rtm-supported', {
    rule: 'The processor supports RTM.',
    when: [RTM_1],
    fields: [PENDING],
    holds: (c) => c.features.rtm,
    fix: (c) => clear(c, PENDING, 1n << BigInt(RTM)),
  }),
  check('guest.pdbg.rtm-not-mov-ss', { when: [RTM_1], ...noBlockingByMovSs }),
]);

const checkLink = checksOf('29.3.1.5', invalidGuestState(4));

const unlink = () => set(LINK, U64_MAX);
const LINKED = condition(
  'the VMCS link pointer is not FFFFFFFF_FFFFFFFFH',
  [LINK],
  (c) => c.low(LINK) !== 0xffff_ffff || c.high(LINK) !== 0xffff_ffff,
);
/** A pointer that is misaligned or too wide is reported as such; what it points to is not looked at. */
const POINTS_TO_REGION = condition(
  'the VMCS link pointer is aligned and within the physical-address width',
  [LINK],
  (c) => isAligned(c.value(LINK), 4096) && c.withinAddressWidth(c.value(LINK)),
);
const firstWord = (c: CheckContext) =>
  c.ask(c.environment.read32(Number(c.value(LINK))), 'memory at the VMCS link pointer', 0) >>> 0;

export const GUEST_VMCS_LINK_POINTER = checkList('29.3.1.5', [
  checkLink('guest.link.align', {
    rule: 'VMCS link pointer: bits 11:0 are 0.',
    when: [LINKED],
    ...zero(LINK, mask(11, 0)),
  }),
  checkLink('guest.link.width', {
    rule: 'VMCS link pointer: no bit beyond the physical-address width is 1.',
    when: [LINKED],
    ...withinAddressWidth(LINK),
  }),
  checkLink('guest.link.revision', {
    rule: "Bits 30:0 of the memory at the VMCS link pointer are the processor's VMCS revision identifier.",
    when: [LINKED, POINTS_TO_REGION],
    fields: [LINK],
    holds: (c) => (firstWord(c) & 0x7fff_ffff) === c.capabilities.revision,
    fix: unlink,
    looksOutside: 'memory',
  }),
  checkLink('guest.link.shadow-indicator', {
    rule: 'Bit 31 of the memory at the VMCS link pointer equals "VMCS shadowing".',
    when: [LINKED, POINTS_TO_REGION],
    fields: [LINK, ...fieldsOfControl('proc2.vmcsShadowing')],
    holds: (c) => firstWord(c) >>> 31 === (c.control('proc2.vmcsShadowing') ? 1 : 0),
    fix: unlink,
    looksOutside: 'memory',
  }),
  checkLink('guest.link.not-current', {
    rule: 'VMCS link pointer is not the current-VMCS pointer.',
    when: [LINKED, DOES_NOT_RETURN_FROM_SMM],
    fields: [LINK],
    holds: (c) => c.value(LINK) !== c.ask(c.environment.currentVmcs(), 'the current-VMCS pointer', U64_MAX),
    fix: unlink,
    looksOutside: 'processor',
  }),
  checkLink('guest.link.not-executive', {
    rule: 'VMCS link pointer is not the executive-VMCS pointer.',
    when: [LINKED, RETURNS_FROM_SMM],
    fields: [LINK, 'executiveVmcsPointer'],
    holds: (c) => c.value(LINK) !== c.value('executiveVmcsPointer'),
    fix: unlink,
    looksOutside: 'processor',
  }),
]);
