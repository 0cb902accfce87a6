/** From a text of any kind to a VMCS image: finds out which format it is, by its content alone. */
import { textsByCaller } from './callers.ts';
import { readHaxm } from './haxm.ts';
import { readJson } from './json.ts';
import { readKvm } from './kvm.ts';
import { readQemu } from './qemu.ts';
import { DumpError, type VmcsImage } from './vmcs-image.ts';
import { readXen } from './xen.ts';

const XEN =
  /\(XEN\)[^\n]{0,80}(?:\*\*\*|CR0|PinBased|VMfunc|VMLAUNCH)|sel\s{1,8}attr\s{1,8}limit\s{1,8}base|PreemptionTimer\s{0,8}=|EFER\(|VMfunc\s{1,8}controls|PDPTE0\s{0,8}=|target_count=/;
/** Segments as KVM prints them; of Xen only the oldest variant does too. */
const KVM = /\bsel\s{0,8}=/;
// A format is tried only if the text has a word that every dump of it has.
const SECTIONS = /State|IDTVectoring/;
const REGISTERS = /[ER](?:IP|FL)\s{0,8}=/;
const ENCODED_FIELD = /(?:VMX|GUEST|HOST|INFO)_/;

const AMD = /\bVMCB\b|\bVMRUN\b|hardware\s{1,8}error\s{1,8}0xffffffff/;

const SAMPLE = 4096;

function isBinary(text: string): boolean {
  const sample = text.slice(0, SAMPLE);
  const strange = sample.match(/[^\P{Cc}\t\n\r]|\uFFFD/gu)?.length ?? 0;
  return strange * 10 > sample.length;
}

/** KVM and Xen may both print into one text, a nested hypervisor for one: the right reader understands more. */
function readKvmOrXen(text: string): VmcsImage | undefined {
  if (!XEN.test(text)) return readKvm(text);
  if (!KVM.test(text)) return readXen(text);
  const [xen, kvm] = [readXen(text), readKvm(text)];
  return (kvm?.values.size ?? 0) > (xen?.values.size ?? 0) ? kvm : xen;
}

function readSections(text: string): VmcsImage | undefined {
  const texts = textsByCaller(text);
  if (!texts) return readKvmOrXen(text);
  let best: VmcsImage | undefined;
  for (const [caller, own] of texts) {
    const image = readKvmOrXen(own);
    if (!image || (best && best.values.size >= image.values.size)) continue;
    best = image;
    best.notes.unshift(`${texts.size} threads or processors print dumps: this is of ${caller}`);
    if (image.values.has('originalEventIdentification')) break;
  }
  return best;
}

function readPrinted(text: string): VmcsImage | undefined {
  const sections = SECTIONS.test(text) ? readSections(text) : undefined;
  if (sections) return sections;
  const encoded = ENCODED_FIELD.test(text) ? readHaxm(text) : undefined;
  if (encoded) return encoded;
  const amd = AMD.exec(text);
  if (amd) {
    const line = text.slice(0, amd.index).split('\n').length;
    throw new DumpError(`"${amd[0]}" is what KVM prints on an AMD processor, which has no VMCS`, line);
  }
  return REGISTERS.test(text) ? readQemu(text) : undefined;
}

/** Our own format, or lines of a log that are JSON themselves. */
function readBraced(text: string): VmcsImage | undefined {
  try {
    return readJson(text);
  } catch (error) {
    if (!(error instanceof DumpError)) throw error;
    const image = SECTIONS.test(text) || ENCODED_FIELD.test(text) ? readPrinted(text) : undefined;
    if (image) return image;
    throw error;
  }
}

/**
 * Reads the dump that a text holds: of KVM, Xen, QEMU or HAXM, or our JSON.
 * @throws DumpError if there is none, or it is damaged; nothing else, whatever the text
 */
export function readDump(text: string): VmcsImage {
  const plain = (text.includes('\0') ? text.replaceAll('\0', '') : text).replaceAll('&nbsp;', '\u00a0');
  const begin = plain.slice(0, SAMPLE).trimStart();
  if (begin === '' && plain.trim() === '') throw new DumpError('the text is empty');
  const image = /^(?:\{|\[\s*["{\]])/.test(begin.replace(/^\uFEFF/, ''))
    ? readBraced(plain)
    : readPrinted(plain);
  if (image?.values.size === 0) throw new DumpError('the dump holds no values');
  if (image) return image;
  if (isBinary(plain)) throw new DumpError('the text is binary, no dump');
  if (/entry\s{1,8}failed,\s{1,8}hardware\s{1,8}error/.test(plain)) {
    throw new DumpError('the text says that a VM entry failed but holds no dump and no register state');
  }
  throw new DumpError(
    'no dump found: KVM and Xen print "*** Guest State ***", HAXM "4000 VMX_PIN_CONTROLS: …", QEMU "EIP=… EFL=…"; JSON begins with "{"',
  );
}
