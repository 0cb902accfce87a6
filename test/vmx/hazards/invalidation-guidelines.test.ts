/** The guidelines for INVVPID and INVEPT one by one: left out they are reported, followed they are not (SDM §31.4.3.3, §31.4.3.4, §32.4.5). */
import { describe, expect, it } from 'vitest';
import type { ControlId } from '../../../src/vmcs/controls.ts';
import { Ept, type EptGuestOptions, type EptTables, eptGuest, GUEST } from '../../support/ept.ts';
import { guestMachine, runToExit } from '../../support/guest.ts';
import { launchable, vmcsRegion, vmxonRegion } from '../../support/machine.ts';

const DIRECTORY = 0x30_2000;
const TABLE = 0x28_0000;
const LINEAR = 0x40_0000;
const OLD = 0x29_0000;
const NEW = 0x2a_0000;
const VIRTUAL_APIC = 0x2b_0000;
const VPID: ControlId[] = ['proc2.enableVpid'];
const ACCESSES: ControlId[] = ['proc.useTprShadow', 'proc2.virtualizeApicAccesses'];
/** Reads the page at its offset 80H, and writes it there. */
const READ = `mov eax, [${LINEAR + 0x80}]\nvmcall`;
const WRITE = `mov [${LINEAR + 0x80}], eax\nvmcall`;

function fill(memory: EptTables['memory']): void {
  memory.write64(DIRECTORY + 16, BigInt(TABLE) | 0x67n);
  memory.write64(TABLE, BigInt(OLD) | 0x67n);
  memory.write32(OLD + 0x80, 1);
  memory.write32(NEW + 0x80, 2);
  memory.write32(VIRTUAL_APIC + 0x80, 3);
}

const FIELDS = { vpid: 5n, virtualApicAddress: BigInt(VIRTUAL_APIC) };
type Started = ReturnType<typeof start>;

function start(
  withEpt: boolean,
  controls: readonly ControlId[] = VPID,
  options: EptGuestOptions = {},
  code = READ,
) {
  const common = {
    detectStaleTranslations: true,
    ...options,
    controls: [...controls, ...(options.controls ?? [])],
    fields: { ...FIELDS, ...options.fields },
  };
  let tables: EptTables | undefined;
  const { machine } = withEpt
    ? eptGuest(code, {
        ...common,
        prepare: (t, m) => {
          tables = t;
          fill(m.memory);
        },
      })
    : {
        machine: guestMachine(code, {
          ...common,
          controls: ['proc.activateSecondaryControls', ...common.controls],
          setUp: (m) => fill(m.memory),
        }),
      };
  const cpu = machine.cpu(0);
  const run = () => {
    if (cpu.operation === 'root') {
      cpu.vmwrite('guestRip', BigInt(GUEST));
      expect(cpu.vmresume().kind).toBe('VMentry');
    }
    runToExit(cpu);
    return cpu.get('RAX');
  };
  run();
  return { machine, cpu, tables: tables as EptTables, run };
}

/** Turns "virtualize APIC accesses" on, for the page at `address`. */
function virtualize({ cpu }: Started, address = OLD): void {
  const { proc, proc2 } = cpu.capabilities.must1;
  const primary = cpu.vmread('primaryProcessorBasedControls').value | proc | (1n << 21n) | (1n << 31n);
  cpu.vmwrite('primaryProcessorBasedControls', primary);
  cpu.vmwrite(
    'secondaryProcessorBasedControls',
    cpu.vmread('secondaryProcessorBasedControls').value | proc2 | 1n,
  );
  cpu.vmwrite('apicAccessAddress', BigInt(address));
}

const invvpid = ({ cpu }: Started, type: number, address = LINEAR) =>
  expect(cpu.invvpid(type, (BigInt(address) << 64n) | (type === 2 ? 0n : 5n)).kind).toBe('VMsucceed');
const invept = ({ cpu, tables }: Started, type: number, flags = 0n) =>
  expect(cpu.invept(type, type === 2 ? 0n : tables.eptp(flags)).kind).toBe('VMsucceed');
const owed = ({ machine }: Started) => machine.staleTranslations.map((s) => `${s.difference}: ${s.owed}`);

const INVVPID_0 = 'INVVPID individual-address of VPID 5H and 400080H';
const INVVPID_1 = 'INVVPID single-context of VPID 5H';
const INVEPT_1 = 'INVEPT single-context of EPTP 38001EH';

