import { describe, expect, it } from 'vitest';
import { Register } from '../../src/cpu/registers.ts';
import { Field, fieldOf } from '../../src/vmcs/fields.ts';
import type { VmxObserver } from '../../src/vmx/vmx-observer.ts';
import { launchable, rootMachine, vmcsRegion } from '../support/machine.ts';

/** A processor with a launchable VMCS, and what its observer saw. */
function observed() {
  const cpu = rootMachine().cpu(0);
  launchable(cpu, vmcsRegion(0));
  const seen: string[] = [];
  const observer: VmxObserver = {
    instruction: (mnemonic, operand, outcome) =>
      seen.push(`${mnemonic} ${operand?.toString(16)} ${outcome.kind}`),
    exit: (copy) => seen.push(`exit ${copy.words[2 * Field.exitReason]} of ${copy.address.toString(16)}`),
  };
  cpu.unit.observe(observer);
  return { cpu, seen };
}

describe('an observer', () => {
  it('sees every VMX instruction with its operand, and exits', () => {
    const { cpu, seen } = observed();
    cpu.vmptrst();
    cpu.vmread('guestRip');
    cpu.vmwrite('exitReason', 0);
    cpu.vmread(0x7777);
    cpu.vmlaunch();
    cpu.vmexit({ reason: 10, instructionLength: 2 });
    cpu.vmresume();
    cpu.vmcall();
    cpu.vmclear(1n);
    cpu.vmxoff();
    cpu.vmclear(0x1000n);
    expect(seen).toEqual([
      'VMPTRST undefined VMsucceed',
      'VMREAD 681e VMsucceed',
      'VMWRITE 4402 VMsucceed',
      'VMREAD 7777 VMfailValid',
      'VMLAUNCH undefined VMentry',
      'exit 10 of 200000',
      'VMRESUME undefined VMentry',
      'exit 18 of 200000',
      'VMCALL undefined VMexit',
      'VMCLEAR 1 VMfailValid',
      'VMXOFF undefined VMsucceed',
      'VMCLEAR 1000 fault',
    ]);
  });

  it('sees each VMREAD and VMWRITE between registers, and none once it is gone', () => {
    const { cpu, seen } = observed();
    cpu.set('RAX', BigInt(fieldOf('guestRip').encoding));
    for (let i = 0; i < 3; i++) cpu.vmreadRegister(Register.RAX, Register.RBX);
    cpu.vmwriteRegister(Register.RAX, Register.RBX);
    expect(seen).toEqual([...Array(3).fill('VMREAD 681e VMsucceed'), 'VMWRITE 681e VMsucceed']);
    cpu.unit.observe(undefined);
    cpu.vmreadRegister(Register.RAX, Register.RBX);
    cpu.unit.observe({ instruction: () => seen.push('again'), exit: () => {} });
    cpu.vmreadRegister(Register.RAX, Register.RBX);
    expect(seen.slice(4)).toEqual(['again']);
  });

  it('may watch exits only', () => {
    const { cpu, seen } = observed();
    cpu.unit.observe({ exit: (copy) => seen.push(`exit ${copy.words[2 * Field.exitReason]}`) });
    cpu.vmlaunch();
    cpu.vmexit({ reason: 10 });
    expect(seen).toEqual(['exit 10']);
  });

  it('sees a VM entry that fails after its checks as an exit', () => {
    const { cpu, seen } = observed();
    cpu.vmwrite('guestRflags', 0);
    cpu.vmlaunch();
    expect(seen.slice(1)).toEqual([`exit ${0x8000_0021} of 200000`, 'VMLAUNCH undefined VMentryFailure']);
  });
});
