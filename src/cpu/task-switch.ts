/**
 * Task switches (SDM vol. 3A §9.3, §9.4): the old task's state goes to its TSS, the new one's comes from
 * its own. Until TR is loaded a fault leaves everything as it was; a fault after that is the new task's.
 */
import { awaitEndbranch } from './cet/branch-tracking.ts';
import { enterTaskShadowStack, leaveTask, TaskLink, tasksHaveShadowStacks } from './cet/shadow-stack-task.ts';
import { refuse } from './code-target.ts';
import { debugRegistersChanged } from './debug-registers.ts';
import {
  Descriptor,
  Found,
  fetchDescriptor,
  isNull,
  lookUp,
  markAccessed,
  markBusy,
  SystemType,
} from './descriptor.ts';
import { HAS_ERROR_CODE } from './event.ts';
import { raiseDebug, raiseVmExit, raiseWithCode, Vector } from './exceptions.ts';
import { materialise } from './flags.ts';
import { Segment } from './instruction.ts';
import { cancelSingleStep, keepResumeFlag } from './instruction-start.ts';
import { loadPdptes } from './page-walk.ts';
import { cr3Loaded } from './paging.ts';
import type { Processor } from './processor.ts';
import { CR0, Register, RFLAGS } from './registers.ts';
import {
  checkDataSegment,
  checkStackSegment,
  SystemSegment,
  selectorOf,
  setNullSegment,
  setSegment,
  setVirtual8086Segment,
} from './segment-load.ts';
import { StackTarget } from './stack-target.ts';
import { formatOf, LIMIT_WITH_SSP, storeField, TaskState, type TssFormat } from './task-state-segment.ts';

/** Source of a task switch, as exit qualifications have it (SDM §30.2.1, Table 30-2). */
export const TaskSwitchSource = { Call: 0, Iret: 1, Jmp: 2, Gate: 3 } as const;
export type TaskSwitchSource = (typeof TaskSwitchSource)[keyof typeof TaskSwitchSource];

/** What came of a task switch. */
export const TaskSwitch = {
  Done: 0,
  /** A fault was raised, and nothing has changed. */
  NotBegun: 1,
  /** The new task runs, and a fault of its own or its T flag raised an exception. */
  RaisedInNewTask: 2,
} as const;
export type TaskSwitch = (typeof TaskSwitch)[keyof typeof TaskSwitch];

const TR_BASE = 2 * Register['TR.base'];
const TR_RIGHTS = 2 * Register['TR.accessRights'];
const RIP = 2 * Register.RIP;
const RFLAGS_LOW = 2 * Register.RFLAGS;
const CR0_LOW = 2 * Register.CR0;
const CR3_LOW = 2 * Register.CR3;
const DR7 = 2 * Register.DR7;
const EVENT = 2 * Register.originalEvent;
const EVENT_CODE = 2 * Register.originalEventErrorCode;
const EVENT_FLAGS = 2 * Register.originalEventFlags;
const EXTERNAL = 2 * Register.external;
const RETURN = 2 * Register.returnAddress;
const NT = 1 << RFLAGS.NT;
const VM = 1 << RFLAGS.VM;
const RF = 1 << RFLAGS.RF;
/** Bits of EFLAGS that a TSS can set. */
const EFLAGS_BITS = 0x3f_7fd5;
const ALWAYS_1 = 2;
/** L0–L3 and LE: breakpoints of the old task. */
const LOCAL_BREAKPOINTS = 0x155;
/** DR6.BT. */
const TASK_SWITCH_TRAP = 1 << 15;

const descriptor = new Descriptor();
const oldDescriptor = new Descriptor();
const loaded = new Descriptor();
const oldTask = new TaskState();
const newTask = new TaskState();
const stack = new StackTarget();

/** Fetches and checks the TSS that a task gate names: in the GDT, available and present. */
export function taskOfGate(cpu: Processor, selector: number, d: Descriptor): boolean {
  if ((selector & 4) !== 0) return refuse(cpu, selector);
  if (!fetchDescriptor(cpu, selector, d, Vector.GP)) return false;
  const { systemType: type } = d;
  if (type !== SystemType.Tss16 && type !== SystemType.Tss32) return refuse(cpu, selector);
  return d.isPresent || refuse(cpu, selector, Vector.NP);
}

/** The last check before VT-x may intercept the task switch: the limit of the new TSS; with shadow stacks its size. */
export function checkTssLimit(cpu: Processor, selector: number, d: Descriptor): boolean {
  const format = formatOf(d.rights);
  const withSsp = tasksHaveShadowStacks(cpu);
  const suits = withSsp
    ? format.bytes === 4 && d.limit >>> 0 >= LIMIT_WITH_SSP
    : d.limit >>> 0 >= format.limit;
  return suits || refuse(cpu, selector, Vector.TS);
}

