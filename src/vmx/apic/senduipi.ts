/**
 * SENDUIPI with "use TPR shadow" (SDM §32.7): the notification is written to the interrupt-command register on the
 * virtual-APIC page, in the form that the guest's APIC mode has; what follows comes when the instruction has
 * completed.
 */
import type { ProcessorCopy } from '../../vmcs/processor-copy.ts';
import { controlRef, isOn } from '../effective-controls.ts';
import type { VmxProcessor } from '../vmx-state.ts';
import { noteApicWrite, SENDUIPI } from './apic-writes.ts';
import { ApicRegister, virtualApicPage } from './virtual-apic-page.ts';

const APIC_ACCESSES = controlRef('proc2.virtualizeApicAccesses');
const { ICR_LOW, ICR_HIGH } = ApicRegister;

/** Writes the notification `vector` for the APIC ID `destination` (bits 15:8 of it in xAPIC mode). */
export function writeSenduipi(
  p: VmxProcessor,
  copy: ProcessorCopy,
  vector: number,
  destination: number,
): void {
  const { memory } = p.cpu;
  const page = virtualApicPage(copy);
  memory.write32(page + ICR_LOW, vector);
  if (isOn(copy, p.capabilities, APIC_ACCESSES)) {
    memory.write32(page + ICR_HIGH, ((destination & 0xff00) << 16) >>> 0);
  } else memory.write32(page + ICR_LOW + 4, destination);
  noteApicWrite(p, SENDUIPI, 8);
}
