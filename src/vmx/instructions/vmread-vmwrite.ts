/**
 * VMREAD and VMWRITE (SDM §33.3, §27.11.2). The order of their checks differs in one place: VMREAD
 * reaches its memory operand after the field check, VMWRITE before it.
 */
import { Mode } from '../../cpu/processor.ts';
import { CHECKS_NEEDED, Register } from '../../cpu/registers.ts';
import { ENCODING_COUNT } from '../../vmcs/encoding.ts';
import { FIELDS, Field } from '../../vmcs/fields.ts';
import { type ProcessorCopy, WRITTEN, WRITTEN_HIGH } from '../../vmcs/processor-copy.ts';
import { ACCESS_HIGH, ACCESS_READ_ONLY, ACCESS_SLOT_SHIFT } from '../capabilities/capabilities.ts';
import { controlRef, isOn } from '../effective-controls.ts';
import { InstructionError } from '../instruction-errors.ts';
import { FAULT_GP0, FAULT_UD, type Outcome } from '../outcome.ts';
import { Operation, type VmxProcessor } from '../vmx-state.ts';
import { isUndefined, vmFail, vmFailInvalid, vmSucceed } from './conventions.ts';
import { exitFrom } from './exits.ts';
import { type InstructionForm, readOperand, type SourceOperand } from './operands.ts';

const STI = 2 * Register.blockingBySti;
const MOV_SS = 2 * Register.blockingByMovSs;
const VMCS_SHADOWING = controlRef('proc2.vmcsShadowing');
/** Bits of a field that its width has, by slot: low and high 32. */
export const LOW_MASKS = Uint32Array.from(FIELDS, (f) => (f.bits === 16 ? 0xffff : 0xffff_ffff));
export const HIGH_MASKS = Uint32Array.from(FIELDS, (f) => (f.bits === 64 ? 0xffff_ffff : 0));

/** Where VMREAD puts its result: writes it and answers with the fault that raises, if any. */
export type ReadDestination = (value: bigint) => Outcome | undefined;

/** The tests before the field is looked at; the VMCS to access, or how the instruction ends. */
function accessible(
  p: VmxProcessor,
  mnemonic: 'VMREAD' | 'VMWRITE',
  encoding: bigint,
  form: InstructionForm,
): ProcessorCopy | Outcome {
  const { cpu, vmx } = p;
  if (isUndefined(p)) return FAULT_UD;
  const nonRoot = vmx.operation === Operation.NonRoot;
  if (nonRoot && exitsToVmm(p, mnemonic, encoding)) return exitFrom(p, mnemonic, form);
  if (cpu.cpl > 0) return FAULT_GP0;
  const copy = nonRoot ? vmx.link : vmx.current;
  return copy === undefined ? vmFailInvalid(p) : p.active.resident(copy);
}

/** In non-root operation: "VMCS shadowing" is 0, or the encoding or its bitmap bit asks for an exit (SDM §28.1.3). */
function exitsToVmm(p: VmxProcessor, mnemonic: 'VMREAD' | 'VMWRITE', encoding: bigint): boolean {
  const current = p.active.resident(p.vmx.current as ProcessorCopy);
  if (!isOn(current, p.capabilities, VMCS_SHADOWING)) return true;
  if (encoding >= BigInt(ENCODING_COUNT)) return true;
  const slot = mnemonic === 'VMREAD' ? Field.vmreadBitmapAddress : Field.vmwriteBitmapAddress;
  const position = Number(encoding);
  const byte = p.cpu.memory.read8(Number(current.quads[slot]) + (position >> 3));
  return ((byte >> (position & 7)) & 1) === 1;
}

/** The operand as the mode sizes it: 64 bits in 64-bit mode, 32 otherwise. */
function sized(p: VmxProcessor, value: bigint): bigint {
  return BigInt.asUintN(p.cpu.mode === Mode.Bit64 ? 64 : 32, value);
}

