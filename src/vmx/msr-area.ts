/**
 * MSR areas (SDM §27.7.2, §27.8.2): VM-entry MSR-load (§29.4), VM-exit MSR-store (§30.4) and VM-exit
 * MSR-load (§30.6). Entries are processed in order; the first bad one ends the area.
 */
import { PHYSICAL_ADDRESS_LIMIT } from '../bits/address.ts';
import {
  checkMsrWrite,
  IA32_BIOS_UPDT_TRIG,
  IA32_SMBASE,
  IA32_SMM_MONITOR_CTL,
  readMsr,
  writeMsr,
} from '../cpu/msrs.ts';
import { Register } from '../cpu/registers.ts';
import type { SdmSection } from '../sdm/sections.ts';
import { MSR_AREA_ENTRY_SIZE, type MsrAreaEntry } from '../vmcs/formats.ts';
import type { ProcessorCopy } from '../vmcs/processor-copy.ts';
import { controlRef, isOn } from './effective-controls.ts';
import type { VmxProcessor } from './vmx-state.ts';

const IA32_FS_BASE = 0xc000_0100;
const IA32_GS_BASE = 0xc000_0101;
const IA32_SPEC_CTRL = 0x48;
const VIRTUALIZE_SPEC_CTRL = controlRef('proc3.virtualizeIa32SpecCtrl');

/** A rule every entry of an MSR area must satisfy. */
interface MsrAreaCheck {
  readonly id: string;
  readonly sdm: SdmSection;
  readonly rule: string;
  readonly holds: (entry: MsrAreaEntry, p: VmxProcessor) => boolean;
}

export interface MsrLoadCheck extends MsrAreaCheck {
  readonly id: `msrload.${string}`;
}

export interface MsrStoreCheck extends MsrAreaCheck {
  readonly id: `msrstore.${string}`;
}

/** The VM entry began, or the VM exit ends, in SMM. */
const inSmm = (p: VmxProcessor) => p.cpu.words[2 * Register.inSmm] !== 0;
const isX2apic = (index: number) => index >>> 8 === 8;

/** The rules in order (SDM §29.4, §30.6). */
export const MSR_LOAD_CHECKS: readonly MsrLoadCheck[] = [
  {
    id: 'msrload.not-fs-base',
    sdm: '29.4',
    rule: 'The MSR is not IA32_FS_BASE (C0000100H).',
    holds: ({ index }) => index !== IA32_FS_BASE,
  },
  {
    id: 'msrload.not-gs-base',
    sdm: '29.4',
    rule: 'The MSR is not IA32_GS_BASE (C0000101H).',
    holds: ({ index }) => index !== IA32_GS_BASE,
  },
  {
    id: 'msrload.not-x2apic',
    sdm: '29.4',
    rule: 'The MSR is not one of the x2APIC MSRs (800H to 8FFH).',
    holds: ({ index }) => !isX2apic(index),
  },
  {
    id: 'msrload.not-smm-only',
    sdm: '29.4',
    rule: 'The MSR is not one that only software in SMM can write, such as IA32_SMM_MONITOR_CTL, unless the transition begins or ends there.',
    holds: ({ index }, p) => index !== IA32_SMM_MONITOR_CTL || inSmm(p),
  },
  {
    id: 'msrload.not-smbase',
    sdm: '34.15.6.3',
    rule: 'The MSR is not IA32_SMBASE (9EH).',
    holds: ({ index }) => index !== IA32_SMBASE,
  },
  {
    id: 'msrload.model-specific',
    sdm: '29.4',
    rule: 'The MSR is not barred for model-specific reasons, as the microcode-update trigger (79H) is.',
    holds: ({ index }) => index !== IA32_BIOS_UPDT_TRIG,
  },
  {
    id: 'msrload.reserved-63-32',
    sdm: '29.4',
    rule: 'Bits 63:32 of the entry are 0.',
    holds: ({ reserved }) => reserved === 0,
  },
  {
    id: 'msrload.wrmsr-ok',
    sdm: '29.4',
    rule: 'WRMSR of the value at CPL 0 would not raise #GP.',
    holds: ({ index, data }, p) => checkMsrWrite(p.cpu, index, data) === 'ok',
  },
];

