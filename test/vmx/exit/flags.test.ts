import { describe, expect, it } from 'vitest';
import type { ControlId } from '../../../src/vmcs/controls.ts';
import { exitFields, GUEST, guestMachine, HOST } from '../../support/guest.ts';

/** Instructions before the exit leave CF, AF and SF as 0, and PF and ZF as 1; the host's flags are all 0. */
const BEFORE = 'xor eax, eax; cmp eax, 0';

describe('flags of an instruction before a VM exit in the same run', () => {
  it.each<[string, string, readonly ControlId[], Record<string, bigint>]>([
    ['an instruction', 'cpuid', [], {}],
    ['a conditional one', 'hlt', ['proc.hltExiting'], {}],
    ['an exception', 'ud2', [], { exceptionBitmap: 1n << 6n }],
    ['a fetch that faults', 'jmp rcx', [], { exceptionBitmap: 1n << 14n, guestRip: BigInt(GUEST) }],
    ['a triple fault', 'ud2', [], { guestIdtrLimit: 0n }],
    [
      'the VMX-preemption timer',
      'here: jmp here',
      ['pin.activateVmxPreemptionTimer'],
      { vmxPreemptionTimerValue: 2n },
    ],
    ['an interrupt window', 'nop', ['proc.interruptWindowExiting'], { guestRflags: 0x202n }],
  ])('%s', (_, exiting, controls, fields) => {
    const machine = guestMachine(`mov rcx, 0x7000000000; ${BEFORE}; ${exiting}`, {
      level: 'complete',
      controls,
      fields,
    });
    const cpu = machine.cpu(0);
    cpu.run(100);
    expect(cpu.operation).toBe('root');
    const flags = exitFields(cpu, 'guestRflags').guestRflags & 0x8d5n;
    // An interrupt window is open before the first instruction.
    expect(flags).toBe(controls.includes('proc.interruptWindowExiting') ? 0n : 0x44n);
    expect(cpu.get('RFLAGS')).toBe(2n);
    expect(cpu.get('RIP')).toBe(BigInt(HOST));
  });
});
