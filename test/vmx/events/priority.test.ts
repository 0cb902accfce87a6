import { describe, expect, it } from 'vitest';
import { excludedBy, firstOf, guestWith, SAVED_RIP, SOURCES } from '../../support/boundary-events.ts';
import { GUEST } from '../../support/guest.ts';
import { eventId } from '../../support/guest-events.ts';

/** Events that the guest handles without an exit. */
const DELIVERED = ['guest timer', 'virtual interrupt', 'posted interrupt', 'user interrupt'];

describe('events of one instruction boundary (SDM vol. 3A Table 7-2; SDM §28.2, §28.5.1, §28.5.2, §29.7.3–§29.7.8)', () => {
  it.each(SOURCES.map((source) => [source.name, source] as const))('%s alone happens', (name, source) => {
    const cpu = guestWith([source]);
    expect(firstOf(cpu)).toBe(name);
    if (DELIVERED.includes(name)) expect(cpu.operation).toBe('non-root');
    else if (name === 'SMI') expect(cpu.processor.memory.read32(SAVED_RIP)).toBe(GUEST);
    else expect(cpu.vmread('guestRip').value).toBe(BigInt(GUEST));
  });

  const pairs = SOURCES.flatMap((first, n) =>
    SOURCES.slice(n + 1).map((second) => [first, second] as const),
  ).filter(([first, second]) => ![first, second].some(excludedBy([first, second])));

  it.each(pairs.map(([first, second]) => [first.name, second.name, first, second] as const))(
    '%s comes before %s',
    (name, _, first, second) => {
      for (const order of [
        [first, second],
        [second, first],
      ]) {
        const cpu = guestWith(order);
        expect(firstOf(cpu)).toBe(name);
      }
    },
  );

  it('all at once happen in this order, one after the other', () => {
    const sources = SOURCES.filter(({ name }) => !DELIVERED.includes(name));
    const cpu = guestWith(sources);
    const seen: string[] = [];
    const off = (field: 'pinBasedControls' | 'primaryProcessorBasedControls', bit: bigint) =>
      cpu.vmwrite(field, cpu.vmread(field).value & ~(1n << bit));
    // What software does about each exit before it resumes the guest.
    const after: Readonly<Record<string, () => void>> = {
      'TPR threshold': () => cpu.vmwrite('tprThreshold', 0n),
      'preemption timer': () => off('pinBasedControls', 6n),
      'NMI window': () => off('primaryProcessorBasedControls', 22n),
      'interrupt window': () => off('primaryProcessorBasedControls', 2n),
      'external interrupt': () => {
        off('pinBasedControls', 0n);
        cpu.processor.interrupts.acknowledge();
      },
    };
    for (let n = 0; n < sources.length; n++) {
      const exit = firstOf(cpu);
      seen.push(exit);
      if (exit === 'SMI') {
        cpu.run(1);
        continue;
      }
      after[exit]?.();
      if (exit === 'fault') break;
      // What the exit loses is given anew: a pending MTF exit, pending debug exceptions, DR7.
      if (n < 4) cpu.vmwrite('injectedEventIdentification', eventId(7, 0));
      if (n < 5) cpu.vmwrite('guestPendingDebugExceptions', 0x4000n);
      expect(cpu.vmresume().kind).toBe('VMentry');
      if (exit !== 'instruction breakpoint') cpu.set('DR7', 0x401n);
    }
    expect(seen).toEqual(sources.map(({ name }) => name));
  });
});
