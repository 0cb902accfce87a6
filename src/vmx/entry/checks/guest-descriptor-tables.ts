/** Checks on GDTR and IDTR of the guest (SDM §29.3.1.3). */
import { mask } from '../../../bits/u64.ts';
import { checkList, checksOf, invalidGuestState } from '../check.ts';
import { canonical, INTEL_64, zero } from './requirements.ts';

const check = checksOf('29.3.1.3', invalidGuestState());

const TABLES = [
  { name: 'gdtr', base: 'guestGdtrBase', limit: 'guestGdtrLimit' },
  { name: 'idtr', base: 'guestIdtrBase', limit: 'guestIdtrLimit' },
] as const;

export const GUEST_DESCRIPTOR_TABLES = checkList(
  '29.3.1.3',
  TABLES.flatMap(({ name, base, limit }) => [
    check(`guest.${name}.base-canonical`, {
      rule: `${name.toUpperCase()} base is canonical.`,
      when: [INTEL_64],
      ...canonical(base),
    }),
    check(`guest.${name}.limit-high`, {
      rule: `${name.toUpperCase()} limit: bits 31:16 are 0.`,
      ...zero(limit, mask(31, 16)),
    }),
  ]),
);
