/**
 * Checks on the page-directory-pointer-table entries of a guest that will use PAE paging (SDM
 * §29.3.1.6): those in memory without EPT, the fields with it. In an entry that is not present, only
 * bit 0 counts.
 */
import { mask } from '../../../bits/u64.ts';
import { CR4 } from '../../../cpu/registers.ts';
import { checkList, checksOf, clear, condition, invalidGuestState, off, on } from '../check.ts';
import type { CheckContext } from '../check-context.ts';
import { PAE_PAGING } from './guest-conditions.ts';

const check = checksOf('29.3.1.6', invalidGuestState(2));

const PRESENT = 1n;

function reservedBits(physicalAddressBits: number): bigint {
  return mask(63, physicalAddressBits) | mask(8, 5) | mask(2, 1);
}

function isValid(pdpte: bigint, physicalAddressBits: number): boolean {
  return (pdpte & PRESENT) === 0n || (pdpte & reservedBits(physicalAddressBits)) === 0n;
}

/** Where this is not so, the manual leaves it to the processor; here the entries in use stay unexamined. */
const PDPTES_CHANGE = condition(
  'the processor does not use PAE paging with the same CR3 already',
  ['guestCr3'],
  (c) =>
    !c.ask(c.environment.paePaging(), 'whether the processor uses PAE paging', false) ||
    c.ask(c.environment.cr3(), 'CR3', 0n) !== c.value('guestCr3'),
);

const PDPTES_IN_MEMORY = [...PAE_PAGING, off('proc2.enableEpt'), PDPTES_CHANGE];
const PDPTES_IN_FIELDS = [...PAE_PAGING, on('proc2.enableEpt')];

function pdpteInMemory(c: CheckContext, index: number): bigint {
  const address = ((c.low('guestCr3') & 0xffff_ffe0) >>> 0) + 8 * index;
  return c.ask(c.environment.read64(address), 'memory at guest CR3', 0n);
}

const widthWithoutEpt = (c: CheckContext) =>
  c.features.physicalAddressBits - c.ask(c.environment.tmeReduction(), 'IA32_TME_ACTIVATE', 0);

const ENTRIES = [0, 1, 2, 3] as const;

export const GUEST_PDPTES = checkList('29.3.1.6', [
  ...ENTRIES.map((index) =>
    check(`guest.pdpte${index}.memory`, {
      rule: `PDPTE ${index} of the table at guest CR3 is not present or has no reserved bit set.`,
      when: PDPTES_IN_MEMORY,
      fields: ['guestCr3'],
      holds: (c) => isValid(pdpteInMemory(c, index), widthWithoutEpt(c)),
      // Other than in memory, only another paging mode helps.
      fix: (c) => clear(c, 'guestCr4', 1n << BigInt(CR4.PAE)),
      looksOutside: 'memory',
    }),
  ),
  ...ENTRIES.map((index) => {
    const field = `guestPdpte${index}` as const;
    return check(`guest.pdpte${index}.field`, {
      rule: `Guest PDPTE${index} is not present or has no reserved bit set.`,
      when: PDPTES_IN_FIELDS,
      fields: [field],
      holds: (c) => isValid(c.value(field), c.features.physicalAddressBits),
      fix: (c) => clear(c, field, reservedBits(c.features.physicalAddressBits)),
    });
  }),
]);
