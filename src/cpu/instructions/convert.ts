/** Sign extension of the accumulator (SDM vol. 2: CBW/CWDE/CDQE, CWD/CDQ/CQO). */
import { Next } from '../instruction.ts';
import type { OpcodeRow, SizedExecute } from '../opcode-row.ts';
import { write32, write64 } from '../operand-values.ts';
import { Register } from '../registers.ts';

const RAX = 8 * Register.RAX;
const RDX = 8 * Register.RDX;
const EAX = 2 * Register.RAX;
const AX = 4 * Register.RAX;
const DX = 4 * Register.RDX;

const withinAccumulator: SizedExecute = {
  16: (cpu) => {
    cpu.u16[AX] = ((cpu.u8[RAX] as number) << 24) >> 24;
    return Next.Sequential;
  },
  32: (cpu) => write32(cpu, RAX, ((cpu.u16[AX] as number) << 16) >> 16),
  64: (cpu) => write64(cpu, RAX, cpu.i32[EAX] as number, (cpu.i32[EAX] as number) >> 31),
};

const intoData: SizedExecute = {
  16: (cpu) => {
    cpu.u16[DX] = ((cpu.u16[AX] as number) << 16) >> 31;
    return Next.Sequential;
  },
  32: (cpu) => write32(cpu, RDX, (cpu.i32[EAX] as number) >> 31),
  64: (cpu) => {
    const sign = (cpu.i32[EAX + 1] as number) >> 31;
    return write64(cpu, RDX, sign, sign);
  },
};

export const CONVERT_ROWS: readonly OpcodeRow[] = [
  { opcode: '98', mnemonic: 'CBW/CWDE/CDQE', operands: '', execute: withinAccumulator },
  { opcode: '99', mnemonic: 'CWD/CDQ/CQO', operands: '', execute: intoData },
];
