/**
 * Paging-structure caches (SDM vol. 3A §5.10.3, SDM §31.4.1): for the upper bits of an address, where
 * the structure is that an entry references, and what the entries up to it allow. One for each level.
 */
const PER_LEVEL = 32;
/** Levels of the entries cached: 2 (page directory) to 5. */
const LOWEST = 2;
const LEVELS = 4;
const SIZE = PER_LEVEL * LEVELS;
/** Bits of the address that an entry of a level goes by: of the lower half, and of the upper one. */
const LOW_MASKS = [0, 0, -0x20_0000, -0x4000_0000, 0, 0] as const;
const HIGH_MASKS = [0, 0, -1, -1, -0x80, -0x1_0000] as const;

export class StructureCache {
  private readonly keysLow = new Int32Array(SIZE);
  private readonly keysHigh = new Int32Array(SIZE);
  private readonly valid = new Uint8Array(SIZE);
  private occupied = false;
  /** Tags of an entry: the context (VPID and PCID), and that of the second-level translation. */
  readonly contexts = new Int32Array(SIZE);
  readonly seconds = new Float64Array(SIZE);
  /** Address of the structure, and what the entries up to it allow, as whoever walks says it. */
  readonly tables = new Float64Array(SIZE);
  readonly rights = new Int32Array(SIZE);

  private place(level: number, lo: number, hi: number): number {
    const index = level === 2 ? lo >>> 21 : level === 3 ? lo >>> 30 : level === 4 ? hi >>> 7 : hi >>> 16;
    return (level - LOWEST) * PER_LEVEL + (index & (PER_LEVEL - 1));
  }

  /** Entry made from an entry at `level` on the way to `hi`:`lo`, or −1. */
  find(level: number, lo: number, hi: number, context: number, second: number): number {
    const n = this.place(level, lo, hi);
    return this.valid[n] === 1 &&
      this.contexts[n] === context &&
      this.seconds[n] === second &&
      this.keysLow[n] === (lo & (LOW_MASKS[level] as number)) &&
      this.keysHigh[n] === (hi & (HIGH_MASKS[level] as number))
      ? n
      : -1;
  }

  enter(
    level: number,
    lo: number,
    hi: number,
    context: number,
    second: number,
    table: number,
    rights: number,
  ): void {
    const n = this.place(level, lo, hi);
    this.occupied = true;
    this.valid[n] = 1;
    this.keysLow[n] = lo & (LOW_MASKS[level] as number);
    this.keysHigh[n] = hi & (HIGH_MASKS[level] as number);
    this.contexts[n] = context;
    this.seconds[n] = second;
    this.tables[n] = table;
    this.rights[n] = rights;
  }

  /** Forgets the entries that `covers` says. */
  forget(covers: (entry: number) => boolean): void {
    if (!this.occupied) return;
    for (let n = 0; n < SIZE; n++) if (this.valid[n] === 1 && covers(n)) this.valid[n] = 0;
  }

  forgetAll(): void {
    if (!this.occupied) return;
    this.occupied = false;
    this.valid.fill(0);
  }
}
