/**
 * The 8042 keyboard controller at 60H and 64H with nothing attached to either of its ports: software
 * finds the controller, tests it, uses its output port (RESET and A20) and gets no answer from a
 * keyboard.
 */
import type { PortAccessSize } from '../../cpu/port-space.ts';
import type { StopRequest } from './machine-stop.ts';
import type { InterruptLine, PortDevice, PortRange } from './port-device.ts';

const STATUS = {
  OutputFull: 1,
  SystemFlag: 4,
  Command: 8,
  NotLocked: 0x10,
  FromAux: 0x20,
  TimeOut: 0x40,
} as const;
const COMMAND_BYTE = {
  Interrupt: 1,
  AuxInterrupt: 2,
  SystemFlag: 4,
  Disabled: 0x10,
  AuxDisabled: 0x20,
} as const;
const OUTPUT_PORT = { NoReset: 1, A20: 2, Full: 0x10, AuxFull: 0x20 } as const;
/** What the controller gives when a device does not answer. */
const NO_ANSWER = 0xfe;

export interface KeyboardControllerState {
  commandByte: number;
  outputPort: number;
  output: number;
  status: number;
  /** Command whose parameter comes next at port 60H, 0 if none. */
  awaiting: number;
  memory: Uint8Array;
}

/** The A20 gate, which the keyboard controller and port 92H share. */
export interface A20Gate {
  enabled: boolean;
}

export class KeyboardController implements PortDevice {
  readonly ports: readonly PortRange[] = [
    [0x60, 0x60],
    [0x64, 0x64],
  ];
  readonly widest = 1;
  readonly #stop: StopRequest;
  readonly #gate: A20Gate;
  readonly #interrupt: InterruptLine;
  readonly #auxInterrupt: InterruptLine;
  #state: KeyboardControllerState = {
    commandByte: COMMAND_BYTE.SystemFlag | COMMAND_BYTE.Disabled | COMMAND_BYTE.AuxDisabled,
    outputPort: 0xcd,
    output: 0,
    status: STATUS.NotLocked,
    awaiting: 0,
    memory: new Uint8Array(32),
  };

  constructor(stop: StopRequest, gate: A20Gate, interrupt: InterruptLine, auxInterrupt: InterruptLine) {
    this.#stop = stop;
    this.#gate = gate;
    this.#interrupt = interrupt;
    this.#auxInterrupt = auxInterrupt;
  }

  read(port: number): number {
    const s = this.#state;
    if (port === 0x64) return s.status | (s.commandByte & COMMAND_BYTE.SystemFlag);
    s.status &= ~(STATUS.OutputFull | STATUS.FromAux | STATUS.TimeOut);
    this.#signal();
    return s.output;
  }

  write(port: number, _size: PortAccessSize, value: number): void {
    const s = this.#state;
    if (port === 0x64) {
      s.status |= STATUS.Command;
      s.awaiting = 0;
      this.#command(value);
    } else {
      s.status &= ~STATUS.Command;
      this.#data(value);
    }
    this.#signal();
  }

  #command(command: number): void {
    const s = this.#state;
    if (command >= 0xf0) {
      // Pulses the lines of the output port whose bit is 0; line 0 is RESET.
      if ((command & OUTPUT_PORT.NoReset) === 0) this.#reset();
      return;
    }
    if (command >= 0x20 && command < 0x40) {
      this.#answer(command === 0x20 ? s.commandByte : (s.memory[command & 0x1f] as number));
      return;
    }
    if (command >= 0x60 && command < 0x80) {
      s.awaiting = command;
      return;
    }
    switch (command) {
      case 0xa7:
        s.commandByte |= COMMAND_BYTE.AuxDisabled;
        return;
      case 0xa8:
        s.commandByte &= ~COMMAND_BYTE.AuxDisabled;
        return;
      case 0xa9:
      case 0xab:
        this.#answer(0);
        return;
      case 0xaa:
        s.commandByte |= COMMAND_BYTE.SystemFlag;
        this.#answer(0x55);
        return;
      case 0xad:
        s.commandByte |= COMMAND_BYTE.Disabled;
        return;
      case 0xae:
        s.commandByte &= ~COMMAND_BYTE.Disabled;
        return;
      case 0xc0:
        // Input port: keyboard not locked, manufacturing jumper not installed.
        this.#answer(0xa0);
        return;
      case 0xd0:
        this.#answer(this.#outputPort());
        return;
      case 0xd1:
      case 0xd2:
      case 0xd3:
      case 0xd4:
        s.awaiting = command;
        return;
      default:
      // The controller ignores what it does not know.
    }
  }

  #data(value: number): void {
    const s = this.#state;
    const command = s.awaiting;
    s.awaiting = 0;
    if (command >= 0x60 && command < 0x80) {
      if (command === 0x60) s.commandByte = value;
      else s.memory[command & 0x1f] = value;
      return;
    }
    switch (command) {
      case 0xd1:
        s.outputPort = value;
        this.#gate.enabled = (value & OUTPUT_PORT.A20) !== 0;
        if ((value & OUTPUT_PORT.NoReset) === 0) this.#reset();
        return;
      case 0xd2:
        this.#answer(value);
        return;
      case 0xd3:
        this.#answer(value, STATUS.FromAux);
        return;
      case 0xd4:
        this.#answer(NO_ANSWER, STATUS.FromAux | STATUS.TimeOut);
        return;
      default:
        // A byte for the keyboard enables its interface.
        s.commandByte &= ~COMMAND_BYTE.Disabled;
        this.#answer(NO_ANSWER, STATUS.TimeOut);
    }
  }

  #outputPort(): number {
    const s = this.#state;
    const full = (s.status & STATUS.OutputFull) !== 0;
    const aux = (s.status & STATUS.FromAux) !== 0;
    return (
      (s.outputPort & ~(OUTPUT_PORT.A20 | OUTPUT_PORT.Full | OUTPUT_PORT.AuxFull)) |
      (this.#gate.enabled ? OUTPUT_PORT.A20 : 0) |
      (full && !aux ? OUTPUT_PORT.Full : 0) |
      (full && aux ? OUTPUT_PORT.AuxFull : 0)
    );
  }

  #answer(value: number, flags = 0): void {
    const s = this.#state;
    s.output = value;
    s.status = (s.status & ~(STATUS.FromAux | STATUS.TimeOut)) | STATUS.OutputFull | flags;
  }

  #reset(): void {
    this.#stop({ kind: 'reset', by: 'keyboard controller' });
  }

  #signal(): void {
    const { status, commandByte } = this.#state;
    const full = (status & STATUS.OutputFull) !== 0;
    const aux = (status & STATUS.FromAux) !== 0;
    this.#interrupt(full && !aux && (commandByte & COMMAND_BYTE.Interrupt) !== 0);
    this.#auxInterrupt(full && aux && (commandByte & COMMAND_BYTE.AuxInterrupt) !== 0);
  }

  snapshot(): KeyboardControllerState {
    return { ...this.#state, memory: this.#state.memory.slice() };
  }

  restore(state: KeyboardControllerState): void {
    this.#state = { ...state, memory: state.memory.slice() };
  }
}
