/** Caches and translations (SDM vol. 2: INVD, WBINVD, WBNOINVD, INVLPG, INVPCID). This machine's memory is coherent: caches hold nothing else. */
import { isCanonical } from '../../bits/address.ts';
import { effectiveAddress, lineariseUnchecked } from '../addressing.ts';
import { raise, raiseWithCode, Vector } from '../exceptions.ts';
import { type Execute, Next } from '../instruction.ts';
import { Enabling, Intercept, intercepted, isEnabled } from '../intercept.ts';
import { load } from '../memory-access.ts';
import { Mode } from '../mode.ts';
import type { OpcodeRow } from '../opcode-row.ts';
import { MEMORY_OPERAND, operandAddress } from '../operand-forms.ts';
import { invalidateLinearPage, translationsInvalidated } from '../paging.ts';
import type { Processor } from '../processor.ts';
import { CR4, Register } from '../registers.ts';
import { Access } from '../tlb.ts';
import { contextTag } from '../translation-cache.ts';

const LINEAR = 2 * Register.linear;
const CR4_LOW = 2 * Register.CR4;
const GP0 = (cpu: Processor): Next => raiseWithCode(cpu, Vector.GP, 0);

function cacheControl(intercept: Intercept): Execute {
  return (cpu, i) => {
    if (cpu.cpl !== 0) return GP0(cpu);
    return intercepted(cpu, i, intercept) ? Next.VmExit : Next.Sequential;
  };
}

const invlpg: Execute = (cpu, i) => {
  if (cpu.cpl !== 0) return GP0(cpu);
  effectiveAddress(cpu, i);
  // No check of the segment is made (SDM vol. 2A, INVLPG).
  lineariseUnchecked(cpu, i.segment, cpu.quads[Register.linear] as bigint);
  if (intercepted(cpu, i, Intercept.INVLPG)) return Next.VmExit;
  // An address that is not canonical has no translation.
  invalidateLinearPage(cpu, cpu.i32[LINEAR] as number, cpu.i32[LINEAR + 1] as number);
  return Next.Lookup;
};

/** Types of INVPCID. */
const IndividualAddress = 0n;
const SingleContext = 1n;
const AllIncludingGlobals = 2n;
const AllButGlobals = 3n;

const invpcid: Execute = (cpu, i) => {
  if (!isEnabled(cpu, Enabling.INVPCID)) return raise(cpu, Vector.UD);
  if (cpu.cpl !== 0) return GP0(cpu);
  if (intercepted(cpu, i, Intercept.INVPCID)) return Next.VmExit;
  if (!operandAddress(cpu, i, 16, Access.Read) || !load(cpu, MEMORY_OPERAND, 16)) return Next.Fault;
  const type =
    cpu.mode === Mode.Bit64 ? (cpu.quads[i.d >> 3] as bigint) : BigInt(cpu.words[i.d >> 2] as number);
  const low = cpu.quads[Register.T0] as bigint;
  const address = cpu.quads[Register['T0.high']] as bigint;
  const pcid = Number(low & 0xfffn);
  if (type > AllButGlobals || low >> 12n !== 0n) return GP0(cpu);
  const usesPcids = ((cpu.i32[CR4_LOW] as number) & (1 << CR4.PCIDE)) !== 0;
  if ((type === IndividualAddress || type === SingleContext) && !usesPcids && pcid !== 0) return GP0(cpu);
  if (type === IndividualAddress && !isCanonical(address, cpu.features.linearAddressBits)) return GP0(cpu);
  const { translations } = cpu;
  const context = contextTag(cpu.vpid, pcid);
  if (type === IndividualAddress) {
    const lo = Number(BigInt.asIntN(32, address));
    translations.invalidatePage(lo, Number(BigInt.asIntN(32, address >> 32n)), context, false);
  } else if (type === SingleContext) translations.invalidateContext(context, false);
  else translations.invalidateVpid(cpu.vpid, type === AllIncludingGlobals);
  translationsInvalidated(cpu);
  return Next.Lookup;
};

export const CACHE_ROWS: readonly OpcodeRow[] = [
  { opcode: '0F 08', mnemonic: 'INVD', operands: '', execute: cacheControl(Intercept.INVD) },
  { opcode: '0F 09', mnemonic: 'WBINVD', operands: '', execute: cacheControl(Intercept.WBINVD) },
  { opcode: 'F3 0F 09', mnemonic: 'WBNOINVD', operands: '', execute: cacheControl(Intercept.WBNOINVD) },
  { opcode: '0F 01 /7 mod!=3', mnemonic: 'INVLPG', operands: 'M', execute: invlpg, ends: true },
  {
    opcode: '66 0F 38 82 mod!=3',
    mnemonic: 'INVPCID',
    operands: 'Gy Mdq!',
    execute: invpcid,
    size: 'f64',
    ends: true,
    feature: (f) => f.invpcid,
  },
];
