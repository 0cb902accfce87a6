/**
 * Dumps in three sections, `*** Guest State ***`, `*** Host State ***`, `*** Control State ***`, as KVM
 * and Xen print them. The same labels stand in several sections, so a value belongs to the section
 * whose header came last. Words that are no label of the section are passed over.
 */

import { bit, hex } from '../bits/u64.ts';
import { Field, type FieldName } from '../vmcs/fields.ts';
import { type Label, type LabelTable, type Match, matchLabel, type Read } from './labels.ts';
import { matchReport, type Report, type ReportTable } from './reports.ts';
import { TokenStream } from './tokens.ts';
import { DumpError, type MsrLists } from './vmcs-image.ts';

export type Section = 'guest' | 'host' | 'control';
const SECTIONS: readonly Section[] = ['guest', 'host', 'control'];
const HEADERS = new Map<string, Section>([
  ['Guest', 'guest'],
  ['Host', 'host'],
  ['Control', 'control'],
]);
const MOST_NOTES = 12;
/** So many values that contradict others within one dump come of two printers. */
const FEWEST_CONFLICTS = 3;
/** More than IA32_VMX_MISC can recommend. */
const MOST_MSRS = 4096;
/** Bit of the exit reason (SDM §27.9.1). */
const ENTRY_FAILURE = 31;

/** One dump as far as it has been read. */
export class SectionDump {
  readonly reads = new Map<string, Read>();
  readonly sections = new Set<Section>();
  readonly notes: string[] = [];
  readonly msrLists: MsrLists = {};
  readonly firstLine: number;
  lastLine: number;
  error: DumpError | undefined;
  /** Reports that stand before and after it, next to it. */
  before: Report | undefined;
  after: Report | undefined;
  /** A second printer writes between its lines. */
  overlapped = false;
  /** Its sections are of two dumps. */
  mixed = false;
  readonly #conflicts = new Map<string, string>();
  #openList: keyof MsrLists | undefined;
  #msr: number | undefined;
  #notesLeftOut = 0;
  readonly #foreign = { first: 0, count: 0 };
  readonly #pendingForeign = { first: 0, count: 0 };

  constructor(line: number) {
    this.firstLine = line;
    this.lastLine = line;
  }

  /** The last line that every printer prints is there. */
  get complete(): boolean {
    return this.sections.size === SECTIONS.length && this.reads.has('originalEventIdentification');
  }

  note(text: string): void {
    if (this.notes.length < MOST_NOTES) this.notes.push(text);
    else this.#notesLeftOut++;
  }

  take(match: Match, line: number): void {
    this.lastLine = line;
    if (this.#pendingForeign.count > 0) {
      if (this.#foreign.count === 0) this.#foreign.first = this.#pendingForeign.first;
      this.#foreign.count += this.#pendingForeign.count;
      this.#pendingForeign.count = 0;
    }
    for (const note of match.notes) this.note(note);
    for (const read of match.reads) {
      if (read.name.startsWith('~msr')) this.#takeMsr(read);
      else this.#takeValue(read);
    }
  }

  #takeValue(read: Read): void {
    const earlier = this.reads.get(read.name);
    if (!earlier) {
      // Nobody who explains a dump repeats so much of it before its end.
      if (this.#conflicts.size >= FEWEST_CONFLICTS && !this.complete) this.overlapped = true;
      this.reads.set(read.name, read);
    } else if (earlier.value !== read.value && !this.#conflicts.has(read.name)) {
      this.#conflicts.set(
        read.name,
        `line ${read.line} prints ${read.name.replace('~', '')} again, ${hex(read.value)}: ${hex(earlier.value)} of line ${earlier.line} is kept`,
      );
    }
  }

