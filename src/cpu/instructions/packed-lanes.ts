/**
 * Packed operations as functions of single lanes, and the two forms that MMX and SSE2 give almost all of
 * them: `NP 0F xx` on MMX registers, `66 0F xx` on XMM registers.
 */
import { mmxAvailable, simdAvailable } from '../float-availability.ts';
import { type Execute, Next } from '../instruction.ts';
import { enterMmx, wroteMmx } from '../mmx-state.ts';
import type { OpcodeRow } from '../opcode-row.ts';
import type { Processor } from '../processor.ts';

/** Bytes of a register: 8 of MMX, 16 of XMM. */
export type Width = 8 | 16;

/** An operation on byte offsets: destination and first source, second source, bytes. */
export type PackedOperation = (cpu: Processor, d: number, s: number, bytes: Width) => void;

type Lane = (a: number, b: number) => number;

/** By bytes, zero-extended; the result is taken modulo 256. */
export function byBytes(lane: Lane): PackedOperation {
  return ({ u8 }, d, s, bytes) => {
    for (let n = 0; n < bytes; n++) u8[d + n] = lane(u8[d + n] as number, u8[s + n] as number);
  };
}

/** By words of 16 bits, zero-extended. */
export function byWords(lane: Lane): PackedOperation {
  return ({ u16 }, d, s, bytes) => {
    for (let n = 0; n < bytes >> 1; n++)
      u16[(d >> 1) + n] = lane(u16[(d >> 1) + n] as number, u16[(s >> 1) + n] as number);
  };
}

/** By doublewords, signed. */
export function byDoublewords(lane: Lane): PackedOperation {
  return ({ i32 }, d, s, bytes) => {
    for (let n = 0; n < bytes >> 2; n++)
      i32[(d >> 2) + n] = lane(i32[(d >> 2) + n] as number, i32[(s >> 2) + n] as number);
  };
}

/** The operation as an instruction on XMM registers. */
export function onXmm(operation: PackedOperation): Execute {
  return (cpu, i) => {
    operation(cpu, i.d, i.s, 16);
    return Next.Sequential;
  };
}

/** The operation as an instruction on MMX registers. */
function onMmx(operation: PackedOperation): Execute {
  return (cpu, i) => {
    operation(cpu, i.d, i.s, 8);
    enterMmx(cpu);
    return wroteMmx(cpu, i.d);
  };
}

/** The row on XMM registers alone. */
export function xmmRow(opcode: string, mnemonic: string, operation: PackedOperation): OpcodeRow {
  return {
    opcode: `66 0F ${opcode}`,
    mnemonic,
    operands: 'Vdq Wdq',
    execute: onXmm(operation),
    guard: simdAvailable,
  };
}

/** Both rows. */
export function bothRows(opcode: string, mnemonic: string, operation: PackedOperation): OpcodeRow[] {
  const mmx = {
    opcode: `NP 0F ${opcode}`,
    mnemonic,
    operands: 'Pq Qq',
    execute: onMmx(operation),
    guard: mmxAvailable,
  };
  return [mmx, xmmRow(opcode, mnemonic, operation)];
}
