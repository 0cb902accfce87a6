import { describe, expect, it } from 'vitest';
import type { RegisterName } from '../../../src/cpu/registers.ts';
import type { LogicalProcessor } from '../../../src/machine/logical-processor.ts';
import type { ControlId } from '../../../src/vmcs/controls.ts';
import { guestMachine, runToExit } from '../../support/guest.ts';
import type { FieldValues } from '../../support/legal-vmcs.ts';

interface Setting {
  readonly controls?: readonly ControlId[];
  readonly fields?: FieldValues;
  readonly registers?: Partial<Record<RegisterName, bigint>>;
}

const CR0 = 0x8000_0031n;
const TS = 8n;

/** The processor after `code` and a VMCALL, or after the exception that it raised. */
function stateAfter(code: string, { controls = [], fields = {}, registers = {} }: Setting): LogicalProcessor {
  const cpu = guestMachine(`${code}\nvmcall`, {
    level: 'complete',
    controls: ['proc.useMsrBitmaps', ...controls],
    fields: { msrBitmapAddress: 0x8_2000n, exceptionBitmap: 0xffff_ffffn, ...fields },
  }).cpu(0);
  for (const [name, value] of Object.entries(registers)) cpu.set(name as RegisterName, value);
  runToExit(cpu);
  return cpu;
}

/** Guest CR0 after `code`, or the vector of its exception. */
function cr0After(code: string, setting: Setting): bigint | string {
  const cpu = stateAfter(code, setting);
  if (cpu.vmread('exitReason').value === 18n) return cpu.vmread('guestCr0').value;
  return `#${cpu.vmread('exitingEventIdentification').value & 0xffn}`;
}

describe('CLTS (SDM §28.3)', () => {
  it.each([
    ['mask 0: clears TS whatever the shadow', 0n, TS, CR0],
    ['mask 1, shadow 0: leaves TS alone', TS, 0n, CR0 | TS],
  ])('%s', (_, cr0GuestHostMask, cr0ReadShadow, result) => {
    const fields = { guestCr0: CR0 | TS, cr0GuestHostMask, cr0ReadShadow };
    expect(cr0After('clts', { fields })).toBe(result);
  });
});

describe('LMSW (SDM §28.3)', () => {
  it.each([
    ['sets bits 3:0', CR0, 0n, 0n, 0xfn, CR0 | 0xen],
    ['cannot clear PE', CR0, 0n, 0n, 0n, CR0],
    ['leaves bits of the host alone', CR0 | TS, 0x8n, 0n, 0x1n, CR0 | TS],
    ['sees no bits above 3', CR0, 0n, 0n, 0xfff1n, CR0],
  ])('%s', (_, guestCr0, cr0GuestHostMask, cr0ReadShadow, RBX, result) => {
    const setting = { fields: { guestCr0, cr0GuestHostMask, cr0ReadShadow }, registers: { RBX } };
    expect(cr0After('lmsw bx', setting)).toBe(result);
  });
});

describe('SMSW (SDM §28.3)', () => {
  const fields = { cr0GuestHostMask: 0x8000_000en, cr0ReadShadow: 0xan };
  const registers = { RAX: 0x1234_5678_9abc_def0n, RBX: 0x6_0000n };

  it.each([
    ['a 16-bit register keeps bits 63:16', 'smsw ax', 0x1234_5678_9abc_003bn],
    ['a 32-bit register clears bits 63:32', 'smsw eax', 0x3bn],
    ['a 64-bit register', 'smsw rax', 0x3bn],
    ['memory has 16 bits', 'smsw word ptr [rbx]\nmov rax, [rbx]', 0x3bn],
  ])('%s', (_, code, result) => {
    expect(stateAfter(code, { fields, registers }).get('RAX')).toBe(result);
  });
});

