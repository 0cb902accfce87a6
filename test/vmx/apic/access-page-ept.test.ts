/** The APIC-access page with EPT: the final physical address counts, and guest-physical accesses exit (SDM §32.4, §32.4.6.1). */
import { describe, expect, it } from 'vitest';
import type { ControlId } from '../../../src/vmcs/controls.ts';
import { assemble } from '../../support/assemble.ts';
import {
  DATA,
  Ept,
  type EptGuest,
  type EptGuestOptions,
  eptGuest,
  GUEST,
  UNPAGED,
} from '../../support/ept.ts';
import { exitFields, runToExit } from '../../support/guest.ts';
import { ACCESS_PAGE, APIC_FIELDS, APIC_PAGE } from './apic-guest.ts';

const CONTROLS: readonly ControlId[] = ['proc.useTprShadow', 'proc2.virtualizeApicAccesses'];

function guest(code: string, options: EptGuestOptions = {}): EptGuest {
  return eptGuest(code, {
    ...options,
    controls: [...CONTROLS, ...(options.controls ?? [])],
    fields: {
      virtualApicAddress: APIC_FIELDS.virtualApicAddress,
      apicAccessAddress: BigInt(ACCESS_PAGE),
      ...options.fields,
    },
    prepare: (tables, machine) => {
      // The guest's page of data is the APIC-access page; the page of that address is another one.
      tables.map(DATA, ACCESS_PAGE);
      tables.map(ACCESS_PAGE, 0xa_0000);
      options.prepare?.(tables, machine);
    },
  });
}

function exitOf({ cpu }: EptGuest) {
  runToExit(cpu);
  return exitFields(cpu, 'exitReason', 'exitQualification', 'guestRip');
}

describe('linear accesses', () => {
  it('are those whose translation ends on the page, whatever the guest-physical address', () => {
    const g = guest(`mov eax, [${DATA + 0x80}]\nmov ebx, [${ACCESS_PAGE + 0x20}]\nmov ecx, [${DATA + 0x20}]`);
    g.machine.memory.write32(APIC_PAGE + 0x80, 0x70);
    g.machine.memory.write32(0xa_0020, 0x1234);
    expect(exitOf(g)).toEqual({
      exitReason: 44n,
      exitQualification: 0x20n,
      guestRip: BigInt(GUEST + 15),
    });
    expect([g.cpu.get('RAX'), g.cpu.get('RBX')]).toEqual([0x70n, 0x1234n]);
  });

  it('are those of a guest without paging too', () => {
    const code = assemble(`mov eax, [${DATA + 0x80}]\nmov ebx, [${DATA + 0x20}]`, 32, GUEST);
    const g = guest('nop', {
      ...UNPAGED,
      controls: UNPAGED.controls ?? [],
      prepare: (_, { memory }) => memory.writeBytes(GUEST, code),
    });
    g.machine.memory.write32(APIC_PAGE + 0x80, 0x70);
    expect(exitOf(g)).toEqual({
      exitReason: 44n,
      exitQualification: 0x20n,
      guestRip: BigInt(GUEST + 5),
    });
    expect(g.cpu.get('RAX')).toBe(0x70n);
  });

  it('come after EPT violations, and set accessed and dirty flags of EPT first', () => {
    const denied = guest(`mov [${DATA + 0x20}], eax`, {
      prepare: (tables) => tables.map(DATA, ACCESS_PAGE, Ept.R | Ept.WB),
    });
    expect(exitOf(denied).exitReason).toBe(48n);
    const flagged = guest(`mov [${DATA + 0x20}], eax`, { eptpFlags: 0x40n });
    expect(exitOf(flagged)).toMatchObject({ exitReason: 44n, exitQualification: 0x1020n });
    expect(flagged.tables.get(DATA) & (Ept.A | Ept.D)).toBe(Ept.A | Ept.D);
  });
});

it('a write that sub-page permissions alone allow is virtualized, one that they deny is a violation', () => {
  const ROOT = 0x28_0000;
  const run = (vector: bigint) => {
    const g = guest(`mov dword ptr [${DATA + 0x80}], 0x70\nvmcall`, {
      controls: ['proc2.subPageWritePermissionsForEpt'],
      fields: { sppTablePointer: BigInt(ROOT) },
      prepare: (tables, { memory }) => {
        tables.map(DATA, ACCESS_PAGE, Ept.R | Ept.X | Ept.WB | Ept.SubPages);
        for (let n = 0; n < 3; n++) memory.write64(ROOT + 0x1000 * n, BigInt(ROOT + 0x1000 * (n + 1)) | 1n);
        memory.write64(ROOT + 0x3000 + 8 * (DATA >> 12), vector);
      },
    });
    const { exitReason } = exitOf(g);
    return [
      exitReason,
      g.machine.memory.read32(APIC_PAGE + 0x80),
      g.machine.memory.read32(ACCESS_PAGE + 0x80),
    ];
  };
  expect(run(4n)).toEqual([18n, 0x70, 0]);
  expect(run(1n)).toEqual([48n, 0, 0]);
});

describe('guest-physical accesses', () => {
  const PDPT = 0x30_1000;

  it('a paging structure of the guest on the page exits, whatever its offset', () => {
    const g = guest('nop', { prepare: (tables) => tables.map(PDPT, ACCESS_PAGE) });
    expect(exitOf(g)).toEqual({ exitReason: 44n, exitQualification: 0xf000n, guestRip: BigInt(GUEST) });
    expect(exitFields(g.cpu, 'originalEventIdentification').originalEventIdentification).toBe(0n);
  });

  it('during event delivery it reports the event', () => {
    // The IDT is in the second GByte, whose page directory is on the page.
    const g = guest('ud2', {
      fields: { guestIdtrBase: 0x4000_0000n, guestIdtrLimit: 0xfffn },
      prepare: (tables, { memory }) => {
        memory.write64(PDPT + 8, BigInt(DATA) | 7n);
        tables.map(DATA, ACCESS_PAGE);
      },
    });
    expect(exitOf(g)).toEqual({ exitReason: 44n, exitQualification: 0xa000n, guestRip: BigInt(GUEST) });
    expect(exitFields(g.cpu, 'originalEventIdentification').originalEventIdentification).toBe(0x8000_0306n);
  });

  it('PDPTEs that MOV to CR loads', () => {
    const code = assemble(
      `mov eax, ${DATA + 0x40}\nmov cr3, eax\nmov eax, cr4\nor eax, 0x20\nmov cr4, eax\n` +
        'mov eax, cr0\nor eax, 0x80000000\nmov cr0, eax',
      32,
      GUEST,
    );
    const g = guest('nop', {
      ...UNPAGED,
      controls: UNPAGED.controls ?? [],
      prepare: (_, { memory }) => memory.writeBytes(GUEST, code),
    });
    const exit = exitOf(g);
    expect([exit.exitReason, exit.exitQualification]).toEqual([44n, 0xf000n]);
    // MOV to CR0 has not happened.
    expect(exit.guestRip).toBe(BigInt(GUEST + code.length - 3));
    expect(exitFields(g.cpu, 'guestCr0').guestCr0 >> 31n).toBe(0n);
  });

  it('an EPT violation of the same access comes first: execute-only, not present', () => {
    const g = guest('nop', { prepare: (tables) => tables.map(PDPT, ACCESS_PAGE, Ept.X | Ept.WB) });
    expect(exitOf(g).exitReason).toBe(48n);
    const none = guest('nop', { prepare: (tables) => tables.map(PDPT, ACCESS_PAGE, 0n) });
    expect(exitOf(none).exitReason).toBe(48n);
  });
});
