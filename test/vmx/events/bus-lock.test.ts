import { describe, expect, it } from 'vitest';
import type { LogicalProcessor } from '../../../src/machine/logical-processor.ts';
import type { ControlId } from '../../../src/vmcs/controls.ts';
import { exitFields, GUEST, runToExit } from '../../support/guest.ts';
import { eventGuest, eventId, handlerOf, requestInterrupt } from '../../support/guest-events.ts';
import type { FieldValues } from '../../support/legal-vmcs.ts';

const DETECTION: readonly ControlId[] = ['proc2.vmmBusLockDetection'];
/** Bits of the pending debug exceptions: bus lock, enabled breakpoint, single step. */
const [BLD, ENABLED, BS] = [0x800n, 0x1000n, 0x4000n];
const BUS_LOCK = 1n << 26n;
/** Two bytes before the end of a cache line. */
const SPLIT = 0x8_003e;

function guest(code: string, controls = DETECTION, fields: FieldValues = {}): LogicalProcessor {
  const cpu = eventGuest(`mov edi, ${SPLIT}\n${code}\nnop\nvmcall`, { controls, fields }).cpu(0);
  cpu.run(1);
  return cpu;
}

const look = (cpu: LogicalProcessor) =>
  exitFields(cpu, 'exitReason', 'exitQualification', 'guestRip', 'guestPendingDebugExceptions');
const START = GUEST + 5;

describe('bus locks (SDM §28.2)', () => {
  it.each([
    ['xchg [rdi], eax', 2],
    ['lock add dword ptr [rdi], 5', 4],
    ['lock inc dword ptr [rdi]', 3],
    ['lock cmpxchg [rdi], ecx', 4],
    ['lock cmpxchg8b [rdi]', 4],
    ['lock xadd [rdi], rcx', 5],
    ['lock bts dword ptr [rdi], 3', 5],
    ['lock not qword ptr [rdi]', 4],
  ])('%s across cache lines exits behind the instruction, which is done', (code, length) => {
    const cpu = guest(code);
    cpu.set('RAX', 0x1234n);
    cpu.set('RCX', 0x77n);
    runToExit(cpu, 2);
    expect(look(cpu)).toEqual({
      exitReason: 74n | BUS_LOCK,
      exitQualification: 0n,
      guestRip: BigInt(START + length),
      guestPendingDebugExceptions: 0n,
    });
    if (code.startsWith('xchg')) expect(cpu.processor.memory.read32(SPLIT)).toBe(0x1234);
    if (code.includes('add dword')) expect(cpu.processor.memory.read32(SPLIT)).toBe(5);
  });

  it.each([
    ['within a cache line', `xchg [rdi + 2], eax`],
    ['of an instruction that is not locked', 'add dword ptr [rdi], 5'],
    ['between registers', 'xchg eax, ecx'],
    ['up to the end of a line', 'lock inc word ptr [rdi]'],
  ])('an access %s locks nothing', (_, code) => {
    const cpu = guest(code);
    runToExit(cpu);
    expect(look(cpu).exitReason).toBe(18n);
  });

  it('without the control there is no exit', () => {
    const cpu = guest('xchg [rdi], eax', []);
    runToExit(cpu);
    expect(look(cpu).exitReason).toBe(18n);
  });

  it('an instruction that faults locks nothing', () => {
    const cpu = guest('lock inc dword ptr [rdi]', DETECTION, { exceptionBitmap: 1n << 14n });
    cpu.set('RDI', 0x80_0000_003en);
    runToExit(cpu, 2);
    expect(look(cpu)).toMatchObject({ exitReason: 0n, guestRip: BigInt(START) });
  });

  describe('of descriptors that are marked accessed or busy', () => {
    const [GDT, TSS] = [0x9_0004, 0x9_2000];
    /** Selector 38H is across cache lines, selector 40H is not. */
    const withGdt = (code: string, rights: bigint, controls = DETECTION, fields: FieldValues = {}) => {
      const cpu = guest(code, controls, { guestGdtrBase: BigInt(GDT), guestGdtrLimit: 0xffn, ...fields });
      const selector = code.includes('0x40') ? 0x40 : 0x38;
      cpu.processor.memory.write64(GDT + selector, (rights << 40n) | (BigInt(TSS) << 16n) | 0x67n);
      return cpu;
    };
    const load = (selector: string, instruction = 'mov ds, eax') => `mov eax, ${selector}\n${instruction}`;

    it.each([
      ['a data segment, across lines', load('0x38'), 0x92n, 74n | BUS_LOCK],
      ['a data segment, within one', load('0x40'), 0x92n, 18n],
      ['a data segment that was accessed', load('0x38'), 0x93n, 18n],
      ['a TSS, across lines', load('0x38', 'ltr ax'), 0x89n, 74n | BUS_LOCK],
      ['a TSS, within one', load('0x40', 'ltr ax'), 0x89n, 18n],
    ])('%s', (_, code, rights, expected) => {
      const cpu = withGdt(code, rights);
      runToExit(cpu);
      expect(look(cpu).exitReason).toBe(expected);
    });

    it.each([
      [DETECTION, BUS_LOCK],
      [[], 0n],
    ] as const)('another exit of the instruction tells of it, with %j', (controls, bit) => {
      // A far call marks the code segment before it pushes the return address, here to no page.
      const cpu = withGdt('.byte 0xff, 0x1f', 0n, controls, { exceptionBitmap: 1n << 14n });
      const { memory } = cpu.processor;
      memory.write64(GDT + 0x38, 0x00af_9a00_0000_ffffn);
      memory.write64(SPLIT, 0x38_0000_0000n);
      cpu.set('RSP', 0x80_0000_0000n);
      runToExit(cpu);
      expect(look(cpu)).toMatchObject({ exitReason: bit, guestRip: BigInt(START) });
    });
  });

  it('comes before SMI, INIT, monitor trap flag, debug traps and interrupts', () => {
    const cpu = guest('xchg [rdi], eax', [...DETECTION, 'pin.externalInterruptExiting', 'pin.nmiExiting'], {
      guestRflags: 0x2n,
    });
    cpu.set('RFLAGS', 0x102n);
    cpu.run(1);
    const { processor } = cpu;
    processor.requestSmi();
    processor.requestInit();
    processor.requestNmi();
    requestInterrupt(cpu, 0x40);
    runToExit(cpu, 1);
    expect(look(cpu)).toEqual({
      exitReason: 74n | BUS_LOCK,
      exitQualification: 0n,
      guestRip: BigInt(START + 2),
      guestPendingDebugExceptions: BS,
    });
  });
});

