/** What EPT has beside rights: mode-based execution, the log, #VE, EPTP switching, sub-pages, paging writes, HLAT (SDM chapter 31, §28.5.7, §28.5.8). */
import { describe, expect, it } from 'vitest';
import type { ControlId } from '../../../src/vmcs/controls.ts';
import { assemble } from '../../support/assemble.ts';
import {
  DATA,
  Ept,
  type EptGuest,
  type EptGuestOptions,
  type EptTables,
  eptExit,
  eptGuest,
  FRAME,
  GUEST,
  REAL_MODE,
  UNPAGED,
} from '../../support/ept.ts';
import { runToExit } from '../../support/guest.ts';

const PML4 = 0x30_0000;
const PDPT = 0x30_1000;
const DIRECTORY = 0x30_2000;
const AD = 0x40n;
const linear = ['linearAddressValid', 'translation', 'userMode', 'writablePage'];

function guestWith(
  code: string,
  controls: readonly ControlId[],
  entry: bigint,
  options: EptGuestOptions = {},
) {
  return eptGuest(code, {
    ...options,
    controls: [...controls, ...(options.controls ?? [])],
    prepare: (tables, machine) => {
      tables.map(DATA, FRAME, entry);
      machine.memory.writeBytes(FRAME, Uint8Array.of(0x0f, 0x01, 0xc1));
      options.prepare?.(tables, machine);
    },
  });
}

describe('MONITOR', () => {
  it('monitors the line to which EPT translates', () => {
    const { cpu, machine } = eptGuest(`mov eax, ${DATA}\nxor ecx, ecx\nxor edx, edx\nmonitor\nmwait\nvmcall`);
    cpu.run(10);
    machine.memory.write8(DATA, 1);
    cpu.run(10);
    expect(cpu.operation).toBe('non-root');
    machine.memory.write8(FRAME + 63, 1);
    cpu.run(10);
    expect(cpu.operation).toBe('root');
  });
});

describe('mode-based execute control', () => {
  const MBEC: ControlId[] = ['proc2.modeBasedExecuteControlForEpt'];
  const jump = `mov rax, ${DATA}\njmp rax`;

  it('lets user-mode addresses be executed by bit 10, others by bit 2', () => {
    expect(eptExit(guestWith(jump, MBEC, Ept.R | Ept.X | Ept.WB)).set).toEqual([
      'fetch',
      'readable',
      'executable',
      ...linear,
    ]);
    expect(eptExit(guestWith(jump, MBEC, Ept.R | Ept.XU | Ept.WB)).reason).toBe(18);
    // The page of the code becomes a supervisor-mode one.
    const supervisor = (entry: bigint) =>
      guestWith(`mov rax, ${DATA + 0x20_0000}\njmp rax`, MBEC, entry, {
        prepare: (_tables, { memory }) => memory.write64(DIRECTORY + 8, 0x83n),
      });
    expect(eptExit(supervisor(Ept.R | Ept.X | Ept.WB)).reason).toBe(18);
    expect(eptExit(supervisor(Ept.R | Ept.XU | Ept.WB)).set).toEqual([
      'fetch',
      'readable',
      'userExecutable',
      'linearAddressValid',
      'translation',
      'writablePage',
    ]);
  });

  it('takes an entry with bit 10 alone as present', () => {
    expect(eptExit(guestWith(jump, MBEC, Ept.XU | Ept.WB)).reason).toBe(18);
    expect(eptExit(guestWith(jump, [], Ept.XU | Ept.WB))).toMatchObject({
      reason: 48,
      set: ['fetch', ...linear],
    });
  });

  it('takes every address for a user-mode one without paging', () => {
    const options: EptGuestOptions = { ...UNPAGED, controls: [...(UNPAGED.controls ?? []), ...MBEC] };
    const run = (entry: bigint) =>
      eptExit(
        eptGuest(assemble(`mov eax, ${DATA}\njmp eax`, 32, GUEST), {
          ...options,
          prepare: (tables, { memory }) => {
            tables.map(DATA, FRAME, entry);
            memory.writeBytes(FRAME, Uint8Array.of(0x0f, 0x01, 0xc1));
          },
        }),
      );
    expect(run(Ept.R | Ept.XU | Ept.WB).reason).toBe(18);
    expect(run(Ept.R | Ept.X | Ept.WB).set).toEqual(['fetch', 'readable', 'executable', ...linear]);
  });
});

