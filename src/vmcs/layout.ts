/**
 * The data format of a VMCS region (SDM §27.2). The manual leaves it to the implementation and ties
 * it to the VMCS revision identifier; so here every revision places its fields differently: in
 * another order, another direction, from another starting field. What all share: header at 0 and 4,
 * data from 8, natural alignment of every slot, and everything below the region size.
 */
import { Prng } from '../bits/prng.ts';
import { FIELD_COUNT, FIELDS, type VmcsField } from './fields.ts';

/** Byte offsets of the architectural header (SDM Table 27-1). */
export const REVISION_OFFSET = 0;
export const ABORT_INDICATOR_OFFSET = 4;
export const DATA_OFFSET = 8;

export interface RegionFormat {
  /** Bits 30:0 of the first dword. */
  readonly revision: number;
  /** Bytes, 1–4096 (IA32_VMX_BASIC[44:32]). */
  readonly regionSize: number;
  /** Byte offset of each field by slot; −1 for a field without a place in this format. */
  readonly offsets: Int16Array;
  /** Byte offset of the 32-bit launch state, implementation-specific data that software cannot reach. */
  readonly launchStateOffset: number;
  /** What the launch state holds in memory: other values mean that VMCLEAR never initialised it. */
  readonly launchStateValues: { readonly clear: number; readonly launched: number };
}

type Arrangement = 'widest-first' | 'narrowest-first' | 'as-catalogued' | 'scattered';

const ARRANGEMENTS: readonly Arrangement[] = [
  'widest-first',
  'as-catalogued',
  'scattered',
  'narrowest-first',
];

/** `fields` come in the order of the catalogue. */
function arrange(fields: VmcsField[], revision: number): VmcsField[] {
  const arrangement = ARRANGEMENTS[revision & 3] as Arrangement;
  if (arrangement === 'widest-first') return fields.sort((a, b) => b.bits - a.bits);
  if (arrangement === 'narrowest-first') return fields.sort((a, b) => a.bits - b.bits || b.slot - a.slot);
  if (arrangement === 'scattered') {
    const random = new Prng(revision);
    for (let i = fields.length - 1; i > 0; i--) {
      const j = random.below(i + 1);
      [fields[i], fields[j]] = [fields[j] as VmcsField, fields[i] as VmcsField];
    }
  }
  return fields;
}

/**
 * Builds the format of a revision.
 * @param revision bits 30:0 of IA32_VMX_BASIC
 * @param regionSize bytes, at most 4096
 * @param places whether the field of each slot needs a place (every field of every processor that
 *   shares the revision: equal revisions mean equal formats, SDM §27.2)
 * @throws RangeError if the fields do not fit
 */
export function regionFormat(
  revision: number,
  regionSize: number,
  places: (slot: number) => boolean,
): RegionFormat {
  const fields = arrange(
    FIELDS.filter((f) => places(f.slot)),
    revision,
  );
  // Rotating the arrangement by the revision keeps two revisions with one arrangement apart.
  const turn = (revision >>> 2) % Math.max(1, fields.length);
  const order = [...fields.slice(turn), ...fields.slice(0, turn)];
  const downwards = (revision & 1) === 1;

  const offsets = new Int16Array(FIELD_COUNT).fill(-1);
  let next = downwards ? regionSize & ~7 : DATA_OFFSET + 8;
  for (const field of order) {
    const bytes = field.bits / 8;
    if (downwards) {
      next = (next - bytes) & -bytes;
      offsets[field.slot] = next;
    } else {
      next = (next + bytes - 1) & -bytes;
      offsets[field.slot] = next;
      next += bytes;
    }
  }
  const fits = downwards ? next >= DATA_OFFSET + 8 : next <= regionSize;
  if (!fits)
    throw new RangeError(`the VMCS data of revision ${revision} exceed its region of ${regionSize} bytes`);
  return {
    revision,
    regionSize,
    offsets,
    launchStateOffset: downwards ? DATA_OFFSET : DATA_OFFSET + 4,
    launchStateValues: {
      // Bit 31 keeps both apart from memory that was never written.
      clear: (0xc1ea_0000 ^ revision) >>> 0,
      launched: (0x9a7c_0000 ^ revision) >>> 0,
    },
  };
}
