/**
 * The physical CPU set: 1 to 256 logical processors over one physical memory, one hazard monitor and
 * snapshots of it all. Same inputs and same seed give the same result to the last bit.
 */
import { CACHING_POLICIES, type CachingPolicy } from '../cpu/caching-policy.ts';
import { PhysicalMemory } from '../cpu/physical-memory.ts';
import { STATE_BYTES } from '../cpu/state-layout.ts';
import { FLUSH_POLICIES, type FlushPolicy } from '../vmcs/processor-copy.ts';
import { type CpuProfile, capabilitiesOf, findProfile, PROFILES } from '../vmx/capabilities/profiles.ts';
import {
  HAZARD_MODES,
  type Hazard,
  type HazardMode,
  HazardMonitor,
  type HazardSnapshot,
} from '../vmx/hazards/hazard-monitor.ts';
import { type StaleTranslation, StaleTranslations } from '../vmx/hazards/stale-translations.ts';
import { type ApicSnapshot, ApicUnit } from './apic/apic-unit.ts';
import { InterruptBus } from './apic/interrupt-bus.ts';
import { Platform, type PlatformConnections, type PlatformSnapshot } from './devices/platform.ts';
import { LogicalProcessor, type ProcessorSnapshot } from './logical-processor.ts';
import { MachineClock } from './machine-clock.ts';
import { type Interleaving, Scheduler, type SchedulerSnapshot, type TimedEvents } from './scheduler.ts';

const LEVELS = ['checked', 'complete'] as const;
type Level = (typeof LEVELS)[number];

export interface MachineOptions {
  /** Number of logical processors, 1–256; 1 if left out. */
  readonly cpus?: number;
  /** Processor profile of all processors, or of each: name or alias; `full` if left out. */
  readonly profile?: string | readonly string[];
  /** What the processors advertise: controls that are at least this much implemented. */
  readonly level?: Level;
  /** Flush policy of all processors, or of each. */
  readonly flushPolicy?: FlushPolicy | readonly FlushPolicy[];
  /** How long translations are kept, of all processors or of each; `retain` if left out. */
  readonly translations?: CachingPolicy | readonly CachingPolicy[];
  /** Reports uses of stale translations ({@link Machine.staleTranslations}); executing code then is many times slower. */
  readonly detectStaleTranslations?: boolean;
  readonly hazards?: HazardMode;
  /** Seed of every seeded choice, 0–2^32−1. */
  readonly seed?: number;
  /** Bytes of RAM, a multiple of 4096; 0, the default, leaves all memory sparse, which suits a machine that runs no code. */
  readonly memory?: number;
  /** Puts the devices of a PC behind the I/O ports, connected as this says; without it no port answers. */
  readonly devices?: PlatformConnections;
  /** How the processors take turns. */
  readonly interleaving?: Interleaving;
}

/** A machine at one moment. */
export interface MachineSnapshot {
  readonly memory: ReadonlyMap<number, Uint8Array>;
  readonly processors: readonly ProcessorSnapshot[];
  readonly hazards: HazardSnapshot;
  /** Of a machine with devices. */
  readonly platform: PlatformSnapshot | undefined;
  readonly apics: readonly ApicSnapshot[];
  readonly scheduler: SchedulerSnapshot;
}

export const MAX_CPUS = 256;
const LARGEST_SEED = 0xffff_ffff;

export class Machine {
  /** Physical memory itself: what is done here is done by nobody's instruction and watched by no one. */
  readonly memory: PhysicalMemory;
  readonly processors: readonly LogicalProcessor[];
  /** The devices, if the machine has any. */
  readonly platform: Platform | undefined;
  /** Local APICs by CPU. */
  readonly apics: readonly ApicUnit[];
  /** Lets the processors execute. */
  readonly scheduler: Scheduler;
  readonly #monitor: HazardMonitor;
  readonly #stale: StaleTranslations | undefined;
  readonly #clock: MachineClock;
  readonly #bus = new InterruptBus();

