/** When guest-physical addresses are translated, in which order what is found counts, and what two features have to do with each other (SDM §31.3, §28.5.7.3, §28.5.8). */
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
  REAL_MODE,
  UNPAGED,
} from '../../support/ept.ts';

const PML4 = 0x30_0000;
const PDPT = 0x30_1000;
const DIRECTORY = 0x30_2000;
const NOWHERE = 0x3f_0000;

function guestOf(code: string | Uint8Array, entry: bigint, options: EptGuestOptions = {}) {
  return eptGuest(code, {
    ...options,
    prepare: (tables, machine) => {
      tables.map(DATA, FRAME, entry);
      options.prepare?.(tables, machine);
    },
  });
}

describe('a guest-physical address is translated when it is used', () => {
  const unmapped: EptGuestOptions = { prepare: (tables) => tables.map(NOWHERE, 0, 0n) };

  it('MOV to CR3 meets nothing, the next access through it does', () => {
    const paged = eptExit(eptGuest(`mov rax, ${NOWHERE}\nmov cr3, rax\nvmcall`, unmapped));
    expect(paged).toMatchObject({
      reason: 48,
      guestPhysicalAddress: BigInt(NOWHERE),
      // The instruction after MOV to CR3.
      guestRip: BigInt(GUEST + 10),
    });
    const wrong = eptExit(
      eptGuest(`mov rax, ${NOWHERE}\nmov cr3, rax\nvmcall`, {
        prepare: (tables) => tables.map(NOWHERE, 0, Ept.W),
      }),
    );
    expect(wrong).toMatchObject({ reason: 49, guestRip: BigInt(GUEST + 10) });
  });

  it('without paging CR3 is not used at all', () => {
    const code = assemble(`mov eax, ${NOWHERE}\nmov cr3, eax\nvmcall`, 32, GUEST);
    expect(eptExit(eptGuest(code, { ...UNPAGED, ...unmapped })).reason).toBe(18);
  });

  it('PDPTEs are loaded through EPT by MOV to CR3 and CR4, what they hold is not translated', () => {
    const on =
      'mov eax, 0x70000\nmov cr3, eax\nmov eax, 0x20\nmov cr4, eax\nmov eax, 0x80000021\nmov cr0, eax';
    const options = (reload: number): EptGuestOptions => ({
      ...UNPAGED,
      fields: { ...UNPAGED.fields, cr4GuestHostMask: 0x2000n },
      prepare: (tables, { memory }) => {
        for (const at of [0x7_0000, 0x7_1000]) {
          memory.write64(at, 0x7_2001n);
          // Of another GByte, not mapped by EPT.
          memory.write64(at + 8, BigInt(NOWHERE) | 1n);
        }
        memory.write64(0x7_2000, 0x83n);
        tables.map(NOWHERE, 0, 0n);
        tables.map(reload, reload, Ept.X | Ept.WB);
      },
    });
    const run = (then: string, reload: number) =>
      eptExit(eptGuest(assemble(`${on}\n${then}\nvmcall`, 32, GUEST), options(reload)));
    const last = { reason: 48, exitQualification: 0x21n };
    expect(run('mov eax, 0x71000\nmov cr3, eax', NOWHERE).reason).toBe(18);
    expect(run('mov eax, 0x71000\nmov cr3, eax', 0x7_1000)).toMatchObject({
      ...last,
      guestPhysicalAddress: 0x7_1000n,
    });
    expect(run('mov eax, [0x40000000]', NOWHERE)).toMatchObject({ guestPhysicalAddress: BigInt(NOWHERE) });
    // CR3 changes while nothing is loaded from it: MOV to CR4 that changes PGE loads.
    const pge = eptGuest(assemble(`${on}\nmov eax, 0xa0\nmov cr4, eax\nvmcall`, 32, GUEST), options(NOWHERE));
    pge.cpu.run(6);
    pge.tables.map(0x7_0000, 0x7_0000, Ept.X | Ept.WB);
    pge.cpu.unit.ept.invalidateAllContexts();
    expect(eptExit(pge)).toMatchObject({ ...last, guestPhysicalAddress: 0x7_0000n });
  });
});

