/**
 * The real-time clock and its battery-backed memory (MC146818) at 70H/71H. It runs on virtual time from
 * a date that is an option of the machine; its interrupts are request 8. Bit 7 of port 70H masks NMI.
 */
import type { PortAccessSize } from '../../cpu/port-space.ts';
import { type CalendarDate, dateOf, dayOfWeek, secondsOf } from './calendar.ts';
import type { InterruptLine, PortDevice, PortRange, VirtualTime } from './port-device.ts';

const SECOND = 1_000_000_000;
/** The update cycle: announced 244 µs before it starts, 1984 µs long. */
const UPDATE_ANNOUNCED = 2_228_000;
const REGISTER = {
  seconds: 0,
  secondsAlarm: 1,
  minutes: 2,
  minutesAlarm: 3,
  hours: 4,
  hoursAlarm: 5,
  dayOfWeek: 6,
  day: 7,
  month: 8,
  year: 9,
  A: 0xa,
  B: 0xb,
  C: 0xc,
  D: 0xd,
  century: 0x32,
} as const;
const A_UPDATE_IN_PROGRESS = 0x80;
const B = { Set: 0x80, Periodic: 0x40, Alarm: 0x20, Update: 0x10, Binary: 4, Hours24: 2 } as const;
const C = { Requested: 0x80, Periodic: 0x40, Alarm: 0x20, Update: 0x10 } as const;
const D_VALID = 0x80;

export interface RealTimeClockState {
  index: number;
  nmiMasked: boolean;
  memory: Uint8Array;
  /** Virtual time at which the second that the registers show began. */
  secondStarted: number;
  /** Virtual time up to which periodic edges have been seen. */
  seen: number;
}

