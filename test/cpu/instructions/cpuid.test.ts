import { describe, expect, it } from 'vitest';
import { CPUID_FLAGS } from '../../../src/cpu/cpuid-leaves.ts';
import { INSTRUCTION_SET_NAMES, INSTRUCTION_SETS } from '../../../src/cpu/instruction-sets.ts';
import { CR4, type RegisterName } from '../../../src/cpu/registers.ts';
import { capabilitiesOf, findProfile, SILICON_PROFILES } from '../../../src/vmx/capabilities/profiles.ts';
import { isModelled } from '../../../src/vmx/capabilities/running-features.ts';
import { type CodeOptions, codeMachine, loadCode } from '../../support/code.ts';
import { readTsv } from '../../support/tsv.ts';

type Registers = [eax: number, ebx: number, ecx: number, edx: number];

function cpuid(
  leaf: number,
  subleaf = 0,
  options: CodeOptions & { index?: number } = {},
  state: Partial<Record<RegisterName, bigint>> = {},
): Registers {
  const machine = codeMachine({ level: 'complete', ...options });
  loadCode(machine, 'cpuid', options.bits ?? 64);
  const cpu = machine.cpu(options.index ?? 0);
  if (options.index !== undefined) {
    for (const name of [
      'CS.base',
      'CS.selector',
      'CS.limit',
      'CS.accessRights',
      'CR0',
      'CR4',
      'IA32_EFER',
      'RIP',
    ] as const)
      cpu.set(name, machine.cpu(0).get(name));
  }
  for (const [name, value] of Object.entries(state)) cpu.set(name as RegisterName, value as bigint);
  const ones = 0xffff_ffff_0000_0000n;
  cpu.set('RAX', ones | BigInt(leaf >>> 0));
  cpu.set('RCX', ones | BigInt(subleaf));
  cpu.set('RBX', ones);
  cpu.set('RDX', ones);
  cpu.run(1);
  return (['RAX', 'RBX', 'RCX', 'RDX'] as const).map((name) => Number(cpu.get(name))) as Registers;
}

const ascii = (...words: number[]) =>
  words.map((w) => String.fromCharCode(w & 255, (w >>> 8) & 255, (w >>> 16) & 255, w >>> 24)).join('');
const has = (word: number, position: number) => ((word >>> position) & 1) === 1;

