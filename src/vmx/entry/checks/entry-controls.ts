/** Checks on the VM-entry control fields and on the event to be injected (SDM §29.2.1.3). */
import { mask } from '../../../bits/u64.ts';
import { EVENT_ERROR_CODE, EVENT_VALID, EventType } from '../../../vmcs/formats.ts';
import { Basic, Misc } from '../../capabilities/capability-msrs.ts';
import {
  type Condition,
  checkList,
  checksOf,
  clear,
  condition,
  fieldsOfControl,
  INVALID_CONTROL,
  on,
  raise,
  set,
  turn,
} from '../check.ts';
import type { CheckContext } from '../check-context.ts';
import { allowed0, allowed1 } from './allowed-settings.ts';
import { isOff, zero } from './requirements.ts';
import { msrArea } from './tables-in-memory.ts';

const check = checksOf('29.2.1.3', INVALID_CONTROL);

const EVENT = 'injectedEventIdentification';
const NESTED = 1n << 13n;
/** Vectors of exceptions that deliver an error code where IA32_VMX_BASIC[56] is 0. */
const WITH_ERROR_CODE = new Set([8, 10, 11, 12, 13, 14, 17]);

const vector = (c: CheckContext) => c.bits(EVENT, 7, 0);
const type = (c: CheckContext) => c.bits(EVENT, 10, 8);

const injecting = condition('an event is to be injected', [EVENT], (c) => c.bit(EVENT, 31));
const ofType = (value: EventType, name: string): Condition =>
  condition(`its type is ${value} (${name})`, [EVENT], (c) => type(c) === value);
const hardwareException = ofType(EventType.HardwareException, 'hardware exception');
const other = ofType(EventType.Other, 'other event');
const noHardwareException = condition(
  'its type is not 3 (hardware exception)',
  [EVENT],
  (c) => type(c) !== EventType.HardwareException,
);
const vectorIn = (text: string, test: (vector: number) => boolean): Condition =>
  condition(`its vector is ${text}`, [EVENT], (c) => test(vector(c)));
const basicZero = (position: number): Condition =>
  condition(`IA32_VMX_BASIC[${position}] is 0`, [], (c) => !c.capabilities.has('basic', position));
/** Software interrupt, privileged software exception, software exception, SYSCALL or SYSENTER. */
const byInstruction = condition(
  'its type is 4, 5 or 6, or 7 with vector 1 or 2',
  [EVENT],
  (c) =>
    (type(c) >= EventType.SoftwareInterrupt && type(c) <= EventType.SoftwareException) ||
    (type(c) === EventType.Other && (vector(c) === 1 || vector(c) === 2)),
);

const injectNothing = (c: CheckContext) => clear(c, EVENT, BigInt(EVENT_VALID));
const noErrorCode = {
  rule: 'The injected event delivers no error code: bit 11 is 0.',
  ...zero(EVENT, BigInt(EVENT_ERROR_CODE)),
};
const notNested = { rule: 'The injected event is no nested exception: bit 13 is 0.', ...zero(EVENT, NESTED) };

const outsideSmm = condition(
  'the processor is not in SMM',
  [],
  (c) => !c.ask(c.environment.inSmm(), 'whether the processor is in SMM', false),
);

export const ENTRY_CONTROLS = checkList('29.2.1.3', [
  check('ctrl.entry.allowed0', allowed0('entry')),
  check('ctrl.entry.allowed1', allowed1('entry')),
  ...msrArea(check, 'entry-msr-load', 'VM-entry MSR-load', 'vmEntryMsrLoadAddress', 'vmEntryMsrLoadCount'),
  check('ctrl.entry-to-smm.only-in-smm', {
    when: [outsideSmm],
    ...isOff('entry.entryToSmm'),
    looksOutside: 'processor',
  }),
  check('ctrl.deactivate-dual-monitor.only-in-smm', {
    when: [outsideSmm],
    ...isOff('entry.deactivateDualMonitorTreatment'),
    looksOutside: 'processor',
  }),
  check('ctrl.smm-controls.exclusive', {
    rule: 'Of "entry to SMM" and "deactivate dual-monitor treatment", at least one is 0.',
    fields: fieldsOfControl('entry.entryToSmm'),
    holds: (c) => !(c.control('entry.entryToSmm') && c.control('entry.deactivateDualMonitorTreatment')),
    fix: (c) => turn(c, 'entry.deactivateDualMonitorTreatment', 0),
  }),
]);

