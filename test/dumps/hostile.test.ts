import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { writeKvmDump } from '../../src/dumps/kvm-writer.ts';
import { stripPrefixes } from '../../src/dumps/prefixes.ts';
import { readDump } from '../../src/dumps/read-dump.ts';
import { DumpError, type VmcsImage } from '../../src/dumps/vmcs-image.ts';
import { fieldOf } from '../../src/vmcs/fields.ts';
import { dumpValues, sorted } from './field-values.ts';
import { journey } from './transformations.ts';

/** Whatever the text: an image whose values fit their fields, or a DumpError of one line. */
function expectImageOrError(text: string): VmcsImage | undefined {
  let image: VmcsImage;
  try {
    image = readDump(text);
  } catch (error) {
    expect(error).toBeInstanceOf(DumpError);
    expect((error as DumpError).message).toMatch(/^[^\n\r\u2028\u2029]{1,401}$/);
    return undefined;
  }
  expect(image.values.size).toBeGreaterThan(0);
  for (const [name, value] of image.values) {
    expect(value >= 0n && value >> BigInt(fieldOf(name).bits) === 0n, `${name} = ${value}`).toBe(true);
  }
  for (const note of image.notes) expect(note).not.toMatch(/[\n\r]/);
  expect(image.notes.length).toBeLessThan(40);
  return image;
}

interface Edit {
  readonly at: number;
  readonly length: number;
  readonly text: string;
}

const FRAGMENTS = [
  '*** Guest State ***',
  '*** Host State ***',
  '*** Control State ***',
  'Guest',
  'State',
  '***',
  'CR0: actual=',
  'shadow=0x',
  'CS:   sel=',
  'CS: f000 0009b',
  'EFER(MSR LL) =',
  'RIP =',
  'EAX=',
  'EIP=',
  '0x',
  '0xffffffffffffffffff',
  'KVM: entry failed, hardware error 0x',
  'VMLAUNCH error: 7',
  'vmentry failure (reason 0x80000021): MSR loading (entry 1)',
  'MSR guest autoload:',
  'msr=0x00000600 value=',
  '4000 VMX_PIN_CONTROLS: ',
  '6800 GUEST_CR0: ffffffffffffffffffff',
  '(XEN) ',
  '[ 12.3] ',
  '> ',
  '=\n',
  '=3D',
  '=C2=A0',
  '\n',
  '\r\n',
  '\0',
  '|',
  ':',
  '=',
  '{"guestRip": "0x1"}',
  '{',
];
const fragment = fc.oneof(fc.constantFrom(...FRAGMENTS), fc.string({ maxLength: 12, unit: 'binary' }));

const edit: fc.Arbitrary<Edit> = fc.record({ at: fc.nat(6000), length: fc.nat(60), text: fragment });

describe('hostile texts', () => {
  it('random strings', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 300 }), (text) => void expectImageOrError(text)),
      {
        numRuns: 1500,
      },
    );
  });

  it('random bytes', () => {
    const bytes = fc.uint8Array({ maxLength: 400 });
    fc.assert(
      fc.property(bytes, fc.constantFrom('utf-8', 'latin1', 'utf-16le'), (data, encoding) => {
        expectImageOrError(new TextDecoder(encoding).decode(data));
      }),
      { numRuns: 1000 },
    );
  });

  it('pieces of dumps in any order', () => {
    fc.assert(
      fc.property(
        fc.array(fragment, { maxLength: 60 }),
        fc.constantFrom('', ' ', '\n'),
        (pieces, between) => {
          expectImageOrError(pieces.join(between));
        },
      ),
      { numRuns: 2000 },
    );
  });

  it('damaged dumps', () => {
    fc.assert(
      fc.property(
        dumpValues,
        journey,
        fc.array(edit, { minLength: 1, maxLength: 6 }),
        ({ layout, values }, way, edits) => {
          let text = way.travel(writeKvmDump(values, { variant: layout, hardwareError: 7 }));
          for (const { at, length, text: inserted } of edits) {
            const start = at % (text.length + 1);
            text = text.slice(0, start) + inserted + text.slice(start + length);
          }
          expectImageOrError(text);
        },
      ),
      { numRuns: 400 },
    );
  });

  it.each<[string, string]>([
    ['', 'the text is empty'],
    [' \n\t\r\n ', 'the text is empty'],
    ['\0\0\0', 'the text is empty'],
    ['\u0001\u0002\u0003binary\u0004', 'the text is binary, no dump'],
    ['hello world', 'no dump found'],
    ['*** Guest State ***', 'the dump holds no values'],
    ['__proto__ State constructor = toString', 'no dump found'],
  ])('%j', (text, message) => {
    expect(() => readDump(text)).toThrow(message);
  });

  it('words that are names of object members', () => {
    const text = '*** Guest State ***\nconstructor: __proto__=1 toString = 2\nCR3 = 0x1\nend';
    expect([...readDump(text).values.keys()]).toEqual(['guestCr3']);
  });

  it('lines of a megabyte', () => {
    const size = 1_000_000;
    const seeds = [
      'a',
      '0',
      ' ',
      '>',
      '=',
      '[',
      '***',
      'Guest State ',
      'CS: ',
      '=3D',
      '&gt;',
      '\u001b[',
      '-1 ',
      '1.1] ',
      'EIP=',
      'A_',
      '|',
    ];
    for (const seed of seeds) {
      const line = seed.repeat(size / seed.length);
      expectImageOrError(line);
      expectImageOrError(`*** Guest State ***\nCR3 = 0x1\nRSP = ${line}\n*** Host State *** RIP = 0x2`);
      expectImageOrError(`State VMX_ EIP= EFL=3D ${line} (XEN) x`);
    }
  });

  it('a hundred thousand dumps', () => {
    const text = '*** Guest State ***\nCR3 = 0x0000000000001000\nEAX= EIP=\n'.repeat(100_000);
    expect(readDump(text).notes[0]).toContain('99999 more dumps');
  });
});

describe('a dump that has travelled', () => {
  it('reads the same', () => {
    fc.assert(
      fc.property(dumpValues, journey, ({ layout, values }, way) => {
        const text = writeKvmDump(values, { variant: layout, hardwareError: 7 });
        const image = readDump(way.travel(text));
        expect(sorted(image.values)).toEqual(sorted(values));
        expect(image.reported.instructionError).toBe(7);
      }),
      { numRuns: 400 },
    );
  });
});

describe('prefixes', () => {
  it('strips to the same text however often it is asked', () => {
    fc.assert(
      fc.property(
        fc.array(fragment).map((pieces) => pieces.join('')),
        (line) => {
          const once = stripPrefixes(line);
          expect(line.endsWith(once)).toBe(true);
          expect(stripPrefixes(once)).toBe(once);
        },
      ),
      { numRuns: 1000 },
    );
  });

  it.each([
    'CR3 = 0x1',
    'VMExit: intr_info=0',
    '        reason=80000021',
    'EFER= 0x1',
    'SVI|RVI = 00|2f',
    '  CS: f000',
  ])('leaves %j alone', (line) => {
    expect(stripPrefixes(line)).toBe(line);
  });
});
