/**
 * The walk through the paging structures (SDM vol. 3A §5.3 to §5.5): 32-bit, PAE, 4-level and 5-level
 * paging as one table of levels. What it finds is left in {@link WALK}, which nobody keeps. With
 * second-level translation the addresses of entries are guest-physical.
 */
import { type HlatPaging, LINEAR_ACCESS } from './guest-physical.ts';
import type { Processor } from './processor.ts';
import { CR0, CR4, EFER, Register } from './registers.ts';
import type { StructureCache } from './structure-cache.ts';
import { KEY_SHIFT, LINEAR, PageRight } from './translation-cache.ts';

const CR0_LOW = 2 * Register.CR0;
const CR3_LOW = 2 * Register.CR3;
const CR4_LOW = 2 * Register.CR4;
const EFER_LOW = 2 * Register.IA32_EFER;
const PDPTE0 = 2 * Register.PDPTE0;
const TWO_32 = 0x1_0000_0000;
const PAGE_FRAME = -0x1000;

/** Bits of a paging-structure entry. */
const P = 1;
const RW = 1 << 1;
const US = 1 << 2;
const A = 1 << 5;
const D = 1 << 6;
const PS = 1 << 7;
const G = 1 << 8;
/** In HLAT paging: translation starts again, with ordinary paging. */
export const RESTART = 1 << 11;
/** Bit 63, in the upper half. */
const XD = 1 << 31;

/** Page-fault error code (SDM vol. 3A Figure 5-12). */
export const PageFault = { P: 1, WR: 2, US: 4, RSVD: 8, ID: 16, PK: 32, SS: 64, HLAT: 128 } as const;

/**
 * The last walk: the page and its rights, or the error-code bits P and RSVD of the fault; whether it was
 * HLAT paging, and whether it began in the middle, with a cached structure.
 */
export const WALK = { physical: 0, rights: 0, error: 0, isHlat: false, usedCache: false };

/**
 * How far a walk got: the page was found; there is a page fault with `WALK.error`; or access to an
 * entry has raised something else.
 */
export type WalkResult = 'page' | 'fault' | 'raised';
/** … or an entry of HLAT paging says that ordinary paging is to be used. */
type Walk64Result = WalkResult | 'restart';

function fault(error: number): WalkResult {
  WALK.error = error;
  return 'fault';
}

/** Whether accesses may execute-disable pages: IA32_EFER.NXE. */
export function executeDisableEnabled(cpu: Processor): boolean {
  return ((cpu.i32[EFER_LOW] as number) & (1 << EFER.NXE)) !== 0;
}

/** Walks for the linear address `hi`:`lo` in `context`; sets accessed flags, and the dirty flag if `writes`. */
export function walkPaging(
  cpu: Processor,
  lo: number,
  hi: number,
  writes: boolean,
  context: number,
): WalkResult {
  const w = cpu.i32;
  WALK.usedCache = false;
  LINEAR_ACCESS.lo = lo;
  LINEAR_ACCESS.hi = hi;
  LINEAR_ACCESS.structuresWritable = true;
  WALK.isHlat = false;
  const cr4 = w[CR4_LOW] as number;
  if ((cr4 & (1 << CR4.PAE)) === 0) return walk32(cpu, lo, writes, context);
  const root = addressOf(w[CR3_LOW] as number, w[CR3_LOW + 1] as number, PAGE_FRAME);
  if (((w[EFER_LOW] as number) & (1 << EFER.LMA)) === 0) return walkPae(cpu, lo, writes, context);
  const top = (cr4 & (1 << CR4.LA57)) !== 0 ? 5 : 4;
  const hlat = cpu.guestPhysical?.hlat;
  if (hlat !== undefined && isCovered(hlat, lo, hi)) {
    WALK.isHlat = true;
    const result = walk64(cpu, lo, hi, writes, hlat.root, top, context);
    if (result !== 'restart') return result;
    WALK.isHlat = false;
    LINEAR_ACCESS.structuresWritable = true;
  }
  return walk64(cpu, lo, hi, writes, root, top, context) as WalkResult;
}

/** Whether HLAT paging is used for `hi`:`lo`. */
export function isCovered({ prefixSize }: HlatPaging, lo: number, hi: number): boolean {
  if (prefixSize === 0) return true;
  if (prefixSize <= 32) return hi >> (32 - prefixSize) === -1;
  return hi === -1 && lo >> (64 - prefixSize) === -1;
}

/** Physical address of an entry's frame: bits 51:12 of `hi`:`lo`, less what `mask` clears of the lower half. */
export function addressOf(lo: number, hi: number, mask: number): number {
  return (hi & 0xf_ffff) * TWO_32 + ((lo & mask) >>> 0);
}

