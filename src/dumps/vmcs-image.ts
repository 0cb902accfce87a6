/**
 * What every reader of a dump makes of it: the values of VMCS fields that the text prints, and what it
 * says the machine reported. A field that the text does not print is absent: unknown, never zero.
 */
import type { FieldName } from '../vmcs/fields.ts';
import type { MsrAreaEntry } from '../vmcs/formats.ts';

type DumpFormat = 'kvm' | 'xen' | 'qemu' | 'haxm' | 'json';

/** The MSR areas, as far as a dump prints them. */
export interface MsrLists {
  vmEntryLoad?: MsrAreaEntry[];
  vmExitStore?: MsrAreaEntry[];
  vmExitLoad?: MsrAreaEntry[];
}

/** What the machine said about the VM entry, as opposed to what the fields held. */
export interface Reported {
  /** The exit reason field as a whole; bit 31 is set if VM entry failed. */
  exitReason?: number;
  exitQualification?: bigint;
  /** VM-instruction error number: VM entry ended in VMfail. */
  instructionError?: number;
  /** The words of the line that reported it. */
  source?: string;
}

export interface VmcsImage {
  format: DumpFormat;
  /** Layout within the format: K0–K3 (KVM), X0–X2 (Xen), 32-bit or 64-bit (QEMU). */
  variant?: string;
  values: Map<FieldName, bigint>;
  /** Fields whose printed value may not be that of the VMCS: for checks they are unknown. */
  doubtful?: ReadonlySet<FieldName>;
  reported: Reported;
  msrLists?: MsrLists;
  /** One sentence each: what was missing, doubtful or left out. */
  notes: string[];
}

const UNPRINTABLE = /[\p{Cc}\p{Zl}\p{Zp}]+/gu;

/** Text of a dump fit to be quoted in one line of output. */
export function quoted(text: string, most = 60): string {
  const line = text
    .slice(0, most + 1)
    .replaceAll(UNPRINTABLE, ' ')
    .trim();
  return line.length > most ? `${line.slice(0, most)}…` : line;
}

/** The text cannot be read as a dump; `message` is one line that says what is wrong and where. */
export class DumpError extends Error {
  override readonly name = 'DumpError';
  /** 1-based line of the text, if the error is at a line. */
  readonly line: number | undefined;

  constructor(message: string, line?: number) {
    super(quoted(line === undefined ? message : `line ${line}: ${message}`, 400));
    this.line = line;
  }
}
