/** IRET, IRETD and IRETQ (SDM vol. 2A, IRET; vol. 3A §7.12, §9.4). After a fault only blocking by NMI has changed. */
import { Attention } from './attention.ts';
import { adoptShadowStack, leaveForVirtual8086, returnOnShadowStack } from './cet/shadow-stack-transfer.ts';
import { checkOffset, checkReturnCode, inIa32eMode, isCode64, linearTarget, setRip } from './code-target.ts';
import { Descriptor, markAccessed } from './descriptor.ts';
import { raiseWithCode, Vector } from './exceptions.ts';
import { checkReturnStack, setReturnStack } from './far-transfer.ts';
import { materialise } from './flags.ts';
import { staysInRing, usesFred } from './fred/fred-transitions.ts';
import { type Instruction, Next, Segment } from './instruction.ts';
import { keepResumeFlag } from './instruction-start.ts';
import { Mode } from './mode.ts';
import type { Processor } from './processor.ts';
import { ARITHMETIC_FLAGS, CR4, Register, RFLAGS } from './registers.ts';
import { writeFlags } from './rflags.ts';
import {
  dropPrivilegedSegments,
  setCodeSegment,
  setUncheckedSegment,
  setVirtual8086Segment,
} from './segment-load.ts';
import { setStackPointer } from './stack.ts';
import { StackTarget } from './stack-target.ts';
import { returnToPreviousTask } from './task-transfer.ts';

const ITEM = 2 * Register.stackItem;
const ITEM_BYTES = 8 * Register.stackItem;
const BLOCKING_BY_NMI = 2 * Register.blockingByNmi;
const UNBLOCKED = 2 * Register.unblockedByIret;
const CR4_LOW = 2 * Register.CR4;
const CS_LIMIT = 2 * Register['CS.limit'];
const flag = (position: number) => 1 << position;
const IF = flag(RFLAGS.IF);
const TF = flag(RFLAGS.TF);
const NT = flag(RFLAGS.NT);
const VM = flag(RFLAGS.VM);
const VIF = flag(RFLAGS.VIF);
const VIP = flag(RFLAGS.VIP);
const IOPL = 3 << RFLAGS.IOPL;
/** Loaded at any privilege; the second part only with an operand size of 32 or 64 bits. */
const ALWAYS = ARITHMETIC_FLAGS | TF | flag(RFLAGS.DF) | NT;
const WIDE = flag(RFLAGS.RF) | flag(RFLAGS.AC) | flag(RFLAGS.ID);

const code = new Descriptor();
const stackSegment = new Descriptor();
const stack = new StackTarget();

/** What IRET pops first. */
const popped = { low: 0, high: 0, selector: 0, flags: 0 };

function popItem(cpu: Processor, bytes: number): boolean {
  return stack.pop(cpu, ITEM_BYTES, bytes);
}

function popReturnAddress(cpu: Processor, bytes: number): boolean {
  const w = cpu.i32;
  stack.current(cpu, 0);
  if (!popItem(cpu, bytes)) return false;
  popped.low = w[ITEM] as number;
  popped.high = w[ITEM + 1] as number;
  if (!popItem(cpu, bytes)) return false;
  popped.selector = (w[ITEM] as number) & 0xffff;
  if (!popItem(cpu, bytes)) return false;
  popped.flags = w[ITEM] as number;
  return true;
}

/** Blocking by NMI ends even if IRET faults (SDM vol. 3A §7.7.1); with FRED, ERETS and ERETU end it instead. */
function unblockNmi(cpu: Processor): void {
  if (cpu.nonRoot) cpu.i32[UNBLOCKED] = cpu.vmxPort.iretUnblocksNmi() ? 1 : 0;
  else cpu.i32[BLOCKING_BY_NMI] = 0;
  cpu.stateChanged();
  cpu.requestAttention(Attention.Event);
}

export function interruptReturn(cpu: Processor, i: Instruction): Next {
  if (!usesFred(cpu)) unblockNmi(cpu);
  const next = popAndReturn(cpu, i);
  // An exit that a fault causes still reports it.
  if (next !== Next.Fault) cpu.i32[UNBLOCKED] = 0;
  return next;
}

function popAndReturn(cpu: Processor, i: Instruction): Next {
  if (cpu.mode === Mode.Real) return fromReal(cpu, i);
  if (cpu.mode === Mode.Virtual8086) return fromVirtual8086(cpu, i);
  if ((materialise(cpu) & NT) !== 0) {
    return inIa32eMode(cpu) ? raiseWithCode(cpu, Vector.GP, 0) : returnToPreviousTask(cpu, i);
  }
  const bytes = i.operandBits >> 3;
  if (!popReturnAddress(cpu, bytes)) return Next.Fault;
  if ((popped.flags & VM) !== 0 && bytes === 4 && cpu.cpl === 0 && !inIa32eMode(cpu)) {
    return toVirtual8086(cpu);
  }
  return fromProtected(cpu, bytes);
}

/** Loads the flags of `mask`; RF is that of the image. */
function loadFlags(cpu: Processor, mask: number): void {
  keepResumeFlag(cpu);
  writeFlags(cpu, mask, popped.flags);
}

function withinCs(cpu: Processor): boolean {
  if (popped.low >>> 0 <= (cpu.i32[CS_LIMIT] as number) >>> 0) return true;
  raiseWithCode(cpu, Vector.GP, 0);
  return false;
}

