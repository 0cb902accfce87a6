/**
 * One counter of an 8254 over ticks of its clock. Nothing runs: the count and the output are computed
 * from the tick at which the counting element was loaded. A count written is loaded at a later tick
 * (the next one, the end of the period in mode 2, of the half-period in mode 3).
 */
export interface CounterState {
  /** As programmed: 6 and 7 mean 2 and 3. */
  modeBits: number;
  /** 1 low byte only, 2 high byte only, 3 low then high. */
  access: number;
  bcd: boolean;
  gate: boolean;
  /** Last count written, 16 bits. */
  written: number;
  lowByte: number;
  writesHigh: boolean;
  readsHigh: boolean;
  nullCount: boolean;
  latchedCount: number | undefined;
  latchedStatus: number | undefined;
  /** Whether the counting element holds a count of this mode. */
  loaded: boolean;
  /** What the counting element was loaded with, 1–65536. */
  initial: number;
  /** Tick at which its count was `initial`. */
  start: number;
  /** Ticks counted when counting was stopped; undefined while it counts. */
  stoppedAfter: number | undefined;
  /** A count that will be loaded: at tick `at`, as if loaded at tick `start`. */
  next: { readonly initial: number; readonly at: number; readonly start: number } | undefined;
}

const MODULUS = { binary: 0x1_0000, bcd: 10_000 } as const;

export class IntervalCounter {
  #state: CounterState;

