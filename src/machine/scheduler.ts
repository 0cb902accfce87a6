/**
 * Lets the processors of a machine execute by turns, and what is due happen in between: round robin, or
 * turns of random processors and lengths from a seed. While no processor is active, time jumps to the next
 * event. How a run is divided into calls changes nothing.
 */
import { Prng } from '../bits/prng.ts';
import { Attention } from '../cpu/attention.ts';
import { Monitoring, waitsForStore } from '../cpu/monitored-line.ts';
import { Register, RFLAGS } from '../cpu/registers.ts';
import { elapsed } from '../cpu/time.ts';
import type { LogicalProcessor } from './logical-processor.ts';
import type { ClockSnapshot, MachineClock } from './machine-clock.ts';

export interface Interleaving {
  /** Most instructions of a turn; {@link DEFAULT_QUANTUM} if left out. */
  readonly quantum?: number;
  /** Turns are drawn from this seed; round robin if left out. */
  readonly seed?: number;
}

/** What happens at its time, whoever executes. */
export interface TimedEvents {
  /** Virtual time of the next event, or undefined. */
  next(): number | undefined;
  /** Lets everything happen that is due. */
  update(): void;
  /** Whether an event can also reach processors that have interrupts disabled. */
  readonly unmaskable: boolean;
}

export interface SchedulerSnapshot {
  readonly clock: ClockSnapshot;
  readonly current: number;
  readonly left: number;
  readonly waiting: number;
  readonly random: number;
}

export const DEFAULT_QUANTUM = 1000;

/** Events without effect after which a call returns. */
const MOST_IDLE_EVENTS = 1000;

const ATTENTION = 2 * Register.attention;
const ACTIVITY = 2 * Register.activityState;
const MONITORING = 2 * Register.monitorArmed;
const RFLAGS_LOW = 2 * Register.RFLAGS;
const ACTIVE = 0;
const HLT = 1;
const SHUTDOWN = 2;
const MAY_WAKE = Attention.Event | Attention.Lookup | Attention.Vmx;

export class Scheduler {
  readonly #cpus: readonly LogicalProcessor[];
  readonly #clock: MachineClock;
  readonly #events: TimedEvents;
  readonly #quantum: number;
  readonly #isRandom: boolean;
  readonly #random: Prng;
  /** CPU whose turn it is, and instructions left of it. */
  #current: number;
  #left = 0;
  /** Turns in sequence that ended because their processors wait. */
  #waiting = 0;
  /** The processor that executes at this moment. */
  #running: LogicalProcessor | undefined;

  /** @throws RangeError for a quantum that is no positive integer */
  constructor(
    cpus: readonly LogicalProcessor[],
    clock: MachineClock,
    events: TimedEvents,
    { quantum = DEFAULT_QUANTUM, seed }: Interleaving,
  ) {
    if (!Number.isInteger(quantum) || quantum < 1) {
      throw new RangeError(`the quantum must be a positive integer, not ${quantum}`);
    }
    this.#cpus = cpus;
    this.#current = cpus.length - 1;
    this.#clock = clock;
    this.#events = events;
    this.#quantum = quantum;
    this.#isRandom = seed !== undefined;
    this.#random = new Prng(seed ?? 0);
  }

  /**
   * Executes at most `instructions` instructions on all processors together. Answers whether the machine
   * waits for good: no processor is active, and nothing will wake one.
   */
  run(instructions: number): boolean {
    let left = instructions;
    let idleEvents = 0;
    let waits = false;
    while (left > 0 && !this.#hasEnded()) {
      const { now } = this.#clock;
      const next = this.#nextEvent();
      if (next <= now) this.#letHappen(now);
      const waking = this.#findWaking();
      if (waking >= 0) {
        left -= this.#look(waking);
      } else if (this.#hasTurn() || this.#nextTurn()) {
        left -= this.#execute(Math.min(left, this.#left), next - now);
      } else {
        waits = next === Infinity || !this.#cpus.some((cpu) => this.#canWake(cpu));
        if (waits || ++idleEvents > MOST_IDLE_EVENTS) break;
        this.#clock.skip(Math.max(next - now, 0));
      }
    }
    for (let n = 0; n < this.#cpus.length; n++) this.#clock.catchUp(n);
    return waits;
  }

  /** What is due has changed: who executes is interrupted, so that the next event is looked up again. */
  reschedule(): void {
    this.#running?.processor.requestPause();
  }

  #hasEnded(): boolean {
    for (const { processor } of this.#cpus) {
      if (processor.stopRequested || processor.stoppedUntilReset) return true;
      if (processor.i32[ACTIVITY] === SHUTDOWN && !processor.nonRoot) return true;
    }
    return false;
  }

