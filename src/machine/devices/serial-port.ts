/**
 * A 16550A UART at 3F8H–3FFH. Transmission takes no time, so the transmitter is always empty; input
 * waits with the sender until the receiver has room. Word length, parity and divisor are kept but
 * change no byte. The interrupt line is enabled by OUT2, as it is wired on a PC.
 */
import type { PortAccessSize } from '../../cpu/port-space.ts';
import type { InterruptLine, PortDevice, PortRange } from './port-device.ts';

const FIFO_SIZE = 16;
const TRIGGER_LEVELS = [1, 4, 8, 14] as const;

/** Interrupt enable register. */
const IER = { ReceivedData: 1, TransmitterEmpty: 2, LineStatus: 4, ModemStatus: 8 } as const;
/** Interrupt identification register: bit 0 is 1 if nothing is pending. */
const IIR = {
  None: 1,
  Modem: 0,
  Transmitter: 2,
  Data: 4,
  Line: 6,
  Timeout: 0xc,
  FifosEnabled: 0xc0,
} as const;
const LCR_DLAB = 0x80;
const MCR = { DTR: 1, RTS: 2, OUT1: 4, OUT2: 8, Loop: 0x10 } as const;
const LSR = { DataReady: 1, Overrun: 2, TransmitterEmpty: 0x60 } as const;
/** The other end is always there and ready: CTS, DSR, DCD. */
const MODEM_READY = 0xb0;
const MSR_RI = 0x40;

export interface SerialState {
  divisor: number;
  interruptEnable: number;
  fifoControl: number;
  lineControl: number;
  modemControl: number;
  modemDelta: number;
  scratch: number;
  overrun: boolean;
  /** The transmitter-empty interrupt is pending. */
  transmitterInterrupt: boolean;
  received: number[];
  /** Input that the sender still holds. */
  waiting: number[];
}

/** I/O address of the first serial port of a PC. */
export const COM1 = 0x3f8;

