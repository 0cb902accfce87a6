/**
 * The lines by which hypervisors say how a VM entry ended, beside or instead of a dump. A line that
 * only looks like one is no error: it reports nothing.
 */

import { hex } from '../bits/u64.ts';
import type { FieldName } from '../vmcs/fields.ts';
import { ExitReasonBit } from '../vmcs/formats.ts';
import type { TokenStream } from './tokens.ts';
import { quoted, type Reported } from './vmcs-image.ts';

export interface Report extends Reported {
  readonly line: number;
  readonly note?: string;
}

type Meaning = (numbers: readonly bigint[]) => Reported & { note?: string };

const ALL_ONES = 0xffff_ffffn;

function hardwareError([error = 0n]: readonly bigint[]): ReturnType<Meaning> {
  if (error === ALL_ONES) return { note: 'hardware error 0xffffffff is what KVM reports on AMD processors' };
  if ((error & BigInt(ExitReasonBit.EntryFailure)) !== 0n) return { exitReason: Number(error & ALL_ONES) };
  if (error === 0n) return { note: 'hardware error 0x0: VM entry failed without a VM-instruction error' };
  return { instructionError: Number(error) };
}

function vmFail([error = 0n]: readonly bigint[]): ReturnType<Meaning> {
  return { instructionError: Number(error) };
}

function entryFailure([reason = 0n, qualification]: readonly bigint[]): ReturnType<Meaning> {
  const exitReason = Number(reason & ALL_ONES);
  return qualification === undefined ? { exitReason } : { exitReason, exitQualification: qualification };
}

function msrLoading([reason = 0n, entry = 0n, msr, value]: readonly bigint[]): ReturnType<Meaning> {
  // The printed entry counts from 0, the exit qualification from 1 (SDM §29.8).
  const report = entryFailure([reason, entry + 1n]);
  return msr === undefined || value === undefined
    ? report
    : { ...report, note: `loading MSR ${hex(msr)} with value ${hex(value, 16)} failed` };
}

// `#` is a number: hexadecimal with 0x, else decimal; `$` is hexadecimal; `?` is any word. Longer
// phrases first.
const PHRASES: readonly (readonly [phrase: string, meaning: Meaning])[] = [
  ['failed hardware error #', hardwareError],
  ['hardware_entry_failure_reason = #', hardwareError],
  ['failed instruction error #', vmFail],
  ['failed. instruction error = #', vmFail],
  ['vmfailvalid. prev exit : ? error code : #', vmFail],
];
const XEN_PHRASES: typeof PHRASES = [
  ['vmlaunch error : #', vmFail],
  ['vmresume error : #', vmFail],
  ['vmentry failure ( reason # ) : invalid guest state ( # )', entryFailure],
  ['vmentry failure ( reason # ) : msr loading ( entry # ) msr $ val $', msrLoading],
  ['vmentry failure ( reason # ) : msr loading ( entry # )', msrLoading],
  ['vmentry failure ( reason # )', entryFailure],
  ['exit reason # ) caused by invalid guest state ( # )', entryFailure],
  ['exit reason # ) caused by msr entry # loading.', entryFailure],
  ['exit reason # ) caused by', entryFailure],
];

/** Phrases by their first word. */
export type ReportTable = ReadonlyMap<string, readonly (readonly [readonly string[], Meaning])[]>;

function reportTable(phrases: typeof PHRASES): ReportTable {
  const table = new Map<string, (readonly [readonly string[], Meaning])[]>();
  for (const [phrase, meaning] of phrases) {
    const list = phrase.split(' ');
    const first = list[0] as string;
    table.set(first, [...(table.get(first) ?? []), [list, meaning]]);
  }
  return table;
}

/** What Linux, QEMU and HAXM say; what Xen says. In the log of a nested hypervisor there may be both. */
export const HOST_REPORTS = reportTable(PHRASES);
export const XEN_REPORTS = reportTable(XEN_PHRASES);

function numberOf(text: string, kind: string): bigint | undefined {
  if (kind === '$') return /^[0-9a-f]{1,16}$/i.test(text) ? BigInt(`0x${text}`) : undefined;
  const number = /^(0x[0-9a-f]{1,16}|[0-9]{1,16})[.;!]?$/i.exec(text)?.[1];
  return number === undefined ? undefined : BigInt(number);
}

/** A report at the head of the stream, if there is one. Takes nothing from the stream. */
export function matchReport(stream: TokenStream, table: ReportTable): Report | undefined {
  const head = stream.peek();
  if (!head || head.text.length > 40) return undefined;
  for (const [list, meaning] of table.get(head.text.toLowerCase()) ?? []) {
    const numbers: bigint[] = [];
    const matches = list.every((word, i) => {
      const text = stream.peek(i)?.text;
      if (text === undefined || text.length > 40) return false;
      if (word === '?') return true;
      if (word !== '#' && word !== '$') return text.toLowerCase() === word;
      const number = numberOf(text, word);
      if (number !== undefined) numbers.push(number);
      return number !== undefined;
    });
    if (matches) return { ...meaning(numbers), line: head.line, source: quoted(head.source, 160) };
  }
  return undefined;
}

/** What the machine reported: the words of a report line, or else the exit reason in the dump. */
export function reportedBy(
  values: ReadonlyMap<FieldName, bigint>,
  report: Report | undefined,
  source: string | undefined,
  notes: string[],
): Reported {
  const reason = values.get('exitReason');
  const qualification = values.get('exitQualification');
  if (report) {
    const { line, note, ...reported } = report;
    if (note) notes.push(`line ${line}: ${note}`);
    if (reported.exitReason === undefined && reason !== undefined) {
      notes.push(`the exit reason ${hex(reason)} in the dump is left from an earlier VM exit`);
    }
    if (reported.exitReason !== undefined && reason !== undefined && BigInt(reported.exitReason) !== reason) {
      notes.push(
        `line ${line} reports exit reason ${hex(reported.exitReason)}, the dump holds ${hex(reason)}`,
      );
    } else if (reported.exitReason !== undefined && qualification !== undefined) {
      reported.exitQualification ??= qualification;
    }
    return reported;
  }
  if (reason === undefined) return {};
  return {
    exitReason: Number(reason),
    ...(qualification !== undefined && { exitQualification: qualification }),
    ...(source !== undefined && { source: quoted(source, 160) }),
  };
}
