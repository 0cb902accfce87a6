import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { checkImage } from '../../src/dumps/check-image.ts';
import { writeKvmDump } from '../../src/dumps/kvm-writer.ts';
import { readDump } from '../../src/dumps/read-dump.ts';
import type { FieldName } from '../../src/vmcs/fields.ts';
import { dumpValues, sorted, VARIANTS } from './field-values.ts';
import {
  cutPrefix,
  MARKUPS,
  PREFIXES,
  prefixed,
  quotedPrintable,
  withNuls,
  wrapped,
} from './transformations.ts';

function example(name: string): string {
  return readFileSync(new URL(`examples/${name}.txt`, import.meta.url), 'utf8');
}

function expectValues(text: string, expected: Partial<Record<FieldName, bigint>>): void {
  const { values } = readDump(text);
  for (const [name, value] of Object.entries(expected)) {
    expect(values.get(name as FieldName), name).toBe(value);
  }
}

describe('KVM dumps of real machines', () => {
  it('reads a failed entry of a guest that blocks by STI with IF = 0', () => {
    const text = example('blocking-by-sti');
    const image = readDump(text);
    expect(image).toMatchObject({
      format: 'kvm',
      variant: 'K2',
      reported: { exitReason: 0x8000_0021, exitQualification: 0n },
      notes: [],
    });
    expect(image.reported.source).toBe('reason=80000021 qualification=0000000000000000');
    expect(image.values.size).toBe(110);
    expectValues(text, {
      guestCr0: 0x50032n,
      cr0ReadShadow: 0x50032n,
      cr0GuestHostMask: 0xffff_ffff_ffff_fff7n,
      guestCr4: 0x2040n,
      guestRflags: 2n,
      guestRip: 0x8000n,
      guestCsSelector: 0xc200n,
      guestCsAccessRights: 0x8093n,
      guestCsBase: 0x7ffc_2000n,
      guestLdtrAccessRights: 0x1_0000n,
      guestGdtrLimit: 0x57n,
      guestGdtrBase: 0xffff_f802_4e65_2fb0n,
      guestTrSelector: 0x40n,
      guestPdpte3: 0x100_0000_0000n,
      guestIa32Efer: 0n,
      guestIa32Pat: 0x0007_0106_0007_0106n,
      guestInterruptibilityState: 9n,
      guestInterruptStatus: 0x2fn,
      hostRip: 0xffff_ffff_c119_a0a0n,
      hostRsp: 0xffff_a6a2_4a52_bc20n,
      hostSsSelector: 0x18n,
      hostTrSelector: 0x40n,
      hostIa32Efer: 0xd01n,
      hostIa32SysenterCs: 0x10n,
      pinBasedControls: 0xffn,
      primaryProcessorBasedControls: 0xb5a0_6dfan,
      secondaryProcessorBasedControls: 0x7ebn,
      vmEntryControls: 0xd1ffn,
      primaryVmExitControls: 0x2b_efffn,
      injectedEventErrorCode: 4n,
      exitReason: 0x8000_0021n,
      tscOffset: 0xff96_fad0_7396_b5f8n,
      apicAccessAddress: 0x1_4516_c000n,
      virtualApicAddress: 0x1_4afe_7000n,
      postedInterruptNotificationVector: 0xf2n,
      eptPointer: 0x1_1aa2_d01en,
      pleGap: 0x80n,
      pleWindow: 0x2_0000n,
      vpid: 3n,
    });
    for (const absent of ['tertiaryProcessorBasedControls', 'vmcsLinkPointer', 'tscMultiplier'] as const) {
      expect(image.values.has(absent)).toBe(false);
    }
  });

  it('does not take the effective EFER for the field', () => {
    const image = readDump(example('ept-violation-exit'));
    expect(image.variant).toBe('K3');
    expect(image.values.has('guestIa32Efer')).toBe(false);
    expect(image.values.get('tertiaryProcessorBasedControls')).toBe(0n);
    expect(image.values.get('guestInterruptStatus')).toBe(0xec00n);
    expect(image.reported).toMatchObject({ exitReason: 0x30, exitQualification: 0x981n });
    expect(image.notes.join('\n')).toContain('guest IA32_EFER field, which is unknown');
  });

  it('takes it if VM entry loads IA32_EFER', () => {
    const text = example('ept-violation-exit').replace('EntryControls=000053ff', 'EntryControls=0000d3ff');
    expectValues(text, { guestIa32Efer: 0xd01n });
  });

  it('believes the VM-instruction error and not the exit reason that is left over', () => {
    const image = readDump(example('gp-without-error-code'));
    expect(image.reported).toEqual({
      instructionError: 7,
      source: 'KVM: entry failed, hardware error 0x7',
    });
    expect(image.values.get('injectedEventIdentification')).toBe(0x8000_030dn);
    expect(image.values.get('exitReason')).toBe(0x30n);
    expect(image.notes.join('\n')).toContain('left from an earlier VM exit');
  });
});

