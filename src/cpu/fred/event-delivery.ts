/**
 * FRED event delivery (SDM vol. 3A chapter 8): one entry point for events at CPL 3 and one for those at
 * CPL 0, a stack chosen by stack level, and a frame of 64 bytes that says what the event is. The event is
 * in the slots `originalEvent…`; after a fault no register has changed but the temporaries.
 */
import { endWaiting } from '../cet/branch-tracking.ts';
import { Enforcement } from '../cet/enforcement.ts';
import { adoptShadowStack, deliverOnShadowStack } from '../cet/shadow-stack-transfer.ts';
import { EventType, eventType, eventVector, HAS_ERROR_CODE, isNested } from '../event.ts';
import { Vector } from '../exceptions.ts';
import { materialise } from '../flags.ts';
import { Segment } from '../instruction.ts';
import { Mode } from '../mode.ts';
import type { Processor } from '../processor.ts';
import { Register } from '../registers.ts';
import { writeFlags } from '../rflags.ts';
import { selectorOf, setFlatSegment } from '../segment-load.ts';
import { StackTarget } from '../stack-target.ts';
import { exchangeGsBases } from './fred-transitions.ts';

const EVENT = 2 * Register.originalEvent;
const EVENT_CODE = 2 * Register.originalEventErrorCode;
const EVENT_LENGTH = 2 * Register.originalEventLength;
const EVENT_FLAGS = 2 * Register.originalEventFlags;
const EVENT_DATA = 2 * Register.originalEventData;
const EVENT_BLOCKED = 2 * Register.originalEventBlockedBySti;
const RETURN = 2 * Register.returnAddress;
const EXTERNAL = 2 * Register.external;
const FAULT_ADDRESS = 2 * Register.faultAddress;
const DEBUG_CAUSES = 2 * Register.debugCauses;
const RSP = 2 * Register.RSP;
const RIP = 2 * Register.RIP;
const CONFIG = 2 * Register.IA32_FRED_CONFIG;
const STACK_LEVELS = 2 * Register.IA32_FRED_STKLVLS;
const STACKS = 2 * Register.IA32_FRED_RSP0;
const STAR_HIGH = 2 * Register.IA32_STAR + 1;
const ALL_FLAGS = ~2;

/** IA32_FRED_CONFIG: current stack level, bytes left free below RSP, stack level of interrupts. */
const CURRENT_LEVEL = 3;
const REDZONE = 0x1c0;
const INTERRUPT_LEVEL = 9;
const PAGE = ~0xfff;
/** From the entry point of events at CPL 3 to that of events at CPL 0. */
const ENTRY_AT_CPL0 = 256;
const FRAME_ALIGNMENT = 64;

/** The CS image: stack level, and whether an ENDBRANCH was waited for (SDM vol. 3A chapter 8). */
const LEVEL_IN_CS = 16;
const WAITING_IN_CS = 1 << 18;
/** The SS image; bits 63:32 are the event information. */
const BLOCKING_BY_STI = 1 << 16;
const BY_SYSTEM_CALL_OR_INT_N = 1 << 17;
const BY_NMI = 1 << 18;
const TYPE_IN_INFORMATION = 16;
const IN_64_BIT_MODE = 1 << 25;
const NESTED_IN_INFORMATION = 1 << 26;
const LENGTH_IN_INFORMATION = 28;

/** Access rights of the handler's segments: 64-bit code, data, of DPL 0. */
const CODE_64 = 0xa09b;
const DATA = 0xc093;

const stack = new StackTarget();

/** Notes what the frame of `event` says of its cause: the address of #PF, the causes of #DB. */
export function noteEventData(cpu: Processor, event: number): void {
  const w = cpu.i32;
  w[EVENT_DATA] = 0;
  w[EVENT_DATA + 1] = 0;
  if (eventType(event) !== EventType.HardwareException) return;
  if (eventVector(event) === Vector.DB) w[EVENT_DATA] = w[DEBUG_CAUSES] as number;
  if (eventVector(event) !== Vector.PF) return;
  w[EVENT_DATA] = w[FAULT_ADDRESS] as number;
  w[EVENT_DATA + 1] = w[FAULT_ADDRESS + 1] as number;
}

