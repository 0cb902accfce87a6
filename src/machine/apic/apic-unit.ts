/**
 * The local APIC of one processor (SDM vol. 3A chapter 12): what it accepts and sends, and what it
 * requests of the processor. Its mode is what IA32_APIC_BASE says; apic-register-file.ts is how software
 * sees it.
 */
import { Attention } from '../../cpu/attention.ts';
import type { InterruptSource } from '../../cpu/interrupt-source.ts';
import { ApicBase } from '../../cpu/local-apic.ts';
import { IA32_APIC_BASE, IA32_TSC_DEADLINE } from '../../cpu/msrs.ts';
import type { Processor } from '../../cpu/processor.ts';
import { Register } from '../../cpu/registers.ts';
import { ApicRegisterFile } from './apic-register-file.ts';
import { ApicError, Lvt, Spurious } from './apic-registers.ts';
import { ApicTimer, type ApicTimerState, type TimerMode } from './apic-timer.ts';
import type { InterruptBus } from './interrupt-bus.ts';
import {
  DeliveryMode,
  FIRST_VECTOR,
  type InterruptMessage,
  ipiMessage,
  Shorthand,
  shorthandOf,
  usesVector,
  X2APIC_BROADCAST,
  XAPIC_BROADCAST,
} from './interrupt-message.ts';
import { InterruptPriorities, type PrioritySnapshot } from './interrupt-priorities.ts';
import { type LintLine, LocalVectorTable, LvtEntry, type VectorTableSnapshot } from './local-vector-table.ts';

const BASE = 2 * Register.IA32_APIC_BASE;
const MODE_BITS = ApicBase.EN | ApicBase.EXTD;

interface ApicRegisters {
  logicalDestination: number;
  destinationFormat: number;
  spurious: number;
  /** What the error status register shows, and what was detected since it was written. */
  errorStatus: number;
  errors: number;
  command: number;
  commandHigh: number;
  /** An ExtINT message waits for the processor. */
  externalWaits: boolean;
}

export interface ApicSnapshot {
  readonly registers: ApicRegisters;
  readonly table: VectorTableSnapshot;
  readonly priorities: PrioritySnapshot;
  readonly timer: ApicTimerState;
}

const AFTER_RESET: ApicRegisters = {
  logicalDestination: 0,
  destinationFormat: 0xffff_ffff,
  spurious: 0xff,
  errorStatus: 0,
  errors: 0,
  command: 0,
  commandHigh: 0,
  externalWaits: false,
};

export class ApicUnit implements InterruptSource {
  readonly id: number;
  readonly #cpu: Processor;
  readonly #bus: InterruptBus;
  readonly timer: ApicTimer;
  /** When something is due has changed. */
  readonly rescheduled: () => void;
  readonly priorities = new InterruptPriorities();
  readonly table = new LocalVectorTable();
  registers: ApicRegisters = { ...AFTER_RESET };
  /** Vector that the processor is asked to take, −1 if there is none. */
  #pending = -1;
  /** Whether an interrupt of the external controllers is requested. */
  #external = false;

  /** `now`: virtual time. `tsc`: the processor's time-stamp counter at that time. */
  constructor(
    cpu: Processor,
    bus: InterruptBus,
    now: () => number,
    tsc: () => bigint,
    rescheduled: () => void,
  ) {
    this.id = cpu.index;
    this.#cpu = cpu;
    this.#bus = bus;
    this.rescheduled = rescheduled;
    this.timer = new ApicTimer(now, {
      get tsc() {
        return tsc();
      },
      get deadline() {
        return cpu.quads[Register.IA32_TSC_DEADLINE] as bigint;
      },
      set deadline(value: bigint) {
        cpu.quads[Register.IA32_TSC_DEADLINE] = value;
      },
    });
    cpu.localApic = new ApicRegisterFile(this, cpu);
    cpu.interrupts = this;
    bus.apics.push(this);
  }

  // Modes.

