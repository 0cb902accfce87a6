/**
 * The registers of a local APIC as software sees them: a page of physical addresses in xAPIC mode, MSRs
 * 800H–8FFH in x2APIC mode (SDM vol. 3A §12.4.1, §12.12.1.2), and what CR8 and other MSRs tell it.
 */
import { ApicBase, type LocalApic } from '../../cpu/local-apic.ts';
import type { MsrAccess } from '../../cpu/msr-catalogue.ts';
import type { Processor } from '../../cpu/processor.ts';
import { Register } from '../../cpu/registers.ts';
import {
  APIC_VERSION,
  ApicError,
  ApicRegister,
  type ApicRegisterRow,
  apicRegister,
  LVT_OFFSETS,
} from './apic-registers.ts';
import type { ApicUnit } from './apic-unit.ts';
import { Shorthand } from './interrupt-message.ts';

const R = ApicRegister;
const BASE = 2 * Register.IA32_APIC_BASE;
const MODE_BITS = ApicBase.EN | ApicBase.EXTD;
const FIRST_MSR = 0x800;
const RESERVED_FORMAT = 0x0fff_ffff;

export class ApicRegisterFile implements LocalApic {
  readonly #unit: ApicUnit;
  readonly #cpu: Processor;

  constructor(unit: ApicUnit, cpu: Processor) {
    this.#unit = unit;
    this.#cpu = cpu;
  }

  get page(): number {
    const low = this.#cpu.i32[BASE] as number;
    if ((low & MODE_BITS) !== ApicBase.EN) return -1;
    return (this.#cpu.words[BASE + 1] as number) * 0x1_0000_0000 + ((low & -0x1000) >>> 0);
  }

  msrWritten(index: number, old: bigint): void {
    this.#unit.msrWritten(index, old);
  }

  taskPriorityWritten(priorityClass: number): void {
    this.#unit.setTaskPriority(priorityClass << 4);
  }

  writeEoi(): void {
    this.#unit.endInterrupt();
  }

  sendFixed(vector: number, destination: number): void {
    this.#unit.command(vector, this.#unit.isX2apic ? destination : (destination >>> 8) & 0xff);
  }

  load(offset: number): number {
    if ((offset & 0xf) !== 0) return 0;
    const row = apicRegister(offset, false);
    if (row === undefined || !row.reads) {
      if (row === undefined) this.#unit.error(ApicError.IllegalRegister);
      return 0;
    }
    return this.#read(offset);
  }

  store(offset: number, value: number): void {
    if ((offset & 0xf) !== 0) return;
    const row = apicRegister(offset, false);
    if (row === undefined) this.#unit.error(ApicError.IllegalRegister);
    else if (row.writes) this.#write(offset, (value & row.writable) >>> 0);
  }

  readMsr(index: number): bigint | undefined {
    const row = this.#msr(index);
    if (row === undefined || !row.reads) return undefined;
    const offset = (index - FIRST_MSR) << 4;
    const low = BigInt(this.#read(offset));
    return offset === R.InterruptCommand ? low | (BigInt(this.#unit.registers.commandHigh) << 32n) : low;
  }

  #msr(index: number): ApicRegisterRow | undefined {
    return this.#unit.isX2apic ? apicRegister((index - FIRST_MSR) << 4, true) : undefined;
  }

  checkMsr(index: number, value: bigint): MsrAccess {
    const row = this.#msr(index);
    if (row === undefined) return 'does-not-exist';
    if (!row.writes) return 'read-only';
    const isCommand = index - FIRST_MSR === R.InterruptCommand >> 4;
    if (!isCommand && value >> 32n !== 0n) return 'reserved-bit';
    const defined = row.writable | row.readOnly;
    if ((Number(value & 0xffff_ffffn) & ~defined) !== 0) return 'reserved-bit';
    return 'ok';
  }

  writeMsr(index: number, value: bigint): void {
    const offset = (index - FIRST_MSR) << 4;
    const row = this.#msr(index) as ApicRegisterRow;
    if (offset === R.InterruptCommand) this.#unit.registers.commandHigh = Number(value >> 32n);
    this.#write(offset, (Number(value & 0xffff_ffffn) & row.writable) >>> 0);
  }

  #read(offset: number): number {
    const s = this.#unit.registers;
    switch (offset) {
      case R.Id:
        return this.#unit.isX2apic ? this.#unit.id : (this.#unit.id << 24) >>> 0;
      case R.Version:
        return APIC_VERSION;
      case R.TaskPriority:
        return this.#unit.priorities.taskPriority;
      case R.ArbitrationPriority:
        return this.#unit.arbitrationPriority;
      case R.ProcessorPriority:
        return this.#unit.priorities.processorPriority;
      case R.LogicalDestination:
        return this.#unit.isX2apic ? this.#unit.logicalX2apicId : s.logicalDestination;
      case R.DestinationFormat:
        return s.destinationFormat;
      case R.SpuriousInterruptVector:
        return s.spurious;
      case R.ErrorStatus:
        return s.errorStatus;
      case R.InterruptCommand:
        return s.command;
      case R.InterruptCommandHigh:
        return s.commandHigh;
      case R.InitialCount:
        this.#unit.update();
        return this.#unit.timer.initialCount;
      case R.CurrentCount:
        this.#unit.update();
        return this.#unit.timer.currentCount;
      case R.DivideConfiguration:
        return this.#unit.timer.divide;
      default:
        return this.#readOfMany(offset);
    }
  }

  #readOfMany(offset: number): number {
    const entry = LVT_OFFSETS.indexOf(offset as (typeof LVT_OFFSETS)[number]);
    if (entry >= 0) return this.#unit.table.read(entry);
    const { inService, levels, requests } = this.#unit.priorities;
    const n = ((offset - R.InService) >> 4) & 7;
    if (offset >= R.InService && offset < R.TriggerMode) return inService.words[n] as number;
    if (offset >= R.TriggerMode && offset < R.InterruptRequest) return levels.words[n] as number;
    if (offset >= R.InterruptRequest && offset < R.ErrorStatus) return requests.words[n] as number;
    return 0;
  }

  #write(offset: number, value: number): void {
    const s = this.#unit.registers;
    switch (offset) {
      case R.TaskPriority:
        this.#unit.setTaskPriority(value);
        return;
      case R.Eoi:
        this.#unit.endInterrupt();
        return;
      case R.LogicalDestination:
        this.#unit.setLogicalDestination(value);
        return;
      case R.DestinationFormat:
        this.#unit.setDestinationFormat((value | RESERVED_FORMAT) >>> 0);
        return;
      case R.SpuriousInterruptVector:
        this.#unit.setSpurious(value);
        return;
      case R.ErrorStatus:
        s.errorStatus = s.errors;
        s.errors = 0;
        return;
      case R.InterruptCommand:
        s.command = value;
        this.#unit.command(value, this.#unit.isX2apic ? s.commandHigh : s.commandHigh >>> 24);
        return;
      case R.InterruptCommandHigh:
        s.commandHigh = value;
        return;
      case R.InitialCount:
        this.#unit.update();
        this.#unit.timer.initialCount = value;
        this.#unit.rescheduled();
        return;
      case R.DivideConfiguration:
        this.#unit.update();
        this.#unit.timer.divide = value;
        this.#unit.rescheduled();
        return;
      case R.SelfIpi:
        this.#unit.command((Shorthand.Self << 18) | value, 0);
        return;
      default:
        this.#unit.setEntry(LVT_OFFSETS.indexOf(offset as (typeof LVT_OFFSETS)[number]), value);
    }
  }
}
