/**
 * Checks related to address-space size (SDM §29.2.4). The manual leaves the error number open: 8 for
 * `host.*`, as observed elsewhere, and 7 for the two that look at controls only.
 */
import { isCanonical, signExtend } from '../../../bits/address.ts';
import { mask } from '../../../bits/u64.ts';
import { CR4 } from '../../../cpu/registers.ts';
import type { FieldName } from '../../../vmcs/fields.ts';
import {
  type CheckOptions,
  checkList,
  checksOf,
  condition,
  INVALID_CONTROL,
  INVALID_HOST_STATE,
  off,
  on,
  raise,
  set,
  turn,
} from '../check.ts';
import type { CheckContext } from '../check-context.ts';
import { canonical, INTEL_64, isOff, zero } from './requirements.ts';

const check = checksOf('29.2.4', INVALID_HOST_STATE);

const ia32eMode = (c: CheckContext) => c.ask(c.environment.ia32eMode(), 'IA32_EFER.LMA', false);
const LONG = condition('IA32_EFER.LMA is 1', [], ia32eMode);
const LEGACY = condition('IA32_EFER.LMA is 0', [], (c) => !ia32eMode(c));
const NO_INTEL_64 = condition('the processor does not support Intel 64', [], (c) => !c.features.intel64);

const HOST_64 = [INTEL_64, on('exit.hostAddressSpaceSize')];
const HOST_32 = [INTEL_64, off('exit.hostAddressSpaceSize')];

/** Width of linear addresses in the paging mode that VM exit will establish: 4 or 5 levels by host CR4.LA57. */
function hostLinearWidth(c: CheckContext): number {
  return Math.min(c.bit('hostCr4', CR4.LA57) ? 57 : 48, c.features.linearAddressBits);
}

/** Canonical as the host will see it, in its own paging mode. */
function canonicalForHost(field: FieldName): Pick<CheckOptions, 'fields' | 'holds' | 'fix'> {
  return {
    fields: [field, 'hostCr4'],
    holds: (c) => isCanonical(c.value(field), hostLinearWidth(c)),
    fix: (c) => set(field, signExtend(c.value(field), hostLinearWidth(c))),
  };
}

/** What is wider with a 64-bit host: bits 63:32 are 0 with a 32-bit one. */
const HIGH_HALVES = [
  ['rip', 'Host RIP', 'hostRip', []],
  ['s-cet', 'Host IA32_S_CET', 'hostIa32SCet', ['exit.loadCetState']],
  ['ssp', 'Host SSP', 'hostSsp', ['exit.loadCetState']],
] as const;

export const ADDRESS_SPACE_SIZE = checkList('29.2.4', [
  check('host.addrspace.legacy-no-ia32e-guest', {
    when: [INTEL_64, LEGACY],
    ...isOff('entry.ia32eModeGuest'),
    looksOutside: 'processor',
  }),
  check('host.addrspace.legacy-no-host64', {
    when: [INTEL_64, LEGACY],
    ...isOff('exit.hostAddressSpaceSize'),
    looksOutside: 'processor',
  }),
  check('host.addrspace.long-needs-host64', {
    rule: 'The "host address-space size" VM-exit control is 1.',
    when: [INTEL_64, LONG],
    fields: ['primaryVmExitControls'],
    holds: (c) => c.control('exit.hostAddressSpaceSize'),
    fix: (c) => turn(c, 'exit.hostAddressSpaceSize', 1),
    looksOutside: 'processor',
  }),
  check('host.addrspace.host32-no-ia32e-guest', { when: HOST_32, ...isOff('entry.ia32eModeGuest') }),
  check('host.cr4.pcide-needs-host64', {
    rule: 'Host CR4.PCIDE is 0.',
    when: HOST_32,
    ...zero('hostCr4', 1n << BigInt(CR4.PCIDE)),
  }),
  check('host.cr4.fred-needs-host64', {
    rule: 'Host CR4.FRED is 0.',
    when: HOST_32,
    ...zero('hostCr4', 1n << BigInt(CR4.FRED)),
  }),
  ...HIGH_HALVES.map(([name, title, field, controls]) =>
    check(`host.${name}.high-if-host32`, {
      rule: `${title}: bits 63:32 are 0.`,
      when: [...HOST_32, ...controls.map(on)],
      ...zero(field, mask(63, 32)),
    }),
  ),
  check('host.cr4.pae-if-host64', {
    rule: 'Host CR4.PAE is 1.',
    when: HOST_64,
    fields: ['hostCr4'],
    holds: (c) => c.bit('hostCr4', CR4.PAE),
    fix: (c) => raise(c, 'hostCr4', 1n << BigInt(CR4.PAE)),
  }),
  check('host.rip.canonical-if-host64', {
    rule: 'Host RIP is canonical in the paging mode of the host.',
    when: HOST_64,
    ...canonicalForHost('hostRip'),
  }),
  check('host.s-cet.canonical-if-host64', {
    rule: 'Host IA32_S_CET is canonical.',
    when: [...HOST_64, on('exit.loadCetState')],
    ...canonical('hostIa32SCet'),
  }),
  check('host.ssp.canonical-if-host64', {
    rule: 'Host SSP is canonical in the paging mode of the host.',
    when: [...HOST_64, on('exit.loadCetState')],
    ...canonicalForHost('hostSsp'),
  }),
  check('host.int-ssp-table.canonical', {
    rule: 'Host IA32_INTERRUPT_SSP_TABLE_ADDR is canonical.',
    when: [INTEL_64, on('exit.loadCetState')],
    ...canonical('hostIa32InterruptSspTableAddr'),
  }),
  check('ctrl.entry.ia32e-guest-unsupported', {
    when: [NO_INTEL_64],
    ...isOff('entry.ia32eModeGuest'),
    consequence: INVALID_CONTROL,
  }),
  check('ctrl.exit.host64-unsupported', {
    when: [NO_INTEL_64],
    ...isOff('exit.hostAddressSpaceSize'),
    consequence: INVALID_CONTROL,
  }),
]);
