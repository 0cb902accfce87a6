/**
 * One logical processor of a machine, as software on it and the user of the library see it: VMX
 * instructions by name, ordinary loads and stores that are watched, MSRs and registers.
 */
import { bit } from '../bits/u64.ts';
import { Caching, type CachingPolicy } from '../cpu/caching-policy.ts';
import { disassemble } from '../cpu/disassembly.ts';
import { entryMemoryTypes, type MemoryTypeName, pageMemoryType } from '../cpu/memory-types.ts';
import type { MsrAccess } from '../cpu/msr-catalogue.ts';
import type { UsedEntry } from '../cpu/page-walk.ts';
import type { PhysicalMemory } from '../cpu/physical-memory.ts';
import { type Mode, Processor } from '../cpu/processor.ts';
import { Register, type RegisterName } from '../cpu/registers.ts';
import { Execution } from '../cpu/step.ts';
import { probeTranslation, type TranslationProbe } from '../cpu/translation-probe.ts';
import { type FieldReference, findField } from '../vmcs/field-names.ts';
import type { FieldName } from '../vmcs/fields.ts';
import type { FlushPolicy } from '../vmcs/processor-copy.ts';
import type { VmxCapabilities } from '../vmx/capabilities/capabilities.ts';
import type { CpuProfile } from '../vmx/capabilities/profiles.ts';
import type { Explanation } from '../vmx/entry/explain.ts';
import type { ExitRequest } from '../vmx/exit/exit-request.ts';
import type { HazardMonitor } from '../vmx/hazards/hazard-monitor.ts';
import { reportOrdinaryAccess } from '../vmx/hazards/memory-access.ts';
import { ProcessorTranslations, type StaleTranslations } from '../vmx/hazards/stale-translations.ts';
import type { InstructionForm, MemoryOperand } from '../vmx/instructions/operands.ts';
import type { Outcome } from '../vmx/outcome.ts';
import { Operation } from '../vmx/vmx-state.ts';
import { type VmxSnapshot, VmxUnit } from '../vmx/vmx-unit.ts';

export interface LogicalProcessorOptions {
  readonly index: number;
  /** How many processors the machine has. */
  readonly processors: number;
  readonly profile: CpuProfile;
  readonly capabilities: VmxCapabilities;
  readonly memory: PhysicalMemory;
  readonly monitor: HazardMonitor;
  readonly flushPolicy: FlushPolicy;
  readonly translations: CachingPolicy;
  /** The detector of stale translations, if the machine has one. */
  readonly stale: StaleTranslations | undefined;
  readonly seed: number;
  /** All processors of the machine. */
  readonly peers: () => readonly LogicalProcessor[];
}

export interface ProcessorSnapshot {
  readonly registers: Uint32Array;
  /** Instructions executed so far. */
  readonly executed: number;
  /** Nanoseconds that instructions let pass besides. */
  readonly waited: number;
  /** {@link Processor.repeatedAt}. */
  readonly repeatedAt: number;
  /** State of the generator behind RDRAND and RDSEED. */
  readonly random: number;
  /** State of the generator of a seeded caching policy. */
  readonly evictions: number;
  readonly vmx: VmxSnapshot;
}

/** What VMREAD came to; `value` is 0 unless it succeeded. */
export interface VmreadResult {
  readonly outcome: Outcome;
  readonly value: bigint;
}

/** A field as VMREAD and VMWRITE take it: an encoding, or any name {@link findField} knows. */
export type FieldOperand = FieldName | (string & {}) | number | bigint;

/** A translation with the memory types of the page, if there is one, and of the entries. */
export interface Translation extends TranslationProbe {
  readonly memoryType: MemoryTypeName | undefined;
  readonly entries: readonly (UsedEntry & { readonly memoryType: MemoryTypeName })[];
}

export class LogicalProcessor {
  readonly index: number;
  readonly profile: CpuProfile;
  readonly processor: Processor;
  readonly unit: VmxUnit;
  readonly #monitor: HazardMonitor;
  readonly #execution: Execution;
  readonly #stale: StaleTranslations | undefined;
  readonly #used: ProcessorTranslations | undefined;
  readonly #peers: () => readonly LogicalProcessor[];

