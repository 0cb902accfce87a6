/** Input and output (SDM vol. 2: IN, OUT, INS, OUTS; vol. 1 §19.5.2 for the I/O permission bitmap). */
import { linearise, lineariseUnchecked } from '../addressing.ts';
import { noteIoAccess } from '../debug-registers.ts';
import { raiseWithCode, Vector } from '../exceptions.ts';
import { materialise } from '../flags.ts';
import { type Execute, type Instruction, Next, Segment } from '../instruction.ts';
import { Intercept, intercepted } from '../intercept.ts';
import { IoPart, noteIoInstruction } from '../io-instruction.ts';
import { load, loadLinear, probeStore, store } from '../memory-access.ts';
import { Mode } from '../mode.ts';
import type { OpcodeRow, SizedExecute } from '../opcode-row.ts';
import type { PortAccessSize } from '../port-space.ts';
import type { Processor } from '../processor.ts';
import { Register, RFLAGS } from '../registers.ts';
import { Access } from '../tlb.ts';
import { advanceDestination, advanceSource, countDown, stringStep } from './string.ts';

const RAX = 2 * Register.RAX;
const RCX = Register.RCX;
const RDX = 4 * Register.RDX;
const RSI = Register.RSI;
const RDI = Register.RDI;
const LINEAR = 2 * Register.linear;
const T0 = 8 * Register.T0;
const T0_LOW = 2 * Register.T0;
const TR_BASE = 2 * Register['TR.base'];
const TR_LIMIT = 2 * Register['TR.limit'];
const TR_RIGHTS = 2 * Register['TR.accessRights'];
const IO_MAP_BASE = 102;
const TSS_32_BUSY = 11;

/** CPL ≤ IOPL, or the TSS permits each port; otherwise #GP(0) is raised, or a fault of reading the TSS. */
function mayAccess(cpu: Processor, port: number, bytes: number): boolean {
  if (cpu.mode === Mode.Real) return true;
  const iopl = (materialise(cpu) >> RFLAGS.IOPL) & 3;
  if (cpu.mode !== Mode.Virtual8086 && cpu.cpl <= iopl) return true;
  const w = cpu.i32;
  const limit = (w[TR_LIMIT] as number) >>> 0;
  const hasBitmap = ((w[TR_RIGHTS] as number) & 15) === TSS_32_BUSY && limit >= IO_MAP_BASE + 1;
  if (hasBitmap) {
    if (!loadTss(cpu, IO_MAP_BASE)) return false;
    const at = (w[T0_LOW] as number) + (port >>> 3);
    // Two bytes are read: an access may straddle them.
    if (at + 1 <= limit) {
      if (!loadTss(cpu, at)) return false;
      const bits = ((w[T0_LOW] as number) >>> (port & 7)) & ((1 << bytes) - 1);
      if (bits === 0) return true;
    }
  }
  raiseWithCode(cpu, Vector.GP, 0);
  return false;
}

/** Two bytes of the TSS into T0. */
function loadTss(cpu: Processor, offset: number): boolean {
  const w = cpu.i32;
  const sum = ((w[TR_BASE] as number) >>> 0) + offset;
  const high = ((w[TR_BASE + 1] as number) + (sum > 0xffff_ffff ? 1 : 0)) | 0;
  return loadLinear(cpu, sum | 0, high, T0, 2);
}

/** Bytes of the access: 1 for byte opcodes, otherwise 2 or 4. */
const accessBytes = (i: Instruction, isByte: boolean): PortAccessSize =>
  isByte ? 1 : i.operandBits === 16 ? 2 : 4;

function setAccumulator(cpu: Processor, bytes: PortAccessSize, value: number): void {
  if (bytes === 1) cpu.u8[4 * RAX] = value;
  else if (bytes === 2) cpu.u16[2 * RAX] = value;
  else {
    cpu.i32[RAX] = value;
    cpu.i32[RAX + 1] = 0;
  }
}

const partsOf = (portOf: typeof fromImmediate, direction: number) =>
  direction | (portOf === fromImmediate ? IoPart.Immediate : 0);

function input(isByte: boolean, portOf: (cpu: Processor, i: Instruction) => number): Execute {
  const parts = partsOf(portOf, IoPart.Input);
  return (cpu, i) => {
    const port = portOf(cpu, i);
    const bytes = accessBytes(i, isByte);
    if (!mayAccess(cpu, port, bytes)) return Next.Fault;
    if (intercepted(cpu, i, Intercept.IO, port, bytes)) return Next.VmExit;
    noteIoAccess(cpu, port, bytes);
    setAccumulator(cpu, bytes, cpu.ports.read(port, bytes));
    noteIoInstruction(cpu, i, port, bytes, parts);
    return Next.Lookup;
  };
}

function output(isByte: boolean, portOf: (cpu: Processor, i: Instruction) => number): Execute {
  const parts = partsOf(portOf, 0);
  return (cpu, i) => {
    const port = portOf(cpu, i);
    const bytes = accessBytes(i, isByte);
    if (!mayAccess(cpu, port, bytes)) return Next.Fault;
    if (intercepted(cpu, i, Intercept.IO, port, bytes)) return Next.VmExit;
    noteIoAccess(cpu, port, bytes);
    const value = (cpu.i32[RAX] as number) >>> 0;
    cpu.ports.write(port, bytes, bytes === 4 ? value : value & (2 ** (8 * bytes) - 1));
    noteIoInstruction(cpu, i, port, bytes, parts);
    return Next.Lookup;
  };
}