describe('MOV to CR0 and CR4 (SDM §28.3)', () => {
  it.each([
    ['bits of the host stay', CR0 | TS, TS, 0n, CR0 | 2n, CR0 | TS | 2n],
    ['a bit that is fixed in VMX operation: #GP', CR0, 0n, 0n, CR0 & ~0x20n, '#13'],
    ['PG = 0: #GP', CR0, 0n, 0n, 0x31n, '#13'],
    ['… unless the bit is the host’s', CR0, 0x20n, 0n, CR0 & ~0x20n, CR0],
  ])('%s', (_, guestCr0, cr0GuestHostMask, cr0ReadShadow, RAX, result) => {
    const setting = { fields: { guestCr0, cr0GuestHostMask, cr0ReadShadow }, registers: { RAX } };
    expect(cr0After('mov cr0, rax', setting)).toBe(result);
  });

  it.each([
    ['VMXE = 0: #GP', 0n, 0n, 0x20n, '#13'],
    ['… unless the bit is the host’s, which stays', 0x2000n, 0n, 0x220n, 0x2220n],
    ['a reserved bit: #GP', 0n, 0n, 0x2020n | (1n << 40n), '#13'],
  ])('CR4, %s', (_, cr4GuestHostMask, cr4ReadShadow, RAX, result) => {
    const cpu = stateAfter('mov cr4, rax', {
      fields: { cr4GuestHostMask, cr4ReadShadow },
      registers: { RAX },
    });
    const seen =
      cpu.vmread('exitReason').value === 18n
        ? cpu.vmread('guestCr4').value
        : `#${cpu.vmread('exitingEventIdentification').value & 0xffn}`;
    expect(seen).toBe(result);
  });

  it('unrestricted guests: PE and PG are free, but not PG without PE', () => {
    const ept = { eptPointer: 0x8_401en };
    const run = (RAX: bigint) => {
      const machine = guestMachine('mov cr0, rax\nvmcall', {
        level: 'complete',
        controls: ['proc2.enableEpt', 'proc2.unrestrictedGuest'],
        fields: { ...ept, exceptionBitmap: 0xffff_ffffn, guestCsAccessRights: 0xc09bn },
      });
      machine.memory.write64(0x8_4000, 0x8_5007n);
      machine.memory.write64(0x8_5000, 0xb7n);
      const cpu = machine.cpu(0);
      cpu.set('RAX', RAX);
      runToExit(cpu);
      return cpu.vmread('exitReason').value === 18n
        ? cpu.vmread('guestCr0').value
        : `#${cpu.vmread('exitingEventIdentification').value & 0xffn}`;
    };
    expect(run(0x31n)).toBe(0x31n);
    expect(run(0x8000_0030n)).toBe('#13');
    expect(run(0x11n)).toBe('#13');
  });
});

describe('other instructions (SDM §28.3)', () => {
  it('RDTSCP brings IA32_TSC_AUX too, RDPID needs the same control', () => {
    const controls = ['proc2.enableRdtscp'] as const;
    const registers = { IA32_TSC_AUX: 0x77n };
    expect(stateAfter('rdtscp', { controls, registers }).get('RCX')).toBe(0x77n);
    expect(stateAfter('.byte 0xf3, 0x0f, 0xc7, 0xf8', { controls, registers }).get('RAX')).toBe(0x77n);
  });

  it('WRMSR to IA32_BIOS_UPDT_TRIG does nothing', () => {
    const cpu = stateAfter('wrmsr', { registers: { RCX: 0x79n, RAX: 0x6_0000n, RDX: 0n } });
    expect(cpu.vmread('exitReason').value).toBe(18n);
  });

  it('TPAUSE waits to a guest time, of which offset and multiplier are taken back', () => {
    const elapsed = (
      fields: FieldValues,
      controls: readonly ControlId[],
      guestTime: (tsc: bigint) => bigint,
    ) => {
      const machine = guestMachine('.byte 0x66, 0x0f, 0xae, 0xf3\nvmcall', {
        level: 'complete',
        controls: ['proc2.enableUserWaitAndPause', ...controls],
        fields: { exceptionBitmap: 0xffff_ffffn, ...fields },
      });
      const cpu = machine.cpu(0);
      const begin = cpu.get('IA32_TIME_STAMP_COUNTER');
      const until = guestTime(begin + 6000n);
      cpu.set('RAX', until & 0xffff_ffffn);
      cpu.set('RDX', until >> 32n);
      cpu.set('RBX', 0n);
      runToExit(cpu);
      expect(cpu.vmread('exitReason').value).toBe(18n);
      return Number(cpu.get('IA32_TIME_STAMP_COUNTER') - begin);
    };
    for (const [controls, fields, guestTime] of [
      [[], {}, (tsc: bigint) => tsc],
      [['proc.useTscOffsetting'], { tscOffset: 1n << 40n }, (tsc: bigint) => tsc + (1n << 40n)],
      [
        ['proc.useTscOffsetting', 'proc2.useTscScaling'],
        { tscOffset: 1n << 40n, tscMultiplier: 3n << 47n },
        (tsc: bigint) => (tsc * 3n) / 2n + (1n << 40n),
      ],
    ] as const) {
      const ticks = elapsed(fields, controls, guestTime);
      expect(ticks).toBeGreaterThanOrEqual(6000);
      expect(ticks).toBeLessThan(6010);
    }
  });
});
