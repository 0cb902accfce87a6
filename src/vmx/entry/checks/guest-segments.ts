/**
 * Checks on CS, SS, DS, ES, FS and GS of a guest that will not be in virtual-8086 mode, and what FRED
 * asks of them (SDM §29.3.1.2). CS counts as usable whatever its access rights say, and the rows on
 * SS.DPL, which is the CPL, do not depend on SS being usable.
 */
import { mask } from '../../../bits/u64.ts';
import { type Condition, checkList, checksOf, condition, invalidGuestState, raise, set } from '../check.ts';
import { type CheckContext, type SegmentRegister, segmentFields } from '../check-context.ts';
import {
  bitIs,
  CS_TYPE_3,
  FRED_1,
  IA32E_MODE,
  PE_0,
  RESTRICTED,
  UNRESTRICTED,
  usable,
  VM_0,
} from './guest-conditions.ts';
import { one, setDpl, setType } from './guest-requirements.ts';
import { zero } from './requirements.ts';
import { baseCanonical, baseHigh, descriptorKind, granularity, present, reserved } from './segment-rows.ts';

const check = checksOf('29.3.1.2', invalidGuestState());

const DATA_SEGMENTS = ['ds', 'es', 'fs', 'gs'] as const;

const CS_RIGHTS = 'guestCsAccessRights';
const SS_RIGHTS = 'guestSsAccessRights';
const ACCESSED = 1;
const READABLE = 2;
const CODE = 8;
const DPL = mask(6, 5);
const L = 13;
const DB = 1n << 14n;

const rpl = (c: CheckContext, segment: SegmentRegister) => c.bits(segmentFields(segment).selector, 1, 0);
/** Type 9, 11, 13 or 15. */
const isAccessedCode = (type: number) => (type & (CODE | ACCESSED)) === (CODE | ACCESSED);
const inForce = (segment: SegmentRegister): Condition[] => [VM_0, usable(segment)];

const csTypeIs = (text: string, test: (type: number) => boolean) =>
  condition(`CS type is ${text}`, [CS_RIGHTS], (c) => test(c.segmentType('cs')));
const ssDplIs = (dpl: number) => condition(`SS.DPL is ${dpl}`, [SS_RIGHTS], (c) => c.dpl('ss') === dpl);

export const GUEST_CODE_SEGMENT = checkList('29.3.1.2', [
  baseHigh('cs', []),
  check('guest.cs.type-restricted', {
    rule: 'CS type is 9, 11, 13 or 15: an accessed code segment.',
    when: [VM_0, RESTRICTED],
    fields: [CS_RIGHTS],
    holds: (c) => isAccessedCode(c.segmentType('cs')),
    fix: (c) => raise(c, CS_RIGHTS, BigInt(CODE | ACCESSED)),
  }),
  check('guest.cs.type-unrestricted', {
    rule: 'CS type is 9, 11, 13 or 15, an accessed code segment, or 3, an accessed writable data segment.',
    when: [VM_0, UNRESTRICTED],
    fields: [CS_RIGHTS],
    holds: (c) => c.segmentType('cs') === 3 || isAccessedCode(c.segmentType('cs')),
    fix: (c) => raise(c, CS_RIGHTS, BigInt(CODE | ACCESSED)),
  }),
  descriptorKind('cs', 1, [VM_0]),
  check('guest.cs.dpl-type3', {
    rule: 'CS.DPL is 0.',
    when: [VM_0, CS_TYPE_3],
    ...zero(CS_RIGHTS, DPL),
  }),
  check('guest.cs.dpl-nonconforming', {
    rule: 'CS.DPL is SS.DPL.',
    when: [VM_0, csTypeIs('9 or 11 (nonconforming)', (type) => type === 9 || type === 11)],
    fields: [CS_RIGHTS, SS_RIGHTS],
    holds: (c) => c.dpl('cs') === c.dpl('ss'),
    fix: (c) => setDpl(c, 'cs', c.dpl('ss')),
  }),
  check('guest.cs.dpl-conforming', {
    rule: 'CS.DPL is at most SS.DPL.',
    when: [VM_0, csTypeIs('13 or 15 (conforming)', (type) => type === 13 || type === 15)],
    fields: [CS_RIGHTS, SS_RIGHTS],
    holds: (c) => c.dpl('cs') <= c.dpl('ss'),
    fix: (c) => setDpl(c, 'cs', c.dpl('ss')),
  }),
  present('cs', [VM_0]),
  reserved('cs', '11-8', [VM_0]),
  check('guest.cs.db-with-l', {
    rule: 'CS access rights: bit 14 (D/B) is 0.',
    when: [VM_0, IA32E_MODE, bitIs('CS.L', CS_RIGHTS, L, 1)],
    ...zero(CS_RIGHTS, DB),
  }),
  ...granularity('cs', [VM_0]),
  reserved('cs', '31-17', [VM_0]),
]);

