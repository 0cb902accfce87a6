/** VM entries that return from SMM (SDM §34.15.4), as the SMM monitor executes them. */
import { describe, expect, it } from 'vitest';
import type { LogicalProcessor } from '../../../src/machine/logical-processor.ts';
import type { Machine } from '../../../src/machine/machine.ts';
import { Field, type FieldName } from '../../../src/vmcs/fields.ts';
import { guest, MSEG, smi, TRANSFER } from '../../support/dual-monitor.ts';
import { HOST, runToExit } from '../../support/guest.ts';
import { ENTRY, failValid, freshRegion, NO_POINTER, succeeds, vmcsRegion } from '../../support/machine.ts';

const SHADOW = vmcsRegion(3);
const SHADOWED = {
  vmcsLinkPointer: BigInt(SHADOW),
  vmreadBitmapAddress: 0x7_1000n,
  vmwriteBitmapAddress: 0x7_2000n,
};

/** What VM entry comes to after some fields of the SMM-transfer VMCS, or the executive one, were changed. */
function afterChange(
  change: (cpu: LogicalProcessor, machine: Machine) => void,
  from: 'root' | 'non-root' = 'non-root',
) {
  const { machine, cpu } = guest('nop\nvmcall');
  if (from === 'root') runToExit(cpu);
  smi(cpu);
  change(cpu, machine);
  const outcome = cpu.vmresume();
  return { outcome, smm: cpu.get('inSmm') };
}

const write = (field: FieldName, value: bigint) => (cpu: LogicalProcessor) => {
  expect(cpu.vmwrite(field, value).kind).toBe('VMsucceed');
};

