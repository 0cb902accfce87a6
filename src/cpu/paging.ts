/**
 * Translation of linear addresses and access rights (SDM vol. 3A chapter 5): from the fast TLB, the
 * translation cache, or a walk; a page fault if the rights do not suffice. What has to be forgotten
 * when is here as well.
 */
import { PAGE_SIZE } from '../bits/address.ts';
import { separatedAccesses, separatesAddresses } from './address-rules.ts';
import { pageHasBreakpoint } from './debug-registers.ts';
import { raisePageFault, raiseWithCode, Vector } from './exceptions.ts';
import { type GuestPhysicalPage, type GuestPhysicalTranslation, LINEAR_ACCESS } from './guest-physical.ts';
import { isApicPage } from './memory-mapped.ts';
import { executeDisableEnabled, markLeaf, PageFault, pagingEnabled, WALK, walkPaging } from './page-walk.ts';
import type { Processor } from './processor.ts';
import { CR0, CR4, EFER, Register } from './registers.ts';
import {
  Access,
  AccessClass,
  EVERY_CLASS,
  SETTING_WORDS,
  SHADOW_STACK_ACCESSES,
  USER_ACCESSES,
} from './tlb.ts';
import {
  contextTag,
  DENIED_SHIFT,
  KEY_SHIFT,
  LINEAR,
  MEMORY_TYPE_SHIFT,
  PageRight,
  SHADOW_STACK_DENIED_SHIFT,
} from './translation-cache.ts';

const CR0_LOW = 2 * Register.CR0;
const CR3_LOW = 2 * Register.CR3;
const CR4_LOW = 2 * Register.CR4;
const EFER_LOW = 2 * Register.IA32_EFER;
const DR7_LOW = 2 * Register.DR7;
const PKRU_LOW = 2 * Register.PKRU;
const PKRS_LOW = 2 * Register.IA32_PKRS;
const ALL_RIGHTS = EVERY_CLASS * 0o7;
const { Read, Write, Fetch } = Access;

/**
 * TLB entry of the page of the canonical linear address `hi`:`lo` with the rights `need` (see
 * {@link Access}, shifted by the class of access), or −1 if a fault or a VM exit was raised.
 */
export function translate(cpu: Processor, lo: number, hi: number, need: number): number {
  const entry = cpu.tlb.find(lo, hi, need);
  return entry >= 0 ? entry : translateSlowly(cpu, lo, hi, need);
}

function translateSlowly(cpu: Processor, lo: number, hi: number, need: number): number {
  const entry = find(cpu, lo, hi, need);
  if (entry >= 0 && cpu.translationWatch !== undefined) {
    const physical = cpu.tlb.physical[entry] as number;
    cpu.translationWatch.used(lo, hi, need, physical, WALK.rights);
  }
  return entry;
}

/** As {@link translate}; `WALK.rights` then has those of the page. */
function find(cpu: Processor, lo: number, hi: number, need: number): number {
  if (cpu.tlb.hasLeft) {
    selectView(cpu);
    const entry = cpu.tlb.find(lo, hi, need);
    if (entry >= 0) return entry;
  }
  // Explicit data accesses have been checked; these are fetches and implicit accesses.
  if (separatesAddresses(cpu) && (separatedAccesses(cpu, hi) & need) !== 0) {
    raiseWithCode(cpu, Vector.GP, 0);
    return -1;
  }
  const { translations } = cpu;
  if (translations.caching.dropsNow()) {
    forgetEverything(cpu);
    selectView(cpu);
  }
  if (!pagingEnabled(cpu)) return translateUnpaged(cpu, lo, hi, need);
  const context = currentContext(cpu);
  const cached = translations.find(lo, hi, context, cpu.guestPhysical?.tag ?? LINEAR);
  if (cached >= 0) {
    const rights = translations.rights[cached] as number;
    const allowed = allowedAccesses(cpu, rights);
    if ((allowed & need) === need) {
      WALK.rights = rights;
      return enter(cpu, lo, hi, translations.physical[cached] as number, allowed, rights);
    }
    // The rights may have been raised since: walk before there is a fault.
  }
  return walk(cpu, lo, hi, need, context);
}

const SETTING = new Int32Array(SETTING_WORDS);

