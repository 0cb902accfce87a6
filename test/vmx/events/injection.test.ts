import { describe, expect, it } from 'vitest';
import { eptGuest, REAL_MODE } from '../../support/ept.ts';
import { exitFields, GUEST, GUEST_STACK, runToExit } from '../../support/guest.ts';
import { eventGuest, eventId, GUEST_IDT, handlerOf } from '../../support/guest-events.ts';
import type { FieldValues } from '../../support/legal-vmcs.ts';
import { gate } from '../../support/tables.ts';
import { leave, TSS } from '../../support/task-guest.ts';

const Type = { Interrupt: 0, Nmi: 2, Hardware: 3, SoftwareInterrupt: 4, Privileged: 5, Software: 6 };
const RF = 0x1_0000n;

/** One event of each type; an interrupt wants RFLAGS.IF. */
const EVENTS: readonly (readonly [string, bigint, number, length: bigint])[] = [
  ['an external interrupt', eventId(Type.Interrupt, 0x40), 0x40, 0n],
  ['an NMI', eventId(Type.Nmi, 2), 2, 0n],
  ['a hardware exception', eventId(Type.Hardware, 6), 6, 0n],
  ['INT n', eventId(Type.SoftwareInterrupt, 0x80), 0x80, 2n],
  ['INT1', eventId(Type.Privileged, 1), 1, 1n],
  ['INT3', eventId(Type.Software, 3), 3, 1n],
];

const injected = (identification: bigint, length: bigint, fields: FieldValues = {}): FieldValues => ({
  injectedEventIdentification: identification,
  vmEntryInstructionLength: length,
  guestRflags: 0x202n,
  ...fields,
});

describe('an injected event (SDM §29.6.1.1)', () => {
  it.each(EVENTS)(
    '%s: the image of RFLAGS has RF as the guest has it',
    (_, identification, vector, length) => {
      for (const guestRflags of [0x202n, 0x202n | RF]) {
        const machine = eventGuest('nop', { fields: injected(identification, length, { guestRflags }) });
        runToExit(machine.cpu(0));
        expect(exitFields(machine.cpu(0), 'guestRip', 'guestRflags')).toEqual({
          guestRip: BigInt(handlerOf(vector)),
          guestRflags: 2n,
        });
        expect(machine.memory.read64(GUEST_STACK - 24)).toBe(guestRflags);
        expect(machine.memory.read64(GUEST_STACK - 40)).toBe(BigInt(GUEST) + length);
      }
    },
  );

  it.each([
    ['#DB', eventId(Type.Hardware, 1), 0n],
    ['INT1', eventId(Type.Privileged, 1), 1n],
    ['#PF', eventId(Type.Hardware, 14, 1), 0n],
  ])('%s leaves DR6, DR7, IA32_DEBUGCTL and CR2 alone', (_, identification, length) => {
    const machine = eventGuest('nop', {
      controls: ['entry.loadDebugControls'],
      fields: injected(identification, length, { guestDr7: 0x2400n, guestIa32Debugctl: 3n }),
      setUp: (m) => {
        m.cpu(0).set('DR6', 0xffff_0ff5n);
        m.cpu(0).set('CR2', 0x1234n);
      },
    });
    const cpu = machine.cpu(0);
    cpu.run(1);
    expect(cpu.operation).toBe('non-root');
    expect((['DR6', 'DR7', 'IA32_DEBUGCTL', 'CR2'] as const).map((name) => cpu.get(name))).toEqual([
      0xffff_0ff5n,
      0x2400n,
      3n,
      0x1234n,
    ]);
  });

  it.each(EVENTS)(
    '%s at CPL 3: the DPL of the gate counts for INT n and INT3',
    (name, identification, vector, length) => {
      const tss = 0x7_4000;
      const guest = (rights: number) => {
        const machine = eventGuest('nop', {
          fields: injected(identification, length, {
            guestCsSelector: 0x1bn,
            guestCsAccessRights: 0xa0fbn,
            guestSsSelector: 0x23n,
            guestSsAccessRights: 0xc0f3n,
            guestTrBase: BigInt(tss),
            exceptionBitmap: 1n << 13n,
          }),
          setUp: (m) => m.memory.write64(tss + 4, 0x8_8000n),
        });
        machine.memory.write8(GUEST_IDT + 16 * vector + 5, rights);
        runToExit(machine.cpu(0));
        return exitFields(
          machine.cpu(0),
          'exitReason',
          'guestRip',
          'exitingEventErrorCode',
          'originalEventIdentification',
        );
      };
      const delivered = { exitReason: 18n, guestRip: BigInt(handlerOf(vector)) };
      expect(guest(0xee)).toMatchObject(delivered);
      if (name === 'INT n' || name === 'INT3') {
        expect(guest(0x8e)).toEqual({
          exitReason: 0n,
          guestRip: BigInt(GUEST),
          exitingEventErrorCode: BigInt(8 * vector + 2),
          originalEventIdentification: identification,
        });
      } else expect(guest(0x8e)).toMatchObject(delivered);
    },
  );
});

