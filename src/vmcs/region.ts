/**
 * The VMCS region in memory (SDM §27.2, Table 27-1) as the 4-KByte page that holds it: header access
 * and the movement of data between a region and a processor-held copy, in the region's format.
 */
import { FIELD_COUNT, FIELDS } from './fields.ts';
import { ABORT_INDICATOR_OFFSET, REVISION_OFFSET, type RegionFormat } from './layout.ts';

/** The page that holds a region, as bytes and as aligned views of the same bytes. */
export interface RegionPage {
  readonly u8: Uint8Array;
  readonly u16: Uint16Array;
  readonly u32: Uint32Array;
}

export const SHADOW_INDICATOR = 0x8000_0000;

/** Launch state of a VMCS (SDM §27.1). `undefined`: never initialised by VMCLEAR. */
export const LaunchState = { Clear: 0, Launched: 1, Undefined: 2 } as const;
export type LaunchState = (typeof LaunchState)[keyof typeof LaunchState];

/** Bits 30:0 of the first dword. */
export function revisionIdentifier(page: RegionPage): number {
  return (page.u32[REVISION_OFFSET >> 2] as number) & 0x7fff_ffff;
}

/** Bit 31 of the first dword. */
export function isShadowVmcs(page: RegionPage): boolean {
  return ((page.u32[REVISION_OFFSET >> 2] as number) & SHADOW_INDICATOR) !== 0;
}

export function vmxAbortIndicator(page: RegionPage): number {
  return page.u32[ABORT_INDICATOR_OFFSET >> 2] as number;
}

export function writeVmxAbortIndicator(page: RegionPage, indicator: number): void {
  page.u32[ABORT_INDICATOR_OFFSET >> 2] = indicator;
}

export function readLaunchState(page: RegionPage, format: RegionFormat): LaunchState {
  const value = page.u32[format.launchStateOffset >> 2];
  if (value === format.launchStateValues.clear) return LaunchState.Clear;
  if (value === format.launchStateValues.launched) return LaunchState.Launched;
  return LaunchState.Undefined;
}

export function writeLaunchState(page: RegionPage, format: RegionFormat, state: LaunchState): void {
  const { clear, launched } = format.launchStateValues;
  if (state === LaunchState.Undefined) return;
  page.u32[format.launchStateOffset >> 2] = state === LaunchState.Launched ? launched : clear;
}

/** Copies every field of the region into `words` (two 32-bit words a slot, low first). */
export function loadFields(page: RegionPage, format: RegionFormat, words: Uint32Array): void {
  for (let slot = 0; slot < FIELD_COUNT; slot++) {
    const offset = format.offsets[slot] as number;
    if (offset === -1) continue;
    const bits = (FIELDS[slot] as { bits: number }).bits;
    words[2 * slot] = bits === 16 ? (page.u16[offset >> 1] as number) : (page.u32[offset >> 2] as number);
    words[2 * slot + 1] = bits === 64 ? (page.u32[(offset >> 2) + 1] as number) : 0;
  }
}

/** Copies every field of `words` into the region. */
export function storeFields(page: RegionPage, format: RegionFormat, words: Uint32Array): void {
  for (let slot = 0; slot < FIELD_COUNT; slot++) storeField(page, format, words, slot);
}

/** Copies one field of `words` into the region. */
export function storeField(page: RegionPage, format: RegionFormat, words: Uint32Array, slot: number): void {
  const offset = format.offsets[slot] as number;
  if (offset === -1) return;
  const bits = (FIELDS[slot] as { bits: number }).bits;
  if (bits === 16) {
    page.u16[offset >> 1] = words[2 * slot] as number;
    return;
  }
  page.u32[offset >> 2] = words[2 * slot] as number;
  if (bits === 64) page.u32[(offset >> 2) + 1] = words[2 * slot + 1] as number;
}
