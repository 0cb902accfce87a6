/** EPT translation and the exits of accesses that it does not allow (SDM §31.3.2, §31.3.3, §30.2.1). */
import { describe, expect, it } from 'vitest';
import { Field } from '../../../src/index.ts';
import { DATA, Ept, type EptGuestOptions, eptExit, eptGuest, FRAME, GUEST } from '../../support/ept.ts';
import { exitFields } from '../../support/guest.ts';

const LENGTH = Field.vmExitInstructionLength;
const READ = `mov rax, [${DATA + 0x18}]\nvmcall`;
const WRITE = `mov [${DATA + 0x18}], rbx\nvmcall`;
const FETCH = `mov rax, ${DATA + 0x18}\njmp rax`;

function run(code: string, entry: bigint, options: EptGuestOptions = {}) {
  return eptExit(
    eptGuest(code, {
      ...options,
      prepare: (tables, machine) => {
        tables.map(DATA, FRAME, entry);
        options.prepare?.(tables, machine);
      },
    }),
  );
}

describe('translation', () => {
  it('takes loads, stores and code to the page that EPT maps', () => {
    const guest = eptGuest(`mov rax, [${DATA}]\nmov [${DATA + 8}], rax\nmov rcx, ${DATA + 0x100}\njmp rcx`);
    guest.machine.memory.write64(FRAME, 0x1122_3344_5566_7788n);
    guest.machine.memory.writeBytes(FRAME + 0x100, Uint8Array.of(0x0f, 0x01, 0xc1));
    expect(eptExit(guest).reason).toBe(18);
    expect(guest.machine.memory.read64(FRAME + 8)).toBe(0x1122_3344_5566_7788n);
    expect(guest.machine.memory.read64(DATA + 8)).toBe(0n);
  });

  for (const levels of [4, 5] as const) {
    it(`uses pages of 2 MBytes and 1 GByte with ${levels} levels`, () => {
      const guest = eptGuest(`mov rax, [${0x4012_3450}]\nmov rcx, ${0x8012_3450}\nmov rbx, [rcx]\nvmcall`, {
        levels,
        prepare: (tables, machine) => {
          // The guest maps 1 GByte at 40000000H and 80000000H one to one.
          machine.memory.write64(0x30_1008, 0x4000_0087n);
          machine.memory.write64(0x30_1010, 0x8000_0087n);
          tables.set(0x4000_0000, 0x80_0000n | Ept.RWX | Ept.WB | Ept.Page, 2);
          tables.set(0x8000_0000, 0x1_4000_0000n | Ept.RWX | Ept.WB | Ept.Page, 3);
        },
      });
      guest.machine.memory.write64(0x92_3450, 1n);
      guest.machine.memory.write64(0x1_4012_3450, 2n);
      expect(eptExit(guest).reason).toBe(18);
      expect(guest.cpu.get('RAX')).toBe(1n);
      expect(guest.cpu.get('RBX')).toBe(2n);
    });
  }
});

