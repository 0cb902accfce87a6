/**
 * Renders field values as the dump that KVM would print. Only values that are known are printed: a
 * label with an unknown value behind it is left out, so reading the dump never yields an invented zero.
 */
import { hex } from '../bits/u64.ts';
import { FIELDS, type FieldName } from '../vmcs/fields.ts';

export type KvmVariant = 'K0' | 'K1' | 'K2' | 'K3';

export interface KvmDumpOptions {
  /** Layout, K3 unless given. */
  variant?: KvmVariant;
  /** Stands before every line, for example `[ 2311.499051] kvm_intel: `. */
  prefix?: string;
  /** The processor of the VMCS line. */
  processor?: number;
  /** In K2 and K3, printed as what the guest runs with when the guest IA32_EFER field is unknown. */
  effectiveEfer?: bigint;
  /** Adds the line by which QEMU says that VM entry failed, with this number. */
  hardwareError?: number;
}

type Values = ReadonlyMap<FieldName, bigint>;

class Page {
  readonly lines: string[] = [];
  readonly #values: Values;

  constructor(values: Values) {
    this.#values = values;
  }

  /** `field:digits` in braces stands for a value; undefined if a value is unknown. */
  fill(template: string): string | undefined {
    let known = true;
    const text = template.replaceAll(/\{(\w+):(\d+)\}/g, (_, field: string, digits: string) => {
      const value = this.#values.get(field as FieldName);
      known &&= value !== undefined;
      return (value ?? 0n).toString(16).padStart(Number(digits), '0');
    });
    return known ? text : undefined;
  }

  /** One line of the labels whose values are known. */
  line(separator: string, ...templates: string[]): void {
    const labels = templates.map((t) => this.fill(t)).filter((t) => t !== undefined);
    if (labels.length > 0) this.lines.push(labels.join(separator));
  }
}

const SEGMENTS = ['Cs', 'Ds', 'Ss', 'Es', 'Fs', 'Gs'] as const;

function segment(page: Page, name: string): void {
  const label = `${name.toUpperCase()}:`.padEnd(6);
  page.line(
    '',
    `${label}sel=0x{guest${name}Selector:4}, attr=0x{guest${name}AccessRights:5}, limit=0x{guest${name}Limit:8}, base=0x{guest${name}Base:16}`,
  );
}

function table(page: Page, name: 'Gdtr' | 'Idtr'): void {
  const label = `${name.toUpperCase()}:`.padEnd(32);
  page.line('', `${label}limit=0x{guest${name}Limit:8}, base=0x{guest${name}Base:16}`);
}

/** K0 prints the PDPTEs only for a guest in PAE paging. */
function printsPdptes(variant: KvmVariant, values: Values): boolean {
  if (variant !== 'K0') return true;
  const [cr4, efer] = [values.get('guestCr4'), values.get('guestIa32Efer')];
  return cr4 !== undefined && efer !== undefined && (cr4 & 0x20n) !== 0n && (efer & 0x400n) === 0n;
}