describe('what is reported', () => {
  const linear = ['linearAddressValid', 'translation', 'userMode', 'writablePage'];

  it('of a read across pages is the page that does not allow it', () => {
    const exit = eptExit(guestOf(`mov rax, ${DATA - 4}\nmov rax, [rax]`, Ept.X | Ept.WB));
    expect(exit).toMatchObject({ reason: 48, guestPhysicalAddress: BigInt(DATA) });
    expect(exit.set).toEqual(['read', 'executable', ...linear]);
  });

  it('of a misconfiguration during IRET is no unblocking of NMIs, and no linear address', () => {
    const guest = guestOf('iretq', Ept.W, {
      fields: { guestInterruptibilityState: 8n, guestRsp: BigInt(DATA) },
    });
    expect(eptExit(guest)).toMatchObject({ reason: 49, exitQualification: 0n });
    expect(guest.cpu.vmread('guestInterruptibilityState').value).toBe(0n);
  });

  it('of an access with a masked address is the address that was translated', () => {
    const exit = eptExit(
      guestOf(`mov rax, ${(0x5n << 57n) | BigInt(DATA)}\nmov rax, [rax]`, 0n, {
        // LAM57 of user-mode addresses.
        fields: { guestCr3: (1n << 61n) | BigInt(PML4) },
      }),
    );
    expect(exit).toMatchObject({ reason: 48, guestLinearAddress: BigInt(DATA) });
  });

  it('of events under delivery by software is the length of the instruction: log full, SPP miss', () => {
    // The frame of INT is pushed to the page.
    const fields = { guestRsp: BigInt(DATA + 0x100), guestIdtrBase: 0x4_1000n, guestIdtrLimit: 0xfffn };
    const gate = (8n << 16n) | (0x8en << 40n) | (0x4n << 48n);
    const prepare: EptGuestOptions['prepare'] = (_tables, { memory }) => {
      memory.write64(0x4_1000 + 16 * 0x21, gate);
      memory.write64(0x4_2008, 0x00af_9b00_0000_ffffn);
    };
    const gdt = { guestGdtrBase: 0x4_2000n, guestGdtrLimit: 0xffn };
    const log = guestOf('int 0x21', Ept.RWX | Ept.WB, {
      controls: ['proc2.enablePml'],
      eptpFlags: 0x40n,
      fields: { ...fields, ...gdt, pmlAddress: 0x28_0000n, pmlIndex: 512n },
      prepare: (tables, machine) => {
        // All flags are set but those of the page.
        const dirty = Ept.RWX | Ept.WB | Ept.A | Ept.D;
        tables.identity(0, 0x400, dirty);
        for (const level of [2, 3, 4]) {
          for (const at of [0, PML4]) tables.set(at, tables.get(at, level) | Ept.A, level);
        }
        tables.map(DATA, FRAME, Ept.RWX | Ept.WB);
        prepare?.(tables, machine);
      },
    });
    const spp = guestOf('int 0x21', Ept.R | Ept.X | Ept.WB | Ept.SubPages, {
      controls: ['proc2.subPageWritePermissionsForEpt'],
      fields: { ...fields, ...gdt, sppTablePointer: 0x28_0000n },
      prepare,
    });
    for (const [guest, reason] of [
      [log, 62],
      [spp, 66],
    ] as const) {
      expect(eptExit(guest).reason).toBe(reason);
      expect(guest.cpu.vmread('originalEventIdentification').value).toBe(0x8000_0421n);
      expect(guest.cpu.vmread('vmExitInstructionLength').value).toBe(2n);
    }
  });
});

describe('#VE', () => {
  it('takes the place of an exit only with CR0.PE', () => {
    const guest = guestOf(assemble('mov ax, [0]', 16, 0), Ept.RWX, {
      ...REAL_MODE,
      controls: [...(REAL_MODE.controls ?? []), 'proc2.eptViolationVe'],
      fields: {
        ...REAL_MODE.fields,
        virtualizationExceptionInformationAddress: 0x28_0000n,
        guestDsBase: BigInt(DATA),
        guestDsSelector: BigInt(DATA >> 4),
      },
      prepare: (tables) => tables.map(DATA, 0, 0n),
    });
    expect(eptExit(guest)).toMatchObject({ reason: 48 });
    expect(guest.machine.memory.read32(0x28_0000)).toBe(0);
  });

  it('with a page fault in its delivery is a double fault', () => {
    const guest = guestOf(`mov rax, [${DATA}]`, 0n, {
      controls: ['proc2.eptViolationVe'],
      fields: {
        virtualizationExceptionInformationAddress: 0x28_0000n,
        guestIdtrBase: 0x4000_0000n,
        guestIdtrLimit: 0xfffn,
        exceptionBitmap: 1n << 8n,
      },
    });
    expect(eptExit(guest).reason).toBe(0);
    expect(guest.cpu.vmread('exitingEventIdentification').value).toBe(0x8000_0b08n);
  });
});

