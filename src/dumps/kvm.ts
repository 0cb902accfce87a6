/**
 * The dump that KVM prints for a failed VM entry. Variants: K0 has no VMCS line, K1 prints the
 * PDPTEs whenever EPT is there, K2 begins with a VMCS line and prints EFER and PAT apart, K3 prints
 * tertiary controls.
 */
import { bit } from '../bits/u64.ts';
import { controlOf } from '../vmcs/controls.ts';
import { type Hole, h2, h4, h5, h8, h16, type Label, label, labelTable } from './labels.ts';
import { HOST_REPORTS, reportedBy } from './reports.ts';
import { type Found, findSections, type SectionDump, type SectionTables } from './state-sections.ts';
import type { MsrLists, VmcsImage } from './vmcs-image.ts';

const segments = (['Cs', 'Ds', 'Ss', 'Es', 'Fs', 'Gs', 'Ldtr', 'Tr'] as const).map((name) => ({
  name,
  printed: name.toUpperCase(),
}));

/** A label that begins with a name chosen at run time. */
function named(name: string, { parts }: Label): Label {
  return { parts: [name, ...parts] };
}

/** Labels that KVM and Xen print alike in the guest state. */
export const GUEST_LABELS: readonly Label[] = [
  label`CR0: actual=${h16('guestCr0')} shadow=${h16('cr0ReadShadow')} gh_mask=${h16('cr0GuestHostMask')}`,
  label`CR4: actual=${h16('guestCr4')} shadow=${h16('cr4ReadShadow')} gh_mask=${h16('cr4GuestHostMask')}`,
  label`CR3 =${h16('guestCr3')}`,
  label`RSP =${h16('guestRsp')}`,
  label`RIP =${h16('guestRip')}`,
  label`RFLAGS =${h8('guestRflags')}`,
  label`DR7 =${h16('guestDr7')}`,
  label`Sysenter RSP=${h16('guestIa32SysenterEsp')} CS:RIP=${h4('guestIa32SysenterCs')}:${h16('guestIa32SysenterEip')}`,
  ...segments.map(({ name, printed }) =>
    named(
      printed,
      label`: sel=${h4(`guest${name}Selector`)} attr=${h5(`guest${name}AccessRights`)} limit=${h8(`guest${name}Limit`)} base=${h16(`guest${name}Base`)}`,
    ),
  ),
  label`GDTR: limit=${h8('guestGdtrLimit')} base=${h16('guestGdtrBase')}`,
  label`IDTR: limit=${h8('guestIdtrLimit')} base=${h16('guestIdtrBase')}`,
  label`EFER =${h16('guestIa32Efer')}`,
  label`PAT =${h16('guestIa32Pat')}`,
  label`DebugCtl =${h16('guestIa32Debugctl')}`,
  label`DebugExceptions =${h16('guestPendingDebugExceptions')}`,
  label`PerfGlobCtl =${h16('guestIa32PerfGlobalCtrl')}`,
  label`BndCfgS =${h16('guestIa32Bndcfgs')}`,
  label`Interruptibility =${h8('guestInterruptibilityState')}`,
  label`ActivityState =${h8('guestActivityState')}`,
  label`InterruptStatus =${h4('guestInterruptStatus')}`,
];

export const HOST_LABELS: readonly Label[] = [
  label`RIP =${h16('hostRip')}`,
  label`RSP =${h16('hostRsp')}`,
  ...(['Cs', 'Ss', 'Ds', 'Es', 'Fs', 'Gs', 'Tr'] as const).map((name) =>
    named(name.toUpperCase(), label`=${h4(`host${name}Selector`)}`),
  ),
  label`FSBase =${h16('hostFsBase')}`,
  label`GSBase =${h16('hostGsBase')}`,
  label`TRBase =${h16('hostTrBase')}`,
  label`GDTBase =${h16('hostGdtrBase')}`,
  label`IDTBase =${h16('hostIdtrBase')}`,
  label`CR0 =${h16('hostCr0')}`,
  label`CR3 =${h16('hostCr3')}`,
  label`CR4 =${h16('hostCr4')}`,
  label`Sysenter RSP=${h16('hostIa32SysenterEsp')} CS:RIP=${h4('hostIa32SysenterCs')}:${h16('hostIa32SysenterEip')}`,
  label`EFER =${h16('hostIa32Efer')}`,
  label`PAT =${h16('hostIa32Pat')}`,
  label`PerfGlobCtl =${h16('hostIa32PerfGlobalCtrl')}`,
];