/** Selects the view of the TLB that belongs to everything on which translations and rights depend. */
function selectView(cpu: Processor): void {
  const w = cpu.i32;
  // What differs most often comes first.
  SETTING[0] = (cpu.vpid << 1) | (cpu.nonRoot ? 1 : 0);
  SETTING[1] = w[CR3_LOW] as number;
  SETTING[2] = w[CR3_LOW + 1] as number;
  SETTING[3] = w[CR4_LOW] as number;
  SETTING[4] = w[EFER_LOW] as number;
  SETTING[5] = w[PKRU_LOW] as number;
  SETTING[6] = w[PKRS_LOW] as number;
  SETTING[7] = w[DR7_LOW] as number;
  SETTING[8] = w[CR0_LOW] as number;
  SETTING[9] = cpu.addressSpace;
  SETTING[10] = cpu.apicAccessPage < 0 ? -1 : cpu.apicAccessPage / PAGE_SIZE;
  cpu.tlb.select(SETTING);
}

/** Without paging linear addresses are physical or, with second-level translation, guest-physical ones. */
function translateUnpaged(cpu: Processor, lo: number, hi: number, need: number): number {
  const page = (lo & -PAGE_SIZE) >>> 0;
  const second = cpu.guestPhysical;
  WALK.rights = PageRight.Unpaged | apicAccess(cpu, page);
  if (second === undefined) return enter(cpu, lo, hi, page, ALL_RIGHTS, WALK.rights);
  LINEAR_ACCESS.lo = lo;
  LINEAR_ACCESS.hi = hi;
  LINEAR_ACCESS.need = need;
  LINEAR_ACCESS.rights = PageRight.Unpaged;
  LINEAR_ACCESS.structuresWritable = true;
  if (!second.page(lo >>> 0, accessOf(need))) return -1;
  WALK.rights = withFound(PageRight.Unpaged, second.found);
  return enterFound(cpu, lo, hi, ALL_RIGHTS & ~deniedAccesses(WALK.rights));
}

/** The kinds of access that `need` has, in whichever class. */
function accessOf(need: number): number {
  return (need | (need >> 3) | (need >> 6) | (need >> 9) | (need >> 12)) & 0o7;
}

function walk(cpu: Processor, lo: number, hi: number, need: number, context: number): number {
  const writes = (need & (Write * EVERY_CLASS)) !== 0;
  const result = walkPaging(cpu, lo, hi, writes, context);
  if (result === 'raised') return -1;
  // The dirty flag is not set yet, and no reason for a fault.
  const isAllowed =
    result === 'page' && (allowedAccesses(cpu, WALK.rights | PageRight.Dirty) & need) === need;
  if (!isAllowed && WALK.usedCache) {
    // What was cached may have been changed since: walk from the first structure before there is a fault.
    cpu.translations.invalidatePage(lo, hi, context, true);
    return walk(cpu, lo, hi, need, context);
  }
  if (result === 'fault') return pageFault(cpu, lo, hi, need, WALK.error);
  if (!isAllowed) {
    return pageFault(cpu, lo, hi, need, PageFault.P | (doesKeyDeny(cpu, need) ? PageFault.PK : 0));
  }
  if (!markLeaf(cpu)) return -1;
  const second = cpu.guestPhysical;
  if (second === undefined) {
    WALK.rights |= apicAccess(cpu, WALK.physical);
    cpu.translations.enter(lo, hi, context, LINEAR, WALK.physical, WALK.rights);
    return enter(cpu, lo, hi, WALK.physical, allowedAccesses(cpu, WALK.rights), WALK.rights);
  }
  LINEAR_ACCESS.need = need;
  LINEAR_ACCESS.rights = WALK.rights;
  if (!second.page(WALK.physical + (lo & (PAGE_SIZE - 1)), accessOf(need))) return -1;
  const rights = withFound(WALK.rights, second.found);
  WALK.rights = rights;
  cpu.translations.enter(lo, hi, context, second.tag, second.found.physical, rights);
  return enterFound(cpu, lo, hi, allowedAccesses(cpu, rights));
}

/** Rights of a page with those that second-level translation found. */
export function withFound(
  rights: number,
  { denied, shadowStackDenied, memoryType, isApicAccess }: GuestPhysicalPage,
): number {
  return (
    rights |
    (isApicAccess ? PageRight.ApicAccess : 0) |
    (denied << DENIED_SHIFT) |
    (shadowStackDenied << SHADOW_STACK_DENIED_SHIFT) |
    (memoryType << MEMORY_TYPE_SHIFT)
  );
}

/** The mark of a page that is the APIC-access page now. */
function apicAccess(cpu: Processor, physical: number): number {
  return physical === cpu.apicAccessPage ? PageRight.ApicAccess : 0;
}

