/** Control and debug registers (SDM vol. 2: MOV CR, MOV DR, CLTS, LMSW, SMSW, XGETBV, XSETBV). */
import { writeCr0, writeCr3, writeCr4 } from '../control-register-writes.ts';
import { xcr0Components } from '../cpuid-leaves.ts';
import { debugRegistersChanged } from '../debug-registers.ts';
import { raise, raiseDebug, raiseWithCode, Vector } from '../exceptions.ts';
import { type Execute, type Instruction, Next } from '../instruction.ts';
import { Intercept, intercepted } from '../intercept.ts';
import { Mode } from '../mode.ts';
import type { OpcodeRow, SizedExecute } from '../opcode-row.ts';
import type { Processor } from '../processor.ts';
import { CR0, CR4, Register } from '../registers.ts';

const GP0 = (cpu: Processor): Next => raiseWithCode(cpu, Vector.GP, 0);
const CR4_LOW = 2 * Register.CR4;
const DR7_LOW = 2 * Register.DR7;
const GD = 1 << 13;
const DR6_BD = 1 << 13;
/** Bits of DR6 and DR7 that always read 1, and those that always read 0. */
const DR6_ONES = 0xffff_07f0n;
const DR7_ONES = 0x400n;
const DR7_ZEROS = 0xd000n;
const LOW_32 = 0xffff_ffffn;

/** The general-register operand of a MOV: 64 bits in 64-bit mode, otherwise 32. */
function source(cpu: Processor, i: Instruction): bigint {
  const value = cpu.quads[i.s >> 3] as bigint;
  return cpu.mode === Mode.Bit64 ? value : value & LOW_32;
}

function setGeneral(cpu: Processor, at: number, value: bigint): Next {
  cpu.quads[at >> 3] = cpu.mode === Mode.Bit64 ? value : value & LOW_32;
  return Next.Sequential;
}

const exists = (cr: number) => cr === 0 || cr === 2 || cr === 3 || cr === 4 || cr === 8;

const movFromCr: Execute = (cpu, i) => {
  const cr = i.reg;
  if (!exists(cr)) return raise(cpu, Vector.UD);
  if (cpu.cpl !== 0) return GP0(cpu);
  if (intercepted(cpu, i, Intercept.MOV_FROM_CR, cr)) return Next.VmExit;
  if (cpu.nonRoot && (cr === 0 || cr === 4)) {
    return setGeneral(cpu, i.d, cpu.vmxPort.visibleControlRegister(cr === 0 ? 'CR0' : 'CR4'));
  }
  if (cpu.nonRoot && cr === 8) {
    const tpr = cpu.vmxPort.readSpecialTpr();
    if (tpr >= 0) return setGeneral(cpu, i.d, BigInt(tpr));
  }
  return setGeneral(
    cpu,
    i.d,
    cpu.read(cr === 0 ? 'CR0' : cr === 2 ? 'CR2' : cr === 3 ? 'CR3' : cr === 4 ? 'CR4' : 'CR8'),
  );
};

const movToCr: Execute = (cpu, i) => {
  const cr = i.reg;
  if (!exists(cr)) return raise(cpu, Vector.UD);
  if (cpu.cpl !== 0) return GP0(cpu);
  if (intercepted(cpu, i, Intercept.MOV_TO_CR, cr)) return Next.VmExit;
  const value = source(cpu, i);
  let written = true;
  if (cr === 0) written = writeCr0(cpu, value);
  else if (cr === 2) cpu.quads[Register.CR2] = value;
  else if (cr === 3) written = writeCr3(cpu, value);
  else if (cr === 4) written = writeCr4(cpu, value);
  else if (value >> 4n !== 0n) return GP0(cpu);
  else if (!cpu.nonRoot || !cpu.vmxPort.writeSpecialTpr(Number(value))) cpu.write('CR8', value);
  return written ? Next.Lookup : Next.Fault;
};

const clts: Execute = (cpu, i) => {
  if (cpu.cpl !== 0) return GP0(cpu);
  if (intercepted(cpu, i, Intercept.CLTS)) return Next.VmExit;
  return writeCr0(cpu, cpu.read('CR0') & ~(1n << BigInt(CR0.TS))) ? Next.Sequential : Next.Fault;
};

/** LMSW loads CR0[3:0], but cannot clear PE. */
const lmsw: Execute = (cpu, i) => {
  if (cpu.cpl !== 0) return GP0(cpu);
  const word = cpu.u16[i.d >> 1] as number;
  if (intercepted(cpu, i, Intercept.LMSW, word)) return Next.VmExit;
  const old = cpu.read('CR0');
  const value = (old & ~0xen) | BigInt(word & 0xf) | (old & 1n);
  return writeCr0(cpu, value) ? Next.Lookup : Next.Fault;
};

/** SMSW: CR0, or as much of it as the destination holds; UMIP keeps it to CPL 0. */
function smsw(write: (cpu: Processor, at: number, value: bigint) => void): Execute {
  return (cpu, i) => {
    const umip = ((cpu.i32[CR4_LOW] as number) & (1 << CR4.UMIP)) !== 0;
    if (umip && cpu.cpl !== 0) return GP0(cpu);
    const value = cpu.nonRoot ? cpu.vmxPort.visibleControlRegister('CR0') : cpu.read('CR0');
    write(cpu, i.d, value);
    return Next.Sequential;
  };
}

const smswWord = smsw((cpu, at, value) => {
  cpu.u16[at >> 1] = Number(value & 0xffffn);
});
const smswRegister: SizedExecute = {
  16: smswWord,
  32: smsw((cpu, at, value) => {
    cpu.quads[at >> 3] = value & LOW_32;
  }),
  64: smsw((cpu, at, value) => {
    cpu.quads[at >> 3] = value;
  }),
};

