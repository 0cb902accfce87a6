import { describe, expect, it } from 'vitest';
import type { Machine } from '../../../src/machine/machine.ts';
import type { ControlId } from '../../../src/vmcs/controls.ts';
import { ApicRegister } from '../../../src/vmx/apic/virtual-apic-page.ts';
import { readVirtualApicMsr, writeVirtualApicMsr } from '../../../src/vmx/apic/x2apic-msrs.ts';
import { exitFields, GUEST, runToExit } from '../../support/guest.ts';
import { ENTRY, succeeds } from '../../support/machine.ts';
import { INDICES, RDMSRLIST, VALUES, values, WRMSRLIST, writeList } from '../../support/msr-lists.ts';
import { guestProcessor } from '../../support/vmx-processor.ts';
import { APIC_PAGE, apicGuest, bitsOf, DELIVERY, HANDLER, MSR_BITMAP } from './apic-guest.ts';

const { TPR, PPR, ISR, IRR } = ApicRegister;
const X2APIC: readonly ControlId[] = [
  'proc.useTprShadow',
  'proc.useMsrBitmaps',
  'proc2.virtualizeX2apicMode',
];
const REGISTERS: ControlId = 'proc2.apicRegisterVirtualization';
const IPIS: ControlId = 'proc3.ipiVirtualization';
/** #GP exits, so that a fault of the MSR instruction shows. */
const GP_EXITS = { exceptionBitmap: 1n << 13n };

/** One machine for each setting, whose guest is entered again and again. */
const machines = new Map<string, Machine>();

function entered(instruction: string, controls: readonly ControlId[]): Machine {
  const key = [instruction, ...controls].join();
  const known = machines.get(key);
  if (known === undefined) {
    const machine = apicGuest(`${instruction}\nvmcall`, 'vmcall', {
      controls: [...X2APIC, ...controls],
      fields: GP_EXITS,
    });
    machines.set(key, machine);
    return machine;
  }
  const cpu = known.cpu(0);
  succeeds(cpu.vmwrite('guestRip', GUEST));
  if (controls.includes('proc2.virtualInterruptDelivery')) succeeds(cpu.vmwrite('guestInterruptStatus', 0));
  expect(cpu.vmresume()).toEqual(ENTRY);
  return known;
}

function run(instruction: 'rdmsr' | 'wrmsr', index: number, value: bigint, controls: readonly ControlId[]) {
  const machine = entered(instruction, controls);
  const cpu = machine.cpu(0);
  for (let offset = 0; offset < 0x1000; offset += 4)
    machine.memory.write32(APIC_PAGE + offset, (0x5a5a_0000 | offset) >>> 0);
  // Nothing requested and in service.
  for (let vector = 0; vector < 256; vector += 32) {
    machine.memory.write32(APIC_PAGE + ISR + vector / 2, 0);
    machine.memory.write32(APIC_PAGE + IRR + vector / 2, 0);
  }
  const before = machine.memory.readBytes(APIC_PAGE, 0x1000);
  cpu.set('RCX', BigInt(index));
  cpu.set('RAX', 0xffff_ffff_0000_0000n | (value & 0xffff_ffffn));
  cpu.set('RDX', 0xffff_ffff_0000_0000n | (value >> 32n));
  runToExit(cpu);
  const after = machine.memory.readBytes(APIC_PAGE, 0x1000);
  const changed = [...after.keys()].filter((n) => after[n] !== before[n]);
  const exit = exitFields(cpu, 'exitReason', 'exitQualification', 'guestRip');
  return { machine, cpu, exit, changed };
}

const ALL = Array.from({ length: 0x100 }, (_, n) => 0x800 + n);

describe('RDMSR of 800H–8FFH (SDM §32.5)', () => {
  it('every MSR with "APIC-register virtualization": eight bytes of the virtual-APIC page', () => {
    for (const index of ALL) {
      const { machine, cpu, exit } = run('rdmsr', index, 0n, [REGISTERS]);
      const at = APIC_PAGE + 16 * (index - 0x800);
      expect(exit.exitReason).toBe(18n);
      expect([cpu.get('RAX'), cpu.get('RDX')]).toEqual([
        BigInt(machine.memory.read32(at)),
        BigInt(machine.memory.read32(at + 4)),
      ]);
    }
  });

  it('every MSR without it: 808H alone; no other exists here', () => {
    for (const index of ALL) {
      const { cpu, exit } = run('rdmsr', index, 0n, []);
      expect(exit).toEqual(
        index === 0x808
          ? { exitReason: 18n, exitQualification: 0n, guestRip: BigInt(GUEST + 2) }
          : { exitReason: 0n, exitQualification: 0n, guestRip: BigInt(GUEST) },
      );
      if (index === 0x808) expect([cpu.get('RAX'), cpu.get('RDX')]).toEqual([0x5a5a_0080n, 0x5a5a_0084n]);
    }
  });

  it('the MSR bitmap and the CPL come first', () => {
    for (const [instruction, reason, offset] of [
      ['rdmsr', 31n, 0],
      ['wrmsr', 32n, 2048],
    ] as const) {
      const machine = apicGuest(`${instruction}\nvmcall`, 'vmcall', { controls: [...X2APIC, REGISTERS] });
      machine.memory.write8(MSR_BITMAP + offset + 0x808 / 8, 1);
      machine.cpu(0).set('RCX', 0x808n);
      runToExit(machine.cpu(0));
      expect(exitFields(machine.cpu(0), 'exitReason').exitReason).toBe(reason);
    }
  });

  it('without "virtualize x2APIC mode" nothing is special', () => {
    const controls: ControlId[] = ['proc.useTprShadow', 'proc.useMsrBitmaps', REGISTERS];
    const machine = apicGuest('rdmsr', 'vmcall', { controls, fields: GP_EXITS });
    machine.cpu(0).set('RCX', 0x808n);
    runToExit(machine.cpu(0));
    expect(exitFields(machine.cpu(0), 'exitReason').exitReason).toBe(0n);
  });
});

