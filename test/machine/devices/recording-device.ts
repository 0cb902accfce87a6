import type { PortAccessSize } from '../../../src/cpu/port-space.ts';
import type { PortDevice, PortRange } from '../../../src/machine/devices/port-device.ts';

/** Answers with the low bytes of its port numbers and notes every access. */
export class RecordingDevice implements PortDevice {
  readonly ports: readonly PortRange[];
  readonly widest: PortAccessSize;
  accesses: string[] = [];

  constructor(ports: readonly PortRange[], widest: PortAccessSize) {
    this.ports = ports;
    this.widest = widest;
  }

  read(port: number, size: PortAccessSize): number {
    this.accesses.push(`r${size} ${port.toString(16)}`);
    let value = 0;
    for (let i = size - 1; i >= 0; i--) value = value * 256 + ((port + i) & 0xff);
    return value;
  }

  write(port: number, size: PortAccessSize, value: number): void {
    this.accesses.push(`w${size} ${port.toString(16)}=${value.toString(16)}`);
  }

  snapshot(): readonly string[] {
    return [...this.accesses];
  }

  restore(state: readonly string[]): void {
    this.accesses = [...state];
  }
}
