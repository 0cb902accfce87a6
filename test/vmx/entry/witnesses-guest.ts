/** A witness for every check on the guest-state area (SDM §29.3.1). */
import type { ControlId } from '../../../src/vmcs/controls.ts';
import type { FieldName } from '../../../src/vmcs/fields.ts';
import { FULL_REVISION } from '../../../src/vmx/capabilities/advertise.ts';
import type { GuestCheckId } from '../../../src/vmx/entry/checks/guest-state.ts';
import type { Witness } from '../../support/witness.ts';

type Fields = Partial<Record<FieldName, bigint>>;

const one = (position: number) => 1n << BigInt(position);

/** Not canonical for 57 bits. */
const NOT_CANONICAL = one(56);
const CR0 = 0x8000_0021n;
const CR4 = 0x2020n;
const REVISION = BigInt(FULL_REVISION);

// Guests.

function with64(fields: Fields, controls: readonly ControlId[] = []): Witness {
  return { controls, fields };
}

function legacy(fields: Fields, controls: readonly ControlId[] = []): Witness {
  return { controls, off: ['entry.ia32eModeGuest'], fields };
}

const UNRESTRICTED: readonly ControlId[] = ['proc2.enableEpt', 'proc2.unrestrictedGuest'];

const unrestricted = (fields: Fields) => with64(fields, UNRESTRICTED);
const realMode = (fields: Fields) => legacy({ guestCr0: 0x20n, ...fields }, UNRESTRICTED);

/** A 64-bit guest at CPL 3. */
const CPL_3: Fields = {
  guestCsSelector: 0x0bn,
  guestCsAccessRights: 0xa0fbn,
  guestSsSelector: 3n,
  guestSsAccessRights: 0x1_0060n,
};

const V86: Fields = {
  guestRflags: 0x2_0002n,
  guestCsBase: 0x80n,
  ...Object.fromEntries(
    ['Cs', 'Ss', 'Ds', 'Es', 'Fs', 'Gs'].flatMap((name) => [
      [`guest${name}Limit`, 0xffffn],
      [`guest${name}AccessRights`, 0xf3n],
    ]),
  ),
};
const virtual8086 = (fields: Fields) => legacy({ ...V86, ...fields });

const FRED: Fields = { guestCr4: CR4 | one(32) };

/** With one more segment register usable: a flat one, or LDTR. */
const usableWith = (name: 'Ss' | 'Ds' | 'Es' | 'Fs' | 'Gs', fields: Fields) =>
  with64({ [`guest${name}Limit`]: 0xffff_ffffn, [`guest${name}AccessRights`]: 0xc093n, ...fields });
const usableLdtr = (fields: Fields) => with64({ guestLdtrAccessRights: 0x82n, ...fields });

const EXTERNAL_INTERRUPT = 0x8000_0020n;
const NMI = 0x8000_0202n;
const SOFTWARE_INTERRUPT = 0x8000_0421n;
const IF = 0x202n;

const linked = (pointer: bigint, word: bigint): Witness => ({
  fields: { vmcsLinkPointer: pointer },
  memory: [[Number(pointer), word]],
});

const pdpteInMemory = (index: number): Witness => ({
  ...legacy({ guestCr3: 0x3000n }),
  memory: [[0x3000 + 8 * index, 3n]],
});

/** The witnesses of one segment register's rows that all of SS, DS, ES, FS and GS share. */
function ofUsable<const L extends 'ss' | 'ds' | 'es' | 'fs' | 'gs'>(low: L) {
  const name = (low.charAt(0).toUpperCase() + low.slice(1)) as 'Ss' | 'Ds' | 'Es' | 'Fs' | 'Gs';
  const rights = (value: bigint) => usableWith(name, { [`guest${name}AccessRights`]: value });
  return {
    [`guest.${low}.s`]: rights(0xc083n),
    [`guest.${low}.p`]: rights(0xc013n),
    [`guest.${low}.ar-reserved-11-8`]: rights(0xc193n),
    [`guest.${low}.ar-reserved-31-17`]: rights(0x2_c093n),
    [`guest.${low}.g-limit-low`]: usableWith(name, { [`guest${name}Limit`]: 0xffff_fffen }),
    [`guest.${low}.g-limit-high`]: rights(0x4093n),
  } as Record<
    `guest.${L}.${'s' | 'p' | 'ar-reserved-11-8' | 'ar-reserved-31-17' | 'g-limit-low' | 'g-limit-high'}`,
    Witness
  >;
}

