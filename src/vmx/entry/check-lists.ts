/** All lists of entry checks, in the order VM entry evaluates them: controls, host state, guest state. */
import type { CheckList } from './check.ts';
import { ADDRESS_SPACE_SIZE } from './checks/address-space.ts';
import { ENTRY_CONTROLS, EVENT_INJECTION } from './checks/entry-controls.ts';
import { EXECUTION_CONTROL_ADDRESSES } from './checks/execution-control-addresses.ts';
import { EXECUTION_CONTROLS } from './checks/execution-controls.ts';
import { EXIT_CONTROLS } from './checks/exit-controls.ts';
import { GUEST_STATE } from './checks/guest-state.ts';
import { HOST_REGISTERS } from './checks/host-registers.ts';
import { HOST_SEGMENTS } from './checks/host-segments.ts';
import { RETURN_FROM_SMM, RETURN_FROM_SMM_GUEST } from './checks/return-from-smm.ts';

/** Lists that any VM entry goes by. At most 32, so that one word has a bit for each. */
export const ORDINARY_LISTS = [
  EXECUTION_CONTROLS,
  EXECUTION_CONTROL_ADDRESSES,
  EXIT_CONTROLS,
  ENTRY_CONTROLS,
  EVENT_INJECTION,
  HOST_REGISTERS,
  HOST_SEGMENTS,
  ADDRESS_SPACE_SIZE,
  ...GUEST_STATE,
] as const satisfies readonly CheckList[];

/** Together with those of VM entries that return from SMM. */
export const CHECK_LISTS = [
  RETURN_FROM_SMM,
  ...ORDINARY_LISTS,
  RETURN_FROM_SMM_GUEST,
] as const satisfies readonly CheckList[];

/** Id of an entry check. */
export type EntryCheckId = (typeof CHECK_LISTS)[number]['rows'][number]['id'];
