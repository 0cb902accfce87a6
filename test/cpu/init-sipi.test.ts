import { describe, expect, it } from 'vitest';
import { Register } from '../../src/cpu/registers.ts';
import type { LogicalProcessor } from '../../src/machine/logical-processor.ts';
import { Machine } from '../../src/machine/machine.ts';
import { assemble } from '../support/assemble.ts';
import { execute } from '../support/code.ts';

const WAIT_FOR_SIPI = 3n;

/** Two processors; the second is about to execute in 64-bit mode. */
function second(code = 'here: jmp here'): LogicalProcessor {
  const machine = new Machine({ cpus: 2, memory: 0x10_0000 });
  const cpu = machine.cpu(1);
  machine.memory.writeBytes(0x1_0000, assemble(code, 64, 0x1_0000));
  cpu.enterLongMode();
  cpu.set('CR0', cpu.get('CR0') & ~(1n << 31n));
  cpu.set('RIP', 0x1_0000n);
  return cpu;
}

describe('INIT outside VMX operation (SDM vol. 3A Table 11-1)', () => {
  it('initialises the processor and leaves MSRs, x87 and SSE state and caching alone', () => {
    const cpu = second();
    const kept = {
      IA32_LSTAR: 0x1234n,
      IA32_APIC_BASE: 0xfee0_0800n,
      IA32_PAT: 0x0606_0606_0606_0606n,
      XMM3: 5n,
      'FPR2.significand': 7n,
      FCW: 0x37fn,
      XCR0: 3n,
    } as const;
    for (const [name, value] of Object.entries(kept)) cpu.set(name as keyof typeof kept, value);
    cpu.set('CR0', (cpu.get('CR0') & ~0x6000_0000n) | 0x2000_0000n);
    cpu.set('RAX', 1n);
    cpu.set('DR7', 0x455n);
    cpu.processor.requestNmi();
    cpu.set('blockingByNmi', 1n);
    const time = cpu.get('IA32_TIME_STAMP_COUNTER');
    cpu.processor.requestInit();
    cpu.run(1);
    expect([cpu.get('CR0'), cpu.get('CR4'), cpu.get('IA32_EFER')]).toEqual([0x2000_0010n, 0n, 0n]);
    expect([cpu.get('RIP'), cpu.get('CS.selector'), cpu.get('CS.base')]).toEqual([
      0xfff0n,
      0xf000n,
      0xffff_0000n,
    ]);
    expect([cpu.get('RAX'), cpu.get('RFLAGS'), cpu.get('DR7')]).toEqual([0n, 2n, 0x400n]);
    expect(cpu.get('RDX')).toBe(BigInt(cpu.profile.signature));
    expect([cpu.get('blockingByNmi'), cpu.get('nmiPending')]).toEqual([0n, 0n]);
    for (const [name, value] of Object.entries(kept)) {
      expect(cpu.get(name as keyof typeof kept), name).toBe(value);
    }
    expect(cpu.get('IA32_TIME_STAMP_COUNTER')).toBe(time + 1n);
    expect(cpu.mode).toBe(0);
  });

  it('lets the bootstrap processor start at the reset vector, and the others wait for a SIPI', () => {
    const boot = execute('nop\nnop', 1);
    boot.processor.requestInit();
    boot.run(1);
    expect(boot.get('activityState')).toBe(0n);
    const other = second();
    other.processor.requestInit();
    other.run(1);
    expect(other.get('activityState')).toBe(WAIT_FOR_SIPI);
    const { executed } = other.processor;
    other.run(10);
    expect(other.processor.executed).toBe(executed);
  });

  it('ends HLT and shutdown', () => {
    for (const state of [1n, 2n]) {
      const cpu = second();
      cpu.set('activityState', state);
      cpu.run(1);
      expect(cpu.get('RIP')).toBe(0x1_0000n);
      cpu.processor.requestInit();
      cpu.run(1);
      expect(cpu.get('RIP')).toBe(0xfff0n);
    }
  });

  it('is held in SMM', () => {
    const cpu = second();
    cpu.set('inSmm', 1n);
    cpu.processor.requestInit();
    cpu.run(3);
    expect(cpu.get('RIP')).toBe(0x1_0000n);
    cpu.set('inSmm', 0n);
    cpu.run(1);
    expect(cpu.get('activityState')).toBe(WAIT_FOR_SIPI);
  });

  it('tells the local APIC', () => {
    const cpu = second();
    let told = 0;
    cpu.processor.interrupts = {
      requested: () => false,
      acknowledge: () => 0,
      initialised: () => {
        told++;
      },
    };
    cpu.processor.requestInit();
    cpu.run(5);
    expect(told).toBe(1);
  });
});

describe('a start-up IPI outside VMX operation (SDM vol. 3A §11.4.4)', () => {
  it('starts a processor that waits for it in real-address mode at the page of its vector', () => {
    const cpu = second();
    cpu.processor.requestInit();
    cpu.run(1);
    cpu.processor.memory.writeBytes(0x9_b000, assemble('mov ax, 0x1234\nmov bx, cs', 16));
    cpu.processor.requestSipi(0x9b);
    cpu.run(3);
    expect([cpu.get('activityState'), cpu.get('CS.selector'), cpu.get('CS.base')]).toEqual([
      0n,
      0x9b00n,
      0x9_b000n,
    ]);
    expect([cpu.get('RIP'), cpu.get('RAX'), cpu.get('RBX')]).toEqual([5n, 0x1234n, 0x9b00n]);
  });

  it('follows an INIT signal that was not taken yet', () => {
    const cpu = second();
    cpu.processor.requestInit();
    cpu.processor.requestSipi(0x20);
    cpu.run(2);
    expect([cpu.get('activityState'), cpu.get('CS.base'), cpu.get('RIP')]).toEqual([0n, 0x2_0000n, 0n]);
  });

  it('is lost on a processor that does not wait: one that runs, halts or is shut down', () => {
    for (const state of [0n, 1n, 2n]) {
      const cpu = second();
      cpu.set('activityState', state);
      cpu.processor.requestSipi(0x20);
      cpu.run(1);
      cpu.processor.requestInit();
      cpu.run(2);
      expect(cpu.get('activityState')).toBe(WAIT_FOR_SIPI);
    }
  });

  it('is the only event that ends the wait, besides INIT', () => {
    const cpu = second();
    cpu.processor.requestInit();
    cpu.run(1);
    cpu.processor.requestNmi();
    cpu.processor.interrupts = { requested: () => true, acknowledge: () => 0x40 };
    cpu.set('RFLAGS', 0x202n);
    cpu.run(5);
    expect(cpu.get('activityState')).toBe(WAIT_FOR_SIPI);
    expect(cpu.processor.i32[2 * Register.nmiPending]).toBe(1);
  });
});
