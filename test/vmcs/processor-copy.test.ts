import { describe, expect, it } from 'vitest';
import { FIELD_COUNT, FIELDS, Field } from '../../src/vmcs/fields.ts';
import { regionFormat } from '../../src/vmcs/layout.ts';
import {
  ALL_UNVERIFIED,
  type CopyStorage,
  ProcessorCopy,
  WRITTEN,
  WRITTEN_HIGH,
} from '../../src/vmcs/processor-copy.ts';
import { LaunchState, type RegionPage, SHADOW_INDICATOR, writeLaunchState } from '../../src/vmcs/region.ts';

const format = regionFormat(0x13, 4096, () => true);

function blankPage(): RegionPage {
  const buffer = new ArrayBuffer(4096);
  return { u8: new Uint8Array(buffer), u16: new Uint16Array(buffer), u32: new Uint32Array(buffer) };
}

describe("a processor's copy of a VMCS", () => {
  it('holds nothing until it is loaded', () => {
    const copy = new ProcessorCopy(0x3000, format);
    expect(copy).toMatchObject({
      address: 0x3000,
      format,
      resident: false,
      isShadow: false,
      launchState: LaunchState.Undefined,
      unverified: ALL_UNVERIFIED,
      verifiedReduction: -1,
      verifiedState: -1,
    });
    expect(copy.quads.every((quad) => quad === 0n)).toBe(true);
  });

  it('shows each field as one 64-bit value and as two words, low first', () => {
    const copy = new ProcessorCopy(0, format);
    copy.quads[Field.guestRip] = 0xffff_8000_1234_5678n;
    expect(copy.words[2 * Field.guestRip]).toBe(0x1234_5678);
    expect(copy.words[2 * Field.guestRip + 1]).toBe(0xffff_8000);
    expect(copy.quads).toHaveLength(FIELD_COUNT);
  });

  it('carries every field from one processor to another through memory', () => {
    const page = blankPage();
    const one = new ProcessorCopy(0x1000, format);
    for (const { slot, bits } of FIELDS)
      one.quads[slot] = BigInt.asUintN(bits, 0x1111_2222_3333_4444n * BigInt(slot + 1));
    one.launchState = LaunchState.Launched;
    one.writeBack(page);
    const other = new ProcessorCopy(0x1000, format);
    other.unverified = 0;
    other.load(page);
    expect(other.quads).toEqual(one.quads);
    expect(other).toMatchObject({
      launchState: LaunchState.Launched,
      resident: true,
      isShadow: false,
      unverified: ALL_UNVERIFIED,
    });
  });

  it('clears what stood above the width of a field when it loads', () => {
    const copy = new ProcessorCopy(0, format);
    copy.words.fill(0xffff_ffff);
    copy.load(blankPage());
    expect(copy.quads.every((quad) => quad === 0n)).toBe(true);
  });

  it('reads the type and does not write header or abort indicator back', () => {
    const page = blankPage();
    page.u32[0] = SHADOW_INDICATOR | 0x13;
    page.u32[1] = 0xabcd;
    writeLaunchState(page, format, LaunchState.Clear);
    const copy = new ProcessorCopy(0, format);
    copy.load(page);
    expect(copy).toMatchObject({ isShadow: true, launchState: LaunchState.Clear });
    copy.isShadow = false;
    copy.writeBack(page);
    expect([page.u32[0], page.u32[1]]).toEqual([0x8000_0013, 0xabcd]);
  });

  it('leaves an undefined launch state undefined', () => {
    const page = blankPage();
    const copy = new ProcessorCopy(0, format);
    copy.load(page);
    copy.writeBack(page);
    expect(page.u8.every((byte) => byte === 0)).toBe(true);
  });

  it('makes every list of checks depend on every field unless told otherwise', () => {
    expect(new ProcessorCopy(0, format).dependents.every((lists) => lists === ALL_UNVERIFIED)).toBe(true);
    const dependents = new Uint32Array(FIELD_COUNT);
    expect(new ProcessorCopy(0, format, dependents).dependents).toBe(dependents);
  });
});

const RIP = Field.guestRip;
const TOLD_BEFORE = 77;

/** A window as a processor has one, with marks of the copy that was there before. */
function window(): CopyStorage & { readonly told: Int32Array } {
  const buffer = new ArrayBuffer(8 * FIELD_COUNT);
  return {
    words: new Uint32Array(buffer),
    quads: new BigUint64Array(buffer),
    unverified: Uint32Array.of(0),
    told: new Int32Array(FIELD_COUNT).fill(TOLD_BEFORE),
  };
}

/** A copy of which list 1 looks at even slots and list 2 at odd ones, verified and in a window. */
function inWindow() {
  const dependents = Uint32Array.from({ length: FIELD_COUNT }, (_, slot) => 1 << (slot & 1));
  const copy = new ProcessorCopy(0x1000, format, dependents);
  const place = window();
  copy.moveTo(place);
  copy.unverified = 0;
  return { copy, place, told: place.told };
}

