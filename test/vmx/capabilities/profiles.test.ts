import { describe, expect, it } from 'vitest';
import { bit, bits, mask } from '../../../src/bits/u64.ts';
import type { CpuidFeatures } from '../../../src/cpu/cpuid.ts';
import {
  INSTRUCTION_SET_NAMES,
  INSTRUCTION_SETS,
  type InstructionSet,
} from '../../../src/cpu/instruction-sets.ts';
import { CR4 } from '../../../src/cpu/registers.ts';
import {
  CONTROL_GROUPS,
  CONTROLS,
  type ControlGroupName,
  type ControlId,
  controlOf,
  namedControls,
} from '../../../src/vmcs/controls.ts';
import { FIELDS, Field, fieldOf } from '../../../src/vmcs/fields.ts';
import type { RegionFormat } from '../../../src/vmcs/layout.ts';
import { CONTROL_NEEDS, FULL_REVISION } from '../../../src/vmx/capabilities/advertise.ts';
import {
  ACCESS_HIGH,
  ACCESS_READ_ONLY,
  ACCESS_SLOT_SHIFT,
  type VmxCapabilities,
} from '../../../src/vmx/capabilities/capabilities.ts';
import {
  CAPABILITY_MSR_NAMES,
  CapabilityMsr,
  type CapabilityMsrName,
  type CapabilityMsrValues,
} from '../../../src/vmx/capabilities/capability-msrs.ts';
import { CONTROL_STATUS } from '../../../src/vmx/capabilities/control-status.ts';
import {
  capabilitiesOf,
  customCapabilities,
  findProfile,
  PROFILES,
  SILICON_PROFILES,
} from '../../../src/vmx/capabilities/profiles.ts';
import { readTsv } from '../../support/tsv.ts';

const LEVELS = ['silicon', 'checked', 'complete'] as const;
const GROUPS = Object.keys(CONTROL_GROUPS) as ControlGroupName[];
const EVERY = PROFILES.flatMap((profile) =>
  LEVELS.map((level) => [profile.name, level, capabilitiesOf(profile, level)] as const),
);
const ADVERTISED = EVERY.filter(([, level]) => level !== 'silicon');

const low = (value: bigint) => bits(value, 31, 0);
const high = (value: bigint) => bits(value, 63, 32);
const includes = (whole: bigint, part: bigint) => (part & ~whole) === 0n;
const value = (c: VmxCapabilities, name: CapabilityMsrName) => c.msrs[name] ?? 0n;

