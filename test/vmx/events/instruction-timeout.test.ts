import { describe, expect, it } from 'vitest';
import type { LogicalProcessor } from '../../../src/machine/logical-processor.ts';
import { assemble } from '../../support/assemble.ts';
import { exitFields, GUEST, HOST, runToExit } from '../../support/guest.ts';
import { eventGuest, GUEST_IDT, handlerOf } from '../../support/guest-events.ts';
import {
  enterRing,
  gate,
  handler,
  Selector,
  segment,
  setGate,
  type World,
  world,
} from '../../support/tables.ts';

/** Code at CPL 3 whose #AC goes to a handler at CPL 3, on a stack that is not aligned: each delivery raises #AC. */
function misaligned(): World {
  const w = world('mov eax, [esp]', { bits: 32 });
  enterRing(w, 3);
  setGate(w, 17, gate(Selector.Code3, handler(17), 0xee));
  w.cpu.set('CR0', w.cpu.get('CR0') | (1n << 18n));
  w.cpu.set('RFLAGS', 0x4_0002n);
  w.cpu.set('RSP', 0x9_0001n);
  return w;
}

/** A guest whose #DB handler is never reached: its delivery reads the gate, on which there is a breakpoint. */
function debugLoop(instructionTimeoutControl?: bigint): LogicalProcessor {
  const gateOfDebug = GUEST_IDT + 16;
  const cpu = eventGuest(`mov eax, [${gateOfDebug}]\nnop`, {
    controls: instructionTimeoutControl === undefined ? [] : ['proc2.instructionTimeout'],
    fields: { ...(instructionTimeoutControl !== undefined && { instructionTimeoutControl }) },
  }).cpu(0);
  cpu.set('DR0', BigInt(gateOfDebug));
  cpu.set('DR7', 0xb_0401n);
  return cpu;
}

describe('a delivery that raises benign exceptions without end', () => {
  it('takes time and does not end, until memory changes', () => {
    const w = misaligned();
    w.cpu.run(1000);
    expect(w.cpu.processor.executed).toBe(1000);
    expect(w.cpu.get('deliveryStalled')).toBe(1n);
    // No boundary is reached: an NMI waits.
    w.cpu.processor.requestNmi();
    w.cpu.run(100);
    expect(w.cpu.get('nmiPending')).toBe(1n);
    setGate(w, 17, gate(Selector.Code0, handler(17), 0xee));
    w.cpu.run(1);
    expect([w.cpu.get('RIP'), w.cpu.cpl, w.cpu.get('deliveryStalled')]).toEqual([BigInt(handler(17)), 0, 0n]);
    w.cpu.run(1);
    expect(w.cpu.get('RIP')).toBe(BigInt(handler(2)));
  });

  it('is kept by a snapshot, and ended by RESET', () => {
    const w = misaligned();
    w.cpu.run(10);
    const snapshot = w.machine.snapshot();
    w.cpu.reset();
    expect(w.cpu.get('deliveryStalled')).toBe(0n);
    w.machine.restore(snapshot);
    setGate(w, 17, gate(Selector.Code0, handler(17), 0xee));
    w.cpu.run(1);
    expect(w.cpu.get('RIP')).toBe(BigInt(handler(17)));
  });
});

describe('instruction timeout (SDM §28.2)', () => {
  it('exits when events have followed each other for the time of the control', () => {
    const times = [2n, 10n].map((crystal) => {
      const cpu = debugLoop(crystal);
      const start = cpu.get('IA32_TIME_STAMP_COUNTER');
      runToExit(cpu, 2000);
      expect(exitFields(cpu, 'exitReason', 'exitQualification', 'exitingEventIdentification')).toEqual({
        exitReason: 75n,
        exitQualification: 0n,
        exitingEventIdentification: 0n,
      });
      return cpu.get('IA32_TIME_STAMP_COUNTER') - start;
    });
    // 40 ticks of the TSC for one of the crystal clock; one instruction comes before, and the exit takes one.
    expect(times).toEqual([2n * 40n + 2n, 10n * 40n + 2n]);
  });

  it('ends a delivery that goes on and on, with the state before it', () => {
    const cpu = eventGuest('nop', {
      controls: ['proc2.instructionTimeout'],
      fields: { instructionTimeoutControl: 2n },
    }).cpu(0);
    const { memory } = cpu.processor;
    // Flat 32-bit code at CPL 3, whose #AC goes to a handler at CPL 3.
    memory.write64(GUEST_IDT + 8 * 17, gate(0x1b, handlerOf(17), 0xee));
    memory.write64(Number(cpu.get('GDTR.base')) + 0x18, segment(0, 0xf_ffff, 0xc0fb));
    memory.writeBytes(GUEST, assemble('mov eax, [esp]', 32));
    for (const [name, value] of [
      ['CR0', 0x4_0031n],
      ['IA32_EFER', 0n],
      ['CS.selector', 0x1bn],
      ['CS.accessRights', 0xc0fbn],
      ['SS.accessRights', 0xc0f3n],
      ['RFLAGS', 0x4_0002n],
      ['RSP', 0x9_0001n],
    ] as const) {
      cpu.set(name, value);
    }
    cpu.run(20);
    expect([cpu.operation, cpu.get('deliveryStalled')]).toEqual(['non-root', 1n]);
    // Of the guest that the exit saves only its registers are looked at here.
    runToExit(cpu, 2 * 40 + 10);
    expect(exitFields(cpu, 'exitReason', 'guestRip', 'guestRsp', 'originalEventIdentification')).toEqual({
      exitReason: 75n,
      guestRip: BigInt(GUEST),
      guestRsp: 0x9_0001n,
      originalEventIdentification: 0n,
    });
    expect([cpu.get('deliveryStalled'), cpu.get('originalEvent')]).toEqual([0n, 0n]);
    cpu.run(5);
    expect(cpu.get('RIP')).toBe(BigInt(HOST));
  });

  it('does not exit without the control', () => {
    const cpu = debugLoop();
    cpu.run(3000);
    expect(cpu.operation).toBe('non-root');
  });

  it('does not exit from a guest that executes, halts or is interrupted', () => {
    const cpu = eventGuest(
      'again: int3\nint 0x80\nnop\nsti\nhlt\njmp again',
      {
        controls: ['proc2.instructionTimeout'],
        fields: { instructionTimeoutControl: 0n },
      },
      'iretq',
    ).cpu(0);
    for (let n = 0; n < 200; n++) {
      cpu.processor.requestNmi();
      cpu.run(7);
    }
    expect(cpu.operation).toBe('non-root');
    expect(Number(cpu.get('RIP'))).toBeGreaterThan(GUEST);
  });
});
