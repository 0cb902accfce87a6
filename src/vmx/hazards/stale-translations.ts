/**
 * Finds translations that are used although the structures they came from have changed, which the manual
 * allows only because software has not invalidated them (SDM §31.4.3.3, §31.4.3.4). It changes nothing
 * that software can see; without it nothing is watched.
 */
import type { UsedEntry } from '../../cpu/page-walk.ts';
import { allowedAccesses, currentContext, deniedAccesses } from '../../cpu/paging.ts';
import type { Processor } from '../../cpu/processor.ts';
import { CR4, Register } from '../../cpu/registers.ts';
import { Access, EVERY_CLASS } from '../../cpu/tlb.ts';
import { LINEAR, MEMORY_TYPE_SHIFT, PageRight } from '../../cpu/translation-cache.ts';
import { probeTranslation, type TranslationProbe } from '../../cpu/translation-probe.ts';
import type { TranslationWatch } from '../../cpu/translation-watch.ts';
import type { SdmSection } from '../../sdm/sections.ts';
import { Field } from '../../vmcs/fields.ts';
import type { VmxState } from '../vmx-state.ts';

/** Who changed a structure. */
export interface StructureChange {
  readonly structure: UsedEntry['structure'];
  /** Physical address of the entry. */
  readonly address: number;
  /** The entry when the translation was last right, if that was seen, and now. */
  readonly before: bigint | undefined;
  readonly after: bigint;
  /** The store that did it; undefined if it was not made by software on a processor. */
  readonly by: { readonly cpu: number; readonly rip: bigint; readonly executed: number } | undefined;
}

/**
 * `APIC-access page`: it is that by now, and accesses are not virtualized because the translation is older
 * (SDM §32.4.5).
 */
export type StaleDifference =
  | 'page'
  | 'rights'
  | 'sub-page permissions'
  | 'memory type'
  | 'accessed flag'
  | 'dirty flag'
  | 'APIC-access page';

/** One use of a stale translation. */
export interface StaleTranslation {
  readonly cpu: number;
  /** Instruction whose access it was, or which was fetched. */
  readonly rip: bigint;
  /** Instructions that the processor had executed before. */
  readonly executed: number;
  readonly access: 'load' | 'store' | 'fetch';
  readonly linear: bigint;
  /** Physical page that was used, and what a walk would give now. */
  readonly cached: number;
  readonly fresh: number | string;
  /** What is different. */
  readonly difference: StaleDifference;
  /** Undefined if no structure has changed, but the registers or fields that say where they are. */
  readonly change: StructureChange | undefined;
  /** The invalidation that was left out. */
  readonly owed: string;
  readonly sdm: SdmSection;
}

const REPORTS_KEPT = 10_000;
const WRITES = Access.Write * EVERY_CLASS;
const FETCHES = Access.Fetch * EVERY_CLASS;
/** Accessed and dirty flags, which processors change themselves. */
const FLAGS = { paging: 0x60n, EPT: 0x300n, SPP: 0n } as const;
const RIP = Register.RIP;

/** When a page's translation was last right. */
interface Provenance {
  readonly entries: readonly UsedEntry[];
  readonly eptp: bigint;
  /** How often VMX operation had been entered. */
  readonly vmxonCount: number;
  reported: boolean;
}

/** The detector of one machine. */
export class StaleTranslations {
  readonly reports: StaleTranslation[] = [];
  /** Number of reports, kept or not. */
  count = 0;
  /** Stores to entries, by 8 bytes. */
  readonly #stores = new Map<number, { cpu: number; rip: bigint; executed: number }>();
  readonly #watched = new Set<number>();
  /** Lets stores to the page at an address be seen. */
  readonly #watchPage: (address: number) => void;

  constructor(watchPage: (address: number) => void) {
    this.#watchPage = watchPage;
  }

