import { describe, expect, it } from 'vitest';
import type { LogicalProcessor } from '../../../src/machine/logical-processor.ts';
import type { Machine } from '../../../src/machine/machine.ts';
import { runMachine } from '../../../src/machine/run-machine.ts';
import { acknowledge, apicMachine, loadApic, storeApic } from '../../support/apic.ts';
import { processors, timesTaken } from '../../support/processors.ts';

const PERIODIC = 1 << 17;
const DEADLINE = 2 << 17;
const MASKED = 1 << 16;
/** Divide configuration 1011B: by 1; a count then takes 40 ns. */
const BY_1 = 0xb;

/** A machine whose only processor executes NOPs, so that virtual time passes. */
function spinning(options = {}): { machine: Machine; cpu: LogicalProcessor; pass: (ns: number) => void } {
  const machine = apicMachine(options);
  const cpu = machine.cpu(0).enterLongMode();
  cpu.set('CR0', 0x8000_0033n & ~(1n << 31n));
  machine.memory.writeBytes(0x1000, Uint8Array.from([0xeb, 0xfe]));
  cpu.set('RIP', 0x1000n);
  return { machine, cpu, pass: (ns) => runMachine(machine, ns) };
}

describe('the timer', () => {
  it.each([
    [0b0000, 2],
    [0b0001, 4],
    [0b0010, 8],
    [0b0011, 16],
    [0b1000, 32],
    [0b1001, 64],
    [0b1010, 128],
    [0b1011, 1],
  ])('with divide configuration %i counts every %i periods of 40 ns', (divide, periods) => {
    const { cpu, pass } = spinning();
    storeApic(cpu, 'DivideConfiguration', divide);
    storeApic(cpu, 'InitialCount', 1000);
    pass(40 * periods - 1);
    expect(loadApic(cpu, 'CurrentCount')).toBe(1000);
    pass(1);
    expect(loadApic(cpu, 'CurrentCount')).toBe(999);
    pass(40 * periods * 9);
    expect(loadApic(cpu, 'CurrentCount')).toBe(990);
  });

  it('in one-shot mode interrupts once, at the exact time', () => {
    const { cpu, pass } = spinning();
    storeApic(cpu, 'DivideConfiguration', BY_1);
    storeApic(cpu, 'LvtTimer', 0x40);
    storeApic(cpu, 'InitialCount', 10);
    pass(399);
    expect([acknowledge(cpu), loadApic(cpu, 'CurrentCount')]).toEqual([undefined, 1]);
    pass(2);
    expect([acknowledge(cpu), loadApic(cpu, 'CurrentCount')]).toEqual([0x40, 0]);
    storeApic(cpu, 'Eoi', 0);
    pass(5000);
    expect([acknowledge(cpu), loadApic(cpu, 'InitialCount')]).toEqual([undefined, 10]);
  });

  it('in periodic mode interrupts every period', () => {
    const { cpu, pass } = spinning();
    storeApic(cpu, 'DivideConfiguration', BY_1);
    storeApic(cpu, 'LvtTimer', PERIODIC | 0x40);
    storeApic(cpu, 'InitialCount', 10);
    const taken: boolean[] = [];
    for (let n = 0; n < 6; n++) {
      pass(200);
      taken.push(acknowledge(cpu) === 0x40);
      storeApic(cpu, 'Eoi', 0);
    }
    pass(1);
    expect(taken).toEqual([false, false, true, false, true, false]);
    expect(acknowledge(cpu)).toBe(0x40);
  });

  it('counts while it is masked, without interrupting', () => {
    const { cpu, pass } = spinning();
    storeApic(cpu, 'DivideConfiguration', BY_1);
    storeApic(cpu, 'InitialCount', 10);
    pass(1000);
    storeApic(cpu, 'LvtTimer', 0x40);
    expect([acknowledge(cpu), loadApic(cpu, 'CurrentCount')]).toEqual([undefined, 0]);
  });

  it('starts anew with its initial count, and 0 stops it', () => {
    const { cpu, pass } = spinning();
    storeApic(cpu, 'DivideConfiguration', BY_1);
    storeApic(cpu, 'LvtTimer', 0x40);
    storeApic(cpu, 'InitialCount', 10);
    pass(300);
    storeApic(cpu, 'InitialCount', 10);
    pass(300);
    expect(acknowledge(cpu)).toBeUndefined();
    storeApic(cpu, 'InitialCount', 0);
    pass(1000);
    expect([acknowledge(cpu), loadApic(cpu, 'CurrentCount')]).toEqual([undefined, 0]);
  });

  it('goes on with a new divisor', () => {
    const { cpu, pass } = spinning();
    storeApic(cpu, 'DivideConfiguration', BY_1);
    storeApic(cpu, 'InitialCount', 10);
    pass(200);
    storeApic(cpu, 'DivideConfiguration', 0);
    pass(80);
    expect(loadApic(cpu, 'CurrentCount')).toBe(4);
  });
});

