/** Task switches of guest code: the checks before their exits (SDM §28.4.2). */
import { describe, expect, it } from 'vitest';
import type { LogicalProcessor } from '../../../src/machine/logical-processor.ts';
import { exitFields, GUEST, guestMachine, runToExit } from '../../support/guest.ts';
import { eventId, requestInterrupt } from '../../support/guest-events.ts';
import type { FieldValues } from '../../support/legal-vmcs.ts';
import { gate, segment } from '../../support/tables.ts';
import {
  bytes,
  call,
  type Fault,
  fault,
  GATE,
  GDT,
  gateFor,
  IDT,
  IRET,
  jump,
  LAST,
  leave,
  NEW_TSS,
  NT,
  OF,
  POINTER,
  type Setting,
  TASK,
  TSS,
  Type,
  taskSwitch,
  UD2,
} from '../../support/task-guest.ts';

const TS = 10;
const NP = 11;
const GP = 13;
const PF = 14;
const inIdt = (vector: number) => 8 * vector + 2;
const INT80: Fault = { vector: GP, code: inIdt(0x80), event: eventId(Type.Int, 0x80), length: 2 };
const tss = (rights: number, limit = 0x67) => ({ [TASK]: segment(NEW_TSS, limit, rights) });
const NESTED = { code: IRET, flags: NT };
/** GDT entries that lie on a page that is not there. */
const FAR_GDT: Setting = {
  fields: { guestGdtrLimit: 0xffffn, guestGdtrBase: 0x3f_f000n },
  tables: (m) => {
    m.memory.write16(TSS, 0x1000);
    m.memory.write64(0x3f_f000 + GATE, gate(0x1000, 0, 0xe5));
  },
};

