/** Interrupts allowed, not allowed, and waited for (SDM vol. 2: CLI, STI, HLT). */
import { Attention } from '../attention.ts';
import { raiseWithCode, Vector } from '../exceptions.ts';
import { materialise } from '../flags.ts';
import { type Execute, Next } from '../instruction.ts';
import { Intercept, intercepted } from '../intercept.ts';
import { Mode } from '../mode.ts';
import type { OpcodeRow } from '../opcode-row.ts';
import type { Processor } from '../processor.ts';
import { CR4, Register, RFLAGS } from '../registers.ts';
import { writeFlags } from '../rflags.ts';

const CR4_LOW = 2 * Register.CR4;
const BLOCKING_BY_STI = 2 * Register.blockingBySti;
const ACTIVITY = 2 * Register.activityState;
const HLT_STATE = 1;
const IF = 1 << RFLAGS.IF;
const VIF = 1 << RFLAGS.VIF;
const VIP = 1 << RFLAGS.VIP;

/** The flag that CLI and STI are about: IF, VIF, or 0 if neither may be changed (#GP). */
function interruptFlag(cpu: Processor): number {
  const iopl = (materialise(cpu) >> RFLAGS.IOPL) & 3;
  if (cpu.cpl <= iopl || cpu.mode === Mode.Real) return IF;
  const cr4 = cpu.i32[CR4_LOW] as number;
  if (cpu.mode === Mode.Virtual8086) return (cr4 & (1 << CR4.VME)) !== 0 ? VIF : 0;
  return cpu.cpl === 3 && (cr4 & (1 << CR4.PVI)) !== 0 ? VIF : 0;
}

const cli: Execute = (cpu) => {
  const flag = interruptFlag(cpu);
  if (flag === 0) return raiseWithCode(cpu, Vector.GP, 0);
  writeFlags(cpu, flag, 0);
  return Next.Sequential;
};

/** If IF was 0, interrupts are held back until after the next instruction. */
const sti: Execute = (cpu) => {
  const flag = interruptFlag(cpu);
  const flags = materialise(cpu);
  if (flag === 0 || (flag === VIF && (flags & VIP) !== 0)) return raiseWithCode(cpu, Vector.GP, 0);
  writeFlags(cpu, flag, flag);
  if (flag === IF && (flags & IF) === 0) {
    cpu.i32[BLOCKING_BY_STI] = 1;
    cpu.stateChanged();
    cpu.requestAttention(Attention.Blocking);
    return Next.Lookup;
  }
  return Next.Sequential;
};

const hlt: Execute = (cpu, i) => {
  if (cpu.cpl !== 0) return raiseWithCode(cpu, Vector.GP, 0);
  if (intercepted(cpu, i, Intercept.HLT)) return Next.VmExit;
  cpu.i32[ACTIVITY] = HLT_STATE;
  cpu.stateChanged();
  cpu.requestAttention(Attention.Inactive);
  return Next.Lookup;
};

export const INTERRUPT_FLAG_ROWS: readonly OpcodeRow[] = [
  { opcode: 'FA', mnemonic: 'CLI', operands: '', execute: cli },
  { opcode: 'FB', mnemonic: 'STI', operands: '', execute: sti },
  { opcode: 'F4', mnemonic: 'HLT', operands: '', execute: hlt, ends: true },
];
