/**
 * RDMSR and WRMSR at CPL 0 (SDM vol. 2B): the catalogue's rules plus the few MSRs whose access has a
 * rule of its own. These are also the rules of MSR areas at VM entry and VM exit.
 */
import { bit, mask } from '../bits/u64.ts';
import type { CpuidFeatures } from './cpuid.ts';
import { allowsApicBase, type LocalApic } from './local-apic.ts';
import { checkMsrValue, type MsrAccess, type MsrRow, msrRow } from './msr-catalogue.ts';
import { CR0, EFER, Register } from './registers.ts';
import type { VmxPort } from './vmx-port.ts';

export const IA32_FEATURE_CONTROL = 0x3a;
export const IA32_SMBASE = 0x9e;
export const IA32_SMM_MONITOR_CTL = 0x9b;
export const IA32_BIOS_UPDT_TRIG = 0x79;
export const IA32_RTIT_CTL = 0x570;
export const IA32_EFER_INDEX = 0xc000_0080;
export const IA32_APIC_BASE = 0x1b;
export const IA32_TSC_DEADLINE = 0x6e0;
const IA32_TIME_STAMP_COUNTER = 0x10;
const IA32_UINTR_RR = 0x985;

/** What RDMSR and WRMSR need of a processor. */
export interface MsrBearer {
  readonly features: CpuidFeatures;
  readonly quads: BigUint64Array;
  readonly vmxPort: VmxPort;
  readonly localApic: LocalApic;
}

const isCapabilityMsr = (index: number) => index >= 0x480 && index <= 0x4ff;
/** Registers of the local APIC in x2APIC mode (SDM vol. 3A §12.12.1.2). */
const isX2apicMsr = (index: number) => index >= 0x800 && index <= 0x8ff;
/** Of these the local APIC is told. */
const isApicMsr = (index: number) =>
  index === IA32_APIC_BASE || index === IA32_TSC_DEADLINE || index === IA32_TIME_STAMP_COUNTER;

/** Bits of IA32_FEATURE_CONTROL that software may set (SDM §26.7). */
function featureControlReserved(features: CpuidFeatures): bigint {
  let reserved = mask(63, 21) | (1n << 19n) | (1n << 16n) | mask(7, 3);
  if (!features.vmx || !features.smx) reserved |= 1n << 1n;
  if (!features.vmx) reserved |= 1n << 2n;
  if (!features.smx) reserved |= mask(15, 8);
  if (!features.sgx) reserved |= mask(18, 17);
  return reserved;
}

const IA32_VMX_BASIC = 0x480;
const IA32_VMX_MISC = 0x485;
/** IA32_VMX_BASIC: there is dual-monitor treatment. IA32_VMX_MISC: IA32_SMBASE can be read; bit 2 of IA32_SMM_MONITOR_CTL. */
const DUAL_MONITOR = 49;
const READ_SMBASE = 15;
const MONITOR_CTL_2 = 28;

const reports = (cpu: MsrBearer, msr: number, position: number) =>
  bit(cpu.vmxPort.capabilityMsr(msr) ?? 0n, position);
const inSmm = (cpu: MsrBearer) => cpu.quads[Register.inSmm] !== 0n;

/** IA32_SMM_MONITOR_CTL (SDM §34.15.5): software in SMM writes it. */
function checkSmmMonitorControl(cpu: MsrBearer, value: bigint): MsrAccess {
  if (!reports(cpu, IA32_VMX_BASIC, DUAL_MONITOR)) return 'does-not-exist';
  if (!inSmm(cpu)) return 'read-only';
  const defined = mask(31, 12) | 1n | (reports(cpu, IA32_VMX_MISC, MONITOR_CTL_2) ? 4n : 0n);
  return (value & ~defined) === 0n ? 'ok' : 'reserved-bit';
}

function hasFeatureControl(features: CpuidFeatures): boolean {
  return features.vmx || features.smx || features.sgx;
}

