/** The debug console at port E9H: a byte written is a character printed; a read gives E9H, which tells that it is there. */
import type { PortAccessSize } from '../../cpu/port-space.ts';
import type { PortDevice, PortRange } from './port-device.ts';

export class DebugConsole implements PortDevice {
  readonly ports: readonly PortRange[] = [[0xe9, 0xe9]];
  readonly widest = 1;
  readonly #print: (byte: number) => void;

  constructor(print: (byte: number) => void) {
    this.#print = print;
  }

  read(): number {
    return 0xe9;
  }

  write(_port: number, _size: PortAccessSize, value: number): void {
    this.#print(value);
  }

  snapshot(): undefined {
    return undefined;
  }

  restore(): void {}
}
