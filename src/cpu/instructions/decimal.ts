/**
 * Decimal adjustment (SDM vol. 2: DAA, DAS, AAA, AAS, AAM, AAD). Flags that the manual leaves
 * undefined: OF is 0; after AAM and AAD so are CF and AF; after AAA and AAS the others are those of AL.
 */
import { raise, Vector } from '../exceptions.ts';
import { carriesOf, materialise, setFlags } from '../flags.ts';
import { type Execute, Next } from '../instruction.ts';
import type { OpcodeRow } from '../opcode-row.ts';
import type { Processor } from '../processor.ts';
import { Register } from '../registers.ts';

const AL = 8 * Register.RAX;
const AH = AL + 1;
const AX = 4 * Register.RAX;
const CF = 1;
const AF = 0x10;

function finish(cpu: Processor, carry: boolean, auxiliary: boolean): Next {
  const result = ((cpu.u8[AL] as number) << 24) >> 24;
  setFlags(cpu, result, result, carriesOf(carry ? 1 : 0, 0, auxiliary ? 1 : 0));
  return Next.Sequential;
}

/** DAA (`sign` 1) and DAS (−1): both digits of AL. */
function adjustPacked(sign: 1 | -1): Execute {
  return (cpu) => {
    const flags = materialise(cpu);
    const old = cpu.u8[AL] as number;
    const carried = (flags & CF) !== 0;
    let carry = false;
    const auxiliary = (old & 15) > 9 || (flags & AF) !== 0;
    if (auxiliary) {
      const adjusted = old + 6 * sign;
      cpu.u8[AL] = adjusted;
      carry = carried || adjusted > 0xff || adjusted < 0;
    }
    if (old > 0x99 || carried) {
      cpu.u8[AL] = (cpu.u8[AL] as number) + 0x60 * sign;
      carry = true;
    } else if (sign === 1) carry = false;
    return finish(cpu, carry, auxiliary);
  };
}

/** AAA and AAS: the digit in AL, with the carry into AH. */
function adjustUnpacked(sign: 1 | -1): Execute {
  return (cpu) => {
    const adjusts = ((cpu.u8[AL] as number) & 15) > 9 || (materialise(cpu) & AF) !== 0;
    if (adjusts) cpu.u16[AX] = (cpu.u16[AX] as number) + 0x106 * sign;
    cpu.u8[AL] = (cpu.u8[AL] as number) & 15;
    return finish(cpu, adjusts, adjusts);
  };
}

const aam: Execute = (cpu, i) => {
  const base = i.immediate & 0xff;
  if (base === 0) return raise(cpu, Vector.DE);
  const value = cpu.u8[AL] as number;
  cpu.u8[AH] = Math.floor(value / base);
  cpu.u8[AL] = value % base;
  return finish(cpu, false, false);
};

const aad: Execute = (cpu, i) => {
  cpu.u16[AX] = ((cpu.u8[AL] as number) + (cpu.u8[AH] as number) * (i.immediate & 0xff)) & 0xff;
  return finish(cpu, false, false);
};

/** SALC, which no manual describes and processors have: AL := FFH if CF is 1, or 0. */
const salc: Execute = (cpu) => {
  cpu.u8[AL] = (materialise(cpu) & CF) !== 0 ? 0xff : 0;
  return Next.Sequential;
};

export const DECIMAL_ROWS: readonly OpcodeRow[] = [
  { opcode: '27', mnemonic: 'DAA', operands: '', execute: adjustPacked(1), mode: 'no64' },
  { opcode: '2F', mnemonic: 'DAS', operands: '', execute: adjustPacked(-1), mode: 'no64' },
  { opcode: '37', mnemonic: 'AAA', operands: '', execute: adjustUnpacked(1), mode: 'no64' },
  { opcode: '3F', mnemonic: 'AAS', operands: '', execute: adjustUnpacked(-1), mode: 'no64' },
  { opcode: 'D4', mnemonic: 'AAM', operands: 'Ib', execute: aam, mode: 'no64' },
  { opcode: 'D5', mnemonic: 'AAD', operands: 'Ib', execute: aad, mode: 'no64' },
  { opcode: 'D6', mnemonic: 'SALC', operands: '', execute: salc, mode: 'no64' },
];
