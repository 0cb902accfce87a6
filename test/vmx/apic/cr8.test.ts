import { describe, expect, it } from 'vitest';
import { Field } from '../../../src/vmcs/fields.ts';
import { ApicRegister } from '../../../src/vmx/apic/virtual-apic-page.ts';
import { exitFields, GUEST, guestMachine, runToExit } from '../../support/guest.ts';
import { APIC_FIELDS, APIC_PAGE, apicGuest, bitsOf, DELIVERY } from './apic-guest.ts';

const { TPR, PPR, ISR } = ApicRegister;
const SHADOW = ['proc.useTprShadow'] as const;

describe('CR8 with "use TPR shadow" (SDM §32.3)', () => {
  it('MOV from CR8 reads VTPR[7:4], MOV to CR8 writes VTPR and no other bit', () => {
    for (const [vtpr, value] of [
      [0x00, 15],
      [0x7b, 3],
      [0xff, 0],
    ] as const) {
      const code = 'mov rbx, cr8\nmov cr8, rdx\nmov rcx, cr8\nvmcall';
      const machine = guestMachine(code, { controls: SHADOW, fields: APIC_FIELDS });
      const cpu = machine.cpu(0);
      machine.memory.write32(APIC_PAGE + TPR, (0xaabb_cc00 | vtpr) >>> 0);
      cpu.set('RBX', 0xffff_ffff_ffff_ffffn);
      cpu.set('RDX', BigInt(value));
      runToExit(cpu);
      expect(exitFields(cpu, 'exitReason').exitReason).toBe(18n);
      expect([cpu.get('RBX'), cpu.get('RCX')]).toEqual([BigInt(vtpr >> 4), BigInt(value)]);
      expect(machine.memory.read32(APIC_PAGE + TPR)).toBe(value << 4);
      expect(cpu.get('CR8')).toBe(0n);
    }
  });

  it('without it CR8 is the register', () => {
    const machine = guestMachine('mov cr8, rdx\nmov rcx, cr8\nvmcall', { fields: APIC_FIELDS });
    const cpu = machine.cpu(0);
    cpu.set('RDX', 5n);
    runToExit(cpu);
    expect([cpu.get('RCX'), cpu.get('CR8')]).toEqual([5n, 5n]);
    expect(machine.memory.read32(APIC_PAGE + TPR)).toBe(0);
  });

  it('a value above 15 is #GP(0), and nothing is written', () => {
    const fields = { ...APIC_FIELDS, exceptionBitmap: 1n << 13n };
    const machine = guestMachine('mov cr8, rdx', { controls: SHADOW, fields });
    const cpu = machine.cpu(0);
    cpu.set('RDX', 16n);
    machine.memory.write8(APIC_PAGE + TPR, 0x30);
    runToExit(cpu);
    expect(exitFields(cpu, 'exitReason', 'guestRip')).toEqual({ exitReason: 0n, guestRip: BigInt(GUEST) });
    expect(machine.memory.read8(APIC_PAGE + TPR)).toBe(0x30);
  });
});

