/** Texts that need not be dumps: random bytes, and dumps of every format that something happened to. */
import { readdirSync, readFileSync } from 'node:fs';
import { checkImage } from '../../src/dumps/check-image.ts';
import { readDump } from '../../src/dumps/read-dump.ts';
import { DumpError, type VmcsImage } from '../../src/dumps/vmcs-image.ts';
import { fieldOf } from '../../src/vmcs/fields.ts';
import { PROFILES } from '../../src/vmx/capabilities/profiles.ts';
import { PREFIXES } from '../dumps/transformations.ts';
import type { Draw } from './campaign.ts';

/** Real dumps, and one text of each other format. */
export const TEXTS: readonly string[] = ['examples', 'texts'].flatMap((name) => {
  const folder = new URL(`../dumps/${name}/`, import.meta.url);
  return readdirSync(folder).map((file) => readFileSync(new URL(file, folder), 'utf8'));
});
/** What the formats are made of: words, numbers and the signs between them. */
const WORDS = [...new Set(TEXTS.flatMap((text) => text.split(/(?<=[\s=:,|])|(?=[\s=:,|])/)))];
const STRANGE = [
  '\0',
  '\r\n',
  '\u2028',
  '\uFEFF',
  '=\n',
  '=3D',
  '=C2=A0',
  '&gt;',
  '\u001b[0m',
  '> ',
  '__proto__',
];
const ENCODINGS = ['utf-8', 'latin1', 'utf-16le'] as const;

const splice = (text: string, at: number, length: number, inserted: string) =>
  text.slice(0, at) + inserted + text.slice(at + length);

/** Something happens to a text. */
function damage(random: Draw, text: string): string {
  const at = random.below(text.length + 1);
  switch (random.below(9)) {
    case 0:
      return splice(text, at, random.below(40), '');
    case 1:
      return splice(text, at, random.below(8), random.pick(WORDS));
    case 2:
      return splice(text, at, random.below(3), random.pick(STRANGE));
    case 3:
      return splice(text, at, 1, String.fromCharCode(random.below(random.once(4) ? 0x1_0000 : 0x80)));
    case 4:
      return text.slice(0, at);
    case 5: {
      // A piece of another dump.
      const other = random.pick(TEXTS);
      const from = random.below(other.length);
      return splice(text, at, random.below(200), other.slice(from, from + random.below(600)));
    }
    case 6: {
      const digits = random
        .quad()
        .toString(16)
        .repeat(1 + random.below(3));
      return splice(text, at, random.below(20), digits.slice(0, 1 + random.below(digits.length)));
    }
    case 7: {
      const lines = text.split('\n');
      const line = random.below(lines.length);
      const [taken] = lines.splice(line, 1);
      for (let n = random.below(3); n > 0; n--) lines.splice(random.below(lines.length + 1), 0, taken ?? '');
      return lines.join('\n');
    }
    default: {
      const prefix = random.pick(PREFIXES);
      return text.split('\n').join(`\n${prefix}`);
    }
  }
}

function hostileText(random: Draw): string {
  switch (random.below(4)) {
    case 0:
      return new TextDecoder(random.pick(ENCODINGS)).decode(random.bytes(random.below(600)));
    case 1: {
      const pieces = Array.from({ length: random.below(60) }, () => random.pick(WORDS));
      return pieces.join(random.pick(['', ' ', '\n']));
    }
    default: {
      let text = random.pick(TEXTS);
      for (let n = 1 + random.below(6); n > 0; n--) text = damage(random, text);
      return text;
    }
  }
}

function check(holds: boolean, what: string): void {
  if (!holds) throw new Error(what);
}

/** An image whose values fit their fields, or a DumpError of one line; nothing else. */
export function readHostile(text: string): VmcsImage | undefined {
  let image: VmcsImage;
  try {
    image = readDump(text);
  } catch (error) {
    if (!(error instanceof DumpError)) throw error;
    check(/^[^\n\r\u2028\u2029]{1,401}$/.test(error.message), `message ${JSON.stringify(error.message)}`);
    return undefined;
  }
  check(image.values.size > 0, 'no values');
  for (const [name, value] of image.values) {
    check(value >= 0n && value >> BigInt(fieldOf(name).bits) === 0n, `${name} = ${value}`);
  }
  for (const note of image.notes) check(!/[\n\r]/.test(note), `note ${JSON.stringify(note)}`);
  return image;
}

/** Reads a text; what has been read is sometimes checked too. */
export function dumpTrial(random: Draw): void {
  const image = readHostile(hostileText(random));
  if (image === undefined || !random.once(20)) return;
  const report = checkImage(image, random.once(4) ? undefined : random.pick(PROFILES));
  JSON.stringify(report, (_, value: unknown) => (typeof value === 'bigint' ? String(value) : value));
}
