/**
 * VT-x of one logical processor: it holds the VMX state, executes VMX instructions, performs VM exits
 * and answers the processor's questions ({@link VmxPort}). Only it puts instructions, entry and exit
 * together.
 */
import { bit } from '../bits/u64.ts';
import type { Processor } from '../cpu/processor.ts';
import { Register } from '../cpu/registers.ts';
import type { VmxPort } from '../cpu/vmx-port.ts';
import type { FlushPolicy } from '../vmcs/processor-copy.ts';
import { ActiveSet, type ActiveSetSnapshot } from './active-set.ts';
import type { VmxCapabilities } from './capabilities/capabilities.ts';
import { Misc } from './capabilities/capability-msrs.ts';
import { CheckContext } from './entry/check-context.ts';
import { type Explanation, explainEntry } from './entry/explain.ts';
import { environmentOf } from './entry/processor-environment.ts';
import { DEPENDENTS } from './entry/verify.ts';
import type { EntryInstruction } from './entry/basic-checks.ts';
import type { ExitRequest } from './exit/exit-request.ts';
import { performExit } from './exit/vm-exit.ts';
import type { HazardMonitor } from './hazards/hazard-monitor.ts';
import { invept, invvpid } from './instructions/invept-invvpid.ts';
import {
  DEFAULT_MEMORY_FORM,
  type InstructionForm,
  type MemoryOperand,
  NO_OPERAND_FORM,
} from './instructions/operands.ts';
import { vmcall } from './instructions/vmcall.ts';
import { vmclear } from './instructions/vmclear.ts';
import { vmfunc } from './instructions/vmfunc.ts';
import { vmEntryInstruction } from './instructions/vmlaunch-vmresume.ts';
import { currentVmcsPointer, vmptrld, vmptrst } from './instructions/vmptrld.ts';
import {
  type ReadDestination,
  vmread,
  vmreadRegister,
  vmwrite,
  vmwriteRegister,
} from './instructions/vmread-vmwrite.ts';
import { abandonActive, vmxoff } from './instructions/vmxoff.ts';
import { violatesFixedBits, vmxon } from './instructions/vmxon.ts';
import { IN_SHUTDOWN, INACTIVE, type Outcome, STOPPED_AT_HAZARD } from './outcome.ts';
import { NO_POINTER, Operation, type VmxProcessor, VmxState } from './vmx-state.ts';

/** Everything of VT-x on one processor that a snapshot keeps. */
export interface VmxSnapshot {
  readonly state: Omit<VmxState, 'current' | 'link' | 'leave' | 'leaveNonRoot'>;
  readonly current: number;
  readonly link: number;
  readonly active: ActiveSetSnapshot;
}

export class VmxUnit implements VmxProcessor, VmxPort {
  readonly cpu: Processor;
  readonly capabilities: VmxCapabilities;
  readonly vmx = new VmxState();
  readonly active: ActiveSet;
  readonly hazards: HazardMonitor;
  readonly #context: CheckContext;

  constructor(
    cpu: Processor,
    capabilities: VmxCapabilities,
    hazards: HazardMonitor,
    policy: FlushPolicy,
    seed: number,
  ) {
    this.cpu = cpu;
    this.capabilities = capabilities;
    this.hazards = hazards;
    this.active = new ActiveSet(cpu.memory, capabilities.format, policy, seed, DEPENDENTS);
    this.#context = new CheckContext(new Uint32Array(DEPENDENTS.length * 2), capabilities, environmentOf(this));
    cpu.vmxPort = this;
  }

  // What the processor asks.

  capabilityMsr(index: number): bigint | undefined {
    return this.cpu.features.vmx ? this.capabilities.msr(index) : undefined;
  }

  allowsControlRegister(register: 'CR0' | 'CR4', value: bigint): boolean {
    return this.vmx.operation === Operation.Outside || !violatesFixedBits(this, register, value);
  }

  allowsRtitCtlWrite(): boolean {
    return this.vmx.operation === Operation.Outside || this.capabilities.has('misc', Misc.INTEL_PT_IN_VMX);
  }

  // Instructions. Each runs only on an active processor of a machine that has not stopped, and ends
  // blocking by STI and by MOV SS.

  /** Why no instruction can be executed now, or undefined. */
  idle(): Outcome | undefined {
    if (this.hazards.stoppedAt !== undefined) return STOPPED_AT_HAZARD;
    if (this.vmx.shutdown !== 'no') return IN_SHUTDOWN;
    return this.cpu.words[2 * Register.activityState] === 0 ? undefined : INACTIVE;
  }

