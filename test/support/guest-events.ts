/** Event handling of guests in machine code (guest.ts): an IDT whose gates all lead to one handler, and sources of events. */
import { Attention } from '../../src/cpu/attention.ts';
import type { LogicalProcessor } from '../../src/machine/logical-processor.ts';
import type { Machine } from '../../src/machine/machine.ts';
import { assemble } from './assemble.ts';
import { type GuestOptions, guestMachine } from './guest.ts';

export const GUEST_IDT = 0x7_0000;
const GDT = 0x7_2000;
const HANDLER = 0x4_0000;
/** Bytes between the handlers of two vectors. */
const STRIDE = 16;

/** Where the handler of a vector is. */
export const handlerOf = (vector: number) => HANDLER + STRIDE * vector;

/** Fields of a guest whose descriptor tables are those that {@link eventGuest} writes. */
export const TABLES = {
  guestIdtrBase: BigInt(GUEST_IDT),
  guestIdtrLimit: 0xfffn,
  guestGdtrBase: BigInt(GDT),
  guestGdtrLimit: 0x1fn,
};

/** An interrupt gate for each vector, a GDT with 64-bit code at 08H and data at 10H, and the same `handler` for all vectors. */
function writeTables(machine: Machine, handler: string): void {
  for (let vector = 0; vector < 256; vector++) {
    const at = handlerOf(vector);
    machine.memory.write64(
      GUEST_IDT + 16 * vector,
      (BigInt(at >> 16) << 48n) | (0x8e00n << 32n) | (8n << 16n) | BigInt(at & 0xffff),
    );
    machine.memory.writeBytes(at, assemble(handler, 64, at));
  }
  machine.memory.write64(GDT + 8, 0x00af_9b00_0000_ffffn);
  machine.memory.write64(GDT + 16, 0x00cf_9300_0000_ffffn);
}

/** A launched guest that handles events: each handler is `handler`. */
export function eventGuest(
  code: string | Uint8Array,
  options: GuestOptions = {},
  handler = 'vmcall',
): Machine {
  const machine = guestMachine(code, { ...options, fields: { ...TABLES, ...options.fields } });
  writeTables(machine, handler);
  return machine;
}

/** Identification of an event as fields have it. */
export const eventId = (type: number, vector: number, hasCode = 0) =>
  BigInt((0x8000_0000 | (hasCode << 11) | (type << 8) | vector) >>> 0);

/** An interrupt source that requests `vector` until it is acknowledged. */
export function requestInterrupt({ processor }: LogicalProcessor, vector: number): { acknowledged: number } {
  const state = { acknowledged: 0 };
  processor.interrupts = {
    requested: () => state.acknowledged === 0,
    acknowledge: () => {
      state.acknowledged++;
      return vector;
    },
  };
  processor.requestAttention(Attention.Event);
  return state;
}
