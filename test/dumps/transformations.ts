/** What happens to a dump between the printer and the reader: logs, mail programs, terminals. */
import fc from 'fast-check';

export type Transformation = (text: string) => string;

function eachLine(text: string, change: (line: string, index: number) => string): string {
  return text
    .split('\n')
    .map((line, i) => (line === '' ? line : change(line, i)))
    .join('\n');
}

export const PREFIXES: readonly string[] = [
  '',
  '[ 2311.499051] ',
  '[ 2311.499051] kvm_intel: ',
  '[12345.678901][T9921] ',
  '<3>[    1.000001] kvm_intel: ',
  '[Mon Jun 24 17:25:51 2022] ',
  'Jun 24 17:25:51 host.example kernel: ',
  'Jun  4 17:25:51 host kernel: [ 2311.499051] kvm_intel: ',
  '2022-06-24T17:25:51.123456+02:00 host kernel: ',
  '  kvm_intel: ',
  '[...] ',
  '[…] ',
  '<3>',
  '3,1234,123456789,-;',
  '[  123.456789] (3)[1234:qemu]',
  'kern  :err   : [  123.456789] ',
  'Thu Jun 24 17:25:51 2022 kern.err kernel: [ 123.456789] ',
  '<3>1 2022-06-24T17:25:51.123Z host kernel - - - ',
  '      CPU 0/KVM-251862 [019]  6384.132438: bprint:               dump_vmcs: ',
  '      CPU 0/KVM-251862 [019] d..1.  6384.132438: bputs: vmx_dump_sel.constprop.0: ',
];

export const XEN_PREFIXES: readonly string[] = [
  '(XEN) ',
  '(XEN) [2022-06-24 17:25:51] ',
  '(XEN) [  123.456789] ',
  '3,1234,123456789,-;(XEN) ',
  'Jun 24 17:25:51 host kernel: (XEN) ',
];

export function prefixed(prefix: string): Transformation {
  return (text) => eachLine(text, (line) => prefix + line);
}

/** The first line has lost the beginning of its prefix. */
export function cutPrefix(text: string): string {
  return eachLine(text, (line, i) => (i === 0 ? `   33.881551] ${line}` : `[   33.881552] ${line}`));
}

const LOG_TRAFFIC = [
  'audit: type=1400 audit(1656084351.123:77): apparmor="DENIED" operation="open"',
  'RIP: 0010:vmx_vcpu_run+0x3f1/0x6b0 [kvm_intel]',
  'CS:  0010 DS: 0000 ES: 0000 CR0: 0000000080050033',
  'RSP: 0018:ffffa6a24a52bc20 EFLAGS: 00010246',
  'usb 1-1: new high-speed USB device number 7 using xhci_hcd',
  'kvm [251862]: vcpu0, guest rIP: 0xfffff8390c241308 disabled perfctr wrmsr: 0xc2 data 0xffff',
  'Code: 48 89 e5 41 57 41 56 <0f> 0b',
  '(XEN) ----[ Xen-4.12.0  x86_64  debug=n   Not tainted ]----',
];

/** Other messages between the lines; `picks` says after which lines and which message. */
function interleaved(picks: readonly (number | undefined)[]): Transformation {
  return (text) =>
    text
      .split('\n')
      .flatMap((line, i) => {
        const pick = picks.length === 0 ? undefined : picks[i % picks.length];
        return pick === undefined ? [line] : [line, LOG_TRAFFIC[pick % LOG_TRAFFIC.length] as string];
      })
      .join('\n');
}

const messagePick = fc.option(fc.nat(LOG_TRAFFIC.length - 1), { nil: undefined });

/** Breaks lines at spaces so that they have at most `width` characters where that is possible. */
export function wrapped(width: number): Transformation {
  const wrapLine = (line: string): string => {
    const lines: string[] = [];
    let rest = line;
    while (rest.length > width) {
      const before = rest.lastIndexOf(' ', width);
      const at = before > 0 ? before : rest.indexOf(' ', width);
      if (at <= 0) break;
      lines.push(rest.slice(0, at));
      rest = rest.slice(at + 1);
    }
    return [...lines, rest].join('\n');
  };
  return (text) => eachLine(text, wrapLine);
}

export function mailQuoted(depth: number, mark = '> '): Transformation {
  return (text) => eachLine(text, (line) => mark.repeat(depth) + line);
}

export function withNoBreakSpaces(text: string): string {
  return text.replaceAll('  ', ' \u00a0');
}

