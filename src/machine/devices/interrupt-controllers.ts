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
  /** INTR: the output of the first controller. */
  readonly #output: InterruptLine;
  #asserted = false;

  constructor(refresh: () => void, output: InterruptLine = () => {}) {
    this.#refresh = refresh;
    this.#output = output;
  }

  /** Whether an interrupt request `irq` could reach the processor. */
  accepts(irq: number): boolean {
    if (irq < 8) return this.#first.accepts(irq);
    return this.#second.accepts(irq - 8) && this.#first.accepts(CASCADE);
  }

  drive(irq: number, asserted: boolean): void {
    if (irq < 8) {
      if (irq !== CASCADE) this.#first.drive(irq, asserted);
    } else {
      this.#second.drive(irq - 8, asserted);
      this.#cascade();
    }
    this.#signal();
  }

  #signal(): void {
    const asserted = this.#first.pending !== undefined;
    if (asserted !== this.#asserted) {
      this.#asserted = asserted;
      this.#output(asserted);
    }
  }

  /** Whether the first controller requests an interrupt of the processor (INTR). */
  get pending(): boolean {
    this.#refresh();
    return this.#first.pending !== undefined;
  }

  /** The processor acknowledges: the vector of the interrupt, that of input 7 if it is spurious. */
  acknowledge(): number {
    const vector = this.#acknowledged(this.#first.acknowledge());
    this.#signal();
    return vector;
  }

  #acknowledged(input: number): number {
    if (input !== CASCADE) return this.#first.vector(input);
    const vector = this.#second.vector(this.#second.acknowledge());
    this.#cascadeAgain();
    return vector;
  }

  read(port: number): number {
    this.#refresh();
    // A poll acknowledges.
    const value = this.#read(port);
    this.#signal();
    return value;
  }

  #read(port: number): number {
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
    this.#write(port, value);
    this.#signal();
  }

  #write(port: number, value: number): void {
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
    this.#asserted = this.#first.pending !== undefined;
  }
}
