/** ERETS and ERETU (SDM vol. 3A chapter 8; vol. 2A): returns from events that FRED delivered. After a fault nothing has changed. */
import { isCanonicalPair } from '../addressing.ts';
import { Attention } from '../attention.ts';
import { waitAgain } from '../cet/branch-tracking.ts';
import {
  adoptShadowStack,
  returnToSupervisorShadowStack,
  returnToUserShadowStack,
} from '../cet/shadow-stack-transfer.ts';
import { checkOffset, checkReturnCode, isCode64, setRip } from '../code-target.ts';
import { Descriptor, markAccessed } from '../descriptor.ts';
import { raise, raiseWithCode, Vector } from '../exceptions.ts';
import { checkReturnStack, setReturnStack } from '../far-transfer.ts';
import { type Execute, Next, Segment } from '../instruction.ts';
import { keepBlockingBySti, keepResumeFlag } from '../instruction-start.ts';
import { Mode } from '../mode.ts';
import type { Processor } from '../processor.ts';
import { Register, RFLAGS } from '../registers.ts';
import { writeFlags } from '../rflags.ts';
import { selectorOf, setCodeSegment, setFlatSegment } from '../segment-load.ts';
import { StackTarget } from '../stack-target.ts';
import { exchangeGsBases, usesFred } from './fred-transitions.ts';

const ITEM = 2 * Register.stackItem;
const ITEM_BYTES = 8 * Register.stackItem;
const RSP = 2 * Register.RSP;
const CONFIG = 2 * Register.IA32_FRED_CONFIG;
const STAR_HIGH = 2 * Register.IA32_STAR + 1;
const BLOCKING_BY_STI = 2 * Register.blockingBySti;
const BLOCKING_BY_NMI = 2 * Register.blockingByNmi;
const PENDING_DEBUG = 2 * Register.pendingDebugExceptions;
const flag = (position: number) => 1 << position;
const IF = flag(RFLAGS.IF);
const TF = flag(RFLAGS.TF);
const VM = flag(RFLAGS.VM);
const IOPL = 3 << RFLAGS.IOPL;
const ALL_FLAGS = ~2;
/** Bits 31:22, 15, 5, 3 and 1 of RFLAGS: the last is 1, the others are 0. */
const FIXED_FLAGS = 0xffc0_802a | 0;
const SINGLE_STEP = 1 << 14;
const CURRENT_LEVEL = 3;

/** Parts of the images of CS and SS in the frame (event-delivery.ts). */
const SELECTOR = 0xffff;
const LEVEL_IN_CS = 16;
const WAITING_IN_CS = 1 << 18;
const RESERVED_IN_CS = ~0x7_ffff;
const STI_IN_SS = 1 << 16;
const SYSTEM_CALL_IN_SS = 1 << 17;
const NMI_IN_SS = 1 << 18;
const RESERVED_IN_SS = ~0x7_ffff;

/** Access rights of flat segments of DPL 3: 64-bit code, 32-bit code, data. */
const USER_CODE_64 = 0xa0fb;
const USER_CODE_32 = 0xc0fb;
const USER_DATA = 0xc0f3;

const stack = new StackTarget();
const code = new Descriptor();
const stackSegment = new Descriptor();

/** The return state in the frame, by its halves. */
const frame = {
  ip: 0,
  ipHigh: 0,
  cs: 0,
  csHigh: 0,
  flags: 0,
  flagsHigh: 0,
  sp: 0,
  spHigh: 0,
  ss: 0,
};

/** Reads the return state, which is behind the error code. */
function readFrame(cpu: Processor): boolean {
  const w = cpu.i32;
  stack.current(cpu, 0);
  stack.release(8);
  if (!stack.pop(cpu, ITEM_BYTES, 8)) return false;
  frame.ip = w[ITEM] as number;
  frame.ipHigh = w[ITEM + 1] as number;
  if (!stack.pop(cpu, ITEM_BYTES, 8)) return false;
  frame.cs = w[ITEM] as number;
  frame.csHigh = w[ITEM + 1] as number;
  if (!stack.pop(cpu, ITEM_BYTES, 8)) return false;
  frame.flags = w[ITEM] as number;
  frame.flagsHigh = w[ITEM + 1] as number;
  if (!stack.pop(cpu, ITEM_BYTES, 8)) return false;
  frame.sp = w[ITEM] as number;
  frame.spHigh = w[ITEM + 1] as number;
  if (!stack.pop(cpu, ITEM_BYTES, 8)) return false;
  frame.ss = w[ITEM] as number;
  return true;
}

/** Both exist in 64-bit mode at CPL 0 with FRED. */
function isDefined(cpu: Processor): boolean {
  return usesFred(cpu) && cpu.mode === Mode.Bit64 && cpu.cpl === 0;
}

function flagsAreValid(forbidden: number): boolean {
  return frame.flagsHigh === 0 && (frame.flags & (FIXED_FLAGS | forbidden)) === 2;
}