  /** A counter that firmware has programmed. */
  constructor(mode: number, initial: number, gate: boolean) {
    this.#state = {
      modeBits: mode,
      access: 3,
      bcd: false,
      gate,
      written: initial & 0xffff,
      lowByte: 0,
      writesHigh: false,
      readsHigh: false,
      nullCount: false,
      latchedCount: undefined,
      latchedStatus: undefined,
      loaded: true,
      initial,
      start: 0,
      stoppedAfter: gate ? undefined : 0,
      next: undefined,
    };
  }

  get mode(): number {
    const { modeBits } = this.#state;
    return modeBits > 5 ? modeBits - 4 : modeBits;
  }

  /** A control word for this counter with an access other than latching. */
  control(word: number, tick: number): void {
    this.#advance(tick);
    const s = this.#state;
    s.stoppedAfter ??= tick - s.start;
    Object.assign(s, {
      modeBits: (word >> 1) & 7,
      access: (word >> 4) & 3,
      bcd: (word & 1) !== 0,
      writesHigh: false,
      readsHigh: false,
      nullCount: true,
      latchedCount: undefined,
      latchedStatus: undefined,
      loaded: false,
      next: undefined,
    } satisfies Partial<CounterState>);
  }

  write(value: number, tick: number): void {
    this.#advance(tick);
    const s = this.#state;
    if (s.access === 3 && !s.writesHigh) {
      s.lowByte = value;
      s.writesHigh = true;
      // In mode 0 the first byte stops counting and lowers the output.
      if (this.mode === 0) {
        s.stoppedAfter ??= tick - s.start;
        s.loaded = false;
        s.next = undefined;
      }
      return;
    }
    s.written = s.access === 1 ? value : s.access === 2 ? value << 8 : (value << 8) | s.lowByte;
    s.writesHigh = false;
    s.nullCount = true;
    this.#schedule(tick);
  }

  #schedule(tick: number): void {
    const s = this.#state;
    const initial = this.#decoded();
    const running = s.loaded && s.stoppedAfter === undefined;
    const load = (at: number, start = at) => {
      s.next = { initial, at, start };
    };
    switch (this.mode) {
      case 1:
      case 5:
        // Loaded by a trigger.
        return;
      case 0:
        s.loaded = false;
        load(tick + 1);
        return;
      case 2:
      case 3: {
        if (!running) {
          load(tick + 1);
          return;
        }
        const cycle = Math.floor((tick - s.start) / s.initial);
        const end = s.start + (cycle + 1) * s.initial;
        const middle = end - Math.floor(s.initial / 2);
        if (this.mode === 3 && tick < middle) load(middle, middle - Math.ceil(initial / 2));
        else load(end);
        return;
      }
      default:
        load(tick + 1);
    }
  }

  read(tick: number): number {
    this.#advance(tick);
    const s = this.#state;
    if (s.latchedStatus !== undefined) {
      const status = s.latchedStatus;
      s.latchedStatus = undefined;
      return status;
    }
    const count = s.latchedCount ?? this.count(tick);
    const high = s.access === 2 || (s.access === 3 && s.readsHigh);
    if (s.access === 3) s.readsHigh = !s.readsHigh;
    if (s.access !== 3 || high) s.latchedCount = undefined;
    return high ? count >> 8 : count & 0xff;
  }

  latchCount(tick: number): void {
    this.#advance(tick);
    this.#state.latchedCount ??= this.count(tick);
  }

  latchStatus(tick: number): void {
    this.#advance(tick);
    const s = this.#state;
    s.latchedStatus ??=
      (this.output(tick) ? 0x80 : 0) |
      (s.nullCount ? 0x40 : 0) |
      (s.access << 4) |
      (s.modeBits << 1) |
      (s.bcd ? 1 : 0);
  }

  /** Drives the gate: it stops counting in modes 0, 2, 3 and 4; its rising edge triggers modes 1, 2, 3 and 5. */
  setGate(gate: boolean, tick: number): void {
    this.#advance(tick);
    const s = this.#state;
    if (gate === s.gate) return;
    s.gate = gate;
    const { mode } = this;
    const trigger = () => {
      const at = tick + 1;
      s.next = { initial: this.#decoded(), at, start: at };
    };
    if (mode === 1 || mode === 5) {
      if (gate) trigger();
    } else if (!gate) {
      s.stoppedAfter ??= tick - s.start;
    } else if (mode === 2 || mode === 3) {
      if (s.loaded || s.next !== undefined) trigger();
    } else if (s.loaded && s.stoppedAfter !== undefined) {
      s.start = tick - s.stoppedAfter;
      s.stoppedAfter = undefined;
    }
  }

  /** Level of OUT at `tick`, which is not before the last access. */
  output(tick: number): boolean {
    this.#advance(tick);
    const s = this.#state;
    const { mode } = this;
    if (!s.loaded) return mode !== 0;
    const elapsed = this.#elapsed(tick);
    switch (mode) {
      case 2:
        return !s.gate || elapsed % s.initial !== s.initial - 1;
      case 3:
        return !s.gate || elapsed % s.initial < Math.ceil(s.initial / 2);
      case 4:
      case 5:
        return elapsed !== s.initial;
      default:
        return elapsed >= s.initial;
    }
  }

  /** The count as it is read, 16 bits. */
  count(tick: number): number {
    this.#advance(tick);
    const s = this.#state;
    const modulus = s.bcd ? MODULUS.bcd : MODULUS.binary;
    const elapsed = this.#elapsed(tick);
    let count: number;
    if (this.mode === 2) count = s.initial - (elapsed % s.initial);
    else if (this.mode === 3) {
      const phase = elapsed % s.initial;
      const high = Math.ceil(s.initial / 2);
      const even = s.initial - (s.initial % 2);
      count = even - 2 * (phase < high ? phase : phase - high);
    } else count = s.initial - elapsed;
    const wrapped = ((count % modulus) + modulus) % modulus;
    return s.bcd ? toBcd(wrapped) : wrapped;
  }

  /** The first tick after `tick` at which OUT rises if nothing is written, or undefined if it does not. */
  nextRise(tick: number): number | undefined {
    this.#advance(tick);
    const { next } = this.#state;
    const rise = this.#riseAfter(tick);
    if (next === undefined || (rise !== undefined && rise < next.at)) return rise;
    const later = new IntervalCounter(0, 1, true);
    later.restore(this.#state);
    const before = later.output(next.at - 1);
    if (!before && later.output(next.at)) return next.at;
    return later.nextRise(next.at);
  }

  /** As {@link nextRise}, with the count that is loaded now. */
  #riseAfter(tick: number): number | undefined {
    const s = this.#state;
    if (!s.loaded || s.stoppedAfter !== undefined) return undefined;
    if (this.mode === 2 || this.mode === 3) {
      return s.start + (Math.floor((tick - s.start) / s.initial) + 1) * s.initial;
    }
    const rise = s.start + s.initial + (this.mode >= 4 ? 1 : 0);
    return rise > tick ? rise : undefined;
  }

  /** Loads what is due by `tick`. */
  #advance(tick: number): void {
    const s = this.#state;
    if (s.next === undefined || tick < s.next.at) return;
    const triggered = this.mode === 1 || this.mode === 5;
    s.initial = s.next.initial;
    s.start = s.next.start;
    s.stoppedAfter = s.gate || triggered ? undefined : 0;
    s.loaded = true;
    s.nullCount = false;
    s.next = undefined;
  }

  #elapsed(tick: number): number {
    const s = this.#state;
    return s.stoppedAfter ?? tick - s.start;
  }

  #decoded(): number {
    const { written, bcd } = this.#state;
    if (!bcd) return written === 0 ? MODULUS.binary : written;
    const value = fromBcd(written);
    return value === 0 ? MODULUS.bcd : value;
  }

  snapshot(): CounterState {
    return { ...this.#state };
  }

  restore(state: CounterState): void {
    this.#state = { ...state };
  }
}

function toBcd(value: number): number {
  let bcd = 0;
  for (let digit = 0, rest = value; digit < 4; digit++, rest = Math.floor(rest / 10)) {
    bcd |= (rest % 10) << (4 * digit);
  }
  return bcd;
}

function fromBcd(bcd: number): number {
  let value = 0;
  for (let shift = 12; shift >= 0; shift -= 4) value = value * 10 + ((bcd >> shift) & 0xf);
  return value;
}
