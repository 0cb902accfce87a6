/** ADDPS to SUBSD, MIN, MAX, SQRT, CMP, COMI, RCP, RSQRT (SDM vol. 2). */

import { replaceFlags } from '../flags.ts';
import { add, divide, multiply, squareRoot, subtract } from '../float/arithmetic.ts';
import { compare, maximum, minimum, Relation } from '../float/comparison.ts';
import {
  type Float,
  fromBinary32,
  infinity,
  isNan,
  Kind,
  quieted,
  toBinary32,
  zero,
} from '../float/float.ts';
import { BINARY32, BINARY64, type FloatContext } from '../float/rounding.ts';
import { simdAvailable } from '../float-availability.ts';
import { type Execute, Next } from '../instruction.ts';
import type { OpcodeRow } from '../opcode-row.ts';
import type { Processor } from '../processor.ts';
import { ARITHMETIC_FLAGS, RFLAGS } from '../registers.ts';
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
import { FAST, type FastOperation, fastDoubles, fastSingles } from './simd-fast.ts';

type Operation = (c: FloatContext, a: Float, b: Float) => Float;
type Shape = 'PS' | 'PD' | 'SS' | 'SD';

const PREFIX = { PS: 'NP', PD: '66', SS: 'F3', SD: 'F2' } as const;
const LANES = { PS: 4, PD: 2, SS: 1, SD: 1 } as const;

function ofSingles(operation: Operation, lanes: number, fast: FastOperation | undefined): Execute {
  return (cpu, i) => {
    if (fast !== undefined && fastSingles(cpu, fast, i.d, i.s, lanes)) return Next.Sequential;
    const c = simdContext(cpu, BINARY32);
    for (let at = 0; at < 4 * lanes; at += 4)
      writeSingle(cpu, RESULT + at, operation(c, single(cpu, c, i.d + at), single(cpu, c, i.s + at)));
    return report(cpu, c) === Next.Sequential ? takeResult(cpu, i.d, 4 * lanes) : Next.Fault;
  };
}

function ofDoubles(operation: Operation, lanes: number, fast: FastOperation | undefined): Execute {
  return (cpu, i) => {
    if (fast !== undefined && fastDoubles(cpu, fast, i.d, i.s, lanes)) return Next.Sequential;
    const c = simdContext(cpu, BINARY64);
    for (let at = 0; at < 8 * lanes; at += 8)
      writeDouble(cpu, RESULT + at, operation(c, double(cpu, c, i.d + at), double(cpu, c, i.s + at)));
    return report(cpu, c) === Next.Sequential ? takeResult(cpu, i.d, 8 * lanes) : Next.Fault;
  };
}

function row(opcode: string, name: string, shape: Shape, execute: Execute, immediate = ''): OpcodeRow {
  const type = shape.toLowerCase();
  return {
    opcode: `${PREFIX[shape]} 0F ${opcode}`,
    mnemonic: `${name}${shape}`,
    operands: `V${type} W${type}${immediate}`,
    execute,
    guard: simdAvailable,
  };
}

const SHAPES: readonly Shape[] = ['PS', 'PD', 'SS', 'SD'];

function arithmeticRows(
  opcode: string,
  name: string,
  operation: Operation,
  fast?: FastOperation,
): OpcodeRow[] {
  return SHAPES.map((shape) => {
    const of = shape === 'PS' || shape === 'SS' ? ofSingles : ofDoubles;
    return row(opcode, name, shape, of(operation, LANES[shape], fast));
  });
}

/** The relations for which predicates 0 to 3 hold, and whether a QNaN is invalid; 4 to 7 are their negations. */
const PREDICATES = [
  { holds: (r: Relation) => r === Relation.Equal, signaling: false },
  { holds: (r: Relation) => r === Relation.Less, signaling: true },
  { holds: (r: Relation) => r === Relation.Less || r === Relation.Equal, signaling: true },
  { holds: (r: Relation) => r === Relation.Unordered, signaling: false },
] as const;

function predicate(c: FloatContext, a: Float, b: Float, number: number): boolean {
  const { holds, signaling } = PREDICATES[number & 3] as (typeof PREDICATES)[number];
  return holds(compare(c, a, b, signaling)) !== ((number & 4) !== 0);
}

function compareSingles(lanes: number): Execute {
  return (cpu, i) => {
    const c = simdContext(cpu, BINARY32);
    for (let at = 0; at < 4 * lanes; at += 4) {
      const holds = predicate(c, single(cpu, c, i.d + at), single(cpu, c, i.s + at), i.immediate);
      cpu.i32[(RESULT + at) >> 2] = holds ? -1 : 0;
    }
    return report(cpu, c) === Next.Sequential ? takeResult(cpu, i.d, 4 * lanes) : Next.Fault;
  };
}

