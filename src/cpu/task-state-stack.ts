/** Stacks that a TSS holds for entry to more privileged code (SDM vol. 3A §6.8.5, §7.14.5). */
import { Rights } from './descriptor.ts';
import { raiseForSelector, Vector } from './exceptions.ts';
import { loadLinear } from './memory-access.ts';
import type { Processor } from './processor.ts';
import { Register } from './registers.ts';

const TR_SELECTOR = 2 * Register['TR.selector'];
const TR_BASE = 2 * Register['TR.base'];
const TR_LIMIT = 2 * Register['TR.limit'];
const TR_RIGHTS = 2 * Register['TR.accessRights'];
const ITEM = 8 * Register.stackItem;
const ITEM_WORD = 2 * Register.stackItem;
/** Bit of the type of a TSS that has 32 bits. */
const TSS_32 = 1 << 3;
const TWO_32 = 0x1_0000_0000;

/** Loads `bytes` at `offset` of the current TSS into the slot `stackItem`; the limit is not checked. */
export function loadFromTss(cpu: Processor, offset: number, bytes: number): boolean {
  const w = cpu.i32;
  const sum = ((w[TR_BASE] as number) >>> 0) + offset;
  const high = w[TR_BASE + 1] as number;
  return loadLinear(cpu, sum | 0, sum >= TWO_32 ? (high + 1) | 0 : high, ITEM, bytes);
}

function withinTss(cpu: Processor, last: number): boolean {
  const usable = ((cpu.i32[TR_RIGHTS] as number) & Rights.Unusable) === 0;
  if (usable && last <= (cpu.i32[TR_LIMIT] as number) >>> 0) return true;
  raiseForSelector(cpu, Vector.TS, cpu.i32[TR_SELECTOR] as number);
  return false;
}

/** SS and stack pointer that a 16- or 32-bit TSS holds for a privilege level. */
export class TssStack {
  selector = 0;
  pointer = 0;

  /** Reads those of `dpl` (0–2); #TS with the selector of the TSS if its limit forbids it. */
  read(cpu: Processor, dpl: number): boolean {
    const w = cpu.i32;
    const wide = ((w[TR_RIGHTS] as number) & TSS_32) !== 0;
    const bytes = wide ? 4 : 2;
    const offset = wide ? 8 * dpl + 4 : 4 * dpl + 2;
    if (!withinTss(cpu, offset + bytes + 1) || !loadFromTss(cpu, offset, bytes)) return false;
    this.pointer = w[ITEM_WORD] as number;
    if (!loadFromTss(cpu, offset + bytes, 2)) return false;
    this.selector = w[ITEM_WORD] as number;
    return true;
  }
}

/**
 * Reads a stack pointer of the 64-bit TSS into the slot `stackItem`: RSP0–RSP2 for 0–2, IST1–IST7 for
 * 4–10.
 */
export function readTssPointer64(cpu: Processor, number: number): boolean {
  const offset = 8 * number + 4;
  return withinTss(cpu, offset + 7) && loadFromTss(cpu, offset, 8);
}
