/**
 * A logical processor: its registers in one buffer, its MSRs, its operating mode. It is complete
 * without VT-x; what VT-x adds is asked through `vmxPort`.
 */

import { Prng } from '../bits/prng.ts';
import { bit } from '../bits/u64.ts';
import { addressRules } from './address-rules.ts';
import { flatAccesses } from './addressing.ts';
import { Attention } from './attention.ts';
import { Caching } from './caching-policy.ts';
import { Enforcement, enforcementOf } from './cet/enforcement.ts';
import type { CpuidFeatures, ProcessorIdentity } from './cpuid.ts';
import { CpuidLeaves } from './cpuid-leaves.ts';
import { materialise } from './flags.ts';
import type { GuestPhysicalTranslation } from './guest-physical.ts';
import type { Instruction, Segment } from './instruction.ts';
import { type InterruptSource, NO_INTERRUPTS } from './interrupt-source.ts';
import { type LocalApic, NO_LOCAL_APIC } from './local-apic.ts';
import { Mode } from './mode.ts';
import { lineStored } from './monitored-line.ts';
import type { MsrAccess } from './msr-catalogue.ts';
import { readMsr, writeMsr } from './msrs.ts';
import type { PhysicalMemory } from './physical-memory.ts';
import { NO_PORTS, type PortSpace } from './port-space.ts';
import {
  CHECKS_NEEDED,
  CR0,
  CR4,
  EFER,
  PORT_SLOTS,
  REGISTER_COUNT,
  Register,
  type RegisterName,
  RFLAGS,
} from './registers.ts';
import { powerUp } from './reset.ts';
import { STATE_BYTES, STATE_LAYOUT } from './state-layout.ts';
import { BETWEEN_BLOCKS } from './time.ts';
import { AccessClass, Tlb } from './tlb.ts';
import { TranslationCache } from './translation-cache.ts';
import type { TranslationWatch } from './translation-watch.ts';
import { NO_VMX, type VmxPort } from './vmx-port.ts';

export { Mode };

const MODE_REGISTERS: ReadonlySet<number> = new Set([
  Register.CR0,
  Register.RFLAGS,
  Register.IA32_EFER,
  ...(['ES', 'CS', 'SS', 'DS', 'FS', 'GS'] as const).flatMap((s) => [
    Register[`${s}.base`],
    Register[`${s}.limit`],
    Register[`${s}.accessRights`],
  ]),
  Register.CR3,
  Register.CR4,
  Register.IA32_U_CET,
  Register.IA32_S_CET,
]);

const CS_L = 1 << 13;
/** D of CS, B of SS. */
const DEFAULT_BIG = 1 << 14;
const CR0_LOW = 2 * Register.CR0;
const EFER_LOW = 2 * Register.IA32_EFER;
const RFLAGS_LOW = 2 * Register.RFLAGS;
const CS_RIGHTS = 2 * Register['CS.accessRights'];
const ATTENTION = 2 * Register.attention;
const CR4_LOW = 2 * Register.CR4;
const NMI_PENDING = 2 * Register.nmiPending;
const SMI_PENDING = 2 * Register.smiPending;
const INIT_PENDING = 2 * Register.initPending;
const SIPI_PENDING = 2 * Register.sipiPending;
const MACHINE_CHECK_PENDING = 2 * Register.machineCheckPending;
const USER_INTERRUPT_PENDING = 2 * Register.userInterruptPending;
const ACTIVITY = 2 * Register.activityState;
const WAIT_FOR_SIPI = 3;
const SS_RIGHTS = 2 * Register['SS.accessRights'];

/** `address` is physical; `bytes` are those of a store. */
export type AccessWatch = (
  isStore: boolean,
  address: number,
  length: number,
  bytes: Uint8Array | undefined,
) => boolean;

// Constants to the compiler, which imported bindings are not (bench: "VMRESUME + exit").
const { Real, Virtual8086, Protected, Compatibility, Bit64 } = Mode;
const LMA = 1 << EFER.LMA;
const VM = 1 << RFLAGS.VM;
const LA57 = 1 << CR4.LA57;
const CET = 1 << CR4.CET;

