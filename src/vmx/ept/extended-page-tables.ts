/**
 * The extended page tables of one processor (SDM §31.3): they answer for the guest-physical addresses
 * that paging works with, from cached mappings or by a walk, with what takes the place of an access
 * that they do not allow.
 */
import { raise, raiseVmExit, Vector } from '../../cpu/exceptions.ts';
import {
  type GuestPhysicalTranslation,
  type HlatPaging,
  LINEAR_ACCESS,
  type ProbedPage,
} from '../../cpu/guest-physical.ts';
import type { UsedEntry } from '../../cpu/page-walk.ts';
import { forgetLinearPage, translationsInvalidated } from '../../cpu/paging.ts';
import { Access } from '../../cpu/tlb.ts';
import { PageRight } from '../../cpu/translation-cache.ts';
import { Field } from '../../vmcs/fields.ts';
import type { ProcessorCopy } from '../../vmcs/processor-copy.ts';
import { guestPhysicalAccessExit } from '../apic/access-page.ts';
import type { EffectiveControls } from '../effective-controls.ts';
import type { ExitRequest } from '../exit/exit-request.ts';
import type { VmxProcessor } from '../vmx-state.ts';
import { AddressSpaces } from './address-spaces.ts';
import { EptBit, EptHighBit, MEMORY_TYPE_SHIFT } from './ept-entry.ts';
import {
  logFullExit,
  misconfigurationExit,
  subPageExit,
  violationExit,
  violationQualification,
} from './ept-exits.ts';
import { EptSettings } from './ept-settings.ts';
import { EPT_WALK, EptWalk, lacksFlags, setEptFlags, walkEpt } from './ept-walk.ts';
import { allowedByWalk, Kind, shadowStackKind } from './guest-physical-access.ts';
import { GuestPhysicalMappings } from './guest-physical-mappings.ts';
import { isLogFull, logModification } from './page-modification-log.ts';
import { SubPage, subPageAllows } from './sub-page-permissions.ts';
import { becomesVirtualizationException } from './virtualization-exceptions.ts';

const TWO_32 = 0x1_0000_0000;
const PAGE_SIZE = 0x1000;
const ACCESSES = Access.Read | Access.Write | Access.Fetch;

const pageNumber = (address: number) => Math.floor(address / PAGE_SIZE);

export class ExtendedPageTables implements GuestPhysicalTranslation {
  tag = 0;
  readonly found = {
    physical: 0,
    denied: 0,
    shadowStackDenied: 0,
    hasSubPages: false,
    isApicAccess: false,
    memoryType: 0,
  };
  readonly settings = new EptSettings();
  readonly mappings = new GuestPhysicalMappings();
  /** Number of the address spaces that the VMCS makes. */
  addressSpace = 0;
  private readonly spaces = new AddressSpaces();
  private readonly p: VmxProcessor;
  /** Makes a VM exit pending. */
  private readonly request: (exit: ExitRequest) => void;

  constructor(p: VmxProcessor, request: (exit: ExitRequest) => void) {
    this.p = p;
    this.request = request;
  }

  /** Follows the VMCS whose "enable EPT" is 1: at VM entry and when its EPTP changes. */
  follow(copy: ProcessorCopy, controls: EffectiveControls): void {
    this.settings.read(this.p, copy, controls);
    this.tag = tagOf(this.settings.root);
    this.addressSpace = this.spaces.numberOf(this.settings);
  }

  get structureType(): number {
    return this.settings.structureType;
  }

  get subPageTableType(): number {
    return this.p.capabilities.structureType;
  }

  get hlat(): HlatPaging | undefined {
    return this.settings.hlat;
  }

