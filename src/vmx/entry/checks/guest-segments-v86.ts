/** Checks on the segment registers of a guest that will be in virtual-8086 mode (SDM §29.3.1.2). */
import { checkList, checksOf, invalidGuestState, set } from '../check.ts';
import { type CheckContext, segmentFields } from '../check-context.ts';
import { VM_1 } from './guest-conditions.ts';
import { exactly } from './guest-requirements.ts';

const check = checksOf('29.3.1.2', invalidGuestState());

const SEGMENTS = ['cs', 'ss', 'ds', 'es', 'fs', 'gs'] as const;
const when = [VM_1];

export const GUEST_SEGMENTS_V86 = checkList('29.3.1.2', [
  ...SEGMENTS.map((segment) => {
    const { base, selector } = segmentFields(segment);
    const paragraph = (c: CheckContext) => c.low(selector) << 4;
    return check(`guest.${segment}.base-v86`, {
      rule: `${segment.toUpperCase()} base is 16 times the selector.`,
      when,
      fields: [base, selector],
      holds: (c) => c.low(base) === paragraph(c) && c.high(base) === 0,
      fix: (c) => set(base, BigInt(paragraph(c))),
    });
  }),
  ...SEGMENTS.map((segment) =>
    check(`guest.${segment}.limit-v86`, {
      rule: `${segment.toUpperCase()} limit is 0000FFFFH.`,
      when,
      ...exactly(segmentFields(segment).limit, 0xffffn),
    }),
  ),
  ...SEGMENTS.map((segment) =>
    check(`guest.${segment}.ar-v86`, {
      rule: `${segment.toUpperCase()} access rights are 000000F3H.`,
      when,
      ...exactly(segmentFields(segment).accessRights, 0xf3n),
    }),
  ),
]);
