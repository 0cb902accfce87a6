/** What a processor keeps of translations, and what makes it forget (SDM §31.4): each rule by a mapping that is stale until then. */
import { describe, expect, it } from 'vitest';
import { assemble } from '../../support/assemble.ts';
import { Ept, EptTables, GUEST } from '../../support/ept.ts';
import { guestMachine } from '../../support/guest.ts';
import {
  DIRECTORY,
  invept,
  invvpid,
  LINEAR,
  NEW,
  OLD,
  PRESENT,
  prepare,
  READS,
  reader,
  remap,
  remapEpt,
  type Situation,
  TABLE,
  underEpt,
  VPID,
  withoutEpt,
} from '../../support/reading-guest.ts';

describe('linear mappings', () => {
  it('survive transitions with a VPID, and go with every one without', () => {
    const kept = withoutEpt(VPID);
    expect(kept.read()).toBe(1n);
    remap(kept);
    expect(kept.read()).toBe(1n);
    const dropped = withoutEpt([]);
    expect(dropped.read()).toBe(1n);
    remap(dropped);
    expect(dropped.read()).toBe(2n);
  });

  it('go with INVVPID of their address, context, of all contexts, or all but global ones', () => {
    for (const type of [0, 1, 2, 3]) {
      const s = withoutEpt(VPID);
      s.read();
      remap(s);
      invvpid(s, type);
      expect(s.read(), `type ${type}`).toBe(2n);
    }
  });

  it('stay after INVVPID of another address or context, and after INVEPT', () => {
    for (const invalidate of [
      (s: Situation) => invvpid(s, 0, 7n, BigInt(LINEAR + 0x1000)),
      (s: Situation) => invvpid(s, 1, 8n),
      (s: Situation) => expect(s.cpu.invept(2, 0n).kind).toBe('VMsucceed'),
    ]) {
      const s = withoutEpt(VPID);
      s.read();
      remap(s);
      invalidate(s);
      expect(s.read()).toBe(1n);
    }
  });

  it('stay after INVVPID that retains globals if they are global', () => {
    const kept = withoutEpt(VPID, READS, 0x100n);
    kept.read();
    remap(kept);
    invvpid(kept, 3);
    expect(kept.read()).toBe(1n);
    invvpid(kept, 1);
    expect(kept.read()).toBe(2n);
  });

  it('are those of one VPID', () => {
    const s = withoutEpt(VPID);
    s.read();
    remap(s);
    s.cpu.vmwrite('vpid', 8n);
    expect(s.read()).toBe(2n);
    s.cpu.vmwrite('vpid', 7n);
    expect(s.read()).toBe(1n);
  });

  it('go with what the guest itself invalidates, but not what the host does', () => {
    const host = withoutEpt(VPID);
    host.read();
    remap(host);
    // INVLPG in root operation concerns VPID 0000H.
    host.cpu.processor.translations.invalidatePage(LINEAR, 0, 0, true);
    expect(host.read()).toBe(1n);
    for (const source of [
      `invlpg [rbx + ${LINEAR}]`,
      'mov rcx, cr3\nmov cr3, rcx',
      'mov rcx, cr4\nxor rcx, 0x80\nmov cr4, rcx',
    ]) {
      const s = withoutEpt(
        VPID,
        `mov rax, [${LINEAR}]\nvmcall\nmov rax, [${LINEAR}]\nvmcall\n${source}\nmov rax, [${LINEAR}]\nvmcall`,
      );
      s.read();
      remap(s);
      expect(s.read()).toBe(1n);
      expect(s.read(), source).toBe(2n);
    }
  });

  it('are kept by the policies as they say', () => {
    const found = (['none', 'eager', 'retain'] as const).map((policy) => {
      const s = withoutEpt(VPID, READS, 0n, policy);
      s.read();
      remap(s);
      return s.read();
    });
    expect(found).toEqual([2n, 2n, 1n]);
  });
});

