/** The smallest legal VMCS: a 64-bit host and a 64-bit guest at CPL 0 (32-bit ones without Intel 64). */
import { CONTROL_GROUPS, type ControlGroupName, type ControlId, controlOf } from '../../src/vmcs/controls.ts';
import { Field, type FieldName } from '../../src/vmcs/fields.ts';
import type { VmxCapabilities } from '../../src/vmx/capabilities/capabilities.ts';

export type FieldValues = Partial<Record<FieldName, bigint>>;

const UNUSABLE = 0x1_0000n;

/**
 * Controls at the settings that must be 1, and every field that a control brings into play at a
 * legal value, so that controls can be turned on one by one. Fields left out are 0.
 */
export function legalVmcs(capabilities: VmxCapabilities): FieldValues {
  const wide = capabilities.features.intel64;
  const paging = wide ? 1n << 5n : 0n;
  const cr0 = capabilities.fixedBits('CR0').must1;
  const cr4 = capabilities.fixedBits('CR4').must1 | paging;
  const values: FieldValues = {
    hostCr0: cr0,
    hostCr4: cr4,
    hostCsSelector: 0x08n,
    hostSsSelector: 0x10n,
    hostTrSelector: 0x18n,
    guestCr0: cr0,
    guestCr4: cr4,
    guestDr7: 0x400n,
    guestRflags: 2n,
    guestCsSelector: 0x08n,
    guestCsLimit: 0xffff_ffffn,
    guestCsAccessRights: wide ? 0xa09bn : 0xc09bn,
    guestSsAccessRights: UNUSABLE,
    guestDsAccessRights: UNUSABLE,
    guestEsAccessRights: UNUSABLE,
    guestFsAccessRights: UNUSABLE,
    guestGsAccessRights: UNUSABLE,
    guestLdtrAccessRights: UNUSABLE,
    guestTrSelector: 0x18n,
    guestTrLimit: 0x67n,
    guestTrAccessRights: 0x8bn,
    vmcsLinkPointer: 0xffff_ffff_ffff_ffffn,
    vpid: 1n,
    eptPointer: 0x1en,
    tscMultiplier: 1n << 48n,
    hostIa32Efer: wide ? 0x500n : 0n,
    guestIa32Efer: wide ? 0x500n : 0n,
  };
  for (const [group, { field }] of Object.entries(CONTROL_GROUPS)) {
    values[field] = capabilities.must1[group as ControlGroupName];
  }
  if (wide) {
    switchControl(values, 'exit.hostAddressSpaceSize', true);
    switchControl(values, 'entry.ia32eModeGuest', true);
  }
  for (const name of Object.keys(values) as FieldName[]) {
    if (capabilities.fieldExists[Field[name]] === 0) delete values[name];
  }
  return values;
}

/** Turns a control on, with the controls that activate its group, or off. */
export function switchControl(values: FieldValues, id: ControlId, on: boolean): void {
  const { group, mask } = controlOf(id);
  const { field, activatedBy } = CONTROL_GROUPS[group];
  const old = values[field] ?? 0n;
  values[field] = on ? old | mask : old & ~mask;
  if (on) for (const activator of activatedBy) switchControl(values, activator, true);
}
