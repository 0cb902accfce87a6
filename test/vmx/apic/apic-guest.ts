/** Guests with a virtual APIC: where its structures are, and what tests look at. */
import type { PhysicalMemory } from '../../../src/cpu/physical-memory.ts';
import type { Machine } from '../../../src/machine/machine.ts';
import type { ControlId } from '../../../src/vmcs/controls.ts';
import type { VectorSet } from '../../../src/vmx/apic/virtual-apic-page.ts';
import { assemble } from '../../support/assemble.ts';
import { type GuestOptions, guestMachine } from '../../support/guest.ts';

export const APIC_PAGE = 0x9_0000;
export const DESCRIPTOR = 0x9_1000;
export const PID_TABLE = 0x9_2000;
export const MSR_BITMAP = 0x9_3000;
export const ACCESS_PAGE = 0x9_8000;
const IDT = 0x7_0000;
const GDT = 0x7_2000;
export const HANDLER = 0x4_0000;

/** Virtual-interrupt delivery and what it needs. */
export const DELIVERY: readonly ControlId[] = [
  'proc.useTprShadow',
  'pin.externalInterruptExiting',
  'proc2.virtualInterruptDelivery',
];
export const POSTING: readonly ControlId[] = [
  ...DELIVERY,
  'pin.processPostedInterrupts',
  'exit.acknowledgeInterruptOnExit',
];

/** Values of every address field of a virtual APIC. */
export const APIC_FIELDS = {
  virtualApicAddress: BigInt(APIC_PAGE),
  apicAccessAddress: BigInt(ACCESS_PAGE),
  postedInterruptDescriptorAddress: BigInt(DESCRIPTOR),
  postedInterruptNotificationVector: 0xf2n,
  pidPointerTableAddress: BigInt(PID_TABLE),
  lastPidPointerIndex: 3n,
  msrBitmapAddress: BigInt(MSR_BITMAP),
  guestIdtrBase: BigInt(IDT),
  guestIdtrLimit: 0xfffn,
  guestGdtrBase: BigInt(GDT),
  guestGdtrLimit: 0x1fn,
};

/**
 * A 64-bit guest about to execute `code`, with an interrupt gate for every vector: each handler stores
 * its vector in R15B and goes to `handler`.
 */
export function apicGuest(code: string, handler = 'vmcall', options: GuestOptions = {}): Machine {
  const machine = guestMachine(code, { ...options, fields: { ...APIC_FIELDS, ...options.fields } });
  const { memory } = machine;
  for (let vector = 0; vector < 256; vector++) {
    const entry = HANDLER + 16 * vector;
    memory.write64(
      IDT + 16 * vector,
      (BigInt(entry >> 16) << 48n) | (0x8e00n << 32n) | (8n << 16n) | BigInt(entry & 0xffff),
    );
    // mov r15b, vector; jmp to the common part
    memory.writeBytes(entry, Uint8Array.of(0x41, 0xb7, vector, 0xe9));
    memory.write32(entry + 4, HANDLER + 0x1000 - (entry + 8));
  }
  memory.write64(GDT + 8, 0x00af_9b00_0000_ffffn);
  memory.write64(GDT + 16, 0x00cf_9300_0000_ffffn);
  memory.writeBytes(HANDLER + 0x1000, assemble(handler, 64, HANDLER + 0x1000));
  return machine;
}

/** Vectors of a set on the virtual-APIC page, or of the requests of a descriptor. */
export function bitsOf(memory: PhysicalMemory, set: VectorSet): number[] {
  return vectorsAt(memory, APIC_PAGE + set, 16);
}

export function vectorsAt(memory: PhysicalMemory, base: number, stride: number): number[] {
  const vectors: number[] = [];
  for (let vector = 0; vector < 256; vector++) {
    if ((memory.read32(base + stride * (vector >> 5)) >>> (vector & 31)) & 1) vectors.push(vector);
  }
  return vectors;
}

const PAGE_DIRECTORY = 0x30_2000;
const PAGE_TABLE = 0x30_3000;

/** Address of the paging-structure entry of the page of `linear` after {@link mapSmallPages}. */
export const pageEntry = (linear: number) => PAGE_TABLE + 8 * (linear >> 12);

/** Maps the first 2 MBytes one to one with pages of 4 KBytes, but `pages` as they say. */
export function mapSmallPages({ memory }: Machine, pages: Readonly<Record<number, bigint>> = {}): void {
  for (let page = 0; page < 512; page++) memory.write64(PAGE_TABLE + 8 * page, BigInt(page * 0x1000) | 7n);
  for (const [linear, entry] of Object.entries(pages)) memory.write64(pageEntry(Number(linear)), entry);
  memory.write64(PAGE_DIRECTORY, BigInt(PAGE_TABLE) | 7n);
}