describe('silicon', () => {
  const MSRS = readTsv('silicon-msrs.tsv', import.meta.url, 3) as [string, string, string][];
  const CPUID = readTsv('silicon-cpuid.tsv', import.meta.url, 6);

  it.each(MSRS)('%s reports in %s %s', (name, index, expected) => {
    const silicon = capabilitiesOf(findProfile(name)!, 'silicon');
    expect(silicon.msr(Number(index))).toBe(BigInt(expected));
  });

  it('reports no further capability MSR but those said to be completed', () => {
    for (const profile of SILICON_PROFILES) {
      const read = MSRS.filter(([name]) => name === profile.name).map(([, index]) => Number(index));
      for (const name of CAPABILITY_MSR_NAMES) {
        if (profile.msrs[name] === undefined || read.includes(CapabilityMsr[name])) continue;
        expect(
          profile.completed.some((note) => note.startsWith(`${name}:`)),
          `${profile.name} ${name}`,
        ).toBe(true);
      }
    }
  });

  /** One feature by the leaf, register and bits that enumerate it. */
  const flag = (register: number, position: number) => (leaf: number[]) =>
    ((leaf[register]! >>> position) & 1) === 1;
  const [EAX, EBX, ECX, EDX] = [0, 1, 2, 3] as const;
  const decoders: readonly [leaf: string, feature: keyof CpuidFeatures, (leaf: number[]) => unknown][] = [
    ['1', 'vmx', flag(ECX, 5)],
    ['1', 'smx', flag(ECX, 6)],
    ['1', 'x2apic', flag(ECX, 21)],
    ['1', 'tscDeadline', flag(ECX, 24)],
    ['7.0', 'sgx', flag(EBX, 2)],
    ['7.0', 'rtm', flag(EBX, 11)],
    ['7.0', 'mpx', flag(EBX, 14)],
    ['7.0', 'intelPt', flag(EBX, 25)],
    ['7.0', 'cetShadowStack', flag(ECX, 7)],
    ['7.0', 'totalMemoryEncryption', flag(ECX, 13)],
    ['7.0', 'linearAddressBits', (leaf) => (flag(ECX, 16)(leaf) ? 57 : 48)],
    ['7.0', 'busLockDetection', flag(ECX, 24)],
    ['7.0', 'supervisorProtectionKeys', flag(ECX, 31)],
    ['7.0', 'userInterrupts', flag(EDX, 5)],
    ['7.0', 'architecturalLbrs', flag(EDX, 19)],
    ['7.0', 'cetIndirectBranchTracking', flag(EDX, 20)],
    ['7.1', 'fred', flag(EAX, 17)],
    ['80000001', 'executeDisable', flag(EDX, 20)],
    ['80000001', 'tscAux', flag(EDX, 27)],
    ['80000001', 'intel64', flag(EDX, 29)],
    ['80000008', 'physicalAddressBits', (leaf) => leaf[EAX]! & 0xff],
    ['80000008', 'linearAddressBits', (leaf) => (leaf[EAX]! >> 8) & 0xff],
    // SYSCALL is 0 in what was read outside 64-bit mode.
    ...INSTRUCTION_SET_NAMES.filter((name) => name !== 'syscall').map(
      (name): [string, InstructionSet, (leaf: number[]) => unknown] => {
        const [leaf, subleaf, register, position] = INSTRUCTION_SETS[name].cpuid;
        const withSubleaf = leaf === 7 || leaf === 0xd ? `.${subleaf}` : '';
        return [
          `${leaf.toString(16)}${withSubleaf}`,
          name,
          flag(['EAX', 'EBX', 'ECX', 'EDX'].indexOf(register), position),
        ];
      },
    ),
  ];

  describe.each(
    SILICON_PROFILES.filter((p) => CPUID.some(([name]) => name === p.name)).map((p) => [p.name, p] as const),
  )('%s', (name, profile) => {
    const leaves = new Map(
      CPUID.filter(([n]) => n === name).map(([, leaf, ...registers]) => [
        leaf,
        registers.map((r) => Number.parseInt(r, 16)),
      ]),
    );

    it.each(decoders.filter(([leaf]) => leaves.has(leaf)))('has in CPUID.%s %s', (leaf, feature, decode) => {
      expect(profile.features[feature]).toBe(decode(leaves.get(leaf)!));
    });

    it('has the performance counters of leaf 23H, or else of leaf 0AH', () => {
      const ones = (word: number) => word.toString(2).replaceAll('0', '').length;
      const own = leaves.get('23.1');
      const common = leaves.get('a')!;
      expect(profile.features).toMatchObject(
        own
          ? { generalPurposeCounters: ones(own[EAX]!), fixedCounters: ones(own[EBX]!) }
          : { generalPurposeCounters: (common[EAX]! >> 8) & 0xff, fixedCounters: common[EDX]! & 0x1f },
      );
      expect(profile.features.performanceMetrics).toBe(profile.features.fixedCounters > 3);
    });

    it('has the speculation controls that CPUID enumerates, or says why', () => {
      const [edx0 = 0, edx2 = 0] = [leaves.get('7.0')?.[EDX], leaves.get('7.2')?.[EDX]];
      const has = (word: number, position: number, ...controls: number[]) =>
        (word >>> position) & 1 ? controls.reduce((m, c) => m | (1 << c), 0) : 0;
      const enumerated =
        has(edx0, 26, 0) |
        has(edx0, 27, 1) |
        has(edx0, 31, 2) |
        has(edx2, 0, 7) |
        has(edx2, 1, 3, 4) |
        has(edx2, 2, 5, 6) |
        has(edx2, 3, 8) |
        has(edx2, 4, 10);
      if (profile.completed.some((note) => note.startsWith('IA32_SPEC_CTRL'))) expect(enumerated).toBe(0);
      else if (leaves.has('7.0')) expect(profile.features.specCtrlBits).toBe(enumerated);
    });

    it('has the signature of the part', () => {
      const leaf = leaves.get('1');
      if (leaf) expect(profile.signature).toBe(leaf[EAX]);
    });

    it('lets CR4 enable exactly the features it has', () => {
      const { features } = profile;
      const cr4 = features.cr4Bits;
      expect({
        smx: bit(cr4, CR4.SMXE),
        cet: bit(cr4, CR4.CET),
        pks: bit(cr4, CR4.PKS),
        uintr: bit(cr4, CR4.UINTR),
        fred: bit(cr4, CR4.FRED),
        la57: bit(cr4, CR4.LA57),
        vmx: bit(cr4, CR4.VMXE),
      }).toEqual({
        smx: features.smx,
        cet: features.cetShadowStack || features.cetIndirectBranchTracking,
        pks: features.supervisorProtectionKeys,
        uintr: features.userInterrupts,
        fred: features.fred,
        la57: features.linearAddressBits === 57,
        vmx: features.vmx,
      });
    });

    it('offers VMX controls for exactly the features it has', () => {
      const { features } = profile;
      const silicon = capabilitiesOf(profile, 'silicon');
      const has = (id: ControlId) => silicon.supports(id);
      expect(has('proc2.enableEnclsExiting')).toBe(features.sgx);
      expect(has('exit.clearIa32Bndcfgs')).toBe(features.mpx);
      expect(has('entry.loadCetState')).toBe(features.cetShadowStack || features.cetIndirectBranchTracking);
      expect(has('entry.loadPkrs')).toBe(features.supervisorProtectionKeys);
      expect(has('entry.loadUinv')).toBe(features.userInterrupts);
      expect(has('entry.loadGuestIa32LbrCtl')).toBe(features.architecturalLbrs);
      expect(has('entry.loadFred')).toBe(features.fred);
      expect(has('proc2.rdrandExiting')).toBe(features.rdrand);
      expect(has('proc2.rdseedExiting')).toBe(features.rdseed);
      expect(has('proc2.enableUserWaitAndPause')).toBe(features.userWaitAndPause);
      expect(has('proc2.vmmBusLockDetection')).toBe(features.busLockDetection);
      // The others have controls that came later than the feature itself.
      expect(features.intelPt || !has('exit.clearIa32RtitCtl')).toBe(true);
      expect(features.xsaves || !has('proc2.enableXsavesXrstors')).toBe(true);
      expect(features.tscAux || !has('proc2.enableRdtscp')).toBe(true);
      expect(features.x2apic || !has('proc2.virtualizeX2apicMode')).toBe(true);
    });
  });

  it('is ten parts, oldest first, and `full` is none of them', () => {
    expect(SILICON_PROFILES.map((p) => p.name)).toEqual([
      'penryn',
      'sandy-bridge',
      'broadwell',
      'skylake-x',
      'skylake',
      'cannon-lake',
      'ice-lake',
      'tiger-lake',
      'arrow-lake',
      'wildcat-lake',
    ]);
    expect(PROFILES.at(-1)?.name).toBe('full');
    expect(SILICON_PROFILES.map((p) => capabilitiesOf(p).revision)).not.toContain(Number(FULL_REVISION));
  });
});

