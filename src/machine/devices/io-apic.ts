/**
 * The I/O APIC (82093AA with an EOI register, as chipsets have it) at FEC00000H: 24 inputs, each with an
 * entry of the redirection table. A level-triggered interrupt is sent once and again after its EOI while
 * the input is asserted; one that no APIC accepts is held and sent again when that may have changed. An
 * edge that comes while its entry is masked, or that nobody accepts, is lost.
 */
import type { MappedDevices } from '../../cpu/memory-mapped.ts';
import { DeliveryMode, type InterruptMessage, XAPIC_BROADCAST } from '../apic/interrupt-message.ts';

export const IO_APIC_BASE = 0xfec0_0000;
const IO_APIC_INPUTS = 24;
const PAGE = 0x1000;

/** Offsets in the page. */
const SELECT = 0x00;
const WINDOW = 0x10;
const EOI = 0x40;

/** Registers behind the window. */
const ID = 0;
const VERSION = 1;
const ARBITRATION = 2;
const REDIRECTION = 0x10;

const VERSION_VALUE = ((IO_APIC_INPUTS - 1) << 16) | 0x20;
const ID_BITS = 0x0f00_0000;

/** Low half of a redirection entry. */
const Entry = {
  Vector: 0xff,
  Logical: 1 << 11,
  /** Delivery status: held, because no APIC accepts it. */
  Pending: 1 << 12,
  ActiveLow: 1 << 13,
  RemoteIrr: 1 << 14,
  Level: 1 << 15,
  Masked: 1 << 16,
  Writable: 0x1_afff,
} as const;

export interface IoApicState {
  readonly select: number;
  readonly id: number;
  readonly low: Uint32Array;
  readonly high: Uint32Array;
  readonly inputs: number;
  readonly held: number;
}

export class IoApic implements MappedDevices {
  readonly #send: (message: InterruptMessage) => boolean;
  /** An entry was written: what may interrupt has changed. */
  readonly #changed: () => void;
  readonly #low = new Uint32Array(IO_APIC_INPUTS).fill(Entry.Masked);
  readonly #high = new Uint32Array(IO_APIC_INPUTS);
  #select = 0;
  #id = 0;
  /** Electrical levels of the inputs. */
  #inputs = 0;
  /** Inputs whose level-triggered interrupt no APIC accepted. */
  #held = 0;

  /** `send` delivers a message; whether an APIC accepted it. */
  constructor(send: (message: InterruptMessage) => boolean, changed: () => void = () => {}) {
    this.#send = send;
    this.#changed = changed;
  }

  claims(address: number): boolean {
    return address >= IO_APIC_BASE && address < IO_APIC_BASE + PAGE;
  }

  load(address: number): number {
    switch (address - IO_APIC_BASE) {
      case SELECT:
        return this.#select;
      case WINDOW:
        return this.#read();
      default:
        return 0;
    }
  }

  store(address: number, value: number): void {
    switch (address - IO_APIC_BASE) {
      case SELECT:
        this.#select = value & 0xff;
        return;
      case WINDOW:
        this.#write(value);
        this.#changed();
        return;
      case EOI:
        this.endOfInterrupt(value & 0xff);
        return;
      default:
    }
  }

  #read(): number {
    if (this.#select === ID || this.#select === ARBITRATION) return this.#id;
    if (this.#select === VERSION) return VERSION_VALUE;
    const input = (this.#select - REDIRECTION) >> 1;
    if (input < 0 || input >= IO_APIC_INPUTS) return 0;
    if ((this.#select & 1) !== 0) return this.#high[input] as number;
    return (this.#low[input] as number) | ((this.#held >>> input) & 1 ? Entry.Pending : 0);
  }

  #write(value: number): void {
    if (this.#select === ID) this.#id = value & ID_BITS;
    const input = (this.#select - REDIRECTION) >> 1;
    if (input < 0 || input >= IO_APIC_INPUTS) return;
    if ((this.#select & 1) !== 0) {
      this.#high[input] = value & 0xff00_0000;
      if ((this.#held >>> input) & 1) this.#sendLevel(input);
      return;
    }
    const remote = (value & Entry.Level) !== 0 ? (this.#low[input] as number) & Entry.RemoteIrr : 0;
    this.#low[input] = (value & Entry.Writable) | remote;
    this.#sendLevel(input);
  }

  /** Drives input `input`. */
  drive(input: number, high: boolean): void {
    const before = this.#isAsserted(input);
    this.#inputs = high ? this.#inputs | (1 << input) : this.#inputs & ~(1 << input);
    const entry = this.#low[input] as number;
    if ((entry & Entry.Level) !== 0) this.#sendLevel(input);
    else if (!before && this.#isAsserted(input) && (entry & Entry.Masked) === 0) this.#deliver(input);
  }

  #isAsserted(input: number): boolean {
    const high = ((this.#inputs >>> input) & 1) !== 0;
    return high !== (((this.#low[input] as number) & Entry.ActiveLow) !== 0);
  }

  /** Whether an interrupt at `input` would go anywhere. */
  accepts(input: number): boolean {
    return ((this.#low[input] as number) & Entry.Masked) === 0;
  }

  /** Whether an interrupt at `input` reaches processors that have interrupts disabled. */
  isUnmaskable(input: number): boolean {
    const mode = modeOf(this.#low[input] as number);
    return this.accepts(input) && mode > DeliveryMode.LowestPriority && mode < DeliveryMode.StartUp;
  }

  #sendLevel(input: number): void {
    const entry = this.#low[input] as number;
    this.#held &= ~(1 << input);
    if ((entry & Entry.Level) === 0 || (entry & (Entry.Masked | Entry.RemoteIrr)) !== 0) return;
    if (!this.#isAsserted(input)) return;
    if (!this.#deliver(input)) this.#held |= 1 << input;
    else if (modeOf(entry) <= DeliveryMode.LowestPriority) this.#low[input] = entry | Entry.RemoteIrr;
  }

  /** What APICs accept may have changed: interrupts that are held are sent again. */
  retry(): void {
    for (let input = 0; this.#held >>> input !== 0; input++) {
      if ((this.#held >>> input) & 1) this.#sendLevel(input);
    }
  }

  #deliver(input: number): boolean {
    const entry = this.#low[input] as number;
    return this.#send({
      mode: modeOf(entry),
      vector: entry & Entry.Vector,
      isLevel: (entry & Entry.Level) !== 0 && modeOf(entry) <= DeliveryMode.LowestPriority,
      isLogical: (entry & Entry.Logical) !== 0,
      destination: (this.#high[input] as number) >>> 24,
      broadcast: XAPIC_BROADCAST,
    });
  }

  /** The level-triggered interrupt `vector` has ended at a processor. */
  endOfInterrupt(vector: number): void {
    for (let input = 0; input < IO_APIC_INPUTS; input++) {
      const entry = this.#low[input] as number;
      if ((entry & Entry.RemoteIrr) === 0 || (entry & Entry.Vector) !== vector) continue;
      this.#low[input] = entry & ~Entry.RemoteIrr;
      this.#sendLevel(input);
    }
  }

  snapshot(): IoApicState {
    return {
      select: this.#select,
      id: this.#id,
      low: this.#low.slice(),
      high: this.#high.slice(),
      inputs: this.#inputs,
      held: this.#held,
    };
  }

  restore(state: IoApicState): void {
    this.#select = state.select;
    this.#id = state.id;
    this.#low.set(state.low);
    this.#high.set(state.high);
    this.#inputs = state.inputs;
    this.#held = state.held;
  }
}

function modeOf(entry: number): DeliveryMode {
  return (entry >>> 8) & 7;
}