describe('INT n that VM entry injects in virtual-8086 mode', () => {
  const HANDLER = 0x4_0000;
  const VECTOR = 0x21;
  const [VME, VM] = [1n, 0x2_0000n];
  const [IF, IOPL_3, VIF] = [0x200n, 0x3000n, 0x8_0000n];
  const GATE_3 = gate(8, HANDLER, 0xee);
  const segments = Object.fromEntries(
    (['Cs', 'Ss', 'Ds', 'Es', 'Fs', 'Gs'] as const).flatMap((name) => [
      [`guest${name}Selector`, BigInt(GUEST >> 4)],
      [`guest${name}Base`, BigInt(GUEST)],
      [`guest${name}Limit`, 0xffffn],
      [`guest${name}AccessRights`, 0xf3n],
    ]),
  ) as FieldValues;

  interface Setting {
    readonly cr4?: bigint;
    readonly flags: bigint;
    /** The bit of the vector in the redirection bitmap. */
    readonly direct?: boolean;
    readonly gate?: bigint;
    readonly identification?: bigint;
  }

  function enter({ cr4 = 0n, flags, direct = false, gate: rights = GATE_3, identification }: Setting) {
    const event = identification ?? eventId(Type.SoftwareInterrupt, VECTOR);
    const cpu = leave({
      flags: VM | flags,
      idt: { [Number(event & 0xffn)]: rights },
      fields: {
        ...segments,
        guestRip: 0n,
        guestRsp: 0xf000n,
        guestCr4: 0x2010n | cr4,
        guestTrLimit: 0x88n,
        injectedEventIdentification: event,
        vmEntryInstructionLength: 2n,
      },
      tables: ({ memory }) => {
        // The redirection bitmap, then the I/O permission bitmap.
        memory.write16(TSS + 0x66, 0x88);
        memory.write32(TSS + 0x68 + 4, direct ? 1 << (VECTOR & 31) : 0);
        memory.write32(4 * VECTOR, 0x3000_0100);
        // VMCALL at both places.
        for (const at of [HANDLER, 0x3_0100]) memory.writeBytes(at, Uint8Array.of(0x0f, 0x01, 0xc1));
      },
    });
    const { memory } = cpu.processor;
    const fields = exitFields(
      cpu,
      'exitReason',
      'guestRip',
      'guestCsBase',
      'guestRflags',
      'exitingEventErrorCode',
    );
    return {
      reason: Number(fields.exitReason),
      at: Number(fields.guestCsBase + fields.guestRip),
      isV86: (fields.guestRflags & VM) !== 0n,
      errorCode: fields.exitingEventErrorCode,
      // What the vector table and the gate push.
      image16: BigInt(memory.read16(GUEST + 0xf000 - 2)),
      image32: BigInt(memory.read32(GUEST_STACK - 28)),
    };
  }

  it.each([0n, IOPL_3])('without CR4.VME goes through its gate, with IOPL bits %i', (flags) => {
    expect(enter({ flags })).toMatchObject({
      reason: 18,
      at: HANDLER,
      isV86: false,
      image32: VM | flags | 2n,
    });
    expect(enter({ flags, gate: gate(8, HANDLER, 0x8e) })).toMatchObject({
      reason: 0,
      at: GUEST,
      errorCode: BigInt(8 * VECTOR + 2),
    });
  });

  it.each([0n, IOPL_3])('with it and its bit set goes through its gate, with IOPL bits %i', (flags) => {
    expect(enter({ flags, cr4: VME, direct: true })).toMatchObject({
      reason: 18,
      at: HANDLER,
      isV86: false,
      image32: VM | flags | 2n,
    });
  });

  it.each([
    ['below IOPL 3 VIF takes the place of IF', VIF, IOPL_3 | IF | 2n],
    ['below IOPL 3 with VIF 0', IF, IOPL_3 | 2n],
    ['with IOPL 3', IOPL_3 | IF, IOPL_3 | IF | 2n],
  ])('with it and its bit clear goes through the vector table: %s', (_, flags, image16) => {
    // Whatever the DPL of the gate.
    expect(enter({ flags, cr4: VME, gate: gate(8, HANDLER, 0x8e) })).toMatchObject({
      reason: 18,
      at: 0x3_0100,
      isV86: true,
      image16,
    });
  });

  it('is redirected alone: other events go through their gates', () => {
    for (const identification of [eventId(Type.Software, 3), eventId(Type.Hardware, 6)]) {
      expect(enter({ flags: IF, cr4: VME, identification })).toMatchObject({ at: HANDLER, isV86: false });
    }
  });
});

