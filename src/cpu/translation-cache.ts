/**
 * Cached translations as the manual describes them (SDM vol. 3A §5.10, SDM §31.4): page by page, tagged
 * with PCID, VPID and second-level translation under which they were made, kept until an invalidation
 * that covers them. The TLB of the fast path (tlb.ts) is a view of those usable under the present settings.
 */
import { PAGE_SIZE } from '../bits/address.ts';
import { Caching } from './caching-policy.ts';
import { StructureCache } from './structure-cache.ts';

const SETS = 512;
const WAYS = 4;
const ENTRIES = SETS * WAYS;
const VALID = 1;

/**
 * What is known of a cached page. Bits 10:8: kinds of access (bits of `Access`) that the second-level
 * translation has to be asked about again; bits 18:16: those of supervisor-mode shadow-stack accesses.
 * Bits 14:11: its memory type, as `GuestPhysicalPage` has it. Protection key in bits 31:28.
 */
export const PageRight = {
  Write: 1,
  User: 2,
  ExecuteDisable: 4,
  Dirty: 8,
  Global: 16,
  /** Page of 2 or 4 MBytes, or of 1 GByte: INVLPG of any address in it invalidates the entry. */
  Large: 32,
  Huge: 64,
  /** Paging was off: no rights apply. */
  Unpaged: 128,
  /** The page was known as the APIC-access page; without, accesses are not virtualized (SDM §32.4.5). */
  ApicAccess: 1 << 15,
  /** A shadow-stack page: of the entries used, only the one that maps it does not allow writes, and it is dirty. */
  ShadowStack: 1 << 19,
} as const;
export const DENIED_SHIFT = 8;
export const SHADOW_STACK_DENIED_SHIFT = 16;
export const MEMORY_TYPE_SHIFT = 11;
export const KEY_SHIFT = 28;

/** Tag of a context: VPID (16 bits) and PCID (12 bits). */
export function contextTag(vpid: number, pcid: number): number {
  return (vpid << 12) | pcid;
}

/** Second-level tag of mappings that paging alone made: linear mappings. The others are combined mappings. */
export const LINEAR = 0;

export class TranslationCache {
  /** What is kept at all. */
  readonly caching: Caching;
  /** Paging-structure caches; contexts and second-level tags as here. */
  readonly structures = new StructureCache();
  private readonly tagLow = new Int32Array(ENTRIES);
  private readonly tagHigh = new Int32Array(ENTRIES);
  private readonly contexts = new Int32Array(ENTRIES);
  /** {@link LINEAR}, or the tag of the second-level translation. */
  private readonly seconds = new Float64Array(ENTRIES);
  private readonly next = new Uint8Array(SETS);
  private occupied = false;
  /** Whether there are entries of a VPID other than 0000H. */
  private hasVpids = false;
  /** Rights by entry: bits {@link PageRight}. */
  readonly rights = new Int32Array(ENTRIES);
  /** Physical page by entry. */
  readonly physical = new Float64Array(ENTRIES);

  constructor(caching = new Caching()) {
    this.caching = caching;
  }

  private set(lo: number, hi: number): number {
    const page = (lo >>> 12) ^ (hi << 3);
    return ((page ^ (page >>> 9)) & (SETS - 1)) * WAYS;
  }

  /** Entry of the page of `hi`:`lo` that is usable in `context` and with second-level tag `second`, or −1. */
  find(lo: number, hi: number, context: number, second: number): number {
    const tag = (lo & -PAGE_SIZE) | VALID;
    const set = this.set(lo, hi);
    for (let n = set; n < set + WAYS; n++) {
      if (
        this.tagLow[n] === tag &&
        this.tagHigh[n] === hi &&
        this.seconds[n] === second &&
        this.usable(n, context)
      )
        return n;
    }
    return -1;
  }

  /** Own context, or global and of the same VPID (SDM vol. 3A §5.10.2.4). */
  private usable(entry: number, context: number): boolean {
    const own = this.contexts[entry] as number;
    if (own === context) return true;
    return this.isGlobal(entry) && own >>> 12 === context >>> 12;
  }

  private isGlobal(entry: number): boolean {
    return ((this.rights[entry] as number) & PageRight.Global) !== 0;
  }

  enter(lo: number, hi: number, context: number, second: number, physical: number, rights: number): void {
    if (!this.caching.keeps) return;
    const set = this.set(lo, hi);
    let entry = this.find(lo, hi, context, second);
    if (entry < 0) {
      const way = this.next[set / WAYS] as number;
      this.next[set / WAYS] = (way + 1) % WAYS;
      entry = set + way;
    }
    this.occupied = true;
    if (context >>> 12 !== 0) this.hasVpids = true;
    this.tagLow[entry] = (lo & -PAGE_SIZE) | VALID;
    this.tagHigh[entry] = hi;
    this.contexts[entry] = context;
    this.seconds[entry] = second;
    this.physical[entry] = physical;
    this.rights[entry] = rights;
  }