  constructor(options: LogicalProcessorOptions) {
    this.index = options.index;
    this.profile = options.profile;
    this.#monitor = options.monitor;
    this.#peers = options.peers;
    const { signature, title } = options.profile;
    const identity = { signature, brand: title, processors: options.processors };
    this.processor = new Processor(
      options.index,
      options.capabilities.features,
      options.memory,
      identity,
      new Caching(options.translations, options.seed),
    );
    this.processor.random.state = options.seed;
    this.processor.accessWatch = (isStore, address, length, bytes) =>
      this.#seeAccess(isStore ? 'store' : 'load', address, length, bytes);
    this.#execution = new Execution(this.processor);
    this.unit = new VmxUnit(
      this.processor,
      options.capabilities,
      options.monitor,
      options.flushPolicy,
      options.seed,
    );
    this.#stale = options.stale;
    this.#used = options.stale && new ProcessorTranslations(this.processor, this.unit.vmx, options.stale);
    this.processor.translationWatch = this.#used;
    this.watchInstructions(undefined);
  }

  // Registers and mode.

  /** @throws RangeError if no register has that name */
  get(register: RegisterName): bigint {
    assertRegister(register);
    return this.processor.read(register);
  }

  /** Sets a register without any check, as a debugger would. @throws RangeError if no register has that name */
  set(register: RegisterName, value: bigint): void {
    assertRegister(register);
    this.processor.write(register, BigInt.asUintN(64, value));
  }

  get mode(): Mode {
    return this.processor.mode;
  }

  get cpl(): number {
    return this.processor.cpl;
  }

  /** Kind of VMX operation. */
  get operation(): 'outside' | 'root' | 'non-root' {
    const { operation } = this.unit.vmx;
    return operation === Operation.Outside ? 'outside' : operation === Operation.Root ? 'root' : 'non-root';
  }

  get capabilities(): VmxCapabilities {
    return this.unit.capabilities;
  }

  /** Addresses of the VMCSs that are active here. */
  get activeVmcss(): readonly number[] {
    return this.unit.active.addresses();
  }

  /** Address of the current VMCS, or undefined. */
  get currentVmcs(): number | undefined {
    return this.unit.vmx.current?.address;
  }

  rdmsr(index: number): bigint | undefined {
    return this.processor.readMsr(index);
  }

  wrmsr(index: number, value: bigint): MsrAccess {
    this.processor.stateChanged();
    return this.processor.writeMsr(index, value);
  }

  /** MOV to CR0 or CR4 as far as VMX operation restricts it (SDM §26.8); false for #GP(0). */
  movToControlRegister(register: 'CR0' | 'CR4', value: bigint): boolean {
    if (!this.unit.allowsControlRegister(register, value)) return false;
    this.set(register, value);
    return true;
  }

  /**
   * Brings the processor from reset to 64-bit mode at CPL 0 with VMX enabled by firmware: what a
   * hypervisor finds when it is about to execute VMXON.
   */
  enterLongMode(): this {
    const { features } = this.processor;
    const values: Partial<Record<RegisterName, bigint>> = {
      CR0: 0x8005_0033n,
      CR3: 0x1000n,
      CR4: 0x2020n,
      IA32_EFER: features.intel64 ? 0x500n : 0n,
      IA32_FEATURE_CONTROL: 5n,
      RIP: 0x10_0000n,
      'CS.selector': 0x10n,
      'CS.base': 0n,
      'CS.limit': 0xffff_ffffn,
      'CS.accessRights': features.intel64 ? 0xa09bn : 0xc09bn,
      'TR.selector': 0x40n,
      'TR.limit': 0x67n,
    };
    for (const [name, value] of Object.entries(values)) this.set(name as RegisterName, value);
    for (const segment of ['SS', 'DS', 'ES', 'FS', 'GS'] as const) {
      this.set(`${segment}.selector`, 0x18n);
      this.set(`${segment}.limit`, 0xffff_ffffn);
      this.set(`${segment}.accessRights`, 0xc093n);
    }
    return this;
  }

  /** Executes `count` instructions at CS:RIP, fewer if the processor has nothing to execute. */
  run(count: number): void {
    this.#execution.run(count);
  }

  /** Takes the event that is due, if there is one, and executes nothing. */
  look(): boolean {
    return this.#execution.look();
  }