describe('guest-paging verification', () => {
  const PWC: ControlId[] = ['proc.activateTertiaryControls', 'proc3.eptPagingWriteControl'];
  const GPV: ControlId[] = [...PWC, 'proc3.guestPagingVerification'];
  const READ = `mov rax, [${DATA}]\nvmcall`;

  it('is nothing without EPT paging-write control', () => {
    const without: ControlId[] = ['proc.activateTertiaryControls', 'proc3.guestPagingVerification'];
    expect(eptExit(guestOf(READ, Ept.RWX | Ept.WB | Ept.VerifyPaging, { controls: without })).reason).toBe(
      18,
    );
    expect(eptExit(guestOf(READ, Ept.RWX | Ept.WB | Ept.VerifyPaging, { controls: GPV })).reason).toBe(48);
  });

  it('comes after the page faults of the walk', () => {
    const guest = guestOf(READ, Ept.RWX | Ept.WB | Ept.VerifyPaging, {
      controls: GPV,
      fields: { exceptionBitmap: 1n << 14n },
      prepare: (_tables, { memory }) => {
        // The code is in the second 2 MBytes.
        memory.write64(DIRECTORY, 0x86n);
        memory.write64(DIRECTORY + 8, 0x87n);
      },
    });
    guest.cpu.set('RIP', BigInt(GUEST + 0x20_0000));
    expect(eptExit(guest).reason).toBe(0);
  });

  it('that fails is not made good by sub-page permissions', () => {
    const ROOT = 0x28_0000;
    const run = (flags: bigint) =>
      eptExit(
        guestOf(`mov [${DATA}], rax\nvmcall`, Ept.R | Ept.X | Ept.WB | Ept.SubPages | flags, {
          controls: [...GPV, 'proc2.subPageWritePermissionsForEpt'],
          fields: { sppTablePointer: BigInt(ROOT) },
          prepare: (_tables, { memory }) => {
            for (let n = 0; n < 3; n++)
              memory.write64(ROOT + 0x1000 * n, BigInt(ROOT + 0x1000 * (n + 1)) | 1n);
            memory.write64(ROOT + 0x3000 + 8 * (DATA >> 12), 1n);
          },
        }),
      ).reason;
    expect(run(0n)).toBe(18);
    expect(run(Ept.VerifyPaging)).toBe(48);
  });
});

describe('sub-page permissions', () => {
  it('allow a write across pages if they allow it on each, and write nothing otherwise', () => {
    const ROOT = 0x28_0000;
    const NEXT = DATA + 0x1000;
    const start = (first: bigint, second: bigint) =>
      guestOf(`mov rcx, ${NEXT - 4}\nmov [rcx], rcx\nvmcall`, Ept.R | Ept.X | Ept.WB | Ept.SubPages, {
        controls: ['proc2.subPageWritePermissionsForEpt'],
        fields: { sppTablePointer: BigInt(ROOT) },
        prepare: (tables, { memory }) => {
          tables.map(NEXT, FRAME + 0x1000, Ept.R | Ept.X | Ept.WB | Ept.SubPages);
          for (let n = 0; n < 3; n++) memory.write64(ROOT + 0x1000 * n, BigInt(ROOT + 0x1000 * (n + 1)) | 1n);
          memory.write64(ROOT + 0x3000 + 8 * (DATA >> 12), first);
          memory.write64(ROOT + 0x3008 + 8 * (DATA >> 12), second);
        },
      });
    const both = start(1n << 62n, 1n);
    expect(eptExit(both).reason).toBe(18);
    expect(both.machine.memory.read64(FRAME + 0xffc)).toBe(BigInt(NEXT - 4));
    for (const [first, second, address] of [
      [1n << 62n, 4n, NEXT],
      [1n, 1n, NEXT - 4],
    ] as const) {
      const denied = start(first, second);
      expect(eptExit(denied)).toMatchObject({ reason: 48, guestPhysicalAddress: BigInt(address) });
      expect(denied.machine.memory.read64(FRAME + 0xffc)).toBe(0n);
    }
  });
});

