/** Far control transfers and returns from interrupts (SDM vol. 2: JMP, CALL, RET, IRET, RSM). */
import { raise, Vector } from '../exceptions.ts';
import { farCall, farJump, farReturn } from '../far-transfer.ts';
import { type Execute, type Instruction, Next } from '../instruction.ts';
import { Intercept, intercepted } from '../intercept.ts';
import { interruptReturn } from '../interrupt-return.ts';
import { load } from '../memory-access.ts';
import type { OpcodeRow } from '../opcode-row.ts';
import { MEMORY_OPERAND, operandAddress } from '../operand-forms.ts';
import type { Processor } from '../processor.ts';
import { CR4, Register } from '../registers.ts';
import { leaveSmm } from '../smm/system-management.ts';
import { Access } from '../tlb.ts';

type Transfer = (cpu: Processor, i: Instruction, selector: number, lo: number, hi: number) => Next;

const IN_SMM = 2 * Register.inSmm;
const CR4_LOW = 2 * Register.CR4;
const VMXE = 1 << CR4.VMXE;

/** The pointer is in the instruction. */
function direct(transfer: Transfer): Execute {
  return (cpu, i) => transfer(cpu, i, i.immediate2, i.immediate, 0);
}

/** The pointer is in memory: offset, then selector. */
function indirect(transfer: Transfer): Execute {
  return (cpu, i) => {
    const bytes = i.operandBits >> 3;
    if (!operandAddress(cpu, i, bytes + 2, Access.Read) || !load(cpu, MEMORY_OPERAND, bytes + 2)) {
      return Next.Fault;
    }
    const selector = cpu.u16[(MEMORY_OPERAND + bytes) >> 1] as number;
    const word = MEMORY_OPERAND >> 2;
    if (bytes === 2) return transfer(cpu, i, selector, cpu.u16[MEMORY_OPERAND >> 1] as number, 0);
    const high = bytes === 8 ? (cpu.i32[word + 1] as number) : 0;
    return transfer(cpu, i, selector, cpu.i32[word] as number, high);
  };
}

/**
 * Outside system-management mode RSM is undefined; so it is in SMM in VMX root operation, which there is
 * under dual-monitor treatment: only then CR4.VMXE is 1 in SMM (SDM §34.14.3, §34.15.3).
 */
const rsm: Execute = (cpu, i) => {
  if (cpu.i32[IN_SMM] === 0) return raise(cpu, Vector.UD);
  if (intercepted(cpu, i, Intercept.RSM)) return Next.VmExit;
  if ((cpu.i32[CR4_LOW] as number) & VMXE) return raise(cpu, Vector.UD);
  leaveSmm(cpu);
  return Next.Settled;
};

const ends = { ends: true } as const;

export const FAR_TRANSFER_ROWS: readonly OpcodeRow[] = [
  { opcode: 'EA', mnemonic: 'JMP', operands: 'Ap', execute: direct(farJump), mode: 'no64', ...ends },
  { opcode: '9A', mnemonic: 'CALL', operands: 'Ap', execute: direct(farCall), mode: 'no64', ...ends },
  { opcode: 'FF /5 mod!=3', mnemonic: 'JMP', operands: 'Mp!', execute: indirect(farJump), ...ends },
  { opcode: 'FF /3 mod!=3', mnemonic: 'CALL', operands: 'Mp!', execute: indirect(farCall), ...ends },
  { opcode: 'CB', mnemonic: 'RETF', operands: '', execute: (cpu, i) => farReturn(cpu, i, 0), ...ends },
  {
    opcode: 'CA',
    mnemonic: 'RETF',
    operands: 'Iw',
    execute: (cpu, i) => farReturn(cpu, i, i.immediate & 0xffff),
    ...ends,
  },
  { opcode: 'CF', mnemonic: 'IRET/IRETD/IRETQ', operands: '', execute: interruptReturn, ...ends },
  { opcode: '0F AA', mnemonic: 'RSM', operands: '', execute: rsm, ...ends },
];
