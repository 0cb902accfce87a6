/**
 * String instructions (SDM vol. 1 §7.3.9; vol. 2: MOVS, CMPS, SCAS, LODS, STOS, REP). Between two
 * iterations the state is that of an instruction not yet begun, so that faults and events find it
 * restartable; one execution makes as many iterations as nothing asks for attention.
 */
import { condition } from '../flags.ts';
import { type Execute, type Instruction, Next, Segment } from '../instruction.ts';
import { loadFrom, storeTo } from '../memory-access.ts';
import { Mode } from '../mode.ts';
import type { OpcodeRow, SizedExecute } from '../opcode-row.ts';
import { DESTINATION_OPERAND, MEMORY_OPERAND } from '../operand-forms.ts';
import { copy } from '../operand-values.ts';
import { STORES_ARE_NOTICED } from '../physical-memory.ts';
import type { Processor } from '../processor.ts';
import { Register, RFLAGS } from '../registers.ts';
import { Access } from '../tlb.ts';
import { cmp } from './arithmetic.ts';

const RCX = 2 * Register.RCX;
const RSI = 2 * Register.RSI;
const RDI = 2 * Register.RDI;
const ATTENTION = 2 * Register.attention;
const RFLAGS_LOW = 2 * Register.RFLAGS;
const SOURCE = MEMORY_OPERAND;
const DESTINATION = DESTINATION_OPERAND;
const DF = 1 << RFLAGS.DF;
const EQUAL = 4;
const REPE = 0xf3;
const PAGE = 0x1000;
/** Fewer iterations than this are not worth looking for a faster way. */
const WORTHWHILE = 4;

type Bits = 8 | 16 | 32 | 64;
/** One iteration with RSI and RDI as they are; false after a fault. */
type Iteration = (cpu: Processor, i: Instruction, bytes: number) => boolean;

const lowOf = (cpu: Processor, register: number, addressBits: number): number => {
  const lo = cpu.i32[register] as number;
  return addressBits === 16 ? lo & 0xffff : lo;
};
const highOf = (cpu: Processor, register: number, addressBits: number): number =>
  addressBits === 64 ? (cpu.i32[register + 1] as number) : 0;

/** Adds to the part of a register that the address size has. */
function advance(cpu: Processor, register: number, addressBits: number, by: number): void {
  const w = cpu.i32;
  const lo = w[register] as number;
  if (addressBits === 16) {
    w[register] = (lo & ~0xffff) | ((lo + by) & 0xffff);
    return;
  }
  w[register] = lo + by;
  if (addressBits === 32) w[register + 1] = 0;
  else w[register + 1] = (w[register + 1] as number) + Math.floor(((lo >>> 0) + by) / 0x1_0000_0000);
}

/** ±bytes by RFLAGS.DF. */
export function stringStep(cpu: Processor, bytes: number): number {
  return ((cpu.i32[RFLAGS_LOW] as number) & DF) === 0 ? bytes : -bytes;
}

/** The element at RSI in the instruction's segment into T0. */
function loadSource(cpu: Processor, i: Instruction, bytes: number): boolean {
  const { addressBits } = i;
  return loadFrom(cpu, i.segment, lowOf(cpu, RSI, addressBits), highOf(cpu, RSI, addressBits), SOURCE, bytes);
}

/** The element at ES:RDI into T2. */
function loadDestination(cpu: Processor, i: Instruction, bytes: number): boolean {
  const lo = lowOf(cpu, RDI, i.addressBits);
  return loadFrom(cpu, Segment.ES, lo, highOf(cpu, RDI, i.addressBits), DESTINATION, bytes);
}

/** Stores from byte offset `from` of the state to ES:RDI. */
function storeDestination(cpu: Processor, i: Instruction, from: number, bytes: number): boolean {
  const lo = lowOf(cpu, RDI, i.addressBits);
  return storeTo(cpu, Segment.ES, lo, highOf(cpu, RDI, i.addressBits), from, bytes);
}

export function advanceSource(cpu: Processor, i: Instruction, by: number): void {
  advance(cpu, RSI, i.addressBits, by);
}

export function advanceDestination(cpu: Processor, i: Instruction, by: number): void {
  advance(cpu, RDI, i.addressBits, by);
}

/** One iteration less in RCX. */
export function countDown(cpu: Processor, i: Instruction): void {
  advance(cpu, RCX, i.addressBits, -1);
}

