/**
 * The CPU set against a small abstract model of SDM §27.1 and §27.11: software that obeys the manual
 * cannot tell which flush policy runs, loses no VMWRITE, and breaks no rule.
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { LogicalProcessor } from '../../src/machine/logical-processor.ts';
import { Machine } from '../../src/machine/machine.ts';
import { type FieldName, fieldOf } from '../../src/vmcs/fields.ts';
import type { FlushPolicy } from '../../src/vmcs/processor-copy.ts';
import { HAZARDS } from '../../src/vmx/hazards/hazard-list.ts';
import {
  enterRoot,
  freshRegion,
  legalValues,
  NO_POINTER,
  succeeds,
  vmcsRegion,
  vmxonRegion,
  writeAllFields,
} from '../support/machine.ts';
import { runs } from './settings.ts';

/** Fields that commands write: of every width, and none that a VM exit or a legal entry depends on. */
const WRITTEN_FIELDS: readonly FieldName[] = [
  'cr3TargetValue0',
  'tscOffset',
  'executiveVmcsPointer',
  'exceptionBitmap',
  'guestIa32SysenterCs',
  'cr0GuestHostMask',
  'ioBitmapAAddress',
  'postedInterruptNotificationVector',
  'pageFaultErrorCodeMask',
];

type LaunchStateName = 'clear' | 'launched';

interface ModelVmcs {
  /** Processor on which it is active, or undefined. */
  on: number | undefined;
  state: LaunchStateName;
  initialised: boolean;
  readonly fields: Map<FieldName, bigint>;
}

class Model {
  readonly current: (number | undefined)[];
  readonly nonRoot: boolean[];
  readonly inVmx: boolean[];
  readonly vmcss: ModelVmcs[];

  constructor(cpus: number, vmcss: number) {
    this.current = Array.from({ length: cpus }, () => undefined);
    this.nonRoot = Array.from({ length: cpus }, () => false);
    this.inVmx = Array.from({ length: cpus }, () => true);
    this.vmcss = Array.from({ length: vmcss }, () => ({
      on: undefined,
      state: 'clear',
      initialised: false,
      fields: new Map(),
    }));
  }

  get cpus(): number {
    return this.current.length;
  }

  inRoot(cpu: number): boolean {
    return cpu < this.cpus && this.inVmx[cpu] === true && this.nonRoot[cpu] === false;
  }

  activeOn(cpu: number): number[] {
    return this.vmcss.flatMap((v, i) => (v.on === cpu ? [i] : []));
  }
}

interface Real {
  readonly machine: Machine;
}

function maskOf(name: FieldName): bigint {
  return (1n << BigInt(fieldOf(name).bits)) - 1n;
}

/** What software can see of a processor agrees with the model. */
function agree(model: Model, real: Real): void {
  for (let i = 0; i < model.cpus; i++) {
    const cpu = real.machine.cpu(i);
    const current = model.current[i];
    expect(cpu.currentVmcs).toBe(current === undefined ? undefined : vmcsRegion(current));
    expect([...cpu.activeVmcss].sort()).toEqual(model.activeOn(i).map(vmcsRegion).sort());
    if (current !== undefined) expect(model.vmcss[current]?.on).toBe(i);
    const operation = model.inVmx[i] ? (model.nonRoot[i] ? 'non-root' : 'root') : 'outside';
    expect(cpu.operation).toBe(operation);
  }
}

abstract class Step implements fc.Command<Model, Real> {
  protected readonly cpu: number;
  protected readonly vmcs: number;

  constructor(cpu: number, vmcs = 0) {
    this.cpu = cpu;
    this.vmcs = vmcs;
  }

  abstract allowed(model: Model): boolean;
  abstract act(model: Model, cpu: LogicalProcessor): void;

  check(model: Readonly<Model>): boolean {
    return this.cpu < model.cpus && this.vmcs < model.vmcss.length && this.allowed(model);
  }

