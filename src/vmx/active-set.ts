/**
 * The VMCSs that are active on one logical processor (SDM §27.1) and the movement of their data
 * between processor and memory. When data move besides VMPTRLD and VMCLEAR is the flush policy's
 * choice; software that obeys §27.11.1 cannot see it.
 */
import { Prng } from '../bits/prng.ts';
import type { PhysicalMemory } from '../cpu/physical-memory.ts';
import { FIELD_COUNT } from '../vmcs/fields.ts';
import type { RegionFormat } from '../vmcs/layout.ts';
import { type CopyStorage, type FlushPolicy, ProcessorCopy } from '../vmcs/processor-copy.ts';
import { LaunchState, storeField, writeLaunchState } from '../vmcs/region.ts';

/** What a snapshot keeps of an active set. */
export interface ActiveSetSnapshot {
  readonly copies: readonly {
    readonly address: number;
    readonly words: Uint32Array;
    readonly written: Uint8Array;
    readonly unverified: number;
    readonly verifiedReduction: number;
    readonly verifiedState: number;
    readonly memoryRows: number;
    readonly launchState: LaunchState;
    readonly isShadow: boolean;
    readonly resident: boolean;
  }[];
  readonly random: number;
}

export class ActiveSet {
  readonly policy: FlushPolicy;
  /** True while no data move except at VMPTRLD and VMCLEAR: what the fast paths rely on. */
  readonly retains: boolean;
  private readonly memory: PhysicalMemory;
  private readonly format: RegionFormat;
  private readonly random: Prng;
  private readonly dependents: Uint32Array;
  private readonly copies = new Map<number, ProcessorCopy>();
  private readonly window: CopyStorage | undefined;
  /** The copy whose data are in the window. */
  private held: ProcessorCopy | undefined;

  /**
   * @param dependents by field slot: one bit a list of entry checks that looks at the field
   * @param window where the fast paths of the processor find the data of one copy
   */
  constructor(
    memory: PhysicalMemory,
    format: RegionFormat,
    policy: FlushPolicy,
    seed: number,
    dependents: Uint32Array,
    window?: CopyStorage,
  ) {
    this.window = window;
    this.dependents = dependents;
    this.memory = memory;
    this.format = format;
    this.policy = policy;
    this.retains = policy === 'at-vmclear';
    this.random = new Prng(seed);
  }

  get size(): number {
    return this.copies.size;
  }

  /** Bytes a processor holds for one active VMCS: field data and a byte a field that tells whether it was written. */
  get bytesPerVmcs(): number {
    return FIELD_COUNT * (8 + 1) + 4;
  }

  /** Addresses of the active VMCSs, in the order in which they became active. */
  addresses(): number[] {
    return [...this.copies.keys()];
  }

  get(address: number): ProcessorCopy | undefined {
    return this.copies.get(address);
  }

  /** Makes the VMCS at `address` active: the copy the processor already holds, or one read from memory. */
  activate(address: number): ProcessorCopy {
    let copy = this.copies.get(address);
    if (copy === undefined) {
      copy = new ProcessorCopy(address, this.format, this.dependents);
      copy.load(this.memory.peek(address));
      this.copies.set(address, copy);
    }
    return this.resident(copy);
  }

  /** Brings the data of `copy` into the window; true if there is one. */
  hold(copy: ProcessorCopy): boolean {
    if (this.window === undefined) return false;
    if (this.held !== copy) {
      this.release();
      copy.moveTo(this.window);
      this.held = copy;
    }
    return true;
  }

  private release(): void {
    this.held?.moveTo(undefined);
    this.held = undefined;
  }

  /** Makes sure the processor holds the data of `copy` before they are used. */
  resident(copy: ProcessorCopy): ProcessorCopy {
    if (!copy.resident) copy.load(this.memory.peek(copy.address));
    return copy;
  }

  /**
   * VMCLEAR: data to memory, launch state clear, no longer active. A region that is not active here
   * gets its launch state initialised in memory.
   */
  clear(address: number): void {
    const copy = this.copies.get(address);
    const page = this.memory.page(address);
    if (copy !== undefined) {
      if (copy === this.held) this.release();
      if (copy.resident) copy.writeBack(page);
      this.copies.delete(address);
    }
    writeLaunchState(page, this.format, LaunchState.Clear);
  }

  /** Forgets every active VMCS without writing anything back (VMXOFF, reset). */
  abandon(): void {
    this.release();
    this.copies.clear();
  }

  /** Tells the policy that `slot` of `copy` has changed. */
  fieldChanged(copy: ProcessorCopy, slot: number): void {
    if (this.policy === 'write-through') {
      storeField(this.memory.page(copy.address), this.format, copy.words, slot);
    }
  }

  /** Tells the policy that many fields, or the launch state, of `copy` have changed. */
  copyChanged(copy: ProcessorCopy): void {
    if (this.policy === 'write-through') copy.writeBack(this.memory.page(copy.address));
  }

  /** Gives a seeded policy its chance to write back or evict some copy; the others do nothing. */
  chance(): void {
    if (this.policy !== 'seeded' || this.copies.size === 0) return;
    const draw = this.random.next();
    if ((draw & 3) !== 0) return;
    const victims = [...this.copies.values()];
    const victim = victims[(draw >>> 8) % victims.length] as ProcessorCopy;
    if (!victim.resident) return;
    victim.writeBack(this.memory.page(victim.address));
    if ((draw & 4) !== 0) victim.resident = false;
  }

  snapshot(): ActiveSetSnapshot {
    return {
      copies: [...this.copies.values()].map((c) => ({
        address: c.address,
        words: c.words.slice(),
        written: c.written.slice(),
        unverified: c.unverified,
        verifiedReduction: c.verifiedReduction,
        verifiedState: c.verifiedState,
        memoryRows: c.memoryRows,
        launchState: c.launchState,
        isShadow: c.isShadow,
        resident: c.resident,
      })),
      random: this.random.state,
    };
  }

  restore(snapshot: ActiveSetSnapshot): void {
    this.release();
    this.copies.clear();
    this.random.state = snapshot.random;
    for (const kept of snapshot.copies) {
      const copy = new ProcessorCopy(kept.address, this.format, this.dependents);
      copy.words.set(kept.words);
      copy.written = kept.written.slice();
      copy.unverified = kept.unverified;
      copy.verifiedReduction = kept.verifiedReduction;
      copy.verifiedState = kept.verifiedState;
      copy.memoryRows = kept.memoryRows;
      copy.launchState = kept.launchState;
      copy.isShadow = kept.isShadow;
      copy.resident = kept.resident;
      this.copies.set(kept.address, copy);
    }
  }
}
