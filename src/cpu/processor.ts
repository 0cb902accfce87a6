/**
 * A logical processor: its registers in one buffer, its MSRs, its operating mode. It is complete
 * without VT-x; what VT-x adds is asked through `vmxPort`.
 */
import { bit } from '../bits/u64.ts';
import type { CpuidFeatures } from './cpuid.ts';
import type { MsrAccess } from './msr-catalogue.ts';
import { readMsr, writeMsr } from './msrs.ts';
import type { PhysicalMemory } from './physical-memory.ts';
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
import { NO_VMX, type VmxPort } from './vmx-port.ts';

/** Operating mode (SDM vol. 1 §3.1). */
export const Mode = { Real: 0, Virtual8086: 1, Protected: 2, Compatibility: 3, Bit64: 4 } as const;
export type Mode = (typeof Mode)[keyof typeof Mode];

const MODE_REGISTERS: ReadonlySet<number> = new Set([
  Register.CR0,
  Register.RFLAGS,
  Register.IA32_EFER,
  Register['CS.accessRights'],
  Register['SS.accessRights'],
]);

const CS_L = 1 << 13;
const CR0_LOW = 2 * Register.CR0;
const EFER_LOW = 2 * Register.IA32_EFER;
const RFLAGS_LOW = 2 * Register.RFLAGS;
const CS_RIGHTS = 2 * Register['CS.accessRights'];
const SS_RIGHTS = 2 * Register['SS.accessRights'];

export class Processor {
  /** Number of this processor in its machine, from 0. */
  readonly index: number;
  readonly features: CpuidFeatures;
  readonly memory: PhysicalMemory;
  /** Register values by slot ({@link Register}): two 32-bit words each, low first. */
  readonly words: Uint32Array;
  /** The same bytes as 64-bit values. After writing a register of the mode directly, call {@link updateMode}. */
  readonly quads: BigUint64Array;
  /** Registers and, behind them, the slots of the port, as signed words (bench: "VMREAD … into a register"). */
  readonly file: Int32Array;
  vmxPort: VmxPort = NO_VMX;
  /** Operating mode, derived from CR0.PE, RFLAGS.VM, IA32_EFER.LMA and CS.L. */
  mode: Mode = Mode.Real;
  /** Current privilege level, 0–3: SS.DPL (SDM §27.4.1). */
  cpl = 0;

  constructor(index: number, features: CpuidFeatures, memory: PhysicalMemory) {
    this.index = index;
    this.features = features;
    this.memory = memory;
    const buffer = new ArrayBuffer((REGISTER_COUNT + PORT_SLOTS) * 8);
    this.words = new Uint32Array(buffer, 0, REGISTER_COUNT * 2);
    this.quads = new BigUint64Array(buffer, 0, REGISTER_COUNT);
    this.file = new Int32Array(buffer);
    this.reset();
  }

  /** Power-up reset (SDM vol. 3A §11.1.1, Table 11-1). */
  reset(): void {
    this.quads.fill(0n);
    const set = (name: RegisterName, value: bigint) => {
      this.quads[Register[name]] = value;
    };
    set('RFLAGS', 2n);
    set('RIP', 0xfff0n);
    set('CR0', 0x6000_0010n);
    set('DR6', 0xffff_0ff0n);
    set('DR7', 0x400n);
    set('XCR0', 1n);
    set('IA32_PAT', 0x0007_0406_0007_0406n);
    set('IA32_APIC_BASE', this.index === 0 ? 0xfee0_0900n : 0xfee0_0800n);
    for (const segment of ['ES', 'SS', 'DS', 'FS', 'GS'] as const) {
      set(`${segment}.limit`, 0xffffn);
      set(`${segment}.accessRights`, 0x93n);
    }
    set('CS.selector', 0xf000n);
    set('CS.base', 0xffff_0000n);
    set('CS.limit', 0xffffn);
    set('CS.accessRights', 0x9bn);
    set('LDTR.limit', 0xffffn);
    set('LDTR.accessRights', 0x82n);
    set('TR.limit', 0xffffn);
    set('TR.accessRights', 0x8bn);
    set('GDTR.limit', 0xffffn);
    set('IDTR.limit', 0xffffn);
    this.updateMode();
  }

  read(name: RegisterName): bigint {
    return this.quads[Register[name]] as bigint;
  }

  /** Sets a register as a debugger would: no checks, but the mode follows. */
  write(name: RegisterName, value: bigint): void {
    const slot = Register[name];
    this.quads[slot] = value;
    this.stateChanged();
    if (MODE_REGISTERS.has(slot)) this.updateMode();
  }

  /** Says that state may have changed on which the fast paths of the port rely. */
  stateChanged(): void {
    this.file[CHECKS_NEEDED] = 1;
  }

  /** Derives {@link mode} and {@link cpl} again from the registers. */
  updateMode(): void {
    this.stateChanged();
    const { words } = this;
    const cs = words[CS_RIGHTS] as number;
    if (((words[CR0_LOW] as number) & 1) === 0) this.mode = Mode.Real;
    else if ((words[EFER_LOW] as number) & (1 << EFER.LMA))
      this.mode = cs & CS_L ? Mode.Bit64 : Mode.Compatibility;
    else this.mode = (words[RFLAGS_LOW] as number) & (1 << RFLAGS.VM) ? Mode.Virtual8086 : Mode.Protected;
    this.cpl = this.mode === Mode.Real ? 0 : ((words[SS_RIGHTS] as number) >> 5) & 3;
  }

  /** IA32_EFER.LMA. */
  get ia32eMode(): boolean {
    return bit(this.read('IA32_EFER'), EFER.LMA);
  }

  /** CR0.PG, CR4.PAE, not IA32_EFER.LMA (SDM vol. 3A §5.1.1). */
  get paePaging(): boolean {
    return bit(this.read('CR0'), CR0.PG) && bit(this.read('CR4'), CR4.PAE) && !this.ia32eMode;
  }

  /** RDMSR at CPL 0: the value, or undefined for #GP(0). */
  readMsr(index: number): bigint | undefined {
    return readMsr(this, index);
  }

  /** WRMSR at CPL 0: `ok`, or the reason for #GP(0). */
  writeMsr(index: number, value: bigint): MsrAccess {
    return writeMsr(this, index, value);
  }
}