describe('EPTP switching', () => {
  const LIST = 0x28_0000;
  const OTHER = 0x29_0000;
  const switching = (change: (other: EptTables) => void): EptGuestOptions => ({
    controls: ['proc2.enableVmFunctions'],
    fields: { vmFunctionControls: 1n, eptpListAddress: BigInt(LIST) },
    prepare: (_tables, { memory }) => {
      const other = new EptTables(memory, OTHER);
      other.identity(0, 0x400);
      change(other);
      memory.write64(LIST, other.eptp());
    },
  });

  it('translates nothing itself: the next access meets what CR3 does not lead to', () => {
    const exit = eptExit(
      eptGuest(
        'xor eax, eax\nxor ecx, ecx\nvmfunc\nnop',
        switching((other) => other.map(PML4, 0, 0n)),
      ),
    );
    expect(exit).toMatchObject({
      reason: 48,
      guestPhysicalAddress: BigInt(PML4),
      guestRip: BigInt(GUEST + 7),
    });
  });

  it('leaves PDPTEs as they are, and translates them when they are used', () => {
    const code =
      'mov eax, 0x70000\nmov cr3, eax\nmov eax, 0x20\nmov cr4, eax\nmov eax, 0x80000021\nmov cr0, eax\n' +
      `mov ebx, [${DATA}]\nxor eax, eax\nxor ecx, ecx\nvmfunc\nmov eax, [${DATA}]\nvmcall`;
    const options = switching((other) => {
      // Under the other EPTP there is nothing where the PDPTEs were loaded from.
      other.map(0x7_0000, 0, 0n);
      other.map(DATA, FRAME + 0x1000);
    });
    const guest = eptGuest(assemble(code, 32, GUEST), {
      ...UNPAGED,
      controls: [...(UNPAGED.controls ?? []), ...(options.controls ?? [])],
      fields: { ...UNPAGED.fields, ...options.fields, cr4GuestHostMask: 0x2000n },
      prepare: (tables, machine) => {
        machine.memory.write64(0x7_0000, 0x7_2001n);
        machine.memory.write64(0x7_2000, 0x83n);
        machine.memory.write64(FRAME, 1n);
        machine.memory.write64(FRAME + 0x1000, 2n);
        options.prepare?.(tables, machine);
      },
    });
    expect(eptExit(guest).reason).toBe(18);
    expect([guest.cpu.get('RBX'), guest.cpu.get('RAX')]).toEqual([1n, 2n]);
    expect(guest.cpu.vmread('guestPdpte0').value).toBe(0x7_2001n);
  });

  it('is there for user code, too', () => {
    const guest = eptGuest('xor eax, eax\nxor ecx, ecx\nvmfunc\nvmcall', {
      ...switching(() => {}),
      fields: {
        ...switching(() => {}).fields,
        guestCsSelector: 0xbn,
        guestCsAccessRights: 0xa0fbn,
        guestSsSelector: 0x13n,
        guestSsAccessRights: 0xc0f3n,
      },
    });
    expect(eptExit(guest).reason).toBe(18);
    expect(guest.cpu.vmread('eptPointer').value).toBe(BigInt(OTHER) | 0x1en);
  });
});

describe('HLAT paging', () => {
  it('is used with 5-level paging, from the same prefix on', () => {
    const ROOT = 0x28_0000;
    const guest = eptGuest(`mov rcx, 0xff00000000005000\nmov rax, [rcx]\nvmcall`, {
      controls: ['proc.activateTertiaryControls', 'proc3.enableHlat'],
      fields: {
        hlatPointer: BigInt(ROOT),
        hlatPrefixSize: 8n,
        guestCr4: 0x3020n,
        hostCr4: 0x3020n,
        guestCr3: 0x2a_0000n,
        hostCr3: 0x2a_0000n,
      },
      prepare: (_tables, { memory }) => {
        // For the guest: 5 levels, the first with one entry; for HLAT: 5 levels for the upper half.
        memory.write64(0x2a_0000, BigInt(PML4) | 7n);
        memory.write64(ROOT + 0x800, BigInt(ROOT + 0x1000) | 7n);
        memory.write64(ROOT + 0x1000, BigInt(ROOT + 0x2000) | 7n);
        memory.write64(ROOT + 0x2000, BigInt(ROOT + 0x3000) | 7n);
        memory.write64(ROOT + 0x3000, 0x20_0087n);
        memory.write64(0x20_5000, 9n);
        memory.write64(PDPT + 8, 0n);
      },
    });
    expect(eptExit(guest).reason).toBe(18);
    expect(guest.cpu.get('RAX')).toBe(9n);
  });
});
