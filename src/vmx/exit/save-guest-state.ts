/** Saving guest state (SDM §30.3): slot-to-slot copies, then what has a rule of its own. */

import { slotsOf } from '../../bits/slots.ts';
import { CR0, CR4, EFER, Register, type RegisterName, RFLAGS, SEGMENT_NAMES } from '../../cpu/registers.ts';
import { Field, type FieldName } from '../../vmcs/fields.ts';
import { AR_RESERVED, AR_UNUSABLE, EventType, PendingDebug } from '../../vmcs/formats.ts';
import type { ProcessorCopy } from '../../vmcs/processor-copy.ts';
import { type ControlRef, controlRef, isOn } from '../effective-controls.ts';
import type { VmxProcessor } from '../vmx-state.ts';
import { saveValue, saveWords } from './copy-writes.ts';
import { EXIT_REASONS, ExitReason } from './exit-reasons.ts';
import {
  type ExitRequest,
  isDebugException,
  isDuringDelivery,
  isEnclaveInterruption,
} from './exit-request.ts';

// Only the slots this file uses, in objects small enough to be constants (bench: "VMRESUME + exit").
const F = slotsOf(Field, [
  'guestActivityState',
  'guestDeadline',
  'guestIa32SysenterCs',
  'guestInterruptStatus',
  'guestInterruptibilityState',
  'guestPdpte0',
  'guestPendingDebugExceptions',
  'guestRflags',
  'guestUinv',
  'vmxPreemptionTimerValue',
]);
const R = slotsOf(Register, [
  'CR0',
  'CR4',
  'IA32_EFER',
  'IA32_SYSENTER_CS',
  'IA32_TIME_STAMP_COUNTER',
  'IA32_UINTR_MISC',
  'PDPTE0',
  'RFLAGS',
  'activityState',
  'blockingByMovSs',
  'blockingByNmi',
  'blockingBySti',
  'enclaveInterruption',
  'pendingDebugExceptions',
]);

type Pairs = Partial<Record<FieldName, RegisterName>>;

function flat(table: Pairs): Uint16Array {
  return Uint16Array.from(
    Object.entries(table).flatMap(([field, register]) => [Field[field as FieldName], Register[register]]),
  );
}

/** Saved at every VM exit, whole. */
const ALWAYS = flat({
  guestCr0: 'CR0',
  guestCr3: 'CR3',
  guestCr4: 'CR4',
  guestRsp: 'RSP',
  guestRip: 'RIP',
  guestIa32SysenterEsp: 'IA32_SYSENTER_ESP',
  guestIa32SysenterEip: 'IA32_SYSENTER_EIP',
  guestGdtrBase: 'GDTR.base',
  guestGdtrLimit: 'GDTR.limit',
  guestIdtrBase: 'IDTR.base',
  guestIdtrLimit: 'IDTR.limit',
});

/** Saved at every VM exit on a processor that supports the controls which make the fields exist. */
const SUPPORTED: readonly Uint16Array[] = [
  flat({ guestIa32Bndcfgs: 'IA32_BNDCFGS' }),
  flat({ guestIa32RtitCtl: 'IA32_RTIT_CTL' }),
  flat({ guestIa32LbrCtl: 'IA32_LBR_CTL' }),
  flat({ guestIa32Pkrs: 'IA32_PKRS' }),
  flat({ guestIa32SpecCtrl: 'IA32_SPEC_CTRL' }),
  flat({
    guestIa32SCet: 'IA32_S_CET',
    guestIa32InterruptSspTableAddr: 'IA32_INTERRUPT_SSP_TABLE_ADDR',
    guestSsp: 'SSP',
  }),
];

/** Saved under a VM-exit control. */
const CONTROLLED: readonly { readonly control: ControlRef; readonly pairs: Uint16Array }[] = (
  [
    [controlRef('exit.saveDebugControls'), flat({ guestDr7: 'DR7', guestIa32Debugctl: 'IA32_DEBUGCTL' })],
    [controlRef('exit.saveIa32Pat'), flat({ guestIa32Pat: 'IA32_PAT' })],
    [controlRef('exit.saveIa32Efer'), flat({ guestIa32Efer: 'IA32_EFER' })],
    [controlRef('exit.saveIa32PerfGlobalCtrl'), flat({ guestIa32PerfGlobalCtrl: 'IA32_PERF_GLOBAL_CTRL' })],
    [
      controlRef('exit2.saveFred'),
      flat({
        guestIa32FredConfig: 'IA32_FRED_CONFIG',
        guestIa32FredRsp1: 'IA32_FRED_RSP1',
        guestIa32FredRsp2: 'IA32_FRED_RSP2',
        guestIa32FredRsp3: 'IA32_FRED_RSP3',
        guestIa32FredStklvls: 'IA32_FRED_STKLVLS',
        guestIa32FredSsp1: 'IA32_FRED_SSP1',
        guestIa32FredSsp2: 'IA32_FRED_SSP2',
        guestIa32FredSsp3: 'IA32_FRED_SSP3',
      }),
    ],
  ] as const satisfies readonly (readonly [ControlRef, Uint16Array])[]
).map(([control, pairs]) => ({ control, pairs }));

