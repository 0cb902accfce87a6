/**
 * Virtual interrupts (SDM §32.1.2–§32.1.5, §32.2): virtualization of TPR, PPR, EOI and self-IPIs,
 * evaluation of what is pending and its delivery. RVI and SVI are in the VMX state, the rest is on the
 * virtual-APIC page. An operation that can exit answers with the request.
 */
import { Attention } from '../../cpu/attention.ts';
import { Field } from '../../vmcs/fields.ts';
import type { ProcessorCopy } from '../../vmcs/processor-copy.ts';
import { controlRef, isOn } from '../effective-controls.ts';
import { ExitReason } from '../exit/exit-reasons.ts';
import type { ExitRequest } from '../exit/exit-request.ts';
import type { VmxProcessor } from '../vmx-state.ts';
import {
  ApicRegister,
  addVector,
  highestVector,
  removeVector,
  virtualApicPage,
} from './virtual-apic-page.ts';

const VIRTUAL_INTERRUPT_DELIVERY = controlRef('proc2.virtualInterruptDelivery');
const INTERRUPT_WINDOW = controlRef('proc.interruptWindowExiting');
const TPR_THRESHOLD = 2 * Field.tprThreshold;
const EOI_EXIT_BITMAP = 2 * Field.eoiExitBitmap0;
const { TPR, PPR, ISR, IRR } = ApicRegister;

const BELOW_THRESHOLD: ExitRequest = Object.freeze({ reason: ExitReason.TprBelowThreshold });

/** VTPR[7:4] is below the TPR threshold. */
export function isTprBelowThreshold(p: VmxProcessor, copy: ProcessorCopy): boolean {
  const vtpr = p.cpu.memory.read8(virtualApicPage(copy) + TPR);
  return vtpr >>> 4 < ((copy.words[TPR_THRESHOLD] as number) & 0xf);
}

/** TPR virtualization: after a write of VTPR. */
export function virtualizeTpr(p: VmxProcessor, copy: ProcessorCopy): ExitRequest | undefined {
  if (isOn(copy, p.capabilities, VIRTUAL_INTERRUPT_DELIVERY)) {
    virtualizePpr(p, copy);
    evaluatePending(p, copy);
    return undefined;
  }
  return isTprBelowThreshold(p, copy) ? BELOW_THRESHOLD : undefined;
}

/** PPR virtualization: VPPR from VTPR and SVI. */
export function virtualizePpr(p: VmxProcessor, copy: ProcessorCopy): void {
  const { memory } = p.cpu;
  const { svi } = p.vmx;
  const page = virtualApicPage(copy);
  const vtpr = memory.read8(page + TPR);
  memory.write32(page + PPR, vtpr >>> 4 >= svi >>> 4 ? vtpr : svi & 0xf0);
}

/** EOI virtualization; with "virtual-interrupt delivery". */
export function virtualizeEoi(p: VmxProcessor, copy: ProcessorCopy): ExitRequest | undefined {
  const vector = p.vmx.svi;
  endService(p, copy, vector);
  const exits = ((copy.words[EOI_EXIT_BITMAP + (vector >>> 5)] as number) >>> (vector & 31)) & 1;
  if (exits === 1) return { reason: ExitReason.VirtualizedEoi, qualification: BigInt(vector) };
  evaluatePending(p, copy);
  return undefined;
}

/** VISR[vector] := 0, and SVI and VPPR follow. */
export function endService(p: VmxProcessor, copy: ProcessorCopy, vector: number): void {
  const { memory } = p.cpu;
  const page = virtualApicPage(copy);
  removeVector(memory, page, ISR, vector);
  p.vmx.svi = highestVector(memory, page, ISR);
  virtualizePpr(p, copy);
}

/** Self-IPI virtualization; with "virtual-interrupt delivery". */
export function virtualizeSelfIpi(p: VmxProcessor, copy: ProcessorCopy, vector: number): void {
  requestVector(p, copy, vector);
  evaluatePending(p, copy);
}

/** VIRR[vector] := 1 and RVI at least `vector`; nothing is evaluated. */
export function requestVector(p: VmxProcessor, copy: ProcessorCopy, vector: number): void {
  addVector(p.cpu.memory, virtualApicPage(copy), IRR, vector);
  if (vector > p.vmx.rvi) p.vmx.rvi = vector;
}

/** Evaluation of pending virtual interrupts: whether one is recognised. It stays so until the next evaluation. */
export function evaluatePending(p: VmxProcessor, copy: ProcessorCopy): void {
  const { vmx } = p;
  const vppr = p.cpu.memory.read8(virtualApicPage(copy) + PPR);
  vmx.virtualInterruptPending = vmx.rvi >>> 4 > vppr >>> 4 && !isOn(copy, p.capabilities, INTERRUPT_WINDOW);
  if (vmx.virtualInterruptPending) p.cpu.requestAttention(Attention.Vmx);
}

/** What delivery of the recognised virtual interrupt does before the IDT: the vector to deliver. */
export function acknowledgeVirtualInterrupt(p: VmxProcessor, copy: ProcessorCopy): number {
  const { vmx } = p;
  const { memory } = p.cpu;
  const page = virtualApicPage(copy);
  const vector = vmx.rvi;
  addVector(memory, page, ISR, vector);
  vmx.svi = vector;
  memory.write32(page + PPR, vector & 0xf0);
  removeVector(memory, page, IRR, vector);
  vmx.rvi = highestVector(memory, page, IRR);
  vmx.virtualInterruptPending = false;
  return vector;
}
