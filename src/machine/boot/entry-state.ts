/**
 * Registers with which an image is entered: real mode, 32-bit protected mode without paging, or 64-bit
 * mode with memory mapped to itself. Interrupts are off; the GDT has a code segment (08H) and a data
 * segment (10H).
 */
import type { RegisterName } from '../../cpu/registers.ts';

export type EntryMode = 16 | 32 | 64;
export type RegisterValue = readonly [RegisterName, bigint];

const CODE = 0x08n;
const DATA = 0x10n;
const DATA_SEGMENTS = ['DS', 'ES', 'FS', 'GS', 'SS'] as const;

/** GDT for 32-bit or 64-bit mode: null, code, data; flat, 4 GBytes. */
export function flatGdt(mode: 32 | 64): Uint8Array {
  const gdt = new BigUint64Array([
    0n,
    mode === 32 ? 0x00cf_9b00_0000_ffffn : 0x00af_9b00_0000_ffffn,
    0x00cf_9300_0000_ffffn,
  ]);
  return new Uint8Array(gdt.buffer);
}

function flatSegments(mode: 32 | 64): RegisterValue[] {
  return [
    ['CS.selector', CODE],
    ['CS.base', 0n],
    ['CS.limit', 0xffff_ffffn],
    ['CS.accessRights', mode === 32 ? 0xc09bn : 0xa09bn],
    ...DATA_SEGMENTS.flatMap((segment): RegisterValue[] => [
      [`${segment}.selector`, DATA],
      [`${segment}.base`, 0n],
      [`${segment}.limit`, 0xffff_ffffn],
      [`${segment}.accessRights`, 0xc093n],
    ]),
  ];
}

/** Real mode at linear address `entry` below 1 MByte plus 64 KBytes; SS:SP is 0000H:`stack`. */
export function realModeState(entry: number, stack: number): RegisterValue[] {
  // An address in the first 64 KBytes is reached with CS 0, as a boot sector is.
  const selector = entry < 0x1_0000 ? 0 : Math.min(entry >> 4, 0xffff);
  return [
    ['RIP', BigInt(entry - selector * 16)],
    ['RSP', BigInt(stack)],
    ['RFLAGS', 2n],
    ['CR0', 0x10n],
    ['CS.selector', BigInt(selector)],
    ['CS.base', BigInt(selector * 16)],
    ['IDTR.limit', 0x3ffn],
  ];
}

/** 32-bit protected mode: CR0.PE is 1, CR0.PG is 0. */
export function protectedModeState(entry: number, gdt: number): RegisterValue[] {
  return [
    ['RIP', BigInt(entry)],
    ['RFLAGS', 2n],
    ['CR0', 0x11n],
    ['GDTR.base', BigInt(gdt)],
    ['GDTR.limit', 23n],
    ['IDTR.limit', 0n],
    ...flatSegments(32),
  ];
}

/** 64-bit mode with 4-level paging from `cr3`. */
export function longModeState(entry: number, gdt: number, cr3: number): RegisterValue[] {
  return [
    ['RIP', BigInt(entry)],
    ['RFLAGS', 2n],
    ['CR3', BigInt(cr3)],
    ['CR4', 0x20n],
    ['IA32_EFER', 0x500n],
    ['CR0', 0x8000_0011n],
    ['GDTR.base', BigInt(gdt)],
    ['GDTR.limit', 23n],
    ['IDTR.limit', 0n],
    ...flatSegments(64),
  ];
}