  /** With accessed and dirty flags for EPT every access to a guest paging-structure entry counts as a write (SDM §31.3.3.2). */
  entry(address: number, writes: boolean): boolean {
    const { accessedDirty } = this.settings;
    // A flag is set by reading and writing the entry.
    const access = accessedDirty || writes ? Kind.Read | Kind.Write : Kind.Read;
    if (!this.access(address, access | Kind.Entry, false) || this.isApicAccess()) return false;
    if ((EPT_WALK.high & EptHighBit.PagingWrite) === 0) LINEAR_ACCESS.structuresWritable = false;
    this.found.physical = EPT_WALK.physical + (address % PAGE_SIZE);
    return true;
  }

  pdptes(address: number): boolean {
    if (!this.access(address, Kind.Read | Kind.Pdptes, false) || this.isApicAccess()) return false;
    this.found.physical = EPT_WALK.physical + (address % PAGE_SIZE);
    return true;
  }

  /** A guest-physical access to the APIC-access page exits (SDM §32.4.6.1). */
  private isApicAccess(): boolean {
    const { p } = this;
    if (EPT_WALK.physical !== p.cpu.apicAccessPage || !EPT_WALK.isApicAccess) return false;
    this.exits(guestPhysicalAccessExit(p));
    return true;
  }

  page(address: number, access: number): boolean {
    const isUser = (LINEAR_ACCESS.rights & (PageRight.User | PageRight.Unpaged)) !== 0;
    if (!this.access(address, access | shadowStackKind(LINEAR_ACCESS.need), isUser)) return false;
    const { found, settings } = this;
    const { low } = EPT_WALK;
    const allowed = allowedByWalk(settings, 0, isUser);
    found.hasSubPages = this.hasSubPages() && (allowed & Access.Write) === 0;
    const clean = settings.accessedDirty && (low & EptBit.Dirty) === 0 ? Access.Write : 0;
    found.physical = EPT_WALK.physical;
    found.isApicAccess = EPT_WALK.isApicAccess;
    found.denied = (ACCESSES & ~allowed) | clean;
    found.shadowStackDenied =
      (ACCESSES & ~allowedByWalk(settings, Kind.SupervisorShadowStack, isUser)) | clean;
    found.memoryType = (low >> MEMORY_TYPE_SHIFT) & 0xf;
    return true;
  }

  probeEntry(address: number, entries: UsedEntry[]): number {
    const { accessedDirty } = this.settings;
    const kind = Kind.Entry | Kind.Read | (accessedDirty ? Kind.Write : 0);
    if (!this.probe(address, entries) || !this.allows(kind, false)) return -1;
    if ((EPT_WALK.high & EptHighBit.PagingWrite) === 0) LINEAR_ACCESS.structuresWritable = false;
    return EPT_WALK.physical;
  }

  probePage(address: number, entries: UsedEntry[]): ProbedPage | undefined {
    const isUser = (LINEAR_ACCESS.rights & (PageRight.User | PageRight.Unpaged)) !== 0;
    if (!this.probe(address, entries) || !this.allows(0, isUser)) return undefined;
    const { settings } = this;
    const { memory } = this.p.cpu;
    return {
      physical: EPT_WALK.physical - (address % PAGE_SIZE),
      denied: ACCESSES & ~allowedByWalk(settings, 0, isUser),
      shadowStackDenied: ACCESSES & ~allowedByWalk(settings, Kind.SupervisorShadowStack, isUser),
      hasSubPages: this.hasSubPages(),
      allowsSubPage: this.hasSubPages() && this.lookUpSubPage(address, entries) === SubPage.Allowed,
      isApicAccess: EPT_WALK.physical - (address % PAGE_SIZE) === this.p.cpu.apicAccessPage,
      memoryType: (EPT_WALK.low >> MEMORY_TYPE_SHIFT) & 0xf,
      lacksAccessed: settings.accessedDirty && lacksFlags(memory, false),
      lacksDirty: settings.accessedDirty && (EPT_WALK.low & EptBit.Dirty) === 0,
    };
  }

