/** CVTDQ2PD to CVTTSS2SI (SDM vol. 2; vol. 1 §11.4.1.6): conversions, rounded as MXCSR says or truncated. */
import { convert, fromInteger, toInteger } from '../float/conversion.ts';
import { BINARY32, BINARY64, type FloatContext, Rounding } from '../float/rounding.ts';
import { simdAvailable, simdWithMmxAvailable } from '../float-availability.ts';
import { type Execute, type Instruction, Next } from '../instruction.ts';
import { enterMmx, wroteMmx } from '../mmx-state.ts';
import type { OpcodeRow } from '../opcode-row.ts';
import type { Processor } from '../processor.ts';
import {
  double,
  RESULT,
  report,
  simdContext,
  single,
  takeResult,
  writeDouble,
  writeSingle,
} from './simd-context.ts';

/** Ends a conversion that filled `bytes` bytes of the result; the rest of the destination up to `width` becomes 0. */
function finish(cpu: Processor, i: Instruction, c: FloatContext, bytes: number, width = bytes): Next {
  if (report(cpu, c) !== Next.Sequential) return Next.Fault;
  for (let at = RESULT + bytes; at < RESULT + width; at += 4) cpu.i32[at >> 2] = 0;
  return takeResult(cpu, i.d, width);
}

/** CVTPS2PD, CVTSS2SD. */
function singlesToDoubles(lanes: 1 | 2): Execute {
  return (cpu, i) => {
    const c = simdContext(cpu, BINARY64);
    for (let n = 0; n < lanes; n++)
      writeDouble(cpu, RESULT + 8 * n, convert(c, single(cpu, c, i.s + 4 * n), true));
    return finish(cpu, i, c, 8 * lanes);
  };
}

/** CVTPD2PS, CVTSD2SS. */
function doublesToSingles(lanes: 1 | 2): Execute {
  return (cpu, i) => {
    const c = simdContext(cpu, BINARY32);
    for (let n = 0; n < lanes; n++)
      writeSingle(cpu, RESULT + 4 * n, convert(c, double(cpu, c, i.s + 8 * n), true));
    return finish(cpu, i, c, 4 * lanes, lanes === 2 ? 16 : 4);
  };
}

/** CVTDQ2PS, CVTPI2PS: the rest of the destination is kept. */
function integersToSingles(cpu: Processor, i: Instruction, lanes: 2 | 4): Next {
  const c = simdContext(cpu, BINARY32);
  for (let n = 0; n < lanes; n++)
    writeSingle(cpu, RESULT + 4 * n, fromInteger(c, BigInt(cpu.i32[(i.s >> 2) + n] as number)));
  return finish(cpu, i, c, 4 * lanes);
}

/** CVTDQ2PD, CVTPI2PD. */
const integersToDoubles: Execute = (cpu, i) => {
  const c = simdContext(cpu, BINARY64);
  for (let n = 0; n < 2; n++)
    writeDouble(cpu, RESULT + 8 * n, fromInteger(c, BigInt(cpu.i32[(i.s >> 2) + n] as number)));
  return finish(cpu, i, c, 16);
};

const INDEFINITE_32 = -0x8000_0000;

/** Values of lanes of `from` to doublewords of the result. */
function toDoublewords(
  cpu: Processor,
  i: Instruction,
  c: FloatContext,
  from: 'single' | 'double',
  lanes: number,
  truncates: boolean,
): void {
  const rounding = truncates ? Rounding.TowardZero : c.rounding;
  for (let n = 0; n < lanes; n++) {
    const value = from === 'single' ? single(cpu, c, i.s + 4 * n) : double(cpu, c, i.s + 8 * n);
    const integer = toInteger(c, value, 32, rounding);
    cpu.i32[(RESULT >> 2) + n] = integer === undefined ? INDEFINITE_32 : Number(integer);
  }
}

/** CVTPS2DQ, CVTPD2DQ and the truncating forms. */
function toIntegers(from: 'single' | 'double', truncates: boolean): Execute {
  const lanes = from === 'single' ? 4 : 2;
  return (cpu, i) => {
    const c = simdContext(cpu, BINARY32);
    toDoublewords(cpu, i, c, from, lanes, truncates);
    return finish(cpu, i, c, 4 * lanes, 16);
  };
}

/** CVTSI2SS, CVTSI2SD. */
function fromGeneral(to: 'single' | 'double'): Execute {
  return (cpu, i) => {
    const c = simdContext(cpu, to === 'single' ? BINARY32 : BINARY64);
    const integer =
      i.operandBits === 64
        ? BigInt.asIntN(64, cpu.quads[i.s >> 3] as bigint)
        : BigInt(cpu.i32[i.s >> 2] as number);
    if (to === 'single') writeSingle(cpu, RESULT, fromInteger(c, integer));
    else writeDouble(cpu, RESULT, fromInteger(c, integer));
    return finish(cpu, i, c, to === 'single' ? 4 : 8);
  };
}

