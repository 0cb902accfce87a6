/**
 * VT-x of one logical processor: it holds the VMX state, executes VMX instructions and performs VM
 * exits. Only it puts instructions, entry and exit together; unit-port.ts answers the processor's
 * questions with it.
 */

import { bit } from '../bits/u64.ts';
import { waitsForStore } from '../cpu/monitored-line.ts';
import type { Processor } from '../cpu/processor.ts';
import { ARITHMETIC_FLAGS, CHECKS_NEEDED, PORT_SLOTS, Register } from '../cpu/registers.ts';
import { ENCODING_COUNT } from '../vmcs/encoding.ts';
import { FIELD_COUNT } from '../vmcs/fields.ts';
import {
  type CopyStorage,
  type FlushPolicy,
  type ProcessorCopy,
  WRITTEN,
  WRITTEN_HIGH,
} from '../vmcs/processor-copy.ts';
import { ActiveSet, type ActiveSetSnapshot } from './active-set.ts';
import {
  ACCESS_HIGH,
  ACCESS_READ_ONLY,
  ACCESS_SLOT_SHIFT,
  type VmxCapabilities,
} from './capabilities/capabilities.ts';
import { Misc } from './capabilities/capability-msrs.ts';
import type { EntryInstruction } from './entry/basic-checks.ts';
import { CheckContext } from './entry/check-context.ts';
import { RETURNS_FROM_SMM } from './entry/checks/guest-conditions.ts';
import { type Explanation, explainEntry } from './entry/explain.ts';
import { environmentOf } from './entry/processor-environment.ts';
import { viewOfReturn } from './entry/return-from-smm.ts';
import { DEPENDENTS } from './entry/verify.ts';
import { ExtendedPageTables } from './ept/extended-page-tables.ts';
import { checkExitRequest, type ExitRequest } from './exit/exit-request.ts';
import { performExit } from './exit/vm-exit.ts';
import { allowsControlRegister } from './fixed-bits.ts';
import { followGuest, followOperation, operationChanged } from './follow-operation.ts';
import type { HazardMonitor } from './hazards/hazard-monitor.ts';
import { invept, invvpid } from './instructions/invept-invvpid.ts';
import {
  DEFAULT_MEMORY_FORM,
  type InstructionForm,
  type MemoryOperand,
  NO_OPERAND_FORM,
  operandValue,
  registerForm,
  type SourceOperand,
} from './instructions/operands.ts';
import { vmcall } from './instructions/vmcall.ts';
import { vmclear } from './instructions/vmclear.ts';
import { vmfunc } from './instructions/vmfunc.ts';
import { vmEntryInstruction } from './instructions/vmlaunch-vmresume.ts';
import { currentVmcsPointer, vmptrld, vmptrst } from './instructions/vmptrld.ts';
import {
  HIGH_MASKS,
  LOW_MASKS,
  type ReadDestination,
  vmread,
  vmwrite,
} from './instructions/vmread-vmwrite.ts';
import { abandonActive, vmxoff } from './instructions/vmxoff.ts';
import { vmxon } from './instructions/vmxon.ts';
import { IN_SHUTDOWN, INACTIVE, type Outcome, STOPPED_AT_HAZARD, VM_SUCCEED } from './outcome.ts';
import { UnitPort } from './unit-port.ts';
import type { VmxMnemonic, VmxObserver } from './vmx-observer.ts';
import { NO_POINTER, Operation, type VmxProcessor, VmxState } from './vmx-state.ts';

// Imported bindings are read anew at every use; these are constants to the compiler (bench: "VMREAD …").
const RFLAGS_LOW = 2 * Register.RFLAGS;
const ENCODINGS = ENCODING_COUNT;
const SLOT_SHIFT = ACCESS_SLOT_SHIFT;
const HIGH = ACCESS_HIGH;
const READ_ONLY = ACCESS_READ_ONLY;
const FLAGS = ARITHMETIC_FLAGS;
const SUCCEED = VM_SUCCEED;
const LOW = LOW_MASKS;
const HIGHS = HIGH_MASKS;
const TOUCHED = WRITTEN;
const TOUCHED_HIGH = WRITTEN_HIGH;
const NEEDED = CHECKS_NEEDED;
const ACTIVITY = 2 * Register.activityState;
const STI = 2 * Register.blockingBySti;
const MOV_SS = 2 * Register.blockingByMovSs;

// The port's slots: whether checks are needed and which lists are unverified, then the window of the
// current VMCS (its fields, and what it was told of them).
const UNVERIFIED_WORD = CHECKS_NEEDED + 1;
const WINDOW_WORD = CHECKS_NEEDED + 2;
const TOLD_WORD = WINDOW_WORD + 2 * FIELD_COUNT;
if (TOLD_WORD + FIELD_COUNT > CHECKS_NEEDED + 2 * PORT_SLOTS)
  throw new RangeError('the port needs more slots');

