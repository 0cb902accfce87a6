/**
 * Ordinary memory accesses against VMX structures (SDM §27.11.1, §27.11.4, §27.11.5): regions of
 * active VMCSs, VMXON regions, and structures a running guest's VMCS points to.
 */
import { PAGE_SIZE } from '../../bits/address.ts';
import type { ControlId } from '../../vmcs/controls.ts';
import { FIELD_COUNT, FIELDS, Field, type FieldName } from '../../vmcs/fields.ts';
import { REVISION_OFFSET } from '../../vmcs/layout.ts';
import type { ProcessorCopy } from '../../vmcs/processor-copy.ts';
import { controlRef, isOn } from '../effective-controls.ts';
import { Operation, type VmxProcessor } from '../vmx-state.ts';
import type { HazardMonitor } from './hazard-monitor.ts';

/** Structures in use while a guest runs: address field, size in bytes, control that puts it to use. */
const STRUCTURES = (
  [
    ['ioBitmapAAddress', PAGE_SIZE, 'proc.useIoBitmaps'],
    ['ioBitmapBAddress', PAGE_SIZE, 'proc.useIoBitmaps'],
    ['msrBitmapAddress', PAGE_SIZE, 'proc.useMsrBitmaps'],
    ['vmreadBitmapAddress', PAGE_SIZE, 'proc2.vmcsShadowing'],
    ['vmwriteBitmapAddress', PAGE_SIZE, 'proc2.vmcsShadowing'],
    ['eptpListAddress', PAGE_SIZE, 'vmfunc.eptpSwitching'],
    ['pmlAddress', PAGE_SIZE, 'proc2.enablePml'],
    ['lowPasidDirectoryAddress', PAGE_SIZE, 'proc2.pasidTranslation'],
    ['highPasidDirectoryAddress', PAGE_SIZE, 'proc2.pasidTranslation'],
  ] as const satisfies readonly (readonly [FieldName, number, ControlId])[]
).map(([field, size, control]) => ({ slot: Field[field], size, control: controlRef(control) }));

/** Of longer structures, which no recommended count allows, only so many bytes are watched. */
const MOST_WATCHED = 0x10_0000;

const IPI_VIRTUALIZATION = controlRef('proc3.ipiVirtualization');

/** Areas whose length a count field gives, in 16-byte entries. */
const MSR_AREAS = [
  { slot: Field.vmExitMsrStoreAddress, count: Field.vmExitMsrStoreCount },
  { slot: Field.vmExitMsrLoadAddress, count: Field.vmExitMsrLoadCount },
  { slot: Field.vmEntryMsrLoadAddress, count: Field.vmEntryMsrLoadCount },
] as const;

/**
 * Reports what is wrong with an access of `length` bytes at `address` by processor `cpu`; true if the
 * machine stops here. `stored` are the bytes of a store.
 */
export function reportOrdinaryAccess(
  monitor: HazardMonitor,
  units: readonly VmxProcessor[],
  cpu: number,
  kind: 'load' | 'store',
  address: number,
  length: number,
  stored: Uint8Array | undefined,
): boolean {
  if (!monitor.watching || length === 0) return false;
  let stops = false;
  for (let page = address - (address % PAGE_SIZE); page < address + length; page += PAGE_SIZE) {
    stops = reportRegion(monitor, units, cpu, kind, page, address, length, stored) || stops;
  }
  return (kind === 'store' && reportStructures(monitor, units, cpu, address, length)) || stops;
}

function reportRegion(
  monitor: HazardMonitor,
  units: readonly VmxProcessor[],
  cpu: number,
  kind: 'load' | 'store',
  region: number,
  address: number,
  length: number,
  stored: Uint8Array | undefined,
): boolean {
  const owner = monitor.vmxonOwner(region);
  if (owner >= 0) {
    const detail = `a ${kind} touches the VMXON region of CPU ${owner} while it is in VMX operation`;
    return monitor.report('vmxon.memory-access', cpu, kind, region, detail);
  }
  const record = monitor.knownRegion(region);
  if (record === undefined) return false;
  const first = Math.max(address, region) - region;
  const touchesData = address + length > region + 8;
  if (record.activeOn < 0) {
    if (kind === 'load' || !touchesData) return false;
    // Whatever the store wrote may be any field.
    record.written.fill(1, 0, FIELD_COUNT);
    const detail =
      'a store into the data of an inactive VMCS region depends on a format that belongs to the revision';
    return monitor.report('vmcs.format-dependence', cpu, kind, region, detail);
  }
  const on = `a VMCS that is active on CPU ${record.activeOn}`;
  if (stored !== undefined && first <= REVISION_OFFSET + 3 && address <= region + 3) {
    const changed = (stored[region + 3 - address] ?? 0) ^ (units[cpu]?.cpu.memory.read8(region + 3) ?? 0);
    if (address + length > region + 3 && (changed & 0x80) !== 0) {
      monitor.corrupt(record, 'its shadow indicator was changed while it was active');
      const detail = `a store changes the shadow-VMCS indicator of ${on}`;
      return monitor.report('vmcs.shadow-indicator-changed', cpu, kind, region, detail);
    }
  }
  if (!touchesData) return false;
  if (kind === 'load')
    return monitor.report('vmcs.memory-read', cpu, kind, region, `a load reads the data of ${on}`);
  monitor.corrupt(record, 'an ordinary store wrote its region while it was active');
  return monitor.report('vmcs.memory-write', cpu, kind, region, `a store writes the data of ${on}`);
}

/** Sees each structure that `copy` puts to use while a guest runs: slot of its pointer, bytes. */
function eachStructure(
  p: VmxProcessor,
  copy: ProcessorCopy,
  see: (slot: number, size: number) => void,
): void {
  for (const { slot, size, control } of STRUCTURES) {
    if (isOn(copy, p.capabilities, control)) see(slot, size);
  }
  if (isOn(copy, p.capabilities, IPI_VIRTUALIZATION)) {
    see(Field.pidPointerTableAddress, 8 * ((copy.words[2 * Field.lastPidPointerIndex] as number) + 1));
  }
  for (const { slot, count } of MSR_AREAS) see(slot, 16 * (copy.words[2 * count] as number));
}

/** Lets stores of executing code to the structures of a VMCS be seen; asked before VM entry. */
export function watchStructures(p: VmxProcessor, copy: ProcessorCopy): void {
  eachStructure(p, copy, (slot, size) => {
    const start = Number(copy.quads[slot] as bigint);
    const end = start + Math.min(size, MOST_WATCHED);
    for (let page = start - (start % PAGE_SIZE); page < end; page += PAGE_SIZE) p.hazards.watch(page);
  });
}

function reportStructures(
  monitor: HazardMonitor,
  units: readonly VmxProcessor[],
  cpu: number,
  address: number,
  length: number,
): boolean {
  let stops = false;
  for (const unit of units) {
    const copy = unit.vmx.current;
    if (unit.vmx.operation !== Operation.NonRoot || copy === undefined) continue;
    const report = (slot: number, size: number) => {
      const start = Number(copy.quads[slot] as bigint);
      if (address + length <= start || address >= start + size) return;
      const name = FIELDS[slot]?.name ?? '';
      const detail = `a store modifies what "${name}" of the guest running on CPU ${unit.cpu.index} points to`;
      stops = monitor.report('structure.modified-in-use', cpu, 'store', start, detail) || stops;
    };
    eachStructure(unit, copy, report);
  }
  return stops;
}
