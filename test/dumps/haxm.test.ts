import { describe, expect, it } from 'vitest';
import { readDump } from '../../src/dumps/read-dump.ts';

const DUMP = `haxm_panic: vcpu->tr:8b
haxm_warning: 4000 VMX_PIN_CONTROLS: 1f
haxm_warning: 4002 VMX_PRIMARY_PROCESSOR_CONTROLS: 969861fe
haxm_warning: 401e VMX_SECONDARY_PROCESSOR_CONTROLS: aa
haxm_warning: 4012 VMX_ENTRY_CONTROLS: 11ff
haxm_warning: 6008 VMX_CR3_TARGET_VAL_BASE: 0
haxm_warning: 2000 VMX_IO_BITMAP_A: 329d0b000
haxm_warning: 4400 VM_EXIT_INFO_INSTRUCTION_ERROR: 0
haxm_warning: 4402 VM_EXIT_INFO_REASON: 80000021
haxm_warning: 6400 VM_EXIT_INFO_QUALIFICATION: 0
haxm_warning: 681e GUEST_RIP: fffff80105fd5590
haxm_warning: 0802 GUEST_CS_SELECTOR: 10
haxm_warning: 4816 GUEST_CS_AR: c09b
`;

describe('HAXM dumps', () => {
  it('reads fields by encoding', () => {
    const image = readDump(DUMP);
    expect(image.format).toBe('haxm');
    expect(Object.fromEntries(image.values)).toEqual({
      pinBasedControls: 0x1fn,
      primaryProcessorBasedControls: 0x9698_61fen,
      secondaryProcessorBasedControls: 0xaan,
      vmEntryControls: 0x11ffn,
      cr3TargetValue0: 0n,
      ioBitmapAAddress: 0x3_29d0_b000n,
      vmInstructionError: 0n,
      exitReason: 0x8000_0021n,
      exitQualification: 0n,
      guestRip: 0xffff_f801_05fd_5590n,
      guestCsSelector: 0x10n,
      guestCsAccessRights: 0xc09bn,
    });
    expect(image.reported).toMatchObject({ exitReason: 0x8000_0021, exitQualification: 0n });
    expect(image.notes).toEqual([]);
  });

  it.each([
    ['[ 2804,119878] haxm_warning: '],
    ['haxm_warning:'],
    ['00008149\t1.46222651\thaxm_warning: '],
    ['Jun 16 15:07:09 localhost /netbsd: [ 1776.3439261] haxm_error: '],
    ['2019-01-11 13:29:19.100940+0800  localhost kernel[0]: (intelhaxm) haxm_warn: '],
    ['[ 2804,119878] haxm_warning: haxm_warning: '],
  ])('behind the prefix %j', (prefix) => {
    const text = DUMP.replaceAll('haxm_warning: ', prefix);
    expect(readDump(text).values).toEqual(readDump(DUMP).values);
  });

  it('reads what two processors print at the same time', () => {
    const twice = DUMP.split('\n')
      .flatMap((line) => [line, line])
      .join('\n');
    const image = readDump(twice.replace('RIP: fffff80105fd5590\n', 'RIP: \n'));
    expect(image.values).toEqual(readDump(DUMP).values);
    expect(image.notes.join('\n')).toContain('several processors');
  });

  it('knows nothing of a field that two processors print with different values', () => {
    const twice = DUMP.split('\n')
      .flatMap((line) => [line, line.replace('CS_SELECTOR: 10', 'CS_SELECTOR: f000')])
      .join('\n');
    const { values, notes } = readDump(twice);
    expect(values.has('guestCsSelector')).toBe(false);
    expect(values.get('guestCsAccessRights')).toBe(0xc09bn);
    expect(notes).toEqual([
      'several processors print at the same time: 1 fields printed with different values are unknown',
    ]);
  });

  it('believes the line that reports a VMfail', () => {
    const { reported } = readDump(
      `haxm_error: VM entry failed: RIP=0000fff0\nhaxm_error: VMfailValid. Prev exit: c. Error code: 7 (VMX error)\n${DUMP.replace('80000021', 'c')}`,
    );
    expect(reported).toMatchObject({ instructionError: 7 });
  });

  it('does not take the next encoding for a value', () => {
    const torn = DUMP.replace('VMX_PIN_CONTROLS: 1f', 'VMX_PIN_CONTROLS:');
    const image = readDump(torn.replaceAll('haxm_warning: ', ''));
    expect(image.values.has('pinBasedControls')).toBe(false);
    expect(image.values.get('primaryProcessorBasedControls')).toBe(0x9698_61fen);
  });

  it('joins the halves of a field', () => {
    const image = readDump(
      `${DUMP}haxm_warning: 2010 VMX_TSC_OFFSET: 1\nhaxm_warning: 2011 VMX_TSC_OFFSET_HIGH: ffff0000\n`,
    );
    expect(image.values.get('tscOffset')).toBe(0xffff_0000_0000_0001n);
  });

  it('names the field of a value that is too wide', () => {
    expect(() => readDump(DUMP.replace('SELECTOR: 10', 'SELECTOR: 12345'))).toThrow(
      'line 12: 0x0802 (Guest CS selector): "12345" has too many digits, 5 of at most 4',
    );
  });

  it('names encodings that no field has', () => {
    const image = readDump(`${DUMP}haxm_warning: 7ffe GUEST_NOTHING: 1\n`);
    expect(image.notes).toEqual(['no field has these encodings: 0x7ffe']);
  });
});