describe('EPT violations', () => {
  const linear = ['linearAddressValid', 'translation', 'userMode', 'writablePage'];

  it('reports kind of access, rights and addresses of a read', () => {
    const exit = run(READ, Ept.X | Ept.WB);
    expect(exit).toMatchObject({
      reason: 48,
      guestLinearAddress: BigInt(DATA + 0x18),
      guestRip: BigInt(GUEST),
    });
    expect(exit.guestPhysicalAddress).toBe(BigInt(DATA + 0x18));
    expect(exit.set).toEqual(['read', 'executable', ...linear]);
  });

  it('reports a write', () => {
    expect(run(WRITE, Ept.R | Ept.X | Ept.WB).set).toEqual(['write', 'readable', 'executable', ...linear]);
  });

  it('reports a fetch, and saves the RIP of the instruction', () => {
    const exit = run(FETCH, Ept.R | Ept.W | Ept.WB);
    expect(exit.set).toEqual(['fetch', 'readable', 'writable', ...linear]);
    expect(exit.guestRip).toBe(BigInt(DATA + 0x18));
  });

  it('reports a page that is not present without rights', () => {
    expect(run(READ, 0n).set).toEqual(['read', ...linear]);
    expect(run(READ, 0x7fff_ffff_ffff_fff8n).set).toEqual(['read', ...linear]);
  });

  it('is judged by all entries together', () => {
    const guest = eptGuest(WRITE, {
      prepare: (tables) => tables.set(DATA, tables.get(DATA, 2) & ~Ept.W, 2),
    });
    expect(eptExit(guest).set).toEqual(['write', 'readable', 'executable', ...linear]);
  });

  it('looks at rights only when the page is found', () => {
    const guest = eptGuest(READ, {
      prepare: (tables) => {
        tables.set(DATA, tables.get(DATA, 2) & ~Ept.R & ~Ept.W, 2);
        tables.map(DATA, FRAME, Ept.W);
        tables.map(GUEST, GUEST, Ept.X | Ept.WB);
      },
    });
    expect(eptExit(guest)).toMatchObject({
      reason: 49,
      exitQualification: 0n,
      guestPhysicalAddress: BigInt(DATA + 0x18),
    });
  });

  it('reports both kinds of access of an instruction that reads and writes', () => {
    expect(run(`add qword ptr [${DATA}], 1`, Ept.R | Ept.WB).set).toEqual([
      'read',
      'write',
      'readable',
      ...linear,
    ]);
  });

  it('is met before anything of a store across pages is written', () => {
    const exit = run(`mov [${DATA - 4}], rbx`, Ept.R | Ept.WB);
    expect(exit).toMatchObject({
      reason: 48,
      guestLinearAddress: BigInt(DATA),
      guestPhysicalAddress: BigInt(DATA),
    });
  });

  it('reports no rights of the guest without advanced information', () => {
    const exit = run(READ, 0n, { profile: 'broadwell' });
    expect(exit.set).toEqual(['read', 'linearAddressValid', 'translation']);
  });

  it('reports supervisor-mode, read-only and execute-disabled pages', () => {
    const exit = run(READ, 0n, {
      prepare: (_tables, machine) => {
        machine.memory.write64(0x30_2000, 0x8000_0000_0000_0081n);
        // The code, elsewhere.
        machine.memory.write64(0x30_2008, 0x87n);
      },
      controls: ['entry.loadIa32Efer'],
      fields: { guestIa32Efer: 0xd00n, guestRip: BigInt(GUEST + 0x20_0000) },
    });
    expect(exit.set).toEqual(['read', 'linearAddressValid', 'translation', 'executeDisable']);
  });
});

describe('the length of the instruction', () => {
  it('is told of the access that it makes, and not of fetching it', () => {
    const length = (code: string) => {
      const guest = eptGuest(code, { prepare: (tables) => tables.map(DATA, FRAME, 0n) });
      guest.cpu.unit.vmx.current?.words.fill(0x1f, 2 * LENGTH, 2 * LENGTH + 1);
      expect(eptExit(guest).reason).toBe(48);
      return exitFields(guest.cpu, 'vmExitInstructionLength').vmExitInstructionLength;
    };
    expect(length(`mov ecx, ${DATA}\nmov rax, [rcx]`)).toBe(3n);
    expect(length(`mov ecx, ${DATA}\nmov dword ptr [rcx + 0x100], 5`)).toBe(10n);
    expect(length(`mov ecx, ${DATA}\njmp rcx`)).toBe(0x1fn);
  });
});