describe('WRMSR of 800H–8FFH (SDM §32.5)', () => {
  const OTHERS = DELIVERY.filter((id) => id !== 'proc.useTprShadow');
  const SETTINGS: readonly (readonly [string, readonly ControlId[], readonly number[]])[] = [
    ['alone', [], [0x808]],
    ['APIC-register virtualization', [REGISTERS], [0x808]],
    ['virtual-interrupt delivery', OTHERS, [0x808, 0x80b, 0x83f]],
    ['IPI virtualization', [IPIS], [0x808, 0x830]],
    ['all', [REGISTERS, ...OTHERS, IPIS], [0x808, 0x80b, 0x830, 0x83f]],
  ];
  for (const [name, controls, special] of SETTINGS) {
    it(`every MSR: ${name}`, () => {
      for (const index of ALL) {
        const { exit, changed } = run('wrmsr', index, 0n, controls);
        const faults = exit.exitReason === 0n;
        expect([index, faults]).toEqual([index, !special.includes(index)]);
        expect(exit.guestRip).toBe(BigInt(faults ? GUEST : GUEST + 2));
        if (faults) expect(changed).toEqual([]);
      }
    });
  }

  it('reserved bits are #GP(0), one by one', () => {
    const reserved: Record<number, bigint> = {
      2056: 0xffff_ffff_ffff_ff00n,
      2059: 0xffff_ffff_ffff_ffffn,
      2096: 0xfff3_2000n,
      2111: 0xffff_ffff_ffff_ff00n,
    };
    for (const [index, bits] of Object.entries(reserved)) {
      for (let bit = 0n; bit < 64n; bit++) {
        const { exit, changed } = run('wrmsr', Number(index), 1n << bit, [...OTHERS, IPIS]);
        const faults = ((bits >> bit) & 1n) === 1n;
        expect([index, bit, exit.exitReason === 0n]).toEqual([index, bit, faults]);
        if (faults) expect(changed).toEqual([]);
      }
    }
  });

  it('808H is TPR virtualization: with a threshold it exits after the instruction', () => {
    const { machine, cpu } = run('wrmsr', 0x808, 0x4fn, []);
    expect(machine.memory.read64(APIC_PAGE + TPR)).toBe(0x4fn);
    expect(cpu.operation).toBe('root');
    for (const [value, reason] of [
      [0x4fn, 43n],
      [0x50n, 18n],
    ] as const) {
      const machine2 = apicGuest('wrmsr\nvmcall', 'vmcall', {
        controls: X2APIC,
        fields: { tprThreshold: 5n },
        setUp: (m) => m.memory.write8(APIC_PAGE + TPR, 0x50),
      });
      const cpu2 = machine2.cpu(0);
      cpu2.set('RCX', 0x808n);
      cpu2.set('RAX', value);
      runToExit(cpu2);
      expect(exitFields(cpu2, 'exitReason', 'guestRip')).toEqual({
        exitReason: reason,
        guestRip: BigInt(GUEST + 2),
      });
    }
  });

  it('80BH is EOI virtualization: the next interrupt comes, or the EOI exits', () => {
    for (const exits of [false, true]) {
      const machine = apicGuest('sti\nwrmsr\nvmcall', 'vmcall', {
        controls: [...X2APIC, ...OTHERS],
        fields: { guestInterruptStatus: 0x6241n, eoiExitBitmap1: exits ? 1n << 34n : 0n },
        setUp: ({ memory }) => {
          memory.write32(APIC_PAGE + ISR + 0x30, 4);
          memory.write32(APIC_PAGE + IRR + 0x20, 2);
        },
      });
      const cpu = machine.cpu(0);
      cpu.set('RCX', 0x80bn);
      runToExit(cpu);
      expect(bitsOf(machine.memory, ISR)).toEqual(exits ? [] : [0x41]);
      expect(exitFields(cpu, 'exitReason', 'exitQualification', 'guestRip', 'guestInterruptStatus')).toEqual(
        exits
          ? {
              exitReason: 45n,
              exitQualification: 0x62n,
              guestRip: BigInt(GUEST + 3),
              guestInterruptStatus: 0x41n,
            }
          : {
              exitReason: 18n,
              exitQualification: 0n,
              guestRip: BigInt(HANDLER + 0x1000),
              guestInterruptStatus: 0x4100n,
            },
      );
    }
  });

  it('83FH is a self-IPI for every legal vector, an APIC-write exit for the others', () => {
    for (let vector = 0; vector < 256; vector += vector < 40 ? 1 : 9) {
      const { machine, exit } = run('wrmsr', 0x83f, BigInt(vector), OTHERS);
      expect(machine.memory.read32(APIC_PAGE + 0x3f0)).toBe(vector);
      expect(bitsOf(machine.memory, IRR)).toEqual(vector < 16 ? [] : [vector]);
      expect(exit).toEqual({
        exitReason: vector < 16 ? 56n : 18n,
        exitQualification: vector < 16 ? 0x3f0n : 0n,
        guestRip: BigInt(GUEST + 2),
      });
    }
  });

  it('WRMSRNS is virtualized alike', () => {
    const machine = apicGuest('nop', 'vmcall', {
      controls: X2APIC,
      fields: GP_EXITS,
      setUp: (m) => m.memory.writeBytes(GUEST, Uint8Array.of(0x0f, 0x01, 0xc6)),
    });
    const cpu = machine.cpu(0);
    cpu.set('RCX', 0x808n);
    cpu.set('RAX', 0x70n);
    cpu.run(1);
    expect([cpu.operation, machine.memory.read32(APIC_PAGE + TPR)]).toEqual(['non-root', 0x70]);
  });

  it('so are the entries of lists, one after the other', () => {
    const guest = (code: Uint8Array, entries: readonly (readonly [bigint, bigint])[]) => {
      const machine = apicGuest('nop', 'vmcall', {
        level: 'complete',
        controls: [...X2APIC, REGISTERS, ...DELIVERY, 'proc3.enableMsrListInstructions'],
        fields: GP_EXITS,
        setUp: (m) => {
          m.memory.writeBytes(GUEST, Uint8Array.of(...code, 0x0f, 0x01, 0xc1));
          writeList(m.memory, entries);
          m.memory.write32(APIC_PAGE + TPR, 0x77);
        },
      });
      const cpu = machine.cpu(0);
      for (const [name, value] of [
        ['RSI', INDICES],
        ['RDI', VALUES],
        ['RCX', (1 << entries.length) - 1],
      ] as const)
        cpu.set(name, BigInt(value));
      runToExit(cpu);
      return { machine, ...exitFields(cpu, 'exitReason', 'exitQualification', 'guestInterruptStatus') };
    };
    const written = guest(WRMSRLIST, [
      [0x83fn, 0x61n],
      [0x808n, 0x50n],
      [0x83fn, 0x72n],
    ]);
    expect([written.exitReason, written.guestInterruptStatus]).toEqual([18n, 0x72n]);
    expect([bitsOf(written.machine.memory, IRR), written.machine.memory.read8(APIC_PAGE + PPR)]).toEqual([
      [0x61, 0x72],
      0x50,
    ]);
    const read = guest(RDMSRLIST, [
      [0x808n, 0n],
      [0x80an, 0n],
    ]);
    expect([read.exitReason, values(read.machine.memory, 2)]).toEqual([18n, [0x77n, 0x77n]]);
    // An illegal vector exits behind its entry.
    const exits = guest(WRMSRLIST, [
      [0x83fn, 5n],
      [0x808n, 0x50n],
    ]);
    expect([exits.exitReason, exits.exitQualification]).toEqual([56n, 0x3f0n]);
    expect([exits.machine.cpu(0).get('RCX'), exits.machine.memory.read8(APIC_PAGE + TPR)]).toEqual([
      2n,
      0x77,
    ]);
  });

  it('without "activate secondary controls" the controls count as 0', () => {
    for (const [index, value] of [
      [0x808, undefined],
      [0x802, undefined],
    ] as const) {
      const p = guestProcessor({
        controls: [...X2APIC, REGISTERS],
        off: ['proc.activateSecondaryControls'],
        fields: { virtualApicAddress: BigInt(APIC_PAGE) },
      });
      expect(readVirtualApicMsr(p, p.copy, index)).toBe(value);
      expect(writeVirtualApicMsr(p, p.copy, index, 0n)).toBeUndefined();
    }
  });

  it('PPR follows the TPR only with virtual-interrupt delivery', () => {
    expect(run('wrmsr', 0x808, 0x77n, []).machine.memory.read32(APIC_PAGE + PPR)).toBe(0x5a5a_00a0);
    expect(run('wrmsr', 0x808, 0x77n, OTHERS).machine.memory.read32(APIC_PAGE + PPR)).toBe(0x77);
  });
});