  /**
   * Forgets what translates `hi`:`lo` in `context`, global translations only if `globals`, and the
   * paging structures of the context (INVLPG, INVPCID).
   */
  invalidatePage(lo: number, hi: number, context: number, globals: boolean): void {
    this.structures.forget((n) => this.structures.contexts[n] === context);
    this.invalidate((n) => {
      const covered = globals ? this.usable(n, context) : this.contexts[n] === context && !this.isGlobal(n);
      return covered && this.isWithin(n, lo, hi);
    });
  }

  /** Forgets what one second-level translation has for `hi`:`lo` in `context` (SDM §31.4.3.1, EPT violations). */
  invalidateCombinedPage(lo: number, hi: number, context: number, second: number): void {
    this.structures.forget((n) => this.structures.seconds[n] === second);
    this.invalidate((n) => this.seconds[n] === second && this.usable(n, context) && this.isWithin(n, lo, hi));
  }

  /** Whether `hi`:`lo` is in the page an entry was made from, which may be larger than 4 KBytes. */
  private isWithin(n: number, lo: number, hi: number): boolean {
    const rights = this.rights[n] as number;
    let mask = -PAGE_SIZE;
    if ((rights & PageRight.Huge) !== 0) mask = -0x4000_0000;
    else if ((rights & PageRight.Large) !== 0) mask = -0x20_0000;
    return this.tagHigh[n] === hi && ((this.tagLow[n] as number) & mask) === (lo & mask);
  }

  /** Forgets what translates `hi`:`lo` for a VPID, under every PCID (INVVPID of an individual address). */
  invalidateVpidPage(lo: number, hi: number, vpid: number): void {
    this.structures.forget((n) => (this.structures.contexts[n] as number) >>> 12 === vpid);
    this.invalidate((n) => this.vpidOf(n) === vpid && this.isWithin(n, lo, hi));
  }

  /** Forgets every VPID but 0000H. */
  invalidateAllVpids(): void {
    this.structures.forget((n) => (this.structures.contexts[n] as number) >>> 12 !== 0);
    this.invalidate((n) => this.vpidOf(n) !== 0);
  }

  /** Forgets one context; global translations only if `globals`. */
  invalidateContext(context: number, globals: boolean): void {
    this.structures.forget((n) => this.structures.contexts[n] === context);
    this.invalidate((n) => this.contexts[n] === context && (globals || !this.isGlobal(n)));
  }

  /** Forgets all contexts of a VPID; global translations only if `globals`. */
  invalidateVpid(vpid: number, globals: boolean): void {
    if (vpid === 0 && globals && !this.hasVpids) {
      this.invalidateAll();
      return;
    }
    this.structures.forget((n) => (this.structures.contexts[n] as number) >>> 12 === vpid);
    this.invalidate((n) => this.vpidOf(n) === vpid && (globals || !this.isGlobal(n)));
  }

  /** Forgets the combined mappings of one second-level translation (INVEPT of a single context). */
  invalidateSecond(second: number): void {
    this.structures.forget((n) => this.structures.seconds[n] === second);
    this.invalidate((n) => this.seconds[n] === second);
  }

  /** Forgets all combined mappings (INVEPT of all contexts). */
  invalidateCombined(): void {
    this.structures.forget((n) => this.structures.seconds[n] !== LINEAR);
    this.invalidate((n) => this.seconds[n] !== LINEAR);
  }

  /** Forgets the combined mappings of a VPID (EPTP switching without VPIDs). */
  invalidateCombinedVpid(vpid: number): void {
    const { contexts, seconds } = this.structures;
    this.structures.forget((n) => seconds[n] !== LINEAR && (contexts[n] as number) >>> 12 === vpid);
    this.invalidate((n) => this.seconds[n] !== LINEAR && this.vpidOf(n) === vpid);
  }

  invalidateAll(): void {
    this.structures.forgetAll();
    if (!this.occupied) return;
    this.tagLow.fill(0);
    this.occupied = false;
    this.hasVpids = false;
  }

  private vpidOf(entry: number): number {
    return (this.contexts[entry] as number) >>> 12;
  }

  private invalidate(covers: (entry: number) => boolean): void {
    if (!this.occupied) return;
    for (let n = 0; n < ENTRIES; n++) if (this.tagLow[n] !== 0 && covers(n)) this.tagLow[n] = 0;
  }
}
