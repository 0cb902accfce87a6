/** What a device in the I/O address space is to the machine: ports, registers, and a state that can be kept. */
import type { PortAccessSize } from '../../cpu/port-space.ts';

/** First and last port of a range. */
export type PortRange = readonly [first: number, last: number];

export interface PortDevice {
  /** Ranges of ports that the device claims. */
  readonly ports: readonly PortRange[];
  /** Widest access that reaches the device whole; a wider one arrives in halves, low half first. */
  readonly widest: PortAccessSize;
  /** Reads at a claimed port; all `size` ports are the device's. The result is unsigned. */
  read(port: number, size: PortAccessSize): number;
  write(port: number, size: PortAccessSize, value: number): void;
  /** Everything that later reads and outputs depend on, as plain data. */
  snapshot(): unknown;
  restore(state: unknown): void;
}

/** Drives one interrupt request line. */
export type InterruptLine = (asserted: boolean) => void;

/** Virtual time in nanoseconds since power-up: an integer that never decreases. */
export type VirtualTime = () => number;
