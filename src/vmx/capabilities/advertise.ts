/**
 * From silicon to what a machine advertises: nothing is ever advertised that is not implemented. A
 * control that is not there is removed from the allowed-1 settings, then every control that needs a
 * removed one, then what depends on the existence of MSRs and fields (SDM Appendix A).
 */
import { bit, mask } from '../../bits/u64.ts';
import type { CpuidFeatures } from '../../cpu/cpuid.ts';
import {
  CONTROL_GROUPS,
  CONTROLS,
  type ControlGroupName,
  type ControlId,
  namedControls,
} from '../../vmcs/controls.ts';
import { FIELDS } from '../../vmcs/fields.ts';
import { regionFormat } from '../../vmcs/layout.ts';
import { allowedSettings, VmxCapabilities } from './capabilities.ts';
import {
  Basic,
  type CapabilityMsrName,
  type CapabilityMsrValues,
  CONTROL_GROUP_MSRS,
  EptVpidCap,
  Misc,
} from './capability-msrs.ts';
import { CONTROL_STATUS, type ControlStatus } from './control-status.ts';
import { CONTROL_FEATURES } from './running-features.ts';

/**
 * Controls that VM entry accepts only together with others (SDM §29.2.1.1, §29.2.1.2): offering the
 * first without the rest would be offering nothing.
 */
export const CONTROL_NEEDS: readonly (readonly [ControlId, ...ControlId[]])[] = [
  ['pin.virtualNmis', 'pin.nmiExiting'],
  ['proc.nmiWindowExiting', 'pin.virtualNmis'],
  ['proc2.virtualizeX2apicMode', 'proc.useTprShadow'],
  ['proc2.apicRegisterVirtualization', 'proc.useTprShadow'],
  ['proc2.virtualInterruptDelivery', 'proc.useTprShadow', 'pin.externalInterruptExiting'],
  ['proc3.ipiVirtualization', 'proc.useTprShadow'],
  ['pin.processPostedInterrupts', 'proc2.virtualInterruptDelivery', 'exit.acknowledgeInterruptOnExit'],
  ['proc3.apicTimerVirtualization', 'proc2.virtualInterruptDelivery'],
  ['proc2.unrestrictedGuest', 'proc2.enableEpt'],
  ['proc2.enablePml', 'proc2.enableEpt'],
  ['proc2.modeBasedExecuteControlForEpt', 'proc2.enableEpt'],
  ['proc2.subPageWritePermissionsForEpt', 'proc2.enableEpt'],
  [
    'proc2.intelPtUsesGuestPhysicalAddresses',
    'proc2.enableEpt',
    'entry.loadIa32RtitCtl',
    'exit.clearIa32RtitCtl',
  ],
  ['proc3.pebsUsesGuestPhysicalAddresses', 'proc2.enableEpt'],
  ['vmfunc.eptpSwitching', 'proc2.enableEpt'],
  ['proc3.enableHlat', 'proc2.enableEpt'],
  ['proc3.eptPagingWriteControl', 'proc2.enableEpt'],
  ['proc3.guestPagingVerification', 'proc2.enableEpt'],
  ['exit.saveVmxPreemptionTimerValue', 'pin.activateVmxPreemptionTimer'],
];

/** Without either there would be no way into SMM or out of dual-monitor treatment. */
const DUAL_MONITOR_CONTROLS: readonly ControlId[] = [
  'entry.entryToSmm',
  'entry.deactivateDualMonitorTreatment',
];

type Settings = Record<ControlGroupName, { must1: bigint; may1: bigint }>;

/** MSR values that offer no control below `level`. */
export function advertise(
  silicon: CapabilityMsrValues,
  features: CpuidFeatures,
  level: Exclude<ControlStatus, 'absent'>,
): CapabilityMsrValues {
  const groups = Object.keys(CONTROL_GROUPS) as ControlGroupName[];
  const settings = Object.fromEntries(groups.map((g) => [g, { ...allowedSettings(g, silicon) }])) as Settings;
  for (const group of groups) {
    const named = namedControls(group);
    const { must1, default1 } = { must1: settings[group].must1, default1: CONTROL_GROUPS[group].default1 };
    settings[group].may1 &= named | must1 | default1;
  }
  const available = (id: ControlId) => {
    const control = CONTROLS.find((c) => c.id === id) as (typeof CONTROLS)[number];
    return (settings[control.group].may1 & control.mask) !== 0n;
  };
  const remove = (id: ControlId) => {
    const control = CONTROLS.find((c) => c.id === id) as (typeof CONTROLS)[number];
    // A default1 control may always be 1: software that knows no TRUE MSR leaves it so (§A.2).
    const kept = settings[control.group].must1 | CONTROL_GROUPS[control.group].default1;
    settings[control.group].may1 &= ~control.mask | kept;
  };
  for (const { id } of CONTROLS) {
    const status = CONTROL_STATUS.get(id);
    if (status === 'absent' || (level === 'complete' && status !== 'complete')) remove(id);
  }
  if (level === 'complete') {
    for (const [id, isThere] of CONTROL_FEATURES) if (!isThere(features)) remove(id);
  }
  const hasDualMonitor = bit(silicon.IA32_VMX_BASIC ?? 0n, Basic.DUAL_MONITOR);
  if (!hasDualMonitor || !DUAL_MONITOR_CONTROLS.every(available)) DUAL_MONITOR_CONTROLS.forEach(remove);
  for (let again = true; again; ) {
    again = false;
    for (const [id, ...needs] of CONTROL_NEEDS) {
      if (available(id) && !needs.every(available)) {
        remove(id);
        if (!available(id)) again = true;
      }
    }
  }
  return derive(silicon, settings, features);
}