export class Processor {
  /** Number of this processor in its machine, from 0. */
  readonly index: number;
  readonly features: CpuidFeatures;
  readonly identity: ProcessorIdentity;
  /** What CPUID answers. */
  readonly cpuid: CpuidLeaves;
  readonly memory: PhysicalMemory;
  /** Register values by slot ({@link Register}): two 32-bit words each, low first. */
  readonly words: Uint32Array;
  /** The same bytes as 64-bit values. After writing a register of the mode directly, call {@link updateMode}. */
  readonly quads: BigUint64Array;
  /** Registers and, behind them, the slots of the port, as signed words (bench: "VMREAD … into a register"). */
  readonly i32: Int32Array;
  /** Registers as halves and as bytes. */
  readonly u16: Uint16Array;
  readonly u8: Uint8Array;
  /** The same bytes as floating-point numbers. */
  readonly f32: Float32Array;
  readonly f64: Float64Array;
  readonly tlb: Tlb;
  readonly translations: TranslationCache;
  /** VPID of translations: 0 but in VMX non-root operation with "enable VPID". */
  vpid = 0;
  /** Tells address spaces apart that are one to VPID and registers: another translation of guest-physical addresses. */
  addressSpace = 0;
  /** Translates guest-physical addresses; undefined while paging works with physical ones. */
  guestPhysical: GuestPhysicalTranslation | undefined = undefined;
  /** Sees the translations that are used. */
  translationWatch: TranslationWatch | undefined = undefined;
  vmxPort: VmxPort = NO_VMX;
  /** What IN and OUT reach. */
  ports: PortSpace = NO_PORTS;
  /** Operating mode, derived from CR0.PE, RFLAGS.VM, IA32_EFER.LMA and CS.L. */
  mode: Mode = Mode.Real;
  /** Current privilege level, 0–3: SS.DPL (SDM §27.4.1). */
  cpl = 0;
  /** Size of code, 16, 32 or 64: CS.L and CS.D. */
  codeBits = 16;
  /** Size of the stack pointer, 16, 32 or 64: SS.B. */
  stackBits = 16;
  /** Class of explicit data accesses, from CPL and RFLAGS.AC. */
  accessClass: AccessClass = AccessClass.Supervisor;
  /** Outside 64-bit mode: accesses by segment that segmentation lets through unchanged, bits {@link Access}. */
  readonly flatSegments = new Uint8Array(6);
  /** An address is canonical if its upper half shifted right by this is 0 or −1. */
  canonicalShift = 15;
  /** Rules of address-rules.ts for the data accesses of the code that executes; 0 if there is none. */
  addressRules = 0;
  /** Whether unaligned data accesses raise #AC. */
  alignmentChecked = false;
  /** What control-flow enforcement does with the code that executes, bits {@link Enforcement}; 0 if nothing. */
  enforcement = 0;
  /** Whether the processor is in VMX non-root operation: instructions may exit. */
  nonRoot = false;
  /** Physical page whose accesses from linear addresses VT-x virtualizes (SDM §32.4), or −1. */
  apicAccessPage = -1;
  /** Sees accesses to memory outside RAM and to watched pages; a store it answers true to is not performed. */
  accessWatch: AccessWatch | undefined = undefined;
  /** How often each instruction that is known but not modelled was met. */
  readonly unmodelled = new Map<string, number>();
  /** Source of RDRAND and RDSEED; whoever builds the machine seeds it. */
  readonly random = new Prng(0);
  /** What asserts the INTR pin. */
  interrupts: InterruptSource = NO_INTERRUPTS;
  /** Its registers, and what stands behind CR8: the slot mirrors the task-priority class. */
  localApic: LocalApic = NO_LOCAL_APIC;
  /** {@link executed} when a repeated string instruction was last left between two iterations. */
  repeatedAt = -1;
  /**
   * Instructions and iterations of string instructions executed so far: virtual time. Within a decoded
   * block it is that of the block's first instruction (`begins` in the opcode map).
   */
  executed = 0;
  /** Whether `executed` and the time-stamp counter are those of the present instruction, also if it does not begin a block. */
  inTime = false;
  /** The block that is executing, empty between blocks, and bits 31:0 of RIP at its start (time.ts). */
  block: readonly Instruction[] = BETWEEN_BLOCKS;
  blockStart = 0;
  /** Nanoseconds that instructions let pass besides executing: MWAIT, UMWAIT, TPAUSE. */
  waited = 0;
  /**
   * `executed` + `waited` beyond which no instruction waits, because a device is due to do something; who
   * has waited lets `Execution.run` return. Infinity if nobody gives processors their turns.
   */
  due = Infinity;
  /** Whether other processors of the machine have something to do. */
  othersExecute = false;
  /** An instruction waits: its turn is over. */
  waits = false;
  /** While true, {@link Execution.run} ends after the present instruction, once. */
  pauseRequested = false;
  /** Value of `executed` that a string instruction must not exceed. */
  executeUntil = 0;
  /** Value of `executed` at which VT-x has an event of its own: the boundary there asks the port. */
  portDeadline = Infinity;
  /**
   * In VMX non-root operation: whether VT-x may have events at any instruction boundary; otherwise it
   * is asked only after {@link Attention.Vmx}.
   */
  portAsks = false;
  /** While true, nothing is executed: somebody asked for a stop ({@link requestStop}). */
  stopRequested = false;
  /** In a shutdown that only RESET ends: nothing is executed, and no event has an effect. */
  stoppedUntilReset = false;

