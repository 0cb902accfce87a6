/**
 * Cached translations in the form the fast path looks at: one direct-mapped table of linear pages in
 * the processor's state, with the rights that a translation gives under the processor's present
 * settings. What fills it, and when it has to forget, is paging.ts.
 */
import { PAGE_SIZE } from '../bits/address.ts';

export const TLB_ENTRIES = 1024;
const INDEX_MASK = TLB_ENTRIES - 1;
const VALID = 1;

/** Rights of one class of access; shifted left by its {@link AccessClass}. */
export const Access = { Read: 1, Write: 2, Fetch: 4 } as const;
export type Access = (typeof Access)[keyof typeof Access];

/**
 * Classes of access (SDM vol. 3A §5.6): user-mode; supervisor-mode; explicit supervisor-mode data
 * access while RFLAGS.AC is 1, which SMAP lets through.
 */
export const AccessClass = { User: 0, Supervisor: 3, SupervisorWithAc: 6 } as const;
export type AccessClass = (typeof AccessClass)[keyof typeof AccessClass];

/** Bytes of state a {@link Tlb} takes. */
export const TLB_BYTES = TLB_ENTRIES * 24;

export class Tlb {
  /** Bits 31:12 of the linear page, and {@link VALID}. */
  readonly tagLow: Int32Array;
  /** Bits 63:32 of the linear page. */
  readonly tagHigh: Int32Array;
  /** Offset of the page in the memory's buffer; 0 if accesses must go the slow way. */
  readonly where: Uint32Array;
  /** Rights by class of access. */
  readonly rights: Int32Array;
  /** Physical address of the page. */
  readonly physical: Float64Array;
  /** Whether anything was entered since all was forgotten. */
  private used = false;

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
    return this.tagLow[entry] === ((lo & -PAGE_SIZE) | VALID) &&
      this.tagHigh[entry] === hi &&
      ((this.rights[entry] as number) & need) === need
      ? entry
      : -1;
  }

  /** Enters a translation and answers its entry. */
  enter(lo: number, hi: number, physical: number, where: number, rights: number): number {
    const entry = (lo >>> 12) & INDEX_MASK;
    this.used = true;
    this.tagLow[entry] = (lo & -PAGE_SIZE) | VALID;
    this.tagHigh[entry] = hi;
    this.physical[entry] = physical;
    this.where[entry] = where;
    this.rights[entry] = rights;
    return entry;
  }

  /** Forgets the page of `hi`:`lo`. */
  forgetPage(lo: number, hi: number): void {
    const entry = (lo >>> 12) & INDEX_MASK;
    if (this.tagHigh[entry] === hi) this.tagLow[entry] = 0;
  }

  forgetAll(): void {
    if (!this.used) return;
    this.used = false;
    this.tagLow.fill(0);
  }
}
