/**
 * What EPT allows guest code to do: every combination of rights, in every entry of the walk, for every
 * kind of access, with the exact exit or success (SDM §31.3.3, Table 30-7).
 */
import { describe, expect, it } from 'vitest';
import { Ept, type EptTables, eptGuest, FRAME, GUEST } from '../support/ept.ts';
import { runToExit } from '../support/guest.ts';

/** The page is reached by entries of its own: from the second entry of the guest's PML4 and of the first EPT structure on. */
const LINEAR = (1n << 39n) + BigInt(FRAME);
const baseOf = (levels: 4 | 5) => (levels === 4 ? 1n << 39n : 1n << 48n);
const GUEST_PML4 = 0x30_0000;
const GUEST_PDPT = 0x28_0000;
const READ = GUEST;
const WRITE = GUEST + 0x10;

/** Which entry has the rights that are tried: level, and whether it maps the page. */
interface Place {
  readonly level: number;
  readonly isLeaf: boolean;
}
const PLACES: readonly Place[] = [
  { level: 5, isLeaf: false },
  { level: 4, isLeaf: false },
  { level: 3, isLeaf: false },
  { level: 2, isLeaf: false },
  { level: 1, isLeaf: true },
  { level: 2, isLeaf: true },
  { level: 3, isLeaf: true },
];
const ACCESSES = ['read', 'write', 'fetch'] as const;
type Access = (typeof ACCESSES)[number];

interface Setting {
  readonly levels: 4 | 5;
  readonly accessedDirty: boolean;
  readonly modeBased: boolean;
}

interface Case extends Setting {
  readonly rights: bigint;
  readonly access: Access;
  readonly user: boolean;
}

/** What the manual says: exit reason and qualification. */
function expected({ rights, access, user, modeBased }: Case): [number, bigint] {
  const has = (right: bigint) => (rights & right) !== 0n;
  const present = has(Ept.RWX) || (modeBased && has(Ept.XU));
  if (present && has(Ept.W) && !has(Ept.R)) return [49, 0n];
  const execute = modeBased && user ? Ept.XU : Ept.X;
  const needed = { read: Ept.R, write: Ept.W, fetch: execute }[access];
  if (present && has(needed)) return [18, 0n];
  const kind = { read: 1n, write: 2n, fetch: 4n }[access];
  const allowed = present ? ((rights & Ept.RWX) << 3n) | (modeBased && has(Ept.XU) ? 1n << 6n : 0n) : 0n;
  // Linear address valid, its translation; its mode; a writable, executable page.
  return [48, kind | allowed | 0x180n | (user ? 1n << 9n : 0n) | (1n << 10n)];
}

function start({ levels, accessedDirty, modeBased }: Setting) {
  let root: EptTables | undefined;
  const { machine, cpu, tables } = eptGuest('mov rax, [rsi]\nvmcall', {
    levels,
    eptpFlags: accessedDirty ? 0x40n : 0n,
    controls: modeBased ? ['proc2.modeBasedExecuteControlForEpt'] : [],
    prepare: (t, { memory }) => {
      root = t;
      memory.writeBytes(WRITE, Uint8Array.of(0x48, 0x89, 0x1e, 0x0f, 0x01, 0xc1));
      memory.writeBytes(FRAME, Uint8Array.of(0x0f, 0x01, 0xc1));
      memory.write64(GUEST_PML4 + 8, BigInt(GUEST_PDPT) | 7n);
      memory.write64(GUEST_PDPT, baseOf(levels) | 0x87n);
    },
  });
  runToExit(cpu);
  const at = (level: number) => (root as EptTables).entry(baseOf(levels) + BigInt(FRAME), level);
  // Making the last entry makes the others.
  at(1);
  const places = [0, 1, 2, 3, 4, 5].map((level) => (level >= 1 && level <= levels ? at(level) : 0));
  const references = [2, 3, 4, 5]
    .filter((level) => level <= levels)
    .map((level) => ({ address: at(level), value: machine.memory.read64(at(level)) & ~Ept.A }));
  /** Lets the entry at `place` have `rights`, all others everything. */
  function arrange({ level, isLeaf }: Place, rights: bigint): number {
    const { memory } = machine;
    for (const { address, value } of references) memory.write64(address, value);
    const all = Ept.RWX | Ept.XU;
    const page = isLeaf && level > 1 ? Ept.Page : BigInt(FRAME);
    const leafLevel = isLeaf ? level : 1;
    memory.write64(places[leafLevel] as number, page | all | Ept.WB);
    const changed = places[level] as number;
    memory.write64(changed, (memory.read64(changed) & ~all) | rights);
    return places[leafLevel] as number;
  }
  function run({ access, user }: Case) {
    const { memory } = machine;
    memory.write64(GUEST_PML4 + 8, BigInt(GUEST_PDPT) | (user ? 7n : 3n));
    cpu.invept(2, 0n);
    cpu.set('RSI', LINEAR + (access === 'write' ? 8n : 0n));
    cpu.vmwrite('guestRip', access === 'fetch' ? LINEAR : access === 'read' ? READ : WRITE);
    expect(cpu.vmresume().kind).toBe('VMentry');
    runToExit(cpu, 10);
    const reason = Number(cpu.vmread('exitReason').value);
    return [reason, reason === 18 ? 0n : cpu.vmread('exitQualification').value] as const;
  }
  return { machine, cpu, tables, arrange, run };
}

const settings = ([4, 5] as const).flatMap((levels) =>
  [false, true].flatMap((accessedDirty) =>
    [false, true].map((modeBased): Setting => ({ levels, accessedDirty, modeBased })),
  ),
);

describe.each(settings)(
  'EPT of $levels levels, flags $accessedDirty, mode-based execution $modeBased',
  (setting) => {
    const guest = start(setting);
    it.each(PLACES.filter(({ level }) => level <= setting.levels))('level $level, page $isLeaf', (place) => {
      for (let bits = 0n; bits < 16n; bits++) {
        const rights = (bits & 7n) | ((bits >> 3n) << 10n);
        for (const access of ACCESSES) {
          for (const user of [false, true]) {
            const each: Case = { ...setting, rights, access, user };
            const name = `${rights.toString(16)} ${access} ${user ? 'user' : 'supervisor'}`;
            const leaf = guest.arrange(place, rights);
            const [reason, qualification] = expected(each);
            expect(guest.run(each), name).toEqual([reason, qualification]);
            const offset = BigInt(FRAME) + (access === 'write' ? 8n : 0n);
            const physical = baseOf(setting.levels) + offset;
            const linear = (1n << 39n) + offset;
            if (reason !== 18) expect(guest.cpu.vmread('guestPhysicalAddress').value, name).toBe(physical);
            if (reason === 48) expect(guest.cpu.vmread('guestLinearAddress').value, name).toBe(linear);
            const flags = guest.machine.memory.read64(leaf) & (Ept.A | Ept.D);
            const used = reason === 18 && setting.accessedDirty;
            expect(flags, name).toBe(used ? Ept.A | (access === 'write' ? Ept.D : 0n) : 0n);
          }
        }
      }
    });
  },
);
