/** Flags (SDM vol. 2: PUSHF, POPF, LAHF, SAHF, CLC, STC, CMC, CLD, STD). */
import { raiseWithCode, Vector } from '../exceptions.ts';
import { carryFlag, materialise, replaceFlags, setCarryFlag } from '../flags.ts';
import { type Execute, Next } from '../instruction.ts';
import { Mode } from '../mode.ts';
import type { OpcodeRow } from '../opcode-row.ts';
import type { Processor } from '../processor.ts';
import { ARITHMETIC_FLAGS, CR4, Register, RFLAGS } from '../registers.ts';
import { writeFlags } from '../rflags.ts';
import { adjustStackPointer, loadStack, push } from '../stack.ts';

const T0 = 8 * Register.T0;
const T0_WORD = 2 * Register.T0;
const RFLAGS_LOW = 2 * Register.RFLAGS;
const CR4_LOW = 2 * Register.CR4;
const AH = 1;
const bit = (position: number) => 1 << position;
const IOPL = 3 << RFLAGS.IOPL;
const DF = bit(RFLAGS.DF);
/** SF, ZF, AF, PF and CF: what LAHF and SAHF move. */
const LOW_FLAGS = ARITHMETIC_FLAGS & 0xff;
/** What POPF may always change. */
const UNPRIVILEGED = ARITHMETIC_FLAGS | DF | bit(RFLAGS.TF) | bit(RFLAGS.NT);
/** What it may change besides with an operand size of 32 or 64 bits. */
const UPPER = bit(RFLAGS.AC) | bit(RFLAGS.ID);

const ioplOf = (flags: number) => (flags >> RFLAGS.IOPL) & 3;
const usesVme = (cpu: Processor) => ((cpu.i32[CR4_LOW] as number) & bit(CR4.VME)) !== 0;

const pushf: Execute = (cpu, i) => {
  let flags = materialise(cpu) & ~(bit(RFLAGS.RF) | bit(RFLAGS.VM));
  if (cpu.mode === Mode.Virtual8086 && ioplOf(flags) < 3) {
    if (!usesVme(cpu) || i.operandBits === 32) return raiseWithCode(cpu, Vector.GP, 0);
    // VIF is pushed as IF, and an IOPL of 3.
    const virtualIf = (flags & bit(RFLAGS.VIF)) !== 0 ? bit(RFLAGS.IF) : 0;
    flags = (flags & ~bit(RFLAGS.IF)) | virtualIf | IOPL;
  }
  cpu.i32[T0_WORD] = flags;
  cpu.i32[T0_WORD + 1] = 0;
  return push(cpu, T0, i.operandBits >> 3) ? Next.Sequential : Next.Fault;
};

const popf: Execute = (cpu, i) => {
  const old = materialise(cpu);
  const iopl = ioplOf(old);
  const bytes = i.operandBits >> 3;
  const virtualised = cpu.mode === Mode.Virtual8086 && iopl < 3;
  if (virtualised && (!usesVme(cpu) || bytes === 4)) return raiseWithCode(cpu, Vector.GP, 0);
  if (!loadStack(cpu, 0, T0, bytes)) return Next.Fault;
  const popped = cpu.i32[T0_WORD] as number;
  let mask = UNPRIVILEGED;
  let value = popped;
  if (virtualised) {
    const setsIf = (popped & bit(RFLAGS.IF)) !== 0;
    if ((popped & bit(RFLAGS.TF)) !== 0 || (setsIf && (old & bit(RFLAGS.VIP)) !== 0))
      return raiseWithCode(cpu, Vector.GP, 0);
    mask |= bit(RFLAGS.VIF);
    value = setsIf ? popped | bit(RFLAGS.VIF) : popped & ~bit(RFLAGS.VIF);
  } else {
    // In virtual-8086 mode the CPL is 3, and IOPL stays.
    if (cpu.cpl <= iopl) mask |= bit(RFLAGS.IF);
    if (cpu.cpl === 0) mask |= IOPL;
    if (bytes !== 2) {
      mask |= UPPER | bit(RFLAGS.RF);
      value &= ~bit(RFLAGS.RF);
    }
  }
  adjustStackPointer(cpu, bytes);
  writeFlags(cpu, mask, value);
  return Next.Sequential;
};

const lahf: Execute = (cpu) => {
  cpu.u8[AH] = materialise(cpu) & 0xff;
  return Next.Sequential;
};

const sahf: Execute = (cpu) => {
  replaceFlags(cpu, LOW_FLAGS, cpu.u8[AH] as number);
  return Next.Sequential;
};

const clc: Execute = (cpu) => {
  setCarryFlag(cpu, 0);
  return Next.Sequential;
};

const stc: Execute = (cpu) => {
  setCarryFlag(cpu, 1);
  return Next.Sequential;
};

const cmc: Execute = (cpu) => {
  setCarryFlag(cpu, carryFlag(cpu) ^ 1);
  return Next.Sequential;
};

const cld: Execute = (cpu) => {
  cpu.i32[RFLAGS_LOW] = (cpu.i32[RFLAGS_LOW] as number) & ~DF;
  return Next.Sequential;
};

const std: Execute = (cpu) => {
  cpu.i32[RFLAGS_LOW] = (cpu.i32[RFLAGS_LOW] as number) | DF;
  return Next.Sequential;
};

export const FLAG_CONTROL_ROWS: readonly OpcodeRow[] = [
  { opcode: '9C', mnemonic: 'PUSHF/PUSHFD/PUSHFQ', operands: '', execute: pushf, size: 'd64' },
  { opcode: '9D', mnemonic: 'POPF/POPFD/POPFQ', operands: '', execute: popf, size: 'd64' },
  { opcode: '9E', mnemonic: 'SAHF', operands: '', execute: sahf },
  { opcode: '9F', mnemonic: 'LAHF', operands: '', execute: lahf },
  { opcode: 'F5', mnemonic: 'CMC', operands: '', execute: cmc },
  { opcode: 'F8', mnemonic: 'CLC', operands: '', execute: clc },
  { opcode: 'F9', mnemonic: 'STC', operands: '', execute: stc },
  { opcode: 'FC', mnemonic: 'CLD', operands: '', execute: cld },
  { opcode: 'FD', mnemonic: 'STD', operands: '', execute: std },
];
