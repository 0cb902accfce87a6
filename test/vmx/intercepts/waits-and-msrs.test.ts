/** Waiting instructions, PAUSE loops and IA32_SPEC_CTRL of guest code (SDM §28.1.3, §28.3). */
import { describe, expect, it } from 'vitest';
import type { RegisterName } from '../../../src/cpu/registers.ts';
import type { LogicalProcessor } from '../../../src/machine/logical-processor.ts';
import type { ControlId } from '../../../src/vmcs/controls.ts';
import { type GuestOptions, guestMachine, runToExit } from '../../support/guest.ts';
import type { FieldValues } from '../../support/legal-vmcs.ts';

const MSR_BITMAPS = { msrBitmapAddress: 0x8_2000n };
const TPAUSE_EBX = '.byte 0x66, 0x0f, 0xae, 0xf3';
const WRMSRNS = '.byte 0x0f, 0x01, 0xc6';

function guest(
  code: string,
  options: GuestOptions,
  registers: Partial<Record<RegisterName, bigint>> = {},
): LogicalProcessor {
  const cpu = guestMachine(`${code}\nvmcall`, {
    ...options,
    controls: ['proc.useMsrBitmaps', ...(options.controls ?? [])],
    fields: { ...MSR_BITMAPS, exceptionBitmap: 0xffff_ffffn, ...options.fields },
  }).cpu(0);
  for (const [name, value] of Object.entries(registers)) cpu.set(name as RegisterName, value);
  return cpu;
}

/** Reason of the exit, or `#` and a vector. */
function reasonOf(cpu: LogicalProcessor): string {
  runToExit(cpu);
  const reason = cpu.vmread('exitReason').value;
  return reason === 0n ? `#${cpu.vmread('exitingEventIdentification').value & 0xffn}` : `${reason}`;
}

describe('PAUSE-loop exiting (SDM §27.6.13, §28.1.3)', () => {
  const controls: readonly ControlId[] = ['proc2.pauseLoopExiting', 'proc2.enableUserWaitAndPause'];
  const LOOP = 'again: pause\nnop\nnop\njmp again';
  /** Instructions to the exit of the loop. */
  function toExit(cpu: LogicalProcessor): number {
    const before = cpu.processor.executed;
    runToExit(cpu);
    expect(cpu.vmread('exitReason').value).toBe(40n);
    return cpu.processor.executed - before;
  }

  it('the first PAUSE after each VM entry starts a loop, also the one that has exited', () => {
    const cpu = guest(LOOP, {
      level: 'complete',
      controls,
      fields: { pleGap: 0xffff_ffffn, pleWindow: 11n },
    });
    const first = toExit(cpu);
    for (let n = 0; n < 2; n++) {
      expect(cpu.vmresume().kind).toBe('VMentry');
      expect(toExit(cpu)).toBe(first);
    }
  });

  it.each([
    ['a gap is at most PLE_Gap', 4n, 11n, '40'],
    ['a longer one starts a loop', 3n, 11n, 'none'],
    ['a loop lasts longer than PLE_Window', 4n, 12n, 'none'],
    ['both are unsigned', 0xffff_ffffn, 0xffff_ffffn, 'none'],
  ])('%s', (_, pleGap, pleWindow, expected) => {
    // PAUSEs at times 0, 4, 8 and 12.
    const code = 'pause\nnop\nnop\nnop\n'.repeat(4);
    const cpu = guest(code, { level: 'complete', controls, fields: { pleGap, pleWindow } });
    expect(reasonOf(cpu)).toBe(expected === 'none' ? '18' : expected);
  });

  it.each([
    [10_000n, 500n, '40'],
    [900n, 500n, '18'],
  ])('the time of TPAUSE counts: gap %i, window %i', (pleGap, pleWindow, expected) => {
    const code = `pause\nrdtsc\nadd eax, 1000\n${TPAUSE_EBX}\npause`;
    const cpu = guest(code, { level: 'complete', controls, fields: { pleGap, pleWindow } }, { RBX: 0n });
    expect(reasonOf(cpu)).toBe(expected);
  });
});

describe('TPAUSE and IA32_UMWAIT_CONTROL (SDM §28.3)', () => {
  const scaled = {
    controls: ['proc.useTscOffsetting', 'proc2.useTscScaling'] as const,
    fields: { tscOffset: 1n << 40n, tscMultiplier: 3n << 47n },
  };
  it.each([
    ['no limit', 0n, 6000n, {}, 6000n, 0n],
    ['a limit that is not reached', 0x2000n, 6000n, {}, 6000n, 0n],
    ['a limit of the same time', 6000n, 6000n, {}, 6000n, 0n],
    ['a limit sets CF', 1000n, 6000n, {}, 1000n, 1n],
    ['bits 1:0 are no part of it', 1001n, 6000n, {}, 1000n, 1n],
    ['bit 0 alone is no limit', 1n, 6000n, {}, 6000n, 0n],
    ['the limit is of virtual time', 3000n, 6000n, scaled, 2000n, 1n],
  ] as const)('%s', (_, IA32_UMWAIT_CONTROL, time, setting, ticks, carry) => {
    const more: { controls?: readonly ControlId[]; fields?: FieldValues } = setting;
    const cpu = guest(
      `stc\n${TPAUSE_EBX}`,
      {
        level: 'complete',
        controls: ['proc2.enableUserWaitAndPause', ...(more.controls ?? [])],
        ...(more.fields && { fields: more.fields }),
      },
      { IA32_UMWAIT_CONTROL, RBX: 0n },
    );
    cpu.run(1);
    const before = cpu.get('IA32_TIME_STAMP_COUNTER');
    const visible = more.fields === undefined ? before : (before * 3n) / 2n + (1n << 40n);
    cpu.set('RAX', (visible + time) & 0xffff_ffffn);
    cpu.set('RDX', (visible + time) >> 32n);
    cpu.run(1);
    // The instruction itself takes a tick; scaling rounds.
    const passed = cpu.get('IA32_TIME_STAMP_COUNTER') - before - 1n;
    expect([passed === ticks || passed === ticks + 1n, cpu.get('RFLAGS') & 1n]).toEqual([true, carry]);
  });

  it.each([
    [0xffff_fffdn, '18'],
    [2n, '#13'],
    [1n << 32n, '#13'],
  ])('WRMSR of %i', (value, expected) => {
    const registers = { RCX: 0xe1n, RAX: value & 0xffff_ffffn, RDX: value >> 32n };
    const cpu = guest('wrmsr', { level: 'complete' }, registers);
    expect(reasonOf(cpu)).toBe(expected);
    expect(cpu.get('IA32_UMWAIT_CONTROL')).toBe(expected === '18' ? value : 0n);
  });
});

