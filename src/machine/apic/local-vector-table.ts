/**
 * The local vector table of a local APIC and the lines LINT0 and LINT1 (SDM vol. 3A §12.5.1): what each
 * entry asks for when its source or line does something.
 */
import { ApicRegister, LVT_OFFSETS, Lvt } from './apic-registers.ts';
import { DeliveryMode } from './interrupt-message.ts';

/** Entries, as {@link LVT_OFFSETS} lists them. */
export const LvtEntry = {
  Cmci: LVT_OFFSETS.indexOf(ApicRegister.LvtCmci),
  Timer: LVT_OFFSETS.indexOf(ApicRegister.LvtTimer),
  Lint0: LVT_OFFSETS.indexOf(ApicRegister.LvtLint0),
  Error: LVT_OFFSETS.indexOf(ApicRegister.LvtError),
} as const;

export type LintLine = 0 | 1;

export interface VectorTableSnapshot {
  readonly entries: Uint32Array;
  readonly lines: number;
}

export class LocalVectorTable {
  readonly #entries = new Uint32Array(LVT_OFFSETS.length);
  /** Electrical levels of LINT0 and LINT1. */
  #lines = 0;

  constructor() {
    this.reset();
  }

  /** The lines stay as they are driven. */
  reset(): void {
    this.#entries.fill(Lvt.Masked);
  }

  read(entry: number): number {
    return this.#entries[entry] as number;
  }

  /** Writes the bits that software may write; the remote IRR lives as long as its line is level-triggered. */
  write(entry: number, written: number): void {
    const line = entry - LvtEntry.Lint0;
    const remote = this.read(entry) & Lvt.RemoteIrr;
    this.#entries[entry] = written | (line === 0 && isLevelTriggered(written) ? remote : 0);
  }

  /** The APIC was disabled by software. */
  maskAll(): void {
    for (let n = 0; n < this.#entries.length; n++) this.#entries[n] = this.read(n) | Lvt.Masked;
  }

  isMasked(entry: number): boolean {
    return (this.read(entry) & Lvt.Masked) !== 0;
  }

  mode(entry: number): DeliveryMode {
    return (this.read(entry) & Lvt.Mode) >>> 8;
  }

  vector(entry: number): number {
    return this.read(entry) & Lvt.Vector;
  }

  drive(line: LintLine, high: boolean): void {
    this.#lines = high ? this.#lines | (1 << line) : this.#lines & ~(1 << line);
  }

  isHigh(line: LintLine): boolean {
    return (this.#lines & (1 << line)) !== 0;
  }

  isAsserted(line: LintLine): boolean {
    const activeLow = (this.read(LvtEntry.Lint0 + line) & Lvt.ActiveLow) !== 0;
    return this.isHigh(line) !== activeLow;
  }

  /** LINT0 in delivery mode ExtINT is the INTR pin. */
  get requestsExternal(): boolean {
    const { Lint0 } = LvtEntry;
    return !this.isMasked(Lint0) && this.mode(Lint0) === DeliveryMode.ExtInt && this.isAsserted(0);
  }

  /** Only LINT0 can be level-triggered, and then only with fixed interrupts. */
  isLevelTriggered(line: LintLine): boolean {
    return line === 0 && isLevelTriggered(this.read(LvtEntry.Lint0));
  }

  /** Whether LINT0, level-triggered, has an interrupt to send; its remote IRR then tells that it was sent. */
  takesLevel(): boolean {
    const entry = this.read(LvtEntry.Lint0);
    if ((entry & (Lvt.Masked | Lvt.RemoteIrr)) !== 0 || !this.isAsserted(0)) return false;
    this.#entries[LvtEntry.Lint0] = entry | Lvt.RemoteIrr;
    return true;
  }

  /** The level-triggered interrupt `vector` has ended; whether it was that of LINT0. */
  endLevel(vector: number): boolean {
    const entry = this.read(LvtEntry.Lint0);
    if ((entry & Lvt.RemoteIrr) === 0 || (entry & Lvt.Vector) !== vector) return false;
    this.#entries[LvtEntry.Lint0] = entry & ~Lvt.RemoteIrr;
    return true;
  }

  snapshot(): VectorTableSnapshot {
    return { entries: this.#entries.slice(), lines: this.#lines };
  }

  restore(snapshot: VectorTableSnapshot): void {
    this.#entries.set(snapshot.entries);
    this.#lines = snapshot.lines;
  }
}

function isLevelTriggered(entry: number): boolean {
  return (entry & Lvt.Level) !== 0 && (entry & Lvt.Mode) === 0;
}
