/**
 * Checks that only VM entries that return from SMM make (SDM §34.15.4): on the executive-VMCS pointer
 * and the executive VMCS, and on what VMX root operation cannot begin with.
 */
import { isAligned } from '../../../bits/address.ts';
import { mask, U64_MAX } from '../../../bits/u64.ts';
import { ActivityState, EVENT_VALID, EventType } from '../../../vmcs/formats.ts';
import {
  type CheckList,
  checkList,
  checksOf,
  clear,
  condition,
  INVALID_CONTROL,
  invalidGuestState,
  off,
  on,
  set,
} from '../check.ts';
import { CheckContext } from '../check-context.ts';
import { EXECUTION_CONTROL_ADDRESSES } from './execution-control-addresses.ts';
import { EXECUTION_CONTROLS } from './execution-controls.ts';
import { RETURNS_FROM_SMM } from './guest-conditions.ts';
import { withinAddressWidth, zero } from './requirements.ts';

const POINTER = 'executiveVmcsPointer';
const EVENT = 'injectedEventIdentification';
const ACTIVITY = 'guestActivityState';

const vmxonPointer = (c: CheckContext) => c.ask(c.environment.vmxonPointer(), 'the VMXON pointer', U64_MAX);
const executive = (c: CheckContext) => c.environment.vmcsAt(c.value(POINTER));
const isVmxonPointer = (c: CheckContext) => c.value(POINTER) === vmxonPointer(c);

const TO_ROOT = condition('the executive-VMCS pointer is the VMXON pointer', [POINTER], isVmxonPointer);
const TO_NON_ROOT = condition(
  'the executive-VMCS pointer is not the VMXON pointer',
  [POINTER],
  (c) => !isVmxonPointer(c),
);
/** A pointer that is misaligned or too wide is reported as such; what it points to is not looked at. */
const POINTS_TO_REGION = condition(
  'the executive-VMCS pointer is aligned and within the physical-address width',
  [POINTER],
  (c) => isAligned(c.value(POINTER), 4096) && c.withinAddressWidth(c.value(POINTER)),
);

const toVmxonPointer = (c: CheckContext) => set(POINTER, vmxonPointer(c));

const checkPointer = checksOf('34.15.4.1', { kind: 'VMfailValid', error: 16 });

const POINTER_ROWS = [
  checkPointer('smmret.exec-ptr.align', {
    rule: 'Executive-VMCS pointer: bits 11:0 are 0.',
    when: [RETURNS_FROM_SMM],
    ...zero(POINTER, mask(11, 0)),
    looksOutside: 'processor',
  }),
  checkPointer('smmret.exec-ptr.width', {
    rule: 'Executive-VMCS pointer: no bit beyond the physical-address width is 1.',
    when: [RETURNS_FROM_SMM],
    ...withinAddressWidth(POINTER),
    looksOutside: 'processor',
  }),
  checkPointer('smmret.exec-ptr.revision', {
    rule: "The 32 bits at the executive-VMCS pointer are the processor's VMCS revision identifier.",
    when: [RETURNS_FROM_SMM, POINTS_TO_REGION],
    fields: [POINTER],
    holds: (c) => {
      const address = Number(c.value(POINTER));
      const word = c.ask(c.environment.read32(address), 'memory at the executive-VMCS pointer', 0);
      return word >>> 0 === c.capabilities.revision;
    },
    fix: toVmxonPointer,
    looksOutside: 'memory',
  }),
  checkPointer('smmret.exec-vmcs.launched', {
    rule: 'The executive VMCS is launched.',
    when: [RETURNS_FROM_SMM, off('entry.deactivateDualMonitorTreatment'), TO_NON_ROOT, POINTS_TO_REGION],
    fields: [POINTER],
    holds: (c) => executive(c)?.launched === true,
    fix: toVmxonPointer,
    consequence: { kind: 'VMfailValid', error: 17 },
    looksOutside: 'memory',
  }),
  checkPointer('smmret.deactivate-needs-vmxon-ptr', {
    rule: 'The executive-VMCS pointer is the VMXON pointer.',
    when: [RETURNS_FROM_SMM, on('entry.deactivateDualMonitorTreatment')],
    fields: [POINTER],
    holds: isVmxonPointer,
    fix: toVmxonPointer,
    consequence: { kind: 'VMfailValid', error: 18 },
    looksOutside: 'processor',
  }),
];

/** On VM-execution control fields: the executive VMCS satisfies them. */
export const EXECUTION_LISTS: readonly CheckList[] = [EXECUTION_CONTROLS, EXECUTION_CONTROL_ADDRESSES];

/** Every rule on VM-execution control fields holds for the executive VMCS. */
function hasValidExecutionControls(c: CheckContext): boolean {
  const vmcs = executive(c);
  if (vmcs === undefined) return false;
  const context = new CheckContext(vmcs.words, c.capabilities, c.environment);
  return EXECUTION_LISTS.every((list) =>
    list.rows.every((row) => !row.when.every((w) => w.test(context)) || row.holds(context)),
  );
}

const checkExecutive = checksOf('34.15.4.2', { kind: 'VMfailValid', error: 25 });

/** All that ends in VMfailValid, but for the injected event in the manual's order. */
export const RETURN_FROM_SMM = checkList('34.15.4', [
  ...POINTER_ROWS,
  checkExecutive('smmret.exec-ctrls', {
    rule: 'The VM-execution control fields of the executive VMCS satisfy all that VM entry asks of such fields.',
    when: [RETURNS_FROM_SMM, TO_NON_ROOT, POINTS_TO_REGION],
    fields: [POINTER],
    holds: hasValidExecutionControls,
    fix: toVmxonPointer,
    looksOutside: 'memory',
  }),
  checksOf('34.15.4.3', INVALID_CONTROL)('smmret.no-mtf-into-root', {
    rule: 'The injected event is no pending MTF VM exit.',
    when: [RETURNS_FROM_SMM, TO_ROOT],
    fields: [EVENT],
    holds: (c) => {
      const { type, vector } = c.injectedEvent;
      return !c.bit(EVENT, 31) || type !== EventType.Other || vector !== 0;
    },
    fix: (c) => clear(c, EVENT, BigInt(EVENT_VALID)),
    looksOutside: 'processor',
  }),
]);

export const RETURN_FROM_SMM_GUEST = checkList('34.15.4.4', [
  checksOf('34.15.4.4', invalidGuestState())('smmret.no-wait-sipi-into-root', {
    rule: 'Activity state is not wait-for-SIPI.',
    when: [RETURNS_FROM_SMM, TO_ROOT],
    fields: [ACTIVITY],
    holds: (c) => c.low(ACTIVITY) !== ActivityState.WaitForSipi,
    fix: () => set(ACTIVITY, BigInt(ActivityState.Active)),
    looksOutside: 'processor',
  }),
]);
