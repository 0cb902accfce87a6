/**
 * One instruction to execute natively and in vmxon, and what came out of it. A case is a function of a
 * seed (`fillSeed`, which fills registers and memory with values that like to be at the edges) and of
 * what its template changed; the layout in memory is that of harness.c.
 */
import { Choice } from './choice.ts';

export const PAGE = 4096;
export const CODE_PAGE = 0x1000_0000;
export const DATA_PAGE = 0x2000_0000;
export const STACK_PAGE = 0x3000_0000;
export const GS_BASE = 0x0800_0000;
/** The bytes of a page that differ from case to case; the rest has the fixed pattern of harness.c. */
export const WINDOW = 256;
export const DATA_WINDOW = 0xf00;
export const STACK_WINDOW = 0x780;
/** FXSAVE image up to XMM15. */
export const FX = 416;
export const CODE_OFFSET = 0x800;

/** What the manual leaves undefined, and the comparison therefore leaves out. */
interface Undefined {
  /** Flags of RFLAGS. */
  readonly flags: number;
  /** General registers, bit 0 for RAX. */
  readonly registers: number;
  /** Bits of the x87 status word. */
  readonly statusWord: number;
  /** By how many units in the last place the x87 registers may differ. */
  readonly lastPlaces: number;
}

export interface NativeCase {
  readonly template: string;
  readonly seed: number;
  /** 64-bit mode, or compatibility mode with code of 32 bits. */
  readonly bits: 32 | 64;
  /** ES is a segment of the data page alone, from base to limit; else it is flat. */
  readonly smallEs: boolean;
  readonly code: Uint8Array;
  readonly codeOffset: number;
  /** A repeated string instruction: it is executed to its end, not for one iteration. */
  readonly repeats: boolean;
  /** The instruction pushes RFLAGS; natively TF is in it, and is taken out of the result. */
  readonly pushesFlags: boolean;
  readonly gprs: BigUint64Array;
  readonly rflags: number;
  readonly data: Uint8Array;
  readonly stack: Uint8Array;
  /** FXSAVE image, if the case is about x87, MMX or SSE. */
  readonly fx: Uint8Array | undefined;
  readonly undefined: Undefined;
}

export interface Fault {
  readonly vector: number;
  readonly error: number;
  /** CR2 of a page fault, else 0. */
  readonly address: bigint;
}

export interface NativeResult {
  readonly fault: Fault | undefined;
  readonly rip: bigint;
  readonly rflags: number;
  readonly gprs: BigUint64Array;
  readonly fx: Uint8Array | undefined;
  /** Changed bytes as offset → value; offsets of the stack page begin at {@link PAGE}. */
  readonly changes: ReadonlyMap<number, number>;
}

/** Executes one instruction at CPL 3. */
export type ExecuteCase = (c: NativeCase) => NativeResult;

/** What harness.c writes to the data page followed by the stack page, outside the windows. */
const BACKGROUND = Uint8Array.from({ length: 2 * PAGE }, (_, i) => (i * 7 + (i >> 8) * 29 + 3) & 0xff);

/** Both pages before the instruction. */
export function initialMemory(c: NativeCase): Uint8Array {
  const memory = BACKGROUND.slice();
  memory.set(c.data, DATA_WINDOW);
  memory.set(c.stack, PAGE + STACK_WINDOW);
  return memory;
}

/** State before the instruction, as a seed alone makes it. */
export interface InitialState {
  readonly gprs: BigUint64Array;
  readonly rflags: number;
  readonly data: Uint8Array;
  readonly stack: Uint8Array;
}

/** Arithmetic flags. */
const ARITHMETIC = 0x8d5;
const ALWAYS_ONE = 2;

function fillWindow(random: Choice): Uint8Array {
  const bytes = new Uint8Array(WINDOW);
  const view = new DataView(bytes.buffer);
  for (let offset = 0; offset < WINDOW; offset += 8) view.setBigUint64(offset, random.edge(), true);
  return bytes;
}

/** General registers as code of 32 bits has them: eight of 32 bits. */
export function keepLowerHalves(gprs: BigUint64Array): void {
  for (let i = 0; i < 16; i++) gprs[i] = i < 8 ? BigInt.asUintN(32, gprs[i] as bigint) : 0n;
}

/** General registers, flags and memory from a seed. RSP is in the stack window. */
export function fill(seed: number, bits: 32 | 64): InitialState {
  const random = new Choice(seed);
  const gprs = BigUint64Array.from({ length: 16 }, () => random.edge());
  if (bits === 32) keepLowerHalves(gprs);
  const alignment = random.chance(80) ? 8 : random.pick([1, 2, 4]);
  gprs[4] = BigInt(STACK_PAGE + STACK_WINDOW + 64 + random.below(128 / alignment) * alignment);
  const rflags = (random.next() & ARITHMETIC) | ALWAYS_ONE;
  return { gprs, rflags, data: fillWindow(random), stack: fillWindow(random) };
}

/** x87, MMX and SSE state from a seed: an FXSAVE image (SDM vol. 1 §10.5.1). */
export function fillFx(seed: number): Uint8Array {
  const random = new Choice(seed ^ 0x5f37_59df);
  const bytes = new Uint8Array(FX);
  const view = new DataView(bytes.buffer);
  // All exceptions masked mostly; precision 64 bits mostly; any rounding.
  const masks = random.chance(85) ? 0x3f : random.below(64);
  const precision = random.pick([3, 3, 3, 3, 2, 0]);
  view.setUint16(0, 0x40 | masks | (precision << 8) | (random.below(4) << 10), true);
  const top = random.below(8);
  // Sticky flags only of masked exceptions: anything else is a pending exception.
  const flags = random.chance(50) ? random.below(64) & masks : 0;
  view.setUint16(2, flags | (random.below(8) << 8) | (random.below(2) << 14) | (top << 11), true);
  view.setUint8(4, random.chance(80) ? 0xff : random.below(256));
  const sseMasks = random.chance(85) ? 0x3f : random.below(64);
  const sseFlags = random.chance(50) ? random.below(64) : 0;
  const daz = random.chance(25) ? 0x40 : 0;
  const ftz = random.chance(25) ? 0x8000 : 0;
  view.setUint32(24, sseFlags | daz | (sseMasks << 7) | (random.below(4) << 13) | ftz, true);
  view.setUint32(28, 0xffff, true);
  for (let i = 0; i < 8; i++) {
    const { significand, signExponent } = random.extended();
    view.setBigUint64(32 + 16 * i, significand, true);
    view.setUint16(40 + 16 * i, signExponent, true);
  }
  for (let i = 0; i < 16; i++) fillVector(random, view, 160 + 16 * i);
  return bytes;
}

/** Sixteen bytes: singles, doubles, or integers. */
export function fillVector(random: Choice, view: DataView, offset: number): void {
  const kind = random.below(4);
  for (let half = 0; half < 16; half += 8) {
    const value =
      kind === 0
        ? random.float(32) | (random.float(32) << 32n)
        : kind === 1
          ? random.float(64)
          : kind === 2
            ? random.edge()
            : random.quad();
    view.setBigUint64(offset + half, value, true);
  }
}