export const GUEST_STACK_SEGMENT = checkList('29.3.1.2', [
  check('guest.ss.sel-rpl-eq-cs', {
    rule: 'SS selector and CS selector have the same RPL.',
    when: [VM_0, RESTRICTED],
    fields: ['guestSsSelector', 'guestCsSelector'],
    holds: (c) => rpl(c, 'ss') === rpl(c, 'cs'),
    fix: (c) => set('guestSsSelector', (c.value('guestSsSelector') & ~3n) | BigInt(rpl(c, 'cs'))),
  }),
  baseHigh('ss', [usable('ss')]),
  check('guest.ss.type', {
    rule: 'SS type is 3 or 7: an accessed writable data segment.',
    when: inForce('ss'),
    fields: [SS_RIGHTS],
    holds: (c) => c.segmentType('ss') === 3 || c.segmentType('ss') === 7,
    fix: (c) => setType(c, 'ss', 3),
  }),
  descriptorKind('ss', 1, inForce('ss')),
  check('guest.ss.dpl-eq-rpl', {
    rule: 'SS.DPL is the RPL of the SS selector.',
    when: [VM_0, RESTRICTED],
    fields: [SS_RIGHTS, 'guestSsSelector'],
    holds: (c) => c.dpl('ss') === rpl(c, 'ss'),
    fix: (c) => setDpl(c, 'ss', rpl(c, 'ss')),
  }),
  check('guest.ss.dpl-zero-cs-type3', {
    rule: 'SS.DPL is 0.',
    when: [VM_0, CS_TYPE_3],
    ...zero(SS_RIGHTS, DPL),
  }),
  check('guest.ss.dpl-zero-real-mode', {
    rule: 'SS.DPL is 0.',
    when: [VM_0, PE_0],
    ...zero(SS_RIGHTS, DPL),
  }),
  present('ss', inForce('ss')),
  reserved('ss', '11-8', inForce('ss')),
  ...granularity('ss', inForce('ss')),
  reserved('ss', '31-17', inForce('ss')),
]);

export const GUEST_DATA_SEGMENTS = checkList('29.3.1.2', [
  ...(['fs', 'gs'] as const).map((segment) => baseCanonical(segment, [])),
  ...(['ds', 'es'] as const).map((segment) => baseHigh(segment, [usable(segment)])),
  ...DATA_SEGMENTS.flatMap((segment) => {
    const { accessRights } = segmentFields(segment);
    const name = segment.toUpperCase();
    return [
      check(`guest.${segment}.type-accessed`, {
        rule: `${name} type: bit 0 (accessed) is 1.`,
        when: inForce(segment),
        ...one(accessRights, ACCESSED),
      }),
      check(`guest.${segment}.type-readable`, {
        rule: `${name} type: bit 1 (readable) is 1.`,
        when: [...inForce(segment), bitIs(`bit 3 (code) of ${name} type`, accessRights, 3, 1)],
        ...one(accessRights, READABLE),
      }),
    ];
  }),
  ...DATA_SEGMENTS.map((segment) => descriptorKind(segment, 1, inForce(segment))),
  ...DATA_SEGMENTS.map((segment) => {
    const { accessRights, selector } = segmentFields(segment);
    const name = segment.toUpperCase();
    return check(`guest.${segment}.dpl-ge-rpl`, {
      rule: `${name}.DPL is at least the RPL of the ${name} selector.`,
      when: [
        VM_0,
        RESTRICTED,
        usable(segment),
        condition(
          `${name} type is at most 11 (no conforming code)`,
          [accessRights],
          (c) => c.segmentType(segment) <= 11,
        ),
      ],
      fields: [accessRights, selector],
      holds: (c) => c.dpl(segment) >= rpl(c, segment),
      fix: (c) => setDpl(c, segment, rpl(c, segment)),
    });
  }),
  ...DATA_SEGMENTS.map((segment) => present(segment, inForce(segment))),
  ...DATA_SEGMENTS.map((segment) => reserved(segment, '11-8', inForce(segment))),
  ...DATA_SEGMENTS.flatMap((segment) => granularity(segment, inForce(segment))),
  ...DATA_SEGMENTS.map((segment) => reserved(segment, '31-17', inForce(segment))),
]);

/** The manual lists these with SS.DPL, though two of them blame other fields. */
export const GUEST_SEGMENTS_FRED = checkList('29.3.1.2', [
  check('guest.ss.dpl-fred', {
    rule: 'SS.DPL is 0 or 3.',
    when: [FRED_1],
    fields: [SS_RIGHTS],
    holds: (c) => c.dpl('ss') === 0 || c.dpl('ss') === 3,
    fix: (c) => setDpl(c, 'ss', 0),
  }),
  check('guest.cs.l-fred-cpl0', {
    rule: 'CS access rights: bit 13 (L) is 1.',
    when: [FRED_1, ssDplIs(0)],
    ...one(CS_RIGHTS, 1 << L),
  }),
  check('guest.rflags.iopl-fred-cpl3', {
    rule: 'RFLAGS.IOPL is 0.',
    when: [FRED_1, ssDplIs(3)],
    ...zero('guestRflags', mask(13, 12)),
  }),
  check('guest.intr.sti-fred-cpl3', {
    rule: 'Blocking by STI is 0.',
    when: [FRED_1, ssDplIs(3)],
    ...zero('guestInterruptibilityState', 1n),
  }),
]);
