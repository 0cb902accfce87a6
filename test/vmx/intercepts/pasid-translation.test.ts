/** PASID translation (SDM §28.5.9) and the exits of ENQCMD and ENQCMDS. */
import { describe, expect, it } from 'vitest';
import type { ControlId } from '../../../src/vmcs/controls.ts';
import { NO_PASID, translatePasid } from '../../../src/vmx/intercepts/pasid-translation.ts';
import { DATA, eptExit, eptGuest, FRAME } from '../../support/ept.ts';
import { exitFields, GUEST, type GuestOptions, guestMachine, runToExit } from '../../support/guest.ts';
import type { FieldValues } from '../../support/legal-vmcs.ts';
import { guestProcessor } from '../../support/vmx-processor.ts';

const LOW = 0x6_0000;
const HIGH = 0x6_1000;
const TABLE = 0x6_2000;
const TRANSLATION: readonly ControlId[] = ['proc2.pasidTranslation'];
const FIELDS: FieldValues = {
  lowPasidDirectoryAddress: BigInt(LOW),
  highPasidDirectoryAddress: BigInt(HIGH),
};
const VALID = 0x8000_0000;

describe('translation', () => {
  function translate(pasid: number, directory: bigint, entry: number, registers = {}) {
    const p = guestProcessor({ controls: TRANSLATION, fields: FIELDS, registers });
    const base = pasid & 0x8_0000 ? HIGH : LOW;
    p.cpu.memory.write64(base + 8 * ((pasid >> 10) & 0x1ff), directory);
    p.cpu.memory.write32(TABLE + 4 * (pasid & 0x3ff), entry);
    return translatePasid(p, p.copy, pasid);
  }

  it.each([0, 1, 0x3ff, 0x400, 0x7_ffff, 0x8_0000, 0xf_ffff])('PASID %i has its entries', (pasid) => {
    expect(translate(pasid, BigInt(TABLE) | 1n, VALID | 0xa_bcde)).toBe(0xa_bcde);
  });

  it.each<[string, bigint, number]>([
    ['of the directory is not present', BigInt(TABLE), VALID],
    ['of the directory has a low reserved bit', BigInt(TABLE) | 3n, VALID],
    ['of the directory has bit 11', BigInt(TABLE) | 0x801n, VALID],
    ['of the directory goes beyond the physical-address width', BigInt(TABLE) | 1n | (1n << 52n), VALID],
    ['of the table is not valid', BigInt(TABLE) | 1n, 5],
    ['of the table has bit 20', BigInt(TABLE) | 1n, VALID | 0x10_0000],
    ['of the table has bit 30', BigInt(TABLE) | 1n, VALID | 0x4000_0000],
  ])('there is none if the entry %s', (_, directory, entry) => {
    expect(translate(3, directory, entry)).toBe(NO_PASID);
  });

  it('the width is what total memory encryption leaves', () => {
    const entry = BigInt(TABLE) | 1n | (1n << 51n);
    expect(translate(3, entry, VALID, { IA32_TME_ACTIVATE: (1n << 36n) | 1n })).toBe(NO_PASID);
    const processor = guestProcessor({ controls: TRANSLATION, fields: FIELDS });
    expect(processor.cpu.features.physicalAddressBits).toBe(52);
  });
});

describe.each([
  ['ENQCMD', 0xf2, 72, 0x8_1234n],
  ['ENQCMDS', 0xf3, 73, 0xfff8_1234n],
] as const)('%s in VMX non-root operation', (_, prefix, reason, qualification) => {
  const code = Uint8Array.of(prefix, 0x0f, 0x38, 0xf8, 0x03, 0x0f, 0x01, 0xc1);
  const registers = { RAX: BigInt(DATA), RBX: 0x7_0000n, IA32_PASID: 0x8008_1234n } as const;

  function exit(options: GuestOptions, state: Partial<Record<keyof typeof registers, bigint>> = {}) {
    const machine = guestMachine(code, { level: 'complete', ...options });
    const { memory } = machine;
    memory.write32(0x7_0000, 0xfff8_1234);
    memory.write64(HIGH + 8 * (0x1234 >> 10), BigInt(TABLE) | 1n);
    const cpu = machine.cpu(0);
    for (const [name, value] of Object.entries({ ...registers, ...state })) cpu.set(name as 'RAX', value);
    runToExit(cpu);
    const fields = exitFields(
      cpu,
      'exitReason',
      'exitQualification',
      'guestRip',
      'vmExitInstructionLength',
      'guestRflags',
    );
    return {
      reason: Number(fields.exitReason),
      qualification: fields.exitQualification,
      length: Number(fields.vmExitInstructionLength),
      offset: Number(fields.guestRip) - GUEST,
      zf: (fields.guestRflags >> 6n) & 1n,
    };
  }
  const translating: GuestOptions = {
    controls: TRANSLATION,
    fields: { ...FIELDS, exceptionBitmap: 0x2000n },
  };

  it('executes without "PASID translation"', () => {
    expect(exit({})).toMatchObject({ reason: 18, offset: 5, zf: 1n });
  });

  it('exits if there is no translation, before what is wrong with the destination', () => {
    const at = { reason, qualification, length: 5, offset: 0 };
    expect(exit(translating)).toMatchObject(at);
    expect(exit(translating, { RAX: BigInt(DATA) + 1n })).toMatchObject(at);
  });

  it('faults before that if the source cannot be read', () => {
    expect(exit(translating, { RBX: 1n << 60n })).toMatchObject({ reason: 0 });
  });

  it('executes if there is one', () => {
    const setUp = translating;
    const machine = {
      ...setUp,
      setUp: (m: Parameters<NonNullable<GuestOptions['setUp']>>[0]) =>
        m.memory.write32(TABLE + 4 * (0x1234 & 0x3ff), VALID | 7),
    };
    expect(exit(machine)).toMatchObject({ reason: 18, offset: 5, zf: 1n });
  });

  it('needs write access to the destination', () => {
    const guest = eptGuest(code, {
      level: 'complete',
      prepare: (tables) => tables.set(DATA, BigInt(FRAME) | 1n),
    });
    for (const [name, value] of Object.entries(registers)) guest.cpu.set(name as 'RAX', value);
    expect(eptExit(guest)).toMatchObject({
      reason: 48,
      guestLinearAddress: BigInt(DATA),
      guestRip: BigInt(GUEST),
    });
  });
});
