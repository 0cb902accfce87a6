/**
 * The walk through EPT paging structures (SDM §31.3.2), in the order of §31.3.3.3: each entry is looked
 * at for being present and well configured; what it allows is put together and judged by the caller.
 */
import { addressOf, indexAt } from '../../cpu/page-walk.ts';
import type { PhysicalMemory } from '../../cpu/physical-memory.ts';
import type { StructureCache } from '../../cpu/structure-cache.ts';
import { EptBit, type EptRules, isMisconfigured, isPresent, mapsPage } from './ept-entry.ts';

export const EptWalk = { Mapped: 0, NotPresent: 1, Misconfigured: 2, OutOfReach: 3 } as const;
export type EptWalk = (typeof EptWalk)[keyof typeof EptWalk];

const PAGE_FRAME = -0x1000;
const FOUR_LEVEL_HIGH = 0xf_0000;
const OFFSETS = [0, 0xfff, 0x1f_ffff, 0x3fff_ffff] as const;
const MAX_LEVELS = 5;

/** The last walk; nobody keeps it. */
export const EPT_WALK = {
  /** Bits of {@link EptBit} that all entries used have: Read, Write, Execute, UserExecute. */
  all: 0,
  /** The same of the entries that do not map the page. */
  upper: 0,
  /** The last entry read: that which maps the page, is not present or is misconfigured. */
  low: 0,
  high: 0,
  level: 0,
  /** Physical address of the byte translated, if it is mapped. */
  physical: 0,
  /** The page was known as the APIC-access page when it was walked for. */
  isApicAccess: false,
  /** Entries used, from the first structure to the last, and where they are. */
  count: 0,
  /** Whether the walk began with a cached structure; `count` and `at` have the rest. */
  usedCache: false,
  at: new Float64Array(MAX_LEVELS),
};

/** Context of cached EPT structures: they know no VPID. */
const CONTEXT = 0;
const RIGHTS = EptBit.Read | EptBit.Write | EptBit.Execute | EptBit.UserExecute;
/** In the rights of a cached structure: the level of its entries. */
const LEVEL_SHIFT = 12;

/**
 * Walks for the guest-physical address whose halves are `hi`:`lo`, with the structures cached under
 * `tag` if there are any. Nothing is changed in memory.
 */
export function walkEpt(
  memory: PhysicalMemory,
  rules: EptRules,
  lo: number,
  hi: number,
  structures?: StructureCache,
  tag = 0,
): EptWalk {
  const walk = EPT_WALK;
  walk.usedCache = false;
  walk.all = -1;
  walk.upper = -1;
  walk.count = 0;
  if (rules.levels === 4 && (hi & FOUR_LEVEL_HIGH) !== 0) return EptWalk.OutOfReach;
  let table = rules.root;
  let start = rules.levels;
  if (structures !== undefined) {
    for (let level = 2; level <= rules.levels; level++) {
      const n = structures.find(level, lo, hi, CONTEXT, tag);
      if (n < 0) continue;
      const known = structures.rights[n] as number;
      walk.usedCache = true;
      walk.all = known & RIGHTS;
      walk.upper = known & RIGHTS;
      table = structures.tables[n] as number;
      start = known >> LEVEL_SHIFT;
      break;
    }
  }
  for (let level = start; ; level--) {
    const at = table + 8 * indexAt(level, lo, hi);
    const low = memory.read32(at) | 0;
    const high = memory.read32(at + 4) | 0;
    walk.low = low;
    walk.high = high;
    walk.level = level;
    if (!isPresent(low, rules)) return EptWalk.NotPresent;
    if (isMisconfigured(low, high, level, rules)) return EptWalk.Misconfigured;
    walk.at[walk.count++] = at;
    walk.all &= low;
    if (mapsPage(low, level)) {
      const offset = OFFSETS[level] as number;
      walk.physical = addressOf(low, high, PAGE_FRAME & ~offset) + (lo & offset);
      return EptWalk.Mapped;
    }
    walk.upper &= low;
    table = addressOf(low, high, PAGE_FRAME);
    structures?.enter(
      level,
      lo,
      hi,
      CONTEXT,
      tag,
      table,
      (walk.upper & RIGHTS) | ((level - 1) << LEVEL_SHIFT),
    );
  }
}

/** Whether the last walk met an entry without the accessed flag or, if `writes`, a page without the dirty flag. */
export function lacksFlags(memory: PhysicalMemory, writes: boolean): boolean {
  const { at, count, low } = EPT_WALK;
  if (writes && (low & EptBit.Dirty) === 0) return true;
  if ((low & EptBit.Accessed) === 0) return true;
  for (let n = 0; n < count - 1; n++) {
    if ((memory.read32(at[n] as number) & EptBit.Accessed) === 0) return true;
  }
  return false;
}

/** Sets the accessed flags of the last walk and, if `writes`, the dirty flag of its page. */
export function setEptFlags(memory: PhysicalMemory, writes: boolean): void {
  const { at, count } = EPT_WALK;
  for (let n = 0; n < count; n++) {
    const flags = writes && n === count - 1 ? EptBit.Accessed | EptBit.Dirty : EptBit.Accessed;
    const address = at[n] as number;
    const entry = memory.read32(address);
    if ((entry & flags) !== flags) memory.write32(address, (entry | flags) >>> 0);
  }
}