describe('the APIC-access page', () => {
  it('is not recognised by linear mappings that are older, and INVVPID is owed', () => {
    for (const follows of [false, true]) {
      const g = start(false);
      virtualize(g);
      if (follows) invvpid(g, 1);
      expect(g.run()).toBe(follows ? 3n : 1n);
      expect(owed(g)).toEqual(follows ? [] : [`APIC-access page: ${INVVPID_1}`]);
    }
  });

  it('is not recognised by mappings that come from EPT and are older, and INVEPT is owed', () => {
    for (const follows of ['nothing', 'INVVPID', 'INVEPT']) {
      const g = start(true);
      virtualize(g);
      if (follows === 'INVVPID') invvpid(g, 1);
      if (follows === 'INVEPT') invept(g, 1);
      expect(g.run(), follows).toBe(follows === 'INVEPT' ? 3n : 1n);
      expect(owed(g), follows).toEqual(follows === 'INVEPT' ? [] : [`APIC-access page: ${INVEPT_1}`]);
    }
  });

  it('that becomes another one is one that is switched on', () => {
    const g = start(true, [...VPID, ...ACCESSES], { fields: { apicAccessAddress: BigInt(NEW) } });
    g.cpu.vmwrite('apicAccessAddress', BigInt(OLD));
    expect(g.run()).toBe(1n);
    expect(owed(g)).toEqual([`APIC-access page: ${INVEPT_1}`]);
    // The mapping of what was the page goes to memory at once.
    const back = start(true, [...VPID, ...ACCESSES], { fields: { apicAccessAddress: BigInt(OLD) } });
    back.cpu.vmwrite('apicAccessAddress', BigInt(NEW));
    expect(back.run()).toBe(1n);
    expect(owed(back)).toEqual([]);
  });

  it('needs nothing without VPIDs and EPT, and nothing that was not used before', () => {
    const g = start(false, []);
    virtualize(g);
    expect(g.run()).toBe(3n);
    const other = start(true);
    other.cpu.vmwrite('vpid', 6n);
    virtualize(other, NEW);
    other.cpu.store64(TABLE, BigInt(NEW) | 0x67n);
    expect(other.run()).toBe(3n);
    expect([...owed(g), ...owed(other)]).toEqual([]);
  });

  it('to which structures lead by now is a change of structures', () => {
    const paging = start(false, [...VPID, ...ACCESSES], { fields: { apicAccessAddress: BigInt(NEW) } });
    paging.cpu.store64(TABLE, BigInt(NEW) | 0x67n);
    expect(paging.run()).toBe(1n);
    expect(owed(paging)).toEqual([`page: ${INVVPID_0}`]);
    const ept = start(true, [...VPID, ...ACCESSES], { fields: { apicAccessAddress: BigInt(NEW) } });
    ept.cpu.store64(ept.tables.entry(BigInt(OLD), 1), BigInt(NEW) | Ept.RWX | Ept.WB);
    expect(ept.run()).toBe(1n);
    expect(owed(ept)).toEqual([`page: ${INVEPT_1}`]);
    invept(ept, 1);
    expect(ept.run()).toBe(3n);
  });

  it('as a paging structure is not recognised either by mappings that are older', () => {
    const g = start(true);
    virtualize(g, TABLE);
    invvpid(g, 1);
    expect(g.run()).toBe(1n);
    invept(g, 1);
    g.run();
    expect(g.cpu.vmread('exitReason').value).toBe(44n);
  });
});

describe('VMXOFF and VMXON', () => {
  it('leave mappings that appear again unless INVVPID or INVEPT of all contexts is executed', () => {
    for (const withEpt of [false, true]) {
      for (const follows of [false, true]) {
        const g = start(withEpt);
        const { cpu, machine } = g;
        const values = Object.fromEntries(
          (
            [
              'guestRip',
              'guestRsp',
              'guestCr3',
              'hostRip',
              'hostCr3',
              'vpid',
              'eptPointer',
              'virtualApicAddress',
            ] as const
          ).map((name) => [name, cpu.vmread(name).value]),
        );
        cpu.vmclear(BigInt(vmcsRegion(0)));
        cpu.vmxoff();
        machine.memory.write64(withEpt ? g.tables.entry(BigInt(OLD), 1) : TABLE, BigInt(NEW) | 0x77n);
        expect(cpu.vmxon(BigInt(vmxonRegion(0))).kind).toBe('VMsucceed');
        if (follows && withEpt) invept(g, 2);
        if (follows) invvpid(g, 2);
        const controls: ControlId[] = ['proc.activateSecondaryControls', ...VPID];
        launchable(cpu, vmcsRegion(0), values, withEpt ? [...controls, 'proc2.enableEpt'] : controls);
        cpu.vmwrite('guestRip', BigInt(GUEST));
        expect(cpu.vmlaunch().kind).toBe('VMentry');
        runToExit(cpu);
        expect(cpu.get('RAX')).toBe(follows ? 2n : 1n);
        const name = withEpt ? 'INVEPT' : 'INVVPID';
        expect(owed(g)).toEqual(follows ? [] : [`page: ${name} all-context after VMXON`]);
      }
    }
  });
});

