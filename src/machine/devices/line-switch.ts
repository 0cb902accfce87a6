/**
 * A device of tests: a byte written to port 2000H + line drives that interrupt line, high for 1, low for
 * 0 (bit 0 counts), and a read tells how it is driven.
 */
import type { PortAccessSize } from '../../cpu/port-space.ts';
import { LINES } from './interrupt-lines.ts';
import type { InterruptLine, PortDevice, PortRange } from './port-device.ts';

const BASE = 0x2000;

export class LineSwitch implements PortDevice {
  readonly ports: readonly PortRange[] = [[BASE, BASE + LINES - 1]];
  readonly widest = 1;
  readonly #lines: readonly InterruptLine[];
  #high = 0;

  /** `driver` gives a driver of each line. */
  constructor(driver: (line: number) => InterruptLine) {
    this.#lines = Array.from({ length: LINES }, (_, line) => driver(line));
  }

  read(port: number): number {
    return (this.#high >>> (port - BASE)) & 1;
  }

  write(port: number, _size: PortAccessSize, value: number): void {
    const line = port - BASE;
    const high = (value & 1) !== 0;
    this.#high = high ? this.#high | (1 << line) : this.#high & ~(1 << line);
    this.#lines[line]?.(high);
  }

  snapshot(): number {
    return this.#high;
  }

  restore(high: number): void {
    this.#high = high;
  }
}
