/** Delivery of events (SDM vol. 3A chapter 7). */
import type { Processor } from './processor.ts';

/** Delivers the exception that was raised last; RIP is that of the instruction which raised it. */
export function deliverFault(cpu: Processor): void {
  cpu.write('activityState', 2n);
  cpu.requestAttention(256);
}