describe('page-modification log', () => {
  const LOG = 0x28_0000;
  const PML: ControlId[] = ['proc2.enablePml'];
  const start = (code: string, index: bigint, entry = Ept.RWX | Ept.WB, options: EptGuestOptions = {}) =>
    guestWith(code, PML, entry, {
      eptpFlags: AD,
      ...options,
      fields: { pmlAddress: BigInt(LOG), pmlIndex: index },
    });
  const logged = ({ machine }: EptGuest, index: number) => machine.memory.read64(LOG + 8 * index);

  it('gets the pages whose dirty flag is set, downwards, in the order of the accesses', () => {
    const guest = start(
      `mov rax, [${DATA + 8}]\nmov [${DATA + 8}], rax\nmov [${DATA + 16}], rax\nvmcall`,
      511n,
    );
    expect(eptExit(guest).reason).toBe(18);
    // Three paging structures, written because accesses to them count as writes, then the page.
    expect([511, 510, 509, 508, 507].map((n) => logged(guest, n))).toEqual([
      BigInt(PML4),
      BigInt(PDPT),
      BigInt(DIRECTORY),
      BigInt(DATA),
      0n,
    ]);
    expect(guest.cpu.vmread('pmlIndex').value).toBe(507n);
  });

  it('is full when the index leaves 0 to 511, even for an accessed flag alone', () => {
    const guest = start(`mov [${DATA}], rax\nvmcall`, 3n);
    expect(eptExit(guest)).toMatchObject({ reason: 18 });
    expect(logged(guest, 0)).toBe(BigInt(DATA));
    expect(guest.cpu.vmread('pmlIndex').value).toBe(0xffffn);
    const full = start(`mov [${DATA}], rax\nvmcall`, 2n);
    expect(eptExit(full)).toMatchObject({ reason: 62, exitQualification: 0n, guestRip: BigInt(GUEST) });
    expect(full.tables.get(DATA) & (Ept.A | Ept.D)).toBe(0n);
    const read = start(`mov rax, [${DATA}]\nvmcall`, 2n);
    expect(eptExit(read).reason).toBe(62);
  });

  it('gets nothing for pages that are dirty already, and does not look whether it is full', () => {
    const dirty = Ept.RWX | Ept.WB | Ept.A | Ept.D;
    const guest = start(`mov [${DATA}], rax\nvmcall`, 512n, dirty, {
      prepare: (tables) => {
        tables.identity(0, 0x400, dirty);
        tables.map(DATA, FRAME, dirty);
        for (const level of [2, 3, 4]) {
          tables.set(0, tables.get(0, level) | Ept.A, level);
          tables.set(PML4, tables.get(PML4, level) | Ept.A, level);
        }
      },
    });
    expect(eptExit(guest).reason).toBe(18);
    expect(guest.cpu.vmread('pmlIndex').value).toBe(512n);
  });
});

