/** What several guest-state rows require of a field, each with the change that satisfies it. */
import { highWordIdentical, signExtend } from '../../../bits/address.ts';
import type { FieldName } from '../../../vmcs/fields.ts';
import { type CheckOptions, type FieldChange, raise, set } from '../check.ts';
import { type CheckContext, type SegmentRegister, segmentFields } from '../check-context.ts';

type Requirement = Pick<CheckOptions, 'fields' | 'holds' | 'fix'>;

/** The bits of `ones`, all below bit 32, are 1 in `field`. */
export function one(field: FieldName, ones: number): Requirement {
  return {
    fields: [field],
    holds: (c) => (c.low(field) & ones) === ones,
    fix: (c) => raise(c, field, BigInt(ones)),
  };
}

/** `field` is exactly `value`. */
export function exactly(field: FieldName, value: bigint): Requirement {
  return { fields: [field], holds: (c) => c.value(field) === value, fix: () => set(field, value) };
}

/**
 * Bits 63:N of `field` are equal, N being the processor's linear-address width. Weaker than
 * canonical: bit N−1 may differ from them.
 */
export function highIdentical(field: FieldName): Requirement {
  return {
    fields: [field],
    holds: (c) => highWordIdentical(c.high(field), c.features.linearAddressBits),
    fix: (c) => set(field, signExtend(c.value(field), c.features.linearAddressBits)),
  };
}

/** Writes the DPL of a segment's access rights. */
export function setDpl(c: CheckContext, segment: SegmentRegister, dpl: number): FieldChange[] {
  return set(
    segmentFields(segment).accessRights,
    BigInt(((c.accessRights(segment) & ~0x60) | (dpl << 5)) >>> 0),
  );
}

/** Writes the type of a segment's access rights. */
export function setType(c: CheckContext, segment: SegmentRegister, type: number): FieldChange[] {
  return set(segmentFields(segment).accessRights, BigInt(((c.accessRights(segment) & ~0xf) | type) >>> 0));
}
