/**
 * Virtual time of a machine in nanoseconds: one instruction is executed at a time, wherever, and takes
 * one; idle time is skipped. Time-stamp counters run with it: what a processor misses while others
 * execute is added before it goes on.
 */
import type { Processor } from '../cpu/processor.ts';
import { Register } from '../cpu/registers.ts';
import { elapsed, passTime } from '../cpu/time.ts';

const TSC = Register.IA32_TIME_STAMP_COUNTER;

export interface ClockSnapshot {
  readonly idle: number;
  readonly seen: readonly number[];
}

export class MachineClock {
  readonly #processors: readonly Processor[];
  /** Time during which no processor executed. */
  #idle = 0;
  /** By CPU: how much of the time of others its time-stamp counter has counted. */
  readonly #seen: number[];

  constructor(processors: readonly Processor[]) {
    this.#processors = processors;
    this.#seen = processors.map(() => 0);
  }

  get now(): number {
    let sum = this.#idle;
    for (let n = 0; n < this.#processors.length; n++) sum += elapsed(this.#processors[n] as Processor);
    return sum;
  }

  /** Lets time pass in which nobody executes. */
  skip(nanoseconds: number): void {
    this.#idle += nanoseconds;
  }

  /** Time that CPU `index` did not spend itself and that its time-stamp counter has not counted. */
  #missed(index: number): number {
    return this.now - elapsed(this.#processors[index] as Processor) - (this.#seen[index] as number);
  }

  /** Brings the time-stamp counter of CPU `index`, which is between two instructions, up to the present. */
  catchUp(index: number): void {
    const missed = this.#missed(index);
    if (missed === 0) return;
    const cpu = this.#processors[index] as Processor;
    passTime(cpu, missed);
    // What VT-x waits for is a value of the time-stamp counter.
    cpu.portDeadline -= missed;
    this.#seen[index] = (this.#seen[index] as number) + missed;
  }

  /** Virtual time of the next event of VT-x on CPU `index`, which executes nothing; Infinity if there is none. */
  portDeadline(index: number): number {
    const cpu = this.#processors[index] as Processor;
    return this.now + cpu.portDeadline - cpu.executed - this.#missed(index);
  }

  /** The time-stamp counter of CPU `index` now. */
  tsc(index: number): bigint {
    const cpu = this.#processors[index] as Processor;
    const sinceBlock = elapsed(cpu) - cpu.executed - cpu.waited;
    const passed = BigInt(this.#missed(index) + sinceBlock);
    return BigInt.asUintN(64, (cpu.quads[TSC] as bigint) + passed);
  }

  snapshot(): ClockSnapshot {
    return { idle: this.#idle, seen: [...this.#seen] };
  }

  /** Puts back a {@link snapshot}; the processors have been put back before. */
  restore(snapshot: ClockSnapshot): void {
    this.#idle = snapshot.idle;
    for (let n = 0; n < this.#seen.length; n++) this.#seen[n] = snapshot.seen[n] as number;
  }
}
