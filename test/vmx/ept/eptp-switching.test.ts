/** EPTP switching by guest code (SDM §28.5.7.3). */
import { describe, expect, it } from 'vitest';
import type { ControlId } from '../../../src/vmcs/controls.ts';
import { assemble } from '../../support/assemble.ts';
import {
  DATA,
  Ept,
  type EptGuestOptions,
  EptTables,
  eptExit,
  eptGuest,
  FRAME,
  GUEST,
  UNPAGED,
} from '../../support/ept.ts';

const PML4 = 0x30_0000;
const DIRECTORY = 0x30_2000;
const AD = 0x40n;

/** A 32-bit guest with PAE paging. */
const PAE: EptGuestOptions = {
  controls: ['entry.loadIa32Efer'],
  off: ['entry.ia32eModeGuest'],
  fields: { ...UNPAGED.fields, guestCr0: 0x8000_0031n, guestCr4: 0x2020n, exceptionBitmap: 1n << 14n },
};

describe('EPTP switching', () => {
  const LIST = 0x28_0000;
  const OTHER = 0x29_0000;
  const start = (
    code: string | Uint8Array,
    options: EptGuestOptions = {},
    entry?: (other: EptTables) => bigint,
  ) =>
    eptGuest(code, {
      ...options,
      controls: ['proc2.enableVmFunctions', ...(options.controls ?? [])],
      fields: { vmFunctionControls: 1n, eptpListAddress: BigInt(LIST), ...options.fields },
      prepare: (_tables, { memory }) => {
        const other = new EptTables(memory, OTHER);
        other.identity(0, 0x400);
        memory.write64(LIST + 8 * 511, entry?.(other) ?? other.eptp());
        memory.write64(FRAME, 1n);
        memory.write64(DATA, 2n);
      },
    });
  const SWITCH = `mov rax, [${DATA}]\nmov rbx, rax\nxor eax, eax\nmov ecx, 511\nvmfunc\nmov rax, [${DATA}]\nmov rdx, rax\nvmcall`;

  it('uses the new tables at once, without and with VPIDs', () => {
    for (const controls of [[], ['proc2.enableVpid']] as ControlId[][]) {
      const guest = start(SWITCH, { controls, ...(controls.length === 0 ? {} : { fields: { vpid: 5n } }) });
      expect(eptExit(guest).reason).toBe(18);
      expect(guest.cpu.get('RBX')).toBe(1n);
      expect(guest.cpu.get('RDX')).toBe(2n);
      expect(guest.cpu.vmread('eptPointer').value).toBe(BigInt(OTHER) | 0x1en);
      expect(guest.cpu.vmread('eptpIndex').value).toBe(511n);
    }
  });

  it('exits for an index beyond the list, an EPTP that VM entry refuses, and another walk length', () => {
    expect(eptExit(start('xor eax, eax\nmov ecx, 512\nvmfunc'))).toMatchObject({
      reason: 59,
      exitQualification: 0n,
    });
    expect(eptExit(start(SWITCH, {}, (other) => other.eptp() | 0x100n)).reason).toBe(59);
    expect(eptExit(start(SWITCH, {}, (other) => other.eptp() ^ 0x38n ^ 0x20n)).reason).toBe(59);
    expect(eptExit(start('mov eax, 1\nvmfunc')).reason).toBe(59);
  });

  it('is undefined for functions above 63 and without the control', () => {
    const ud = { fields: { exceptionBitmap: 1n << 6n } };
    expect(eptExit(start('mov eax, 64\nvmfunc', ud)).reason).toBe(0);
    const guest = eptGuest('xor eax, eax\nvmfunc', ud);
    expect(eptExit(guest).reason).toBe(0);
  });

  it('does not exit for paging structures that the new tables do not map, but the next access does', () => {
    const guest = start('xor eax, eax\nmov ecx, 511\nvmfunc\nafter: nop\nvmcall', {}, (other) => {
      other.map(PML4, PML4, 0n);
      return other.eptp();
    });
    expect(eptExit(guest)).toMatchObject({
      reason: 48,
      guestRip: BigInt(GUEST + 10),
      guestPhysicalAddress: BigInt(PML4),
    });
    expect(guest.cpu.vmread('eptPointer').value).toBe(BigInt(OTHER) | 0x1en);
  });

  it('leaves the PDPTEs of PAE paging until CR3 is written', () => {
    const CR3 = 0x2f_0000;
    const MOVED = 0x2f_1000;
    // Under the other tables the first PDPTE is not present.
    const run = (code: string) =>
      eptExit(
        start(
          assemble(`xor eax, eax\nmov ecx, 511\nvmfunc\n${code}\nmov ebx, [${DATA}]\nvmcall`, 32, GUEST),
          {
            ...PAE,
            fields: { ...PAE.fields, guestCr3: BigInt(CR3), guestPdpte0: BigInt(DIRECTORY) | 1n },
          },
          (other) => {
            other.map(CR3, MOVED);
            return other.eptp();
          },
        ),
      );
    expect(run('')).toMatchObject({ reason: 18 });
    expect(run('mov eax, cr3\nmov cr3, eax')).toMatchObject({ reason: 0 });
  });

  it.each([
    ['retain', false],
    ['none', true],
  ] as const)(
    'may miss flags that mappings of the same root without them do not set: %s',
    (translations, isSet) => {
      const root = (flags: bigint) => BigInt(0x38_0000) | 0x1en | flags;
      const code = `mov rax, [${DATA}]\nxor eax, eax\nmov ecx, 511\nvmfunc\nmov rax, [${DATA}]\nvmcall`;
      const guest = start(code, { translations, controls: ['proc2.enableVpid'], fields: { vpid: 5n } }, () =>
        root(AD),
      );
      expect(eptExit(guest).reason).toBe(18);
      expect((guest.tables.get(DATA) & Ept.A) !== 0n).toBe(isSet);
    },
  );
});