/** Bits 51:32 of an entry that the physical-address width leaves reserved. */
function reservedHigh(cpu: Processor): number {
  const bits = cpu.features.physicalAddressBits;
  return bits >= 52 ? 0 : 0xf_ffff & ~(2 ** (bits - 32) - 1);
}

/** Index of the entry at `level` (1 = page table) of a structure of 512 entries. */
export function indexAt(level: number, lo: number, hi: number): number {
  switch (level) {
    case 1:
      return (lo >>> 12) & 0x1ff;
    case 2:
      return (lo >>> 21) & 0x1ff;
    case 3:
      return ((lo >>> 30) | (hi << 2)) & 0x1ff;
    case 4:
      return (hi >>> 7) & 0x1ff;
    default:
      return (hi >>> 16) & 0x1ff;
  }
}

/** An entry that a walk used. */
export interface UsedEntry {
  readonly structure: 'paging' | 'EPT' | 'SPP';
  /** Physical address. */
  readonly address: number;
  readonly value: bigint;
}

/** While it is defined, walks change nothing and use nothing that is cached: they note here what they read. */
export const PROBE: { entries: UsedEntry[] | undefined } = { entries: undefined };

/** Physical address of the entry at `at`, or −1 if access to it has raised something. */
function entryAddress(cpu: Processor, at: number): number {
  const second = cpu.guestPhysical;
  if (PROBE.entries !== undefined) return probedAddress(cpu, at, PROBE.entries);
  if (second === undefined) return at;
  return second.entry(at, false) ? second.found.physical : -1;
}

function probedAddress(cpu: Processor, at: number, entries: UsedEntry[]): number {
  const second = cpu.guestPhysical;
  const address = second === undefined ? at : second.probeEntry(at, entries);
  if (address >= 0) {
    const wide = ((cpu.i32[CR4_LOW] as number) & (1 << CR4.PAE)) !== 0;
    const value = wide ? cpu.memory.read64(address) : BigInt(cpu.memory.read32(address));
    entries.push({ structure: 'paging', address, value });
  }
  return address;
}

/** Sets the accessed and, at the leaf, the dirty flag of the entry at `at`; false if that has raised something. */
function setFlags(cpu: Processor, at: number, entry: number, flags: number): boolean {
  if ((entry & flags) === flags || PROBE.entries !== undefined) return true;
  const second = cpu.guestPhysical;
  let physical = at;
  if (second !== undefined) {
    if (!second.entry(at, true)) return false;
    physical = second.found.physical;
  }
  cpu.memory.write32(physical, (entry | flags) >>> 0);
  return true;
}

/**
 * What is known of a cached structure, beside RW and US: bits of its rights, and the level of its entries;
 * `Narrow`: they are those of 32-bit paging.
 */
const Known = {
  ExecuteDisable: 1 << 3,
  Hlat: 1 << 4,
  NotWritable: 1 << 5,
  LevelShift: 6,
  Narrow: 1 << 9,
} as const;

/** The cached structure that is nearest to the page, or −1. */
function findStructure(
  structures: StructureCache,
  lo: number,
  hi: number,
  top: number,
  context: number,
  second: number,
): number {
  for (let level = 2; level <= top; level++) {
    const n = structures.find(level, lo, hi, context, second);
    if (n < 0) continue;
    const known = structures.rights[n] as number;
    if ((known & Known.Narrow) === 0 && ((known & Known.Hlat) !== 0) === WALK.isHlat) return n;
  }
  return -1;
}

