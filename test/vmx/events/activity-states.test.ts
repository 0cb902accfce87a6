import { describe, expect, it } from 'vitest';
import { firstOf, guestWith, SOURCES, type Source } from '../../support/boundary-events.ts';
import { GUEST, runToExit } from '../../support/guest.ts';

const SIPI: Source = { name: 'SIPI', arrange: ({ processor }) => processor.requestSipi(0x12) };
const ACTIVE = SOURCES.map(({ name }) => name);
const INACTIVE = ACTIVE.filter(
  (name) => !['instruction breakpoint', 'fault', 'user interrupt'].includes(name),
);
const STATES = { active: 0n, HLT: 1n, shutdown: 2n, 'wait-for-SIPI': 3n };

/** By state: what happens there. Everything else is held or, a start-up IPI, lost. */
const HAPPENS: Readonly<Record<keyof typeof STATES, readonly string[]>> = {
  active: ACTIVE,
  HLT: INACTIVE,
  shutdown: ['machine check', 'SMI', 'INIT', 'preemption timer', 'NMI window', 'NMI'],
  'wait-for-SIPI': ['SIPI'],
};
const SHUT: readonly string[] = ['shutdown', 'wait-for-SIPI'];
/** VM entry neither injects a pending MTF VM exit into these states nor enters them at CPL 3. */
const CANNOT_BE = (state: string, name: string) =>
  (name === 'monitor trap flag' && SHUT.includes(state)) || (name === 'user interrupt' && state !== 'active');

const cases = Object.entries(STATES).flatMap(([state, value]) =>
  [...SOURCES, SIPI]
    .filter(({ name }) => !CANNOT_BE(state, name))
    .map((source) => {
      const happens = HAPPENS[state as keyof typeof STATES].includes(source.name);
      return [source.name, happens ? 'happens' : 'does not happen', state, value, source, happens] as const;
    }),
);

describe('activity states (SDM §28.2, §28.5, §29.7.2–§29.7.8, §32.2.2, §32.6)', () => {
  it.each(cases)('%s %s in the state %s', (name, _, state, guestActivityState, source, happens) => {
    // A single step is pending in HLT only with TF.
    const flags = state === 'HLT' && name === 'debug trap' ? { guestRflags: 0x302n } : {};
    const cpu = guestWith([source], { guestActivityState, ...flags });
    expect(firstOf(cpu)).toBe(happens ? name : 'nothing');
    if (cpu.operation === 'root') expect(cpu.vmread('guestActivityState').value).toBe(guestActivityState);
    if (!happens) expect(cpu.get('activityState')).toBe(guestActivityState);
  });

  it.each([...INACTIVE, 'SIPI'].map((name) => [name, name === 'SIPI' ? 'is lost in' : 'ends'] as const))(
    '%s %s MWAIT, which no activity state tells',
    (name) => {
      const source = [...SOURCES, SIPI].find((one) => one.name === name) as Source;
      const flags = name === 'debug trap' ? { guestRflags: 0x302n } : {};
      const cpu = guestWith([source], flags);
      cpu.set('monitorArmed', 2n);
      expect(firstOf(cpu)).toBe(name === 'SIPI' ? 'nothing' : name);
      expect(cpu.get('monitorArmed')).toBe(name === 'SIPI' ? 2n : 0n);
      expect(cpu.get('activityState')).toBe(0n);
      if (cpu.operation === 'root') expect(cpu.vmread('guestActivityState').value).toBe(0n);
    },
  );

  const held = [...SOURCES].filter(
    ({ name }) => INACTIVE.includes(name) && !CANNOT_BE('shutdown', name) && !HAPPENS.shutdown.includes(name),
  );

  it.each(held.map((source) => [source.name, source] as const))(
    '%s that shutdown holds back happens when the guest is active again, unless VM entry loses it',
    (name, source) => {
      const cpu = guestWith([source], { guestActivityState: 2n });
      expect(firstOf(cpu)).toBe('nothing');
      // What software does about it: the guest is entered anew, active.
      cpu.processor.requestInit();
      runToExit(cpu);
      expect(cpu.vmread('exitReason').value).toBe(3n);
      cpu.vmwrite('guestActivityState', 0n);
      expect(cpu.vmresume().kind).toBe('VMentry');
      expect(cpu.get('RIP')).toBe(BigInt(GUEST));
      expect(firstOf(cpu)).toBe(name === 'debug trap' ? 'nothing' : name);
    },
  );
});
