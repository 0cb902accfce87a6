import { describe, expect, it } from 'vitest';
import type { Machine } from '../../../src/machine/machine.ts';
import { assemble } from '../../support/assemble.ts';
import { ENDBR_EN, ENDBR64, SH_STK_EN, TRACKER } from '../../support/cet.ts';
import {
  exitFields,
  GUEST,
  type GuestOptions,
  guestMachine,
  HOST,
  mapFinely,
  runToExit,
} from '../../support/guest.ts';

const PAGE_TABLE = 0x30_3000;
const SHADOW = 0x9_0000;
const HOST_SHADOW = 0x9_1000;
const IDT = 0x7_0000;
const GDT = 0x7_2000;
const HANDLER = 0x4_0000;
const CET_AND_WP = { guestCr0: 0x8001_0021n, guestCr4: 0x82_20a0n };
const SSP = BigInt(SHADOW + 0x800);

/** A guest with CET, and pages for shadow stacks of guest and host. */
function cetGuest(code: string, sCet: bigint, options: GuestOptions = {}): Machine {
  const { fields = {}, controls = [], setUp, ...rest } = options;
  return guestMachine(code, {
    ...rest,
    controls: ['entry.loadCetState', 'exit.loadCetState', ...controls],
    fields: { ...CET_AND_WP, guestIa32SCet: sCet, guestSsp: SSP, ...fields },
    setUp: (machine) => {
      mapFinely(machine, PAGE_TABLE);
      for (const page of [SHADOW, HOST_SHADOW]) {
        machine.memory.write64(PAGE_TABLE + 8 * (page >> 12), BigInt(page) | 0x41n);
      }
      setUp?.(machine);
    },
  });
}

const SAVED = ['guestSsp', 'guestIa32SCet', 'guestIa32InterruptSspTableAddr'] as const;
const EVENT = ['exitReason', 'exitingEventIdentification', 'exitingEventErrorCode', 'guestRip'] as const;
const CP = 0x8000_0b15n;

describe('CET state in VM entries and VM exits', () => {
  it('the guest runs on its shadow stack, the host on its own', () => {
    const machine = cetGuest('call there; nop; there: vmcall', SH_STK_EN, {
      fields: {
        guestIa32InterruptSspTableAddr: 0x1234n,
        hostCr0: 0x8001_0021n,
        hostCr4: 0x80_2020n,
        hostIa32SCet: SH_STK_EN,
        hostSsp: BigInt(HOST_SHADOW + 0x800),
        hostIa32InterruptSspTableAddr: 0x5678n,
      },
    });
    const cpu = machine.cpu(0);
    runToExit(cpu);
    expect(exitFields(cpu, ...SAVED)).toEqual({
      guestSsp: SSP - 8n,
      guestIa32SCet: SH_STK_EN,
      guestIa32InterruptSspTableAddr: 0x1234n,
    });
    expect(machine.memory.read64(Number(SSP) - 8)).toBe(BigInt(GUEST + 5));
    expect([cpu.get('SSP'), cpu.get('IA32_INTERRUPT_SSP_TABLE_ADDR')]).toEqual([
      BigInt(HOST_SHADOW + 0x800),
      0x5678n,
    ]);
    machine.memory.writeBytes(HOST, assemble('call there; nop; there: jmp there', 64, HOST));
    cpu.run(1);
    expect(machine.memory.read64(HOST_SHADOW + 0x7f8)).toBe(BigInt(HOST + 5));
  });

  it('an exit between an indirect branch and its target saves the tracker, and the entry goes on waiting', () => {
    const code = `lea rax, [rip + there]; jmp rax; there: nop; vmcall`;
    const machine = cetGuest(code, ENDBR_EN, {
      controls: ['proc.monitorTrapFlag'],
      fields: { exceptionBitmap: 1n << 21n },
    });
    const cpu = machine.cpu(0);
    for (let n = 0; n < 2; n++) {
      runToExit(cpu);
      if (n === 0) expect(cpu.vmresume().kind).toBe('VMentry');
    }
    expect(exitFields(cpu, 'exitReason', 'guestIa32SCet')).toEqual({
      exitReason: 37n,
      guestIa32SCet: ENDBR_EN | TRACKER,
    });
    cpu.vmresume();
    runToExit(cpu);
    expect(exitFields(cpu, ...EVENT)).toEqual({
      exitReason: 0n,
      exitingEventIdentification: CP,
      exitingEventErrorCode: 3n,
      guestRip: BigInt(GUEST + 9),
    });
  });

  it('a guest that is entered with a waiting tracker has to begin with ENDBR64', () => {
    for (const [code, reason] of [
      [`${ENDBR64}; vmcall`, 18n],
      ['vmcall', 0n],
    ] as const) {
      const cpu = cetGuest(code, ENDBR_EN | TRACKER, { fields: { exceptionBitmap: 1n << 21n } }).cpu(0);
      runToExit(cpu);
      expect(exitFields(cpu, 'exitReason').exitReason).toBe(reason);
    }
  });
});

