/** Unrestricted guests and PAE paging under EPT (SDM §28.6, §31.3.1, §31.3.3.2). */
import { describe, expect, it } from 'vitest';
import { assemble } from '../../support/assemble.ts';
import {
  DATA,
  Ept,
  type EptGuestOptions,
  eptGuest,
  FRAME,
  GUEST,
  REAL_MODE,
  UNPAGED,
} from '../../support/ept.ts';
import { exitFields, runToExit } from '../../support/guest.ts';

const code = (source: string, bits: 16 | 32) => assemble(source, bits, bits === 16 ? 0 : GUEST);

function exitOf({ cpu }: ReturnType<typeof eptGuest>) {
  runToExit(cpu);
  const fields = exitFields(
    cpu,
    'exitReason',
    'exitQualification',
    'guestLinearAddress',
    'guestPhysicalAddress',
    'guestRip',
    'guestCr0',
    'originalEventIdentification',
  );
  return { ...fields, reason: Number(fields.exitReason) };
}

describe('an unrestricted guest', () => {
  it('runs in real-address mode, its addresses translated by EPT', () => {
    const guest = eptGuest(code('mov ax, 0x7000\nmov ds, ax\nmov ax, [0xfffe]\ncpuid', 16), {
      ...REAL_MODE,
      prepare: (tables) => tables.map(0x7_f000, FRAME),
    });
    guest.machine.memory.write16(FRAME + 0xffe, 0xabcd);
    expect(exitOf(guest).reason).toBe(10);
    expect(guest.cpu.get('RAX') & 0xffffn).toBe(0xabcdn);
  });

  it('reports a user-mode, writable page without paging', () => {
    const guest = eptGuest(code(`mov eax, [${DATA + 4}]`, 32), {
      ...UNPAGED,
      prepare: (tables) => tables.map(DATA, FRAME, Ept.X | Ept.WB),
    });
    expect(exitOf(guest)).toMatchObject({
      reason: 48,
      exitQualification: 0x7a1n,
      guestLinearAddress: BigInt(DATA + 4),
      guestPhysicalAddress: BigInt(DATA + 4),
    });
  });

  it('delivers interrupts through the vectors of real-address mode, and reports what their delivery meets', () => {
    const options: EptGuestOptions = {
      ...REAL_MODE,
      fields: { ...REAL_MODE.fields, guestIdtrLimit: 0x3ffn, guestIdtrBase: 0n },
    };
    const delivered = eptGuest(code('int 0x21', 16), options);
    delivered.machine.memory.write32(0x84, 0x1000_0080);
    delivered.machine.memory.writeBytes(GUEST + 0x80, Uint8Array.of(0x0f, 0xa2));
    expect(exitOf(delivered)).toMatchObject({ reason: 10, guestRip: 0x80n });
    const met = eptGuest(code('nop\nint 0x21', 16), {
      ...options,
      prepare: (tables) => tables.map(0, 0, 0n),
    });
    expect(exitOf(met)).toMatchObject({
      reason: 48,
      guestPhysicalAddress: 0x84n,
      guestRip: 1n,
      originalEventIdentification: 0x8000_0421n,
    });
    expect(exitFields(met.cpu, 'vmExitInstructionLength').vmExitInstructionLength).toBe(2n);
  });

  it('turns protection and paging on and off itself', () => {
    const source = 'mov eax, cr0\nor eax, 1\nmov cr0, eax\nand al, 0xfe\nmov cr0, eax\ncpuid';
    const guest = eptGuest(code(source, 16), REAL_MODE);
    expect(exitOf(guest)).toMatchObject({ reason: 10, guestCr0: 0x30n });
  });

  it('cannot clear CR0.NE, nor set CR0.PG without CR0.PE', () => {
    for (const value of ['0x10', '0x80000030']) {
      const guest = eptGuest(code(`mov eax, ${value}\nmov cr0, eax`, 16), {
        ...REAL_MODE,
        fields: { ...REAL_MODE.fields, exceptionBitmap: 1n << 13n },
      });
      expect(exitOf(guest).reason).toBe(0);
    }
  });
});

describe('PAE paging under EPT', () => {
  const TABLE = 0x7_0020;
  const load = code(
    `mov eax, ${TABLE}\nmov cr3, eax\nmov eax, 0x20\nmov cr4, eax\nmov eax, 0x80000021\nmov cr0, eax\nmov ebx, [${DATA}]\ncpuid`,
    32,
  );
  const options = (prepare: NonNullable<EptGuestOptions['prepare']>): EptGuestOptions => ({
    ...UNPAGED,
    fields: { ...UNPAGED.fields, cr4GuestHostMask: 0x2000n, exceptionBitmap: 1n << 13n },
    prepare: (tables, machine) => {
      machine.memory.write64(0x9_1020, 0x7_2001n);
      machine.memory.write64(0x9_2000, 0x83n);
      tables.map(0x7_0000, 0x9_1000);
      tables.map(0x7_2000, 0x9_2000);
      prepare(tables, machine);
    },
  });

  it('loads PDPTEs through EPT, and translates them when they are used', () => {
    const guest = eptGuest(
      load,
      options(() => {}),
    );
    guest.machine.memory.write32(FRAME, 0x1234_5678);
    expect(exitOf(guest).reason).toBe(10);
    expect(exitFields(guest.cpu, 'guestPdpte0').guestPdpte0).toBe(0x7_2001n);
  });

  it('reports the load without a linear address', () => {
    const guest = eptGuest(
      load,
      options((tables) => tables.map(0x7_0000, 0x9_1000, Ept.X | Ept.WB)),
    );
    expect(exitOf(guest)).toMatchObject({
      reason: 48,
      exitQualification: 0x21n,
      guestPhysicalAddress: BigInt(TABLE),
      guestCr0: 0x31n,
    });
  });

  it('reads the PDPTEs with accessed and dirty flags for EPT, too', () => {
    const guest = eptGuest(load, {
      ...options((tables) => tables.map(0x7_0000, 0x9_1000, Ept.R | Ept.WB)),
      eptpFlags: 0x40n,
    });
    expect(exitOf(guest).reason).toBe(10);
    expect(guest.tables.get(0x7_0000) & (Ept.A | Ept.D)).toBe(Ept.A);
  });

  it('refuses PDPTEs with reserved bits', () => {
    const guest = eptGuest(
      load,
      options((_, { memory }) => memory.write64(0x9_1020, 0x7_2003n)),
    );
    expect(exitOf(guest).reason).toBe(0);
  });
});
