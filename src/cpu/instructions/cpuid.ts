/** CPUID (SDM vol. 2A): the leaves (cpuid-leaves.ts) with what depends on the state of the processor. */
import { standardBytes } from '../cpuid-leaves.ts';
import { type Execute, Next } from '../instruction.ts';
import { Intercept, intercepted } from '../intercept.ts';
import { ApicBase, NO_LOCAL_APIC } from '../local-apic.ts';
import { Mode } from '../mode.ts';
import type { OpcodeRow } from '../opcode-row.ts';
import type { Processor } from '../processor.ts';
import { CR4, Register } from '../registers.ts';

const { RAX, RBX, RCX, RDX } = Register;
const LIMIT_CPUID_MAXVAL = 22;
const OSXSAVE = 1 << 27;
const OSPKE = 1 << 4;
const SYSCALL = 1 << 11;
const APIC = 1 << 9;

const low = (cpu: Processor, slot: number) => cpu.words[2 * slot] as number;
const isSet = (cpu: Processor, slot: number, position: number) => ((low(cpu, slot) >>> position) & 1) === 1;

/** IA32_APIC_BASE.EN hides the APIC (SDM vol. 3A §12.4.3). */
const hasApic = (cpu: Processor) =>
  cpu.localApic !== NO_LOCAL_APIC && (low(cpu, Register.IA32_APIC_BASE) & ApicBase.EN) !== 0;

const cpuid: Execute = (cpu, i) => {
  if (intercepted(cpu, i, Intercept.CPUID)) return Next.VmExit;
  const leaf = low(cpu, RAX);
  const subleaf = low(cpu, RCX);
  const limited = isSet(cpu, Register.IA32_MISC_ENABLE, LIMIT_CPUID_MAXVAL);
  let [eax, ebx, ecx, edx] = cpu.cpuid.read(leaf, subleaf, limited);
  if (leaf === 1 && hasApic(cpu)) edx |= APIC;
  if (leaf === 1 && isSet(cpu, Register.CR4, CR4.OSXSAVE)) ecx |= OSXSAVE;
  else if (leaf === 7 && subleaf === 0 && !limited && isSet(cpu, Register.CR4, CR4.PKE)) ecx |= OSPKE;
  else if (leaf === 0xd && subleaf === 1 && !limited && cpu.features.xsavec) {
    ebx = cpu.cpuid.compactedBytes(low(cpu, Register.XCR0) | low(cpu, Register.IA32_XSS));
  } else if (leaf === 0xd && subleaf === 0 && !limited && cpu.features.xsave) {
    ebx = standardBytes(low(cpu, Register.XCR0));
  } else if (leaf === 0x8000_0001 && cpu.mode !== Mode.Bit64) edx &= ~SYSCALL;
  cpu.quads[RAX] = BigInt(eax);
  cpu.quads[RBX] = BigInt(ebx);
  cpu.quads[RCX] = BigInt(ecx >>> 0);
  cpu.quads[RDX] = BigInt(edx >>> 0);
  return Next.Sequential;
};

export const CPUID_ROWS: readonly OpcodeRow[] = [
  { opcode: '0F A2', mnemonic: 'CPUID', operands: '', execute: cpuid, ends: true },
];