export const CONTROL_LABELS: readonly Label[] = [
  label`PinBased =${h8('pinBasedControls')}`,
  label`CPUBased =${h8('primaryProcessorBasedControls')}`,
  label`SecondaryExec =${h8('secondaryProcessorBasedControls')}`,
  label`TertiaryExec =${h16('tertiaryProcessorBasedControls')}`,
  label`EntryControls =${h8('vmEntryControls')}`,
  label`ExitControls =${h8('primaryVmExitControls')}`,
  label`ExceptionBitmap =${h8('exceptionBitmap')}`,
  label`PFECmask =${h8('pageFaultErrorCodeMask')}`,
  label`PFECmatch =${h8('pageFaultErrorCodeMatch')}`,
  label`VMEntry: intr_info=${h8('injectedEventIdentification')} errcode=${h8('injectedEventErrorCode')} ilen=${h8('vmEntryInstructionLength')} event_data=${h16('injectedEventData')}`,
  label`VMExit: intr_info=${h8('exitingEventIdentification')} errcode=${h8('exitingEventErrorCode')} ilen=${h8('vmExitInstructionLength')}`,
  label`reason =${h8('exitReason')}`,
  label`qualification =${h16('exitQualification')}`,
  label`IDTVectoring: info=${h8('originalEventIdentification')} errcode=${h8('originalEventErrorCode')} event_data=${h16('originalEventData')}`,
  label`TSC Offset =${h16('tscOffset')}`,
  label`TSC Multiplier =${h16('tscMultiplier')}`,
  label`TPR Threshold =${h2('tprThreshold')}`,
  label`PostedIntrVec =${h2('postedInterruptNotificationVector')}`,
  label`EPT pointer =${h16('eptPointer')}`,
  label`target0 =${h16('cr3TargetValue0')}`,
  label`target1 =${h16('cr3TargetValue1')}`,
  label`target2 =${h16('cr3TargetValue2')}`,
  label`target3 =${h16('cr3TargetValue3')}`,
  label`PLE Gap=${h8('pleGap')} Window=${h8('pleWindow')}`,
  label`Virtual processor ID =${h4('vpid')}`,
];

const MSR_ENTRY = label`msr=${{ name: '~msr', digits: 8, most: 8 } satisfies Hole} value=${h16('~msrValue')}`;
const GUEST_AUTOLOAD = label`MSR guest autoload:`;
const GUEST_AUTOSTORE = label`MSR guest autostore:`;
const HOST_AUTOLOAD = label`MSR host autoload:`;

const TABLES: SectionTables = {
  guest: labelTable(
    // Neither is the VMCS field: what the guest runs with, and an entry of an MSR area.
    label`EFER =${h16('~effectiveEfer')} (effective)`,
    label`EFER =${h16('~autoloadEfer')} (autoload)`,
    ...GUEST_LABELS,
    label`PDPTR0 =${h16('guestPdpte0')}`,
    label`PDPTR1 =${h16('guestPdpte1')}`,
    label`PDPTR2 =${h16('guestPdpte2')}`,
    label`PDPTR3 =${h16('guestPdpte3')}`,
    label`S_CET =${h16('guestIa32SCet')}`,
    label`SSP =${h16('guestSsp')}`,
    label`SSP TABLE =${h16('guestIa32InterruptSspTableAddr')}`,
    GUEST_AUTOLOAD,
    GUEST_AUTOSTORE,
    MSR_ENTRY,
  ),
  host: labelTable(
    ...HOST_LABELS,
    label`S_CET =${h16('hostIa32SCet')}`,
    label`SSP =${h16('hostSsp')}`,
    label`SSP TABLE =${h16('hostIa32InterruptSspTableAddr')}`,
    HOST_AUTOLOAD,
    MSR_ENTRY,
  ),
  control: labelTable(
    ...CONTROL_LABELS,
    label`SecondaryExitControls =${h16('secondaryVmExitControls')}`,
    label`SVI|RVI =${h2('~svi')}|${h2('~rvi')}`,
    label`APIC-access addr =${h16('apicAccessAddress')}`,
    label`virt-APIC addr =${h16('virtualApicAddress')}`,
    label`VE info address =${h16('virtualizationExceptionInformationAddress')}`,
    label`ve_info:`,
    // An out-of-tree printer has the host's shadow stack here.
    label`S_CET =${h16('hostIa32SCet')}`,
    label`SSP =${h16('hostSsp')}`,
    label`SSP TABLE =${h16('hostIa32InterruptSspTableAddr')}`,
  ),
  lists: new Map<Label, keyof MsrLists>([
    [GUEST_AUTOLOAD, 'vmEntryLoad'],
    [GUEST_AUTOSTORE, 'vmExitStore'],
    [HOST_AUTOLOAD, 'vmExitLoad'],
  ]),
  reports: HOST_REPORTS,
};