/** Delivers the event in the slots `originalEvent…` by a switch to the task of the TSS `selector`. */
export function switchTaskForEvent(cpu: Processor, selector: number): boolean {
  if (!taskOfGate(cpu, selector, descriptor) || !checkTssLimit(cpu, selector, descriptor)) return false;
  if (cpu.nonRoot && cpu.vmxPort.exitsOnTaskSwitch(selector)) {
    // Nothing is left to deliver, and no exit is pending any more.
    raiseVmExit(cpu);
    return false;
  }
  if (switchTask(cpu, selector, descriptor, TaskSwitchSource.Gate) !== TaskSwitch.Done) return false;
  const w = cpu.i32;
  if (((w[EVENT] as number) & HAS_ERROR_CODE) === 0) return true;
  stack.current(cpu, w[EXTERNAL] as number);
  if (!stack.push(cpu, w[EVENT_CODE] as number, 0, formatOf(w[TR_RIGHTS] as number).bytes)) return false;
  stack.adopt(cpu);
  return true;
}

/** Switches to the task of the TSS `selector`, whose descriptor `d` was checked. */
export function switchTask(
  cpu: Processor,
  selector: number,
  d: Descriptor,
  source: TaskSwitchSource,
): TaskSwitch {
  const w = cpu.i32;
  const format = formatOf(d.rights);
  const nests = source === TaskSwitchSource.Call || source === TaskSwitchSource.Gate;
  const withSsp = tasksHaveShadowStacks(cpu);
  if (!newTask.load(cpu, d.baseLow, format, withSsp)) return TaskSwitch.NotBegun;
  if (withSsp && (newTask.eflags & VM) !== 0) {
    refuse(cpu, selector, Vector.TS);
    return TaskSwitch.NotBegun;
  }
  noteOldTask(cpu, source);
  if (!leaveTask(cpu, linkOf(source), newCpl(), oldTask.eip)) return TaskSwitch.NotBegun;
  if (!oldTask.save(cpu, w[TR_BASE] as number, formatOf(w[TR_RIGHTS] as number))) return TaskSwitch.NotBegun;
  const oldSelector = selectorOf(cpu, SystemSegment.TR);
  if (nests) {
    if (!storeField(cpu, d.baseLow, 0, 2, oldSelector)) return TaskSwitch.NotBegun;
  } else {
    const found = lookUp(cpu, oldSelector, oldDescriptor);
    if (found === Found.Fault) return TaskSwitch.NotBegun;
    if (found === Found.Yes && !markBusy(cpu, oldDescriptor, false)) return TaskSwitch.NotBegun;
  }
  if (source !== TaskSwitchSource.Iret && !markBusy(cpu, d, true)) return TaskSwitch.NotBegun;
  setSegment(cpu, SystemSegment.TR, selector, d);
  w[CR0_LOW] = (w[CR0_LOW] as number) | (1 << CR0.TS);
  keepResumeFlag(cpu);
  cancelSingleStep(cpu);
  if (!enterTask(cpu, format, nests)) return TaskSwitch.RaisedInNewTask;
  if (!enterTaskShadowStack(cpu, newTask.ssp, selector)) return TaskSwitch.RaisedInNewTask;
  if (source !== TaskSwitchSource.Iret) awaitEndbranch(cpu);
  if (!newTask.trap) return TaskSwitch.Done;
  raiseDebug(cpu, TASK_SWITCH_TRAP);
  return TaskSwitch.RaisedInNewTask;
}

function linkOf(source: TaskSwitchSource): TaskLink {
  if (source === TaskSwitchSource.Jmp) return TaskLink.None;
  return source === TaskSwitchSource.Iret ? TaskLink.Returns : TaskLink.Nests;
}

/** The CPL of the new task. */
function newCpl(): number {
  return (newTask.eflags & VM) !== 0 ? 3 : (newTask.segments[Segment.CS] as number) & 3;
}

/** State of the old task as its TSS will have it. */
function noteOldTask(cpu: Processor, source: TaskSwitchSource): void {
  const w = cpu.i32;
  const gate = source === TaskSwitchSource.Gate;
  oldTask.eip = w[gate ? RETURN : RIP] as number;
  oldTask.eflags = gate ? materialise(cpu) | (w[EVENT_FLAGS] as number) : materialise(cpu) & ~RF;
  if (source === TaskSwitchSource.Iret) oldTask.eflags &= ~NT;
  for (let n = 0; n < 8; n++) oldTask.general[n] = w[2 * n] as number;
  for (let n = 0; n < 6; n++) oldTask.segments[n] = selectorOf(cpu, n);
}