describe('the layouts of KVM', () => {
  it('round-trips every printed field', () => {
    fc.assert(
      fc.property(dumpValues, ({ layout, values }) => {
        const image = readDump(writeKvmDump(values, { variant: layout }));
        expect(sorted(image.values)).toEqual(sorted(values));
        expect(image.notes.filter((note) => !note.includes('ordinary VM exit'))).toEqual([]);
      }),
      { numRuns: 300 },
    );
  });

  it('prints only what is known', () => {
    const known = fc.tuple(dumpValues, fc.infiniteStream(fc.boolean()));
    fc.assert(
      fc.property(known, ([{ layout, values }, keep]) => {
        const part = new Map([...values].filter(() => keep.next().value));
        const text = writeKvmDump(part, { variant: layout });
        if (!text.includes('0x')) return;
        for (const [name, value] of readDump(text).values) expect(value, name).toBe(values.get(name));
      }),
      { numRuns: 200 },
    );
  });

  it.each(VARIANTS)('tells %s from the others', (layout) => {
    const values = new Map<FieldName, bigint>([
      ['guestCr4', 0x20n],
      ['guestIa32Efer', 0x500n],
      ['guestPdpte0', 1n],
      ['tertiaryProcessorBasedControls', 0n],
      ['primaryProcessorBasedControls', 0n],
      ['secondaryProcessorBasedControls', 0n],
    ]);
    values.set('cr4ReadShadow', 0n).set('cr4GuestHostMask', 0n);
    expect(readDump(writeKvmDump(values, { variant: layout })).variant).toBe(layout);
  });

  it('reads lists of MSRs', () => {
    const text = example('ept-violation-exit')
      .replace('InterruptStatus = ec00', 'MSR guest autoload:\n   0: msr=0x00000600 value=0x0000000000000007')
      .replace(
        'PAT = 0x0407050600070106\n[ 2311.499051] kvm_intel: *** Control',
        'MSR host autoload:\n   0: msr=0x00000600 value=0xfffffe3f51297000\n   1: msr=0x0000038f value=0x0000000000000000\n*** Control',
      );
    expect(readDump(text).msrLists).toEqual({
      vmEntryLoad: [{ index: 0x600, reserved: 0, data: 7n }],
      vmExitLoad: [
        { index: 0x600, reserved: 0, data: 0xffff_fe3f_5129_7000n },
        { index: 0x38f, reserved: 0, data: 0n },
      ],
    });
  });

  it('reads lines that only some kernels print', () => {
    const text = example('blocking-by-sti')
      .replace(
        '*** Host State',
        'S_CET = 0x0000000000000001, SSP = 0x00007fc1727fdfd0, INTR SSP TABLE = 0x02\n*** Host State',
      )
      .replace('*** Control State', 'S_CET = 0x0000000000000003\nSSP = 0x0000000000000004\n*** Control State')
      .replace('ExitControls=002befff', 'ExitControls=0x802befff SecondaryExitControls=0x0000000000000003')
      .replace('errcode=00000004 ilen=00000000', 'errcode=00000004 ilen=00000000 event_data=0000000000000005')
      .concat(
        'VE info address = 0x0000000135a04000\n',
        've_info: 0x00000030 0xffffffff 0x00000000000006ab 0xffffffff80000000 0x000000000109fff8 0x0000\n',
        'S_CET = 0x0000000000000009\n',
      );
    expectValues(text, {
      guestIa32SCet: 1n,
      guestSsp: 0x7fc1_727f_dfd0n,
      guestIa32InterruptSspTableAddr: 2n,
      hostIa32SCet: 3n,
      hostSsp: 4n,
      secondaryVmExitControls: 3n,
      primaryVmExitControls: 0x802b_efffn,
      injectedEventData: 5n,
      virtualizationExceptionInformationAddress: 0x1_35a0_4000n,
    });
  });

  it('takes SVI and RVI where the guest state has no interrupt status', () => {
    const text = example('blocking-by-sti')
      .replace(/^.*InterruptStatus.*\n/m, '')
      .replace('00|2f', '31|2f');
    expectValues(text, { guestInterruptStatus: 0x312fn });
  });
});

