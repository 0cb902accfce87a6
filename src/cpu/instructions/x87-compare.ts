/** Comparison and classification (SDM vol. 2: FCOM to FUCOMPP, FCOMI, FICOM, FTST, FXAM). */

import { replaceFlags } from '../flags.ts';
import { compare, Relation } from '../float/comparison.ts';
import { type Float, Kind, zero } from '../float/float.ts';
import type { FloatContext } from '../float/rounding.ts';
import { x87Ready } from '../float-availability.ts';
import { type Execute, Next } from '../instruction.ts';
import type { OpcodeRow } from '../opcode-row.ts';
import type { Processor } from '../processor.ts';
import { ARITHMETIC_FLAGS } from '../registers.ts';
import { C0, C1, C2, C3, isEmpty, stackAt } from '../x87-state.ts';
import { comparisonFlags } from './vector-arithmetic.ts';
import {
  finishToRegister,
  finishWithCodes,
  isInvalidUnmasked,
  type MemoryFormat,
  memoryValue,
  pop,
  stackUnderflow,
  stackValue,
  x87Context,
} from './x87-context.ts';

const CODES = C0 | C2 | C3;

function codesOf(relation: Relation): number {
  if (relation === Relation.Unordered) return C0 | C2 | C3;
  if (relation === Relation.Equal) return C3;
  return relation === Relation.Less ? C0 : 0;
}

/** The relation of ST(0) to a value, which is missing if its register is empty. */
function relate(cpu: Processor, c: FloatContext, b: Float | undefined, signaling: boolean): Relation {
  if (isEmpty(cpu, 0) || b === undefined) {
    stackUnderflow(c);
    return Relation.Unordered;
  }
  return compare(c, stackValue(cpu, 0), b, signaling);
}

const registerValue = (cpu: Processor, n: number): Float | undefined =>
  isEmpty(cpu, n) ? undefined : stackValue(cpu, n);

/** FCOM and FUCOM with ST(i), and as many pops. */
function withRegister(signaling: boolean, pops: 0 | 1 | 2): Execute {
  return (cpu, i) => {
    const c = x87Context(cpu);
    const relation = relate(cpu, c, registerValue(cpu, i.rm & 7), signaling);
    if (finishWithCodes(cpu, i, c, CODES, codesOf(relation))) pop(cpu, pops);
    return Next.Sequential;
  };
}

/** FCOM and FICOM. */
function withMemory(format: MemoryFormat, pops: 0 | 1): Execute {
  return (cpu, i) => {
    const c = x87Context(cpu);
    const relation = relate(cpu, c, memoryValue(cpu, i.d, format), true);
    if (finishWithCodes(cpu, i, c, CODES, codesOf(relation))) pop(cpu, pops);
    return Next.Sequential;
  };
}

/** FCOMI and FUCOMI: to RFLAGS. */
function toFlags(signaling: boolean, pops: 0 | 1): Execute {
  return (cpu, i) => {
    const c = x87Context(cpu);
    const relation = relate(cpu, c, registerValue(cpu, i.rm & 7), signaling);
    const completes = finishToRegister(cpu, i, c);
    if (!isInvalidUnmasked(c)) replaceFlags(cpu, ARITHMETIC_FLAGS, comparisonFlags(relation));
    if (completes) pop(cpu, pops);
    return Next.Sequential;
  };
}

const ftst: Execute = (cpu, i) => {
  const c = x87Context(cpu);
  const relation = relate(cpu, c, zero(0), true);
  finishWithCodes(cpu, i, c, CODES, codesOf(relation));
  return Next.Sequential;
};

/** Classes of FXAM by {@link Kind}. */
const CLASSES = [C3, C2, C2 | C0, C0, C0, 0] as const;

const fxam: Execute = (cpu, i) => {
  const c = x87Context(cpu);
  const value = stackValue(cpu, 0);
  const negative = ((cpu.i32[(stackAt(cpu, 0) + 8) >> 2] as number) & 0x8000) !== 0;
  let codes: number = CLASSES[value.kind];
  if (value.kind === Kind.Finite && value.denormal) codes = C3 | C2;
  if (isEmpty(cpu, 0)) codes = C3 | C0;
  finishWithCodes(cpu, i, c, CODES, codes | (negative ? C1 : 0));
  return Next.Sequential;
};

const row = (opcode: string, mnemonic: string, operands: string, execute: Execute): OpcodeRow => ({
  opcode,
  mnemonic,
  operands,
  execute,
  guard: x87Ready,
});

export const X87_COMPARE_ROWS: readonly OpcodeRow[] = [
  ...([0, 1] as const).flatMap((pops) => {
    const p = pops === 1 ? 'P' : '';
    return [
      row(`D8 /${2 + pops} mod!=3`, `FCOM${p}`, 'Md', withMemory('single', pops)),
      row(`DC /${2 + pops} mod!=3`, `FCOM${p}`, 'Mq', withMemory('double', pops)),
      row(`DA /${2 + pops} mod!=3`, `FICOM${p}`, 'Md', withMemory('doubleword', pops)),
      row(`DE /${2 + pops} mod!=3`, `FICOM${p}`, 'Mw', withMemory('word', pops)),
      row(`D8 /${2 + pops} mod=3`, `FCOM${p}`, 'ST0 STi', withRegister(true, pops)),
      row(`DD /${4 + pops} mod=3`, `FUCOM${p}`, 'ST0 STi', withRegister(false, pops)),
      row(`${pops ? 'DF' : 'DB'} /6 mod=3`, `FCOMI${p}`, 'ST0 STi', toFlags(true, pops)),
      row(`${pops ? 'DF' : 'DB'} /5 mod=3`, `FUCOMI${p}`, 'ST0 STi', toFlags(false, pops)),
    ];
  }),
  // Encodings that the manual leaves out, and processors have.
  row('DC /2 mod=3', 'FCOM', 'ST0 STi', withRegister(true, 0)),
  row('DC /3 mod=3', 'FCOMP', 'ST0 STi', withRegister(true, 1)),
  row('DE /2 mod=3', 'FCOMP', 'ST0 STi', withRegister(true, 1)),
  row('DE /3 mod=3 rm=1', 'FCOMPP', '', withRegister(true, 2)),
  row('DA /5 mod=3 rm=1', 'FUCOMPP', '', withRegister(false, 2)),
  row('D9 /4 mod=3 rm=4', 'FTST', '', ftst),
  row('D9 /4 mod=3 rm=5', 'FXAM', '', fxam),
];
