/**
 * The dump that Xen prints for a failed VM entry and on its `v` key. Variants: X0 writes segments as
 * KVM does, X1 prints EFER, X2 prints EFER(VMCS). Where a register is printed twice, the first value is the
 * field and the one in parentheses a cached copy.
 */

import { CONTROL_LABELS, GUEST_LABELS, HOST_LABELS, notesOnChoice } from './kvm.ts';
import { h1, h4, h5, h8, h16, type Label, label, labelTable } from './labels.ts';
import { reportedBy, XEN_REPORTS } from './reports.ts';
import { findSections, type SectionDump, type SectionTables } from './state-sections.ts';
import type { VmcsImage } from './vmcs-image.ts';

const segments = (['Cs', 'Ds', 'Ss', 'Es', 'Fs', 'Gs', 'Ldtr', 'Tr'] as const).map((name): Label => {
  const { parts } =
    label`:${h4(`guest${name}Selector`)} ${h5(`guest${name}AccessRights`)} ${h8(`guest${name}Limit`)} ${h16(`guest${name}Base`)}`;
  return { parts: [name.toUpperCase(), ...parts] };
});

const TABLES: SectionTables = {
  guest: labelTable(
    ...segments,
    label`GDTR:${h8('guestGdtrLimit')} ${h16('guestGdtrBase')}`,
    label`IDTR:${h8('guestIdtrLimit')} ${h16('guestIdtrBase')}`,
    ...GUEST_LABELS,
    label`sel attr limit base`,
    label`EFER(VMCS) =${h16('guestIa32Efer')}`,
    label`EFER(MSR LL) =${h16('~autoloadEfer')}`,
    label`CR3: actual=${h16('guestCr3')} target_count=${h1('cr3TargetCount')}`,
    label`target0 =${h16('cr3TargetValue0')}`,
    label`target1 =${h16('cr3TargetValue1')}`,
    label`target2 =${h16('cr3TargetValue2')}`,
    label`target3 =${h16('cr3TargetValue3')}`,
    label`PDPTE0 =${h16('guestPdpte0')}`,
    label`PDPTE1 =${h16('guestPdpte1')}`,
    label`PDPTE2 =${h16('guestPdpte2')}`,
    label`PDPTE3 =${h16('guestPdpte3')}`,
    label`PreemptionTimer =${h8('vmxPreemptionTimerValue')}`,
    label`SM Base =${h8('guestSmbase')}`,
    label`TSC Offset =${h16('tscOffset')}`,
    label`SPEC_CTRL mask =${h16('ia32SpecCtrlMask')} shadow =${h16('ia32SpecCtrlShadow')}`,
  ),
  host: labelTable(...HOST_LABELS),
  control: labelTable(
    ...CONTROL_LABELS,
    label`EPTP index =${h4('eptpIndex')}`,
    label`VMfunc controls =${h16('vmFunctionControls')}`,
  ),
  lists: new Map(),
  reports: XEN_REPORTS,
};

function variantOf(dump: SectionDump, text: string): string {
  if (/sel\s{1,16}attr\s{1,16}limit|EFER\(/.test(text)) {
    return text.includes('EFER(') ? 'X2' : 'X1';
  }
  return dump.reads.has('cr3TargetCount') ? 'X0' : 'X1';
}

/**
 * Reads the first complete dump of a text in Xen's format, or the first complete one of a VM entry that
 * failed; undefined if there is none.
 * @throws DumpError if a value of the dump is none
 */
export function readXen(text: string): VmcsImage | undefined {
  const found = findSections(text, TABLES);
  if (!found) return undefined;
  const { dump } = found;
  const { values } = dump;
  const notes = [...notesOnChoice(found), ...dump.notes];
  const msrAreaEfer = dump.reads.get('~autoloadEfer');
  if (msrAreaEfer) {
    notes.push(`line ${msrAreaEfer.line}: EFER(MSR LL) is an MSR-area entry: guest IA32_EFER is unknown`);
  }
  return {
    format: 'xen',
    variant: variantOf(dump, text),
    values,
    reported: reportedBy(values, dump.before, dump.reads.get('exitReason')?.source, notes),
    notes,
  };
}
