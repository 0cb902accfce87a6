/**
 * Where the parts of a processor's state lie: one table for the interpreter and for whatever else
 * executes over the same state. Offsets are in bytes from the start of the processor's area.
 */
import { PORT_SLOTS, REGISTER_COUNT } from './registers.ts';
import { TLB_BYTES } from './tlb.ts';

const ALIGNMENT = 64;
const aligned = (bytes: number) => Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;

const REGISTER_BYTES = aligned(8 * (REGISTER_COUNT + PORT_SLOTS));

export const STATE_LAYOUT = {
  /** Registers, 8 bytes each, by slot (registers.ts), and behind them the slots of the VMX port. */
  registers: 0,
  /** TLB (tlb.ts). */
  tlb: REGISTER_BYTES,
} as const;

/** Bytes of one processor's area. */
export const STATE_BYTES = aligned(REGISTER_BYTES + TLB_BYTES);
