/** The INTR pin: what asserts it and gives the vector when the processor acknowledges (SDM vol. 3A §7.3.2). */
export interface InterruptSource {
  /** Whether an interrupt is requested. Whoever asserts it also calls `requestAttention(Attention.Event)`. */
  requested(): boolean;
  /** Acknowledges the interrupt and answers its vector. */
  acknowledge(): number;
  /** The processor has taken an INIT signal, which initialises its local APIC too. */
  initialised?(): void;
}

/** Nothing is connected. */
export const NO_INTERRUPTS: InterruptSource = { requested: () => false, acknowledge: () => 0 };
