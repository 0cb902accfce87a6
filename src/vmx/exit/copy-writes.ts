/** Writes by the processor to a processor-held copy: they mark what the entry checks must look at again. */
import { type ProcessorCopy, WRITTEN } from '../../vmcs/processor-copy.ts';

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

/** Saves registers in fields: pairs of field slot and register slot (bench: "VMRESUME + exit"). */
export function saveRegisters(copy: ProcessorCopy, pairs: Uint16Array, registers: Uint32Array): void {
  const { words, dependents, written } = copy;
  let changed = 0;
  for (let i = 0; i < pairs.length; i += 2) {
    const slot = pairs[i] as number;
    const to = slot << 1;
    const from = (pairs[i + 1] as number) << 1;
    const low = registers[from] as number;
    const high = registers[from + 1] as number;
    if (words[to] !== low || words[to + 1] !== high) {
      words[to] = low;
      words[to + 1] = high;
      changed |= dependents[slot] as number;
    }
    if (written[slot] !== WRITTEN) copy.fieldSaved(slot);
  }
  if (changed !== 0) copy.unverified |= changed;
}
