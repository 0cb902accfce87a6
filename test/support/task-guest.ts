/** A 32-bit guest with paging whose task is {@link RUNNING}: its task switches, and the faults that come instead. */
import { expect } from 'vitest';
import type { LogicalProcessor } from '../../src/machine/logical-processor.ts';
import type { Machine } from '../../src/machine/machine.ts';
import type { ControlId } from '../../src/vmcs/controls.ts';
import { exitFields, GUEST, GUEST_STACK, guestMachine, runToExit } from './guest.ts';
import type { FieldValues } from './legal-vmcs.ts';
import { gate, segment } from './tables.ts';

export const PAGE_DIRECTORY = 0x31_0000;
export const IDT = 0x7_0000;
export const GDT = 0x7_2000;
export const TSS = 0x7_3000;
export const NEW_TSS = 0x7_4000;
export const POINTER = 0x6_0000;
/** Selectors of the GDT: the TSS of the running task, one to switch to, a task gate to that. */
export const RUNNING = 0x18;
export const TASK = 0x20;
export const GATE = 0x28;
export const LAST = 0x47;
export const NT = 0x4000n;
export const RF = 0x1_0000n;
export const OF = 0x800n;
export const TF = 0x100n;

export const Source = { Call: 0, Iret: 1, Jmp: 2, Gate: 3 } as const;
export const Type = { Interrupt: 0, Nmi: 2, Hardware: 3, Int: 4, Int1: 5, Software: 6 } as const;

const PROTECTED: FieldValues = {
  guestCr3: BigInt(PAGE_DIRECTORY),
  guestCr4: 0x2010n,
  guestCsAccessRights: 0xc09bn,
  guestGdtrBase: BigInt(GDT),
  guestGdtrLimit: BigInt(LAST),
  guestIdtrBase: BigInt(IDT),
  guestIdtrLimit: 0x7ffn,
  guestTrSelector: BigInt(RUNNING),
  guestTrBase: BigInt(TSS),
};
const USER: FieldValues = {
  guestCsSelector: 0x33n,
  guestCsAccessRights: 0xc0fbn,
  guestSsSelector: 0x3bn,
  guestSsAccessRights: 0xc0f3n,
  guestDsSelector: 0x3bn,
  guestDsAccessRights: 0xc0f3n,
  guestEsSelector: 0x3bn,
  guestEsAccessRights: 0xc0f3n,
};

const far = (opcode: number, selector: number) =>
  Uint8Array.of(opcode, 0, 0, 0, 0, selector & 0xff, selector >> 8);
export const call = (selector: number) => far(0x9a, selector);
export const jump = (selector: number) => far(0xea, selector);
export const IRET = Uint8Array.of(0xcf);
export const UD2 = Uint8Array.of(0x0f, 0x0b);
export const bytes = (...values: number[]) => Uint8Array.from(values);

export interface Setting {
  readonly code?: Uint8Array;
  readonly user?: true;
  /** RFLAGS besides bit 1. */
  readonly flags?: bigint;
  readonly controls?: readonly ControlId[];
  readonly fields?: FieldValues;
  readonly gdt?: Readonly<Record<number, bigint>>;
  readonly idt?: Readonly<Record<number, bigint>>;
  readonly prepare?: (cpu: LogicalProcessor) => void;
  readonly tables?: (machine: Machine) => void;
}