/** Accesses, by class, that second-level translation has to be asked about again. */
export function deniedAccesses(rights: number): number {
  const denied = (rights >>> DENIED_SHIFT) & 0o7;
  const shadowStack = (rights >>> SHADOW_STACK_DENIED_SHIFT) & 0o7;
  return (denied * 0o1111) | (shadowStack << AccessClass.SupervisorShadowStack);
}

/** Enters what second-level translation found. */
function enterFound(cpu: Processor, lo: number, hi: number, rights: number): number {
  const { found } = cpu.guestPhysical as GuestPhysicalTranslation;
  if (!found.hasSubPages) return enter(cpu, lo, hi, found.physical, rights, WALK.rights);
  return enterFast(cpu, lo, hi, found.physical, 0, rights);
}

/** Enters a translation to the page at `physical`, of which `known` is known; what must be seen of each access goes the slow way. */
function enter(
  cpu: Processor,
  lo: number,
  hi: number,
  physical: number,
  rights: number,
  known: number,
): number {
  const isVirtualized = physical === cpu.apicAccessPage && (known & PageRight.ApicAccess) !== 0;
  const isSeen = isVirtualized || isApicPage(cpu, physical) || pageHasBreakpoint(cpu, lo, hi);
  const direct = isSeen ? 0 : cpu.memory.directOffset(physical);
  return enterFast(cpu, lo, hi, physical, direct, rights);
}

function enterFast(
  cpu: Processor,
  lo: number,
  hi: number,
  physical: number,
  direct: number,
  rights: number,
): number {
  const reach = separatesAddresses(cpu) ? rights & ~separatedAccesses(cpu, hi) : rights;
  const entry = cpu.tlb.enter(lo, hi, physical, direct, reach);
  // The entry serves the present access, but nobody finds it again.
  if (!cpu.translations.caching.keeps || cpu.translationWatch !== undefined) cpu.tlb.forgetPage(lo, hi);
  return entry;
}

/** Raises #PF. An access that fails leaves no translation of its page behind (SDM vol. 3A §5.10.4.1). */
function pageFault(cpu: Processor, lo: number, hi: number, need: number, error: number): number {
  let code = error;
  if ((need & (Write * EVERY_CLASS)) !== 0) code |= PageFault.WR;
  if ((need & USER_ACCESSES) !== 0) code |= PageFault.US;
  if ((need & SHADOW_STACK_ACCESSES) !== 0) code |= PageFault.SS;
  if (WALK.isHlat) code |= PageFault.HLAT;
  if ((need & (Fetch * EVERY_CLASS)) !== 0 && reportsFetches(cpu)) code |= PageFault.ID;
  cpu.tlb.forgetPage(lo, hi);
  cpu.translations.invalidatePage(lo, hi, currentContext(cpu), true);
  raisePageFault(cpu, lo, hi, code);
  return -1;
}

function reportsFetches(cpu: Processor): boolean {
  const cr4 = cpu.i32[CR4_LOW] as number;
  return (cr4 & (1 << CR4.SMEP)) !== 0 || ((cr4 & (1 << CR4.PAE)) !== 0 && executeDisableEnabled(cpu));
}

/** The protection key of the page denies the data access, whatever else does (SDM vol. 3A §5.7, PK flag). */
function doesKeyDeny(cpu: Processor, need: number): boolean {
  const kinds = accessOf(need);
  if ((kinds & Fetch) !== 0) return false;
  const denied = deniedByKey(cpu, WALK.rights);
  const isUser = (need & USER_ACCESSES) !== 0;
  const protects = isUser || ((cpu.i32[CR0_LOW] as number) & (1 << CR0.WP)) !== 0;
  return (denied & 1) !== 0 || ((denied & 2) !== 0 && (kinds & Write) !== 0 && protects);
}

/** What PKRU or IA32_PKRS says of the page's protection key: bit 0 access disable, bit 1 write disable. */
function deniedByKey(cpu: Processor, rights: number): number {
  const w = cpu.i32;
  if (((w[EFER_LOW] as number) & (1 << EFER.LMA)) === 0) return 0;
  const isUser = (rights & PageRight.User) !== 0;
  const uses = (w[CR4_LOW] as number) & (1 << (isUser ? CR4.PKE : CR4.PKS));
  if (uses === 0) return 0;
  return ((w[isUser ? PKRU_LOW : PKRS_LOW] as number) >>> (2 * ((rights >>> KEY_SHIFT) & 15))) & 3;
}

