/**
 * Operands of VMX instructions as the caller supplies them. A decoder supplies what the machine code
 * says; a caller of the API supplies a value, or says that the operand is a register or that its
 * access faults, so that the order of the manual's checks can be observed.
 */
import { FAULT_UD, fault, type Outcome } from '../outcome.ts';

/**
 * A memory operand: its value, a register in its place (#UD), the fault that accessing it raises, or
 * memory that is accessed when the instruction gets there.
 */
export type MemoryOperand =
  | bigint
  | { readonly kind: 'register' }
  | { readonly kind: 'fault'; readonly vector: number; readonly errorCode: number | undefined }
  | { readonly kind: 'memory'; load(): bigint | Outcome /** What was loaded. */; value?: bigint };

/** An operand that may be in memory or in a register, whose value then stands here as well. */
export type SourceOperand = Exclude<MemoryOperand, { readonly kind: 'register' }>;

/** The register form of an instruction that needs a memory operand. */
export const REGISTER_FORM: MemoryOperand = { kind: 'register' };

/** An operand whose access raises exception `vector`. */
export function faultingOperand(vector: number, errorCode?: number): SourceOperand {
  return { kind: 'fault', vector, errorCode };
}

export function isRegisterForm(operand: MemoryOperand): boolean {
  return typeof operand !== 'bigint' && operand.kind === 'register';
}

/**
 * Accesses `operand`, which is no register form: its value, or the fault that raises.
 * @throws TypeError if it is no operand
 */
export function readOperand(operand: MemoryOperand): bigint | Outcome {
  if (typeof operand === 'bigint') return operand;
  switch (operand.kind) {
    case 'fault':
      return fault(operand.vector, operand.errorCode);
    case 'memory': {
      const loaded = operand.load();
      if (typeof loaded === 'bigint') operand.value = loaded;
      return loaded;
    }
    case 'register':
      return FAULT_UD;
    default:
      throw new TypeError(`a memory operand is a bigint or an object, not the ${typeof operand} ${operand}`);
  }
}

/** The value of an operand as far as the instruction got to it. */
export function operandValue(operand: MemoryOperand | undefined): bigint | undefined {
  if (operand === undefined || typeof operand === 'bigint') return operand;
  return operand.kind === 'memory' ? operand.value : undefined;
}

/** What the VM exit of a VMX instruction reports about its encoding (SDM §30.2.1, §30.2.5). */
export interface InstructionForm {
  /** 1–15 bytes; left out: that of the shortest encoding. */
  readonly length?: number;
  /** Displacement of the memory operand, sign-extended; 0 for a register operand. */
  readonly displacement: bigint;
  /** VM-exit instruction-information field. */
  readonly information: number;
}

/** What the API assumes where the caller says nothing: `[RAX]` with 64-bit addressing, no prefixes. */
export const DEFAULT_MEMORY_FORM: InstructionForm = {
  displacement: 0n,
  // Address size 64 bits, segment DS, no index, base RAX.
  information: (2 << 7) | (3 << 15) | (1 << 22),
};

export const NO_OPERAND_FORM: InstructionForm = { displacement: 0n, information: 0 };

/** VMREAD or VMWRITE between general registers (numbers 0–15): operand and encoding (SDM §30.2.5, Table 30-15). */
export function registerForm(operand: number, encoding: number): InstructionForm {
  return { displacement: 0n, information: ((encoding << 28) | (1 << 10) | (operand << 3)) >>> 0 };
}
