/**
 * The two 8259A of a PC: the first at 20H/21H, the second at A0H/A1H with its output on input 2 of the
 * first, and the edge/level control registers at 4D0H/4D1H. Interrupt requests are numbered 0–15.
 */
import type { PortAccessSize } from '../../cpu/port-space.ts';
import { InterruptController, type InterruptControllerState } from './interrupt-controller.ts';
import type { InterruptLine, PortDevice, PortRange } from './port-device.ts';

const CASCADE = 2;
/** Inputs that may be level-triggered: not the timer, keyboard, cascade, RTC and coprocessor lines. */
const FIRST_SELECTABLE = 0xf8;
const SECOND_SELECTABLE = 0xde;

export interface InterruptControllersState {
  readonly first: InterruptControllerState;
  readonly second: InterruptControllerState;
}

export class InterruptControllers implements PortDevice {
  readonly ports: readonly PortRange[] = [
    [0x20, 0x21],
    [0xa0, 0xa1],
    [0x4d0, 0x4d1],
  ];
  readonly widest = 1;
  readonly #first = new InterruptController(CASCADE);
  readonly #second = new InterruptController();
  /** Brings the requests of devices that depend on time up to date. */
  readonly #refresh: () => void;

  constructor(refresh: () => void) {
    this.#refresh = refresh;
  }

  /** The line of interrupt request `irq`, for a device to drive. */
  line(irq: number): InterruptLine {
    return (asserted) => this.drive(irq, asserted);
  }

  drive(irq: number, asserted: boolean): void {
    if (irq < 8) {
      if (irq !== CASCADE) this.#first.drive(irq, asserted);
    } else {
      this.#second.drive(irq - 8, asserted);
      this.#cascade();
    }
  }

  /** Whether the first controller requests an interrupt of the processor (INTR). */
  get pending(): boolean {
    this.#refresh();
    return this.#first.pending !== undefined;
  }

  /** The processor acknowledges: the vector of the interrupt, that of input 7 if it is spurious. */
  acknowledge(): number {
    const input = this.#first.acknowledge();
    if (input !== CASCADE) return this.#first.vector(input);
    const vector = this.#second.vector(this.#second.acknowledge());
    this.#cascadeAgain();
    return vector;
  }

  read(port: number): number {
    this.#refresh();
    switch (port) {
      case 0x20:
        return this.#first.readCommand();
      case 0x21:
        return this.#first.readData();
      case 0xa0: {
        const value = this.#second.readCommand();
        this.#cascade();
        return value;
      }
      case 0xa1: {
        const value = this.#second.readData();
        this.#cascade();
        return value;
      }
      case 0x4d0:
        return this.#first.levelTriggered;
      default:
        return this.#second.levelTriggered;
    }
  }

  write(port: number, _size: PortAccessSize, value: number): void {
    this.#refresh();
    switch (port) {
      case 0x20:
        this.#first.writeCommand(value);
        return;
      case 0x21:
        this.#first.writeData(value);
        return;
      case 0xa0:
        this.#second.writeCommand(value);
        break;
      case 0xa1:
        this.#second.writeData(value);
        break;
      case 0x4d0:
        this.#first.levelTriggered = value & FIRST_SELECTABLE;
        return;
      default:
        this.#second.levelTriggered = value & SECOND_SELECTABLE;
    }
    this.#cascade();
  }

  #cascade(): void {
    this.#first.drive(CASCADE, this.#second.pending !== undefined);
  }

  /** The output falls with the acknowledgement, so that a further request is a new edge. */
  #cascadeAgain(): void {
    this.#first.drive(CASCADE, false);
    this.#cascade();
  }

  snapshot(): InterruptControllersState {
    return { first: this.#first.snapshot(), second: this.#second.snapshot() };
  }

  restore(state: InterruptControllersState): void {
    this.#first.restore(state.first);
    this.#second.restore(state.second);
  }
}
