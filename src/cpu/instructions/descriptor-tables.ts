/** Descriptor-table registers (SDM vol. 2: LGDT/LIDT, SGDT, SIDT, LLDT, SLDT, LTR, STR). */
import { isCanonicalPair } from '../addressing.ts';
import { Descriptor, fetchDescriptor, isNull, markBusy, SystemType } from '../descriptor.ts';
import { raise, raiseForSelector, raiseWithCode, Vector } from '../exceptions.ts';
import { type Execute, type Instruction, Next } from '../instruction.ts';
import { Intercept, intercepted } from '../intercept.ts';
import { load, store } from '../memory-access.ts';
import { Mode } from '../mode.ts';
import type { OpcodeRow } from '../opcode-row.ts';
import { MEMORY_OPERAND, operandAddress } from '../operand-forms.ts';
import type { Processor } from '../processor.ts';
import { CR4, Register } from '../registers.ts';
import { hasRealSegments, SystemSegment, selectorOf, setNullSegment, setSegment } from '../segment-load.ts';
import { Access } from '../tlb.ts';

const CR4_LOW = 2 * Register.CR4;
const T0 = MEMORY_OPERAND;
const GDTR = Register['GDTR.base'];
const IDTR = Register['IDTR.base'];

const descriptor = new Descriptor();

/** CR4.UMIP keeps what tells of descriptor tables from less privileged software. */
function isPreventedByUmip(cpu: Processor): boolean {
  return cpu.cpl > 0 && ((cpu.i32[CR4_LOW] as number) & (1 << CR4.UMIP)) !== 0;
}

/** Bases are tested against the widest linear address of the processor, whatever CR4.LA57 says. */
function isTableBase(cpu: Processor, high: number): boolean {
  const sign = high >> (cpu.features.linearAddressBits - 33);
  return sign === 0 || sign === -1;
}

/** LGDT and LIDT; `register` is the slot of the base, the limit follows it. */
function loadTable(register: number): Execute {
  return (cpu, i) => {
    if (cpu.cpl > 0) return raiseWithCode(cpu, Vector.GP, 0);
    if (intercepted(cpu, i, Intercept.GDTR_IDTR)) return Next.VmExit;
    const bytes = i.operandBits === 64 ? 10 : 6;
    if (!operandAddress(cpu, i, bytes, Access.Read) || !load(cpu, T0, bytes)) return Next.Fault;
    const limit = cpu.u16[T0 >> 1] as number;
    const halves = (n: number) => cpu.u16[(T0 >> 1) + n] as number;
    let low = halves(1) | (halves(2) << 16);
    const high = bytes === 10 ? halves(3) | (halves(4) << 16) : 0;
    if (bytes === 10 && !isTableBase(cpu, high)) return raiseWithCode(cpu, Vector.GP, 0);
    if (i.operandBits === 16) low &= 0xff_ffff;
    const w = cpu.i32;
    w[2 * register] = low;
    w[2 * register + 1] = high;
    w[2 * (register + 1)] = limit;
    w[2 * (register + 1) + 1] = 0;
    cpu.stateChanged();
    return Next.Sequential;
  };
}

/** SGDT and SIDT: outside 64-bit mode all 32 bits of the base whatever the operand size. */
function storeTable(register: number): Execute {
  return (cpu, i) => {
    if (isPreventedByUmip(cpu)) return raiseWithCode(cpu, Vector.GP, 0);
    if (intercepted(cpu, i, Intercept.GDTR_IDTR)) return Next.VmExit;
    const bytes = i.operandBits === 64 ? 10 : 6;
    if (!operandAddress(cpu, i, bytes, Access.Write)) return Next.Fault;
    cpu.u16[T0 >> 1] = cpu.i32[2 * (register + 1)] as number;
    for (let n = 0; n < 4; n++) cpu.u16[(T0 >> 1) + 1 + n] = cpu.u16[4 * register + n] as number;
    return store(cpu, T0, bytes) ? Next.Sequential : Next.Fault;
  };
}

/** Loads the selector operand of LLDT or LTR after the checks that precede it; undefined stands for `next`. */
function selectorOperand(cpu: Processor, i: Instruction): number {
  if (i.hasMemory && !(operandAddress(cpu, i, 2, Access.Read) && load(cpu, T0, 2))) return -1;
  return cpu.u16[i.d >> 1] as number;
}

function system(load: (cpu: Processor, selector: number) => Next): Execute {
  return (cpu, i) => {
    if (hasRealSegments(cpu)) return raise(cpu, Vector.UD);
    if (cpu.cpl > 0) return raiseWithCode(cpu, Vector.GP, 0);
    if (intercepted(cpu, i, Intercept.LDTR_TR)) return Next.VmExit;
    const selector = selectorOperand(cpu, i);
    return selector < 0 ? Next.Fault : load(cpu, selector);
  };
}

