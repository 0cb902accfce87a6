/**
 * Guest-physical mappings (SDM §31.4.1, §31.4.2): what EPT walks found, page by page, tagged with the
 * address of the first EPT structure alone, and kept until an invalidation that covers them.
 */
import { StructureCache } from '../../cpu/structure-cache.ts';
import { EPT_WALK } from './ept-walk.ts';
import { SUB_PAGE_VECTOR, vectorAllows } from './sub-page-permissions.ts';

const ENTRIES = 1024;
const EMPTY = -1;

export class GuestPhysicalMappings {
  private readonly pages = new Float64Array(ENTRIES).fill(EMPTY);
  private readonly tags = new Float64Array(ENTRIES);
  private readonly physical = new Float64Array(ENTRIES);
  private readonly all = new Int32Array(ENTRIES);
  private readonly upper = new Int32Array(ENTRIES);
  private readonly low = new Int32Array(ENTRIES);
  private readonly high = new Int32Array(ENTRIES);
  private readonly level = new Uint8Array(ENTRIES);
  private readonly apicAccess = new Uint8Array(ENTRIES);
  /** Sub-page vectors, and which pages have one. */
  private readonly hasVector = new Uint8Array(ENTRIES);
  private readonly vectorLow = new Int32Array(ENTRIES);
  private readonly vectorHigh = new Int32Array(ENTRIES);
  private occupied = false;
  /** EPT paging-structure caches; the second-level tag is that of the mappings. */
  readonly structures = new StructureCache();

  private place(page: number): number {
    return (page ^ Math.floor(page / ENTRIES)) & (ENTRIES - 1);
  }

  /** Makes the mapping of page number `page` the last walk, as far as it was kept; false if there is none. */
  recall(page: number, tag: number): boolean {
    const n = this.place(page);
    if (this.pages[n] !== page || this.tags[n] !== tag) return false;
    EPT_WALK.physical = this.physical[n] as number;
    EPT_WALK.all = this.all[n] as number;
    EPT_WALK.upper = this.upper[n] as number;
    EPT_WALK.low = this.low[n] as number;
    EPT_WALK.high = this.high[n] as number;
    EPT_WALK.level = this.level[n] as number;
    EPT_WALK.isApicAccess = this.apicAccess[n] === 1;
    EPT_WALK.count = 0;
    return true;
  }

  /** Keeps the last walk, which was for a byte of page number `page`. */
  keep(page: number, tag: number): void {
    const n = this.place(page);
    this.occupied = true;
    this.pages[n] = page;
    this.tags[n] = tag;
    // Of the page, whichever byte was walked for.
    this.physical[n] = Math.floor(EPT_WALK.physical / 0x1000) * 0x1000;
    this.all[n] = EPT_WALK.all;
    this.upper[n] = EPT_WALK.upper;
    this.low[n] = EPT_WALK.low;
    this.high[n] = EPT_WALK.high;
    this.level[n] = EPT_WALK.level;
    this.apicAccess[n] = EPT_WALK.isApicAccess ? 1 : 0;
    this.hasVector[n] = 0;
  }

  /** Keeps the sub-page vector of the last look-up for page number `page`, which was kept. */
  keepVector(page: number): void {
    const n = this.place(page);
    this.hasVector[n] = 1;
    this.vectorLow[n] = SUB_PAGE_VECTOR.low;
    this.vectorHigh[n] = SUB_PAGE_VECTOR.high;
  }

  /** Whether the mapping of page number `page`, which was recalled, has a vector that lets `lo` be written. */
  vectorAllows(page: number, lo: number): boolean {
    const n = this.place(page);
    return (
      this.hasVector[n] === 1 && vectorAllows(this.vectorLow[n] as number, this.vectorHigh[n] as number, lo)
    );
  }

  /** Forgets what translates page number `page`, and the structures on the way to it. */
  forgetPage(page: number, tag: number): void {
    this.structures.forget((m) => this.structures.seconds[m] === tag);
    const n = this.place(page);
    if (this.pages[n] === page && this.tags[n] === tag) this.pages[n] = EMPTY;
  }

  /** Forgets the mappings of one first structure. */
  forgetTag(tag: number): void {
    this.structures.forget((n) => this.structures.seconds[n] === tag);
    if (!this.occupied) return;
    for (let n = 0; n < ENTRIES; n++) if (this.tags[n] === tag) this.pages[n] = EMPTY;
  }

  forgetAll(): void {
    this.structures.forgetAll();
    if (!this.occupied) return;
    this.occupied = false;
    this.pages.fill(EMPTY);
  }
}
