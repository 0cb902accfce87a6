/** Waiting (SDM vol. 2: PAUSE, MONITOR, MWAIT, UMONITOR, UMWAIT, TPAUSE). Time that UMWAIT and TPAUSE wait for passes at once. */

import { linearise } from '../addressing.ts';
import { Attention } from '../attention.ts';
import { raise, raiseWithCode, Vector } from '../exceptions.ts';
import { materialise, replaceFlags } from '../flags.ts';
import { type Execute, Next } from '../instruction.ts';
import { Enabling, Intercept, intercepted, isEnabled } from '../intercept.ts';
import { load } from '../memory-access.ts';
import { Mode } from '../mode.ts';
import { Monitoring, watchLine } from '../monitored-line.ts';
import type { OpcodeRow } from '../opcode-row.ts';
import { MEMORY_OPERAND } from '../operand-forms.ts';
import { translate } from '../paging.ts';
import type { Processor } from '../processor.ts';
import { ARITHMETIC_FLAGS, CR4, Register, RFLAGS } from '../registers.ts';
import { timeStampCounter, wait } from '../time.ts';
import { Access } from '../tlb.ts';

const { RAX, RCX, RDX } = Register;
const LINEAR = 2 * Register.linear;
const MONITOR_ARMED = 2 * Register.monitorArmed;
const CR4_LOW = 2 * Register.CR4;
const UMWAIT_CONTROL = 2 * Register.IA32_UMWAIT_CONTROL;
/** IA32_UMWAIT_CONTROL[31:2]: the longest wait, in ticks of the TSC; 0 is no limit. */
const MAXIMUM_TIME = ~3;
const IF = 1 << RFLAGS.IF;
const CF = 1 << RFLAGS.CF;
const LOW_32 = 0xffff_ffffn;
const GP0 = (cpu: Processor): Next => raiseWithCode(cpu, Vector.GP, 0);

const pause: Execute = (cpu, i) => (intercepted(cpu, i, Intercept.PAUSE) ? Next.VmExit : Next.Sequential);

/** The byte at rAX of the segment is read, so that the range is known to be accessible; it arms the monitor. */
function armMonitor(
  cpu: Processor,
  register: number,
  addressBits: number,
  segment: 0 | 1 | 2 | 3 | 4 | 5,
): Next {
  const offset = BigInt.asUintN(addressBits, cpu.quads[register] as bigint);
  const lo = Number(BigInt.asIntN(32, offset));
  const hi = Number(BigInt.asIntN(32, offset >> 32n));
  if (!linearise(cpu, segment, lo, hi, 1, Access.Read) || !load(cpu, MEMORY_OPERAND, 1)) return Next.Fault;
  const entry = translate(
    cpu,
    cpu.i32[LINEAR] as number,
    cpu.i32[LINEAR + 1] as number,
    Access.Read << cpu.accessClass,
  );
  if (entry < 0) return Next.Fault;
  watchLine(cpu, (cpu.tlb.physical[entry] as number) + ((cpu.i32[LINEAR] as number) & 0xfff));
  return Next.Sequential;
}

const monitor: Execute = (cpu, i) => {
  if (cpu.cpl !== 0) return raise(cpu, Vector.UD);
  if (intercepted(cpu, i, Intercept.MONITOR)) return Next.VmExit;
  if (cpu.words[2 * RCX] !== 0) return GP0(cpu);
  return armMonitor(cpu, RAX, i.addressBits, i.segment);
};

/** MWAIT: the processor waits for an event or a store to the monitored line; not with an interrupt that is there already. */
const mwait: Execute = (cpu, i) => {
  if (cpu.cpl !== 0) return raise(cpu, Vector.UD);
  if (intercepted(cpu, i, Intercept.MWAIT)) return Next.VmExit;
  const extensions = cpu.words[2 * RCX] as number;
  if (extensions & ~1) return GP0(cpu);
  const breaksForInterrupt = extensions !== 0 && (materialise(cpu) & IF) === 0;
  const goesOn = breaksForInterrupt && cpu.nonRoot && cpu.vmxPort.mwaitGoesOn();
  const waits = !goesOn && cpu.i32[MONITOR_ARMED] !== Monitoring.None && !cpu.interrupts.requested();
  if (!waits) {
    cpu.i32[MONITOR_ARMED] = Monitoring.None;
    return Next.Sequential;
  }
  cpu.i32[MONITOR_ARMED] = breaksForInterrupt ? Monitoring.WaitingForInterrupts : Monitoring.Waiting;
  cpu.requestAttention(Attention.Inactive);
  return Next.Lookup;
};

