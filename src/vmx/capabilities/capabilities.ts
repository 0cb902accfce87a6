/**
 * What one processor supports of VMX, worked out once from its capability MSRs and CPUID (SDM
 * Appendix A): allowed settings of every control group, the fields that exist, the access table of
 * VMREAD and VMWRITE, and the widths addresses are held to.
 */
import { bit, bits } from '../../bits/u64.ts';
import type { CpuidFeatures } from '../../cpu/cpuid.ts';
import { CR4 } from '../../cpu/registers.ts';
import { CONTROL_GROUPS, type ControlGroupName, type ControlId, controlOf } from '../../vmcs/controls.ts';
import { ENCODING_COUNT } from '../../vmcs/encoding.ts';
import { FIELD_COUNT, FIELDS } from '../../vmcs/fields.ts';
import type { RegionFormat } from '../../vmcs/layout.ts';
import {
  Basic,
  CapabilityMsr,
  type CapabilityMsrName,
  type CapabilityMsrValues,
  CONTROL_GROUP_MSRS,
  Misc,
} from './capability-msrs.ts';

const GROUPS = Object.keys(CONTROL_GROUPS) as ControlGroupName[];

/** Flags of an entry of {@link VmxCapabilities.access}. */
export const ACCESS_HIGH = 1;
export const ACCESS_READ_ONLY = 2;
export const ACCESS_SLOT_SHIFT = 2;

export class VmxCapabilities {
  readonly features: CpuidFeatures;
  readonly msrs: CapabilityMsrValues;
  /** Bits 30:0 of IA32_VMX_BASIC. */
  readonly revision: number;
  /** Bytes, 1–4096. */
  readonly regionSize: number;
  /** Memory type of accesses to VMCSs and what they reference: IA32_VMX_BASIC[53:50]. */
  readonly structureType: number;
  /** Controls that must be 1 and controls that may be 1, by group. */
  readonly must1: Readonly<Record<ControlGroupName, bigint>>;
  readonly may1: Readonly<Record<ControlGroupName, bigint>>;
  readonly misc: bigint;
  readonly basic: bigint;
  readonly eptVpidCap: bigint;
  /** Whether the field of each slot exists. */
  readonly fieldExists: Uint8Array;
  /**
   * By encoding: −1 for a component the processor does not support, otherwise the slot shifted left
   * by {@link ACCESS_SLOT_SHIFT} with ACCESS_HIGH and ACCESS_READ_ONLY.
   */
  readonly access: Int16Array;
  readonly format: RegionFormat;
  /** VM exits store IA32_EFER.LMA into "IA-32e mode guest" (IA32_VMX_MISC[5]). */
  readonly storesLma: boolean;
  /** Linear-address masking: bits 62:61 of CR3 are not reserved. */
  readonly masksLinearAddresses: boolean;

  constructor(
    features: CpuidFeatures,
    msrs: CapabilityMsrValues,
    formatOf: (c: VmxCapabilities) => RegionFormat,
  ) {
    this.features = features;
    this.msrs = msrs;
    this.basic = msrs.IA32_VMX_BASIC ?? 0n;
    this.misc = msrs.IA32_VMX_MISC ?? 0n;
    this.eptVpidCap = msrs.IA32_VMX_EPT_VPID_CAP ?? 0n;
    this.storesLma = bit(this.misc, Misc.STORE_LMA);
    this.masksLinearAddresses = bit(features.cr4Bits, CR4.LAM_SUP);
    this.revision = Number(bits(this.basic, 30, 0));
    this.regionSize = Number(bits(this.basic, 44, Basic.REGION_SIZE_LOW));
    this.structureType = Number(bits(this.basic, 53, Basic.MEMORY_TYPE_LOW));
    const allowed = GROUPS.map((group) => [group, allowedSettings(group, msrs)] as const);
    this.must1 = Object.fromEntries(allowed.map(([g, a]) => [g, a.must1])) as Record<
      ControlGroupName,
      bigint
    >;
    this.may1 = Object.fromEntries(allowed.map(([g, a]) => [g, a.may1])) as Record<ControlGroupName, bigint>;
    this.fieldExists = new Uint8Array(FIELD_COUNT);
    this.access = new Int16Array(ENCODING_COUNT).fill(-1);
    const readOnly = bit(this.misc, Misc.WRITE_ANY_FIELD) ? 0 : ACCESS_READ_ONLY;
    for (const field of FIELDS) {
      const conditions = field.existsIf;
      const exists =
        conditions.length === 0 ||
        conditions.some((c) => (c === 'cpuid.fred' ? features.fred : this.supports(c)));
      if (!exists) continue;
      this.fieldExists[field.slot] = 1;
      const entry = (field.slot << ACCESS_SLOT_SHIFT) | (field.type === 'exit-information' ? readOnly : 0);
      this.access[field.encoding] = entry;
      if (field.highEncoding !== undefined) this.access[field.highEncoding] = entry | ACCESS_HIGH;
    }
    this.format = formatOf(this);
  }

