/**
 * Checks on control registers, debug registers and MSRs of the guest (SDM §29.3.1.1). They look at the
 * CR0 and CR4 fields, never at the read shadows.
 */
import { isCanonical, signExtend } from '../../../bits/address.ts';
import { mask } from '../../../bits/u64.ts';
import {
  BNDCFGS_RESERVED,
  cetReserved,
  cetTrackerConsistent,
  debugctlReserved,
  eferReserved,
  FRED_CONFIG_RESERVED,
  isPatValid,
  LBR_CTL_RESERVED,
  RTIT_CTL_RESERVED,
  specCtrlReserved,
} from '../../../cpu/msr-catalogue.ts';
import { perfGlobalCtrlReserved } from '../../../cpu/performance-counters.ts';
import { CR0, CR4, EFER } from '../../../cpu/registers.ts';
import { checkList, checksOf, clear, fieldsOfControl, invalidGuestState, on, raise, set } from '../check.ts';
import type { CheckContext } from '../check-context.ts';
import { CET_1, IA32E_MODE, NO_IA32E_MODE, PG_1 } from './guest-conditions.ts';
import { one } from './guest-requirements.ts';
import { canonical, INTEL_64, reservedZero, zero } from './requirements.ts';

const check = checksOf('29.3.1.1', invalidGuestState());

const bitMask = (position: number) => 1n << BigInt(position);

const PE_PG = bitMask(CR0.PE) | bitMask(CR0.PG);
const NW_CD = bitMask(CR0.NW) | bitMask(CR0.CD);
const LMA = bitMask(EFER.LMA);
const LME = bitMask(EFER.LME);
const LAM = mask(62, 61);

/** What VMX operation demands of guest CR0, without the bits that the guest is free in. */
function cr0Fixed(c: CheckContext): { readonly must1: bigint; readonly may1: bigint } {
  const { must1, may1 } = c.capabilities.fixedBits('CR0');
  const free = NW_CD | (c.unrestrictedGuest ? PE_PG : 0n);
  return { must1: must1 & ~free, may1: may1 | free };
}

/**
 * Bits of guest CR3 that must be 0. DEVIATION(cr3-lam): the manual does not except bits 62:61; here
 * they are not reserved on a processor with linear-address masking.
 */
function cr3Reserved(c: CheckContext): bigint {
  const reduction = c.control('proc2.enableEpt')
    ? 0
    : c.ask(c.environment.tmeReduction(), 'IA32_TME_ACTIVATE', 0);
  const lam = (c.features.cr4Bits & bitMask(CR4.LAM_SUP)) !== 0n ? LAM : 0n;
  return mask(63, c.features.physicalAddressBits - reduction) & ~lam;
}

