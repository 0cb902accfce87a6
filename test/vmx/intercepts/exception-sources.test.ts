/** Instructions that raise exceptions, and the exception bitmap (SDM §28.2, §30.2.2, §30.2.5); the monitor trap flag after them. */
import { describe, expect, it } from 'vitest';
import { exitFields, GUEST } from '../../support/guest.ts';
import { eventId } from '../../support/guest-events.ts';
import { gate } from '../../support/tables.ts';
import { bytes, leave, type Setting, Type } from '../../support/task-guest.ts';

const HANDLER = 0x4_0000;
const POINTER = 0x6_0000;
const OF = 0x800n;

/** Name, code of a 32-bit guest, vector, type, length that the exit reports or 0. */
const SOURCES: readonly (readonly [string, Uint8Array, number, number, number])[] = [
  ['INT1', bytes(0xf1), 1, Type.Int1, 1],
  ['INT3', bytes(0xcc), 3, Type.Software, 1],
  ['INTO', bytes(0xce), 4, Type.Software, 1],
  ['BOUND', bytes(0x62, 0x05, 0, 0, POINTER >> 16, 0), 5, Type.Hardware, 0],
  ['UD0', bytes(0x0f, 0xff, 0xc0), 6, Type.Hardware, 0],
  ['UD1', bytes(0x0f, 0xb9, 0xc0), 6, Type.Hardware, 0],
  ['UD2', bytes(0x0f, 0x0b), 6, Type.Hardware, 0],
  ['DIV by 0', bytes(0xf7, 0xf1), 0, Type.Hardware, 0],
];

/** The array has the bounds 0 and 0, the index is 1; ECX is 0. */
const setting = (code: Uint8Array, exceptionBitmap: bigint, more: Setting['fields'] = {}): Setting => ({
  code,
  flags: OF,
  idt: Object.fromEntries(
    Array.from({ length: 0x81 }, (_, vector) => [vector, gate(8, HANDLER + 16 * vector, 0x8e)]),
  ),
  fields: { exceptionBitmap, ...more },
  prepare: (cpu) => {
    cpu.set('RAX', 1n);
    cpu.set('RCX', 0n);
    // VMCALL is what the handlers consist of.
    for (let vector = 0; vector < 0x81; vector++) {
      cpu.processor.memory.writeBytes(HANDLER + 16 * vector, bytes(0x0f, 0x01, 0xc1));
    }
  },
});

describe('exceptions by the exception bitmap', () => {
  it.each(SOURCES)('%s: its own bit alone decides', (_, code, vector, type, length) => {
    const cpu = leave(setting(code, 1n << BigInt(vector)));
    expect(exitFields(cpu, 'exitReason', 'exitingEventIdentification', 'guestRip')).toEqual({
      exitReason: 0n,
      exitingEventIdentification: eventId(type, vector),
      guestRip: BigInt(GUEST),
    });
    expect(cpu.vmread('originalEventIdentification').value >> 31n).toBe(0n);
    if (length !== 0) expect(cpu.vmread('vmExitInstructionLength').value).toBe(BigInt(length));
    const without = leave(setting(code, 0xffff_ffffn & ~(1n << BigInt(vector))));
    expect(exitFields(without, 'exitReason', 'guestRip')).toEqual({
      exitReason: 18n,
      guestRip: BigInt(HANDLER + 16 * vector),
    });
  });

  it.each([0, 1, 3, 4, 6, 8, 13, 14, 31, 0x80])('INT %i never exits', (vector) => {
    const cpu = leave(setting(bytes(0xcd, vector), 0xffff_ffffn));
    expect(exitFields(cpu, 'exitReason', 'guestRip')).toEqual({
      exitReason: 18n,
      guestRip: BigInt(HANDLER + 16 * vector),
    });
  });

  it('INTO without RFLAGS.OF raises nothing', () => {
    const cpu = leave({ ...setting(bytes(0xce, 0x0f, 0x01, 0xc1), 0xffff_ffffn), flags: 0n });
    expect(exitFields(cpu, 'exitReason', 'guestRip')).toEqual({
      exitReason: 18n,
      guestRip: BigInt(GUEST + 1),
    });
  });

  it.each([
    ['all', 1n << 14n, 0n, 0n, true],
    ['none', 1n << 14n, 0n, 0xffff_ffffn, false],
    ['all, by the bit 0', 0n, 0n, 0xffff_ffffn, true],
  ] as const)('#PF: %s', (_, bitmap, pageFaultErrorCodeMask, pageFaultErrorCodeMatch, exits) => {
    const fields = { pageFaultErrorCodeMask, pageFaultErrorCodeMatch };
    for (const code of [bytes(0xa1, 0, 0, 0, 0x10), bytes(0xa3, 0, 0, 0, 0x10)]) {
      const { exitReason } = exitFields(leave(setting(code, bitmap, fields)), 'exitReason');
      expect(exitReason).toBe(exits ? 0n : 18n);
    }
  });
});

describe('the monitor trap flag (SDM §28.5.2)', () => {
  it.each(SOURCES)('after %s comes when the exception has been delivered', (_, code, vector) => {
    const cpu = leave({ ...setting(code, 0n), controls: ['proc.monitorTrapFlag'] });
    expect(exitFields(cpu, 'exitReason', 'guestRip')).toEqual({
      exitReason: 37n,
      guestRip: BigInt(HANDLER + 16 * vector),
    });
  });

  it.each(SOURCES)('%s that exits leaves none', (_, code, vector) => {
    const cpu = leave({ ...setting(code, 1n << BigInt(vector)), controls: ['proc.monitorTrapFlag'] });
    expect(cpu.vmread('exitReason').value).toBe(0n);
  });
});

describe('injected events (SDM §29.6.1.2)', () => {
  it.each([
    ['an exception', eventId(Type.Hardware, 6), 6],
    ['an NMI', eventId(Type.Nmi, 2), 2],
    ['INT3', eventId(Type.Software, 3), 3],
  ])('%s does not exit itself', (_, injectedEventIdentification, vector) => {
    const fields = { injectedEventIdentification, vmEntryInstructionLength: 1n };
    const cpu = leave({ ...setting(bytes(0x90), 0xffff_ffffn, fields), controls: ['pin.nmiExiting'] });
    expect(exitFields(cpu, 'exitReason', 'guestRip')).toEqual({
      exitReason: 18n,
      guestRip: BigInt(HANDLER + 16 * vector),
    });
  });

  it.each([
    ['#DF by a fault of delivery of #GP', eventId(Type.Hardware, 13, 1), 1n << 8n, 0n],
    ['a triple fault by a fault of delivery of #DF', eventId(Type.Hardware, 8, 1), 0n, 2n],
    ['a triple fault by faults of delivery of #GP and #DF', eventId(Type.Hardware, 13, 1), 0n, 2n],
  ])('%s', (_, injectedEventIdentification, bitmap, reason) => {
    const fields = { injectedEventIdentification, guestIdtrLimit: 0n };
    const cpu = leave(setting(bytes(0x90), bitmap, fields));
    expect(exitFields(cpu, 'exitReason', 'guestRip')).toEqual({
      exitReason: reason,
      guestRip: BigInt(GUEST),
    });
    expect(cpu.vmread('originalEventIdentification').value >> 31n).toBe(0n);
    if (reason === 0n) {
      expect(cpu.vmread('exitingEventIdentification').value).toBe(eventId(Type.Hardware, 8, 1));
    }
  });
});