function guestState(page: Page, variant: KvmVariant, values: Values, effectiveEfer?: bigint): void {
  page.lines.push('*** Guest State ***');
  for (const [cr, name] of [
    ['CR0', 'cr0'],
    ['CR4', 'cr4'],
  ]) {
    const guest = `guest${(cr as string)[0]}${(cr as string).slice(1).toLowerCase()}`;
    page.line(
      '',
      `${cr}: actual=0x{${guest}:16}, shadow=0x{${name}ReadShadow:16}, gh_mask={${name}GuestHostMask:16}`,
    );
  }
  page.line('', 'CR3 = 0x{guestCr3:16}');
  if (printsPdptes(variant, values)) {
    page.line('  ', 'PDPTR0 = 0x{guestPdpte0:16}', 'PDPTR1 = 0x{guestPdpte1:16}');
    page.line('  ', 'PDPTR2 = 0x{guestPdpte2:16}', 'PDPTR3 = 0x{guestPdpte3:16}');
  }
  page.line('  ', 'RSP = 0x{guestRsp:16}', 'RIP = 0x{guestRip:16}');
  page.line('         ', 'RFLAGS=0x{guestRflags:8}', 'DR7 = 0x{guestDr7:16}');
  sysenter(page, 'guest');
  for (const name of SEGMENTS) segment(page, name);
  table(page, 'Gdtr');
  segment(page, 'Ldtr');
  table(page, 'Idtr');
  segment(page, 'Tr');
  if (effectiveEfer !== undefined && !values.has('guestIa32Efer') && (variant === 'K2' || variant === 'K3')) {
    page.lines.push(`EFER= ${hex(effectiveEfer, 16)} (effective)`);
  }
  eferAndPat(page, variant, 'guest', 'EFER =     0x{guestIa32Efer:16}');
  page.line(
    '  ',
    'DebugCtl = 0x{guestIa32Debugctl:16}',
    'DebugExceptions = 0x{guestPendingDebugExceptions:16}',
  );
  page.line('', 'PerfGlobCtl = 0x{guestIa32PerfGlobalCtrl:16}');
  page.line('', 'BndCfgS = 0x{guestIa32Bndcfgs:16}');
  page.line(
    '  ',
    'Interruptibility = {guestInterruptibilityState:8}',
    'ActivityState = {guestActivityState:8}',
  );
  page.line('', 'InterruptStatus = {guestInterruptStatus:4}');
  if (variant === 'K3') shadowStack(page, 'guest');
}

function sysenter(page: Page, area: 'guest' | 'host'): void {
  page.line(
    '',
    `Sysenter RSP={${area}Ia32SysenterEsp:16} CS:RIP={${area}Ia32SysenterCs:4}:{${area}Ia32SysenterEip:16}`,
  );
}

function eferAndPat(page: Page, variant: KvmVariant, area: 'guest' | 'host', oneLine: string): void {
  const pat = `PAT = 0x{${area}Ia32Pat:16}`;
  if (variant === 'K0' || variant === 'K1') page.line('  ', oneLine, pat);
  else {
    page.line('', `EFER= 0x{${area}Ia32Efer:16}`);
    page.line('', pat);
  }
}

function shadowStack(page: Page, area: 'guest' | 'host'): void {
  page.line(
    ', ',
    `S_CET = 0x{${area}Ia32SCet:16}`,
    `SSP = 0x{${area}Ssp:16}`,
    `SSP TABLE = 0x{${area}Ia32InterruptSspTableAddr:16}`,
  );
}

function hostState(page: Page, variant: KvmVariant): void {
  page.lines.push('*** Host State ***');
  page.line('  ', 'RIP = 0x{hostRip:16}', 'RSP = 0x{hostRsp:16}');
  page.line(
    ' ',
    ...['Cs', 'Ss', 'Ds', 'Es', 'Fs', 'Gs', 'Tr'].map((n) => `${n.toUpperCase()}={host${n}Selector:4}`),
  );
  page.line(' ', 'FSBase={hostFsBase:16}', 'GSBase={hostGsBase:16}', 'TRBase={hostTrBase:16}');
  page.line(' ', 'GDTBase={hostGdtrBase:16}', 'IDTBase={hostIdtrBase:16}');
  page.line(' ', 'CR0={hostCr0:16}', 'CR3={hostCr3:16}', 'CR4={hostCr4:16}');
  sysenter(page, 'host');
  eferAndPat(page, variant, 'host', 'EFER = 0x{hostIa32Efer:16}');
  page.line('', 'PerfGlobCtl = 0x{hostIa32PerfGlobalCtrl:16}');
  if (variant === 'K3') shadowStack(page, 'host');
}

function interruptPriorities(values: Values): string[] {
  const status = values.get('guestInterruptStatus');
  if (status === undefined) return [];
  const byte = (shift: bigint) => ((status >> shift) & 0xffn).toString(16).padStart(2, '0');
  return [`SVI|RVI = ${byte(8n)}|${byte(0n)}`];
}

