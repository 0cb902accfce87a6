/** Access to user pages (SDM vol. 2: STAC, CLAC, RDPKRU, WRPKRU). */
import { raise, raiseWithCode, Vector } from '../exceptions.ts';
import { type Execute, Next } from '../instruction.ts';
import { Mode } from '../mode.ts';
import type { OpcodeRow } from '../opcode-row.ts';
import type { Processor } from '../processor.ts';
import { CR4, Register, RFLAGS } from '../registers.ts';

const RFLAGS_LOW = 2 * Register.RFLAGS;
const CR4_LOW = 2 * Register.CR4;
const AC = 1 << RFLAGS.AC;
const { RAX, RCX, RDX } = Register;
const has = (cpu: Processor, position: number) => ((cpu.i32[CR4_LOW] as number) & (1 << position)) !== 0;

function setAc(value: number): Execute {
  return (cpu) => {
    if (cpu.cpl !== 0 || cpu.mode === Mode.Virtual8086) return raise(cpu, Vector.UD);
    cpu.i32[RFLAGS_LOW] = ((cpu.i32[RFLAGS_LOW] as number) & ~AC) | value;
    cpu.updateAccessClass();
    return Next.Sequential;
  };
}

const rdpkru: Execute = (cpu) => {
  if (!has(cpu, CR4.PKE)) return raise(cpu, Vector.UD);
  if (cpu.words[2 * RCX] !== 0) return raiseWithCode(cpu, Vector.GP, 0);
  cpu.quads[RAX] = cpu.quads[Register.PKRU] as bigint;
  cpu.quads[RDX] = 0n;
  return Next.Sequential;
};

const wrpkru: Execute = (cpu) => {
  if (!has(cpu, CR4.PKE)) return raise(cpu, Vector.UD);
  if (cpu.words[2 * RCX] !== 0 || cpu.words[2 * RDX] !== 0) return raiseWithCode(cpu, Vector.GP, 0);
  cpu.quads[Register.PKRU] = BigInt(cpu.words[2 * RAX] as number);
  cpu.tlb.leaveView();
  return Next.Lookup;
};

export const PROTECTION_KEY_ROWS: readonly OpcodeRow[] = [
  {
    opcode: 'NP 0F 01 /1 mod=3 rm=2',
    mnemonic: 'CLAC',
    operands: '',
    execute: setAc(0),
    feature: (f) => (f.cr4Bits & (1n << 21n)) !== 0n,
  },
  {
    opcode: 'NP 0F 01 /1 mod=3 rm=3',
    mnemonic: 'STAC',
    operands: '',
    execute: setAc(AC),
    feature: (f) => (f.cr4Bits & (1n << 21n)) !== 0n,
  },
  { opcode: 'NP 0F 01 /5 mod=3 rm=6', mnemonic: 'RDPKRU', operands: '', execute: rdpkru },
  { opcode: 'NP 0F 01 /5 mod=3 rm=7', mnemonic: 'WRPKRU', operands: '', execute: wrpkru, ends: true },
];