/** Makes `newTask` the state of the processor; false after a fault of the new task. */
function enterTask(cpu: Processor, format: TssFormat, nests: boolean): boolean {
  const w = cpu.i32;
  if (format.bytes === 4 && ((w[CR0_LOW] as number) & (1 << CR0.PG)) !== 0) {
    const pdptes = cpu.paePaging ? loadPdptes(cpu, newTask.cr3) : 'loaded';
    if (pdptes === 'refused') raiseWithCode(cpu, Vector.GP, w[EXTERNAL] as number);
    if (pdptes !== 'loaded') return false;
    w[CR3_LOW] = newTask.cr3;
    w[CR3_LOW + 1] = 0;
    cr3Loaded(cpu, false);
  }
  for (let n = 0; n < 8; n++) {
    const value = newTask.general[n] as number;
    // A 16-bit TSS leaves bits 31:16.
    w[2 * n] = format.bytes === 4 ? value : ((w[2 * n] as number) & ~0xffff) | (value & 0xffff);
    w[2 * n + 1] = 0;
  }
  w[RIP] = newTask.eip;
  w[RIP + 1] = 0;
  w[RFLAGS_LOW] = (newTask.eflags & EFLAGS_BITS) | ALWAYS_1 | (nests ? NT : 0);
  if (((w[DR7] as number) & LOCAL_BREAKPOINTS) !== 0) {
    w[DR7] = (w[DR7] as number) & ~LOCAL_BREAKPOINTS;
    debugRegistersChanged(cpu);
  }
  const cpl = newCpl();
  for (let n = 0; n < 6; n++) setNullSegment(cpu, n, newTask.segments[n] as number, cpl);
  cpu.updateMode();
  if (!loadLdtr(cpu, newTask.ldt)) return false;
  if (((w[RFLAGS_LOW] as number) & VM) === 0) return loadSegments(cpu, cpl);
  for (let n = 0; n < 6; n++) setVirtual8086Segment(cpu, n, newTask.segments[n] as number);
  return checkEip(cpu, 0xffff);
}

function loadLdtr(cpu: Processor, selector: number): boolean {
  setNullSegment(cpu, SystemSegment.LDTR, selector);
  if (isNull(selector)) return true;
  if ((selector & 4) !== 0) return refuse(cpu, selector, Vector.TS);
  if (!fetchDescriptor(cpu, selector, loaded, Vector.TS)) return false;
  if (loaded.systemType !== SystemType.Ldt || !loaded.isPresent) return refuse(cpu, selector, Vector.TS);
  setSegment(cpu, SystemSegment.LDTR, selector, loaded);
  return true;
}

function loadSegments(cpu: Processor, cpl: number): boolean {
  const { segments } = newTask;
  const cs = segments[Segment.CS] as number;
  if (!checkTaskCode(cpu, cs, cpl)) return false;
  setSegment(cpu, Segment.CS, cs, loaded);
  const ss = segments[Segment.SS] as number;
  if (isNull(ss)) return refuse(cpu, ss, Vector.TS);
  if (!checkStackSegment(cpu, ss, cpl, Vector.TS, loaded)) return false;
  setSegment(cpu, Segment.SS, ss, loaded);
  for (const segment of [Segment.DS, Segment.ES, Segment.FS, Segment.GS]) {
    const selector = segments[segment] as number;
    if (isNull(selector)) continue;
    if (!checkDataSegment(cpu, selector, cpl, Vector.TS, loaded)) return false;
    setSegment(cpu, segment, selector, loaded);
  }
  return checkEip(cpu, (cpu.i32[2 * Register['CS.limit']] as number) >>> 0);
}

function checkTaskCode(cpu: Processor, selector: number, cpl: number): boolean {
  if (isNull(selector)) return refuse(cpu, selector, Vector.TS);
  if (!fetchDescriptor(cpu, selector, loaded, Vector.TS)) return false;
  const allowed = loaded.isCode && (loaded.isConforming ? loaded.dpl <= cpl : loaded.dpl === cpl);
  if (!allowed) return refuse(cpu, selector, Vector.TS);
  if (!loaded.isPresent) return refuse(cpu, selector, Vector.NP);
  return markAccessed(cpu, loaded);
}

function checkEip(cpu: Processor, limit: number): boolean {
  if (newTask.eip >>> 0 <= limit) return true;
  raiseWithCode(cpu, Vector.GP, cpu.i32[EXTERNAL] as number);
  return false;
}
