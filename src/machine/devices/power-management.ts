/**
 * The fixed ACPI registers of a PC at 600H: PM1 status, enable and control, and the timer of 3.579545 MHz
 * with 32 bits, which is virtual time × 315/88000. ACPI mode is always on. Soft off ends the run.
 */
import type { PortAccessSize } from '../../cpu/port-space.ts';
import type { StopRequest } from './machine-stop.ts';
import type { InterruptLine, PortDevice, PortRange, VirtualTime } from './port-device.ts';

const BASE = 0x600;
export const POWER_MANAGEMENT = {
  event: BASE,
  control: BASE + 4,
  timer: BASE + 8,
  /** The line of the system control interrupt. */
  sciLine: 9,
} as const;

/** Sleep type of soft off (S5). */
export const SOFT_OFF = 5;

const TICKS = 315;
const NANOSECONDS = 88_000;
/** The timer's status is set whenever its highest bit changes. */
const HALF_RANGE = 2 ** 31;
const TIMER = 1 << 0;
const STATUS_BITS = 0x8531;
const ENABLE_BITS = 0x0521;
const SCI_ENABLED = 1;
const SLEEP_TYPE = 7 << 10;
const SLEEP = 1 << 13;

function ticksAt(nanoseconds: number): number {
  const whole = Math.floor(nanoseconds / NANOSECONDS);
  return whole * TICKS + Math.floor(((nanoseconds - whole * NANOSECONDS) * TICKS) / NANOSECONDS);
}

export interface PowerManagementState {
  readonly status: number;
  readonly enable: number;
  readonly control: number;
  /** How often the timer's highest bit had changed when that was last looked at. */
  readonly halves: number;
}

export class PowerManagement implements PortDevice {
  readonly ports: readonly PortRange[] = [[BASE, BASE + 11]];
  readonly widest = 4;
  readonly #now: VirtualTime;
  readonly #interrupt: InterruptLine;
  readonly #stop: StopRequest;
  #status = 0;
  #enable = 0;
  #control = SCI_ENABLED;
  #halves = 0;

  constructor(now: VirtualTime, interrupt: InterruptLine, stop: StopRequest) {
    this.#now = now;
    this.#interrupt = interrupt;
    this.#stop = stop;
  }

  read(port: number, size: PortAccessSize): number {
    this.update();
    let value = 0;
    for (let n = size - 1; n >= 0; n--) value = value * 256 + this.#readByte(port - BASE + n);
    return value;
  }

  #readByte(offset: number): number {
    const registers = offset < 2 ? this.#status : offset < 4 ? this.#enable : this.#control;
    if (offset < 6) return (registers >>> (8 * (offset & 1))) & 0xff;
    return offset < 8 ? 0 : Math.floor(ticksAt(this.#now()) / 256 ** (offset - 8)) & 0xff;
  }

  write(port: number, size: PortAccessSize, value: number): void {
    this.update();
    for (let n = 0; n < size; n++) this.#writeByte(port - BASE + n, (value >>> (8 * n)) & 0xff);
    this.#signal();
  }

  #writeByte(offset: number, value: number): void {
    const shift = 8 * (offset & 1);
    const replaced = (old: number) => (old & ~(0xff << shift)) | (value << shift);
    if (offset < 2) this.#status &= ~(value << shift);
    else if (offset < 4) this.#enable = replaced(this.#enable) & ENABLE_BITS;
    else if (offset < 6) {
      const written = replaced(this.#control);
      this.#control = (written & SLEEP_TYPE) | SCI_ENABLED;
      if ((written & SLEEP) !== 0 && (written & SLEEP_TYPE) >> 10 === SOFT_OFF)
        this.#stop({ kind: 'shutdown' });
    }
  }

  /** Brings status and interrupt line up to the present. */
  update(): void {
    const halves = Math.floor(ticksAt(this.#now()) / HALF_RANGE);
    if (halves !== this.#halves) this.#status |= TIMER;
    this.#halves = halves;
    this.#signal();
  }

  #signal(): void {
    this.#interrupt((this.#status & this.#enable & STATUS_BITS) !== 0);
  }

  /** Virtual time of the next event that may interrupt, or undefined. */
  nextEvent(): number | undefined {
    if ((this.#enable & ~this.#status & TIMER) === 0) return undefined;
    return Math.ceil(((this.#halves + 1) * HALF_RANGE * NANOSECONDS) / TICKS);
  }

  snapshot(): PowerManagementState {
    return { status: this.#status, enable: this.#enable, control: this.#control, halves: this.#halves };
  }

  restore(state: PowerManagementState): void {
    this.#status = state.status;
    this.#enable = state.enable;
    this.#control = state.control;
    this.#halves = state.halves;
  }
}
