/**
 * F2XM1, FYL2X, FYL2XP1, FPTAN, FPATAN, FSIN, FCOS and FSINCOS (SDM vol. 1 §8.3.6 to §8.3.10; tables of their
 * results in vol. 2). Results are rounded as FCW.RC says, to the full precision whatever FCW.PC says.
 */
import { invalid, noteDenormals, propagateNaN } from '../float/arithmetic.ts';
import { type Float, finite, infinity, isNan, Kind, type Sign, zero } from '../float/float.ts';
import { type FloatContext, FloatException, round } from '../float/rounding.ts';
import {
  angle,
  leadingExponent,
  logarithm2,
  logarithm2Plus1,
  powerOf2MinusOne,
  quarterPi,
  type Real,
  sineAndCosine,
  tangent,
} from '../float/transcendental.ts';
import { x87Ready } from '../float-availability.ts';
import { type Execute, type Instruction, Next } from '../instruction.ts';
import type { OpcodeRow } from '../opcode-row.ts';
import type { Processor } from '../processor.ts';
import { C2, isEmpty, setStatusWord, statusWord } from '../x87-state.ts';
import {
  finishToRegister,
  hasRoom,
  pop,
  push,
  setStack,
  stackOverflow,
  stackUnderflow,
  stackValue,
  x87Context,
} from './x87-context.ts';

const ONE = finite(0, 1n, 0);
const isNumber = (a: Float) => a.kind === Kind.Finite;
const xor = (a: Sign, b: Sign) => (a ^ b) as Sign;
const rounded = (c: FloatContext, a: Real) => round(c, a.sign, a.significand, a.exponent);

/** 2^`a` − 1. DEVIATION(x87-range): what is not within ±1 stays as it is. */
function powerMinusOne(c: FloatContext, a: Float): Float {
  if (isNan(a)) return propagateNaN(c, a, a);
  if (a.kind === Kind.Infinity) return a.sign === 1 ? finite(1, 1n, 0) : a;
  noteDenormals(c, a, a);
  if (!isNumber(a)) return a;
  const leading = leadingExponent(a);
  if (leading < 0) return rounded(c, powerOf2MinusOne(a));
  const isOne = leading === 0 && (a.significand & (a.significand - 1n)) === 0n;
  return isOne && a.sign === 1 ? finite(1, 1n, -1) : a;
}

/** `y` × an infinite logarithm of sign `sign`. */
function timesInfinity(c: FloatContext, y: Float, sign: Sign): Float {
  return y.kind === Kind.Zero ? invalid(c) : infinity(xor(y.sign, sign));
}

/** `y` × `log`; an exact logarithm of 0 is +0. */
function timesLogarithm(c: FloatContext, y: Float, log: Real & { exact: boolean }): Float {
  const sign = xor(y.sign, log.sign);
  if (y.kind === Kind.Infinity) return log.significand === 0n ? invalid(c) : infinity(sign);
  if (y.kind === Kind.Zero || log.significand === 0n) return zero(sign);
  return round(c, sign, y.significand * log.significand, y.exponent + log.exponent);
}

/** `y` × log2 `x`. */
function yLog2X(c: FloatContext, x: Float, y: Float): Float {
  if (isNan(x) || isNan(y)) return propagateNaN(c, x, y);
  if (x.kind === Kind.Zero) {
    if (y.kind === Kind.Zero) return invalid(c);
    if (isNumber(y)) c.raise(FloatException.ZeroDivide);
    return infinity(xor(y.sign, 1));
  }
  if (x.sign === 1) return invalid(c);
  if (x.kind === Kind.Infinity) {
    if (y.kind !== Kind.Zero) noteDenormals(c, y, y);
    return timesInfinity(c, y, 0);
  }
  const log = logarithm2(x);
  if (y.kind !== Kind.Infinity || log.significand !== 0n) noteDenormals(c, x, y);
  return timesLogarithm(c, y, log);
}

/** `y` × log2 (`x` + 1). DEVIATION(x87-range): also beyond what the manual defines, where that exists. */
function yLog2XPlus1(c: FloatContext, x: Float, y: Float): Float {
  if (isNan(x) || isNan(y)) return propagateNaN(c, x, y);
  if (x.kind === Kind.Zero) {
    if (y.kind === Kind.Infinity) return invalid(c);
    noteDenormals(c, y, y);
    return zero(xor(x.sign, y.sign));
  }
  if (x.kind === Kind.Infinity) {
    if (x.sign === 1) return invalid(c);
    if (y.kind !== Kind.Zero) noteDenormals(c, y, y);
    return timesInfinity(c, y, 0);
  }
  if (x.sign === 1 && leadingExponent(x) >= 0) return invalid(c);
  noteDenormals(c, x, y);
  return timesLogarithm(c, y, logarithm2Plus1(x));
}

