/** RDMSRLIST and WRMSRLIST in VMX non-root operation (SDM §28.1.3, §28.3, §30.2.5). */
import { describe, expect, it } from 'vitest';
import type { ControlId } from '../../../src/vmcs/controls.ts';
import { exitFields, GUEST, guestMachine, runToExit } from '../../support/guest.ts';
import { INDICES, RDMSRLIST, VALUES, values, WRMSRLIST, writeList } from '../../support/msr-lists.ts';

const BITMAP = 0x8_2000;
const KERNEL_GS_BASE = 0xc000_0102n;
const LSTAR = 0xc000_0082n;
const LISTS: readonly ControlId[] = ['proc.activateTertiaryControls', 'proc3.enableMsrListInstructions'];
const BITMAPS: readonly ControlId[] = [...LISTS, 'proc.useMsrBitmaps'];

function guest(
  code: Uint8Array,
  controls: readonly ControlId[],
  exits: { read?: bigint; write?: bigint } = {},
) {
  const machine = guestMachine(Uint8Array.of(...code, 0x0f, 0x01, 0xc1), {
    level: 'complete',
    controls,
    fields: { msrBitmapAddress: BigInt(BITMAP), exceptionBitmap: 0x40n },
    setUp: ({ memory }) => {
      writeList(memory, [
        [KERNEL_GS_BASE, 5n],
        [LSTAR, 6n],
      ]);
      for (const [at, msr] of [
        [BITMAP + 1024, exits.read],
        [BITMAP + 3072, exits.write],
      ] as const) {
        if (msr === undefined) continue;
        const bit = Number(msr & 0x1fffn);
        memory.write8(at + (bit >> 3), 1 << (bit & 7));
      }
    },
  });
  const cpu = machine.cpu(0);
  cpu.set('RSI', BigInt(INDICES));
  cpu.set('RDI', BigInt(VALUES));
  cpu.set('RCX', 3n);
  cpu.set('IA32_KERNEL_GS_BASE', 0x11n);
  cpu.set('IA32_LSTAR', 0x22n);
  runToExit(cpu);
  const fields = exitFields(
    cpu,
    'exitReason',
    'exitQualification',
    'guestRip',
    'vmExitInstructionLength',
    'msrData',
  );
  const { exitReason, exitQualification, guestRip, vmExitInstructionLength, msrData } = fields;
  return {
    reason: Number(exitReason),
    qualification: exitQualification,
    offset: Number(guestRip) - GUEST,
    length: Number(vmExitInstructionLength),
    msrData,
    rcx: cpu.get('RCX'),
    msrs: [cpu.get('IA32_KERNEL_GS_BASE'), cpu.get('IA32_LSTAR')],
    values: values(machine.memory, 2),
  };
}

const UNREAD = { msrs: [0x11n, 0x22n], values: [5n, 6n], rcx: 3n, offset: 0 };

describe.each([
  ['RDMSRLIST', RDMSRLIST, 78],
  ['WRMSRLIST', WRMSRLIST, 79],
] as const)('%s', (name, code, reason) => {
  it('is undefined without "enable MSR-list instructions"', () => {
    expect(guest(code, [])).toMatchObject({ reason: 0, ...UNREAD });
  });

  it('exits without MSR bitmaps before anything is looked at', () => {
    expect(guest(code, LISTS)).toMatchObject({
      reason,
      qualification: 0n,
      length: 4,
      msrData: 0n,
      ...UNREAD,
    });
  });

  it('executes if no bit of the bitmap is set', () => {
    const other = name === 'RDMSRLIST' ? { write: LSTAR } : { read: LSTAR };
    expect(guest(code, BITMAPS, other)).toMatchObject({
      reason: 18,
      offset: 4,
      rcx: 0n,
      msrs: name === 'RDMSRLIST' ? [0x11n, 0x22n] : [5n, 6n],
      values: name === 'RDMSRLIST' ? [0x11n, 0x22n] : [5n, 6n],
    });
  });

  it('exits at the MSR whose bit is set', () => {
    const exits = name === 'RDMSRLIST' ? { read: LSTAR } : { write: LSTAR };
    const exit = { reason, qualification: LSTAR, offset: 0, length: 4, rcx: 2n };
    expect(guest(code, BITMAPS, exits)).toMatchObject(
      name === 'RDMSRLIST'
        ? { ...exit, msrData: 0n, values: [0x11n, 6n] }
        : { ...exit, msrData: 6n, msrs: [5n, 0x22n] },
    );
  });
});
