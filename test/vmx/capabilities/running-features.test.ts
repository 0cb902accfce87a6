import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { CpuidFeatures } from '../../../src/cpu/cpuid.ts';
import { INSTRUCTION_SET_NAMES } from '../../../src/cpu/instruction-sets.ts';
import { CR4 } from '../../../src/cpu/registers.ts';
import { Machine } from '../../../src/machine/machine.ts';
import { capabilitiesOf, PROFILES } from '../../../src/vmx/capabilities/profiles.ts';
import {
  CONTROL_FEATURES,
  isModelled,
  NOT_RUNNING,
  runningFeatures,
} from '../../../src/vmx/capabilities/running-features.ts';

const DEVIATIONS = readFileSync(new URL('../../../docs/deviations.md', import.meta.url), 'utf8');

describe.each(PROFILES.map((p) => [p.name, p] as const))(
  'a machine that runs code as %s',
  (name, profile) => {
    const running = runningFeatures(profile.features);
    const cpu = new Machine({ profile: name, level: 'complete' }).cpu(0);

    it('has those features, and nothing more than the processor', () => {
      expect(capabilitiesOf(profile, 'complete').features).toEqual(running);
      expect(cpu.processor.features).toEqual(running);
      for (const [feature, value] of Object.entries(running) as [keyof CpuidFeatures, unknown][]) {
        const all = profile.features[feature];
        if (typeof value === 'boolean') expect(all || !value, feature).toBe(true);
        else if (typeof value === 'number') expect(value, feature).toBeLessThanOrEqual(all as number);
      }
      expect(running.cr4Bits & ~profile.features.cr4Bits).toBe(0n);
    });

    it('has no feature without behaviour', () => {
      for (const [feature, [value]] of Object.entries(NOT_RUNNING)) {
        expect(running[feature as keyof CpuidFeatures], feature).toBe(value);
      }
      for (const set of INSTRUCTION_SET_NAMES) if (!isModelled(set)) expect(running[set], set).toBe(false);
    });

    it('lets software set no bit of CR4 and write no MSR of it', () => {
      for (const bit of [CR4.SMXE, CR4.KL]) {
        expect((running.cr4Bits >> BigInt(bit)) & 1n, `${bit}`).toBe(0n);
      }
      expect(cpu.rdmsr(0x489)).toBe(running.cr4Bits);
      for (const msr of [0x48, 0x570, 0xd90, 0x14ce]) {
        expect(cpu.rdmsr(msr), msr.toString(16)).toBeUndefined();
      }
      expect([cpu.wrmsr(0x1d9, 1n), cpu.wrmsr(0x1d9, 2n)]).toEqual(['reserved-bit', 'ok']);
      expect(cpu.wrmsr(0x1b, 0xfee0_0d00n)).toBe(running.x2apic ? 'ok' : 'reserved-bit');
    });

    it('offers no control of it', () => {
      for (const [id, isThere] of CONTROL_FEATURES) {
        if (!isThere(running)) expect(cpu.capabilities.supports(id), id).toBe(false);
      }
    });
  },
);

describe('a machine whose structures are checked', () => {
  it('keeps the features of its processor', () => {
    for (const profile of PROFILES) expect(capabilitiesOf(profile).features).toBe(profile.features);
  });
});

describe('docs/deviations.md', () => {
  it.each(Object.entries(NOT_RUNNING))('says that there is no %s and why', (feature, [, reason]) => {
    const line = DEVIATIONS.split('\n').find((l) => l.startsWith(`| \`${feature}\` |`));
    expect(line).toBe(`| \`${feature}\` | ${reason[0]!.toUpperCase()}${reason.slice(1)}. |`);
  });
});
