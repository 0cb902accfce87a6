/**
 * The legacy region of an XSAVE area, which is what FXSAVE writes (SDM vol. 1 §10.5.1, §13.4.1), built in
 * and taken from a buffer; and the buffer's way to and from memory. FCS and FDS are always 0, as on a
 * processor that enumerates CPUID.07H.0:EBX[13].
 */
import { load, store } from './memory-access.ts';
import { Mode } from './mode.ts';
import type { Processor } from './processor.ts';
import { Register } from './registers.ts';
import { abridgedTags, setAbridgedTags, setControlWord, setStatusWord, stackAt } from './x87-state.ts';

const T0 = 8 * Register.T0;
const T0_WORD = 2 * Register.T0;
const LINEAR = 2 * Register.linear;
const XMM = 8 * Register.XMM0;
const MXCSR = 2 * Register.MXCSR;
/** Bits of MXCSR that exist; also what FXSAVE says of them. */
export const MXCSR_MASK = 0xffff;
export const LEGACY_BYTES = 512;

const At = { FCW: 0, FSW: 2, FTW: 4, FOP: 6, FIP: 8, FDP: 16, MXCSR: 24, MXCSR_MASK: 28, ST0: 32, XMM0: 160 };

/** Holds one area while it is built or examined; nothing in it outlives an instruction. */
export const image = new DataView(new ArrayBuffer(4096));
const words = new Int32Array(image.buffer);

/** XMM registers that the mode has. */
export function vectorRegisters(cpu: Processor): 8 | 16 {
  return cpu.mode === Mode.Bit64 ? 16 : 8;
}

/** x87 state: bytes 0 to 23 and 32 to 159. `wide`: pointers of 64 bits (REX.W). */
export function saveX87(cpu: Processor, wide: boolean): void {
  image.setUint16(At.FCW, cpu.i32[2 * Register.FCW] as number, true);
  image.setUint16(At.FSW, cpu.i32[2 * Register.FSW] as number, true);
  image.setUint16(At.FTW, abridgedTags(cpu), true);
  image.setUint16(At.FOP, cpu.i32[2 * Register.FOP] as number, true);
  image.setInt32(At.FIP, cpu.i32[2 * Register.FIP] as number, true);
  image.setInt32(At.FIP + 4, wide ? (cpu.i32[2 * Register.FIP + 1] as number) : 0, true);
  image.setInt32(At.FDP, cpu.i32[2 * Register.FDP] as number, true);
  image.setInt32(At.FDP + 4, wide ? (cpu.i32[2 * Register.FDP + 1] as number) : 0, true);
  for (let n = 0; n < 8; n++) {
    const from = stackAt(cpu, n) >> 2;
    const to = (At.ST0 + 16 * n) >> 2;
    words[to] = cpu.i32[from] as number;
    words[to + 1] = cpu.i32[from + 1] as number;
    words[to + 2] = (cpu.i32[from + 2] as number) & 0xffff;
    words[to + 3] = 0;
  }
}

/** Takes x87 state from the image. */
export function restoreX87(cpu: Processor, wide: boolean): void {
  setControlWord(cpu, image.getUint16(At.FCW, true));
  setStatusWord(cpu, image.getUint16(At.FSW, true));
  setAbridgedTags(cpu, image.getUint8(At.FTW));
  cpu.i32[2 * Register.FOP] = image.getUint16(At.FOP, true) & 0x7ff;
  cpu.i32[2 * Register.FIP] = image.getInt32(At.FIP, true);
  cpu.i32[2 * Register.FIP + 1] = wide ? image.getInt32(At.FIP + 4, true) : 0;
  cpu.i32[2 * Register.FDP] = image.getInt32(At.FDP, true);
  cpu.i32[2 * Register.FDP + 1] = wide ? image.getInt32(At.FDP + 4, true) : 0;
  for (let n = 0; n < 8; n++) {
    const to = stackAt(cpu, n) >> 2;
    const from = (At.ST0 + 16 * n) >> 2;
    cpu.i32[to] = words[from] as number;
    cpu.i32[to + 1] = words[from + 1] as number;
    cpu.i32[to + 2] = (words[from + 2] as number) & 0xffff;
    cpu.i32[to + 3] = 0;
  }
}

/** MXCSR and its mask: bytes 24 to 31. */
export function saveMxcsr(cpu: Processor): void {
  image.setInt32(At.MXCSR, cpu.i32[MXCSR] as number, true);
  image.setInt32(At.MXCSR_MASK, MXCSR_MASK, true);
}

/** Whether the image has only bits of MXCSR that exist. */
export function hasValidMxcsr(): boolean {
  return (image.getInt32(At.MXCSR, true) & ~MXCSR_MASK) === 0;
}

export function restoreMxcsr(cpu: Processor): void {
  cpu.i32[MXCSR] = image.getInt32(At.MXCSR, true);
}

/** XMM registers from byte 160 on. */
export function saveXmm(cpu: Processor): void {
  const count = 4 * vectorRegisters(cpu);
  for (let n = 0; n < count; n++) words[(At.XMM0 >> 2) + n] = cpu.i32[(XMM >> 2) + n] as number;
}

export function restoreXmm(cpu: Processor): void {
  const count = 4 * vectorRegisters(cpu);
  for (let n = 0; n < count; n++) cpu.i32[(XMM >> 2) + n] = words[(At.XMM0 >> 2) + n] as number;
}

/** Bytes of the legacy region that are written when XMM registers are. */
export function xmmEnd(cpu: Processor): number {
  return At.XMM0 + 16 * vectorRegisters(cpu);
}

/** Sets the slot `linear` to `offset` bytes behind the area at `hi`:`lo`. */
function pointTo(cpu: Processor, lo: number, hi: number, offset: number): void {
  const sum = (lo >>> 0) + offset;
  cpu.i32[LINEAR] = sum;
  cpu.i32[LINEAR + 1] = sum > 0xffff_ffff && cpu.codeBits === 64 ? (hi + 1) | 0 : hi;
}

/** Loads bytes `from` (a multiple of 8) to `end` of the area at the slot `linear`, which is kept. */
export function loadImage(cpu: Processor, from: number, end: number): boolean {
  const lo = cpu.i32[LINEAR] as number;
  const hi = cpu.i32[LINEAR + 1] as number;
  for (let offset = from; offset < end; offset += 8) {
    pointTo(cpu, lo, hi, offset);
    if (!load(cpu, T0, Math.min(8, end - offset))) return false;
    words[offset >> 2] = cpu.i32[T0_WORD] as number;
    words[(offset >> 2) + 1] = cpu.i32[T0_WORD + 1] as number;
  }
  pointTo(cpu, lo, hi, 0);
  return true;
}

/** Stores bytes `from` (a multiple of 8) to `end` to the area at the slot `linear`, which is kept. */
export function storeImage(cpu: Processor, from: number, end: number): void {
  const lo = cpu.i32[LINEAR] as number;
  const hi = cpu.i32[LINEAR + 1] as number;
  for (let offset = from; offset < end; offset += 8) {
    pointTo(cpu, lo, hi, offset);
    cpu.i32[T0_WORD] = words[offset >> 2] as number;
    cpu.i32[T0_WORD + 1] = words[(offset >> 2) + 1] as number;
    store(cpu, T0, Math.min(8, end - offset));
  }
  pointTo(cpu, lo, hi, 0);
}