  /** @throws RangeError naming the option that is out of range */
  constructor(options: MachineOptions = {}) {
    const { cpus = 1, profile = 'full', level = 'checked', flushPolicy = 'at-vmclear', seed = 0 } = options;
    if (!Number.isInteger(cpus) || cpus < 1 || cpus > MAX_CPUS) {
      throw new RangeError(`cpus must be an integer from 1 to ${MAX_CPUS}, not ${cpus}`);
    }
    if (!Number.isInteger(seed) || seed < 0 || seed > LARGEST_SEED) {
      throw new RangeError(`seed must be an integer from 0 to ${LARGEST_SEED}, not ${seed}`);
    }
    this.memory = new PhysicalMemory({ ramBytes: options.memory ?? 0, stateBytes: cpus * STATE_BYTES });
    this.#monitor = new HazardMonitor(oneOf(HAZARD_MODES, options.hazards ?? 'report', 'hazards'));
    this.#stale = options.detectStaleTranslations
      ? new StaleTranslations((address) => this.#watchPage(address))
      : undefined;
    const profiles = each(profile, cpus, 'profile').map(profileNamed);
    const policies = each(flushPolicy, cpus, 'flushPolicy').map((policy) =>
      oneOf(FLUSH_POLICIES, policy, 'flushPolicy'),
    );
    const caching = each(options.translations ?? 'retain', cpus, 'translations').map((policy) =>
      oneOf(CACHING_POLICIES, policy, 'translations'),
    );
    oneOf(LEVELS, level, 'level');
    this.processors = profiles.map(
      (p, index) =>
        new LogicalProcessor({
          index,
          processors: cpus,
          profile: p,
          capabilities: capabilitiesOf(p, level),
          memory: this.memory,
          monitor: this.#monitor,
          flushPolicy: policies[index] as FlushPolicy,
          translations: caching[index] as CachingPolicy,
          stale: this.#stale,
          seed: (seed + Math.imul(index + 1, 0x9e37_79b1)) >>> 0,
          peers: () => this.processors,
        }),
    );
    this.#monitor.watch = (address) => this.#watch(address);
    const processors = this.processors.map((cpu) => cpu.processor);
    this.#clock = new MachineClock(processors);
    this.apics = processors.map(
      (cpu) =>
        new ApicUnit(
          cpu,
          this.#bus,
          () => this.time,
          () => this.#clock.tsc(cpu.index),
          () => this.scheduler.reschedule(),
        ),
    );
    this.scheduler = new Scheduler(
      this.processors,
      this.#clock,
      this.#timedEvents(),
      options.interleaving ?? {},
    );
    this.platform = options.devices === undefined ? undefined : this.#connect(options.devices, options);
  }

  /** Accesses by executing code to the region at `address` are seen from now on. */
  #watch(address: number): void {
    if (this.#monitor.watching) this.#watchPage(address);
  }

  #watchPage(address: number): void {
    if (!this.memory.watch(address)) return;
    for (const { processor } of this.processors) processor.tlb.forgetAll();
  }