describe('virtualization exceptions', () => {
  const AREA = 0x28_0000;
  const VE: ControlId[] = ['proc2.eptViolationVe'];
  const HANDLER = 0x4_0000;
  const IDT = 0x4_1000;
  const start = (code: string, entry: bigint, options: EptGuestOptions = {}) =>
    guestWith(code, VE, entry, {
      ...options,
      fields: {
        virtualizationExceptionInformationAddress: BigInt(AREA),
        eptpIndex: 0x1234n,
        guestIdtrBase: BigInt(IDT),
        guestIdtrLimit: 0xfffn,
        guestGdtrBase: 0x4_2000n,
        guestGdtrLimit: 0xffn,
        ...options.fields,
      },
      prepare: (tables, machine) => {
        const { memory } = machine;
        const selector = BigInt(Number(options.fields?.guestCsSelector ?? 8n));
        memory.write64(
          IDT + 16 * 20,
          BigInt(HANDLER & 0xffff) | (selector << 16n) | (0x8en << 40n) | (BigInt(HANDLER >> 16) << 48n),
        );
        memory.write64(0x4_2008, 0x00af_9b00_0000_ffffn);
        memory.writeBytes(HANDLER, Uint8Array.of(0x0f, 0x01, 0xc1));
        options.prepare?.(tables, machine);
      },
    });

  it('are delivered with their information instead of an exit', () => {
    const guest = start(`mov rax, [${DATA + 8}]`, Ept.X | Ept.WB);
    expect(eptExit(guest)).toMatchObject({ reason: 18, guestRip: BigInt(HANDLER) });
    const { memory } = guest.machine;
    expect(memory.read64(AREA)).toBe(0xffff_ffff_0000_0030n);
    expect(memory.read64(AREA + 8)).toBe(0x7a1n);
    expect(memory.read64(AREA + 16)).toBe(BigInt(DATA + 8));
    expect(memory.read64(AREA + 24)).toBe(BigInt(DATA + 8));
    expect(memory.read16(AREA + 32)).toBe(0x1234);
  });

  it('do not nest: a busy area leaves the exit', () => {
    const guest = start(`mov rax, [${DATA}]`, 0n);
    guest.machine.memory.write32(AREA + 4, 1);
    expect(eptExit(guest).reason).toBe(48);
    expect(guest.machine.memory.read32(AREA)).toBe(0);
  });

  it('are suppressed by bit 63 of the entry that is not present or maps the page, and of no other', () => {
    expect(eptExit(start(`mov rax, [${DATA}]`, Ept.SuppressVe)).reason).toBe(48);
    expect(eptExit(start(`mov rax, [${DATA}]`, Ept.SuppressVe | Ept.X | Ept.WB)).reason).toBe(48);
    const upper = start(`mov rax, [${DATA}]`, Ept.X | Ept.WB, {
      prepare: (tables) => tables.set(DATA, tables.get(DATA, 2) | Ept.SuppressVe, 2),
    });
    expect(eptExit(upper).reason).toBe(18);
  });

  it('leave misconfigurations and violations of event delivery to the hypervisor', () => {
    expect(eptExit(start(`mov rax, [${DATA}]`, Ept.W)).reason).toBe(49);
    const delivery = start('ud2', 0n, { fields: { guestIdtrBase: BigInt(DATA) } });
    expect(eptExit(delivery)).toMatchObject({ reason: 48 });
    expect(delivery.cpu.vmread('originalEventIdentification').value).toBe(0x8000_0306n);
  });

  it('do not exist in real-address mode', () => {
    const code = assemble('mov ax, 0x7000\nmov ds, ax\nmov ax, [0]\nvmcall', 16, 0);
    const ve = (more: readonly ControlId[]) =>
      eptGuest(code, {
        ...REAL_MODE,
        controls: [...(REAL_MODE.controls ?? []), ...more],
        fields: { ...REAL_MODE.fields, virtualizationExceptionInformationAddress: BigInt(AREA) },
        prepare: (tables) => tables.map(0x7_0000, FRAME, 0n),
      });
    const guest = ve(VE);
    expect(eptExit(guest)).toMatchObject({ reason: 48, guestPhysicalAddress: 0x7_0000n });
    expect(guest.machine.memory.read32(AREA)).toBe(0);
    // It would be convertible in protected mode.
    const flat = assemble('mov eax, [0x70000]', 32, GUEST);
    const protectedMode = eptGuest(flat, {
      ...UNPAGED,
      controls: [...(UNPAGED.controls ?? []), ...VE],
      fields: {
        ...UNPAGED.fields,
        virtualizationExceptionInformationAddress: BigInt(AREA),
        exceptionBitmap: 1n << 20n,
      },
      prepare: (tables) => tables.map(0x7_0000, FRAME, 0n),
    });
    expect(eptExit(protectedMode).reason).toBe(0);
    expect(protectedMode.machine.memory.read32(AREA)).toBe(48);
  });

  it('become a double fault if their delivery meets a contributory fault, which else reports them', () => {
    const invalid = (exceptionBitmap: bigint) =>
      start(`mov rax, [${DATA}]`, 0n, {
        fields: { exceptionBitmap },
        prepare: (_, { memory }) => memory.write64(IDT + 16 * 20, 0n),
      });
    const double = invalid(1n << 8n);
    expect(eptExit(double).reason).toBe(0);
    expect(double.cpu.vmread('exitingEventIdentification').value).toBe(0x8000_0b08n);
    expect(double.cpu.vmread('originalEventIdentification').value >> 31n).toBe(0n);
    const fault = invalid(1n << 13n);
    expect(eptExit(fault).reason).toBe(0);
    expect(fault.cpu.vmread('exitingEventIdentification').value).toBe(0x8000_0b0dn);
    expect(fault.cpu.vmread('originalEventIdentification').value).toBe(0x8000_0314n);
  });

  it('of an injected fault, delivery that exits saves RF as it was loaded', () => {
    for (const flags of [2n, 0x1_0002n]) {
      const { cpu } = start('nop', 0n, {
        fields: {
          guestIdtrBase: BigInt(DATA),
          injectedEventIdentification: 0x8000_0306n,
          guestRflags: flags,
        },
      });
      runToExit(cpu);
      expect([cpu.vmread('exitReason').value, cpu.vmread('guestRflags').value]).toEqual([48n, flags]);
    }
  });

  it('exit by the exception bitmap after their information was written', () => {
    const guest = start(`mov rax, [${DATA}]`, 0n, { fields: { exceptionBitmap: 1n << 20n } });
    expect(eptExit(guest).reason).toBe(0);
    expect(guest.cpu.vmread('exitingEventIdentification').value).toBe(0x8000_0314n);
    expect(guest.machine.memory.read32(AREA)).toBe(48);
  });
});

