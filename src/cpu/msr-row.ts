/** What the catalogue of MSRs says of each: number, register slot, existence, and what WRMSR accepts. */
import type { CpuidFeatures } from './cpuid.ts';
import { Register, type RegisterName } from './registers.ts';

/** Why an access to an MSR faults, or `ok`. */
export type MsrAccess =
  | 'ok'
  | 'does-not-exist'
  | 'read-only'
  | 'reserved-bit'
  | 'not-canonical'
  | 'bad-value';

export interface MsrRow {
  readonly index: number;
  readonly name: RegisterName;
  /** Register slot that holds the value. */
  readonly slot: number;
  readonly exists: (features: CpuidFeatures) => boolean;
  /** Bits that must be 0 in a value to be written. */
  readonly reserved: (features: CpuidFeatures) => bigint;
  /** Bits that WRMSR accepts and does not store. */
  readonly ignored: bigint;
  /** What a value that WRMSR accepts leaves in the register; left out: the value without `ignored`. */
  readonly stores?: (value: bigint) => bigint;
  /** WRMSR raises #GP(0). */
  readonly readOnly: boolean;
  /** The value must be canonical for the widest linear address the processor supports. */
  readonly canonical: boolean;
  /** A further rule on the value. */
  readonly accepts?: (value: bigint, features: CpuidFeatures) => boolean;
}

export interface RowOptions {
  exists?: (features: CpuidFeatures) => boolean;
  reserved?: bigint | ((features: CpuidFeatures) => bigint);
  ignored?: bigint;
  stores?: (value: bigint) => bigint;
  canonical?: boolean;
  readOnly?: boolean;
  accepts?: (value: bigint, features: CpuidFeatures) => boolean;
}

/** A row of the catalogue. */
export function msr(index: number, name: RegisterName, options: RowOptions = {}): MsrRow {
  const { reserved = 0n } = options;
  return {
    index,
    name,
    slot: Register[name],
    exists: options.exists ?? (() => true),
    reserved: typeof reserved === 'bigint' ? () => reserved : reserved,
    ignored: options.ignored ?? 0n,
    canonical: options.canonical ?? false,
    readOnly: options.readOnly ?? false,
    ...(options.accepts && { accepts: options.accepts }),
    ...(options.stores && { stores: options.stores }),
  };
}
