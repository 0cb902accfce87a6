import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { DecodeFailure, Decoder, MAX_INSTRUCTION_BYTES } from '../../src/cpu/decoder.ts';
import { OPCODE_ROWS, OPCODES } from '../../src/cpu/opcode-map.ts';
import { ByteStrings } from './decoder/byte-strings.ts';
import { Comparison, newTally } from './decoder/comparison.ts';
import { FEATURES } from './decoder/features.ts';
import { INTENDED_DIFFERENCES } from './decoder/intended-differences.ts';
import { ownForm } from './decoder/own-form.ts';

const COUNT = 20_000;
const SIZES = [16, 32, 64] as const;

describe('the decoder', () => {
  it.each(SIZES)('agrees with iced-x86 in %i-bit code', (bits) => {
    const tally = newTally();
    const comparison = new Comparison(FEATURES);
    const strings = new ByteStrings(1000 + bits);
    for (let n = 0; n < COUNT; n++) comparison.compare(strings.next(bits), bits, tally);
    expect(tally.differences).toEqual([]);
    // Most strings have an instruction that the map has, and some have none.
    expect(tally.valid).toBeGreaterThan(COUNT / 2);
    expect(tally.invalid).toBeGreaterThan(COUNT / 20);
  });

  it('would notice', () => {
    const comparison = new Comparison(FEATURES);
    const bytes = Uint8Array.from({ length: 15 }, (_, n) => (n === 0 ? 0x05 : 0x80));
    const tally = newTally();
    comparison.compare(bytes, 32, tally);
    expect(tally).toMatchObject({ valid: 1, different: 0 });
    const row = OPCODES.rows(0, 0x05)?.find(0, 0, false, -1, false, 0);
    expect(row?.operands[1]?.type).toBe('z');
    (row?.operands[1] as { type: string }).type = 'b';
    comparison.compare(bytes, 32, tally);
    (row?.operands[1] as { type: string }).type = 'z';
    expect(tally.differences).toMatchObject([{ what: 'length' }]);
  });

  it('asks for the next byte as long as an instruction is incomplete', () => {
    const decoder = new Decoder(OPCODES, FEATURES);
    for (const bits of SIZES) {
      const strings = new ByteStrings(bits);
      for (let n = 0; n < 500; n++) {
        const bytes = strings.next(bits);
        const whole = decoder.decode(bytes, MAX_INSTRUCTION_BYTES, bits);
        if (typeof whole === 'number' || whole.row === OPCODES.undefinedRow) continue;
        for (let available = 0; available < whole.length; available++) {
          expect(decoder.decode(bytes, available, bits)).toBe(DecodeFailure.NeedsMore);
        }
        const again = decoder.decode(bytes, whole.length, bits);
        expect(typeof again === 'number' ? again : ownForm(again, bits)).toEqual(ownForm(whole, bits));
      }
    }
  });

  it('does not go beyond 15 bytes', () => {
    const decoder = new Decoder(OPCODES, FEATURES);
    const prefixed = (prefixes: number) => Uint8Array.from([...Array(prefixes).fill(0x66), 0x90, 0x90, 0x90]);
    const longest = decoder.decode(prefixed(14), 15, 32);
    expect(typeof longest === 'number' ? longest : longest.length).toBe(15);
    expect(decoder.decode(prefixed(15), 15, 32)).toBe(DecodeFailure.TooLong);
  });
});

describe('the opcode map', () => {
  it('has each encoding once', () => {
    const seen = new Map<string, string>();
    for (const row of OPCODE_ROWS) {
      for (const mode of row.mode === undefined ? ['no64', 'only64'] : [row.mode]) {
        const key = `${row.opcode} ${mode}`;
        expect(seen.get(key), `${key} is ${row.mnemonic} too`).toBeUndefined();
        seen.set(key, row.mnemonic);
      }
    }
  });

  it('has its intended differences in the document', () => {
    const text = readFileSync(new URL('../../docs/decoder-differences.md', import.meta.url), 'utf8');
    for (const { id } of INTENDED_DIFFERENCES) expect(text).toContain(`\`${id}\``);
  });
});
