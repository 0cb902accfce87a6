/**
 * Memory types (SDM vol. 3A §14.12.3, Table 14-7; SDM §31.3.7): which one PAT gives a page, and what it
 * makes of that of the range or of second-level translation. Nothing here depends on them; they can be asked.
 */
import type { Processor } from './processor.ts';
import { CR0, Register } from './registers.ts';
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

/** The type that PAT gives a page found by `probe`; WB without paging. */
export function patType(cpu: Processor, probe: TranslationProbe): MemoryTypeName {
  const entry = probe.entries.findLast(({ structure }) => structure === 'paging');
  if (entry === undefined) return 'WB';
  const large = (probe.rights & (PageRight.Large | PageRight.Huge)) !== 0;
  const pat = (entry.value >> (large ? 12n : 7n)) & 1n;
  const index = (pat << 2n) | ((entry.value >> 3n) & 3n);
  return NAMES[Number((cpu.read('IA32_PAT') >> (8n * index)) & 7n)] as MemoryTypeName;
}

/** Memory type of a page that `probe` found by second-level translation, under the present CR0.CD. */
export function secondLevelType(cpu: Processor, probe: TranslationProbe): MemoryTypeName {
  if (((cpu.words[2 * Register.CR0] as number) & (1 << CR0.CD)) !== 0) return 'UC';
  const field = (probe.rights >> MEMORY_TYPE_SHIFT) & 0xf;
  const type = NAMES[field & 7] as keyof typeof EFFECTIVE;
  return (field & 8) !== 0 ? type : EFFECTIVE[type][patType(cpu, probe)];
}