describe('sub-page write permissions', () => {
  const ROOT = 0x28_0000;
  const SPP: ControlId[] = ['proc2.subPageWritePermissionsForEpt'];
  const PAGE = Ept.R | Ept.X | Ept.WB | Ept.SubPages;
  const start = (code: string, vector: bigint, entry = PAGE, options: EptGuestOptions = {}) =>
    guestWith(code, SPP, entry, {
      ...options,
      fields: { sppTablePointer: BigInt(ROOT) },
      prepare: (tables, machine) => {
        const { memory } = machine;
        for (let level = 0; level < 3; level++)
          memory.write64(ROOT + 0x1000 * level, BigInt(ROOT + 0x1000 * (level + 1)) | 1n);
        memory.write64(ROOT + 0x3000 + 8 * (DATA >> 12), vector);
        options.prepare?.(tables, machine);
      },
    });
  const store = (offset: number, bytes = 'qword') => `mov ${bytes} ptr [${DATA + offset}], 1\nvmcall`;

  it('allow writes to the sub-pages whose even bit is 1', () => {
    const vector = 1n | (1n << 62n);
    for (const offset of [0, 0x78, 0xf80, 0xff8]) {
      const guest = start(store(offset), vector);
      expect(eptExit(guest).reason).toBe(18);
      expect(guest.machine.memory.read64(FRAME + offset)).toBe(1n);
    }
    for (const offset of [0x80, 0xf00, 0xf78]) {
      expect(eptExit(start(store(offset), vector))).toMatchObject({
        reason: 48,
        set: ['write', 'readable', 'executable', ...linear],
      });
    }
  });

  it('need all sub-pages of a write, and write nothing without', () => {
    const guest = start(store(0x7c), 1n);
    expect(eptExit(guest)).toMatchObject({ reason: 48, guestPhysicalAddress: BigInt(DATA + 0x80) });
    expect(guest.machine.memory.read64(FRAME + 0x7c)).toBe(0n);
    expect(eptExit(start(store(0x7c), 5n)).reason).toBe(18);
    expect(eptExit(start(`add qword ptr [${DATA + 0x7c}], 1\nvmcall`, 1n)).reason).toBe(48);
  });

  it('allow a write again only after looking again', () => {
    const guest = start(`mov [${DATA}], rax\nmov [${DATA}], rax\nmov [${DATA + 0x80}], rax\nvmcall`, 1n);
    expect(eptExit(guest).guestPhysicalAddress).toBe(BigInt(DATA + 0x80));
  });

  it('report a table that has no vector, and one that is misconfigured', () => {
    const miss = start(store(0), 1n, PAGE, {
      prepare: (_t, { memory }) => memory.write64(ROOT + 0x2000, 0n),
    });
    expect(eptExit(miss)).toMatchObject({
      reason: 66,
      exitQualification: 0x800n,
      guestLinearAddress: BigInt(DATA),
      guestPhysicalAddress: BigInt(DATA),
    });
    const wrong = start(store(0), 1n, PAGE, {
      prepare: (_t, { memory }) => memory.write64(ROOT + 0x1000, 3n),
    });
    expect(eptExit(wrong)).toMatchObject({ reason: 66, exitQualification: 0n });
    expect(eptExit(start(store(0), 2n))).toMatchObject({ reason: 66, exitQualification: 0n });
  });

  it('concern pages of 4 KBytes with bit 61 alone, and no paging structures', () => {
    expect(eptExit(start(store(0), 1n, PAGE & ~Ept.SubPages)).reason).toBe(48);
    expect(eptExit(guestWith(store(0), [], PAGE)).reason).toBe(48);
    const structure = start('nop', 1n, PAGE, { prepare: (tables) => tables.map(PML4, PML4, PAGE) });
    expect(eptExit(structure)).toMatchObject({ reason: 48, guestPhysicalAddress: BigInt(PML4) });
  });
});

