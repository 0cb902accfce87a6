/** The detector of stale translations: what it reports, and of what it says nothing (SDM §31.4.3.3, §31.4.3.4). */
import { describe, expect, it } from 'vitest';
import type { ControlId } from '../../../src/vmcs/controls.ts';
import { Ept, type EptGuestOptions, type EptTables, eptGuest, GUEST } from '../../support/ept.ts';
import { guestMachine, runToExit } from '../../support/guest.ts';
import { TranslationWorld } from '../../support/translation-world.ts';

const DIRECTORY = 0x30_2000;
const TABLE = 0x28_0000;
const LINEAR = 0x40_0000;
const OLD = 0x29_0000;
const NEW = 0x2a_0000;
const VPID: ControlId[] = ['proc2.enableVpid'];
/** Reads, changes the page-table entry, reads again. */
const EDIT = `mov rax, [${LINEAR}]\nmov rcx, ${NEW | 0x67}\nmov rdx, ${TABLE}\nmov [rdx], rcx\nmov rax, [${LINEAR}]\nvmcall`;

function fill(memory: EptTables['memory']): void {
  memory.write64(DIRECTORY + 16, BigInt(TABLE) | 0x67n);
  memory.write64(TABLE, BigInt(OLD) | 0x67n);
}

function guest(code: string, options: EptGuestOptions = {}) {
  const started = eptGuest(code, {
    detectStaleTranslations: true,
    ...options,
    prepare: (tables, machine) => {
      fill(machine.memory);
      options.prepare?.(tables, machine);
    },
  });
  const { cpu, machine } = started;
  return {
    ...started,
    run() {
      if (cpu.operation === 'root') {
        cpu.vmwrite('guestRip', BigInt(GUEST));
        cpu.vmresume();
      }
      runToExit(cpu);
      return machine.staleTranslations;
    },
  };
}

const READ = `mov rax, [${LINEAR}]\nvmcall`;

describe('a page table that a guest changes', () => {
  it('is reported with access, translations, change and what was owed', () => {
    const reports = guest(EDIT).run();
    // The instructions have 10, 7, 7, 3, and 10 bytes.
    expect(reports).toMatchObject([
      {
        cpu: 0,
        rip: BigInt(GUEST + 27),
        access: 'load',
        linear: BigInt(LINEAR),
        cached: OLD,
        fresh: NEW,
        difference: 'page',
        change: {
          structure: 'paging',
          address: TABLE,
          before: BigInt(OLD) | 0x67n,
          after: BigInt(NEW) | 0x67n,
          by: { cpu: 0, rip: BigInt(GUEST + 24) },
        },
        owed: 'INVLPG of 400000H',
        sdm: '31.4.3.1',
      },
    ]);
  });

  it('is not reported after INVLPG, or if rights were added', () => {
    const invalidated = EDIT.replace(
      '\nmov rax, [4194304]\nvmcall',
      '\nmov rsi, 4194304\ninvlpg [rsi]\nmov rax, [4194304]\nvmcall',
    );
    expect(invalidated).not.toBe(EDIT);
    expect(guest(invalidated).run()).toEqual([]);
    const raised = guest(EDIT.replace(String(NEW | 0x67), String(OLD | 0x67)), {
      prepare: (_tables, { memory }) => memory.write64(TABLE, BigInt(OLD) | 0x65n),
    });
    expect(raised.run()).toEqual([]);
  });

  it('is a matter of INVVPID if there is a VPID', () => {
    const [report] = guest(EDIT, { controls: VPID, fields: { vpid: 5n } }).run();
    expect(report?.owed).toBe(
      'INVLPG of 400000H by the guest, or INVVPID individual-address of VPID 5H and 400000H',
    );
  });
});

