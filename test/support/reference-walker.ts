/**
 * Nested paging once more, as plainly as the manual says it and without anything cached: what an access to
 * a linear address comes to, and which flags it sets. The tests compare the processor with it.
 */

export interface ReferenceRules {
  readonly levels: 4 | 5;
  readonly width: number;
  readonly accessedDirty: boolean;
  readonly modeBased: boolean;
  readonly pagingWrite: boolean;
  readonly verification: boolean;
  readonly eptRoot: bigint;
  readonly cr3: bigint;
  readonly writeProtect: boolean;
  readonly executeDisable: boolean;
}

export interface ReferenceAccess {
  readonly linear: bigint;
  readonly kind: 'read' | 'write' | 'fetch';
  readonly user: boolean;
}

const bit = (value: bigint, position: number) => (value >> BigInt(position)) & 1n;
const bits = (value: bigint, high: number, low: number) =>
  (value >> BigInt(low)) & ((1n << BigInt(high - low + 1)) - 1n);

/** Ends a walk. */
class Stop {
  readonly what: string;
  constructor(what: string) {
    this.what = what;
  }
}

export class ReferenceWalker {
  readonly memory: Map<bigint, bigint>;
  private readonly rules: ReferenceRules;
  private allPagingWrite = true;

  constructor(memory: Map<bigint, bigint>, rules: ReferenceRules) {
    this.memory = memory;
    this.rules = rules;
  }

  private read(address: bigint): bigint {
    return this.memory.get(address) ?? 0n;
  }

  private set(address: bigint, flags: bigint): void {
    const value = this.read(address);
    if ((value & flags) !== flags) this.memory.set(address, value | flags);
  }

  /** What the access comes to, in one line. */
  access(access: ReferenceAccess): string {
    try {
      return `page ${this.linear(access).toString(16)}`;
    } catch (stop) {
      if (stop instanceof Stop) return stop.what;
      throw stop;
    }
  }

  private linear({ linear, kind, user }: ReferenceAccess): bigint {
    const { rules } = this;
    this.allPagingWrite = true;
    const errorBits =
      (kind === 'write' ? 2n : 0n) | (user ? 4n : 0n) | (kind === 'fetch' && rules.executeDisable ? 16n : 0n);
    const fault = (code: bigint): never => {
      throw new Stop(`#PF ${(code | errorBits).toString(16)}`);
    };
    let table = bits(rules.cr3, 51, 12) << 12n;
    let writable = 1n;
    let userPage = 1n;
    let disabled = 0n;
    for (let level = 4; ; level--) {
      const address = table + 8n * bits(linear, 12 + 9 * level - 1, 12 + 9 * (level - 1));
      const entry = this.read(this.paging(address, false));
      if (bit(entry, 0) === 0n) fault(0n);
      const large = bit(entry, 7) === 1n;
      const leaf = level === 1 || (large && level <= 3);
      let reserved = rules.width < 52 && bits(entry, 51, rules.width) !== 0n;
      if (!rules.executeDisable && bit(entry, 63) === 1n) reserved = true;
      if (large && level === 4) reserved = true;
      if (leaf && level > 1 && bits(entry, 12 + 9 * (level - 1) - 1, 13) !== 0n) reserved = true;
      if (reserved) fault(9n);
      writable &= bit(entry, 1);
      userPage &= bit(entry, 2);
      disabled |= bit(entry, 63);
      if (!leaf) {
        if (bit(entry, 5) === 0n) this.set(this.paging(address, true), 0x20n);
        table = bits(entry, 51, 12) << 12n;
        continue;
      }
      const allowed =
        (kind !== 'fetch' || disabled === 0n) &&
        (!user || userPage === 1n) &&
        (kind !== 'write' || writable === 1n || (!user && !rules.writeProtect));
      if (!allowed) fault(1n);
      const flags = kind === 'write' ? 0x60n : 0x20n;
      if ((entry & flags) !== flags) this.set(this.paging(address, true), flags);
      const low = 12 + 9 * (level - 1);
      const page = (bits(entry, 51, low) << BigInt(low)) | bits(linear, low - 1, 0);
      return this.translate(page, kind, 'translation', userPage === 1n, writable, disabled);
    }
  }

