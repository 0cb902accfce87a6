/**
 * The x87 register stack and its control, status and tag words (SDM vol. 1 §8.1). Registers are physical;
 * ST(i) is register (TOP + i) mod 8. The slot FTW tells empty (3) from not empty (anything else); what a
 * register in use holds is found when software looks.
 */
import type { Processor } from './processor.ts';
import { Register } from './registers.ts';

const FCW = 2 * Register.FCW;
const FSW = 2 * Register.FSW;
const FTW = 2 * Register.FTW;
const FPR = 8 * Register['FPR0.significand'];
const EMPTY = 3;
const TOP_SHIFT = 11;
const TOP_MASK = 7 << TOP_SHIFT;
/** ES and B, which follow the exception flags and masks. */
const SUMMARY = 0x8080;
const EXCEPTIONS = 0x3f;

/** Condition codes and C1 alone. */
export const C0 = 1 << 8;
export const C1 = 1 << 9;
export const C2 = 1 << 10;
export const C3 = 1 << 14;
/** FSW.SF: an invalid operation was a stack fault. */
export const STACK_FAULT = 1 << 6;
const ALL_TAGS_EMPTY = 0xffff;
/** FCW after FNINIT: all exceptions masked, 64-bit precision, to nearest. */
export const INITIAL_FCW = 0x37f;
/** Bits of FCW that exist, and bit 6, which is always 1. */
const FCW_BITS = 0x1f3f;
const FCW_ONE = 0x40;

export function controlWord(cpu: Processor): number {
  return cpu.i32[FCW] as number;
}

export function statusWord(cpu: Processor): number {
  return cpu.i32[FSW] as number;
}

/** Writes FCW; exceptions that this unmasks become pending. */
export function setControlWord(cpu: Processor, value: number): void {
  cpu.i32[FCW] = (value & FCW_BITS) | FCW_ONE;
  setStatusWord(cpu, statusWord(cpu));
}

/** Writes FSW; ES and B are found anew. */
export function setStatusWord(cpu: Processor, value: number): void {
  const isPending = (value & ~controlWord(cpu) & EXCEPTIONS) !== 0;
  cpu.i32[FSW] = (value & 0xffff & ~SUMMARY) | (isPending ? SUMMARY : 0);
}

export function top(cpu: Processor): number {
  return (statusWord(cpu) >> TOP_SHIFT) & 7;
}

export function setTop(cpu: Processor, value: number): void {
  cpu.i32[FSW] = (statusWord(cpu) & ~TOP_MASK) | ((value & 7) << TOP_SHIFT);
}

/** Byte offset of physical register `n`: the significand; sign and exponent are 8 bytes after it. */
function registerAt(n: number): number {
  return FPR + 16 * (n & 7);
}

/** Byte offset of ST(i). */
export function stackAt(cpu: Processor, i: number): number {
  return registerAt(top(cpu) + i);
}

export function isEmpty(cpu: Processor, i: number): boolean {
  const n = (top(cpu) + i) & 7;
  return (((cpu.i32[FTW] as number) >> (2 * n)) & 3) === EMPTY;
}

/** Marks ST(i) as in use or empty. */
export function setEmpty(cpu: Processor, i: number, empty: boolean): void {
  const shift = 2 * ((top(cpu) + i) & 7);
  const others = (cpu.i32[FTW] as number) & ~(EMPTY << shift);
  cpu.i32[FTW] = others | (empty ? EMPTY << shift : 0);
}

/** FTW as FXSAVE has it: a bit for each register that is not empty. */
export function abridgedTags(cpu: Processor): number {
  let abridged = 0;
  for (let n = 0; n < 8; n++) {
    if ((((cpu.i32[FTW] as number) >> (2 * n)) & 3) !== EMPTY) abridged |= 1 << n;
  }
  return abridged;
}

export function setAbridgedTags(cpu: Processor, abridged: number): void {
  let tags = 0;
  for (let n = 0; n < 8; n++) tags |= abridged & (1 << n) ? 0 : EMPTY << (2 * n);
  cpu.i32[FTW] = tags;
}

/** FTW as FNSTENV has it: 0 valid, 1 zero, 2 special, 3 empty. */
export function tagWord(cpu: Processor): number {
  let tags = 0;
  for (let n = 0; n < 8; n++) tags |= tagOf(cpu, n) << (2 * n);
  return tags;
}

function tagOf(cpu: Processor, n: number): number {
  if ((((cpu.i32[FTW] as number) >> (2 * n)) & 3) === EMPTY) return EMPTY;
  const word = registerAt(n) >> 2;
  const low = cpu.i32[word] as number;
  const high = cpu.i32[word + 1] as number;
  const exponent = (cpu.i32[word + 2] as number) & 0x7fff;
  if (exponent === 0 && low === 0 && high === 0) return 1;
  return exponent === 0 || exponent === 0x7fff || high >= 0 ? 2 : 0;
}

/** Writes FTW as FLDENV does: registers whose tag is 3 become empty. */
export function setTagWord(cpu: Processor, value: number): void {
  let tags = 0;
  for (let n = 0; n < 8; n++) if (((value >> (2 * n)) & 3) === EMPTY) tags |= EMPTY << (2 * n);
  cpu.i32[FTW] = tags;
}

/** What FNINIT does. */
export function initialise(cpu: Processor): void {
  cpu.i32[FCW] = INITIAL_FCW;
  cpu.i32[FSW] = 0;
  cpu.i32[FTW] = ALL_TAGS_EMPTY;
  cpu.quads[Register.FOP] = 0n;
  cpu.quads[Register.FIP] = 0n;
  cpu.quads[Register.FDP] = 0n;
}