function windowOf(file: Int32Array): CopyStorage {
  const { buffer, byteOffset } = file;
  const at = (word: number) => byteOffset + 4 * word;
  return {
    words: new Uint32Array(buffer, at(WINDOW_WORD), 2 * FIELD_COUNT),
    quads: new BigUint64Array(buffer, at(WINDOW_WORD), FIELD_COUNT),
    unverified: new Uint32Array(buffer, at(UNVERIFIED_WORD), 1),
    told: new Int32Array(buffer, at(TOLD_WORD), FIELD_COUNT),
  };
}

/** Outcomes after which the processor is in another kind of VMX operation, or in it anew. */
function isTransition({ kind }: Outcome): boolean {
  return kind === 'VMentry' || kind === 'VMexit' || kind === 'VMentryFailure' || kind === 'VMXabort';
}

/** Everything of VT-x on one processor that a snapshot keeps. */
export interface VmxSnapshot {
  readonly state: Omit<VmxState, 'current' | 'link' | 'controls' | 'leave' | 'leaveNonRoot'>;
  readonly current: number;
  readonly link: number;
  readonly active: ActiveSetSnapshot;
}

export class VmxUnit implements VmxProcessor {
  readonly cpu: Processor;
  readonly capabilities: VmxCapabilities;
  readonly vmx = new VmxState();
  readonly active: ActiveSet;
  readonly ept: ExtendedPageTables;
  readonly hazards: HazardMonitor;
  observer: VmxObserver | undefined = undefined;
  private readonly context: CheckContext;
  // `private`, not `#`: on the VMREAD path that is worth a factor of two (bench: "VMREAD … into a register").
  private readonly file: Int32Array;
  private readonly access: Int16Array;

  constructor(
    cpu: Processor,
    capabilities: VmxCapabilities,
    hazards: HazardMonitor,
    policy: FlushPolicy,
    seed: number,
  ) {
    this.cpu = cpu;
    this.capabilities = capabilities;
    this.file = cpu.i32;
    this.access = capabilities.access;
    this.hazards = hazards;
    this.active = new ActiveSet(cpu.memory, capabilities.format, policy, seed, DEPENDENTS, windowOf(cpu.i32));
    cpu.stateChanged();
    this.context = new CheckContext(
      new Uint32Array(DEPENDENTS.length * 2),
      capabilities,
      environmentOf(this),
    );
    const port = new UnitPort(this);
    cpu.vmxPort = port;
    this.ept = new ExtendedPageTables(this, (exit) => port.request(exit));
  }

  // What the processor asks.

  capabilityMsr(index: number): bigint | undefined {
    return this.cpu.features.vmx ? this.capabilities.msr(index) : undefined;
  }

  allowsControlRegister(register: 'CR0' | 'CR4', value: bigint): boolean {
    return allowsControlRegister(this, register, value);
  }

  allowsRtitCtlWrite(): boolean {
    return this.vmx.operation === Operation.Outside || this.capabilities.has('misc', Misc.INTEL_PT_IN_VMX);
  }

  /** Performs a VM exit that the processor itself came to, and what follows from it. */
  perform(request: ExitRequest): Outcome {
    const outcome = performExit(this, request);
    operationChanged(this);
    return outcome;
  }

  /** Tells the processor what kind of operation it is in. */
  followOperation(): void {
    followOperation(this);
  }

  // Instructions. Each runs only on an active processor of a machine that has not stopped, and ends
  // blocking by STI and by MOV SS.

  /** Why no instruction can be executed now, or undefined. */
  idle(): Outcome | undefined {
    if (this.hazards.stoppedAt !== undefined) return STOPPED_AT_HAZARD;
    if (this.vmx.shutdown !== 'no') return IN_SHUTDOWN;
    return this.cpu.words[ACTIVITY] === 0 && !waitsForStore(this.cpu) ? undefined : INACTIVE;
  }

  /** Before every instruction: why it cannot be executed, or undefined. */
  private begin(): Outcome | undefined {
    const idle = this.idle();
    if (idle === undefined) this.active.chance();
    return idle;
  }

  /** After every instruction: blocking by STI and by MOV SS lasts for one; VM entry and exit establish their own. */
  private end(mnemonic: VmxMnemonic, operand: MemoryOperand | undefined, outcome: Outcome): Outcome {
    const { words } = this.cpu;
    const blocked = (words[STI] as number) | (words[MOV_SS] as number);
    if (
      blocked !== 0 &&
      (outcome.kind === 'VMsucceed' || outcome.kind === 'VMfailValid' || outcome.kind === 'VMfailInvalid')
    ) {
      words[STI] = 0;
      words[MOV_SS] = 0;
      this.cpu.stateChanged();
    }
    if (isTransition(outcome)) operationChanged(this);
    this.observer?.instruction?.(mnemonic, operandValue(operand), outcome);
    return outcome;
  }

