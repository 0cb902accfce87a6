/**
 * Addresses of memory operands: the effective address (SDM vol. 1 §3.7.5) and what segmentation makes
 * of it (vol. 3A §3.3, §6.3). Addresses are pairs of 32-bit halves; the linear address ends up in the
 * slot `linear` of the processor's state.
 */
import { isInReach, masked } from './address-rules.ts';
import { raiseWithCode, Vector } from './exceptions.ts';
import { type Instruction, Segment } from './instruction.ts';
import { Mode } from './mode.ts';
import type { Processor } from './processor.ts';
import { Register } from './registers.ts';
import { Access } from './tlb.ts';

const LINEAR = 2 * Register.linear;
const BASES = Int32Array.from(
  ['ES', 'CS', 'SS', 'DS', 'FS', 'GS'] as const,
  (s) => 2 * Register[`${s}.base`],
);
const TWO_32 = 0x1_0000_0000;

/** The effective address of the memory operand into the slot `linear`. */
export function effectiveAddress(cpu: Processor, i: Instruction): void {
  const w = cpu.i32;
  const base = i.base >> 2;
  const index = i.index >> 2;
  if (i.addressBits === 64) {
    const scale = i.scale;
    const indexLow = w[index] as number;
    const scaledHigh =
      scale === 0
        ? (w[index + 1] as number)
        : ((w[index + 1] as number) << scale) | (indexLow >>> (32 - scale));
    const sum = ((w[base] as number) >>> 0) + ((indexLow << scale) >>> 0) + (i.displacement >>> 0);
    w[LINEAR] = sum | 0;
    w[LINEAR + 1] =
      ((w[base + 1] as number) + scaledHigh + i.displacementHigh + Math.floor(sum / TWO_32)) | 0;
    return;
  }
  const sum = ((w[base] as number) + ((w[index] as number) << i.scale) + i.displacement) | 0;
  w[LINEAR] = i.addressBits === 32 ? sum : sum & 0xffff;
  w[LINEAR + 1] = 0;
}

/** Whether the upper bits of an address are all equal under the paging mode in force. */
export function isCanonicalPair(cpu: Processor, hi: number): boolean {
  const sign = hi >> cpu.canonicalShift;
  return sign === 0 || sign === -1;
}

/**
 * The linear address of `bytes` bytes at offset `hi`:`lo` of a segment into the slot `linear`. False
 * if the segment or the canonical form forbids it: #GP(0), or #SS(0) through SS, is raised.
 */
export function linearise(
  cpu: Processor,
  segment: Segment,
  lo: number,
  hi: number,
  bytes: number,
  access: Access,
): boolean {
  const w = cpu.i32;
  if (cpu.mode === Mode.Bit64) {
    let low = lo;
    let high = hi;
    if (segment >= Segment.FS) {
      const base = BASES[segment] as number;
      const sum = (lo >>> 0) + ((w[base] as number) >>> 0);
      low = sum | 0;
      high = (hi + (w[base + 1] as number) + Math.floor(sum / TWO_32)) | 0;
    }
    w[LINEAR] = low;
    w[LINEAR + 1] = high;
    if (
      cpu.addressRules === 0
        ? isCanonicalPair(cpu, high) && !crossesCanonical(cpu, low, high, bytes)
        : followsRules(cpu, cpu.addressRules, low, high, bytes)
    )
      return aligned(cpu, low, bytes);
  } else if (cpu.addressRules !== 0 && !isInReach(0, cpu.addressRules)) {
    // Compatibility mode: every address is in the lower half.
  } else if ((cpu.flatSegments[segment] as number) & access) {
    w[LINEAR] = lo;
    w[LINEAR + 1] = 0;
    if (lo >>> 0 <= TWO_32 - bytes) return aligned(cpu, lo, bytes);
  } else if (segmentAllows(cpu, segment, lo >>> 0, bytes, access)) {
    w[LINEAR] = (lo + (w[BASES[segment] as number] as number)) | 0;
    w[LINEAR + 1] = 0;
    return aligned(cpu, w[LINEAR] as number, bytes);
  }
  raiseWithCode(cpu, segment === Segment.SS ? Vector.SS : Vector.GP, 0);
  return false;
}

/**
 * Whether an access to `bytes` bytes at `high`:`low` in 64-bit mode keeps to `rules` and, without
 * metadata, is canonical; the address in the slot `linear` then is the one without metadata.
 */
export function followsRules(
  cpu: Processor,
  rules: number,
  low: number,
  high: number,
  bytes: number,
): boolean {
  if (!isInReach(high, rules)) return false;
  const hi = masked(high, rules);
  cpu.i32[LINEAR + 1] = hi;
  return isCanonicalPair(cpu, hi) && !crossesCanonical(cpu, low, hi, bytes);
}

