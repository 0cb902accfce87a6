/** x87 arithmetic on the stack (SDM vol. 2: FADD to FSUBR, FSQRT, FABS, FCHS, FRNDINT). */
import { add, divide, multiply, squareRoot, subtract } from '../float/arithmetic.ts';
import { integral } from '../float/conversion.ts';
import type { Float } from '../float/float.ts';
import type { FloatContext } from '../float/rounding.ts';
import { x87Ready } from '../float-availability.ts';
import { type Execute, Next } from '../instruction.ts';
import type { OpcodeRow } from '../opcode-row.ts';
import { isEmpty, stackAt } from '../x87-state.ts';
import {
  controlledPrecision,
  finishToRegister,
  type MemoryFormat,
  memoryValue,
  pop,
  setStack,
  stackUnderflow,
  stackValue,
  x87Context,
} from './x87-context.ts';

type Operation = (c: FloatContext, a: Float, b: Float) => Float;

const reversed =
  (operation: Operation): Operation =>
  (c, a, b) =>
    operation(c, b, a);

/** ST(0) ← ST(0) op memory. */
function withMemory(operation: Operation, format: MemoryFormat): Execute {
  return (cpu, i) => {
    const c = x87Context(cpu, controlledPrecision(cpu));
    const result = isEmpty(cpu, 0)
      ? stackUnderflow(c)
      : operation(c, stackValue(cpu, 0), memoryValue(cpu, i.d, format));
    if (finishToRegister(cpu, i, c)) setStack(cpu, 0, result);
    return Next.Sequential;
  };
}

/** ST(0) ← ST(0) op ST(i). */
function toTop(operation: Operation): Execute {
  return (cpu, i) => {
    const n = i.rm & 7;
    const c = x87Context(cpu, controlledPrecision(cpu));
    const result =
      isEmpty(cpu, 0) || isEmpty(cpu, n)
        ? stackUnderflow(c)
        : operation(c, stackValue(cpu, 0), stackValue(cpu, n));
    if (finishToRegister(cpu, i, c)) setStack(cpu, 0, result);
    return Next.Sequential;
  };
}

/** ST(i) ← ST(i) op ST(0), and a pop. */
function fromTop(operation: Operation, pops: boolean): Execute {
  return (cpu, i) => {
    const n = i.rm & 7;
    const c = x87Context(cpu, controlledPrecision(cpu));
    const result =
      isEmpty(cpu, 0) || isEmpty(cpu, n)
        ? stackUnderflow(c)
        : operation(c, stackValue(cpu, n), stackValue(cpu, 0));
    if (!finishToRegister(cpu, i, c)) return Next.Sequential;
    setStack(cpu, n, result);
    if (pops) pop(cpu);
    return Next.Sequential;
  };
}

const row = (opcode: string, mnemonic: string, operands: string, execute: Execute): OpcodeRow => ({
  opcode,
  mnemonic,
  operands,
  execute,
  guard: x87Ready,
});

/** All forms of one operation: digit of the memory forms and of ST(0) forms, digit of the ST(i) forms. */
function binaryRows(name: string, operation: Operation, digit: number, reverseDigit: number): OpcodeRow[] {
  const integer = `FI${name.slice(1)}`;
  return [
    row(`D8 /${digit} mod!=3`, name, 'Md', withMemory(operation, 'single')),
    row(`DC /${digit} mod!=3`, name, 'Mq', withMemory(operation, 'double')),
    row(`DA /${digit} mod!=3`, integer, 'Md', withMemory(operation, 'doubleword')),
    row(`DE /${digit} mod!=3`, integer, 'Mw', withMemory(operation, 'word')),
    row(`D8 /${digit} mod=3`, name, 'ST0 STi', toTop(operation)),
    row(`DC /${reverseDigit} mod=3`, name, 'STi ST0', fromTop(operation, false)),
    row(`DE /${reverseDigit} mod=3`, `${name}P`, 'STi ST0', fromTop(operation, true)),
  ];
}

/** ST(0) ← f(ST(0)). */
function unary(operation: (c: FloatContext, a: Float) => Float, controlled: boolean): Execute {
  return (cpu, i) => {
    const c = x87Context(cpu, controlled ? controlledPrecision(cpu) : undefined);
    const result = isEmpty(cpu, 0) ? stackUnderflow(c) : operation(c, stackValue(cpu, 0));
    if (finishToRegister(cpu, i, c)) setStack(cpu, 0, result);
    return Next.Sequential;
  };
}

const SIGN = 0x8000;

/** FABS and FCHS change the sign of whatever the register holds. */
function sign(change: (signExponent: number) => number): Execute {
  return (cpu, i) => {
    const c = x87Context(cpu);
    const empty = isEmpty(cpu, 0);
    const indefinite = empty ? stackUnderflow(c) : undefined;
    if (!finishToRegister(cpu, i, c)) return Next.Sequential;
    if (indefinite !== undefined) setStack(cpu, 0, indefinite);
    else {
      const word = (stackAt(cpu, 0) + 8) >> 2;
      cpu.i32[word] = change(cpu.i32[word] as number);
    }
    return Next.Sequential;
  };
}

export const X87_ARITHMETIC_ROWS: readonly OpcodeRow[] = [
  ...binaryRows('FADD', add, 0, 0),
  ...binaryRows('FMUL', multiply, 1, 1),
  ...binaryRows('FSUB', subtract, 4, 5),
  ...binaryRows('FSUBR', reversed(subtract), 5, 4),
  ...binaryRows('FDIV', divide, 6, 7),
  ...binaryRows('FDIVR', reversed(divide), 7, 6),
  row(
    'D9 /4 mod=3 rm=0',
    'FCHS',
    '',
    sign((signExponent) => signExponent ^ SIGN),
  ),
  row(
    'D9 /4 mod=3 rm=1',
    'FABS',
    '',
    sign((signExponent) => signExponent & ~SIGN),
  ),
  row('D9 /7 mod=3 rm=2', 'FSQRT', '', unary(squareRoot, true)),
  row('D9 /7 mod=3 rm=4', 'FRNDINT', '', unary(integral, false)),
];