  vmxon(operand: MemoryOperand, form: InstructionForm = DEFAULT_MEMORY_FORM): Outcome {
    return this.begin() ?? this.end('VMXON', operand, vmxon(this, operand, form));
  }

  vmxoff(form: InstructionForm = NO_OPERAND_FORM): Outcome {
    return this.begin() ?? this.end('VMXOFF', undefined, vmxoff(this, form));
  }

  vmclear(operand: MemoryOperand, form: InstructionForm = DEFAULT_MEMORY_FORM): Outcome {
    return this.begin() ?? this.end('VMCLEAR', operand, vmclear(this, operand, form));
  }

  vmptrld(operand: MemoryOperand, form: InstructionForm = DEFAULT_MEMORY_FORM): Outcome {
    return this.begin() ?? this.end('VMPTRLD', operand, vmptrld(this, operand, form));
  }

  vmptrst(
    store: ((pointer: bigint) => Outcome | undefined) | 'register',
    form: InstructionForm = DEFAULT_MEMORY_FORM,
  ): Outcome {
    return this.begin() ?? this.end('VMPTRST', undefined, vmptrst(this, store, form));
  }

  vmread(
    encoding: bigint,
    destination: ReadDestination,
    form: InstructionForm = DEFAULT_MEMORY_FORM,
  ): Outcome {
    return this.begin() ?? this.end('VMREAD', encoding, vmread(this, encoding, destination, form));
  }

  vmwrite(encoding: bigint, source: SourceOperand, form: InstructionForm = DEFAULT_MEMORY_FORM): Outcome {
    return this.begin() ?? this.end('VMWRITE', encoding, vmwrite(this, encoding, source, form));
  }

  /**
   * VMREAD between general registers (numbers 0–15). While nothing has changed that its checks look
   * at, it is a table look-up and a copy of two words (bench: "VMREAD … into a register").
   */
  vmreadRegister(encodingRegister: number, destination: number): Outcome {
    const { file } = this;
    const from = encodingRegister << 1;
    const encoding = file[from] as number;
    if (((file[NEEDED] as number) | (file[from + 1] as number)) === 0 && encoding >>> 0 < ENCODINGS) {
      const access = this.access[encoding] as number;
      if (access >= 0) {
        const word = WINDOW_WORD + ((access >> SLOT_SHIFT) << 1);
        const to = destination << 1;
        if ((access & HIGH) === 0) {
          file[to] = file[word] as number;
          file[to + 1] = file[word + 1] as number;
        } else {
          file[to] = file[word + 1] as number;
          file[to + 1] = 0;
        }
        // A store where none is needed would make the next access wait for it.
        const flags = file[RFLAGS_LOW] as number;
        if ((flags & FLAGS) !== 0) file[RFLAGS_LOW] = flags & ~FLAGS;
        return SUCCEED;
      }
    }
    return this.vmreadChecked(encodingRegister, destination);
  }

  private vmreadChecked(encodingRegister: number, destination: number): Outcome {
    const { quads } = this.cpu;
    const store = (value: bigint) => {
      quads[destination] = value;
      return undefined;
    };
    const form = registerForm(destination, encodingRegister);
    return this.vmread(quads[encodingRegister] as bigint, store, form);
  }

  /** VMWRITE between general registers (numbers 0–15), as {@link vmreadRegister}. */
  vmwriteRegister(encodingRegister: number, source: number): Outcome {
    const { file } = this;
    const at = encodingRegister << 1;
    const encoding = file[at] as number;
    if (((file[NEEDED] as number) | (file[at + 1] as number)) === 0 && encoding >>> 0 < ENCODINGS) {
      const access = this.access[encoding] as number;
      if (access >= 0 && (access & READ_ONLY) === 0) {
        const slot = access >> SLOT_SHIFT;
        const word = WINDOW_WORD + (slot << 1);
        const from = source << 1;
        if ((access & HIGH) === 0) {
          file[word] = (file[from] as number) & (LOW[slot] as number);
          file[word + 1] = (file[from + 1] as number) & (HIGHS[slot] as number);
          if (file[TOLD_WORD + slot] !== TOUCHED) this.tellWritten(slot, TOUCHED);
        } else {
          file[word + 1] = file[from] as number;
          if (file[TOLD_WORD + slot] !== TOUCHED_HIGH) this.tellWritten(slot, TOUCHED_HIGH);
        }
        const flags = file[RFLAGS_LOW] as number;
        if ((flags & FLAGS) !== 0) file[RFLAGS_LOW] = flags & ~FLAGS;
        return SUCCEED;
      }
    }
    return this.vmwriteChecked(encodingRegister, source);
  }

