/**
 * The local APIC as its processor sees it: registers at a page of physical addresses or as MSRs, and the
 * priority behind CR8 (SDM vol. 3A chapter 12). The machine implements it; a processor without one has
 * {@link NO_LOCAL_APIC}. What it requests of the processor comes through the {@link InterruptSource}.
 */
import type { MsrAccess } from './msr-catalogue.ts';

export interface LocalApic {
  /** Physical address of the page of registers, −1 unless the APIC is in xAPIC mode. */
  readonly page: number;
  /** Loads the 32 bits at `offset` (a multiple of 4 below 4096) of the page. */
  load(offset: number): number;
  /** Stores 32 bits, unsigned, at `offset` of the page. */
  store(offset: number, value: number): void;
  /** RDMSR of 800H–8FFH: the value, or undefined for #GP(0). */
  readMsr(index: number): bigint | undefined;
  /** Why WRMSR of 800H–8FFH would raise #GP(0), or `ok`. */
  checkMsr(index: number, value: bigint): MsrAccess;
  /** WRMSR of 800H–8FFH of a value that {@link checkMsr} lets through. */
  writeMsr(index: number, value: bigint): void;
  /** IA32_APIC_BASE, IA32_TSC_DEADLINE or IA32_TIME_STAMP_COUNTER was written; `old` is what it held. */
  msrWritten(index: number, old: bigint): void;
  /** CR8 was written: the task-priority class, 0–15. */
  taskPriorityWritten(priorityClass: number): void;
  /** Writes 0 to the EOI register. */
  writeEoi(): void;
  /**
   * Sends an interrupt with fixed delivery mode, edge-triggered, to the physical APIC ID in
   * `destination`: the whole of it in x2APIC mode, bits 15:8 in xAPIC mode.
   */
  sendFixed(vector: number, destination: number): void;
}

/** A processor without a local APIC. */
export const NO_LOCAL_APIC: LocalApic = {
  page: -1,
  load: () => 0,
  store: () => {},
  readMsr: () => undefined,
  checkMsr: () => 'does-not-exist',
  writeMsr: () => {},
  msrWritten: () => {},
  taskPriorityWritten: () => {},
  writeEoi: () => {},
  sendFixed: () => {},
};

/** Bits of IA32_APIC_BASE (SDM vol. 3A §12.4.4, §12.12.1). */
export const ApicBase = { BSP: 1 << 8, EXTD: 1 << 10, EN: 1 << 11 } as const;

const MODE = BigInt(ApicBase.EXTD | ApicBase.EN);
const X2APIC = MODE;
const XAPIC = BigInt(ApicBase.EN);

/**
 * Whether WRMSR may take IA32_APIC_BASE from `old` to `value` (SDM vol. 3A §12.12.5): EXTD needs EN, and
 * x2APIC mode is entered from xAPIC mode and left only by disabling the APIC.
 */
export function allowsApicBase(old: bigint, value: bigint): boolean {
  const from = old & MODE;
  const to = value & MODE;
  if (to === BigInt(ApicBase.EXTD)) return false;
  if (from === X2APIC) return to !== XAPIC;
  return from === XAPIC || to !== X2APIC;
}
