/**
 * Answers the questions of an executing processor (cpu/vmx-port.ts) with the VT-x unit and, in VMX
 * non-root operation, with the rules of `intercepts/`. Exits that rules ask for are performed here.
 */
import { takeEvent } from '../cpu/boundary.ts';
import { EventType } from '../cpu/event.ts';
import { deliverInjected } from '../cpu/events.ts';
import { raiseVmExit } from '../cpu/exceptions.ts';
import type { Instruction, Next } from '../cpu/instruction.ts';
import type { Enabling, Intercept, VmxInstruction } from '../cpu/intercept.ts';
import type { MsrAccess } from '../cpu/msr-catalogue.ts';
import type { Processor } from '../cpu/processor.ts';
import { Register } from '../cpu/registers.ts';
import type { Access } from '../cpu/tlb.ts';
import { isUserInterruptNotificationEvent } from '../cpu/user-interrupts.ts';
import { BoundaryStage, type VmxPort } from '../cpu/vmx-port.ts';
import {
  accessExit,
  loadRegister,
  readExit,
  storeRegister,
  touchExit,
  writeExit,
} from './apic/access-page.ts';
import { apicExitBeforeEvents, takeVirtualInterrupt } from './apic/apic-events.ts';
import {
  armMonitorTrap,
  interruptWindowExit,
  monitorTrapExit,
  nmiWindowExit,
  processGuestTimer,
  timerExit,
  updateDeadline,
} from './events/boundary-exits.ts';
import { busLockExit, noteBusLock, noteEvent, timeoutExit } from './events/instruction-exits.ts';
import { resumeOperation, suspendOperation } from './events/system-management.ts';
import { EXIT_REASONS } from './exit/exit-reasons.ts';
import type { ExitRequest } from './exit/exit-request.ts';
import { operationChanged } from './follow-operation.ts';
import { executeDecoded } from './instructions/decoded.ts';
import * as events from './intercepts/event-exits.ts';
import { NonRootOperation } from './intercepts/non-root.ts';
import { smiExit } from './smm/smm-exit.ts';
import { NO_POINTER } from './vmx-state.ts';
import type { VmxUnit } from './vmx-unit.ts';

const ACTIVITY = 2 * Register.activityState;
const SMI_PENDING = 2 * Register.smiPending;

export class UnitPort implements VmxPort {
  private readonly unit: VmxUnit;
  private readonly nonRoot: NonRootOperation;
  /** The exit that an instruction was answered with. */
  private pending: ExitRequest | undefined = undefined;
  /** The event just taken was a notification of posted interrupts. */
  private onlyProcessed = false;

  constructor(unit: VmxUnit) {
    this.unit = unit;
    this.nonRoot = new NonRootOperation(unit);
  }

  capabilityMsr(index: number): bigint | undefined {
    return this.unit.capabilityMsr(index);
  }

  allowsControlRegister(register: 'CR0' | 'CR4', value: bigint): boolean {
    return this.unit.allowsControlRegister(register, value);
  }

  allowsRtitCtlWrite(): boolean {
    return this.unit.allowsRtitCtlWrite();
  }

  intercepts(i: Instruction, cause: Intercept, a: number, b: number): boolean {
    this.pending = this.nonRoot.exitOf(i, cause, a, b);
    return this.pending !== undefined;
  }

  /** An access came to an exit: it is performed as soon as the processor asks. */
  request(exit: ExitRequest): void {
    this.pending = exit;
  }

  exitPending(instructionLength = 0): void {
    const { pending } = this;
    this.pending = undefined;
    if (pending === undefined) return;
    const isAccess = EXIT_REASONS[pending.reason].instructionLength === 'access';
    const lacksLength = isAccess && instructionLength !== 0 && pending.instructionLength === undefined;
    this.unit.perform(lacksLength ? { ...pending, instructionLength } : pending);
  }

  enables(enabling: Enabling): boolean {
    return this.nonRoot.enables(enabling);
  }

  execute(_cpu: Processor, instruction: VmxInstruction, i: Instruction): Next {
    return executeDecoded(this.unit, instruction, i);
  }

  visibleControlRegister(register: 'CR0' | 'CR4'): bigint {
    return this.nonRoot.visibleControlRegister(register);
  }

  writtenControlRegister(register: 'CR0' | 'CR4', source: bigint): bigint {
    return this.nonRoot.writtenControlRegister(register, source);
  }

  visibleTsc(tsc: bigint): bigint {
    return this.nonRoot.visibleTsc(tsc);
  }

  physicalDelay(virtual: bigint): bigint {
    return this.nonRoot.physicalDelay(virtual);
  }

  mwaitGoesOn(): boolean {
    return this.nonRoot.mwaitGoesOn();
  }

  readSpecialTpr(): number {
    return this.nonRoot.readSpecialTpr();
  }

  writeSpecialTpr(value: number): boolean {
    return this.nonRoot.writeSpecialTpr(value);
  }

  readSpecialMsr(index: number): bigint | undefined {
    return this.nonRoot.readSpecialMsr(index);
  }

  writeSpecialMsr(index: number, value: bigint): MsrAccess | undefined {
    return this.nonRoot.writeSpecialMsr(index, value);
  }

  virtualizesSenduipi(vector: number, destination: number): boolean {
    return this.nonRoot.virtualizesSenduipi(vector, destination);
  }

