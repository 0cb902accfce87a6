import { describe, expect, it } from 'vitest';
import type { LogicalProcessor } from '../../../src/machine/logical-processor.ts';
import type { ControlId } from '../../../src/vmcs/controls.ts';
import { ApicRegister } from '../../../src/vmx/apic/virtual-apic-page.ts';
import { exitFields, GUEST, runToExit } from '../../support/guest.ts';
import { eventGuest, eventId, GUEST_IDT, handlerOf, requestInterrupt } from '../../support/guest-events.ts';
import type { FieldValues } from '../../support/legal-vmcs.ts';

const [DF, NP, GP, PF] = [8, 11, 13, 14];
const bit = (vector: number) => 1n << BigInt(vector);
const Type = { Interrupt: 0, Nmi: 2, Hardware: 3, SoftwareInterrupt: 4, Privileged: 5, Software: 6 };

/** Byte 5 of a gate: 64-bit interrupt gate, the same not present, and no gate at all. */
const [GATE, NOT_PRESENT, NO_GATE] = [0x8e, 0x0e, 0x80];

interface Setting {
  readonly fields?: FieldValues;
  readonly controls?: readonly ControlId[];
  readonly prepare?: (cpu: LogicalProcessor) => void;
}

/** A guest about to execute `code`; `gates`: byte 5 of gates that are not {@link GATE}. */
function guest(
  code: string | Uint8Array,
  gates: Readonly<Record<number, number>>,
  { fields = {}, controls = [], prepare }: Setting = {},
): LogicalProcessor {
  const machine = eventGuest(code, { controls, fields: { guestRflags: 0x202n, ...fields } });
  expect(machine.memory.read8(GUEST_IDT + 5)).toBe(GATE);
  for (const [vector, rights] of Object.entries(gates)) {
    machine.memory.write8(GUEST_IDT + 16 * Number(vector) + 5, rights);
  }
  prepare?.(machine.cpu(0));
  return machine.cpu(0);
}

function exit(cpu: LogicalProcessor) {
  runToExit(cpu);
  const fields = exitFields(
    cpu,
    'exitReason',
    'exitingEventIdentification',
    'exitingEventErrorCode',
    'originalEventIdentification',
    'originalEventErrorCode',
    'vmExitInstructionLength',
    'guestRip',
  );
  return {
    reason: Number(fields.exitReason),
    event: fields.exitingEventIdentification,
    code: fields.exitingEventErrorCode,
    original: fields.originalEventIdentification,
    originalCode: fields.originalEventErrorCode,
    length: fields.vmExitInstructionLength,
    at: Number(fields.guestRip) - GUEST,
  };
}