describe('CPUID', () => {
  it('says the highest leaf and the vendor, and clears the upper halves of all four registers', () => {
    const [eax, ebx, ecx, edx] = cpuid(0, 0, { profile: 'skylake' });
    expect(eax).toBe(0x16);
    expect(ascii(ebx, edx, ecx)).toBe('GenuineIntel');
  });

  it.each(SILICON_PROFILES.map((p) => p.name))('says who %s is', (profile) => {
    const { signature, title } = findProfile(profile)!;
    expect(cpuid(1, 0, { profile })[0]).toBe(signature);
    const brand = [2, 3, 4].map((n) => ascii(...cpuid(0x8000_0000 + n, 0, { profile }))).join('');
    expect(brand).toHaveLength(48);
    expect(brand.replace(/\0+$/, '')).toBe(title.slice(0, 47));
    expect(brand.endsWith('\0')).toBe(true);
  });

  it('answers a leaf that does not exist as the highest basic one', () => {
    for (const leaf of [0x17, 0x4000_0000, 0x7fff_ffff, 0x8000_0009, 0xffff_ffff]) {
      expect(cpuid(leaf, 0, { profile: 'skylake' })).toEqual([1000, 1000, 100, 0]);
    }
    expect(cpuid(0x12, 0, { profile: 'sandy-bridge' })).toEqual(cpuid(0xd, 0, { profile: 'sandy-bridge' }));
  });

  it('is limited to leaf 2 by IA32_MISC_ENABLE[22]', () => {
    const limit = { IA32_MISC_ENABLE: 1n << 22n };
    expect(cpuid(0, 0, {}, limit)[0]).toBe(2);
    expect(cpuid(7, 0, {}, limit)).toEqual(cpuid(2));
    expect(cpuid(0x8000_0000, 0, {}, limit)[0]).toBe(0x8000_0008);
  });

  it('shows CR4.OSXSAVE and CR4.PKE as they are', () => {
    const cr4 = (position: number) => ({ CR4: 0x20n | (1n << BigInt(position)) });
    expect(has(cpuid(1)[2], 27)).toBe(false);
    expect(has(cpuid(1, 0, {}, cr4(CR4.OSXSAVE))[2], 27)).toBe(true);
    expect(has(cpuid(7)[2], 4)).toBe(false);
    expect(has(cpuid(7, 0, {}, cr4(CR4.PKE))[2], 4)).toBe(true);
    expect(has(cpuid(7, 1, {}, cr4(CR4.PKE))[2], 4)).toBe(false);
  });

  it('reports no SYSCALL outside 64-bit mode', () => {
    for (const bits of [16, 32] as const) expect(has(cpuid(0x8000_0001, 0, { bits })[3], 11)).toBe(false);
    expect(has(cpuid(0x8000_0001)[3], 11)).toBe(isModelled('syscall'));
  });

  it('tells the topology: one package, a core for each processor, its number as identifier', () => {
    const two = { cpus: 3, index: 2 };
    expect(cpuid(0xb, 0, two)).toEqual([0, 1, 0x100, 2]);
    expect(cpuid(0xb, 1, two)).toEqual([2, 3, 0x201, 2]);
    expect(cpuid(0xb, 5, two)).toEqual([0, 0, 5, 2]);
    expect(cpuid(0x1f, 1, two)).toEqual([2, 3, 0x201, 2]);
    const [, ebx, , edx] = cpuid(1, 0, two);
    expect(ebx).toBe(0x0203_0800);
    expect(has(edx, 28)).toBe(true);
    expect(has(cpuid(1)[3], 28)).toBe(false);
    expect((cpuid(4, 3, two)[0] >>> 14) & 0xfff).toBe(2);
  });

  it('describes caches whose sets, ways and lines make their size', () => {
    const sizes = [0, 1, 2, 3].map((n) => {
      const [, ebx, ecx] = cpuid(4, n);
      return ((ebx >>> 22) + 1) * ((ebx & 0xfff) + 1) * (ecx + 1);
    });
    expect(sizes).toEqual([32, 32, 256, 8192].map((kilobytes) => kilobytes * 1024));
    expect(cpuid(4, 4)).toEqual([0, 0, 0, 0]);
    expect(cpuid(2)[0]).toBe(0xff01);
    expect(cpuid(0x8000_0006)[2]).toBe(0x0100_4040);
  });

  it('gives a frequency of one tick a nanosecond', () => {
    const [denominator, numerator, crystal] = cpuid(0x15);
    expect((crystal * numerator) / denominator).toBe(1e9);
    expect(cpuid(0x16)[0]).toBe(1000);
  });

  it('sizes the XSAVE area by what XCR0 and IA32_XSS can enable', () => {
    const structure = { level: 'checked', profile: 'tiger-lake' } as const;
    expect(cpuid(0xd, 0, structure)).toEqual([0x203, 576, 2696, 0]);
    expect(cpuid(0xd, 0, structure, { XCR0: 0x203n })[1]).toBe(2696);
    expect(cpuid(0xd, 0, { ...structure, profile: 'broadwell' })).toEqual([3, 576, 576, 0]);
    expect(cpuid(0xd, 1, structure)).toEqual([0xf, 576, 0x1900, 0]);
    expect(cpuid(0xd, 1, structure, { IA32_XSS: 0x1800n })[1]).toBe(576 + 16 + 24);
    expect(cpuid(0xd, 9, structure)).toEqual([8, 2688, 0, 0]);
    expect(cpuid(0xd, 11, structure)).toEqual([16, 0, 1, 0]);
    expect(cpuid(0xd, 14, structure)).toEqual([0, 0, 0, 0]);
    expect(cpuid(0xd, 2, structure)).toEqual([0, 0, 0, 0]);
  });

  it('has a local APIC while IA32_APIC_BASE enables it', () => {
    expect(has(cpuid(1)[3], 9)).toBe(true);
    expect(has(cpuid(1, 0, {}, { IA32_APIC_BASE: 0xfee0_0100n })[3], 9)).toBe(false);
    expect([has(cpuid(1)[2], 21), has(cpuid(1)[2], 24)]).toEqual([true, true]);
  });

  it('has no thermal sensor, no trace and no key locker', () => {
    for (const leaf of [6, 0x14, 0x19]) expect(cpuid(leaf)).toEqual([0, 0, 0, 0]);
  });

  it('gives address widths', () => {
    expect(cpuid(0x8000_0008, 0, { profile: 'penryn' })[0]).toBe(0x3026);
    expect(cpuid(0x8000_0008)[0]).toBe(0x3934);
  });
});

