import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { FIELD_COUNT, FIELDS, Field, fieldOf } from '../../src/vmcs/fields.ts';
import { regionFormat } from '../../src/vmcs/layout.ts';
import {
  isShadowVmcs,
  LaunchState,
  loadFields,
  type RegionPage,
  readLaunchState,
  revisionIdentifier,
  SHADOW_INDICATOR,
  storeField,
  storeFields,
  vmxAbortIndicator,
  writeLaunchState,
  writeVmxAbortIndicator,
} from '../../src/vmcs/region.ts';

function blankPage(): RegionPage {
  const buffer = new ArrayBuffer(4096);
  return { u8: new Uint8Array(buffer), u16: new Uint16Array(buffer), u32: new Uint32Array(buffer) };
}

const REVISIONS = [0x4, 0xd, 0x12, 0x13];
const formatOf = (revision: number) => regionFormat(revision, 4096, () => true);
const words = fc.uint32Array({ minLength: 2 * FIELD_COUNT, maxLength: 2 * FIELD_COUNT });

/** `values` with every field cut to its width. */
function cut(values: Uint32Array): Uint32Array {
  const result = values.slice();
  for (const { slot, bits } of FIELDS) {
    if (bits === 16) result[2 * slot] = (values[2 * slot] as number) & 0xffff;
    if (bits < 64) result[2 * slot + 1] = 0;
  }
  return result;
}

describe('the header (SDM Table 27-1)', () => {
  it('has the revision in bits 30:0 and the shadow indicator in bit 31', () => {
    const page = blankPage();
    page.u32[0] = 0xffff_ffff;
    expect([revisionIdentifier(page), isShadowVmcs(page)]).toEqual([0x7fff_ffff, true]);
    page.u32[0] = 0x15;
    expect([revisionIdentifier(page), isShadowVmcs(page)]).toEqual([0x15, false]);
    page.u32[0] = SHADOW_INDICATOR;
    expect([revisionIdentifier(page), isShadowVmcs(page)]).toEqual([0, true]);
  });

  it('has the VMX-abort indicator at offset 4', () => {
    const page = blankPage();
    writeVmxAbortIndicator(page, 0xdead_0004);
    expect([...page.u8.subarray(0, 9)]).toEqual([0, 0, 0, 0, 0x04, 0, 0xad, 0xde, 0]);
    expect(vmxAbortIndicator(page)).toBe(0xdead_0004);
  });
});

describe.each(REVISIONS)('the data of revision %i', (revision) => {
  const format = formatOf(revision);

  it('come back as stored, each cut to the width of its field', () => {
    fc.assert(
      fc.property(words, (values) => {
        const page = blankPage();
        storeFields(page, format, values);
        const loaded = new Uint32Array(2 * FIELD_COUNT);
        loadFields(page, format, loaded);
        expect(loaded).toEqual(cut(values));
      }),
      { numRuns: 20 },
    );
  });

  it('leave header and launch state alone', () => {
    const page = blankPage();
    storeFields(page, format, new Uint32Array(2 * FIELD_COUNT).fill(0xffff_ffff));
    expect([page.u32[0], page.u32[1], page.u32[format.launchStateOffset >> 2]]).toEqual([0, 0, 0]);
  });

  it.each(['vpid', 'guestRip', 'exceptionBitmap', 'tscOffset'] as const)('store %s alone', (key) => {
    const { slot, bits } = fieldOf(key);
    const page = blankPage();
    page.u8.fill(0x55);
    storeField(page, format, new Uint32Array(2 * FIELD_COUNT).fill(0xaaaa_aaaa), slot);
    const offset = format.offsets[slot] as number;
    page.u8.forEach((byte, i) => {
      expect(byte).toBe(i >= offset && i < offset + bits / 8 ? 0xaa : 0x55);
    });
  });

  it('keep the launch state, and read anything else as undefined', () => {
    const page = blankPage();
    expect(readLaunchState(page, format)).toBe(LaunchState.Undefined);
    for (const state of [LaunchState.Clear, LaunchState.Launched, LaunchState.Clear]) {
      writeLaunchState(page, format, state);
      expect(readLaunchState(page, format)).toBe(state);
    }
    const before = page.u8.slice();
    writeLaunchState(page, format, LaunchState.Undefined);
    expect(page.u8).toEqual(before);
  });

  it('do not read as a VMCS of another revision', () => {
    const page = blankPage();
    writeLaunchState(page, format, LaunchState.Launched);
    for (const other of REVISIONS.filter((r) => r !== revision)) {
      expect(readLaunchState(page, formatOf(other))).toBe(LaunchState.Undefined);
    }
  });
});

describe('a field without a place in the format', () => {
  const format = regionFormat(4, 4096, (slot) => slot !== Field.guestRip);

  it('is neither loaded nor stored', () => {
    const page = blankPage();
    page.u8.fill(0x55);
    const values = new Uint32Array(2 * FIELD_COUNT);
    values.set([0x1234, 0x5678], 2 * Field.guestRip);
    storeField(page, format, values, Field.guestRip);
    expect(page.u8.every((byte) => byte === 0x55)).toBe(true);
    loadFields(page, format, values);
    expect([...values.subarray(2 * Field.guestRip, 2 * Field.guestRip + 2)]).toEqual([0x1234, 0x5678]);
  });
});