/** The count in RCX by address size, as far as it matters: at most 2³². */
function count(cpu: Processor, addressBits: number): number {
  const lo = lowOf(cpu, RCX, addressBits) >>> 0;
  return highOf(cpu, RCX, addressBits) === 0 ? lo : 0x1_0000_0000;
}

/** Whether the result of CMPS or SCAS ends the repetition. */
const endsOnFlags = (cpu: Processor, i: Instruction) => condition(cpu, EQUAL) !== (i.repeat === REPE);

/**
 * The operation of a string instruction of `bits` bits: `iteration` once, or by RCX with a repeat
 * prefix. `many` may do further iterations at once: it answers how many it did of at most `most`.
 */
function repeated(
  iteration: Iteration,
  bits: Bits,
  compares = false,
  many: (cpu: Processor, i: Instruction, bytes: number, most: number) => number = () => 0,
): Execute {
  const bytes = bits >> 3;
  return (cpu, i) => {
    if (i.repeat === 0) return iteration(cpu, i, bytes) ? Next.Sequential : Next.Fault;
    const { addressBits } = i;
    const w = cpu.i32;
    let left = count(cpu, addressBits);
    if (left === 0) return Next.Sequential;
    for (;;) {
      if (!iteration(cpu, i, bytes)) return Next.Fault;
      advance(cpu, RCX, addressBits, -1);
      left--;
      if (left === 0 || (compares && endsOnFlags(cpu, i))) return Next.Sequential;
      // The last iteration of this execution is counted by whoever executes instructions.
      if (w[ATTENTION] !== 0 || cpu.executed + 1 >= cpu.executeUntil) return Next.Again;
      cpu.executed++;
      const most = Math.min(left - 1, cpu.executeUntil - cpu.executed - 1);
      if (most < WORTHWHILE) continue;
      const done = many(cpu, i, bytes, most);
      if (done === 0) continue;
      advance(cpu, RCX, addressBits, -done);
      left -= done;
      cpu.executed += done;
    }
  };
}

/** Iterations that stay within the page of the address at `register`, going up; 0 unless that is a plain page of RAM. */
function withinPage(
  cpu: Processor,
  i: Instruction,
  segment: Segment,
  register: number,
  bytes: number,
  access: Access,
): number {
  if (cpu.mode === Mode.Bit64) {
    if (segment >= Segment.FS) return 0;
  } else if (((cpu.flatSegments[segment] as number) & access) === 0) return 0;
  if (plainRam(cpu, i, register, access) === 0) return 0;
  return Math.floor((PAGE - (lowOf(cpu, register, i.addressBits) & (PAGE - 1))) / bytes);
}

/** Offset in the memory's buffer of the byte at `register`, if the TLB knows it as RAM that may be accessed directly. */
function plainRam(cpu: Processor, i: Instruction, register: number, access: Access): number {
  const lo = lowOf(cpu, register, i.addressBits);
  const hi = highOf(cpu, register, i.addressBits);
  const entry = cpu.tlb.find(lo, hi, access << cpu.accessClass);
  const where = entry < 0 ? 0 : (cpu.tlb.where[entry] as number);
  if (where === 0) return 0;
  const { memory } = cpu;
  const use = memory.pageUse[(where - memory.ramStart) >>> 12] as number;
  return access === Access.Write && (use & STORES_ARE_NOTICED) !== 0 ? 0 : where + (lo & (PAGE - 1));
}

/** Whether iterations may be merged: upwards, and nothing to be checked of each. */
const mergeable = (cpu: Processor) => stringStep(cpu, 1) === 1 && !cpu.alignmentChecked;

function moveMany(cpu: Processor, i: Instruction, bytes: number, most: number): number {
  if (!mergeable(cpu)) return 0;
  const source = withinPage(cpu, i, i.segment, RSI, bytes, Access.Read);
  const destination = withinPage(cpu, i, Segment.ES, RDI, bytes, Access.Write);
  const iterations = Math.min(most, source, destination);
  if (iterations < WORTHWHILE) return 0;
  const length = iterations * bytes;
  const from = plainRam(cpu, i, RSI, Access.Read);
  const to = plainRam(cpu, i, RDI, Access.Write);
  // An overlap from below repeats a pattern, element by element.
  if (from < to && to < from + length) return 0;
  cpu.memory.u8.copyWithin(to, from, from + length);
  advanceSource(cpu, i, length);
  advanceDestination(cpu, i, length);
  return iterations;
}

