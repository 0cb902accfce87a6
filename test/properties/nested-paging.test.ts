/** Paging under EPT against a plain reference walk: what every access comes to, and the flags in every entry afterwards. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { VM_EXIT_PENDING } from '../../src/cpu/exceptions.ts';
import { translate } from '../../src/cpu/paging.ts';
import { Register } from '../../src/cpu/registers.ts';
import { Access, AccessClass } from '../../src/cpu/tlb.ts';
import type { ControlId } from '../../src/vmcs/controls.ts';
import { controlsOf } from '../../src/vmx/effective-controls.ts';
import { ExtendedPageTables } from '../../src/vmx/ept/extended-page-tables.ts';
import type { ExitRequest } from '../../src/vmx/exit/exit-request.ts';
import { type ReferenceAccess, type ReferenceRules, ReferenceWalker } from '../support/reference-walker.ts';
import { guestProcessor } from '../support/vmx-processor.ts';
import { runs } from './settings.ts';

const WIDTH = 46;
const LINEAR = (1n << 39n) | (1n << 30n) | (1n << 21n) | (1n << 12n) | 0x678n;
/** EPT structures; pages of the guest lie so far above their guest-physical addresses, and once more for pages of 1 GByte. */
const EPT_ROOT = 0x8000_0000n;
const OFFSETS = [0x20_0000n, 0x4000_0000n] as const;
/** Guest-physical pages: the four structures, the page, and where larger pages of the guest lead. */
const PAGES = [1n, 2n, 3n, 4n, 5n, 0x201n] as const;

const FLAGS = {
  levels: fc.constantFrom<4 | 5>(4, 5),
  accessedDirty: fc.boolean(),
  modeBased: fc.boolean(),
  pagingWrite: fc.boolean(),
  verification: fc.boolean(),
  writeProtect: fc.boolean(),
  executeDisable: fc.boolean(),
};

interface Entry {
  readonly addresses: readonly bigint[];
  readonly value: bigint;
}

/** Everything mapped with all rights: entries of the guest's structures, then of EPT. */
function permissive(levels: 4 | 5): Entry[] {
  const guest = [1n, 2n, 3n, 4n].map((page): Entry => {
    const at = (page << 12n) + 8n;
    return { addresses: OFFSETS.map((offset) => offset + at), value: ((page + 1n) << 12n) | 7n };
  });
  const ept: Entry[] = [];
  const table = (level: number) => EPT_ROOT + 0x1000n * BigInt(levels - level);
  for (let level = levels as number; level > 2; level--) {
    ept.push({ addresses: [table(level)], value: table(level - 1) | 0x407n });
  }
  ept.push({ addresses: [table(2)], value: table(1) | 0x407n });
  ept.push({ addresses: [table(2) + 8n], value: (table(1) + 0x1000n) | 0x407n });
  for (const page of PAGES) {
    const at = table(1) + 8n * (page & 0x1ffn) + (page >= 0x200n ? 0x1000n : 0n);
    ept.push({ addresses: [at], value: ((page << 12n) + OFFSETS[0]) | 0x437n | (1n << 57n) | (1n << 58n) });
  }
  return [...guest, ...ept];
}

/** Rights and what else may be in an entry, rather than bits of its address. */
const position = fc.oneof(
  { weight: 5, arbitrary: fc.constantFrom(0, 1, 2, 5, 6, 7, 8, 9, 10, 57, 58, 63) },
  { weight: 1, arbitrary: fc.nat(63) },
);
const change = fc.record({ entry: fc.nat(30), position });
const access: fc.Arbitrary<ReferenceAccess> = fc.record({
  linear: fc.constantFrom(LINEAR, LINEAR, LINEAR + 8n),
  kind: fc.constantFrom('read' as const, 'write' as const, 'fetch' as const),
  user: fc.boolean(),
});

const BITS = { read: Access.Read, write: Access.Write, fetch: Access.Fetch } as const;