  /** Notes a store by software on `cpu`; `rip` is that of its instruction. */
  noteStore(cpu: Processor, rip: bigint, address: number, length: number): void {
    if (!this.#watched.has(Math.floor(address / 0x1000))) return;
    const by = { cpu: cpu.index, rip, executed: cpu.executed };
    for (let at = Math.floor(address / 8) * 8; at < address + length; at += 8) this.#stores.set(at, by);
  }

  storeTo(address: number): StructureChange['by'] {
    return this.#stores.get(Math.floor(address / 8) * 8);
  }

  watch(entries: readonly UsedEntry[]): void {
    for (const { address } of entries) {
      const page = Math.floor(address / 0x1000);
      if (this.#watched.has(page)) continue;
      this.#watched.add(page);
      this.#watchPage(page * 0x1000);
    }
  }

  report(stale: StaleTranslation): void {
    this.count++;
    if (this.reports.length < REPORTS_KEPT) this.reports.push(stale);
  }
}

/** The detector's view of one processor. */
export class ProcessorTranslations implements TranslationWatch {
  /** RIP of the instruction that is executed. */
  rip = 0n;
  private readonly cpu: Processor;
  private readonly vmx: VmxState;
  private readonly all: StaleTranslations;
  private readonly known = new Map<string, Provenance>();

  constructor(cpu: Processor, vmx: VmxState, all: StaleTranslations) {
    this.cpu = cpu;
    this.vmx = vmx;
    this.all = all;
  }

  used(lo: number, hi: number, need: number, physical: number, rights: number): void {
    const { cpu, all } = this;
    const fresh = probeTranslation(cpu, lo, hi);
    all.watch(fresh.entries);
    const difference = this.differs(fresh, need, physical, rights);
    const key = `${currentContext(cpu)} ${cpu.guestPhysical?.tag ?? LINEAR} ${hi} ${lo >>> 12}`;
    const provenance = this.known.get(key);
    if (difference === undefined) {
      const { vmxonCount } = this.vmx;
      this.known.set(key, { entries: fresh.entries, eptp: this.eptp(), vmxonCount, reported: false });
      return;
    }
    if (provenance?.reported) return;
    if (provenance !== undefined) provenance.reported = true;
    const fetches = (need & FETCHES) !== 0;
    const linear = (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0);
    const change =
      difference === 'APIC-access page' ? undefined : this.changeOf(fresh, provenance, difference);
    all.report({
      cpu: cpu.index,
      rip: fetches ? (cpu.quads[RIP] as bigint) : this.rip,
      executed: cpu.executed,
      access: fetches ? 'fetch' : (need & WRITES) !== 0 ? 'store' : 'load',
      linear,
      cached: physical,
      fresh: fresh.physical,
      difference,
      change,
      ...this.owed(linear, change, provenance, difference),
    });
  }

  private eptp(): bigint {
    const { current } = this.vmx;
    return this.cpu.guestPhysical === undefined || current === undefined
      ? 0n
      : (current.quads[Field.eptPointer] as bigint);
  }

  /** What an access by the cached translation does that one by the fresh one would not. */
  private differs(
    fresh: TranslationProbe,
    need: number,
    physical: number,
    rights: number,
  ): StaleDifference | undefined {
    if (fresh.physical !== physical) return 'page';
    if (physical === this.cpu.apicAccessPage && (rights & PageRight.ApicAccess) === 0)
      return 'APIC-access page';
    const unpaged = (fresh.rights & PageRight.Unpaged) !== 0;
    const allowed = unpaged ? ~deniedAccesses(fresh.rights) : allowedAccesses(this.cpu, fresh.rights);
    // Sub-pages may allow a write that nothing else does.
    const judged = fresh.hasSubPages ? need & ~WRITES : need;
    if ((allowed & judged) !== judged) return 'rights';
    if ((allowed & need) !== need && !fresh.allowsSubPage) return 'sub-page permissions';
    if (((rights ^ fresh.rights) >> MEMORY_TYPE_SHIFT) & 0xf) return 'memory type';
    if (fresh.lacksAccessed) return 'accessed flag';
    if (fresh.lacksDirty && (need & WRITES) !== 0) return 'dirty flag';
    return undefined;
  }

  /** The first entry that has changed since the translation was right; otherwise the one stored to last. */
  private changeOf(
    fresh: TranslationProbe,
    provenance: Provenance | undefined,
    difference: StaleDifference,
  ): StructureChange | undefined {
    const { memory } = this.cpu;
    // Entries of 32-bit paging have 4 bytes.
    const wide = (this.cpu.read('CR4') & (1n << BigInt(CR4.PAE))) !== 0n;
    const byFlags = difference === 'accessed flag' || difference === 'dirty flag';
    for (const { structure, address, value } of provenance?.entries ?? []) {
      const after = structure === 'paging' && !wide ? BigInt(memory.read32(address)) : memory.read64(address);
      const ignored = byFlags ? 0n : FLAGS[structure];
      if (((value ^ after) & ~ignored) === 0n) continue;
      return { structure, address, before: value, after, by: this.all.storeTo(address) };
    }
    let last: StructureChange | undefined;
    for (const { structure, address, value } of fresh.entries) {
      const by = this.all.storeTo(address);
      if (by === undefined || (last?.by !== undefined && last.by.executed > by.executed)) continue;
      last = { structure, address, before: undefined, after: value, by };
    }
    return last;
  }

  /** The invalidation that would have been in place, and the section that says so. */
  private owed(
    linear: bigint,
    change: StructureChange | undefined,
    provenance: Provenance | undefined,
    difference: StaleDifference,
  ): Pick<StaleTranslation, 'owed' | 'sdm'> {
    const { cpu, vmx } = this;
    const eptp = this.eptp();
    const isSecond = cpu.guestPhysical !== undefined;
    if (provenance !== undefined && provenance.vmxonCount !== vmx.vmxonCount) {
      // What was cached before VMXOFF is still there after VMXON.
      const isLinear = !isSecond || change?.structure === 'paging';
      if (!isLinear) return { owed: 'INVEPT all-context after VMXON', sdm: '31.4.3.4' };
      if (cpu.vpid !== 0) return { owed: 'INVVPID all-context after VMXON', sdm: '31.4.3.3' };
    }
    const moved = provenance !== undefined && provenance.eptp !== eptp;
    const isOfSecond =
      isSecond && (difference === 'APIC-access page' || difference === 'sub-page permissions');
    if (change === undefined ? moved || isOfSecond : change.structure !== 'paging') {
      return { owed: `INVEPT single-context of EPTP ${hexadecimal(eptp)}`, sdm: '31.4.3.4' };
    }
    const page = hexadecimal(linear);
    if (cpu.vpid === 0) return { owed: `INVLPG of ${page}`, sdm: '31.4.3.1' };
    const vpid = hexadecimal(BigInt(cpu.vpid));
    if (change === undefined) return { owed: `INVVPID single-context of VPID ${vpid}`, sdm: '31.4.3.3' };
    const byGuest = cpu.guestPhysical === undefined ? '' : `INVLPG of ${page} by the guest, or `;
    return { owed: `${byGuest}INVVPID individual-address of VPID ${vpid} and ${page}`, sdm: '31.4.3.3' };
  }
}

function hexadecimal(value: bigint): string {
  return `${value.toString(16).toUpperCase()}H`;
}
