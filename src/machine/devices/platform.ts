/**
 * The devices of a PC on one port bus, wired to each other: interrupt lines, the A20 gate and requests
 * to stop. Everything runs on the virtual time that the machine gives.
 */
import type { InterruptMessage } from '../apic/interrupt-message.ts';
import { bytesAboveHole, memoryMap, upperKib } from '../memory-map.ts';
import { DebugConsole } from './debug-console.ts';
import { FirmwareConfiguration } from './firmware-configuration.ts';
import { InterruptControllers } from './interrupt-controllers.ts';
import { InterruptLines } from './interrupt-lines.ts';
import { IntervalTimer } from './interval-timer.ts';
import { IoApic, type IoApicState } from './io-apic.ts';
import { type A20Gate, KeyboardController } from './keyboard-controller.ts';
import { LineSwitch } from './line-switch.ts';
import type { MachineStop } from './machine-stop.ts';
import { PciHost } from './pci-host.ts';
import { PortBus } from './port-bus.ts';
import type { InterruptLine, PortDevice, VirtualTime } from './port-device.ts';
import { POWER_MANAGEMENT, PowerManagement } from './power-management.ts';
import { RealTimeClock } from './real-time-clock.ts';
import { SerialPort } from './serial-port.ts';
import { ExitPort, ShutdownPort } from './stop-ports.ts';
import { SystemControlPort } from './system-control-port.ts';

/** 1 January 2026, 00:00:00. */
const DEFAULT_DATE = 1_767_225_600;

/** What of the devices is connected to the world outside the machine. */
export interface PlatformConnections {
  /** Date at power-up in seconds since 1970; {@link DEFAULT_DATE} if left out. */
  readonly date?: number;
  readonly commandLine?: string;
  /** A byte left through the serial port. */
  readonly serial?: (byte: number) => void;
  /** A byte was written to the debug console. */
  readonly debugConsole?: (byte: number) => void;
}

export interface PlatformOptions extends PlatformConnections {
  /** RAM in bytes. */
  readonly ramSize: number;
  readonly cpus: number;
  readonly now: VirtualTime;
  /** A device asked for a stop: {@link Platform.stop} says which. */
  readonly stop?: () => void;
  /** The A20 gate was switched. */
  readonly a20?: (enabled: boolean) => void;
  /** INTR of the 8259 pair. */
  readonly interrupt?: InterruptLine;
  /** Delivers a message of the I/O APIC; whether a local APIC accepted it. */
  readonly deliver?: (message: InterruptMessage) => boolean;
  /** What {@link Platform.nextEvent} answers may have changed. */
  readonly rescheduled?: () => void;
}

export interface PlatformSnapshot {
  readonly devices: readonly unknown[];
  readonly stop: MachineStop | undefined;
  readonly a20: boolean;
  readonly lines: Int32Array;
  readonly ioApic: IoApicState;
}

const nobody = (): void => {};

interface TimedDevice {
  nextEvent(): number | undefined;
}

const TIMER_LINE = 0;
const CASCADE_LINE = 2;
const CLOCK_LINE = 8;
const ISA_LINES = 16;
/** Input of the I/O APIC for INTR of the 8259 pair. */
const INTR_INPUT = 0;

/** Input of the I/O APIC for an interrupt line: that of the timer takes the place of the cascade. */
export function ioApicInput(line: number): number {
  return line === TIMER_LINE ? CASCADE_LINE : line;
}

/** `device`, telling of writes to it. */
function announcing(device: PortDevice, told: () => void): PortDevice {
  return {
    ports: device.ports,
    widest: device.widest,
    read: (port, size) => device.read(port, size),
    write: (port, size, value) => {
      device.write(port, size, value);
      told();
    },
    snapshot: () => device.snapshot(),
    restore: (state) => device.restore(state),
  };
}

export class Platform {
  readonly bus: PortBus;
  readonly serial: SerialPort;
  readonly interrupts: InterruptControllers;
  readonly timer: IntervalTimer;
  readonly clock: RealTimeClock;
  readonly ioApic: IoApic;
  readonly #lines: InterruptLines;
  readonly #power: PowerManagement;
  /** Devices that interrupt at a time, with their lines. */
  readonly #timed: readonly (readonly [line: number, device: TimedDevice])[];
  readonly #a20: A20Gate;
  #stop: MachineStop | undefined;