export const GUEST_CONTROL_REGISTERS = checkList('29.3.1.1', [
  check('guest.cr0.fixed', {
    rule: 'Guest CR0 has the values that VMX operation fixes, except NW and CD, and with "unrestricted guest" PE and PG.',
    fields: ['guestCr0', ...fieldsOfControl('proc2.unrestrictedGuest')],
    holds: (c) => {
      const { must1, may1 } = cr0Fixed(c);
      const cr0 = c.value('guestCr0');
      return (cr0 & must1) === must1 && (cr0 & ~may1) === 0n;
    },
    fix: (c) => {
      const { must1, may1 } = cr0Fixed(c);
      return set('guestCr0', (c.value('guestCr0') & may1) | must1);
    },
  }),
  check('guest.cr0.pg-needs-pe', {
    rule: 'Guest CR0.PE is 1.',
    when: [PG_1],
    ...one('guestCr0', 1 << CR0.PE),
  }),
  check('guest.cr4.fixed', {
    rule: 'Guest CR4 has the values that VMX operation fixes.',
    fields: ['guestCr4'],
    holds: (c) => {
      const { must1, may1 } = c.capabilities.fixedBits('CR4');
      const cr4 = c.value('guestCr4');
      return (cr4 & must1) === must1 && (cr4 & ~may1) === 0n;
    },
    fix: (c) => {
      const { must1, may1 } = c.capabilities.fixedBits('CR4');
      return set('guestCr4', (c.value('guestCr4') & may1) | must1);
    },
  }),
  check('guest.cr4.cet-needs-wp', {
    rule: 'Guest CR0.WP is 1.',
    when: [CET_1],
    ...one('guestCr0', 1 << CR0.WP),
  }),
  check('guest.cr0.pg-if-ia32e', {
    rule: 'Guest CR0.PG is 1.',
    when: [INTEL_64, IA32E_MODE],
    fields: ['guestCr0'],
    holds: (c) => c.bit('guestCr0', CR0.PG),
    fix: (c) => raise(c, 'guestCr0', bitMask(CR0.PG)),
  }),
  check('guest.cr4.pae-if-ia32e', {
    rule: 'Guest CR4.PAE is 1.',
    when: [INTEL_64, IA32E_MODE],
    ...one('guestCr4', 1 << CR4.PAE),
  }),
  check('guest.cr4.pcide-needs-ia32e', {
    rule: 'Guest CR4.PCIDE is 0.',
    when: [INTEL_64, NO_IA32E_MODE],
    ...zero('guestCr4', bitMask(CR4.PCIDE)),
  }),
  check('guest.cr4.fred-needs-ia32e', {
    rule: 'Guest CR4.FRED is 0.',
    when: [INTEL_64, NO_IA32E_MODE],
    ...zero('guestCr4', bitMask(CR4.FRED)),
  }),
]);

export const GUEST_CR3 = checkList('29.3.1.1', [
  check('guest.cr3.width', {
    rule: 'Guest CR3 has no bit beyond the physical-address width, which memory encryption narrows only without EPT.',
    when: [INTEL_64],
    fields: ['guestCr3', ...fieldsOfControl('proc2.enableEpt')],
    holds: (c) => (c.value('guestCr3') & cr3Reserved(c)) === 0n,
    fix: (c) => clear(c, 'guestCr3', cr3Reserved(c)),
  }),
  check('guest.cr3.bit63', {
    rule: 'Guest CR3: bit 63 is 0, even if guest CR4.PCIDE is 1.',
    when: [INTEL_64],
    ...zero('guestCr3', bitMask(63)),
  }),
]);

const LOAD_DEBUG_CONTROLS = on('entry.loadDebugControls');

export const GUEST_DEBUG_REGISTERS = checkList('29.3.1.1', [
  check('guest.debugctl.reserved', {
    rule: 'Guest IA32_DEBUGCTL: reserved bits are 0.',
    when: [LOAD_DEBUG_CONTROLS],
    ...reservedZero('guestIa32Debugctl', (c) => debugctlReserved(c.features)),
  }),
  check('guest.dr7.high', {
    rule: 'Guest DR7: bits 63:32 are 0.',
    when: [INTEL_64, LOAD_DEBUG_CONTROLS],
    ...zero('guestDr7', mask(63, 32)),
  }),
]);

const LOAD_CET_STATE = on('entry.loadCetState');
const LOAD_EFER = on('entry.loadIa32Efer');
const LOAD_BNDCFGS = on('entry.loadIa32Bndcfgs');

/** IA32_PAT with each byte that is no memory type made 6 (WB). */
function repairPat(value: bigint): bigint {
  let pat = 0n;
  for (let position = 0n; position < 64n; position += 8n) {
    const type = (value >> position) & 0xffn;
    pat |= (isPatValid(type) ? type : 6n) << position;
  }
  return pat;
}

