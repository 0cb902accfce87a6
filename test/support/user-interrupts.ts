/** User interrupts in tests: the instructions, which the assembler does not know, and the structures in memory. */
import type { PhysicalMemory } from '../../src/cpu/physical-memory.ts';

const bytes = (...codes: readonly number[]) => `.byte ${codes.join(', ')};`;

export const UIRET = bytes(0xf3, 0x0f, 0x01, 0xec);
export const TESTUI = bytes(0xf3, 0x0f, 0x01, 0xed);
export const CLUI = bytes(0xf3, 0x0f, 0x01, 0xee);
export const STUI = bytes(0xf3, 0x0f, 0x01, 0xef);
export const SENDUIPI_RAX = bytes(0xf3, 0x0f, 0xc7, 0xf0);

export const CR4_UINTR = 1n << 25n;

/** A user posted-interrupt descriptor. */
export interface UserDescriptor {
  /** Notification vector, destination; 1 outstanding, 2 suppressed. */
  readonly vector: number;
  readonly destination?: number;
  readonly control?: number;
  readonly requests?: bigint;
}

export function writeDescriptor(memory: PhysicalMemory, address: number, descriptor: UserDescriptor): void {
  const { vector, destination = 0, control = 0, requests = 0n } = descriptor;
  memory.write32(address, (vector << 16) | control);
  memory.write32(address + 4, destination);
  memory.write64(address + 8, requests);
}

/** Entry `index` of a user-interrupt target table: user vector `vector` to the descriptor at `descriptor`. */
export function writeTarget(
  memory: PhysicalMemory,
  table: number,
  index: number,
  vector: number,
  descriptor: number,
): void {
  memory.write64(table + 16 * index, BigInt((vector << 8) | 1));
  memory.write64(table + 16 * index + 8, BigInt(descriptor));
}