describe('combined and guest-physical mappings', () => {
  it('survive transitions and INVVPID as to EPT, and go with INVEPT', () => {
    for (const type of [1, 2]) {
      const s = underEpt({ controls: VPID, fields: { vpid: 7n } });
      expect(s.read()).toBe(1n);
      remapEpt(s);
      expect(s.read()).toBe(1n);
      // Without the combined mapping, the guest-physical one is still there.
      invvpid(s, 2);
      expect(s.read()).toBe(1n);
      invept(s, type);
      expect(s.read(), `type ${type}`).toBe(2n);
    }
  });

  it('stay after INVEPT of another context', () => {
    const s = underEpt({ controls: VPID, fields: { vpid: 7n } });
    s.read();
    remapEpt(s);
    invept(s, 1, 0x20_001en);
    expect(s.read()).toBe(1n);
  });

  it('leave guest-physical mappings to transitions without a VPID', () => {
    const s = underEpt();
    s.read();
    remapEpt(s);
    expect(s.read()).toBe(1n);
    remap(s);
    expect(s.read()).toBe(2n);
  });

  it('are those of one first structure, whatever else the EPTP says', () => {
    const s = underEpt({ controls: VPID, fields: { vpid: 7n } });
    s.read();
    remapEpt(s);
    const other = new EptTables(s.memory, 0x2c_0000);
    other.identity(0, 0x400);
    s.cpu.vmwrite('eptPointer', other.eptp());
    expect(s.read()).toBe(1n);
    s.cpu.vmwrite('eptPointer', (s.tables as EptTables).eptp());
    expect(s.read()).toBe(1n);
    // With accessed and dirty flags from now on: the mapping made without them is used all the same.
    s.cpu.vmwrite('eptPointer', (s.tables as EptTables).eptp(0x40n));
    expect(s.read()).toBe(1n);
    expect((s.tables as EptTables).get(OLD) & Ept.A).toBe(0n);
  });

  it('go with an EPT violation of their address', () => {
    const s = underEpt(
      { controls: VPID, fields: { vpid: 7n } },
      `again: mov rax, [${LINEAR}]\nvmcall\nmov [${LINEAR}], rbx\nvmcall\njmp again`,
    );
    s.tables?.map(OLD, OLD, Ept.R | Ept.WB);
    s.read();
    s.tables?.map(OLD, NEW, Ept.R | Ept.WB);
    expect(s.read()).toBe('exit 48');
    s.cpu.vmwrite('guestRip', BigInt(GUEST));
    expect(s.read()).toBe(2n);
  });

  it('take rights that were raised without an invalidation', () => {
    const s = underEpt(
      { controls: VPID, fields: { vpid: 7n } },
      `mov rax, [${LINEAR}]\nvmcall\nmov [${LINEAR}], rbx\nvmcall`,
    );
    s.tables?.map(OLD, OLD, Ept.R | Ept.WB);
    s.read();
    s.tables?.map(OLD, OLD);
    expect(s.read()).toBe(1n);
    expect(s.memory.read64(OLD)).toBe(0n);
  });

  it('are never made from entries that were not present or misconfigured', () => {
    for (const entry of [0n, Ept.W]) {
      const s = underEpt({ controls: VPID, fields: { vpid: 7n } });
      s.tables?.map(OLD, OLD, entry);
      expect(s.read()).toMatch(/exit 4[89]/);
      s.tables?.map(OLD, NEW);
      expect(s.read()).toBe(2n);
    }
  });

  it('go with EPTP switching only without a VPID, as far as they are combined', () => {
    const LIST = 0x2b_0000;
    for (const vpid of [false, true]) {
      const code = `mov rax, [${LINEAR}]\nvmcall\nxor eax, eax\nxor ecx, ecx\nvmfunc\nmov rax, [${LINEAR}]\nvmcall`;
      const s = underEpt(
        {
          controls: ['proc2.enableVmFunctions', ...(vpid ? VPID : [])],
          fields: { vmFunctionControls: 1n, eptpListAddress: BigInt(LIST), vpid: 7n },
        },
        code,
      );
      s.memory.write64(LIST, (s.tables as EptTables).eptp());
      s.read();
      remap(s);
      expect(s.read()).toBe(vpid ? 1n : 2n);
    }
  });
});

