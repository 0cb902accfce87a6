/**
 * The timer of a local APIC (SDM vol. 3A §12.5.4): one-shot, periodic, and TSC-deadline. It counts the
 * core crystal clock of CPUID leaf 15H, divided, in virtual time; nothing runs: counts are computed from
 * the moment at which counting began.
 */

/** Nanoseconds of a period of the core crystal clock of 25 MHz. */
const CRYSTAL_PERIOD = 40;

/** Mode, bits 18:17 of the LVT timer register. */
export const TimerMode = { OneShot: 0, Periodic: 1, TscDeadline: 2, None: 3 } as const;
export type TimerMode = (typeof TimerMode)[keyof typeof TimerMode];

export interface ApicTimerState {
  mode: TimerMode;
  initialCount: number;
  divide: number;
  /** Whether it counts. */
  counting: boolean;
  /** Virtual time at which the count was that of `initialCount`. */
  started: number;
}

const AFTER_RESET: ApicTimerState = {
  mode: TimerMode.OneShot,
  initialCount: 0,
  divide: 0,
  counting: false,
  started: 0,
};

/** What the timer needs of its processor in TSC-deadline mode. */
export interface DeadlineClock {
  /** The time-stamp counter now. */
  readonly tsc: bigint;
  /** IA32_TSC_DEADLINE, 0 while disarmed. */
  deadline: bigint;
}

export class ApicTimer {
  readonly #now: () => number;
  readonly #clock: DeadlineClock;
  #state: ApicTimerState = { ...AFTER_RESET };

  constructor(now: () => number, clock: DeadlineClock) {
    this.#now = now;
    this.#clock = clock;
  }

  reset(): void {
    this.#state = { ...AFTER_RESET };
    this.#clock.deadline = 0n;
  }

  get initialCount(): number {
    return this.#state.initialCount;
  }

  /** A write of the initial count starts the timer, 0 stops it; ignored in TSC-deadline mode. */
  set initialCount(count: number) {
    const s = this.#state;
    if (s.mode >= TimerMode.TscDeadline) return;
    s.initialCount = count;
    s.counting = count !== 0;
    s.started = this.#now();
  }

  get divide(): number {
    return this.#state.divide;
  }

  /** A count in progress goes on with the new divisor. */
  set divide(value: number) {
    const left = this.currentCount;
    const s = this.#state;
    s.divide = value;
    if (s.counting) s.started = this.#now() - (s.initialCount - left) * this.#tick;
  }

  get mode(): TimerMode {
    return this.#state.mode;
  }

  /** A change to or from TSC-deadline mode disarms the timer; in the reserved mode it does not count. */
  set mode(mode: TimerMode) {
    const s = this.#state;
    if (mode === s.mode) return;
    if (mode >= TimerMode.TscDeadline || s.mode === TimerMode.TscDeadline) {
      s.counting = false;
      s.initialCount = 0;
      this.#clock.deadline = 0n;
    }
    s.mode = mode;
  }

  /** The count now, after {@link expire}. */
  get currentCount(): number {
    const { counting, initialCount, started } = this.#state;
    return counting ? initialCount - Math.floor((this.#now() - started) / this.#tick) : 0;
  }

  /** IA32_TSC_DEADLINE was written: in the other modes it stays 0. */
  deadlineWritten(): void {
    if (this.#state.mode !== TimerMode.TscDeadline) this.#clock.deadline = 0n;
  }

  /** Brings the timer up to the present; true if it has expired since the last time. */
  expire(): boolean {
    const s = this.#state;
    if (s.mode === TimerMode.TscDeadline) {
      const { deadline, tsc } = this.#clock;
      if (deadline === 0n || tsc < deadline) return false;
      this.#clock.deadline = 0n;
      return true;
    }
    if (!s.counting) return false;
    const period = s.initialCount * this.#tick;
    const periods = Math.floor((this.#now() - s.started) / period);
    if (periods === 0) return false;
    if (s.mode === TimerMode.Periodic) s.started += periods * period;
    else s.counting = false;
    return true;
  }

  /** Virtual time at which it expires next, or undefined. */
  nextEvent(): number | undefined {
    const s = this.#state;
    if (s.mode === TimerMode.TscDeadline) {
      const { deadline, tsc } = this.#clock;
      if (deadline === 0n) return undefined;
      return this.#now() + (deadline > tsc ? Number(deadline - tsc) : 0);
    }
    return s.counting ? s.started + s.initialCount * this.#tick : undefined;
  }

  /** Nanoseconds of a count: the divide configuration is bits 3, 1 and 0; 111 divides by 1. */
  get #tick(): number {
    const { divide } = this.#state;
    const exponent = ((divide & 3) | ((divide >> 1) & 4)) + 1;
    return CRYSTAL_PERIOD * (exponent === 8 ? 1 : 2 ** exponent);
  }

  snapshot(): ApicTimerState {
    return { ...this.#state };
  }

  restore(state: ApicTimerState): void {
    this.#state = { ...state };
  }
}