// The numbers are those of the rules of SDM Appendix A and §29.2.1 for a consistent set of values.
describe.each(EVERY)('%s, %s', (_name, level, capabilities) => {
  const { features } = capabilities;
  const exists = (name: CapabilityMsrName) => capabilities.msrs[name] !== undefined;
  const v = (name: CapabilityMsrName) => value(capabilities, name);
  const offers = (id: ControlId) => capabilities.supports(id);

  it('1: IA32_VMX_BASIC has a revision, a size and a memory type', () => {
    const basic = v('IA32_VMX_BASIC');
    expect(bit(basic, 31)).toBe(false);
    expect(bits(basic, 47, 45)).toBe(0n);
    expect(capabilities.regionSize).toBeGreaterThan(0);
    expect(capabilities.regionSize).toBeLessThanOrEqual(4096);
    expect(bit(basic, 44)).toBe(bits(basic, 43, 32) === 0n);
    expect([0n, 6n]).toContain(bits(basic, 53, 50));
    if (features.intel64) expect(bit(basic, 48)).toBe(false);
    expect(capabilities.revision).toBe(Number(bits(basic, 30, 0)));
  });

  it.each([
    ['pin', 'IA32_VMX_PINBASED_CTLS', 'IA32_VMX_TRUE_PINBASED_CTLS'],
    ['proc', 'IA32_VMX_PROCBASED_CTLS', 'IA32_VMX_TRUE_PROCBASED_CTLS'],
    ['exit', 'IA32_VMX_EXIT_CTLS', 'IA32_VMX_TRUE_EXIT_CTLS'],
    ['entry', 'IA32_VMX_ENTRY_CTLS', 'IA32_VMX_TRUE_ENTRY_CTLS'],
  ] as const)('2: %s controls', (group, name, trueName) => {
    const { default1 } = CONTROL_GROUPS[group];
    const old = v(name);
    expect(low(old)).toBe(default1);
    expect(includes(high(old), low(old))).toBe(true);
    expect(includes(namedControls(group) | default1, high(old))).toBe(true);
    expect(exists(trueName)).toBe(bit(v('IA32_VMX_BASIC'), 55));
    if (!exists(trueName)) return;
    const twin = v(trueName);
    expect(high(twin)).toBe(high(old));
    expect(includes(high(twin), low(twin))).toBe(true);
    expect(includes(low(old), low(twin))).toBe(true);
    expect(includes(default1, low(old) ^ low(twin))).toBe(true);
  });

  it('3: an MSR exists exactly where another says so', () => {
    const secondary = v('IA32_VMX_PROCBASED_CTLS2');
    expect(low(secondary)).toBe(0n);
    expect(exists('IA32_VMX_PROCBASED_CTLS2')).toBe(bit(v('IA32_VMX_PROCBASED_CTLS'), 63));
    expect(exists('IA32_VMX_PROCBASED_CTLS3')).toBe(bit(v('IA32_VMX_PROCBASED_CTLS'), 49));
    expect(exists('IA32_VMX_EXIT_CTLS2')).toBe(bit(v('IA32_VMX_EXIT_CTLS'), 63));
    expect(exists('IA32_VMX_EPT_VPID_CAP')).toBe(bit(secondary, 33) || bit(secondary, 37));
    expect(exists('IA32_VMX_VMFUNC')).toBe(bit(secondary, 45));
    for (const name of CAPABILITY_MSR_NAMES.slice(0, 11)) expect(exists(name), name).toBe(true);
  });

  it('4: unrestricted guest comes with EPT and with saving LMA', () => {
    if (!offers('proc2.unrestrictedGuest')) return;
    expect(offers('proc2.enableEpt')).toBe(true);
    expect(bit(v('IA32_VMX_MISC'), 5)).toBe(true);
  });

  it.each(CONTROL_NEEDS)('5: %s is offered only with what it needs', (id, ...needs) => {
    if (offers(id)) for (const need of needs) expect(offers(need), need).toBe(true);
  });

  it('6: what is fixed to 1 is allowed to be 1', () => {
    for (const register of ['CR0', 'CR4'] as const) {
      const { must1, may1 } = capabilities.fixedBits(register);
      expect(includes(may1, must1)).toBe(true);
    }
    expect(bit(capabilities.fixedBits('CR4').must1, CR4.VMXE)).toBe(true);
    expect(capabilities.fixedBits('CR4').may1).toBe(features.cr4Bits);
  });

  it('7: IA32_VMX_VMCS_ENUM is the highest index there is (silicon reports less than it has)', () => {
    const encodings = FIELDS.filter((f) => capabilities.fieldExists[f.slot]).map((f) => f.encoding);
    const highest = Math.max(...encodings.map((e) => (e >> 1) & 0x1ff));
    const reported = Number(v('IA32_VMX_VMCS_ENUM') >> 1n);
    expect(v('IA32_VMX_VMCS_ENUM') & ~mask(9, 1)).toBe(0n);
    if (level === 'silicon') expect(reported).toBeGreaterThan(0);
    else expect(reported).toBe(highest);
  });

  it('8: IA32_VMX_EPT_VPID_CAP agrees with itself and with the controls', () => {
    const cap = v('IA32_VMX_EPT_VPID_CAP');
    if (bit(cap, 25) || bit(cap, 26)) expect(bit(cap, 20)).toBe(true);
    if (bits(cap, 43, 40) !== 0n) expect(bit(cap, 32)).toBe(true);
    if (offers('proc2.enablePml')) expect(bit(cap, 21)).toBe(true);
    if (offers('proc2.enableEpt')) {
      expect(bit(cap, 6) || bit(cap, 7)).toBe(true);
      expect(bit(cap, 8) || bit(cap, 14)).toBe(true);
    }
    if (offers('proc2.enableVpid')) expect(bits(cap, 43, 40)).not.toBe(0n);
  });

  it('9: FRED comes with its event-injection capabilities', () => {
    const basic = v('IA32_VMX_BASIC');
    if (features.fred) expect(bit(basic, 56)).toBe(true);
    if (bit(basic, 58)) expect(features.fred).toBe(true);
  });

  it('has a field exactly where its condition holds', () => {
    for (const field of FIELDS) {
      const exists =
        field.existsIf.length === 0 ||
        field.existsIf.some((c) => (c === 'cpuid.fred' ? features.fred : offers(c)));
      expect(capabilities.fieldExists[field.slot] === 1, field.key).toBe(exists);
      const entry = capabilities.access[field.encoding] as number;
      expect(entry >= 0, field.key).toBe(exists);
      if (exists) {
        expect(entry >> ACCESS_SLOT_SHIFT).toBe(field.slot);
        expect((entry & ACCESS_HIGH) !== 0).toBe(false);
        const readOnly = field.type === 'exit-information' && !bit(v('IA32_VMX_MISC'), 29);
        expect((entry & ACCESS_READ_ONLY) !== 0, field.key).toBe(readOnly);
        if (field.highEncoding !== undefined) {
          expect(capabilities.access[field.highEncoding]).toBe(entry | ACCESS_HIGH);
        }
      }
    }
    expect(capabilities.access.filter((entry) => entry >= 0)).toHaveLength(
      FIELDS.filter((f) => capabilities.fieldExists[f.slot]).reduce(
        (n, f) => n + (f.highEncoding ? 2 : 1),
        0,
      ),
    );
  });

  it('has a format with a place of its own for every field', () => {
    const { format } = capabilities;
    expect(format).toMatchObject({ revision: capabilities.revision, regionSize: capabilities.regionSize });
    expectSound(format);
    for (const { slot, key } of FIELDS) {
      if (capabilities.fieldExists[slot]) expect(format.offsets[slot], key).toBeGreaterThanOrEqual(8);
    }
  });

  it('answers RDMSR for the MSRs it has and no other', () => {
    for (let index = 0x480; index <= 0x4ff; index++) {
      const name = CAPABILITY_MSR_NAMES.find((n) => CapabilityMsr[n] === index);
      expect(capabilities.msr(index)).toBe(name && capabilities.msrs[name]);
    }
  });

  it('has 4 CR3-target values, MSR lists of 512 and addresses of MAXPHYADDR', () => {
    expect(capabilities.cr3Targets).toBe(4);
    expect(capabilities.msrListMaximum).toBe(512);
    expect(capabilities.addressWidth(0)).toBe(features.physicalAddressBits);
    expect(capabilities.addressWidth(3)).toBe(features.physicalAddressBits - 3);
    expect(capabilities.has('basic', 50)).toBe(bit(v('IA32_VMX_BASIC'), 50));
    expect(capabilities.has('misc', 6)).toBe(bit(v('IA32_VMX_MISC'), 6));
    expect(capabilities.has('eptVpidCap', 0)).toBe(bit(v('IA32_VMX_EPT_VPID_CAP'), 0));
  });
});

