import { describe, expect, it } from 'vitest';
import { FIELD_COUNT, FIELDS, Field } from '../../src/vmcs/fields.ts';
import { regionFormat } from '../../src/vmcs/layout.ts';
import { ALL_UNVERIFIED, ProcessorCopy } from '../../src/vmcs/processor-copy.ts';
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