/** DR4 and DR5 are DR6 and DR7 unless CR4.DE. */
const aliased = (dr: number) => (dr === 4 || dr === 5 ? dr + 2 : dr);

/** The checks both directions share; the exit comes first (SDM §28.1.3). */
function debugRegisterFault(cpu: Processor, i: Instruction, isRead: boolean): Next {
  const dr = i.reg;
  if (dr > 7) return raise(cpu, Vector.UD);
  if (intercepted(cpu, i, Intercept.MOV_DR, dr, isRead ? 1 : 0)) return Next.VmExit;
  if ((dr === 4 || dr === 5) && ((cpu.i32[CR4_LOW] as number) & (1 << CR4.DE)) !== 0)
    return raise(cpu, Vector.UD);
  if (cpu.cpl !== 0) return GP0(cpu);
  if (((cpu.i32[DR7_LOW] as number) & GD) !== 0) return raiseDebug(cpu, DR6_BD);
  return Next.Sequential;
}

const DEBUG_REGISTERS = ['DR0', 'DR1', 'DR2', 'DR3', 'DR6', 'DR7', 'DR6', 'DR7'] as const;

const movFromDr: Execute = (cpu, i) => {
  const ended = debugRegisterFault(cpu, i, true);
  if (ended !== Next.Sequential) return ended;
  return setGeneral(cpu, i.d, cpu.read(DEBUG_REGISTERS[i.reg] as (typeof DEBUG_REGISTERS)[number]));
};

const movToDr: Execute = (cpu, i) => {
  const ended = debugRegisterFault(cpu, i, false);
  if (ended !== Next.Sequential) return ended;
  const value = source(cpu, i);
  const dr = aliased(i.reg);
  if (dr >= 6 && value > LOW_32) return GP0(cpu);
  const slot = Register[DEBUG_REGISTERS[dr] as (typeof DEBUG_REGISTERS)[number]];
  if (dr === 6) cpu.quads[slot] = dr6Written(cpu, value);
  else if (dr === 7) cpu.quads[slot] = (value & ~DR7_ZEROS) | DR7_ONES;
  else cpu.quads[slot] = value;
  debugRegistersChanged(cpu);
  return Next.Lookup;
};

/** DR6[12] is 0; DR6[11] and DR6[16] can be cleared only where bus-lock detection and RTM exist. */
function dr6Written(cpu: Processor, value: bigint): bigint {
  const busLock = cpu.features.busLockDetection ? 0n : 1n << 11n;
  const rtm = cpu.features.rtm ? 0n : 1n << 16n;
  return (value & 0x1_e80fn) | (DR6_ONES & ~(1n << 16n)) | busLock | rtm;
}

const hasOsxsave = (cpu: Processor) => ((cpu.i32[CR4_LOW] as number) & (1 << CR4.OSXSAVE)) !== 0;

const xgetbv: Execute = (cpu) => {
  if (!hasOsxsave(cpu)) return raise(cpu, Vector.UD);
  const index = cpu.words[2 * Register.RCX] as number;
  // XGETBV(1): the components that are in use; this processor tracks none, so that all count as in use.
  if (index > 1) return GP0(cpu);
  const value = cpu.read('XCR0');
  cpu.quads[Register.RAX] = value & LOW_32;
  cpu.quads[Register.RDX] = value >> 32n;
  return Next.Sequential;
};

const xsetbv: Execute = (cpu, i) => {
  if (!hasOsxsave(cpu)) return raise(cpu, Vector.UD);
  if (cpu.cpl !== 0) return GP0(cpu);
  if (intercepted(cpu, i, Intercept.XSETBV)) return Next.VmExit;
  const low = (cpu.quads[Register.RAX] as bigint) & LOW_32;
  const value = (((cpu.quads[Register.RDX] as bigint) & LOW_32) << 32n) | low;
  const reserved = value & ~BigInt(xcr0Components(cpu.features));
  if (cpu.words[2 * Register.RCX] !== 0 || (value & 1n) === 0n || reserved !== 0n) return GP0(cpu);
  cpu.quads[Register.XCR0] = value;
  return Next.Sequential;
};

export const CONTROL_REGISTER_ROWS: readonly OpcodeRow[] = [
  { opcode: '0F 20', mnemonic: 'MOV', operands: 'Ry Cy', execute: movFromCr, size: 'f64' },
  { opcode: '0F 22', mnemonic: 'MOV', operands: 'Cy Ry', execute: movToCr, size: 'f64', ends: true },
  { opcode: '0F 21', mnemonic: 'MOV', operands: 'Ry Dy', execute: movFromDr, size: 'f64' },
  { opcode: '0F 23', mnemonic: 'MOV', operands: 'Dy Ry', execute: movToDr, size: 'f64', ends: true },
  { opcode: '0F 06', mnemonic: 'CLTS', operands: '', execute: clts, ends: true },
  { opcode: '0F 01 /6', mnemonic: 'LMSW', operands: 'Ew', execute: lmsw, ends: true },
  { opcode: '0F 01 /4 mod=3', mnemonic: 'SMSW', operands: 'Rv', execute: smswRegister },
  { opcode: '0F 01 /4 mod!=3', mnemonic: 'SMSW', operands: 'Ew=', execute: smswWord },
  { opcode: 'NP 0F 01 /2 mod=3 rm=0', mnemonic: 'XGETBV', operands: '', execute: xgetbv },
  { opcode: 'NP 0F 01 /2 mod=3 rm=1', mnemonic: 'XSETBV', operands: '', execute: xsetbv, ends: true },
];