/** Name, setting, and the fault that comes instead of a task switch. */
const FAULTS: readonly (readonly [string, Setting, Fault])[] = [
  ['CALL at CPL 3 of a TSS with DPL 0', { code: call(TASK), user: true }, { vector: GP, code: TASK }],
  ['JMP to a TSS whose DPL is below the RPL', { code: jump(TASK + 1) }, { vector: GP, code: TASK }],
  [
    'JMP at CPL 3 to a task gate with DPL 0',
    { code: jump(GATE), user: true, gdt: { [GATE]: gate(TASK, 0, 0x85), ...tss(0xe9) } },
    { vector: GP, code: GATE },
  ],
  [
    'CALL of a task gate that is not present',
    { code: call(GATE), gdt: { [GATE]: gate(TASK, 0, 0x65) } },
    { vector: NP, code: GATE },
  ],
  [
    'CALL of a task gate to the LDT',
    { code: call(GATE), gdt: { [GATE]: gate(TASK + 4, 0, 0xe5) } },
    { vector: GP, code: TASK + 4 },
  ],
  [
    'CALL of a task gate beyond the GDT',
    { code: call(GATE), gdt: { [GATE]: gate(0x48, 0, 0xe5) } },
    { vector: GP, code: 0x48 },
  ],
  ['CALL of a busy TSS', { code: call(TASK), gdt: tss(0x8b) }, { vector: GP, code: TASK }],
  ['JMP through a task gate to a busy TSS', { code: jump(GATE), gdt: tss(0x8b) }, { vector: GP, code: TASK }],
  ['JMP to a TSS that is not present', { code: jump(TASK), gdt: tss(0x09) }, { vector: NP, code: TASK }],
  ['JMP to a TSS that is too short', { code: jump(TASK), gdt: tss(0x89, 0x66) }, { vector: TS, code: TASK }],
  [
    'CALL of a 16-bit TSS that is too short',
    { code: call(TASK), gdt: tss(0x81, 0x2a) },
    { vector: TS, code: TASK },
  ],
  [
    'CALL of a task gate whose TSS descriptor is on a page that is not there',
    { code: call(GATE), ...FAR_GDT },
    { vector: PF, code: 0, address: 0x40_0000 },
  ],
  ['IRET to a TSS that is not busy', NESTED, { vector: TS, code: TASK }],
  ['IRET to a TSS that is too short', { ...NESTED, gdt: tss(0x8b, 0x66) }, { vector: TS, code: TASK }],
  ['IRET to a TSS that is not present', { ...NESTED, gdt: tss(0x0b) }, { vector: NP, code: TASK }],
  [
    'IRET to the LDT',
    { ...NESTED, tables: (m) => m.memory.write16(TSS, TASK + 4) },
    { vector: TS, code: TASK + 4 },
  ],
  [
    'IRET beyond the GDT',
    { ...NESTED, tables: (m) => m.memory.write16(TSS, 0x48) },
    { vector: TS, code: 0x48 },
  ],
  [
    'IRET to a TSS descriptor on a page that is not there',
    { ...FAR_GDT, ...NESTED },
    { vector: PF, code: 0, address: 0x40_0000 },
  ],
  ['INT n at CPL 3, gate with DPL 0', { code: bytes(0xcd, 0x80), user: true, ...gateFor(0x80) }, INT80],
  [
    'INT3 at CPL 3, gate with DPL 0',
    { code: bytes(0xcc), user: true, ...gateFor(3) },
    { vector: GP, code: inIdt(3), event: eventId(Type.Software, 3), length: 1 },
  ],
  [
    'INTO at CPL 3, gate with DPL 0',
    { code: bytes(0xce), user: true, flags: OF, ...gateFor(4) },
    { vector: GP, code: inIdt(4), event: eventId(Type.Software, 4), length: 1 },
  ],
  [
    'INT n, gate not present',
    { code: bytes(0xcd, 0x80), idt: { 128: gate(TASK, 0, 0x65) } },
    { ...INT80, vector: NP },
  ],
  [
    'INT n, busy TSS',
    { code: bytes(0xcd, 0x80), ...gateFor(0x80), gdt: tss(0x8b) },
    { ...INT80, code: TASK },
  ],
  [
    'INT n, TSS descriptor on a page that is not there',
    { ...FAR_GDT, code: bytes(0xcd, 0x80), idt: { 128: gate(0x1000, 0, 0x85) } },
    { ...INT80, vector: PF, code: 0, address: 0x40_0000 },
  ],
  [
    'a fault, gate not present',
    { idt: { 6: gate(TASK, 0, 0x05) } },
    { vector: NP, code: inIdt(6) + 1, event: eventId(Type.Hardware, 6) },
  ],
  [
    'a fault, TSS that is too short',
    { ...gateFor(6), gdt: tss(0x89, 0x66) },
    { vector: TS, code: TASK + 1, event: eventId(Type.Hardware, 6) },
  ],
  [
    'an external interrupt, TSS that is not present',
    {
      code: bytes(0x90),
      flags: 0x200n,
      ...gateFor(0x40),
      gdt: tss(0x09),
      prepare: (cpu) => void requestInterrupt(cpu, 0x40),
    },
    { vector: NP, code: TASK + 1, event: eventId(Type.Interrupt, 0x40) },
  ],
];

describe('faults that come before the exit of a task switch', () => {
  it.each(FAULTS)('%s', (_, setting, expected) => {
    expect(fault(leave(setting))).toEqual(expected);
  });

  it('an NMI at CPL 3 looks at no privilege', () => {
    const cpu = leave({
      code: bytes(0x90),
      user: true,
      ...gateFor(2),
      prepare: ({ processor }) => processor.requestNmi(),
    });
    expect(taskSwitch(cpu).event).toBe(eventId(Type.Nmi, 2));
  });

  it('INT n in virtual-8086 mode with IOPL below 3 meets no gate', () => {
    const segments = Object.fromEntries(
      (['Cs', 'Ss', 'Ds', 'Es', 'Fs', 'Gs'] as const).flatMap((name) => [
        [`guest${name}Selector`, BigInt(GUEST >> 4)],
        [`guest${name}Base`, BigInt(GUEST)],
        [`guest${name}Limit`, 0xffffn],
        [`guest${name}AccessRights`, 0xf3n],
      ]),
    ) as FieldValues;
    const cpu = leave({
      code: bytes(0xcd, 0x80),
      flags: 0x2_0000n,
      idt: { 128: gate(TASK, 0, 0xe5) },
      fields: { ...segments, guestRip: 0n, guestRsp: 0xf000n },
    });
    expect(exitFields(cpu, 'exitReason', 'exitingEventErrorCode', 'guestRip')).toEqual({
      exitReason: 0n,
      exitingEventErrorCode: 0n,
      guestRip: 0n,
    });
    expect(cpu.vmread('originalEventIdentification').value >> 31n).toBe(0n);
  });
});

