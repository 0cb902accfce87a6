/** MSRs whose rules are not those of a row of the catalogue: IA32_EFER, IA32_FEATURE_CONTROL, those of VT-x. */
import { describe, expect, it } from 'vitest';
import type { CpuidFeatures } from '../../src/cpu/cpuid.ts';
import { IA32_EFER_INDEX, IA32_FEATURE_CONTROL, IA32_RTIT_CTL } from '../../src/cpu/msrs.ts';
import { PhysicalMemory } from '../../src/cpu/physical-memory.ts';
import { Processor } from '../../src/cpu/processor.ts';
import { NO_VMX, type VmxPort } from '../../src/cpu/vmx-port.ts';
import { findProfile } from '../../src/vmx/capabilities/profiles.ts';

const FULL = findProfile('full')!.features;

function processor(features: Partial<CpuidFeatures> = {}, port: Partial<VmxPort> = {}): Processor {
  const cpu = new Processor(0, { ...FULL, ...features }, new PhysicalMemory());
  cpu.vmxPort = { ...NO_VMX, ...port };
  return cpu;
}

const at = (...positions: number[]) => positions.reduce((m, p) => m | (1n << BigInt(p)), 0n);

describe('IA32_EFER', () => {
  it('ignores a write of LMA, in both directions', () => {
    const cpu = processor();
    expect(cpu.writeMsr(IA32_EFER_INDEX, at(8, 10))).toBe('ok');
    expect(cpu.readMsr(IA32_EFER_INDEX)).toBe(at(8));
    cpu.write('IA32_EFER', at(8, 10));
    expect(cpu.writeMsr(IA32_EFER_INDEX, at(0, 8))).toBe('ok');
    expect(cpu.readMsr(IA32_EFER_INDEX)).toBe(at(0, 8, 10));
  });

  it('does not let LME change while paging is on', () => {
    const cpu = processor();
    cpu.write('CR0', at(0, 31));
    expect(cpu.writeMsr(IA32_EFER_INDEX, at(8))).toBe('bad-value');
    expect(cpu.writeMsr(IA32_EFER_INDEX, at(0, 11))).toBe('ok');
    cpu.write('IA32_EFER', at(8, 10));
    expect(cpu.writeMsr(IA32_EFER_INDEX, 0n)).toBe('bad-value');
    expect(cpu.writeMsr(IA32_EFER_INDEX, at(0, 8))).toBe('ok');
    cpu.write('CR0', at(0));
    expect(cpu.writeMsr(IA32_EFER_INDEX, 0n)).toBe('ok');
  });
});

describe('IA32_FEATURE_CONTROL (SDM §26.7)', () => {
  it('can be written until it is locked, and never again until reset', () => {
    const cpu = processor();
    expect(cpu.writeMsr(IA32_FEATURE_CONTROL, at(2))).toBe('ok');
    expect(cpu.writeMsr(IA32_FEATURE_CONTROL, at(0, 1))).toBe('ok');
    expect(cpu.writeMsr(IA32_FEATURE_CONTROL, at(0, 1))).toBe('read-only');
    expect(cpu.writeMsr(IA32_FEATURE_CONTROL, 0n)).toBe('read-only');
    expect(cpu.readMsr(IA32_FEATURE_CONTROL)).toBe(at(0, 1));
    cpu.reset();
    expect(cpu.readMsr(IA32_FEATURE_CONTROL)).toBe(0n);
    expect(cpu.writeMsr(IA32_FEATURE_CONTROL, at(0, 2))).toBe('ok');
  });

  it.each([3, 7, 16, 19, 21, 63])('reserves bit %i', (position) => {
    expect(processor().writeMsr(IA32_FEATURE_CONTROL, at(position))).toBe('reserved-bit');
  });

  it.each<[string, Partial<CpuidFeatures>, number[]]>([
    ['VMXON in SMX operation, without SMX', { smx: false }, [1]],
    ['VMXON in or outside SMX operation, without VMX', { vmx: false }, [1, 2]],
    ['SENTER, without SMX', { smx: false }, [8, 14, 15]],
    ['SGX, without SGX', { sgx: false }, [17, 18]],
  ])('refuses to enable %s', (_, features, positions) => {
    for (const position of positions) {
      expect(processor().writeMsr(IA32_FEATURE_CONTROL, at(position))).toBe('ok');
      expect(processor(features).writeMsr(IA32_FEATURE_CONTROL, at(position))).toBe('reserved-bit');
    }
  });

  it.each([
    { smx: false, sgx: false },
    { vmx: false, sgx: false },
    { vmx: false, smx: false },
  ])('exists while any of its features does (%o)', (features) =>
    expect(processor(features).readMsr(IA32_FEATURE_CONTROL)).toBe(0n),
  );
});

describe('what VT-x answers', () => {
  it('is the capability MSRs, which are read-only', () => {
    const cpu = processor({}, { capabilityMsr: (index) => (index === 0x480 ? 0x1234n : undefined) });
    expect(cpu.readMsr(0x480)).toBe(0x1234n);
    expect(cpu.writeMsr(0x480, 0x1234n)).toBe('read-only');
    for (const index of [0x481, 0x4ff]) {
      expect(cpu.readMsr(index)).toBeUndefined();
      expect(cpu.writeMsr(index, 0n)).toBe('does-not-exist');
    }
  });

  it('is nothing on a processor without VMX', () => {
    const cpu = new Processor(0, FULL, new PhysicalMemory());
    expect(cpu.readMsr(0x480)).toBeUndefined();
    expect(cpu.writeMsr(0x480, 0n)).toBe('does-not-exist');
    expect(cpu.writeMsr(IA32_RTIT_CTL, 1n)).toBe('ok');
    expect(cpu.vmxPort.allowsControlRegister('CR4', 0n)).toBe(true);
  });

  it('is whether IA32_RTIT_CTL may be written; reading is always allowed', () => {
    const cpu = processor({}, { allowsRtitCtlWrite: () => false });
    expect(cpu.writeMsr(IA32_RTIT_CTL, 0n)).toBe('read-only');
    expect(cpu.writeMsr(IA32_RTIT_CTL, at(63))).toBe('reserved-bit');
    expect(cpu.readMsr(IA32_RTIT_CTL)).toBe(0n);
  });
});