describe('INVVPID', () => {
  it('is owed although root operation has executed INVLPG, which concerns VPID 0000H, or INVEPT', () => {
    const g = start(false);
    g.cpu.store64(TABLE, BigInt(NEW) | 0x67n);
    g.cpu.processor.translations.invalidatePage(LINEAR, 0, 0, true);
    expect(g.cpu.invept(2, 0n).kind).toBe('VMsucceed');
    expect(g.run()).toBe(1n);
    expect(owed(g)).toEqual([`page: ${INVVPID_0}`]);
  });

  it('of one address, of a context, and retaining globals is enough', () => {
    for (const type of [0, 1, 2, 3]) {
      const g = start(false);
      g.cpu.store64(TABLE, BigInt(NEW) | 0x67n);
      invvpid(g, type);
      expect(g.run()).toBe(2n);
      expect(owed(g)).toEqual([]);
    }
  });

  it('retaining globals is not enough for a global page', () => {
    const g = start(false, VPID, { fields: { guestCr4: 0x20a0n } });
    g.cpu.store64(TABLE, BigInt(OLD) | 0x167n);
    invvpid(g, 1);
    g.run();
    g.cpu.store64(TABLE, BigInt(NEW) | 0x167n);
    invvpid(g, 3);
    expect(g.run()).toBe(1n);
    expect(owed(g)).toEqual([`page: ${INVVPID_0}`]);
  });
});

