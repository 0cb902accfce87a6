/** System control port A at 92H: bit 0 causes a RESET when it goes from 0 to 1, bit 1 is the A20 gate. */
import type { PortAccessSize } from '../../cpu/port-space.ts';
import type { A20Gate } from './keyboard-controller.ts';
import type { StopRequest } from './machine-stop.ts';
import type { PortDevice, PortRange } from './port-device.ts';

const FAST_RESET = 1;
const A20 = 2;

export class SystemControlPort implements PortDevice {
  readonly ports: readonly PortRange[] = [[0x92, 0x92]];
  readonly widest = 1;
  readonly #stop: StopRequest;
  readonly #gate: A20Gate;
  #value = 0;

  constructor(stop: StopRequest, gate: A20Gate) {
    this.#stop = stop;
    this.#gate = gate;
  }

  read(): number {
    return (this.#value & ~A20) | (this.#gate.enabled ? A20 : 0);
  }

  write(_port: number, _size: PortAccessSize, value: number): void {
    const rises = (value & ~this.#value & FAST_RESET) !== 0;
    this.#value = value;
    this.#gate.enabled = (value & A20) !== 0;
    if (rises) this.#stop({ kind: 'reset', by: 'port 92H' });
  }

  snapshot(): number {
    return this.#value;
  }

  restore(value: number): void {
    this.#value = value;
  }
}
