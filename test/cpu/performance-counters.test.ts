import { describe, expect, it } from 'vitest';
import { Machine } from '../../src/index.ts';
import { exitFields, guestMachine, runToExit } from '../support/guest.ts';

describe('performance counters of a machine that runs code', () => {
  const { processor } = new Machine({ memory: 0x10_0000, level: 'complete' }).cpu(0);
  const { generalPurposeCounters: counters } = processor.features;

  it('are what CPUID leaf 0AH says, and no architectural event is available', () => {
    const [eax, ebx, , edx] = processor.cpuid.read(0xa, 0);
    expect([eax & 0xff, (eax >>> 8) & 0xff, (eax >>> 16) & 0xff, eax >>> 24]).toEqual([2, counters, 48, 7]);
    expect(counters).toBeGreaterThan(0);
    expect(ebx & 0x7f).toBe(0x7f);
    expect(edx).toBe(0);
  });

  it('take 32 bits, which they extend to 48 by their sign', () => {
    expect(processor.writeMsr(0xc1, 0xdead_beef_7fff_ffffn)).toBe('ok');
    expect(processor.readMsr(0xc1)).toBe(0x7fff_ffffn);
    expect(processor.writeMsr(0xc2, 0x8000_0001n)).toBe('ok');
    expect(processor.readMsr(0xc2)).toBe(0xffff_8000_0001n);
  });

  it('are as many as there are, each with its event select', () => {
    const last = counters - 1;
    expect(processor.writeMsr(0x186 + last, 0x43_00c0n)).toBe('ok');
    expect(processor.writeMsr(0x186, 1n << 21n)).toBe('reserved-bit');
    expect(processor.writeMsr(0x186, 1n << 32n)).toBe('reserved-bit');
    expect(processor.writeMsr(0xc1 + counters, 0n)).toBe('does-not-exist');
    expect(processor.readMsr(0x186 + counters)).toBeUndefined();
  });

  it('are all enabled after RESET; nothing has overflowed', () => {
    expect(processor.readMsr(0x38f)).toBe((1n << BigInt(counters)) - 1n);
    expect(processor.writeMsr(0x38f, 1n << 32n)).toBe('reserved-bit');
    expect(processor.readMsr(0x38e)).toBe(0n);
    expect(processor.writeMsr(0x38e, 0n)).toBe('read-only');
    expect(processor.writeMsr(0x390, (1n << 63n) | 1n)).toBe('ok');
    expect(processor.readMsr(0x390)).toBe(0n);
    expect(processor.writeMsr(0x390, 1n << 32n)).toBe('reserved-bit');
  });
});

describe('RDPMC of guest code', () => {
  it('reads what was written to the counter', () => {
    const cpu = guestMachine('mov ecx, 2\nrdpmc\nvmcall', {
      level: 'complete',
      off: ['proc.rdpmcExiting'],
    }).cpu(0);
    cpu.processor.writeMsr(0xc3, 0x8000_0005n);
    runToExit(cpu);
    expect(exitFields(cpu, 'exitReason').exitReason).toBe(18n);
    expect([cpu.get('RAX'), cpu.get('RDX')]).toEqual([0x8000_0005n, 0xffffn]);
  });

  it('of a counter that is not there raises #GP(0)', () => {
    const cpu = guestMachine('mov ecx, 0x40000000\nrdpmc', {
      level: 'complete',
      off: ['proc.rdpmcExiting'],
      fields: { exceptionBitmap: 1n << 13n },
    }).cpu(0);
    runToExit(cpu);
    expect(exitFields(cpu, 'exitReason', 'exitingEventIdentification')).toEqual({
      exitReason: 0n,
      exitingEventIdentification: 0x8000_0b0dn,
    });
  });
});
