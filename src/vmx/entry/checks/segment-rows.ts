/** Rows that the manual repeats for each guest segment register (SDM §29.3.1.2). */
import { mask } from '../../../bits/u64.ts';
import {
  type Condition,
  checksOf,
  clear,
  condition,
  type FieldChange,
  invalidGuestState,
  raise,
} from '../check.ts';
import { type CheckContext, type SegmentRegister, segmentFields } from '../check-context.ts';
import { one } from './guest-requirements.ts';
import { canonical, INTEL_64, zero } from './requirements.ts';

const check = checksOf('29.3.1.2', invalidGuestState());

const S = 0x10;
const P = 0x80;
const G = 0x8000;
const LIMIT_LOW = 0xfff;
const LIMIT_HIGH = 0xfff0_0000;

/** The base is canonical. */
export function baseCanonical<const R extends SegmentRegister>(register: R, when: readonly Condition[]) {
  return check(`guest.${register}.base-canonical`, {
    rule: `${register.toUpperCase()} base is canonical.`,
    when: [INTEL_64, ...when],
    ...canonical(segmentFields(register).base),
  });
}

/** Bits 63:32 of the base are 0. */
export function baseHigh<const R extends SegmentRegister>(register: R, when: readonly Condition[]) {
  return check(`guest.${register}.base-high`, {
    rule: `${register.toUpperCase()} base: bits 63:32 are 0.`,
    when: [INTEL_64, ...when],
    ...zero(segmentFields(register).base, mask(63, 32)),
  });
}

/** It is a code or data segment (1), or a system segment (0). */
export function descriptorKind<const R extends SegmentRegister>(
  register: R,
  value: 0 | 1,
  when: readonly Condition[],
) {
  const { accessRights } = segmentFields(register);
  return check(`guest.${register}.s`, {
    rule: `${register.toUpperCase()} access rights: bit 4 (S) is ${value}.`,
    when,
    ...(value === 1 ? one(accessRights, S) : zero(accessRights, BigInt(S))),
  });
}

/** It is present. */
export function present<const R extends SegmentRegister>(register: R, when: readonly Condition[]) {
  return check(`guest.${register}.p`, {
    rule: `${register.toUpperCase()} access rights: bit 7 (P) is 1.`,
    when,
    ...one(segmentFields(register).accessRights, P),
  });
}

/** Reserved bits of the access rights are 0. */
export function reserved<const R extends SegmentRegister, const Bits extends '11-8' | '31-17'>(
  register: R,
  bits: Bits,
  when: readonly Condition[],
) {
  const ones = bits === '11-8' ? mask(11, 8) : mask(31, 17);
  return check(`guest.${register}.ar-reserved-${bits}`, {
    rule: `${register.toUpperCase()} access rights: bits ${bits.replace('-', ':')} are 0.`,
    when,
    ...zero(segmentFields(register).accessRights, ones),
  });
}

/**
 * G agrees with the limit:
 *
 *     limit 31:20   limit 11:0    G
 *     all 0         all 1         0 or 1
 *     all 0         not all 1     0
 *     not all 0     all 1         1
 *     not all 0     not all 1     none passes
 */
export function granularity<const R extends SegmentRegister>(register: R, when: readonly Condition[]) {
  const name = register.toUpperCase();
  const { accessRights, limit } = segmentFields(register);
  const lowHasZero = (c: CheckContext) => (c.low(limit) & LIMIT_LOW) !== LIMIT_LOW;
  const highHasOne = (c: CheckContext) => (c.low(limit) & LIMIT_HIGH) !== 0;
  const fillLow = (c: CheckContext): FieldChange[] => raise(c, limit, BigInt(LIMIT_LOW));
  return [
    check(`guest.${register}.g-limit-low`, {
      rule: `${name} access rights: bit 15 (G) is 0.`,
      when: [...when, condition(`some bit of ${name} limit[11:0] is 0`, [limit], lowHasZero)],
      ...zero(accessRights, BigInt(G)),
      fix: (c) => (highHasOne(c) ? fillLow(c) : clear(c, accessRights, BigInt(G))),
    }),
    check(`guest.${register}.g-limit-high`, {
      rule: `${name} access rights: bit 15 (G) is 1.`,
      when: [...when, condition(`some bit of ${name} limit[31:20] is 1`, [limit], highHasOne)],
      ...one(accessRights, G),
      fix: (c) => [...raise(c, accessRights, BigInt(G)), ...(lowHasZero(c) ? fillLow(c) : [])],
    }),
  ] as const;
}