/** RFC 2045: `=` and everything beyond ASCII as bytes, lines of at most 76 characters. */
export function quotedPrintable(text: string): string {
  const encode = (line: string): string => {
    const units = [...new TextEncoder().encode(line)].map((byte) =>
      byte < 0x7f && byte >= 0x20 && byte !== 0x3d
        ? String.fromCharCode(byte)
        : `=${byte.toString(16).toUpperCase().padStart(2, '0')}`,
    );
    const lines = [''];
    for (const unit of units) {
      if ((lines.at(-1) as string).length + unit.length > 75) lines.push('');
      lines[lines.length - 1] += unit;
    }
    return lines.join('=\n');
  };
  return text.split('\n').map(encode).join('\n');
}

function coloured(text: string): string {
  const control = String.fromCharCode(27);
  return eachLine(text, (line) => `${control}[0;31m${line}${control}[0m`);
}

function withCrLf(text: string): string {
  return text.replaceAll('\n', '\r\n');
}

/** As a UTF-16 file looks when it is read byte by byte. */
export function withNuls(text: string): string {
  return [...text].join('\0');
}

/** How web pages, chats and loggers show the lines of a text. */
export const MARKUPS: Readonly<Record<string, Transformation>> = {
  'a line break element': (text) => eachLine(text, (line) => `${line}<br />`),
  'one paragraph of line breaks': (text) => `<p>${text.trimEnd().replaceAll('\n', '<br>')}</p>`,
  'preformatted code': (text) => `<pre><code class="text">${text}</code></pre>`,
  'table rows': (text) => eachLine(text, (line, i) => `<tr><td>${i}</td><td>${line}</td></tr>`),
  'no-break spaces': (text) => text.replaceAll('  ', ' &nbsp;'),
  'numeric entities': (text) => text.replaceAll('=', '&#61;').replaceAll('*', '&#x2a;'),
  'entities of entities': (text) => eachLine(text, (line) => `&amp;gt; ${line}`),
  'Markdown escapes': (text) => text.replaceAll('*', '\\*').replaceAll('_', '\\_'),
  'Markdown emphasis': (text) => text.replaceAll('***', '**').replaceAll(/\*\* | \*\*/g, '**'),
  'a code span a line': (text) => eachLine(text, (line) => `\`${line}\``),
  'fences around it': (text) => `\`\`\`${text.trimEnd()}\`\`\``,
  'a string literal': (text) => JSON.stringify(text),
  'journal records': (text) => eachLine(text, (line) => JSON.stringify({ MESSAGE: line, PRIORITY: '3' })),
  'characters without width': (text) => text.replaceAll('=', '=\u200b'),
  'headings without stars': (text) => text.replaceAll(/\*\*\* (\w+ State) \*\*\*/g, '### $1'),
};

/** A way from printer to reader; a counterexample shows its steps. */
export class Journey {
  readonly #steps: readonly (readonly [name: string, step: Transformation])[];

  constructor(steps: readonly (readonly [name: string, step: Transformation] | undefined)[]) {
    this.#steps = steps.filter((step) => step !== undefined);
  }

  travel(text: string): string {
    return this.#steps.reduce((result, [, step]) => step(result), text);
  }

  [fc.toStringMethod](): string {
    return this.#steps.map(([name]) => name).join(', ');
  }
}

function maybe<T>(arbitrary: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> {
  return fc.option(arbitrary, { nil: undefined });
}

function named(step: Transformation): fc.Arbitrary<readonly [string, Transformation]> {
  return fc.constant([step.name, step] as const);
}

/** The steps in the order in which these things happen. */
export const journey: fc.Arbitrary<Journey> = fc
  .tuple(
    maybe(fc.array(messagePick, { maxLength: 20 }).map((p) => [`interleaved ${p}`, interleaved(p)] as const)),
    maybe(fc.constantFrom(...PREFIXES).map((p) => [`prefixed ${JSON.stringify(p)}`, prefixed(p)] as const)),
    maybe(named(withNoBreakSpaces)),
    maybe(named(coloured)),
    maybe(fc.integer({ min: 24, max: 100 }).map((w) => [`wrapped at ${w}`, wrapped(w)] as const)),
    maybe(
      fc
        .tuple(fc.nat(4), fc.constantFrom('> ', '>', '&gt; '))
        .map(([depth, mark]) => [`quoted ${depth} × ${mark}`, mailQuoted(depth, mark)] as const),
    ),
    maybe(named(quotedPrintable)),
    maybe(named(withCrLf)),
    maybe(named(withNuls)),
  )
  .map((steps) => new Journey(steps));