/** CVTSS2SI, CVTSD2SI and the truncating forms. */
function toGeneral(from: 'single' | 'double', truncates: boolean): Execute {
  return (cpu, i) => {
    const c = simdContext(cpu, BINARY32);
    const bits = i.operandBits === 64 ? 64 : 32;
    const value = from === 'single' ? single(cpu, c, i.s) : double(cpu, c, i.s);
    const integer = toInteger(c, value, bits, truncates ? Rounding.TowardZero : c.rounding);
    if (report(cpu, c) !== Next.Sequential) return Next.Fault;
    cpu.quads[i.d >> 3] = BigInt.asUintN(bits, integer ?? 1n << BigInt(bits - 1));
    return Next.Sequential;
  };
}

/** CVTPS2PI, CVTPD2PI and the truncating forms. */
function toMmx(from: 'single' | 'double', truncates: boolean): Execute {
  return (cpu, i) => {
    const c = simdContext(cpu, BINARY32);
    toDoublewords(cpu, i, c, from, 2, truncates);
    if (finish(cpu, i, c, 8) !== Next.Sequential) return Next.Fault;
    enterMmx(cpu);
    return wroteMmx(cpu, i.d);
  };
}

/** CVTPI2PS and CVTPI2PD have to do with MMX only if their operand is a register. */
const mmxToSingles: Execute = (cpu, i) => {
  const next = integersToSingles(cpu, i, 2);
  if (next === Next.Sequential && !i.hasMemory) enterMmx(cpu);
  return next;
};

const mmxToDoubles: Execute = (cpu, i) => {
  const next = integersToDoubles(cpu, i);
  if (next === Next.Sequential && !i.hasMemory) enterMmx(cpu);
  return next;
};
const registerAvailable: Execute = (cpu, i) =>
  i.hasMemory ? simdAvailable(cpu, i) : simdWithMmxAvailable(cpu, i);

const row = (
  opcode: string,
  mnemonic: string,
  operands: string,
  execute: Execute,
  guard = simdAvailable,
): OpcodeRow => ({
  opcode,
  mnemonic,
  operands,
  execute,
  guard,
});

export const VECTOR_CONVERT_ROWS: readonly OpcodeRow[] = [
  row('NP 0F 5A', 'CVTPS2PD', 'Vpd Wq', singlesToDoubles(2)),
  row('66 0F 5A', 'CVTPD2PS', 'Vps Wpd', doublesToSingles(2)),
  row('F3 0F 5A', 'CVTSS2SD', 'Vsd Wss', singlesToDoubles(1)),
  row('F2 0F 5A', 'CVTSD2SS', 'Vss Wsd', doublesToSingles(1)),
  row('NP 0F 5B', 'CVTDQ2PS', 'Vps Wdq', (cpu, i) => integersToSingles(cpu, i, 4)),
  row('66 0F 5B', 'CVTPS2DQ', 'Vdq Wps', toIntegers('single', false)),
  row('F3 0F 5B', 'CVTTPS2DQ', 'Vdq Wps', toIntegers('single', true)),
  row('F3 0F E6', 'CVTDQ2PD', 'Vpd Wq', integersToDoubles),
  row('F2 0F E6', 'CVTPD2DQ', 'Vdq Wpd', toIntegers('double', false)),
  row('66 0F E6', 'CVTTPD2DQ', 'Vdq Wpd', toIntegers('double', true)),
  row('F3 0F 2A', 'CVTSI2SS', 'Vss Ey', fromGeneral('single')),
  row('F2 0F 2A', 'CVTSI2SD', 'Vsd Ey', fromGeneral('double')),
  row('F3 0F 2C', 'CVTTSS2SI', 'Gy Wss', toGeneral('single', true)),
  row('F2 0F 2C', 'CVTTSD2SI', 'Gy Wsd', toGeneral('double', true)),
  row('F3 0F 2D', 'CVTSS2SI', 'Gy Wss', toGeneral('single', false)),
  row('F2 0F 2D', 'CVTSD2SI', 'Gy Wsd', toGeneral('double', false)),
  row('NP 0F 2A', 'CVTPI2PS', 'Vps Qq', mmxToSingles, registerAvailable),
  row('66 0F 2A', 'CVTPI2PD', 'Vpd Qq', mmxToDoubles, registerAvailable),
  row('NP 0F 2C', 'CVTTPS2PI', 'Pq Wq', toMmx('single', true), simdWithMmxAvailable),
  row('66 0F 2C', 'CVTTPD2PI', 'Pq Wpd', toMmx('double', true), simdWithMmxAvailable),
  row('NP 0F 2D', 'CVTPS2PI', 'Pq Wq', toMmx('single', false), simdWithMmxAvailable),
  row('66 0F 2D', 'CVTPD2PI', 'Pq Wpd', toMmx('double', false), simdWithMmxAvailable),
];