describe('a copy that moves', () => {
  it('takes its data and what is unverified along, and nothing of its predecessor', () => {
    const copy = new ProcessorCopy(0x1000, format);
    copy.quads[RIP] = 5n;
    copy.unverified = 6;
    const place = window();
    copy.moveTo(place);
    expect(copy.words).toBe(place.words);
    expect(copy.quads).toBe(place.quads);
    expect([place.quads[RIP], place.unverified[0], copy.unverified]).toEqual([5n, 6, 6]);
    expect(place.told.every((kind) => kind === 0)).toBe(true);
    copy.moveTo(undefined);
    place.quads[RIP] = 9n;
    place.unverified[0] = 1;
    expect([copy.quads[RIP], copy.unverified]).toEqual([5n, 6]);
    expect(copy.words.buffer).toBe(copy.quads.buffer);
  });
});

describe('a field that software writes', () => {
  it('is marked written, with its lists to be verified, and need not be told again', () => {
    const { copy, told } = inWindow();
    copy.fieldWritten(RIP, WRITTEN);
    expect([copy.unverified, copy.written[RIP], told[RIP]]).toEqual([1 << (RIP & 1), WRITTEN, WRITTEN]);
    copy.fieldWritten(RIP + 1, WRITTEN_HIGH);
    expect([copy.unverified, copy.written[RIP + 1], told[RIP + 1]]).toEqual([3, WRITTEN_HIGH, WRITTEN_HIGH]);
    expect(copy.written.filter((kind) => kind !== 0)).toHaveLength(2);
  });

  it('is marked outside a window too', () => {
    const copy = new ProcessorCopy(0, format);
    copy.unverified = 0;
    copy.fieldWritten(RIP, WRITTEN);
    expect([copy.unverified, copy.written[RIP]]).toEqual([ALL_UNVERIFIED, WRITTEN]);
    copy.unverified = 0;
    copy.fieldWritten(RIP, WRITTEN);
    expect(copy.unverified).toBe(ALL_UNVERIFIED);
  });

  it.each([1, 2, 15, 16, 17, 40])('has to be told again once lists were verified, %i at a time', (count) => {
    const { copy, told } = inWindow();
    for (const round of [1, 2, 3]) {
      for (let slot = 0; slot < count; slot++) copy.fieldWritten(slot * 3 + round, WRITTEN);
      expect(
        told.filter((kind) => kind === WRITTEN),
        `round ${round}`,
      ).toHaveLength(count);
      copy.unverified = 0;
      expect(
        told.every((kind) => kind === 0),
        `round ${round}`,
      ).toBe(true);
    }
  });

  it('need not be told again while lists only become unverified', () => {
    const { copy, told } = inWindow();
    copy.fieldWritten(RIP, WRITTEN);
    copy.unverified |= 8;
    expect(told[RIP]).toBe(WRITTEN);
    copy.unverified &= ~8;
    expect(told[RIP]).toBe(0);
  });

  it('forgets a saved table only if it was a half', () => {
    const { copy } = inWindow();
    const table = {};
    copy.saved = table;
    copy.fieldWritten(RIP, WRITTEN);
    expect(copy.saved).toBe(table);
    copy.fieldWritten(RIP, WRITTEN_HIGH);
    expect(copy.saved).toBeUndefined();
  });
});

describe('what was worked out of host state', () => {
  it('holds until a host-state field is written', () => {
    const { copy, told } = inWindow();
    const image = {};
    expect(copy.hostWritten).toBe(true);
    copy.fieldWritten(Field.hostRip, WRITTEN);
    copy.keepHostImage(image);
    expect([copy.hostImage, copy.hostWritten, told[Field.hostRip]]).toEqual([image, false, 0]);
    copy.fieldWritten(RIP, WRITTEN);
    expect(copy.hostWritten).toBe(false);
    copy.fieldWritten(Field.hostRip, WRITTEN);
    expect(copy.hostWritten).toBe(true);
  });

  it('does not hold for a region that is read', () => {
    const copy = new ProcessorCopy(0, format);
    copy.keepHostImage({});
    copy.load(blankPage());
    expect(copy.hostWritten).toBe(true);
  });
});

describe('a field that the processor saves', () => {
  it('is written as a whole from then on', () => {
    const { copy, told } = inWindow();
    copy.fieldSaved(RIP);
    expect(copy.written[RIP]).toBe(WRITTEN);
    copy.fieldWritten(RIP, WRITTEN_HIGH);
    copy.fieldSaved(RIP);
    expect([copy.written[RIP], told[RIP]]).toEqual([WRITTEN, 0]);
    told[RIP] = TOLD_BEFORE;
    copy.fieldSaved(RIP);
    expect(told[RIP]).toBe(TOLD_BEFORE);
  });

  it('is so outside a window', () => {
    const copy = new ProcessorCopy(0, format);
    copy.fieldWritten(RIP, WRITTEN_HIGH);
    copy.fieldSaved(RIP);
    expect(copy.written[RIP]).toBe(WRITTEN);
  });
});

describe('the slots that were written', () => {
  it('may be replaced, and then no table counts as saved', () => {
    const copy = new ProcessorCopy(0, format);
    const written = new Uint8Array(FIELD_COUNT).fill(WRITTEN);
    copy.saved = {};
    copy.written = written;
    expect(copy.written).toBe(written);
    expect(copy.saved).toBeUndefined();
  });
});