  /** A paging-structure entry: read, or written to set a flag. */
  private paging(address: bigint, writes: boolean): bigint {
    const kind = this.rules.accessedDirty || writes ? 'read and write' : 'read';
    return this.translate(address, kind, 'entry', false, 0n, 0n);
  }

  private translate(
    address: bigint,
    kind: ReferenceAccess['kind'] | 'read and write',
    of: 'translation' | 'entry',
    user: boolean,
    writable: bigint,
    disabled: bigint,
  ): bigint {
    const { rules } = this;
    const used: bigint[] = [];
    const entries: bigint[] = [];
    const stop = (qualification: bigint): never => {
      throw new Stop(`EPT violation ${qualification.toString(16)} ${address.toString(16)}`);
    };
    const reads = kind === 'read' || kind === 'read and write' ? 1n : 0n;
    const writes = kind === 'write' || kind === 'read and write' ? 1n : 0n;
    let qualification = reads | (writes << 1n) | ((kind === 'fetch' ? 1n : 0n) << 2n) | (1n << 7n);
    if (of === 'translation') {
      qualification |= (1n << 8n) | ((user ? 1n : 0n) << 9n) | (writable << 10n) | (disabled << 11n);
    }
    if (rules.levels === 4 && address >> 48n !== 0n) stop(qualification);
    let table = rules.eptRoot;
    for (let level = rules.levels as number; ; level--) {
      const at = table + 8n * bits(address, 12 + 9 * level - 1, 12 + 9 * (level - 1));
      const entry = this.read(at);
      const present = bits(entry, 2, 0) !== 0n || (rules.modeBased && bit(entry, 10) === 1n);
      if (!present) stop(qualification);
      const leaf = level === 1 || (level <= 3 && bit(entry, 7) === 1n);
      if (this.misconfigured(entry, level, leaf))
        throw new Stop(`EPT misconfiguration ${address.toString(16)}`);
      used.push(at);
      entries.push(entry);
      if (leaf) break;
      table = bits(entry, 51, 12) << 12n;
    }
    const leaf = entries.at(-1) as bigint;
    const all = (position: number) => entries.reduce((sum, entry) => sum & bit(entry, position), 1n);
    const upper = (position: number) =>
      entries.slice(0, -1).reduce((sum, entry) => sum & bit(entry, position), 1n);
    qualification |=
      (all(0) << 3n) | (all(1) << 4n) | (all(2) << 5n) | (rules.modeBased ? all(10) << 6n : 0n);
    const pagingWrite = of === 'entry' && rules.pagingWrite && bit(leaf, 58) === 1n && upper(1) === 1n;
    if (reads === 1n && all(0) === 0n) stop(qualification);
    if (writes === 1n && all(1) === 0n && !pagingWrite) stop(qualification);
    if (kind === 'fetch' && all(rules.modeBased && user ? 10 : 2) === 0n) stop(qualification);
    if (of === 'translation' && rules.verification && bit(leaf, 57) === 1n && !this.allPagingWrite) {
      stop(qualification | (1n << 15n));
    }
    if (of === 'entry' && bit(leaf, 58) === 0n) this.allPagingWrite = false;
    if (rules.accessedDirty) {
      for (const at of used) this.set(at, 0x100n);
      if (writes === 1n) this.set(used.at(-1) as bigint, 0x200n);
    }
    const low = 12 + 9 * (rules.levels - used.length);
    return (bits(leaf, 51, low) << BigInt(low)) | bits(address, low - 1, 0);
  }

  private misconfigured(entry: bigint, level: number, leaf: boolean): boolean {
    const { rules } = this;
    if (bit(entry, 0) === 0n && bit(entry, 1) === 1n) return true;
    if (leaf && rules.pagingWrite && bit(entry, 58) === 1n && bit(entry, 0) === 0n) return true;
    if (rules.width < 52 && bits(entry, 51, rules.width) !== 0n) return true;
    if (leaf) {
      if (level > 1 && bits(entry, 12 + 9 * (level - 1) - 1, 12) !== 0n) return true;
      return [2n, 3n, 7n].includes(bits(entry, 5, 3));
    }
    return level >= 4 ? bits(entry, 7, 3) !== 0n : bits(entry, 6, 3) !== 0n;
  }
}
