/** VMREAD and VMWRITE of every encoding on every profile (SDM §33.3, §27.11.2). */
import { describe, expect, it } from 'vitest';
import type { LogicalProcessor } from '../../../src/machine/logical-processor.ts';
import { FIELDS, type VmcsField } from '../../../src/vmcs/fields.ts';
import { findProfile, PROFILES } from '../../../src/vmx/capabilities/profiles.ts';
import { fault } from '../../../src/vmx/outcome.ts';
import {
  encodingOf,
  FAIL_INVALID,
  failValid,
  freshRegion,
  held,
  launchable,
  rootMachine,
  SUCCEED,
  setMode,
  succeeds,
  vmcsRegion,
} from '../../support/machine.ts';

const REGION = vmcsRegion(0);
const ALL_ONES = 0xffff_ffff_ffff_ffffn;

function current(profile: string): LogicalProcessor {
  const cpu = rootMachine({ profile }).cpu(0);
  freshRegion(cpu, REGION);
  succeeds(cpu.vmptrld(BigInt(REGION)));
  return cpu;
}

/** Bits of a field on a processor with Intel 64. */
function maskOf(field: VmcsField): bigint {
  return { 16: 0xffffn, 32: 0xffff_ffffn, 64: ALL_ONES, natural: ALL_ONES }[field.width];
}

/** Appendix B says that the field exists on this processor. */
function exists(cpu: LogicalProcessor, field: VmcsField): boolean {
  const { capabilities } = cpu;
  return (
    field.existsIf.length === 0 ||
    field.existsIf.some((c) => (c === 'cpuid.fred' ? capabilities.features.fred : capabilities.supports(c)))
  );
}

/** Bits 11:10 of the encoding: VM-exit information. */
function isReadOnly(cpu: LogicalProcessor, field: VmcsField): boolean {
  return ((field.encoding >> 10) & 3) === 1 && !cpu.capabilities.has('misc', 29);
}

/** VM exits and VMfailValid write this field; its value between instructions is not software's alone. */
const ERROR = encodingOf('vmInstructionError');

describe.each(PROFILES.map((p) => p.name))('VMREAD and VMWRITE of every field on %s', (profile) => {
  it('64-bit mode: the field is masked to its width, unsupported is error 12, read-only is error 13', () => {
    const cpu = current(profile);
    for (const field of FIELDS) {
      for (const encoding of [field.encoding, field.highEncoding]) {
        if (encoding === undefined) continue;
        const high = encoding !== field.encoding;
        const where = `${field.name} ${encoding.toString(16)}`;
        if (!exists(cpu, field)) {
          expect(cpu.vmread(encoding), where).toEqual({ outcome: failValid(12), value: 0n });
          expect(cpu.vmwrite(encoding, 1n), where).toEqual(failValid(12));
          continue;
        }
        if (isReadOnly(cpu, field)) {
          const before = held(cpu, REGION, field.key);
          expect(cpu.vmwrite(encoding, ALL_ONES), where).toEqual(failValid(13));
          if (encoding !== ERROR) expect(held(cpu, REGION, field.key), where).toBe(before);
          expect(cpu.vmread(encoding).outcome, where).toEqual(SUCCEED);
          continue;
        }
        const mask = high ? 0xffff_ffffn : maskOf(field);
        for (const value of [ALL_ONES, 0n, 0x8765_4321_1234_5678n, 0xa5a5_5a5a_dead_beefn]) {
          expect(cpu.vmwrite(encoding, value), where).toEqual(SUCCEED);
          expect(cpu.vmread(encoding), where).toEqual({ outcome: SUCCEED, value: value & mask });
        }
      }
    }
  });

  it('high access reads and writes bits 63:32 and nothing else', () => {
    const cpu = current(profile);
    for (const field of FIELDS) {
      if (field.highEncoding === undefined || !exists(cpu, field) || isReadOnly(cpu, field)) continue;
      succeeds(cpu.vmwrite(field.encoding, 0x1111_1111_2222_2222n));
      expect(cpu.vmread(field.highEncoding).value, field.name).toBe(0x1111_1111n);
      succeeds(cpu.vmwrite(field.highEncoding, 0xffff_ffff_3333_3333n));
      expect(cpu.vmread(field.encoding).value, field.name).toBe(0x3333_3333_2222_2222n);
    }
  });

  it('protected mode: 32-bit operands; full access clears bits 63:32', () => {
    const cpu = current(profile);
    for (const field of FIELDS) {
      if (!exists(cpu, field) || isReadOnly(cpu, field)) continue;
      setMode(cpu, '64-bit');
      succeeds(cpu.vmwrite(field.encoding, 0xaaaa_aaaa_bbbb_bbbbn));
      setMode(cpu, 'protected');
      const low = maskOf(field) & 0xffff_ffffn;
      expect(cpu.vmread(field.encoding).value, field.name).toBe(0xbbbb_bbbbn & low);
      expect(cpu.vmwrite(field.encoding, 0xcccc_cccc_dddd_ddddn), field.name).toEqual(SUCCEED);
      if (field.highEncoding !== undefined) {
        expect(cpu.vmread(field.highEncoding).value, field.name).toBe(0n);
        succeeds(cpu.vmwrite(field.highEncoding, 0xeeee_eeee_1234_5678n));
        expect(cpu.vmread(field.highEncoding).value, field.name).toBe(0x1234_5678n);
      }
      setMode(cpu, '64-bit');
      const highHalf = field.highEncoding === undefined ? 0n : 0x1234_5678n << 32n;
      expect(cpu.vmread(field.encoding).value, field.name).toBe((0xdddd_ddddn & low) | highHalf);
    }
  });

  it('every one of the 32768 encodings is either a supported field or error 12', () => {
    const cpu = current(profile);
    const supported = new Set(
      FIELDS.filter((f) => exists(cpu, f)).flatMap((f) => [f.encoding, f.highEncoding ?? f.encoding]),
    );
    for (let encoding = 0; encoding < 0x8000; encoding++) {
      const kind = cpu.vmread(encoding).outcome.kind;
      if (kind !== (supported.has(encoding) ? 'VMsucceed' : 'VMfailValid')) {
        expect.fail(`VMREAD ${encoding.toString(16)}: ${kind}`);
      }
    }
  });
});

