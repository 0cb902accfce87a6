/**
 * VM exits about what instructions and events do to the machine (SDM §28.2): bus locks, and events that
 * keep the processor from executing an instruction.
 */
import { Attention } from '../../cpu/attention.ts';
import { TSC_PER_CRYSTAL_TICK } from '../../cpu/cpuid-leaves.ts';
import { Field } from '../../vmcs/fields.ts';
import type { ProcessorCopy } from '../../vmcs/processor-copy.ts';
import { controlRef, isOn } from '../effective-controls.ts';
import { ExitReason } from '../exit/exit-reasons.ts';
import type { ExitRequest } from '../exit/exit-request.ts';
import { nmiUnblocking } from '../intercepts/event-exits.ts';
import type { VmxProcessor } from '../vmx-state.ts';

const BUS_LOCK_DETECTION = controlRef('proc2.vmmBusLockDetection');
const INSTRUCTION_TIMEOUT = controlRef('proc2.instructionTimeout');
const TIMEOUT = 2 * Field.instructionTimeoutControl;
/** Ticks that no timeout is shorter than: events follow each other in ordinary software too. */
const SHORTEST = 64;

const BUS_LOCK: ExitRequest = Object.freeze({ reason: ExitReason.BusLock });

const copyOf = (p: VmxProcessor): ProcessorCopy => p.active.resident(p.vmx.current as ProcessorCopy);

/** An instruction has locked the bus. */
export function noteBusLock(p: VmxProcessor): void {
  if (!isOn(copyOf(p), p.capabilities, BUS_LOCK_DETECTION)) return;
  p.vmx.busLockAsserted = true;
  p.cpu.requestAttention(Attention.Vmx);
}

export function busLockExit(p: VmxProcessor): ExitRequest | undefined {
  return p.vmx.busLockAsserted ? BUS_LOCK : undefined;
}

/** An event is taken, or goes on being delivered. */
export function noteEvent({ cpu, vmx }: VmxProcessor): void {
  if (vmx.eventsUntil !== cpu.executed) vmx.eventsFrom = cpu.executed;
  vmx.eventsUntil = cpu.executed + 1;
}

/** Events have followed each other for the time of the instruction-timeout control. */
export function timeoutExit(p: VmxProcessor): ExitRequest | undefined {
  const { cpu, vmx } = p;
  if (vmx.eventsUntil !== cpu.executed || cpu.executed - vmx.eventsFrom < SHORTEST) return undefined;
  const copy = copyOf(p);
  const ticks = (copy.words[TIMEOUT] as number) * TSC_PER_CRYSTAL_TICK;
  if (cpu.executed - vmx.eventsFrom < ticks || !isOn(copy, p.capabilities, INSTRUCTION_TIMEOUT)) {
    return undefined;
  }
  // The context is valid: nothing of the delivery has changed a register.
  return { reason: ExitReason.InstructionTimeout, qualification: BigInt(nmiUnblocking(p)) };
}
