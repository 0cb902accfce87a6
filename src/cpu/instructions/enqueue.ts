/**
 * Enqueue stores (SDM vol. 2: ENQCMD, ENQCMDS). Nothing on this machine accepts one, neither memory nor a
 * device: once all its checks have passed, the store is dropped and ZF asks software to try again.
 */
import { linearise } from '../addressing.ts';
import { raiseWithCode, Vector } from '../exceptions.ts';
import { replaceFlags } from '../flags.ts';
import { image, loadImage } from '../float-state-image.ts';
import { type Execute, type Instruction, Next, Segment } from '../instruction.ts';
import { Intercept, intercepted } from '../intercept.ts';
import { probeStore } from '../memory-access.ts';
import type { OpcodeRow } from '../opcode-row.ts';
import { operandAddress } from '../operand-forms.ts';
import type { Processor } from '../processor.ts';
import { ARITHMETIC_FLAGS, Register, RFLAGS } from '../registers.ts';
import { Access } from '../tlb.ts';

const COMMAND_BYTES = 64;
const LINEAR = 2 * Register.linear;
const PASID = 2 * Register.IA32_PASID;
const PASID_BITS = 0xf_ffff;
const ZF = 1 << RFLAGS.ZF;

/** The command, of 64 bytes, into the image. */
function loadCommand(cpu: Processor, i: Instruction): boolean {
  return operandAddress(cpu, i, COMMAND_BYTES, Access.Read) && loadImage(cpu, 0, COMMAND_BYTES);
}

/** The store to the offset in ES that the first operand holds: aligned to 64 bytes, checked, and not accepted. */
function enqueue(cpu: Processor, i: Instruction): Next {
  const offset = BigInt.asUintN(i.addressBits, cpu.quads[i.d >> 3] as bigint);
  const lo = Number(BigInt.asIntN(32, offset));
  const hi = Number(BigInt.asIntN(32, offset >> 32n));
  if (!linearise(cpu, Segment.ES, lo, hi, COMMAND_BYTES, Access.Write)) return Next.Fault;
  if (((cpu.i32[LINEAR] as number) & (COMMAND_BYTES - 1)) !== 0) return raiseWithCode(cpu, Vector.GP, 0);
  if (!probeStore(cpu, COMMAND_BYTES)) return Next.Fault;
  replaceFlags(cpu, ARITHMETIC_FLAGS, ZF);
  return Next.Sequential;
}

/** The PASID is that of IA32_PASID. */
const enqcmd: Execute = (cpu, i) => {
  const pasid = cpu.i32[PASID] as number;
  // Bit 31: valid.
  if (pasid >= 0) return raiseWithCode(cpu, Vector.GP, 0);
  if (!loadCommand(cpu, i)) return Next.Fault;
  if (intercepted(cpu, i, Intercept.ENQCMD, pasid & PASID_BITS)) return Next.VmExit;
  return enqueue(cpu, i);
};

/** The PASID is that of the command. */
const enqcmds: Execute = (cpu, i) => {
  if (cpu.cpl !== 0) return raiseWithCode(cpu, Vector.GP, 0);
  if (!loadCommand(cpu, i)) return Next.Fault;
  if (intercepted(cpu, i, Intercept.ENQCMDS, image.getInt32(0, true))) return Next.VmExit;
  return enqueue(cpu, i);
};

function row(prefix: string, mnemonic: string, execute: Execute): OpcodeRow {
  return {
    opcode: `${prefix} 0F 38 F8 mod!=3`,
    mnemonic,
    operands: 'Gy M',
    execute,
    feature: (f) => f.enqcmd,
  };
}

export const ENQUEUE_ROWS: readonly OpcodeRow[] = [
  row('F2', 'ENQCMD', enqcmd),
  row('F3', 'ENQCMDS', enqcmds),
];