/** RDMSR: the value, or undefined where RDMSR raises #GP(0). */
export function readMsr(cpu: MsrBearer, index: number): bigint | undefined {
  if (isCapabilityMsr(index)) return cpu.vmxPort.capabilityMsr(index);
  if (isX2apicMsr(index)) return cpu.localApic.readMsr(index);
  if (index === IA32_FEATURE_CONTROL) {
    return hasFeatureControl(cpu.features) ? cpu.quads[Register.IA32_FEATURE_CONTROL] : undefined;
  }
  if (index === IA32_SMM_MONITOR_CTL) {
    const exists = reports(cpu, IA32_VMX_BASIC, DUAL_MONITOR);
    return exists ? cpu.quads[Register.IA32_SMM_MONITOR_CTL] : undefined;
  }
  if (index === IA32_SMBASE) {
    const readable = inSmm(cpu) && reports(cpu, IA32_VMX_MISC, READ_SMBASE);
    return readable ? cpu.quads[Register.IA32_SMBASE] : undefined;
  }
  const row = msrRow(index);
  return row?.exists(cpu.features) ? cpu.quads[row.slot] : undefined;
}

/** Why WRMSR of `value` would raise #GP(0), or `ok`. Writes nothing. */
export function checkMsrWrite(cpu: MsrBearer, index: number, value: bigint): MsrAccess {
  if (isCapabilityMsr(index)) {
    return cpu.vmxPort.capabilityMsr(index) === undefined ? 'does-not-exist' : 'read-only';
  }
  if (isX2apicMsr(index)) return cpu.localApic.checkMsr(index, value);
  if (index === IA32_FEATURE_CONTROL) {
    if (!hasFeatureControl(cpu.features)) return 'does-not-exist';
    if (bit(cpu.quads[Register.IA32_FEATURE_CONTROL] as bigint, 0)) return 'read-only';
    return (value & featureControlReserved(cpu.features)) === 0n ? 'ok' : 'reserved-bit';
  }
  if (index === IA32_SMM_MONITOR_CTL) return checkSmmMonitorControl(cpu, value);
  const row = msrRow(index);
  if (!row?.exists(cpu.features)) return 'does-not-exist';
  const access = checkMsrValue(row, value, cpu.features);
  if (access !== 'ok') return access;
  if (index === IA32_RTIT_CTL && !cpu.vmxPort.allowsRtitCtlWrite()) return 'read-only';
  if (index === IA32_EFER_INDEX) {
    const changesLme = bit(value, EFER.LME) !== bit(cpu.quads[Register.IA32_EFER] as bigint, EFER.LME);
    if (changesLme && bit(cpu.quads[Register.CR0] as bigint, CR0.PG)) return 'bad-value';
  }
  if (index === IA32_APIC_BASE && !allowsApicBase(cpu.quads[Register.IA32_APIC_BASE] as bigint, value))
    return 'bad-value';
  return 'ok';
}

/** WRMSR: writes and answers `ok`, or says why it raises #GP(0) and writes nothing. */
export function writeMsr(cpu: MsrBearer, index: number, value: bigint): MsrAccess {
  const access = checkMsrWrite(cpu, index, value);
  if (access !== 'ok') return access;
  if (index === IA32_FEATURE_CONTROL) {
    cpu.quads[Register.IA32_FEATURE_CONTROL] = value;
    return 'ok';
  }
  if (index === IA32_SMM_MONITOR_CTL) {
    cpu.quads[Register.IA32_SMM_MONITOR_CTL] = value;
    return 'ok';
  }
  if (isX2apicMsr(index)) {
    cpu.localApic.writeMsr(index, value);
    return 'ok';
  }
  const { slot, ignored, stores } = msrRow(index) as MsrRow;
  const old = cpu.quads[slot] as bigint;
  if (index === IA32_EFER_INDEX) {
    const lma = 1n << BigInt(EFER.LMA);
    cpu.quads[slot] = (value & ~lma) | (old & lma);
  } else {
    cpu.quads[slot] = stores?.(value) ?? value & ~ignored;
    if (isApicMsr(index)) cpu.localApic.msrWritten(index, old);
    // A pending user interrupt is recognised, or no longer is.
    if (index === IA32_UINTR_RR) cpu.quads[Register.userInterruptPending] = value === 0n ? 0n : 1n;
  }
  return 'ok';
}