  private probe(address: number, entries: UsedEntry[]): boolean {
    const { memory } = this.p.cpu;
    const result = walkEpt(memory, this.settings, address | 0, Math.floor(address / TWO_32));
    for (let n = 0; n < EPT_WALK.count; n++) {
      const at = EPT_WALK.at[n] as number;
      entries.push({ structure: 'EPT', address: at, value: memory.read64(at) });
    }
    return result === EptWalk.Mapped;
  }

  /** The page of the last walk may have sub-pages that may be written. */
  private hasSubPages(): boolean {
    return this.settings.subPages && EPT_WALK.level === 1 && (EPT_WALK.high & EptHighBit.SubPageWrite) !== 0;
  }

  /**
   * Performs the translation for an access; `EPT_WALK` then has what it found, `EPT_WALK.physical` being
   * that of the page. `isUser`: the linear address is a user-mode one.
   */
  private access(address: number, kind: number, isUser: boolean): boolean {
    const { mappings, tag } = this;
    const page = pageNumber(address);
    if (mappings.recall(page, tag) && !this.hasToSetFlags(kind)) {
      if (this.allows(kind, isUser)) return true;
      if (this.mayBeSubPageWrite(kind, isUser) && mappings.vectorAllows(page, address | 0)) return true;
    }
    const lo = address | 0;
    const hi = Math.floor(address / TWO_32);
    const { settings, p } = this;
    let byVector = false;
    const result = this.walk(lo, hi, kind, isUser);
    if (result === EptWalk.Misconfigured) return this.exits(misconfigurationExit(p, address));
    if (result !== EptWalk.Mapped) return this.violates(address, kind, result, false);
    if (!this.allows(kind, isUser)) {
      if (!this.mayBeSubPageWrite(kind, isUser)) {
        const missing = kind & ACCESSES & ~allowedByWalk(settings, kind, isUser);
        return this.violates(address, kind, result, missing === 0);
      }
      if (!this.subPageAllows(address, kind)) return false;
      byVector = true;
    }
    if (settings.accessedDirty && !this.setFlags(address, kind)) return false;
    EPT_WALK.physical -= lo & (PAGE_SIZE - 1);
    EPT_WALK.isApicAccess = EPT_WALK.physical === p.cpu.apicAccessPage;
    if (p.cpu.translations.caching.keeps) {
      mappings.keep(page, tag);
      if (byVector) mappings.keepVector(page);
    }
    return true;
  }

  /** Walks, from the first structure unless cached ones lead to what the access may have. */
  private walk(lo: number, hi: number, kind: number, isUser: boolean): EptWalk {
    const { settings, tag } = this;
    const { memory, translations } = this.p.cpu;
    if (!translations.caching.keeps) return walkEpt(memory, settings, lo, hi);
    const { structures } = this.mappings;
    const result = walkEpt(memory, settings, lo, hi, structures, tag);
    if (!EPT_WALK.usedCache || (result === EptWalk.Mapped && this.allows(kind, isUser))) return result;
    structures.forget((n) => structures.seconds[n] === tag);
    return walkEpt(memory, settings, lo, hi, structures, tag);
  }

  /** The rights of the last walk suffice, and guest-paging verification does not fail. */
  private allows(kind: number, isUser: boolean): boolean {
    const { settings } = this;
    if ((kind & ACCESSES & ~allowedByWalk(settings, kind, isUser)) !== 0) return false;
    return !this.failsVerification(kind);
  }

  private failsVerification(kind: number): boolean {
    return (
      this.settings.verifiesGuestPaging &&
      (kind & (Kind.Entry | Kind.Pdptes)) === 0 &&
      (EPT_WALK.high & EptHighBit.VerifyGuestPaging) !== 0 &&
      !LINEAR_ACCESS.structuresWritable
    );
  }

  /** Of an access that is not allowed: all that the last walk lacks is the right to write, and the page has sub-pages. */
  private mayBeSubPageWrite(kind: number, isUser: boolean): boolean {
    const missing = kind & ACCESSES & ~allowedByWalk(this.settings, kind, isUser);
    return (
      missing === Access.Write &&
      (kind & Kind.Entry) === 0 &&
      this.hasSubPages() &&
      !this.failsVerification(kind)
    );
  }

