/** User interrupts (SDM vol. 2: UIRET, TESTUI, CLUI, STUI, SENDUIPI). */
import { isCanonicalPair } from '../addressing.ts';
import { Attention } from '../attention.ts';
import { ControlProtection, Enforcement } from '../cet/enforcement.ts';
import { matchesReturnAddress, releaseShadow } from '../cet/shadow-stack.ts';
import { setRip } from '../code-target.ts';
import { raise, raiseWithCode, Vector } from '../exceptions.ts';
import { replaceFlags } from '../flags.ts';
import { type Execute, Next } from '../instruction.ts';
import { keepResumeFlag } from '../instruction-start.ts';
import { loadLinear, storeLinear } from '../memory-access.ts';
import type { OpcodeRow } from '../opcode-row.ts';
import type { Processor } from '../processor.ts';
import { ARITHMETIC_FLAGS, Register, RFLAGS } from '../registers.ts';
import { writeFlags } from '../rflags.ts';
import { loadStack, setStackPointer } from '../stack.ts';
import { areUserInterruptsEnabled, mayModify } from '../user-interrupts.ts';

const { T0, T1 } = Register;
const UIF = 2 * Register.UIF;
const MONITOR_ARMED = 2 * Register.monitorArmed;
const ITEM = 2 * T0;
const TABLE = Register.IA32_UINTR_TT;
/** UITTSZ, the highest index of the table. */
const TABLE_SIZE = 2 * Register.IA32_UINTR_MISC;
const CF = 1 << RFLAGS.CF;

const flag = (position: number) => 1 << position;
/** What UIRET loads of RFLAGS. */
const LOADED =
  ARITHMETIC_FLAGS |
  flag(RFLAGS.TF) |
  flag(RFLAGS.DF) |
  flag(RFLAGS.NT) |
  flag(RFLAGS.RF) |
  flag(RFLAGS.AC) |
  flag(RFLAGS.ID);

const available: Execute = (cpu) => (areUserInterruptsEnabled(cpu) ? Next.Sequential : raise(cpu, Vector.UD));

function whenAvailable(execute: Execute): Execute {
  return (cpu, i) => (available(cpu, i) === Next.Sequential ? execute(cpu, i) : Next.Fault);
}

function setUserInterruptFlag(cpu: Processor): void {
  cpu.i32[UIF] = 1;
  cpu.requestAttention(Attention.Event);
}

const testui: Execute = (cpu) => {
  replaceFlags(cpu, ARITHMETIC_FLAGS, cpu.i32[UIF] !== 0 ? CF : 0);
  return Next.Sequential;
};

const clui: Execute = (cpu) => {
  cpu.i32[UIF] = 0;
  return Next.Sequential;
};

const stui: Execute = (cpu) => {
  setUserInterruptFlag(cpu);
  return Next.Sequential;
};

/** Whether the shadow stack has the return address too, which leaves it then; RSP stays in its temporary. */
function popShadowStack(cpu: Processor, lo: number, hi: number): boolean {
  cpu.i32[2 * T1] = lo;
  cpu.i32[2 * T1 + 1] = hi;
  if (!matchesReturnAddress(cpu, 64, T1, ControlProtection.FarRetOrIret)) return false;
  releaseShadow(cpu, 8);
  return true;
}

/** RIP, RFLAGS and RSP from the stack. */
const uiret: Execute = (cpu) => {
  const w = cpu.i32;
  if (!loadStack(cpu, 0, 8 * T0, 8)) return Next.Fault;
  const ripLow = w[ITEM] as number;
  const ripHigh = w[ITEM + 1] as number;
  if (!loadStack(cpu, 8, 8 * T0, 8)) return Next.Fault;
  const flags = w[ITEM] as number;
  if (!loadStack(cpu, 16, 8 * T0, 8)) return Next.Fault;
  if (!isCanonicalPair(cpu, ripHigh)) return raiseWithCode(cpu, Vector.GP, 0);
  if ((cpu.enforcement & Enforcement.ShadowStack) !== 0 && !popShadowStack(cpu, ripLow, ripHigh))
    return Next.Fault;
  setRip(cpu, ripLow, ripHigh);
  setStackPointer(cpu, w[ITEM] as number, w[ITEM + 1] as number);
  keepResumeFlag(cpu);
  writeFlags(cpu, LOADED, flags);
  setUserInterruptFlag(cpu);
  w[MONITOR_ARMED] = 0;
  return Next.Lookup;
};