/** Fetches a system descriptor of the GDT: in IA-32e mode it has 16 bytes. */
function fetchSystem(cpu: Processor, selector: number): boolean {
  if ((selector & 4) !== 0) {
    raiseForSelector(cpu, Vector.GP, selector);
    return false;
  }
  return fetchDescriptor(cpu, selector, descriptor, Vector.GP, cpu.mode >= Mode.Compatibility ? 16 : 8);
}

const UPPER_TYPE = 0x1f00;

function isWellFormed(cpu: Processor): boolean {
  if (cpu.mode < Mode.Compatibility) return true;
  return (descriptor.upper & UPPER_TYPE) === 0 && isCanonicalPair(cpu, descriptor.baseHigh);
}

function lldt(cpu: Processor, selector: number): Next {
  if (isNull(selector)) {
    setNullSegment(cpu, SystemSegment.LDTR, selector);
    return Next.Sequential;
  }
  if (!fetchSystem(cpu, selector)) return Next.Fault;
  if (descriptor.systemType !== SystemType.Ldt || !isWellFormed(cpu)) {
    return raiseForSelector(cpu, Vector.GP, selector);
  }
  if (!descriptor.isPresent) return raiseForSelector(cpu, Vector.NP, selector);
  setSegment(cpu, SystemSegment.LDTR, selector, descriptor);
  return Next.Sequential;
}

function ltr(cpu: Processor, selector: number): Next {
  if (isNull(selector)) return raiseWithCode(cpu, Vector.GP, 0);
  if (!fetchSystem(cpu, selector)) return Next.Fault;
  const type = descriptor.systemType;
  const available = type === SystemType.Tss32 || (type === SystemType.Tss16 && cpu.mode < Mode.Compatibility);
  if (!available || !isWellFormed(cpu)) return raiseForSelector(cpu, Vector.GP, selector);
  if (!descriptor.isPresent) return raiseForSelector(cpu, Vector.NP, selector);
  if (!markBusy(cpu, descriptor, true)) return Next.Fault;
  setSegment(cpu, SystemSegment.TR, selector, descriptor);
  return Next.Sequential;
}

/** SLDT and STR: to a register the selector is zero-extended to the operand size. */
function storeSelector(segment: number): Execute {
  return (cpu, i) => {
    if (hasRealSegments(cpu)) return raise(cpu, Vector.UD);
    if (isPreventedByUmip(cpu)) return raiseWithCode(cpu, Vector.GP, 0);
    if (intercepted(cpu, i, Intercept.LDTR_TR)) return Next.VmExit;
    if (i.hasMemory || i.operandBits === 16) cpu.u16[i.d >> 1] = selectorOf(cpu, segment);
    else {
      cpu.i32[i.d >> 2] = selectorOf(cpu, segment);
      cpu.i32[(i.d >> 2) + 1] = 0;
    }
    return Next.Sequential;
  };
}

const sldt = storeSelector(SystemSegment.LDTR);
const str = storeSelector(SystemSegment.TR);

export const DESCRIPTOR_TABLE_ROWS: readonly OpcodeRow[] = [
  { opcode: '0F 00 /0 mod=3', mnemonic: 'SLDT', operands: 'Ev', execute: sldt },
  { opcode: '0F 00 /0 mod!=3', mnemonic: 'SLDT', operands: 'Ew=', execute: sldt },
  { opcode: '0F 00 /1 mod=3', mnemonic: 'STR', operands: 'Ev', execute: str },
  { opcode: '0F 00 /1 mod!=3', mnemonic: 'STR', operands: 'Ew=', execute: str },
  { opcode: '0F 00 /2', mnemonic: 'LLDT', operands: 'Ew!', execute: system(lldt) },
  { opcode: '0F 00 /3', mnemonic: 'LTR', operands: 'Ew!', execute: system(ltr) },
  { opcode: '0F 01 /0 mod!=3', mnemonic: 'SGDT', operands: 'Ms!', execute: storeTable(GDTR), size: 'f64' },
  { opcode: '0F 01 /1 mod!=3', mnemonic: 'SIDT', operands: 'Ms!', execute: storeTable(IDTR), size: 'f64' },
  { opcode: '0F 01 /2 mod!=3', mnemonic: 'LGDT', operands: 'Ms!', execute: loadTable(GDTR), size: 'f64' },
  { opcode: '0F 01 /3 mod!=3', mnemonic: 'LIDT', operands: 'Ms!', execute: loadTable(IDTR), size: 'f64' },
];
