/**
 * Delivery of an event through the vector table of real-address mode (SDM vol. 3B §22.1.4), and of
 * software interrupts in virtual-8086 mode that the redirection bitmap sends there (vol. 3B §22.3.3.4).
 * As interrupt-gates.ts: false after a fault, with no register changed.
 */
import { eventVector } from './event.ts';
import { raise, raiseWithCode, Vector } from './exceptions.ts';
import { materialise } from './flags.ts';
import { Segment } from './instruction.ts';
import { loadLinear } from './memory-access.ts';
import { Mode } from './mode.ts';
import type { Processor } from './processor.ts';
import { CR4, Register, RFLAGS } from './registers.ts';
import { selectorOf, setUncheckedSegment } from './segment-load.ts';
import { StackTarget } from './stack-target.ts';
import { loadFromTss } from './task-state-stack.ts';

const EVENT = 2 * Register.originalEvent;
const RETURN = 2 * Register.returnAddress;
const IDTR_BASE = 2 * Register['IDTR.base'];
const IDTR_LIMIT = 2 * Register['IDTR.limit'];
const TR_LIMIT = 2 * Register['TR.limit'];
const VECTOR_SLOT = 8 * Register.descriptor;
const VECTOR_WORD = 2 * Register.descriptor;
const ITEM = 2 * Register.stackItem;
const RFLAGS_LOW = 2 * Register.RFLAGS;
const CR4_LOW = 2 * Register.CR4;
const RIP = 2 * Register.RIP;
const TF = 1 << RFLAGS.TF;
const IF = 1 << RFLAGS.IF;
const RF = 1 << RFLAGS.RF;
const AC = 1 << RFLAGS.AC;
const VIF = 1 << RFLAGS.VIF;
const IOPL = 3 << RFLAGS.IOPL;

const stack = new StackTarget();

/** In real-address mode. */
export function deliverThroughVector(cpu: Processor): boolean {
  const w = cpu.i32;
  const offset = 4 * eventVector(w[EVENT] as number);
  if (offset + 3 > (w[IDTR_LIMIT] as number) >>> 0) {
    raise(cpu, Vector.GP);
    return false;
  }
  const entry = ((w[IDTR_BASE] as number) + offset) | 0;
  return enter(cpu, entry, materialise(cpu), IF | TF | AC | RF);
}

/** The software interrupt of virtual-8086 mode with CR4.VME whose bit in the redirection bitmap is 0. */
export function deliverRedirected(cpu: Processor): boolean {
  const w = cpu.i32;
  const flags = materialise(cpu);
  const entry = 4 * eventVector(w[EVENT] as number);
  if ((flags & IOPL) === IOPL) return enter(cpu, entry, flags, IF | TF | RF);
  const virtualIf = (flags & VIF) !== 0 ? IF : 0;
  return enter(cpu, entry, (flags & ~IF) | IOPL | virtualIf, VIF | TF | RF);
}

function enter(cpu: Processor, entry: number, image: number, cleared: number): boolean {
  const w = cpu.i32;
  if (!loadLinear(cpu, entry, 0, VECTOR_SLOT, 4)) return false;
  const target = w[VECTOR_WORD] as number;
  stack.current(cpu, 0);
  if (!stack.push(cpu, image, 0, 2)) return false;
  if (!stack.push(cpu, selectorOf(cpu, Segment.CS), 0, 2)) return false;
  if (!stack.push(cpu, w[RETURN] as number, 0, 2)) return false;
  stack.adopt(cpu);
  w[RFLAGS_LOW] = (w[RFLAGS_LOW] as number) & ~cleared;
  setUncheckedSegment(cpu, Segment.CS, target >>> 16);
  w[RIP] = target & 0xffff;
  w[RIP + 1] = 0;
  return true;
}

/** Where a software interrupt of virtual-8086 mode goes. */
export const Redirection = { ToVectors: 0, ToGates: 1, Fault: 2 } as const;
export type Redirection = (typeof Redirection)[keyof typeof Redirection];

const IO_MAP_BASE = 0x66;
const BITMAP_BYTES = 32;

/** Looks `vector` up in the redirection bitmap, which lies before the I/O permission bitmap of the TSS. */
export function redirectionOf(cpu: Processor, vector: number): Redirection {
  const w = cpu.i32;
  if (cpu.mode !== Mode.Virtual8086 || ((w[CR4_LOW] as number) & (1 << CR4.VME)) === 0) {
    return Redirection.ToGates;
  }
  const limit = (w[TR_LIMIT] as number) >>> 0;
  if (IO_MAP_BASE + 1 <= limit) {
    if (!loadFromTss(cpu, IO_MAP_BASE, 2)) return Redirection.Fault;
    const at = (w[ITEM] as number) - BITMAP_BYTES + (vector >> 3);
    if (at <= limit && at >= 0) {
      if (!loadFromTss(cpu, at, 1)) return Redirection.Fault;
      return ((w[ITEM] as number) >> (vector & 7)) & 1 ? Redirection.ToGates : Redirection.ToVectors;
    }
  }
  raiseWithCode(cpu, Vector.GP, 0);
  return Redirection.Fault;
}