describe('paging-structure caches', () => {
  /** Reads two pages that one page table maps, the second one only in the second pass. */
  const TWO = `mov rax, [${LINEAR}]\nvmcall\nmov rax, [${LINEAR + 0x1000}]\nvmcall`;
  const OTHER_TABLE = 0x2b_0000;
  const fill = ({ memory }: Situation) => {
    memory.write64(TABLE + 8, BigInt(OLD) | PRESENT);
    memory.write64(OTHER_TABLE + 8, BigInt(NEW) | PRESENT);
  };

  it('lead to a page table although the entry for it has changed, until INVVPID', () => {
    for (const invalidates of [false, true]) {
      const s = withoutEpt(VPID, TWO);
      fill(s);
      s.read();
      s.memory.write64(DIRECTORY + 16, BigInt(OTHER_TABLE) | PRESENT);
      if (invalidates) invvpid(s, 1);
      expect(s.read()).toBe(invalidates ? 2n : 1n);
    }
  });

  it('make no page fault that the present structures would not make', () => {
    const s = withoutEpt(VPID, TWO);
    fill(s);
    s.memory.write64(TABLE + 8, 0n);
    s.read();
    s.memory.write64(DIRECTORY + 16, BigInt(OTHER_TABLE) | PRESENT);
    expect(s.read()).toBe(2n);
  });

  it('lead to an EPT page table although the entry for it has changed, until INVEPT', () => {
    for (const invalidates of [false, true]) {
      const s = underEpt({ controls: VPID, fields: { vpid: 7n } }, TWO);
      s.memory.write64(TABLE + 8, BigInt(OLD + 0x1000) | PRESENT);
      s.memory.write64(OLD + 0x1000, 1n);
      s.read();
      const tables = s.tables as EptTables;
      const changed = new EptTables(s.memory, 0x2c_0000);
      changed.identity(0x20_0000, 0x200);
      changed.map(OLD + 0x1000, NEW);
      tables.set(OLD, changed.get(OLD, 2), 2);
      if (invalidates) invept(s, 1);
      expect(s.read()).toBe(invalidates ? 2n : 1n);
    }
  });
});

describe('sub-page vectors', () => {
  const SPP = 0x2b_0000;
  /** Writes a sub-page and exits, over and over. */
  const WRITES = `again: mov [${LINEAR + 0x80}], rbx\nvmcall\njmp again`;
  const PAGE = Ept.R | Ept.X | Ept.WB | Ept.SubPages;

  function underSpp(vector: bigint) {
    const s = underEpt(
      {
        controls: [...VPID, 'proc2.subPageWritePermissionsForEpt'],
        fields: { vpid: 7n, sppTablePointer: BigInt(SPP) },
        detectStaleTranslations: true,
        prepare: (tables, { memory }) => {
          tables.map(OLD, OLD, PAGE);
          for (const [at, index] of [0, 0, OLD >> 21].entries())
            memory.write64(SPP + 0x1000 * at + 8 * index, BigInt(SPP + 0x1000 * (at + 1)) | 1n);
          memory.write64(SPP + 0x3000 + 8 * ((OLD >> 12) & 0x1ff), vector);
        },
      },
      WRITES,
    );
    return { ...s, vector: SPP + 0x3000 + 8 * ((OLD >> 12) & 0x1ff) };
  }
  const reports = (s: Situation) =>
    s.machine.staleTranslations.map((r) => [r.difference, r.change?.structure, r.owed]);

  it('let what they allowed be written until INVEPT, which is owed', () => {
    const s = underSpp(4n);
    expect(s.read()).toBe(0n);
    s.cpu.store64(s.vector, 1n);
    expect(s.read()).toBe(0n);
    expect(reports(s)).toEqual([['sub-page permissions', 'SPP', 'INVEPT single-context of EPTP 38001EH']]);
    invvpid(s, 1);
    expect(s.read()).toBe(0n);
    invept(s, 1);
    expect(s.read()).toBe('exit 48');
  });

  it('go with their page, and deny nothing that is allowed by now', () => {
    const added = underSpp(4n);
    added.cpu.store64(added.vector, 1n);
    expect(added.read()).toBe('exit 48');
    added.cpu.store64(added.vector, 5n);
    added.cpu.vmwrite('guestRip', BigInt(GUEST));
    expect(added.read()).toBe(0n);
    expect(reports(added)).toEqual([]);
    const table = underSpp(4n);
    table.read();
    table.cpu.store64(SPP + 0x1000, 0n);
    invept(table, 2);
    expect(table.read()).toBe('exit 66');
    expect(reports(table)).toEqual([]);
  });

  it('leave reads of their page to the combined mapping', () => {
    const s = underEpt({
      controls: [...VPID, 'proc2.subPageWritePermissionsForEpt'],
      fields: { vpid: 7n, sppTablePointer: BigInt(SPP) },
    });
    s.tables?.map(OLD, OLD, PAGE);
    expect(s.read()).toBe(1n);
    remap(s);
    expect(s.read()).toBe(1n);
  });
});