describe('what logs and mails do to a dump', () => {
  const text = example('gp-without-error-code');
  const expected = sorted(readDump(text).values);

  it.each(PREFIXES)('strips the prefix %j', (prefix) => {
    expect(sorted(readDump(prefixed(prefix)(text)).values)).toEqual(expected);
  });

  it.each(Object.entries(MARKUPS))('reads it as %s', (_, markup) => {
    const image = readDump(markup(text));
    expect(sorted(image.values)).toEqual(expected);
    expect(image.reported.instructionError).toBe(7);
  });

  it('strips a prefix whose beginning is cut off', () => {
    expect(sorted(readDump(cutPrefix(text)).values)).toEqual(expected);
  });

  it.each([10, 20, 30, 40, 60, 72])('joins what is wrapped at %i columns', (width) => {
    const image = readDump(wrapped(width)(text));
    expect(sorted(image.values)).toEqual(expected);
    expect(image.reported.instructionError).toBe(7);
  });

  it('decodes quoted-printable and UTF-16', () => {
    expect(sorted(readDump(withNuls(quotedPrintable(text))).values)).toEqual(expected);
  });

  it('joins numbers that a terminal broke', () => {
    const broken = text.replace('CR3 = 0x00000000feffc000', 'CR3 = 0x00000000\nfeffc000');
    expect(sorted(readDump(broken).values)).toEqual(expected);
  });
});

