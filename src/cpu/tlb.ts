/**
 * Cached translations in the form the fast path looks at: one direct-mapped table of linear pages in
 * the processor's state, with the rights that a translation gives under some settings of the
 * processor. Entries of several settings (views) lie beside each other, so that VM entries, VM exits
 * and other changes of the mode need not empty it. What fills it, and when it has to forget, is paging.ts.
 */
import { PAGE_SIZE } from '../bits/address.ts';

const TLB_ENTRIES = 1024;
const INDEX_MASK = TLB_ENTRIES - 1;
const VALID = 1;
/** Where an entry's tag has the number of its view, 1 to {@link LAST_VIEW}. */
const VIEW_SHIFT = 1;
const LAST_VIEW = 0x7ff;
/** Tag under which nothing is found: no view is selected. */
const NO_VIEW = 0xffe;
/** Settings that are remembered, and words that tell them apart. */
const SETTINGS = 4;
export const SETTING_WORDS = 11;

/** Rights of one class of access; shifted left by its {@link AccessClass}. */
export const Access = { Read: 1, Write: 2, Fetch: 4 } as const;
export type Access = (typeof Access)[keyof typeof Access];

/**
 * Classes of access (SDM vol. 3A §5.6): user-mode; supervisor-mode; explicit supervisor-mode data
 * access while RFLAGS.AC is 1, which SMAP lets through; user-mode and supervisor-mode shadow-stack access.
 */
export const AccessClass = {
  User: 0,
  Supervisor: 3,
  SupervisorWithAc: 6,
  UserShadowStack: 9,
  SupervisorShadowStack: 12,
} as const;
export type AccessClass = (typeof AccessClass)[keyof typeof AccessClass];

/** Shifts a kind of access into every class. */
export const EVERY_CLASS = 0o11111;
/** Accesses of the shadow-stack classes, and of those that are user-mode accesses. */
export const SHADOW_STACK_ACCESSES = 0o77000;
export const USER_ACCESSES = 0o07007;

/** Bytes of state a {@link Tlb} takes. */
export const TLB_BYTES = TLB_ENTRIES * 24;

export class Tlb {
  /** Bits 31:12 of the linear page, the view, and {@link VALID}; 0 if there is none. */
  readonly tagLow: Int32Array;
  /** Bits 63:32 of the linear page. */
  readonly tagHigh: Int32Array;
  /** Offset of the page in the memory's buffer; 0 if accesses must go the slow way. */
  readonly where: Uint32Array;
  /** Rights by class of access. */
  readonly rights: Int32Array;
  /** Physical address of the page. */
  readonly physical: Float64Array;
  /** Bits 11:0 of the tags of the present view. */
  private view = NO_VIEW;
  private newestView = 0;
  /** Tags of views by remembered setting, and the settings; how many there are, and the next to be replaced. */
  private readonly views = new Int32Array(SETTINGS);
  private readonly settings = new Int32Array(SETTINGS * SETTING_WORDS);
  private remembered = 0;
  private oldest = 0;

  constructor(buffer: ArrayBuffer, at: number) {
    this.physical = new Float64Array(buffer, at, TLB_ENTRIES);
    this.tagLow = new Int32Array(buffer, at + 8 * TLB_ENTRIES, TLB_ENTRIES);
    this.tagHigh = new Int32Array(buffer, at + 12 * TLB_ENTRIES, TLB_ENTRIES);
    this.where = new Uint32Array(buffer, at + 16 * TLB_ENTRIES, TLB_ENTRIES);
    this.rights = new Int32Array(buffer, at + 20 * TLB_ENTRIES, TLB_ENTRIES);
  }

  /** Entry that holds the page of `hi`:`lo` with all rights of `need`, or −1. */
  find(lo: number, hi: number, need: number): number {
    const entry = (lo >>> 12) & INDEX_MASK;
    return this.tagLow[entry] === ((lo & -PAGE_SIZE) | this.view) &&
      this.tagHigh[entry] === hi &&
      ((this.rights[entry] as number) & need) === need
      ? entry
      : -1;
  }

  /** Enters a translation into the selected view and answers its entry. */
  enter(lo: number, hi: number, physical: number, where: number, rights: number): number {
    const entry = (lo >>> 12) & INDEX_MASK;
    this.tagLow[entry] = (lo & -PAGE_SIZE) | this.view;
    this.tagHigh[entry] = hi;
    this.physical[entry] = physical;
    this.where[entry] = where;
    this.rights[entry] = rights;
    return entry;
  }

  /** Forgets the page of `hi`:`lo`, under whatever settings. */
  forgetPage(lo: number, hi: number): void {
    const entry = (lo >>> 12) & INDEX_MASK;
    if (this.tagHigh[entry] === hi) this.tagLow[entry] = 0;
  }

  forgetAll(): void {
    this.view = NO_VIEW;
    this.remembered = 0;
  }

  /** Settings may be others: nothing is found until {@link select}. */
  leaveView(): void {
    this.view = NO_VIEW;
  }

  /** Whether settings may be others than those of the entries. */
  get hasLeft(): boolean {
    return this.view === NO_VIEW;
  }

  /** Turns to the entries made under `setting` (words that differ whenever translations or rights may). */
  select(setting: Int32Array): void {
    const { settings, views } = this;
    for (let n = 0; n < this.remembered; n++) {
      let word = 0;
      while (word < SETTING_WORDS && settings[n * SETTING_WORDS + word] === setting[word]) word++;
      if (word < SETTING_WORDS) continue;
      this.view = views[n] as number;
      return;
    }
    if (this.newestView === LAST_VIEW - 1) {
      this.tagLow.fill(0);
      this.remembered = 0;
      this.newestView = 0;
    }
    if (this.remembered < SETTINGS) this.oldest = this.remembered++;
    this.newestView++;
    this.view = (this.newestView << VIEW_SHIFT) | VALID;
    views[this.oldest] = this.view;
    settings.set(setting, this.oldest * SETTING_WORDS);
    this.oldest = (this.oldest + 1) % SETTINGS;
  }
}
