/**
 * Accesses to the APIC-access page that come from linear addresses (SDM §32.4): virtualized on the
 * virtual-APIC page, or APIC-access VM exits. DEVIATION(apic-access-operands): which operand a
 * register's data go to or come from makes no difference, but accesses of event delivery always exit.
 */
import { Register } from '../../cpu/registers.ts';
import { Access } from '../../cpu/tlb.ts';
import type { ProcessorCopy } from '../../vmcs/processor-copy.ts';
import { controlsOf } from '../effective-controls.ts';
import { ExitReason } from '../exit/exit-reasons.ts';
import type { ExitRequest } from '../exit/exit-request.ts';
import { ApicAccessType } from '../exit/qualifications.ts';
import { asynchronousAccess, eventUnderDelivery } from '../intercepts/event-exits.ts';
import { NO_APIC_WRITE, type VmxProcessor } from '../vmx-state.ts';
import { apicControls, isReadVirtualized, isWriteVirtualized } from './access-classes.ts';
import { noteApicWrite } from './apic-writes.ts';
import { virtualApicPage } from './virtual-apic-page.ts';

const DELIVERED_EVENT = 2 * Register.originalEvent;

const copyOf = (p: VmxProcessor): ProcessorCopy => p.active.resident(p.vmx.current as ProcessorCopy);
const isDelivering = (p: VmxProcessor) => p.cpu.words[DELIVERED_EVENT] !== 0;

function controls(p: VmxProcessor): number {
  return apicControls(controlsOf(copyOf(p), p.capabilities));
}

function typeOf(access: Access): number {
  if (access === Access.Fetch) return ApicAccessType.Fetch;
  return access === Access.Write ? ApicAccessType.Write : ApicAccessType.Read;
}

/** The APIC-access VM exit of an access from a linear address at `offset` of the page. */
export function accessExit(p: VmxProcessor, offset: number, access: Access): ExitRequest {
  if (!isDelivering(p)) {
    return {
      reason: ExitReason.ApicAccess,
      qualification: BigInt((typeOf(access) << 12) | offset | asynchronousAccess(p)),
    };
  }
  return {
    reason: ExitReason.ApicAccess,
    qualification: BigInt((ApicAccessType.EventDelivery << 12) | offset),
    ...eventUnderDelivery(p),
  };
}

/** The APIC-access VM exit of a guest-physical access, which is never virtualized (SDM §32.4.6.1). */
export function guestPhysicalAccessExit(p: VmxProcessor): ExitRequest {
  const { PhysicalEventDelivery, PhysicalInstruction } = ApicAccessType;
  const type = isDelivering(p) ? PhysicalEventDelivery : PhysicalInstruction;
  return { reason: ExitReason.ApicAccess, qualification: BigInt(type << 12), ...eventUnderDelivery(p) };
}

/** The exit of a read, or undefined if it is virtualized. None is after a virtualized write of the same operation. */
export function readExit(p: VmxProcessor, offset: number, bytes: number): ExitRequest | undefined {
  const virtualized =
    !isDelivering(p) && p.vmx.apicWrite === NO_APIC_WRITE && isReadVirtualized(controls(p), offset, bytes);
  return virtualized ? undefined : accessExit(p, offset, Access.Read);
}

/** The exit of a write, or undefined if it is virtualized. An operation writes one register, in one size. */
export function writeExit(p: VmxProcessor, offset: number, bytes: number): ExitRequest | undefined {
  const { apicWrite, apicWriteBytes } = p.vmx;
  const isFirst = apicWrite === NO_APIC_WRITE || (apicWrite === offset && apicWriteBytes === bytes);
  const virtualized = !isDelivering(p) && isFirst && isWriteVirtualized(controls(p), offset, bytes);
  return virtualized ? undefined : accessExit(p, offset, Access.Write);
}

/**
 * The byte at the final stack pointer of ENTER counts as written (SDM §32.4.4): the exit of that, or
 * undefined if it is virtualized. What ENTER has pushed there is the same write.
 */
export function touchExit(p: VmxProcessor, offset: number): ExitRequest | undefined {
  if (p.vmx.apicWrite === offset) return undefined;
  const request = writeExit(p, offset, 1);
  if (request === undefined) noteApicWrite(p, offset, 1);
  return request;
}

/** Performs a virtualized read of 1 to 4 bytes to byte offset `to` of the state, zero-extended to 8. */
export function loadRegister(p: VmxProcessor, offset: number, to: number, bytes: number): true {
  const { memory, u8 } = p.cpu;
  const from = virtualApicPage(copyOf(p)) + offset;
  for (let n = 0; n < bytes; n++) u8[to + n] = memory.read8(from + n);
  for (let n = bytes; n < 8 && (to & 7) === 0; n++) u8[to + n] = 0;
  return true;
}

/** Performs a virtualized write of 1 to 4 bytes from byte offset `from` of the state. */
export function storeRegister(p: VmxProcessor, offset: number, from: number, bytes: number): true {
  const { memory, u8 } = p.cpu;
  const to = virtualApicPage(copyOf(p)) + offset;
  for (let n = 0; n < bytes; n++) memory.write8(to + n, u8[from + n] as number);
  noteApicWrite(p, offset, bytes);
  return true;
}
