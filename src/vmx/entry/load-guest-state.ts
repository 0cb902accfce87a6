/**
 * Loading of guest state (SDM §29.3.2) and updating of non-register state (§29.7). Registers that are
 * loaded whole are slot-to-slot moves; what has a rule of its own follows.
 */
import { slotsOf } from '../../bits/slots.ts';
import { CR0, CR4, EFER, Register } from '../../cpu/registers.ts';
import { Field } from '../../vmcs/fields.ts';
import { EVENT_VALID, EventType } from '../../vmcs/formats.ts';
import type { ProcessorCopy } from '../../vmcs/processor-copy.ts';
import { evaluatePending, isTprBelowThreshold, virtualizePpr } from '../apic/virtual-interrupts.ts';
import { controlRef, type EffectiveControls } from '../effective-controls.ts';
import { ControlledMoves, loadRegisters, SEGMENT_MOVES } from '../slot-moves.ts';
import type { VmxProcessor } from '../vmx-state.ts';

// Only the slots this file uses, in objects small enough to be constants (bench: "VMRESUME + exit").
const F = slotsOf(Field, [
  'apicAccessAddress',
  'guestActivityState',
  'guestCr0',
  'guestDeadline',
  'guestDr7',
  'guestIa32Efer',
  'guestInterruptStatus',
  'guestInterruptibilityState',
  'guestPdpte0',
  'guestPendingDebugExceptions',
  'guestUinv',
  'injectedEventData',
  'injectedEventErrorCode',
  'injectedEventIdentification',
  'vmEntryInstructionLength',
  'vmxPreemptionTimerValue',
  'vpid',
]);
const R = slotsOf(Register, [
  'CR0',
  'CR3',
  'CR4',
  'DR7',
  'IA32_EFER',
  'IA32_TIME_STAMP_COUNTER',
  'IA32_UINTR_MISC',
  'PDPTE0',
  'activityState',
  'blockingByMovSs',
  'blockingByNmi',
  'blockingBySti',
  'enclaveInterruption',
  'monitorArmed',
  'pendingDebugExceptions',
]);

const GUEST_STATE = new ControlledMoves(
  {
    guestCr3: 'CR3',
    guestCr4: 'CR4',
    guestRip: 'RIP',
    guestRsp: 'RSP',
    guestRflags: 'RFLAGS',
    guestIa32SysenterCs: 'IA32_SYSENTER_CS',
    guestIa32SysenterEsp: 'IA32_SYSENTER_ESP',
    guestIa32SysenterEip: 'IA32_SYSENTER_EIP',
    guestGdtrBase: 'GDTR.base',
    guestGdtrLimit: 'GDTR.limit',
    guestIdtrBase: 'IDTR.base',
    guestIdtrLimit: 'IDTR.limit',
    ...SEGMENT_MOVES,
  },
  {
    'entry.loadDebugControls': { guestIa32Debugctl: 'IA32_DEBUGCTL' },
    'entry.loadIa32PerfGlobalCtrl': { guestIa32PerfGlobalCtrl: 'IA32_PERF_GLOBAL_CTRL' },
    'entry.loadIa32Pat': { guestIa32Pat: 'IA32_PAT' },
    'entry.loadIa32Bndcfgs': { guestIa32Bndcfgs: 'IA32_BNDCFGS' },
    'entry.loadIa32RtitCtl': { guestIa32RtitCtl: 'IA32_RTIT_CTL' },
    'entry.loadGuestIa32LbrCtl': { guestIa32LbrCtl: 'IA32_LBR_CTL' },
    'entry.loadPkrs': { guestIa32Pkrs: 'IA32_PKRS' },
    'entry.loadIa32SpecCtrl': { guestIa32SpecCtrl: 'IA32_SPEC_CTRL' },
    'entry.loadCetState': {
      guestIa32SCet: 'IA32_S_CET',
      guestIa32InterruptSspTableAddr: 'IA32_INTERRUPT_SSP_TABLE_ADDR',
      guestSsp: 'SSP',
    },
    'entry.loadFred': {
      guestIa32FredConfig: 'IA32_FRED_CONFIG',
      guestIa32FredRsp1: 'IA32_FRED_RSP1',
      guestIa32FredRsp2: 'IA32_FRED_RSP2',
      guestIa32FredRsp3: 'IA32_FRED_RSP3',
      guestIa32FredStklvls: 'IA32_FRED_STKLVLS',
      guestIa32FredSsp1: 'IA32_FRED_SSP1',
      guestIa32FredSsp2: 'IA32_FRED_SSP2',
      guestIa32FredSsp3: 'IA32_FRED_SSP3',
    },
  },
);

// Constants to the compiler, which imported bindings are not (bench: "VMRESUME + exit").
const { PG } = CR0;
const { PAE } = CR4;
const { LMA, LME } = EFER;
const VALID = EVENT_VALID;
const { Nmi, Other, SoftwareInterrupt, SoftwareException } = EventType;