describe('TPR threshold (SDM §32.1.2, §29.7.7)', () => {
  it('MOV to CR8 exits after the instruction exactly if the new TPR is below', () => {
    for (let threshold = 0; threshold < 16; threshold++) {
      for (const value of [0, threshold - 1, threshold, 15]) {
        if (value < 0) continue;
        const fields = { ...APIC_FIELDS, tprThreshold: BigInt(threshold) };
        // VM entry wants VTPR at or above the threshold.
        const machine = guestMachine('nop\nmov cr8, rdx\nvmcall', {
          controls: [...SHADOW, 'proc2.virtualizeApicAccesses'],
          fields: { ...fields, tprThreshold: 0n },
        });
        const cpu = machine.cpu(0);
        cpu.unit.vmx.current?.quads.set([BigInt(threshold)], Field.tprThreshold);
        cpu.set('RDX', BigInt(value));
        runToExit(cpu);
        const below = value < threshold;
        expect(exitFields(cpu, 'exitReason', 'exitQualification', 'guestRip')).toEqual({
          exitReason: below ? 43n : 18n,
          exitQualification: 0n,
          guestRip: BigInt(GUEST + 5),
        });
      }
    }
  });

  it('the exit keeps a single-step trap pending', () => {
    const machine = guestMachine('mov cr8, rdx\nvmcall', {
      controls: SHADOW,
      fields: { ...APIC_FIELDS, guestRflags: 0x102n },
    });
    const cpu = machine.cpu(0);
    cpu.unit.vmx.current?.quads.set([4n], Field.tprThreshold);
    runToExit(cpu);
    expect(exitFields(cpu, 'exitReason', 'guestPendingDebugExceptions', 'guestRip')).toEqual({
      exitReason: 43n,
      guestPendingDebugExceptions: 0x4000n,
      guestRip: BigInt(GUEST + 4),
    });
  });

  it('VM entry below the threshold exits at once with "virtualize APIC accesses", whatever blocks interrupts', () => {
    for (const [fields, saved] of [
      [{}, { guestActivityState: 0n, guestInterruptibilityState: 0n }],
      [
        { guestActivityState: 1n, guestRflags: 2n },
        { guestActivityState: 1n, guestInterruptibilityState: 0n },
      ],
      [{ guestInterruptibilityState: 2n }, { guestActivityState: 0n, guestInterruptibilityState: 2n }],
    ] as const) {
      const cpu = apicGuest('vmcall', 'hlt', {
        controls: [...SHADOW, 'proc2.virtualizeApicAccesses'],
        fields: { ...fields, tprThreshold: 1n },
      }).cpu(0);
      runToExit(cpu);
      const names = ['exitReason', 'guestRip', 'guestActivityState', 'guestInterruptibilityState'] as const;
      expect(exitFields(cpu, ...names)).toEqual({ exitReason: 43n, guestRip: BigInt(GUEST), ...saved });
    }
  });

  it('the exit follows injection, and precedes the first instruction of the handler', () => {
    const machine = apicGuest('vmcall', 'vmcall', {
      controls: [...SHADOW, 'proc2.virtualizeApicAccesses'],
      fields: { tprThreshold: 1n, injectedEventIdentification: 0x8000_0030n, guestRflags: 0x202n },
    });
    const cpu = machine.cpu(0);
    runToExit(cpu);
    const rip = BigInt(0x4_0000 + 16 * 0x30);
    expect(exitFields(cpu, 'exitReason', 'guestRip')).toEqual({ exitReason: 43n, guestRip: rip });
  });

  it('not while the guest waits for a SIPI', () => {
    const cpu = apicGuest('vmcall', 'vmcall', {
      controls: [...SHADOW, 'proc2.virtualizeApicAccesses'],
      fields: { tprThreshold: 1n, guestActivityState: 3n },
    }).cpu(0);
    cpu.run(10);
    expect(cpu.operation).toBe('non-root');
    cpu.processor.requestSipi(0x12);
    runToExit(cpu);
    expect(exitFields(cpu, 'exitReason').exitReason).toBe(4n);
  });

  it('the exit of an instruction comes before INIT, and is blocked by nothing', () => {
    for (const [code, first] of [
      ['mov cr8, rdx', 1],
      ['sti\nmov cr8, rdx', 2],
      ['mov ss, ebx\nmov cr8, rdx', 2],
    ] as const) {
      const machine = apicGuest(`${code}\nvmcall`, 'vmcall', { controls: SHADOW });
      const cpu = machine.cpu(0);
      cpu.unit.vmx.current?.quads.set([4n], Field.tprThreshold);
      cpu.set('RBX', 0x10n);
      cpu.run(first);
      cpu.processor.requestInit();
      runToExit(cpu);
      expect(exitFields(cpu, 'exitReason', 'guestInterruptibilityState')).toEqual({
        exitReason: 43n,
        guestInterruptibilityState: 0n,
      });
    }
  });

  it('a snapshot between the instruction and its exit keeps that', () => {
    const machine = apicGuest('mov cr8, rdx\nvmcall', 'vmcall', { controls: SHADOW });
    const cpu = machine.cpu(0);
    cpu.unit.vmx.current?.quads.set([4n], Field.tprThreshold);
    cpu.run(1);
    const snapshot = machine.snapshot();
    runToExit(cpu);
    expect(exitFields(cpu, 'exitReason').exitReason).toBe(43n);
    machine.restore(snapshot);
    expect(cpu.operation).toBe('non-root');
    runToExit(cpu);
    expect(exitFields(cpu, 'exitReason').exitReason).toBe(43n);
  });

  it('not in shutdown, but when an NMI has ended that', () => {
    const machine = apicGuest('vmcall', 'vmcall', {
      controls: [...SHADOW, 'proc2.virtualizeApicAccesses'],
      fields: { tprThreshold: 1n, guestActivityState: 2n },
    });
    const cpu = machine.cpu(0);
    cpu.run(10);
    expect(cpu.operation).toBe('non-root');
    cpu.processor.requestNmi();
    runToExit(cpu);
    const rip = BigInt(0x4_0000 + 16 * 2);
    expect(exitFields(cpu, 'exitReason', 'guestRip')).toEqual({ exitReason: 43n, guestRip: rip });
  });
});

describe('CR8 with "virtual-interrupt delivery"', () => {
  it('lowering the TPR lets the pending interrupt through after the instruction; raising it holds it back', () => {
    for (const [from, to, through] of [
      [0x50, 4, true],
      [0x50, 5, false],
      [0x00, 5, false],
    ] as const) {
      const machine = apicGuest('mov cr8, rdx\nvmcall', 'vmcall', {
        controls: DELIVERY,
        fields: { guestInterruptStatus: 0n, guestRflags: 0x202n },
      });
      const cpu = machine.cpu(0);
      const { vmx } = cpu.unit;
      machine.memory.write8(APIC_PAGE + TPR, from);
      machine.memory.write32(APIC_PAGE + 0x220, 1 << 17);
      vmx.rvi = 0x51;
      cpu.set('RDX', BigInt(to));
      runToExit(cpu);
      expect(cpu.get('R15') & 0xffn).toBe(through ? 0x51n : 0n);
      expect(bitsOf(machine.memory, ISR)).toEqual(through ? [0x51] : []);
      expect(machine.memory.read32(APIC_PAGE + PPR)).toBe(through ? 0x50 : to << 4);
    }
  });
});
