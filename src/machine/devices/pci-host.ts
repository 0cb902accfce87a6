/**
 * PCI configuration mechanism 1 at CF8H/CFCH over a bus without devices, so that every configuration
 * register reads all ones; and the reset control register, the byte at CF9H. An access to CF8H that is
 * not a doubleword does not reach the address register.
 */
import { allOnes, type PortAccessSize } from '../../cpu/port-space.ts';
import type { StopRequest } from './machine-stop.ts';
import type { PortDevice, PortRange } from './port-device.ts';

const ADDRESS = 0xcf8;
const RESET_CONTROL = 0xcf9;
/** Enable, bus, device, function and register; the other bits are 0. */
const ADDRESS_BITS = 0x80ff_fffc;
const RESET_CPU = 4;
const RESET_BITS = 0xe;

export interface PciHostState {
  readonly address: number;
  readonly resetControl: number;
}

export class PciHost implements PortDevice {
  readonly ports: readonly PortRange[] = [[0xcf8, 0xcff]];
  readonly widest = 4;
  readonly #stop: StopRequest;
  #address = 0;
  #resetControl = 0;

  constructor(stop: StopRequest) {
    this.#stop = stop;
  }

  read(port: number, size: PortAccessSize): number {
    if (port === ADDRESS && size === 4) return this.#address;
    if (port === RESET_CONTROL && size === 1) return this.#resetControl;
    return allOnes(size);
  }

  write(port: number, size: PortAccessSize, value: number): void {
    if (port === ADDRESS && size === 4) {
      this.#address = (value & ADDRESS_BITS) >>> 0;
    } else if (port === RESET_CONTROL && size === 1) {
      const rises = (value & ~this.#resetControl & RESET_CPU) !== 0;
      this.#resetControl = value & RESET_BITS;
      if (rises) this.#stop({ kind: 'reset', by: 'port CF9H' });
    }
  }

  snapshot(): PciHostState {
    return { address: this.#address, resetControl: this.#resetControl };
  }

  restore(state: PciHostState): void {
    this.#address = state.address;
    this.#resetControl = state.resetControl;
  }
}
