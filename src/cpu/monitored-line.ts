/**
 * The cache line that MONITOR or UMONITOR watches (SDM vol. 2B, MONITOR, MWAIT): a store to it by any
 * processor or device disarms it, and ends the wait of MWAIT.
 */
import { PAGE_SIZE } from '../bits/address.ts';
import { Attention } from './attention.ts';
import type { Processor } from './processor.ts';
import { Register } from './registers.ts';

const STATE = 2 * Register.monitorArmed;
const LINE = Register.monitoredLine;
/** Of a line that CPUID reports. */
const LINE_SIZE = 64;

/** Values of the slot `monitorArmed`. */
export const Monitoring = {
  None: 0,
  Armed: 1,
  /** MWAIT waits. */
  Waiting: 2,
  /** MWAIT waits, and interrupts end it although RFLAGS.IF is 0. */
  WaitingForInterrupts: 3,
} as const;
export type Monitoring = (typeof Monitoring)[keyof typeof Monitoring];

/** The line of physical address `address` is watched from now on, if it is RAM: only such memory is write-back. */
export function watchLine(cpu: Processor, address: number): void {
  cpu.i32[STATE] = cpu.memory.monitor(address) ? Monitoring.Armed : Monitoring.None;
  cpu.f64[LINE] = address - (address % LINE_SIZE);
}

/** Whether the processor waits in MWAIT. */
export function waitsForStore({ i32 }: Processor): boolean {
  return (i32[STATE] as number) >= Monitoring.Waiting;
}

/** An event ends the wait of MWAIT: the processor is active. */
export function endWait(cpu: Processor): void {
  if (waitsForStore(cpu)) cpu.i32[STATE] = Monitoring.None;
}

/** Somebody stores `bytes` bytes at `address`; answers whether a line of the same page is still watched. */
export function lineStored(cpu: Processor, address: number, bytes: number): boolean {
  if (cpu.i32[STATE] === Monitoring.None) return false;
  const line = cpu.f64[LINE] as number;
  if (address < line + LINE_SIZE && address + bytes > line) {
    cpu.i32[STATE] = Monitoring.None;
    cpu.requestAttention(Attention.Lookup);
    return false;
  }
  return Math.floor(line / PAGE_SIZE) === Math.floor(address / PAGE_SIZE);
}
