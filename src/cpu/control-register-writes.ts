/**
 * Writes of CR0, CR3 and CR4 by software (SDM vol. 3A §2.5, §5.10.4.1, §11.8.5; vol. 2B MOV to control
 * registers): what is refused with #GP(0), what changes with them, and which translations go.
 */

import { raiseWithCode, Vector } from './exceptions.ts';
import { Mode } from './mode.ts';
import { loadPdptes } from './page-walk.ts';
import { cr3Loaded, invalidateEverything } from './paging.ts';
import type { Processor } from './processor.ts';
import { CR0, CR4, EFER, Register } from './registers.ts';

const one = (position: number) => 1n << BigInt(position);
const CS_L = 1n << 13n;
/** Bits of CR0 that exist. */
const CR0_BITS = [
  CR0.PE,
  CR0.MP,
  CR0.EM,
  CR0.TS,
  CR0.ET,
  CR0.NE,
  CR0.WP,
  CR0.AM,
  CR0.NW,
  CR0.CD,
  CR0.PG,
].reduce((sum, position) => sum | one(position), 0n);
const PG = one(CR0.PG);
/** Changes of CR0 and CR4 after which PAE paging loads the PDPTEs again (SDM vol. 3A §5.4.1). */
const PDPTE_CR0 = PG | one(CR0.CD) | one(CR0.NW);
const PDPTE_CR4 = one(CR4.PAE) | one(CR4.PGE) | one(CR4.PSE) | one(CR4.SMEP);
/** Changes of CR4 that invalidate all translations (SDM vol. 3A §5.10.4.1). */
const FLUSHING_CR4 = one(CR4.PGE) | one(CR4.PAE) | one(CR4.PSE) | one(CR4.LA57) | one(CR4.SMEP);
/** 16-bit TSS types: available and busy. */
const TSS_16 = new Set([1n, 3n]);
const LAM_BITS = 3n << 61n;
const CR3_KEEPS = 1n << 63n;

/** Raises #GP(0), and answers false. */
function refuse(cpu: Processor): false {
  raiseWithCode(cpu, Vector.GP, 0);
  return false;
}

/** Loads the PDPTEs from the table at `cr3`; false after raising #GP(0) or what access to the table came to. */
function loads(cpu: Processor, cr3: number): boolean {
  const load = loadPdptes(cpu, cr3);
  return load === 'loaded' || (load === 'refused' && refuse(cpu));
}

/** CR0 := `source`, as MOV to CR0 and LMSW do; false after raising #GP(0) or a VM exit, with nothing changed. */
export function writeCr0(cpu: Processor, source: bigint): boolean {
  if (source >> 32n !== 0n) return refuse(cpu);
  const old = cpu.read('CR0');
  const wanted = (source & CR0_BITS) | one(CR0.ET);
  const value = cpu.nonRoot ? cpu.vmxPort.writtenControlRegister('CR0', wanted) : wanted;
  const cr4 = cpu.read('CR4');
  const efer = cpu.read('IA32_EFER');
  if ((value & PG) !== 0n && (value & one(CR0.PE)) === 0n) return refuse(cpu);
  if ((value & one(CR0.NW)) !== 0n && (value & one(CR0.CD)) === 0n) return refuse(cpu);
  if ((value & one(CR0.WP)) === 0n && (cr4 & one(CR4.CET)) !== 0n) return refuse(cpu);
  const turnsOn = (value & ~old & PG) !== 0n;
  const turnsOff = (~value & old & PG) !== 0n;
  const longMode = (efer & one(EFER.LME)) !== 0n;
  if (turnsOn && longMode) {
    if ((cr4 & one(CR4.PAE)) === 0n || (cpu.read('CS.accessRights') & CS_L) !== 0n) return refuse(cpu);
    if (TSS_16.has(cpu.read('TR.accessRights') & 15n)) return refuse(cpu);
  }
  if (turnsOff && (cpu.mode === Mode.Bit64 || (cr4 & one(CR4.PCIDE)) !== 0n)) return refuse(cpu);
  if (!cpu.vmxPort.allowsControlRegister('CR0', value)) return refuse(cpu);
  const pae = (value & PG) !== 0n && (cr4 & one(CR4.PAE)) !== 0n && !longMode;
  if (pae && ((value ^ old) & PDPTE_CR0) !== 0n && !loads(cpu, cpu.i32[2 * Register.CR3] as number))
    return false;
  cpu.quads[Register.CR0] = value;
  if (turnsOn && longMode) cpu.quads[Register.IA32_EFER] = efer | one(EFER.LMA);
  if (turnsOff) cpu.quads[Register.IA32_EFER] = efer & ~one(EFER.LMA);
  if (turnsOn || turnsOff || ((value ^ old) & one(CR0.PE)) !== 0n) invalidateEverything(cpu);
  cpu.updateMode();
  return true;
}

