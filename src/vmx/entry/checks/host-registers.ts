/** Checks on host control registers, MSRs and SSP (SDM §29.2.2). */
import { mask } from '../../../bits/u64.ts';
import {
  cetReserved,
  cetTrackerConsistent,
  eferReserved,
  FRED_CONFIG_RESERVED,
  isPatValid,
  specCtrlReserved,
} from '../../../cpu/msr-catalogue.ts';
import { perfGlobalCtrlReserved } from '../../../cpu/performance-counters.ts';
import { CR0, CR4, EFER } from '../../../cpu/registers.ts';
import {
  checkList,
  checksOf,
  clear,
  condition,
  fieldsOfControl,
  INVALID_HOST_STATE,
  on,
  raise,
  set,
} from '../check.ts';
import type { CheckContext } from '../check-context.ts';
import { canonical, INTEL_64, reservedZero, zero } from './requirements.ts';

const check = checksOf('29.2.2', INVALID_HOST_STATE);

const one = (position: number) => 1n << BigInt(position);

const CD_NW = one(CR0.CD) | one(CR0.NW);

/** Fixed bits that VM entry holds the host to: CD and NW of CR0 are never checked. */
function fixed(c: CheckContext, register: 'CR0' | 'CR4'): { must1: bigint; may1: bigint } {
  const { must1, may1 } = c.capabilities.fixedBits(register);
  const free = register === 'CR0' ? CD_NW : 0n;
  return { must1: must1 & ~free, may1: may1 | free };
}

const FIXED = [
  ['host.cr0.fixed', 'hostCr0', 'CR0'],
  ['host.cr4.fixed', 'hostCr4', 'CR4'],
] as const;

const LAM_U57_U48 = mask(62, 61);

/**
 * Bits of CR3 at and above the width of addresses.
 * DEVIATION(cr3-lam): §29.2.2 does not mention LAM_U57 and LAM_U48 (bits 61 and 62); they are not
 * reserved on a processor that supports linear-address masking.
 */
function cr3Reserved(c: CheckContext): bigint {
  const beyond = mask(63, c.addressWidth);
  return c.features.cr4Bits & one(CR4.LAM_SUP) ? beyond & ~LAM_U57_U48 : beyond;
}

/** A PAT with UC in place of each byte that is no memory type. */
function legalPat(pat: bigint): bigint {
  let legal = pat;
  for (let i = 0; i < 64; i += 8) {
    const byte = pat & mask(i + 7, i);
    if (!isPatValid(byte)) legal &= ~byte;
  }
  return legal;
}

const EFER_BITS = [
  ['host.efer.lma-eq-host64', 'LMA'],
  ['host.efer.lme-eq-host64', 'LME'],
] as const;

/** FRED MSRs that hold an address, and the bits that have to be 0 in it. */
const FRED_POINTERS = [
  ['rsp1', 'RSP1', 'hostIa32FredRsp1', 5],
  ['rsp2', 'RSP2', 'hostIa32FredRsp2', 5],
  ['rsp3', 'RSP3', 'hostIa32FredRsp3', 5],
  ['ssp1', 'SSP1', 'hostIa32FredSsp1', 2],
  ['ssp2', 'SSP2', 'hostIa32FredSsp2', 2],
  ['ssp3', 'SSP3', 'hostIa32FredSsp3', 2],
] as const;

const SYSENTER = [
  ['host.sysenter-esp.canonical', 'IA32_SYSENTER_ESP', 'hostIa32SysenterEsp'],
  ['host.sysenter-eip.canonical', 'IA32_SYSENTER_EIP', 'hostIa32SysenterEip'],
] as const;