export const EVENT_INJECTION = checkList('29.2.1.3', [
  check('inject.type.not-1', {
    rule: 'The injected event is not of type 1, which is reserved.',
    when: [injecting],
    fields: [EVENT],
    holds: (c) => type(c) !== EventType.Reserved,
    fix: injectNothing,
  }),
  check('inject.type.other-supported', {
    rule: 'The processor supports the 1-setting of "monitor trap flag" or FRED transitions.',
    when: [injecting, other],
    fields: [EVENT],
    holds: (c) => c.capabilities.supports('proc.monitorTrapFlag') || c.features.fred,
    fix: injectNothing,
  }),
  check('inject.vector.nmi', {
    rule: 'The vector of an injected NMI is 2.',
    when: [injecting, ofType(EventType.Nmi, 'NMI')],
    fields: [EVENT],
    holds: (c) => vector(c) === 2,
    fix: (c) => set(EVENT, (c.value(EVENT) & ~0xffn) | 2n),
  }),
  check('inject.vector.hw-exception', {
    rule: 'The vector of an injected hardware exception is at most 31.',
    when: [injecting, hardwareException],
    fields: [EVENT],
    holds: (c) => vector(c) <= 31,
    // What has a vector above 31 is an external interrupt.
    fix: (c) => clear(c, EVENT, mask(10, 8)),
  }),
  check('inject.vector.other-range', {
    rule: 'The vector of an injected event of type 7 is 0, 1 or 2.',
    when: [injecting, other],
    fields: [EVENT],
    holds: (c) => vector(c) <= 2,
    fix: injectNothing,
  }),
  check('inject.vector.other-mtf', {
    rule: 'The processor supports the 1-setting of "monitor trap flag".',
    when: [injecting, other, vectorIn('0 (pending MTF VM exit)', (v) => v === 0)],
    fields: [EVENT],
    holds: (c) => c.capabilities.supports('proc.monitorTrapFlag'),
    fix: injectNothing,
  }),
  check('inject.vector.other-fred', {
    rule: 'Guest CR4.FRED is 1.',
    when: [injecting, other, vectorIn('1 (SYSCALL) or 2 (SYSENTER)', (v) => v === 1 || v === 2)],
    fields: [EVENT, 'guestCr4'],
    holds: (c) => c.guestFred,
    fix: injectNothing,
  }),
  check('inject.error-code.required', {
    rule: 'The injected event delivers an error code: bit 11 is 1.',
    when: [
      injecting,
      hardwareException,
      vectorIn('8, 10 to 14 or 17', (v) => WITH_ERROR_CODE.has(v)),
      basicZero(Basic.ANY_ERROR_CODE),
      condition(
        '"unrestricted guest" is 0 or guest CR0.PE is 1',
        [...fieldsOfControl('proc2.unrestrictedGuest'), 'guestCr0'],
        (c) => !c.unrestrictedGuest || c.bit('guestCr0', 0),
      ),
    ],
    fields: [EVENT],
    holds: (c) => (c.low(EVENT) & EVENT_ERROR_CODE) !== 0,
    fix: (c) => raise(c, EVENT, BigInt(EVENT_ERROR_CODE)),
  }),
  check('inject.error-code.only-hw-exception', { when: [injecting, noHardwareException], ...noErrorCode }),
  check('inject.error-code.not-real-mode', {
    when: [
      injecting,
      on('proc2.unrestrictedGuest'),
      condition('guest CR0.PE is 0', ['guestCr0'], (c) => !c.bit('guestCr0', 0)),
    ],
    ...noErrorCode,
  }),
  check('inject.error-code.not-vector', {
    when: [
      injecting,
      hardwareException,
      basicZero(Basic.ANY_ERROR_CODE),
      vectorIn('at most 31, but none of 8, 10 to 14 and 17', (v) => v <= 31 && !WITH_ERROR_CODE.has(v)),
    ],
    ...noErrorCode,
  }),
  check('inject.nested.only-hw-exception', { when: [injecting, noHardwareException], ...notNested }),
  check('inject.nested.supported', { when: [injecting, basicZero(Basic.NESTED_EXCEPTION)], ...notNested }),
  check('inject.reserved-bits', {
    rule: 'Injected-event identification: bits 30:14 and bit 12 are 0.',
    when: [injecting],
    ...zero(EVENT, mask(30, 14) | mask(12, 12)),
  }),
  check('inject.error-code-field.high', {
    rule: 'Injected-event error code: bits 31:16 are 0.',
    when: [
      injecting,
      condition('it delivers an error code', [EVENT], (c) => (c.low(EVENT) & EVENT_ERROR_CODE) !== 0),
    ],
    ...zero('injectedEventErrorCode', mask(31, 16)),
  }),
  check('inject.instr-length.max', {
    rule: 'VM-entry instruction length is at most 15.',
    when: [injecting, byInstruction],
    fields: ['vmEntryInstructionLength'],
    holds: (c) => c.low('vmEntryInstructionLength') <= 15,
    fix: () => set('vmEntryInstructionLength', 15n),
  }),
  check('inject.instr-length.nonzero', {
    rule: 'VM-entry instruction length is not 0.',
    when: [
      injecting,
      byInstruction,
      condition(
        `IA32_VMX_MISC[${Misc.ZERO_LENGTH_INJECTION}] is 0`,
        [],
        (c) => !c.capabilities.has('misc', Misc.ZERO_LENGTH_INJECTION),
      ),
    ],
    fields: ['vmEntryInstructionLength'],
    holds: (c) => c.low('vmEntryInstructionLength') !== 0,
    fix: () => set('vmEntryInstructionLength', 1n),
  }),
]);
