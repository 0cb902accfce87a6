/** Random numbers (SDM vol. 2: RDRAND, RDSEED), from the seeded generator of the processor: always available. */

import { replaceFlags } from '../flags.ts';
import { type Execute, Next } from '../instruction.ts';
import { Intercept, intercepted } from '../intercept.ts';
import type { OpcodeRow, SizedExecute } from '../opcode-row.ts';
import type { Processor } from '../processor.ts';
import { ARITHMETIC_FLAGS } from '../registers.ts';

const CF = 1;

function random(intercept: Intercept, write: (cpu: Processor, at: number) => void): Execute {
  return (cpu, i) => {
    if (intercepted(cpu, i, intercept)) return Next.VmExit;
    write(cpu, i.d);
    replaceFlags(cpu, ARITHMETIC_FLAGS, CF);
    return Next.Sequential;
  };
}

function sized(intercept: Intercept): SizedExecute {
  return {
    16: random(intercept, (cpu, at) => {
      cpu.u16[at >> 1] = cpu.random.next();
    }),
    32: random(intercept, (cpu, at) => {
      cpu.i32[at >> 2] = cpu.random.next();
      cpu.i32[(at >> 2) + 1] = 0;
    }),
    64: random(intercept, (cpu, at) => {
      cpu.i32[at >> 2] = cpu.random.next();
      cpu.i32[(at >> 2) + 1] = cpu.random.next();
    }),
  };
}

export const RANDOM_ROWS: readonly OpcodeRow[] = [
  {
    opcode: 'NFx 0F C7 /6 mod=3',
    mnemonic: 'RDRAND',
    operands: 'Rv',
    execute: sized(Intercept.RDRAND),
    feature: (f) => f.rdrand,
  },
  {
    opcode: 'NFx 0F C7 /7 mod=3',
    mnemonic: 'RDSEED',
    operands: 'Rv',
    execute: sized(Intercept.RDSEED),
    feature: (f) => f.rdseed,
  },
];