describe('EPT paging-write control and guest-paging verification', () => {
  const PWC: ControlId[] = ['proc.activateTertiaryControls', 'proc3.eptPagingWriteControl'];
  const GPV: ControlId[] = [...PWC, 'proc3.guestPagingVerification'];
  const structures = (tables: EptTables, flags: bigint) => {
    for (const at of [PML4, PDPT, DIRECTORY]) tables.map(at, at, flags);
  };

  it('lets paging write what is otherwise read-only', () => {
    for (const eptpFlags of [0n, AD]) {
      const guest = guestWith(`mov rax, [${DATA}]\nmov [${PML4}], rax`, PWC, Ept.RWX | Ept.WB, {
        eptpFlags,
        prepare: (tables) => structures(tables, Ept.R | Ept.WB | Ept.PagingWrite),
      });
      const exit = eptExit(guest);
      expect(exit).toMatchObject({ reason: 48, guestLinearAddress: BigInt(PML4) });
      expect(exit.set).toEqual(['write', 'readable', ...linear]);
    }
  });

  it('needs upper entries to allow writes', () => {
    const guest = guestWith('nop', PWC, Ept.RWX | Ept.WB, {
      prepare: (tables) => {
        structures(tables, Ept.R | Ept.WB | Ept.PagingWrite);
        tables.set(PML4, tables.get(PML4, 2) & ~Ept.W, 2);
      },
    });
    expect(eptExit(guest)).toMatchObject({ reason: 48, guestPhysicalAddress: BigInt(PML4) });
  });

  it('takes bit 58 without bit 0 for a misconfiguration', () => {
    expect(eptExit(guestWith(`mov rax, [${DATA}]`, PWC, Ept.X | Ept.WB | Ept.PagingWrite)).reason).toBe(49);
    expect(eptExit(guestWith(`mov rax, [${DATA}]`, [], Ept.X | Ept.WB | Ept.PagingWrite)).reason).toBe(48);
  });

  it('verifies that all paging structures of a page with bit 57 have bit 58', () => {
    const verified = (wrong?: number) =>
      guestWith(`mov rax, [${DATA}]\nvmcall`, GPV, Ept.RWX | Ept.WB | Ept.VerifyPaging, {
        prepare: (tables) => {
          structures(tables, Ept.R | Ept.W | Ept.WB | Ept.PagingWrite);
          if (wrong !== undefined) tables.map(wrong, wrong, Ept.R | Ept.W | Ept.WB);
        },
      });
    expect(eptExit(verified()).reason).toBe(18);
    for (const wrong of [PML4, PDPT, DIRECTORY]) {
      const exit = eptExit(verified(wrong));
      expect(exit).toMatchObject({ reason: 48, guestLinearAddress: BigInt(DATA) });
      expect(exit.set).toContain('guestPagingVerification');
    }
  });
});

