/** What software may ask of descriptors (SDM vol. 2: LAR, LSL, VERR/VERW). */
import { Descriptor, Found, isNull, lookUp, Rights, SystemType } from '../descriptor.ts';
import { raise, Vector } from '../exceptions.ts';
import { replaceFlags } from '../flags.ts';
import { type Execute, type Instruction, Next } from '../instruction.ts';
import { load } from '../memory-access.ts';
import { Mode } from '../mode.ts';
import type { OpcodeRow } from '../opcode-row.ts';
import { MEMORY_OPERAND, operandAddress } from '../operand-forms.ts';
import type { Processor } from '../processor.ts';
import { RFLAGS } from '../registers.ts';
import { hasRealSegments } from '../segment-load.ts';
import { Access } from '../tlb.ts';

const ZF = 1 << RFLAGS.ZF;

const descriptor = new Descriptor();

const set = (...types: number[]) => types.reduce((mask, type) => mask | (1 << type), 0);
const { Tss16, Ldt, BusyTss16, CallGate16, TaskGate, Tss32, BusyTss32, CallGate32 } = SystemType;
/** System types that LAR and LSL accept outside and in IA-32e mode. */
const LAR_TYPES = [
  set(Tss16, Ldt, BusyTss16, CallGate16, TaskGate, Tss32, BusyTss32, CallGate32),
  set(Ldt, Tss32, BusyTss32, CallGate32),
] as const;
const LSL_TYPES = [set(Tss16, Ldt, BusyTss16, Tss32, BusyTss32), set(Ldt, Tss32, BusyTss32)] as const;

/** The selector operand, of which `at` is the offset; −1 after a fault. */
function selectorOperand(cpu: Processor, i: Instruction, at: number): number {
  if (i.hasMemory && !(operandAddress(cpu, i, 2, Access.Read) && load(cpu, MEMORY_OPERAND, 2))) return -1;
  return cpu.u16[at >> 1] as number;
}

function finish(cpu: Processor, holds: boolean): Next {
  replaceFlags(cpu, ZF, holds ? ZF : 0);
  return Next.Sequential;
}

/** Whether CPL and RPL allow to see the descriptor; conforming code is visible to all. */
function isVisible(cpu: Processor, selector: number): boolean {
  if (descriptor.isCode && descriptor.isConforming) return true;
  return Math.max(cpu.cpl, selector & 3) <= descriptor.dpl;
}

/** LAR and LSL: if the descriptor is visible and of an accepted type, the result to the destination. */
function query(types: readonly [number, number], result: () => number): Execute {
  return (cpu, i) => {
    if (hasRealSegments(cpu)) return raise(cpu, Vector.UD);
    const selector = selectorOperand(cpu, i, i.s);
    if (selector < 0) return Next.Fault;
    if (isNull(selector)) return finish(cpu, false);
    const found = lookUp(cpu, selector, descriptor);
    if (found === Found.Fault) return Next.Fault;
    if (found === Found.OutsideTable) return finish(cpu, false);
    const accepted = types[cpu.mode >= Mode.Compatibility ? 1 : 0] as number;
    const typed = descriptor.isSegment || ((accepted >> descriptor.systemType) & 1) !== 0;
    if (!typed || !isVisible(cpu, selector)) return finish(cpu, false);
    if (i.operandBits === 16) cpu.u16[i.d >> 1] = result();
    else {
      cpu.i32[i.d >> 2] = result();
      cpu.i32[(i.d >> 2) + 1] = 0;
    }
    return finish(cpu, true);
  };
}

const lar = query(LAR_TYPES, () => descriptor.rights << 8);
const lsl = query(LSL_TYPES, () => descriptor.limit);

/** VERR and VERW: whether the segment is visible, and `allows` what is asked. */
function verify(allows: () => boolean): Execute {
  return (cpu, i) => {
    if (hasRealSegments(cpu)) return raise(cpu, Vector.UD);
    const selector = selectorOperand(cpu, i, i.d);
    if (selector < 0) return Next.Fault;
    if (isNull(selector)) return finish(cpu, false);
    const found = lookUp(cpu, selector, descriptor);
    if (found === Found.Fault) return Next.Fault;
    const holds = found === Found.Yes && descriptor.isSegment && isVisible(cpu, selector) && allows();
    return finish(cpu, holds);
  };
}

const verr = verify(() => !descriptor.isCode || (descriptor.rights & Rights.WritableOrReadable) !== 0);
const verw = verify(() => descriptor.isWritableData);

export const PROTECTION_ROWS: readonly OpcodeRow[] = [
  { opcode: '0F 00 /4', mnemonic: 'VERR', operands: 'Ew!', execute: verr },
  { opcode: '0F 00 /5', mnemonic: 'VERW', operands: 'Ew!', execute: verw },
  { opcode: '0F 02', mnemonic: 'LAR', operands: 'Gv Ew!', execute: lar },
  { opcode: '0F 03', mnemonic: 'LSL', operands: 'Gv Ew!', execute: lsl },
];
