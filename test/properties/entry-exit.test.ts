/** VM entry and VM exit on the whole: round trips, and re-verification that skips what has not changed. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { LogicalProcessor } from '../../src/machine/logical-processor.ts';
import { FIELDS, type FieldName } from '../../src/vmcs/fields.ts';
import { ALL_UNVERIFIED } from '../../src/vmcs/processor-copy.ts';
import { launchable, legalValues, rootMachine, succeeds, vmcsRegion } from '../support/machine.ts';
import { runs } from './settings.ts';

const REGION = vmcsRegion(0);
const EXIT = { reason: 10, instructionLength: 2 } as const;
const WRITABLE = FIELDS.filter((f) => f.type !== 'exit-information');

function fieldsOf(cpu: LogicalProcessor, types: readonly string[]): Map<FieldName, bigint> {
  const values = new Map<FieldName, bigint>();
  for (const f of FIELDS) {
    if (types.includes(f.type) && cpu.capabilities.fieldExists[f.slot])
      values.set(f.key, cpu.vmread(f.encoding).value);
  }
  return values;
}

/** Changes of the guest state that leave it legal. */
const legalGuest = fc.record<Partial<Record<FieldName, bigint>>>(
  {
    guestRip: fc.bigInt({ min: 0n, max: 0x7fff_ffff_ffffn }),
    guestRsp: fc.bigInt({ min: 0n, max: 0xffff_ffff_ffff_ffffn }),
    guestRflags: fc.nat({ max: 0xfff }).map((n) => BigInt((n & 0xad5) | 2)),
    guestCr3: fc.nat().map((n) => BigInt(n) << 12n),
    guestIa32SysenterCs: fc.nat().map(BigInt),
    guestIa32SysenterEsp: fc.nat().map(BigInt),
    guestIa32SysenterEip: fc.nat().map(BigInt),
    guestGdtrBase: fc.nat().map(BigInt),
    guestGdtrLimit: fc.nat({ max: 0xffff }).map(BigInt),
    guestIdtrBase: fc.nat().map(BigInt),
    guestIdtrLimit: fc.nat({ max: 0xffff }).map(BigInt),
    guestFsBase: fc.nat().map(BigInt),
    guestGsBase: fc.nat().map(BigInt),
    guestTrBase: fc.nat().map(BigInt),
  },
  { requiredKeys: [] },
);