  get #base(): number {
    return this.#cpu.i32[BASE] as number;
  }

  /** IA32_APIC_BASE.EN: without it the processor is one without APIC. */
  get isPresent(): boolean {
    return (this.#base & ApicBase.EN) !== 0;
  }

  get isX2apic(): boolean {
    return (this.#base & MODE_BITS) === MODE_BITS;
  }

  /** Enabled by software too: it accepts fixed interrupts. */
  get isEnabled(): boolean {
    return this.isPresent && (this.registers.spurious & Spurious.Enabled) !== 0;
  }

  /** IA32_APIC_BASE, IA32_TSC_DEADLINE or IA32_TIME_STAMP_COUNTER was written. */
  msrWritten(index: number, old: bigint): void {
    if (index === IA32_APIC_BASE) {
      if ((Number(old & 0xfffn) & ApicBase.EN) !== 0 && !this.isPresent) this.#reset();
      this.#cpu.tlb.forgetAll();
      this.#evaluate();
      this.#bus.acceptanceChanged();
    } else if (index === IA32_TSC_DEADLINE) this.timer.deadlineWritten();
    this.rescheduled();
  }

  /** RESET: the lines stay as they are driven. */
  reset(): void {
    this.#reset();
    this.#cpu.tlb.forgetAll();
    this.#evaluate();
  }

  initialised(): void {
    this.reset();
    this.rescheduled();
  }

  #reset(): void {
    this.registers = { ...AFTER_RESET };
    this.priorities.clear();
    this.table.reset();
    this.timer.reset();
    this.#cpu.quads[Register.CR8] = 0n;
  }

  // Acceptance and requests (SDM vol. 3A §12.8).

  /** Whether `message` is for this APIC. */
  isAddressed({ destination, broadcast, isLogical }: InterruptMessage): boolean {
    if (!this.isPresent) return false;
    if (destination === broadcast) return true;
    if (!isLogical) return destination === this.id;
    const { logicalDestination, destinationFormat } = this.registers;
    if (this.isX2apic) {
      const own = this.logicalX2apicId;
      return destination >>> 16 === own >>> 16 && (destination & own & 0xffff) !== 0;
    }
    if (destination > XAPIC_BROADCAST) return false;
    const own = logicalDestination >>> 24;
    if (destinationFormat >>> 28 === 0xf) return (destination & own) !== 0;
    const cluster = destination >>> 4;
    return (cluster === own >>> 4 || cluster === 0xf) && (destination & own & 0xf) !== 0;
  }

  get logicalX2apicId(): number {
    return (((this.id >>> 4) << 16) | (1 << (this.id & 0xf))) >>> 0;
  }

  /** A message that is addressed to this APIC, or an interrupt of its own; whether it was accepted. */
  receive(mode: DeliveryMode, vector: number, isLevel: boolean): boolean {
    const cpu = this.#cpu;
    switch (mode) {
      case DeliveryMode.Fixed:
      case DeliveryMode.LowestPriority:
        return this.#accept(vector, isLevel);
      case DeliveryMode.Smi:
        cpu.requestSmi();
        return true;
      case DeliveryMode.Nmi:
        cpu.requestNmi();
        return true;
      case DeliveryMode.Init:
        cpu.requestInit();
        return true;
      case DeliveryMode.StartUp:
        cpu.requestSipi(vector);
        return true;
      case DeliveryMode.ExtInt:
        this.registers.externalWaits ||= this.isEnabled;
        this.#evaluate();
        return this.isEnabled;
      default:
        return false;
    }
  }

  #accept(vector: number, isLevel: boolean): boolean {
    if (!this.isEnabled) return false;
    if (vector < FIRST_VECTOR) {
      this.error(ApicError.ReceiveIllegalVector);
      return false;
    }
    this.priorities.accept(vector, isLevel);
    this.#evaluate();
    return true;
  }

  get arbitrationPriority(): number {
    return this.priorities.arbitrationPriority;
  }

  /** Works out anew what is requested of the processor. */
  #evaluate(): void {
    this.#pending = this.priorities.pending;
    // Without APIC LINT0 is the INTR pin.
    const line = this.isPresent ? this.table.requestsExternal : this.table.isHigh(0);
    this.#external = line || this.registers.externalWaits;
    if (this.#pending >= 0 || this.#external) this.#cpu.requestAttention(Attention.Event);
  }

  requested(): boolean {
    return this.#pending >= 0 || this.#external;
  }

  acknowledge(): number {
    const vector = this.#pending;
    if (vector >= 0) {
      this.priorities.takeIntoService(vector);
      this.#evaluate();
      return vector;
    }
    if (!this.#external) return this.registers.spurious & 0xff;
    this.registers.externalWaits = false;
    const external = this.#bus.acknowledgeExternal();
    this.#evaluate();
    return external;
  }

  endInterrupt(): void {
    const { inService, levels } = this.priorities;
    const vector = inService.highest;
    if (vector < 0) return;
    inService.delete(vector);
    if (levels.has(vector)) {
      if ((this.registers.spurious & Spurious.SuppressBroadcast) === 0) this.#bus.endOfInterrupt(vector);
      if (this.table.endLevel(vector)) this.#sendLevel();
    }
    this.#evaluate();
  }

  setTaskPriority(value: number): void {
    this.priorities.taskPriority = value;
    this.#cpu.quads[Register.CR8] = BigInt(value >>> 4);
    this.#evaluate();
  }

  /** Errors are shown after the next write of the error status register; the first one interrupts. */
  error(bit: number): void {
    const s = this.registers;
    const first = s.errors === 0;
    s.errors |= bit;
    if (first) this.#interruptLocally(LvtEntry.Error);
  }

  // The local vector table (SDM vol. 3A §12.5).

  #interruptLocally(entry: number): void {
    if (this.table.isMasked(entry)) return;
    const vector = this.table.vector(entry);
    if (entry === LvtEntry.Error && vector < FIRST_VECTOR) {
      // It would be an error of the error interrupt.
      this.registers.errors |= ApicError.ReceiveIllegalVector;
      return;
    }
    const mode = this.table.mode(entry);
    if (mode !== DeliveryMode.ExtInt && mode !== DeliveryMode.StartUp) this.receive(mode, vector, false);
  }

  /** Drives LINT0 or LINT1. */
  driveLint(line: LintLine, high: boolean): void {
    const table = this.table;
    const before = this.isPresent ? table.isAsserted(line) : table.isHigh(line);
    table.drive(line, high);
    const after = this.isPresent ? table.isAsserted(line) : high;
    const rises = after && !before;
    if (!this.isPresent) {
      if (line === 1 && rises) this.#cpu.requestNmi();
    } else if (table.isLevelTriggered(line)) this.#sendLevel();
    else if (rises) this.#interruptLocally(LvtEntry.Lint0 + line);
    this.#evaluate();
  }

  #sendLevel(): void {
    if (this.table.takesLevel()) this.#accept(this.table.vector(LvtEntry.Lint0), true);
  }

  // Time.

  /** Lets what is due happen. */
  update(): void {
    if (this.timer.expire()) this.#interruptLocally(LvtEntry.Timer);
  }

  /** Virtual time of the next timer interrupt, or undefined. */
  nextEvent(): number | undefined {
    return this.table.isMasked(LvtEntry.Timer) ? undefined : this.timer.nextEvent();
  }

  // What software sets.

  setSpurious(value: number): void {
    this.registers.spurious = value;
    if (!this.isEnabled) {
      this.table.maskAll();
      this.registers.externalWaits = false;
    }
    this.#evaluate();
    this.#bus.acceptanceChanged();
    this.rescheduled();
  }

  setLogicalDestination(value: number): void {
    this.registers.logicalDestination = value;
    this.#bus.acceptanceChanged();
  }

  setDestinationFormat(value: number): void {
    this.registers.destinationFormat = value;
    this.#bus.acceptanceChanged();
  }

  setEntry(entry: number, written: number): void {
    this.update();
    this.table.write(entry, this.isEnabled ? written : written | Lvt.Masked);
    if (entry === LvtEntry.Timer) this.timer.mode = this.#timerMode(written);
    else if (entry === LvtEntry.Lint0 && this.table.isLevelTriggered(0)) this.#sendLevel();
    this.#evaluate();
    this.rescheduled();
  }

  #timerMode(entry: number): TimerMode {
    const mode = (entry & Lvt.TimerMode) >>> 17;
    return (this.#cpu.features.tscDeadline ? mode : mode & 1) as TimerMode;
  }

  // Sending (SDM vol. 3A §12.6.1).

  get #broadcast(): number {
    return this.isX2apic ? X2APIC_BROADCAST : XAPIC_BROADCAST;
  }

  command(command: number, destination: number): void {
    const message = ipiMessage(command, destination, this.#broadcast);
    if (message === undefined) return;
    const shorthand = shorthandOf(command);
    if (usesVector(message.mode) && message.vector < FIRST_VECTOR) this.error(ApicError.SendIllegalVector);
    else if (shorthand === Shorthand.None) this.#bus.deliver(message);
    else this.#bus.deliverByShorthand(shorthand, this, message);
  }

  snapshot(): ApicSnapshot {
    return {
      registers: { ...this.registers },
      table: this.table.snapshot(),
      priorities: this.priorities.snapshot(),
      timer: this.timer.snapshot(),
    };
  }

  /** Puts back a {@link snapshot}; the processor's registers have been put back before. */
  restore(snapshot: ApicSnapshot): void {
    this.registers = { ...snapshot.registers };
    this.table.restore(snapshot.table);
    this.priorities.restore(snapshot.priorities);
    this.timer.restore(snapshot.timer);
    this.#cpu.tlb.forgetAll();
    this.#evaluate();
  }
}