function fromReal(cpu: Processor, i: Instruction): Next {
  const bytes = i.operandBits >> 3;
  if (!popReturnAddress(cpu, bytes) || !withinCs(cpu)) return Next.Fault;
  stack.adopt(cpu);
  setUncheckedSegment(cpu, Segment.CS, popped.selector);
  setRip(cpu, popped.low, 0);
  loadFlags(cpu, ALWAYS | IF | IOPL | (bytes === 4 ? WIDE : 0));
  return Next.Lookup;
}

function fromVirtual8086(cpu: Processor, i: Instruction): Next {
  const bytes = i.operandBits >> 3;
  const flags = materialise(cpu);
  const direct = (flags & IOPL) === IOPL;
  const extended = ((cpu.i32[CR4_LOW] as number) & flag(CR4.VME)) !== 0 && bytes === 2;
  if (!direct && !extended) return raiseWithCode(cpu, Vector.GP, 0);
  if (!popReturnAddress(cpu, bytes) || !withinCs(cpu)) return Next.Fault;
  let mask = ALWAYS | IF | (bytes === 4 ? WIDE : 0);
  if (!direct) {
    // With the virtual-8086 mode extensions VIF takes the place of IF.
    const setsIf = (popped.flags & IF) !== 0;
    if ((popped.flags & TF) !== 0 || (setsIf && (flags & VIP) !== 0)) return raiseWithCode(cpu, Vector.GP, 0);
    popped.flags = setsIf ? popped.flags | VIF : popped.flags & ~VIF;
    mask = (mask & ~IF) | VIF;
  }
  stack.adopt(cpu);
  setUncheckedSegment(cpu, Segment.CS, popped.selector);
  setRip(cpu, popped.low, 0);
  loadFlags(cpu, mask);
  return Next.Lookup;
}

/** In the order in which they are on the stack. */
const DATA_SEGMENTS = [Segment.ES, Segment.DS, Segment.FS, Segment.GS] as const;
const selectors = new Uint16Array(DATA_SEGMENTS.length);

/** From CPL 0 into virtual-8086 mode: RSP and the other segments are on the stack too. */
function toVirtual8086(cpu: Processor): Next {
  const w = cpu.i32;
  if (!popItem(cpu, 4)) return Next.Fault;
  const sp = w[ITEM] as number;
  if (!popItem(cpu, 4)) return Next.Fault;
  const ss = (w[ITEM] as number) & 0xffff;
  for (let n = 0; n < DATA_SEGMENTS.length; n++) {
    if (!popItem(cpu, 4)) return Next.Fault;
    selectors[n] = w[ITEM] as number;
  }
  if (popped.low >>> 0 > 0xffff) return raiseWithCode(cpu, Vector.GP, 0);
  if (!leaveForVirtual8086(cpu)) return Next.Fault;
  loadFlags(cpu, ALWAYS | WIDE | IF | IOPL | VIF | VIP | VM);
  for (let n = 0; n < DATA_SEGMENTS.length; n++) {
    setVirtual8086Segment(cpu, DATA_SEGMENTS[n] as number, selectors[n] as number);
  }
  setVirtual8086Segment(cpu, Segment.CS, popped.selector);
  setVirtual8086Segment(cpu, Segment.SS, ss);
  w[2 * Register.RSP] = sp;
  w[2 * Register.RSP + 1] = 0;
  setRip(cpu, popped.low, 0);
  return Next.Lookup;
}

/** In 64-bit mode RSP and SS are always popped; elsewhere only on a return to less privilege. */
function fromProtected(cpu: Processor, bytes: number): Next {
  const w = cpu.i32;
  const { selector } = popped;
  if (!checkReturnCode(cpu, selector, code)) return Next.Fault;
  const { cpl: oldCpl } = cpu;
  const cpl = selector & 3;
  if (!staysInRing(cpu, selector, cpl, code)) return Next.Fault;
  const popsStack = cpl > oldCpl || cpu.mode === Mode.Bit64;
  let spLow = 0;
  let spHigh = 0;
  let ss = 0;
  if (popsStack) {
    if (!popItem(cpu, bytes)) return Next.Fault;
    spLow = w[ITEM] as number;
    spHigh = w[ITEM + 1] as number;
    if (!popItem(cpu, bytes)) return Next.Fault;
    ss = (w[ITEM] as number) & 0xffff;
    if (!checkReturnStack(cpu, ss, cpl, code, stackSegment)) return Next.Fault;
  }
  if (!checkOffset(cpu, code, popped.low, popped.high) || !markAccessed(cpu, code)) return Next.Fault;
  const lip = linearTarget(cpu, code, popped.low, popped.high);
  if (!returnOnShadowStack(cpu, selector, lip, isCode64(cpu, code), true)) return Next.Fault;
  adoptShadowStack(cpu);
  const wide = bytes !== 2;
  let mask = ALWAYS | (wide ? WIDE : 0);
  if (oldCpl <= (materialise(cpu) & IOPL) >> RFLAGS.IOPL) mask |= IF;
  if (oldCpl === 0) mask |= IOPL | (wide ? VIF | VIP : 0);
  if (!popsStack) stack.adopt(cpu);
  setCodeSegment(cpu, selector, cpl, code);
  if (popsStack) {
    setReturnStack(cpu, ss, cpl, stackSegment);
    setStackPointer(cpu, spLow, spHigh);
  }
  if (cpl > oldCpl) dropPrivilegedSegments(cpu, cpl);
  setRip(cpu, popped.low, popped.high);
  loadFlags(cpu, mask);
  return Next.Lookup;
}