function expectSound(format: RegionFormat): void {
  const used = new Set<number>();
  const take = (offset: number, bytes: number, who: string) => {
    expect(offset % bytes, who).toBe(0);
    expect(offset + bytes, who).toBeLessThanOrEqual(format.regionSize);
    for (let i = offset; i < offset + bytes; i++) {
      expect(used.has(i), `byte ${i} of ${who}`).toBe(false);
      used.add(i);
    }
  };
  take(0, 8, 'header');
  take(format.launchStateOffset, 4, 'launch state');
  for (const { slot, bits: width, key } of FIELDS) {
    const offset = format.offsets[slot] as number;
    if (offset >= 0) take(offset, width / 8, key);
  }
}

describe.each(ADVERTISED)('what %s advertises at level %s', (name, level, advertised) => {
  const silicon = capabilitiesOf(findProfile(name)!, 'silicon');

  it('is no more than the silicon has', () => {
    for (const group of GROUPS) {
      expect(includes(silicon.may1[group], advertised.may1[group]), group).toBe(true);
      expect(advertised.must1[group], group).toBe(silicon.must1[group]);
      expect(includes(advertised.may1[group], advertised.must1[group]), group).toBe(true);
    }
    expect(includes(silicon.eptVpidCap, advertised.eptVpidCap)).toBe(true);
    expect(includes(silicon.misc, advertised.misc)).toBe(true);
    expect(includes(silicon.basic, advertised.basic)).toBe(true);
    for (const field of FIELDS) {
      if (advertised.fieldExists[field.slot]) expect(silicon.fieldExists[field.slot], field.key).toBe(1);
    }
    expect([advertised.revision, advertised.regionSize]).toEqual([silicon.revision, silicon.regionSize]);
  });

  it('is nothing that is not there', () => {
    for (const { id, group, mask: position } of CONTROLS) {
      const may1 = (advertised.may1[group] & position) !== 0n;
      // Software that knows no TRUE MSR leaves default1 controls at 1, so that they are always allowed to be.
      const kept = ((advertised.must1[group] | CONTROL_GROUPS[group].default1) & position) !== 0n;
      const status = CONTROL_STATUS.get(id);
      if (!may1 || kept) continue;
      expect(status, id).not.toBe('absent');
      if (level === 'complete') expect(status, id).toBe('complete');
    }
  });

  it('is no bit without a name, no undefined capability', () => {
    for (const group of GROUPS) {
      const known = namedControls(group) | CONTROL_GROUPS[group].default1;
      expect(includes(known, advertised.may1[group]), group).toBe(true);
    }
    expect(bit(advertised.basic, 57)).toBe(false);
    expect(bits(advertised.basic, 63, 59)).toBe(0n);
    for (const position of [9, 10, 11, 12, 13, 31]) expect(bit(advertised.misc, position)).toBe(false);
  });

  it('is dual-monitor treatment with all that belongs to it, where the silicon has it', () => {
    const has = bit(silicon.basic, 49);
    expect(bit(advertised.basic, 49)).toBe(has);
    expect([10, 11].map((position) => bit(advertised.may1.entry, position))).toEqual([has, has]);
    // IA32_SMBASE can be read in SMM under the default treatment too.
    expect(bit(advertised.misc, 15)).toBe(bit(silicon.misc, 15));
    expect(bit(advertised.misc, 28)).toBe(has && bit(silicon.misc, 28));
    expect(bits(advertised.misc, 63, 32)).toBe(has ? bits(silicon.misc, 63, 32) : 0n);
  });

  it('still has the format of its silicon', () => expect(advertised.format).toBe(silicon.format));
});