/** Field and register slots of the segment registers: selector, base, limit, access rights. */
const SEGMENTS = SEGMENT_NAMES.map((segment) => {
  const name = `guest${segment[0]}${segment.slice(1).toLowerCase()}`;
  return {
    selector: Field[`${name}Selector` as FieldName],
    base: Field[`${name}Base` as FieldName],
    limit: Field[`${name}Limit` as FieldName],
    rights: Field[`${name}AccessRights` as FieldName],
    register: Register[`${segment}.selector`],
    /** Base has only 32 bits when the register is unusable. */
    shortBase: segment === 'SS' || segment === 'DS' || segment === 'ES',
  };
});

const ENABLE_EPT = controlRef('proc2.enableEpt');
const VIRTUAL_NMIS = controlRef('pin.virtualNmis');
const VIRTUAL_INTERRUPT_DELIVERY = controlRef('proc2.virtualInterruptDelivery');
const SAVE_TIMER = controlRef('exit.saveVmxPreemptionTimerValue');
const RF = 1 << RFLAGS.RF;
/** Accesses to memory that exit: RF is saved as 1 outside event delivery. */
const ACCESS_EXITS: ReadonlySet<number> = new Set([
  ExitReason.ApicAccess,
  ExitReason.EptViolation,
  ExitReason.EptMisconfiguration,
  ExitReason.PageModificationLogFull,
  ExitReason.SppRelatedEvent,
]);
const DEBUG_DEFINED =
  PendingDebug.B0 |
  PendingDebug.B1 |
  PendingDebug.B2 |
  PendingDebug.B3 |
  PendingDebug.BusLock |
  PendingDebug.EnabledBreakpoint |
  PendingDebug.Bs |
  PendingDebug.Rtm;

function savePairs(copy: ProcessorCopy, pairs: Uint16Array, words: Uint32Array): void {
  for (let i = 0; i < pairs.length; i += 2) {
    const from = 2 * (pairs[i + 1] as number);
    saveWords(copy, pairs[i] as number, words[from] as number, words[from + 1] as number);
  }
}

export function saveGuestState(p: VmxProcessor, copy: ProcessorCopy, request: ExitRequest): void {
  const { capabilities } = p;
  const { words } = p.cpu;
  savePairs(copy, ALWAYS, words);
  saveWords(copy, F.guestIa32SysenterCs, words[2 * R.IA32_SYSENTER_CS] as number, 0);
  for (let i = 0; i < SUPPORTED.length; i++) {
    const pairs = SUPPORTED[i] as Uint16Array;
    if (capabilities.fieldExists[pairs[0] as number] === 1) savePairs(copy, pairs, words);
  }
  for (let i = 0; i < CONTROLLED.length; i++) {
    const { control, pairs } = CONTROLLED[i] as (typeof CONTROLLED)[number];
    if (isOn(copy, capabilities, control) && capabilities.fieldExists[pairs[0] as number] === 1) {
      savePairs(copy, pairs, words);
    }
  }
  if (capabilities.fieldExists[F.guestUinv] === 1 && p.cpu.features.userInterrupts) {
    saveWords(copy, F.guestUinv, (words[2 * R.IA32_UINTR_MISC + 1] as number) & 0xff, 0);
  }
  saveSegments(copy, words);
  saveRflags(copy, words, request);
  saveNonRegisterState(p, copy, request);
}

/**
 * SDM §30.3.2: bits 31:17 and 11:8 of access rights are saved as 0. What is undefined for an unusable
 * register is saved as the register holds it.
 */
function saveSegments(copy: ProcessorCopy, words: Uint32Array): void {
  for (let i = 0; i < SEGMENTS.length; i++) {
    const segment = SEGMENTS[i] as (typeof SEGMENTS)[number];
    const at = 2 * segment.register;
    const rights = words[at + 6] as number;
    const cut = segment.shortBase && (rights & AR_UNUSABLE) !== 0;
    saveWords(copy, segment.selector, words[at] as number, 0);
    saveWords(copy, segment.base, words[at + 2] as number, cut ? 0 : (words[at + 3] as number));
    saveWords(copy, segment.limit, words[at + 4] as number, 0);
    saveWords(copy, segment.rights, (rights & ~AR_RESERVED) >>> 0, 0);
  }
}

/** SDM §30.3.3: RFLAGS as it is, but for RF. */
function saveRflags(copy: ProcessorCopy, words: Uint32Array, request: ExitRequest): void {
  const rflags = words[2 * R.RFLAGS] as number;
  saveWords(
    copy,
    F.guestRflags,
    savedResumeFlag(rflags, request) ? (rflags | RF) >>> 0 : (rflags & ~RF) >>> 0,
    0,
  );
}

