/** Which fields software has to initialise: by control, by count, and always (SDM §27.11.3). */
import { describe, expect, it } from 'vitest';
import { CONTROLS, type ControlId } from '../../../src/vmcs/controls.ts';
import { FIELDS, Field, type FieldName } from '../../../src/vmcs/fields.ts';
import { usedFields } from '../../../src/vmx/entry/used-fields.ts';
import { type GuestOptions, guestProcessor } from '../../support/vmx-processor.ts';

/** A processor on which no control is 1 but those that VM entry demands. */
const OFF: readonly ControlId[] = ['entry.loadDebugControls'];

function used(options: GuestOptions = {}): FieldName[] {
  const p = guestProcessor({ ...options, off: OFF.filter((id) => !options.controls?.includes(id)) });
  return usedFields(p, p.copy).map((slot) => FIELDS[slot]?.key as FieldName);
}

const SECONDARY: FieldName[] = ['secondaryProcessorBasedControls'];
const TERTIARY: FieldName[] = ['tertiaryProcessorBasedControls'];
const EXIT2: FieldName[] = ['secondaryVmExitControls'];
const fred = (area: 'guest' | 'host') =>
  ['Config', 'Rsp1', 'Rsp2', 'Rsp3', 'Stklvls', 'Ssp1', 'Ssp2', 'Ssp3'].map(
    (name) => `${area}Ia32Fred${name}` as FieldName,
  );

/** What each control brings into use; those left out bring nothing. */
const BROUGHT_BY: Partial<Record<ControlId, readonly FieldName[]>> = {
  'pin.activateVmxPreemptionTimer': ['vmxPreemptionTimerValue'],
  'pin.processPostedInterrupts': ['postedInterruptNotificationVector', 'postedInterruptDescriptorAddress'],
  'proc.useTscOffsetting': ['tscOffset'],
  'proc.useTprShadow': ['virtualApicAddress', 'tprThreshold'],
  'proc.useIoBitmaps': ['ioBitmapAAddress', 'ioBitmapBAddress'],
  'proc.useMsrBitmaps': ['msrBitmapAddress'],
  'proc.activateSecondaryControls': SECONDARY,
  'proc.activateTertiaryControls': TERTIARY,
  'proc2.virtualizeApicAccesses': ['apicAccessAddress'],
  'proc2.enableEpt': ['eptPointer'],
  'proc2.enableVpid': ['vpid'],
  'proc2.virtualInterruptDelivery': [
    'guestInterruptStatus',
    'eoiExitBitmap0',
    'eoiExitBitmap1',
    'eoiExitBitmap2',
    'eoiExitBitmap3',
  ],
  'proc2.pauseLoopExiting': ['pleGap', 'pleWindow'],
  'proc2.enableVmFunctions': ['vmFunctionControls'],
  'proc2.vmcsShadowing': ['vmreadBitmapAddress', 'vmwriteBitmapAddress'],
  'proc2.enableEnclsExiting': ['enclsExitingBitmap'],
  'proc2.enablePml': ['pmlIndex', 'pmlAddress'],
  'proc2.eptViolationVe': ['eptpIndex', 'virtualizationExceptionInformationAddress'],
  'proc2.enableXsavesXrstors': ['xssExitingBitmap'],
  'proc2.pasidTranslation': ['lowPasidDirectoryAddress', 'highPasidDirectoryAddress'],
  'proc2.subPageWritePermissionsForEpt': ['sppTablePointer'],
  'proc2.useTscScaling': ['tscMultiplier'],
  'proc2.enablePconfig': ['pconfigExitingBitmap'],
  'proc2.instructionTimeout': ['instructionTimeoutControl'],
  'proc3.enableHlat': ['hlatPrefixSize', 'hlatPointer'],
  'proc3.ipiVirtualization': ['lastPidPointerIndex', 'pidPointerTableAddress'],
  'proc3.virtualizeIa32SpecCtrl': ['ia32SpecCtrlMask', 'ia32SpecCtrlShadow'],
  'proc3.apicTimerVirtualization': ['virtualTimerVector', 'guestDeadlineShadow', 'guestDeadline'],
  'vmfunc.eptpSwitching': ['vmFunctionControls', 'eptpListAddress'],
  'exit.loadIa32PerfGlobalCtrl': ['hostIa32PerfGlobalCtrl'],
  'exit.loadIa32Pat': ['hostIa32Pat'],
  'exit.loadIa32Efer': ['hostIa32Efer'],
  'exit.loadCetState': ['hostIa32SCet', 'hostSsp', 'hostIa32InterruptSspTableAddr'],
  'exit.loadPkrs': ['hostIa32Pkrs'],
  'exit.activateSecondaryControls': EXIT2,
  'exit2.loadFred': fred('host'),
  'exit2.loadIa32SpecCtrl': ['hostIa32SpecCtrl'],
  'entry.loadDebugControls': ['guestDr7', 'guestIa32Debugctl'],
  'entry.loadIa32PerfGlobalCtrl': ['guestIa32PerfGlobalCtrl'],
  'entry.loadIa32Pat': ['guestIa32Pat'],
  'entry.loadIa32Efer': ['guestIa32Efer'],
  'entry.loadIa32Bndcfgs': ['guestIa32Bndcfgs'],
  'entry.loadIa32RtitCtl': ['guestIa32RtitCtl'],
  'entry.loadUinv': ['guestUinv'],
  'entry.loadCetState': ['guestIa32SCet', 'guestSsp', 'guestIa32InterruptSspTableAddr'],
  'entry.loadGuestIa32LbrCtl': ['guestIa32LbrCtl'],
  'entry.loadPkrs': ['guestIa32Pkrs'],
  'entry.loadFred': fred('guest'),
  'entry.loadIa32SpecCtrl': ['guestIa32SpecCtrl'],
};

