/**
 * The register state that QEMU prints for `KVM: entry failed`. It is the guest's state as KVM
 * holds it, not the VMCS: there are no controls and no host state in it.
 */
import type { FieldName } from '../vmcs/fields.ts';
import { AR_UNUSABLE } from '../vmcs/formats.ts';
import {
  type Hole,
  h4,
  h8,
  h16,
  type Label,
  type LabelTable,
  label,
  labelTable,
  matchLabel,
} from './labels.ts';
import { HOST_REPORTS, matchReport, type Report } from './reports.ts';
import { TokenStream } from './tokens.ts';
import { DumpError, type VmcsImage } from './vmcs-image.ts';

const SEGMENTS = ['Es', 'Cs', 'Ss', 'Ds', 'Fs', 'Gs', 'Ldtr', 'Tr'] as const;

/** What KVM keeps otherwise in the VMCS while it runs a real-mode guest in virtual-8086 mode. */
const REAL_MODE_FIELDS: ReadonlySet<FieldName> = new Set([
  'guestRflags',
  ...(['Es', 'Cs', 'Ss', 'Ds', 'Fs', 'Gs'] as const).flatMap(
    (name) =>
      [`guest${name}Selector`, `guest${name}Base`, `guest${name}Limit`, `guest${name}AccessRights`] as const,
  ),
]);

/** Addresses have 8 digits unless the guest runs 64-bit code; the table registers 16 in IA-32e mode. */
function labels(digits: 8 | 16): LabelTable {
  const address = (name: FieldName): Hole => ({ name, digits, most: 16 });
  return labelTable(
    label`ESP =${h8('guestRsp')}`,
    label`RSP =${h16('guestRsp')}`,
    label`EIP =${h8('guestRip')}`,
    label`RIP =${h16('guestRip')}`,
    label`EFL =${h8('guestRflags')}`,
    label`RFL =${h8('guestRflags')}`,
    ...SEGMENTS.map((name): Label => {
      const { parts } =
        label`=${h4(`guest${name}Selector`)} ${address(`guest${name}Base`)} ${h8(`guest${name}Limit`)} ${h8(`guest${name}AccessRights`)}`;
      return { parts: [name === 'Ldtr' ? 'LDT' : name.toUpperCase(), ...parts] };
    }),
    label`GDT =${address('guestGdtrBase')} ${h8('guestGdtrLimit')}`,
    label`IDT =${address('guestIdtrBase')} ${h8('guestIdtrLimit')}`,
    label`CR0 =${h8('guestCr0')}`,
    label`CR3 =${address('guestCr3')}`,
    label`CR4 =${h8('guestCr4')}`,
    label`DR7 =${h16('guestDr7')}`,
    label`EFER =${h16('guestIa32Efer')}`,
  );
}

const LABELS = { '32-bit': labels(8), '64-bit': labels(16) };

/** The flags are the high half of a descriptor: limit 19:16 stands where access rights have nothing. */
const AR_IN_FLAGS = 0xf0ffn;
const PRESENT = 0x80n;
const CR0_PE = 1n;
const CR0_NE = 1n << 5n;
const CR4_VMXE = 1n << 13n;

class RegisterDump {
  readonly values = new Map<FieldName, bigint>();
  readonly notes: string[] = [];
  error: DumpError | undefined;
  report: Report | undefined;
  variant: keyof typeof LABELS = '32-bit';

  get complete(): boolean {
    const { values } = this;
    return (['guestRip', 'guestCsSelector', 'guestTrSelector', 'guestCr4'] as const).every((f) =>
      values.has(f),
    );
  }
}

/**
 * Reads the first complete register state of a text, or undefined if there is none.
 * @throws DumpError if a value of it is none
 */
export function readQemu(text: string): VmcsImage | undefined {
  const stream = new TokenStream(text);
  let best: RegisterDump | undefined;
  let dump: RegisterDump | undefined;
  let report: Report | undefined;
  let count = 0;
  for (let token = stream.peek(); token; token = stream.peek()) {
    report = matchReport(stream, HOST_REPORTS) ?? report;
    if ((token.text === 'EAX' || token.text === 'RAX') && stream.peek(1)?.text === '=') {
      dump = new RegisterDump();
      dump.report = report;
      report = undefined;
      if (token.text === 'RAX') dump.variant = '64-bit';
      count++;
    }
    const wanted = dump && (dump === best || !best?.complete) ? dump : undefined;
    stream.advance(wanted ? take(stream, wanted) : 1);
    if (wanted && wanted.values.size > (best?.values.size ?? 0)) best = wanted;
  }
  if (!best || best.values.size < 2) return undefined;
  if (best.error) throw best.error;
  return imageOf(best, count - 1);
}

function take(stream: TokenStream, dump: RegisterDump): number {
  for (const candidate of LABELS[dump.variant].get(stream.peek()?.text as string) ?? []) {
    try {
      const match = matchLabel(stream, candidate);
      if (!match) continue;
      for (const { name, value } of match.reads) {
        if (!dump.values.has(name as FieldName)) dump.values.set(name as FieldName, value);
      }
      if (dump.notes.length < 12) dump.notes.push(...match.notes);
      return match.length;
    } catch (error) {
      if (!(error instanceof DumpError)) throw error;
      dump.error ??= error;
    }
  }
  return 1;
}

function imageOf({ values, notes, report, variant, complete }: RegisterDump, others: number): VmcsImage {
  notes.push('QEMU prints the state that KVM holds for the guest, which may differ from the VMCS');
  for (const name of SEGMENTS) {
    const flags = values.get(`guest${name}AccessRights`);
    if (flags === undefined) continue;
    const rights = (flags >> 8n) & AR_IN_FLAGS;
    // KVM marks a segment that is not present unusable.
    const unusable = (rights & PRESENT) === 0n ? BigInt(AR_UNUSABLE) : 0n;
    values.set(`guest${name}AccessRights`, rights | unusable);
  }
  const [cr0, cr4] = [values.get('guestCr0'), values.get('guestCr4')];
  const realMode = cr0 !== undefined && (cr0 & CR0_PE) === 0n;
  if (realMode) {
    notes.push(
      'the guest is in real mode, for which KVM uses virtual-8086 mode on a processor without "unrestricted guest": RFLAGS and segments of the VMCS are unknown',
    );
  }
  if (cr0 !== undefined) values.set('guestCr0', cr0 | CR0_NE);
  if (cr4 !== undefined) values.set('guestCr4', cr4 | CR4_VMXE);
  notes.push(
    'KVM runs every guest with CR0.NE and CR4.VMXE set, whatever it shows the guest: both are added',
  );
  if (!complete) notes.push('the register state is cut off: the rest is unknown');
  if (others > 0)
    notes.push(
      `the text holds ${others === 1 ? 'one more register state' : `${others} more register states`}: this is the ${complete ? 'first complete one' : 'one that says most'}`,
    );
  const { line: _line, note, ...reported } = report ?? { line: 0 };
  if (note) notes.push(note);
  const doubtful = realMode ? REAL_MODE_FIELDS : undefined;
  return { format: 'qemu', variant, values, reported, ...(doubtful && { doubtful }), notes };
}
