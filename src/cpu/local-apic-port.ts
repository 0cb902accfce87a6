/** What a processor asks of its local APIC beyond the interrupts that it is given (interrupt-source.ts). */
export interface LocalApicPort {
  /** Writes 0 to the EOI register. */
  writeEoi(): void;
  /**
   * Sends an interrupt with fixed delivery mode, edge-triggered, to the physical APIC ID in
   * `destination`: the whole of it in x2APIC mode, bits 15:8 in xAPIC mode.
   */
  sendFixed(vector: number, destination: number): void;
}

export const NO_LOCAL_APIC: LocalApicPort = { writeEoi: () => {}, sendFixed: () => {} };