  private tellWritten(slot: number, kind: typeof WRITTEN | typeof WRITTEN_HIGH): void {
    (this.vmx.current as ProcessorCopy).fieldWritten(slot, kind);
  }

  private vmwriteChecked(encodingRegister: number, source: number): Outcome {
    const { quads } = this.cpu;
    const form = registerForm(source, encodingRegister);
    return this.vmwrite(quads[encodingRegister] as bigint, quads[source] as bigint, form);
  }

  /** VMLAUNCH or VMRESUME. */
  enter(instruction: EntryInstruction, form: InstructionForm = NO_OPERAND_FORM): Outcome {
    return (
      this.begin() ??
      this.end(instruction, undefined, vmEntryInstruction(this, instruction, this.context, form))
    );
  }

  vmcall(form: InstructionForm = NO_OPERAND_FORM): Outcome {
    return this.begin() ?? this.end('VMCALL', undefined, vmcall(this, form));
  }

  vmfunc(form: InstructionForm = NO_OPERAND_FORM): Outcome {
    return this.begin() ?? this.end('VMFUNC', undefined, this.switchEptp(vmfunc(this, form)));
  }

  /** After VMFUNC: the EPTP may be another one; VPID 0000H keeps no combined mappings (SDM §28.5.7.3). */
  private switchEptp(outcome: Outcome): Outcome {
    const { cpu } = this;
    if (outcome.kind !== 'VMsucceed') return outcome;
    followGuest(this);
    if (cpu.vpid === 0) {
      cpu.translations.invalidateCombinedVpid(0);
      cpu.tlb.forgetAll();
    }
    cpu.tlb.leaveView();
    return outcome;
  }

  invept(type: bigint, descriptor: MemoryOperand, form: InstructionForm = DEFAULT_MEMORY_FORM): Outcome {
    return this.begin() ?? this.end('INVEPT', type, invept(this, type, descriptor, form));
  }

  invvpid(type: bigint, descriptor: MemoryOperand, form: InstructionForm = DEFAULT_MEMORY_FORM): Outcome {
    return this.begin() ?? this.end('INVVPID', type, invvpid(this, type, descriptor, form));
  }

  /**
   * A VM exit, in non-root operation.
   * @throws RangeError if the processor is not in VMX non-root operation, or if the request names
   *   information that its reason does not record
   */
  exit(request: ExitRequest): Outcome {
    if (this.hazards.stoppedAt !== undefined) return STOPPED_AT_HAZARD;
    if (this.vmx.shutdown !== 'no') return IN_SHUTDOWN;
    if (this.vmx.operation !== Operation.NonRoot)
      throw new RangeError('a VM exit needs VMX non-root operation');
    const { current } = this.vmx;
    if (current !== undefined) this.active.resident(current);
    const wrong = checkExitRequest(request, this);
    if (wrong !== undefined) throw new RangeError(wrong);
    this.active.chance();
    return this.perform(request);
  }

  // Views for people and tools.

  /** Lets `observer`, and nobody else, watch from now on. */
  observe(observer: VmxObserver | undefined): void {
    this.observer = observer;
    this.cpu.stateChanged();
  }

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
    const copy = this.active.resident(current);
    this.context.examine(copy.words);
    if (RETURNS_FROM_SMM.test(this.context)) this.context.examine(viewOfReturn(this, copy).words);
    return explainEntry(this.context);
  }

  /** RESET of the processor: reports VMCSs that lose their data. */
  reset(): void {
    abandonActive(this, 'vmcs.power-removed', 'RESET');
    if (this.vmx.vmxonPointer !== NO_POINTER)
      this.hazards.clearVmxonOwner(this.vmx.vmxonPointer, this.cpu.index);
    const control = this.cpu.read('IA32_FEATURE_CONTROL');
    this.vmx.leave();
    this.vmx.shutdown = 'no';
    this.vmx.machineCheckPending = false;
    this.cpu.nonRoot = false;
    this.cpu.vpid = 0;
    this.cpu.apicAccessPage = -1;
    this.cpu.stoppedUntilReset = false;
    this.cpu.guestPhysical = undefined;
    this.cpu.addressSpace = 0;
    this.ept.invalidateAllContexts();
    this.cpu.reset();
    // A locked IA32_FEATURE_CONTROL survives all but a power-up reset (SDM §26.7).
    if (bit(control, 0)) this.cpu.write('IA32_FEATURE_CONTROL', control);
  }

  snapshot(): VmxSnapshot {
    const { current, link, controls, ...state } = this.vmx;
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
      controls: undefined,
    });
    this.cpu.translations.invalidateAll();
    this.cpu.tlb.forgetAll();
    this.ept.invalidateAllContexts();
    this.followOperation();
  }
}
