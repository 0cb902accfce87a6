/**
 * What a walk from the first structure gives now, without any effect: for those who compare it with what
 * a processor has cached, or want to see how an address is translated.
 */
import { LINEAR_ACCESS } from './guest-physical.ts';
import { PROBE, pagingEnabled, type UsedEntry, WALK, walkPaging } from './page-walk.ts';
import { currentContext, withFound } from './paging.ts';
import type { Processor } from './processor.ts';
import { PageRight } from './translation-cache.ts';

const PAGE_SIZE = 0x1000;

export interface TranslationProbe {
  /** Physical address of the page, or why there is none. */
  readonly physical: number | 'page fault' | 'not mapped by second-level translation';
  /** Rights as `TranslationCache` has them; the dirty flag of paging counts as set. */
  readonly rights: number;
  /** Parts of the page may have rights of their own. */
  readonly hasSubPages: boolean;
  /** Whether that around the address may be written by them. */
  readonly allowsSubPage: boolean;
  /** Flags of the second-level translation that an access, or a write, would have to set. */
  readonly lacksAccessed: boolean;
  readonly lacksDirty: boolean;
  readonly entries: readonly UsedEntry[];
}

/** Translates the linear address `hi`:`lo` as paging and second-level translation are in memory now. */
export function probeTranslation(cpu: Processor, lo: number, hi: number): TranslationProbe {
  const entries: UsedEntry[] = [];
  PROBE.entries = entries;
  try {
    return probe(cpu, lo, hi, entries);
  } finally {
    PROBE.entries = undefined;
  }
}

function probe(cpu: Processor, lo: number, hi: number, entries: UsedEntry[]): TranslationProbe {
  const none = {
    rights: 0,
    hasSubPages: false,
    allowsSubPage: false,
    lacksAccessed: false,
    lacksDirty: false,
    entries,
  };
  let rights: number = PageRight.Unpaged;
  let page = (lo & -PAGE_SIZE) >>> 0;
  LINEAR_ACCESS.structuresWritable = true;
  if (pagingEnabled(cpu)) {
    const result = walkPaging(cpu, lo, hi, false, currentContext(cpu));
    if (result === 'fault') return { ...none, physical: 'page fault' };
    if (result === 'raised') return { ...none, physical: 'not mapped by second-level translation' };
    rights = WALK.rights | PageRight.Dirty;
    page = WALK.physical;
  }
  const second = cpu.guestPhysical;
  if (second === undefined) return { ...none, physical: page, rights };
  LINEAR_ACCESS.rights = rights;
  const found = second.probePage(page + (lo & (PAGE_SIZE - 1)), entries);
  if (found === undefined) return { ...none, physical: 'not mapped by second-level translation' };
  return {
    physical: found.physical,
    rights: withFound(rights, found),
    hasSubPages: found.hasSubPages,
    allowsSubPage: found.allowsSubPage,
    lacksAccessed: found.lacksAccessed,
    lacksDirty: found.lacksDirty,
    entries,
  };
}