  constructor(options: PlatformOptions) {
    const { now, stop: stopped = nobody } = options;
    const stop = (request: MachineStop) => {
      this.#stop ??= request;
      stopped();
    };
    this.#a20 = gate(options.a20 ?? nobody);
    const rescheduled = options.rescheduled ?? nobody;
    const intr = options.interrupt ?? nobody;
    this.ioApic = new IoApic(options.deliver ?? (() => false), rescheduled);
    this.interrupts = new InterruptControllers(
      () => this.update(),
      (asserted) => {
        intr(asserted);
        this.ioApic.drive(INTR_INPUT, asserted);
      },
    );
    this.#lines = new InterruptLines((line, high) => this.#drive(line, high));
    const line = (n: number) => this.#lines.driver(n);
    this.timer = new IntervalTimer(now, line(TIMER_LINE));
    this.serial = new SerialPort(options.serial ?? nobody, line(4));
    this.clock = new RealTimeClock(
      now,
      line(CLOCK_LINE),
      options.date ?? DEFAULT_DATE,
      cmosContents(options),
    );
    this.#power = new PowerManagement(now, line(POWER_MANAGEMENT.sciLine), stop);
    this.#timed = [
      [TIMER_LINE, this.timer],
      [CLOCK_LINE, this.clock],
      [POWER_MANAGEMENT.sciLine, this.#power],
    ];
    this.bus = new PortBus([
      this.serial,
      new DebugConsole(options.debugConsole ?? nobody),
      new ExitPort(stop),
      new ShutdownPort(stop),
      new FirmwareConfiguration({
        ramSize: options.ramSize,
        cpus: options.cpus,
        commandLine: options.commandLine ?? '',
        files: new Map([['etc/e820', e820Table(options.ramSize)]]),
      }),
      announcing(this.interrupts, rescheduled),
      announcing(this.timer, rescheduled),
      announcing(this.clock, rescheduled),
      new KeyboardController(stop, this.#a20, line(1), line(12)),
      new SystemControlPort(stop, this.#a20),
      new PciHost(stop),
      new LineSwitch(line),
      announcing(this.#power, rescheduled),
    ]);
  }

  /** The first request to stop that a device received, if any. */
  get stop(): MachineStop | undefined {
    return this.#stop;
  }

  /** Brings what depends on time, and the interrupt lines it drives, up to the present. */
  update(): void {
    this.timer.update();
    this.clock.update();
    this.#power.update();
  }

  /** Line 2 is where the second 8259A requests of the first. */
  #drive(line: number, high: boolean): void {
    if (line === CASCADE_LINE) return;
    if (line < ISA_LINES) this.interrupts.drive(line, high);
    this.ioApic.drive(ioApicInput(line), high);
  }

  /** Virtual time of the next event that would interrupt a processor, or undefined. */
  nextEvent(): number | undefined {
    let next: number | undefined;
    for (const [line, device] of this.#timed) {
      const time = this.#reaches(line) ? device.nextEvent() : undefined;
      if (time !== undefined && (next === undefined || time < next)) next = time;
    }
    return next;
  }

  /** Whether an event of {@link nextEvent} also reaches processors that have interrupts disabled. */
  get unmaskable(): boolean {
    return this.#timed.some(([line]) => this.ioApic.isUnmaskable(ioApicInput(line)));
  }

  /** Whether an interrupt on `line` is not masked everywhere. */
  #reaches(line: number): boolean {
    return this.interrupts.accepts(line) || this.ioApic.accepts(ioApicInput(line));
  }

  snapshot(): PlatformSnapshot {
    return {
      devices: this.bus.snapshot(),
      stop: this.#stop,
      a20: this.#a20.enabled,
      lines: this.#lines.snapshot(),
      ioApic: this.ioApic.snapshot(),
    };
  }

  restore(snapshot: PlatformSnapshot): void {
    this.#a20.enabled = snapshot.a20;
    this.#lines.restore(snapshot.lines);
    this.ioApic.restore(snapshot.ioApic);
    this.bus.restore(snapshot.devices);
    this.#stop = snapshot.stop;
  }
}

/** A gate, open at first, that tells when it is switched. */
function gate(changed: (enabled: boolean) => void): A20Gate {
  let on = true;
  return {
    get enabled() {
      return on;
    },
    set enabled(value: boolean) {
      if (value !== on) changed(value);
      on = value;
    },
  };
}

/** What firmware leaves in battery-backed memory: sizes of memory, equipment, number of processors. */
function cmosContents({ ramSize, cpus }: PlatformOptions): readonly (readonly [number, number])[] {
  const MOST = 0xffff;
  const extended = Math.min(upperKib(ramSize), MOST);
  const above16 = Math.min(Math.max(0, Math.floor((upperKib(ramSize) - 15 * 1024) / 64)), MOST);
  const above4g = Math.floor(bytesAboveHole(ramSize) / 0x1_0000);
  const word = (register: number, value: number): readonly (readonly [number, number])[] => [
    [register, value & 0xff],
    [register + 1, (value >> 8) & 0xff],
  ];
  return [
    [0x14, 0x02],
    ...word(0x15, 640),
    ...word(0x17, extended),
    ...word(0x30, extended),
    ...word(0x34, above16),
    ...word(0x5b, above4g & 0xffff),
    [0x5d, (above4g >> 16) & 0xff],
    [0x5f, cpus - 1],
  ];
}

/** The memory map as firmware tells it: start, length and type (1 usable, 2 reserved) of each range. */
function e820Table(ramSize: number): Uint8Array {
  const ranges = memoryMap(ramSize);
  const bytes = new Uint8Array(20 * ranges.length);
  const view = new DataView(bytes.buffer);
  ranges.forEach(({ start, end, kind }, index) => {
    view.setBigUint64(20 * index, BigInt(start), true);
    view.setBigUint64(20 * index + 8, BigInt(end - start), true);
    view.setUint32(20 * index + 16, kind === 'usable' ? 1 : 2, true);
  });
  return bytes;
}