describe('levels', () => {
  it('offer at `complete` no more than at `checked`, which is the default', () => {
    for (const profile of PROFILES) {
      const checked = capabilitiesOf(profile);
      expect(checked).toBe(capabilitiesOf(profile, 'checked'));
      const complete = capabilitiesOf(profile, 'complete');
      for (const group of GROUPS) expect(includes(checked.may1[group], complete.may1[group])).toBe(true);
    }
  });

  it('offer in `full` every control that is there', () => {
    const full = capabilitiesOf(findProfile('full')!);
    for (const { id } of CONTROLS) {
      expect(full.supports(id), id).toBe(CONTROL_STATUS.get(id) !== 'absent');
    }
  });

  it('have a status for every control', () => {
    expect([...CONTROL_STATUS.keys()].sort()).toEqual(CONTROLS.map((c) => c.id).sort());
  });
});

describe('region formats of profiles', () => {
  const formats = PROFILES.map((p) => capabilitiesOf(p).format);

  it('are one and the same for one revision', () => {
    for (const [, , a] of EVERY) {
      for (const [, , b] of EVERY) {
        if (a.revision === b.revision) expect(a.format).toBe(b.format);
      }
    }
    const sharing = (a: string, b: string) =>
      expect(capabilitiesOf(findProfile(a)!).format).toBe(capabilitiesOf(findProfile(b)!).format);
    sharing('skylake-x', 'cannon-lake');
    sharing('ice-lake', 'tiger-lake');
    sharing('arrow-lake', 'wildcat-lake');
  });

  it('put the fields of another revision elsewhere', () => {
    const different = [...new Set(formats)];
    expect(different).toHaveLength(7);
    for (const a of different) {
      for (const b of different.filter((f) => f !== a)) {
        const both = FIELDS.filter(
          (f) => (a.offsets[f.slot] as number) >= 0 && (b.offsets[f.slot] as number) >= 0,
        );
        const same = both.filter((f) => a.offsets[f.slot] === b.offsets[f.slot]);
        expect(same.length, `revisions ${a.revision} and ${b.revision}`).toBeLessThan(both.length / 2);
      }
    }
  });
});