describe('an event that VM entry injects in real-address mode (SDM §29.6.1.3)', () => {
  const enter = (identification: bigint, fields: FieldValues = {}) => {
    const guest = eptGuest('nop', {
      ...REAL_MODE,
      controls: REAL_MODE.controls ?? [],
      fields: {
        ...REAL_MODE.fields,
        guestIdtrBase: 0x100n,
        guestIdtrLimit: 0x3ffn,
        injectedEventIdentification: identification,
        vmEntryInstructionLength: 2n,
        guestRflags: 0x202n,
        ...fields,
      },
      prepare: (_, { memory }) => {
        memory.write32(0x100 + 4 * Number(identification & 0xffn), 0x3000_0100);
        memory.writeBytes(0x3_0100, Uint8Array.of(0x0f, 0x01, 0xc1));
      },
    });
    runToExit(guest.cpu);
    const { memory } = guest.machine;
    return {
      ...exitFields(guest.cpu, 'exitReason', 'guestCsBase', 'guestRip', 'guestRsp'),
      pushed: [2, 4, 6].map((n) => memory.read16(GUEST + 0xf000 - n)),
    };
  };

  it.each([
    ['an external interrupt', eventId(Type.Interrupt, 0x40), 0],
    ['#GP, without error code', eventId(Type.Hardware, 13), 0],
    ['INT n', eventId(Type.SoftwareInterrupt, 0x21), 2],
  ])('%s goes through the vector table', (_, identification, ip) => {
    expect(enter(identification)).toEqual({
      exitReason: 18n,
      guestCsBase: 0x3_0000n,
      guestRip: 0x100n,
      guestRsp: 0xf000n - 6n,
      pushed: [0x202, GUEST >> 4, ip],
    });
  });

  it('beyond the limit of the vector table is #GP, then #DF, then a triple fault', () => {
    expect(enter(eventId(Type.Hardware, 13), { guestIdtrLimit: 7n })).toMatchObject({
      exitReason: 2n,
      guestRip: 0n,
      guestRsp: 0xf000n,
    });
  });
});