describe('a KVM dump that is not whole', () => {
  const text = example('blocking-by-sti');
  const whole = readDump(text).values;

  it('yields, wherever it is cut off, only values of the whole', () => {
    for (let end = text.indexOf('CR0'); end < text.length; end += 7) {
      const start = text.slice(0, end);
      let values: ReadonlyMap<FieldName, bigint>;
      try {
        values = readDump(start).values;
      } catch (error) {
        expect((error as Error).message).toBe('the dump holds no values');
        continue;
      }
      for (const [name, value] of values) expect(value, `${name}, cut at ${end}`).toBe(whole.get(name));
    }
  });

  it('says what is missing', () => {
    const cut = readDump(text.slice(0, text.indexOf('ExceptionBitmap')));
    expect(cut.notes.join('\n')).toMatch(/cut off after line 37/);
    expect(cut.values.has('exceptionBitmap')).toBe(false);
    const guestOnly = readDump(text.slice(0, text.indexOf('*** Host')));
    expect(guestOnly.notes.join('\n')).toContain('there is no "*** Host State ***"');
    expect(guestOnly.notes.join('\n')).toContain('there is no "*** Control State ***"');
    expect(guestOnly.reported).toEqual({});
  });

  it('knows the guest state by the header that follows it', () => {
    const image = readDump(text.slice(text.indexOf('RSP =')));
    expect(image.values.get('guestRsp')).toBe(whole.get('guestRsp'));
    expect(image.values.get('hostRsp')).toBe(whole.get('hostRsp'));
    expect(image.values.has('guestCr0')).toBe(false);
    expect(image.notes.join('\n')).toContain('begins within the guest state');
  });

  it('knows the host state by the header that follows it', () => {
    const image = readDump(text.slice(text.indexOf('RIP = 0xffffffffc119a0a0')));
    expect(image.values.get('hostRip')).toBe(whole.get('hostRip'));
    expect(image.values.has('guestRip')).toBe(false);
    expect(image.values.get('vpid')).toBe(3n);
  });

  it('keeps the first of two values and says so', () => {
    const image = readDump(text.replace('*** Host State', 'CR3 = 0x0000000000001000\n*** Host State'));
    expect(image.values.get('guestCr3')).toBe(whole.get('guestCr3'));
    expect(image.notes.join('\n')).toMatch(
      /line 26 prints guestCr3 again, 0x1000: 0x13cbf4002 of line 5 is kept/,
    );
  });

  it('names lines that it does not understand', () => {
    const image = readDump(text.replace('*** Host State', 'RSQ = 0x0\n*** Host State'));
    expect(image.notes).toEqual(['line 26 was not understood and passed over']);
  });

  it('takes that of a VM entry that failed before those of ordinary VM exits', () => {
    const ordinary = example('ept-violation-exit');
    const image = readDump(`${ordinary}\n${text}\n${ordinary}\n${text.replace('SSP', 'SSQ')}`);
    expect(image.values.get('exitReason')).toBe(0x8000_0021n);
    expect(image.notes[0]).toMatch(
      /^the text holds 3 more dumps: this is the first of a VM entry that failed, from line/,
    );
    const broken = text.slice(0, text.indexOf('ExceptionBitmap'));
    expect(readDump(`${ordinary}\n${broken}`).values.get('exitReason')).toBe(48n);
  });

  it('takes the first complete dump of several', () => {
    const first = text.slice(0, text.indexOf('ExceptionBitmap'));
    const other = example('ept-violation-exit');
    const image = readDump(`${first}\n${other}\n${other}`);
    expect(image.values.get('vpid')).toBe(1n);
    expect(image.notes[0]).toBe('the text holds 2 more dumps: this is the first complete one, from line 40');
    expect(readDump(`${first}\n${first}`).notes[0]).toContain('the one that says most, from line 2');
  });

  it.each([
    ['before', (dump: string, line: string) => `${line}\n${dump}${line.replace('0x7', '0x8')}\n${dump}`],
    ['after', (dump: string, line: string) => `${dump}${line}\n${dump}${line.replace('0x7', '0x8')}\n`],
  ])('joins each dump with the report %s it', (_, join) => {
    const both = join(text, 'KVM: entry failed, hardware error 0x7');
    expect(readDump(both).reported.instructionError).toBe(7);
  });

  it('is told from a dump of Xen in the same text, and takes no report of Xen', () => {
    const dump = readFileSync(new URL('texts/xen.txt', import.meta.url), 'utf8');
    const xen = `d2v0 VMLAUNCH error: 0x7\n${dump}`;
    const [kvmFirst, xenFirst] = [readDump(`${text}\n${xen}`), readDump(`${xen}\n${text}`)];
    expect(kvmFirst).toMatchObject({ format: 'kvm', variant: 'K2', reported: { exitReason: 0x8000_0021 } });
    expect(kvmFirst.values).toEqual(readDump(text).values);
    expect(xenFirst).toMatchObject({ format: 'xen', reported: { instructionError: 7 } });
    expect(xenFirst.values).toEqual(readDump(xen).values);
  });
});

describe('two processors that print at the same time', () => {
  const lines = (name: string) =>
    example(name)
      .trimEnd()
      .split('\n')
      .map((line) => line.replace(/^.*(?:kernel: |kvm_intel: )/, ''));
  const [one, two] = [lines('blocking-by-sti'), lines('ept-violation-exit')];
  const whole = readDump(example('blocking-by-sti')).values;
  const other = readDump(example('ept-violation-exit')).values;

  /** Lines of both in turn, those of the first ahead by `lead`. */
  function together(lead: number, prefix: (of: 'first' | 'second') => string): string {
    const text: string[] = [];
    for (let i = 0; i < Math.max(one.length, two.length + lead); i++) {
      if (i < one.length) text.push(prefix('first') + one[i]);
      const late = two[i - lead];
      if (late !== undefined) text.push(prefix('second') + late);
    }
    return text.join('\n');
  }

  it.each([
    ['thread', (of: string) => `[   12.345678][ T${of === 'first' ? 77 : 88}] `],
    ['processor', (of: string) => `[   12.345678][    C${of === 'first' ? 0 : 11}] kvm_intel: `],
    [
      'traced task',
      (of: string) => `CPU 0/KVM-${of === 'first' ? 77 : 88} [019] 6.132438: bprint: dump_vmcs: `,
    ],
  ])('are told apart by the %s that each line names', (_, prefix) => {
    for (const lead of [0, 1, 9, 30]) {
      const image = readDump(together(lead, prefix));
      expect(sorted(image.values)).toEqual(sorted(whole));
      expect(image.notes[0]).toMatch(/^2 threads or processors print dumps/);
    }
  });

  it('yield only values that both print, or that only one prints', () => {
    for (let lead = 0; lead < one.length; lead++) {
      const { values } = readDump(together(lead, () => '[   12.345678] '));
      for (const [name, value] of values) expect([whole.get(name), other.get(name)], name).toContain(value);
    }
  });

  it('do not make a dump of the guest of one and the controls of the other', () => {
    for (let lead = 0; lead < one.length; lead++) {
      const image = readDump(together(lead, () => ''));
      const failing = checkImage(image).failures.map((failure) => failure.id);
      expect(['guest.intr.sti-needs-if', undefined], `${lead}`).toContain(failing[0]);
      expect(failing.length).toBeLessThan(2);
    }
  });
});