describe('INVEPT', () => {
  const leaf = (g: Started) => g.tables.entry(BigInt(OLD), 1);
  const changes: Record<string, { flags?: bigint; controls?: ControlId[]; value: bigint; code?: string }> = {
    'right to read': { value: BigInt(OLD) | Ept.X | Ept.WB },
    'right to write': { value: BigInt(OLD) | Ept.R | Ept.X | Ept.WB, code: WRITE },
    address: { value: BigInt(NEW) | Ept.RWX | Ept.WB },
    'memory type': { value: BigInt(OLD) | Ept.RWX },
    'ignore PAT': { value: BigInt(OLD) | Ept.RWX | Ept.WB | Ept.IgnorePat },
    'accessed flag': { flags: 0x40n, value: BigInt(OLD) | Ept.RWX | Ept.WB | Ept.D },
    'dirty flag': { flags: 0x40n, value: BigInt(OLD) | Ept.RWX | Ept.WB | Ept.A, code: WRITE },
    'not present': { value: 0n },
  };

  for (const [name, { flags = 0n, value, code = READ }] of Object.entries(changes)) {
    it(`is owed for a change of a page: ${name}`, () => {
      const g = start(true, VPID, { eptpFlags: flags }, code);
      g.cpu.store64(leaf(g), value);
      invvpid(g, 2);
      g.run();
      const [report, ...more] = g.machine.staleTranslations;
      expect(more).toEqual([]);
      expect(report?.change).toMatchObject({ structure: 'EPT', address: leaf(g), after: value });
      expect(report?.owed).toMatch(/^INVEPT single-context/);
      const obedient = start(true, VPID, { eptpFlags: flags }, code);
      obedient.cpu.store64(leaf(obedient), value);
      invept(obedient, 1, flags);
      obedient.run();
      expect(owed(obedient)).toEqual([]);
    });
  }

  it('is owed for the right to execute, of user-mode addresses by bit 10', () => {
    for (const [controls, taken] of [
      [[], Ept.X],
      [['proc2.modeBasedExecuteControlForEpt'], Ept.XU],
    ] as [ControlId[], bigint][]) {
      const g = start(true, [...VPID, ...controls], {}, 'vmcall');
      const { memory } = g.machine;
      const page = g.tables.entry(BigInt(GUEST), 1);
      g.cpu.store64(page, memory.read64(page) & ~taken);
      g.run();
      expect(owed(g)).toEqual([`rights: ${INVEPT_1}`]);
    }
  });

  it('is owed for verification of guest paging: of the page, and of a paging structure', () => {
    const controls: ControlId[] = [
      ...VPID,
      'proc.activateTertiaryControls',
      'proc3.eptPagingWriteControl',
      'proc3.guestPagingVerification',
    ];
    const structures = [0x30_0000, 0x30_1000, DIRECTORY, TABLE];
    const changes: ((g: Started) => [number, bigint])[] = [
      (g) => [leaf(g), BigInt(OLD) | Ept.RWX | Ept.WB | Ept.VerifyPaging],
      (g) => [g.tables.entry(BigInt(DIRECTORY), 1), BigInt(DIRECTORY) | Ept.RWX | Ept.WB],
    ];
    for (const [n, change] of changes.entries()) {
      for (const follows of [false, true]) {
        const g = start(true, controls);
        if (n === 1) {
          for (const at of structures) g.tables.map(at, at, Ept.RWX | Ept.WB | Ept.PagingWrite);
          g.tables.map(OLD, OLD, Ept.RWX | Ept.WB | Ept.VerifyPaging);
          invept(g, 1);
          g.run();
        }
        g.cpu.store64(...change(g));
        if (follows) invept(g, 1);
        g.run();
        expect(g.cpu.vmread('exitReason').value).toBe(follows ? 48n : 18n);
        expect(owed(g)).toEqual(follows ? [] : [`page: ${INVEPT_1}`]);
      }
    }
  });

  it('is owed for bit 61 of a page whose sub-pages could be written', () => {
    const SPP = 0x2c_0000;
    for (const follows of [false, true]) {
      const g = start(
        true,
        [...VPID, 'proc2.subPageWritePermissionsForEpt'],
        { fields: { sppTablePointer: BigInt(SPP) } },
        WRITE,
      );
      const { memory } = g.machine;
      for (const [n, index] of [0, 0, OLD >> 21].entries())
        memory.write64(SPP + 0x1000 * n + 8 * index, BigInt(SPP + 0x1000 * (n + 1)) | 1n);
      memory.write64(SPP + 0x3000 + 8 * ((OLD >> 12) & 0x1ff), 4n);
      g.tables.map(OLD, OLD, Ept.R | Ept.X | Ept.WB | Ept.SubPages);
      invept(g, 1);
      g.run();
      g.cpu.store64(leaf(g), BigInt(OLD) | Ept.R | Ept.X | Ept.WB);
      if (follows) invept(g, 1);
      g.run();
      expect(g.cpu.vmread('exitReason').value).toBe(follows ? 48n : 18n);
      expect(owed(g)).toEqual(follows ? [] : [`rights: ${INVEPT_1}`]);
    }
  });

  it('is owed for bit 7 of an entry that references a page table', () => {
    const g = start(true);
    const directory = g.tables.entry(BigInt(OLD), 2);
    g.cpu.store64(directory, 0x20_0000n | Ept.RWX | Ept.WB | Ept.Page);
    g.run();
    // The page is the same, and so are its rights: nothing differs.
    expect(owed(g)).toEqual([]);
    g.cpu.store64(directory, 0n | Ept.RWX | Ept.WB | Ept.Page);
    g.run();
    // The page, and that of the code, whose paging structures are there.
    expect(new Set(owed(g))).toEqual(new Set([`page: ${INVEPT_1}`]));
  });

  it('is owed for an EPTP with another walk length, and for a root that was used again', () => {
    const g = start(true);
    // With five levels the root leads to other structures.
    g.machine.memory.write64(g.tables.root, 0x2c_0000n | Ept.RWX);
    g.machine.memory.write64(0x2c_0000, 0x2d_0000n | Ept.RWX);
    g.cpu.vmwrite('eptPointer', (g.tables.eptp() & ~0x38n) | 0x20n);
    g.machine.memory.write64(0x2d_0000, 0x4000_0000n | Ept.RWX | Ept.WB | Ept.Page);
    expect(g.run()).toBe(1n);
    expect(owed(g)).toContain('page: INVEPT single-context of EPTP 380026H');
    const reused = start(true);
    reused.machine.memory.write64(0x2d_0000, 0x4000_0000n | Ept.RWX | Ept.WB | Ept.Page);
    reused.cpu.store64(reused.tables.root, 0x2d_0000n | Ept.RWX);
    expect(reused.run()).toBe(1n);
    expect(owed(reused)).toContain(`page: ${INVEPT_1}`);
  });

  it('is owed where EPTP switching turns accessed and dirty flags on', () => {
    const LIST = 0x2b_8000;
    const g = start(
      true,
      [...VPID, 'proc2.enableVmFunctions'],
      { fields: { vmFunctionControls: 1n, eptpListAddress: BigInt(LIST) } },
      `${READ}\nxor eax, eax\nxor ecx, ecx\nvmfunc\n${READ}`,
    );
    g.machine.memory.write64(LIST, g.tables.eptp(0x40n));
    g.cpu.vmwrite('guestRip', g.cpu.vmread('guestRip').value + 3n);
    g.cpu.vmresume();
    runToExit(g.cpu);
    expect(owed(g)).toContain('accessed flag: INVEPT single-context of EPTP 38005EH');
    expect(g.tables.get(OLD) & Ept.A).toBe(0n);
  });

  it('is not owed for what was not present or misconfigured, nor for rights that are added', () => {
    for (const before of [0n, Ept.W, BigInt(OLD) | Ept.R | Ept.WB]) {
      const g = start(true, VPID, {}, WRITE);
      g.tables.map(OLD, 0n, before);
      invept(g, 1);
      g.run();
      g.cpu.store64(leaf(g), BigInt(OLD) | Ept.RWX | Ept.WB);
      g.run();
      expect(g.cpu.vmread('exitReason').value).toBe(18n);
      expect(owed(g)).toEqual([]);
    }
  });
});
