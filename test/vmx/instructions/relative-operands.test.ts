/** Operands of VMX instructions in machine code that are addressed relative to the next instruction. */
import { describe, expect, it } from 'vitest';
import type { LogicalProcessor } from '../../../src/machine/logical-processor.ts';
import { Machine } from '../../../src/machine/machine.ts';
import { fieldOf } from '../../../src/vmcs/fields.ts';
import { assemble } from '../../support/assemble.ts';
import { mapIdentity } from '../../support/guest.ts';
import { enterRoot, vmcsRegion, writeRevision } from '../../support/machine.ts';

const CODE = 0x1_0000;
const DATA = 0x1_1000;
const RIP = fieldOf('guestRip').encoding;

/** CPU 0 in VMX root operation, with all of `code` executed; the pointer to a VMCS region is at DATA. */
function root(code: string, count: number): { cpu: LogicalProcessor; machine: Machine } {
  const machine = new Machine({ memory: 0x40_0000 });
  const cpu = machine.cpu(0);
  mapIdentity(machine);
  enterRoot(cpu);
  cpu.set('CR3', 0x30_0000n);
  cpu.set('RIP', BigInt(CODE));
  writeRevision(cpu, vmcsRegion(0));
  machine.memory.write64(DATA, BigInt(vmcsRegion(0)));
  // What lies on either side is no region.
  machine.memory.write64(DATA - 8, 1n);
  machine.memory.write64(DATA + 8, 1n);
  machine.memory.writeBytes(CODE, assemble(`vmclear [${DATA}]; vmptrld [${DATA}]; ${code}`, 64, CODE));
  cpu.run(2 + count);
  return { cpu, machine };
}

describe('an operand relative to RIP', () => {
  it('of VMCLEAR and VMPTRLD', () => {
    expect(root('nop', 0).cpu.currentVmcs).toBe(vmcsRegion(0));
  });

  it('of VMPTRST', () => {
    const { machine } = root(`vmptrst [${DATA + 0x100}]`, 1);
    expect(machine.memory.read64(DATA + 0x100)).toBe(BigInt(vmcsRegion(0)));
  });

  it('of VMWRITE and VMREAD', () => {
    const { machine, cpu } = root(
      `mov eax, ${RIP}; mov qword ptr [${DATA + 0x40}], 0x1234
       vmwrite rax, [${DATA + 0x40}]; vmread [${DATA + 0x80}], rax`,
      4,
    );
    expect(cpu.vmread('guestRip').value).toBe(0x1234n);
    expect(machine.memory.read64(DATA + 0x80)).toBe(0x1234n);
  });

  it('of INVVPID', () => {
    const { cpu } = root(`mov eax, 1; mov qword ptr [${DATA + 0x40}], 5; invvpid rax, [${DATA + 0x40}]`, 3);
    expect(cpu.get('RFLAGS') & 0x8d5n).toBe(0n);
  });

  it('that faults leaves RIP at the instruction', () => {
    const { cpu } = root('vmclear [rip + 0x70000000]', 1);
    expect([cpu.get('activityState'), cpu.get('CR2')]).toEqual([
      2n,
      BigInt(0x7000_0000 + Number(cpu.get('RIP')) + 8),
    ]);
  });
});
