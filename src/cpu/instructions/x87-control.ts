/**
 * x87 control (SDM vol. 2: FNINIT, FNCLEX, FLDCW, FNSTCW, FNSTSW, FLDENV, FNSTENV, FRSTOR, FNSAVE, FFREE,
 * FINCSTP, FDECSTP, FNOP, FWAIT; environments: vol. 1 §8.1.10).
 */
import { waitReady, x87Available, x87Ready } from '../float-availability.ts';
import { image, loadImage, storeImage } from '../float-state-image.ts';
import { type Execute, type Instruction, Next } from '../instruction.ts';
import { probeStore } from '../memory-access.ts';
import { Mode } from '../mode.ts';
import type { OpcodeRow } from '../opcode-row.ts';
import { operandAddress } from '../operand-forms.ts';
import type { Processor } from '../processor.ts';
import { Register } from '../registers.ts';
import { Access } from '../tlb.ts';
import {
  C1,
  controlWord,
  initialise,
  setControlWord,
  setEmpty,
  setStatusWord,
  setTagWord,
  setTop,
  stackAt,
  statusWord,
  tagWord,
  top,
} from '../x87-state.ts';

const FIP = 2 * Register.FIP;
const FDP = 2 * Register.FDP;
const FOP = 2 * Register.FOP;
const FOP_BITS = 0x7ff;
const ALL_MASKS = 0x3f;
const REGISTER_BYTES = 10;
/** Exception flags, SF, ES and B. */
const CLEARED_BY_FNCLEX = 0x80ff;

const fninit: Execute = (cpu) => {
  initialise(cpu);
  return Next.Sequential;
};

const fnclex: Execute = (cpu) => {
  setStatusWord(cpu, statusWord(cpu) & ~CLEARED_BY_FNCLEX);
  return Next.Sequential;
};

const fldcw: Execute = (cpu, i) => {
  setControlWord(cpu, cpu.u16[i.d >> 1] as number);
  return Next.Sequential;
};

const fnstcw: Execute = (cpu, i) => {
  cpu.u16[i.d >> 1] = controlWord(cpu);
  return Next.Sequential;
};

const fnstsw: Execute = (cpu, i) => {
  cpu.u16[i.d >> 1] = statusWord(cpu);
  return Next.Sequential;
};

const nothing: Execute = () => Next.Sequential;

const ffree: Execute = (cpu, i) => {
  setEmpty(cpu, i.rm & 7, true);
  return Next.Sequential;
};

function turn(step: 1 | -1): Execute {
  return (cpu) => {
    setTop(cpu, top(cpu) + step);
    cpu.i32[2 * Register.FSW] = statusWord(cpu) & ~C1;
    return Next.Sequential;
  };
}

/** Environments have words of 16 or 32 bits, and pointers as in real-address mode or as in protected mode. */
const isReal = (cpu: Processor) => cpu.mode === Mode.Real || cpu.mode === Mode.Virtual8086;
const environmentBytes = (i: Instruction) => (i.operandBits === 16 ? 14 : 28);

/** Puts word `n` of the environment into the image. The upper half of a word of 32 bits with 16 bits of content is all ones. */
function putWord(i: Instruction, n: number, value: number, upper = 0xffff): void {
  if (i.operandBits === 16) image.setUint16(2 * n, value, true);
  else image.setUint32(4 * n, ((value & 0xffff) | (upper << 16)) >>> 0, true);
}

function putEnvironment(cpu: Processor, i: Instruction): void {
  const w = cpu.i32;
  const fip = w[FIP] as number;
  const fdp = w[FDP] as number;
  const fop = (w[FOP] as number) & FOP_BITS;
  putWord(i, 0, controlWord(cpu));
  putWord(i, 1, statusWord(cpu));
  putWord(i, 2, tagWord(cpu));
  if (!isReal(cpu)) {
    putWord(i, 3, fip, fip >>> 16);
    putWord(i, 4, 0, fop);
    putWord(i, 5, fdp, fdp >>> 16);
    putWord(i, 6, 0);
  } else if (i.operandBits === 16) {
    putWord(i, 3, fip);
    putWord(i, 4, ((fip >>> 4) & 0xf000) | fop);
    putWord(i, 5, fdp);
    putWord(i, 6, (fdp >>> 4) & 0xf000);
  } else {
    putWord(i, 3, fip);
    image.setUint32(16, (((fip >>> 16) << 12) | fop) >>> 0, true);
    putWord(i, 5, fdp);
    image.setUint32(24, ((fdp >>> 16) << 12) >>> 0, true);
  }
}