export class RealTimeClock implements PortDevice {
  readonly ports: readonly PortRange[] = [[0x70, 0x71]];
  readonly widest = 1;
  readonly #now: VirtualTime;
  readonly #interrupt: InterruptLine;
  #state: RealTimeClockState = {
    index: 0,
    nmiMasked: false,
    memory: new Uint8Array(128),
    secondStarted: 0,
    seen: 0,
  };

  /** `date`: seconds since 1970 at power-up. `contents`: what firmware left in the memory, by register. */
  constructor(
    now: VirtualTime,
    interrupt: InterruptLine,
    date: number,
    contents: readonly (readonly [register: number, value: number])[] = [],
  ) {
    this.#now = now;
    this.#interrupt = interrupt;
    const { memory } = this.#state;
    for (const [register, value] of contents) memory[register] = value;
    memory[REGISTER.A] = 0x26;
    memory[REGISTER.B] = B.Hours24;
    this.#store(date);
  }

  /** Whether port 70H masks NMI. */
  get nmiMasked(): boolean {
    return this.#state.nmiMasked;
  }

  read(port: number): number {
    // The index register is write-only.
    if (port === 0x70) return 0xff;
    this.update();
    const { index, memory } = this.#state;
    switch (index) {
      case REGISTER.A:
        return (memory[index] as number) | (this.#updating ? A_UPDATE_IN_PROGRESS : 0);
      case REGISTER.C: {
        const flags = memory[index] as number;
        memory[index] = 0;
        this.#signal();
        return flags;
      }
      case REGISTER.D:
        return D_VALID;
      default:
        return memory[index] as number;
    }
  }

  write(port: number, _size: PortAccessSize, value: number): void {
    const s = this.#state;
    if (port === 0x70) {
      s.index = value & 0x7f;
      s.nmiMasked = (value & 0x80) !== 0;
      return;
    }
    this.update();
    switch (s.index) {
      case REGISTER.A:
        this.#writeA(value & 0x7f);
        return;
      case REGISTER.B:
        this.#writeB(value);
        return;
      case REGISTER.C:
      case REGISTER.D:
        return;
      default:
        s.memory[s.index] = value;
    }
  }

  /** Brings date, flags and the interrupt line up to the present. */
  update(): void {
    const s = this.#state;
    const now = this.#now();
    let flags = 0;
    const period = this.#period;
    if (period !== undefined && Math.floor(now / period) !== Math.floor(s.seen / period)) flags |= C.Periodic;
    s.seen = now;
    const seconds = Math.floor((now - s.secondStarted) / SECOND);
    if (!this.#counting) {
      s.secondStarted = now;
    } else if (seconds > 0) {
      const before = this.#load();
      if (this.#alarmWithin(before, seconds)) flags |= C.Alarm;
      flags |= C.Update;
      this.#store(before + seconds);
      s.secondStarted += seconds * SECOND;
    }
    s.memory[REGISTER.C] = (s.memory[REGISTER.C] as number) | flags;
    this.#signal();
  }

  /** Virtual time of the next event that can interrupt, or undefined. */
  nextEvent(): number | undefined {
    const s = this.#state;
    const enabled = this.#register(REGISTER.B);
    const times: number[] = [];
    const period = this.#period;
    if (period !== undefined && (enabled & B.Periodic) !== 0) {
      times.push(Math.ceil((Math.floor(s.seen / period) + 1) * period));
    }
    if (this.#counting && (enabled & (B.Alarm | B.Update)) !== 0) times.push(s.secondStarted + SECOND);
    return times.length === 0 ? undefined : Math.min(...times);
  }

  #register(register: number): number {
    return this.#state.memory[register] as number;
  }

  /** Time passes while the divider runs and software does not set the clock. */
  get #counting(): boolean {
    return (this.#register(REGISTER.A) & 0x70) === 0x20 && (this.#register(REGISTER.B) & B.Set) === 0;
  }

  get #updating(): boolean {
    return this.#counting && this.#now() - this.#state.secondStarted >= SECOND - UPDATE_ANNOUNCED;
  }

  /** Period of the periodic interrupt in nanoseconds: 2^(rate−1) cycles of 32,768 Hz; rates 1 and 2 are 8 and 9. */
  get #period(): number | undefined {
    const a = this.#register(REGISTER.A);
    const rate = a & 0xf;
    if (rate === 0 || (a & 0x70) !== 0x20) return undefined;
    return (2 ** ((rate < 3 ? rate + 7 : rate) - 1) * SECOND) / 32_768;
  }

  #writeA(value: number): void {
    const s = this.#state;
    const held = (this.#register(REGISTER.A) & 0x60) === 0x60;
    s.memory[REGISTER.A] = value;
    // Released from reset, the divider gives its first update after half a second.
    if (held && (value & 0x70) === 0x20) s.secondStarted = this.#now() - SECOND / 2;
  }

  #writeB(value: number): void {
    const s = this.#state;
    // Setting the clock ends the announcement of updates.
    s.memory[REGISTER.B] = (value & B.Set) !== 0 ? value & ~B.Update : value;
    this.#signal();
  }

  #signal(): void {
    const { memory } = this.#state;
    const flags = this.#register(REGISTER.C) & 0x70;
    const requested = (flags & this.#register(REGISTER.B)) !== 0;
    memory[REGISTER.C] = flags | (requested ? C.Requested : 0);
    this.#interrupt(requested);
  }

  /** Whether the alarm matches one of the `count` seconds after `date`. */
  #alarmWithin(date: number, count: number): boolean {
    // In a day every time of day comes by once.
    for (let i = 1; i <= Math.min(count, 86_400); i++) {
      const { seconds, minutes, hours } = dateOf(date + i);
      const matches =
        this.#alarmMatches(REGISTER.secondsAlarm, this.#encode(seconds)) &&
        this.#alarmMatches(REGISTER.minutesAlarm, this.#encode(minutes)) &&
        this.#alarmMatches(REGISTER.hoursAlarm, this.#encodeHours(hours));
      if (matches) return true;
    }
    return false;
  }

  /** An alarm register from C0H up matches everything. */
  #alarmMatches(register: number, value: number): boolean {
    const alarm = this.#register(register);
    return alarm >= 0xc0 || alarm === value;
  }

  #encode(value: number): number {
    return (this.#register(REGISTER.B) & B.Binary) !== 0 ? value : Math.floor(value / 10) * 16 + (value % 10);
  }

  #decode(value: number): number {
    return (this.#register(REGISTER.B) & B.Binary) !== 0 ? value : (value >> 4) * 10 + (value & 0xf);
  }

  #encodeHours(hours: number): number {
    if ((this.#register(REGISTER.B) & B.Hours24) !== 0) return this.#encode(hours);
    return this.#encode(hours % 12 === 0 ? 12 : hours % 12) | (hours >= 12 ? 0x80 : 0);
  }

  #decodeHours(value: number): number {
    if ((this.#register(REGISTER.B) & B.Hours24) !== 0) return this.#decode(value);
    return (this.#decode(value & 0x7f) % 12) + ((value & 0x80) !== 0 ? 12 : 0);
  }

  /** The date in the registers, in seconds since 1970. */
  #load(): number {
    const date: CalendarDate = {
      year:
        this.#decode(this.#register(REGISTER.century)) * 100 + this.#decode(this.#register(REGISTER.year)),
      month: this.#decode(this.#register(REGISTER.month)),
      day: this.#decode(this.#register(REGISTER.day)),
      hours: this.#decodeHours(this.#register(REGISTER.hours)),
      minutes: this.#decode(this.#register(REGISTER.minutes)),
      seconds: this.#decode(this.#register(REGISTER.seconds)),
    };
    return secondsOf(date);
  }

  #store(seconds: number): void {
    const { memory } = this.#state;
    const date = dateOf(seconds);
    memory[REGISTER.seconds] = this.#encode(date.seconds);
    memory[REGISTER.minutes] = this.#encode(date.minutes);
    memory[REGISTER.hours] = this.#encodeHours(date.hours);
    memory[REGISTER.dayOfWeek] = dayOfWeek(seconds);
    memory[REGISTER.day] = this.#encode(date.day);
    memory[REGISTER.month] = this.#encode(date.month);
    memory[REGISTER.year] = this.#encode(date.year % 100);
    memory[REGISTER.century] = this.#encode(Math.floor(date.year / 100));
  }

  snapshot(): RealTimeClockState {
    return { ...this.#state, memory: this.#state.memory.slice() };
  }

  restore(state: RealTimeClockState): void {
    this.#state = { ...state, memory: state.memory.slice() };
  }
}