describe('VMREAD and VMWRITE', () => {
  it('there are 282 encodings', () => {
    expect(FIELDS.flatMap((f) => (f.highEncoding === undefined ? [f.encoding] : [0, 0]))).toHaveLength(282);
  });

  it('bits 63:32 of the encoding count in 64-bit mode only', () => {
    const cpu = current('full');
    const encoding = BigInt(encodingOf('guestRip'));
    succeeds(cpu.vmwrite(encoding, 0x77n));
    for (let position = 15n; position < 64n; position++) {
      const wrong = encoding | (1n << position);
      setMode(cpu, '64-bit');
      expect(cpu.vmread(wrong).outcome).toEqual(failValid(12));
      expect(cpu.vmwrite(wrong, 1n)).toEqual(failValid(12));
      setMode(cpu, 'protected');
      const expected = position >= 32n ? SUCCEED : failValid(12);
      expect(cpu.vmread(wrong).outcome).toEqual(expected);
      expect(cpu.vmwrite(wrong, 0x77n)).toEqual(expected);
    }
  });

  it('the silicon without IA32_VMX_MISC[29] has read-only fields; the other has none', () => {
    const without = PROFILES.filter(
      (p) => !rootMachine({ profile: p.name }).cpu(0).capabilities.has('misc', 29),
    );
    expect(without.length).toBeGreaterThan(0);
    for (const { name } of PROFILES) {
      const cpu = current(name);
      const readOnly = without.includes(findProfile(name) as (typeof PROFILES)[number]);
      expect(cpu.vmwrite('exitReason', 1n)).toEqual(readOnly ? failValid(13) : SUCCEED);
    }
  });

  it('a shadow VMCS is read and written in root operation like any other (§27.10)', () => {
    const cpu = rootMachine().cpu(0);
    freshRegion(cpu, REGION, true);
    succeeds(cpu.vmptrld(BigInt(REGION)));
    expect(cpu.vmwrite('guestRip', 0x1234n)).toEqual(SUCCEED);
    expect(cpu.vmread('guestRip')).toEqual({ outcome: SUCCEED, value: 0x1234n });
    expect(cpu.vmlaunch()).toEqual(FAIL_INVALID);
  });

  it('VMREAD whose destination faults changes neither RFLAGS nor the error field (§33.3)', () => {
    const cpu = current('full');
    cpu.set('RFLAGS', 0x8d7n);
    expect(cpu.unit.vmread(BigInt(encodingOf('guestRip')), () => fault(14, 2))).toEqual({
      kind: 'fault',
      vector: 14,
      errorCode: 2,
    });
    expect(cpu.get('RFLAGS')).toBe(0x8d7n);
    expect(held(cpu, REGION, 'vmInstructionError')).toBe(0n);
  });

  it('success leaves the error of an earlier failure (§27.9.5)', () => {
    const cpu = current('full');
    expect(cpu.vmread(0x7ffe).outcome).toEqual(failValid(12));
    succeeds(cpu.vmwrite('guestRip', 1n));
    expect(cpu.vmread('vmInstructionError').value).toBe(12n);
    expect(cpu.vmptrld(1n)).toEqual(failValid(9));
    expect(cpu.vmread('vmInstructionError').value).toBe(9n);
  });

  it('VMWRITE checks no values: they are found at VM entry (§27.11.2)', () => {
    const cpu = rootMachine().cpu(0);
    launchable(cpu, REGION, { hostCr0: 0n });
    expect(cpu.vmread('hostCr0')).toEqual({ outcome: SUCCEED, value: 0n });
    expect(cpu.vmlaunch()).toEqual(failValid(8));
  });

  it('the VMCS in memory is stale until VMCLEAR (§27.11.1)', () => {
    const machine = rootMachine({ hazards: 'ignore' });
    const cpu = machine.cpu(0);
    freshRegion(cpu, REGION);
    succeeds(cpu.vmptrld(BigInt(REGION)));
    const before = machine.memory.readBytes(REGION, 4096);
    succeeds(cpu.vmwrite('guestRip', 0x1234_5678_9abc_def0n));
    expect(machine.memory.readBytes(REGION, 4096)).toEqual(before);
    succeeds(cpu.vmclear(BigInt(REGION)));
    expect(machine.memory.readBytes(REGION, 4096)).not.toEqual(before);
  });
});

