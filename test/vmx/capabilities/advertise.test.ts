import { describe, expect, it } from 'vitest';
import { bit } from '../../../src/bits/u64.ts';
import { type ControlId, controlOf } from '../../../src/vmcs/controls.ts';
import { advertise, CONTROL_NEEDS } from '../../../src/vmx/capabilities/advertise.ts';
import type { VmxCapabilities } from '../../../src/vmx/capabilities/capabilities.ts';
import {
  type CapabilityMsrName,
  type CapabilityMsrValues,
  CONTROL_GROUP_MSRS,
} from '../../../src/vmx/capabilities/capability-msrs.ts';
import { customCapabilities, findProfile } from '../../../src/vmx/capabilities/profiles.ts';

const full = findProfile('full')!;

/** The MSRs of `full` with the allowed-1 setting of some controls taken away. */
function without(...ids: ControlId[]): CapabilityMsrValues {
  const msrs: Partial<Record<CapabilityMsrName, bigint>> = { ...full.msrs };
  for (const id of ids) {
    const { group, mask } = controlOf(id);
    const { format, msr, trueMsr } = CONTROL_GROUP_MSRS[group];
    for (const name of [msr, trueMsr]) {
      if (name) msrs[name] = msrs[name]! & ~(format === 'flat' ? mask : mask << 32n);
    }
  }
  return msrs;
}

const advertised = (msrs: CapabilityMsrValues): VmxCapabilities =>
  customCapabilities(full.features, advertise(msrs, full.features, 'checked'));

describe('what goes with a control', () => {
  it.each(CONTROL_NEEDS)('%s goes', (id, ...needs) => {
    for (const need of needs) {
      expect(advertised(without()).supports(id)).toBe(true);
      expect(advertised(without(need)).supports(id), `without ${need}`).toBe(false);
    }
  });

  it('goes in a chain', () => {
    const capabilities = advertised(without('proc.useTprShadow'));
    for (const id of [
      'proc2.virtualizeX2apicMode',
      'proc2.virtualInterruptDelivery',
      'pin.processPostedInterrupts',
      'proc3.apicTimerVirtualization',
    ] as const) {
      expect(capabilities.supports(id), id).toBe(false);
    }
    expect(capabilities.supports('proc2.virtualizeApicAccesses')).toBe(true);
  });

  it.each<[ControlId[], CapabilityMsrName[]]>([
    [
      ['proc.activateSecondaryControls'],
      ['IA32_VMX_PROCBASED_CTLS2', 'IA32_VMX_EPT_VPID_CAP', 'IA32_VMX_VMFUNC'],
    ],
    [['proc.activateTertiaryControls'], ['IA32_VMX_PROCBASED_CTLS3']],
    [['exit.activateSecondaryControls'], ['IA32_VMX_EXIT_CTLS2']],
    [['proc2.enableVmFunctions'], ['IA32_VMX_VMFUNC']],
    [['proc2.enableEpt', 'proc2.enableVpid'], ['IA32_VMX_EPT_VPID_CAP']],
    [['proc2.enableEpt'], []],
    [['proc2.enableVpid'], []],
  ])('takes the MSRs along that report on %s', (controls, gone) => {
    const { msrs } = advertised(without(...controls));
    for (const name of Object.keys(full.msrs) as CapabilityMsrName[]) {
      expect(msrs[name] === undefined, name).toBe(gone.includes(name));
    }
  });

  it.each<[ControlId, position: number, kept: boolean]>([
    ['proc2.enableEpt', 20, false],
    ['proc2.enableEpt', 48, false],
    ['proc2.enableEpt', 32, true],
    ['proc2.enableVpid', 32, false],
    ['proc2.enableVpid', 43, false],
    ['proc2.enableVpid', 20, true],
    ['proc2.enableVpid', 48, true],
  ])('without %s, bit %i of IA32_VMX_EPT_VPID_CAP stays: %s', (control, position, kept) => {
    expect(bit(full.msrs.IA32_VMX_EPT_VPID_CAP!, position)).toBe(true);
    expect(bit(advertised(without(control)).msrs.IA32_VMX_EPT_VPID_CAP!, position)).toBe(kept);
  });

  it('lowers the highest index with the fields', () => {
    // Without FRED and the deadline fields, the highest is that of the IA32_SPEC_CTRL shadow, 204CH.
    const features = { ...full.features, fred: false };
    const msrs = without(
      'proc3.apicTimerVirtualization',
      'entry.loadFred',
      'exit2.saveFred',
      'exit2.loadFred',
    );
    expect(advertise(full.msrs, full.features, 'checked').IA32_VMX_VMCS_ENUM).toBe(0x52n);
    expect(advertise(msrs, features, 'checked').IA32_VMX_VMCS_ENUM).toBe(0x4cn);
  });
});

describe('a control that must be 1', () => {
  it('stays, although what it needs is not there', () => {
    const virtualNmis = controlOf('pin.virtualNmis').mask;
    const msrs = without('pin.nmiExiting');
    const forced = {
      ...msrs,
      IA32_VMX_PINBASED_CTLS: msrs.IA32_VMX_PINBASED_CTLS! | virtualNmis,
      IA32_VMX_TRUE_PINBASED_CTLS: msrs.IA32_VMX_TRUE_PINBASED_CTLS! | virtualNmis,
    };
    expect(advertised(forced).supports('pin.virtualNmis')).toBe(true);
  });
});

describe('software that knows no TRUE MSR', () => {
  it('may leave every default1 control at 1, at every level', () => {
    for (const level of ['checked', 'complete'] as const) {
      const values = advertise(full.msrs, full.features, level);
      for (const position of [15, 16]) {
        expect(bit(values.IA32_VMX_PROCBASED_CTLS!, position)).toBe(true);
        expect(bit(values.IA32_VMX_PROCBASED_CTLS!, 32 + position)).toBe(true);
        expect(bit(values.IA32_VMX_TRUE_PROCBASED_CTLS!, position)).toBe(false);
      }
    }
  });
});