/** A 32-bit guest with paging, whose task is {@link RUNNING}, has left non-root operation. */
export function leave(setting: Setting): LogicalProcessor {
  const { code = UD2, user, flags = 0n, fields, gdt, idt, prepare, tables } = setting;
  const machine = guestMachine(code, {
    level: 'complete',
    controls: ['entry.loadDebugControls', 'exit.saveDebugControls', ...(setting.controls ?? [])],
    off: ['entry.ia32eModeGuest'],
    fields: {
      ...PROTECTED,
      ...(user && USER),
      guestRflags: 2n | flags,
      exceptionBitmap: 0x7c00n,
      ...fields,
    },
    setUp: (m) => {
      m.memory.write32(PAGE_DIRECTORY, 0x87);
      const descriptors = {
        8: segment(0, 0xf_ffff, 0xc09b),
        16: segment(0, 0xf_ffff, 0xc093),
        [RUNNING]: segment(TSS, 0x67, 0x8b),
        [TASK]: segment(NEW_TSS, 0x67, 0x89),
        [GATE]: gate(TASK, 0, 0xe5),
        48: segment(0, 0xf_ffff, 0xc0fb),
        56: segment(0, 0xf_ffff, 0xc0f3),
        ...gdt,
      };
      for (const [selector, descriptor] of Object.entries(descriptors)) {
        m.memory.write64(GDT + Number(selector), descriptor);
      }
      for (const [vector, descriptor] of Object.entries(idt ?? {})) {
        m.memory.write64(IDT + 8 * Number(vector), descriptor);
      }
      m.memory.write16(TSS, TASK);
      m.memory.write32(TSS + 4, GUEST_STACK);
      m.memory.write32(TSS + 8, 0x10);
      tables?.(m);
    },
  });
  const cpu = machine.cpu(0);
  prepare?.(cpu);
  runToExit(cpu, 10);
  return cpu;
}

export interface TaskSwitchExit {
  readonly source: number;
  readonly selector?: number;
  readonly event?: bigint;
  readonly errorCode?: bigint;
  readonly length?: number;
  readonly rip?: number;
  readonly resumeFlag?: true;
}

/** What the exit of a task switch reports; what it leaves undefined is left out. */
export function taskSwitch(cpu: LogicalProcessor): TaskSwitchExit {
  const e = exitFields(
    cpu,
    'exitReason',
    'exitQualification',
    'exitingEventIdentification',
    'originalEventIdentification',
    'originalEventErrorCode',
    'vmExitInstructionLength',
    'guestRip',
    'guestRflags',
  );
  expect(e.exitReason).toBe(9n);
  expect(e.exitingEventIdentification >> 31n).toBe(0n);
  const event = e.originalEventIdentification;
  const isEvent = event >> 31n === 1n;
  const hasLength = !isEvent || ((event >> 8n) & 7n) >= 4n;
  return {
    source: Number(e.exitQualification >> 30n),
    selector: Number(e.exitQualification & 0x3fff_ffffn),
    rip: Number(e.guestRip) - GUEST,
    ...(isEvent && { event }),
    ...(isEvent && ((event >> 11n) & 1n) === 1n && { errorCode: e.originalEventErrorCode }),
    ...(hasLength && { length: Number(e.vmExitInstructionLength) }),
    ...((e.guestRflags & RF) !== 0n && { resumeFlag: true }),
  };
}

export const TO_TASK = gate(TASK, 0, 0x85);
export const gateFor = (vector: number) => ({ idt: { [vector]: TO_TASK } });

export interface Fault {
  readonly vector: number;
  readonly code: number;
  /** The event that was being delivered. */
  readonly event?: bigint;
  readonly length?: number;
  readonly address?: number;
}

/** The exception of an exit and what it met; what the exit leaves undefined is left out. */
export function fault(cpu: LogicalProcessor): Fault {
  const e = exitFields(
    cpu,
    'exitReason',
    'exitQualification',
    'exitingEventIdentification',
    'exitingEventErrorCode',
    'originalEventIdentification',
    'vmExitInstructionLength',
    'guestRip',
  );
  expect([e.exitReason, e.exitingEventIdentification >> 8n, e.guestRip]).toEqual([
    0n,
    0x80_000bn,
    BigInt(GUEST),
  ]);
  const event = e.originalEventIdentification;
  const isEvent = event >> 31n === 1n;
  const vector = Number(e.exitingEventIdentification & 0xffn);
  return {
    vector,
    code: Number(e.exitingEventErrorCode),
    ...(isEvent && { event }),
    ...(isEvent && ((event >> 8n) & 7n) >= 4n && { length: Number(e.vmExitInstructionLength) }),
    ...(vector === 14 && { address: Number(e.exitQualification) }),
  };
}