const fromImmediate = (_cpu: Processor, i: Instruction) => i.immediate & 0xff;
const fromDx = (cpu: Processor) => cpu.u16[RDX] as number;

/** Offset by address size: a general register, truncated. */
function offsetOf(cpu: Processor, i: Instruction, register: number): bigint {
  return BigInt.asUintN(i.addressBits, cpu.quads[register] as bigint);
}

/** One iteration of INS or OUTS. */
function stringIo(isByte: boolean, isInput: boolean): Execute {
  return (cpu, i) => {
    if (i.repeat !== 0 && offsetOf(cpu, i, RCX) === 0n) return Next.Sequential;
    const port = fromDx(cpu);
    const bytes = accessBytes(i, isByte);
    const segment = isInput ? Segment.ES : i.segment;
    const register = isInput ? RDI : RSI;
    if (!mayAccess(cpu, port, bytes)) return Next.Fault;
    const offset = offsetOf(cpu, i, register);
    if (cpu.nonRoot) lineariseUnchecked(cpu, segment, offset);
    if (intercepted(cpu, i, Intercept.IO, port, bytes)) return Next.VmExit;
    const lo = Number(BigInt.asIntN(32, offset));
    const hi = Number(BigInt.asIntN(32, offset >> 32n));
    if (!linearise(cpu, segment, lo, hi, bytes, isInput ? Access.Write : Access.Read)) return Next.Fault;
    const w = cpu.i32;
    const [linearLow, linearHigh] = [w[LINEAR] as number, w[LINEAR + 1] as number];
    if (isInput) {
      // The port must not be read if the store would fault.
      if (!probeStore(cpu, bytes)) return Next.Fault;
      w[T0_LOW] = cpu.ports.read(port, bytes);
      w[LINEAR] = linearLow;
      w[LINEAR + 1] = linearHigh;
      if (!store(cpu, T0, bytes)) return Next.Fault;
    } else {
      if (!load(cpu, T0, bytes)) return Next.Fault;
      cpu.ports.write(port, bytes, (w[T0_LOW] as number) >>> 0);
    }
    noteIoAccess(cpu, port, bytes);
    const repeats = i.repeat === 0 ? 0 : IoPart.Repeat;
    const parts = IoPart.String | repeats | (isInput ? IoPart.Input : 0);
    noteIoInstruction(cpu, i, port, bytes, parts, linearLow, linearHigh);
    (isInput ? advanceDestination : advanceSource)(cpu, i, stringStep(cpu, bytes));
    if (i.repeat === 0) return Next.Lookup;
    countDown(cpu, i);
    return offsetOf(cpu, i, RCX) === 0n ? Next.Lookup : Next.Again;
  };
}

const forWords = (execute: Execute): SizedExecute => ({ 16: execute, 32: execute, 64: execute });

export const IO_ROWS: readonly OpcodeRow[] = [
  {
    opcode: 'E4',
    mnemonic: 'IN',
    operands: 'AL Ib',
    execute: input(true, fromImmediate),
    ends: true,
    begins: true,
  },
  {
    opcode: 'E5',
    mnemonic: 'IN',
    operands: 'eAX Ib',
    execute: forWords(input(false, fromImmediate)),
    ends: true,
    begins: true,
  },
  { opcode: 'EC', mnemonic: 'IN', operands: 'AL DX', execute: input(true, fromDx), ends: true, begins: true },
  {
    opcode: 'ED',
    mnemonic: 'IN',
    operands: 'eAX DX',
    execute: forWords(input(false, fromDx)),
    ends: true,
    begins: true,
  },
  {
    opcode: 'E6',
    mnemonic: 'OUT',
    operands: 'Ib AL',
    execute: output(true, fromImmediate),
    ends: true,
    begins: true,
  },
  {
    opcode: 'E7',
    mnemonic: 'OUT',
    operands: 'Ib eAX',
    execute: forWords(output(false, fromImmediate)),
    ends: true,
    begins: true,
  },
  {
    opcode: 'EE',
    mnemonic: 'OUT',
    operands: 'DX AL',
    execute: output(true, fromDx),
    ends: true,
    begins: true,
  },
  {
    opcode: 'EF',
    mnemonic: 'OUT',
    operands: 'DX eAX',
    execute: output(false, fromDx),
    ends: true,
    begins: true,
  },
  {
    opcode: '6C',
    mnemonic: 'INSB',
    operands: 'Yb DX',
    execute: stringIo(true, true),
    repeat: 'rep',
    ends: true,
    begins: true,
  },
  {
    opcode: '6D',
    mnemonic: 'INSW/INSD',
    operands: 'Yz DX',
    execute: stringIo(false, true),
    repeat: 'rep',
    ends: true,
    begins: true,
  },
  {
    opcode: '6E',
    mnemonic: 'OUTSB',
    operands: 'DX Xb',
    execute: stringIo(true, false),
    repeat: 'rep',
    ends: true,
    begins: true,
  },
  {
    opcode: '6F',
    mnemonic: 'OUTSW/OUTSD',
    operands: 'DX Xz',
    execute: stringIo(false, false),
    repeat: 'rep',
    ends: true,
    begins: true,
  },
];