describe('a line that ends early', () => {
  const text = example('blocking-by-sti');

  it('leaves its value unknown and the rest readable', () => {
    const image = readDump(text.replace('CR3 = 0x000000013cbf4002', 'CR3 = '));
    expect(image.values.has('guestCr3')).toBe(false);
    expect(image.values.get('guestPdpte0')).toBe(0x33_0005_0011n);
    expect(image.values.size).toBe(109);
    expect(image.notes).toEqual(['line 6: the line before ends without the value of CR3, which is unknown']);
  });

  it('does not take the beginning of the next line for its value', () => {
    const image = readDump(text.replace('CR3 = 0x000000013cbf4002', 'CR3 =\n17 packets dropped'));
    expect(image.values.has('guestCr3')).toBe(false);
  });
});

describe('the end of a dump alone', () => {
  const text = example('blocking-by-sti');

  it('is read as control state', () => {
    const image = readDump(text.slice(text.indexOf('VMExit:')));
    expect(image.reported).toMatchObject({ exitReason: 0x8000_0021, exitQualification: 0n });
    expect(image.values.get('eptPointer')).toBe(0x1_1aa2_d01en);
    expect(image.values.has('guestCr0')).toBe(false);
    expect(image.notes[0]).toContain('begins within the control state');
  });
});

it('does not take a label that somebody has changed for the field', () => {
  const text = example('blocking-by-sti').replace('EPT pointer', '__va::EPT pointer');
  expect(readDump(text).values.has('eptPointer')).toBe(false);
});

describe('errors in a KVM dump', () => {
  const text = example('blocking-by-sti');

  it.each([
    [
      'base=0x000000007ffc2000',
      'base=0x0000000007ffc2000',
      'line 11: CS base: "0x0000000007ffc2000" has too many digits, 17 of at most 16',
    ],
    ['attr=0x08093', 'attr=0x0809z', 'line 11: CS attr: "0x0809z" is no hexadecimal number'],
    ['RIP = 0x0000000000008000', 'RIP = garbage', 'line 8: RIP: "garbage" is no hexadecimal number'],
    ['SVI|RVI = 00', 'SVI|RVI = 000', 'line 44: SVI RVI: "000" has too many digits, 3 of at most 2'],
    [
      'RFLAGS=0x',
      `RFLAGS=0x${'0'.repeat(1000)}`,
      `line 9: RFLAGS: "0x${'0'.repeat(38)}…" has too many digits`,
    ],
    ['ilen=00000001', 'ilen=-1', 'line 40: VMExit ilen: "-1" is no hexadecimal number'],
  ])('%s → %s', (from, to, message) => {
    expect(text).toContain(from);
    expect(() => readDump(text.replace(from, to))).toThrow(message);
  });

  it('counts lines of the original text, quoted-printable or not', () => {
    const damaged = text.replace('RIP = 0x0000000000008000', 'RIP = garbage');
    const wrappedLine =
      quotedPrintable(damaged)
        .split('\n')
        .findIndex((line) => line.includes('RSP =')) + 1;
    expect(() => readDump(quotedPrintable(damaged))).toThrow(`line ${wrappedLine}: RIP`);
  });

  it('says when digits are missing', () => {
    const image = readDump(text.replace('CR3 = 0x000000013cbf4002', 'CR3 = 0x13cbf4002'));
    expect(image.values.get('guestCr3')).toBe(0x1_3cbf_4002n);
    expect(image.notes).toEqual(['line 5: CR3 has 9 digits where 16 are printed']);
  });
});