describe('the original event (SDM §30.2.4)', () => {
  const VIRTUAL: readonly ControlId[] = [
    'proc.useTprShadow',
    'proc2.virtualInterruptDelivery',
    'pin.externalInterruptExiting',
  ];
  /** Event, instruction, type and vector; EXT of the fault and length of the instruction; what makes it happen. */
  const EVENTS: readonly (readonly [
    string,
    string | Uint8Array,
    number,
    number,
    { readonly ext: 0n | 1n; readonly length?: bigint; readonly errorCode?: bigint },
    Setting,
  ])[] = [
    [
      'an external interrupt',
      'nop',
      Type.Interrupt,
      0x40,
      { ext: 1n },
      {
        prepare: (cpu) => {
          requestInterrupt(cpu, 0x40);
        },
      },
    ],
    [
      'a virtual interrupt',
      'nop',
      Type.Interrupt,
      0x51,
      { ext: 1n },
      {
        controls: VIRTUAL,
        fields: { virtualApicAddress: 0x9_0000n, guestInterruptStatus: 0x51n },
        prepare: ({ processor: { memory } }) =>
          memory.write32(0x9_0000 + ApicRegister.IRR + 0x20, 1 << (0x51 & 31)),
      },
    ],
    ['an NMI', 'nop', Type.Nmi, 2, { ext: 1n }, { prepare: ({ processor }) => processor.requestNmi() }],
    ['a fault', 'ud2', Type.Hardware, 6, { ext: 1n }, {}],
    [
      'a single-step trap',
      'nop',
      Type.Hardware,
      1,
      { ext: 1n },
      { fields: { guestPendingDebugExceptions: 0x4000n } },
    ],
    [
      'an instruction breakpoint',
      'nop',
      Type.Hardware,
      1,
      { ext: 1n },
      {
        prepare: (cpu) => {
          cpu.set('DR0', BigInt(GUEST));
          cpu.set('DR7', 0x401n);
        },
      },
    ],
    ['INT n', 'int 0x80', Type.SoftwareInterrupt, 0x80, { ext: 0n, length: 2n }, {}],
    ['INT3', 'int3', Type.Software, 3, { ext: 0n, length: 1n }, {}],
    ['INT1 with a prefix', Uint8Array.of(0x48, 0xf1), Type.Privileged, 1, { ext: 1n, length: 2n }, {}],
    [
      'an external interrupt that VM entry injects',
      'nop',
      Type.Interrupt,
      0x40,
      { ext: 1n },
      { fields: { injectedEventIdentification: eventId(Type.Interrupt, 0x40) } },
    ],
    [
      'an NMI that VM entry injects',
      'nop',
      Type.Nmi,
      2,
      { ext: 1n },
      { fields: { injectedEventIdentification: eventId(Type.Nmi, 2) } },
    ],
    [
      'an exception that VM entry injects',
      'nop',
      Type.Hardware,
      17,
      { ext: 1n, errorCode: 0x7788n },
      {
        fields: {
          injectedEventIdentification: eventId(Type.Hardware, 17, 1),
          injectedEventErrorCode: 0x7788n,
        },
      },
    ],
    [
      'INT1 that VM entry injects',
      'nop',
      Type.Privileged,
      1,
      { ext: 1n, length: 1n },
      { fields: { injectedEventIdentification: eventId(Type.Privileged, 1), vmEntryInstructionLength: 1n } },
    ],
    [
      'INT3 that VM entry injects',
      'nop',
      Type.Software,
      3,
      { ext: 0n, length: 3n },
      { fields: { injectedEventIdentification: eventId(Type.Software, 3), vmEntryInstructionLength: 3n } },
    ],
    [
      'INT n that VM entry injects',
      'nop',
      Type.SoftwareInterrupt,
      0x80,
      { ext: 0n, length: 5n },
      {
        fields: {
          injectedEventIdentification: eventId(Type.SoftwareInterrupt, 0x80),
          vmEntryInstructionLength: 5n,
        },
      },
    ],
  ];

  it.each(EVENTS)('is %s', (_, code, type, vector, { ext, length, errorCode }, setting) => {
    const cpu = guest(
      code,
      { [vector]: NOT_PRESENT },
      {
        ...setting,
        fields: { exceptionBitmap: bit(NP), ...setting.fields },
      },
    );
    const seen = exit(cpu);
    expect(seen).toMatchObject({
      reason: 0,
      event: eventId(Type.Hardware, NP, 1),
      code: BigInt(8 * vector + 2) | ext,
      original: eventId(type, vector, errorCode === undefined ? 0 : 1),
      at: 0,
    });
    if (length !== undefined) expect(seen.length).toBe(length);
    if (errorCode !== undefined) expect(seen.originalCode).toBe(errorCode);
  });

  const divideError: Setting = {
    prepare: (cpu) => {
      cpu.set('RAX', 1n);
      cpu.set('RCX', 0n);
    },
  };
  const divide = (gates: Readonly<Record<number, number>>, exceptionBitmap: bigint) =>
    exit(guest('div rcx', gates, { ...divideError, fields: { exceptionBitmap } }));

  it('is none if an event exits itself', () => {
    expect(divide({}, bit(0))).toMatchObject({ reason: 0, event: eventId(Type.Hardware, 0), original: 0n });
  });

  it('is none of a double fault that exits itself', () => {
    expect(divide({ 0: NO_GATE }, bit(DF))).toMatchObject({
      reason: 0,
      event: eventId(Type.Hardware, DF, 1),
      code: 0n,
      original: 0n,
      at: 0,
    });
  });

  it('is the double fault during whose delivery an exception exits', () => {
    expect(divide({ 0: NO_GATE, [DF]: NOT_PRESENT }, bit(NP))).toMatchObject({
      reason: 0,
      event: eventId(Type.Hardware, NP, 1),
      code: BigInt(8 * DF + 3),
      original: eventId(Type.Hardware, DF, 1),
      originalCode: 0n,
      at: 0,
    });
  });

  it('is the exception that came last before', () => {
    // #UD, then #GP for its gate, then #NP for that of #GP.
    const fields = { exceptionBitmap: bit(NP) };
    expect(exit(guest('ud2', { 6: NO_GATE, [GP]: NOT_PRESENT }, { fields }))).toMatchObject({
      event: eventId(Type.Hardware, NP, 1),
      original: eventId(Type.Hardware, GP, 1),
      originalCode: BigInt(8 * 6 + 3),
    });
  });

  it('is none of a triple fault', () => {
    expect(divide({ 0: NO_GATE, [DF]: NO_GATE }, 0n)).toMatchObject({ reason: 2, original: 0n, at: 0 });
  });

  it('is none of the fetch of the first instruction of the handler', () => {
    const cpu = guest('ud2', {}, { fields: { exceptionBitmap: bit(PF) } });
    // Bits 63:32 of the handler's address.
    cpu.processor.memory.write32(GUEST_IDT + 16 * 6 + 8, 0x7f);
    expect(exit(cpu)).toMatchObject({
      reason: 0,
      event: eventId(Type.Hardware, PF, 1),
      original: 0n,
      at: 0x7f_0000_0000 + handlerOf(6) - GUEST,
    });
  });
});