  private hasToSetFlags(kind: number): boolean {
    return this.settings.accessedDirty && (kind & Access.Write) !== 0 && (EPT_WALK.low & EptBit.Dirty) === 0;
  }

  /** Sets accessed and dirty flags and logs the modification; false if the log is full (SDM §31.3.5, §31.3.6). */
  private setFlags(address: number, kind: number): boolean {
    const { p, settings } = this;
    const { memory } = p.cpu;
    const writes = (kind & Access.Write) !== 0;
    if (!lacksFlags(memory, writes)) return true;
    const modifies = writes && (EPT_WALK.low & EptBit.Dirty) === 0;
    if (settings.logsModifications) {
      const copy = this.copy;
      if (isLogFull(copy)) return this.exits(logFullExit(p));
      if (modifies) logModification(p, memory, copy, address);
    }
    setEptFlags(memory, writes);
    if (modifies) EPT_WALK.low |= EptBit.Dirty;
    return true;
  }

  /** A write that only the sub-page permissions may let through (SDM §31.3.4). */
  private subPageAllows(address: number, kind: number): boolean {
    const { p } = this;
    switch (this.lookUpSubPage(address)) {
      case SubPage.Allowed:
        return true;
      case SubPage.Denied:
        return this.violates(address, kind, EptWalk.Mapped, false);
      case SubPage.Miss:
        return this.exits(subPageExit(p, address, true));
      case SubPage.Misconfigured:
        return this.exits(subPageExit(p, address, false));
    }
  }

  private lookUpSubPage(address: number, entries?: UsedEntry[]): SubPage {
    const pointer = Number(this.copy.quads[Field.sppTablePointer] as bigint);
    const { reservedHigh } = this.settings;
    const hi = Math.floor(address / TWO_32);
    return subPageAllows(this.p.cpu.memory, pointer, reservedHigh, address | 0, hi, entries);
  }

  /** An EPT violation leaves no mapping of its address behind (SDM §31.4.3.1). */
  private violates(address: number, kind: number, result: EptWalk, failsVerification: boolean): false {
    const { p, settings, tag } = this;
    this.mappings.forgetPage(pageNumber(address), tag);
    if ((kind & (Kind.Entry | Kind.Pdptes)) === 0)
      forgetLinearPage(p.cpu, LINEAR_ACCESS.lo, LINEAR_ACCESS.hi);
    const qualification = violationQualification(settings, kind, result, failsVerification);
    if (
      settings.convertsViolations &&
      becomesVirtualizationException(p, this.copy, result, address, qualification)
    ) {
      raise(p.cpu, Vector.VE);
      return false;
    }
    return this.exits(violationExit(p, address, qualification));
  }

  forgetMappings(): void {
    this.mappings.forgetAll();
  }

  /** INVEPT of a single context: whatever was made from the structures that start at `root` (SDM §31.4.3.1). */
  invalidateContext(root: number): void {
    const { cpu } = this.p;
    this.mappings.forgetTag(tagOf(root));
    cpu.translations.invalidateSecond(tagOf(root));
    translationsInvalidated(cpu);
  }

  /** INVEPT of all contexts. */
  invalidateAllContexts(): void {
    const { cpu } = this.p;
    this.mappings.forgetAll();
    cpu.translations.invalidateCombined();
    translationsInvalidated(cpu);
  }

  private exits(request: ExitRequest): false {
    this.request(request);
    raiseVmExit(this.p.cpu);
    return false;
  }

  private get copy(): ProcessorCopy {
    const { active, vmx } = this.p;
    return active.resident(vmx.current as ProcessorCopy);
  }
}

/** Tag of mappings made from the structures that start at `root`. */
function tagOf(root: number): number {
  return root + 1;
}