const LOAD_DEBUG_CONTROLS = controlRef('entry.loadDebugControls');
const LOAD_EFER = controlRef('entry.loadIa32Efer');
const LOAD_UINV = controlRef('entry.loadUinv');
const IA32E_MODE_GUEST = controlRef('entry.ia32eModeGuest');
const ENABLE_EPT = controlRef('proc2.enableEpt');
const ENABLE_VPID = controlRef('proc2.enableVpid');
const VIRTUAL_NMIS = controlRef('pin.virtualNmis');
const PREEMPTION_TIMER = controlRef('pin.activateVmxPreemptionTimer');
const VIRTUAL_INTERRUPT_DELIVERY = controlRef('proc2.virtualInterruptDelivery');
const TPR_SHADOW = controlRef('proc.useTprShadow');
const APIC_ACCESSES = controlRef('proc2.virtualizeApicAccesses');
const APIC_TIMER = controlRef('proc3.apicTimerVirtualization');

/** Bits of CR0 that VM entry leaves as they are: ET, 15:6, 17, 28:19, NW and CD (SDM §29.3.2.1). */
const CR0_KEPT = 0x7ffa_ffd0;
const DR7_ZERO = 0xd000;
const DR7_ONE = 0x400;
const AR_UNUSABLE = 0x1_0000;
const AR_DB = 0x4000;
const [SS_BASE, SS_RIGHTS] = [Register['SS.base'], Register['SS.accessRights']];
const DS_BASE = Register['DS.base'];
const ES_BASE = Register['ES.base'];

/** Registers and MSRs (SDM §29.3.2.1–§29.3.2.4). The mode does not follow yet. */
export function loadGuestRegisters(p: VmxProcessor, copy: ProcessorCopy, controls: EffectiveControls): void {
  const { capabilities } = p;
  const { words } = p.cpu;
  const fields = copy.words;
  const cr0 = 2 * R.CR0;
  words[cr0] = (((words[cr0] as number) & CR0_KEPT) | ((fields[2 * F.guestCr0] as number) & ~CR0_KEPT)) >>> 0;
  loadRegisters(GUEST_STATE.under(controls, capabilities), copy.quads, p.cpu.quads);
  loadUnusableSegments(words);
  if (controls.isOn(LOAD_DEBUG_CONTROLS)) {
    words[2 * R.DR7] = (((fields[2 * F.guestDr7] as number) & ~DR7_ZERO) | DR7_ONE) >>> 0;
    words[2 * R.DR7 + 1] = 0;
  }
  loadEfer(p, copy, controls);
  if (controls.isOn(LOAD_UINV)) {
    // UINV is IA32_UINTR_MISC[39:32].
    const high = 2 * R.IA32_UINTR_MISC + 1;
    words[high] = (((words[high] as number) & ~0xff) | ((fields[2 * F.guestUinv] as number) & 0xff)) >>> 0;
  }
  loadPdptes(p, copy, controls);
}

/**
 * SDM §29.3.2.2: what an unusable register holds is undefined but for a few parts. Undefined parts are
 * loaded as the fields have them; SS.base[3:0] := 0, SS.B := 1, and bases of SS, DS, ES lose bits 63:32.
 */
function loadUnusableSegments(words: Uint32Array): void {
  const stack = words[2 * SS_RIGHTS] as number;
  if (stack & AR_UNUSABLE) {
    words[2 * SS_BASE] = ((words[2 * SS_BASE] as number) & ~0xf) >>> 0;
    words[2 * SS_BASE + 1] = 0;
    words[2 * SS_RIGHTS] = (stack | AR_DB) >>> 0;
  }
  // If DS and ES are usable, these bits are 0 already: VM entry has checked it.
  words[2 * DS_BASE + 1] = 0;
  words[2 * ES_BASE + 1] = 0;
}

/**
 * SDM §29.3.2.1: without "load IA32_EFER", LMA follows the control, and LME too if paging will be on.
 * Without Intel 64 the control is 0 and so are both bits.
 */
function loadEfer(p: VmxProcessor, copy: ProcessorCopy, controls: EffectiveControls): void {
  const { words } = p.cpu;
  const efer = 2 * R.IA32_EFER;
  if (controls.isOn(LOAD_EFER)) {
    words[efer] = copy.words[2 * F.guestIa32Efer] as number;
    words[efer + 1] = copy.words[2 * F.guestIa32Efer + 1] as number;
    return;
  }
  const paging = ((words[2 * R.CR0] as number) >>> PG) & 1;
  const follows = (1 << LMA) | (paging ? 1 << LME : 0);
  const value = controls.isOn(IA32E_MODE_GUEST) ? follows : 0;
  words[efer] = (((words[efer] as number) & ~follows) | value) >>> 0;
}

/** SDM §29.3.2.4: PDPTEs of a guest that uses PAE paging, from the fields with EPT and from memory without. */
function loadPdptes(p: VmxProcessor, copy: ProcessorCopy, controls: EffectiveControls): void {
  const { words, quads, memory } = p.cpu;
  const cr0 = words[2 * R.CR0] as number;
  const cr4 = words[2 * R.CR4] as number;
  const pae = (cr0 >>> PG) & (cr4 >>> PAE) & 1;
  if (pae === 0 || controls.isOn(IA32E_MODE_GUEST)) return;
  const table = ((words[2 * R.CR3] as number) & 0xffff_ffe0) >>> 0;
  const ept = controls.isOn(ENABLE_EPT);
  for (let i = 0; i < 4; i++) {
    quads[R.PDPTE0 + i] = ept ? (copy.quads[F.guestPdpte0 + i] as bigint) : memory.read64(table + 8 * i);
  }
}

