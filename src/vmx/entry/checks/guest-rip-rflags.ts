/** Checks on RIP, RFLAGS and SSP of the guest (SDM §29.3.1.4). RIP is not held to the CS limit. */
import { mask } from '../../../bits/u64.ts';
import { RFLAGS } from '../../../cpu/registers.ts';
import { checkList, checksOf, condition, invalidGuestState, on } from '../check.ts';
import {
  IA32E_MODE,
  INJECTING_EXTERNAL_INTERRUPT,
  MODE_64_BIT,
  NOT_64_BIT_MODE,
  PE_0,
} from './guest-conditions.ts';
import { highIdentical, one } from './guest-requirements.ts';
import { INTEL_64, zero } from './requirements.ts';

const check = checksOf('29.3.1.4', invalidGuestState());

const FIXED_0 = mask(63, 22) | mask(15, 15) | mask(5, 5) | mask(3, 3);
const VM = 1n << BigInt(RFLAGS.VM);

const NARROW = condition(
  'the processor supports fewer than 64 linear-address bits',
  [],
  (c) => c.features.linearAddressBits < 64,
);
const LOAD_CET_STATE = on('entry.loadCetState');

export const GUEST_RIP = checkList(
  '29.3.1.4',
  [
    check('guest.rip.high-32', {
      rule: 'RIP: bits 63:32 are 0.',
      when: [INTEL_64, NOT_64_BIT_MODE],
      ...zero('guestRip', mask(63, 32)),
    }),
    check('guest.rip.high-identical', {
      rule: 'RIP: the bits beyond the linear-address width are all equal.',
      when: [INTEL_64, NARROW, MODE_64_BIT],
      ...highIdentical('guestRip'),
    }),
  ],
  // Most hypervisors write RIP at every exit (bench: "CPUID exit and VMRESUME").
  (c) => c.high('guestRip') === 0,
);

export const GUEST_RFLAGS = checkList('29.3.1.4', [
  check('guest.rflags.reserved-zero', {
    rule: 'RFLAGS: bits 63:22, 15, 5 and 3 are 0.',
    ...zero('guestRflags', FIXED_0),
  }),
  check('guest.rflags.bit1', {
    rule: 'RFLAGS: bit 1 is 1.',
    ...one('guestRflags', 2),
  }),
  check('guest.rflags.vm-not-ia32e', {
    rule: 'RFLAGS.VM is 0.',
    when: [IA32E_MODE],
    ...zero('guestRflags', VM),
  }),
  check('guest.rflags.vm-not-real-mode', {
    rule: 'RFLAGS.VM is 0.',
    when: [PE_0],
    ...zero('guestRflags', VM),
  }),
  check('guest.rflags.if-ext-int', {
    rule: 'RFLAGS.IF is 1.',
    when: [INJECTING_EXTERNAL_INTERRUPT],
    ...one('guestRflags', 1 << RFLAGS.IF),
  }),
]);

export const GUEST_SSP = checkList('29.3.1.4', [
  check('guest.ssp.align', {
    rule: 'SSP: bits 1:0 are 0.',
    when: [LOAD_CET_STATE],
    ...zero('guestSsp', 3n),
  }),
  check('guest.ssp.high-identical', {
    rule: 'SSP: the bits beyond the linear-address width are all equal.',
    when: [LOAD_CET_STATE, INTEL_64, NARROW],
    ...highIdentical('guestSsp'),
  }),
  // Not in the list of §29.3.1.4: the section on loading SSP says it.
  checksOf('29.3.2.3', invalidGuestState())('guest.ssp.high-32', {
    rule: 'SSP: bits 63:32 are 0.',
    when: [LOAD_CET_STATE, NOT_64_BIT_MODE],
    ...zero('guestSsp', mask(63, 32)),
  }),
]);
