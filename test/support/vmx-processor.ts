/** A processor in VMX non-root operation with a 64-bit guest, put together without VMX instructions. */
import type { CpuidFeatures } from '../../src/cpu/cpuid.ts';
import { PhysicalMemory } from '../../src/cpu/physical-memory.ts';
import { Processor } from '../../src/cpu/processor.ts';
import type { RegisterName } from '../../src/cpu/registers.ts';
import type { ControlId } from '../../src/vmcs/controls.ts';
import { FIELD_COUNT, Field, type FieldName } from '../../src/vmcs/fields.ts';
import type { FlushPolicy, ProcessorCopy } from '../../src/vmcs/processor-copy.ts';
import { ActiveSet } from '../../src/vmx/active-set.ts';
import { VmxCapabilities } from '../../src/vmx/capabilities/capabilities.ts';
import type { CapabilityMsrName } from '../../src/vmx/capabilities/capability-msrs.ts';
import { capabilitiesOf, findProfile } from '../../src/vmx/capabilities/profiles.ts';
import { ExtendedPageTables } from '../../src/vmx/ept/extended-page-tables.ts';
import { HazardMonitor } from '../../src/vmx/hazards/hazard-monitor.ts';
import { Operation, type VmxProcessor, VmxState } from '../../src/vmx/vmx-state.ts';
import { legalVmcs, switchControl } from './legal-vmcs.ts';

/** Address of the current VMCS of {@link guestProcessor}. */
export const VMCS_ADDRESS = 0x5000;

export interface GuestOptions {
  /** Name of a profile; `full` if left out. */
  readonly profile?: string;
  readonly features?: Partial<CpuidFeatures>;
  readonly msrs?: Partial<Record<CapabilityMsrName, bigint>>;
  /** Controls that are 1 besides those a 64-bit host and a 64-bit guest need. */
  readonly controls?: readonly ControlId[];
  readonly off?: readonly ControlId[];
  readonly fields?: Partial<Record<FieldName, bigint>>;
  readonly registers?: Partial<Record<RegisterName, bigint>>;
  readonly policy?: FlushPolicy;
}

/** What tests look at. */
export interface GuestProcessor extends VmxProcessor {
  readonly copy: ProcessorCopy;
  field(name: FieldName): bigint;
}

const GUEST: Partial<Record<RegisterName, bigint>> = {
  CR0: 0x8005_0033n,
  CR3: 0x7000n,
  CR4: 0x2020n,
  IA32_EFER: 0x500n,
  RIP: 0xffff_8000_0000_1234n,
  RSP: 0xffff_8000_0000_8000n,
  DR7: 0x401n,
  'CS.selector': 0x33n,
  'CS.base': 0n,
  'CS.limit': 0xffff_ffffn,
  'CS.accessRights': 0xa09bn,
  'SS.selector': 0x18n,
  'SS.limit': 0xffff_ffffn,
  'SS.accessRights': 0xc093n,
  'TR.selector': 0x40n,
  'TR.limit': 0x67n,
  'TR.accessRights': 0x8bn,
};

export function guestProcessor(options: GuestOptions = {}): GuestProcessor {
  const profile = findProfile(options.profile ?? 'full');
  if (profile === undefined) throw new RangeError(`no profile ${options.profile}`);
  let capabilities = capabilitiesOf(profile);
  if (options.features !== undefined || options.msrs !== undefined) {
    const { format } = capabilities;
    capabilities = new VmxCapabilities(
      { ...profile.features, ...options.features },
      { ...capabilities.msrs, ...options.msrs },
      () => format,
    );
  }
  const memory = new PhysicalMemory();
  const cpu = new Processor(0, capabilities.features, memory);
  // A bit of its own for every field that can have one, so that marks can be told apart.
  const dependents = Uint32Array.from({ length: FIELD_COUNT }, (_, slot) => (1 << (slot % 31)) >>> 0);
  const active = new ActiveSet(memory, capabilities.format, options.policy ?? 'at-vmclear', 1, dependents);
  const copy = active.activate(VMCS_ADDRESS);
  const values = legalVmcs(capabilities);
  for (const id of options.controls ?? []) switchControl(values, id, true);
  for (const id of options.off ?? []) switchControl(values, id, false);
  for (const [name, value] of Object.entries({ ...values, ...options.fields })) {
    copy.quads[Field[name as FieldName]] = value;
  }
  const vmx = new VmxState();
  vmx.operation = Operation.NonRoot;
  vmx.current = copy;
  for (const [name, value] of Object.entries({ ...GUEST, ...options.registers })) {
    cpu.write(name as RegisterName, value);
  }
  const p = {
    cpu,
    capabilities,
    vmx,
    active,
    hazards: new HazardMonitor('report'),
    observer: undefined,
    copy,
    field: (name: FieldName) => copy.quads[Field[name]] as bigint,
  };
  return Object.assign(p, { ept: new ExtendedPageTables(p as unknown as VmxProcessor, () => {}) });
}