/** Delivers the event; false after raising a fault. */
export function deliverThroughFred(cpu: Processor): boolean {
  const w = cpu.i32;
  const event = w[EVENT] as number;
  const fromUser = cpu.cpl === 3;
  const config = w[CONFIG] as number;
  const level = fromUser ? 0 : config & CURRENT_LEVEL;
  const newLevel = Math.max(level, stackLevelOf(cpu, event, fromUser));
  if (fromUser || newLevel > level) {
    const at = STACKS + 2 * newLevel;
    stack.flat(cpu, w[at] as number, w[at + 1] as number, 0, w[EXTERNAL] as number);
  } else belowRedzone(cpu, config & REDZONE);
  const cs = csImage(cpu, level);
  if (!pushFrame(cpu, event, cs)) return false;
  if (!deliverOnShadowStack(cpu, newLevel, newLevel > level, BigInt(cs))) return false;
  adoptShadowStack(cpu);
  if (fromUser) {
    const kernel = (w[STAR_HIGH] as number) & 0xfffc;
    setFlatSegment(cpu, Segment.CS, kernel, CODE_64);
    setFlatSegment(cpu, Segment.SS, kernel + 8, DATA);
    exchangeGsBases(cpu);
  }
  writeFlags(cpu, ALL_FLAGS, 0);
  stack.adopt(cpu);
  w[RIP] = (config & PAGE) | (fromUser ? 0 : ENTRY_AT_CPL0);
  w[RIP + 1] = w[CONFIG + 1] as number;
  w[CONFIG] = (config & ~CURRENT_LEVEL) | newLevel;
  endWaiting(cpu);
  cpu.stateChanged();
  return true;
}

/** Events at CPL 3 have level 0, unless their delivery began with another event or they are double faults. */
function stackLevelOf(cpu: Processor, event: number, fromUser: boolean): number {
  const w = cpu.i32;
  const type = eventType(event);
  const vector = eventVector(event);
  const doubleFault = type === EventType.HardwareException && vector === Vector.DF;
  if (fromUser && !doubleFault && !isNested(event)) return 0;
  if (type === EventType.ExternalInterrupt) return ((w[CONFIG] as number) >> INTERRUPT_LEVEL) & 3;
  if (type === EventType.SoftwareInterrupt || type === EventType.Other) return 0;
  const half = w[STACK_LEVELS + (vector >> 4)] as number;
  return (half >>> (2 * (vector & 15))) & 3;
}

/** On the stack in use, `redzone` bytes below RSP and aligned. */
function belowRedzone(cpu: Processor, redzone: number): void {
  const w = cpu.i32;
  const low = (w[RSP] as number) >>> 0;
  const high = low < redzone ? ((w[RSP + 1] as number) - 1) | 0 : (w[RSP + 1] as number);
  stack.flat(cpu, (low - redzone) & -FRAME_ALIGNMENT, high, 0, w[EXTERNAL] as number);
}

function csImage(cpu: Processor, level: number): number {
  const waits = cpu.cpl === 0 && (cpu.enforcement & Enforcement.Waiting) !== 0;
  return selectorOf(cpu, Segment.CS) | (level << LEVEL_IN_CS) | (waits ? WAITING_IN_CS : 0);
}

function pushFrame(cpu: Processor, event: number, cs: number): boolean {
  const w = cpu.i32;
  const flags = materialise(cpu) | (w[EVENT_FLAGS] as number);
  const code = (event & HAS_ERROR_CODE) !== 0 ? (w[EVENT_CODE] as number) : 0;
  return (
    stack.push(cpu, 0, 0, 8) &&
    stack.push(cpu, w[EVENT_DATA] as number, w[EVENT_DATA + 1] as number, 8) &&
    stack.push(cpu, ssImage(cpu, event), informationOf(cpu, event), 8) &&
    stack.push(cpu, w[RSP] as number, w[RSP + 1] as number, 8) &&
    stack.push(cpu, flags, 0, 8) &&
    stack.push(cpu, cs, 0, 8) &&
    stack.push(cpu, w[RETURN] as number, w[RETURN + 1] as number, 8) &&
    stack.push(cpu, code, 0, 8)
  );
}

function ssImage(cpu: Processor, event: number): number {
  const type = eventType(event);
  const isCall = type === EventType.SoftwareInterrupt || type === EventType.Other;
  return (
    selectorOf(cpu, Segment.SS) |
    (cpu.i32[EVENT_BLOCKED] !== 0 ? BLOCKING_BY_STI : 0) |
    (isCall ? BY_SYSTEM_CALL_OR_INT_N : 0) |
    (type === EventType.Nmi ? BY_NMI : 0)
  );
}

/** Event information: vector, type, mode, nesting, and the length of the instruction that asked for the event. */
function informationOf(cpu: Processor, event: number): number {
  const type = eventType(event);
  const length = type >= EventType.SoftwareInterrupt ? (cpu.i32[EVENT_LENGTH] as number) : 0;
  return (
    eventVector(event) |
    (type << TYPE_IN_INFORMATION) |
    (cpu.mode === Mode.Bit64 ? IN_64_BIT_MODE : 0) |
    (isNested(event) ? NESTED_IN_INFORMATION : 0) |
    (length << LENGTH_IN_INFORMATION)
  );
}
