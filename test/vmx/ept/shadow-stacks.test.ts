import { describe, expect, it } from 'vitest';
import { assemble } from '../../support/assemble.ts';
import { SH_STK_EN, WR_SHSTK_EN, WRSSQ, WRUSSQ } from '../../support/cet.ts';
import { DATA, Ept, type EptGuest, eptExit, eptGuest, FRAME, GUEST } from '../../support/ept.ts';
import { mapFinely } from '../../support/guest.ts';

const PAGE_TABLE = 0x30_3000;
const P = 1n;
const U = 4n;
const D = 1n << 6n;
/** EPTP: supervisor shadow-stack control, and accessed and dirty flags. */
const CONTROL = 1n << 7n;
const FLAGS = 1n << 6n;
const SSP = BigInt(DATA + 0x100);
const CET_AND_WP = { guestCr0: 0x8001_0021n, guestCr4: 0x82_20a0n };

interface Options {
  readonly code?: string;
  readonly page?: bigint;
  readonly entry: bigint;
  readonly eptpFlags?: bigint;
  /** Flags of the EPT entry above that of the page. */
  readonly above?: bigint;
}

/** A guest with a shadow stack in the page {@link DATA}, which guest paging and EPT map as the options say. */
function shadowGuest({
  code = 'call rax; vmcall',
  page = P | D,
  entry,
  eptpFlags = 0n,
  above,
}: Options): EptGuest {
  return eptGuest(assemble(code, 64, GUEST), {
    eptpFlags,
    controls: ['entry.loadCetState', 'exit.loadCetState'],
    fields: { ...CET_AND_WP, guestIa32SCet: SH_STK_EN | WR_SHSTK_EN, guestSsp: SSP },
    prepare: (tables, machine) => {
      mapFinely(machine, PAGE_TABLE);
      machine.memory.write64(PAGE_TABLE + 8 * (DATA >> 12), BigInt(DATA) | page);
      machine.cpu(0).set('RAX', BigInt(GUEST + 2));
      machine.cpu(0).set('RBX', SSP);
      tables.map(DATA, FRAME, entry | Ept.WB);
      if (above !== undefined) {
        const at = tables.entry(BigInt(DATA), 2);
        machine.memory.write64(at, (machine.memory.read64(at) & ~7n) | above);
      }
    },
  });
}

const VMCALL = 18;
const VIOLATION = 48;
const R = Ept.R;
const RW = Ept.R | Ept.W;
const SHADOW = Ept.SupervisorShadowStack;

describe('shadow-stack accesses with EPT (SDM §31.3.3.2)', () => {
  it('need the rights of other accesses without EPTP[7]', () => {
    const allowed = shadowGuest({ entry: RW });
    expect(eptExit(allowed).reason).toBe(VMCALL);
    expect(allowed.machine.memory.read64(FRAME + 0xf8)).toBe(BigInt(GUEST + 2));
    const exit = eptExit(shadowGuest({ entry: R | SHADOW }));
    expect(exit).toMatchObject({ reason: VIOLATION, guestLinearAddress: SSP - 8n, guestRip: BigInt(GUEST) });
    expect(exit.set).toContain('write');
    expect(exit.set).toContain('shadowStackAccess');
    expect(exit.set).not.toContain('supervisorShadowStack');
  });

  it('of supervisor mode need bit 60 with EPTP[7], and not bit 1', () => {
    const allowed = shadowGuest({ entry: R | SHADOW, eptpFlags: CONTROL });
    expect(eptExit(allowed).reason).toBe(VMCALL);
    expect(allowed.machine.memory.read64(FRAME + 0xf8)).toBe(BigInt(GUEST + 2));
    const exit = eptExit(shadowGuest({ entry: RW, eptpFlags: CONTROL }));
    expect(exit.reason).toBe(VIOLATION);
    expect(exit.set).toEqual(expect.arrayContaining(['write', 'shadowStackAccess', 'writable']));
    expect(exit.set).not.toContain('supervisorShadowStack');
    const read = eptExit(shadowGuest({ code: 'ret', entry: RW, eptpFlags: CONTROL }));
    expect(read.set).toEqual(expect.arrayContaining(['read', 'shadowStackAccess']));
  });

  it('need bit 1 in the entries above, and say what the page allows', () => {
    const exit = eptExit(
      shadowGuest({ code: WRSSQ, entry: R | SHADOW, eptpFlags: CONTROL, above: Ept.R | Ept.X }),
    );
    expect(exit.reason).toBe(VIOLATION);
    expect(exit.set).toEqual(expect.arrayContaining(['shadowStackAccess', 'supervisorShadowStack']));
  });

  it('bit 60 lets no other access through, and those of user mode obey bit 1', () => {
    const options = { entry: R | SHADOW, eptpFlags: CONTROL };
    const store = eptExit(shadowGuest({ ...options, code: 'mov [rbx], rax', page: P | D | 2n }));
    expect(store.reason).toBe(VIOLATION);
    expect(store.set).not.toContain('shadowStackAccess');
    const user = { code: `${WRUSSQ}; vmcall`, page: P | D | U, eptpFlags: CONTROL };
    expect(eptExit(shadowGuest({ ...user, entry: R | SHADOW })).set).toContain('shadowStackAccess');
    expect(eptExit(shadowGuest({ ...user, entry: RW })).reason).toBe(VMCALL);
  });

  it('set the dirty flag of EPT', () => {
    const guest = shadowGuest({ entry: R | SHADOW, eptpFlags: CONTROL | FLAGS });
    expect(eptExit(guest).reason).toBe(VMCALL);
    expect(guest.tables.get(DATA) & (Ept.A | Ept.D)).toBe(Ept.A | Ept.D);
    const reading = shadowGuest({
      code: 'pop rcx; push rax; ret; vmcall',
      entry: R | SHADOW,
      eptpFlags: CONTROL | FLAGS,
    });
    reading.machine.memory.write64(FRAME + 0x100, BigInt(GUEST + 3));
    reading.cpu.set('RAX', BigInt(GUEST + 3));
    expect(eptExit(reading).reason).toBe(VMCALL);
    expect(reading.tables.get(DATA) & (Ept.A | Ept.D)).toBe(Ept.A);
  });

  it('a read that came first does not let a write skip what it needs', () => {
    const code = 'mov rcx, [rbx]; call rax; vmcall';
    const exit = eptExit(shadowGuest({ code, entry: RW, eptpFlags: CONTROL }));
    expect(exit).toMatchObject({ reason: VIOLATION, guestRip: BigInt(GUEST + 3) });
  });
});
