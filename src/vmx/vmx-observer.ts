/**
 * Somebody who watches VT-x of one processor, to count or to trace. Nothing depends on what an observer
 * does; while instructions are watched, VMREAD and VMWRITE take no short cuts.
 */
import type { ProcessorCopy } from '../vmcs/processor-copy.ts';
import type { Outcome } from './outcome.ts';

export type VmxMnemonic =
  | 'VMXON'
  | 'VMXOFF'
  | 'VMCLEAR'
  | 'VMPTRLD'
  | 'VMPTRST'
  | 'VMREAD'
  | 'VMWRITE'
  | 'VMLAUNCH'
  | 'VMRESUME'
  | 'VMCALL'
  | 'VMFUNC'
  | 'INVEPT'
  | 'INVVPID';

export interface VmxObserver {
  /**
   * A VMX instruction has ended. `operand`: region of VMXON, VMCLEAR and VMPTRLD, encoding of VMREAD
   * and VMWRITE, type of INVEPT and INVVPID; undefined for the others and for one that faulted.
   */
  instruction?(mnemonic: VmxMnemonic, operand: bigint | undefined, outcome: Outcome): void;
  /** A VM exit, or a VM entry that failed after its checks, has left its information in `copy`; host state follows. */
  exit(copy: ProcessorCopy): void;
}