  // Accesses to the APIC-access page.

  loadVirtualApic(offset: number, to: number, bytes: number): boolean {
    const { unit } = this;
    return this.permits(readExit(unit, offset, bytes)) && loadRegister(unit, offset, to, bytes);
  }

  storeVirtualApic(offset: number, from: number, bytes: number): boolean {
    const { unit } = this;
    return this.permits(writeExit(unit, offset, bytes)) && storeRegister(unit, offset, from, bytes);
  }

  probeVirtualApicStore(offset: number, bytes: number): boolean {
    return this.permits(writeExit(this.unit, offset, bytes));
  }

  touchVirtualApic(offset: number): boolean {
    return this.permits(touchExit(this.unit, offset));
  }

  refuseVirtualApic(offset: number, access: Access): false {
    this.permits(accessExit(this.unit, offset, access));
    return false;
  }

  /** Makes an exit pending that takes the place of an access. */
  private permits(request: ExitRequest | undefined): boolean {
    if (request === undefined) return true;
    this.pending = request;
    raiseVmExit(this.unit.cpu);
    return false;
  }

  // Events.

  private performs(request: ExitRequest | undefined): boolean {
    if (request === undefined) return false;
    this.unit.perform(request);
    return true;
  }

  exitsOnEvent(event: number, errorCode: number, instructionLength: number): boolean {
    return this.performs(events.exceptionExit(this.unit, event, errorCode, instructionLength));
  }

  exitsOnTripleFault(): boolean {
    return this.performs(events.TRIPLE_FAULT);
  }

  exitsOnTaskSwitch(selector: number): boolean {
    return this.performs(events.taskGateExit(this.unit, selector));
  }

  exitsOnSmi(): boolean {
    const { unit } = this;
    if (unit.vmx.smmTransfer === NO_POINTER) return false;
    unit.cpu.words[SMI_PENDING] = 0;
    smiExit(unit);
    operationChanged(unit);
    return true;
  }

  blocksInit(): boolean {
    return this.unit.vmx.initBlocked;
  }

  entersSmm(): bigint | undefined {
    const eptp = suspendOperation(this.unit);
    this.unit.followOperation();
    return eptp;
  }

  leavesSmm(): void {
    resumeOperation(this.unit);
    this.unit.followOperation();
  }

  exitsOnInit(): boolean {
    return this.performs(events.INIT_SIGNAL);
  }

  exitsOnStartUp(vector: number): boolean {
    return this.performs(events.startUpExit(vector));
  }

  exitsOnNmi(): boolean {
    return this.performs(events.nmiExit(this.unit));
  }

  exitsOnExternalInterrupt(): boolean {
    const request = events.externalInterruptExit(this.unit);
    if (request !== 'processed') return this.performs(request);
    const { cpu } = this.unit;
    this.onlyProcessed = true;
    // A string instruction is still between two iterations.
    if (cpu.repeatedAt === cpu.executed) cpu.repeatedAt++;
    return true;
  }

  exitsAtBoundary(stage: BoundaryStage): boolean {
    const { unit } = this;
    switch (stage) {
      case BoundaryStage.First:
        updateDeadline(unit);
        return (
          this.deliversInjected() ||
          this.performs(timeoutExit(unit) ?? busLockExit(unit) ?? apicExitBeforeEvents(unit))
        );
      case BoundaryStage.BeforeTraps:
        return this.performs(monitorTrapExit(unit));
      case BoundaryStage.BeforeNmi:
        return this.performs(timerExit(unit) ?? nmiWindowExit(unit));
      case BoundaryStage.BeforeInterrupts:
        processGuestTimer(unit);
        return this.performs(interruptWindowExit(unit)) || this.deliversVirtualInterrupt();
      case BoundaryStage.Stalled:
        return this.performs(timeoutExit(unit));
    }
  }

  /** The event that VM entry injected comes before all others (SDM §29.6, §29.7). */
  private deliversInjected(): boolean {
    const { vmx, cpu } = this.unit;
    const { injectedEvent } = vmx;
    if (injectedEvent === undefined) return false;
    const { identification, errorCode, instructionLength, activity, data, blockedBySti } = injectedEvent;
    // With a user-interrupt notification the guest stays in the activity state of its VMCS.
    if (isUserInterruptNotificationEvent(cpu, identification)) cpu.i32[ACTIVITY] = activity;
    deliverInjected(
      cpu,
      identification | 0,
      errorCode,
      instructionLength,
      !events.virtualisesNmis(this.unit),
      data,
      blockedBySti,
    );
    if (cpu.nonRoot) vmx.injectedEvent = undefined;
    return true;
  }

  proceeds(executes: boolean): void {
    // Nothing was delivered to the guest, and it has executed nothing.
    if (!this.onlyProcessed) {
      armMonitorTrap(this.unit);
      if (!executes) noteEvent(this.unit);
    }
    this.onlyProcessed = false;
  }

  busLocked(): void {
    noteBusLock(this.unit);
  }

  private deliversVirtualInterrupt(): boolean {
    const vector = takeVirtualInterrupt(this.unit);
    if (vector < 0) return false;
    takeEvent(this.unit.cpu, EventType.ExternalInterrupt, vector);
    return true;
  }

  iretUnblocksNmi(): boolean {
    return events.iretUnblocks(this.unit);
  }
}