const umonitor: Execute = (cpu, i) => {
  if (!isEnabled(cpu, Enabling.USER_WAIT_AND_PAUSE)) return raise(cpu, Vector.UD);
  return armMonitor(cpu, i.rm, i.addressBits, i.segment);
};

/** UMWAIT and TPAUSE: until the deadline in EDX:EAX; CF says whether IA32_UMWAIT_CONTROL cut it short. */
function waitUntil(intercept: Intercept, isMonitored: boolean): Execute {
  return (cpu, i) => {
    if (!isEnabled(cpu, Enabling.USER_WAIT_AND_PAUSE)) return raise(cpu, Vector.UD);
    const denied = cpu.cpl !== 0 && ((cpu.i32[CR4_LOW] as number) & (1 << CR4.TSD)) !== 0;
    if (denied && cpu.mode !== Mode.Real) return GP0(cpu);
    if (intercepted(cpu, i, intercept)) return Next.VmExit;
    if (((cpu.words[2 * i.rm] as number) & ~1) !== 0) return GP0(cpu);
    const deadline = (((cpu.quads[RDX] as bigint) & LOW_32) << 32n) | ((cpu.quads[RAX] as bigint) & LOW_32);
    const now = timeStampCounter(cpu);
    const virtual = deadline - (cpu.nonRoot ? cpu.vmxPort.visibleTsc(now) : now);
    replaceFlags(cpu, ARITHMETIC_FLAGS, 0);
    const armed = cpu.i32[MONITOR_ARMED] !== 0;
    cpu.i32[MONITOR_ARMED] = Monitoring.None;
    if (virtual <= 0n || (isMonitored && !armed)) return Next.Sequential;
    const maximum = BigInt(((cpu.i32[UMWAIT_CONTROL] as number) & MAXIMUM_TIME) >>> 0);
    const isCut = maximum !== 0n && maximum < virtual;
    const counted = isCut ? maximum : virtual;
    const delay = cpu.nonRoot ? cpu.vmxPort.physicalDelay(counted) : counted;
    wait(cpu, delay < BigInt(MOST_TICKS) ? Number(delay) : MOST_TICKS);
    if (isCut && timeStampCounter(cpu) - now >= delay) replaceFlags(cpu, CF, CF);
    return Next.Lookup;
  };
}

/** Longest wait: implementation-dependent events end it (SDM vol. 2B, TPAUSE). */
const MOST_TICKS = 100_000;

export const WAITING_ROWS: readonly OpcodeRow[] = [
  { opcode: 'F3 90 b=0', mnemonic: 'PAUSE', operands: '', execute: pause, ends: true, begins: true },
  { opcode: 'NP 0F 01 /1 mod=3 rm=0', mnemonic: 'MONITOR', operands: '', execute: monitor },
  {
    opcode: 'NP 0F 01 /1 mod=3 rm=1',
    mnemonic: 'MWAIT',
    operands: '',
    execute: mwait,
    ends: true,
    begins: true,
  },
  {
    opcode: 'F3 0F AE /6 mod=3',
    mnemonic: 'UMONITOR',
    operands: 'Ry',
    execute: umonitor,
    feature: (f) => f.userWaitAndPause,
  },
  {
    opcode: 'F2 0F AE /6 mod=3',
    mnemonic: 'UMWAIT',
    operands: 'Rd',
    execute: waitUntil(Intercept.UMWAIT, true),
    ends: true,
    begins: true,
    feature: (f) => f.userWaitAndPause,
  },
  {
    opcode: '66 0F AE /6 mod=3',
    mnemonic: 'TPAUSE',
    operands: 'Rd',
    execute: waitUntil(Intercept.TPAUSE, false),
    ends: true,
    begins: true,
    feature: (f) => f.userWaitAndPause,
  },
];
