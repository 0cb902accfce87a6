/** Conditions that the guest-state rows share (SDM §29.3.1). All of them look at the VMCS only. */
import { CR0, CR4, RFLAGS } from '../../../cpu/registers.ts';
import type { FieldName } from '../../../vmcs/fields.ts';
import { ActivityState, EventType } from '../../../vmcs/formats.ts';
import { type Condition, condition, fieldsOfControl, off, on } from '../check.ts';
import { placeOf, type SegmentRegister, segmentFields } from '../check-context.ts';

/** Bit `position` of `field`, which `name` describes, is `value`. */
export function bitIs(name: string, field: FieldName, position: number, value: 0 | 1): Condition {
  return condition(`${name} is ${value}`, [field], (c) => c.bit(field, position) === (value === 1));
}

export const PE_0 = bitIs('guest CR0.PE', 'guestCr0', CR0.PE, 0);
export const PG_1 = bitIs('guest CR0.PG', 'guestCr0', CR0.PG, 1);
export const CET_1 = bitIs('guest CR4.CET', 'guestCr4', CR4.CET, 1);
export const FRED_1 = bitIs('guest CR4.FRED', 'guestCr4', CR4.FRED, 1);
export const VM_0 = bitIs('guest RFLAGS.VM', 'guestRflags', RFLAGS.VM, 0);
export const VM_1 = bitIs('guest RFLAGS.VM', 'guestRflags', RFLAGS.VM, 1);
export const IF_0 = bitIs('guest RFLAGS.IF', 'guestRflags', RFLAGS.IF, 0);

export const UNRESTRICTED = on('proc2.unrestrictedGuest');
export const RESTRICTED = off('proc2.unrestrictedGuest');
export const IA32E_MODE = on('entry.ia32eModeGuest');
export const NO_IA32E_MODE = off('entry.ia32eModeGuest');

/** Bit 16 of the access rights is 0. */
export function usable(segment: SegmentRegister): Condition {
  return condition(`${segment.toUpperCase()} is usable`, [segmentFields(segment).accessRights], (c) =>
    c.usable(segment),
  );
}

export const CS_TYPE_3 = condition('CS type is 3', ['guestCsAccessRights'], (c) => c.segmentType('cs') === 3);

const IN_64_BIT_MODE = [...fieldsOfControl('entry.ia32eModeGuest'), 'guestCsAccessRights'] as const;
const L = 13;

export const MODE_64_BIT = condition(
  '"IA-32e mode guest" VM-entry control is 1 and CS.L is 1',
  IN_64_BIT_MODE,
  (c) => c.ia32eModeGuest && c.bit('guestCsAccessRights', L),
);
export const NOT_64_BIT_MODE = condition(
  '"IA-32e mode guest" VM-entry control is 0 or CS.L is 0',
  IN_64_BIT_MODE,
  (c) => !(c.ia32eModeGuest && c.bit('guestCsAccessRights', L)),
);

const EVENT = 'injectedEventIdentification';
const ENTRY_TO_SMM = placeOf('entry.entryToSmm');

export const INJECTING = bitIs('the valid bit of the injected-event identification', EVENT, 31, 1);

function injectingType(text: string, type: EventType): Condition {
  return condition(text, [EVENT], (c) => c.bit(EVENT, 31) && c.bits(EVENT, 10, 8) === type);
}

export const INJECTING_EXTERNAL_INTERRUPT = injectingType(
  'an external interrupt is to be injected',
  EventType.ExternalInterrupt,
);
export const INJECTING_NMI = injectingType('an NMI is to be injected', EventType.Nmi);

/** The guest is to begin in `state`. */
export function activityIs(name: string, state: ActivityState): Condition {
  return condition(
    `the activity state is ${name}`,
    ['guestActivityState'],
    (c) => c.low('guestActivityState') === state,
  );
}

export const ACTIVITY_HLT = activityIs('HLT', ActivityState.Hlt);

export const OUTSIDE_SMM = condition(
  'the processor is not in SMM',
  [],
  (c) => !c.ask(c.environment.inSmm(), 'whether the processor is in SMM', false),
);

/** The VM entry returns from SMM: its VM-execution controls are those of the executive VMCS (SDM §34.15.4). */
export const RETURNS_FROM_SMM = condition(
  'the processor is in SMM and "entry to SMM" VM-entry control is 0',
  ['vmEntryControls'],
  (c) => c.ask(c.environment.inSmm(), 'whether the processor is in SMM', false) && !c.controlAt(ENTRY_TO_SMM),
);

export const DOES_NOT_RETURN_FROM_SMM = condition(
  'the processor is not in SMM or "entry to SMM" VM-entry control is 1',
  ['vmEntryControls'],
  (c) => !RETURNS_FROM_SMM.test(c),
);

export const PAE_PAGING: readonly Condition[] = [
  PG_1,
  bitIs('guest CR4.PAE', 'guestCr4', CR4.PAE, 1),
  NO_IA32E_MODE,
];