describe('HLAT paging', () => {
  const HLAT: ControlId[] = ['proc.activateTertiaryControls', 'proc3.enableHlat'];
  const ROOT = 0x28_0000;
  const HIGH = 0xffff_8000_0000_0000n;
  const start = (
    code: string,
    prefix: bigint,
    change: (memory: EptTables['memory']) => void = () => {},
    fields = {},
  ) =>
    eptGuest(code, {
      controls: HLAT,
      fields: { hlatPointer: BigInt(ROOT), hlatPrefixSize: prefix, ...fields },
      prepare: (_tables, { memory }) => {
        memory.write64(ROOT + 0x800, BigInt(ROOT + 0x1000) | 7n);
        memory.write64(ROOT + 0x1000, BigInt(ROOT + 0x2000) | 7n);
        memory.write64(ROOT + 0x2000, 0x20_0087n);
        // Ordinary paging maps the same addresses to the first 2 MBytes.
        memory.write64(PML4 + 0x800, BigInt(PDPT) | 7n);
        memory.write64(0x20_5000, 1n);
        memory.write64(0x5000, 2n);
        change(memory);
      },
    });
  const READ = `mov rcx, 0x${(HIGH + 0x5000n).toString(16)}\nmov rax, [rcx]\nvmcall`;

  it('translates the addresses with the prefix by structures of its own', () => {
    const guest = start(READ, 1n);
    expect(eptExit(guest).reason).toBe(18);
    expect(guest.cpu.get('RAX')).toBe(1n);
    expect(guest.machine.memory.read64(ROOT + 0x2000) & 0x60n).toBe(0x20n);
  });

  it('goes back to ordinary paging where an entry has bit 11', () => {
    for (const at of [0x800, 0x1000, 0x2000]) {
      const guest = start(READ, 1n, (memory) => memory.write64(ROOT + at, memory.read64(ROOT + at) | 0x800n));
      expect(eptExit(guest).reason).toBe(18);
      expect(guest.cpu.get('RAX')).toBe(2n);
    }
  });

  it('tells its page faults apart', () => {
    const guest = start(READ, 1n, (memory) => memory.write64(ROOT + 0x2000, 0n), {
      exceptionBitmap: 1n << 14n,
    });
    expect(eptExit(guest).reason).toBe(0);
    expect(guest.cpu.vmread('exitingEventErrorCode').value).toBe(0x80n);
    const ordinary = start('mov rax, [0x40000000]', 1n, () => {}, { exceptionBitmap: 1n << 14n });
    eptExit(ordinary);
    expect(ordinary.cpu.vmread('exitingEventErrorCode').value).toBe(0n);
  });

  it('leaves addresses without the prefix alone, and with size 0 takes all', () => {
    const other = start(READ, 20n);
    eptExit(other);
    expect(other.cpu.get('RAX')).toBe(2n);
    const all = start('nop', 0n, () => {}, { exceptionBitmap: 1n << 14n });
    expect(eptExit(all).reason).toBe(0);
  });
});
