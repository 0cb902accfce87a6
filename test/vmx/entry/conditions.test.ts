/** A rule applies only under its conditions: controls, Intel 64, virtual-8086 mode. */
import { describe, expect, it } from 'vitest';
import type { FieldName } from '../../../src/vmcs/fields.ts';
import { VmxCapabilities } from '../../../src/vmx/capabilities/capabilities.ts';
import type { EntryCheckId } from '../../../src/vmx/entry/check-lists.ts';
import { usable } from '../../../src/vmx/entry/checks/guest-conditions.ts';
import { allChecks } from '../../../src/vmx/entry/verify.ts';
import { contextOf, fails, situationOf } from '../../support/evaluate.ts';
import type { Witness } from '../../support/witness.ts';
import { CONTROL_WITNESSES } from './witnesses-controls.ts';
import { GUEST_WITNESSES, VIRTUAL_8086 } from './witnesses-guest.ts';
import { SMM_WITNESSES } from './witnesses-smm.ts';

const WITNESSES: Readonly<Record<EntryCheckId, Witness>> = {
  ...CONTROL_WITNESSES,
  ...GUEST_WITNESSES,
  ...SMM_WITNESSES,
};
const ROWS = allChecks();

function failing(witness: Witness): string[] {
  const context = contextOf(situationOf(witness));
  return ROWS.filter((row) => fails(row, context)).map((row) => row.id);
}

/** Rules whose witness has "unrestricted guest" on only to break no other rule. */
const WITHOUT_CONTROLS_TOO: readonly EntryCheckId[] = [
  'guest.cr0.pg-needs-pe',
  'guest.cr0.pg-if-ia32e',
  'guest.cs.dpl-type3',
  'guest.ss.dpl-zero-cs-type3',
  'guest.ss.dpl-zero-real-mode',
  'guest.rflags.vm-not-real-mode',
];

describe('the controls of a witness', () => {
  it.each(ROWS.filter((row) => WITNESSES[row.id as EntryCheckId].controls?.length).map((row) => row.id))(
    '%s does not fail without them',
    (id) => {
      const row = ROWS.find((r) => r.id === id)!;
      const context = contextOf(situationOf({ ...WITNESSES[id as EntryCheckId], controls: [] }));
      expect(fails(row, context)).toBe(WITHOUT_CONTROLS_TOO.includes(id as EntryCheckId));
    },
  );
});

/** What the manual asks of processors that support Intel 64 only. */
const INTEL_64_ONLY: readonly EntryCheckId[] = [
  'host.cr3.width',
  'host.cr3.bit63',
  'host.sysenter-esp.canonical',
  'host.sysenter-eip.canonical',
  'host.fs.base-canonical',
  'host.gs.base-canonical',
  'host.gdtr.base-canonical',
  'host.idtr.base-canonical',
  'host.tr.base-canonical',
  'host.addrspace.legacy-no-ia32e-guest',
  'host.addrspace.legacy-no-host64',
  'host.addrspace.long-needs-host64',
  'host.addrspace.host32-no-ia32e-guest',
  'host.cr4.pcide-needs-host64',
  'host.cr4.fred-needs-host64',
  'host.rip.high-if-host32',
  'host.s-cet.high-if-host32',
  'host.ssp.high-if-host32',
  'host.cr4.pae-if-host64',
  'host.rip.canonical-if-host64',
  'host.s-cet.canonical-if-host64',
  'host.ssp.canonical-if-host64',
  'host.int-ssp-table.canonical',
  'guest.cr0.pg-if-ia32e',
  'guest.cr4.pae-if-ia32e',
  'guest.cr4.pcide-needs-ia32e',
  'guest.cr4.fred-needs-ia32e',
  'guest.cr3.width',
  'guest.cr3.bit63',
  'guest.dr7.high',
  'guest.sysenter-esp.canonical',
  'guest.sysenter-eip.canonical',
  'guest.s-cet.canonical',
  'guest.int-ssp-table.canonical',
  'guest.cs.base-high',
  'guest.ss.base-high',
  'guest.ds.base-high',
  'guest.es.base-high',
  'guest.fs.base-canonical',
  'guest.gs.base-canonical',
  'guest.tr.base-canonical',
  'guest.ldtr.base-canonical',
  'guest.gdtr.base-canonical',
  'guest.idtr.base-canonical',
  'guest.rip.high-32',
  'guest.rip.high-identical',
  'guest.ssp.high-identical',
];

describe('a processor without Intel 64', () => {
  it('is held to every rule but those of Intel 64', () => {
    const spared = ROWS.filter((row) => {
      const situation = situationOf(WITNESSES[row.id as EntryCheckId]);
      const { features, msrs, format } = situation.capabilities;
      const capabilities = new VmxCapabilities({ ...features, intel64: false }, msrs, () => format);
      return (
        fails(row, contextOf(situation)) &&
        features.intel64 &&
        !fails(row, contextOf({ ...situation, capabilities }))
      );
    }).map((row) => row.id);
    expect(spared.sort()).toEqual([...INTEL_64_ONLY].sort());
  });
});