/** An entry of the user-interrupt target table: valid, vector below 64, nothing reserved; then a descriptor's address. */
const VALID = 1;
const ENTRY_RESERVED = ~0x3f01;
const ADDRESS_RESERVED = 0x3f;
/** The first half of a descriptor: outstanding and suppressed notification, vector in bits 23:16, and the destination. */
const OUTSTANDING = 1;
const SUPPRESSED = 2;
const DESCRIPTOR_RESERVED = ~0xff_0003;

/** Posts the user interrupt that the entry numbered by the operand describes; whoever has to hear of it is notified. */
const senduipi: Execute = (cpu, i) => {
  const w = cpu.i32;
  const table = cpu.quads[TABLE] as bigint;
  if ((table & 1n) === 0n) return raise(cpu, Vector.UD);
  const index = cpu.quads[i.d >> 3] as bigint;
  if (index > BigInt((w[TABLE_SIZE] as number) >>> 0)) return raiseWithCode(cpu, Vector.GP, 0);
  const entry = (table & ~0xfn) + (index << 4n);
  const entryLow = Number(BigInt.asIntN(32, entry));
  const entryHigh = Number(BigInt.asIntN(32, entry >> 32n));
  if (!isCanonicalPair(cpu, entryHigh)) return raiseWithCode(cpu, Vector.GP, 0);
  if (!loadLinear(cpu, entryLow, entryHigh, 8 * T0, 16)) return Next.Fault;
  const header = w[ITEM] as number;
  const lo = w[ITEM + 2] as number;
  const hi = w[ITEM + 3] as number;
  const wrong = (header & ENTRY_RESERVED) | (w[ITEM + 1] as number) | (lo & ADDRESS_RESERVED);
  if ((header & VALID) === 0 || wrong !== 0) return raiseWithCode(cpu, Vector.GP, 0);
  return post(cpu, (header >>> 8) & 0x3f, lo, hi);
};

/** Posts user vector `vector` in the descriptor at the linear address `hi`:`lo`. */
function post(cpu: Processor, vector: number, lo: number, hi: number): Next {
  const w = cpu.i32;
  if (!mayModify(cpu, lo, hi) || !loadLinear(cpu, lo, hi, 8 * T0, 16)) return Next.Fault;
  const control = w[ITEM] as number;
  if ((control & DESCRIPTOR_RESERVED) !== 0) return raiseWithCode(cpu, Vector.GP, 0);
  const destination = (w[ITEM + 1] as number) >>> 0;
  const notifies = (control & (OUTSTANDING | SUPPRESSED)) === 0;
  if (notifies) w[ITEM] = control | OUTSTANDING;
  const requests = ITEM + 2 + (vector >>> 5);
  w[requests] = (w[requests] as number) | (1 << (vector & 31));
  if (!storeLinear(cpu, lo, hi, 8 * T0, 16)) return Next.Fault;
  if (!notifies) return Next.Sequential;
  const notification = (control >>> 16) & 0xff;
  if (!cpu.nonRoot || !cpu.vmxPort.virtualizesSenduipi(notification, destination)) {
    cpu.localApic.sendFixed(notification, destination);
  }
  return Next.Sequential;
}

function row(opcode: string, mnemonic: string, execute: Execute): OpcodeRow {
  return {
    opcode: `F3 0F ${opcode}`,
    mnemonic,
    operands: '',
    execute: whenAvailable(execute),
    mode: 'only64',
    feature: (f) => f.userInterrupts,
  };
}

export const USER_INTERRUPT_ROWS: readonly OpcodeRow[] = [
  { ...row('01 /5 mod=3 rm=4', 'UIRET', uiret), ends: true },
  row('01 /5 mod=3 rm=5', 'TESTUI', testui),
  row('01 /5 mod=3 rm=6', 'CLUI', clui),
  row('01 /5 mod=3 rm=7', 'STUI', stui),
  { ...row('C7 /6 mod=3', 'SENDUIPI', senduipi), operands: 'Rq' },
];