describe('IA-32e mode has no task switches (SDM §28.4.2)', () => {
  /** The fault of 64-bit or compatibility code. */
  function ia32e(
    code: Uint8Array,
    fields: FieldValues = {},
    prepare?: (cpu: LogicalProcessor) => void,
  ): Fault {
    const machine = guestMachine(code, {
      fields: {
        guestGdtrBase: BigInt(GDT),
        guestGdtrLimit: BigInt(LAST),
        guestIdtrBase: BigInt(IDT),
        guestIdtrLimit: 0xfffn,
        exceptionBitmap: 0x7c00n,
        ...fields,
      },
      setUp: ({ memory }) => {
        memory.write64(GDT + TASK, segment(NEW_TSS, 0x67, 0x89));
        memory.write64(GDT + 0x30, gate(TASK, 0, 0xe5));
        for (const vector of [1, 2, 3, 6, 0x40, 0x80]) memory.write64(IDT + 16 * vector, gate(TASK, 0, 0xe5));
        memory.write16(POINTER + 4, TASK);
        memory.write16(POINTER + 12, 0x30);
      },
    });
    const cpu = machine.cpu(0);
    cpu.set('RAX', BigInt(POINTER));
    prepare?.(cpu);
    runToExit(cpu, 10);
    return fault(cpu);
  }
  const COMPATIBILITY = { guestCsAccessRights: 0xc09bn };

  it.each([
    ['CALL of a TSS', bytes(0xff, 0x18), {}, TASK],
    ['JMP to a TSS', bytes(0xff, 0x28), {}, TASK],
    ['CALL of a task gate', bytes(0xff, 0x58, 0x08), {}, 0x30],
    ['CALL of a TSS in compatibility mode', call(TASK), COMPATIBILITY, TASK],
    ['JMP to a task gate in compatibility mode', jump(0x30), COMPATIBILITY, 0x30],
    ['IRET with NT', IRET, { guestRflags: NT | 2n }, 0],
  ] as const)('%s', (_, code, fields, errorCode) => {
    expect(ia32e(code, fields)).toEqual({ vector: GP, code: errorCode });
  });

  it.each([
    ['INT n', bytes(0xcd, 0x80), Type.Int, 0x80, 2],
    ['INT1', bytes(0xf1), Type.Int1, 1, 1],
    ['INT3', bytes(0xcc), Type.Software, 3, 1],
    ['a fault', UD2, Type.Hardware, 6, undefined],
  ] as const)('a task gate met by %s', (_, code, type, vector, length) => {
    const external = type === Type.Hardware || type === Type.Int1 ? 1 : 0;
    for (const fields of [{}, COMPATIBILITY]) {
      expect(ia32e(code, fields)).toEqual({
        vector: GP,
        code: inIdt(vector) + external,
        event: eventId(type, vector),
        ...(length !== undefined && { length }),
      });
    }
  });

  it('a task gate met by an interrupt or NMI', () => {
    const nop = bytes(0x90);
    expect(ia32e(nop, { guestRflags: 0x202n }, (cpu) => void requestInterrupt(cpu, 0x40))).toEqual({
      vector: GP,
      code: inIdt(0x40) + 1,
      event: eventId(Type.Interrupt, 0x40),
    });
    expect(ia32e(nop, {}, ({ processor }) => processor.requestNmi())).toEqual({
      vector: GP,
      code: inIdt(2) + 1,
      event: eventId(Type.Nmi, 2),
    });
  });
});