/** The access-table entry of an encoding, −1 if unsupported. */
function accessOf(p: VmxProcessor, encoding: bigint): number {
  return encoding < BigInt(ENCODING_COUNT) ? (p.capabilities.access[Number(encoding)] as number) : -1;
}

export function vmread(
  p: VmxProcessor,
  encodingOperand: bigint,
  destination: ReadDestination,
  form: InstructionForm,
): Outcome {
  const encoding = sized(p, encodingOperand);
  const copy = accessible(p, 'VMREAD', encoding, form);
  if ('kind' in copy) return copy;
  const access = accessOf(p, encoding);
  if (access < 0) return vmFail(p, InstructionError.UnsupportedField);
  const value = copy.quads[access >> ACCESS_SLOT_SHIFT] as bigint;
  const half = access & ACCESS_HIGH ? value >> 32n : value;
  return destination(sized(p, half)) ?? ready(p);
}

export function vmwrite(
  p: VmxProcessor,
  encodingOperand: bigint,
  source: SourceOperand,
  form: InstructionForm,
): Outcome {
  const encoding = sized(p, encodingOperand);
  const copy = accessible(p, 'VMWRITE', encoding, form);
  if ('kind' in copy) return copy;
  const operand = readOperand(source);
  if (typeof operand !== 'bigint') return operand;
  const access = accessOf(p, encoding);
  if (access < 0) return vmFail(p, InstructionError.UnsupportedField);
  if (access & ACCESS_READ_ONLY) return vmFail(p, InstructionError.VmwriteReadOnlyField);
  const slot = access >> ACCESS_SLOT_SHIFT;
  const value = sized(p, operand);
  if (access & ACCESS_HIGH) {
    copy.words[2 * slot + 1] = Number(value & 0xffff_ffffn);
  } else {
    reportLostHalf(p, copy, slot);
    copy.words[2 * slot] = Number(value & 0xffff_ffffn) & (LOW_MASKS[slot] as number);
    copy.words[2 * slot + 1] = Number(value >> 32n) & (HIGH_MASKS[slot] as number);
  }
  changed(p, copy, slot, (access & ACCESS_HIGH) !== 0);
  return ready(p);
}

function changed(p: VmxProcessor, copy: ProcessorCopy, slot: number, high: boolean): void {
  copy.fieldWritten(slot, high ? WRITTEN_HIGH : WRITTEN);
  p.active.fieldChanged(copy, slot);
}

function reportLostHalf(p: VmxProcessor, copy: ProcessorCopy, slot: number): void {
  if (p.cpu.mode === Mode.Bit64 || copy.written[slot] !== WRITTEN_HIGH || copy.words[2 * slot + 1] === 0)
    return;
  const name = FIELDS[slot]?.name ?? '';
  const detail = `full access to "${name}" clears bits 63:32, which were written with high access before`;
  p.hazards.report('vmwrite.high-before-full', p.cpu.index, 'VMWRITE', copy.address, detail);
}

/** Ends an access successfully; if the next one needs no checks, the fast paths may do it. */
function ready(p: VmxProcessor): Outcome {
  needsNoChecks(p);
  return vmSucceed(p);
}

/**
 * Whether an access with a valid encoding to the current VMCS succeeds as the processor stands; until
 * `stateChanged` the fast paths then may do it.
 */
export function needsNoChecks(p: VmxProcessor): boolean {
  const { cpu, vmx } = p;
  const { words } = cpu;
  const { current } = vmx;
  const unhindered =
    current !== undefined &&
    vmx.operation === Operation.Root &&
    cpu.mode === Mode.Bit64 &&
    cpu.cpl === 0 &&
    p.observer?.instruction === undefined &&
    p.active.retains &&
    vmx.shutdown === 'no' &&
    p.hazards.mode !== 'stop' &&
    words[STI] === 0 &&
    words[MOV_SS] === 0;
  if (!unhindered || !p.active.hold(current)) return false;
  cpu.i32[CHECKS_NEEDED] = 0;
  return true;
}
