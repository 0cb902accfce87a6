/** Task switches of guest code: what their exits report and leave alone (SDM §28.4.2, §30.1, §30.2.4, §30.3.3). */
import { describe, expect, it } from 'vitest';
import { assemble } from '../../support/assemble.ts';
import { exitFields, GUEST, GUEST_STACK } from '../../support/guest.ts';
import { eventId, requestInterrupt } from '../../support/guest-events.ts';
import type { FieldValues } from '../../support/legal-vmcs.ts';
import { gate, segment } from '../../support/tables.ts';
import {
  bytes,
  call,
  GATE,
  GDT,
  gateFor,
  IRET,
  jump,
  leave,
  NEW_TSS,
  NT,
  OF,
  PAGE_DIRECTORY,
  POINTER,
  RF,
  RUNNING,
  type Setting,
  Source,
  TASK,
  type TaskSwitchExit,
  TF,
  TSS,
  Type,
  taskSwitch,
} from '../../support/task-guest.ts';

/** Name, setting, what the exit reports; selector {@link TASK} and RIP of the instruction unless given. */
const EXITS: readonly (readonly [string, Setting, TaskSwitchExit])[] = [
  ['CALL of a TSS', { code: call(TASK) }, { source: Source.Call, length: 7 }],
  ['CALL of a task gate', { code: call(GATE) }, { source: Source.Call, length: 7 }],
  ['JMP to a TSS', { code: jump(TASK) }, { source: Source.Jmp, length: 7 }],
  ['JMP to a task gate', { code: jump(GATE) }, { source: Source.Jmp, length: 7 }],
  [
    'JMP with a prefix through memory, RPL in the selector',
    {
      code: assemble(`.byte 0x3e\n.byte 0xff, 0x2d, 0, 0, ${POINTER >> 16}, 0`, 32),
      tables: (m) => m.memory.write16(POINTER + 4, TASK + 2),
      gdt: { [TASK]: segment(NEW_TSS, 0x67, 0xe9) },
    },
    { source: Source.Jmp, selector: TASK + 2, length: 7 },
  ],
  [
    'IRET with NT',
    { code: IRET, flags: NT, gdt: { [TASK]: segment(NEW_TSS, 0x67, 0x8b) } },
    { source: Source.Iret, length: 1 },
  ],
  [
    'IRETW with NT at CPL 3: the DPL of the TSS does not matter',
    { code: bytes(0x66, 0xcf), flags: NT, user: true, gdt: { [TASK]: segment(NEW_TSS, 0x2b, 0x83) } },
    { source: Source.Iret, length: 2 },
  ],
  [
    'CALL of a 16-bit TSS',
    { code: call(TASK), gdt: { [TASK]: segment(NEW_TSS, 0x2b, 0x81) } },
    { source: Source.Call, length: 7 },
  ],
  [
    'CALL at CPL 3 of a TSS with DPL 3',
    { code: call(TASK), user: true, gdt: { [TASK]: segment(NEW_TSS, 0x67, 0xe9) } },
    { source: Source.Call, length: 7 },
  ],
  [
    'CALL at CPL 3 of a task gate with DPL 3: the DPL of the TSS does not matter',
    { code: call(GATE), user: true },
    { source: Source.Call, length: 7 },
  ],
  [
    'CALL with RFLAGS.RF: the image in the old TSS would not have it',
    { code: call(TASK), flags: RF },
    { source: Source.Call, length: 7 },
  ],
  [
    'INT n',
    { code: bytes(0xcd, 0x80), ...gateFor(0x80), flags: RF },
    { source: Source.Gate, event: eventId(Type.Int, 0x80), length: 2 },
  ],
  [
    'INT3',
    { code: bytes(0xcc), ...gateFor(3) },
    { source: Source.Gate, event: eventId(Type.Software, 3), length: 1 },
  ],
  [
    'INTO with a prefix',
    { code: bytes(0x66, 0xce), ...gateFor(4), flags: OF },
    { source: Source.Gate, event: eventId(Type.Software, 4), length: 2 },
  ],
  [
    'INT1, also at CPL 3',
    { code: bytes(0xf1), ...gateFor(1), user: true },
    { source: Source.Gate, event: eventId(Type.Int1, 1), length: 1 },
  ],
  [
    'a fault, also at CPL 3',
    { ...gateFor(6), user: true },
    { source: Source.Gate, event: eventId(Type.Hardware, 6), resumeFlag: true },
  ],
  [
    'a fault with an error code',
    {
      code: assemble('mov ds, ax', 32),
      idt: { 13: gate(TASK + 3, 0, 0x85) },
      fields: { exceptionBitmap: 0n },
      prepare: (cpu) => cpu.set('RAX', 0x104n),
    },
    {
      source: Source.Gate,
      selector: TASK + 3,
      event: eventId(Type.Hardware, 13, 1),
      errorCode: 0x104n,
      resumeFlag: true,
    },
  ],
  [
    'a double fault',
    {
      ...gateFor(8),
      fields: { exceptionBitmap: 0n, guestIdtrLimit: 8n * 9n - 1n },
      code: assemble('mov ds, ax', 32),
      prepare: (cpu) => cpu.set('RAX', 0x104n),
    },
    { source: Source.Gate, event: eventId(Type.Hardware, 8, 1), errorCode: 0n },
  ],
  [
    'a single-step trap',
    { code: bytes(0x90, 0x90), flags: TF, ...gateFor(1) },
    { source: Source.Gate, event: eventId(Type.Hardware, 1), rip: 1 },
  ],
  [
    'an instruction breakpoint, to a TSS whose selector is not like debug causes',
    {
      code: bytes(0x90),
      idt: { 1: gate(0x2020, 0, 0x85) },
      fields: { guestGdtrLimit: 0x2027n, guestDr7: 0x402n },
      tables: (m) => m.memory.write64(GDT + 0x2020, segment(NEW_TSS, 0x67, 0x89)),
      prepare: (cpu) => cpu.set('DR0', BigInt(GUEST)),
    },
    { source: Source.Gate, selector: 0x2020, event: eventId(Type.Hardware, 1) },
  ],
  [
    'general detect',
    { code: assemble('mov eax, dr6', 32), ...gateFor(1), fields: { guestDr7: 0x2400n } },
    { source: Source.Gate, event: eventId(Type.Hardware, 1), resumeFlag: true },
  ],
  [
    'an external interrupt',
    {
      code: bytes(0x90),
      flags: 0x200n,
      ...gateFor(0x40),
      prepare: (cpu) => void requestInterrupt(cpu, 0x40),
    },
    { source: Source.Gate, event: eventId(Type.Interrupt, 0x40) },
  ],
  [
    'an external interrupt within REP: the image would have RF',
    {
      code: bytes(0xf3, 0xac),
      flags: 0x200n,
      ...gateFor(0x40),
      prepare: (cpu) => {
        cpu.set('RCX', 5n);
        cpu.set('RSI', BigInt(POINTER));
        cpu.run(1);
        requestInterrupt(cpu, 0x40);
      },
    },
    { source: Source.Gate, event: eventId(Type.Interrupt, 0x40), resumeFlag: true },
  ],
  [
    'an NMI',
    {
      code: bytes(0x90),
      ...gateFor(2),
      prepare: ({ processor }) => processor.requestNmi(),
    },
    { source: Source.Gate, event: eventId(Type.Nmi, 2) },
  ],
];

