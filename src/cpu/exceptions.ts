/**
 * Exceptions (SDM vol. 3A §7.3, §7.15) as an executing instruction raises them: noted in the
 * processor's state, delivered by whoever executes instructions. Nothing is thrown.
 */
import { Next } from './instruction.ts';
import type { Processor } from './processor.ts';
import { Register } from './registers.ts';

/** Vector numbers (SDM vol. 3A Table 7-1). */
export const Vector = {
  DE: 0,
  DB: 1,
  NMI: 2,
  BP: 3,
  OF: 4,
  BR: 5,
  UD: 6,
  NM: 7,
  DF: 8,
  TS: 10,
  NP: 11,
  SS: 12,
  GP: 13,
  PF: 14,
  MF: 16,
  AC: 17,
  MC: 18,
  XM: 19,
  VE: 20,
  CP: 21,
} as const;
export type Vector = (typeof Vector)[keyof typeof Vector];

const FAULT = 2 * Register.fault;
const FAULT_CODE = 2 * Register.faultErrorCode;
const FAULT_ADDRESS = 2 * Register.faultAddress;
const DEBUG_CAUSES = 2 * Register.debugCauses;
const EXTERNAL = 2 * Register.external;
/** In the slot `fault`: not an exception but a VM exit is pending at the port. */
export const VM_EXIT_PENDING = -1;

/** Raises an exception without an error code; an instruction ends with `return raise(…)`. */
export function raise(cpu: Processor, vector: Vector): Next {
  cpu.i32[FAULT] = vector;
  cpu.i32[FAULT + 1] = 0;
  return Next.Fault;
}

/** Raises an exception with an error code. */
export function raiseWithCode(cpu: Processor, vector: Vector, errorCode: number): Next {
  cpu.i32[FAULT] = vector;
  cpu.i32[FAULT + 1] = 1;
  cpu.i32[FAULT_CODE] = errorCode;
  return Next.Fault;
}

/** Raises #PF for the linear address `hi`:`lo`; CR2 is loaded when it is delivered (SDM vol. 3A §5.7). */
export function raisePageFault(cpu: Processor, lo: number, hi: number, errorCode: number): Next {
  cpu.i32[FAULT_ADDRESS] = lo;
  cpu.i32[FAULT_ADDRESS + 1] = hi;
  return raiseWithCode(cpu, Vector.PF, errorCode);
}

/** Raises an exception whose error code names a selector; EXT as the event being delivered says (SDM vol. 3A §7.13). */
export function raiseForSelector(cpu: Processor, vector: Vector, selector: number): Next {
  return raiseWithCode(cpu, vector, (selector & 0xfffc) | (cpu.i32[EXTERNAL] as number));
}

/** Raises #DB; `causes` go to DR6 when it is delivered, as bits of DR6 (SDM vol. 3B §19.2.3). */
export function raiseDebug(cpu: Processor, causes: number): Next {
  cpu.i32[DEBUG_CAUSES] = causes;
  return raise(cpu, Vector.DB);
}

/** Ends an access that a VM exit takes the place of (an EPT violation and the like): as if it had faulted. */
export function raiseVmExit(cpu: Processor): Next {
  cpu.i32[FAULT] = VM_EXIT_PENDING;
  return Next.Fault;
}