describe('structures of 32-bit paging', () => {
  const NARROW = 0x2b_0000;
  const OTHER = 0x2b_2000;
  const SEGMENT = { guestCsAccessRights: 0xc09bn };
  const code = assemble(`mov eax, [${LINEAR}]\nvmcall\nmov eax, [${LINEAR + 0x1000}]\nvmcall`, 32, GUEST);

  function narrow(): Situation {
    const machine = guestMachine(code, {
      controls: ['proc.activateSecondaryControls', ...VPID],
      off: ['entry.ia32eModeGuest'],
      fields: { vpid: 7n, guestCr4: 0x2010n, guestCr3: BigInt(NARROW), ...SEGMENT },
      setUp: ({ memory }) => {
        memory.write32(NARROW, 0x83);
        memory.write32(NARROW + 4, (NARROW + 0x1000) | 3);
        for (const [table, frame] of [
          [NARROW + 0x1000, OLD],
          [OTHER, NEW],
        ] as const) {
          memory.write32(table, frame | 3);
          memory.write32(table + 4, frame | 3);
        }
        memory.write64(OLD, 1n);
        memory.write64(NEW, 2n);
      },
    });
    return {
      cpu: machine.cpu(0),
      machine,
      memory: machine.memory,
      tables: undefined,
      read: reader(machine.cpu(0)),
    };
  }

  it('lead to a page table although the entry for it has changed, until INVVPID', () => {
    for (const invalidates of [false, true]) {
      const s = narrow();
      expect(s.read()).toBe(1n);
      s.memory.write32(NARROW + 4, OTHER | 3);
      if (invalidates) invvpid(s, 3);
      expect(s.read()).toBe(invalidates ? 2n : 1n);
    }
  });

  it('make no page fault that the present structures would not make', () => {
    const s = narrow();
    s.memory.write32(NARROW + 0x1004, 0);
    s.read();
    s.memory.write32(NARROW + 4, OTHER | 3);
    expect(s.read()).toBe(2n);
  });
});

it('keeps a mapping of its own for each PCID', () => {
  const code = `mov rax, [${LINEAR}]\nvmcall\nmov rcx, cr3\nor rcx, 5\nbts rcx, 63\nmov cr3, rcx\nmov rax, [${LINEAR}]\nvmcall\nxor rcx, 5\nmov cr3, rcx\nmov rax, [${LINEAR}]\nvmcall`;
  const machine = guestMachine(code, {
    controls: ['proc.activateSecondaryControls', 'proc2.enableVpid'],
    fields: { vpid: 7n, guestCr4: 0x2_2020n },
    setUp: ({ memory }) => prepare(memory),
  });
  const s = {
    machine,
    cpu: machine.cpu(0),
    memory: machine.memory,
    tables: undefined,
    read: reader(machine.cpu(0)),
  };
  expect(s.read()).toBe(1n);
  remap(s);
  // Another PCID has nothing; the first one still has its mapping, as the source's bit 63 asked for.
  expect(s.read()).toBe(2n);
  expect(s.read()).toBe(1n);
});