  #execute(instruction: () => Outcome): Outcome {
    const idle = this.idle();
    if (idle !== undefined) return idle;
    this.active.chance();
    const { words } = this.cpu;
    const blocked = (words[2 * Register.blockingBySti] as number) | (words[2 * Register.blockingByMovSs] as number);
    const outcome = instruction();
    // Blocking lasts for one instruction; VM entry and VM exit establish their own.
    if (blocked !== 0 && (outcome.kind === 'VMsucceed' || outcome.kind.startsWith('VMfail'))) {
      words[2 * Register.blockingBySti] = 0;
      words[2 * Register.blockingByMovSs] = 0;
      this.cpu.epoch++;
    }
    return outcome;
  }

  vmxon(operand: MemoryOperand, form: InstructionForm = DEFAULT_MEMORY_FORM): Outcome {
    return this.#execute(() => vmxon(this, operand, form));
  }

  vmxoff(form: InstructionForm = NO_OPERAND_FORM): Outcome {
    return this.#execute(() => vmxoff(this, form));
  }

  vmclear(operand: MemoryOperand, form: InstructionForm = DEFAULT_MEMORY_FORM): Outcome {
    return this.#execute(() => vmclear(this, operand, form));
  }

  vmptrld(operand: MemoryOperand, form: InstructionForm = DEFAULT_MEMORY_FORM): Outcome {
    return this.#execute(() => vmptrld(this, operand, form));
  }

  vmptrst(
    store: ((pointer: bigint) => Outcome | undefined) | 'register',
    form: InstructionForm = DEFAULT_MEMORY_FORM,
  ): Outcome {
    return this.#execute(() => vmptrst(this, store, form));
  }

  vmread(encoding: bigint, destination: ReadDestination, form: InstructionForm = DEFAULT_MEMORY_FORM): Outcome {
    return this.#execute(() => vmread(this, encoding, destination, form));
  }

  vmwrite(encoding: bigint, source: MemoryOperand, form: InstructionForm = DEFAULT_MEMORY_FORM): Outcome {
    return this.#execute(() => vmwrite(this, encoding, source, form));
  }

  /** VMREAD between general registers (numbers 0–15). */
  vmreadRegister(encodingRegister: number, destination: number): Outcome {
    return vmreadRegister(this, encodingRegister, destination) ?? this.#vmreadChecked(encodingRegister, destination);
  }

  #vmreadChecked(encodingRegister: number, destination: number): Outcome {
    const { quads } = this.cpu;
    const store = (value: bigint) => {
      quads[destination] = value;
      return undefined;
    };
    return this.vmread(quads[encodingRegister] as bigint, store);
  }

  /** VMWRITE between general registers (numbers 0–15). */
  vmwriteRegister(encodingRegister: number, source: number): Outcome {
    return vmwriteRegister(this, encodingRegister, source) ?? this.#vmwriteChecked(encodingRegister, source);
  }

  #vmwriteChecked(encodingRegister: number, source: number): Outcome {
    const { quads } = this.cpu;
    return this.vmwrite(quads[encodingRegister] as bigint, quads[source] as bigint);
  }

  /** VMLAUNCH or VMRESUME. */
  enter(instruction: EntryInstruction, form: InstructionForm = NO_OPERAND_FORM): Outcome {
    return this.#execute(() => vmEntryInstruction(this, instruction, this.#context, form));
  }

  vmcall(form: InstructionForm = NO_OPERAND_FORM): Outcome {
    return this.#execute(() => vmcall(this, form));
  }

  vmfunc(form: InstructionForm = NO_OPERAND_FORM): Outcome {
    return this.#execute(() => vmfunc(this, form));
  }

  invept(type: bigint, descriptor: MemoryOperand, form: InstructionForm = DEFAULT_MEMORY_FORM): Outcome {
    return this.#execute(() => invept(this, type, descriptor, form));
  }

  invvpid(type: bigint, descriptor: MemoryOperand, form: InstructionForm = DEFAULT_MEMORY_FORM): Outcome {
    return this.#execute(() => invvpid(this, type, descriptor, form));
  }

  /**
   * A VM exit, in non-root operation.
   * @throws RangeError if the processor is not in VMX non-root operation
   */
  exit(request: ExitRequest): Outcome {
    if (this.hazards.stoppedAt !== undefined) return STOPPED_AT_HAZARD;
    if (this.vmx.shutdown !== 'no') return IN_SHUTDOWN;
    if (this.vmx.operation !== Operation.NonRoot) throw new RangeError('a VM exit needs VMX non-root operation');
    this.active.chance();
    const { current } = this.vmx;
    if (current !== undefined) this.active.resident(current);
    const outcome = performExit(this, request);
    this.cpu.epoch++;
    return outcome;
  }

  // Views for people and tools.

  /** The current-VMCS pointer as VMPTRST would store it. */
  get currentPointer(): bigint {
    return currentVmcsPointer(this);
  }

  /**
   * Every reason why VM entry with the current VMCS would fail, not only the first.
   * @throws RangeError if there is no current VMCS
   */
  explain(): Explanation {
    const { current } = this.vmx;
    if (current === undefined) throw new RangeError('there is no current VMCS to explain');
    this.#context.examine(this.active.resident(current).words);
    return explainEntry(this.#context);
  }

  /** RESET of the processor: reports VMCSs that lose their data. */
  reset(): void {
    abandonActive(this, 'vmcs.power-removed', 'RESET');
    if (this.vmx.vmxonPointer !== NO_POINTER) this.hazards.clearVmxonOwner(this.vmx.vmxonPointer, this.cpu.index);
    const control = this.cpu.read('IA32_FEATURE_CONTROL');
    this.vmx.leave();
    this.vmx.shutdown = 'no';
    this.vmx.machineCheckPending = false;
    this.cpu.reset();
    // A locked IA32_FEATURE_CONTROL survives all but a power-up reset (SDM §26.7).
    if (bit(control, 0)) this.cpu.write('IA32_FEATURE_CONTROL', control);
  }

  snapshot(): VmxSnapshot {
    const { current, link, ...state } = this.vmx;
    return {
      state: { ...state } as VmxSnapshot['state'],
      current: current?.address ?? NO_POINTER,
      link: link?.address ?? NO_POINTER,
      active: this.active.snapshot(),
    };
  }

  restore(snapshot: VmxSnapshot): void {
    this.active.restore(snapshot.active);
    Object.assign(this.vmx, snapshot.state, {
      current: this.active.get(snapshot.current),
      link: this.active.get(snapshot.link),
      fastEpoch: -1,
    });
    this.cpu.epoch++;
  }
}
