/**
 * Executes instructions: finds decoded code at RIP, runs it, and at the end of every instruction
 * settles what it came to (SDM vol. 3A §7.9 for what is looked at between two instructions).
 */
import { Attention } from './attention.ts';
import { BlockCache } from './block-cache.ts';
import { afterInstruction, atBoundary, Boundary } from './boundary.ts';
import { mayFollowIndirectBranch } from './cet/branch-tracking.ts';
import { Enforcement } from './cet/enforcement.ts';
import { deliverFault } from './events.ts';
import { materialise } from './flags.ts';
import { type Instruction, Next } from './instruction.ts';
import { advance, retreat } from './instruction-pointer.ts';
import type { Processor } from './processor.ts';
import { Register } from './registers.ts';
import { BETWEEN_BLOCKS, passTime } from './time.ts';

const ATTENTION = 2 * Register.attention;
const RIP_LOW = 2 * Register.RIP;

/** Instruction execution of one processor. */
export class Execution {
  private readonly cpu: Processor;
  private readonly blocks: BlockCache;
  /** `cpu.executed` up to which the time-stamp counter has advanced. */
  private counted = 0;
  /** Sees each instruction before it is executed; blocks then are executed one instruction at a time. */
  watch: ((i: Instruction) => void) | undefined = undefined;

  constructor(cpu: Processor) {
    this.cpu = cpu;
    this.blocks = new BlockCache(cpu);
  }

  /**
   * Executes until `cpu.executed` has grown by `count` or the processor has nothing to execute, or is
   * asked to stop. An instruction that faults counts, as do an iteration of a string instruction and
   * an event between two instructions.
   */
  run(count: number): void {
    const { cpu } = this;
    const end = cpu.executed + count;
    this.counted = cpu.executed;
    while (cpu.executed < end) {
      this.followTime();
      if (cpu.executed >= cpu.portDeadline) cpu.requestAttention(Attention.Vmx);
      if (cpu.i32[ATTENTION] !== 0) {
        if (cpu.stopRequested || cpu.stoppedUntilReset) break;
        if (cpu.pauseRequested) {
          cpu.pauseRequested = false;
          break;
        }
        const boundary = atBoundary(cpu);
        if (boundary === Boundary.Inactive) {
          // Who gives processors their turns lets time pass too.
          if (cpu.due !== Infinity || !waitsForDeadline(cpu, end)) break;
          continue;
        }
        if (boundary === Boundary.EventTaken) {
          cpu.executed++;
          continue;
        }
        if ((cpu.enforcement & Enforcement.Waiting) !== 0 && !this.meetsTracker()) continue;
      }
      const block = this.blocks.at(cpu);
      if (block === undefined) {
        cpu.executed++;
        deliverFault(cpu);
      } else this.execute(block.instructions, end);
    }
    this.followTime();
    materialise(cpu);
  }

  /** Takes the event that is due at this boundary, if there is one; no time is waited for. */
  look(): boolean {
    const { cpu } = this;
    this.counted = cpu.executed;
    if (cpu.executed >= cpu.portDeadline) cpu.requestAttention(Attention.Vmx);
    if (cpu.i32[ATTENTION] === 0 || atBoundary(cpu) !== Boundary.EventTaken) return false;
    cpu.executed++;
    this.followTime();
    materialise(cpu);
    return true;
  }

  /** Whether the ENDBRANCH tracker, which waits and asks for attention, lets the instruction at RIP execute; the fault is delivered if not. */
  private meetsTracker(): boolean {
    const { cpu } = this;
    const block = this.blocks.at(cpu);
    if (block !== undefined && mayFollowIndirectBranch(cpu, block.instructions[0] as Instruction))
      return true;
    cpu.executed++;
    deliverFault(cpu);
    return false;
  }

  /** Lets the time-stamp counter follow what was executed. */
  private followTime(): void {
    const { executed } = this.cpu;
    if (executed !== this.counted) passTime(this.cpu, executed - this.counted);
    this.counted = executed;
  }

  private execute(instructions: readonly Instruction[], end: number): void {
    const { cpu } = this;
    const { i32 } = cpu;
    // What needs attention needs it after each single instruction.
    const singly = i32[ATTENTION] !== 0 || this.watch !== undefined;
    const until = Math.min(end, cpu.portDeadline);
    cpu.executeUntil = until;
    const most = singly ? 1 : Math.min(instructions.length, until - cpu.executed);
    let n = 0;
    let next: Next = Next.Sequential;
    let i = instructions[0] as Instruction;
    this.watch?.(i);
    cpu.blockStart = i32[RIP_LOW] as number;
    cpu.block = instructions;
    do {
      i = instructions[n++] as Instruction;
      advance(cpu, i.length);
      next = i.run(cpu, i);
    } while (next === Next.Sequential && n < most && i32[ATTENTION] === 0);
    cpu.block = BETWEEN_BLOCKS;
    if (next === Next.OutOfTime) {
      cpu.executed += n - 1;
      n = 1;
      this.followTime();
      next = inTime(cpu, i);
    }
    cpu.executed += n;
    this.followTime();
    if (next >= Next.Fault) settle(cpu, i, next);
    else if (i32[ATTENTION] !== 0) afterInstruction(cpu, next === Next.Lookup && isBranch(i));
  }
}

/** Lets the time pass in which nothing is executed, up to `end`; false if VT-x has nothing to wait for. */
function waitsForDeadline(cpu: Processor, end: number): boolean {
  const until = Math.min(end, cpu.portDeadline);
  if (cpu.portDeadline === Infinity || until <= cpu.executed) return false;
  cpu.executed = until;
  return true;
}

/** Executes an instruction again that asked for the time. */
function inTime(cpu: Processor, i: Instruction): Next {
  cpu.inTime = true;
  const next = i.run(cpu, i);
  cpu.inTime = false;
  return next;
}

function settle(cpu: Processor, i: Instruction, next: Next): void {
  if (next === Next.Settled) return;
  retreat(cpu, i.length);
  if (next === Next.Fault) deliverFault(cpu, i.length);
  else if (next === Next.VmExit) cpu.vmxPort.exitPending(i.length);
  else {
    cpu.repeatedAt = cpu.executed;
    if (cpu.i32[ATTENTION] !== 0) afterInstruction(cpu, false);
  }
}

const BRANCHES = /^(J|LOOP|CALL|RET|IRET|UIRET|ERET|SYS)/;

/** Whether the instruction is one that IA32_DEBUGCTL.BTF calls a branch; asked only while single-stepping. */
function isBranch(i: Instruction): boolean {
  return BRANCHES.test(i.row.mnemonic);
}
