/** What travels between APICs (SDM vol. 3A §12.6.1, §12.7): delivery modes, destinations, shorthands. */

/** Delivery mode, bits 10:8 of the ICR, of LVT entries and of I/O APIC redirections. */
export const DeliveryMode = {
  Fixed: 0,
  LowestPriority: 1,
  Smi: 2,
  Reserved: 3,
  Nmi: 4,
  Init: 5,
  StartUp: 6,
  ExtInt: 7,
} as const;
export type DeliveryMode = number;

export const Shorthand = { None: 0, Self: 1, AllIncludingSelf: 2, AllExcludingSelf: 3 } as const;

/** Vectors below are reserved for exceptions; no APIC delivers them. */
export const FIRST_VECTOR = 16;

/** Destination that means everybody. */
export const XAPIC_BROADCAST = 0xff;
export const X2APIC_BROADCAST = 0xffff_ffff;

export interface InterruptMessage {
  readonly mode: DeliveryMode;
  readonly vector: number;
  /** Level-triggered: its EOI is told to the I/O APICs. */
  readonly isLevel: boolean;
  /** Logical rather than physical destination mode. */
  readonly isLogical: boolean;
  readonly destination: number;
  /** {@link XAPIC_BROADCAST}, or {@link X2APIC_BROADCAST} from an APIC in x2APIC mode. */
  readonly broadcast: number;
}

/** Bits of the interrupt command register. */
const LOGICAL = 1 << 11;
const ASSERT = 1 << 14;
const LEVEL = 1 << 15;

export function usesVector(mode: DeliveryMode): boolean {
  return mode === DeliveryMode.Fixed || mode === DeliveryMode.LowestPriority;
}

export function shorthandOf(command: number): number {
  return (command >>> 18) & 3;
}

/** The message that `command` sends, edge-triggered as all IPIs are; undefined if it sends none. */
export function ipiMessage(
  command: number,
  destination: number,
  broadcast: number,
): InterruptMessage | undefined {
  const mode = (command >>> 8) & 7;
  // De-assertion of INIT, which only old processors know.
  if (mode === DeliveryMode.Init && (command & (ASSERT | LEVEL)) === LEVEL) return undefined;
  if (!isSendable(mode, shorthandOf(command))) return undefined;
  const vector = command & 0xff;
  return { mode, vector, isLevel: false, isLogical: (command & LOGICAL) !== 0, destination, broadcast };
}

/** Combinations of delivery mode and shorthand that are valid (SDM vol. 3A Table 12-3). */
function isSendable(mode: DeliveryMode, shorthand: number): boolean {
  if (mode === DeliveryMode.Reserved || mode === DeliveryMode.ExtInt) return false;
  if (shorthand === Shorthand.None || shorthand === Shorthand.AllExcludingSelf) return true;
  return mode === DeliveryMode.Fixed;
}
