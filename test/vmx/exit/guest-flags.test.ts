import { describe, expect, it } from 'vitest';
import type { ControlId } from '../../../src/vmcs/controls.ts';
import { GUEST, guestMachine } from '../../support/guest.ts';

const ZERO = 0x46n;

/** Runs without stopping between the instruction that sets flags and the exit. */
function flagsAtExit(code: string, controls: readonly ControlId[] = [], fields = {}) {
  const cpu = guestMachine(code, { controls, fields }).cpu(0);
  cpu.run(40);
  expect(cpu.operation).toBe('root');
  return { guest: cpu.vmread('guestRflags').value, host: cpu.get('RFLAGS') };
}

describe('arithmetic flags at a VM exit (SDM §30.3.3)', () => {
  it.each([
    ['of an instruction', 'xor eax, eax\ncpuid', []],
    ['of a VMX instruction', 'xor eax, eax\nvmcall', []],
    ['of a fault', 'xor eax, eax\nmov [0x8000000000], rax', []],
    ['of the preemption timer', 'xor eax, eax\nhere: jmp here', ['pin.activateVmxPreemptionTimer']],
  ] as const)('%s are those of the last instruction, and not of the host', (_, code, controls) => {
    const source = code.includes('0x8000000000')
      ? 'mov rbx, 0x8000000000\nxor eax, eax\nmov [rbx], rax'
      : code;
    const { guest, host } = flagsAtExit(source, controls, {
      exceptionBitmap: 1n << 14n,
      vmxPreemptionTimerValue: 1n,
    });
    expect(guest & 0x8d5n).toBe(ZERO & 0x8d5n);
    expect(host).toBe(2n);
  });

  it('decide what the guest does when it is resumed', () => {
    const machine = guestMachine('xor eax, eax\nvmcall\njz good\nhlt\ngood: mov ecx, 7\nvmcall');
    const cpu = machine.cpu(0);
    cpu.run(5);
    cpu.vmwrite('guestRip', BigInt(GUEST + 5));
    expect(cpu.vmresume().kind).toBe('VMentry');
    cpu.run(5);
    expect(cpu.get('RCX')).toBe(7n);
  });
});
