import { describe, expect, it } from 'vitest';
import type { Machine } from '../../../src/machine/machine.ts';
import { assemble } from '../../support/assemble.ts';
import { exitFields, GUEST, GUEST_STACK, guestMachine, runToExit } from '../../support/guest.ts';

const IDT = 0x7_0000;
const GDT = 0x7_2000;
const HANDLER = 0x4_0000;

/** Interrupt gates for every vector to {@link HANDLER}, and a GDT with a 64-bit code segment at 08H. */
const TABLES = {
  guestIdtrBase: BigInt(IDT),
  guestIdtrLimit: 0xfffn,
  guestGdtrBase: BigInt(GDT),
  guestGdtrLimit: 0x1fn,
};

function withTables(machine: Machine, handler: string): Machine {
  for (let vector = 0; vector < 256; vector++) {
    machine.memory.write64(
      IDT + 16 * vector,
      (BigInt(HANDLER >> 16) << 48n) | (0x8e00n << 32n) | (8n << 16n) | BigInt(HANDLER & 0xffff),
    );
  }
  machine.memory.write64(GDT + 8, 0x00af_9b00_0000_ffffn);
  machine.memory.write64(GDT + 16, 0x00cf_9300_0000_ffffn);
  machine.memory.writeBytes(HANDLER, assemble(handler, 64, HANDLER));
  return machine;
}

const UD2 = Uint8Array.of(0x0f, 0xff, 0xc0);
const event = (type: number, vector: number, code = 0) =>
  BigInt((0x8000_0000 | (code << 11) | (type << 8) | vector) >>> 0);

describe('the exception bitmap (SDM §27.6.3, §28.2)', () => {
  it('a bit makes the exception exit, with RIP at the instruction', () => {
    const cpu = guestMachine(UD2, { fields: { exceptionBitmap: 1n << 6n } }).cpu(0);
    runToExit(cpu);
    expect(exitFields(cpu, 'exitReason', 'exitingEventIdentification', 'guestRip', 'guestRflags')).toEqual({
      exitReason: 0n,
      exitingEventIdentification: event(3, 6),
      guestRip: BigInt(GUEST),
      guestRflags: 0x1_0002n,
    });
  });

  it('without it the guest handles the exception', () => {
    const machine = withTables(guestMachine(UD2, { fields: TABLES }), 'vmcall');
    const cpu = machine.cpu(0);
    runToExit(cpu);
    expect(exitFields(cpu, 'exitReason', 'guestRip')).toEqual({ exitReason: 18n, guestRip: BigInt(HANDLER) });
    expect(machine.memory.read64(GUEST_STACK - 40)).toBe(BigInt(GUEST));
  });

  it('of page faults the error code decides, with mask and match', () => {
    for (const [bitmap, mask, match, exits] of [
      [1n << 14n, 0n, 0n, true],
      [0n, 0n, 1n, true],
      [1n << 14n, 2n, 0n, false],
      [1n << 14n, 2n, 2n, true],
      [0n, 2n, 2n, false],
    ] as const) {
      const fields = {
        ...TABLES,
        exceptionBitmap: bitmap,
        pageFaultErrorCodeMask: mask,
        pageFaultErrorCodeMatch: match,
      };
      const machine = withTables(guestMachine('mov rax, 0x8000000000\nmov [rax], rax', { fields }), 'vmcall');
      const cpu = machine.cpu(0);
      runToExit(cpu);
      const seen = exitFields(cpu, 'exitReason', 'exitQualification', 'exitingEventErrorCode', 'guestRip');
      expect(seen.exitReason).toBe(exits ? 0n : 18n);
      if (exits) {
        expect(seen.exitQualification).toBe(0x80_0000_0000n);
        expect(seen.exitingEventErrorCode).toBe(2n);
        expect(cpu.get('CR2')).toBe(0n);
      } else expect(cpu.get('CR2')).toBe(0x80_0000_0000n);
    }
  });

  it('a triple fault exits', () => {
    const cpu = guestMachine(UD2).cpu(0);
    runToExit(cpu);
    expect(exitFields(cpu, 'exitReason', 'guestRip')).toEqual({ exitReason: 2n, guestRip: BigInt(GUEST) });
  });

  it('an exception during delivery reports the event that was delivered', () => {
    const fields = { ...TABLES, guestIdtrLimit: 0x5fn, exceptionBitmap: 1n << 13n };
    const cpu = withTables(guestMachine(UD2, { fields }), 'vmcall').cpu(0);
    runToExit(cpu);
    expect(
      exitFields(
        cpu,
        'exitReason',
        'exitingEventIdentification',
        'exitingEventErrorCode',
        'originalEventIdentification',
      ),
    ).toEqual({
      exitReason: 0n,
      exitingEventIdentification: event(3, 13, 1),
      exitingEventErrorCode: 0x33n,
      originalEventIdentification: event(3, 6),
    });
  });
});

describe('event injection through the IDT (SDM §29.6.1)', () => {
  const cases: readonly (readonly [
    name: string,
    identification: bigint,
    extra: Record<string, bigint>,
    saved: bigint,
  ])[] = [
    ['external interrupt', event(0, 0x40), {}, BigInt(GUEST)],
    ['NMI', event(2, 2), {}, BigInt(GUEST)],
    ['#GP with error code', event(3, 13, 1), { injectedEventErrorCode: 0x1234n }, BigInt(GUEST)],
    ['INT n', event(4, 0x80), { vmEntryInstructionLength: 2n }, BigInt(GUEST + 2)],
    ['INT3', event(6, 3), { vmEntryInstructionLength: 1n }, BigInt(GUEST + 1)],
  ];
  for (const [name, injectedEventIdentification, extra, saved] of cases) {
    it(name, () => {
      const fields = { ...TABLES, injectedEventIdentification, ...extra, guestRflags: 0x202n };
      const machine = withTables(guestMachine('nop\nvmcall', { fields }), 'vmcall');
      const cpu = machine.cpu(0);
      runToExit(cpu);
      expect(exitFields(cpu, 'exitReason', 'guestRip')).toEqual({
        exitReason: 18n,
        guestRip: BigInt(HANDLER),
      });
      const hasCode = 'injectedEventErrorCode' in extra;
      const frame = GUEST_STACK - (hasCode ? 48 : 40);
      expect(machine.memory.read64(frame + (hasCode ? 8 : 0))).toBe(saved);
      if (hasCode) expect(machine.memory.read64(frame)).toBe(0x1234n);
    });
  }
});