/** Loads RSP, RIP, RFLAGS and the stack level, and goes on with what the event held back. */
function restore(cpu: Processor, level: number): Next {
  const w = cpu.i32;
  w[RSP] = frame.sp;
  w[RSP + 1] = frame.spHigh;
  setRip(cpu, frame.ip, frame.ipHigh);
  keepResumeFlag(cpu);
  writeFlags(cpu, ALL_FLAGS, frame.flags);
  w[CONFIG] = ((w[CONFIG] as number) & ~CURRENT_LEVEL) | level;
  if ((frame.ss & SYSTEM_CALL_IN_SS) !== 0 && (frame.flags & TF) !== 0) {
    w[PENDING_DEBUG] = (w[PENDING_DEBUG] as number) | SINGLE_STEP;
    cpu.requestAttention(Attention.PendingDebug);
  }
  if ((frame.ss & NMI_IN_SS) !== 0) unblockNmis(cpu);
  cpu.stateChanged();
  return Next.Lookup;
}

function unblockNmis(cpu: Processor): void {
  if (cpu.nonRoot) cpu.vmxPort.iretUnblocksNmi();
  else cpu.i32[BLOCKING_BY_NMI] = 0;
  cpu.requestAttention(Attention.Event);
}

/** ERETS: to CPL 0, with the same segments, to the stack level of the frame if that is lower. */
export const returnToSupervisor: Execute = (cpu) => {
  if (!isDefined(cpu)) return raise(cpu, Vector.UD);
  if (!readFrame(cpu)) return Next.Fault;
  const w = cpu.i32;
  const valid =
    isCanonicalPair(cpu, frame.ipHigh) &&
    frame.csHigh === 0 &&
    (frame.cs & (SELECTOR | RESERVED_IN_CS)) === selectorOf(cpu, Segment.CS) &&
    flagsAreValid(VM) &&
    (frame.ss & (SELECTOR | RESERVED_IN_SS)) === selectorOf(cpu, Segment.SS);
  if (!valid) return raiseWithCode(cpu, Vector.GP, 0);
  const current = (w[CONFIG] as number) & CURRENT_LEVEL;
  const level = Math.min(current, (frame.cs >> LEVEL_IN_CS) & 3);
  const rip = (BigInt(frame.ipHigh >>> 0) << 32n) | BigInt(frame.ip >>> 0);
  if (!returnToSupervisorShadowStack(cpu, BigInt(frame.cs), rip, level < current ? current : -1))
    return Next.Fault;
  adoptShadowStack(cpu);
  if ((frame.cs & WAITING_IN_CS) !== 0) waitAgain(cpu);
  if ((frame.ss & STI_IN_SS) !== 0 && (frame.flags & IF) !== 0) {
    w[BLOCKING_BY_STI] = 1;
    keepBlockingBySti(cpu);
    cpu.requestAttention(Attention.Blocking);
  }
  return restore(cpu, level);
};

/** ERETU: to CPL 3, from stack level 0. */
export const returnToUser: Execute = (cpu) => {
  if (!isDefined(cpu)) return raise(cpu, Vector.UD);
  const w = cpu.i32;
  if (((w[CONFIG] as number) & CURRENT_LEVEL) !== 0) return raiseWithCode(cpu, Vector.GP, 0);
  if (!readFrame(cpu)) return Next.Fault;
  const valid =
    isCanonicalPair(cpu, frame.ipHigh) &&
    frame.csHigh === 0 &&
    (frame.cs & ~0xfffc) === 3 &&
    flagsAreValid(VM | IOPL) &&
    (frame.ss & (RESERVED_IN_SS | 3)) === 3;
  if (!valid) return raiseWithCode(cpu, Vector.GP, 0);
  const ss = frame.ss & SELECTOR;
  const star = (w[STAR_HIGH] as number) >>> 16;
  const flatStack = ss === ((star + 8) & SELECTOR);
  const flat64 = flatStack && frame.cs === ((star + 16) & SELECTOR);
  const flat32 = flatStack && frame.cs === star;
  if (flat64 || flat32) {
    if (flat32) truncate();
    if (!returnToUserShadowStack(cpu, flat64)) return Next.Fault;
    enterFlat(cpu, flat64 ? USER_CODE_64 : USER_CODE_32);
  } else if (!enterByDescriptors(cpu, ss)) return Next.Fault;
  adoptShadowStack(cpu);
  exchangeGsBases(cpu);
  return restore(cpu, 0);
};

/** In compatibility mode RIP and RSP have 32 bits. */
function truncate(): void {
  frame.ipHigh = 0;
  frame.spHigh = 0;
}

function enterFlat(cpu: Processor, rights: number): void {
  setFlatSegment(cpu, Segment.CS, frame.cs, rights);
  setFlatSegment(cpu, Segment.SS, frame.ss & SELECTOR, USER_DATA);
}

/** Segments other than those that IA32_STAR names are loaded as IRET does it. */
function enterByDescriptors(cpu: Processor, ss: number): boolean {
  if (!checkReturnCode(cpu, frame.cs, code) || !checkReturnStack(cpu, ss, 3, code, stackSegment))
    return false;
  if (!isCode64(cpu, code)) truncate();
  if (!checkOffset(cpu, code, frame.ip, frame.ipHigh) || !markAccessed(cpu, code)) return false;
  if (!returnToUserShadowStack(cpu, isCode64(cpu, code))) return false;
  setCodeSegment(cpu, frame.cs, 3, code);
  setReturnStack(cpu, ss, 3, stackSegment);
  return true;
}
