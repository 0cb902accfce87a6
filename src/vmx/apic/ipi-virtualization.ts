/**
 * IPIs of the guest (SDM §32.1.6, §32.4.3.2, §32.5): a write of the interrupt-command register becomes a
 * self-IPI, is posted to another virtual processor, or exits.
 */
import { Field } from '../../vmcs/fields.ts';
import type { ProcessorCopy } from '../../vmcs/processor-copy.ts';
import { controlRef, isOn } from '../effective-controls.ts';
import { ExitReason } from '../exit/exit-reasons.ts';
import type { ExitRequest } from '../exit/exit-request.ts';
import { tmeReduction, type VmxProcessor } from '../vmx-state.ts';
import { post } from './posted-interrupts.ts';
import { ApicRegister, virtualApicPage } from './virtual-apic-page.ts';
import { virtualizeSelfIpi } from './virtual-interrupts.ts';

const VIRTUAL_INTERRUPT_DELIVERY = controlRef('proc2.virtualInterruptDelivery');
const IPI_VIRTUALIZATION = controlRef('proc3.ipiVirtualization');
const APIC_ACCESSES = controlRef('proc2.virtualizeApicAccesses');
const { ICR_LOW, ICR_HIGH } = ApicRegister;

/** ICR bits that are 0 in every IPI that is virtualized: reserved, delivery status. */
const RESERVED = 0xfff3_3000;
const SHORTHAND = 0xc_0000;
const SHORTHAND_SELF = 0x4_0000;
const LEVEL_TRIGGERED = 1 << 15;
const LOGICAL = 1 << 11;
const DELIVERY_MODE = 0x700;
/** Vectors below are illegal. */
const FIRST_VECTOR = 16;
const PID_VALID = 1n;
const PID_LOW_BITS = 0x3fn;

/** APIC-write VM exit for a write at `offset`. */
export function apicWriteExit(offset: number): ExitRequest {
  return { reason: ExitReason.ApicWrite, qualification: BigInt(offset) };
}

/** IPI virtualization of `vector` to the virtual APIC `id`: posts it, or exits. */
export function virtualizeIpi(
  p: VmxProcessor,
  copy: ProcessorCopy,
  vector: number,
  id: number,
): ExitRequest | undefined {
  const last = copy.words[2 * Field.lastPidPointerIndex] as number;
  if (vector < FIRST_VECTOR || id > last) return apicWriteExit(ICR_LOW);
  const { cpu } = p;
  const table = Number(copy.quads[Field.pidPointerTableAddress]);
  const entry = cpu.memory.read64(table + 8 * id);
  const width = cpu.features.physicalAddressBits - tmeReduction(p);
  if (entry >> BigInt(width) !== 0n || (entry & PID_LOW_BITS) !== PID_VALID) return apicWriteExit(ICR_LOW);
  const notification = post(cpu.memory, Number(entry - PID_VALID), vector);
  if (notification !== undefined) cpu.localApic.sendFixed(notification.vector, notification.destination);
  return undefined;
}

/** The write of VICR_LO through the APIC-access page. */
export function writtenIcr(p: VmxProcessor, copy: ProcessorCopy): ExitRequest | undefined {
  const { memory } = p.cpu;
  const page = virtualApicPage(copy);
  const low = memory.read32(page + ICR_LOW);
  if (isOn(copy, p.capabilities, VIRTUAL_INTERRUPT_DELIVERY) && isSelfIpi(low)) {
    virtualizeSelfIpi(p, copy, low & 0xff);
    return undefined;
  }
  if (!isOn(copy, p.capabilities, IPI_VIRTUALIZATION) || !isPostable(low)) return apicWriteExit(ICR_LOW);
  return virtualizeIpi(p, copy, low & 0xff, memory.read32(page + ICR_HIGH) >>> 24);
}

/** The write of the 64-bit ICR by WRMSR; with "IPI virtualization". */
export function writtenIcrMsr(p: VmxProcessor, copy: ProcessorCopy): ExitRequest | undefined {
  const { memory } = p.cpu;
  const page = virtualApicPage(copy);
  const low = memory.read32(page + ICR_LOW);
  if (!isPostable(low)) return apicWriteExit(ICR_LOW);
  return virtualizeIpi(p, copy, low & 0xff, memory.read32(page + ICR_LOW + 4));
}

/** The notification that SENDUIPI put into the interrupt-command register (SDM §32.7). */
export function sentBySenduipi(p: VmxProcessor, copy: ProcessorCopy): ExitRequest | undefined {
  if (!isOn(copy, p.capabilities, IPI_VIRTUALIZATION)) return apicWriteExit(ICR_LOW);
  const { memory } = p.cpu;
  const page = virtualApicPage(copy);
  const id = isOn(copy, p.capabilities, APIC_ACCESSES)
    ? memory.read32(page + ICR_HIGH) >>> 24
    : memory.read32(page + ICR_LOW + 4);
  return virtualizeIpi(p, copy, memory.read8(page + ICR_LOW), id);
}

/** Fixed, edge-triggered, to the sender itself, with a legal vector. */
function isSelfIpi(icr: number): boolean {
  const wrong = icr & (RESERVED | LEVEL_TRIGGERED | DELIVERY_MODE);
  return wrong === 0 && (icr & SHORTHAND) === SHORTHAND_SELF && (icr & 0xf0) !== 0;
}

/** Fixed, edge-triggered, to a physical APIC ID. */
function isPostable(icr: number): boolean {
  return (icr & (RESERVED | SHORTHAND | LEVEL_TRIGGERED | LOGICAL | DELIVERY_MODE)) === 0;
}
