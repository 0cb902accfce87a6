/** The stack (SDM vol. 1 §6.2): pushes and pops through SS with the stack-address size. */
import { linearise } from './addressing.ts';
import { Segment } from './instruction.ts';
import { load, store } from './memory-access.ts';
import type { Processor } from './processor.ts';
import { Register } from './registers.ts';
import { Access } from './tlb.ts';

const RSP = 2 * Register.RSP;

/** Sets the part of RSP that the stack-address size has. */
export function setStackPointer(cpu: Processor, lo: number, hi: number): void {
  const w = cpu.i32;
  if (cpu.stackBits === 16) {
    w[RSP] = ((w[RSP] as number) & ~0xffff) | (lo & 0xffff);
    return;
  }
  w[RSP] = lo;
  w[RSP + 1] = cpu.stackBits === 64 ? hi : 0;
}

/** Where `offset` bytes from the top of the stack is; the linear address ends up in the slot `linear`. */
function stackAddress(cpu: Processor, offset: number, bytes: number, access: Access): boolean {
  const w = cpu.i32;
  const sp = w[RSP] as number;
  let lo = (sp + offset) | 0;
  let hi = 0;
  if (cpu.stackBits === 64) {
    hi = ((w[RSP + 1] as number) + Math.floor(((sp >>> 0) + offset) / 0x1_0000_0000)) | 0;
  } else if (cpu.stackBits === 16) lo &= 0xffff;
  return linearise(cpu, Segment.SS, lo, hi, bytes, access);
}

/** Moves RSP by `bytes`. */
export function adjustStackPointer(cpu: Processor, bytes: number): void {
  const w = cpu.i32;
  const sp = w[RSP] as number;
  const hi = ((w[RSP + 1] as number) + Math.floor(((sp >>> 0) + bytes) / 0x1_0000_0000)) | 0;
  setStackPointer(cpu, (sp + bytes) | 0, hi);
}

/** Pushes `bytes` (2, 4, 8) from byte offset `from` of the state. False after a fault, with RSP unchanged. */
export function push(cpu: Processor, from: number, bytes: number): boolean {
  if (!stackAddress(cpu, -bytes, bytes, Access.Write) || !store(cpu, from, bytes)) return false;
  adjustStackPointer(cpu, -bytes);
  return true;
}

/** Loads `bytes` at `offset` from the top of the stack to byte offset `to`; RSP is not changed. */
export function loadStack(cpu: Processor, offset: number, to: number, bytes: number): boolean {
  return stackAddress(cpu, offset, bytes, Access.Read) && load(cpu, to, bytes);
}

/** Stores at `offset` from the top of the stack without changing RSP. */
export function storeStack(cpu: Processor, offset: number, from: number, bytes: number): boolean {
  return stackAddress(cpu, offset, bytes, Access.Write) && store(cpu, from, bytes);
}

/** Pops `bytes` to byte offset `to` of the state. False after a fault, with RSP unchanged. */
export function pop(cpu: Processor, to: number, bytes: number): boolean {
  if (!loadStack(cpu, 0, to, bytes)) return false;
  adjustStackPointer(cpu, bytes);
  return true;
}
