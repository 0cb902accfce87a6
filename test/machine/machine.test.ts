/** What the API does with options, names and snapshots that fit no machine: it says so, and does nothing. */
import { describe, expect, it } from 'vitest';
import { Machine, type MachineOptions, type RegisterName } from '../../src/index.ts';

describe('a machine', () => {
  it.each([
    [{ cpus: 257 }, 'cpus must be an integer from 1 to 256, not 257'],
    [{ profile: 'nehalem' }, 'no processor profile "nehalem"'],
    [{ level: 'silicon' }, 'level must be one of checked, complete, not "silicon"'],
    [{ flushPolicy: 'lazy' }, 'flushPolicy must be one of at-vmclear, write-through, seeded, not "lazy"'],
    [{ flushPolicy: ['seeded'], cpus: 2 }, 'flushPolicy lists 1 values for 2 CPUs'],
    [{ translations: 'keep' }, 'translations must be one of none, eager, retain, seeded, not "keep"'],
    [{ hazards: 'throw' }, 'hazards must be one of ignore, report, stop, not "throw"'],
    [{ seed: -1 }, 'seed must be an integer from 0 to 4294967295, not -1'],
    [{ seed: 0.5 }, 'seed must be an integer from 0 to 4294967295, not 0.5'],
    [{ memory: 100 }, 'RAM must be a multiple of 4096 bytes'],
  ])('refuses the options %o', (options, message) => {
    const build = () => new Machine(options as MachineOptions);
    expect(build).toThrow(RangeError);
    expect(build).toThrow(message);
  });

  it('puts back no snapshot of a machine with another number of processors', () => {
    const machine = new Machine({ cpus: 2 });
    machine.memory.write32(0x1000, 5);
    expect(() => machine.restore(new Machine().snapshot())).toThrow(
      'a snapshot of 1 CPUs for a machine with 2',
    );
    expect(machine.memory.read32(0x1000)).toBe(5);
  });
});

describe('a logical processor', () => {
  it('knows its registers by name only', () => {
    const cpu = new Machine().cpu(0);
    for (const name of ['RXX', 'constructor'] as unknown as RegisterName[]) {
      expect(() => cpu.get(name)).toThrow(new RangeError(`no register is called "${name}"`));
      expect(() => cpu.set(name, 1n)).toThrow(new RangeError(`no register is called "${name}"`));
    }
  });

  it('says what a memory operand is', () => {
    const cpu = new Machine().cpu(0).enterLongMode();
    expect(() => cpu.vmxon(0x1000 as unknown as bigint)).toThrow(
      new TypeError('a memory operand is a bigint or an object, not the number 4096'),
    );
  });
});