/** Bits of IA32_VMX_EPT_VPID_CAP that are about EPT (INVEPT and HLAT included) and about VPID (§A.10). */
const EPT_CAPABILITIES = mask(31, 0) | mask(63, 48);
const VPID_CAPABILITIES = mask(47, 32);
const HLAT_PREFIX_SIZE = mask(53, 48);

/** Writes settings back into MSR form and drops or adjusts everything that depends on them. */
function derive(base: CapabilityMsrValues, settings: Settings, features: CpuidFeatures): CapabilityMsrValues {
  const values: Partial<Record<CapabilityMsrName, bigint>> = { ...base };
  if (values.IA32_VMX_CR4_FIXED1 !== undefined) values.IA32_VMX_CR4_FIXED1 &= features.cr4Bits;
  for (const [group, { format, msr, trueMsr }] of Object.entries(CONTROL_GROUP_MSRS) as [
    ControlGroupName,
    (typeof CONTROL_GROUP_MSRS)[ControlGroupName],
  ][]) {
    const { may1 } = settings[group];
    for (const name of [msr, trueMsr]) {
      const old = name && values[name];
      if (old === undefined) continue;
      values[name as CapabilityMsrName] = format === 'flat' ? may1 : (may1 << 32n) | (old & mask(31, 0));
    }
  }
  const offers = (group: ControlGroupName, position: number) =>
    ((settings[group].may1 >> BigInt(position)) & 1n) === 1n;
  if (!offers('proc', 31)) delete values.IA32_VMX_PROCBASED_CTLS2;
  const secondary = values.IA32_VMX_PROCBASED_CTLS2 ?? 0n;
  const ept = ((secondary >> 33n) & 1n) === 1n;
  const vpid = ((secondary >> 37n) & 1n) === 1n;
  if (!ept && !vpid) delete values.IA32_VMX_EPT_VPID_CAP;
  else if (values.IA32_VMX_EPT_VPID_CAP !== undefined) {
    values.IA32_VMX_EPT_VPID_CAP &= (ept ? EPT_CAPABILITIES : 0n) | (vpid ? VPID_CAPABILITIES : 0n);
    // Without shadow stacks there is nothing that EPTP bit 7 could be about.
    if (!features.cetShadowStack)
      values.IA32_VMX_EPT_VPID_CAP &= ~(1n << BigInt(EptVpidCap.SUPERVISOR_SHADOW_STACK));
  }
  if (!offers('proc', 17) || !offers('proc3', 1)) {
    // No HLAT, no prefix size.
    if (values.IA32_VMX_EPT_VPID_CAP !== undefined) values.IA32_VMX_EPT_VPID_CAP &= ~HLAT_PREFIX_SIZE;
  }
  if (((secondary >> 45n) & 1n) === 0n) delete values.IA32_VMX_VMFUNC;
  if (!offers('proc', 17)) delete values.IA32_VMX_PROCBASED_CTLS3;
  if (!offers('exit', 31)) delete values.IA32_VMX_EXIT_CTLS2;
  // Without its controls no dual-monitor treatment; no bits of IA32_VMX_BASIC that the manual does not define.
  const dualMonitor = offers('entry', 10) ? 1n << BigInt(Basic.DUAL_MONITOR) : 0n;
  const nestedException = features.fred ? 1n << BigInt(Basic.NESTED_EXCEPTION) : 0n;
  const basicDefined =
    mask(30, 0) | mask(44, 32) | (1n << 48n) | mask(56, 50) | dualMonitor | nestedException;
  values.IA32_VMX_BASIC = (values.IA32_VMX_BASIC ?? 0n) & basicDefined;
  // What belongs to dual-monitor treatment (the MSEG revision identifier too), and undefined bits.
  const monitor = dualMonitor === 0n ? (1n << BigInt(Misc.SMM_MONITOR_CTL_2)) | mask(63, 32) : 0n;
  values.IA32_VMX_MISC = (values.IA32_VMX_MISC ?? 0n) & ~(monitor | mask(13, 9));
  values.IA32_VMX_VMCS_ENUM = highestIndex(features, values) << 1n;
  return values;
}

