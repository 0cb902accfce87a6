/** The page-modification log (SDM §31.3.6): 512 guest-physical addresses, filled downwards. */
import type { PhysicalMemory } from '../../cpu/physical-memory.ts';
import { Field } from '../../vmcs/fields.ts';
import type { ProcessorCopy } from '../../vmcs/processor-copy.ts';
import { saveWord } from '../copy-writes.ts';
import type { VmxProcessor } from '../vmx-state.ts';

const INDEX = 2 * Field.pmlIndex;
const ENTRIES = 512;

export function isLogFull(copy: ProcessorCopy): boolean {
  return (copy.words[INDEX] as number) >= ENTRIES;
}

/** Notes that the page of guest-physical `address` was modified; the log is not full. */
export function logModification(
  p: VmxProcessor,
  memory: PhysicalMemory,
  copy: ProcessorCopy,
  address: number,
): void {
  const index = copy.words[INDEX] as number;
  const log = Number(copy.quads[Field.pmlAddress] as bigint);
  memory.write64(log + 8 * index, BigInt(Math.floor(address / 0x1000) * 0x1000));
  saveWord(copy, Field.pmlIndex, (index - 1) & 0xffff);
  p.active.fieldChanged(copy, Field.pmlIndex);
}