  /**
   * Lets `watch` see the text of each instruction before it is executed (of a repeated string
   * instruction, of each time it is started or continued), or nobody.
   */
  watchInstructions(watch: ((text: string) => void) | undefined): void {
    const { processor } = this;
    const used = this.#used;
    if (watch === undefined && used === undefined) {
      this.#execution.watch = undefined;
      return;
    }
    this.#execution.watch = (i) => {
      const rip = processor.quads[Register.RIP] as bigint;
      if (used !== undefined) used.rip = rip;
      watch?.(disassemble(i, rip));
    };
  }

  /**
   * How the linear address is translated now by the structures in memory, whatever is cached: without any
   * effect. Memory types are those of the page and of the accesses to each entry.
   */
  translation(linear: bigint): Translation {
    const { processor } = this;
    const lo = Number(BigInt.asIntN(32, linear));
    const hi = Number(BigInt.asIntN(32, linear >> 32n));
    const probe = probeTranslation(processor, lo, hi);
    const types = entryMemoryTypes(processor, probe, lo, hi);
    return {
      ...probe,
      memoryType: pageMemoryType(processor, probe),
      entries: probe.entries.map((entry, n) => ({ ...entry, memoryType: types[n] as MemoryTypeName })),
    };
  }

  // VMX instructions.

  vmxon(pointer: MemoryOperand, form?: InstructionForm): Outcome {
    return this.unit.vmxon(pointer, form);
  }

  vmxoff(form?: InstructionForm): Outcome {
    return this.unit.vmxoff(form);
  }

  vmclear(pointer: MemoryOperand, form?: InstructionForm): Outcome {
    return this.unit.vmclear(pointer, form);
  }

  vmptrld(pointer: MemoryOperand, form?: InstructionForm): Outcome {
    return this.unit.vmptrld(pointer, form);
  }

  /** VMPTRST; the pointer is all ones if there is no current VMCS. */
  vmptrst(): { readonly outcome: Outcome; readonly pointer: bigint } {
    let stored = 0n;
    const outcome = this.unit.vmptrst((pointer) => {
      stored = pointer;
      return undefined;
    });
    return { outcome, pointer: stored };
  }

  vmread(field: FieldOperand): VmreadResult {
    let read = 0n;
    const outcome = this.unit.vmread(encodingOf(field), (value) => {
      read = value;
      return undefined;
    });
    return { outcome, value: read };
  }

  vmwrite(field: FieldOperand, value: bigint | number): Outcome {
    return this.unit.vmwrite(encodingOf(field), BigInt.asUintN(64, BigInt(value)));
  }

  /** VMREAD: encoding in general register `encodingRegister`, result to `destination` (0–15). */
  vmreadRegister(encodingRegister: number, destination: number): Outcome {
    return this.unit.vmreadRegister(encodingRegister, destination);
  }

  /** VMWRITE: encoding in general register `encodingRegister`, data in `source` (0–15). */
  vmwriteRegister(encodingRegister: number, source: number): Outcome {
    return this.unit.vmwriteRegister(encodingRegister, source);
  }

  vmlaunch(form?: InstructionForm): Outcome {
    return this.unit.enter('VMLAUNCH', form);
  }

  vmresume(form?: InstructionForm): Outcome {
    return this.unit.enter('VMRESUME', form);
  }

  vmcall(form?: InstructionForm): Outcome {
    return this.unit.vmcall(form);
  }

  vmfunc(form?: InstructionForm): Outcome {
    return this.unit.vmfunc(form);
  }

  /** `descriptor`: the 128-bit memory operand. */
  invept(type: bigint | number, descriptor: MemoryOperand, form?: InstructionForm): Outcome {
    return this.unit.invept(BigInt(type), descriptor, form);
  }

  invvpid(type: bigint | number, descriptor: MemoryOperand, form?: InstructionForm): Outcome {
    return this.unit.invvpid(BigInt(type), descriptor, form);
  }

  /** Causes a VM exit. @throws RangeError outside VMX non-root operation */
  vmexit(request: ExitRequest): Outcome {
    return this.unit.exit(request);
  }

  /** Why VM entry with the current VMCS would fail: every reason. @throws RangeError without a current VMCS */
  explain(): Explanation {
    return this.unit.explain();
  }

  /** A machine-check event that strikes at the next VM entry (SDM §29.9). */
  raiseMachineCheckAtEntry(): void {
    this.unit.vmx.machineCheckPending = true;
  }

  /** Lets `ticks` of the time-stamp counter pass. */
  advance(ticks: bigint): void {
    this.processor.quads[Register.IA32_TIME_STAMP_COUNTER] = BigInt.asUintN(
      64,
      this.get('IA32_TIME_STAMP_COUNTER') + ticks,
    );
    this.processor.requestAttention();
  }

  /** RESET: a locked IA32_FEATURE_CONTROL survives it. */
  reset(): void {
    this.unit.reset();
    this.processor.interrupts.initialised?.();
  }

  // Ordinary accesses to physical memory by software on this processor.

  /** Loads `length` bytes. */
  load(address: number, length: number): Uint8Array {
    reportOrdinaryAccess(this.#monitor, this.#units(), this.index, 'load', address, length, undefined);
    return this.processor.memory.readBytes(address, length);
  }

  /** Stores bytes; nothing is stored on a machine that stopped at the hazard this is. */
  store(address: number, bytes: Uint8Array): void {
    const { memory } = this.processor;
    if (reportOrdinaryAccess(this.#monitor, this.#units(), this.index, 'store', address, bytes.length, bytes))
      return;
    this.#stale?.noteStore(this.processor, this.get('RIP'), address, bytes.length);
    memory.writeBytes(address, bytes);
  }

  load32(address: number): number {
    return new DataView(this.load(address, 4).buffer).getUint32(0, true);
  }

  store32(address: number, value: number): void {
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setUint32(0, value, true);
    this.store(address, bytes);
  }

  load64(address: number): bigint {
    return new DataView(this.load(address, 8).buffer).getBigUint64(0, true);
  }

  store64(address: number, value: bigint): void {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, value, true);
    this.store(address, bytes);
  }

  /** An access of executing code; true if the machine stops at the hazard it is. */
  #seeAccess(
    kind: 'load' | 'store',
    address: number,
    length: number,
    bytes: Uint8Array | undefined,
  ): boolean {
    if (kind === 'store') this.#stale?.noteStore(this.processor, this.#used?.rip ?? 0n, address, length);
    const stops = reportOrdinaryAccess(
      this.#monitor,
      this.#units(),
      this.index,
      kind,
      address,
      length,
      bytes,
    );
    if (stops) this.processor.requestStop();
    return stops;
  }

  #units(): readonly VmxUnit[] {
    return this.#peers().map((p) => p.unit);
  }

  snapshot(): ProcessorSnapshot {
    const { words, executed, waited, repeatedAt, random } = this.processor;
    return {
      registers: words.slice(),
      executed,
      waited,
      repeatedAt,
      random: random.state,
      evictions: this.processor.translations.caching.random.state,
      vmx: this.unit.snapshot(),
    };
  }

  restore(snapshot: ProcessorSnapshot): void {
    this.processor.words.set(snapshot.registers);
    this.processor.executed = snapshot.executed;
    this.processor.waited = snapshot.waited;
    this.processor.repeatedAt = snapshot.repeatedAt;
    this.processor.random.state = snapshot.random;
    this.processor.translations.caching.random.state = snapshot.evictions;
    this.processor.stopRequested = false;
    this.processor.pauseRequested = false;
    this.processor.updateMode();
    this.unit.restore(snapshot.vmx);
  }

  /** After the monitor was restored: its records of written fields are those of the copies again. */
  rejoinMonitor(): void {
    if (!this.#monitor.watching) return;
    for (const address of this.unit.active.addresses()) {
      const copy = this.unit.active.get(address);
      const record = this.#monitor.knownRegion(address);
      if (copy !== undefined && record !== undefined) copy.written = record.written;
    }
  }

  /** Whether firmware has locked IA32_FEATURE_CONTROL. */
  get featureControlLocked(): boolean {
    return bit(this.get('IA32_FEATURE_CONTROL'), 0);
  }
}

function assertRegister(name: string): void {
  if (!Object.hasOwn(Register, name)) throw new RangeError(`no register is called "${name}"`);
}

function encodingOf(field: FieldOperand): bigint {
  if (typeof field === 'bigint') return BigInt.asUintN(64, field);
  if (typeof field === 'number') return BigInt.asUintN(64, BigInt(field));
  const reference: FieldReference | undefined = findField(field);
  if (reference === undefined) throw new RangeError(`no VMCS field is called "${field}"`);
  return BigInt(reference.encoding);
}
