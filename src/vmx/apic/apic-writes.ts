/**
 * What follows a virtualized write to the virtual-APIC page once the operation that wrote has completed
 * (SDM §32.3, §32.4.3.2, §32.5): APIC-write emulation, or an exit.
 */
import { Attention } from '../../cpu/attention.ts';
import type { ProcessorCopy } from '../../vmcs/processor-copy.ts';
import { controlRef, isOn } from '../effective-controls.ts';
import type { ExitRequest } from '../exit/exit-request.ts';
import { NO_APIC_WRITE, type VmxProcessor } from '../vmx-state.ts';
import { apicWriteExit, sentBySenduipi, writtenIcr, writtenIcrMsr } from './ipi-virtualization.ts';
import { ApicRegister, virtualApicPage } from './virtual-apic-page.ts';
import { virtualizeEoi, virtualizeSelfIpi, virtualizeTpr } from './virtual-interrupts.ts';

const VIRTUAL_INTERRUPT_DELIVERY = controlRef('proc2.virtualInterruptDelivery');
const X2APIC_MODE = controlRef('proc2.virtualizeX2apicMode');
/** In place of a page offset: what SENDUIPI wrote, which was not the guest's own write. */
export const SENDUIPI = 0x1000;
const { TPR, EOI, ICR_LOW, ICR_HIGH, SELF_IPI } = ApicRegister;

/** Notes a virtualized write of `bytes` bytes at page offset `offset`: its emulation follows the operation. */
export function noteApicWrite(p: VmxProcessor, offset: number, bytes: number): void {
  p.vmx.apicWrite = offset;
  p.vmx.apicWriteBytes = bytes;
  p.cpu.requestAttention(Attention.Vmx);
}

/** Emulates the write that was noted, if one was; answers with the exit that it causes. */
export function emulateApicWrite(p: VmxProcessor, copy: ProcessorCopy): ExitRequest | undefined {
  const offset = p.vmx.apicWrite;
  if (offset === NO_APIC_WRITE) return undefined;
  p.vmx.apicWrite = NO_APIC_WRITE;
  const { memory } = p.cpu;
  const page = virtualApicPage(copy);
  switch (offset) {
    case TPR:
      memory.write32(page + TPR, memory.read8(page + TPR));
      return virtualizeTpr(p, copy);
    case EOI:
      if (!isOn(copy, p.capabilities, VIRTUAL_INTERRUPT_DELIVERY)) return apicWriteExit(EOI);
      memory.write32(page + EOI, 0);
      return virtualizeEoi(p, copy);
    case ICR_LOW:
      return isOn(copy, p.capabilities, X2APIC_MODE) ? writtenIcrMsr(p, copy) : writtenIcr(p, copy);
    case SENDUIPI:
      return sentBySenduipi(p, copy);
    case SELF_IPI:
      return writtenSelfIpi(p, copy);
    default:
      if (offset < ICR_HIGH || offset >= ICR_HIGH + 4) return apicWriteExit(offset);
      memory.write32(page + ICR_HIGH, (memory.read32(page + ICR_HIGH) & 0xff00_0000) >>> 0);
      return undefined;
  }
}

/** WRMSR of the self-IPI register, which only x2APIC mode has. */
function writtenSelfIpi(p: VmxProcessor, copy: ProcessorCopy): ExitRequest | undefined {
  const vector = p.cpu.memory.read8(virtualApicPage(copy) + SELF_IPI);
  if (vector < 16) return apicWriteExit(SELF_IPI);
  virtualizeSelfIpi(p, copy, vector);
  return undefined;
}

/** What MOV from CR8 gives with "use TPR shadow": VTPR[7:4]. */
export function shadowTpr(p: VmxProcessor, copy: ProcessorCopy): number {
  return p.cpu.memory.read8(virtualApicPage(copy) + TPR) >>> 4;
}

/** MOV of `value` (0–15) to CR8 with "use TPR shadow". */
export function writeShadowTpr(p: VmxProcessor, copy: ProcessorCopy, value: number): void {
  p.cpu.memory.write32(virtualApicPage(copy) + TPR, value << 4);
  noteApicWrite(p, TPR, 4);
}