function savedResumeFlag(rflags: number, request: ExitRequest): boolean {
  if (request.enclaveMode) return false;
  if (request.resumeFlag !== undefined) return request.resumeFlag;
  const { reason } = request;
  const spec = EXIT_REASONS[reason];
  if (ACCESS_EXITS.has(reason) && !isDuringDelivery(request)) return true;
  const byInstruction =
    spec.class === 'fault-like' && reason >= ExitReason.Cpuid && !ACCESS_EXITS.has(reason);
  return byInstruction ? false : (rflags & RF) !== 0;
}

function saveNonRegisterState(p: VmxProcessor, copy: ProcessorCopy, request: ExitRequest): void {
  const { capabilities, vmx } = p;
  const { words, quads } = p.cpu;
  if (isDuringDelivery(request)) beginDelivery(p, copy, request);
  saveWords(copy, F.guestActivityState, words[2 * R.activityState] as number, 0);
  const nmi = isOn(copy, capabilities, VIRTUAL_NMIS)
    ? Number(vmx.virtualNmiBlocking)
    : (words[2 * R.blockingByNmi] as number);
  const movSs = words[2 * R.blockingByMovSs] as number;
  const enclave = Number(isEnclaveInterruption(request, words[2 * R.enclaveInterruption] as number));
  const interruptibility =
    (words[2 * R.blockingBySti] as number) | (movSs << 1) | (nmi << 3) | (enclave << 4);
  saveWords(copy, F.guestInterruptibilityState, interruptibility, 0);

  const isMachineCheck = request.event !== undefined && (request.event & 0x7ff) === 0x312;
  const keeps =
    EXIT_REASONS[request.reason].keepsPendingDebug ||
    isMachineCheck ||
    (movSs === 1 && !isDebugException(request));
  const pending = keeps ? (words[2 * R.pendingDebugExceptions] as number) & DEBUG_DEFINED : 0;
  saveWords(copy, F.guestPendingDebugExceptions, pending, 0);

  if (isOn(copy, capabilities, SAVE_TIMER) && vmx.preemptionTimer !== undefined) {
    const expired = request.reason === ExitReason.VmxPreemptionTimerExpired;
    saveWords(copy, F.vmxPreemptionTimerValue, expired ? 0 : remainingTimer(p), 0);
  }
  const cr0 = words[2 * R.CR0] as number;
  const cr4 = words[2 * R.CR4] as number;
  const longMode = ((words[2 * R.IA32_EFER] as number) >>> EFER.LMA) & 1;
  const pae = (cr0 >>> CR0.PG) & (cr4 >>> CR4.PAE) & 1 & ~longMode;
  if (pae === 1 && isOn(copy, capabilities, ENABLE_EPT)) {
    for (let i = 0; i < 4; i++) saveValue(copy, F.guestPdpte0 + i, quads[R.PDPTE0 + i] as bigint);
  }
  if (isOn(copy, capabilities, VIRTUAL_INTERRUPT_DELIVERY)) {
    saveWords(copy, F.guestInterruptStatus, (vmx.svi << 8) | vmx.rvi, 0);
  }
  if (capabilities.fieldExists[F.guestDeadline] === 1) {
    if (vmx.guestDeadline === 0n) saveWords(copy, F.guestDeadline, 0, 0);
    else saveValue(copy, F.guestDeadline, vmx.guestDeadline);
  }
}

/**
 * SDM §30.1: an event whose delivery exits has already made the processor active and ended blocking by
 * STI and by MOV SS; an NMI has already blocked NMIs.
 */
function beginDelivery(p: VmxProcessor, copy: ProcessorCopy, request: ExitRequest): void {
  const { words } = p.cpu;
  words[2 * R.activityState] = 0;
  words[2 * R.blockingBySti] = 0;
  words[2 * R.blockingByMovSs] = 0;
  if ((((request.originalEvent as number) >>> 8) & 7) !== EventType.Nmi) return;
  if (isOn(copy, p.capabilities, VIRTUAL_NMIS)) p.vmx.virtualNmiBlocking = true;
  else words[2 * R.blockingByNmi] = 1;
}

/** SDM §28.5.1: the timer has counted down once for every change of TSC bit X since VM entry. */
export function remainingTimer(p: VmxProcessor): number {
  const { preemptionTimer } = p.vmx;
  if (preemptionTimer === undefined) return 0;
  const rate = p.capabilities.misc & 0x1fn;
  const now = (p.cpu.quads[R.IA32_TIME_STAMP_COUNTER] as bigint) >> rate;
  const elapsed = BigInt.asUintN(64 - Number(rate), now - (preemptionTimer.tsc >> rate));
  const value = BigInt(preemptionTimer.value);
  return elapsed >= value ? 0 : Number(value - elapsed);
}