/** VM entry is "injecting" (SDM §29.7): a valid event other than a pending MTF VM exit. */
function isInjecting(identification: number): boolean {
  if ((identification & VALID) === 0) return false;
  const type = (identification >>> 8) & 7;
  return type !== Other || (identification & 0xff) !== 0;
}

/** Interruptibility, activity state, pending debug exceptions and what else VM entry establishes (SDM §29.3.2.5, §29.7). */
export function loadNonRegisterState(
  p: VmxProcessor,
  copy: ProcessorCopy,
  controls: EffectiveControls,
): void {
  const { vmx } = p;
  const { words } = p.cpu;
  const fields = copy.words;
  const identification = fields[2 * F.injectedEventIdentification] as number;
  const injecting = isInjecting(identification);
  const type = (identification >>> 8) & 7;
  const interruptibility = fields[2 * F.guestInterruptibilityState] as number;
  const virtualNmis = controls.isOn(VIRTUAL_NMIS);

  words[2 * R.blockingBySti] = injecting ? 0 : interruptibility & 1;
  words[2 * R.blockingByMovSs] = injecting ? 0 : (interruptibility >>> 1) & 1;
  const nmi = (interruptibility >>> 3) & 1;
  words[2 * R.blockingByNmi] = virtualNmis ? 0 : nmi;
  vmx.virtualNmiBlocking = virtualNmis && (nmi === 1 || (injecting && type === Nmi));
  words[2 * R.enclaveInterruption] = (interruptibility >>> 4) & 1;
  const activity = fields[2 * F.guestActivityState] as number;
  words[2 * R.activityState] = injecting ? 0 : activity;
  words[2 * R.pendingDebugExceptions] = keepsPendingDebug(
    identification,
    injecting,
    interruptibility,
    activity,
    ((words[2 * R.CR4 + 1] as number) & 1) !== 0,
  )
    ? (fields[2 * F.guestPendingDebugExceptions] as number)
    : 0;
  words[2 * R.monitorArmed] = 0;

  vmx.mtfPending = (identification & VALID) !== 0 && !injecting;
  vmx.injectedEvent = injecting
    ? {
        identification,
        errorCode: fields[2 * F.injectedEventErrorCode] as number,
        instructionLength: fields[2 * F.vmEntryInstructionLength] as number,
        activity,
        data: copy.quads[F.injectedEventData] as bigint,
        blockedBySti: (interruptibility & 1) !== 0,
      }
    : undefined;
  vmx.vpid = controls.isOn(ENABLE_VPID) ? (fields[2 * F.vpid] as number) : 0;
  vmx.preemptionTimer = controls.isOn(PREEMPTION_TIMER)
    ? {
        value: fields[2 * F.vmxPreemptionTimerValue] as number,
        tsc: p.cpu.quads[R.IA32_TIME_STAMP_COUNTER] as bigint,
      }
    : undefined;
  vmx.guestDeadline = controls.isOn(APIC_TIMER) ? armedDeadline(copy) : undefined;
  if (controls.isOn(VIRTUAL_INTERRUPT_DELIVERY)) loadInterruptStatus(p, copy);
  if (controls.isOn(APIC_ACCESSES)) {
    vmx.apicAccessPage = Number(copy.quads[F.apicAccessAddress] as bigint);
    vmx.tprBelowThreshold =
      controls.isOn(TPR_SHADOW) && !controls.isOn(VIRTUAL_INTERRUPT_DELIVERY) && isTprBelowThreshold(p, copy);
  }
}

/** A guest deadline of 0 is that of a disarmed timer (SDM §28.5.10). */
function armedDeadline({ quads }: ProcessorCopy): bigint | undefined {
  const deadline = quads[F.guestDeadline] as bigint;
  return deadline === 0n ? undefined : deadline;
}

/** SDM §29.7.3: in which cases pending debug exceptions survive VM entry. */
function keepsPendingDebug(
  identification: number,
  injecting: boolean,
  interruptibility: number,
  activity: number,
  fredDelivery: boolean,
): boolean {
  if (!injecting) return activity < 2;
  if (fredDelivery) return false;
  const type = (identification >>> 8) & 7;
  const software = type === SoftwareInterrupt || type === SoftwareException;
  return software && (interruptibility & 2) !== 0;
}

/** SDM §29.3.2.5: RVI and SVI, PPR virtualization, evaluation of pending virtual interrupts. */
function loadInterruptStatus(p: VmxProcessor, copy: ProcessorCopy): void {
  const { vmx } = p;
  const status = copy.words[2 * F.guestInterruptStatus] as number;
  vmx.rvi = status & 0xff;
  vmx.svi = status >>> 8;
  virtualizePpr(p, copy);
  evaluatePending(p, copy);
}