function controlState(page: Page, variant: KvmVariant, values: Values): void {
  page.lines.push('*** Control State ***');
  if (variant === 'K3') {
    page.line(
      ' ',
      'CPUBased=0x{primaryProcessorBasedControls:8}',
      'SecondaryExec=0x{secondaryProcessorBasedControls:8}',
      'TertiaryExec=0x{tertiaryProcessorBasedControls:16}',
    );
    page.line(
      ' ',
      'PinBased=0x{pinBasedControls:8}',
      'EntryControls={vmEntryControls:8}',
      'ExitControls={primaryVmExitControls:8}',
    );
  } else {
    page.line(
      ' ',
      'PinBased={pinBasedControls:8}',
      'CPUBased={primaryProcessorBasedControls:8}',
      'SecondaryExec={secondaryProcessorBasedControls:8}',
    );
    page.line(' ', 'EntryControls={vmEntryControls:8}', 'ExitControls={primaryVmExitControls:8}');
  }
  page.line(
    ' ',
    'ExceptionBitmap={exceptionBitmap:8}',
    'PFECmask={pageFaultErrorCodeMask:8}',
    'PFECmatch={pageFaultErrorCodeMatch:8}',
  );
  page.line(
    '',
    'VMEntry: intr_info={injectedEventIdentification:8} errcode={injectedEventErrorCode:8} ilen={vmEntryInstructionLength:8}',
  );
  page.line(
    '',
    'VMExit: intr_info={exitingEventIdentification:8} errcode={exitingEventErrorCode:8} ilen={vmExitInstructionLength:8}',
  );
  page.line(' ', '        reason={exitReason:8}', 'qualification={exitQualification:16}');
  page.line('', 'IDTVectoring: info={originalEventIdentification:8} errcode={originalEventErrorCode:8}');
  page.line('', 'TSC Offset = 0x{tscOffset:16}');
  page.line('', 'TSC Multiplier = 0x{tscMultiplier:16}');
  page.line(' ', ...interruptPriorities(values), 'TPR Threshold = 0x{tprThreshold:2}');
  page.line(' ', 'APIC-access addr = 0x{apicAccessAddress:16}', 'virt-APIC addr = 0x{virtualApicAddress:16}');
  page.line('', 'PostedIntrVec = 0x{postedInterruptNotificationVector:2}');
  page.line('', 'EPT pointer = 0x{eptPointer:16}');
  page.line('', 'PLE Gap={pleGap:8} Window={pleWindow:8}');
  page.line('', 'Virtual processor ID = 0x{vpid:4}');
  if (variant === 'K3') page.line('', 'VE info address = 0x{virtualizationExceptionInformationAddress:16}');
}

/** Renders the values that the format prints. */
export function writeKvmDump(values: Values, options: KvmDumpOptions = {}): string {
  const { variant = 'K3', prefix = '', processor = 0, effectiveEfer, hardwareError } = options;
  const page = new Page(values);
  if (variant === 'K2' || variant === 'K3') {
    page.lines.push(`VMCS 0000000000000000, last attempted VM-entry on CPU ${processor}`);
  }
  guestState(page, variant, values, effectiveEfer);
  hostState(page, variant);
  controlState(page, variant, values);
  const lines = page.lines.map((line) => prefix + line);
  if (hardwareError !== undefined) lines.push(`KVM: entry failed, hardware error ${hex(hardwareError)}`);
  return `${lines.join('\n')}\n`;
}

/** The fields that a variant prints if their values are known (K0 prints the PDPTEs only in PAE paging). */
export function printedFields(variant: KvmVariant = 'K3'): readonly FieldName[] {
  const all = new Map<FieldName, bigint>(FIELDS.map((field) => [field.key, 0n]));
  const printed = new Set<FieldName>();
  const page = new (class extends Page {
    override fill(template: string): string | undefined {
      for (const [, field] of template.matchAll(/\{(\w+):\d+\}/g)) printed.add(field as FieldName);
      return super.fill(template);
    }
  })(all);
  guestState(page, variant, all);
  hostState(page, variant);
  controlState(page, variant, all);
  return FIELDS.map((field) => field.key).filter((key) => printed.has(key));
}
