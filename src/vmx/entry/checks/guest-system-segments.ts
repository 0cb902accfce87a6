/** Checks on TR and LDTR (SDM §29.3.1.2). TR must be usable; its DPL and least limit are not checked. */
import { AR_UNUSABLE } from '../../../vmcs/formats.ts';
import { checkList, checksOf, invalidGuestState } from '../check.ts';
import { IA32E_MODE, NO_IA32E_MODE, usable } from './guest-conditions.ts';
import { setType } from './guest-requirements.ts';
import { zero } from './requirements.ts';
import { baseCanonical, descriptorKind, granularity, present, reserved } from './segment-rows.ts';

const check = checksOf('29.3.1.2', invalidGuestState());

const TR_RIGHTS = 'guestTrAccessRights';
const LDTR_RIGHTS = 'guestLdtrAccessRights';
const TI = 1n << 2n;
const BUSY_TSS_16 = 3;
const BUSY_TSS = 11;
const LDT = 2;

export const GUEST_TR = checkList('29.3.1.2', [
  check('guest.tr.sel-ti', {
    rule: 'TR selector: bit 2 (TI) is 0.',
    ...zero('guestTrSelector', TI),
  }),
  baseCanonical('tr', []),
  check('guest.tr.type-legacy', {
    rule: 'TR type is 3 or 11: a busy TSS.',
    when: [NO_IA32E_MODE],
    fields: [TR_RIGHTS],
    holds: (c) => c.segmentType('tr') === BUSY_TSS_16 || c.segmentType('tr') === BUSY_TSS,
    fix: (c) => setType(c, 'tr', BUSY_TSS),
  }),
  check('guest.tr.type-ia32e', {
    rule: 'TR type is 11: a busy 64-bit TSS.',
    when: [IA32E_MODE],
    fields: [TR_RIGHTS],
    holds: (c) => c.segmentType('tr') === BUSY_TSS,
    fix: (c) => setType(c, 'tr', BUSY_TSS),
  }),
  descriptorKind('tr', 0, []),
  present('tr', []),
  reserved('tr', '11-8', []),
  ...granularity('tr', []),
  check('guest.tr.usable', {
    rule: 'TR is usable: bit 16 of its access rights is 0.',
    ...zero(TR_RIGHTS, BigInt(AR_UNUSABLE)),
  }),
  reserved('tr', '31-17', []),
]);

const when = [usable('ldtr')];

export const GUEST_LDTR = checkList('29.3.1.2', [
  check('guest.ldtr.sel-ti', {
    rule: 'LDTR selector: bit 2 (TI) is 0.',
    when,
    ...zero('guestLdtrSelector', TI),
  }),
  baseCanonical('ldtr', when),
  check('guest.ldtr.type', {
    rule: 'LDTR type is 2: an LDT.',
    when,
    fields: [LDTR_RIGHTS],
    holds: (c) => c.segmentType('ldtr') === LDT,
    fix: (c) => setType(c, 'ldtr', LDT),
  }),
  descriptorKind('ldtr', 0, when),
  present('ldtr', when),
  reserved('ldtr', '11-8', when),
  ...granularity('ldtr', when),
  reserved('ldtr', '31-17', when),
]);