/** The angle of (`x`, `y`): a multiple of π/4 if one of them is 0 or infinite. */
function arcTangent(c: FloatContext, x: Float, y: Float): Float {
  if (isNan(x) || isNan(y)) return propagateNaN(c, x, y);
  noteDenormals(c, x, y);
  const multiple = (quarters: number) => rounded(c, quarterPi(quarters, y.sign));
  if (y.kind === Kind.Infinity) {
    return x.kind === Kind.Infinity ? multiple(x.sign === 1 ? 3 : 1) : multiple(2);
  }
  if (x.kind === Kind.Infinity || y.kind === Kind.Zero) return x.sign === 1 ? multiple(4) : zero(y.sign);
  if (x.kind === Kind.Zero) return multiple(2);
  return rounded(c, angle(y, x));
}

/** ST(1) ← f(ST(0), ST(1)), and a pop. */
function ofTwo(operation: (c: FloatContext, x: Float, y: Float) => Float): Execute {
  return (cpu, i) => {
    const c = x87Context(cpu);
    const empty = isEmpty(cpu, 0) || isEmpty(cpu, 1);
    const result = empty ? stackUnderflow(c) : operation(c, stackValue(cpu, 0), stackValue(cpu, 1));
    if (!finishToRegister(cpu, i, c)) return Next.Sequential;
    setStack(cpu, 1, result);
    pop(cpu);
    return Next.Sequential;
  };
}

const f2xm1: Execute = (cpu, i) => {
  const c = x87Context(cpu);
  const result = isEmpty(cpu, 0) ? stackUnderflow(c) : powerMinusOne(c, stackValue(cpu, 0));
  if (finishToRegister(cpu, i, c)) setStack(cpu, 0, result);
  return Next.Sequential;
};

/** Arguments from 2^63 on are not reduced. */
const FARTHEST = 63;

/** What replaces ST(0), and what is pushed then. */
type Trigonometry = (c: FloatContext, a: Float) => readonly [result: Float, pushed?: Float];

function trigonometric(pushes: boolean, operation: Trigonometry): Execute {
  const results = (cpu: Processor, c: FloatContext): readonly [Float, Float?] => {
    if (isEmpty(cpu, 0)) return [stackUnderflow(c), stackUnderflow(c)];
    if (pushes && !hasRoom(cpu)) return [stackOverflow(c), stackOverflow(c)];
    const a = stackValue(cpu, 0);
    if (isNan(a)) return [propagateNaN(c, a, a), propagateNaN(c, a, a)];
    if (a.kind === Kind.Infinity) return [invalid(c), invalid(c)];
    noteDenormals(c, a, a);
    return operation(c, a);
  };
  return (cpu: Processor, i: Instruction) => {
    const c = x87Context(cpu);
    const isFar = isTooFar(cpu, pushes);
    setStatusWord(cpu, (statusWord(cpu) & ~C2) | (isFar ? C2 : 0));
    if (isFar) {
      finishToRegister(cpu, i, c);
      return Next.Sequential;
    }
    const [result, pushed] = results(cpu, c);
    if (!finishToRegister(cpu, i, c)) return Next.Sequential;
    setStack(cpu, 0, result);
    if (pushes && pushed !== undefined) push(cpu, pushed);
    return Next.Sequential;
  };
}

function isTooFar(cpu: Processor, pushes: boolean): boolean {
  if (isEmpty(cpu, 0) || (pushes && !hasRoom(cpu))) return false;
  const a = stackValue(cpu, 0);
  return isNumber(a) && leadingExponent(a) >= FARTHEST;
}

const fptan = trigonometric(true, (c, a) => [isNumber(a) ? rounded(c, tangent(a)) : a, ONE]);
const fsin = trigonometric(false, (c, a) => [isNumber(a) ? rounded(c, sineAndCosine(a).sine) : a]);
const fcos = trigonometric(false, (c, a) => [isNumber(a) ? rounded(c, sineAndCosine(a).cosine) : ONE]);
const fsincos = trigonometric(true, (c, a) => {
  if (!isNumber(a)) return [a, ONE];
  const { sine, cosine } = sineAndCosine(a);
  return [rounded(c, sine), rounded(c, cosine)];
});

const row = (opcode: string, mnemonic: string, execute: Execute): OpcodeRow => ({
  opcode,
  mnemonic,
  operands: '',
  execute,
  guard: x87Ready,
});

export const X87_TRANSCENDENTAL_ROWS: readonly OpcodeRow[] = [
  row('D9 /6 mod=3 rm=0', 'F2XM1', f2xm1),
  row('D9 /6 mod=3 rm=1', 'FYL2X', ofTwo(yLog2X)),
  row('D9 /6 mod=3 rm=2', 'FPTAN', fptan),
  row('D9 /6 mod=3 rm=3', 'FPATAN', ofTwo(arcTangent)),
  row('D9 /7 mod=3 rm=1', 'FYL2XP1', ofTwo(yLog2XPlus1)),
  row('D9 /7 mod=3 rm=3', 'FSINCOS', fsincos),
  row('D9 /7 mod=3 rm=6', 'FSIN', fsin),
  row('D9 /7 mod=3 rm=7', 'FCOS', fcos),
];
