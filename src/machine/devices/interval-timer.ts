/**
 * The 8254 timer of a PC at 40H–43H, and port 61H, which holds the gate of counter 2 and shows its
 * output. Counter 0 drives interrupt request 0. Its clock of 1.193182 MHz is virtual time × 105/88000.
 */
import type { PortAccessSize } from '../../cpu/port-space.ts';
import { type CounterState, IntervalCounter } from './interval-counter.ts';
import type { InterruptLine, PortDevice, PortRange, VirtualTime } from './port-device.ts';

/** 105 ticks take exactly 88,000 ns. */
const TICKS = 105;
const NANOSECONDS = 88_000;
/** Period of the memory refresh request, in ticks. */
const REFRESH = 18;

function ticksAt(nanoseconds: number): number {
  const whole = Math.floor(nanoseconds / NANOSECONDS);
  return whole * TICKS + Math.floor(((nanoseconds - whole * NANOSECONDS) * TICKS) / NANOSECONDS);
}

/** The earliest time at which `ticks` have passed. */
function timeOf(ticks: number): number {
  const whole = Math.floor(ticks / TICKS);
  return whole * NANOSECONDS + Math.ceil(((ticks - whole * TICKS) * NANOSECONDS) / TICKS);
}

export interface IntervalTimerState {
  readonly counters: readonly CounterState[];
  readonly control: number;
  readonly seen: number;
}

export class IntervalTimer implements PortDevice {
  readonly ports: readonly PortRange[] = [
    [0x40, 0x43],
    [0x61, 0x61],
  ];
  readonly widest = 1;
  readonly #now: VirtualTime;
  readonly #interrupt: InterruptLine;
  readonly #counters = [
    new IntervalCounter(3, 0x1_0000, true),
    new IntervalCounter(2, REFRESH, true),
    new IntervalCounter(3, 0x1_0000, false),
  ] as const;
  /** Port 61H, bits 3:0. */
  #control = 0;
  /** Tick up to which edges of counter 0 have reached the interrupt line. */
  #seen = 0;

  constructor(now: VirtualTime, interrupt: InterruptLine) {
    this.#now = now;
    this.#interrupt = interrupt;
  }

  /** Brings the interrupt line up to date: a rising edge if one was due, then the present level. */
  update(): void {
    const tick = ticksAt(this.#now());
    const [counter] = this.#counters;
    const rise = counter.nextRise(this.#seen);
    if (rise !== undefined && rise <= tick) {
      this.#interrupt(false);
      this.#interrupt(true);
    }
    this.#interrupt(counter.output(tick));
    this.#seen = tick;
  }

  /** Virtual time of the next rising edge of interrupt request 0, or undefined. */
  nextEvent(): number | undefined {
    const rise = this.#counters[0].nextRise(this.#seen);
    return rise === undefined ? undefined : timeOf(rise);
  }

  read(port: number): number {
    this.update();
    const tick = this.#seen;
    if (port === 0x61) {
      const refresh = (Math.floor(tick / REFRESH) & 1) << 4;
      return this.#control | refresh | (this.#counters[2].output(tick) ? 0x20 : 0);
    }
    const counter = this.#counters[port - 0x40];
    return counter === undefined ? 0xff : counter.read(tick);
  }

  write(port: number, _size: PortAccessSize, value: number): void {
    this.update();
    const tick = this.#seen;
    if (port === 0x61) {
      this.#control = value & 0xf;
      this.#counters[2].setGate((value & 1) !== 0, tick);
    } else if (port === 0x43) {
      this.#writeControl(value, tick);
    } else {
      this.#counters[port - 0x40]?.write(value, tick);
    }
    // What was written may change the output of counter 0 at once.
    this.#interrupt(this.#counters[0].output(tick));
  }

  #writeControl(word: number, tick: number): void {
    const select = word >> 6;
    const counter = this.#counters[select];
    if (counter !== undefined) {
      if ((word & 0x30) === 0) counter.latchCount(tick);
      else counter.control(word, tick);
      return;
    }
    // Read-back: bits 5 and 4 are 0 to latch counts and statuses, bits 3:1 select counters.
    this.#counters.forEach((each, index) => {
      if ((word & (2 << index)) === 0) return;
      if ((word & 0x20) === 0) each.latchCount(tick);
      if ((word & 0x10) === 0) each.latchStatus(tick);
    });
  }

  snapshot(): IntervalTimerState {
    return { counters: this.#counters.map((c) => c.snapshot()), control: this.#control, seen: this.#seen };
  }

  restore(state: IntervalTimerState): void {
    this.#counters.forEach((counter, index) => {
      counter.restore(state.counters[index] as CounterState);
    });
    this.#control = state.control;
    this.#seen = state.seen;
  }
}