export class SerialPort implements PortDevice {
  readonly ports: readonly PortRange[];
  readonly widest = 1;
  readonly #base: number;
  readonly #transmit: (byte: number) => void;
  readonly #interrupt: InterruptLine;
  #state: SerialState = {
    divisor: 12,
    interruptEnable: 0,
    fifoControl: 0,
    lineControl: 0,
    modemControl: 0,
    modemDelta: 0,
    scratch: 0,
    overrun: false,
    transmitterInterrupt: false,
    received: [],
    waiting: [],
  };

  constructor(transmit: (byte: number) => void, interrupt: InterruptLine, base = COM1) {
    this.#base = base;
    this.ports = [[base, base + 7]];
    this.#transmit = transmit;
    this.#interrupt = interrupt;
  }

  /** Input from the other end of the line. */
  receive(bytes: Iterable<number>): void {
    for (const byte of bytes) this.#state.waiting.push(byte & 0xff);
    this.#fill();
    this.#signal();
  }

  read(port: number): number {
    const value = this.#readRegister(port - this.#base);
    this.#signal();
    return value;
  }

  write(port: number, _size: PortAccessSize, value: number): void {
    this.#writeRegister(port - this.#base, value);
    this.#signal();
  }

  #readRegister(register: number): number {
    const s = this.#state;
    switch (register) {
      case 0:
        return this.#dlab ? s.divisor & 0xff : this.#take();
      case 1:
        return this.#dlab ? s.divisor >> 8 : s.interruptEnable;
      case 2: {
        const cause = this.#cause();
        if (cause === IIR.Transmitter) s.transmitterInterrupt = false;
        return cause | (this.#fifosEnabled ? IIR.FifosEnabled : 0);
      }
      case 3:
        return s.lineControl;
      case 4:
        return s.modemControl;
      case 5: {
        const status = this.#lineStatus();
        s.overrun = false;
        return status;
      }
      case 6: {
        const status = this.#modemLines() | s.modemDelta;
        s.modemDelta = 0;
        return status;
      }
      default:
        return s.scratch;
    }
  }

  #writeRegister(register: number, value: number): void {
    const s = this.#state;
    switch (register) {
      case 0:
        if (this.#dlab) s.divisor = (s.divisor & 0xff00) | value;
        else this.#send(value);
        return;
      case 1:
        if (this.#dlab) {
          s.divisor = (s.divisor & 0xff) | (value << 8);
          return;
        }
        // The transmitter is empty, so that enabling its interrupt raises it.
        if ((value & ~s.interruptEnable & IER.TransmitterEmpty) !== 0) s.transmitterInterrupt = true;
        s.interruptEnable = value & 0xf;
        return;
      case 2:
        this.#controlFifos(value);
        return;
      case 3:
        s.lineControl = value;
        return;
      case 4:
        this.#controlModem(value & 0x1f);
        return;
      case 7:
        s.scratch = value;
        return;
      default:
      // Line and modem status are not written by software.
    }
  }

  get #dlab(): boolean {
    return (this.#state.lineControl & LCR_DLAB) !== 0;
  }

  get #fifosEnabled(): boolean {
    return (this.#state.fifoControl & 1) !== 0;
  }

  get #loopback(): boolean {
    return (this.#state.modemControl & MCR.Loop) !== 0;
  }

  get #capacity(): number {
    return this.#fifosEnabled ? FIFO_SIZE : 1;
  }

  #send(value: number): void {
    const s = this.#state;
    // The interrupt ends with the write and comes again once the character has left: an edge.
    s.transmitterInterrupt = false;
    this.#signal();
    s.transmitterInterrupt = true;
    if (!this.#loopback) {
      this.#transmit(value);
    } else if (s.received.length < this.#capacity) {
      s.received.push(value);
    } else {
      s.overrun = true;
      // Without FIFOs the new character replaces the one that was not read; a full FIFO keeps its own.
      if (!this.#fifosEnabled) s.received[0] = value;
    }
  }

  #take(): number {
    const value = this.#state.received.shift() ?? 0;
    this.#fill();
    return value;
  }

  /** In loopback the receiver does not listen to the line. */
  #fill(): void {
    const { received, waiting } = this.#state;
    while (!this.#loopback && waiting.length > 0 && received.length < this.#capacity) {
      received.push(waiting.shift() as number);
    }
  }

  #controlFifos(value: number): void {
    const s = this.#state;
    const switched = ((value ^ s.fifoControl) & 1) !== 0;
    if (switched || (value & 3) === 3) s.received.length = 0;
    // The other bits are programmed only together with FIFO enable.
    s.fifoControl = (value & 1) === 0 ? 0 : value & 0xc9;
    this.#fill();
  }

  #controlModem(value: number): void {
    const s = this.#state;
    const before = this.#modemLines();
    s.modemControl = value;
    const changed = before ^ this.#modemLines();
    // Delta bits 0, 1 and 3 are of CTS, DSR and DCD; bit 2 tells that RI went from on to off.
    s.modemDelta |= (changed >> 4) & 0xb;
    if ((changed & before & MSR_RI) !== 0) s.modemDelta |= 4;
    this.#fill();
  }

  #modemLines(): number {
    const { modemControl } = this.#state;
    if (!this.#loopback) return MODEM_READY;
    return (
      ((modemControl & MCR.RTS) << 3) |
      ((modemControl & MCR.DTR) << 5) |
      ((modemControl & (MCR.OUT1 | MCR.OUT2)) << 4)
    );
  }

  #lineStatus(): number {
    const s = this.#state;
    return LSR.TransmitterEmpty | (s.received.length > 0 ? LSR.DataReady : 0) | (s.overrun ? LSR.Overrun : 0);
  }

  /** The pending interrupt of the highest priority, as IIR identifies it. */
  #cause(): number {
    const s = this.#state;
    const enabled = s.interruptEnable;
    if ((enabled & IER.LineStatus) !== 0 && s.overrun) return IIR.Line;
    if ((enabled & IER.ReceivedData) !== 0 && s.received.length > 0) {
      const trigger = this.#fifosEnabled ? (TRIGGER_LEVELS[s.fifoControl >> 6] as number) : 1;
      // Fewer characters than the trigger level wait for no others: the time-out has passed.
      return s.received.length >= trigger ? IIR.Data : IIR.Timeout;
    }
    if ((enabled & IER.TransmitterEmpty) !== 0 && s.transmitterInterrupt) return IIR.Transmitter;
    if ((enabled & IER.ModemStatus) !== 0 && s.modemDelta !== 0) return IIR.Modem;
    return IIR.None;
  }

  #signal(): void {
    const connected = (this.#state.modemControl & (MCR.OUT2 | MCR.Loop)) === MCR.OUT2;
    this.#interrupt(connected && this.#cause() !== IIR.None);
  }

  snapshot(): SerialState {
    const { received, waiting } = this.#state;
    return { ...this.#state, received: [...received], waiting: [...waiting] };
  }

  restore(state: SerialState): void {
    this.#state = { ...state, received: [...state.received], waiting: [...state.waiting] };
  }
}
