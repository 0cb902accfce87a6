/**
 * Two ways in which a guest ends the run: a value written to the exit port (F4H–F7H), and the string
 * `Shutdown` written to port 8900H.
 */
import type { PortAccessSize } from '../../cpu/port-space.ts';
import type { StopRequest } from './machine-stop.ts';
import type { PortDevice, PortRange } from './port-device.ts';

export class ExitPort implements PortDevice {
  readonly ports: readonly PortRange[] = [[0xf4, 0xf7]];
  readonly widest = 4;
  readonly #stop: StopRequest;

  constructor(stop: StopRequest) {
    this.#stop = stop;
  }

  read(): number {
    return 0;
  }

  write(_port: number, _size: PortAccessSize, value: number): void {
    this.#stop({ kind: 'exit-port', code: value * 2 + 1 });
  }

  snapshot(): undefined {
    return undefined;
  }

  restore(): void {}
}

const SHUTDOWN = [...'Shutdown'].map((c) => c.charCodeAt(0));

export class ShutdownPort implements PortDevice {
  readonly ports: readonly PortRange[] = [[0x8900, 0x8900]];
  readonly widest = 1;
  readonly #stop: StopRequest;
  /** Number of characters of the string that were written in sequence. */
  #matched = 0;

  constructor(stop: StopRequest) {
    this.#stop = stop;
  }

  read(): number {
    return 0xff;
  }

  write(_port: number, _size: PortAccessSize, value: number): void {
    if (value === SHUTDOWN[this.#matched]) this.#matched++;
    else this.#matched = value === SHUTDOWN[0] ? 1 : 0;
    if (this.#matched === SHUTDOWN.length) {
      this.#matched = 0;
      this.#stop({ kind: 'shutdown' });
    }
  }

  snapshot(): number {
    return this.#matched;
  }

  restore(matched: number): void {
    this.#matched = matched;
  }
}
