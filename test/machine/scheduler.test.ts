import { describe, expect, it } from 'vitest';
import { Register } from '../../src/cpu/registers.ts';
import { runMachine } from '../../src/machine/run-machine.ts';
import type { Interleaving } from '../../src/machine/scheduler.ts';
import { COUNTS, processors, timesTaken } from '../support/processors.ts';

const COUNTING = 'again: inc rax; jmp again';
const SLEEPING = 'sti; again: hlt; jmp again';

/** Instructions executed by each processor. */
const executed = (machine: ReturnType<typeof processors>) =>
  machine.processors.map((cpu) => cpu.processor.executed);

describe('turns', () => {
  it('go round with a quantum', () => {
    const machine = processors([COUNTING, COUNTING, COUNTING], { interleaving: { quantum: 10 } });
    runMachine(machine, 25);
    expect(executed(machine)).toEqual([10, 10, 5]);
    runMachine(machine, 5);
    expect(executed(machine)).toEqual([10, 10, 10]);
  });

  it('pass over processors that sleep', () => {
    const machine = processors([SLEEPING, COUNTING, SLEEPING], { interleaving: { quantum: 10 } });
    runMachine(machine, 1000);
    expect(executed(machine)).toEqual([2, 996, 2]);
  });

  it('are drawn from a seed', () => {
    const runs = [1, 1, 2].map((seed) => {
      const machine = processors([COUNTING, COUNTING], { interleaving: { quantum: 10, seed } });
      runMachine(machine, 500);
      return executed(machine);
    });
    expect(runs[0]).toEqual(runs[1]);
    expect(runs[0]).not.toEqual(runs[2]);
    expect((runs[0]?.[0] as number) + (runs[0]?.[1] as number)).toBe(500);
  });

  it('have at least one instruction', () => {
    expect(() => processors([COUNTING], { interleaving: { quantum: 0 } })).toThrow('the quantum');
  });
});

describe('virtual time', () => {
  it('is that of all processors, and so are their time-stamp counters', () => {
    const machine = processors([COUNTING, COUNTING], { interleaving: { quantum: 10 } });
    runMachine(machine, 100);
    expect(machine.time).toBe(100);
    expect(machine.processors.map((cpu) => cpu.get('IA32_TIME_STAMP_COUNTER'))).toEqual([100n, 100n]);
  });

  it('never goes back from one processor to another', () => {
    const stamping = (other: string) => `again: mov ecx, [0x60000]; rdtsc; cmp eax, ecx; jb wrong
      mov [0x60000], eax; jmp again; wrong: mov dword ptr [0x60004], ${other}`;
    const machine = processors([stamping('1'), stamping('2')], { interleaving: { quantum: 7, seed: 3 } });
    runMachine(machine, 5000);
    expect([machine.memory.read32(0x6_0000) > 4900, machine.memory.read32(0x6_0004)]).toEqual([true, 0]);
  });

  it('jumps to the next event while every processor sleeps', () => {
    const timer = `mov eax, 0xfee003e0; mov dword ptr [rax], 0xb
      mov eax, 0xfee00320; mov dword ptr [rax], 0x40
      mov eax, 0xfee00380; mov dword ptr [rax], 1000000
      ${SLEEPING}`;
    const machine = processors([timer, SLEEPING]);
    expect(runMachine(machine, 1000)).toEqual({ kind: 'halted', state: 'HLT' });
    expect(timesTaken(machine, machine.cpu(0), 0x40)).toBe(1);
    expect(machine.executed).toBeLessThan(60);
    expect(machine.time).toBeGreaterThan(40_000_000);
    expect(machine.time).toBeLessThan(40_000_100);
    expect(machine.cpu(1).get('IA32_TIME_STAMP_COUNTER')).toBe(BigInt(machine.time));
  });

  it('ends a machine that waits for good', () => {
    expect(runMachine(processors(['cli; hlt', 'hlt']), 100)).toEqual({ kind: 'halted', state: 'HLT' });
    const machine = processors(['nop', 'nop']);
    for (const cpu of machine.processors) cpu.set('activityState', 3n);
    expect(runMachine(machine, 100)).toEqual({ kind: 'halted', state: 'wait-for-SIPI' });
  });

  it('returns from events that wake nobody', () => {
    const machine = processors([
      `mov eax, 0xfee00320; mov dword ptr [rax], 0x20040
      mov eax, 0xfee00380; mov dword ptr [rax], 100; mov eax, 0xfee00080; mov dword ptr [rax], 0xf0
      ${SLEEPING}`,
    ]);
    expect(runMachine(machine, 1000)).toBeUndefined();
    expect(runMachine(machine, 1000)).toBeUndefined();
    expect(machine.cpu(0).get('activityState')).toBe(1n);
  });
});

