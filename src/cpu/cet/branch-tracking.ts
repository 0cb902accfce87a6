/**
 * Indirect-branch tracking (SDM vol. 1 §17.3): after an indirect branch the tracker of the privilege
 * level waits for an ENDBRANCH. It is in IA32_U_CET or IA32_S_CET, so that it survives events.
 */
import { followsRules } from '../addressing.ts';
import { raiseWithCode, Vector } from '../exceptions.ts';
import type { Instruction } from '../instruction.ts';
import { load } from '../memory-access.ts';
import { Mode } from '../mode.ts';
import type { Processor } from '../processor.ts';
import { CR4, Register } from '../registers.ts';
import { CetBit, ControlProtection, cetControls, controlsAt, Enforcement } from './enforcement.ts';

const { RIP, linear: LINEAR, stackItem: ITEM } = Register;
const CS_BASE = Register['CS.base'];
const CR4_LOW = 2 * Register.CR4;
const LA57 = 1 << CR4.LA57;

/** Instructions that an indirect branch may lead to and that leave the tracker waiting. */
const BREAKPOINTS: ReadonlySet<string> = new Set(['INT3', 'INT1']);

function setTracker(cpu: Processor, controls: number): void {
  cpu.i32[controlsAt(cpu.cpl)] = controls;
  cpu.stateChanged();
  cpu.updateEnforcement();
}

/** A near indirect branch that is tracked. */
export function trackBranch(cpu: Processor, i: Instruction): void {
  const controls = cpu.i32[controlsAt(cpu.cpl)] as number;
  if (i.noTrack && (controls & CetBit.NO_TRACK_EN) !== 0) return;
  setTracker(cpu, controls | CetBit.TRACKER);
}

/** After a far branch or the delivery of an event: tracking is not suppressed, and waits at the CPL that was reached. */
export function awaitEndbranch(cpu: Processor): void {
  if ((cpu.enforcement & Enforcement.Endbranch) === 0) return;
  const controls = cpu.i32[controlsAt(cpu.cpl)] as number;
  setTracker(cpu, (controls & ~CetBit.SUPPRESS) | CetBit.TRACKER);
}

/** FRED delivery: the supervisor tracker does not wait for an ENDBRANCH. */
export function endWaiting(cpu: Processor): void {
  const at = controlsAt(0);
  const controls = cpu.i32[at] as number;
  if ((cetControls(cpu, 0) & CetBit.ENDBR_EN) !== 0) cpu.i32[at] = controls & ~CetBit.TRACKER;
  cpu.updateEnforcement();
}

/** ERETS to code after an indirect branch: the tracker waits again, unless it is suppressed. */
export function waitAgain(cpu: Processor): void {
  if ((cpu.enforcement & Enforcement.Tracking) === 0) return;
  setTracker(cpu, (cpu.i32[controlsAt(0)] as number) | CetBit.TRACKER);
}

/** An ENDBRANCH of the mode that executes, wherever it stands. */
export function endBranch(cpu: Processor): void {
  const controls = cpu.i32[controlsAt(cpu.cpl)] as number;
  setTracker(cpu, controls & ~(CetBit.SUPPRESS | CetBit.TRACKER));
}

/**
 * Whether the tracker, which waits, lets instruction `i` execute; #CP, or what access to the legacy code
 * page bitmap comes to, is raised if not.
 */
export function mayFollowIndirectBranch(cpu: Processor, i: Instruction): boolean {
  const { mnemonic } = i.row;
  const endbranch = cpu.mode === Mode.Bit64 ? 'ENDBR64' : 'ENDBR32';
  if (mnemonic === endbranch || BREAKPOINTS.has(mnemonic)) return true;
  const controls = cpu.i32[controlsAt(cpu.cpl)] as number;
  if ((controls & CetBit.LEG_IW_EN) !== 0) {
    const address = linearInstructionPointer(cpu);
    if (!loadBitmap(cpu, address >> 15n)) return false;
    if ((((cpu.i32[2 * ITEM] as number) >> Number((address >> 12n) & 7n)) & 1) !== 0) {
      const suppress = (controls & CetBit.SUPPRESS_DIS) === 0 ? CetBit.SUPPRESS : 0;
      setTracker(cpu, (controls & ~CetBit.TRACKER) | suppress);
      return true;
    }
  }
  raiseWithCode(cpu, Vector.CP, ControlProtection.Endbranch);
  return false;
}

/** The bits of the linear address of the instruction that number its page: 31:0, 47:0 or 56:0. */
function linearInstructionPointer(cpu: Processor): bigint {
  const { quads } = cpu;
  const rip = quads[RIP] as bigint;
  if (cpu.mode !== Mode.Bit64) return BigInt.asUintN(32, (quads[CS_BASE] as bigint) + rip);
  return BigInt.asUintN(((cpu.i32[CR4_LOW] as number) & LA57) !== 0 ? 57 : 48, rip);
}

/** Loads a byte of the legacy code page bitmap into the slot `stackItem`, with the rights of the CPL. */
function loadBitmap(cpu: Processor, offset: bigint): boolean {
  const { quads, i32 } = cpu;
  const base = (quads[controlsAt(cpu.cpl) >> 1] as bigint) & ~0xfffn;
  const address = BigInt.asUintN(cpu.mode >= Mode.Compatibility ? 64 : 32, base + offset);
  quads[LINEAR] = address;
  if (!followsRules(cpu, cpu.addressRules, i32[2 * LINEAR] as number, i32[2 * LINEAR + 1] as number, 1)) {
    raiseWithCode(cpu, Vector.GP, 0);
    return false;
  }
  return load(cpu, 8 * ITEM, 1);
}