describe('EPT that a hypervisor changes', () => {
  const started = (eptpFlags = 0n) => {
    const g = guest(READ, { controls: VPID, fields: { vpid: 5n }, eptpFlags });
    g.run();
    return g;
  };
  const entry = (g: ReturnType<typeof started>) => g.tables.entry(BigInt(OLD), 1);

  it('is reported with the store that did it, once', () => {
    const g = started();
    g.cpu.store64(entry(g), BigInt(NEW) | Ept.RWX | Ept.WB);
    const [report, ...more] = g.run();
    expect(more).toEqual([]);
    expect(report).toMatchObject({
      difference: 'page',
      cached: OLD,
      fresh: NEW,
      change: { structure: 'EPT', address: entry(g), by: { cpu: 0 } },
      owed: 'INVEPT single-context of EPTP 38001EH',
      sdm: '31.4.3.4',
    });
    expect(g.run().length).toBe(1);
  });

  it('is reported for rights, presence and memory types that were taken away', () => {
    for (const [value, difference] of [
      [BigInt(OLD) | Ept.X | Ept.WB, 'rights'],
      [0n, 'page'],
      [BigInt(OLD) | Ept.RWX, 'memory type'],
    ] as const) {
      const g = started();
      g.cpu.store64(entry(g), value);
      expect(g.run()).toMatchObject([{ difference, owed: 'INVEPT single-context of EPTP 38001EH' }]);
    }
  });

  it('is reported for an accessed flag that is not set again', () => {
    const g = started(0x40n);
    g.cpu.store64(entry(g), BigInt(OLD) | Ept.RWX | Ept.WB);
    expect(g.run()).toMatchObject([{ difference: 'accessed flag' }]);
    expect(g.machine.memory.read64(entry(g)) & Ept.A).toBe(0n);
  });

  it('is not reported after INVEPT, for ignored bits, or for rights that were added', () => {
    const g = started();
    g.cpu.store64(entry(g), BigInt(NEW) | Ept.RWX | Ept.WB);
    g.cpu.invept(1, g.tables.eptp());
    expect(g.run()).toEqual([]);
    g.cpu.store64(entry(g), BigInt(NEW) | Ept.RWX | Ept.WB | (1n << 52n) | 0x800n);
    expect(g.run()).toEqual([]);
  });

  it('is reported after an invalidation of the wrong kind, or on another processor', () => {
    const g = started();
    g.cpu.store64(entry(g), BigInt(NEW) | Ept.RWX | Ept.WB);
    g.cpu.invvpid(2, 0n);
    expect(g.run().length).toBe(1);
    const world = new TranslationWorld({ translations: 'retain', detects: true });
    const who = { cpu: 0, vpid: 1, pcid: 0, ept: 0 };
    world.access(who, 0, false);
    world.editEpt(1, 0, 0, 1, Ept.RWX);
    world.invept(1, 1, 0);
    world.access(who, 0, false);
    expect(world.machine.staleTranslations).toMatchObject([{ cpu: 0, change: { by: { cpu: 1 } } }]);
  });
});

describe('registers and fields that lead elsewhere', () => {
  it('a VPID for other page tables owes INVVPID', () => {
    const machine = guestMachine(READ, {
      detectStaleTranslations: true,
      controls: ['proc.activateSecondaryControls', ...VPID],
      fields: { vpid: 5n },
      setUp: ({ memory }) => {
        fill(memory);
        memory.write64(0x2b_0000, 0x2b_1007n);
        memory.write64(0x2b_1000, 0x2b_2007n);
        memory.write64(0x2b_2000, 0x87n);
        memory.write64(0x2b_2010, 0x20_0087n);
      },
    });
    const cpu = machine.cpu(0);
    runToExit(cpu);
    cpu.vmwrite('guestCr3', 0x2b_0000n);
    cpu.vmwrite('guestRip', BigInt(GUEST));
    cpu.vmresume();
    runToExit(cpu);
    expect(machine.staleTranslations).toMatchObject([
      { difference: 'page', change: undefined, owed: 'INVVPID single-context of VPID 5H', sdm: '31.4.3.3' },
    ]);
  });

  it('an EPTP that switches accessed and dirty flags on for the same structures owes INVEPT', () => {
    const g = guest(READ, { controls: VPID, fields: { vpid: 5n } });
    g.run();
    g.cpu.vmwrite('eptPointer', g.tables.eptp(0x40n));
    const reports = g.run();
    expect(reports.length).toBeGreaterThan(0);
    for (const report of reports) {
      expect(report).toMatchObject({
        difference: 'accessed flag',
        change: undefined,
        owed: 'INVEPT single-context of EPTP 38005EH',
      });
    }
  });

  it('nothing is watched and nothing reported without the detector', () => {
    const g = guest(EDIT, { detectStaleTranslations: false });
    expect(g.run()).toEqual([]);
    expect(g.cpu.processor.translationWatch).toBeUndefined();
  });
});