/** 4-level and 5-level paging, and the page directories of PAE paging: entries of 64 bits. */
function walk64(
  cpu: Processor,
  lo: number,
  hi: number,
  writes: boolean,
  root: number,
  top: number,
  context: number,
): Walk64Result {
  const { memory, translations } = cpu;
  const { structures } = translations;
  const second = cpu.guestPhysical?.tag ?? LINEAR;
  const nxe = executeDisableEnabled(cpu);
  const reserved = reservedHigh(cpu) | (nxe ? 0 : XD);
  // PAE paging reserves bits 62:52, which 4-level paging ignores (SDM vol. 3A Tables 5-9 to 5-11).
  const alwaysReserved = top === 2 ? 0x7ff0_0000 : 0;
  let rights = RW | US;
  let disabled = false;
  let table = root;
  let start = top;
  const keeps = translations.caching.keeps && PROBE.entries === undefined;
  const cached = keeps ? findStructure(structures, lo, hi, top, context, second) : -1;
  if (cached >= 0) {
    const known = structures.rights[cached] as number;
    WALK.usedCache = true;
    table = structures.tables[cached] as number;
    start = known >> Known.LevelShift;
    rights = known & (RW | US);
    disabled = (known & Known.ExecuteDisable) !== 0;
    if ((known & Known.NotWritable) !== 0) LINEAR_ACCESS.structuresWritable = false;
  }
  for (let level = start; ; level--) {
    const at = table + 8 * indexAt(level, lo, hi);
    const physical = entryAddress(cpu, at);
    if (physical < 0) return 'raised';
    const entry = memory.read32(physical) | 0;
    const high = memory.read32(physical + 4) | 0;
    if ((entry & P) === 0) return fault(0);
    const isPage = level === 1 || ((entry & PS) !== 0 && level <= 3);
    let wrong = (high & (reserved | alwaysReserved)) !== 0;
    if ((entry & PS) !== 0 && (level > 3 || (level === 3 && !cpu.features.gigabytePages))) wrong = true;
    if (isPage && level === 2) wrong ||= (entry & 0x1f_e000) !== 0;
    if (isPage && level === 3) wrong ||= (entry & 0x3fff_e000) !== 0;
    if (wrong) return fault(PageFault.P | PageFault.RSVD);
    if (WALK.isHlat && (entry & RESTART) !== 0) return 'restart';
    const above = rights;
    rights &= entry & (RW | US);
    disabled ||= (high & XD) !== 0;
    if (!isPage) {
      if (!setFlags(cpu, at, entry, A)) return 'raised';
      table = addressOf(entry, high, PAGE_FRAME);
      if (keeps) {
        const known =
          rights |
          (disabled ? Known.ExecuteDisable : 0) |
          (WALK.isHlat ? Known.Hlat : 0) |
          (LINEAR_ACCESS.structuresWritable ? 0 : Known.NotWritable) |
          ((level - 1) << Known.LevelShift);
        structures.enter(level, lo, hi, context, second, table, known);
      }
      continue;
    }
    const within = level === 1 ? 0 : level === 2 ? 0x1f_f000 : 0x3fff_f000;
    WALK.physical = addressOf(entry, high, PAGE_FRAME & ~within) + (lo & within);
    const key = top >= 4 ? (high >>> 27) & 15 : 0;
    const size = level === 1 ? 0 : level === 2 ? PageRight.Large : PageRight.Huge;
    return leaf(cpu, at, entry, above, disabled, size, key, writes);
  }
}

/** The entry that maps the page, and the RW and US of those above it: its flags are set only if the access will be allowed. */
function leaf(
  cpu: Processor,
  at: number,
  entry: number,
  above: number,
  disabled: boolean,
  size: number,
  key: number,
  writes: boolean,
): WalkResult {
  const rights = above & entry;
  const isShadowStack = (above & ~entry & RW) !== 0 && (entry & D) !== 0;
  WALK.rights =
    ((rights & RW) !== 0 ? PageRight.Write : 0) |
    ((rights & US) !== 0 ? PageRight.User : 0) |
    (disabled ? PageRight.ExecuteDisable : 0) |
    ((entry & D) !== 0 ? PageRight.Dirty : 0) |
    ((entry & G) !== 0 && ((cpu.i32[CR4_LOW] as number) & (1 << CR4.PGE)) !== 0 ? PageRight.Global : 0) |
    (isShadowStack ? PageRight.ShadowStack : 0) |
    size |
    (key << KEY_SHIFT);
  LEAF.at = at;
  LEAF.entry = entry;
  LEAF.writes = writes;
  return 'page';
}

const LEAF = { at: 0, entry: 0, writes: false };

/**
 * Sets the flags of the entry that maps the page of the last walk, once the access was found to be
 * allowed; false if that has raised something.
 */
export function markLeaf(cpu: Processor): boolean {
  if (!setFlags(cpu, LEAF.at, LEAF.entry, LEAF.writes ? A | D : A)) return false;
  if (LEAF.writes) WALK.rights |= PageRight.Dirty;
  return true;
}

/** PAE paging: the four entries of the first level are in registers (SDM vol. 3A §5.4.1). */
function walkPae(cpu: Processor, lo: number, writes: boolean, context: number): WalkResult {
  const w = cpu.i32;
  const at = PDPTE0 + 2 * (lo >>> 30);
  const entry = w[at] as number;
  if ((entry & P) === 0) return fault(0);
  return walk64(
    cpu,
    lo,
    0,
    writes,
    addressOf(entry, w[at + 1] as number, PAGE_FRAME),
    2,
    context,
  ) as WalkResult;
}

