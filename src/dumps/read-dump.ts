/** From a text of any kind to a VMCS image: finds out which format it is, by its content alone. */
import { readHaxm } from './haxm.ts';
import { readJson } from './json.ts';
import { readKvm } from './kvm.ts';
import { readQemu } from './qemu.ts';
import { DumpError, type VmcsImage } from './vmcs-image.ts';
import { readXen } from './xen.ts';

const XEN =
  /\(XEN\)[^\n]{0,80}(?:\*\*\*|CR0|PinBased|VMfunc|VMLAUNCH)|sel\s{1,8}attr\s{1,8}limit\s{1,8}base|PreemptionTimer\s{0,8}=|EFER\(|VMfunc\s{1,8}controls|PDPTE0\s{0,8}=|target_count=/;
// A format is tried only if the text has a word that every dump of it has.
const SECTIONS = 'State';
const REGISTERS = /[ER](?:IP|FL)\s{0,8}=/;
const ENCODED_FIELD = /(?:VMX|GUEST|HOST|INFO)_/;

const SAMPLE = 4096;

function isBinary(text: string): boolean {
  const sample = text.slice(0, SAMPLE);
  const strange = sample.match(/[^\P{Cc}\t\n\r]|\uFFFD/gu)?.length ?? 0;
  return strange * 10 > sample.length;
}

function readPrinted(text: string): VmcsImage | undefined {
  const sections = text.includes(SECTIONS) ? (XEN.test(text) ? readXen(text) : readKvm(text)) : undefined;
  const encoded = sections ?? (ENCODED_FIELD.test(text) ? readHaxm(text) : undefined);
  return encoded ?? (REGISTERS.test(text) ? readQemu(text) : undefined);
}

/**
 * Reads the dump that a text holds: of KVM, Xen, QEMU or HAXM, or our JSON.
 * @throws DumpError if there is none, or it is damaged; nothing else, whatever the text
 */
export function readDump(text: string): VmcsImage {
  const plain = text.includes('\0') ? text.replaceAll('\0', '') : text;
  const begin = plain.slice(0, SAMPLE).trimStart();
  if (begin === '' && plain.trim() === '') throw new DumpError('the text is empty');
  const image = /^(?:\{|\[\s*["{\]])/.test(begin.replace(/^\uFEFF/, ''))
    ? readJson(plain)
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
