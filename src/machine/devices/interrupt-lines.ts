/**
 * The interrupt lines of a PC: each is high while at least one of the devices on it drives it high. Lines
 * 0 to 15 reach the 8259 pair, all of them the I/O APIC, line 0 at its input 2.
 */
import type { InterruptLine } from './port-device.ts';

export const LINES = 24;

export class InterruptLines {
  /** Devices that drive each line high, one bit each. */
  readonly #drivers = new Int32Array(LINES);
  /** Number of drivers given out of each line. */
  readonly #count = new Uint8Array(LINES);
  readonly #changed: (line: number, high: boolean) => void;

  constructor(changed: (line: number, high: boolean) => void) {
    this.#changed = changed;
  }

  /** A driver of `line` for one device. */
  driver(line: number): InterruptLine {
    const bit = 1 << (this.#count[line] as number);
    this.#count[line] = (this.#count[line] as number) + 1;
    return (asserted) => {
      const before = this.#drivers[line] as number;
      const after = asserted ? before | bit : before & ~bit;
      if (after === before) return;
      this.#drivers[line] = after;
      if ((before === 0) !== (after === 0)) this.#changed(line, after !== 0);
    };
  }

  snapshot(): Int32Array {
    return this.#drivers.slice();
  }

  restore(drivers: Int32Array): void {
    this.#drivers.set(drivers);
  }
}