  /** The 1-setting of `id` is supported, and so are those of the controls that activate its group. */
  supports(id: ControlId): boolean {
    const control = controlOf(id);
    return (
      (this.may1[control.group] & control.mask) !== 0n &&
      CONTROL_GROUPS[control.group].activatedBy.every((activator) => this.supports(activator))
    );
  }

  /** The value of the MSR numbered `index`, or undefined if it does not exist. */
  msr(index: number): bigint | undefined {
    const name = nameByIndex.get(index);
    return name && this.msrs[name];
  }

  /** Bit `position` of IA32_VMX_BASIC, IA32_VMX_MISC or IA32_VMX_EPT_VPID_CAP. */
  has(msr: 'basic' | 'misc' | 'eptVpidCap', position: number): boolean {
    return bit(this[msr], position);
  }

  /** Width that addresses in a VMCS and VMX pointers are held to: 32, or MAXPHYADDR less `tmeReduction` bits (SDM §29.2.1). */
  addressWidth(tmeReduction: number): number {
    return bit(this.basic, Basic.ADDRESSES_32_BITS) ? 32 : this.features.physicalAddressBits - tmeReduction;
  }

  /** Number of CR3-target values (IA32_VMX_MISC[24:16]). */
  get cr3Targets(): number {
    return Number(bits(this.misc, 24, Misc.CR3_TARGETS_LOW));
  }

  /** Recommended maximum number of entries of an MSR area (IA32_VMX_MISC[27:25]). */
  get msrListMaximum(): number {
    return 512 * (Number(bits(this.misc, 27, Misc.MSR_LIST_LOW)) + 1);
  }

  /** Bits of `register` that VMX operation fixes to 1, and bits it allows to be 1 (§A.7, §A.8). */
  fixedBits(register: 'CR0' | 'CR4'): { readonly must1: bigint; readonly may1: bigint } {
    return {
      must1: this.msrs[`IA32_VMX_${register}_FIXED0`] ?? 0n,
      may1: this.msrs[`IA32_VMX_${register}_FIXED1`] ?? 0xffff_ffff_ffff_ffffn,
    };
  }
}

const nameByIndex = new Map(
  Object.entries(CapabilityMsr).map(([name, index]) => [index as number, name as CapabilityMsrName]),
);

/** Allowed settings of a group (§A.2): the TRUE MSR decides where IA32_VMX_BASIC[55] is 1. */
export function allowedSettings(
  group: ControlGroupName,
  msrs: CapabilityMsrValues,
): { readonly must1: bigint; readonly may1: bigint } {
  const { format, msr, trueMsr } = CONTROL_GROUP_MSRS[group];
  const hasTrue = bit(msrs.IA32_VMX_BASIC ?? 0n, Basic.TRUE_CONTROLS);
  const value = (hasTrue && trueMsr ? msrs[trueMsr] : undefined) ?? msrs[msr] ?? 0n;
  if (format === 'flat') return { must1: 0n, may1: value };
  return { must1: format === 'pair' ? bits(value, 31, 0) : 0n, may1: bits(value, 63, 32) };
}
