/**
 * The I/O address space of a machine: finds the device at a port and splits what is too wide for it or
 * reaches beyond it, as a bus does. Accesses that nothing claims are counted by port.
 */
import type { PortAccessSize, PortSpace } from '../../cpu/port-space.ts';
import type { PortDevice } from './port-device.ts';

const PORTS = 0x1_0000;

export class PortBus implements PortSpace {
  readonly #devices: readonly PortDevice[];
  /** Number of the device at each port, from 1; 0 where there is none. */
  readonly #owner = new Uint8Array(PORTS);
  /** Byte accesses to ports that no device claims: port → number. */
  readonly unclaimed = new Map<number, number>();

  /** @throws RangeError if two devices claim a port: an error in the machine's construction */
  constructor(devices: readonly PortDevice[]) {
    this.#devices = devices;
    devices.forEach((device, index) => {
      for (const [first, last] of device.ports) {
        for (let port = first; port <= last; port++) {
          if (this.#owner[port] !== 0) throw new RangeError(`two devices claim port ${port.toString(16)}H`);
          this.#owner[port] = index + 1;
        }
      }
    });
  }

  read(port: number, size: PortAccessSize): number {
    const device = this.#whole(port, size);
    if (device !== undefined) return device.read(port, size);
    if (size === 1) {
      this.#miss(port);
      return 0xff;
    }
    const half = size === 4 ? 2 : 1;
    const low = this.read(port, half);
    return (low | (this.read(port + half, half) << (8 * half))) >>> 0;
  }

  write(port: number, size: PortAccessSize, value: number): void {
    const device = this.#whole(port, size);
    if (device !== undefined) {
      device.write(port, size, value);
    } else if (size === 1) {
      this.#miss(port);
    } else {
      const half = size === 4 ? 2 : 1;
      this.write(port, half, half === 2 ? value & 0xffff : value & 0xff);
      this.write(port + half, half, value >>> (8 * half));
    }
  }

  /** The device that takes an access whole, if there is one. */
  #whole(port: number, size: PortAccessSize): PortDevice | undefined {
    const owner = this.#owner[port];
    // Ports beyond FFFFH, reached by a wide access to the last ones, have no owner.
    if (owner === undefined || owner === 0) return undefined;
    const device = this.#devices[owner - 1] as PortDevice;
    if (size > device.widest) return undefined;
    for (let i = 1; i < size; i++) if (this.#owner[port + i] !== owner) return undefined;
    return device;
  }

  #miss(port: number): void {
    this.unclaimed.set(port, (this.unclaimed.get(port) ?? 0) + 1);
  }

  snapshot(): readonly unknown[] {
    return this.#devices.map((d) => d.snapshot());
  }

  /** Puts back a {@link snapshot} of a bus with the same devices. */
  restore(states: readonly unknown[]): void {
    this.#devices.forEach((device, index) => {
      device.restore(states[index]);
    });
  }
}
