/**
 * Memory types (SDM vol. 3A §14.12.3, Table 14-7; SDM §31.3.7): which one PAT gives a page, and what it
 * makes of that of the range or of second-level translation. Nothing here depends on them; they can be asked.
 */
import { rangeType } from './memory-type-ranges.ts';
import { isCovered, RESTART } from './page-walk.ts';
import type { Processor } from './processor.ts';
import { CR0, CR4, EFER, Register } from './registers.ts';
import { MEMORY_TYPE_SHIFT, PageRight } from './translation-cache.ts';
import type { TranslationProbe } from './translation-probe.ts';

export type MemoryTypeName = 'UC' | 'UC-' | 'WC' | 'WT' | 'WP' | 'WB';

const NAMES: Readonly<Record<number, MemoryTypeName>> = {
  0: 'UC',
  1: 'WC',
  4: 'WT',
  5: 'WP',
  6: 'WB',
  7: 'UC-',
};

/** By the type of the range or of second-level translation, and by that of PAT. */
const EFFECTIVE = {
  UC: { UC: 'UC', 'UC-': 'UC', WC: 'WC', WT: 'UC', WP: 'UC', WB: 'UC' },
  WC: { UC: 'UC', 'UC-': 'WC', WC: 'WC', WT: 'UC', WP: 'UC', WB: 'WC' },
  WT: { UC: 'UC', 'UC-': 'UC', WC: 'WC', WT: 'WT', WP: 'WP', WB: 'WT' },
  WP: { UC: 'UC', 'UC-': 'WC', WC: 'WC', WT: 'UC', WP: 'WP', WB: 'WP' },
  WB: { UC: 'UC', 'UC-': 'UC', WC: 'WC', WT: 'WT', WP: 'WP', WB: 'WB' },
} as const satisfies Record<Exclude<MemoryTypeName, 'UC-'>, Record<MemoryTypeName, MemoryTypeName>>;

type RangeType = keyof typeof EFFECTIVE;

/** PAT type of an index: PAT, PCD and PWT. */
function patEntry(cpu: Processor, index: bigint): MemoryTypeName {
  return NAMES[Number((cpu.read('IA32_PAT') >> (8n * index)) & 7n)] as MemoryTypeName;
}

/** Of bits 4:3 of what references a structure; PAT counts as 0 there. */
const structurePat = (cpu: Processor, reference: bigint) => patEntry(cpu, (reference >> 3n) & 3n);

/** The type that PAT gives a page found by `probe`; WB without paging. */
function pagePat(cpu: Processor, probe: TranslationProbe): MemoryTypeName {
  const entry = probe.entries.findLast(({ structure }) => structure === 'paging');
  if (entry === undefined) return 'WB';
  const large = (probe.rights & (PageRight.Large | PageRight.Huge)) !== 0;
  const pat = (entry.value >> (large ? 12n : 7n)) & 1n;
  return patEntry(cpu, (pat << 2n) | ((entry.value >> 3n) & 3n));
}

const isCachingDisabled = (cpu: Processor) => ((cpu.words[2 * Register.CR0] as number) & (1 << CR0.CD)) !== 0;

/** Effective type at `physical`, without second-level translation. */
function withRanges(cpu: Processor, physical: number, pat: MemoryTypeName): MemoryTypeName {
  if (isCachingDisabled(cpu)) return 'UC';
  return EFFECTIVE[NAMES[rangeType(cpu, physical)] as RangeType][pat];
}

/** Effective type under second-level translation; `field`: bits 2:0 its type, bit 3 whether that overrides PAT. */
function withSecondLevel(cpu: Processor, field: number, pat: MemoryTypeName): MemoryTypeName {
  if (isCachingDisabled(cpu)) return 'UC';
  const type = NAMES[field & 7] as RangeType;
  return (field & 8) !== 0 ? type : EFFECTIVE[type][pat];
}

/** Memory type of the page that `probe` found, under the present settings; undefined if there is none. */
export function pageMemoryType(cpu: Processor, probe: TranslationProbe): MemoryTypeName | undefined {
  const { physical, rights } = probe;
  if (typeof physical === 'string') return undefined;
  const pat = pagePat(cpu, probe);
  if (cpu.guestPhysical === undefined) return withRanges(cpu, physical, pat);
  return withSecondLevel(cpu, (rights >> MEMORY_TYPE_SHIFT) & 0xf, pat);
}

/** What references the first structure that a walk for `hi`:`lo` uses: CR3, a PDPTE register, or the HLAT pointer. */
function firstReference(cpu: Processor, lo: number, isHlat: boolean): bigint {
  if (isHlat) return BigInt(cpu.guestPhysical?.hlat?.caching ?? 0);
  const cr4 = cpu.words[2 * Register.CR4] as number;
  const longMode = ((cpu.words[2 * Register.IA32_EFER] as number) & (1 << EFER.LMA)) !== 0;
  if ((cr4 & (1 << CR4.PAE)) !== 0 && !longMode)
    return BigInt(cpu.words[2 * (Register.PDPTE0 + (lo >>> 30))] as number);
  return (cr4 & (1 << CR4.PCIDE)) !== 0 ? 0n : cpu.read('CR3');
}

/**
 * Memory types of the accesses to the entries that `probe` read for `hi`:`lo` (SDM §31.3.7.1, §31.3.7.2,
 * vol. 3A §5.9.2): by what references the entry, and the range or second-level translation it lies in.
 */
export function entryMemoryTypes(
  cpu: Processor,
  probe: TranslationProbe,
  lo: number,
  hi: number,
): MemoryTypeName[] {
  const second = cpu.guestPhysical;
  let isHlat = second?.hlat !== undefined && isCovered(second.hlat, lo, hi);
  let reference = firstReference(cpu, lo, isHlat);
  let last = 0n;
  return probe.entries.map(({ structure, address, value }) => {
    if (structure === 'EPT') {
      last = value;
      return isCachingDisabled(cpu) ? 'UC' : (NAMES[second?.structureType ?? 0] as MemoryTypeName);
    }
    if (structure === 'SPP') return NAMES[second?.subPageTableType ?? 0] as MemoryTypeName;
    const pat = structurePat(cpu, reference);
    const restarts = isHlat && (value & BigInt(RESTART)) !== 0n;
    if (restarts) isHlat = false;
    reference = restarts ? firstReference(cpu, lo, false) : value;
    return second === undefined
      ? withRanges(cpu, address, pat)
      : withSecondLevel(cpu, Number((last >> 3n) & 0xfn), pat);
  });
}
