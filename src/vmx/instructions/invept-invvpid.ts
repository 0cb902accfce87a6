/** INVEPT and INVVPID (SDM §33.3): which cached mappings they invalidate is in §31.4.3.1. */
import { isCanonical } from '../../bits/address.ts';
import { translationsInvalidated } from '../../cpu/paging.ts';
import { Mode } from '../../cpu/processor.ts';
import { EptVpidCap } from '../capabilities/capability-msrs.ts';
import { EPTP_ADDRESS, isEptpValid } from '../ept/eptp.ts';
import { InstructionError } from '../instruction-errors.ts';
import { FAULT_GP0, FAULT_UD, type Outcome } from '../outcome.ts';
import { Operation, tmeReduction, type VmxProcessor } from '../vmx-state.ts';
import { isUndefined, vmFail, vmSucceed } from './conventions.ts';
import { exitFrom } from './exits.ts';
import { type InstructionForm, isRegisterForm, type MemoryOperand, readOperand } from './operands.ts';

/** INVEPT types and the capability bits that support them. */
const INVEPT_TYPES: ReadonlyMap<bigint, number> = new Map([
  [1n, EptVpidCap.INVEPT_SINGLE_CONTEXT],
  [2n, EptVpidCap.INVEPT_ALL_CONTEXT],
]);

/** INVVPID types and the capability bits that support them. */
const INVVPID_TYPES: ReadonlyMap<bigint, number> = new Map([
  [0n, EptVpidCap.INVVPID_INDIVIDUAL_ADDRESS],
  [1n, EptVpidCap.INVVPID_SINGLE_CONTEXT],
  [2n, EptVpidCap.INVVPID_ALL_CONTEXT],
  [3n, EptVpidCap.INVVPID_SINGLE_CONTEXT_RETAINING_GLOBALS],
]);

/** Tests both instructions share up to the read of the descriptor, which is the answer if they pass. */
function before(
  p: VmxProcessor,
  mnemonic: 'INVEPT' | 'INVVPID',
  typeOperand: bigint,
  descriptor: MemoryOperand,
  form: InstructionForm,
): bigint | Outcome {
  const { capabilities } = p;
  const [control, instruction, types] =
    mnemonic === 'INVEPT'
      ? (['proc2.enableEpt', EptVpidCap.INVEPT, INVEPT_TYPES] as const)
      : (['proc2.enableVpid', EptVpidCap.INVVPID, INVVPID_TYPES] as const);
  const supported = capabilities.supports(control) && capabilities.has('eptVpidCap', instruction);
  if (isUndefined(p) || !supported || isRegisterForm(descriptor)) return FAULT_UD;
  if (p.vmx.operation === Operation.NonRoot) return exitFrom(p, mnemonic, form);
  if (p.cpu.cpl > 0) return FAULT_GP0;
  const position = types.get(operandType(p, typeOperand));
  if (position === undefined || !capabilities.has('eptVpidCap', position)) {
    return vmFail(p, InstructionError.InvalidInvalidationOperand);
  }
  return readOperand(descriptor);
}

function operandType(p: VmxProcessor, value: bigint): bigint {
  return BigInt.asUintN(p.cpu.mode === Mode.Bit64 ? 64 : 32, value);
}

/** `descriptor` is 128 bits: EPTP in 63:0. Bits 127:64 are not examined (the operation in §33.3 tests none). */
export function invept(
  p: VmxProcessor,
  type: bigint,
  descriptor: MemoryOperand,
  form: InstructionForm,
): Outcome {
  const value = before(p, 'INVEPT', type, descriptor, form);
  if (typeof value !== 'bigint') return value;
  const eptp = BigInt.asUintN(64, value);
  const width = p.capabilities.addressWidth(tmeReduction(p));
  if (operandType(p, type) === 1n && !isEptpValid(eptp, p.capabilities, width)) {
    return vmFail(p, InstructionError.InvalidInvalidationOperand);
  }
  if (operandType(p, type) === 1n) p.ept.invalidateContext(Number(eptp & EPTP_ADDRESS));
  else p.ept.invalidateAllContexts();
  return vmSucceed(p);
}

/** Forgets cached translations as INVVPID of `type` says (SDM §31.4). */
function invalidate(p: VmxProcessor, type: number, vpid: number, linear: bigint): void {
  const { translations } = p.cpu;
  if (type === 0) {
    const lo = Number(BigInt.asIntN(32, linear));
    translations.invalidateVpidPage(lo, Number(BigInt.asIntN(32, linear >> 32n)), vpid);
  } else if (type === 2) translations.invalidateAllVpids();
  else translations.invalidateVpid(vpid, type === 1);
  translationsInvalidated(p.cpu);
}

/** `descriptor` is 128 bits: VPID in 15:0, zeros in 63:16, linear address in 127:64. */
export function invvpid(
  p: VmxProcessor,
  type: bigint,
  descriptor: MemoryOperand,
  form: InstructionForm,
): Outcome {
  const value = before(p, 'INVVPID', type, descriptor, form);
  if (typeof value !== 'bigint') return value;
  const vpid = value & 0xffffn;
  const reserved = (value >> 16n) & 0xffff_ffff_ffffn;
  const linear = BigInt.asUintN(64, value >> 64n);
  const kind = operandType(p, type);
  const badVpid = kind !== 2n && vpid === 0n;
  const badAddress = kind === 0n && !isCanonical(linear, p.cpu.features.linearAddressBits);
  if (reserved !== 0n || badVpid || badAddress) return vmFail(p, InstructionError.InvalidInvalidationOperand);
  invalidate(p, Number(kind), Number(vpid), linear);
  return vmSucceed(p);
}
