/**
 * Second-level address translation as the processor knows it: while it has a
 * {@link GuestPhysicalTranslation}, the addresses that paging works with and results in are
 * guest-physical, and somebody else turns them into physical addresses.
 */

import type { UsedEntry } from './page-walk.ts';

/** The linear access for which guest-physical addresses are translated; whoever walks fills it in. */
export const LINEAR_ACCESS = {
  lo: 0,
  hi: 0,
  /** Accesses that are wanted of the page, bits of `Access` shifted by their class. */
  need: 0,
  /** Rights of the page as paging gives them, bits of `PageRight`; known once the page is. */
  rights: 0,
  /** Whether every paging-structure entry used lies where paging may write (SDM §31.3.3.2). */
  structuresWritable: true,
};

/** What a translation found. */
export interface GuestPhysicalPage {
  /** Physical address: of a page, or of a paging-structure entry. */
  physical: number;
  /** Kinds of access, bits of `Access`, that must ask again: not allowed, or something would have to be noted. */
  denied: number;
  /** The same of supervisor-mode shadow-stack accesses. */
  shadowStackDenied: number;
  /** Whether parts of the page have rights of their own, so that every write asks. */
  hasSubPages: boolean;
  /** Whether accesses to the page are known to be ones to the APIC-access page. */
  isApicAccess: boolean;
  /** Memory type of the page: bits 2:0 the type, bit 3 whether it overrides that of paging. */
  memoryType: number;
}

/** What a walk that changes nothing finds. */
export interface ProbedPage extends GuestPhysicalPage {
  /** Flags that an access would have to set: none is, if there are no such flags. */
  readonly lacksAccessed: boolean;
  readonly lacksDirty: boolean;
  /** Whether a write to the part of the page around the address is allowed by rights of its own. */
  readonly allowsSubPage: boolean;
}

/** Paging structures of the hypervisor's own for some linear addresses: HLAT paging (SDM vol. 3A §5.5.1). */
export interface HlatPaging {
  /** Guest-physical address of the first structure. */
  readonly root: number;
  /** It is used for addresses whose this many uppermost bits are all 1. */
  readonly prefixSize: number;
  /** PWT and PCD of accesses to the first structure, bits 4:3. */
  readonly caching: number;
}

/** All answer false after raising what takes the place of the access. */
export interface GuestPhysicalTranslation {
  /** Tag of the mappings that are made now, other than 0. */
  readonly tag: number;
  /** HLAT paging, if there is any. */
  readonly hlat: HlatPaging | undefined;
  /** Memory type of accesses to the second-level structures. */
  readonly structureType: number;
  /** … and to tables of rights of parts of pages. */
  readonly subPageTableType: number;
  /** What the last answer of true found. */
  readonly found: GuestPhysicalPage;
  /** Translates the address of a paging-structure entry; `writes`: to set accessed and dirty flags. */
  entry(address: number, writes: boolean): boolean;
  /** Translates the address from which PDPTEs are loaded (SDM vol. 3A §5.4.1). */
  pdptes(address: number): boolean;
  /** Translates the address that {@link LINEAR_ACCESS} comes to; `access`: bits of `Access`. */
  page(address: number, access: number): boolean;
  /**
   * Of a walk that changes nothing and uses nothing cached: the physical address of the paging-structure
   * entry at `address`, or −1 if it may not be accessed; entries used are added to `entries`.
   */
  probeEntry(address: number, entries: UsedEntry[]): number;
  /** The same of the address that {@link LINEAR_ACCESS} comes to; undefined if it is not mapped. */
  probePage(address: number, entries: UsedEntry[]): ProbedPage | undefined;
  /** Forgets what is cached of guest-physical addresses alone. */
  forgetMappings(): void;
}
