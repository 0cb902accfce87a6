/** Writes by the processor to a processor-held copy: they mark what the entry checks must look at again. */
import { type ProcessorCopy, WRITTEN } from '../vmcs/processor-copy.ts';

// A constant to the compiler, which an imported binding is not (bench: "VMRESUME + exit").
const SAVED = WRITTEN;

/** Sets a field to two 32-bit words. */
export function saveWords(copy: ProcessorCopy, slot: number, low: number, high: number): void {
  const { words } = copy;
  const at = slot << 1;
  if (words[at] !== low || words[at + 1] !== high) {
    words[at] = low;
    words[at + 1] = high;
    copy.unverified |= copy.dependents[slot] as number;
  }
  if (copy.written[slot] !== SAVED) copy.fieldSaved(slot);
}

/** Sets a field to a value of at most 32 bits. */
export function saveWord(copy: ProcessorCopy, slot: number, value: number): void {
  const { words } = copy;
  const at = slot << 1;
  if (words[at] !== value || words[at + 1] !== 0) {
    words[at] = value;
    words[at + 1] = 0;
    copy.unverified |= copy.dependents[slot] as number;
  }
  if (copy.written[slot] !== SAVED) copy.fieldSaved(slot);
}

/** Sets a field to a value of at most 64 bits. */
export function saveQuad(copy: ProcessorCopy, slot: number, value: bigint): void {
  if (copy.quads[slot] !== value) {
    copy.quads[slot] = value;
    copy.unverified |= copy.dependents[slot] as number;
  }
  copy.fieldSaved(slot);
}