describe('#CP in VMX non-root operation', () => {
  it('exits by the exception bitmap with its error code', () => {
    const cpu = cetGuest('call there; nop; there: inc byte ptr [rsp]; ret', SH_STK_EN, {
      fields: { exceptionBitmap: 1n << 21n },
    }).cpu(0);
    runToExit(cpu);
    expect(exitFields(cpu, ...EVENT, 'guestSsp')).toEqual({
      exitReason: 0n,
      exitingEventIdentification: CP,
      exitingEventErrorCode: 1n,
      guestRip: BigInt(GUEST + 9),
      guestSsp: SSP - 8n,
    });
  });

  it('is injected, on the guest’s shadow stack, and leads to an ENDBRANCH', () => {
    const tables = {
      guestIdtrBase: BigInt(IDT),
      guestIdtrLimit: 0xfffn,
      guestGdtrBase: BigInt(GDT),
      guestGdtrLimit: 0x1fn,
    };
    const machine = cetGuest('nop', SH_STK_EN | ENDBR_EN, {
      fields: { ...tables, injectedEventIdentification: CP, injectedEventErrorCode: 2n },
      setUp: ({ memory }) => {
        memory.write64(IDT + 16 * 21, (BigInt(HANDLER >> 16) << 48n) | (0x8e00n << 32n) | (8n << 16n));
        memory.write64(GDT + 8, 0x00af_9b00_0000_ffffn);
        memory.writeBytes(HANDLER, assemble(`${ENDBR64}; vmcall`, 64, HANDLER));
      },
    });
    const cpu = machine.cpu(0);
    runToExit(cpu);
    expect(exitFields(cpu, 'exitReason', 'guestSsp', 'guestIa32SCet', 'guestRip')).toEqual({
      exitReason: 18n,
      guestSsp: SSP - 24n,
      guestIa32SCet: SH_STK_EN | ENDBR_EN,
      guestRip: BigInt(HANDLER + 4),
    });
    expect(machine.memory.read64(Number(SSP) - 16)).toBe(BigInt(GUEST));
    expect(machine.memory.read64(Number(SSP) - 24)).toBe(SSP);
  });

  it('a machine that runs code offers CET where the processor has it', () => {
    const cpu = guestMachine('mov ecx, 0; mov eax, 7; cpuid', {
      profile: 'tiger-lake',
      level: 'complete',
    }).cpu(0);
    const { features } = cpu.processor;
    expect([features.cetShadowStack, features.cetIndirectBranchTracking]).toEqual([true, true]);
    expect(features.cr4Bits & (1n << 23n)).toBe(1n << 23n);
    expect(cpu.capabilities.supports('entry.loadCetState')).toBe(true);
    expect(cpu.capabilities.supports('exit.loadCetState')).toBe(true);
  });
});