describe('TSC-deadline mode', () => {
  const armed = (deadline: bigint) => {
    const made = spinning();
    storeApic(made.cpu, 'LvtTimer', DEADLINE | 0x40);
    made.cpu.wrmsr(0x6e0, deadline);
    return made;
  };

  it('interrupts when the time-stamp counter reaches the deadline, which disarms it', () => {
    const { cpu, pass } = armed(1000n);
    pass(999);
    expect([cpu.rdmsr(0x6e0), acknowledge(cpu)]).toEqual([1000n, undefined]);
    pass(2);
    expect([cpu.rdmsr(0x6e0), acknowledge(cpu)]).toEqual([0n, 0x40]);
  });

  it('a deadline in the past interrupts at once, 0 disarms', () => {
    const { cpu, pass } = armed(5000n);
    cpu.wrmsr(0x6e0, 0n);
    pass(6000);
    expect(acknowledge(cpu)).toBeUndefined();
    cpu.wrmsr(0x6e0, 1n);
    pass(1);
    expect(acknowledge(cpu)).toBe(0x40);
  });

  it('the time-stamp counter may be set', () => {
    const { cpu, pass } = armed(1_000_000n);
    cpu.wrmsr(0x10, 999_990n);
    pass(11);
    expect(acknowledge(cpu)).toBe(0x40);
  });

  it('ignores initial counts; the other modes ignore the MSR', () => {
    const { cpu } = armed(1000n);
    storeApic(cpu, 'InitialCount', 10);
    expect([loadApic(cpu, 'InitialCount'), loadApic(cpu, 'CurrentCount')]).toEqual([0, 0]);
    storeApic(cpu, 'LvtTimer', 0x40);
    expect(cpu.rdmsr(0x6e0)).toBe(0n);
    cpu.wrmsr(0x6e0, 7n);
    expect(cpu.rdmsr(0x6e0)).toBe(0n);
  });

  it('is no mode of a processor without it', () => {
    const { cpu } = spinning({ profile: 'penryn' });
    expect(cpu.rdmsr(0x6e0)).toBeUndefined();
    storeApic(cpu, 'LvtTimer', DEADLINE | MASKED | 0x40);
    storeApic(cpu, 'InitialCount', 10);
    expect(loadApic(cpu, 'InitialCount')).toBe(10);
  });
});

describe('timers of executing processors', () => {
  it('interrupt each its own', () => {
    const code = (count: number) => `mov eax, 0xfee003e0; mov dword ptr [rax], ${BY_1}
      mov eax, 0xfee00320; mov dword ptr [rax], ${PERIODIC | 0x40}
      mov eax, 0xfee00380; mov dword ptr [rax], ${count}
      sti; again: inc rcx; jmp again`;
    const machine = processors([code(100), code(50)]);
    runMachine(machine, 100_000);
    const taken = machine.processors.map((cpu) => timesTaken(machine, cpu, 0x40));
    expect(taken[0]).toBeGreaterThanOrEqual(23);
    expect(taken[0]).toBeLessThanOrEqual(25);
    expect(taken[1]).toBeGreaterThanOrEqual(46);
    expect(taken[1]).toBeLessThanOrEqual(50);
  });

  it('read the same count wherever the load stands in its block', () => {
    const nops = (n: number) => 'nop; '.repeat(n);
    const start = `mov eax, 0xfee003e0; mov dword ptr [rax], ${BY_1}
      mov eax, 0xfee00390; mov ebx, 0xfee00380; mov dword ptr [rbx], 1000`;
    const counts = [39, 40, 41, 79, 80, 81].map((n) => {
      const machine = processors([`${start}; ${nops(n - 1)} mov edx, [rax]; hlt`]);
      runMachine(machine, 1000);
      return machine.cpu(0).get('RDX');
    });
    expect(counts).toEqual([1000n, 999n, 999n, 999n, 998n, 998n]);
  });

  it('UMWAIT and TPAUSE end when something is due', () => {
    const machine = processors([
      `mov eax, 0xfee003e0; mov dword ptr [rax], ${BY_1}
      mov eax, 0xfee00320; mov dword ptr [rax], 0x40
      mov eax, 0xfee00380; mov dword ptr [rax], 100
      sti
      xor ecx, ecx; mov eax, 50000; xor edx, edx
      .byte 0x66, 0x0f, 0xae, 0xf1
      rdtsc; mov ebx, eax; cli; hlt`,
    ]);
    runMachine(machine, 1000);
    expect(timesTaken(machine, machine.cpu(0), 0x40)).toBe(1);
    const stamp = Number(machine.cpu(0).get('RBX'));
    expect([stamp > 4000, stamp < 4100]).toEqual([true, true]);
    expect(machine.time).toBeGreaterThan(4000);
  });
});
