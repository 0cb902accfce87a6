/**
 * The data of an active VMCS as a logical processor holds them (SDM §27.11.1): what VMREAD and
 * VMWRITE touch. The region in memory is stale until the copy is written back. Every field occupies
 * one aligned 64-bit slot whatever its width; the bits above its width are always 0.
 */
import { FIELD_COUNT, FIELDS } from './fields.ts';
import type { RegionFormat } from './layout.ts';
import {
  isShadowVmcs,
  LaunchState,
  loadFields,
  type RegionPage,
  readLaunchState,
  storeFields,
  writeLaunchState,
} from './region.ts';

/**
 * When a processor moves data of an active VMCS to memory. `at-vmclear`: only at VMCLEAR.
 * `write-through`: at every change. `seeded`: also at arbitrary moments, and sometimes it drops the
 * copy and reads it again. Software that obeys the manual cannot tell them apart.
 */
export const FLUSH_POLICIES = ['at-vmclear', 'write-through', 'seeded'] as const;
export type FlushPolicy = (typeof FLUSH_POLICIES)[number];

/** All entry-check lists need to run again (see {@link ProcessorCopy.unverified}). */
export const ALL_UNVERIFIED = 0xffff_ffff;

/** Values of {@link ProcessorCopy.written}. */
export const WRITTEN = 1;
/** Written with high access last: a full access outside 64-bit mode would lose that half. */
export const WRITTEN_HIGH = 3;

/**
 * Where the data of a copy are: in a buffer of its own, or in the window of a processor on which
 * VMREAD and VMWRITE find them at fixed places.
 */
export interface CopyStorage {
  readonly words: Uint32Array;
  readonly quads: BigUint64Array;
  /** One element: {@link ProcessorCopy.unverified}. */
  readonly unverified: Uint32Array;
  /** Only in a window. By slot: what {@link ProcessorCopy.fieldWritten} was last told, 0 if it needs to be told again. */
  readonly told: Int32Array | undefined;
}

function ownStorage(): CopyStorage {
  const buffer = new ArrayBuffer(FIELD_COUNT * 8);
  return {
    words: new Uint32Array(buffer),
    quads: new BigUint64Array(buffer),
    unverified: Uint32Array.of(ALL_UNVERIFIED),
    told: undefined,
  };
}

const EVERY_LIST = new Uint32Array(FIELD_COUNT).fill(ALL_UNVERIFIED);

/** By slot: 1 for a host-state field. */
const HOST = Uint8Array.from(FIELDS, (field) => (field.type === 'host' ? 1 : 0));

/** So many fields are remembered one by one as told; of more, all are forgotten at once. */
const TOLD_KEPT = 16;

export class ProcessorCopy {
  private storage = ownStorage();
  /** Slots of `told` that are set, as far as they are kept, and their number. */
  private readonly toldSlots = new Uint8Array(TOLD_KEPT);
  private toldCount = 0;
  private writtenSlots: Uint8Array = new Uint8Array(FIELD_COUNT);
  /** A table of fields all of which the processor has saved, and no access to a half has come after it. */
  saved: object | undefined;
  /** Field values by slot: two 32-bit words each, low first. */
  words = this.storage.words;
  /** The same bytes as 64-bit values. */
  quads = this.storage.quads;
  /** Reduction of the physical-address width under which the verified lists held, −1 if none did. */
  verifiedReduction = -1;
  /** Processor state under which all lists held (a number VM entry makes of it), −1 if they never did. */
  verifiedState = -1;
  /** Which of the entry checks that read memory applied then, a bit each. */
  memoryRows = 0;
  /** What VM entries and exits have worked out of the data; they find out themselves whether it still holds. */
  derived: unknown;
  /** What VM exits have worked out of the host-state fields; it holds while {@link hostWritten} is false. */
  hostImage: unknown;
  /** A host-state field may have been written since {@link keepHostImage}. */
  hostWritten = true;
  launchState: LaunchState = LaunchState.Undefined;
  isShadow = false;
  /** False once the processor has evicted the copy: it reads the region again before the next use. */
  resident = false;

  /** Physical address of the region. */
  readonly address: number;
  readonly format: RegionFormat;

  /**
   * By field slot: which lists of entry checks look at the field, a bit each. Whoever changes a field
   * sets these bits in {@link unverified}.
   */
  readonly dependents: Uint32Array;

  constructor(address: number, format: RegionFormat, dependents: Uint32Array = EVERY_LIST) {
    this.address = address;
    this.format = format;
    this.dependents = dependents;
  }

  /**
   * One bit a list of entry checks: 1 = a field the list reads has changed since the list last held.
   * VM entry skips the lists whose bit is 0.
   */
  get unverified(): number {
    return this.storage.unverified[0] as number;
  }

  set unverified(lists: number) {
    const { unverified } = this.storage;
    if (((unverified[0] as number) & ~lists) !== 0) this.forgetTold();
    unverified[0] = lists;
  }

  /** Slots written since VMCLEAR first initialised the region, for the hazard of uninitialised fields. */
  get written(): Uint8Array {
    return this.writtenSlots;
  }

  set written(slots: Uint8Array) {
    this.writtenSlots = slots;
    this.saved = undefined;
  }

  /** Software has written the field in `slot`, as `kind` says. */
  fieldWritten(slot: number, kind: typeof WRITTEN | typeof WRITTEN_HIGH): void {
    const { unverified, told } = this.storage;
    unverified[0] = (unverified[0] as number) | (this.dependents[slot] as number);
    this.written[slot] = kind;
    if (kind === WRITTEN_HIGH) this.saved = undefined;
    if (HOST[slot] === 1) this.hostWritten = true;
    if (told === undefined) return;
    told[slot] = kind;
    // Beyond the last of them a store has no effect.
    this.toldSlots[this.toldCount++] = slot;
  }

  /** Whoever writes a field from now on has to say so again. */
  private forgetTold(): void {
    const { told } = this.storage;
    if (told !== undefined) {
      if (this.toldCount > TOLD_KEPT) told.fill(0);
      else for (let i = 0; i < this.toldCount; i++) told[this.toldSlots[i] as number] = 0;
    }
    this.toldCount = 0;
  }

  /** Keeps what was worked out of the host-state fields until one of them is written. */
  keepHostImage(image: unknown): void {
    this.hostImage = image;
    this.hostWritten = false;
    this.forgetTold();
  }

  /** The processor has written the field in `slot`, other than with high access. */
  fieldSaved(slot: number): void {
    if (this.written[slot] === WRITTEN) return;
    this.written[slot] = WRITTEN;
    const { told } = this.storage;
    if (told !== undefined) told[slot] = 0;
  }

  /** Moves the data into the window of a processor, or without one into a buffer of their own. */
  moveTo(window: CopyStorage | undefined): void {
    const from = this.storage;
    const to = window ?? ownStorage();
    to.words.set(from.words);
    to.unverified.set(from.unverified);
    to.told?.fill(0);
    this.toldCount = 0;
    this.storage = to;
    this.words = to.words;
    this.quads = to.quads;
  }

  /** Reads the region: data, type and launch state. */
  load(page: RegionPage): void {
    loadFields(page, this.format, this.words);
    this.launchState = readLaunchState(page, this.format);
    this.isShadow = isShadowVmcs(page);
    this.unverified = ALL_UNVERIFIED;
    this.hostWritten = true;
    this.resident = true;
  }

  /** Writes data and launch state to the region; revision, type and abort indicator stay as they are. */
  writeBack(page: RegionPage): void {
    storeFields(page, this.format, this.words);
    writeLaunchState(page, this.format, this.launchState);
  }
}