describe('finding a profile', () => {
  it('takes names and aliases in any spelling', () => {
    for (const profile of PROFILES) {
      for (const name of [
        profile.name,
        profile.name.toUpperCase().replaceAll('-', '_'),
        ...profile.aliases,
      ]) {
        expect(findProfile(name), name).toBe(profile);
      }
    }
    expect(findProfile(' Wildcat Lake ')?.name).toBe('wildcat-lake');
    expect(findProfile('itanium')).toBeUndefined();
    expect(findProfile('')).toBeUndefined();
  });
});

describe("capabilities from values of one's own", () => {
  const skylake = findProfile('skylake-x')!;
  const withMsrs = (msrs: CapabilityMsrValues) =>
    customCapabilities(skylake.features, { ...skylake.msrs, ...msrs });

  it('share the format of silicon with the same revision and size', () => {
    expect(customCapabilities(skylake.features, skylake.msrs).format).toBe(capabilitiesOf(skylake).format);
  });

  it('find a place for fields that neither profile of the revision has', () => {
    // Coffee Lake: the revision of Skylake-X, and ENCLS exiting.
    const coffeeLake = withMsrs({ IA32_VMX_PROCBASED_CTLS2: 0x005f_bcff_0000_0000n });
    expect(coffeeLake.fieldExists[Field.enclsExitingBitmap]).toBe(1);
    expect(capabilitiesOf(skylake).fieldExists[Field.enclsExitingBitmap]).toBe(0);
    expect(coffeeLake.format).toBe(capabilitiesOf(skylake).format);
  });

  it('have a format of their own with another region size', () => {
    const large = withMsrs({ IA32_VMX_BASIC: 0x00d8_1000_0000_0004n });
    expect(large.format.regionSize).toBe(4096);
    expectSound(large.format);
    expect(large.format.offsets.every((offset) => offset >= 0)).toBe(true);
  });

  it('are refused where the region cannot hold the fields', () => {
    const { features, msrs } = findProfile('full')!;
    const tooMany = { ...msrs, IA32_VMX_BASIC: 0x00da_0400_0000_0004n };
    expect(() => customCapabilities(features, tooMany)).toThrow(RangeError);
    const tooSmall = { ...msrs, IA32_VMX_BASIC: 0x00da_0100_0000_1234n };
    expect(() => customCapabilities(features, tooSmall)).toThrow(RangeError);
  });

  it('hold addresses to 32 bits where IA32_VMX_BASIC[48] is 1', () => {
    const narrow = withMsrs({ IA32_VMX_BASIC: 0x00db_0400_0000_0004n });
    expect([narrow.addressWidth(0), narrow.addressWidth(4)]).toEqual([32, 32]);
  });

  it('have only unconditional fields, and no settings, without any MSR but IA32_VMX_BASIC', () => {
    const bare = customCapabilities(skylake.features, { IA32_VMX_BASIC: 0x00da_1000_0000_7777n });
    for (const field of FIELDS) expect(bare.fieldExists[field.slot] === 1).toBe(field.existsIf.length === 0);
    for (const group of GROUPS) expect([bare.must1[group], bare.may1[group]]).toEqual([0n, 0n]);
    expect(bare.fixedBits('CR4')).toEqual({ must1: 0n, may1: mask(63, 0) });
    expect(bare.msr(0x481)).toBeUndefined();
    expect(bare.access[fieldOf('exitReason').encoding]! & ACCESS_READ_ONLY).toBe(ACCESS_READ_ONLY);
  });

  it('support a control only with the controls that activate its group', () => {
    const { may1 } = capabilitiesOf(skylake, 'silicon');
    const inactive = withMsrs({
      IA32_VMX_TRUE_PROCBASED_CTLS:
        ((may1.proc & ~controlOf('proc.activateSecondaryControls').mask) << 32n) | 0x0400_6172n,
    });
    expect(inactive.supports('proc2.enableEpt')).toBe(false);
    expect(inactive.supports('vmfunc.eptpSwitching')).toBe(false);
    expect(inactive.fieldExists[Field.eptPointer]).toBe(0);
  });
});