describe('a VM entry that returns from SMM (SDM §34.15.4)', () => {
  const refused = (error: number) => ({ outcome: failValid(error), smm: 1n });
  const failure = { outcome: { kind: 'VMentryFailure', reason: 33 }, smm: 1n };

  it('checks the executive-VMCS pointer', () => {
    expect(afterChange(write('executiveVmcsPointer', 0x20_0008n))).toEqual(refused(16));
    expect(afterChange(write('executiveVmcsPointer', 1n << 52n))).toEqual(refused(16));
    expect(afterChange(write('executiveVmcsPointer', 0x3_f000n))).toEqual(refused(16));
  });

  it('needs an executive VMCS that is launched and has valid controls', () => {
    expect(afterChange((cpu) => cpu.vmclear(BigInt(vmcsRegion(0))))).toEqual(refused(17));
    const invalid = (cpu: LogicalProcessor) => {
      const executive = cpu.unit.active.get(vmcsRegion(0))!;
      executive.words[2 * Field.pinBasedControls] = 0;
    };
    expect(afterChange(invalid)).toEqual(refused(25));
  });

  it('applies nothing of the kind to the SMM-transfer VMCS', () => {
    expect(afterChange(write('pinBasedControls', 0n))).toEqual({ outcome: ENTRY, smm: 0n });
    expect(afterChange(write('pinBasedControls', 0n), 'root')).toEqual({ outcome: ENTRY, smm: 0n });
  });

  it('does not come into root operation with a pending MTF VM exit, nor waiting for a SIPI', () => {
    const mtf = write('injectedEventIdentification', 0x8000_0700n);
    expect(afterChange(mtf, 'root')).toEqual(refused(7));
    expect(afterChange(mtf)).toEqual({ outcome: ENTRY, smm: 0n });
    expect(afterChange(write('guestActivityState', 3n), 'root')).toEqual(failure);
    expect(afterChange(write('guestActivityState', 3n))).toEqual({ outcome: ENTRY, smm: 0n });
  });

  it('fails if the link pointer is the executive-VMCS pointer, and control stays with the monitor', () => {
    expect(afterChange(write('vmcsLinkPointer', BigInt(vmcsRegion(0))))).toEqual(failure);
  });

  it('reverses SMIs in the executive monitor and in its guest, without a word of the SMM monitor', () => {
    const { machine, cpu } = guest('nop\nvmcall\nnop\nnop');
    runToExit(cpu);
    smi(cpu);
    cpu.run(1);
    expect([cpu.operation, cpu.get('inSmm'), cpu.currentVmcs]).toEqual(['root', 0n, vmcsRegion(0)]);
    expect(cpu.vmresume()).toEqual(ENTRY);
    smi(cpu);
    cpu.run(1);
    expect([cpu.operation, cpu.get('inSmm'), cpu.currentVmcs]).toEqual(['non-root', 0n, vmcsRegion(0)]);
    expect(machine.hazards).toEqual([]);
  });

  it('ends dual-monitor treatment with "deactivate dual-monitor treatment", and SMIs are not blocked', () => {
    const { cpu } = guest('vmcall');
    runToExit(cpu);
    smi(cpu);
    cpu.vmwrite('guestInterruptibilityState', 4n);
    cpu.vmwrite('vmEntryControls', cpu.vmread('vmEntryControls').value | (1n << 11n));
    expect(cpu.unit.vmx.smmTransfer).toBe(TRANSFER);
    expect(cpu.vmresume()).toEqual(ENTRY);
    expect([cpu.unit.vmx.smmTransfer, cpu.get('inSmm'), cpu.get('blockingBySmi')]).toEqual([-1, 0n, 0n]);
  });

  it('leaves root operation without a current VMCS if the link pointer says so', () => {
    const { cpu } = guest('vmcall');
    runToExit(cpu);
    smi(cpu);
    cpu.vmwrite('vmcsLinkPointer', NO_POINTER);
    expect(cpu.vmresume()).toEqual(ENTRY);
    expect([cpu.operation, cpu.currentVmcs]).toEqual(['root', undefined]);
  });

  it('gives a guest with "VMCS shadowing" its shadow VMCS, unless there can be none at the pointer', () => {
    const controls = ['proc2.vmcsShadowing'] as const;
    const { cpu } = guest('nop', {
      controls,
      setUp: (m) => freshRegion(m.cpu(0), SHADOW, true),
      fields: SHADOWED,
    });
    smi(cpu);
    expect(cpu.unit.vmx.link).toBeUndefined();
    expect(cpu.vmresume()).toEqual(ENTRY);
    expect(cpu.unit.vmx.link?.address).toBe(SHADOW);
    smi(cpu);
    succeeds(cpu.vmptrld(BigInt(vmcsRegion(0))));
    cpu.vmwrite('vmcsLinkPointer', BigInt(SHADOW + 8));
    succeeds(cpu.vmptrld(BigInt(TRANSFER)));
    expect(cpu.vmresume()).toEqual(ENTRY);
    expect(cpu.unit.vmx.link).toBeUndefined();
    smi(cpu);
    succeeds(cpu.vmptrld(BigInt(vmcsRegion(0))));
    cpu.vmwrite('vmcsLinkPointer', NO_POINTER);
    succeeds(cpu.vmptrld(BigInt(TRANSFER)));
    expect(cpu.vmresume()).toEqual(ENTRY);
    expect(cpu.unit.vmx.link).toBeUndefined();
  });

  it.each([
    ['report', ['vmcs.uninitialised-field']],
    ['ignore', []],
  ] as const)(
    'misses no VM-execution control field of the SMM-transfer VMCS, only others: %s',
    (hazards, ids) => {
      const { machine, cpu } = guest('nop', { hazards });
      smi(cpu);
      const written = cpu.unit.active.get(TRANSFER)?.written as Uint8Array;
      written[Field.pinBasedControls] = 0;
      written[Field.hostRip] = 0;
      expect(cpu.vmresume()).toEqual(ENTRY);
      expect(machine.hazards.map((h) => h.id)).toEqual(ids);
    },
  );

  it('loads SMBASE, and MSRs that only SMM may write', () => {
    const { machine, cpu } = guest('nop\nvmcall');
    smi(cpu);
    machine.memory.write64(0x7_0000, 0x9bn);
    machine.memory.write64(0x7_0008, BigInt(MSEG | 5));
    cpu.vmwrite('vmEntryMsrLoadAddress', 0x7_0000n);
    cpu.vmwrite('vmEntryMsrLoadCount', 1n);
    cpu.vmwrite('guestSmbase', 0x5_0000n);
    expect(cpu.vmresume()).toEqual(ENTRY);
    expect([cpu.get('IA32_SMBASE'), cpu.rdmsr(0x9b)]).toEqual([0x5_0000n, BigInt(MSEG | 5)]);
  });

  it('fails with the SMM monitor if an MSR cannot be loaded', () => {
    const { outcome, smm } = afterChange((cpu, machine) => {
      machine.memory.write64(0x7_0000, 0x9en);
      cpu.vmwrite('vmEntryMsrLoadAddress', 0x7_0000n);
      cpu.vmwrite('vmEntryMsrLoadCount', 1n);
    });
    expect([outcome, smm]).toEqual([{ kind: 'VMentryFailure', reason: 34 }, 1n]);
  });

  it('strikes a machine check at the monitor', () => {
    const struck = afterChange((cpu) => cpu.raiseMachineCheckAtEntry());
    expect(struck).toEqual({ outcome: { kind: 'VMentryFailure', reason: 41 }, smm: 1n });
  });

  it('injects events into the executive monitor, and into its guest, where they may exit to it', () => {
    const { machine, cpu } = guest('nop\nvmcall');
    runToExit(cpu);
    smi(cpu);
    machine.memory.write64(0x7_0000 + 16 * 0x40, (BigInt(HOST) & 0xffffn) | (8n << 16n) | (0x8en << 40n));
    machine.memory.write64(0x7_0000 + 16 * 0x40, 0x0002_8e00_0008_0000n);
    machine.memory.write64(0x7_0000 + 16 * 0x40 + 8, 0n);
    machine.memory.write64(0x7_8008, 0x00af_9b00_0000_ffffn);
    for (const [field, value] of [
      ['guestIdtrBase', 0x7_0000n],
      ['guestIdtrLimit', 0xfffn],
      ['guestGdtrBase', 0x7_8000n],
      ['guestGdtrLimit', 0xfffn],
      ['guestRflags', 0x202n],
      ['injectedEventIdentification', 0x8000_0040n],
    ] as const)
      cpu.vmwrite(field, value);
    const rsp = cpu.vmread('guestRsp').value;
    expect(cpu.vmresume()).toEqual(ENTRY);
    expect([cpu.operation, cpu.get('RIP'), cpu.get('RFLAGS') & 0x200n]).toEqual(['root', BigInt(HOST), 0n]);
    expect(cpu.get('RSP')).toBe((rsp & ~15n) - 40n);
    const toGuest = guest('nop', { fields: { exceptionBitmap: 1n << 13n } }).cpu;
    smi(toGuest);
    toGuest.vmwrite('injectedEventIdentification', 0x8000_0040n);
    toGuest.vmwrite('guestRflags', 0x202n);
    toGuest.vmwrite('guestIdtrLimit', 0n);
    expect(toGuest.vmresume()).toEqual(ENTRY);
    runToExit(toGuest, 2);
    expect([toGuest.vmread('exitReason').value, toGuest.currentVmcs, toGuest.get('inSmm')]).toEqual([
      0n,
      vmcsRegion(0),
      0n,
    ]);
  });
});
