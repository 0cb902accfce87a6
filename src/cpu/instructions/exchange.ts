/** Exchanges (SDM vol. 2: XADD, CMPXCHG, CMPXCHG8B, CMPXCHG16B). Memory is written in any case. */
import { raiseWithCode, Vector } from '../exceptions.ts';
import { condition, replaceFlags } from '../flags.ts';
import { type Execute, type Instruction, Next } from '../instruction.ts';
import { load, probeStore, store } from '../memory-access.ts';
import type { OpcodeRow, SizedExecute } from '../opcode-row.ts';
import { MEMORY_OPERAND, operandAddress } from '../operand-forms.ts';
import { copy, write32 } from '../operand-values.ts';
import type { Processor } from '../processor.ts';
import { Register } from '../registers.ts';
import { Access } from '../tlb.ts';
import { add, cmp } from './arithmetic.ts';

const T0 = MEMORY_OPERAND;
const T2 = 8 * Register.T2;
const RAX = 8 * Register.RAX;
const LINEAR = 2 * Register.linear;
const EQUAL = 4;
const ZF = 0x40;

type Bits = 8 | 16 | 32 | 64;

function move(cpu: Processor, to: number, from: number, bits: Bits): void {
  if (bits === 8) cpu.u8[to] = cpu.u8[from] as number;
  else copy(cpu, to, from, bits);
}

/** The source gets the destination, then the destination the sum. */
function xadd(bits: Bits): Execute {
  const sum = add[bits] as Execute;
  return (cpu, i) => {
    move(cpu, T2, i.d, bits);
    sum(cpu, i);
    if (i.d !== i.s) move(cpu, i.s, T2, bits);
    return Next.Sequential;
  };
}

/**
 * Flags are those of the accumulator compared with the destination. Equal, the destination gets the
 * source; else the accumulator gets the destination, and a destination register keeps its upper half.
 */
function cmpxchg(bits: Bits): Execute {
  const compare = cmp[bits] as Execute;
  return (cpu, i) => {
    const destination = i.d;
    const source = i.s;
    move(cpu, T2, destination, bits);
    compareAt(cpu, i, compare, RAX, T2);
    if (condition(cpu, EQUAL)) move(cpu, destination, source, bits);
    else move(cpu, RAX, T2, bits);
    return Next.Sequential;
  };
}

/** A comparison of other operands than those of the instruction. */
function compareAt(cpu: Processor, i: Instruction, compare: Execute, d: number, s: number): void {
  const keptD = i.d;
  const keptS = i.s;
  i.d = d;
  i.s = s;
  compare(cpu, i);
  i.d = keptD;
  i.s = keptS;
}

const sized = (make: (bits: Bits) => Execute): SizedExecute => ({
  8: make(8),
  16: make(16),
  32: make(32),
  64: make(64),
});

/** EDX:EAX against eight bytes: equal, they get ECX:EBX; else EDX:EAX gets them. */
const cmpxchg8b: Execute = (cpu, i) => {
  if (!operandAddress(cpu, i, 8, Access.Write)) return Next.Fault;
  if (!probeStore(cpu, 8) || !load(cpu, T0, 8)) return Next.Fault;
  const w = cpu.i32;
  const t = T0 >> 2;
  const equal = w[t] === w[2 * Register.RAX] && w[t + 1] === w[2 * Register.RDX];
  if (equal) {
    w[t] = w[2 * Register.RBX] as number;
    w[t + 1] = w[2 * Register.RCX] as number;
  } else {
    write32(cpu, RAX, w[t] as number);
    write32(cpu, 8 * Register.RDX, w[t + 1] as number);
  }
  replaceFlags(cpu, ZF, equal ? ZF : 0);
  store(cpu, T0, 8);
  return Next.Sequential;
};

/** RDX:RAX against sixteen bytes, which must be aligned. */
const cmpxchg16b: Execute = (cpu, i) => {
  if (!operandAddress(cpu, i, 16, Access.Write)) return Next.Fault;
  if (((cpu.i32[LINEAR] as number) & 15) !== 0) return raiseWithCode(cpu, Vector.GP, 0);
  if (!probeStore(cpu, 16) || !load(cpu, T0, 16)) return Next.Fault;
  const q = cpu.quads;
  const t = Register.T0;
  const equal = q[t] === q[Register.RAX] && q[t + 1] === q[Register.RDX];
  if (equal) {
    q[t] = q[Register.RBX] as bigint;
    q[t + 1] = q[Register.RCX] as bigint;
  } else {
    q[Register.RAX] = q[t] as bigint;
    q[Register.RDX] = q[t + 1] as bigint;
  }
  replaceFlags(cpu, ZF, equal ? ZF : 0);
  store(cpu, T0, 16);
  return Next.Sequential;
};

export const EXCHANGE_ROWS: readonly OpcodeRow[] = [
  { opcode: '0F C0', mnemonic: 'XADD', operands: 'Eb+ Gb', execute: sized(xadd), lock: true },
  { opcode: '0F C1', mnemonic: 'XADD', operands: 'Ev+ Gv', execute: sized(xadd), lock: true },
  { opcode: '0F B0', mnemonic: 'CMPXCHG', operands: 'Eb+ Gb', execute: sized(cmpxchg), lock: true },
  { opcode: '0F B1', mnemonic: 'CMPXCHG', operands: 'Ev+ Gv', execute: sized(cmpxchg), lock: true },
  { opcode: '0F C7 /1 mod!=3 W0', mnemonic: 'CMPXCHG8B', operands: 'Mq!', execute: cmpxchg8b, lock: true },
  {
    opcode: '0F C7 /1 mod!=3 W1',
    mnemonic: 'CMPXCHG16B',
    operands: 'Mdq!',
    execute: cmpxchg16b,
    lock: true,
    feature: (f) => f.cmpxchg16b,
  },
];
