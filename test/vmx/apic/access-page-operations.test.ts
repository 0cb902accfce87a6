/** What one operation does to the APIC-access page besides a load or store: ENTER, IRET, exits after a virtualized write (SDM §32.4.3, §32.4.4, §30.2.3). */
import { describe, expect, it } from 'vitest';
import type { Machine } from '../../../src/machine/machine.ts';
import type { ControlId } from '../../../src/vmcs/controls.ts';
import { Field } from '../../../src/vmcs/fields.ts';
import { exitFields, GUEST, runToExit } from '../../support/guest.ts';
import type { FieldValues } from '../../support/legal-vmcs.ts';
import { ENTRY } from '../../support/machine.ts';
import { ACCESS_PAGE, APIC_PAGE, apicGuest, mapSmallPages } from './apic-guest.ts';

const SHADOW: readonly ControlId[] = ['proc.useTprShadow', 'proc2.virtualizeApicAccesses'];
const REGISTERS: ControlId = 'proc2.apicRegisterVirtualization';
const [READ, WRITE] = [0n, 0x1000n];
/** Size of the operand of 64-bit code: what it pushes is wider than a register of an APIC. */
const OPERAND_16 = 0x66;

interface Options {
  readonly controls?: readonly ControlId[];
  readonly fields?: FieldValues;
  readonly setUp?: (machine: Machine) => void;
}

/** A guest whose TPR is below the threshold, which is raised after VM entry, as soon as it is looked at. */
function guest(code: Uint8Array, { controls = [], fields = {}, setUp }: Options = {}): Machine {
  const machine = apicGuest('nop', 'vmcall', {
    controls: [...SHADOW, ...controls],
    fields,
    setUp: (m) => {
      m.memory.writeBytes(GUEST, Uint8Array.of(...code, 0x0f, 0x01, 0xc1));
      m.memory.write32(APIC_PAGE + 0x80, 0xffff_ff30);
      m.memory.write32(APIC_PAGE + 0xf0, 0xf0);
      setUp?.(m);
    },
  });
  machine.cpu(0).unit.vmx.current?.quads.set([5n], Field.tprThreshold);
  return machine;
}

function exit(machine: Machine) {
  runToExit(machine.cpu(0));
  const { exitReason, exitQualification, guestRip } = exitFields(
    machine.cpu(0),
    'exitReason',
    'exitQualification',
    'guestRip',
  );
  return { reason: Number(exitReason), qualification: exitQualification, at: Number(guestRip) - GUEST };
}

describe('ENTER counts as a write of the byte at its final stack pointer', () => {
  /** ENTER with 16-bit operands that pushes outside the page and ends at page offset `offset`. */
  const enter = (offset: number, options: Options = {}) => {
    const size = 0x1000 - offset;
    const code = Uint8Array.of(OPERAND_16, 0xc8, size & 0xff, size >> 8, 0);
    return guest(code, { ...options, fields: { guestRsp: BigInt(ACCESS_PAGE + 0x1002), ...options.fields } });
  };

  it.each<[string, number, Options, ReturnType<typeof exit>]>([
    ['080H: TPR virtualization follows', 0x80, {}, { reason: 43, qualification: 0n, at: 5 }],
    ['040H exits', 0x40, {}, { reason: 44, qualification: WRITE | 0x40n, at: 0 }],
    ['0F0H exits', 0xf0, {}, { reason: 44, qualification: WRITE | 0xf0n, at: 0 }],
    [
      '0F0H with "APIC-register virtualization": APIC-write emulation exits',
      0xf0,
      { controls: [REGISTERS] },
      { reason: 56, qualification: 0xf0n, at: 5 },
    ],
    [
      '0F3H with it: as long as it is one byte',
      0xf3,
      { controls: [REGISTERS] },
      { reason: 56, qualification: 0xf3n, at: 5 },
    ],
    ['081H without it exits', 0x81, {}, { reason: 44, qualification: WRITE | 0x81n, at: 0 }],
  ])('%s', (_, offset, options, expected) => {
    const machine = enter(offset, options);
    expect(exit(machine)).toEqual(expected);
    // Nothing is written but what TPR virtualization clears.
    expect(machine.memory.read32(APIC_PAGE + 0x80)).toBe(expected.reason === 43 ? 0x30 : 0xffff_ff30);
    expect(machine.memory.read32(APIC_PAGE + 0xf0)).toBe(0xf0);
    const saved = exitFields(machine.cpu(0), 'guestRsp').guestRsp;
    expect(saved).toBe(BigInt(ACCESS_PAGE + (expected.at === 0 ? 0x1002 : offset)));
  });

  it('what it pushes there is the same write', () => {
    const machine = guest(Uint8Array.of(OPERAND_16, 0xc8, 0, 0, 0), {
      fields: { guestRsp: BigInt(ACCESS_PAGE + 0x82) },
    });
    machine.cpu(0).set('RBP', 0x1220n);
    expect(exit(machine)).toEqual({ reason: 43, qualification: 0n, at: 5 });
    expect(machine.memory.read32(APIC_PAGE + 0x80)).toBe(0x20);
  });

  it('at another offset than what it pushed it is a second write, which exits', () => {
    const machine = guest(Uint8Array.of(OPERAND_16, 0xc8, 0x10, 0, 0), {
      controls: [REGISTERS],
      fields: { guestRsp: BigInt(ACCESS_PAGE + 0xf2) },
    });
    expect(exit(machine)).toEqual({ reason: 44, qualification: WRITE | 0xe0n, at: 0 });
    expect(exitFields(machine.cpu(0), 'guestRsp').guestRsp).toBe(BigInt(ACCESS_PAGE + 0xf2));
  });
});