const LMA = 10;
const PAE = 5;

function variantOf(dump: SectionDump, hasVmcsLine: boolean): string {
  if (dump.reads.has('tertiaryProcessorBasedControls')) return 'K3';
  if (hasVmcsLine) return 'K2';
  const efer = dump.reads.get('guestIa32Efer')?.value ?? 0n;
  const cr4 = dump.reads.get('guestCr4')?.value ?? 0n;
  const printedByK0 = bit(cr4, PAE) && !bit(efer, LMA);
  return dump.reads.has('guestPdpte0') && !printedByK0 ? 'K1' : 'K0';
}

/** Notes on which dump of several was taken. */
export function notesOnChoice({ dump, others, passesOver }: Found): string[] {
  if (others === 0) return [];
  const complete = passesOver ? 'first of a VM entry that failed' : 'first complete one';
  const which = dump.complete ? complete : 'one that says most';
  const more = others === 1 ? 'one more dump' : `${others} more dumps`;
  return [`the text holds ${more}: this is the ${which}, from line ${dump.firstLine}`];
}

/**
 * Reads the first complete dump of a text in KVM's format, or the first complete one of a VM entry that
 * failed; undefined if there is none.
 * @throws DumpError if a value of the dump is none
 */
export function readKvm(text: string): VmcsImage | undefined {
  const found = findSections(text, TABLES);
  if (!found) return undefined;
  const { dump, reportsFirst } = found;
  const { values } = dump;
  const notes = [...notesOnChoice(found), ...dump.notes];

  const effective = dump.reads.get('~effectiveEfer') ?? dump.reads.get('~autoloadEfer');
  if (effective && !values.has('guestIa32Efer')) {
    const loadsEfer = ((values.get('vmEntryControls') ?? 0n) & controlOf('entry.loadIa32Efer').mask) !== 0n;
    if (loadsEfer) values.set('guestIa32Efer', effective.value);
    else {
      const what = dump.reads.has('~effectiveEfer') ? 'what the guest runs with' : 'an MSR-area entry';
      notes.push(`line ${effective.line}: EFER is ${what}, not the guest IA32_EFER field, which is unknown`);
    }
  }
  const [svi, rvi] = [dump.reads.get('~svi'), dump.reads.get('~rvi')];
  if (svi && rvi && !values.has('guestInterruptStatus')) {
    values.set('guestInterruptStatus', (svi.value << 8n) | rvi.value);
  }

  const report = reportsFirst ? dump.before : dump.after;
  const reported = reportedBy(values, report, dump.reads.get('exitReason')?.source, notes);
  const hasVmcsLine = /last\s+attempted\s+VM-entry/.test(text);
  if (!report && reported.exitReason !== undefined && reported.exitReason < 0x8000_0000) {
    notes.push(
      'the exit reason is that of an ordinary VM exit; if VM entry failed with a VM-instruction error, KVM does not print which',
    );
  }
  return {
    format: 'kvm',
    variant: variantOf(dump, hasVmcsLine),
    values,
    reported,
    ...(Object.keys(dump.msrLists).length > 0 && { msrLists: dump.msrLists }),
    notes,
  };
}