/** CR3 := `source`; false after raising #GP(0) or a VM exit. */
export function writeCr3(cpu: Processor, source: bigint): boolean {
  const cr4 = cpu.read('CR4');
  const usesPcids = (cr4 & one(CR4.PCIDE)) !== 0n;
  const keeps = usesPcids && (source & CR3_KEEPS) !== 0n;
  const value = keeps ? source & ~CR3_KEEPS : source;
  const lam = (cpu.features.cr4Bits & one(CR4.LAM_SUP)) !== 0n ? LAM_BITS : 0n;
  if (cpu.mode === Mode.Bit64 && (value & ~lam) >> BigInt(cpu.features.physicalAddressBits) !== 0n)
    return refuse(cpu);
  if (cpu.paePaging && !loads(cpu, Number(BigInt.asIntN(32, value)))) return false;
  cpu.quads[Register.CR3] = value;
  cr3Loaded(cpu, keeps);
  cpu.updateMode();
  return true;
}

/** CR4 := `source`; false after raising #GP(0) or a VM exit. */
export function writeCr4(cpu: Processor, source: bigint): boolean {
  const old = cpu.read('CR4');
  const value = cpu.nonRoot ? cpu.vmxPort.writtenControlRegister('CR4', source) : source;
  if ((value & ~cpu.features.cr4Bits) !== 0n) return refuse(cpu);
  // SMM is outside VMX operation but under dual-monitor treatment, where the bit is 1 (SDM §34.14.3).
  if ((value & ~old & one(CR4.VMXE)) !== 0n && cpu.i32[2 * Register.inSmm] !== 0) return refuse(cpu);
  const changed = value ^ old;
  if (cpu.ia32eMode) {
    if ((value & one(CR4.PAE)) === 0n || (changed & one(CR4.LA57)) !== 0n) return refuse(cpu);
  }
  if ((value & ~old & one(CR4.PCIDE)) !== 0n && (!cpu.ia32eMode || (cpu.read('CR3') & 0xfffn) !== 0n))
    return refuse(cpu);
  if ((value & one(CR4.FRED)) !== 0n && !cpu.ia32eMode) return refuse(cpu);
  if ((value & one(CR4.CET)) !== 0n && (cpu.read('CR0') & one(CR0.WP)) === 0n) return refuse(cpu);
  if (!cpu.vmxPort.allowsControlRegister('CR4', value)) return refuse(cpu);
  const pae = (cpu.read('CR0') & PG) !== 0n && (value & one(CR4.PAE)) !== 0n && !cpu.ia32eMode;
  if (pae && (changed & PDPTE_CR4) !== 0n && !loads(cpu, cpu.i32[2 * Register.CR3] as number)) return false;
  cpu.quads[Register.CR4] = value;
  if ((changed & FLUSHING_CR4) !== 0n || (old & ~value & one(CR4.PCIDE)) !== 0n) invalidateEverything(cpu);
  cpu.updateMode();
  return true;
}