describe('bus-lock detection by the operating system (SDM vol. 3B §19.3.1.6)', () => {
  /** User code with IA32_DEBUGCTL[2]. */
  const user = (controls: readonly ControlId[], fields: FieldValues = {}) => {
    const cpu = guest('xchg [rdi], eax', controls, fields);
    cpu.set('IA32_DEBUGCTL', 4n);
    cpu.set('CS.selector', 0x1bn);
    cpu.set('CS.accessRights', 0xa0fbn);
    cpu.set('SS.selector', 0x23n);
    cpu.set('SS.accessRights', 0xc0f3n);
    return cpu;
  };

  it('raises #DB after the instruction, with DR6.BLD 0', () => {
    const cpu = user([], { exceptionBitmap: 2n });
    runToExit(cpu, 3);
    expect(
      exitFields(cpu, 'exitReason', 'exitQualification', 'exitingEventIdentification', 'guestRip'),
    ).toEqual({
      exitReason: 0n,
      exitQualification: BLD,
      exitingEventIdentification: eventId(3, 1),
      guestRip: BigInt(START + 2),
    });
  });

  it('not at CPL 0', () => {
    const cpu = guest('xchg [rdi], eax', [], { exceptionBitmap: 2n });
    cpu.set('IA32_DEBUGCTL', 4n);
    runToExit(cpu);
    expect(look(cpu).exitReason).toBe(18n);
  });

  it('is pending at an exit for the bus lock', () => {
    const cpu = user(DETECTION);
    runToExit(cpu, 3);
    expect(look(cpu)).toMatchObject({
      exitReason: 74n | BUS_LOCK,
      guestPendingDebugExceptions: BLD | ENABLED,
    });
  });

  it('is delivered after VM entry, and clears DR6.BLD', () => {
    const cpu = eventGuest('nop', { fields: { guestPendingDebugExceptions: BLD | ENABLED } }).cpu(0);
    runToExit(cpu, 3);
    expect([look(cpu).guestRip, cpu.get('DR6')]).toEqual([BigInt(handlerOf(1)), 0xffff_07f0n]);
  });
});
