/**
 * What VT-x adds to the state of a logical processor (SDM §26.3, §26.5, §27.1, §29.7): the kind of
 * VMX operation, the VMXON and current-VMCS pointers, and what holds only in non-root operation.
 */
import type { Processor } from '../cpu/processor.ts';
import { Register } from '../cpu/registers.ts';
import type { ProcessorCopy } from '../vmcs/processor-copy.ts';
import type { ActiveSet } from './active-set.ts';
import type { VmxCapabilities } from './capabilities/capabilities.ts';
import type { EffectiveControls } from './effective-controls.ts';
import type { HazardMonitor } from './hazards/hazard-monitor.ts';
import type { VmxObserver } from './vmx-observer.ts';

/** Kind of VMX operation. */
export const Operation = { Outside: 0, Root: 1, NonRoot: 2 } as const;
export type Operation = (typeof Operation)[keyof typeof Operation];

/** No VMXON region; as a 64-bit pointer this is FFFFFFFF_FFFFFFFFH. */
export const NO_POINTER = -1;
export const NO_POINTER_64 = 0xffff_ffff_ffff_ffffn;

/** No write to the virtual-APIC page waits for its emulation. */
export const NO_APIC_WRITE = -1;

/** An event that VM entry injected and that is still to be delivered (SDM §29.6). */
export interface InjectedEvent {
  /** Injected-event identification as it was in the VMCS. */
  readonly identification: number;
  /** Injected-event error code; meaningful if bit 11 of the identification is 1. */
  readonly errorCode: number;
  readonly instructionLength: number;
  /** Activity state of the guest, which counts for user-interrupt notifications alone (SDM §29.6.1). */
  readonly activity: number;
  /** Injected-event data; meaningful with FRED delivery. */
  readonly data: bigint;
  /** The guest's blocking by STI, which FRED delivery saves. */
  readonly blockedBySti: boolean;
}

/** What SMI delivery keeps inside the processor (SDM §34.14.1). */
export interface SuspendedOperation {
  readonly operation: Operation;
  readonly cr4Vmxe: boolean;
  /** SS.DPL, as in access rights, and RFLAGS.VM. */
  readonly ssDpl: number;
  readonly rflagsVm: number;
}

export class VmxState {
  operation: Operation = Operation.Outside;
  /** Physical address of the VMXON region, or {@link NO_POINTER}. */
  vmxonPointer = NO_POINTER;
  /** The current VMCS. */
  current: ProcessorCopy | undefined;
  /** In non-root operation with "VMCS shadowing": the VMCS at the VMCS link pointer. */
  link: ProcessorCopy | undefined;
  /** INIT is blocked in VMX root operation (SDM §26.8). */
  initBlocked = false;
  /** A20M is blocked in VMX operation (SDM §26.8). */
  a20mBlocked = false;
  /** While dual-monitor treatment is active: the SMM-transfer VMCS pointer (SDM §34.15.1), otherwise {@link NO_POINTER}. */
  smmTransfer = NO_POINTER;
  /** A machine-check event that strikes at the next VM entry (SDM §29.9). */
  machineCheckPending = false;
  /** How often VMX operation was entered. */
  vmxonCount = 0;
  /** VMX operation as an SMI found it, in SMM (SDM §34.14.1). */
  suspended: SuspendedOperation | undefined;
  /** `vmx-abort`: only RESET helps (SDM §30.7). */
  shutdown: 'no' | 'vmx-abort' = 'no';

  // Only in non-root operation:
  /** Of the guest, as VM entry found them. */
  controls: EffectiveControls | undefined;
  injectedEvent: InjectedEvent | undefined;
  /** The last instruction asserted a bus lock under "VMM bus-lock detection" (SDM §28.2). */
  busLockAsserted = false;
  /** Events that followed each other without an instruction: `executed` at the first, and after the last. */
  eventsFrom = 0;
  eventsUntil = -1;
  /** A pending MTF VM exit (SDM §29.6.2, §29.7.8). */
  mtfPending = false;
  /** PAUSEs at CPL 0 (SDM §28.1.3): start of the present loop and the last one; −1 before the first. */
  firstPause = 0;
  lastPause = -1;
  /** Virtual-NMI blocking ("virtual NMIs" = 1). */
  virtualNmiBlocking = false;
  /** VPID in use; 0 outside non-root operation or with "enable VPID" = 0 (SDM §31.1). */
  vpid = 0;
  /** VMX-preemption timer: its value at VM entry, and the TSC then; undefined while it does not run. */
  preemptionTimer: { readonly value: number; readonly tsc: bigint } | undefined;
  /** Requesting and servicing virtual interrupt (SDM §32.1). */
  rvi = 0;
  svi = 0;
  /** A virtual interrupt is recognised (SDM §32.2.1). */
  virtualInterruptPending = false;
  /** Guest deadline; undefined if disarmed (SDM §28.5.10). */
  guestDeadline: bigint | undefined;
  /** Page offset and bytes of the virtualized APIC write of this operation (SDM §32.4.3), or {@link NO_APIC_WRITE}. */
  apicWrite = NO_APIC_WRITE;
  apicWriteBytes = 0;
  /** Physical address of the APIC-access page, −1 without "virtualize APIC accesses" (SDM §32.4). */
  apicAccessPage = -1;
  /** After VM entry VTPR is below the TPR threshold: an exit follows (SDM §29.7.7). */
  tprBelowThreshold = false;

  /** Leaves VMX operation, or resets: all but the shutdown state. */
  leave(): void {
    this.operation = Operation.Outside;
    this.vmxonPointer = NO_POINTER;
    this.smmTransfer = NO_POINTER;
    this.current = undefined;
    this.initBlocked = false;
    this.a20mBlocked = false;
    this.suspended = undefined;
    this.leaveNonRoot();
  }

  /** Forgets what holds only in non-root operation. */
  leaveNonRoot(): void {
    this.link = undefined;
    this.injectedEvent = undefined;
    this.mtfPending = false;
    this.busLockAsserted = false;
    this.eventsUntil = -1;
    this.lastPause = -1;
    this.virtualNmiBlocking = false;
    this.vpid = 0;
    this.preemptionTimer = undefined;
    this.rvi = 0;
    this.svi = 0;
    this.virtualInterruptPending = false;
    this.controls = undefined;
    this.guestDeadline = undefined;
    this.apicWrite = NO_APIC_WRITE;
    this.apicAccessPage = -1;
    this.tprBelowThreshold = false;
  }
}

/** Cached mappings of EPT, as instructions invalidate them (SDM §31.4.3.1). */
interface GuestPhysicalContexts {
  /** Whatever was made from the structures that start at `root`. */
  invalidateContext(root: number): void;
  invalidateAllContexts(): void;
}

/** A processor with VT-x, as entry, exit and the instructions see it. */
export interface VmxProcessor {
  readonly cpu: Processor;
  readonly capabilities: VmxCapabilities;
  readonly vmx: VmxState;
  readonly active: ActiveSet;
  readonly ept: GuestPhysicalContexts;
  readonly hazards: HazardMonitor;
  readonly observer: VmxObserver | undefined;
}

const TME_ACTIVATE = 2 * Register.IA32_TME_ACTIVATE;

/** Bits by which IA32_TME_ACTIVATE reduces the physical-address width: [39:36] if bit 0 is 1 (SDM §29.2.1). */
export function tmeReduction(p: VmxProcessor): number {
  const { words } = p.cpu;
  const active = (words[TME_ACTIVATE] as number) & 1;
  return active ? ((words[TME_ACTIVATE + 1] as number) >>> 4) & 0xf : 0;
}