  constructor(
    index: number,
    features: CpuidFeatures,
    memory: PhysicalMemory,
    identity: ProcessorIdentity = { signature: 0, brand: '', processors: index + 1 },
    caching = new Caching(),
  ) {
    this.translations = new TranslationCache(caching);
    this.index = index;
    this.features = features;
    this.identity = identity;
    this.cpuid = new CpuidLeaves(features, identity, index);
    this.memory = memory;
    memory.monitors.push((address, bytes) => lineStored(this, address, bytes));
    const at = index * STATE_BYTES;
    const within = at + STATE_BYTES <= memory.ramStart && memory.ramBytes !== 0;
    const buffer = within ? memory.buffer : new ArrayBuffer(STATE_BYTES);
    const start = (within ? at : 0) + STATE_LAYOUT.registers;
    this.words = new Uint32Array(buffer, start, 2 * REGISTER_COUNT);
    this.i32 = new Int32Array(buffer, start, 2 * (REGISTER_COUNT + PORT_SLOTS));
    this.u16 = new Uint16Array(buffer, start, 4 * REGISTER_COUNT);
    this.u8 = new Uint8Array(buffer, start, 8 * REGISTER_COUNT);
    this.f32 = new Float32Array(buffer, start, 2 * REGISTER_COUNT);
    this.f64 = new Float64Array(buffer, start, REGISTER_COUNT);
    this.quads = new BigUint64Array(buffer, start, REGISTER_COUNT);
    this.tlb = new Tlb(buffer, (within ? at : 0) + STATE_LAYOUT.tlb);
    this.reset();
  }

  /** Power-up reset. */
  reset(): void {
    powerUp(this);
  }

  read(name: RegisterName): bigint {
    if (name === 'RFLAGS') materialise(this);
    return this.quads[Register[name]] as bigint;
  }

  /** Sets a register as a debugger would: no checks, but the mode follows. */
  write(name: RegisterName, value: bigint): void {
    const slot = Register[name];
    if (name === 'RFLAGS') materialise(this);
    this.quads[slot] = value;
    this.stateChanged();
    this.requestAttention();
    if (MODE_REGISTERS.has(slot)) this.updateMode();
    else if (name === 'CR8') this.localApic.taskPriorityWritten(Number(value & 0xfn));
  }

  /** Says that state may have changed on which the fast paths of the port rely. */
  stateChanged(): void {
    this.i32[CHECKS_NEEDED] = 1;
  }

  /** Derives again from the registers everything that depends on the mode. Translations of other settings are not used. */
  updateMode(): void {
    this.updateSegments();
    this.tlb.leaveView();
    // What asks for attention at the next boundary is found anew there.
    this.requestAttention();
  }

  /** As {@link updateMode} after changes of segment registers or RFLAGS.VM alone: translations still hold. */
  updateSegments(): void {
    this.stateChanged();
    const { words } = this;
    const cs = words[CS_RIGHTS] as number;
    if (((words[CR0_LOW] as number) & 1) === 0) this.mode = Real;
    else if ((words[EFER_LOW] as number) & LMA) this.mode = cs & CS_L ? Bit64 : Compatibility;
    else this.mode = (words[RFLAGS_LOW] as number) & VM ? Virtual8086 : Protected;
    const ss = words[SS_RIGHTS] as number;
    // SS.DPL is the CPL in every mode; in real-address mode it is 0 (SDM §27.4.1).
    this.cpl = this.mode === Real ? 0 : (ss >> 5) & 3;
    this.codeBits = this.mode === Bit64 ? 64 : cs & DEFAULT_BIG ? 32 : 16;
    this.stackBits = this.mode === Bit64 ? 64 : ss & DEFAULT_BIG ? 32 : 16;
    this.canonicalShift = (words[CR4_LOW] as number) & LA57 ? 24 : 15;
    if (this.mode !== Bit64) {
      for (let segment = 0; segment < 6; segment++) {
        this.flatSegments[segment] = flatAccesses(this, segment as Segment);
      }
    }
    this.updateEnforcement();
    this.updateAccessClass();
  }

