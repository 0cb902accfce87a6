/** Rows that hold a control group to the settings its capability MSR allows (SDM Appendices A.3 to A.5, A.11). */
import { CONTROL_GROUPS, type ControlGroupName } from '../../../vmcs/controls.ts';
import { type CheckOptions, clear, raise } from '../check.ts';

type Setting = Pick<CheckOptions, 'rule' | 'fields' | 'holds' | 'fix'>;

/** Every control of `group` that must be 1 is 1. */
export function allowed0(group: ControlGroupName): Setting {
  const { field, name } = CONTROL_GROUPS[group];
  return {
    rule: `${name}: every bit that the processor requires to be 1 is 1.`,
    fields: [field],
    holds: (c) => (~c.value(field) & c.capabilities.must1[group]) === 0n,
    fix: (c) => raise(c, field, c.capabilities.must1[group]),
  };
}

/** Every control of `group` that may not be 1 is 0. */
export function allowed1(group: ControlGroupName): Setting {
  const { field, name } = CONTROL_GROUPS[group];
  return {
    rule: `${name}: every bit that the processor does not allow to be 1 is 0.`,
    fields: [field],
    holds: (c) => (c.value(field) & ~c.capabilities.may1[group]) === 0n,
    fix: (c) => clear(c, field, ~c.capabilities.may1[group]),
  };
}
