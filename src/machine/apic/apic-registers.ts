/**
 * The registers of a local APIC (SDM vol. 3A Tables 12-1 and 12-6): where they are in the xAPIC page, who
 * has them, and which bits software may write. The MSR of a register in x2APIC mode is 800H plus its
 * offset in units of 16 bytes.
 */

/** Offsets in the page. */
export const ApicRegister = {
  Id: 0x020,
  Version: 0x030,
  TaskPriority: 0x080,
  ArbitrationPriority: 0x090,
  ProcessorPriority: 0x0a0,
  Eoi: 0x0b0,
  RemoteRead: 0x0c0,
  LogicalDestination: 0x0d0,
  DestinationFormat: 0x0e0,
  SpuriousInterruptVector: 0x0f0,
  /** Eight registers each. */
  InService: 0x100,
  TriggerMode: 0x180,
  InterruptRequest: 0x200,
  ErrorStatus: 0x280,
  LvtCmci: 0x2f0,
  InterruptCommand: 0x300,
  InterruptCommandHigh: 0x310,
  LvtTimer: 0x320,
  LvtThermal: 0x330,
  LvtPerformance: 0x340,
  LvtLint0: 0x350,
  LvtLint1: 0x360,
  LvtError: 0x370,
  InitialCount: 0x380,
  CurrentCount: 0x390,
  DivideConfiguration: 0x3e0,
  SelfIpi: 0x3f0,
} as const;

/** Bits of the local vector table (SDM vol. 3A §12.5.1). */
export const Lvt = {
  Vector: 0xff,
  Mode: 0x700,
  DeliveryStatus: 1 << 12,
  ActiveLow: 1 << 13,
  RemoteIrr: 1 << 14,
  Level: 1 << 15,
  Masked: 1 << 16,
  TimerMode: 3 << 17,
} as const;

/** Entries of the local vector table in ascending order of offset. */
export const LVT_OFFSETS = [
  ApicRegister.LvtCmci,
  ApicRegister.LvtTimer,
  ApicRegister.LvtThermal,
  ApicRegister.LvtPerformance,
  ApicRegister.LvtLint0,
  ApicRegister.LvtLint1,
  ApicRegister.LvtError,
] as const;

/** Bits of the spurious-interrupt vector register (SDM vol. 3A §12.9). */
export const Spurious = { Enabled: 1 << 8, FocusDisabled: 1 << 9, SuppressBroadcast: 1 << 12 } as const;

/** Bits of the error status register (SDM vol. 3A §12.5.3). */
export const ApicError = {
  SendIllegalVector: 1 << 5,
  ReceiveIllegalVector: 1 << 6,
  IllegalRegister: 1 << 7,
} as const;

/** Integrated APIC with seven entries in its local vector table that can suppress EOI broadcasts. */
export const APIC_VERSION = 0x0106_0015;

export interface ApicRegisterRow {
  readonly reads: boolean;
  readonly writes: boolean;
  /** Modes in which the register exists. */
  readonly xapic: boolean;
  readonly x2apic: boolean;
  /** Bits that take what is written. */
  readonly writable: number;
  /** Bits that in x2APIC mode may be written with any value but keep theirs. */
  readonly readOnly: number;
}

type Mode = 'both' | 'xapic' | 'x2apic';

function row(access: 'r' | 'w' | 'rw', mode: Mode = 'both', writable = 0, readOnly = 0): ApicRegisterRow {
  return {
    reads: access !== 'w',
    writes: access !== 'r',
    xapic: mode !== 'x2apic',
    x2apic: mode !== 'xapic',
    writable: writable >>> 0,
    readOnly: readOnly >>> 0,
  };
}

const LINT = Lvt.Vector | Lvt.Mode | Lvt.ActiveLow | Lvt.Level | Lvt.Masked;
const EVENT = Lvt.Vector | Lvt.Mode | Lvt.Masked;
const STATUS = Lvt.DeliveryStatus;
const ALL = 0xffff_ffff;
const R = ApicRegister;

const rows = new Map<number, ApicRegisterRow>([
  [R.Id, row('r')],
  [R.Version, row('r')],
  [R.TaskPriority, row('rw', 'both', 0xff)],
  [R.ArbitrationPriority, row('r', 'xapic')],
  [R.ProcessorPriority, row('r')],
  [R.Eoi, row('w')],
  [R.RemoteRead, row('r', 'xapic')],
  [R.DestinationFormat, row('rw', 'xapic', 0xf000_0000)],
  [
    R.SpuriousInterruptVector,
    row('rw', 'both', 0xff | Spurious.Enabled | Spurious.FocusDisabled | Spurious.SuppressBroadcast),
  ],
  [R.ErrorStatus, row('rw')],
  [R.LvtCmci, row('rw', 'both', EVENT, STATUS)],
  [R.InterruptCommand, row('rw', 'both', 0xc_cfff)],
  [R.InterruptCommandHigh, row('rw', 'xapic', 0xff00_0000)],
  [R.LvtTimer, row('rw', 'both', Lvt.Vector | Lvt.Masked | Lvt.TimerMode, STATUS)],
  [R.LvtThermal, row('rw', 'both', EVENT, STATUS)],
  [R.LvtPerformance, row('rw', 'both', EVENT, STATUS)],
  [R.LvtLint0, row('rw', 'both', LINT, STATUS | Lvt.RemoteIrr)],
  [R.LvtLint1, row('rw', 'both', LINT, STATUS | Lvt.RemoteIrr)],
  [R.LvtError, row('rw', 'both', Lvt.Vector | Lvt.Masked, STATUS)],
  [R.InitialCount, row('rw', 'both', ALL)],
  [R.CurrentCount, row('r')],
  [R.DivideConfiguration, row('rw', 'both', 0xb)],
  [R.SelfIpi, row('w', 'x2apic', 0xff)],
  ...Array.from({ length: 24 }, (_, n): [number, ApicRegisterRow] => [R.InService + 16 * n, row('r')]),
]);

const LOGICAL_DESTINATION_X2APIC = row('r');
const LOGICAL_DESTINATION_XAPIC = row('rw', 'xapic', 0xff00_0000);

/** The register at `offset` in one of the two modes, or undefined if there is none. */
export function apicRegister(offset: number, isX2apic: boolean): ApicRegisterRow | undefined {
  if (offset === R.LogicalDestination) {
    return isX2apic ? LOGICAL_DESTINATION_X2APIC : LOGICAL_DESTINATION_XAPIC;
  }
  const found = rows.get(offset);
  return found !== undefined && (isX2apic ? found.x2apic : found.xapic) ? found : undefined;
}
