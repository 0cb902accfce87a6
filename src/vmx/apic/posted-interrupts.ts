/**
 * Posted interrupts (SDM §32.1.6.1, §32.6): the descriptor, posting into it and processing it. Each
 * step is atomic because nothing else runs in between.
 */
import type { PhysicalMemory } from '../../cpu/physical-memory.ts';
import { Field } from '../../vmcs/fields.ts';
import type { ProcessorCopy } from '../../vmcs/processor-copy.ts';
import type { VmxProcessor } from '../vmx-state.ts';
import { ApicRegister, virtualApicPage } from './virtual-apic-page.ts';
import { evaluatePending } from './virtual-interrupts.ts';

/** Words of a descriptor from its start: eight of requests (PIR), then these. */
const REQUEST_WORDS = 8;
const CONTROL = 32;
/** Notification vector (NV), in bits 23:16 of the word after the first half of which bits 0 and 1 are ON and SN. */
const DESTINATION = 36;
const OUTSTANDING = 1;
const SUPPRESSED = 2;
const { IRR } = ApicRegister;

/** A notification to be sent: the vector NV to the APIC ID NDST. */
export interface Notification {
  readonly vector: number;
  readonly destination: number;
}

/** Posts `vector` into the descriptor at `address`; the notification that has to be sent, if any. */
export function post(memory: PhysicalMemory, address: number, vector: number): Notification | undefined {
  const word = address + 4 * (vector >>> 5);
  memory.write32(word, (memory.read32(word) | (1 << (vector & 31))) >>> 0);
  const control = memory.read32(address + CONTROL);
  if ((control & (OUTSTANDING | SUPPRESSED)) !== 0) return undefined;
  memory.write32(address + CONTROL, (control | OUTSTANDING) >>> 0);
  return { vector: (control >>> 16) & 0xff, destination: memory.read32(address + DESTINATION) };
}

/** "Process posted interrupts": `vector` is the notification vector of the VMCS. */
export function isNotification(copy: ProcessorCopy, vector: number): boolean {
  return ((copy.words[2 * Field.postedInterruptNotificationVector] as number) & 0xff) === vector;
}

/** Posted-interrupt processing once the notification has been acknowledged. */
export function processPosted(p: VmxProcessor, copy: ProcessorCopy): void {
  const { vmx, cpu } = p;
  const { memory } = cpu;
  const descriptor = Number(copy.quads[Field.postedInterruptDescriptorAddress]);
  memory.write32(descriptor + CONTROL, (memory.read32(descriptor + CONTROL) & ~OUTSTANDING) >>> 0);
  cpu.localApic.writeEoi();
  const page = virtualApicPage(copy);
  for (let n = 0; n < REQUEST_WORDS; n++) {
    const requests = memory.read32(descriptor + 4 * n);
    if (requests === 0) continue;
    memory.write32(descriptor + 4 * n, 0);
    const virr = page + IRR + 16 * n;
    memory.write32(virr, (memory.read32(virr) | requests) >>> 0);
    vmx.rvi = Math.max(vmx.rvi, 32 * n + 31 - Math.clz32(requests));
  }
  evaluatePending(p, copy);
}