  #connect(connections: PlatformConnections, { cpus = 1, memory = 0 }: MachineOptions): Platform {
    const platform = new Platform({
      ...connections,
      ramSize: memory,
      cpus,
      now: () => this.time,
      interrupt: (asserted) => this.#bus.driveExternal(asserted),
      deliver: (message) => this.#bus.deliver(message),
      rescheduled: () => this.scheduler.reschedule(),
      stop: () => {
        for (const { processor } of this.processors) processor.requestStop();
      },
      a20: (enabled) => {
        for (const cpu of this.processors) cpu.set('a20mMode', enabled ? 0n : 1n);
      },
    });
    for (const { processor } of this.processors) processor.ports = platform.bus;
    this.memory.devices = platform.ioApic;
    this.#bus.acknowledgeExternal = () => platform.interrupts.acknowledge();
    this.#bus.endOfInterrupt = (vector) => platform.ioApic.endOfInterrupt(vector);
    this.#bus.acceptanceChanged = () => platform.ioApic.retry();
    return platform;
  }

  #timedEvents(): TimedEvents {
    const machine = this;
    return {
      next() {
        let next = machine.platform?.nextEvent();
        for (const apic of machine.apics) {
          const time = apic.nextEvent();
          if (time !== undefined && (next === undefined || time < next)) next = time;
        }
        return next;
      },
      update() {
        machine.platform?.update();
        for (const apic of machine.apics) apic.update();
      },
      get unmaskable() {
        return machine.platform?.unmaskable ?? false;
      },
    };
  }

  /** Virtual time in nanoseconds: an instruction takes one, whichever processor executes it. */
  get time(): number {
    return this.#clock.now;
  }

  /** Instructions that all processors have executed. */
  get executed(): number {
    return this.processors.reduce((sum, { processor }) => sum + processor.executed, 0);
  }

  /** Processor `index`. @throws RangeError if there is none */
  cpu(index: number): LogicalProcessor {
    const processor = this.processors[index];
    if (processor === undefined) {
      throw new RangeError(`there is no CPU ${index}: the machine has ${this.processors.length}`);
    }
    return processor;
  }

  /** Undefined behaviour reported so far, in order; at most 10,000 reports are kept. */
  get hazards(): readonly Hazard[] {
    return this.#monitor.hazards;
  }

  /**
   * Translations that were used although their structures had changed and an invalidation was owed, in
   * order; at most 10,000 are kept. Empty without `detectStaleTranslations`.
   */
  get staleTranslations(): readonly StaleTranslation[] {
    return this.#stale?.reports ?? [];
  }

  /** Number of reports, kept or not. */
  get hazardCount(): number {
    return this.#monitor.count;
  }

  /** The hazard at which a machine with `hazards: 'stop'` stopped. */
  get stoppedAt(): Hazard | undefined {
    return this.#monitor.stoppedAt;
  }

  snapshot(): MachineSnapshot {
    return {
      memory: this.memory.snapshot(),
      processors: this.processors.map((p) => p.snapshot()),
      hazards: this.#monitor.snapshot(),
      platform: this.platform?.snapshot(),
      apics: this.apics.map((apic) => apic.snapshot()),
      scheduler: this.scheduler.snapshot(),
    };
  }

  /**
   * Puts back a snapshot of this machine or of one built with the same options.
   * @throws RangeError if it is of a machine with another number of processors
   */
  restore(snapshot: MachineSnapshot): void {
    const { length } = snapshot.processors;
    if (length !== this.processors.length) {
      throw new RangeError(`a snapshot of ${length} CPUs for a machine with ${this.processors.length}`);
    }
    this.memory.restore(snapshot.memory);
    this.#monitor.restore(snapshot.hazards);
    snapshot.processors.forEach((kept, index) => {
      this.cpu(index).restore(kept);
    });
    if (snapshot.platform !== undefined) this.platform?.restore(snapshot.platform);
    this.scheduler.restore(snapshot.scheduler);
    snapshot.apics.forEach((kept, index) => {
      this.apics[index]?.restore(kept);
    });
    // A processor-held copy and the monitor share one record of the fields written.
    for (const processor of this.processors) processor.rejoinMonitor();
  }
}

function each<T extends string>(value: T | readonly T[], count: number, name: string): readonly T[] {
  if (typeof value === 'string') return Array.from({ length: count }, () => value);
  if (value.length !== count) throw new RangeError(`${name} lists ${value.length} values for ${count} CPUs`);
  return value;
}

function oneOf<T extends string>(values: readonly T[], value: T, name: string): T {
  if (values.includes(value)) return value;
  throw new RangeError(`${name} must be one of ${values.join(', ')}, not "${value}"`);
}

function profileNamed(name: string): CpuProfile {
  const profile = findProfile(name);
  if (profile === undefined) {
    throw new RangeError(
      `no processor profile "${name}"; there are ${PROFILES.map((p) => p.name).join(', ')}`,
    );
  }
  return profile;
}
