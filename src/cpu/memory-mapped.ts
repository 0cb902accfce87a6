/**
 * Registers of devices at physical addresses: the local APIC's page, which is the processor's own, and
 * what the machine's devices claim outside RAM. Such pages are never entered as direct into the TLB, so
 * that accesses within RAM pay nothing. Registers have 32 bits.
 */
import { PAGE_SIZE } from '../bits/address.ts';
import type { Processor } from './processor.ts';

/** The devices behind physical addresses outside RAM that all processors share. */
export interface MappedDevices {
  /** Whether a device answers at `address`. */
  claims(address: number): boolean;
  /** Loads the 32 bits at `address`, a multiple of 4. */
  load(address: number): number;
  /** Stores 32 bits, unsigned, at `address`, a multiple of 4. */
  store(address: number, value: number): void;
}

export const NO_MAPPED_DEVICES: MappedDevices = { claims: () => false, load: () => 0, store: () => {} };

/** Whether the page at `page` is that of the processor's local APIC. */
export function isApicPage(cpu: Processor, page: number): boolean {
  return page === cpu.localApic.page;
}

/** Whether a device answers at `physical` rather than memory. */
export function isMapped(cpu: Processor, physical: number): boolean {
  return isApicPage(cpu, physical - (physical & (PAGE_SIZE - 1))) || cpu.memory.devices.claims(physical);
}

function read(cpu: Processor, address: number): number {
  const offset = address & (PAGE_SIZE - 1);
  if (isApicPage(cpu, address - offset)) return cpu.localApic.load(offset);
  return cpu.memory.devices.load(address);
}

/** Loads `bytes` bytes at `physical` to byte offset `to` of the state; each register is read once. */
export function loadMapped(cpu: Processor, to: number, physical: number, bytes: number): void {
  let n = 0;
  while (n < bytes) {
    const within = (physical + n) & 3;
    const word = read(cpu, physical + n - within);
    for (let b = within; b < 4 && n < bytes; b++, n++) cpu.u8[to + n] = (word >>> (8 * b)) & 0xff;
  }
}

/** Stores bytes from offset `from` of the state: what covers a register writes it, the rest is dropped. */
export function storeMapped(cpu: Processor, from: number, physical: number, bytes: number): void {
  const { u8 } = cpu;
  for (let n = -physical & 3; n + 4 <= bytes; n += 4) {
    const at = from + n;
    const low = (u8[at] as number) | ((u8[at + 1] as number) << 8);
    const value = (low | ((u8[at + 2] as number) << 16) | ((u8[at + 3] as number) << 24)) >>> 0;
    const address = physical + n;
    const offset = address & (PAGE_SIZE - 1);
    if (isApicPage(cpu, address - offset)) cpu.localApic.store(offset, value);
    else cpu.memory.devices.store(address, value);
  }
}