  /** Derives again what depends on IA32_U_CET and IA32_S_CET. */
  updateEnforcement(): void {
    this.enforcement = ((this.words[CR4_LOW] as number) & CET) === 0 ? 0 : enforcementOf(this);
    if ((this.enforcement & Enforcement.Waiting) !== 0) this.requestAttention(Attention.Endbranch);
  }

  /** Derives again what depends on RFLAGS.AC, CR0.AM and the CPL. */
  updateAccessClass(): void {
    const ac = ((this.words[RFLAGS_LOW] as number) & (1 << RFLAGS.AC)) !== 0;
    if (this.cpl === 3) {
      this.accessClass = AccessClass.User;
      // At other privilege levels it is not delivered.
      if (this.words[USER_INTERRUPT_PENDING] !== 0) this.requestAttention(Attention.Event);
    } else this.accessClass = ac ? AccessClass.SupervisorWithAc : AccessClass.Supervisor;
    this.addressRules = addressRules(this, this.accessClass);
    this.alignmentChecked = ac && this.cpl === 3 && ((this.words[CR0_LOW] as number) & (1 << CR0.AM)) !== 0;
  }

  /** IA32_EFER.LMA. */
  get ia32eMode(): boolean {
    return bit(this.read('IA32_EFER'), EFER.LMA);
  }

  /** CR0.PG, CR4.PAE, not IA32_EFER.LMA (SDM vol. 3A §5.1.1). */
  get paePaging(): boolean {
    return bit(this.read('CR0'), CR0.PG) && bit(this.read('CR4'), CR4.PAE) && !this.ia32eMode;
  }

  /** Counts an instruction that is not modelled, and raised #UD for that reason. */
  noteUnmodelled(mnemonic: string): void {
    this.unmodelled.set(mnemonic, (this.unmodelled.get(mnemonic) ?? 0) + 1);
  }

  /** Asks for a look at the next instruction boundary, for `why` ({@link Attention}). */
  requestAttention(why: Attention = Attention.Lookup): void {
    this.i32[ATTENTION] = (this.i32[ATTENTION] as number) | why;
  }

  /** Stops execution after the present instruction or iteration, until {@link stopRequested} is cleared. */
  requestStop(): void {
    this.stopRequested = true;
    this.requestAttention();
  }

  /** Lets `Execution.run` return after the present instruction or iteration: when something is due has changed. */
  requestPause(): void {
    this.pauseRequested = true;
    this.requestAttention();
  }

  /** An NMI arrives; it is held until it can be taken. */
  requestNmi(): void {
    this.i32[NMI_PENDING] = 1;
    this.requestAttention(Attention.Event);
  }

  /** A machine-check event strikes at the next instruction boundary. */
  requestMachineCheck(): void {
    this.i32[MACHINE_CHECK_PENDING] = 1;
    this.requestAttention(Attention.Event);
  }

  /** An SMI arrives; it is held until it can be taken. */
  requestSmi(): void {
    this.i32[SMI_PENDING] = 1;
    this.requestAttention(Attention.Event);
  }

  /** An INIT signal arrives; it is held while it is blocked: in SMM, in VMX root operation, by a guest that waits for a SIPI. */
  requestInit(): void {
    this.i32[INIT_PENDING] = 1;
    this.requestAttention(Attention.Event);
  }

  /** A start-up IPI arrives; it is lost unless the processor waits for one, or will after an INIT signal. */
  requestSipi(vector: number): void {
    const w = this.i32;
    if (w[ACTIVITY] !== WAIT_FOR_SIPI && w[INIT_PENDING] === 0) return;
    w[SIPI_PENDING] = 1;
    w[SIPI_PENDING + 1] = vector & 0xff;
    this.requestAttention(Attention.Event);
  }

  /** RDMSR at CPL 0: the value, or undefined for #GP(0). */
  readMsr(index: number): bigint | undefined {
    return readMsr(this, index);
  }

  /** WRMSR at CPL 0: `ok`, or the reason for #GP(0). */
  writeMsr(index: number, value: bigint): MsrAccess {
    this.requestAttention();
    const access = writeMsr(this, index, value);
    this.updateEnforcement();
    return access;
  }
}
