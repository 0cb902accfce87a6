/** What each operation of the processor makes it forget, for which VPIDs, PCIDs and EPTPs, and which mappings are used when (SDM §31.4.2, §31.4.3.1, vol. 3A §5.10.4.1). */
import { describe, expect, it } from 'vitest';
import { EptTables, GUEST } from '../../support/ept.ts';
import {
  invept,
  LINEAR,
  NEW,
  OLD,
  PRESENT,
  READS,
  remap,
  remapEpt,
  type Situation,
  TABLE,
  underEpt,
  VPID,
  withoutEpt,
} from '../../support/reading-guest.ts';

const READ = `mov rax, [${LINEAR}]\nvmcall`;
/** Reads, and reads again after `operation`, with an exit in between. */
const around = (operation: string) => `${READ}\n${operation}\n${READ}`;
const PCID_CR4 = 0x2_20a0n;
const fields = { vpid: 7n };

/** What is read after `operation`, if the page was changed before it: 1 from the stale mapping. */
function readAfter(operation: string, withEpt: boolean, global = 0n, set: (s: Situation) => void = () => {}) {
  const s = withEpt
    ? underEpt({ controls: VPID, fields: { ...fields, guestCr4: 0x20a0n } }, around(operation), global)
    : withoutEpt(VPID, around(operation), global);
  expect(s.read()).toBe(1n);
  set(s);
  remap(s);
  return s.read();
}

describe.each([
  ['linear', false],
  ['combined', true],
] as const)('%s mappings', (_, withEpt) => {
  it.each([
    ['nop', 1n, 1n],
    [`invlpg [rbx + ${LINEAR}]`, 2n, 2n],
    [`invlpg [rbx + ${LINEAR + 0x1000}]`, 1n, 1n],
    ['mov rcx, cr3\nmov cr3, rcx', 2n, 1n],
    ['mov rcx, cr4\nbtc rcx, 7\nmov cr4, rcx', 2n, 2n],
    ['mov rcx, cr4\nbtc rcx, 3\nmov cr4, rcx', 1n, 1n],
    ['mov rcx, cr0\nbtc rcx, 16\nmov cr0, rcx', 1n, 1n],
  ])('after %s', (operation, plain, global) => {
    expect(readAfter(operation, withEpt)).toBe(plain);
    expect(readAfter(operation, withEpt, 0x100n)).toBe(global);
  });
});

describe('INVPCID', () => {
  const DESCRIPTOR = 0x6_0000;
  /** A guest with PCID 5 reads, then executes INVPCID of `type` for `pcid` and `address`. */
  function afterInvpcid(type: bigint, pcid: bigint, address: number, global: bigint) {
    const code = `mov rcx, cr3\nor rcx, 5\nmov cr3, rcx\n${around(`mov rdi, ${type}\ninvpcid rdi, [${DESCRIPTOR}]`)}`;
    const s = underEpt(
      { controls: [...VPID, 'proc2.enableInvpcid'], fields: { ...fields, guestCr4: PCID_CR4 } },
      code,
      global,
    );
    s.memory.write64(DESCRIPTOR, pcid);
    s.memory.write64(DESCRIPTOR + 8, BigInt(address));
    expect(s.read()).toBe(1n);
    remap(s);
    return s.read();
  }
  const GLOBAL = 0x100n;

  it.each([
    [0n, 'the address', 5n, LINEAR, 2n, 1n],
    [0n, 'another address', 5n, LINEAR + 0x1000, 1n, 1n],
    [0n, 'another PCID', 6n, LINEAR, 1n, 1n],
    [1n, 'the PCID', 5n, 0, 2n, 1n],
    [1n, 'another PCID', 6n, 0, 1n, 1n],
    [2n, 'everything', 0n, 0, 2n, 2n],
    [3n, 'all but globals', 0n, 0, 2n, 1n],
  ] as const)('of type %s, %s', (type, _, pcid, address, plain, global) => {
    expect(afterInvpcid(type, pcid, address, 0n)).toBe(plain);
    expect(afterInvpcid(type, pcid, address, GLOBAL)).toBe(global);
  });
});

