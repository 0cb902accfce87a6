/** VMX instructions (SDM chapter 33): decoded here, executed by the VMX port. */
import type { Execute } from '../instruction.ts';
import { VmxInstruction } from '../intercept.ts';
import type { OpcodeRow } from '../opcode-row.ts';

const execute =
  (instruction: VmxInstruction): Execute =>
  (cpu, i) =>
    cpu.vmxPort.execute(cpu, instruction, i);

type Mnemonic = keyof typeof VmxInstruction;
/** VMREAD and VMWRITE hardly ever need the time, and ask for it when they do. */
const timeless = (opcode: string, mnemonic: Mnemonic, operands: string): OpcodeRow => ({
  opcode,
  mnemonic,
  operands,
  execute: execute(VmxInstruction[mnemonic]),
  size: 'f64',
});
const row = (opcode: string, mnemonic: Mnemonic, operands: string): OpcodeRow => ({
  ...timeless(opcode, mnemonic, operands),
  begins: true,
});
const ending = (opcode: string, mnemonic: Mnemonic): OpcodeRow => ({
  ...row(opcode, mnemonic, ''),
  ends: true,
});

export const VMX_ROWS: readonly OpcodeRow[] = [
  ending('NP 0F 01 /0 mod=3 rm=1', 'VMCALL'),
  ending('NP 0F 01 /0 mod=3 rm=2', 'VMLAUNCH'),
  ending('NP 0F 01 /0 mod=3 rm=3', 'VMRESUME'),
  ending('NP 0F 01 /0 mod=3 rm=4', 'VMXOFF'),
  ending('NP 0F 01 /2 mod=3 rm=4', 'VMFUNC'),
  row('NP 0F C7 /6 mod!=3', 'VMPTRLD', 'Mq!'),
  row('66 0F C7 /6 mod!=3', 'VMCLEAR', 'Mq!'),
  row('F3 0F C7 /6 mod!=3', 'VMXON', 'Mq!'),
  row('NP 0F C7 /7 mod!=3', 'VMPTRST', 'Mq!'),
  timeless('NP 0F 78', 'VMREAD', 'Ey! Gy'),
  timeless('NP 0F 79', 'VMWRITE', 'Gy Ey!'),
  row('66 0F 38 80 mod!=3', 'INVEPT', 'Gy Mdq!'),
  row('66 0F 38 81 mod!=3', 'INVVPID', 'Gy Mdq!'),
];