  run(model: Model, real: Real): void {
    this.act(model, real.machine.cpu(this.cpu));
    agree(model, real);
  }

  toString(): string {
    return `${this.constructor.name}(cpu ${this.cpu}, vmcs ${this.vmcs})`;
  }

  protected target(model: Model): ModelVmcs {
    return model.vmcss[this.vmcs] as ModelVmcs;
  }

  protected currentOf(model: Model): ModelVmcs | undefined {
    const index = model.current[this.cpu];
    return index === undefined ? undefined : model.vmcss[index];
  }
}

/** VMCLEAR where the manual allows it: of a VMCS that is active here or nowhere. */
class Vmclear extends Step {
  allowed(m: Model): boolean {
    const { on } = this.target(m);
    return m.inRoot(this.cpu) && (on === undefined || on === this.cpu);
  }

  act(m: Model, cpu: LogicalProcessor): void {
    const vmcs = this.target(m);
    succeeds(cpu.vmclear(BigInt(vmcsRegion(this.vmcs))));
    vmcs.on = undefined;
    vmcs.state = 'clear';
    if (m.current[this.cpu] === this.vmcs) m.current[this.cpu] = undefined;
  }
}

/** First use of a region: revision, VMCLEAR, VMPTRLD, every field. */
class Initialise extends Step {
  allowed(m: Model): boolean {
    return m.inRoot(this.cpu) && !this.target(m).initialised;
  }

  act(m: Model, cpu: LogicalProcessor): void {
    const vmcs = this.target(m);
    const address = vmcsRegion(this.vmcs);
    freshRegion(cpu, address);
    succeeds(cpu.vmptrld(BigInt(address)));
    const values = legalValues(cpu);
    writeAllFields(cpu, values);
    for (const name of WRITTEN_FIELDS) vmcs.fields.set(name, values[name] ?? 0n);
    vmcs.initialised = true;
    vmcs.on = this.cpu;
    m.current[this.cpu] = this.vmcs;
  }
}

class Vmptrld extends Step {
  allowed(m: Model): boolean {
    const { on, initialised } = this.target(m);
    return m.inRoot(this.cpu) && initialised && (on === undefined || on === this.cpu);
  }

  act(m: Model, cpu: LogicalProcessor): void {
    succeeds(cpu.vmptrld(BigInt(vmcsRegion(this.vmcs))));
    this.target(m).on = this.cpu;
    m.current[this.cpu] = this.vmcs;
  }
}

/** VMCLEAR on the processor that has it, VMPTRLD here. */
class Migrate extends Step {
  allowed(m: Model): boolean {
    const { on, initialised } = this.target(m);
    return initialised && m.inRoot(this.cpu) && on !== undefined && on !== this.cpu && m.inRoot(on);
  }

  override run(m: Model, real: Real): void {
    const from = this.target(m).on as number;
    new Vmclear(from, this.vmcs).run(m, real);
    new Vmptrld(this.cpu, this.vmcs).run(m, real);
  }

  act(): void {}
}

class Vmwrite extends Step {
  readonly #field: FieldName;
  readonly #value: bigint;
  readonly #fast: boolean;

  constructor(cpu: number, field: FieldName, value: bigint, fast: boolean) {
    super(cpu);
    this.#field = field;
    this.#value = value;
    this.#fast = fast;
  }

  allowed(m: Model): boolean {
    return m.inRoot(this.cpu);
  }