describe('an operation that exits after its virtualized write', () => {
  it('leaves no APIC-write emulation, neither then nor after VM entry', () => {
    // ENTER pushes BP to 080H and faults on the page to which the frame goes.
    const machine = guest(Uint8Array.of(OPERAND_16, 0xc8, 0x00, 0x10, 0), {
      fields: { guestRsp: BigInt(ACCESS_PAGE + 0x82), exceptionBitmap: 1n << 14n },
      setUp: (m) => mapSmallPages(m, { [ACCESS_PAGE - 0x1000]: 0n }),
    });
    const cpu = machine.cpu(0);
    cpu.set('RBP', 0x1220n);
    expect(exit(machine).reason).toBe(0);
    expect(machine.memory.read32(APIC_PAGE + 0x80)).toBe(0xffff_1220);
    cpu.vmwrite('tprThreshold', 0n);
    cpu.vmwrite('guestRip', BigInt(GUEST + 5));
    expect(cpu.vmresume()).toEqual(ENTRY);
    cpu.unit.vmx.current?.quads.set([5n], Field.tprThreshold);
    expect(exit(machine)).toMatchObject({ reason: 18, at: 5 });
    expect(machine.memory.read32(APIC_PAGE + 0x80)).toBe(0xffff_1220);
  });
});

describe('an APIC-access exit of IRET', () => {
  it('has ended blocking by NMI and does not say so', () => {
    for (const controls of [[], ['pin.nmiExiting', 'pin.virtualNmis']] as const) {
      const machine = guest(Uint8Array.of(0x48, 0xcf), {
        controls,
        fields: { guestRsp: BigInt(ACCESS_PAGE + 0x40), guestInterruptibilityState: 8n },
      });
      expect(exit(machine)).toEqual({ reason: 44, qualification: READ | 0x40n, at: 0 });
      expect(exitFields(machine.cpu(0), 'guestInterruptibilityState').guestInterruptibilityState).toBe(0n);
    }
  });
});

describe('without "activate secondary controls"', () => {
  it('the page is memory', () => {
    const machine = apicGuest('mov eax, [rsi]\nvmcall', 'vmcall', {
      controls: SHADOW,
      off: ['proc.activateSecondaryControls'],
    });
    const cpu = machine.cpu(0);
    machine.memory.write32(ACCESS_PAGE + 0x20, 0x1234_5678);
    cpu.set('RSI', BigInt(ACCESS_PAGE + 0x20));
    expect(exit(machine).reason).toBe(18);
    expect(cpu.get('RAX')).toBe(0x1234_5678n);
  });
});