export const HOST_REGISTERS = checkList('29.2.2', [
  ...FIXED.map(([id, field, register]) =>
    check(id, {
      rule: `Host ${register}: the bits that are fixed in VMX operation have their fixed values${register === 'CR0' ? ' (CD and NW apart)' : ''}.`,
      fields: [field],
      holds: (c) => {
        const { must1, may1 } = fixed(c, register);
        return (c.value(field) & must1) === must1 && (c.value(field) & ~may1) === 0n;
      },
      fix: (c) => {
        const { must1, may1 } = fixed(c, register);
        return set(field, (c.value(field) | must1) & may1);
      },
    }),
  ),
  check('host.cr4.cet-needs-wp', {
    rule: 'Host CR0.WP is 1.',
    when: [condition('host CR4.CET is 1', ['hostCr4'], (c) => c.bit('hostCr4', CR4.CET))],
    fields: ['hostCr0'],
    holds: (c) => c.bit('hostCr0', CR0.WP),
    fix: (c) => raise(c, 'hostCr0', one(CR0.WP)),
  }),
  check('host.cr3.width', {
    rule: 'Host CR3: no bit beyond the physical-address width is 1 (LAM bits apart, where supported).',
    when: [INTEL_64],
    ...reservedZero('hostCr3', cr3Reserved),
  }),
  check('host.cr3.bit63', {
    rule: 'Host CR3: bit 63 is 0, even with host CR4.PCIDE.',
    when: [INTEL_64],
    ...zero('hostCr3', one(63)),
  }),
  ...SYSENTER.map(([id, name, field]) =>
    check(id, { rule: `Host ${name} is canonical.`, when: [INTEL_64], ...canonical(field) }),
  ),
  check('host.perf-global-ctrl.reserved', {
    rule: 'Host IA32_PERF_GLOBAL_CTRL: reserved bits are 0.',
    when: [on('exit.loadIa32PerfGlobalCtrl')],
    ...reservedZero('hostIa32PerfGlobalCtrl', (c) => perfGlobalCtrlReserved(c.features)),
  }),
  check('host.pat.memtype', {
    rule: 'Host IA32_PAT: each byte is a memory type, 0, 1, 4, 5, 6 or 7.',
    when: [on('exit.loadIa32Pat')],
    fields: ['hostIa32Pat'],
    holds: (c) => isPatValid(c.value('hostIa32Pat')),
    fix: (c) => set('hostIa32Pat', legalPat(c.value('hostIa32Pat'))),
  }),
  check('host.efer.reserved', {
    rule: 'Host IA32_EFER: reserved bits are 0.',
    when: [on('exit.loadIa32Efer')],
    ...reservedZero('hostIa32Efer', (c) => eferReserved(c.features)),
  }),
  ...EFER_BITS.map(([id, name]) =>
    check(id, {
      rule: `Host IA32_EFER.${name} equals the "host address-space size" VM-exit control.`,
      when: [on('exit.loadIa32Efer')],
      fields: ['hostIa32Efer', ...fieldsOfControl('exit.hostAddressSpaceSize')],
      holds: (c) => c.bit('hostIa32Efer', EFER[name]) === c.control('exit.hostAddressSpaceSize'),
      fix: (c) =>
        c.control('exit.hostAddressSpaceSize')
          ? raise(c, 'hostIa32Efer', one(EFER[name]))
          : clear(c, 'hostIa32Efer', one(EFER[name])),
    }),
  ),
  check('host.s-cet.reserved', {
    rule: 'Host IA32_S_CET: reserved bits are 0.',
    when: [on('exit.loadCetState')],
    ...reservedZero('hostIa32SCet', (c) => cetReserved(c.features)),
  }),
  check('host.s-cet.suppress-tracker', {
    rule: 'Host IA32_S_CET: SUPPRESS (bit 10) and TRACKER (bit 11) are not both 1.',
    when: [on('exit.loadCetState')],
    fields: ['hostIa32SCet'],
    holds: (c) => cetTrackerConsistent(c.value('hostIa32SCet')),
    fix: (c) => clear(c, 'hostIa32SCet', one(10)),
  }),
  check('host.ssp.align', {
    rule: 'Host SSP: bits 1:0 are 0.',
    when: [on('exit.loadCetState')],
    ...zero('hostSsp', mask(1, 0)),
  }),
  check('host.pkrs.high', {
    rule: 'Host IA32_PKRS: bits 63:32 are 0.',
    when: [on('exit.loadPkrs')],
    ...zero('hostIa32Pkrs', mask(63, 32)),
  }),
  check('host.fred-config.reserved', {
    rule: 'Host IA32_FRED_CONFIG: bits 2, 5:4 and 11 are 0.',
    when: [on('exit2.loadFred')],
    ...zero('hostIa32FredConfig', FRED_CONFIG_RESERVED),
  }),
  check('host.fred-config.canonical', {
    rule: 'Host IA32_FRED_CONFIG is canonical.',
    when: [on('exit2.loadFred')],
    ...canonical('hostIa32FredConfig'),
  }),
  ...FRED_POINTERS.flatMap(([name, title, field, high]) => [
    check(`host.fred-${name}.canonical`, {
      rule: `Host IA32_FRED_${title} is canonical.`,
      when: [on('exit2.loadFred')],
      ...canonical(field),
    }),
    check(`host.fred-${name}.align`, {
      rule: `Host IA32_FRED_${title}: bits ${high}:0 are 0.`,
      when: [on('exit2.loadFred')],
      ...zero(field, mask(high, 0)),
    }),
  ]),
  check('host.spec-ctrl.reserved', {
    rule: 'Host IA32_SPEC_CTRL: reserved bits are 0.',
    when: [on('exit2.loadIa32SpecCtrl')],
    ...reservedZero('hostIa32SpecCtrl', (c) => specCtrlReserved(c.features)),
  }),
]);
