/**
 * Bus locks (SDM vol. 3A §10.1.2.3): a locked access across two cache lines locks the bus. The operating system may
 * ask for a debug exception after it (vol. 3B §19.3.1.6), and VT-x for a VM exit.
 */
import { Attention } from './attention.ts';
import { type Execute, Next } from './instruction.ts';
import type { Processor } from './processor.ts';
import { Register } from './registers.ts';

const LINEAR = 2 * Register.linear;
const DEBUGCTL = 2 * Register.IA32_DEBUGCTL;
const PENDING_DEBUG = 2 * Register.pendingDebugExceptions;
const LINE = 64;
/** IA32_DEBUGCTL: debug exceptions for bus locks. */
const BUS_LOCK_DETECT = 1 << 2;
/** Pending debug exceptions (SDM §27.4.2, Table 27-4): bus lock, and that it makes an exception. */
const PENDING = (1 << 11) | (1 << 12);

const LOCKED = new Map<Execute, Execute>();

/** An instruction whose access to its operand in memory is locked. */
export function locked(run: Execute): Execute {
  const known = LOCKED.get(run) ?? locking(run);
  LOCKED.set(run, known);
  return known;
}

function locking(run: Execute): Execute {
  return (cpu, i) => {
    const next = run(cpu, i);
    if (next === Next.Sequential && ((cpu.i32[LINEAR] as number) & (LINE - 1)) + i.memoryBytes > LINE) {
      lockBus(cpu);
    }
    return next;
  };
}

/** A descriptor at this linear address was changed, which a locked access to its eight bytes does (SDM vol. 3A §10.1.2.1). */
export function noteDescriptorChange(cpu: Processor, addressLow: number): void {
  if ((addressLow & (LINE - 1)) + 8 > LINE) lockBus(cpu);
}

/** The instruction or event delivery has locked the bus. */
function lockBus(cpu: Processor): void {
  const w = cpu.i32;
  if (cpu.cpl > 0 && ((w[DEBUGCTL] as number) & BUS_LOCK_DETECT) !== 0) {
    w[PENDING_DEBUG] = (w[PENDING_DEBUG] as number) | PENDING;
    cpu.requestAttention(Attention.PendingDebug);
  }
  if (cpu.nonRoot) cpu.vmxPort.busLocked();
}