  /** An inactive processor at which something has arrived since the last look, −1 if there is none. */
  #findWaking(): number {
    if (this.#hasTurn()) return -1;
    return this.#cpus.findIndex(
      ({ processor: { i32 } }, index) =>
        !this.#isActive(index) && ((i32[ATTENTION] as number) & MAY_WAKE) !== 0,
    );
  }

  /** Lets an inactive processor take an event; answers the number of instructions that counts for. */
  #look(index: number): number {
    const cpu = this.#cpus[index] as LogicalProcessor;
    const { i32 } = cpu.processor;
    this.#clock.catchUp(index);
    if (cpu.look()) return 1;
    // What holds the event back will ask for attention when it ends.
    i32[ATTENTION] = (i32[ATTENTION] as number) & ~MAY_WAKE;
    return 0;
  }

  /** Virtual time of what happens next, Infinity if nothing does. */
  #nextEvent(): number {
    let next = this.#events.next() ?? Number.POSITIVE_INFINITY;
    for (let n = 0; n < this.#cpus.length; n++) {
      if (!this.#isActive(n)) next = Math.min(next, this.#clock.portDeadline(n));
    }
    return next;
  }

  #letHappen(now: number): void {
    this.#events.update();
    for (let n = 0; n < this.#cpus.length; n++) {
      if (this.#isActive(n) || this.#clock.portDeadline(n) > now) continue;
      (this.#cpus[n] as LogicalProcessor).processor.requestAttention(Attention.Vmx);
    }
  }

  #hasTurn(): boolean {
    return this.#left > 0 && this.#isActive(this.#current);
  }

  #isActive(index: number): boolean {
    const { processor } = this.#cpus[index] as LogicalProcessor;
    return processor.i32[ACTIVITY] === ACTIVE && !waitsForStore(processor);
  }

  /** Gives the turn to another active processor; false if none is active. */
  #nextTurn(): boolean {
    const count = this.#cpus.length;
    if (this.#isRandom && count > 1) {
      const active = this.#cpus.filter((_, index) => this.#isActive(index));
      if (active.length === 0) return false;
      this.#current = (active[this.#random.below(active.length)] as LogicalProcessor).index;
      this.#left = 1 + this.#random.below(this.#quantum);
      return true;
    }
    if (count === 1) {
      this.#left = Number.MAX_SAFE_INTEGER;
      return this.#isActive(0);
    }
    for (let n = 1; n <= count; n++) {
      const candidate = (this.#current + n) % count;
      if (!this.#isActive(candidate)) continue;
      this.#current = candidate;
      this.#left = this.#quantum;
      return true;
    }
    return false;
  }

  /** Executes on the processor whose turn it is; the next event is in `until` nanoseconds. */
  #execute(most: number, until: number): number {
    const { processor } = this.#cpus[this.#current] as LogicalProcessor;
    processor.waits = false;
    processor.othersExecute = this.#othersExecute();
    processor.due = Math.min(elapsed(processor) + until, Number.MAX_SAFE_INTEGER);
    const executed = this.#run(this.#current, Math.min(most, Math.max(1, until)));
    processor.due = Infinity;
    this.#left = processor.waits ? 0 : this.#left - executed;
    if (processor.waits) this.#waiting++;
    else if (this.#left <= 0) this.#waiting = 0;
    return executed;
  }

  /** Whether not all other active processors were waiting when they had their last turns. */
  #othersExecute(): boolean {
    const active = this.#cpus.reduce((count, _, index) => count + (this.#isActive(index) ? 1 : 0), 0);
    return this.#waiting < active - 1;
  }

  #run(index: number, count: number): number {
    const cpu = this.#cpus[index] as LogicalProcessor;
    const before = cpu.processor.executed;
    this.#clock.catchUp(index);
    cpu.processor.pauseRequested = false;
    this.#running = cpu;
    cpu.run(count);
    this.#running = undefined;
    return cpu.processor.executed - before;
  }

  #canWake({ processor }: LogicalProcessor): boolean {
    const { i32 } = processor;
    if (processor.nonRoot || i32[MONITORING] === Monitoring.WaitingForInterrupts) return true;
    if (i32[ACTIVITY] !== HLT && !waitsForStore(processor)) return false;
    return this.#events.unmaskable || ((i32[RFLAGS_LOW] as number) & (1 << RFLAGS.IF)) !== 0;
  }

  snapshot(): SchedulerSnapshot {
    return {
      clock: this.#clock.snapshot(),
      current: this.#current,
      left: this.#left,
      waiting: this.#waiting,
      random: this.#random.state,
    };
  }

  restore(snapshot: SchedulerSnapshot): void {
    this.#clock.restore(snapshot.clock);
    this.#current = snapshot.current;
    this.#left = snapshot.left;
    this.#waiting = snapshot.waiting;
    this.#random.state = snapshot.random;
  }
}
