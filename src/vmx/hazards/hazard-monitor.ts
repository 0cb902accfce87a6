/**
 * Watches the processors of one machine for undefined behaviour (SDM §27.11). It knows what no
 * processor can know: on which processor every VMCS is active, which regions were ever initialised,
 * which fields were ever written. It changes nothing that software can see.
 */
import { FIELD_COUNT } from '../../vmcs/fields.ts';
import { HAZARDS, type HazardId } from './hazard-list.ts';

/** What a machine does about hazards. `stop` stops at undefined behaviour, not at lint. */
export const HAZARD_MODES = ['ignore', 'report', 'stop'] as const;
export type HazardMode = (typeof HAZARD_MODES)[number];

/** One report. */
export interface Hazard {
  readonly id: HazardId;
  /** Number of the processor whose action it was. */
  readonly cpu: number;
  /** The instruction, or `load` / `store` / `RESET`. */
  readonly instruction: string;
  /** Physical address of the region or structure. */
  readonly address: number;
  /** What exactly happened, as a sentence. */
  readonly detail: string;
}

/** What is known of one VMCS region. */
export interface RegionRecord {
  /** Processor on which the VMCS is active, or −1. */
  activeOn: number;
  /** Other processors on which it still is active although it must not be. */
  readonly alsoActiveOn: Set<number>;
  /** VMCLEAR has initialised the region, on whichever processor. */
  initialised: boolean;
  /** Why the data may be corrupted, or an empty string. */
  corrupted: string;
  /** VMCLEAR has begun to repair the corruption: what is left is to write every field again. */
  beingRepaired: boolean;
  /** Slots that VMWRITE or a VM exit has written, or that an ordinary store may have written. */
  readonly written: Uint8Array;
  /** Processor of the last launch, to tell a needless migration; −1 if none. */
  launchedOn: number;
}

const REPORTS_KEPT = 10_000;

export class HazardMonitor {
  readonly mode: HazardMode;
  /** Reports in the order they were made; at most 10,000 are kept, `count` counts all. */
  readonly hazards: Hazard[] = [];
  count = 0;
  /** The hazard a `stop` machine stopped at. */
  stoppedAt: Hazard | undefined;
  readonly #regions = new Map<number, RegionRecord>();
  /** VMXON regions in use: address → processor. */
  readonly #vmxonRegions = new Map<number, number>();

  /** Called with the address of each region that ordinary accesses have to be watched for. */
  watch: (address: number) => void = () => {};

  constructor(mode: HazardMode) {
    this.mode = mode;
  }

  /** Whether anything is watched at all. */
  get watching(): boolean {
    return this.mode !== 'ignore';
  }

  /** Makes a report; true if the machine stops here. */
  report(id: HazardId, cpu: number, instruction: string, address: number, detail: string): boolean {
    if (this.mode === 'ignore') return false;
    const hazard: Hazard = { id, cpu, instruction, address, detail };
    this.count++;
    if (this.hazards.length < REPORTS_KEPT) this.hazards.push(hazard);
    if (this.mode === 'stop' && HAZARDS[id].kind === 'undefined') {
      this.stoppedAt ??= hazard;
      return true;
    }
    return false;
  }

  /** The record of the region at `address`, made on first use. */
  region(address: number): RegionRecord {
    let record = this.#regions.get(address);
    if (record === undefined) {
      record = {
        activeOn: -1,
        alsoActiveOn: new Set(),
        initialised: false,
        corrupted: '',
        beingRepaired: false,
        written: new Uint8Array(FIELD_COUNT),
        launchedOn: -1,
      };
      this.#regions.set(address, record);
      this.watch(address);
    }
    return record;
  }

  /** The record of the region at `address`, if there is one. */
  knownRegion(address: number): RegionRecord | undefined {
    return this.#regions.get(address);
  }

  /** The region becomes active on `cpu`; where it was active before, it stays so. */
  activate(record: RegionRecord, cpu: number): void {
    if (record.activeOn >= 0 && record.activeOn !== cpu) record.alsoActiveOn.add(record.activeOn);
    record.alsoActiveOn.delete(cpu);
    record.activeOn = cpu;
  }

  /** The region is active on `cpu` no longer. */
  deactivate(record: RegionRecord, cpu: number): void {
    record.alsoActiveOn.delete(cpu);
    if (record.activeOn === cpu) record.activeOn = -1;
  }

  /** The data of the region may be corrupted from now on. */
  corrupt(record: RegionRecord, reason: string): void {
    record.corrupted = reason;
    record.beingRepaired = false;
  }

  /**
   * VMCLEAR on `cpu` initialises the region. That repairs a corruption as soon as no other processor
   * holds data of the VMCS and software has written the fields again.
   */
  initialise(record: RegionRecord, cpu: number): void {
    this.deactivate(record, cpu);
    record.initialised = true;
    if (record.corrupted === '' || record.alsoActiveOn.size > 0) return;
    record.beingRepaired = true;
    record.written.fill(0);
  }

  /** Every field that VM entry uses was written again. */
  repaired(record: RegionRecord): void {
    record.corrupted = '';
    record.beingRepaired = false;
  }

  /** The processor whose VMXON region is at `address`, or −1. */
  vmxonOwner(address: number): number {
    return this.#vmxonRegions.get(address) ?? -1;
  }

  setVmxonOwner(address: number, cpu: number): void {
    this.#vmxonRegions.set(address, cpu);
    this.watch(address);
  }

  clearVmxonOwner(address: number, cpu: number): void {
    if (this.#vmxonRegions.get(address) === cpu) this.#vmxonRegions.delete(address);
  }

  /** Processor `cpu` leaves VMX operation: it has to launch every VMCS anew. */
  forgetLaunches(cpu: number): void {
    for (const record of this.#regions.values()) if (record.launchedOn === cpu) record.launchedOn = -1;
  }

  snapshot(): HazardSnapshot {
    return structuredClone({
      hazards: this.hazards,
      count: this.count,
      stoppedAt: this.stoppedAt,
      regions: this.#regions,
      vmxonRegions: this.#vmxonRegions,
    });
  }

  restore(snapshot: HazardSnapshot): void {
    const copy = structuredClone(snapshot);
    this.hazards.splice(0, this.hazards.length, ...copy.hazards);
    this.count = copy.count;
    this.stoppedAt = copy.stoppedAt;
    this.#regions.clear();
    for (const [address, record] of copy.regions) this.#regions.set(address, record);
    this.#vmxonRegions.clear();
    for (const [address, cpu] of copy.vmxonRegions) this.#vmxonRegions.set(address, cpu);
  }
}

/** Everything a monitor knows. */
export interface HazardSnapshot {
  readonly hazards: readonly Hazard[];
  readonly count: number;
  readonly stoppedAt: Hazard | undefined;
  readonly regions: ReadonlyMap<number, RegionRecord>;
  readonly vmxonRegions: ReadonlyMap<number, number>;
}