export const GUEST_MSRS = checkList('29.3.1.1', [
  check('guest.sysenter-esp.canonical', {
    rule: 'Guest IA32_SYSENTER_ESP is canonical.',
    when: [INTEL_64],
    ...canonical('guestIa32SysenterEsp'),
  }),
  check('guest.sysenter-eip.canonical', {
    rule: 'Guest IA32_SYSENTER_EIP is canonical.',
    when: [INTEL_64],
    ...canonical('guestIa32SysenterEip'),
  }),
  check('guest.s-cet.canonical', {
    rule: 'Guest IA32_S_CET is canonical.',
    when: [INTEL_64, LOAD_CET_STATE],
    ...canonical('guestIa32SCet'),
  }),
  check('guest.int-ssp-table.canonical', {
    rule: 'Guest IA32_INTERRUPT_SSP_TABLE_ADDR is canonical.',
    when: [INTEL_64, LOAD_CET_STATE],
    ...canonical('guestIa32InterruptSspTableAddr'),
  }),
  check('guest.perf-global-ctrl.reserved', {
    rule: 'Guest IA32_PERF_GLOBAL_CTRL: reserved bits are 0.',
    when: [on('entry.loadIa32PerfGlobalCtrl')],
    ...reservedZero('guestIa32PerfGlobalCtrl', (c) => perfGlobalCtrlReserved(c.features)),
  }),
  check('guest.pat.memtype', {
    rule: 'Each byte of guest IA32_PAT is a memory type: 0, 1, 4, 5, 6 or 7.',
    when: [on('entry.loadIa32Pat')],
    fields: ['guestIa32Pat'],
    holds: (c) => isPatValid(c.value('guestIa32Pat')),
    fix: (c) => set('guestIa32Pat', repairPat(c.value('guestIa32Pat'))),
  }),
  check('guest.efer.reserved', {
    rule: 'Guest IA32_EFER: reserved bits are 0.',
    when: [LOAD_EFER],
    ...reservedZero('guestIa32Efer', (c) => eferReserved(c.features)),
  }),
  check('guest.efer.lma-eq-ia32e', {
    rule: 'Guest IA32_EFER.LMA equals the "IA-32e mode guest" VM-entry control.',
    when: [LOAD_EFER],
    fields: ['guestIa32Efer', ...fieldsOfControl('entry.ia32eModeGuest')],
    holds: (c) => c.bit('guestIa32Efer', EFER.LMA) === c.ia32eModeGuest,
    fix: (c) => (c.ia32eModeGuest ? raise : clear)(c, 'guestIa32Efer', LMA),
  }),
  check('guest.efer.lme-eq-lma', {
    rule: 'Guest IA32_EFER.LME equals guest IA32_EFER.LMA.',
    when: [LOAD_EFER, PG_1],
    fields: ['guestIa32Efer'],
    holds: (c) => c.bit('guestIa32Efer', EFER.LME) === c.bit('guestIa32Efer', EFER.LMA),
    fix: (c) => (c.bit('guestIa32Efer', EFER.LMA) ? raise : clear)(c, 'guestIa32Efer', LME),
  }),
  check('guest.bndcfgs.reserved', {
    rule: 'Guest IA32_BNDCFGS: reserved bits are 0.',
    when: [LOAD_BNDCFGS],
    ...zero('guestIa32Bndcfgs', BNDCFGS_RESERVED),
  }),
  check('guest.bndcfgs.canonical', {
    rule: 'The address in bits 63:12 of guest IA32_BNDCFGS is canonical.',
    when: [LOAD_BNDCFGS],
    fields: ['guestIa32Bndcfgs'],
    holds: (c) => isCanonical(c.value('guestIa32Bndcfgs') & ~0xfffn, c.features.linearAddressBits),
    fix: (c) =>
      set('guestIa32Bndcfgs', signExtend(c.value('guestIa32Bndcfgs'), c.features.linearAddressBits)),
  }),
  check('guest.rtit-ctl.reserved', {
    rule: 'Guest IA32_RTIT_CTL: reserved bits are 0.',
    when: [on('entry.loadIa32RtitCtl')],
    ...zero('guestIa32RtitCtl', RTIT_CTL_RESERVED),
  }),
  check('guest.s-cet.reserved', {
    rule: 'Guest IA32_S_CET: reserved bits are 0.',
    when: [LOAD_CET_STATE],
    ...reservedZero('guestIa32SCet', (c) => cetReserved(c.features)),
  }),
  check('guest.s-cet.suppress-tracker', {
    rule: 'Guest IA32_S_CET: of SUPPRESS and TRACKER (bits 10 and 11), at least one is 0.',
    when: [LOAD_CET_STATE],
    fields: ['guestIa32SCet'],
    holds: (c) => cetTrackerConsistent(c.value('guestIa32SCet')),
    fix: (c) => clear(c, 'guestIa32SCet', bitMask(10)),
  }),
  check('guest.lbr-ctl.reserved', {
    rule: 'Guest IA32_LBR_CTL: reserved bits are 0.',
    when: [on('entry.loadGuestIa32LbrCtl')],
    ...zero('guestIa32LbrCtl', LBR_CTL_RESERVED),
  }),
  check('guest.pkrs.high', {
    rule: 'Guest IA32_PKRS: bits 63:32 are 0.',
    when: [on('entry.loadPkrs')],
    ...zero('guestIa32Pkrs', mask(63, 32)),
  }),
  check('guest.uinv.high', {
    rule: 'Guest UINV: bits 15:8 are 0.',
    when: [on('entry.loadUinv')],
    ...zero('guestUinv', mask(15, 8)),
  }),
  check('guest.spec-ctrl.reserved', {
    rule: 'Guest IA32_SPEC_CTRL: reserved bits are 0.',
    when: [on('entry.loadIa32SpecCtrl')],
    ...reservedZero('guestIa32SpecCtrl', (c) => specCtrlReserved(c.features)),
  }),
]);

