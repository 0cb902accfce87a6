/** Every hazard: a scenario that breaks the rule and is reported, and one that obeys and is not. */
import { describe, expect, it } from 'vitest';
import type { Machine, MachineOptions } from '../../../src/machine/machine.ts';
import { findField } from '../../../src/vmcs/field-names.ts';
import { HAZARDS, type HazardId, SOFTWARE_USE_RULES } from '../../../src/vmx/hazards/hazard-list.ts';
import {
  freshRegion,
  launchable,
  launched,
  legalValues,
  rootMachine,
  setMode,
  succeeds,
  vmcsRegion,
  vmxonRegion,
  writeRevision,
} from '../../support/machine.ts';

const A = vmcsRegion(0);
const B = vmcsRegion(1);
const a = BigInt(A);
const b = BigInt(B);
const BITMAP = 0x40_0000;
const CPUID_EXIT = { reason: 10, instructionLength: 2 } as const;

interface Scenario {
  /** Runs up to the mistake. */
  readonly before: (m: Machine) => void;
  readonly mistake: (m: Machine) => unknown;
  /** What obedient software does instead of the mistake, from the same point. */
  readonly obedient: (m: Machine) => unknown;
  readonly cpu: number;
  readonly instruction: string;
  readonly address: number;
}

function current(m: Machine, cpu = 0): void {
  freshRegion(m.cpu(cpu), A);
  succeeds(m.cpu(cpu).vmptrld(a));
}

function linked(m: Machine): void {
  freshRegion(m.cpu(0), B, true);
  succeeds(m.cpu(0).vmptrld(b));
  const fields = {
    vmcsLinkPointer: b,
    vmreadBitmapAddress: BigInt(BITMAP),
    vmwriteBitmapAddress: BigInt(BITMAP),
  };
  launchable(m.cpu(1), A, fields, ['proc2.vmcsShadowing']);
}

