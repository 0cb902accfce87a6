/**
 * What many rows require of a field or a control, each with the change that satisfies it: bits that
 * are 0, an address within the physical-address width, canonical form, a control that is 1.
 */
import { isCanonical, signExtend } from '../../../bits/address.ts';
import { mask } from '../../../bits/u64.ts';
import type { ControlId } from '../../../vmcs/controls.ts';
import type { FieldName } from '../../../vmcs/fields.ts';
import {
  type CheckOptions,
  type Condition,
  clear,
  condition,
  fieldsOfControl,
  off,
  on,
  set,
  turn,
} from '../check.ts';
import type { CheckContext } from '../check-context.ts';

type Requirement = Pick<CheckOptions, 'fields' | 'holds' | 'fix' | 'looksOutside'>;
type Rule = Requirement & Pick<CheckOptions, 'rule'>;

export const INTEL_64: Condition = condition(
  'the processor supports Intel 64',
  [],
  (c) => c.features.intel64,
);

/** Bits of `ones` are 0 in `field`. */
export function zero(field: FieldName, ones: bigint): Requirement {
  const low = Number(ones & 0xffff_ffffn);
  const high = Number(ones >> 32n);
  const holds =
    high === 0
      ? (c: CheckContext) => (c.low(field) & low) === 0
      : (c: CheckContext) => (c.low(field) & low) === 0 && (c.high(field) & high) === 0;
  return { fields: [field], holds, fix: (c) => clear(c, field, ones) };
}

/** Bits of `field` that are reserved on this processor are 0. */
export function reservedZero(field: FieldName, reserved: (c: CheckContext) => bigint): Requirement {
  return {
    fields: [field],
    holds: (c) => (c.value(field) & reserved(c)) === 0n,
    fix: (c) => clear(c, field, reserved(c)),
  };
}

/** Rule PAW: of the bits of `field` in `ones`, none at or above the width of addresses is 1 (SDM §29.2.1). */
export function withinAddressWidth(field: FieldName, ones: bigint = mask(63, 0)): Requirement {
  return {
    fields: [field],
    holds: (c) => c.withinAddressWidth(c.value(field) & ones),
    fix: (c) => clear(c, field, mask(63, c.addressWidth)),
  };
}

/** Canonical for the widest linear address the processor supports, as everything held in an MSR. */
export function canonical(field: FieldName): Requirement {
  return {
    fields: [field],
    holds: (c) => isCanonical(c.value(field), c.features.linearAddressBits),
    fix: (c) => set(field, signExtend(c.value(field), c.features.linearAddressBits)),
  };
}

const sentence = (clause: string) => `${clause.charAt(0).toUpperCase()}${clause.slice(1)}.`;

/** `id` is 1; while it is not, `dependent` has to be 0. */
export function needs(dependent: ControlId, id: ControlId): Rule {
  return {
    rule: sentence(on(id).text),
    fields: fieldsOfControl(id),
    holds: (c) => c.control(id),
    fix: (c) => turn(c, dependent, 0),
  };
}

/** `id` is 0. */
export function isOff(id: ControlId): Rule {
  return {
    rule: sentence(off(id).text),
    fields: fieldsOfControl(id),
    holds: (c) => !c.control(id),
    fix: (c) => turn(c, id, 0),
  };
}