const LOAD_FRED = [on('entry.loadFred')];

/** Addresses of stack levels, and the number of their low bits that are 0. */
const FRED_STACKS = [
  { name: 'rsp1', msr: 'IA32_FRED_RSP1', field: 'guestIa32FredRsp1', zeros: 6 },
  { name: 'rsp2', msr: 'IA32_FRED_RSP2', field: 'guestIa32FredRsp2', zeros: 6 },
  { name: 'rsp3', msr: 'IA32_FRED_RSP3', field: 'guestIa32FredRsp3', zeros: 6 },
  { name: 'ssp1', msr: 'IA32_FRED_SSP1', field: 'guestIa32FredSsp1', zeros: 3 },
  { name: 'ssp2', msr: 'IA32_FRED_SSP2', field: 'guestIa32FredSsp2', zeros: 3 },
  { name: 'ssp3', msr: 'IA32_FRED_SSP3', field: 'guestIa32FredSsp3', zeros: 3 },
] as const;

export const GUEST_FRED_MSRS = checkList('29.3.1.1', [
  check('guest.fred-config.reserved', {
    rule: 'Guest IA32_FRED_CONFIG: bits 2, 5:4 and 11 are 0.',
    when: LOAD_FRED,
    ...zero('guestIa32FredConfig', FRED_CONFIG_RESERVED),
  }),
  check('guest.fred-config.canonical', {
    rule: 'Guest IA32_FRED_CONFIG is canonical.',
    when: LOAD_FRED,
    ...canonical('guestIa32FredConfig'),
  }),
  ...FRED_STACKS.flatMap(({ name, msr, field, zeros }) => [
    check(`guest.fred-${name}.canonical`, {
      rule: `Guest ${msr} is canonical.`,
      when: LOAD_FRED,
      ...canonical(field),
    }),
    check(`guest.fred-${name}.align`, {
      rule: `Guest ${msr}: bits ${zeros - 1}:0 are 0.`,
      when: LOAD_FRED,
      ...zero(field, mask(zeros - 1, 0)),
    }),
  ]),
]);