const SCENARIOS: Record<HazardId, Scenario> = {
  'vmcs.active-elsewhere': {
    before: (m) => current(m),
    mistake: (m) => m.cpu(1).vmptrld(a),
    obedient: (m) => [m.cpu(0).vmclear(a), m.cpu(1).vmptrld(a)],
    cpu: 1,
    instruction: 'VMPTRLD',
    address: A,
  },
  'vmcs.vmclear-elsewhere': {
    before: (m) => current(m),
    mistake: (m) => m.cpu(1).vmclear(a),
    obedient: (m) => [m.cpu(0).vmclear(a), m.cpu(1).vmclear(a)],
    cpu: 1,
    instruction: 'VMCLEAR',
    address: A,
  },
  'vmcs.shadow-active-elsewhere': {
    before: linked,
    mistake: (m) => m.cpu(1).vmlaunch(),
    obedient: (m) => [m.cpu(0).vmclear(b), m.cpu(1).vmlaunch()],
    cpu: 1,
    instruction: 'VMLAUNCH',
    address: B,
  },
  'vmcs.shadow-indicator-changed': {
    before: (m) => current(m),
    mistake: (m) => writeRevision(m.cpu(0), A, true),
    obedient: (m) => [m.cpu(0).vmclear(a), writeRevision(m.cpu(0), A, true)],
    cpu: 0,
    instruction: 'store',
    address: A,
  },
  'vmcs.memory-read': {
    before: (m) => current(m),
    mistake: (m) => m.cpu(0).load64(A + 64),
    obedient: (m) => [m.cpu(0).load64(A), m.cpu(0).vmclear(a), m.cpu(0).load64(A + 64)],
    cpu: 0,
    instruction: 'load',
    address: A,
  },
  'vmcs.memory-write': {
    before: (m) => current(m),
    mistake: (m) => m.cpu(1).store32(A + 4092, 1),
    obedient: (m) => m.cpu(0).store32(A + 4, 0),
    cpu: 1,
    instruction: 'store',
    address: A,
  },
  'vmcs.format-dependence': {
    before: (m) => freshRegion(m.cpu(0), A),
    mistake: (m) => m.cpu(0).store64(A + 16, 1n),
    obedient: (m) => [m.cpu(0).store32(A + 4, 1), writeRevision(m.cpu(0), A)],
    cpu: 0,
    instruction: 'store',
    address: A,
  },
  'vmcs.left-active': {
    before: (m) => current(m),
    mistake: (m) => m.cpu(0).vmxoff(),
    obedient: (m) => [m.cpu(0).vmclear(a), m.cpu(0).vmxoff()],
    cpu: 0,
    instruction: 'VMXOFF',
    address: A,
  },
  'vmcs.power-removed': {
    before: (m) => current(m),
    mistake: (m) => m.cpu(0).reset(),
    obedient: (m) => [m.cpu(0).vmclear(a), m.cpu(0).reset()],
    cpu: 0,
    instruction: 'RESET',
    address: A,
  },
  'vmcs.corrupted-use': {
    before: (m) => {
      current(m);
      m.cpu(0).vmxoff();
    },
    mistake: (m) => m.cpu(1).vmptrld(a),
    obedient: (m) => launched(m.cpu(1), B),
    cpu: 1,
    instruction: 'VMPTRLD',
    address: A,
  },
  'vmcs.uninitialised-field': {
    before: (m) => {
      const cpu = m.cpu(0);
      current(m);
      const written = Object.entries(legalValues(cpu));
      for (const [name, value] of written) succeeds(cpu.vmwrite(name, value));
      const zeros = cpu.capabilities.fieldExists;
      m.processors[0]?.unit.active.get(A)?.written.fill(1, 0, zeros.length);
      const slot = findField('hostRip')?.field.slot as number;
      m.processors[0]?.unit.active.get(A)?.written.fill(0, slot, slot + 1);
    },
    mistake: (m) => m.cpu(0).vmlaunch(),
    obedient: (m) => [m.cpu(0).vmwrite('hostRip', 0n), m.cpu(0).vmlaunch()],
    cpu: 0,
    instruction: 'VMLAUNCH',
    address: A,
  },
  'vmcs.not-cleared': {
    before: (m) => writeRevision(m.cpu(0), A),
    mistake: (m) => m.cpu(0).vmptrld(a),
    obedient: (m) => [m.cpu(0).vmclear(a), m.cpu(0).vmptrld(a)],
    cpu: 0,
    instruction: 'VMPTRLD',
    address: A,
  },
  'vmcs.needless-migration': {
    before: (m) => {
      launched(m.cpu(0), A);
      m.cpu(0).vmexit(CPUID_EXIT);
    },
    mistake: (m) => [m.cpu(0).vmclear(a), m.cpu(0).vmptrld(a), m.cpu(0).vmlaunch()],
    obedient: (m) => m.cpu(0).vmresume(),
    cpu: 0,
    instruction: 'VMLAUNCH',
    address: A,
  },
  'vmcs.region-overwritten': {
    before: (m) => {
      succeeds(m.cpu(1).vmxoff());
      current(m);
    },
    mistake: (m) => m.cpu(1).vmxon(a),
    obedient: (m) => m.cpu(1).vmxon(BigInt(vmxonRegion(1))),
    cpu: 1,
    instruction: 'VMXON',
    address: A,
  },
  'structure.modified-in-use': {
    before: (m) => {
      launched(m.cpu(0), A, { msrBitmapAddress: BigInt(BITMAP) }, ['proc.useMsrBitmaps']);
    },
    mistake: (m) => m.cpu(1).store32(BITMAP + 4092, 1),
    obedient: (m) => [
      m.cpu(1).store32(BITMAP + 4096, 1),
      m.cpu(1).load32(BITMAP),
      m.cpu(0).vmexit(CPUID_EXIT),
      m.cpu(1).store32(BITMAP, 1),
    ],
    cpu: 1,
    instruction: 'store',
    address: BITMAP,
  },
  'vmxon.region-shared': {
    before: (m) => succeeds(m.cpu(1).vmxoff()),
    mistake: (m) => m.cpu(1).vmxon(BigInt(vmxonRegion(0))),
    obedient: (m) => m.cpu(1).vmxon(BigInt(vmxonRegion(1))),
    cpu: 1,
    instruction: 'VMXON',
    address: vmxonRegion(0),
  },
  'vmxon.memory-access': {
    before: () => undefined,
    mistake: (m) => m.cpu(1).store32(vmxonRegion(0) + 8, 1),
    obedient: (m) => [m.cpu(0).vmxoff(), m.cpu(1).store32(vmxonRegion(0) + 8, 1)],
    cpu: 1,
    instruction: 'store',
    address: vmxonRegion(0),
  },
  'msr-area.too-long': {
    before: (m) => {
      const maximum = m.cpu(0).capabilities.msrListMaximum;
      // IA32_SYSENTER_CS, again and again.
      for (let i = 0; i <= maximum; i++) m.memory.write64(0x50_0000 + 16 * i, 0x174n);
      const area = { vmEntryMsrLoadAddress: 0x50_0000n, vmEntryMsrLoadCount: BigInt(maximum + 1) };
      launchable(m.cpu(0), A, area);
    },
    mistake: (m) => m.cpu(0).vmlaunch(),
    obedient: (m) => [
      m.cpu(0).vmwrite('vmEntryMsrLoadCount', m.cpu(0).capabilities.msrListMaximum),
      m.cpu(0).vmlaunch(),
    ],
    cpu: 0,
    instruction: 'VM-entry MSR-load',
    address: A,
  },
  'msr-area.spec-ctrl': {
    before: (m) => {
      m.memory.write64(0x50_0000, 0x48n);
      const area = { vmEntryMsrLoadAddress: 0x50_0000n, vmEntryMsrLoadCount: 1n };
      launchable(m.cpu(0), A, area, ['proc3.virtualizeIa32SpecCtrl']);
    },
    mistake: (m) => m.cpu(0).vmlaunch(),
    obedient: (m) => [m.cpu(0).vmwrite('vmEntryMsrLoadCount', 0n), m.cpu(0).vmlaunch()],
    cpu: 0,
    instruction: 'VM-entry MSR-load',
    address: A,
  },
  'vmwrite.high-before-full': {
    before: (m) => {
      current(m);
      setMode(m.cpu(0), 'protected');
      succeeds(m.cpu(0).vmwrite(0x2011, 1n));
    },
    mistake: (m) => m.cpu(0).vmwrite(0x2010, 1n),
    obedient: (m) => [setMode(m.cpu(0), '64-bit'), m.cpu(0).vmwrite(0x2010, 1n)],
    cpu: 0,
    instruction: 'VMWRITE',
    address: A,
  },
};