function storeMany(cpu: Processor, i: Instruction, bytes: number, most: number): number {
  if (!mergeable(cpu)) return 0;
  const iterations = Math.min(most, withinPage(cpu, i, Segment.ES, RDI, bytes, Access.Write));
  if (iterations < WORTHWHILE) return 0;
  const length = iterations * bytes;
  const to = plainRam(cpu, i, RDI, Access.Write);
  const { u8 } = cpu.memory;
  for (let n = 0; n < bytes; n++) u8[to + n] = cpu.u8[i.s + n] as number;
  // Copying what was written doubles it.
  for (let done = bytes; done < length; done *= 2) {
    u8.copyWithin(to + done, to, to + Math.min(done, length - done));
  }
  advanceDestination(cpu, i, length);
  return iterations;
}

function movs(cpu: Processor, i: Instruction, bytes: number): boolean {
  if (!loadSource(cpu, i, bytes) || !storeDestination(cpu, i, SOURCE, bytes)) return false;
  const step = stringStep(cpu, bytes);
  advanceSource(cpu, i, step);
  advanceDestination(cpu, i, step);
  return true;
}

function stos(cpu: Processor, i: Instruction, bytes: number): boolean {
  if (!storeDestination(cpu, i, i.s, bytes)) return false;
  advanceDestination(cpu, i, stringStep(cpu, bytes));
  return true;
}

function lods(bits: Bits): Iteration {
  return (cpu, i, bytes) => {
    if (!loadSource(cpu, i, bytes)) return false;
    if (bits === 8) cpu.u8[i.d] = cpu.u8[SOURCE] as number;
    else copy(cpu, i.d, SOURCE, bits);
    advanceSource(cpu, i, stringStep(cpu, bytes));
    return true;
  };
}

/** The element at RSI is compared with that at ES:RDI. */
function cmps(bits: Bits): Iteration {
  const compare = cmp[bits] as Execute;
  return (cpu, i, bytes) => {
    if (!loadSource(cpu, i, bytes) || !loadDestination(cpu, i, bytes)) return false;
    compare(cpu, i);
    const step = stringStep(cpu, bytes);
    advanceSource(cpu, i, step);
    advanceDestination(cpu, i, step);
    return true;
  };
}

/** The accumulator is compared with the element at ES:RDI. */
function scas(bits: Bits): Iteration {
  const compare = cmp[bits] as Execute;
  return (cpu, i, bytes) => {
    if (!loadDestination(cpu, i, bytes)) return false;
    compare(cpu, i);
    advanceDestination(cpu, i, stringStep(cpu, bytes));
    return true;
  };
}

const bySize = (make: (bits: Bits) => Execute): SizedExecute => ({
  8: make(8),
  16: make(16),
  32: make(32),
  64: make(64),
});

const MOVS = bySize((bits) => repeated(movs, bits, false, moveMany));
const STOS = bySize((bits) => repeated(stos, bits, false, storeMany));
const LODS = bySize((bits) => repeated(lods(bits), bits));
const CMPS = bySize((bits) => repeated(cmps(bits), bits, true));
const SCAS = bySize((bits) => repeated(scas(bits), bits, true));

export const STRING_ROWS: readonly OpcodeRow[] = [
  { opcode: 'A4', mnemonic: 'MOVSB', operands: 'Yb Xb', execute: MOVS, repeat: 'rep' },
  { opcode: 'A5', mnemonic: 'MOVSW/MOVSD/MOVSQ', operands: 'Yv Xv', execute: MOVS, repeat: 'rep' },
  { opcode: 'A6', mnemonic: 'CMPSB', operands: 'Xb Yb', execute: CMPS, repeat: 'repe' },
  { opcode: 'A7', mnemonic: 'CMPSW/CMPSD/CMPSQ', operands: 'Xv Yv', execute: CMPS, repeat: 'repe' },
  { opcode: 'AA', mnemonic: 'STOSB', operands: 'Yb AL', execute: STOS, repeat: 'rep' },
  { opcode: 'AB', mnemonic: 'STOSW/STOSD/STOSQ', operands: 'Yv rAX', execute: STOS, repeat: 'rep' },
  { opcode: 'AC', mnemonic: 'LODSB', operands: 'AL Xb', execute: LODS, repeat: 'rep' },
  { opcode: 'AD', mnemonic: 'LODSW/LODSD/LODSQ', operands: 'rAX Xv', execute: LODS, repeat: 'rep' },
  { opcode: 'AE', mnemonic: 'SCASB', operands: 'AL Yb', execute: SCAS, repeat: 'repe' },
  { opcode: 'AF', mnemonic: 'SCASW/SCASD/SCASQ', operands: 'rAX Yv', execute: SCAS, repeat: 'repe' },
];