/** Highest index of a field that exists (§A.9). */
function highestIndex(features: CpuidFeatures, values: CapabilityMsrValues): bigint {
  const none = regionFormat(0, 4096, () => false);
  const capabilities = new VmxCapabilities(features, values, () => none);
  const indexes = FIELDS.filter((f) => capabilities.fieldExists[f.slot]).map(
    (f) => (f.encoding >> 1) & 0x1ff,
  );
  return BigInt(Math.max(...indexes));
}

/** The revision identifier of `full`: no silicon uses it. */
export const FULL_REVISION = 0x4d58_0092n;

/** The MSEG revision identifier of `full`. */
const FULL_MSEG_REVISION = 1n;

/** Capability MSRs of the profile `full`: every control that is at least checked, every capability that is here. */
export function fullMsrs(features: CpuidFeatures): CapabilityMsrValues {
  const all = (group: ControlGroupName) => namedControls(group) | CONTROL_GROUPS[group].default1;
  const pair = (group: ControlGroupName, must1: bigint) => (all(group) << 32n) | must1;
  const one = (...positions: number[]) => positions.reduce((m, p) => m | (1n << BigInt(p)), 0n);
  // Of the default1 controls, those the manual names may be 0.
  const flexible = (group: ControlGroupName) => CONTROL_GROUPS[group].default1 & ~namedControls(group);
  const silicon: CapabilityMsrValues = {
    IA32_VMX_BASIC:
      FULL_REVISION |
      (4096n << BigInt(Basic.REGION_SIZE_LOW)) |
      (6n << BigInt(Basic.MEMORY_TYPE_LOW)) |
      one(
        Basic.DUAL_MONITOR,
        Basic.INS_OUTS_INFORMATION,
        Basic.TRUE_CONTROLS,
        Basic.ANY_ERROR_CODE,
        Basic.NESTED_EXCEPTION,
      ),
    IA32_VMX_PINBASED_CTLS: pair('pin', CONTROL_GROUPS.pin.default1),
    IA32_VMX_PROCBASED_CTLS: pair('proc', CONTROL_GROUPS.proc.default1),
    IA32_VMX_EXIT_CTLS: pair('exit', CONTROL_GROUPS.exit.default1),
    IA32_VMX_ENTRY_CTLS: pair('entry', CONTROL_GROUPS.entry.default1),
    IA32_VMX_MISC:
      (5n << 0n) |
      one(
        Misc.STORE_LMA,
        Misc.ACTIVITY_HLT,
        Misc.ACTIVITY_SHUTDOWN,
        Misc.ACTIVITY_WAIT_FOR_SIPI,
        Misc.INTEL_PT_IN_VMX,
        Misc.READ_SMBASE_IN_SMM,
        Misc.SMM_MONITOR_CTL_2,
      ) |
      (4n << BigInt(Misc.CR3_TARGETS_LOW)) |
      one(Misc.WRITE_ANY_FIELD, Misc.ZERO_LENGTH_INJECTION) |
      (FULL_MSEG_REVISION << 32n),
    IA32_VMX_CR0_FIXED0: 0x8000_0021n,
    IA32_VMX_CR0_FIXED1: 0xffff_ffffn,
    IA32_VMX_CR4_FIXED0: 0x2000n,
    IA32_VMX_CR4_FIXED1: features.cr4Bits,
    IA32_VMX_PROCBASED_CTLS2: all('proc2') << 32n,
    IA32_VMX_EPT_VPID_CAP:
      (1n << 48n) | Object.values(EptVpidCap).reduce((m, position) => m | (1n << BigInt(position)), 0n),
    IA32_VMX_TRUE_PINBASED_CTLS: pair('pin', flexible('pin')),
    IA32_VMX_TRUE_PROCBASED_CTLS: pair('proc', flexible('proc')),
    IA32_VMX_TRUE_EXIT_CTLS: pair('exit', flexible('exit')),
    IA32_VMX_TRUE_ENTRY_CTLS: pair('entry', flexible('entry')),
    IA32_VMX_VMFUNC: all('vmfunc'),
    IA32_VMX_PROCBASED_CTLS3: all('proc3'),
    IA32_VMX_EXIT_CTLS2: all('exit2'),
  };
  return advertise(silicon, features, 'checked');
}