function compareDoubles(lanes: number): Execute {
  return (cpu, i) => {
    const c = simdContext(cpu, BINARY64);
    for (let at = 0; at < 8 * lanes; at += 8) {
      const holds = predicate(c, double(cpu, c, i.d + at), double(cpu, c, i.s + at), i.immediate);
      cpu.i32[(RESULT + at) >> 2] = holds ? -1 : 0;
      cpu.i32[((RESULT + at) >> 2) + 1] = holds ? -1 : 0;
    }
    return report(cpu, c) === Next.Sequential ? takeResult(cpu, i.d, 8 * lanes) : Next.Fault;
  };
}

const ZF = 1 << RFLAGS.ZF;
const PF = 1 << RFLAGS.PF;
const CF = 1 << RFLAGS.CF;

/** ZF, PF and CF of a relation (also of FCOMI). */
export function comparisonFlags(relation: Relation): number {
  if (relation === Relation.Unordered) return ZF | PF | CF;
  if (relation === Relation.Equal) return ZF;
  return relation === Relation.Less ? CF : 0;
}

function comi(of: 'single' | 'double', signaling: boolean): Execute {
  const operand = of === 'single' ? single : double;
  const format = of === 'single' ? BINARY32 : BINARY64;
  return (cpu, i) => {
    const c = simdContext(cpu, format);
    const relation = compare(c, operand(cpu, c, i.d), operand(cpu, c, i.s), signaling);
    if (report(cpu, c) !== Next.Sequential) return Next.Fault;
    replaceFlags(cpu, ARITHMETIC_FLAGS, comparisonFlags(relation));
    return Next.Sequential;
  };
}

/** RCPPS and RSQRTPS: DEVIATION(approximations), no exceptions; denormal operands and tiny results are 0. */
function approximation(lanes: number, compute: (a: number) => number): Execute {
  return (cpu: Processor, i) => {
    for (let n = 0; n < lanes; n++) {
      const bits = cpu.i32[(i.s >> 2) + n] as number;
      const a = fromBinary32(bits);
      const at = (RESULT >> 2) + n;
      if (isNan(a)) cpu.i32[at] = toBinary32(quieted(a));
      else if (a.kind === Kind.Zero || a.denormal) cpu.i32[at] = toBinary32(infinity(a.sign));
      else {
        const result = Math.fround(compute(cpu.f32[(i.s >> 2) + n] as number));
        if (Number.isNaN(result)) cpu.i32[at] = 0xffc0_0000 | 0;
        else if (Math.abs(result) < 2 ** -126) cpu.i32[at] = toBinary32(zero(a.sign));
        else cpu.f32[at] = result;
      }
    }
    return takeResult(cpu, i.d, 4 * lanes);
  };
}

const reciprocal = (a: number) => 1 / a;
const reciprocalRoot = (a: number) => 1 / Math.sqrt(a);

export const VECTOR_ARITHMETIC_ROWS: readonly OpcodeRow[] = [
  ...arithmeticRows('58', 'ADD', add, FAST.add),
  ...arithmeticRows('59', 'MUL', multiply, FAST.multiply),
  ...arithmeticRows('5C', 'SUB', subtract, FAST.subtract),
  ...arithmeticRows('5D', 'MIN', minimum),
  ...arithmeticRows('5E', 'DIV', divide, FAST.divide),
  ...arithmeticRows('5F', 'MAX', maximum),
  ...arithmeticRows('51', 'SQRT', (c, _, b) => squareRoot(c, b), FAST.squareRoot),
  row('52', 'RSQRT', 'PS', approximation(4, reciprocalRoot)),
  row('52', 'RSQRT', 'SS', approximation(1, reciprocalRoot)),
  row('53', 'RCP', 'PS', approximation(4, reciprocal)),
  row('53', 'RCP', 'SS', approximation(1, reciprocal)),
  ...SHAPES.map((shape) => {
    const of = shape === 'PS' || shape === 'SS' ? compareSingles : compareDoubles;
    return row('C2', 'CMP', shape, of(LANES[shape]), ' Ib');
  }),
  ...(
    [
      ['NP 0F 2E', 'UCOMISS', 'Vss Wss', comi('single', false)],
      ['66 0F 2E', 'UCOMISD', 'Vsd Wsd', comi('double', false)],
      ['NP 0F 2F', 'COMISS', 'Vss Wss', comi('single', true)],
      ['66 0F 2F', 'COMISD', 'Vsd Wsd', comi('double', true)],
    ] as const
  ).map(
    ([opcode, mnemonic, operands, execute]): OpcodeRow => ({
      opcode,
      mnemonic,
      operands,
      execute,
      guard: simdAvailable,
    }),
  ),
];