describe('the exit of a task switch', () => {
  it.each(EXITS)('%s', (_, setting, exit) => {
    expect(taskSwitch(leave(setting))).toEqual({ selector: TASK, rip: 0, ...exit });
  });

  it('leaves the old task as it was', () => {
    let before: Uint8Array = bytes();
    const cpu = leave({
      code: call(TASK),
      fields: { guestDr7: 0x755n },
      prepare: (p) => {
        before = p.processor.memory.readBytes(GDT, 0x3000).slice();
      },
    });
    expect(cpu.processor.memory.readBytes(GDT, 0x3000)).toEqual(before);
    expect(
      exitFields(
        cpu,
        'guestTrSelector',
        'guestTrBase',
        'guestTrAccessRights',
        'guestRflags',
        'guestRsp',
        'guestCr3',
        'guestDr7',
      ),
    ).toEqual({
      guestTrSelector: BigInt(RUNNING),
      guestTrBase: BigInt(TSS),
      guestTrAccessRights: 0x8bn,
      guestRflags: 2n,
      guestDr7: 0x755n,
      guestRsp: BigInt(GUEST_STACK),
      guestCr3: BigInt(PAGE_DIRECTORY),
    });
  });

  it('comes before faults of the TSSs themselves, which are not touched', () => {
    const gone = { [TASK]: segment(0x100_0000, 0x67, 0x89) };
    const fields = { guestTrBase: 0x200_0000n };
    expect(taskSwitch(leave({ code: jump(TASK), gdt: gone, fields })).source).toBe(Source.Jmp);
  });
});

describe('an event that VM entry injects', () => {
  const INJECTED: readonly (readonly [string, number, FieldValues, TaskSwitchExit])[] = [
    ['an external interrupt', 0x40, {}, { source: Source.Gate, event: eventId(Type.Interrupt, 0x40) }],
    ['an NMI', 2, {}, { source: Source.Gate, event: eventId(Type.Nmi, 2) }],
    [
      'a fault, with RFLAGS as they are loaded',
      13,
      { injectedEventErrorCode: 0x18n },
      { source: Source.Gate, event: eventId(Type.Hardware, 13, 1), errorCode: 0x18n },
    ],
    [
      'INT n',
      0x80,
      { vmEntryInstructionLength: 3n },
      { source: Source.Gate, event: eventId(Type.Int, 0x80), length: 3 },
    ],
    [
      'INT n, with RFLAGS.RF as it is loaded',
      0x80,
      { vmEntryInstructionLength: 3n, guestRflags: 0x1_0002n },
      { source: Source.Gate, event: eventId(Type.Int, 0x80), length: 3, resumeFlag: true },
    ],
  ];
  it.each(INJECTED)('%s', (_, vector, fields, exit) => {
    const cpu = leave({
      ...gateFor(vector),
      fields: {
        injectedEventIdentification: exit.event as bigint,
        guestRflags: exit.event === eventId(Type.Interrupt, 0x40) ? 0x202n : 2n,
        ...fields,
      },
    });
    expect(taskSwitch(cpu)).toEqual({ selector: TASK, rip: 0, ...exit });
  });
});