  /** What two processors print with different values is of one or the other: unknown. */
  #resolveConflicts(): void {
    if (!this.overlapped) {
      for (const text of this.#conflicts.values()) this.note(text);
      return;
    }
    for (const name of this.#conflicts.keys()) this.reads.delete(name);
    const count = this.#conflicts.size;
    this.notes.unshift(
      `two processors print at the same time: ${count === 1 ? 'a value' : `${count} values`} printed twice and differently ${count === 1 ? 'is' : 'are'} unknown`,
    );
  }

  /** The heading of a list of MSRs. */
  openList(list: keyof MsrLists): void {
    this.#openList = list;
    this.msrLists[list] ??= [];
  }

  #takeMsr(read: Read): void {
    const list = this.#openList && this.msrLists[this.#openList];
    if (read.name === '~msr') this.#msr = Number(read.value);
    else if (list && this.#msr !== undefined && list.length < MOST_MSRS) {
      list.push({ index: this.#msr, reserved: 0, data: read.value });
      this.#msr = undefined;
    }
  }

  /** A line within the dump that holds no label. */
  passOver(line: number): void {
    if (this.#pendingForeign.count++ === 0) this.#pendingForeign.first = line;
  }

  /** Says what is missing. */
  conclude(): void {
    const hasEnd = this.reads.has('originalEventIdentification');
    this.#resolveConflicts();
    for (const section of SECTIONS) {
      if (this.sections.has(section)) continue;
      const name = `${(section[0] as string).toUpperCase()}${section.slice(1)}`;
      this.notes.push(`there is no "*** ${name} State ***": what stands in that section is unknown`);
    }
    if (!hasEnd && this.sections.has('control')) {
      this.notes.push(`the dump is cut off after line ${this.lastLine}: the rest is unknown`);
    }
    const { first, count } = this.#foreign;
    if (count === 1) this.notes.push(`line ${first} was not understood and passed over`);
    if (count > 1) {
      this.notes.push(`${count} lines were not understood and passed over, line ${first} the first`);
    }
    if (this.#notesLeftOut > 0) this.notes.push(`${this.#notesLeftOut} more notes of this kind are left out`);
  }

  /** A report stands by it, or the exit reason says that VM entry failed. */
  get isOfFailedEntry(): boolean {
    const reported = this.before !== undefined || this.after !== undefined;
    return reported || bit(this.reads.get('exitReason')?.value ?? 0n, ENTRY_FAILURE);
  }

  get values(): Map<FieldName, bigint> {
    const values = new Map<FieldName, bigint>();
    for (const { name, value } of this.reads.values())
      if (name in Field) values.set(name as FieldName, value);
    return values;
  }
}

export interface SectionTables extends Readonly<Record<Section, LabelTable>> {
  /** Headings of MSR lists. */
  readonly lists: ReadonlyMap<Label, keyof MsrLists>;
  /** How the printer of these dumps says how VM entry ended. */
  readonly reports: ReportTable;
}

/** The dump to use, and how many others the text holds. */
export interface Found {
  readonly dump: SectionDump;
  readonly others: number;
  /** A complete dump stands before it, of an ordinary VM exit; this one is of a VM entry that failed. */
  readonly passesOver: boolean;
  /** The reports of this text stand before their dumps. */
  readonly reportsFirst: boolean;
}

/** The header at the head of the stream: `*** Guest State ***`, its stars perhaps lost. */
function headerAt(stream: TokenStream, previous: string | undefined): Section | undefined {
  const token = stream.peek();
  const section = token && HEADERS.get(token.text);
  if (!section || stream.peek(1)?.text !== 'State') return undefined;
  const next = stream.peek(2);
  const starred = /^[*#]/.test(previous ?? '') || next?.text.startsWith('*');
  return starred || (token.first && (next === undefined || next.first)) ? section : undefined;
}

/**
 * Reads a text and returns its first complete dump of a VM entry that failed, or without one its first
 * complete dump, or if none is complete the one that says most.
 * @throws DumpError if the dump it would return has a value that is none
 */
export function findSections(text: string, tables: SectionTables): Found | undefined {
  const stream = new TokenStream(text);
  const choice = new Choice();
  // Until the first header the section is unknown: the beginning of the dump may be cut off.
  let headless: Partial<Record<Section, SectionDump>> = {
    guest: new SectionDump(1),
    host: new SectionDump(1),
    control: new SectionDump(1),
  };
  let dump: SectionDump | undefined;
  let section: Section | undefined;
  let previous: string | undefined;
  let line = 0;
  let foreign = false;
  let hasLabel = true;

  const labelled = (length: number) => {
    line = stream.peek(length - 1)?.line ?? line;
    foreign = false;
    hasLabel = true;
  };

  for (let token = stream.peek(); token; token = stream.peek()) {
    if (token.line !== line) {
      if (foreign && !hasLabel) dump?.passOver(line);
      line = token.line;
      foreign = false;
      hasLabel = false;
    }
    const header = headerAt(stream, previous);
    previous = token.text;
    if (header) {
      if (!dump && header !== 'guest') {
        const missing = SECTIONS[SECTIONS.indexOf(header) - 1] as Section;
        const beginning = headless[missing];
        if (beginning && beginning.reads.size > 0) {
          beginning.sections.add(missing);
          beginning.note(`the text begins within the ${missing} state: what stands before is unknown`);
          dump = choice.begin(beginning);
        }
      }
      headless = {};
      const last = SECTIONS.findLast((s) => dump?.sections.has(s));
      const again = header === section && header !== 'guest' && !dump?.complete;
      if (dump && again) dump.overlapped = true;
      else if (!dump || (last && SECTIONS.indexOf(header) <= SECTIONS.indexOf(last))) {
        dump = choice.begin(new SectionDump(token.line), header);
      }
      dump.sections.add(header);
      dump.lastLine = token.line;
      section = header;
      labelled(2);
      stream.advance(2);
      continue;
    }
    const report = matchReport(stream, tables.reports);
    if (report) {
      choice.report(report);
      hasLabel = true;
    }
    let length = dump && section ? takeLabel(stream, tables, section, dump) : 0;
    for (const [name, beginning] of Object.entries(headless)) {
      length = Math.max(length, takeLabel(stream, tables, name as Section, beginning));
    }
    if (length > 0) labelled(length);
    else foreign ||= !/^\*+$/.test(token.text);
    stream.advance(Math.max(length, 1));
  }
  // No header at all: only the end of a dump is known by its labels alone.
  const end = headless.control;
  if (!dump && end && (end.reads.has('exitReason') || end.complete)) {
    end.sections.add('control');
    end.note('the text begins within the control state: what stands before is unknown');
    choice.begin(end);
  }
  return choice.made();
}

function takeLabel(stream: TokenStream, tables: SectionTables, section: Section, dump: SectionDump): number {
  for (const label of tables[section].get(stream.peek()?.text as string) ?? []) {
    try {
      const match = matchLabel(stream, label);
      if (!match) continue;
      const list = tables.lists.get(label);
      if (list) dump.openList(list);
      dump.take(match, stream.peek(match.length - 1)?.line ?? dump.lastLine);
      return match.length;
    } catch (error) {
      if (!(error instanceof DumpError)) throw error;
      dump.error ??= error;
      return 1;
    }
  }
  return 0;
}

/** Keeps one dump of those that a text holds, so that a log of any length fits in memory. */
class Choice {
  #best: SectionDump | undefined;
  #previous: SectionDump | undefined;
  #current: SectionDump | undefined;
  #count = 0;
  #report: Report | undefined;
  #passesOver = false;
  #reportsFirst: boolean | undefined;

  /** @param header that it begins with, `guest` unless lines are lost or another dump has taken them */
  begin(dump: SectionDump, header: Section = 'guest'): SectionDump {
    const [previous, current] = [this.#previous, this.#current];
    if (current && header !== 'guest' && previous?.complete === false && !previous.sections.has(header)) {
      current.mixed = true;
    }
    this.#previous = current;
    this.#settle();
    this.#count++;
    this.#reportsFirst ??= this.#report !== undefined;
    dump.before = this.#report;
    this.#report = undefined;
    this.#current = dump;
    return dump;
  }

  report(report: Report): void {
    this.#report = report;
    if (this.#current) this.#current.after ??= report;
  }

  made(): Found | undefined {
    this.#settle();
    const dump = this.#best;
    if (!dump) return undefined;
    if (dump.error) throw dump.error;
    if (dump.mixed) {
      throw new DumpError(
        'two processors print their dumps at the same time, and nothing tells their lines apart',
        dump.firstLine,
      );
    }
    dump.conclude();
    return {
      dump,
      others: this.#count - 1,
      passesOver: this.#passesOver,
      reportsFirst: this.#reportsFirst === true,
    };
  }

  #settle(): void {
    const [best, current] = [this.#best, this.#current];
    if (!current) return;
    if (best?.complete && !best.mixed) {
      if (best.isOfFailedEntry || !current.complete || current.mixed || !current.isOfFailedEntry) return;
      this.#passesOver = true;
    }
    const better = !best || best.mixed || current.complete || current.reads.size > best.reads.size;
    if (better && !(best && current.mixed)) this.#best = current;
  }
}