describe('VMREAD and VMWRITE between registers', () => {
  it('stop skipping their checks when mode, CPL, current VMCS or VMX operation changes', () => {
    const changes: readonly (readonly [string, (cpu: LogicalProcessor) => void, string])[] = [
      ['nothing', () => undefined, 'VMsucceed'],
      ['CPL 3', (c) => setMode(c, '64-bit', 3), 'fault'],
      ['compatibility mode', (c) => setMode(c, 'compatibility'), 'fault'],
      ['VMCLEAR of the current VMCS', (c) => succeeds(c.vmclear(BigInt(REGION))), 'VMfailInvalid'],
      ['VMXOFF', (c) => succeeds(c.vmxoff()), 'fault'],
      ['RESET', (c) => c.reset(), 'fault'],
      ['HLT state', (c) => c.set('activityState', 1n), 'notExecuted'],
    ];
    for (const [name, change, kind] of changes) {
      const cpu = current('full');
      cpu.set('RAX', BigInt(encodingOf('guestRip')));
      cpu.set('RCX', 0x55n);
      expect(cpu.vmwriteRegister(0, 1)).toEqual(SUCCEED);
      expect(cpu.vmreadRegister(0, 2)).toEqual(SUCCEED);
      expect(cpu.get('RDX')).toBe(0x55n);
      change(cpu);
      cpu.set('RAX', BigInt(encodingOf('guestRip')));
      expect(cpu.vmreadRegister(0, 2).kind, name).toBe(kind);
      expect(cpu.vmwriteRegister(0, 1).kind, name).toBe(kind);
    }
  });

  it('see the current VMCS after VMREAD and VMWRITE that were not between registers', () => {
    const cpu = current('full');
    cpu.set('RAX', BigInt(encodingOf('guestRip')));
    cpu.set('RCX', 0x55n);
    succeeds(cpu.vmwriteRegister(0, 1));
    freshRegion(cpu, vmcsRegion(1));
    succeeds(cpu.vmptrld(BigInt(vmcsRegion(1))));
    succeeds(cpu.vmwrite('guestRip', 0x66n));
    succeeds(cpu.vmreadRegister(0, 2));
    expect(cpu.get('RDX')).toBe(0x66n);
    succeeds(cpu.vmptrld(BigInt(REGION)));
    expect(cpu.vmread('guestRip').value).toBe(0x55n);
    succeeds(cpu.vmreadRegister(0, 2));
    expect(cpu.get('RDX')).toBe(0x55n);
  });

  it('follow VMPTRLD to another VMCS', () => {
    const cpu = current('full');
    cpu.set('RAX', BigInt(encodingOf('guestRip')));
    cpu.set('RCX', 0x55n);
    succeeds(cpu.vmwriteRegister(0, 1));
    freshRegion(cpu, vmcsRegion(1));
    succeeds(cpu.vmptrld(BigInt(vmcsRegion(1))));
    succeeds(cpu.vmreadRegister(0, 2));
    expect(cpu.get('RDX')).toBe(0n);
    succeeds(cpu.vmptrld(BigInt(REGION)));
    succeeds(cpu.vmreadRegister(0, 2));
    expect(cpu.get('RDX')).toBe(0x55n);
  });
});
