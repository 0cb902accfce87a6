/** Task switches by JMP, CALL and IRET (SDM vol. 3A §9.3, §9.4). */
import { inIa32eMode, refuse } from './code-target.ts';
import { Descriptor, fetchDescriptor, SystemType } from './descriptor.ts';
import { deliverFault } from './events.ts';
import { Vector } from './exceptions.ts';
import { type Instruction, Next } from './instruction.ts';
import { Intercept, intercepted } from './intercept.ts';
import { loadLinear } from './memory-access.ts';
import type { Processor } from './processor.ts';
import { Register } from './registers.ts';
import { checkTssLimit, switchTask, TaskSwitch, TaskSwitchSource, taskOfGate } from './task-switch.ts';

const TR_BASE = 2 * Register['TR.base'];
const ITEM = 2 * Register.stackItem;
const ITEM_BYTES = 8 * Register.stackItem;

const task = new Descriptor();

/** The switch itself; an exception of the new task is delivered in that task. RIP has advanced. */
function transfer(cpu: Processor, i: Instruction, selector: number, source: TaskSwitchSource): Next {
  if (!checkTssLimit(cpu, selector, task)) return Next.Fault;
  if (intercepted(cpu, i, Intercept.TASK_SWITCH, selector, source)) return Next.VmExit;
  switch (switchTask(cpu, selector, task, source)) {
    case TaskSwitch.Done:
      return Next.Lookup;
    case TaskSwitch.NotBegun:
      return Next.Fault;
    default:
      deliverFault(cpu);
      return Next.Settled;
  }
}

/** JMP or CALL of the TSS or task gate `d` of `selector`; IA-32e mode has neither. */
export function transferToTask(
  cpu: Processor,
  i: Instruction,
  selector: number,
  d: Descriptor,
  source: TaskSwitchSource,
): Next {
  const type = d.systemType;
  const isGate = type === SystemType.TaskGate;
  const isTss = type === SystemType.Tss16 || type === SystemType.Tss32;
  const allowed = !inIa32eMode(cpu) && d.dpl >= Math.max(cpu.cpl, selector & 3);
  if (!(isGate || isTss) || !allowed) return failed(refuse(cpu, selector));
  if (!d.isPresent) return failed(refuse(cpu, selector, Vector.NP));
  const tss = isGate ? d.target : selector;
  if (!taskOfGate(cpu, tss, task)) return Next.Fault;
  return transfer(cpu, i, tss, source);
}

/** IRET with RFLAGS.NT: back to the task that the present one was called from. */
export function returnToPreviousTask(cpu: Processor, i: Instruction): Next {
  if (!loadLinear(cpu, cpu.i32[TR_BASE] as number, 0, ITEM_BYTES, 2)) return Next.Fault;
  const selector = cpu.i32[ITEM] as number;
  if ((selector & 4) !== 0) return failed(refuse(cpu, selector, Vector.TS));
  if (!fetchDescriptor(cpu, selector, task, Vector.TS)) return Next.Fault;
  const { systemType: type } = task;
  const busy = type === SystemType.BusyTss16 || type === SystemType.BusyTss32;
  if (!busy) return failed(refuse(cpu, selector, Vector.TS));
  if (!task.isPresent) return failed(refuse(cpu, selector, Vector.NP));
  return transfer(cpu, i, selector, TaskSwitchSource.Iret);
}

function failed(_refused: false): Next {
  return Next.Fault;
}
