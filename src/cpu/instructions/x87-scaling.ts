/** FSCALE, FXTRACT, FPREM and FPREM1 (SDM vol. 2). */
import { invalid, noteDenormals, propagateNaN } from '../float/arithmetic.ts';
import { exactInteger } from '../float/conversion.ts';
import { bitLength, type Float, finite, infinity, isNan, Kind, zero } from '../float/float.ts';
import { type FloatContext, FloatException, round } from '../float/rounding.ts';
import { x87Ready } from '../float-availability.ts';
import { type Execute, Next } from '../instruction.ts';
import type { OpcodeRow } from '../opcode-row.ts';
import { C0, C1, C2, C3, isEmpty, setStatusWord, statusWord } from '../x87-state.ts';
import {
  finishToRegister,
  finishWithCodes,
  hasRoom,
  push,
  setStack,
  stackOverflow,
  stackUnderflow,
  stackValue,
  x87Context,
} from './x87-context.ts';

/** Beyond this every result overflows or underflows, whatever is scaled. */
const FARTHEST = 0x1_0000;

/** `a` × 2^trunc(`b`). */
function scale(c: FloatContext, a: Float, b: Float): Float {
  if (isNan(a) || isNan(b)) return propagateNaN(c, a, b);
  if (b.kind === Kind.Infinity) {
    if (a.kind === (b.sign === 1 ? Kind.Infinity : Kind.Zero)) return invalid(c);
    noteDenormals(c, a, b);
    return b.sign === 1 ? zero(a.sign) : infinity(a.sign);
  }
  noteDenormals(c, a, b);
  if (a.kind !== Kind.Finite) return a;
  return round(c, a.sign, a.significand, a.exponent + truncated(b));
}

/** `b` truncated to an integer, within ±{@link FARTHEST}. */
function truncated(b: Float): number {
  if (b.kind === Kind.Zero || b.exponent + bitLength(b.significand) <= 0) return 0;
  const large = b.exponent + bitLength(b.significand) > 17;
  const exponent = BigInt(b.exponent);
  const magnitude = large
    ? FARTHEST
    : Number(exponent < 0n ? b.significand >> -exponent : b.significand << exponent);
  return b.sign === 1 ? -magnitude : magnitude;
}

const fscale: Execute = (cpu, i) => {
  const c = x87Context(cpu);
  const empty = isEmpty(cpu, 0) || isEmpty(cpu, 1);
  const result = empty ? stackUnderflow(c) : scale(c, stackValue(cpu, 0), stackValue(cpu, 1));
  if (finishToRegister(cpu, i, c)) setStack(cpu, 0, result);
  return Next.Sequential;
};

/** ST(0) becomes the exponent, and the significand is pushed. */
const fxtract: Execute = (cpu, i) => {
  const c = x87Context(cpu);
  let exponent: Float;
  let significand: Float;
  if (isEmpty(cpu, 0)) exponent = significand = stackUnderflow(c);
  else if (!hasRoom(cpu)) exponent = significand = stackOverflow(c);
  else {
    const a = stackValue(cpu, 0);
    if (isNan(a)) exponent = significand = propagateNaN(c, a, a);
    else if (a.kind === Kind.Infinity) [exponent, significand] = [infinity(0), a];
    else if (a.kind === Kind.Zero) {
      c.raise(FloatException.ZeroDivide);
      [exponent, significand] = [infinity(1), a];
    } else {
      noteDenormals(c, a, a);
      const length = bitLength(a.significand);
      exponent = exactInteger(BigInt(a.exponent + length - 1));
      significand = finite(a.sign, a.significand, 1 - length);
    }
  }
  if (!finishToRegister(cpu, i, c)) return Next.Sequential;
  setStack(cpu, 0, exponent);
  push(cpu, significand);
  return Next.Sequential;
};

/** Condition codes of the low three bits of a quotient. */
function quotientCodes(quotient: bigint): number {
  return (quotient & 4n ? C0 : 0) | (quotient & 2n ? C3 : 0) | (quotient & 1n ? C1 : 0);
}

/** A reduction of the exponent by less than this is complete. */
const COMPLETE = 64;

/** The (partial) remainder, and the condition codes, of which C2 says that it is partial; none without a quotient. */
function remainder(c: FloatContext, a: Float, b: Float, nearest: boolean): { result: Float; codes?: number } {
  if (isNan(a) || isNan(b)) return { result: propagateNaN(c, a, b) };
  if (a.kind === Kind.Infinity || b.kind === Kind.Zero) return { result: invalid(c) };
  noteDenormals(c, a, b);
  if (a.kind === Kind.Zero) return { result: a, codes: 0 };
  if (b.kind === Kind.Infinity) return { result: round(c, a.sign, a.significand, a.exponent), codes: 0 };
  const distance = a.exponent + bitLength(a.significand) - b.exponent - bitLength(b.significand);
  // A partial reduction takes off between 32 and 63 bits of the distance.
  const skipped = distance < COMPLETE ? 0 : distance - ((distance & 31) | 32);
  const exponent = Math.min(a.exponent, b.exponent + skipped);
  const dividend = a.significand << BigInt(a.exponent - exponent);
  const divisor = b.significand << BigInt(b.exponent + skipped - exponent);
  let quotient = dividend / divisor;
  let rest = dividend - quotient * divisor;
  let { sign } = a;
  if (nearest && distance < COMPLETE) {
    const twice = 2n * rest;
    if (twice > divisor || (twice === divisor && (quotient & 1n) === 1n)) {
      quotient++;
      rest = divisor - rest;
      sign = sign === 1 ? 0 : 1;
    }
  }
  const result = rest === 0n ? zero(a.sign) : round(c, sign, rest, exponent);
  return { result, codes: distance < COMPLETE ? quotientCodes(quotient) : C2 };
}

function fprem(nearest: boolean): Execute {
  return (cpu, i) => {
    const c = x87Context(cpu);
    const { result, codes } =
      isEmpty(cpu, 0) || isEmpty(cpu, 1)
        ? { result: stackUnderflow(c) }
        : remainder(c, stackValue(cpu, 0), stackValue(cpu, 1), nearest);
    setStatusWord(cpu, statusWord(cpu) & ~C2);
    const mask = codes === undefined ? 0 : C0 | C3;
    if (finishWithCodes(cpu, i, c, mask, codes ?? 0)) setStack(cpu, 0, result);
    return Next.Sequential;
  };
}

const row = (opcode: string, mnemonic: string, execute: Execute): OpcodeRow => ({
  opcode,
  mnemonic,
  operands: '',
  execute,
  guard: x87Ready,
});

export const X87_SCALING_ROWS: readonly OpcodeRow[] = [
  row('D9 /6 mod=3 rm=4', 'FXTRACT', fxtract),
  row('D9 /6 mod=3 rm=5', 'FPREM1', fprem(true)),
  row('D9 /7 mod=3 rm=0', 'FPREM', fprem(false)),
  row('D9 /7 mod=3 rm=5', 'FSCALE', fscale),
];
