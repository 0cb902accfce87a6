/** Model-specific registers and time (SDM vol. 2: RDMSR, WRMSR, WRMSRNS, RDTSC, RDTSCP, RDPID, RDPMC). */
import { raise, raiseWithCode, Vector } from '../exceptions.ts';
import { type Execute, Next } from '../instruction.ts';
import { Enabling, Intercept, intercepted, isEnabled } from '../intercept.ts';
import { Mode } from '../mode.ts';
import { IA32_EFER_INDEX } from '../msrs.ts';
import type { OpcodeRow } from '../opcode-row.ts';
import { invalidateEverything } from '../paging.ts';
import { readCounter } from '../performance-counters.ts';
import type { Processor } from '../processor.ts';
import { CR4, Register } from '../registers.ts';
import { timeStampCounter } from '../time.ts';

const { RAX, RCX, RDX } = Register;
const CR4_LOW = 2 * Register.CR4;
const LOW_32 = 0xffff_ffffn;
const GP0 = (cpu: Processor): Next => raiseWithCode(cpu, Vector.GP, 0);

/** EDX:EAX := `value`; the upper halves of RAX and RDX become 0. */
function setPair(cpu: Processor, value: bigint): Next {
  cpu.quads[RAX] = value & LOW_32;
  cpu.quads[RDX] = value >> 32n;
  return Next.Sequential;
}

function pair(cpu: Processor): bigint {
  return (((cpu.quads[RDX] as bigint) & LOW_32) << 32n) | ((cpu.quads[RAX] as bigint) & LOW_32);
}

/** What software reads of an MSR; undefined for #GP(0). */
export function msrForSoftware(cpu: Processor, index: number): bigint | undefined {
  const special = cpu.nonRoot ? cpu.vmxPort.readSpecialMsr(index) : undefined;
  return special ?? cpu.readMsr(index);
}

/** Writes an MSR for software; false for #GP(0). What follows is looked up anew. */
export function writeMsrForSoftware(cpu: Processor, index: number, value: bigint): boolean {
  const special = cpu.nonRoot ? cpu.vmxPort.writeSpecialMsr(index, value) : undefined;
  if ((special ?? cpu.writeMsr(index, value)) !== 'ok') return false;
  if (index === IA32_EFER_INDEX) invalidateEverything(cpu);
  cpu.updateMode();
  return true;
}

const rdmsr: Execute = (cpu, i) => {
  if (cpu.cpl !== 0) return GP0(cpu);
  const index = cpu.words[2 * RCX] as number;
  if (intercepted(cpu, i, Intercept.RDMSR, index)) return Next.VmExit;
  const value = msrForSoftware(cpu, index);
  return value === undefined ? GP0(cpu) : setPair(cpu, value);
};

function writeMsr(intercept: Intercept): Execute {
  return (cpu, i) => {
    if (cpu.cpl !== 0) return GP0(cpu);
    const index = cpu.words[2 * RCX] as number;
    if (intercepted(cpu, i, intercept, index)) return Next.VmExit;
    return writeMsrForSoftware(cpu, index, pair(cpu)) ? Next.Lookup : GP0(cpu);
  };
}

/** CR4.TSD keeps the time-stamp counter to CPL 0. */
const isTimeDenied = (cpu: Processor) =>
  cpu.cpl !== 0 && ((cpu.i32[CR4_LOW] as number) & (1 << CR4.TSD)) !== 0;

function visibleTime(cpu: Processor): bigint {
  const tsc = timeStampCounter(cpu);
  return cpu.nonRoot ? cpu.vmxPort.visibleTsc(tsc) : tsc;
}

const rdtsc: Execute = (cpu, i) => {
  if (cpu.mode !== Mode.Real && isTimeDenied(cpu)) return GP0(cpu);
  if (intercepted(cpu, i, Intercept.RDTSC)) return Next.VmExit;
  return setPair(cpu, visibleTime(cpu));
};

const rdtscp: Execute = (cpu, i) => {
  if (!isEnabled(cpu, Enabling.RDTSCP)) return raise(cpu, Vector.UD);
  if (cpu.mode !== Mode.Real && isTimeDenied(cpu)) return GP0(cpu);
  if (intercepted(cpu, i, Intercept.RDTSCP)) return Next.VmExit;
  cpu.quads[RCX] = cpu.read('IA32_TSC_AUX') & LOW_32;
  return setPair(cpu, visibleTime(cpu));
};

const rdpid: Execute = (cpu, i) => {
  if (!isEnabled(cpu, Enabling.RDTSCP)) return raise(cpu, Vector.UD);
  cpu.quads[i.d >> 3] = cpu.read('IA32_TSC_AUX') & LOW_32;
  return Next.Sequential;
};

const rdpmc: Execute = (cpu, i) => {
  const denied = cpu.cpl !== 0 && ((cpu.i32[CR4_LOW] as number) & (1 << CR4.PCE)) === 0;
  if (denied && cpu.mode !== Mode.Real) return GP0(cpu);
  if (intercepted(cpu, i, Intercept.RDPMC)) return Next.VmExit;
  const counter = readCounter(cpu.quads, cpu.features, cpu.words[2 * RCX] as number);
  return counter === undefined ? GP0(cpu) : setPair(cpu, counter);
};

export const MSR_ROWS: readonly OpcodeRow[] = [
  { opcode: '0F 32', mnemonic: 'RDMSR', operands: '', execute: rdmsr, ends: true, begins: true },
  {
    opcode: '0F 30',
    mnemonic: 'WRMSR',
    operands: '',
    execute: writeMsr(Intercept.WRMSR),
    ends: true,
    begins: true,
  },
  {
    opcode: 'NP 0F 01 /0 mod=3 rm=6',
    mnemonic: 'WRMSRNS',
    operands: '',
    execute: writeMsr(Intercept.WRMSRNS),
    ends: true,
    begins: true,
    feature: (f) => f.wrmsrns,
  },
  { opcode: '0F 31', mnemonic: 'RDTSC', operands: '', execute: rdtsc, ends: true, begins: true },
  {
    opcode: '0F 01 /7 mod=3 rm=1',
    mnemonic: 'RDTSCP',
    operands: '',
    execute: rdtscp,
    ends: true,
    begins: true,
    feature: (f) => f.tscAux,
  },
  {
    opcode: 'F3 0F C7 /7 mod=3',
    mnemonic: 'RDPID',
    operands: 'Ry',
    execute: rdpid,
    size: 'f64',
    feature: (f) => f.rdpid,
  },
  { opcode: '0F 33', mnemonic: 'RDPMC', operands: '', execute: rdpmc },
];
