import { describe, expect, it } from 'vitest';
import { runHypervisor } from '../../examples/hypervisor.ts';

describe('a hypervisor in machine code (examples/hypervisor.asm)', () => {
  it('runs its guest on CPU 0, hands the VMCS over, and goes on with it on CPU 1, breaking no rule', async () => {
    const run = await runHypervisor();
    expect(run.output).toBe('hello from the guest on CPU 0\nand on CPU 1\n');
    expect(run.stop).toBe('shutdown');
    expect(run.hazards).toBe(0);
    const of = (cpu: number) => run.events.filter((e) => e.startsWith(`CPU ${cpu}:`));
    expect(of(0).slice(0, 5)).toEqual([
      'CPU 0: VMXON — VMsucceed',
      'CPU 0: VMCLEAR — VMsucceed',
      'CPU 0: VMPTRLD — VMsucceed',
      'CPU 0: VMLAUNCH — VMentry',
      'CPU 0: VM exit',
    ]);
    // One exit for each character, and CPUID on one side, HLT on the other.
    expect(of(0).filter((e) => e.endsWith('VM exit'))).toHaveLength(
      'hello from the guest on CPU 0\n'.length + 1,
    );
    expect(of(1).filter((e) => e.endsWith('VM exit'))).toHaveLength('and on CPU 1\n'.length + 1);
    expect(of(1)).toContain('CPU 1: VMLAUNCH — VMentry');
  });

  it('repeats to the last event', async () => {
    expect(await runHypervisor()).toEqual(await runHypervisor());
  });
});