/** 32-bit paging, with pages of 4 MBytes if CR4.PSE (SDM vol. 3A §5.3). */
function walk32(cpu: Processor, lo: number, writes: boolean, context: number): WalkResult {
  const { memory, translations } = cpu;
  const { structures } = translations;
  const second = cpu.guestPhysical?.tag ?? LINEAR;
  const keeps = translations.caching.keeps && PROBE.entries === undefined;
  const cached = keeps ? structures.find(2, lo, 0, context, second) : -1;
  const known = cached >= 0 ? (structures.rights[cached] as number) : 0;
  if ((known & Known.Narrow) !== 0) {
    WALK.usedCache = true;
    if ((known & Known.NotWritable) !== 0) LINEAR_ACCESS.structuresWritable = false;
    return walkTable32(cpu, lo, structures.tables[cached] as number, known & (RW | US), writes);
  }
  const w = cpu.i32;
  const directory = ((w[CR3_LOW] as number) & PAGE_FRAME) >>> 0;
  const at = directory + 4 * (lo >>> 22);
  const physical = entryAddress(cpu, at);
  if (physical < 0) return 'raised';
  const entry = memory.read32(physical) | 0;
  if ((entry & P) === 0) return fault(0);
  if ((entry & PS) !== 0 && ((w[CR4_LOW] as number) & (1 << CR4.PSE)) !== 0) {
    const high = (entry >>> 13) & 0xff;
    const width = Math.min(cpu.features.physicalAddressBits, 40) - 32;
    if ((entry & (1 << 21)) !== 0 || high >>> width !== 0) return fault(PageFault.P | PageFault.RSVD);
    WALK.physical = high * TWO_32 + ((entry & 0xffc0_0000) >>> 0) + (lo & 0x3f_f000);
    // INVLPG takes what is around it for 1 GByte with it.
    return leaf(cpu, at, entry, RW | US, false, PageRight.Huge, 0, writes);
  }
  if (!setFlags(cpu, at, entry, A)) return 'raised';
  const table = (entry & PAGE_FRAME) >>> 0;
  if (keeps) {
    const writable = LINEAR_ACCESS.structuresWritable ? 0 : Known.NotWritable;
    structures.enter(2, lo, 0, context, second, table, (entry & (RW | US)) | writable | Known.Narrow);
  }
  return walkTable32(cpu, lo, table, entry & (RW | US), writes);
}

/** The page table of 32-bit paging at `table`; `rights`: RW and US of the entry that references it. */
function walkTable32(cpu: Processor, lo: number, table: number, rights: number, writes: boolean): WalkResult {
  const at = table + 4 * ((lo >>> 12) & 0x3ff);
  const physical = entryAddress(cpu, at);
  if (physical < 0) return 'raised';
  const page = cpu.memory.read32(physical) | 0;
  if ((page & P) === 0) return fault(0);
  WALK.physical = (page & PAGE_FRAME) >>> 0;
  return leaf(cpu, at, page, rights, false, 0, 0, writes);
}

/** What came of loading PDPTEs: nothing is loaded if they are refused or the access has raised something. */
export type PdpteLoad = 'loaded' | 'refused' | 'raised';

/**
 * Loads the PDPTE registers from the table that `cr3` locates; refused if a present entry has reserved
 * bits set (SDM vol. 3A §5.4.1).
 */
export function loadPdptes(cpu: Processor, cr3Low: number): PdpteLoad {
  const { memory, guestPhysical: second } = cpu;
  let table = (cr3Low & -32) >>> 0;
  if (second !== undefined) {
    if (!second.pdptes(table)) return 'raised';
    table = second.found.physical;
  }
  const reserved = reservedHigh(cpu) | 0xfff0_0000;
  for (let n = 0; n < 4; n++) {
    const entry = memory.read32(table + 8 * n);
    const high = memory.read32(table + 8 * n + 4);
    if ((entry & P) !== 0 && ((entry & 0x1e6) !== 0 || (high & reserved) !== 0)) return 'refused';
  }
  for (let n = 0; n < 4; n++) {
    cpu.i32[PDPTE0 + 2 * n] = memory.read32(table + 8 * n);
    cpu.i32[PDPTE0 + 2 * n + 1] = memory.read32(table + 8 * n + 4);
  }
  return 'loaded';
}

/** Whether paging is on. */
export function pagingEnabled(cpu: Processor): boolean {
  return ((cpu.i32[CR0_LOW] as number) & (1 << CR0.PG)) !== 0;
}