/** The processor's side of a case. */
function processor(rules: ReferenceRules) {
  const controls: ControlId[] = [
    'proc.activateSecondaryControls',
    'proc.activateTertiaryControls',
    'proc2.enableEpt',
    ...(rules.modeBased ? (['proc2.modeBasedExecuteControlForEpt'] as const) : []),
    ...(rules.pagingWrite ? (['proc3.eptPagingWriteControl'] as const) : []),
    ...(rules.verification ? (['proc3.guestPagingVerification'] as const) : []),
  ];
  const eptPointer =
    rules.eptRoot | BigInt((rules.levels - 1) << 3) | 6n | (rules.accessedDirty ? 0x40n : 0n);
  const p = guestProcessor({
    controls,
    fields: { eptPointer },
    features: { physicalAddressBits: WIDTH },
    registers: {
      CR0: rules.writeProtect ? 0x8005_0033n : 0x8004_0033n,
      CR3: rules.cr3,
      IA32_EFER: rules.executeDisable ? 0xd00n : 0x500n,
    },
  });
  let exit: ExitRequest | undefined;
  const ept = new ExtendedPageTables(p, (request) => {
    exit = request;
  });
  ept.follow(p.copy, controlsOf(p.copy, p.capabilities));
  p.cpu.guestPhysical = ept;
  const perform = ({ linear, kind, user }: ReferenceAccess): string => {
    const { cpu } = p;
    const need = BITS[kind] << (user ? AccessClass.User : AccessClass.Supervisor);
    const lo = Number(BigInt.asIntN(32, linear));
    const entry = translate(cpu, lo, Number(linear >> 32n), need);
    if (entry >= 0) return `page ${((cpu.tlb.physical[entry] as number) + (lo & 0xfff)).toString(16)}`;
    if (cpu.i32[2 * Register.fault] !== VM_EXIT_PENDING) {
      return `#PF ${(cpu.i32[2 * Register.faultErrorCode] as number).toString(16)}`;
    }
    const address = exit?.guestPhysicalAddress?.toString(16);
    return exit?.reason === 49
      ? `EPT misconfiguration ${address}`
      : `EPT violation ${exit?.qualification?.toString(16)} ${address}`;
  };
  return { memory: p.cpu.memory, perform };
}

it('gives what the reference gives, and leaves the same flags', () => {
  const kinds = new Map<string, number>();
  fc.assert(
    fc.property(
      fc.record(FLAGS),
      fc.array(change, { maxLength: 4 }),
      fc.array(access, { minLength: 1, maxLength: 4 }),
      (flags, changes, accesses) => {
        const rules: ReferenceRules = {
          ...flags,
          verification: flags.verification && flags.pagingWrite,
          width: WIDTH,
          eptRoot: EPT_ROOT,
          cr3: 0x1000n,
        };
        const entries = permissive(rules.levels).map(({ addresses, value }) => ({ addresses, value }));
        for (const { entry, position } of changes) {
          const target = entries[entry % entries.length] as { value: bigint };
          target.value ^= 1n << BigInt(position);
        }
        const quads = new Map(
          entries.flatMap(({ addresses, value }) => addresses.map((at) => [at, value] as const)),
        );
        const { memory, perform } = processor(rules);
        for (const [at, value] of quads) memory.write64(Number(at), value);
        const reference = new ReferenceWalker(quads, rules);
        for (const each of accesses) {
          const expected = reference.access(each);
          const kind = expected
            .split(' ')
            .slice(0, 2)
            .join(' ')
            .replace(/page.*/, 'page');
          kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
          expect(perform(each)).toBe(expected);
        }
        for (const [at, value] of quads) expect(memory.read64(Number(at)), at.toString(16)).toBe(value);
      },
    ),
    runs(400),
  );
  expect([...kinds.keys()]).toEqual(
    expect.arrayContaining(['page', 'EPT violation', 'EPT misconfiguration']),
  );
});