export const GUEST_WITNESSES: Readonly<Record<GuestCheckId, Witness>> = {
  'guest.cr0.fixed': with64({ guestCr0: 0x8000_0001n }),
  'guest.cr0.pg-needs-pe': legacy({ guestCr0: 0x8000_0020n }, UNRESTRICTED),
  'guest.cr4.fixed': with64({ guestCr4: 0x20n }),
  'guest.cr4.cet-needs-wp': with64({ guestCr4: CR4 | one(23) }),
  'guest.debugctl.reserved': with64({ guestIa32Debugctl: one(5) }, ['entry.loadDebugControls']),
  'guest.cr0.pg-if-ia32e': unrestricted({ guestCr0: 0x21n }),
  'guest.cr4.pae-if-ia32e': with64({ guestCr4: 0x2000n }),
  'guest.cr4.pcide-needs-ia32e': legacy({ guestCr4: CR4 | one(17) }),
  'guest.cr4.fred-needs-ia32e': legacy(FRED),
  'guest.cr3.width': with64({ guestCr3: one(52) }),
  'guest.cr3.bit63': { ...with64({ guestCr3: one(63) }), also: ['guest.cr3.width'] },
  'guest.dr7.high': with64({ guestDr7: one(32) | 0x400n }, ['entry.loadDebugControls']),
  'guest.sysenter-esp.canonical': with64({ guestIa32SysenterEsp: NOT_CANONICAL }),
  'guest.sysenter-eip.canonical': with64({ guestIa32SysenterEip: NOT_CANONICAL }),
  'guest.s-cet.canonical': with64({ guestIa32SCet: NOT_CANONICAL }, ['entry.loadCetState']),
  'guest.int-ssp-table.canonical': with64({ guestIa32InterruptSspTableAddr: NOT_CANONICAL }, [
    'entry.loadCetState',
  ]),
  'guest.perf-global-ctrl.reserved': with64({ guestIa32PerfGlobalCtrl: one(63) }, [
    'entry.loadIa32PerfGlobalCtrl',
  ]),
  'guest.pat.memtype': with64({ guestIa32Pat: 0x02_00_00_00_00_00_00_00n }, ['entry.loadIa32Pat']),
  'guest.efer.reserved': with64({ guestIa32Efer: 0x502n }, ['entry.loadIa32Efer']),
  'guest.efer.lma-eq-ia32e': with64({ guestIa32Efer: 0n }, ['entry.loadIa32Efer']),
  'guest.efer.lme-eq-lma': with64({ guestIa32Efer: 0x400n }, ['entry.loadIa32Efer']),
  'guest.bndcfgs.reserved': with64({ guestIa32Bndcfgs: 4n }, ['entry.loadIa32Bndcfgs']),
  'guest.bndcfgs.canonical': with64({ guestIa32Bndcfgs: NOT_CANONICAL }, ['entry.loadIa32Bndcfgs']),
  'guest.rtit-ctl.reserved': with64({ guestIa32RtitCtl: one(63) }, ['entry.loadIa32RtitCtl']),
  'guest.s-cet.reserved': with64({ guestIa32SCet: one(6) }, ['entry.loadCetState']),
  'guest.s-cet.suppress-tracker': with64({ guestIa32SCet: 0xc00n }, ['entry.loadCetState']),
  'guest.lbr-ctl.reserved': with64({ guestIa32LbrCtl: one(4) }, ['entry.loadGuestIa32LbrCtl']),
  'guest.pkrs.high': with64({ guestIa32Pkrs: one(32) }, ['entry.loadPkrs']),
  'guest.uinv.high': with64({ guestUinv: 0x100n }, ['entry.loadUinv']),
  'guest.fred-config.reserved': with64({ guestIa32FredConfig: one(11) }, ['entry.loadFred']),
  'guest.fred-config.canonical': with64({ guestIa32FredConfig: NOT_CANONICAL }, ['entry.loadFred']),
  'guest.fred-rsp1.canonical': with64({ guestIa32FredRsp1: NOT_CANONICAL }, ['entry.loadFred']),
  'guest.fred-rsp1.align': with64({ guestIa32FredRsp1: one(5) }, ['entry.loadFred']),
  'guest.fred-rsp2.canonical': with64({ guestIa32FredRsp2: NOT_CANONICAL }, ['entry.loadFred']),
  'guest.fred-rsp2.align': with64({ guestIa32FredRsp2: one(5) }, ['entry.loadFred']),
  'guest.fred-rsp3.canonical': with64({ guestIa32FredRsp3: NOT_CANONICAL }, ['entry.loadFred']),
  'guest.fred-rsp3.align': with64({ guestIa32FredRsp3: one(5) }, ['entry.loadFred']),
  'guest.fred-ssp1.canonical': with64({ guestIa32FredSsp1: NOT_CANONICAL }, ['entry.loadFred']),
  'guest.fred-ssp1.align': with64({ guestIa32FredSsp1: one(2) }, ['entry.loadFred']),
  'guest.fred-ssp2.canonical': with64({ guestIa32FredSsp2: NOT_CANONICAL }, ['entry.loadFred']),
  'guest.fred-ssp2.align': with64({ guestIa32FredSsp2: one(2) }, ['entry.loadFred']),
  'guest.fred-ssp3.canonical': with64({ guestIa32FredSsp3: NOT_CANONICAL }, ['entry.loadFred']),
  'guest.fred-ssp3.align': with64({ guestIa32FredSsp3: one(2) }, ['entry.loadFred']),
  'guest.spec-ctrl.reserved': with64({ guestIa32SpecCtrl: one(63) }, ['entry.loadIa32SpecCtrl']),

  'guest.cs.base-v86': virtual8086({ guestCsBase: 0x90n }),
  'guest.ss.base-v86': virtual8086({ guestSsBase: 0x10n }),
  'guest.ds.base-v86': virtual8086({ guestDsSelector: 1n }),
  'guest.es.base-v86': virtual8086({ guestEsBase: 0x8_0000n }),
  'guest.fs.base-v86': virtual8086({ guestFsBase: one(32) }),
  'guest.gs.base-v86': virtual8086({ guestGsSelector: 0xffffn }),
  'guest.cs.limit-v86': virtual8086({ guestCsLimit: 0xf_ffffn }),
  'guest.ss.limit-v86': virtual8086({ guestSsLimit: 0xfffen }),
  'guest.ds.limit-v86': virtual8086({ guestDsLimit: 0n }),
  'guest.es.limit-v86': virtual8086({ guestEsLimit: 0x1_ffffn }),
  'guest.fs.limit-v86': virtual8086({ guestFsLimit: 0xffff_ffffn }),
  'guest.gs.limit-v86': virtual8086({ guestGsLimit: 0x7fffn }),
  'guest.cs.ar-v86': virtual8086({ guestCsAccessRights: 0xfbn }),
  'guest.ss.ar-v86': virtual8086({ guestSsAccessRights: 0x93n }),
  'guest.ds.ar-v86': virtual8086({ guestDsAccessRights: 0x1_00f3n }),
  'guest.es.ar-v86': virtual8086({ guestEsAccessRights: 0xf2n }),
  'guest.fs.ar-v86': virtual8086({ guestFsAccessRights: 0x40f3n }),
  'guest.gs.ar-v86': virtual8086({ guestGsAccessRights: 0x10f3n }),

  'guest.cs.base-high': with64({ guestCsBase: one(32) }),
  'guest.cs.type-restricted': with64({ guestCsAccessRights: 0xa093n }),
  'guest.cs.type-unrestricted': unrestricted({ guestCsAccessRights: 0xa092n }),
  'guest.cs.s': with64({ guestCsAccessRights: 0xa08bn }),
  'guest.cs.dpl-type3': unrestricted({ guestCsAccessRights: 0xa0b3n }),
  'guest.cs.dpl-nonconforming': with64({ guestCsAccessRights: 0xa0fbn }),
  'guest.cs.dpl-conforming': with64({ guestCsAccessRights: 0xa0bfn }),
  'guest.cs.p': with64({ guestCsAccessRights: 0xa01bn }),
  'guest.cs.ar-reserved-11-8': with64({ guestCsAccessRights: 0xa89bn }),
  'guest.cs.db-with-l': with64({ guestCsAccessRights: 0xe09bn }),
  'guest.cs.g-limit-low': with64({ guestCsLimit: 0xffff_fffen }),
  'guest.cs.g-limit-high': with64({ guestCsAccessRights: 0x209bn }),
  'guest.cs.ar-reserved-31-17': with64({ guestCsAccessRights: 0x8000_a09bn }),

  'guest.ss.sel-rpl-eq-cs': with64({ guestCsSelector: 0x0bn }),
  'guest.ss.base-high': usableWith('Ss', { guestSsBase: one(32) }),
  'guest.ss.type': usableWith('Ss', { guestSsAccessRights: 0xc09bn }),
  'guest.ss.dpl-eq-rpl': with64({ guestSsAccessRights: 0x1_0060n, guestCsAccessRights: 0xa0fbn }),
  'guest.ss.dpl-zero-cs-type3': unrestricted({
    guestCsAccessRights: 0xa093n,
    guestSsAccessRights: 0x1_0060n,
  }),
  'guest.ss.dpl-zero-real-mode': realMode({ guestCsAccessRights: 0xa0fbn, guestSsAccessRights: 0x1_0060n }),
  ...ofUsable('ss'),

  'guest.ss.dpl-fred': with64({
    ...FRED,
    guestCsSelector: 9n,
    guestCsAccessRights: 0xa0bbn,
    guestSsSelector: 1n,
    guestSsAccessRights: 0x1_0020n,
  }),
  'guest.cs.l-fred-cpl0': with64({ ...FRED, guestCsAccessRights: 0xc09bn }),
  'guest.rflags.iopl-fred-cpl3': with64({ ...FRED, ...CPL_3, guestRflags: 0x1002n }),
  'guest.intr.sti-fred-cpl3': with64({
    ...FRED,
    ...CPL_3,
    guestRflags: IF,
    guestInterruptibilityState: 1n,
  }),

  'guest.fs.base-canonical': with64({ guestFsBase: NOT_CANONICAL }),
  'guest.gs.base-canonical': with64({ guestGsBase: NOT_CANONICAL }),
  'guest.ds.base-high': usableWith('Ds', { guestDsBase: one(32) }),
  'guest.es.base-high': usableWith('Es', { guestEsBase: one(63) }),
  'guest.ds.type-accessed': usableWith('Ds', { guestDsAccessRights: 0xc092n }),
  'guest.ds.type-readable': usableWith('Ds', { guestDsAccessRights: 0xc099n }),
  'guest.es.type-accessed': usableWith('Es', { guestEsAccessRights: 0xc092n }),
  'guest.es.type-readable': usableWith('Es', { guestEsAccessRights: 0xc09dn }),
  'guest.fs.type-accessed': usableWith('Fs', { guestFsAccessRights: 0xc096n }),
  'guest.fs.type-readable': usableWith('Fs', { guestFsAccessRights: 0xc099n }),
  'guest.gs.type-accessed': usableWith('Gs', { guestGsAccessRights: 0xc09an }),
  'guest.gs.type-readable': usableWith('Gs', { guestGsAccessRights: 0xc09dn }),
  'guest.ds.dpl-ge-rpl': usableWith('Ds', { guestDsSelector: 3n }),
  'guest.es.dpl-ge-rpl': usableWith('Es', { guestEsSelector: 1n }),
  'guest.fs.dpl-ge-rpl': usableWith('Fs', { guestFsSelector: 2n }),
  'guest.gs.dpl-ge-rpl': usableWith('Gs', { guestGsSelector: 3n, guestGsAccessRights: 0xc0d3n }),
  ...ofUsable('ds'),
  ...ofUsable('es'),
  ...ofUsable('fs'),
  ...ofUsable('gs'),

  'guest.tr.sel-ti': with64({ guestTrSelector: 0x1cn }),
  'guest.tr.base-canonical': with64({ guestTrBase: NOT_CANONICAL }),
  'guest.tr.type-legacy': legacy({ guestTrAccessRights: 0x89n }),
  'guest.tr.type-ia32e': with64({ guestTrAccessRights: 0x83n }),
  'guest.tr.s': with64({ guestTrAccessRights: 0x9bn }),
  'guest.tr.p': with64({ guestTrAccessRights: 0x0bn }),
  'guest.tr.ar-reserved-11-8': with64({ guestTrAccessRights: 0x48bn }),
  'guest.tr.g-limit-low': with64({ guestTrAccessRights: 0x808bn }),
  'guest.tr.g-limit-high': with64({ guestTrLimit: 0x10_0fffn }),
  'guest.tr.usable': with64({ guestTrAccessRights: 0x1_008bn }),
  'guest.tr.ar-reserved-31-17': with64({ guestTrAccessRights: 0x4000_008bn }),
  'guest.ldtr.sel-ti': usableLdtr({ guestLdtrSelector: 4n }),
  'guest.ldtr.base-canonical': usableLdtr({ guestLdtrBase: NOT_CANONICAL }),
  'guest.ldtr.type': usableLdtr({ guestLdtrAccessRights: 0x83n }),
  'guest.ldtr.s': usableLdtr({ guestLdtrAccessRights: 0x92n }),
  'guest.ldtr.p': usableLdtr({ guestLdtrAccessRights: 0x02n }),
  'guest.ldtr.ar-reserved-11-8': usableLdtr({ guestLdtrAccessRights: 0x282n }),
  'guest.ldtr.g-limit-low': usableLdtr({ guestLdtrAccessRights: 0x8082n }),
  'guest.ldtr.g-limit-high': usableLdtr({ guestLdtrLimit: 0x8000_0fffn }),
  'guest.ldtr.ar-reserved-31-17': usableLdtr({ guestLdtrAccessRights: 0x2_0082n }),

  'guest.gdtr.base-canonical': with64({ guestGdtrBase: NOT_CANONICAL }),
  'guest.gdtr.limit-high': with64({ guestGdtrLimit: 0x1_0000n }),
  'guest.idtr.base-canonical': with64({ guestIdtrBase: NOT_CANONICAL }),
  'guest.idtr.limit-high': with64({ guestIdtrLimit: 0x8000_0000n }),

  'guest.rip.high-32': legacy({ guestRip: one(32) }),
  'guest.rip.high-identical': with64({ guestRip: one(57) }),
  'guest.rflags.reserved-zero': with64({ guestRflags: 2n | one(22) }),
  'guest.rflags.bit1': with64({ guestRflags: 0n }),
  'guest.rflags.vm-not-ia32e': with64(V86),
  'guest.rflags.vm-not-real-mode': realMode(V86),
  'guest.rflags.if-ext-int': with64({ injectedEventIdentification: EXTERNAL_INTERRUPT }),
  'guest.ssp.align': with64({ guestSsp: 2n }, ['entry.loadCetState']),
  'guest.ssp.high-identical': with64({ guestSsp: one(57) }, ['entry.loadCetState']),
  'guest.ssp.high-32': legacy({ guestSsp: one(32) }, ['entry.loadCetState']),

  'guest.activity.defined': {
    ...with64({ guestActivityState: 4n }),
    also: ['guest.activity.supported'],
  },
  'guest.activity.supported': {
    ...with64({ guestActivityState: 1n }),
    msrs: { IA32_VMX_MISC: 0n },
  },
  'guest.activity.hlt-needs-cpl0': with64({ ...CPL_3, guestActivityState: 1n }),
  'guest.activity.active-if-blocking': with64({ guestActivityState: 2n, guestInterruptibilityState: 2n }),
  'guest.activity.inject-hlt': with64({
    guestActivityState: 1n,
    injectedEventIdentification: SOFTWARE_INTERRUPT,
  }),
  'guest.activity.inject-shutdown': with64({
    guestActivityState: 2n,
    guestRflags: IF,
    injectedEventIdentification: EXTERNAL_INTERRUPT,
  }),
  'guest.activity.inject-wait-sipi': with64({
    guestActivityState: 3n,
    injectedEventIdentification: NMI,
  }),
  'guest.activity.wait-sipi-not-entry-to-smm': {
    ...with64({ guestActivityState: 3n, guestInterruptibilityState: 4n }, ['entry.entryToSmm']),
    environment: { inSmm: true },
  },

  'guest.intr.reserved': with64({ guestInterruptibilityState: one(5) }),
  'guest.intr.not-sti-and-mov-ss': with64({ guestInterruptibilityState: 3n, guestRflags: IF }),
  'guest.intr.sti-needs-if': with64({ guestInterruptibilityState: 1n }),
  'guest.intr.sti-not-with-ext-int': with64({
    guestInterruptibilityState: 1n,
    guestRflags: IF,
    injectedEventIdentification: EXTERNAL_INTERRUPT,
  }),
  'guest.intr.mov-ss-not-with-ext-int': with64({
    guestInterruptibilityState: 2n,
    guestRflags: IF,
    injectedEventIdentification: EXTERNAL_INTERRUPT,
  }),
  'guest.intr.sti-not-with-nmi': with64({
    guestInterruptibilityState: 1n,
    guestRflags: IF,
    injectedEventIdentification: NMI,
  }),
  'guest.intr.mov-ss-not-with-nmi': with64({
    guestInterruptibilityState: 2n,
    injectedEventIdentification: NMI,
  }),
  'guest.intr.smi-outside-smm': with64({ guestInterruptibilityState: 4n }),
  'guest.intr.smi-entry-to-smm': { ...with64({}, ['entry.entryToSmm']), environment: { inSmm: true } },
  'guest.intr.nmi-virtual-nmis': with64(
    { guestInterruptibilityState: 8n, injectedEventIdentification: NMI },
    ['pin.nmiExiting', 'pin.virtualNmis'],
  ),
  'guest.intr.enclave-not-mov-ss': with64({ guestInterruptibilityState: 0x12n }),
  'guest.intr.enclave-needs-sgx': {
    ...with64({ guestInterruptibilityState: 0x10n }),
    features: { sgx: false },
  },

  'guest.pdbg.reserved': with64({ guestPendingDebugExceptions: one(4) }),
  'guest.pdbg.bs-set': with64({ guestInterruptibilityState: 2n, guestRflags: 0x102n }),
  'guest.pdbg.bs-clear': with64({ guestInterruptibilityState: 2n, guestPendingDebugExceptions: one(14) }),
  'guest.pdbg.rtm-bits-clear': with64({ guestPendingDebugExceptions: 0x1_1001n }),
  'guest.pdbg.rtm-bit12': with64({ guestPendingDebugExceptions: 0x1_0000n }),
  'guest.pdbg.rtm-supported': {
    ...with64({ guestPendingDebugExceptions: 0x1_1000n }),
    features: { rtm: false },
  },
  'guest.pdbg.rtm-not-mov-ss': with64({
    guestPendingDebugExceptions: 0x1_1000n,
    guestInterruptibilityState: 2n,
  }),

  'guest.link.align': linked(0x2008n, REVISION),
  'guest.link.width': linked(one(52), REVISION),
  'guest.link.revision': linked(0x2000n, REVISION ^ 1n),
  'guest.link.shadow-indicator': linked(0x2000n, REVISION | one(31)),
  'guest.link.not-executive': {
    fields: { vmcsLinkPointer: 0x2000n, executiveVmcsPointer: 0x2000n },
    environment: { inSmm: true },
    memory: [[0x2000, REVISION]],
  },
  'guest.link.not-current': linked(0x1000n, REVISION),

  'guest.pdpte0.memory': pdpteInMemory(0),
  'guest.pdpte1.memory': pdpteInMemory(1),
  'guest.pdpte2.memory': pdpteInMemory(2),
  'guest.pdpte3.memory': pdpteInMemory(3),
  'guest.pdpte0.field': legacy({ guestPdpte0: 3n }, ['proc2.enableEpt']),
  'guest.pdpte1.field': legacy({ guestPdpte1: 0x21n }, ['proc2.enableEpt']),
  'guest.pdpte2.field': legacy({ guestPdpte2: 0x101n }, ['proc2.enableEpt']),
  'guest.pdpte3.field': legacy({ guestPdpte3: one(52) | 1n }, ['proc2.enableEpt']),
};

/** Legal guests other than the smallest. */
export const LEGAL_GUESTS: Readonly<Record<string, Witness>> = {
  'at CPL 3': with64(CPL_3),
  'with FRED at CPL 0': with64(FRED),
  'with FRED at CPL 3': with64({ ...FRED, ...CPL_3 }),
  'in virtual-8086 mode': virtual8086({}),
  'in real-address mode': realMode({}),
  'in protected mode without paging': legacy({ guestCr0: 0x21n }, UNRESTRICTED),
  'with PAE paging': legacy({ guestCr0: CR0, guestPdpte0: 0xe01n }, ['proc2.enableEpt']),
  'with usable LDTR': usableLdtr({}),
};

/** The fields of a guest in virtual-8086 mode. */
export const VIRTUAL_8086 = V86;
