/** FXSAVE images to and from a processor's registers (SDM vol. 1 §10.5.1). */
import type { Processor } from '../../src/cpu/processor.ts';
import { Register } from '../../src/cpu/registers.ts';

const EMPTY = 3;
const TOP_POSITION = 11;

const fpr = (n: number) => Register[`FPR${n & 7}.significand` as 'FPR0.significand'];
const xmm = (n: number) => Register[`XMM${n}` as 'XMM0'];

/** Tag of a register that is not empty: valid, zero or special (SDM vol. 1 §8.1.7). */
function tagOf(significand: bigint, signExponent: number): number {
  const exponent = signExponent & 0x7fff;
  if (exponent === 0 && significand === 0n) return 1;
  return exponent === 0x7fff || exponent === 0 || significand >> 63n === 0n ? 2 : 0;
}

/** Puts the state of an image into the registers. */
export function loadFx({ quads }: Processor, image: Uint8Array): void {
  const view = new DataView(image.buffer, image.byteOffset, image.byteLength);
  const status = view.getUint16(2, true);
  const top = (status >> TOP_POSITION) & 7;
  const abridged = view.getUint8(4);
  let tags = 0;
  for (let i = 0; i < 8; i++) {
    const significand = view.getBigUint64(32 + 16 * i, true);
    const signExponent = view.getUint16(40 + 16 * i, true);
    const physical = (top + i) & 7;
    quads[fpr(physical)] = significand;
    quads[fpr(physical) + 1] = BigInt(signExponent);
    const tag = abridged & (1 << physical) ? tagOf(significand, signExponent) : EMPTY;
    tags |= tag << (2 * physical);
  }
  for (let n = 0; n < 16; n++) {
    quads[xmm(n)] = view.getBigUint64(160 + 16 * n, true);
    quads[xmm(n) + 1] = view.getBigUint64(168 + 16 * n, true);
  }
  quads[Register.FCW] = BigInt(view.getUint16(0, true));
  quads[Register.FSW] = BigInt(status);
  quads[Register.FTW] = BigInt(tags);
  quads[Register.MXCSR] = BigInt(view.getUint32(24, true));
}

/** An image of the registers; what is no register is as in `before`. */
export function saveFx({ quads }: Processor, before: Uint8Array): Uint8Array {
  const image = before.slice();
  const view = new DataView(image.buffer);
  const status = Number(quads[Register.FSW]);
  const tags = Number(quads[Register.FTW]);
  const top = (status >> TOP_POSITION) & 7;
  let abridged = 0;
  for (let i = 0; i < 8; i++) {
    const physical = (top + i) & 7;
    view.setBigUint64(32 + 16 * i, quads[fpr(physical)] as bigint, true);
    view.setUint16(40 + 16 * i, Number(quads[fpr(physical) + 1]), true);
    if (((tags >> (2 * physical)) & 3) !== EMPTY) abridged |= 1 << physical;
  }
  for (let n = 0; n < 16; n++) {
    view.setBigUint64(160 + 16 * n, quads[xmm(n)] as bigint, true);
    view.setBigUint64(168 + 16 * n, quads[xmm(n) + 1] as bigint, true);
  }
  view.setUint16(0, Number(quads[Register.FCW]), true);
  view.setUint16(2, status, true);
  view.setUint8(4, abridged);
  view.setUint32(24, Number(quads[Register.MXCSR]), true);
  return image;
}