describe('accesses to guest paging structures', () => {
  const PML4 = 0x30_0000;
  const entry = ['linearAddressValid'];

  it('are reads, and writes that set accessed flags', () => {
    const denied = (flags: bigint) =>
      eptExit(eptGuest(READ, { prepare: (tables) => tables.map(PML4, PML4, flags) }));
    expect(denied(Ept.X | Ept.WB)).toMatchObject({
      set: ['read', 'executable', ...entry],
      guestLinearAddress: BigInt(GUEST),
      guestPhysicalAddress: BigInt(PML4),
    });
    // The flag is set by reading and writing the entry.
    expect(denied(Ept.R | Ept.WB).set).toEqual(['read', 'write', 'readable', ...entry]);
  });

  it('need no right to write once the flags are set', () => {
    const guest = eptGuest(READ, {
      prepare: (tables, { memory }) => {
        memory.write64(PML4, memory.read64(PML4) | 0x20n);
        tables.map(PML4, PML4, Ept.R | Ept.WB);
      },
    });
    expect(eptExit(guest).reason).toBe(18);
  });

  it('are reads and writes with accessed and dirty flags for EPT', () => {
    const guest = eptGuest(READ, {
      eptpFlags: 0x40n,
      prepare: (tables, { memory }) => {
        memory.write64(PML4, memory.read64(PML4) | 0x20n);
        tables.map(PML4, PML4, Ept.R | Ept.WB);
      },
    });
    expect(eptExit(guest).set).toEqual(['read', 'write', 'readable', ...entry]);
  });

  it('come before the page faults that depend on them, and those before the page', () => {
    const guest = eptGuest(READ, {
      fields: { exceptionBitmap: 1n << 14n },
      prepare: (tables, { memory }) => {
        memory.write64(0x30_2000, 0x86n);
        memory.write64(0x30_2008, 0x87n);
        tables.map(DATA, FRAME, 0n);
      },
      controls: [],
    });
    guest.cpu.set('RIP', BigInt(GUEST + 0x20_0000));
    expect(eptExit(guest)).toMatchObject({ reason: 0, exitQualification: BigInt(DATA + 0x18) });
  });
});

describe('accessed and dirty flags', () => {
  it('are set along the walk, the dirty flag only by writes', () => {
    const guest = eptGuest(`mov rax, [${DATA}]\nmov [${DATA + 0x1000}], rax\nvmcall`, { eptpFlags: 0x40n });
    expect(eptExit(guest).reason).toBe(18);
    const flags = (address: number, level: number) => guest.tables.get(address, level) & (Ept.A | Ept.D);
    expect([1, 2, 3, 4].map((level) => flags(DATA, level))).toEqual([Ept.A, Ept.A, Ept.A, Ept.A]);
    expect(flags(DATA + 0x1000, 1)).toBe(Ept.A | Ept.D);
    expect(flags(0x30_0000, 1)).toBe(Ept.A | Ept.D);
    expect(flags(DATA + 0x2000, 1)).toBe(0n);
  });

  it('are left alone without EPTP bit 6', () => {
    const guest = eptGuest(WRITE);
    expect(eptExit(guest).reason).toBe(18);
    expect(guest.tables.get(DATA) & (Ept.A | Ept.D)).toBe(0n);
    expect(guest.tables.get(DATA, 4) & Ept.A).toBe(0n);
  });

  it('sets the dirty flag by the first write after reads', () => {
    const guest = eptGuest(`mov rax, [${DATA}]\nmov rax, [${DATA}]\nmov [${DATA}], rax\nvmcall`, {
      eptpFlags: 0x40n,
    });
    guest.cpu.run(2);
    expect(guest.tables.get(DATA) & Ept.D).toBe(0n);
    guest.cpu.run(1);
    expect(guest.tables.get(DATA) & Ept.D).toBe(Ept.D);
  });
});

describe('what an exit says of the instruction', () => {
  it('reports blocking by NMI that IRET has ended, once', () => {
    const guest = eptGuest('iretq\nvmcall', {
      fields: { guestInterruptibilityState: 8n, guestRsp: BigInt(DATA) },
      prepare: (tables) => tables.map(DATA, FRAME, 0n),
    });
    expect(eptExit(guest).set).toContain('nmiUnblocking');
    expect(guest.cpu.vmread('guestInterruptibilityState').value).toBe(0n);
    guest.cpu.vmwrite('guestRip', BigInt(GUEST));
    expect(guest.cpu.vmresume().kind).toBe('VMentry');
    expect(eptExit(guest).set).not.toContain('nmiUnblocking');
  });

  it('saves RF as 1', () => {
    const guest = eptGuest(READ, { prepare: (tables) => tables.map(DATA, FRAME, 0n) });
    eptExit(guest);
    expect(guest.cpu.vmread('guestRflags').value).toBe(0x1_0002n);
  });

  it('leaves a repeated instruction where it met the page', () => {
    const guest = eptGuest(`mov rdi, ${DATA - 8}\nmov ecx, 3\nrep stosq`, {
      prepare: (tables) => tables.map(DATA, FRAME, Ept.R | Ept.WB),
    });
    expect(eptExit(guest)).toMatchObject({ reason: 48, guestLinearAddress: BigInt(DATA) });
    expect(guest.cpu.get('RCX')).toBe(2n);
  });
});