/**
 * Accesses that a page of these rights allows under the present settings, by class (SDM vol. 3A §5.6). Without the dirty flag no write is let through, so that the first one walks; nor
 * is what second-level translation denies.
 */
export function allowedAccesses(cpu: Processor, rights: number): number {
  const w = cpu.i32;
  const cr0 = w[CR0_LOW] as number;
  const cr4 = w[CR4_LOW] as number;
  const isUser = (rights & PageRight.User) !== 0;
  const dirty = (rights & PageRight.Dirty) !== 0 ? Write : 0;
  const pageWrites = (rights & PageRight.Write) !== 0 ? Write : 0;
  const protects = (cr0 & (1 << CR0.WP)) !== 0;
  const fetch = (rights & PageRight.ExecuteDisable) !== 0 ? 0 : Fetch;
  let user = isUser ? Read | pageWrites | fetch : 0;
  let supervisor = Read | (protects ? pageWrites : Write) | fetch;
  let withAc = supervisor;
  let shadowStack = (rights & PageRight.ShadowStack) !== 0 ? Read | Write : 0;
  if (isUser) {
    if ((cr4 & (1 << CR4.SMEP)) !== 0) {
      supervisor &= ~Fetch;
      withAc &= ~Fetch;
    }
    if ((cr4 & (1 << CR4.SMAP)) !== 0) supervisor &= ~(Read | Write);
  }
  const denied = deniedByKey(cpu, rights);
  if (denied !== 0) {
    const all = (denied & 1) !== 0 ? Read | Write : 0;
    const writesDenied = (denied & 2) !== 0 ? Write : 0;
    user &= ~(all | writesDenied);
    supervisor &= ~(all | (protects ? writesDenied : 0));
    withAc &= ~(all | (protects ? writesDenied : 0));
    shadowStack &= ~(all | writesDenied);
  }
  const clean = ~Write | dirty;
  return (
    (((user & clean) << AccessClass.User) |
      ((supervisor & clean) << AccessClass.Supervisor) |
      ((withAc & clean) << AccessClass.SupervisorWithAc) |
      (shadowStack << (isUser ? AccessClass.UserShadowStack : AccessClass.SupervisorShadowStack))) &
    ~deniedAccesses(rights)
  );
}

/** Tag of the translations that are made now. */
export function currentContext(cpu: Processor): number {
  const pcid =
    ((cpu.i32[CR4_LOW] as number) & (1 << CR4.PCIDE)) !== 0 ? (cpu.i32[CR3_LOW] as number) & 0xfff : 0;
  return contextTag(cpu.vpid, pcid);
}

/** Forgets the combined mapping of the page of `hi`:`lo` in the present context: an EPT violation (SDM §31.4.3.1). */
export function forgetLinearPage(cpu: Processor, lo: number, hi: number): void {
  cpu.tlb.forgetPage(lo, hi);
  cpu.translations.invalidateCombinedPage(lo, hi, currentContext(cpu), cpu.guestPhysical?.tag ?? LINEAR);
}

/** Forgets all that is cached, which is allowed at any time (SDM §31.4.3.2). */
export function forgetEverything(cpu: Processor): void {
  cpu.translations.invalidateAll();
  cpu.guestPhysical?.forgetMappings();
  cpu.tlb.forgetAll();
}

/** After an operation that invalidates something: a policy may drop the rest, too. */
export function translationsInvalidated(cpu: Processor): void {
  if (cpu.translations.caching.dropsAtOperation()) forgetEverything(cpu);
  else cpu.tlb.forgetAll();
}

/** INVLPG: forgets what translates `hi`:`lo` for the current PCID, global translations included. */
export function invalidateLinearPage(cpu: Processor, lo: number, hi: number): void {
  cpu.translations.invalidatePage(lo, hi, currentContext(cpu), true);
  translationsInvalidated(cpu);
  cpu.requestAttention();
}

/** MOV to CR3 (SDM vol. 3A §5.10.4.1): what the present PCID has but global translations, unless `keeps`. */
export function cr3Loaded(cpu: Processor, keeps: boolean): void {
  if (!keeps) cpu.translations.invalidateContext(currentContext(cpu), false);
  translationsInvalidated(cpu);
}

/** A change of CR0, CR4 or IA32_EFER that invalidates all translations of the VPID, global ones included. */
export function invalidateEverything(cpu: Processor): void {
  cpu.translations.invalidateVpid(cpu.vpid, true);
  translationsInvalidated(cpu);
  cpu.requestAttention();
}
