/** Guests with EPT: tables of EPT in memory, and a guest in machine code that runs under them. */
import type { PhysicalMemory } from '../../src/cpu/physical-memory.ts';
import type { LogicalProcessor } from '../../src/machine/logical-processor.ts';
import type { Machine } from '../../src/machine/machine.ts';
import { decodeParts, QUALIFICATIONS } from '../../src/vmx/exit/qualifications.ts';
import { exitFields, GUEST, type GuestOptions, guestMachine, runToExit } from './guest.ts';

/** Bits of entries of EPT paging structures. */
export const Ept = {
  R: 1n << 0n,
  W: 1n << 1n,
  X: 1n << 2n,
  RWX: 7n,
  WB: 6n << 3n,
  IgnorePat: 1n << 6n,
  Page: 1n << 7n,
  A: 1n << 8n,
  D: 1n << 9n,
  XU: 1n << 10n,
  VerifyPaging: 1n << 57n,
  PagingWrite: 1n << 58n,
  SupervisorShadowStack: 1n << 60n,
  SubPages: 1n << 61n,
  SuppressVe: 1n << 63n,
} as const;

const ADDRESS = 0xf_ffff_ffff_f000n;

/** EPT paging structures that grow from the address `at`, of which the first is the root. */
export class EptTables {
  readonly memory: PhysicalMemory;
  readonly root: number;
  readonly levels: 4 | 5;
  private next: number;

  constructor(memory: PhysicalMemory, at: number, levels: 4 | 5 = 4) {
    this.memory = memory;
    this.root = at;
    this.levels = levels;
    this.next = at + 0x1000;
  }

  /** The EPTP: write-back structures, and `flags` beside. */
  eptp(flags = 0n): bigint {
    return BigInt(this.root) | (BigInt(this.levels - 1) << 3n) | 6n | flags;
  }

  /** Address of the entry of `address` at `level`; structures on the way are made, with all rights. */
  entry(address: bigint, level: number): number {
    let table = this.root;
    for (let at = this.levels; ; at--) {
      const index = Number((address >> BigInt(12 + 9 * (at - 1))) & 0x1ffn);
      const place = table + 8 * index;
      if (at === level) return place;
      let entry = this.memory.read64(place);
      if ((entry & 0x407n) === 0n) {
        entry = BigInt(this.next) | Ept.RWX | Ept.XU;
        this.next += 0x1000;
        this.memory.write64(place, entry);
      }
      table = Number(entry & ADDRESS);
    }
  }

  get(address: bigint | number, level = 1): bigint {
    return this.memory.read64(this.entry(BigInt(address), level));
  }

  set(address: bigint | number, value: bigint, level = 1): void {
    this.memory.write64(this.entry(BigInt(address), level), value);
  }

  /** Maps a page of 4 KBytes. */
  map(address: bigint | number, physical: bigint | number, flags: bigint = Ept.RWX | Ept.WB | Ept.XU): void {
    this.set(address, BigInt(physical) | flags);
  }

  /** Maps `pages` pages one to one. */
  identity(from: number, pages: number, flags?: bigint): void {
    for (let n = 0; n < pages; n++) this.map(from + 0x1000 * n, from + 0x1000 * n, flags);
  }
}

const EPT = 0x38_0000;
/** A page that tests map as they like. */
export const DATA = 0x8_0000;
/** Where its contents usually are. */
export const FRAME = 0x9_0000;

export interface EptGuestOptions extends GuestOptions {
  readonly levels?: 4 | 5;
  /** Flags of the EPTP. */
  readonly eptpFlags?: bigint;
  /** Changes the tables before VM entry. */
  readonly prepare?: (tables: EptTables, machine: Machine) => void;
}

export interface EptGuest {
  readonly machine: Machine;
  readonly cpu: LogicalProcessor;
  readonly tables: EptTables;
}

/** A 64-bit guest about to execute `code` at {@link GUEST}, all of RAM mapped one to one but {@link DATA}, which is at {@link FRAME}. */
export function eptGuest(code: string | Uint8Array, options: EptGuestOptions = {}): EptGuest {
  const { levels = 4, eptpFlags = 0n, prepare, controls = [], fields = {}, ...rest } = options;
  let tables: EptTables | undefined;
  const machine = guestMachine(code, {
    ...rest,
    controls: ['proc.activateSecondaryControls', 'proc2.enableEpt', ...controls],
    fields: { eptPointer: BigInt(EPT) | (BigInt(levels - 1) << 3n) | 6n | eptpFlags, ...fields },
    setUp: (m) => {
      tables = new EptTables(m.memory, EPT, levels);
      tables.identity(0, 0x400);
      tables.map(DATA, FRAME);
      prepare?.(tables, m);
    },
  });
  return { machine, cpu: machine.cpu(0), tables: tables as EptTables };
}

/** Runs to the exit. `set`: parts of the qualification of an EPT violation that are 1. */
export function eptExit(guest: EptGuest) {
  runToExit(guest.cpu);
  const fields = exitFields(
    guest.cpu,
    'exitReason',
    'exitQualification',
    'guestLinearAddress',
    'guestPhysicalAddress',
    'guestRip',
  );
  const parts = decodeParts(QUALIFICATIONS.eptViolation, fields.exitQualification);
  const set = Object.entries(parts)
    .filter(([, value]) => value === 1)
    .map(([name]) => name);
  return { ...fields, reason: Number(fields.exitReason), set };
}

const segmentFields = (rights: bigint, selector: bigint, base: bigint, limit: bigint) =>
  Object.fromEntries(
    (['Cs', 'Ss', 'Ds', 'Es', 'Fs', 'Gs'] as const).flatMap((name) => [
      [`guest${name}Selector`, selector],
      [`guest${name}Base`, base],
      [`guest${name}Limit`, limit],
      [`guest${name}AccessRights`, name === 'Cs' ? rights | 8n : rights],
    ]),
  );

/** An unrestricted guest in real-address mode, whose segments start at {@link GUEST}. */
export const REAL_MODE: EptGuestOptions = {
  controls: ['proc2.unrestrictedGuest', 'entry.loadIa32Efer'],
  off: ['entry.ia32eModeGuest'],
  fields: {
    ...segmentFields(0x93n, BigInt(GUEST >> 4), BigInt(GUEST), 0xffffn),
    guestCr0: 0x20n,
    guestCr4: 0x2000n,
    guestIa32Efer: 0n,
    guestCr3: 0n,
    guestRip: 0n,
    guestRsp: 0xf000n,
  },
};

/** An unrestricted guest in flat 32-bit protected mode without paging. */
export const UNPAGED: EptGuestOptions = {
  controls: ['proc2.unrestrictedGuest', 'entry.loadIa32Efer'],
  off: ['entry.ia32eModeGuest'],
  fields: {
    ...segmentFields(0xc093n, 0x10n, 0n, 0xffff_ffffn),
    guestCr0: 0x21n,
    guestCr4: 0x2000n,
    guestIa32Efer: 0n,
    guestCr3: 0n,
  },
};

export { GUEST };
