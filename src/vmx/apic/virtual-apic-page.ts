/**
 * The virtual-APIC page (SDM §32.1.1): where the registers of a virtual APIC are, and its two vector
 * sets. The processor accesses it at its physical address.
 */
import type { PhysicalMemory } from '../../cpu/physical-memory.ts';
import { Field } from '../../vmcs/fields.ts';
import type { ProcessorCopy } from '../../vmcs/processor-copy.ts';

const VIRTUAL_APIC_ADDRESS = Field.virtualApicAddress;

/** Offsets of registers, on the virtual-APIC page as on the page of an APIC. */
export const ApicRegister = {
  TPR: 0x080,
  PPR: 0x0a0,
  EOI: 0x0b0,
  ISR: 0x100,
  IRR: 0x200,
  ICR_LOW: 0x300,
  ICR_HIGH: 0x310,
  SELF_IPI: 0x3f0,
} as const;

/** The two sets of vectors that delivery of virtual interrupts looks at. */
export type VectorSet = typeof ApicRegister.ISR | typeof ApicRegister.IRR;

/** Physical address of the virtual-APIC page. */
export function virtualApicPage(copy: ProcessorCopy): number {
  return Number(copy.quads[VIRTUAL_APIC_ADDRESS]);
}

/** Address of the 32 bits that hold `vector`: each 16 bytes have four that are used. */
function wordOf(page: number, set: VectorSet, vector: number): number {
  return page + set + ((vector & 0xe0) >> 1);
}

export function addVector(memory: PhysicalMemory, page: number, set: VectorSet, vector: number): void {
  const at = wordOf(page, set, vector);
  memory.write32(at, (memory.read32(at) | (1 << (vector & 31))) >>> 0);
}

export function removeVector(memory: PhysicalMemory, page: number, set: VectorSet, vector: number): void {
  const at = wordOf(page, set, vector);
  memory.write32(at, (memory.read32(at) & ~(1 << (vector & 31))) >>> 0);
}

/** The highest vector of a set, 0 if it is empty. */
export function highestVector(memory: PhysicalMemory, page: number, set: VectorSet): number {
  for (let vector = 0xe0; vector >= 0; vector -= 32) {
    const word = memory.read32(wordOf(page, set, vector));
    if (word !== 0) return vector + 31 - Math.clz32(word);
  }
  return 0;
}