/** Fields of other modes of operation, or whose use depends on more than a control. */
const NEVER: readonly FieldName[] = [
  'vmExitMsrStoreAddress',
  'vmExitMsrLoadAddress',
  'vmEntryMsrLoadAddress',
  'executiveVmcsPointer',
  'injectedEventData',
  'guestPdpte0',
  'guestPdpte1',
  'guestPdpte2',
  'guestPdpte3',
  'guestSmbase',
  'injectedEventErrorCode',
  'vmEntryInstructionLength',
  'seamGuestKeyId',
  'seamSharedEptPointer',
  'cr3TargetValue0',
  'cr3TargetValue1',
  'cr3TargetValue2',
  'cr3TargetValue3',
];

const CONDITIONAL = new Set(Object.values(BROUGHT_BY).flat());

describe('without any control', () => {
  it('every field is used that belongs to no control, but no exit-information field', () => {
    const expected = FIELDS.filter(
      (f) => f.type !== 'exit-information' && !CONDITIONAL.has(f.key) && !NEVER.includes(f.key),
    ).map((f) => f.key);
    expect(used()).toEqual(expected);
  });

  it('a field that exists only with controls is used by none', () => {
    const { fieldExists } = guestProcessor().capabilities;
    for (const key of used()) expect(fieldExists[Field[key]], key).toBe(1);
    const narrow = used({ profile: 'penryn', controls: ['entry.loadIa32Pat'] });
    const exists = guestProcessor({ profile: 'penryn' }).capabilities.fieldExists;
    for (const key of narrow) expect(exists[Field[key]], key).toBe(1);
    expect(narrow).not.toContain('guestIa32Pat');
  });
});

describe('a control', () => {
  const baseline = new Set(used());
  it.each(CONTROLS.filter((c) => !baseline.has(c.id as never)).map((c) => c.id))(
    '%s brings its fields',
    (id) => {
      const activators: Partial<Record<string, readonly FieldName[]>> = {
        proc2: SECONDARY,
        proc3: TERTIARY,
        exit2: EXIT2,
        vmfunc: SECONDARY,
      };
      const brought = used({ controls: [id] }).filter((key) => !baseline.has(key));
      const expected = [...(activators[id.split('.')[0] as string] ?? []), ...(BROUGHT_BY[id] ?? [])];
      expect(brought.sort()).toEqual([...expected].sort());
    },
  );
});

describe('a count', () => {
  it.each([
    ['vmExitMsrStoreCount', 'vmExitMsrStoreAddress'],
    ['vmExitMsrLoadCount', 'vmExitMsrLoadAddress'],
    ['vmEntryMsrLoadCount', 'vmEntryMsrLoadAddress'],
  ] as const)('%s other than 0 brings the address', (count, address) => {
    expect(used()).not.toContain(address);
    for (const n of [1n, 2n, 512n]) {
      const fields = used({ fields: { [count]: n } });
      expect(
        fields.filter((key) => key.includes('Msr') && key.endsWith('Address') && key !== 'msrBitmapAddress'),
      ).toEqual([address]);
    }
  });

  it.each([0, 1, 2, 3, 4])('of %i CR3-target values brings as many', (count) => {
    const targets = used({ fields: { cr3TargetCount: BigInt(count) } }).filter((key) =>
      key.startsWith('cr3TargetValue'),
    );
    expect(targets).toEqual([0, 1, 2, 3].slice(0, count).map((i) => `cr3TargetValue${i}`));
  });

  it('beyond what the processor supports brings the four there are', () => {
    const targets = used({ fields: { cr3TargetCount: 0xffff_ffffn } });
    expect(targets.filter((key) => key.startsWith('cr3TargetValue'))).toHaveLength(4);
  });
});
