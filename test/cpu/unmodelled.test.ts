import { describe, expect, it } from 'vitest';
import { NAMED_ROWS } from '../../src/cpu/opcode-names.ts';
import { SingleInstruction } from '../support/single-instruction.ts';
import { Comparison, newTally, type Tally } from './decoder/comparison.ts';
import { FEATURES } from './decoder/features.ts';

/** What of iced-x86 is not Intel's, or not in its manual. */
const OTHERS = /^(F|PF|PI2F|PSWAP|PAVGUSB|SALC|UDB|UNDOC|SKINIT|.*GI$|CLZERO|RDPRU|MCOMMIT|.*WAITX|MONITORX)/;
const ADDED_BY_AMD =
  /^(VM(LOAD|SAVE|RUN|MCALL|GEXIT)|INVLPGB?A?|EXTRQ|INSERTQ|MOVNTS[SD]|PSMASH|PVALIDATE|RMP.*|TLBSYNC)/;
const PADLOCK = /^(X(CRYPT|SHA|STORE)|MONTMUL|CCS_|ALTINST|REP)|XSTORE/;
const FOUR_OPERANDS = /^VF(N?M(ADD|SUB)|MADDSUB|MSUBADD)[PS][SD]|^VPERMIL2|^VPC(MOV|OM)|^VPPERM|^VPROT/;
const notIntels = (name: string) =>
  OTHERS.test(name) || ADDED_BY_AMD.test(name) || PADLOCK.test(name) || FOUR_OPERANDS.test(name);

const LEGACY = [[], [0x66], [0xf3], [0xf2]];
const ESCAPES = [[0x0f], [0x0f, 0x38], [0x0f, 0x3a]];
const FORMS = [0, 1, 2, 3, 4, 5, 6, 7].flatMap((digit) => [0xc0 | (digit << 3), 0x04 | (digit << 3)]);
const EVERY_FORM = Array.from({ length: 256 }, (_, modrm) => modrm);

function* encodings(): Generator<number[]> {
  for (let opcode = 0; opcode < 256; opcode++) {
    for (let pp = 0; pp < 4; pp++) {
      for (const modrm of opcode === 1 ? EVERY_FORM : FORMS) {
        for (const w of [0, 1]) {
          for (const bytes of ESCAPES) {
            if (bytes.length === 1 && (opcode === 0x38 || opcode === 0x3a)) continue;
            yield [...(LEGACY[pp] as number[]), 0x40 | (w << 3), ...bytes, opcode, modrm];
          }
          for (const [l, vvvv] of [
            [0, 0x78],
            [4, 0x78],
            [4, 0x68],
          ]) {
            const second = (w << 7) | (vvvv as number) | (l as number) | pp;
            for (const map of [1, 2, 3]) yield [0xc4, 0xe0 | map, second, opcode, modrm];
          }
          for (const [vvvv, third] of [
            [0x78, 0x08],
            [0x78, 0x49],
            [0x68, 0x48],
          ]) {
            const second = (w << 7) | (vvvv as number) | 4 | pp;
            for (const map of [1, 2, 3, 5, 6])
              yield [0x62, 0xf0 | map, second, third as number, opcode, modrm];
          }
        }
      }
    }
  }
}

describe('instructions that are known by name only', () => {
  it('have the names that iced-x86 gives them, and only others are missing', () => {
    const comparison = new Comparison(FEATURES);
    const tally: Tally = newTally();
    const bytes = new Uint8Array(15);
    for (const encoding of encodings()) {
      bytes.fill(0);
      bytes.set(encoding);
      comparison.compare(bytes, 64, tally);
    }
    expect(tally.differences).toEqual([]);
    expect([...tally.notInTheMap.keys()].filter((name) => !notIntels(name))).toEqual([]);
    const known = new Set(NAMED_ROWS.map((row) => row.mnemonic));
    const met = new Set(tally.named.keys());
    // XBEGIN and XABORT have one-byte opcodes; gathers and AMX need operands that are not tried here.
    expect([...known].filter((name) => !met.has(name) && !/GATHER|SCATTER|^T|TILE|^X/.test(name))).toEqual(
      [],
    );
  });

  it.each([
    ['PSHUFB', [0x66, 0x0f, 0x38, 0x00, 0xc1]],
    ['PCMPESTRI', [0x66, 0x48, 0x0f, 0x3a, 0x61, 0xc1, 0]],
    ['VADDPS', [0xc5, 0xf0, 0x58, 0xc2]],
    ['VZEROALL', [0xc5, 0xfc, 0x77]],
    ['VPTERNLOGQ', [0x62, 0xf3, 0xf5, 0x48, 0x25, 0xc2, 0]],
    ['VADDPH', [0x62, 0xf5, 0x74, 0x48, 0x58, 0xc2]],
    ['GETSEC', [0x0f, 0x37]],
    ['ENCLU', [0x0f, 0x01, 0xd7]],
    ['XBEGIN', [0xc7, 0xf8, 0, 0, 0, 0]],
  ])('%s raises #UD and is counted', (name, code) => {
    const one = new SingleInstruction();
    expect(one.run(Uint8Array.from(code))).toMatchObject({ vector: 6, errorCode: undefined });
    expect([...one.cpu.unmodelled]).toEqual([[name, 1]]);
  });

  it.each([
    ['LOCK', 64, [0xf0, 0x66, 0x0f, 0x38, 0x00, 0x00]],
    ['a prefix before VEX', 64, [0x66, 0xc5, 0xf0, 0x58, 0xc2]],
    ['REX before EVEX', 64, [0x48, 0x62, 0xf3, 0xf5, 0x48, 0x25, 0xc2, 0]],
    ['a reserved bit of EVEX', 64, [0x62, 0xfb, 0xf5, 0x48, 0x25, 0xc2, 0]],
    ['a map that does not exist', 64, [0xc4, 0xea, 0x70, 0x58, 0xc2]],
    ['VEX in real-address mode', 16, [0xc5, 0xf0, 0x58, 0xc2]],
    ['EVEX in real-address mode', 16, [0x62, 0xf1, 0x74, 0x48, 0x58, 0xc2]],
  ] as const)('%s makes it an undefined opcode', (_, bits, code) => {
    const one = new SingleInstruction({ bits });
    expect(one.run(Uint8Array.from(code)).vector).toBe(6);
    expect(one.cpu.unmodelled.size).toBe(0);
  });
});