describe('flags of CPUID', () => {
  const registers = ['EAX', 'EBX', 'ECX', 'EDX'] as const;

  it('have a bit of their own each', () => {
    const places = CPUID_FLAGS.map((f) => `${f.leaf}.${f.subleaf}.${f.register}.${f.bit}`);
    expect(new Set(places).size).toBe(places.length);
  });

  it.each(['penryn', 'skylake', 'wildcat-lake', 'full'])('are, on %s, those of what runs', (profile) => {
    const { features } = capabilitiesOf(findProfile(profile)!, 'complete');
    for (const flag of CPUID_FLAGS) {
      const value = cpuid(flag.leaf, flag.subleaf, { profile })[registers.indexOf(flag.register)]!;
      const expected =
        flag.holds(features) && (flag.leaf >= 0x8000_0000 || flag.leaf <= features.highestBasicLeaf);
      const actual =
        cpuid(0, 0, { profile })[0] < flag.leaf && flag.leaf < 0x8000_0000 ? false : has(value, flag.bit);
      expect(actual, flag.name).toBe(expected);
    }
    for (const name of INSTRUCTION_SET_NAMES) {
      if (!isModelled(name)) expect(features[name], name).toBe(false);
    }
  });

  it('are none that the silicon does not have', () => {
    const rows = readTsv('../../vmx/capabilities/silicon-cpuid.tsv', import.meta.url, 6);
    const checked = ['1', '7.0', '7.1', '7.2', '80000001', '80000008'];
    for (const [profile, place, ...silicon] of rows as [string, string, ...string[]][]) {
      if (!checked.includes(place)) continue;
      const [leaf, subleaf = 0] = place.split('.').map((n) => Number.parseInt(n, 16)) as [number, number?];
      const said = cpuid(leaf, subleaf, { profile });
      for (const flag of CPUID_FLAGS.filter((f) => f.leaf === leaf && f.subleaf === subleaf)) {
        // Part of the silicon was read outside 64-bit mode.
        if (flag.name === 'SYSCALL') continue;
        const at = registers.indexOf(flag.register);
        if (has(said[at]!, flag.bit)) {
          expect(has(Number.parseInt(silicon[at]!, 16), flag.bit), `${profile} ${flag.name}`).toBe(true);
        }
      }
    }
  });
});

describe('instructions that a processor does not have', () => {
  const raised = (profile: string, code: string) => {
    const machine = codeMachine({ profile });
    loadCode(machine, code);
    const cpu = machine.cpu(0);
    cpu.set('RBX', 0x10n);
    cpu.set('RAX', 0n);
    // No IDT: an exception ends in shutdown.
    cpu.set('IDTR.limit', 0n);
    cpu.run(1);
    return cpu.get('activityState') === 2n;
  };

  it.each([
    ['popcnt eax, ebx', 'penryn', 'sandy-bridge'],
    ['andn eax, ebx, ecx', 'sandy-bridge', 'broadwell'],
    ['bzhi eax, ebx, ecx', 'sandy-bridge', 'broadwell'],
    ['adcx eax, ebx', 'sandy-bridge', 'broadwell'],
    ['movbe eax, [rbx]', 'sandy-bridge', 'broadwell'],
    ['clflushopt [rbx]', 'broadwell', 'skylake'],
    ['clwb [rbx]', 'skylake', 'skylake-x'],
  ])('%s: #UD on %s, not on %s', (code, without, withIt) => {
    expect(raised(without, code)).toBe(true);
    expect(raised(withIt, code)).toBe(false);
  });

  it('LZCNT and TZCNT are BSR and BSF there', () => {
    const result = (profile: string, code: string) => {
      const machine = codeMachine({ profile });
      loadCode(machine, code);
      machine.cpu(0).set('RBX', 0x10n);
      machine.cpu(0).run(1);
      return machine.cpu(0).get('RAX');
    };
    expect(result('sandy-bridge', 'lzcnt eax, ebx')).toBe(4n);
    expect(result('broadwell', 'lzcnt eax, ebx')).toBe(27n);
    expect(result('sandy-bridge', 'tzcnt eax, ebx')).toBe(4n);
  });

  it('are in the opcode map where a set says so', () => {
    for (const name of [
      'popcnt',
      'bmi1',
      'bmi2',
      'adx',
      'movbe',
      'lzcnt',
      'cmpxchg16b',
      'clflush',
    ] as const) {
      expect(isModelled(name), name).toBe(true);
      expect(INSTRUCTION_SETS[name].instructions.length).toBeGreaterThan(0);
    }
  });
});