describe('MWAIT without "MWAIT exiting" (SDM §28.3)', () => {
  /** Whether the guest does not go on to the next instruction. */
  function waits(extensions: bigint, flags: bigint, setting: 'virtual interrupt' | 'window' | undefined) {
    const cpu = guest(
      'mov rax, 0x60000\nxor ecx, ecx\nxor edx, edx\nmonitor\nmov rcx, rbx\nmwait',
      {
        level: 'complete',
        controls: setting === 'window' ? ['proc.interruptWindowExiting'] : [],
      },
      { RBX: extensions, RFLAGS: 2n | flags },
    );
    cpu.run(5);
    if (setting === 'virtual interrupt') cpu.unit.vmx.virtualInterruptPending = true;
    const before = cpu.processor.executed;
    cpu.run(1);
    cpu.run(10);
    const executed = cpu.processor.executed - before;
    expect(executed === 1).toBe(cpu.operation === 'non-root');
    return executed === 1;
  }
  it.each([
    ['ECX[0] = 0', 0n, 0n, undefined, true],
    ['ECX[0] = 0, a virtual interrupt', 0n, 0n, 'virtual interrupt', true],
    ['ECX[0] = 1, IF = 0', 1n, 0n, undefined, true],
    ['ECX[0] = 1, IF = 0, a virtual interrupt', 1n, 0n, 'virtual interrupt', false],
    ['ECX[0] = 1, IF = 0, "interrupt-window exiting"', 1n, 0n, 'window', false],
    ['ECX[0] = 0, IF = 0, "interrupt-window exiting"', 0n, 0n, 'window', true],
  ] as const)('%s', (_, extensions, flags, setting, expected) => {
    expect(waits(extensions, flags, setting)).toBe(expected);
  });
});

describe('IA32_SPEC_CTRL (SDM §28.3)', () => {
  const control: readonly ControlId[] = ['proc3.virtualizeIa32SpecCtrl'];
  const WRITE: readonly (readonly [
    name: string,
    mask: bigint,
    source: bigint,
    result: string,
    msr: bigint,
    shadow: bigint,
  ])[] = [
    ['no bit of the host', 0n, 4n, '18', 4n, 4n],
    ['a bit of the host stays 1', 1n, 4n, '18', 5n, 4n],
    ['a bit of the host stays 0', 4n, 6n, '18', 2n, 6n],
    ['a reserved bit: #GP, and neither is written', 0n, 1n << 63n, '#13', 1n, 2n],
    ['a reserved bit under the mask', 1n << 63n, 1n << 63n, '18', 0n, 1n << 63n],
  ];
  for (const code of ['wrmsr', WRMSRNS]) {
    it.each(WRITE)(`${code}: %s`, (_, ia32SpecCtrlMask, source, result, msr, shadow) => {
      const fields = { ia32SpecCtrlMask, ia32SpecCtrlShadow: 2n };
      const registers = {
        IA32_SPEC_CTRL: 1n,
        RCX: 0x48n,
        RAX: source & 0xffff_ffffn,
        RDX: source >> 32n,
      };
      const cpu = guest(code, { controls: control, fields }, registers);
      expect(reasonOf(cpu)).toBe(result);
      expect([cpu.get('IA32_SPEC_CTRL'), cpu.vmread('ia32SpecCtrlShadow').value]).toEqual([msr, shadow]);
    });
  }

  it.each([
    [control, 0x1_0000_0006n],
    [[], 1n],
  ])('RDMSR with %j', (controls, value) => {
    const fields = controls.length === 0 ? {} : { ia32SpecCtrlMask: 7n, ia32SpecCtrlShadow: 0x1_0000_0006n };
    const cpu = guest('rdmsr', { controls, fields }, { IA32_SPEC_CTRL: 1n, RCX: 0x48n });
    expect(reasonOf(cpu)).toBe('18');
    expect((cpu.get('RDX') << 32n) | cpu.get('RAX')).toBe(value);
  });
});

describe('IA32_TSC_DEADLINE (SDM §28.3)', () => {
  it('is read without offset and multiplier', () => {
    const fields = { tscOffset: 1n << 40n, tscMultiplier: 3n << 47n };
    const controls = ['proc.useTscOffsetting', 'proc2.useTscScaling'] as const;
    const cpu = guest('rdmsr', { controls, fields }, { IA32_TSC_DEADLINE: 0x12_3456_789an, RCX: 0x6e0n });
    expect(reasonOf(cpu)).toBe('18');
    expect((cpu.get('RDX') << 32n) | cpu.get('RAX')).toBe(0x12_3456_789an);
  });
});