function takeEnvironment(cpu: Processor, i: Instruction): void {
  const w = cpu.i32;
  const wide = i.operandBits !== 16;
  const word = (n: number) => (wide ? image.getInt32(4 * n, true) : image.getUint16(2 * n, true));
  setControlWord(cpu, word(0) & 0xffff);
  setStatusWord(cpu, word(1) & 0xffff);
  setTagWord(cpu, word(2) & 0xffff);
  if (isReal(cpu)) {
    const low = wide ? 0xffff : -1;
    const [shift, mask] = wide ? [4, 0xffff_0000] : [4, 0xf_0000];
    w[FIP] = (word(3) & low) | ((word(4) << shift) & mask);
    w[FOP] = word(4) & FOP_BITS;
    w[FDP] = (word(5) & low) | ((word(6) << shift) & mask);
  } else {
    w[FIP] = word(3);
    w[FOP] = wide ? (word(4) >>> 16) & FOP_BITS : 0;
    w[FDP] = word(5);
  }
  w[FIP + 1] = 0;
  w[FDP + 1] = 0;
}

const fnstenv: Execute = (cpu, i) => {
  const bytes = environmentBytes(i);
  if (!operandAddress(cpu, i, bytes, Access.Write) || !probeStore(cpu, bytes)) return Next.Fault;
  putEnvironment(cpu, i);
  storeImage(cpu, 0, bytes);
  setControlWord(cpu, controlWord(cpu) | ALL_MASKS);
  return Next.Sequential;
};

const fldenv: Execute = (cpu, i) => {
  const bytes = environmentBytes(i);
  if (!operandAddress(cpu, i, bytes, Access.Read) || !loadImage(cpu, 0, bytes)) return Next.Fault;
  takeEnvironment(cpu, i);
  return Next.Sequential;
};

const fnsave: Execute = (cpu, i) => {
  const start = environmentBytes(i);
  const bytes = start + 8 * REGISTER_BYTES;
  if (!operandAddress(cpu, i, bytes, Access.Write) || !probeStore(cpu, bytes)) return Next.Fault;
  putEnvironment(cpu, i);
  for (let n = 0; n < 8; n++) {
    const from = stackAt(cpu, n);
    for (let byte = 0; byte < REGISTER_BYTES; byte++)
      image.setUint8(start + REGISTER_BYTES * n + byte, cpu.u8[from + byte] as number);
  }
  storeImage(cpu, 0, bytes);
  initialise(cpu);
  return Next.Sequential;
};

const frstor: Execute = (cpu, i) => {
  const start = environmentBytes(i);
  const bytes = start + 8 * REGISTER_BYTES;
  if (!operandAddress(cpu, i, bytes, Access.Read) || !loadImage(cpu, 0, bytes)) return Next.Fault;
  takeEnvironment(cpu, i);
  for (let n = 0; n < 8; n++) {
    const to = stackAt(cpu, n);
    for (let byte = 0; byte < REGISTER_BYTES; byte++)
      cpu.u8[to + byte] = image.getUint8(start + REGISTER_BYTES * n + byte);
  }
  return Next.Sequential;
};

const row = (
  opcode: string,
  mnemonic: string,
  operands: string,
  execute: Execute,
  guard: Execute = x87Available,
): OpcodeRow => ({ opcode, mnemonic, operands, execute, guard });

export const X87_CONTROL_ROWS: readonly OpcodeRow[] = [
  row('DB /4 mod=3 rm=3', 'FNINIT', '', fninit),
  row('DB /4 mod=3 rm=2', 'FNCLEX', '', fnclex),
  row('D9 /5 mod!=3', 'FLDCW', 'Mw', fldcw, x87Ready),
  row('D9 /7 mod!=3', 'FNSTCW', 'Mw=', fnstcw),
  row('DD /7 mod!=3', 'FNSTSW', 'Mw=', fnstsw),
  row('DF /4 mod=3 rm=0', 'FNSTSW', 'AX', fnstsw),
  row('D9 /4 mod!=3', 'FLDENV', 'M', fldenv, x87Ready),
  row('D9 /6 mod!=3', 'FNSTENV', 'M', fnstenv),
  row('DD /4 mod!=3', 'FRSTOR', 'M', frstor, x87Ready),
  row('DD /6 mod!=3', 'FNSAVE', 'M', fnsave),
  row('DD /0 mod=3', 'FFREE', 'STi', ffree, x87Ready),
  row('D9 /6 mod=3 rm=7', 'FINCSTP', '', turn(1), x87Ready),
  row('D9 /6 mod=3 rm=6', 'FDECSTP', '', turn(-1), x87Ready),
  row('D9 /2 mod=3 rm=0', 'FNOP', '', nothing, x87Ready),
  row('9B', 'WAIT', '', nothing, waitReady),
];