function prepared(scenario: Scenario, options: MachineOptions = {}): Machine {
  const machine = rootMachine({ cpus: 2, ...options });
  scenario.before(machine);
  return machine;
}

describe.each(Object.entries(SCENARIOS) as [HazardId, Scenario][])('%s', (id, scenario) => {
  it('is reported, and nothing else, with CPU, instruction and address', () => {
    const machine = prepared(scenario);
    const earlier = machine.hazards.length;
    scenario.mistake(machine);
    const reports = machine.hazards.slice(earlier);
    expect(reports.map((h) => h.id)).toEqual([id]);
    expect(reports[0]).toMatchObject({
      cpu: scenario.cpu,
      instruction: scenario.instruction,
      address: scenario.address,
    });
    expect(reports[0]?.detail).not.toBe('');
    expect(machine.hazardCount).toBe(machine.hazards.length);
  });

  it('is not reported of software that obeys', () => {
    const machine = prepared(scenario);
    const earlier = machine.hazards.length;
    scenario.obedient(machine);
    expect(machine.hazards.slice(earlier)).toEqual([]);
  });

  it('is not reported by a machine that ignores hazards', () => {
    const machine = prepared(scenario, { hazards: 'ignore' });
    scenario.mistake(machine);
    expect(machine.hazards).toEqual([]);
    expect(machine.stoppedAt).toBeUndefined();
  });

  it('stops a machine that stops at undefined behaviour, and only then', () => {
    const machine = prepared(scenario, { hazards: 'stop' });
    // The preparation of a use of a corrupted VMCS is a mistake itself.
    if (id === 'vmcs.corrupted-use') {
      expect(machine.stoppedAt).toMatchObject({ id: 'vmcs.left-active' });
      return;
    }
    expect(machine.stoppedAt).toBeUndefined();
    scenario.mistake(machine);
    if (HAZARDS[id].kind === 'lint') {
      expect(machine.stoppedAt).toBeUndefined();
      return;
    }
    expect(machine.stoppedAt).toMatchObject({ id });
    const before = machine.snapshot();
    for (const cpu of machine.processors) {
      const notExecuted = { kind: 'notExecuted', because: 'hazard' };
      expect(cpu.vmclear(b)).toEqual(notExecuted);
      expect(cpu.vmptrld(b)).toEqual(notExecuted);
      expect(cpu.vmread('guestRip').outcome).toEqual(notExecuted);
      expect(cpu.vmlaunch()).toEqual(notExecuted);
    }
    expect(machine.snapshot()).toEqual(before);
  });
});

