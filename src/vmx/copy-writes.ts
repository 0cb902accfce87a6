/** Writes by the processor to a processor-held copy: they mark what the entry checks must look at again. */
import type { ProcessorCopy } from '../vmcs/processor-copy.ts';

/** Sets a field to two 32-bit words. */
export function saveWords(copy: ProcessorCopy, slot: number, low: number, high: number): void {
  const { words } = copy;
  const at = 2 * slot;
  if (words[at] !== low || words[at + 1] !== high) {
    words[at] = low;
    words[at + 1] = high;
    copy.unverified |= copy.dependents[slot] as number;
  }
  copy.fieldSaved(slot);
}

/** Sets a field to a value of at most 32 bits. */
export function saveWord(copy: ProcessorCopy, slot: number, value: number): void {
  saveWords(copy, slot, value, 0);
}

/** Sets a field to a value of at most 64 bits. */
export function saveQuad(copy: ProcessorCopy, slot: number, value: bigint): void {
  if (copy.quads[slot] !== value) {
    copy.quads[slot] = value;
    copy.unverified |= copy.dependents[slot] as number;
  }
  copy.fieldSaved(slot);
}