describe('VM entry and the VM exit after it', () => {
  it('leave the guest-state area as it was when nothing happens between them', () => {
    fc.assert(
      fc.property(legalGuest, fc.boolean(), (fields, twice) => {
        const cpu = rootMachine().cpu(0);
        launchable(cpu, REGION, fields);
        const before = fieldsOf(cpu, ['guest', 'control', 'host']);
        expect(cpu.vmlaunch()).toEqual({ kind: 'VMentry' });
        expect(cpu.vmexit(EXIT)).toEqual({ kind: 'VMexit', reason: 10 });
        if (twice) {
          expect(cpu.vmresume()).toEqual({ kind: 'VMentry' });
          expect(cpu.vmexit(EXIT)).toEqual({ kind: 'VMexit', reason: 10 });
        }
        const after = fieldsOf(cpu, ['guest', 'control', 'host']);
        for (const [name, value] of before) expect(differs(name, value, after.get(name)), name).toBe(false);
      }),
      runs(60),
    );
  });

  it('skipping what has not changed never changes a verdict or a register', () => {
    const legal = legalValues(rootMachine().cpu(0));
    const usual = WRITABLE.filter((f) => legal[f.key] !== undefined);
    const write = fc
      .tuple(
        fc.oneof(fc.constantFrom(...usual), fc.constantFrom(...WRITABLE)),
        fc.oneof(
          { weight: 3, arbitrary: fc.constant('legal' as const) },
          fc.nat({ max: 63 }).map((n) => ({ flip: 1n << BigInt(n) })),
          fc.bigInt({ min: 0n, max: 0xffff_ffff_ffff_ffffn }),
        ),
      )
      .map(([field, value]) => ({ kind: 'write' as const, field, value }));
    const step = fc.oneof(
      { weight: 3, arbitrary: write },
      { weight: 3, arbitrary: fc.constant({ kind: 'enter' as const }) },
      { weight: 1, arbitrary: fc.constant({ kind: 'restore' as const }) },
      {
        weight: 1,
        arbitrary: fc.constantFrom(...WRITABLE).map((field) => ({ kind: 'repair' as const, field })),
      },
      { weight: 1, arbitrary: fc.nat({ max: 3 }).map((tme) => ({ kind: 'tme' as const, tme })) },
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40, size: 'max' }), (steps) => {
        const machines = [rootMachine({ hazards: 'ignore' }), rootMachine({ hazards: 'ignore' })] as const;
        const outcomes = machines.map((machine, index) => {
          const cpu = machine.cpu(0);
          launchable(cpu, REGION);
          const seen: unknown[] = [];
          for (const s of steps) {
            if (s.kind === 'write') {
              const { field } = s;
              const old = legal[field.key] ?? 0n;
              const value =
                s.value === 'legal' ? old : typeof s.value === 'bigint' ? s.value : old ^ s.value.flip;
              cpu.vmwrite(field.encoding, value);
            } else if (s.kind === 'repair') {
              cpu.vmwrite(s.field.encoding, legal[s.field.key] ?? 0n);
            } else if (s.kind === 'restore') {
              for (const f of WRITABLE) cpu.vmwrite(f.encoding, legal[f.key] ?? 0n);
            } else if (s.kind === 'tme') {
              cpu.set('IA32_TME_ACTIVATE', s.tme === 0 ? 0n : (BigInt(s.tme) << 36n) | 1n);
            } else {
              const copy = cpu.unit.active.get(REGION);
              if (copy === undefined) throw new Error('the VMCS is active');
              if (index === 1) {
                copy.unverified = ALL_UNVERIFIED;
                copy.hostWritten = true;
              }
              const launched = copy.launchState === 1;
              seen.push(launched ? cpu.vmresume() : cpu.vmlaunch());
              seen.push(cpu.vmread('exitQualification').value, cpu.vmread('vmInstructionError').value);
              if (cpu.operation === 'non-root') {
                if (index === 1) copy.hostWritten = true;
                seen.push(cpu.vmexit(EXIT));
              }
              seen.push(cpu.processor.quads.slice());
              // A host that is not 64 bits wide cannot go on: back to where it was.
              if (cpu.unit.vmx.shutdown !== 'no') return seen;
              cpu.enterLongMode();
            }
          }
          seen.push(...fieldsOf(cpu, ['guest', 'control', 'host', 'exit-information']));
          return seen;
        });
        expect(outcomes[0]).toEqual(outcomes[1]);
      }),
      runs(150),
    );
  });

  it('a VM entry that fails leaves guest state, controls and launch state alone (§29.8)', () => {
    const guestFields = FIELDS.filter((f) => f.type === 'guest');
    fc.assert(
      fc.property(
        fc.constantFrom(...guestFields),
        fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
        (field, value) => {
          const cpu = rootMachine({ hazards: 'ignore' }).cpu(0);
          launchable(cpu, REGION);
          cpu.vmwrite(field.encoding, value);
          const before = fieldsOf(cpu, ['guest', 'control', 'host']);
          const outcome = cpu.vmlaunch();
          if (outcome.kind === 'VMentry') return;
          expect(['VMentryFailure', 'VMfailValid', 'VMXabort']).toContain(outcome.kind);
          if (outcome.kind === 'VMXabort') return;
          expect(fieldsOf(cpu, ['guest', 'control', 'host'])).toEqual(before);
          succeeds(cpu.vmwrite(field.encoding, legalValues(cpu)[field.key] ?? 0n));
          cpu.enterLongMode();
          expect(cpu.vmlaunch()).toEqual({ kind: 'VMentry' });
        },
      ),
      runs(100),
    );
  });
});

/**
 * Bits of a field that may differ after a VM entry and a VM exit: those of CR0 that VM entry does not
 * load (§29.3.2.1), access rights of unusable segments (§30.3.2).
 */
function undefinedBits(name: FieldName, before: bigint): bigint {
  if (name === 'guestCr0') return 0x7ffa_ffd0n;
  if (!name.endsWith('AccessRights') || (before & 0x1_0000n) === 0n) return 0n;
  return name === 'guestSsAccessRights' ? 0xff9fn : 0xffffn;
}

function differs(name: FieldName, before: bigint, after: bigint | undefined): boolean {
  const ignored = undefinedBits(name, before);
  return after === undefined || (before & ~ignored) !== (after & ~ignored);
}