describe('the list of hazards', () => {
  it('covers the software-use rules UB-01 to UB-30 of the reference and names only hazards there are', () => {
    const rules = Array.from({ length: 30 }, (_, i) => `UB-${String(i + 1).padStart(2, '0')}`);
    expect(Object.keys(SOFTWARE_USE_RULES)).toEqual(rules);
    for (const [rule, coverage] of Object.entries(SOFTWARE_USE_RULES)) {
      if (typeof coverage === 'string') expect(coverage, rule).not.toBe('');
      else for (const id of coverage) expect(Object.keys(HAZARDS), rule).toContain(id);
    }
  });

  it('a VMCS that may be corrupted is sound again after VMCLEAR once every field is written again', () => {
    const machine = rootMachine({ cpus: 2 });
    const [one, two] = [machine.cpu(0), machine.cpu(1)];
    launchable(one, A);
    succeeds(one.vmxoff());
    succeeds(two.vmclear(a));
    succeeds(two.vmptrld(a));
    expect(machine.hazards.map((h) => h.id)).toEqual(['vmcs.left-active']);
    two.vmlaunch();
    expect(machine.hazards.map((h) => h.id)).toEqual(['vmcs.left-active', 'vmcs.corrupted-use']);
    expect(machine.hazards[1]?.detail).toContain('was active on CPU 0 at VMXOFF');
    launchable(two, A);
    expect(two.vmlaunch().kind).toBe('VMentry');
    two.vmexit(CPUID_EXIT);
    succeeds(two.vmclear(a));
    succeeds(two.vmptrld(a));
    expect(machine.hazards).toHaveLength(2);
  });

  it('and not while another processor still holds data of it', () => {
    const machine = rootMachine({ cpus: 2 });
    const [one, two] = [machine.cpu(0), machine.cpu(1)];
    current(machine);
    succeeds(two.vmptrld(a));
    succeeds(two.vmclear(a));
    succeeds(two.vmptrld(a));
    expect(machine.hazards.map((h) => h.id)).toEqual(['vmcs.active-elsewhere', 'vmcs.corrupted-use']);
    succeeds(two.vmclear(a));
    succeeds(one.vmclear(a));
    succeeds(two.vmptrld(a));
    expect(machine.hazards).toHaveLength(2);
  });

  it('the PID-pointer table of a running guest is watched to its last entry', () => {
    const machine = rootMachine();
    const cpu = machine.cpu(0);
    const fields = {
      pidPointerTableAddress: BigInt(BITMAP),
      lastPidPointerIndex: 2n,
      virtualApicAddress: 0x50_0000n,
    };
    launched(cpu, A, fields, ['proc.useTprShadow', 'proc3.ipiVirtualization']);
    cpu.store64(BITMAP + 24, 0n);
    expect(machine.hazards).toEqual([]);
    cpu.store64(BITMAP + 16, 0n);
    expect(machine.hazards.map((h) => h.id)).toEqual(['structure.modified-in-use']);
  });

  it('a launch that fails is no launch: trying again after a correction is no needless migration', () => {
    const machine = rootMachine();
    const cpu = machine.cpu(0);
    launchable(cpu, A, { hostCr0: 0n });
    expect(cpu.vmlaunch().kind).toBe('VMfailValid');
    succeeds(cpu.vmwrite('hostCr0', legalValues(cpu).hostCr0 as bigint));
    expect(cpu.vmlaunch().kind).toBe('VMentry');
    expect(machine.hazards).toEqual([]);
  });

  it('migration with VMCLEAR and VMLAUNCH is no hazard, there and back', () => {
    const machine = rootMachine({ cpus: 2 });
    launched(machine.cpu(0), A);
    machine.cpu(0).vmexit(CPUID_EXIT);
    for (const [from, to] of [
      [0, 1],
      [1, 0],
    ] as const) {
      succeeds(machine.cpu(from).vmclear(a));
      succeeds(machine.cpu(to).vmptrld(a));
      expect(machine.cpu(to).vmlaunch().kind).toBe('VMentry');
      machine.cpu(to).vmexit(CPUID_EXIT);
    }
    expect(machine.hazards).toEqual([]);
  });

  it('a VMCS launched again after VMXOFF and VMXON has not migrated needlessly', () => {
    const machine = rootMachine();
    const cpu = machine.cpu(0);
    launched(cpu, A);
    cpu.vmexit(CPUID_EXIT);
    succeeds(cpu.vmclear(a));
    succeeds(cpu.vmxoff());
    succeeds(cpu.vmxon(BigInt(vmxonRegion(0))));
    succeeds(cpu.vmptrld(a));
    expect(cpu.vmlaunch().kind).toBe('VMentry');
    expect(machine.hazards).toEqual([]);
  });

  it('keeps 10,000 reports and counts all', () => {
    const machine = rootMachine();
    for (let i = 0; i < 10_010; i++) machine.cpu(0).load32(vmxonRegion(0));
    expect(machine.hazards).toHaveLength(10_000);
    expect(machine.hazardCount).toBe(10_010);
  });
});