/** The linear address of `offset` in a segment into the slot `linear`, without any check. */
export function lineariseUnchecked(cpu: Processor, segment: Segment, offset: bigint): void {
  const wide = cpu.mode === Mode.Bit64;
  const usesBase = !wide || segment >= Segment.FS;
  const base = usesBase ? (cpu.quads[(BASES[segment] as number) >> 1] as bigint) : 0n;
  cpu.quads[Register.linear] = BigInt.asUintN(wide ? 64 : 32, base + offset);
}

/** Whether bytes after the first leave the canonical half that the first is in. */
function crossesCanonical(cpu: Processor, lo: number, hi: number, bytes: number): boolean {
  return (lo >>> 0) + bytes > TWO_32 && !isCanonicalPair(cpu, (hi + 1) | 0);
}

/** Alignment check (SDM vol. 3A §7.15, #AC): only at CPL 3 with CR0.AM and RFLAGS.AC. A far pointer of six bytes is aligned to four. */
function aligned(cpu: Processor, lo: number, bytes: number): boolean {
  if (cpu.alignmentChecked && bytes <= 8 && (lo & (bytes === 6 ? 3 : bytes - 1)) !== 0) {
    raiseWithCode(cpu, Vector.AC, 0);
    return false;
  }
  return true;
}

const S = 1 << 4;
const CODE = 1 << 3;
const EXPAND_DOWN_OR_CONFORMING = 1 << 2;
const WRITABLE_OR_READABLE = 1 << 1;
const PRESENT = 1 << 7;
const BIG = 1 << 14;
const UNUSABLE = 1 << 16;
const LIMITS = Int32Array.from(
  ['ES', 'CS', 'SS', 'DS', 'FS', 'GS'] as const,
  (s) => 2 * Register[`${s}.limit`],
);
const RIGHTS = Int32Array.from(
  ['ES', 'CS', 'SS', 'DS', 'FS', 'GS'] as const,
  (s) => 2 * Register[`${s}.accessRights`],
);

/** Type and limit checks outside 64-bit mode (SDM vol. 3A §6.3, §6.5). */
function segmentAllows(
  cpu: Processor,
  segment: Segment,
  offset: number,
  bytes: number,
  access: Access,
): boolean {
  const w = cpu.i32;
  const rights = w[RIGHTS[segment] as number] as number;
  const limit = (w[LIMITS[segment] as number] as number) >>> 0;
  const last = offset + bytes - 1;
  // In real-address and virtual-8086 mode only the limit counts, and every segment is writable.
  if (cpu.mode === Mode.Real || cpu.mode === Mode.Virtual8086) {
    return withinLimit(rights, limit, offset, last);
  }
  if ((rights & UNUSABLE) !== 0 || (rights & PRESENT) === 0 || (rights & S) === 0) return false;
  if ((rights & CODE) !== 0) {
    if (access === Access.Write || (rights & WRITABLE_OR_READABLE) === 0) return false;
    return last <= limit;
  }
  if (access === Access.Write && (rights & WRITABLE_OR_READABLE) === 0) return false;
  return withinLimit(rights, limit, offset, last);
}

/** Whether offsets up to `last` are within the limit of a segment of these access rights. */
export function withinLimit(rights: number, limit: number, offset: number, last: number): boolean {
  const expandDown = (rights & CODE) === 0 && (rights & EXPAND_DOWN_OR_CONFORMING) !== 0;
  if (!expandDown) return last <= limit;
  return offset > limit && last <= ((rights & BIG) !== 0 ? 0xffff_ffff : 0xffff);
}

/** For {@link Processor.flatSegments}: accesses that need no check because base is 0 and the limit 4 GBytes. */
export function flatAccesses(cpu: Processor, segment: Segment): number {
  const w = cpu.i32;
  const rights = w[RIGHTS[segment] as number] as number;
  const flat = w[BASES[segment] as number] === 0 && w[LIMITS[segment] as number] === -1;
  const usable = (rights & UNUSABLE) === 0 && (rights & PRESENT) !== 0 && (rights & S) !== 0;
  if (!flat || !usable) return 0;
  const modifiable = (rights & WRITABLE_OR_READABLE) !== 0;
  if ((rights & CODE) !== 0) return modifiable ? Access.Read : 0;
  if ((rights & EXPAND_DOWN_OR_CONFORMING) !== 0) return 0;
  return modifiable ? Access.Read | Access.Write : Access.Read;
}
