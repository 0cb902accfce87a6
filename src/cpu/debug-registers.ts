/**
 * Breakpoints of the debug registers (SDM vol. 3B §19.2): which conditions DR7 enables, and what matches
 * them. Pages with a data breakpoint are not entered as direct into the TLB, so that every access to them
 * is seen here.
 */
import { Attention } from './attention.ts';
import { Mode } from './mode.ts';
import type { Processor } from './processor.ts';
import { CR4, Register } from './registers.ts';

const DR0 = Register.DR0;
const DR7 = 2 * Register.DR7;
const CR4_LOW = 2 * Register.CR4;
const BREAKPOINTS_MET = 2 * Register.breakpointsMet;
const RIP = Register.RIP;
const CS_BASE = Register['CS.base'];
const ENABLED = 0xff;
const COUNT = 4;

/** R/W fields of DR7. */
const Condition = { Execution: 0, Write: 1, Io: 2, ReadWrite: 3 } as const;

/** Bytes by LEN field. */
const LENGTHS = [1, 2, 8, 4] as const;

function isEnabled(dr7: number, n: number): boolean {
  return ((dr7 >> (2 * n)) & 3) !== 0;
}

function conditionOf(dr7: number, n: number): number {
  return (dr7 >>> (16 + 4 * n)) & 3;
}

function lengthOf(dr7: number, n: number): number {
  return LENGTHS[(dr7 >>> (18 + 4 * n)) & 3] as number;
}

/** After MOV to a debug register, VM entry or VM exit: forgets translations by which accesses would go unseen. */
export function debugRegistersChanged(cpu: Processor): void {
  cpu.tlb.forgetAll();
  cpu.requestAttention();
}

/** Whether DR7 enables a breakpoint with one of `conditions`, bits by R/W field. */
function anyEnabled(cpu: Processor, conditions: number): boolean {
  const dr7 = cpu.i32[DR7] as number;
  if ((dr7 & ENABLED) === 0) return false;
  for (let n = 0; n < COUNT; n++) {
    if (isEnabled(dr7, n) && ((conditions >> conditionOf(dr7, n)) & 1) !== 0) return true;
  }
  return false;
}

/** Whether instruction breakpoints are enabled. */
export function hasInstructionBreakpoints(cpu: Processor): boolean {
  return anyEnabled(cpu, 1 << Condition.Execution);
}

/** Whether a data breakpoint lies in the page of linear address `hi`:`lo`. */
export function pageHasBreakpoint(cpu: Processor, lo: number, hi: number): boolean {
  const dr7 = cpu.i32[DR7] as number;
  if ((dr7 & ENABLED) === 0) return false;
  const w = cpu.i32;
  for (let n = 0; n < COUNT; n++) {
    const data = (conditionOf(dr7, n) & 1) !== 0;
    const samePage = (((w[2 * (DR0 + n)] as number) ^ lo) & -0x1000) === 0 && w[2 * (DR0 + n) + 1] === hi;
    if (data && isEnabled(dr7, n) && samePage) return true;
  }
  return false;
}

/** Notes data breakpoints that an access of `bytes` bytes at linear address `hi`:`lo` meets; the trap follows the instruction. */
export function noteDataAccess(
  cpu: Processor,
  lo: number,
  hi: number,
  bytes: number,
  isWrite: boolean,
): void {
  const dr7 = cpu.i32[DR7] as number;
  if ((dr7 & ENABLED) === 0) return;
  const from = BigInt.asUintN(64, (BigInt(hi) << 32n) | BigInt(lo >>> 0));
  note(cpu, dr7, from, bytes, (1 << Condition.ReadWrite) | (isWrite ? 1 << Condition.Write : 0));
}

/** Notes I/O breakpoints that an access to `bytes` ports at `port` meets (CR4.DE). */
export function noteIoAccess(cpu: Processor, port: number, bytes: number): void {
  const dr7 = cpu.i32[DR7] as number;
  if ((dr7 & ENABLED) === 0 || ((cpu.i32[CR4_LOW] as number) & (1 << CR4.DE)) === 0) return;
  note(cpu, dr7, BigInt(port), bytes, 1 << Condition.Io);
}

function note(cpu: Processor, dr7: number, from: bigint, bytes: number, conditions: number): void {
  for (let n = 0; n < COUNT; n++) {
    if (!isEnabled(dr7, n) || ((conditions >> conditionOf(dr7, n)) & 1) === 0) continue;
    const length = lengthOf(dr7, n);
    const start = (cpu.quads[DR0 + n] as bigint) & ~BigInt(length - 1);
    if (from < start + BigInt(length) && start < from + BigInt(bytes)) {
      cpu.i32[BREAKPOINTS_MET] = (cpu.i32[BREAKPOINTS_MET] as number) | (1 << n);
      cpu.requestAttention(Attention.PendingDebug);
    }
  }
}

/** Instruction breakpoints at CS:RIP, as bits 3:0 of DR6. */
export function instructionBreakpoints(cpu: Processor): number {
  const dr7 = cpu.i32[DR7] as number;
  let address = cpu.quads[RIP] as bigint;
  if (cpu.mode !== Mode.Bit64) address = BigInt.asUintN(32, address + (cpu.quads[CS_BASE] as bigint));
  let met = 0;
  for (let n = 0; n < COUNT; n++) {
    if (isEnabled(dr7, n) && conditionOf(dr7, n) === Condition.Execution && cpu.quads[DR0 + n] === address)
      met |= 1 << n;
  }
  return met;
}