  act(m: Model, cpu: LogicalProcessor): void {
    const vmcs = this.currentOf(m);
    cpu.set('RBX', BigInt(fieldOf(this.#field).encoding));
    cpu.set('RCX', this.#value);
    const outcome = this.#fast ? cpu.vmwriteRegister(3, 1) : cpu.vmwrite(this.#field, this.#value);
    expect(outcome.kind).toBe(vmcs === undefined ? 'VMfailInvalid' : 'VMsucceed');
    vmcs?.fields.set(this.#field, this.#value & maskOf(this.#field));
  }

  override toString(): string {
    return `VMWRITE(cpu ${this.cpu}, ${this.#field}, ${this.#value}${this.#fast ? ', registers' : ''})`;
  }
}

class VmreadAll extends Step {
  allowed(m: Model): boolean {
    return m.inRoot(this.cpu);
  }

  act(m: Model, cpu: LogicalProcessor): void {
    const vmcs = this.currentOf(m);
    if (vmcs === undefined) {
      expect(cpu.vmread('guestRip').outcome.kind).toBe('VMfailInvalid');
      return;
    }
    for (const [name, value] of vmcs.fields) {
      expect(cpu.vmread(name), name).toEqual({ outcome: { kind: 'VMsucceed' }, value });
      cpu.set('RBX', BigInt(fieldOf(name).encoding));
      succeeds(cpu.vmreadRegister(3, 2));
      expect(cpu.get('RDX'), name).toBe(value);
      const { highEncoding } = fieldOf(name);
      if (highEncoding !== undefined) expect(cpu.vmread(highEncoding).value).toBe(value >> 32n);
    }
  }
}

class Enter extends Step {
  readonly #instruction: 'VMLAUNCH' | 'VMRESUME';

  constructor(cpu: number, instruction: 'VMLAUNCH' | 'VMRESUME') {
    super(cpu);
    this.#instruction = instruction;
  }

  allowed(m: Model): boolean {
    return m.inRoot(this.cpu);
  }

  act(m: Model, cpu: LogicalProcessor): void {
    const vmcs = this.currentOf(m);
    const launch = this.#instruction === 'VMLAUNCH';
    const outcome = launch ? cpu.vmlaunch() : cpu.vmresume();
    if (vmcs === undefined) expect(outcome.kind).toBe('VMfailInvalid');
    else if (vmcs.state !== (launch ? 'clear' : 'launched')) {
      expect(outcome).toEqual({ kind: 'VMfailValid', error: launch ? 4 : 5 });
    } else {
      expect(outcome).toEqual({ kind: 'VMentry' });
      vmcs.state = 'launched';
      m.nonRoot[this.cpu] = true;
    }
  }

  override toString(): string {
    return `${this.#instruction}(cpu ${this.cpu})`;
  }
}

class Exit extends Step {
  allowed(m: Model): boolean {
    return m.nonRoot[this.cpu] === true;
  }

  act(m: Model, cpu: LogicalProcessor): void {
    expect(cpu.vmexit({ reason: 10, instructionLength: 2 })).toEqual({ kind: 'VMexit', reason: 10 });
    m.nonRoot[this.cpu] = false;
  }
}

class Vmptrst extends Step {
  allowed(m: Model): boolean {
    return m.inRoot(this.cpu);
  }

  act(m: Model, cpu: LogicalProcessor): void {
    const current = m.current[this.cpu];
    const pointer = current === undefined ? NO_POINTER : BigInt(vmcsRegion(current));
    expect(cpu.vmptrst()).toEqual({ outcome: { kind: 'VMsucceed' }, pointer });
  }
}

/** VMXOFF as §27.11.1 wants it, and VMXON again. */
class OffAndOn extends Step {
  allowed(m: Model): boolean {
    return m.inRoot(this.cpu);
  }

  act(m: Model, cpu: LogicalProcessor): void {
    for (const index of m.activeOn(this.cpu)) {
      succeeds(cpu.vmclear(BigInt(vmcsRegion(index))));
      const vmcs = m.vmcss[index] as ModelVmcs;
      vmcs.on = undefined;
      vmcs.state = 'clear';
    }
    m.current[this.cpu] = undefined;
    succeeds(cpu.vmxoff());
    expect(cpu.operation).toBe('outside');
    succeeds(cpu.vmxon(BigInt(vmxonRegion(this.cpu))));
  }
}

/** Instructions that must fail and may change nothing but RFLAGS and the error field. */
class Failing extends Step {
  readonly #which: number;

  constructor(cpu: number, which: number) {
    super(cpu);
    this.#which = which;
  }

  allowed(m: Model): boolean {
    return m.inRoot(this.cpu);
  }

  act(m: Model, cpu: LogicalProcessor): void {
    const attempts: readonly (readonly [() => unknown, number])[] = [
      [() => cpu.vmclear(1n), 2],
      [() => cpu.vmclear(BigInt(vmxonRegion(this.cpu))), 3],
      [() => cpu.vmptrld(1n << 60n), 9],
      [() => cpu.vmptrld(BigInt(vmxonRegion(this.cpu))), 10],
      [() => cpu.vmptrld(0x70_0000n), 11],
      [() => cpu.vmread(0x7ffe).outcome, 12],
      [() => cpu.vmwrite(0x7ffe, 1n), 12],
      [() => cpu.vmxon(0n), 15],
      [() => cpu.vmcall(), 1],
      [() => cpu.invept(7, 0n), 28],
    ];
    const [attempt, error] = attempts[this.#which % attempts.length] as (typeof attempts)[number];
    const current = m.current[this.cpu];
    expect(attempt()).toEqual(
      current === undefined ? { kind: 'VMfailInvalid' } : { kind: 'VMfailValid', error },
    );
    if (current !== undefined) expect(cpu.vmread('vmInstructionError').value).toBe(BigInt(error));
  }
}

const CPUS = 4;
const VMCSS = 5;
const cpuIndex = fc.nat({ max: CPUS - 1 });
const vmcsIndex = fc.nat({ max: VMCSS - 1 });
const policy = fc.constantFrom<FlushPolicy>('at-vmclear', 'write-through', 'seeded');
const field = fc.constantFrom(...WRITTEN_FIELDS);
const value = fc.bigInt({ min: 0n, max: NO_POINTER });

const STEPS: fc.Arbitrary<fc.Command<Model, Real>>[] = [
  fc.tuple(cpuIndex, vmcsIndex).map(([c, v]) => new Initialise(c, v)),
  fc.tuple(cpuIndex, vmcsIndex).map(([c, v]) => new Vmclear(c, v)),
  fc.tuple(cpuIndex, vmcsIndex).map(([c, v]) => new Vmptrld(c, v)),
  fc.tuple(cpuIndex, vmcsIndex).map(([c, v]) => new Migrate(c, v)),
  fc.tuple(cpuIndex, field, value, fc.boolean()).map(([c, f, v, b]) => new Vmwrite(c, f, v, b)),
  cpuIndex.map((c) => new VmreadAll(c)),
  cpuIndex.map((c) => new Vmptrst(c)),
  cpuIndex.map((c) => new Enter(c, 'VMLAUNCH')),
  cpuIndex.map((c) => new Enter(c, 'VMRESUME')),
  cpuIndex.map((c) => new Exit(c)),
  cpuIndex.map((c) => new OffAndOn(c)),
  fc.tuple(cpuIndex, fc.nat({ max: 9 })).map(([c, w]) => new Failing(c, w)),
];

interface Setup {
  readonly cpus: number;
  readonly policies: readonly FlushPolicy[];
  readonly seed: number;
}

const setup: fc.Arbitrary<Setup> = fc.record({
  cpus: fc.integer({ min: 2, max: CPUS }),
  policies: fc.array(policy, { minLength: CPUS, maxLength: CPUS }),
  seed: fc.nat(),
});

function start({ cpus, policies, seed }: Setup): Real {
  const machine = new Machine({ cpus, seed, flushPolicy: policies.slice(0, cpus) });
  for (const cpu of machine.processors) enterRoot(cpu);
  return { machine };
}

function play(commands: Iterable<fc.Command<Model, Real>>, how: Setup): Real {
  const real = start(how);
  fc.modelRun(() => ({ model: new Model(how.cpus, VMCSS), real }), commands);
  return real;
}

describe('properties of the CPU set', () => {
  it('obedient software sees the abstract model under every mix of flush policies, and breaks no rule', () => {
    fc.assert(
      fc.property(fc.commands(STEPS, { maxCommands: 120, size: 'max' }), setup, (commands, how) => {
        const { machine } = play(commands, how);
        expect(machine.hazards.filter((h) => HAZARDS[h.id].kind === 'undefined')).toEqual([]);
      }),
      runs(60),
    );
  });

  it('no VMWRITE is lost: after every VMCS was cleared, any processor reads what was written', () => {
    fc.assert(
      fc.property(
        fc.commands(STEPS, { maxCommands: 60, size: 'max' }),
        setup,
        cpuIndex,
        (commands, how, on) => {
          const real = start(how);
          const model = new Model(how.cpus, VMCSS);
          fc.modelRun(() => ({ model, real }), commands);
          for (let i = 0; i < how.cpus; i++) if (model.nonRoot[i]) new Exit(i).run(model, real);
          for (let i = 0; i < how.cpus; i++) new OffAndOn(i).run(model, real);
          const reader = on % how.cpus;
          model.vmcss.forEach((vmcs, index) => {
            if (!vmcs.initialised) return;
            new Vmptrld(reader, index).run(model, real);
            new VmreadAll(reader).run(model, real);
          });
        },
      ),
      runs(60),
    );
  });

  it('a snapshot restores bit for bit, and the same commands then give the same end', () => {
    const commands = fc.commands(STEPS, { maxCommands: 40, size: 'max' });
    fc.assert(
      fc.property(
        commands,
        fc.array(fc.nat({ max: 1000 }), { maxLength: 40 }),
        setup,
        (first, later, how) => {
          const { machine } = play(first, how);
          const kept = machine.snapshot();
          const again = machine.snapshot();
          const tail = () => later.map((draw) => disobey(machine, draw));
          const outcomes = tail();
          const end = machine.snapshot();
          expect(kept).toEqual(again);
          machine.restore(kept);
          expect(machine.snapshot()).toEqual(again);
          expect(tail()).toEqual(outcomes);
          expect(machine.snapshot()).toEqual(end);
          const twin = start(how).machine;
          twin.restore(kept);
          expect(twin.snapshot()).toEqual(again);
        },
      ),
      runs(40),
    );
  });

  it('the same options and commands give the same machine', () => {
    fc.assert(
      fc.property(fc.array(fc.nat({ max: 1000 }), { maxLength: 60 }), setup, (draws, how) => {
        const one = start(how).machine;
        const two = start(how).machine;
        for (const draw of draws) expect(disobey(one, draw)).toEqual(disobey(two, draw));
        expect(one.snapshot()).toEqual(two.snapshot());
      }),
      runs(30),
    );
  });
});

/** Some instruction, allowed or not. */
function disobey(machine: Machine, draw: number): unknown {
  const cpu = machine.cpu(draw % machine.processors.length);
  const pointer = BigInt(vmcsRegion((draw >> 2) % VMCSS));
  switch ((draw >> 4) % 12) {
    case 0:
      return cpu.vmclear(pointer);
    case 1:
      return cpu.vmptrld(pointer);
    case 2:
      return cpu.vmwrite('tscOffset', BigInt(draw));
    case 3:
      return cpu.vmread('tscOffset');
    case 4:
      return cpu.vmlaunch();
    case 5:
      return cpu.vmresume();
    case 6:
      return cpu.operation === 'non-root' ? cpu.vmexit({ reason: 10, instructionLength: 2 }) : cpu.vmptrst();
    case 7:
      return draw % 3 === 0 ? cpu.vmxoff() : cpu.vmxon(BigInt(vmxonRegion(cpu.index)));
    case 8:
      return cpu.store64(Number(pointer) + 8 * (draw % 512), BigInt(draw));
    case 9:
      return cpu.load64(Number(pointer) + 8 * (draw % 512));
    case 10:
      return cpu.vmwrite('hostCr0', BigInt(draw));
    default:
      return cpu.vmwriteRegister(draw & 15, (draw >> 1) & 15);
  }
}