describe('which mappings are used', () => {
  it('global ones under every PCID, of one VPID and one first EPT structure', () => {
    const other = `mov rcx, cr3\nor rcx, 5\nbts rcx, 63\nmov cr3, rcx`;
    for (const [global, expected] of [
      [0n, 2n],
      [0x100n, 1n],
    ] as const) {
      const s = underEpt(
        { controls: VPID, fields: { ...fields, guestCr4: PCID_CR4 } },
        around(other),
        global,
      );
      s.read();
      remap(s);
      expect(s.read()).toBe(expected);
    }
    const s = underEpt({ controls: VPID, fields: { ...fields, guestCr4: PCID_CR4 } }, READS, 0x100n);
    s.read();
    remap(s);
    s.cpu.vmwrite('vpid', 8n);
    expect(s.read()).toBe(2n);
    s.cpu.vmwrite('vpid', 7n);
    const tables = new EptTables(s.memory, 0x2c_0000);
    tables.identity(0, 0x400);
    s.cpu.vmwrite('eptPointer', tables.eptp());
    expect(s.read()).toBe(2n);
    s.cpu.vmwrite('eptPointer', (s.tables as EptTables).eptp());
    expect(s.read()).toBe(1n);
  });

  const SECONDARY = 'secondaryProcessorBasedControls';
  const toggleEpt = ({ cpu }: Situation) => cpu.vmwrite(SECONDARY, cpu.vmread(SECONDARY).value ^ 2n);

  it('linear ones without EPT alone, combined ones with EPT alone', () => {
    const s = underEpt({ controls: VPID, fields });
    expect(s.read()).toBe(1n);
    remap(s);
    toggleEpt(s);
    expect(s.read()).toBe(2n);
    s.memory.write64(TABLE, BigInt(OLD) | PRESENT);
    expect(s.read()).toBe(2n);
    remap(s);
    toggleEpt(s);
    expect(s.read()).toBe(1n);
  });

  it('both are invalidated by INVLPG of the guest, whichever are in use, for all first EPT structures', () => {
    const s = underEpt(
      { controls: VPID, fields },
      `again: ${READ}\n${READ}\ninvlpg [rbx + ${LINEAR}]\njmp again`,
    );
    const first = (s.tables as EptTables).eptp();
    const other = new EptTables(s.memory, 0x2c_0000);
    other.identity(0, 0x400);
    expect(s.read()).toBe(1n);
    s.cpu.vmwrite('eptPointer', other.eptp());
    expect(s.read()).toBe(1n);
    remap(s);
    // INVLPG under the second EPTP, then without EPT.
    expect(s.read()).toBe(2n);
    s.cpu.vmwrite('eptPointer', first);
    expect(s.read()).toBe(2n);
    s.memory.write64(TABLE, BigInt(OLD) | PRESENT);
    toggleEpt(s);
    expect(s.read()).toBe(1n);
    toggleEpt(s);
    expect(s.read()).toBe(1n);
  });

  it('guest-physical ones for every VPID', () => {
    const s = underEpt({ controls: VPID, fields });
    s.read();
    remapEpt(s);
    s.cpu.vmwrite('vpid', 8n);
    expect(s.read()).toBe(1n);
    invept(s, 1);
    expect(s.read()).toBe(2n);
  });
});

describe('operations that invalidate nothing', () => {
  it('instructions that exit instead', () => {
    for (const [operation, control] of [
      [`invlpg [rbx + ${LINEAR}]`, 'proc.invlpgExiting'],
      ['mov rcx, cr3\nmov cr3, rcx', 'proc.cr3LoadExiting'],
    ] as const) {
      const s = withoutEpt([...VPID, control], around(operation));
      s.read();
      remap(s);
      expect(s.read()).toMatch(/^exit (14|28)$/);
      s.cpu.vmwrite(
        'guestRip',
        s.cpu.vmread('guestRip').value + s.cpu.vmread('vmExitInstructionLength').value,
      );
      expect(s.read()).toBe(1n);
    }
  });

  it('VMWRITE, VMPTRLD, and stores to structures', () => {
    const s = withoutEpt(VPID);
    s.read();
    remap(s);
    const pointer = s.cpu.vmptrst().pointer;
    s.cpu.vmwrite('vpid', 9n);
    s.cpu.vmwrite('vpid', 7n);
    s.cpu.vmptrld(pointer);
    expect(s.read()).toBe(1n);
  });
});

it('a page fault leaves no mapping of its address', () => {
  const code = `${READ}\nmov rcx, ${LINEAR}\nmov [rcx], rbx\nvmcall\n${READ}`;
  const s = underEpt(
    { controls: VPID, fields: { ...fields, guestCr0: 0x8001_0021n, exceptionBitmap: 1n << 14n } },
    code,
  );
  s.memory.write64(TABLE, BigInt(OLD) | 0x65n);
  s.read();
  s.memory.write64(TABLE, BigInt(NEW) | 0x65n);
  expect(s.read()).toBe('exit 0');
  s.cpu.vmwrite('guestRip', BigInt(GUEST));
  expect(s.read()).toBe(2n);
});

describe('RESET and system-management mode', () => {
  it('RESET forgets mappings of every kind', () => {
    const s = underEpt({ controls: VPID, fields });
    s.read();
    const { translations } = s.cpu.processor;
    const { ept } = s.cpu.unit;
    expect(translations.find(LINEAR, 0, 7 << 12, ept.tag)).toBeGreaterThanOrEqual(0);
    expect(ept.mappings.recall(OLD >> 12, ept.tag)).toBe(true);
    s.cpu.reset();
    expect(translations.find(LINEAR, 0, 7 << 12, ept.tag)).toBe(-1);
    expect(ept.mappings.recall(OLD >> 12, ept.tag)).toBe(false);
  });

  it('delivery of an SMI forgets VPID 0000H, RSM every VPID, and neither guest-physical mappings', () => {
    const s = underEpt({ controls: VPID, fields }, READS);
    expect(s.read()).toBe(1n);
    const { cpu } = s;
    const { translations } = cpu.processor;
    const { ept } = cpu.unit;
    translations.enter(0x5000, 0, 0, 0, 0x5000, 0);
    // RSM, at the entry point of the handler.
    s.memory.writeBytes(0x3_8000, Uint8Array.of(0x0f, 0xaa));
    cpu.set('smiPending', 1n);
    cpu.processor.requestAttention();
    const found = () => [
      translations.find(0x5000, 0, 0, 0) >= 0,
      translations.find(LINEAR, 0, 7 << 12, ept.tag) >= 0,
      ept.mappings.recall(OLD >> 12, ept.tag),
    ];
    if (cpu.get('inSmm') === 0n) cpu.run(1);
    expect(cpu.get('inSmm')).toBe(1n);
    expect(found()).toEqual([false, true, true]);
    cpu.run(1);
    expect(cpu.get('inSmm')).toBe(0n);
    expect(found()).toEqual([false, false, true]);
  });
});