describe('a guest in virtual-8086 mode', () => {
  const off = ['entry.ia32eModeGuest'] as const;
  const broken = (fields: Partial<Record<FieldName, bigint>>) =>
    failing({ off, fields: { ...VIRTUAL_8086, ...fields } });

  it.each(['Cs', 'Ss', 'Ds', 'Es', 'Fs', 'Gs'])('has access rights of %s with one rule', (name) => {
    for (const rights of [0n, 0x90n, 0xe3n, 0x73n, 0xf1n, 0xffn, 0xff3n, 0x80f3n, 0x2_00f3n, 0x1_00f3n]) {
      expect(broken({ [`guest${name}AccessRights`]: rights })).toEqual([
        `guest.${name.toLowerCase()}.ar-v86`,
      ]);
    }
  });

  it('has limits with one rule, and selectors without any', () => {
    for (const guestCsLimit of [0xf_ffffn, 0xfff0_ffffn, 0xfffen]) {
      expect(broken({ guestCsLimit })).toEqual(['guest.cs.limit-v86']);
    }
    expect(
      broken({ guestSsSelector: 0x3n, guestSsBase: 0x30n, guestDsSelector: 2n, guestDsBase: 0x20n }),
    ).toEqual([]);
  });

  it('is as bound as any with "unrestricted guest"', () => {
    const controls = ['proc2.enableEpt', 'proc2.unrestrictedGuest'] as const;
    const fields = { ...VIRTUAL_8086, guestCsAccessRights: 0x91n };
    expect(failing({ off, controls, fields })).toEqual(['guest.cs.ar-v86']);
  });
});

describe('rules next to each other', () => {
  it('look at an event only if it is valid', () => {
    for (const injectedEventIdentification of [0x7fff_ffffn, 0x7f00_1fffn, 0x0000_0100n]) {
      expect(
        failing({ fields: { injectedEventIdentification, injectedEventErrorCode: 0xffff_ffffn } }),
      ).toEqual([]);
    }
  });

  it('exclude "RDTSC exiting" with "APIC-timer virtualization" only', () => {
    expect(failing({ controls: ['proc.rdtscExiting'] })).toEqual([]);
  });

  it('leave CPL 1 to guests without FRED', () => {
    const fields = {
      guestCsSelector: 9n,
      guestCsAccessRights: 0xa0bbn,
      guestSsSelector: 1n,
      guestSsAccessRights: 0x1_0020n,
    };
    expect(failing({ fields })).toEqual([]);
    expect(failing({ fields: { ...fields, guestCr4: 0x1_0000_2020n } })).toEqual(['guest.ss.dpl-fred']);
  });

  it('ask for a busy 64-bit TSS in IA-32e mode only once', () => {
    expect(failing({ fields: { guestTrAccessRights: 0x89n } })).toEqual(['guest.tr.type-ia32e']);
  });

  it('align FRED stacks to 64 bytes and shadow stacks to 8', () => {
    const controls = ['entry.loadFred', 'exit2.loadFred'] as const;
    const of = (rsp: bigint, ssp: bigint) =>
      Object.fromEntries(
        ['guest', 'host'].flatMap((area) =>
          [1, 2, 3].flatMap((level) => [
            [`${area}Ia32FredRsp${level}`, rsp],
            [`${area}Ia32FredSsp${level}`, ssp],
          ]),
        ),
      );
    expect(failing({ controls, fields: of(0x40n, 8n) })).toEqual([]);
    expect(failing({ controls, fields: of(0x20n, 4n) })).toHaveLength(12);
  });

  it('free CD and NW of host CR0 even where the processor fixes them', () => {
    const { IA32_VMX_CR0_FIXED0: fixed = 0n } = situationOf().capabilities.msrs;
    const msrs = { IA32_VMX_CR0_FIXED0: fixed | (3n << 29n) };
    expect(failing({ msrs, fields: { hostCr0: 0x8000_0021n, guestCr0: 0x8000_0021n } })).toEqual([]);
  });
});

describe('rules in words', () => {
  it.each([
    ['ctrl.virtual-nmis.needs-nmi-exiting', '"NMI exiting" is 1.'],
    ['ctrl.posted-int.needs-ack-on-exit', 'The "acknowledge interrupt on exit" VM-exit control is 1.'],
    ['ctrl.x2apic.excludes-apic-access', '"virtualize APIC accesses" is 0.'],
    ['host.addrspace.legacy-no-host64', 'The "host address-space size" VM-exit control is 0.'],
    ['guest.fred-rsp1.align', 'Guest IA32_FRED_RSP1: bits 5:0 are 0.'],
    ['guest.fred-ssp3.align', 'Guest IA32_FRED_SSP3: bits 2:0 are 0.'],
    ['guest.ldtr.type', 'LDTR type is 2: an LDT.'],
  ])('%s', (id, rule) => {
    expect(ROWS.find((row) => row.id === id)?.rule).toBe(rule);
  });

  it('except CD and NW for CR0 of the host, not for CR4', () => {
    const rule = (id: string) => ROWS.find((row) => row.id === id)?.rule ?? '';
    expect(rule('host.cr0.fixed')).toContain('(CD and NW apart)');
    expect(rule('host.cr4.fixed')).toMatch(/^Host CR4: .* have their fixed values\.$/);
  });

  it('name segment registers as the manual does', () => {
    expect(usable('ldtr').text).toBe('LDTR is usable');
  });
});