/** The rules of an entry of the VM-exit MSR-store area in order (SDM §30.4). */
export const MSR_STORE_CHECKS: readonly MsrStoreCheck[] = [
  {
    id: 'msrstore.not-x2apic',
    sdm: '30.4',
    rule: 'The MSR is not one of the x2APIC MSRs (800H to 8FFH).',
    holds: ({ index }) => !isX2apic(index),
  },
  {
    id: 'msrstore.not-smm-only',
    sdm: '30.4',
    rule: 'The MSR is not one that only software in SMM can read, such as IA32_SMBASE (9EH), unless the exit ends there.',
    holds: ({ index }, p) => index !== IA32_SMBASE || inSmm(p),
  },
  {
    id: 'msrstore.reserved-63-32',
    sdm: '30.4',
    rule: 'Bits 63:32 of the entry are 0.',
    holds: ({ reserved }) => reserved === 0,
  },
  {
    // The MSR barred for model-specific reasons, the microcode-update trigger, cannot be read either.
    id: 'msrstore.rdmsr-ok',
    sdm: '30.4',
    rule: 'RDMSR at CPL 0 would not raise #GP.',
    holds: ({ index }, p) => readMsr(p.cpu, index) !== undefined,
  },
];

function failing<C extends MsrAreaCheck>(
  checks: readonly C[],
  entry: MsrAreaEntry,
  p: VmxProcessor,
): C | undefined {
  return checks.find((check) => !check.holds(entry, p));
}

/** The first rule an entry to be loaded breaks, or undefined. */
function failingMsrLoadCheck(entry: MsrAreaEntry, p: VmxProcessor): MsrLoadCheck | undefined {
  return failing(MSR_LOAD_CHECKS, entry, p);
}

/** The first rule an entry to be stored breaks, or undefined. */
function failingMsrStoreCheck(entry: MsrAreaEntry, p: VmxProcessor): MsrStoreCheck | undefined {
  return failing(MSR_STORE_CHECKS, entry, p);
}

/** The entry of an area at a physical address. */
function msrAreaEntry(p: VmxProcessor, address: number): MsrAreaEntry {
  const { memory } = p.cpu;
  return {
    index: memory.read32(address),
    reserved: memory.read32(address + 4),
    data: memory.read64(address + 8),
  };
}

/**
 * How many entries are processed: more than IA32_VMX_MISC recommends is unpredictable (SDM §27.7.2);
 * here the recommended maximum is processed and the rest ignored.
 */
function processed(p: VmxProcessor, area: string, address: bigint, count: number): number {
  const maximum = p.capabilities.msrListMaximum;
  if (count <= maximum) return count;
  const detail = `the ${area} area at ${address.toString(16)}H has ${count} entries; ${maximum} is the recommended maximum`;
  p.hazards.report('msr-area.too-long', p.cpu.index, area, (p.vmx.current as ProcessorCopy).address, detail);
  return maximum;
}

function reportSpecCtrl(p: VmxProcessor, area: string, index: number): void {
  const copy = p.vmx.current as ProcessorCopy;
  if (index !== IA32_SPEC_CTRL || !isOn(copy, p.capabilities, VIRTUALIZE_SPEC_CTRL)) return;
  const detail = `the ${area} area names IA32_SPEC_CTRL while "virtualize IA32_SPEC_CTRL" is 1`;
  p.hazards.report('msr-area.spec-ctrl', p.cpu.index, area, copy.address, detail);
}

/** Loads an area; 0, or the number of the first entry that fails, counting from 1. */
export function loadMsrArea(
  p: VmxProcessor,
  address: bigint,
  count: number,
  transition: 'VM entry' | 'VM exit',
): number {
  const area = transition === 'VM entry' ? 'VM-entry MSR-load' : 'VM-exit MSR-load';
  const entries = processed(p, area, address, count);
  for (let i = 0; i < entries; i++) {
    const at = Number(address) + MSR_AREA_ENTRY_SIZE * i;
    if (at + MSR_AREA_ENTRY_SIZE > PHYSICAL_ADDRESS_LIMIT) return i + 1;
    const entry = msrAreaEntry(p, at);
    reportSpecCtrl(p, area, entry.index);
    if (failingMsrLoadCheck(entry, p) !== undefined) return i + 1;
    writeMsr(p.cpu, entry.index, entry.data);
  }
  p.cpu.updateMode();
  return 0;
}

/** Stores an area; 0, or the number of the first entry that fails (SDM §30.4). */
export function storeMsrArea(p: VmxProcessor, address: bigint, count: number): number {
  const area = 'VM-exit MSR-store';
  const entries = processed(p, area, address, count);
  for (let i = 0; i < entries; i++) {
    const at = Number(address) + MSR_AREA_ENTRY_SIZE * i;
    if (at + MSR_AREA_ENTRY_SIZE > PHYSICAL_ADDRESS_LIMIT) return i + 1;
    const entry = msrAreaEntry(p, at);
    reportSpecCtrl(p, area, entry.index);
    if (failingMsrStoreCheck(entry, p) !== undefined) return i + 1;
    p.cpu.memory.write64(at + 8, readMsr(p.cpu, entry.index) as bigint);
  }
  return 0;
}
