import { describe, expect, it } from 'vitest';
import { runMachine } from '../../src/machine/run-machine.ts';
import { codeMachine, loadCode } from '../support/code.ts';

/** A machine with devices that is about to execute `code` in 64-bit mode. */
function machineWith(code: string) {
  const sent: number[] = [];
  const machine = codeMachine({ devices: { serial: (byte) => sent.push(byte) } });
  loadCode(machine, code);
  return { machine, sent, ports: machine.cpu(0).processor.ports };
}

describe('runMachine', () => {
  it('executes what it is given, one nanosecond of virtual time an instruction', () => {
    const { machine } = machineWith('a: jmp a');
    expect([runMachine(machine, 1000), machine.time]).toEqual([undefined, 1000]);
  });

  it('executes nothing after a device asked for a stop', () => {
    const { machine, ports } = machineWith('a: jmp a');
    runMachine(machine, 10);
    ports.write(0xf4, 1, 3);
    expect(runMachine(machine, 1000)).toEqual({ kind: 'exit-port', code: 7 });
    expect(machine.time).toBe(10);
  });

  it('tells of processors that do not go on', () => {
    for (const [state, end] of [
      [1n, { kind: 'halted', state: 'HLT' }],
      [2n, { kind: 'reset', by: 'triple fault' }],
      [3n, { kind: 'halted', state: 'wait-for-SIPI' }],
    ] as const) {
      const { machine } = machineWith('a: jmp a');
      machine.cpu(0).set('activityState', state);
      machine.cpu(0).processor.requestAttention();
      expect(runMachine(machine, 10)).toEqual(end);
    }
  });
});

describe('a machine with devices', () => {
  it('continues from a snapshot: memory, processors, virtual time and devices', () => {
    const { machine, ports, sent } = machineWith('a: inc rax; jmp a');
    ports.write(0x43, 1, 0x34);
    ports.write(0x40, 1, 0);
    ports.write(0x40, 1, 0x10);
    runMachine(machine, 5000);
    const kept = machine.snapshot();
    const later = () => {
      runMachine(machine, 100_000);
      ports.write(0x43, 1, 0);
      ports.write(0x3f8, 1, 0x41);
      return [machine.cpu(0).get('RAX'), machine.time, ports.read(0x40, 1), ports.read(0x40, 1)];
    };
    const first = later();
    ports.write(0xf4, 1, 0);
    expect(runMachine(machine, 1)?.kind).toBe('exit-port');
    machine.restore(kept);
    expect(later()).toEqual(first);
    expect(sent).toEqual([0x41, 0x41]);
  });

  it('tells the processors of the A20 gate', () => {
    const { machine, ports } = machineWith('nop');
    ports.write(0x92, 1, 0);
    expect(machine.cpu(0).get('a20mMode')).toBe(1n);
    ports.write(0x92, 1, 2);
    expect(machine.cpu(0).get('a20mMode')).toBe(0n);
  });

  it('has ports without devices unless told otherwise', () => {
    const machine = codeMachine();
    expect([machine.platform, machine.cpu(0).processor.ports.read(0xe9, 1)]).toEqual([undefined, 0xff]);
  });
});
