import { describe, expect, it } from 'vitest';
import type { Machine } from '../../../src/machine/machine.ts';
import type { ControlId } from '../../../src/vmcs/controls.ts';
import { ApicRegister } from '../../../src/vmx/apic/virtual-apic-page.ts';
import { exitFields, GUEST, GUEST_STACK, runToExit } from '../../support/guest.ts';
import type { FieldValues } from '../../support/legal-vmcs.ts';
import { APIC_PAGE, apicGuest, bitsOf, DELIVERY, HANDLER } from './apic-guest.ts';

const { PPR, ISR, IRR } = ApicRegister;

/** A guest entered with RVI `vector` and IF = 1. */
function pending(
  code: string,
  vector: number,
  fields: FieldValues = {},
  handler = 'vmcall',
  controls: readonly ControlId[] = [],
): Machine {
  const machine = apicGuest(code, handler, {
    controls: [...DELIVERY, ...controls],
    fields: { guestInterruptStatus: BigInt(vector), guestRflags: 0x202n, ...fields },
  });
  const word = APIC_PAGE + IRR + ((vector & 0xe0) >> 1);
  machine.memory.write32(word, (1 << (vector & 31)) >>> 0);
  return machine;
}

describe('virtual-interrupt delivery (SDM §32.2.2, §29.7.5)', () => {
  it('every vector, right after VM entry: class 0 never', () => {
    for (let vector = 0; vector < 256; vector += vector < 32 ? 1 : 7) {
      const machine = pending('vmcall', vector);
      const cpu = machine.cpu(0);
      runToExit(cpu);
      const delivers = vector >= 16;
      expect(exitFields(cpu, 'exitReason', 'guestRip', 'guestInterruptStatus')).toEqual({
        exitReason: 18n,
        guestRip: BigInt(delivers ? HANDLER + 0x1000 : GUEST),
        guestInterruptStatus: BigInt(delivers ? vector << 8 : vector),
      });
      expect(bitsOf(machine.memory, IRR)).toEqual(delivers ? [] : [vector]);
      expect(bitsOf(machine.memory, ISR)).toEqual(delivers ? [vector] : []);
      expect(machine.memory.read32(APIC_PAGE + PPR)).toBe(delivers ? vector & 0xf0 : 0);
      if (delivers) expect(machine.memory.read64(GUEST_STACK - 40)).toBe(BigInt(GUEST));
    }
  });

  it('the highest vector comes first, and the next only with EOI', () => {
    const machine = pending('nop\nvmcall', 0x31, { guestInterruptStatus: 0x82n }, 'vmcall');
    machine.memory.write32(APIC_PAGE + IRR + 0x40, 4);
    const cpu = machine.cpu(0);
    runToExit(cpu);
    expect(cpu.get('R15')).toBe(0x82n);
    expect(exitFields(cpu, 'guestInterruptStatus').guestInterruptStatus).toBe(0x8231n);
    expect(bitsOf(machine.memory, IRR)).toEqual([0x31]);
  });

  const HELD: readonly (readonly [string, FieldValues, string])[] = [
    ['RFLAGS.IF = 0 until STI and one instruction', { guestRflags: 2n }, 'sti\nnop\nvmcall'],
    ['RFLAGS.IF = 0 until POPF', { guestRflags: 2n }, 'push 0x202\npopfq\nvmcall'],
    ['blocking by STI', { guestInterruptibilityState: 1n }, 'nop\nvmcall'],
    ['blocking by MOV SS', { guestInterruptibilityState: 2n }, 'nop\nvmcall'],
  ];
  for (const [name, fields, code] of HELD) {
    it(`held back by ${name}`, () => {
      const machine = pending(code, 0x45, fields);
      const cpu = machine.cpu(0);
      runToExit(cpu);
      expect(cpu.get('R15')).toBe(0x45n);
      // The handler returns to VMCALL: everything before it was executed.
      const lengths = { 'sti\nnop\nvmcall': 2, 'push 0x202\npopfq\nvmcall': 6, 'nop\nvmcall': 1 };
      const length = lengths[code as keyof typeof lengths];
      expect(machine.memory.read64(GUEST_STACK - 40)).toBe(BigInt(GUEST + length));
    });
  }

  it('wakes a guest that was entered in HLT, and one that executes it', () => {
    for (const [code, fields] of [
      ['nop\nvmcall', { guestActivityState: 1n }],
      ['sti\nhlt\nvmcall', { guestRflags: 2n }],
    ] as const) {
      const machine = pending(code, 0x45, fields);
      const cpu = machine.cpu(0);
      runToExit(cpu);
      expect(cpu.get('R15')).toBe(0x45n);
      expect(exitFields(cpu, 'guestActivityState').guestActivityState).toBe(0n);
    }
  });

  it('does not end shutdown', () => {
    const cpu = pending('vmcall', 0x45, { guestActivityState: 2n }).cpu(0);
    cpu.run(20);
    expect([cpu.operation, cpu.get('activityState'), cpu.get('R15')]).toEqual(['non-root', 2n, 0n]);
  });

  it('follows the injected event and debug traps, and NMIs', () => {
    const injected = pending('vmcall', 0x45, { injectedEventIdentification: 0x8000_0061n }, 'vmcall');
    runToExit(injected.cpu(0));
    // The gate of 61H cleared IF.
    expect(injected.cpu(0).get('R15')).toBe(0x61n);
    const trapped = pending('vmcall', 0x45, { guestPendingDebugExceptions: 0x4000n });
    runToExit(trapped.cpu(0));
    expect(trapped.cpu(0).get('R15')).toBe(1n);
    const nmi = pending('vmcall', 0x45);
    nmi.cpu(0).processor.requestNmi();
    runToExit(nmi.cpu(0));
    expect(nmi.cpu(0).get('R15')).toBe(2n);
  });

  it('precedes external interrupts', () => {
    const machine = pending('vmcall', 0x45);
    const cpu = machine.cpu(0);
    cpu.processor.interrupts = { requested: () => true, acknowledge: () => 0x99 };
    cpu.run(1);
    expect(cpu.get('RIP')).toBe(BigInt(HANDLER + 16 * 0x45));
    runToExit(cpu);
    expect(exitFields(cpu, 'exitReason', 'guestRip')).toEqual({
      exitReason: 1n,
      guestRip: BigInt(HANDLER + 16 * 0x45),
    });
  });

  it('"interrupt-window exiting" prevents it', () => {
    const machine = pending('nop\nvmcall', 0x45, {}, 'vmcall', ['proc.interruptWindowExiting']);
    const cpu = machine.cpu(0);
    runToExit(cpu);
    expect(bitsOf(machine.memory, IRR)).toEqual([0x45]);
    expect(cpu.get('R15')).toBe(0n);
  });

  it('a TPR or a vector in service of the same class holds it back', () => {
    for (const [tpr, svi, delivers] of [
      [0x40, 0, false],
      [0x3f, 0, true],
      [0, 0x40, false],
      [0, 0x3f, true],
    ] as const) {
      const machine = apicGuest('nop\nvmcall', 'vmcall', {
        controls: DELIVERY,
        fields: { guestInterruptStatus: BigInt(0x45 | (svi << 8)), guestRflags: 0x202n },
        setUp: (m) => m.memory.write8(APIC_PAGE + 0x80, tpr),
      });
      const cpu = machine.cpu(0);
      runToExit(cpu);
      expect(cpu.get('R15')).toBe(delivers ? 0x45n : 0n);
    }
  });

  it('between iterations of a string instruction RF is 1 in the image', () => {
    const machine = apicGuest('rep stosb\nvmcall', 'vmcall', {
      controls: DELIVERY,
      fields: { guestRflags: 0x202n },
    });
    const cpu = machine.cpu(0);
    cpu.set('RCX', 100n);
    cpu.set('RDI', 0x8_0000n);
    cpu.run(10);
    // As posting does between two iterations.
    cpu.unit.vmx.rvi = 0x45;
    cpu.unit.vmx.virtualInterruptPending = true;
    cpu.processor.requestAttention();
    runToExit(cpu);
    expect(machine.memory.read64(GUEST_STACK - 40)).toBe(BigInt(GUEST));
    expect(machine.memory.read64(GUEST_STACK - 24) & 0x1_0000n).toBe(0x1_0000n);
    expect(cpu.get('RCX')).toBe(90n);
  });
});