describe('processors that wait in MWAIT', () => {
  const TIMER = `mov eax, 0xfee003e0; mov dword ptr [rax], 0xb
    mov eax, 0xfee00320; mov dword ptr [rax], 0x20040
    mov eax, 0xfee00380; mov dword ptr [rax], 25000`;
  const IDLE = 'sti; mov eax, 0x60000; idle: xor ecx, ecx; xor edx, edx; monitor; mwait; jmp idle';

  it('let time pass up to the next event', () => {
    const machine = processors([`${TIMER}; ${IDLE}`, IDLE]);
    runMachine(machine, 1000);
    // 1 ms a period, 100 microseconds a wait.
    expect(machine.time).toBeGreaterThan(8_000_000);
    const periods = Math.floor(machine.time / 1_000_000);
    expect(Math.abs(timesTaken(machine, machine.cpu(0), 0x40) - periods)).toBeLessThan(2);
  });

  it('give up their turns while another one works', () => {
    const machine = processors([COUNTING, `${TIMER}; ${IDLE}`], { interleaving: { quantum: 1000 } });
    runMachine(machine, 50_000);
    expect(machine.time).toBe(50_000);
    expect(machine.cpu(0).processor.executed).toBeGreaterThan(49_000);
  });

  it('do not wait for an interrupt that is there already, or without a monitor', () => {
    for (const code of [
      'mov eax, 0xfee00300; mov dword ptr [rax], 0x40040; monitor; mwait; mwait; jmp $',
      'mov eax, 0xfee00300; mov dword ptr [rax], 0x40040; mwait; jmp $',
    ]) {
      const machine = processors([
        `cli; mov eax, 0x60000; xor ecx, ecx; xor edx, edx; ${code.replace('jmp $', 'again: jmp again')}`,
      ]);
      runMachine(machine, 100);
      expect(machine.time).toBe(100);
    }
  });
});

describe('a run', () => {
  /** Both processors send each other interrupts, take those of their timers and store to shared memory. */
  const busy = (other: number) => `
    mov eax, 0xfee00320; mov dword ptr [rax], 0x20040
    mov eax, 0xfee003e0; mov dword ptr [rax], 0xb
    mov eax, 0xfee00380; mov dword ptr [rax], 7
    sti
    again:
    mov eax, 0xfee00310; mov dword ptr [rax], ${other << 24}
    mov eax, 0xfee00300; mov dword ptr [rax], 0x50
    rdtsc
    add [0x60000], eax
    mov eax, 0xfee00390; mov eax, [rax]
    add [0x60008], eax
    hlt
    jmp again`;
  const state = (machine: ReturnType<typeof processors>) => {
    const { processors: cpus, ...rest } = machine.snapshot();
    return {
      ...rest,
      memory: [...rest.memory],
      cpus: cpus.map((c) => ({ ...c, registers: visible(c.registers) })),
    };
  };
  // Why the next boundary needs a look is no state that software can see.
  const visible = (registers: Uint32Array) => [...registers.slice(0, 2 * Register.ZERO)];
  const settings: readonly Interleaving[] = [{ quantum: 13 }, { quantum: 50, seed: 7 }];

  it.each(settings)('does not depend on how it is divided (%o)', (interleaving) => {
    const whole = processors([busy(1), busy(0)], { interleaving });
    runMachine(whole, 3000);
    const divided = processors([busy(1), busy(0)], { interleaving });
    for (let n = 0; divided.executed < 3000; n++)
      runMachine(divided, Math.min(1 + (n % 5), 3000 - divided.executed));
    expect(divided.memory.readBytes(COUNTS, 2048)).toEqual(whole.memory.readBytes(COUNTS, 2048));
    expect(state(divided)).toEqual(state(whole));
  });

  it.each(settings)('continues from a snapshot as it went on (%o)', (interleaving) => {
    const machine = processors([busy(1), busy(0)], { interleaving });
    runMachine(machine, 1234);
    const kept = machine.snapshot();
    runMachine(machine, 3000);
    const first = state(machine);
    machine.restore(kept);
    runMachine(machine, 3000);
    expect(state(machine)).toEqual(first);
    expect(timesTaken(machine, machine.cpu(1), 0x50)).toBeGreaterThan(10);
  });
});
